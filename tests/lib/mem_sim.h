/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_sim.h - a guest that writes to its memory while it is sent, on one thread, by a seed.
 *
 * The guest acts whenever the engine gives it a chance: between two steps, between two pages of a
 * read and in the middle of one. It fills pages from a handful of patterns, so that a page often
 * becomes again what it was; writes words; gives pages back to a balloon, of which the tracker
 * may not tell; and has a disk of ours whose data land unseen and are marked a while later.
 *
 * The link delivers streams in any order against each other, each in its own.
 */
#ifndef BM_TESTS_MEM_SIM_H
#define BM_TESTS_MEM_SIM_H

#include "vmotion/mem_receive.h"
#include "vmotion/mem_rounds.h"

#define MEM_SIM_PENDING 8u
#define MEM_SIM_QUEUE (MEM_STREAMS_MAX * MEM_STREAM_BUFS)

struct mem_sim_own_write {
	uint64_t hva, len_bytes;
};

struct mem_sim {
	uint64_t random;
	struct mem_space source, target;
	uint8_t *source_bytes, *target_bytes;   /* all blocks, by page number */
	uint8_t *present, *ever;                /* per page: holds something now; ever did */
	uint8_t *written;                       /* what the simulated tracker tells */
	struct mem_tracker tracker;
	struct mem_link link;
	struct mem_rounds *rounds;
	struct mem_receiver *receiver;
	struct mem_rounds_options options;
	struct mem_buf *queue[MEM_SIM_QUEUE];   /* oldest first */
	uint32_t queue_count;
	struct mem_sim_own_write pending[MEM_SIM_PENDING];
	uint32_t pending_count;
	bool runs;                              /* the guest */
	uint32_t activity;                      /* chance of an action, in 256 */
	uint64_t now_ns;
	const char *fault;                      /* the first rule that was seen broken */
};

/* Everything by the seed.  Ends the program where there is no memory. */
void mem_sim_init(struct mem_sim *sim, uint64_t seed);
void mem_sim_release(struct mem_sim *sim);

uint64_t mem_sim_random(struct mem_sim *sim, uint64_t bound);

/* One thing that the guest, its balloon or its disk does. */
void mem_sim_act(struct mem_sim *sim);
/* One that no stopped guest does: a device writes, and the tracker sees it. */
void mem_sim_late_write(struct mem_sim *sim);

/* Send one round to its end, with everything delivered.  0 or -errno. */
int mem_sim_round(struct mem_sim *sim, struct err *err);

/* The guest and its disk come to rest: all that has landed is marked. */
void mem_sim_stop(struct mem_sim *sim);

/* Pages that differ between the two memories. */
uint64_t mem_sim_differences(const struct mem_sim *sim);

#endif

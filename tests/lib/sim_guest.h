/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_guest.h - a guest on the simulated loop that knows what its disk may hold.
 *
 * Every write has a tag that fills its blocks, a start and an acknowledgement.  A block may
 * hold write w unless a write that began after w was acknowledged has been acknowledged
 * itself (now, for a running disk; before the last acknowledged flush began, after a power
 * cut).  Writes in flight together may land in any order.  Each read is checked, and the
 * whole disk at the end or after a crash.
 */
#ifndef BM_SIM_GUEST_H
#define BM_SIM_GUEST_H

#include "blkmirror/blkdev/blkdev.h"
#include "tests/lib/sim_disk.h"

#define SIM_GUEST_SLOTS 8
#define SIM_LOG_MAX 64

struct sim_guest_options {
	struct buf_pool *pool;
	uint32_t slots;                 /* requests in flight, at most SIM_GUEST_SLOTS */
	uint32_t op_count;              /* stops by itself after so many */
	uint64_t discard_tags[2];       /* what a discard may leave, beside zeroes */
	uint64_t think_max_ns;          /* between two requests of a slot */
	uint64_t hot_bytes;             /* half of the writes go to the first so many bytes; 0: none */
	bool scribbles;                 /* changes unstable buffers while they are in flight */
	bool discards;
	uint32_t max_blocks;            /* of one request */
};

struct sim_write {
	uint64_t tag;                   /* 0: zeroes */
	uint64_t start, end;            /* the guest's own clock; end UINT64_MAX: in flight */
};

struct sim_block {
	struct sim_write log[SIM_LOG_MAX];
	uint32_t count;
};

struct sim_slot {
	struct sim_guest *guest;
	struct blk_req req;
	struct iovec iov[2];
	struct buf *data;
	uint8_t *unstable;
	uint64_t tag, second_tag;
	uint64_t start;
	uint64_t began_ns;
	bool busy;
	struct timer think, scribble;
};

struct sim_guest {
	struct loop *loop;
	struct blk_dev *dev;
	struct sim_guest_options options;
	struct sim_slot slots[SIM_GUEST_SLOTS];
	struct sim_block *blocks;
	uint64_t clock;
	uint64_t flush_start;           /* of the last acknowledged flush with the latest start */
	uint64_t ops_started, ops_done;
	uint64_t errors;
	uint64_t longest_ns;
	uint64_t watched_ns;            /* requests begun from here on count for watched_longest_ns */
	uint64_t watched_longest_ns;
	bool stopped;
	bool dead;                      /* judged already: reads are not checked any more */
	bool expect_errors;             /* the source is made to fail */
	uint64_t next_tag;
};

struct sim_guest *sim_guest_new(struct loop *loop, struct blk_dev *dev,
				const struct sim_guest_options *options);
/* What the disk holds before the guest begins; tag 0: a hole.  Every block must be filled. */
void sim_guest_fill(struct sim_guest *guest, struct sim_disk *disk, uint64_t index, uint64_t tag);
void sim_guest_start(struct sim_guest *guest);
void sim_guest_stop(struct sim_guest *guest);
bool sim_guest_is_idle(const struct sim_guest *guest);
/* The disk as it is now holds nothing but what it may. */
void sim_guest_check(const struct sim_guest *guest, const struct sim_disk *disk);
/* The same after a power cut of that disk. */
void sim_guest_check_after_cut(const struct sim_guest *guest, const struct sim_disk *disk);
void sim_guest_free(struct sim_guest *guest);

#endif

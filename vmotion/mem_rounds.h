/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_rounds.h - the sending end: harvest what changed, send it, again and again.
 *
 *	mem_rounds_harvest()  what has changed since the last one joins what is left
 *	mem_rounds_send()     all that is left goes out, on every stream, with an end of the round
 *	mem_rounds_await()    the other end has applied it all
 *
 * and mem_policy.h between them tells what next.  The last round: stop the guest; wait until QEMU
 * says pre-switchover (a page may still change between the two); harvest, send, await; let QEMU
 * finish; and mem_rounds_check_quiet() proves that nothing changed after the last harvest (R-E1).
 *
 * The life of a page:
 *
 *   P1  harvest before reading: what changes afterwards is told by the next harvest
 *   P2  the next run of dirty pages, within a chunk, of the stream's own chunks
 *   P3  one snapshot; hash, comparison, encoding and sending see that copy only (R-E2):
 *       a page that changes from A to B and back between two looks must not leave B over there
 *   P4  a full batch is compressed and handed to the link
 *   P5, P6 are the other end's: mem_receive.h
 *
 * Chunks belong to streams by their number, so pages of one address keep their order without
 * barriers.  Each stream has a thread of its own.
 *
 * Memory: per page 16 bytes of hash (once it was sent) and five bits, per stream about 4 MiB,
 * and the cache for deltas.
 *
 * Threading: one thread (a worker, these calls block) for all of it, but for
 * mem_rounds_acknowledged(), mem_rounds_cancel() and mem_rounds_set_cap(), from any thread.
 */
#ifndef BM_VMOTION_MEM_ROUNDS_H
#define BM_VMOTION_MEM_ROUNDS_H

#include "vmotion/mem_link.h"
#include "vmotion/mem_policy.h"
#include "vmotion/mem_tracker.h"

struct mem_rounds;

enum { MEM_CODEC_AUTO = MEM_CODEC_COUNT };

struct mem_rounds_options {
	uint32_t stream_count;
	unsigned codec;                 /* enum mem_codec, or MEM_CODEC_AUTO: what is fastest */
	uint64_t cache_bytes;           /* for deltas, of all streams; 0: no deltas */
	uint64_t cap_bytes_per_s;       /* on the wire, of all streams; 0: none */
	uint64_t hash_seed;             /* random, so that nobody can make pages whose hashes meet */
	uint64_t (*now_ns)(void);       /* NULL: the monotonic clock */
};

struct mem_round_stats {
	uint32_t rounds;                /* sent, with the running one */
	uint64_t read_pages;            /* snapshots taken */
	uint64_t unchanged_pages;       /* told dirty, but with the hash of what was sent */
	uint64_t zero_pages, delta_pages, stored_pages, packed_pages;
	uint64_t wire_bytes;
	uint64_t encode_ns, waited_ns;  /* of all streams: at work, and for room on the link */
	uint64_t batches[MEM_CODEC_COUNT];
};

/* Space, tracker and link are borrowed.  Starts no thread before the first send. */
MUST_CHECK int mem_rounds_new(const struct mem_space *space, struct mem_tracker *tracker,
			      struct mem_link *link, const struct mem_rounds_options *options,
			      struct mem_rounds **out, struct err *err);
/* The link must have given every buffer back.  NULL is harmless. */
void mem_rounds_free(struct mem_rounds *rounds);

/* P1.  The first one arms the tracker and finds all that is not a hole. */
MUST_CHECK int mem_rounds_harvest(struct mem_rounds *rounds, struct err *err);
uint64_t mem_rounds_left_bytes(const struct mem_rounds *rounds);

MUST_CHECK int mem_rounds_send(struct mem_rounds *rounds, struct err *err);

/* The other end has applied round `round` and all before it. */
void mem_rounds_acknowledged(struct mem_rounds *rounds, uint32_t round);
/* Wait until the last round sent is acknowledged; -ETIMEDOUT after timeout_ns. */
MUST_CHECK int mem_rounds_await(struct mem_rounds *rounds, uint64_t timeout_ns, struct err *err);

/* R-E1: has anything changed since the last harvest?  0, or -ESTALE with how much and where. */
MUST_CHECK int mem_rounds_check_quiet(struct mem_rounds *rounds, struct err *err);

/* What runs and what comes ends with -ECANCELED. */
void mem_rounds_cancel(struct mem_rounds *rounds);
void mem_rounds_set_cap(struct mem_rounds *rounds, uint64_t cap_bytes_per_s);

/* With no round running. */
void mem_rounds_stats(const struct mem_rounds *rounds, struct mem_round_stats *out);

/* ---- step by step instead of mem_rounds_send(), for a simulation on one thread ---- */

enum mem_step { MEM_STEP_MORE, MEM_STEP_NO_ROOM, MEM_STEP_DONE };

void mem_rounds_start(struct mem_rounds *rounds);
/* At most one batch of a stream; MEM_STEP_DONE: the round has ended on it, see mem_rounds_error(). */
enum mem_step mem_rounds_step(struct mem_rounds *rounds, uint32_t stream);
int mem_rounds_error(struct mem_rounds *rounds);

#endif

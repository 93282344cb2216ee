/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_engine.h - makes dirty regions clean: scan, read, test, hash, write.
 *
 * It walks the dirty bitmap in the order of the disk.  Long dirty runs are scanned first:
 * a scan window asks the source's extents and clears what is a hole and has never been
 * written on a target that reads zeroes (R11); data and holes that must be zeroed become
 * runs.  Runs are copied by jobs, one copy window each: read the source, leave out zeroes,
 * hash each region, write what is left.
 *
 *     dirty bitmap -> scan -> runs (bounded ring) -> jobs (as many as the pacer allows)
 *
 * A region that keeps being broken or busy is copied through a dual window (R4), so the
 * copy converges in one pass however hot a region is.
 *
 * Threading: the mirror's loop.
 */
#ifndef BM_COPY_ENGINE_H
#define BM_COPY_ENGINE_H

#include "blkmirror/mirror/hash_store.h"
#include "blkmirror/mirror/mirror.h"
#include "blkmirror/mirror/pacer.h"

struct copy_engine;

struct copy_hooks {
	/* Nothing is dirty and no job is left: in sync.  From a posted task. */
	void (*synced)(void *user);
	/* Stopped, and no job is left.  From a posted task. */
	void (*stopped)(void *user);
	/* A job failed; its regions stay dirty.  The engine goes on unless stopped. */
	void (*failed)(bool at_source, int error, uint64_t offset_bytes, void *user);
	/* A region has been copied: to be verified. */
	void (*copied)(uint64_t offset_bytes, uint64_t len_bytes, void *user);
};

struct copy_stats {
	uint64_t copied_bytes, zero_bytes, hole_bytes, recopied_bytes;
	uint64_t jobs, dual_jobs;
	uint64_t target_writes;         /* that succeeded */
};

/*
 * Borrows all it is given.  `hashes` may be NULL: nothing is going to be verified.
 * NULL: out of memory.
 */
struct copy_engine *copy_engine_new(struct mirror *mirror, struct buf_pool *pool,
				    struct pacer *pacer, struct hash_store *hashes,
				    const struct copy_hooks *hooks, void *user);
/* Stopped only. */
void copy_engine_free(struct copy_engine *engine);

void copy_engine_start(struct copy_engine *engine);
/* Starts no job any more.  copy_engine_is_stopped() once none is in flight. */
void copy_engine_stop(struct copy_engine *engine);
bool copy_engine_is_stopped(const struct copy_engine *engine);

/* At most so many jobs at once, 1 for a probe; 0: as many as the pacer allows. */
void copy_engine_set_jobs_max(struct copy_engine *engine, uint32_t jobs_max);

/* Look again: something is dirty, settled, or the pacer has room. */
void copy_engine_kick(struct copy_engine *engine);

void copy_engine_stats(const struct copy_engine *engine, struct copy_stats *out);

/* When the oldest target write in flight was started; UINT64_MAX: none. */
uint64_t copy_engine_oldest_write_ns(const struct copy_engine *engine);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_job.h - copy one idle device to another: an import or an export.
 *
 * Nobody writes to either while it runs, so there is no mirror.  What reads as zeroes is not
 * written where the target reads zeroes already (R11), else it is zeroed, unmapping where
 * the target may be thin.  Ends with a flush of the target.
 *
 * Bounds: COPY_JOB_DEPTH requests of COPY_JOB_CHUNK_BYTES.
 *
 * Threading: lives on the devices' loop; copy_job_done_bytes() and copy_job_cancel() from
 * any thread.
 */
#ifndef BM_COPY_JOB_H
#define BM_COPY_JOB_H

#include "blkmirror/blkdev/blkdev.h"

#define COPY_JOB_DEPTH 8u
#define COPY_JOB_CHUNK_BYTES (1u << 20)
#define COPY_JOB_GRAIN_BYTES (64u << 10)        /* zeroes are found in pieces of this size */

struct copy_job;

struct copy_job_spec {
	struct blk_dev *source, *target;        /* borrowed; one loop */
	struct buf_pool *pool;
	uint64_t size_bytes;                    /* at most both sizes */
	bool keep_allocated;                    /* do not unmap: the target is thick */
	/* On the loop, once: 0, or -errno; source_failed tells whose error it is.  -ECANCELED. */
	void (*done)(struct copy_job *job, int result, bool source_failed, void *user);
	void *user;
};

struct copy_job_stats {
	uint64_t copied_bytes, zero_bytes, hole_bytes;
};

/* Begins at once.  NULL: out of memory.  Free it from done() on. */
struct copy_job *copy_job_start(const struct copy_job_spec *spec);
void copy_job_free(struct copy_job *job);
void copy_job_cancel(struct copy_job *job);                                     /* [any] */
void copy_job_stats(const struct copy_job *job, struct copy_job_stats *out);   /* [any] */

/* All bytes zero?  Any alignment. */
bool bytes_are_zero(const uint8_t *bytes, size_t count);

#endif

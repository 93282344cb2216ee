/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bulk_copy.h - copy one idle device to another: an import or an export.
 *
 * Nobody writes to either while it runs, so there is no mirror.  What reads as zeroes is not
 * written where the target reads zeroes already (R11), else it is zeroed, unmapping where
 * the target may be thin.  Ends with a flush of the target.
 *
 * Bounds: BULK_COPY_DEPTH requests of BULK_COPY_CHUNK_BYTES.
 *
 * Threading: lives on the devices' loop; bulk_copy_done_bytes() and bulk_copy_cancel() from
 * any thread.
 */
#ifndef BM_BULK_COPY_H
#define BM_BULK_COPY_H

#include "blkmirror/blkdev/blkdev.h"

#define BULK_COPY_DEPTH 8u
#define BULK_COPY_CHUNK_BYTES (1u << 20)
#define BULK_COPY_GRAIN_BYTES (64u << 10)        /* zeroes are found in pieces of this size */

struct bulk_copy;

struct bulk_copy_spec {
	struct blk_dev *source, *target;        /* borrowed; one loop */
	struct buf_pool *pool;
	uint64_t size_bytes;                    /* at most both sizes */
	bool keep_allocated;                    /* do not unmap: the target is thick */
	/* On the loop, once: 0, or -errno; source_failed tells whose error it is.  -ECANCELED. */
	void (*done)(struct bulk_copy *job, int result, bool source_failed, void *user);
	void *user;
};

struct bulk_copy_stats {
	uint64_t copied_bytes, zero_bytes, hole_bytes;
};

/* Begins at once.  NULL: out of memory.  Free it from done() on. */
struct bulk_copy *bulk_copy_start(const struct bulk_copy_spec *spec);
void bulk_copy_free(struct bulk_copy *job);
void bulk_copy_cancel(struct bulk_copy *job);                                     /* [any] */
void bulk_copy_stats(const struct bulk_copy *job, struct bulk_copy_stats *out);   /* [any] */


#endif

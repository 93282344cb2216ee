/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bulk_compare.h - read two idle devices, count the bytes that differ, hash the first.
 *
 * The hash is XXH3 (128 bits) over the first device in order, up to the shorter size, so it can
 * be compared with that of any other copy.  What both say reads as zeroes is not read.
 *
 * Bounds: BULK_COMPARE_DEPTH pairs of BULK_COMPARE_CHUNK_BYTES.
 * Threading: lives on the devices' loop; cancel and progress from any thread.
 */
#ifndef BM_BULK_COMPARE_H
#define BM_BULK_COMPARE_H

#include "blkmirror/blkdev/blkdev.h"

#define BULK_COMPARE_DEPTH 4u
#define BULK_COMPARE_CHUNK_BYTES (1u << 20)
#define BULK_COMPARE_HASH_TEXT_BYTES 33

struct bulk_compare;

struct bulk_compare_result {
	int result;                     /* 0, -ECANCELED, or -errno of a read */
	uint64_t differing_bytes;       /* a longer tail counts as differing */
	char hash[BULK_COMPARE_HASH_TEXT_BYTES];
};

struct bulk_compare_spec {
	struct blk_dev *first, *second; /* borrowed; one loop */
	struct buf_pool *pool;
	/* On the loop, once. */
	void (*done)(struct bulk_compare *job, const struct bulk_compare_result *result, void *user);
	void *user;
};

/* Begins at once.  NULL: out of memory.  Free it from done() on. */
struct bulk_compare *bulk_compare_start(const struct bulk_compare_spec *spec);
void bulk_compare_free(struct bulk_compare *job);
void bulk_compare_cancel(struct bulk_compare *job);                       /* [any] */
uint64_t bulk_compare_done_bytes(const struct bulk_compare *job);         /* [any] */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_job.h - read two idle devices, count the bytes that differ, hash the first.
 *
 * The hash is XXH3 (128 bits) over the first device in order, up to the shorter size, so it can
 * be compared with that of any other copy.  What both say reads as zeroes is not read.
 *
 * Bounds: COMPARE_JOB_DEPTH pairs of COMPARE_JOB_CHUNK_BYTES.
 * Threading: lives on the devices' loop; cancel and progress from any thread.
 */
#ifndef BM_COMPARE_JOB_H
#define BM_COMPARE_JOB_H

#include "blkmirror/blkdev/blkdev.h"

#define COMPARE_JOB_DEPTH 4u
#define COMPARE_JOB_CHUNK_BYTES (1u << 20)
#define COMPARE_HASH_TEXT_BYTES 33

struct compare_job;

struct compare_result {
	int result;                     /* 0, -ECANCELED, or -errno of a read */
	uint64_t differing_bytes;       /* a longer tail counts as differing */
	char hash[COMPARE_HASH_TEXT_BYTES];
};

struct compare_job_spec {
	struct blk_dev *first, *second; /* borrowed; one loop */
	struct buf_pool *pool;
	/* On the loop, once. */
	void (*done)(struct compare_job *job, const struct compare_result *result, void *user);
	void *user;
};

/* Begins at once.  NULL: out of memory.  Free it from done() on. */
struct compare_job *compare_job_start(const struct compare_job_spec *spec);
void compare_job_free(struct compare_job *job);
void compare_job_cancel(struct compare_job *job);                       /* [any] */
uint64_t compare_job_done_bytes(const struct compare_job *job);         /* [any] */

#endif

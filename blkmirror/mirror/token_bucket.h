/* SPDX-License-Identifier: Apache-2.0 */
/*
 * token_bucket.h - so many bytes a second, exactly, however often one looks.
 *
 * Tokens may go below zero: who must not wait takes them all the same, and others wait until
 * the debt is paid.
 *
 * Units: bytes and nanoseconds; now_ns never goes back.  Threading: one loop.
 */
#ifndef BM_TOKEN_BUCKET_H
#define BM_TOKEN_BUCKET_H

#include <stdint.h>

struct token_bucket {
	uint64_t rate_bytes_per_s;      /* at least 1 */
	uint64_t burst_bytes;           /* at most so much is saved up */
	int64_t tokens_bytes;
	uint64_t refilled_ns;
};

/* Empty at first.  burst_bytes fits an int64_t. */
void token_bucket_init(struct token_bucket *bucket, uint64_t rate_bytes_per_s,
		       uint64_t burst_bytes, uint64_t now_ns);

/* From now on at another rate; what has been earned until now stays, up to the new burst. */
void token_bucket_set_rate(struct token_bucket *bucket, uint64_t rate_bytes_per_s,
			   uint64_t burst_bytes, uint64_t now_ns);

/* The tokens that there are now. */
int64_t token_bucket_look(struct token_bucket *bucket, uint64_t now_ns);
void token_bucket_take(struct token_bucket *bucket, uint64_t bytes);

/* How long from the last look until there is a token; 0: there is one.  UINT64_MAX: for ever. */
uint64_t token_bucket_wait_ns(const struct token_bucket *bucket);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/token_bucket.h"

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

void token_bucket_init(struct token_bucket *bucket, uint64_t rate_bytes_per_s,
		       uint64_t burst_bytes, uint64_t now_ns)
{
	CHECK(rate_bytes_per_s > 0);
	CHECK(burst_bytes <= INT64_MAX);
	*bucket = (struct token_bucket){ .rate_bytes_per_s = rate_bytes_per_s,
					 .burst_bytes = burst_bytes, .refilled_ns = now_ns };
}

void token_bucket_set_rate(struct token_bucket *bucket, uint64_t rate_bytes_per_s,
			   uint64_t burst_bytes, uint64_t now_ns)
{
	int64_t tokens_bytes = token_bucket_look(bucket, now_ns);

	token_bucket_init(bucket, rate_bytes_per_s, burst_bytes, now_ns);
	bucket->tokens_bytes = MIN(tokens_bytes, (int64_t)burst_bytes);
}

int64_t token_bucket_look(struct token_bucket *bucket, uint64_t now_ns)
{
	unsigned __int128 earned = (unsigned __int128)(now_ns - bucket->refilled_ns) *
				   bucket->rate_bytes_per_s / NS_PER_S;
	unsigned __int128 room = (unsigned __int128)((__int128)bucket->burst_bytes -
						     bucket->tokens_bytes);

	if (earned == 0)
		return bucket->tokens_bytes;
	/* Only the time of whole bytes is used up: what remains of it counts the next time. */
	bucket->refilled_ns += (uint64_t)(earned * NS_PER_S / bucket->rate_bytes_per_s);
	bucket->tokens_bytes += (int64_t)MIN(earned, room);
	return bucket->tokens_bytes;
}

void token_bucket_take(struct token_bucket *bucket, uint64_t bytes)
{
	bucket->tokens_bytes -= (int64_t)bytes;
}

uint64_t token_bucket_wait_ns(const struct token_bucket *bucket)
{
	unsigned __int128 wait_ns;

	if (bucket->tokens_bytes > 0)
		return 0;
	wait_ns = (unsigned __int128)((__int128)1 - bucket->tokens_bytes) * NS_PER_S;
	wait_ns = (wait_ns + bucket->rate_bytes_per_s - 1) / bucket->rate_bytes_per_s;
	return (uint64_t)MIN(wait_ns, (unsigned __int128)UINT64_MAX);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_policy.h"

#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

#define MIB (UINT64_C(1) << 20)

/* bytes / rate in nanoseconds, rounded up; UINT64_MAX where that is no time at all. */
static uint64_t time_ns(uint64_t bytes, uint64_t rate)
{
	unsigned __int128 ns = (unsigned __int128)bytes * NS_PER_S;

	if (!bytes)
		return 0;
	if (!rate)
		return UINT64_MAX;
	ns = (ns + rate - 1) / rate;
	return ns < UINT64_MAX ? (uint64_t)ns : UINT64_MAX;
}

uint64_t mem_policy_blackout_ns(const struct mem_facts *facts)
{
	uint64_t send_ns = time_ns(facts->left_bytes, facts->page_rate), sum;

	return u64_add(send_ns, facts->fixed_ns, &sum) ? sum : UINT64_MAX;
}

void mem_policy_note(struct mem_facts *facts)
{
	if (facts->left_bytes < facts->best_left_bytes - facts->best_left_bytes / 10) {
		facts->best_left_bytes = facts->left_bytes;
		facts->stalled_rounds = 0;
	} else {
		facts->stalled_rounds++;
	}
}

/*
 * The throttle at which the guest dirties at half the rate of the link.  Its rate without any
 * throttle is guessed from the rate under the one in force: rate / (1 - throttle).
 */
static uint32_t throttle_needed(const struct mem_policy_options *options,
				const struct mem_facts *facts)
{
	uint32_t most = MIN(options->max_throttle_percent, MEM_THROTTLE_MAX_PERCENT);
	uint64_t free_percent = 100 - MIN(facts->throttle_percent, MEM_THROTTLE_MAX_PERCENT);
	uint64_t wanted = facts->page_rate / 2, kept;
	uint32_t percent;

	if (facts->dirty_rate <= wanted)
		kept = free_percent - MIN(free_percent - 1, 10);
	else if (!u64_mul(free_percent, wanted, &kept))
		kept = free_percent;
	else
		kept /= facts->dirty_rate;
	percent = (uint32_t)(100 - MIN(kept, 100));
	/* It did not converge so far, so a little more than now at least. */
	percent = MAX(percent, facts->throttle_percent + 5);
	return MIN(percent, most);
}

static bool is_hopeless(const struct mem_policy_options *options, const struct mem_facts *facts)
{
	uint32_t most = MIN(options->max_throttle_percent, MEM_THROTTLE_MAX_PERCENT);

	if (options->max_rounds && facts->rounds >= options->max_rounds)
		return true;
	return facts->throttle_percent >= most &&
	       facts->stalled_rounds >= MEM_STALLED_ROUNDS + MEM_HOPELESS_ROUNDS;
}

struct mem_decision mem_policy_decide(const struct mem_policy_options *options,
				      const struct mem_facts *facts)
{
	struct mem_decision decision = {
		.verdict = MEM_ROUND,
		.throttle_percent = facts->throttle_percent,
		.blackout_ns = mem_policy_blackout_ns(facts),
	};

	if (!facts->first_done)
		return decision;
	if (facts->disks_copying) {
		/* Nothing waits for the memory: send it gently, and let the guest run freely. */
		decision.throttle_percent = 0;
		if (decision.blackout_ns <= options->blackout_ns)
			decision.verdict = MEM_WAIT;
		return decision;
	}
	if (decision.blackout_ns <= options->blackout_ns) {
		decision.verdict = MEM_STOP;
		return decision;
	}
	if (is_hopeless(options, facts)) {
		decision.verdict = MEM_GIVE_UP;
		decision.throttle_percent = 0;
		return decision;
	}
	if (facts->stalled_rounds >= MEM_STALLED_ROUNDS)
		decision.throttle_percent = MAX(facts->throttle_percent,
						throttle_needed(options, facts));
	return decision;
}

/* ---- codecs ---- */

void mem_codec_facts_init(struct mem_codec_facts *facts)
{
	/* Optimistic, so that each gets its try where it might be the best. */
	static const uint64_t encode_ns[MEM_CODEC_COUNT] = {
		150 * NS_PER_US, 1000 * NS_PER_US, 2000 * NS_PER_US,
	};
	static const uint32_t ratio[MEM_CODEC_COUNT] = { 1024, 512, 384 };

	memcpy(facts->encode_ns, encode_ns, sizeof(encode_ns));
	memcpy(facts->ratio, ratio, sizeof(ratio));
	facts->link_ns = 0;
}

/* A quarter of the new, three of the old. */
static uint64_t blend(uint64_t old, uint64_t new)
{
	return old - old / 4 + new / 4;
}

void mem_codec_facts_note(struct mem_codec_facts *facts, enum mem_codec codec, uint64_t raw_bytes,
			  uint64_t wire_bytes, uint64_t encode_ns)
{
	uint64_t per_mib, ratio;

	CHECK(codec < MEM_CODEC_COUNT);
	/* Too little to judge by: what compresses well leaves bytes enough. */
	if (raw_bytes < MIB / 4 || !u64_mul(encode_ns, MIB, &per_mib))
		return;
	ratio = MIN(wire_bytes, raw_bytes) * 1024 / raw_bytes;
	facts->encode_ns[codec] = blend(facts->encode_ns[codec], per_mib / raw_bytes);
	facts->ratio[codec] = (uint32_t)blend(facts->ratio[codec], ratio);
}

/* Encoding and sending go on side by side: the slower of them counts. */
static uint64_t cost_ns(const struct mem_codec_facts *facts, enum mem_codec codec)
{
	uint64_t wire_ns = facts->link_ns / 1024 * facts->ratio[codec];

	return MAX(facts->encode_ns[codec], wire_ns);
}

enum mem_codec mem_policy_codec(const struct mem_codec_facts *facts, enum mem_codec current)
{
	enum mem_codec best = current;

	for (enum mem_codec codec = 0; codec < MEM_CODEC_COUNT; codec++) {
		uint64_t now = cost_ns(facts, current);

		if (cost_ns(facts, codec) < now - now / 10 &&
		    cost_ns(facts, codec) < cost_ns(facts, best))
			best = codec;
	}
	return best;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/guest_watch.h"

#include <string.h>

#include "blkmirror/base/check.h"
#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

#define IDLE_SAMPLES 5u                 /* a guest also waits for its own CPU */
#define SLACK_NS (250 * NS_PER_US)      /* differences below are the machine's, not the copier's */

#define LATE_PPM 5000u                  /* of its requests may be late */
#define PPM INT64_C(1000000)            /* what a late one adds to the debt */
#define CREDIT_SAMPLES 2u               /* so the first outliers in a while are free */
#define DEBT_SAMPLES 50u                /* paid off after so many without a late one */

#define ALONE_UNIT 16u                  /* weight of a request just seen */
#define ALONE_OPS 1000u                 /* so many are remembered, or so many looks */
#define ALONE_LOOKS 16u
#define ALONE_TAIL_PER_MILLE 990u

void guest_watch_forget(struct guest_watch *watch)
{
	memset(watch->alone_buckets, 0, sizeof(watch->alone_buckets));
	watch->alone_total = watch->alone_sum_ns = watch->alone_ops = 0;
	watch->late_ns = 0;
	watch->debt = 0;
}

void guest_watch_init(struct guest_watch *watch, const struct io_snapshot *now, uint64_t sample_ns)
{
	*watch = (struct guest_watch){ .last = *now, .sample_ns = sample_ns,
				       .quiet_samples = IDLE_SAMPLES };
}

uint64_t guest_watch_ops(const struct guest_watch *watch)
{
	return io_snapshot_ops(&watch->seen);
}

/* ---- alone ---- */

/* What was seen longer ago counts less. */
static void guest_watch_fade(struct guest_watch *watch)
{
	uint64_t before = watch->alone_total;

	watch->alone_total = 0;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++) {
		watch->alone_buckets[i] -= div_round_up(watch->alone_buckets[i], ALONE_LOOKS);
		watch->alone_total += watch->alone_buckets[i];
	}
	/* Few in each bucket fade faster: the mean must not drift for that. */
	watch->alone_sum_ns = (uint64_t)((unsigned __int128)watch->alone_sum_ns *
					 watch->alone_total / before);
}

/* The mean. */
static uint64_t guest_watch_alone_ns(const struct guest_watch *watch)
{
	return watch->alone_sum_ns / MAX(watch->alone_total, UINT64_C(1));
}

/* Where the 99th percentile is, and how many in a million are beyond two and a half of it. */
static void guest_watch_find_tail(struct guest_watch *watch)
{
	uint64_t wanted = watch->alone_total * ALONE_TAIL_PER_MILLE / 1000;
	uint64_t seen = 0, late = 0, tail_ns;
	unsigned i;

	for (i = 0; i < IO_STATS_BUCKETS - 1 && seen + watch->alone_buckets[i] <= wanted; i++)
		seen += watch->alone_buckets[i];
	tail_ns = io_stats_bucket_limit_ns(i);
	watch->late_ns = tail_ns + MAX(tail_ns / 2 * 3, SLACK_NS);
	for (; i < IO_STATS_BUCKETS; i++)
		if (io_stats_bucket_limit_ns(i) > watch->late_ns)
			late += watch->alone_buckets[i];
	watch->late_ppm = LATE_PPM + late * 1000000 / watch->alone_total * 3 / 2;
}

void guest_watch_learn(struct guest_watch *watch)
{
	uint64_t ops = guest_watch_ops(watch), late_ns = watch->late_ns;

	watch->debt = watch->debt_before;       /* what was late now was not so for us */
	if (ops == 0)
		return;
	if (watch->seen.latency_sum_ns / ops < guest_watch_alone_ns(watch) / 2)
		guest_watch_forget(watch);      /* it works differently now: the old tail is not its own */
	if (watch->alone_total > MAX(ALONE_LOOKS * ops, UINT64_C(1) * ALONE_OPS) * ALONE_UNIT)
		guest_watch_fade(watch);
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		watch->alone_buckets[i] += watch->seen.buckets[i] * ALONE_UNIT;
	watch->alone_total += ops * ALONE_UNIT;
	watch->alone_sum_ns += watch->seen.latency_sum_ns * ALONE_UNIT;
	watch->alone_ops = watch->alone_ops ? (watch->alone_ops * 3 + ops) / 4 : ops;
	guest_watch_find_tail(watch);
	/* What passed for late is how it is alone: no debt then. */
	if (watch->late_ns / 5 * 4 > late_ns)
		watch->debt = MIN(watch->debt, INT64_C(0));
}

/* ---- judging ---- */

/* It waits for each request, and gets less than half of them. */
static bool guest_watch_starves(const struct guest_watch *watch, uint64_t ops)
{
	return watch->seen.latency_sum_ns / ops > guest_watch_alone_ns(watch) * 2 &&
	       ops < watch->alone_ops / 2;
}

/* A request may take longer than a sample where it does so alone. */
static bool guest_watch_is_stuck(const struct guest_watch *watch)
{
	return watch->stuck_samples * watch->sample_ns > watch->late_ns;
}

/* What these requests were allowed, in parts of a late one; at least one of those. */
static int64_t guest_watch_allowance(const struct guest_watch *watch, uint64_t ops)
{
	return (int64_t)MAX(ops * watch->late_ppm, (uint64_t)PPM);
}

static enum guest_mood guest_watch_judge_ops(struct guest_watch *watch, uint64_t ops)
{
	uint64_t late = io_snapshot_slower(&watch->seen, watch->late_ns);
	int64_t debt = watch->debt + (int64_t)late * PPM - (int64_t)(ops * watch->late_ppm);

	debt = MAX(debt, -guest_watch_allowance(watch, CREDIT_SAMPLES * ops));
	watch->debt = MIN(debt, guest_watch_allowance(watch, DEBT_SAMPLES * ops));
	if (guest_watch_starves(watch, ops))
		return GUEST_STARVES;
	if (watch->debt <= 0)
		return GUEST_FINE;
	if (late == 0)
		return GUEST_TOUCHY;
	return late >= 2 && late * 4 >= ops ? GUEST_VERY_LATE : GUEST_LATE;
}

static enum guest_mood guest_watch_judge(struct guest_watch *watch)
{
	uint64_t ops = guest_watch_ops(watch);

	if (watch->quiet_samples >= IDLE_SAMPLES)
		return GUEST_IDLE;
	if (ops)
		return watch->late_ns ? guest_watch_judge_ops(watch, ops) : GUEST_UNKNOWN;
	if (watch->in_flight)
		return guest_watch_is_stuck(watch) ? GUEST_STUCK : GUEST_TOUCHY;
	return GUEST_TOUCHY;            /* a moment without requests is no idle guest */
}

void guest_watch_sample(struct guest_watch *watch, const struct io_snapshot *now,
			uint64_t in_flight)
{
	bool some_done;

	watch->seen = *now;
	io_snapshot_subtract(&watch->seen, &watch->last);
	watch->last = *now;
	watch->in_flight = in_flight;
	watch->debt_before = watch->debt;
	some_done = guest_watch_ops(watch) > 0;
	watch->quiet_samples = some_done || in_flight ? 0 : MIN(watch->quiet_samples + 1, 1u << 30);
	watch->stuck_samples = some_done || !in_flight ? 0 : MIN(watch->stuck_samples + 1, 1u << 30);
	watch->mood = guest_watch_judge(watch);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger_stats.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SUB_BITS = 4, SUB_COUNT = 1 << SUB_BITS };

uint64_t stats_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- histogram: 16 linear steps in every power of two, so within 6 % ---- */

static unsigned bucket_index(uint64_t value)
{
	unsigned top;

	if (value < SUB_COUNT)
		return (unsigned)value;
	top = 63u - (unsigned)__builtin_clzll(value);
	return (top - SUB_BITS + 1) * SUB_COUNT +
	       (unsigned)((value >> (top - SUB_BITS)) & (SUB_COUNT - 1));
}

static uint64_t bucket_upper(unsigned index)
{
	unsigned shift;

	if (index < SUB_COUNT)
		return index;
	shift = index / SUB_COUNT - 1;
	return (((uint64_t)SUB_COUNT + index % SUB_COUNT + 1) << shift) - 1;
}

static uint64_t percentile_ns(const struct stats_window *window, unsigned percent)
{
	uint64_t wanted = (window->sample_count * percent + 99) / 100;
	uint64_t seen = 0;

	if (!window->sample_count)
		return 0;
	for (unsigned i = 0; i < STATS_BUCKET_COUNT; i++) {
		seen += window->buckets[i];
		if (seen >= wanted) {
			uint64_t upper = bucket_upper(i);

			return upper < window->max_ns ? upper : window->max_ns;
		}
	}
	return window->max_ns;
}

/* ---- windows ---- */

static void window_init(struct stats_window *window, uint64_t now_ns)
{
	memset(window, 0, offsetof(struct stats_window, cpu_gap_ns));
	window->started_ns = now_ns;
}

void stats_init(struct stats *stats, uint64_t now_ns)
{
	memset(stats, 0, sizeof(*stats));
	window_init(&stats->second, now_ns);
	window_init(&stats->phase, now_ns);
}

void stats_started(struct stats *stats, uint64_t now_ns)
{
	if (stats->in_flight++ == 0)
		stats->quiet_since_ns = now_ns;
}

static void window_finished(struct stats_window *window, enum stats_op op, uint64_t took_ns,
			    uint64_t gap_ns)
{
	if (gap_ns > window->gap_ns)
		window->gap_ns = gap_ns;
	if (op == STATS_FLUSH) {
		if (took_ns > window->flush_max_ns)
			window->flush_max_ns = took_ns;
		return;
	}
	window->op_count++;
	if (op != STATS_READ && op != STATS_WRITE)
		return;
	window->sample_count++;
	window->buckets[bucket_index(took_ns)]++;
	if (took_ns > window->max_ns)
		window->max_ns = took_ns;
}

/*
 * How long requests have been waiting in silence.  A phase counts its own time only; a second
 * shows a gap whole, so that an outage of 3 s reads 1000, 2000, 3000 and not three times 1000.
 */
static uint64_t window_gap(const struct stats *stats, const struct stats_window *window,
			   uint64_t now_ns)
{
	uint64_t since_ns = stats->quiet_since_ns;

	if (window == &stats->phase && since_ns < window->started_ns)
		since_ns = window->started_ns;
	return now_ns - since_ns;
}

void stats_finished(struct stats *stats, enum stats_op op, uint64_t started_ns, uint64_t now_ns)
{
	uint64_t took_ns = now_ns - started_ns;

	window_finished(&stats->second, op, took_ns, window_gap(stats, &stats->second, now_ns));
	window_finished(&stats->phase, op, took_ns, window_gap(stats, &stats->phase, now_ns));
	stats->totals[op]++;
	stats->in_flight--;
	stats->quiet_since_ns = now_ns;
}

static void raise_to(_Atomic uint64_t *place, uint64_t value)
{
	uint64_t old = atomic_load(place);

	while (old < value && !atomic_compare_exchange_weak(place, &old, value))
		;
}

void stats_cpu_gap(struct stats *stats, uint64_t gap_ns)
{
	raise_to(&stats->second.cpu_gap_ns, gap_ns);
	raise_to(&stats->phase.cpu_gap_ns, gap_ns);
}

void stats_close_window(struct stats *stats, struct stats_window *window, uint64_t now_ns,
			char *text, size_t text_bytes)
{
	uint64_t span_ns = now_ns - window->started_ns;
	uint64_t running_ns = stats->in_flight ? window_gap(stats, window, now_ns) : 0;
	uint64_t gap_ns = running_ns > window->gap_ns ? running_ns : window->gap_ns;
	uint64_t cpu_gap_ns = atomic_exchange(&window->cpu_gap_ns, 0);

	snprintf(text, text_bytes,
		 "iops=%" PRIu64 " p50_us=%" PRIu64 " p99_us=%" PRIu64 " max_us=%" PRIu64
		 " writes=%" PRIu64 " reads=%" PRIu64 " errors=%" PRIu64
		 " longest_gap_ms=%" PRIu64 " cpu_gap_ms=%" PRIu64 " flush_max_us=%" PRIu64,
		 span_ns ? (uint64_t)((double)window->op_count * 1e9 / (double)span_ns + 0.5) : 0,
		 percentile_ns(window, 50) / 1000, percentile_ns(window, 99) / 1000,
		 window->max_ns / 1000, stats->totals[STATS_WRITE], stats->totals[STATS_READ],
		 stats->error_count, gap_ns / 1000000, cpu_gap_ns / 1000000,
		 window->flush_max_ns / 1000);
	window_init(window, now_ns);
}

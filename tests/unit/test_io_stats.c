/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: counters add up, and a quantile is never off by more than one bucket (1/16). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blkmirror/blkdev/blkdev.h"

#include "blkmirror/blkdev/io_stats.h"

static struct io_stats *stats_new(void **state)
{
	struct io_stats *stats = *state;

	*stats = (struct io_stats){ 0 };
	return stats;
}

static void test_counters(void **state)
{
	struct io_stats *stats = stats_new(state);
	struct io_snapshot now;

	io_stats_record(stats, BLK_READ, 4096, 1000, 0);
	io_stats_record(stats, BLK_WRITE, 512, 2000, 0);
	io_stats_record(stats, BLK_WRITE_ZEROES, 1024, 3000, 0);
	io_stats_record(stats, BLK_DISCARD, 2048, 4000, -EIO);
	io_stats_record(stats, BLK_FLUSH, 0, 5000, 0);
	io_stats_snapshot(stats, &now);
	assert_int_equal(now.read_ops, 1);
	assert_int_equal(now.read_bytes, 4096);
	assert_int_equal(now.write_ops, 3);
	assert_int_equal(now.write_bytes, 512 + 1024 + 2048);
	assert_int_equal(now.flush_ops, 1);
	assert_int_equal(now.errors, 1);
	assert_int_equal(now.latency_sum_ns, 15000);
	assert_int_equal(io_snapshot_ops(&now), 5);
}

static void test_subtract(void **state)
{
	struct io_stats *stats = stats_new(state);
	struct io_snapshot before, after;

	for (int i = 0; i < 10; i++)
		io_stats_record(stats, BLK_READ, 512, NS_PER_S, -EIO);
	io_stats_snapshot(stats, &before);
	for (int i = 0; i < 7; i++)
		io_stats_record(stats, BLK_WRITE, 512, NS_PER_MS, 0);
	io_stats_snapshot(stats, &after);
	io_snapshot_subtract(&after, &before);
	assert_int_equal(after.read_ops, 0);
	assert_int_equal(after.errors, 0);
	assert_int_equal(after.write_ops, 7);
	assert_int_equal(after.write_bytes, 7 * 512);
	assert_int_equal(after.latency_sum_ns, 7 * NS_PER_MS);
	/* The slow reads of before are no longer seen. */
	assert_in_range(io_snapshot_quantile_ns(&after, 1000), NS_PER_MS, NS_PER_MS * 17 / 16 + 1);
}

static void test_take_max(void **state)
{
	struct io_stats *stats = stats_new(state);

	assert_int_equal(io_stats_take_max_ns(stats), 0);
	io_stats_record(stats, BLK_READ, 512, 30, 0);
	io_stats_record(stats, BLK_READ, 512, 50, 0);
	io_stats_record(stats, BLK_READ, 512, 40, 0);
	assert_int_equal(io_stats_take_max_ns(stats), 50);
	assert_int_equal(io_stats_take_max_ns(stats), 0);
}

static void test_bucket_limits_grow_by_a_sixteenth(void **state)
{
	uint64_t last_ns = 0;

	(void)state;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++) {
		uint64_t limit_ns = io_stats_bucket_limit_ns(i);

		assert_true(limit_ns > last_ns);
		if (i >= IO_STATS_SUB_BUCKETS)
			assert_true((limit_ns - last_ns) * 16 <= last_ns);
		last_ns = limit_ns;
	}
	assert_true(last_ns >= 64 * NS_PER_S);
}

/* One value alone: every quantile is the limit of the bucket that holds it. */
static void test_each_value_in_its_bucket(void **state)
{
	struct io_snapshot now;

	for (uint64_t ns = 1; ns < 64 * NS_PER_S; ns = ns * 9 / 8 + 1) {
		struct io_stats *stats = stats_new(state);
		uint64_t limit_ns;

		io_stats_record(stats, BLK_READ, 512, ns, 0);
		io_stats_snapshot(stats, &now);
		limit_ns = io_snapshot_quantile_ns(&now, 500);
		assert_true(limit_ns > ns);
		assert_true(limit_ns <= ns + MAX(ns / 16, 64));
	}
}

static void test_quantiles(void **state)
{
	struct io_stats *stats = stats_new(state);
	struct io_snapshot now;

	io_stats_snapshot(stats, &now);
	assert_int_equal(io_snapshot_quantile_ns(&now, 999), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		io_stats_record(stats, BLK_READ, 512, us * NS_PER_US, 0);
	io_stats_snapshot(stats, &now);
	for (unsigned per_mille = 1; per_mille <= 1000; per_mille++) {
		uint64_t exact_ns = per_mille * NS_PER_US;
		uint64_t found_ns = io_snapshot_quantile_ns(&now, per_mille);

		assert_in_range(found_ns, exact_ns, exact_ns + exact_ns / 16 + 64);
	}
}

static void test_beyond_the_range(void **state)
{
	struct io_stats *stats = stats_new(state);
	struct io_snapshot now;

	io_stats_record(stats, BLK_READ, 512, UINT64_MAX, 0);
	io_stats_record(stats, BLK_READ, 512, 0, 0);
	io_stats_snapshot(stats, &now);
	assert_int_equal(now.buckets[0], 1);
	assert_int_equal(now.buckets[IO_STATS_BUCKETS - 1], 1);
	assert_int_equal(io_snapshot_quantile_ns(&now, 1000),
			 io_stats_bucket_limit_ns(IO_STATS_BUCKETS - 1));
}

int main(void)
{
	static struct io_stats stats;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_counters, &stats),
		cmocka_unit_test_prestate(test_subtract, &stats),
		cmocka_unit_test_prestate(test_take_max, &stats),
		cmocka_unit_test(test_bucket_limits_grow_by_a_sixteenth),
		cmocka_unit_test_prestate(test_each_value_in_its_bucket, &stats),
		cmocka_unit_test_prestate(test_quantiles, &stats),
		cmocka_unit_test_prestate(test_beyond_the_range, &stats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

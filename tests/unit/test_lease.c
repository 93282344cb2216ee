/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: two hosts never both believe that they may write, and a lapse is no loss (R-F1, R-F3). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "blkmirror/base/loop.h"
#include "datastores/lease.h"

#define S NS_PER_S

static void test_times(void **state)
{
	static const struct {
		struct lease_times times;
		int rc;
	} table[] = {
		{ { 20 * S, 3 * S, 4 * S, 4 * S }, 0 },
		{ { 17 * S, 3 * S, 4 * S, 4 * S }, 0 },
		{ { 17 * S - 1, 3 * S, 4 * S, 4 * S }, -EINVAL },       /* 3 P + wire + server */
		{ { 16 * S, 3 * S, 3 * S, 3 * S }, 0 },                 /* VMFS's */
		{ { 16 * S, 3 * S, 4 * S, 4 * S }, -EINVAL },
		{ { 0, 3 * S, 4 * S, 4 * S }, -EINVAL },
		{ { 20 * S, 0, 4 * S, 4 * S }, -EINVAL },
		{ { 20 * S, 3 * S, 0, 4 * S }, -EINVAL },
		{ { 20 * S, 3 * S, 4 * S, 0 }, -EINVAL },
		{ { 20 * S, UINT64_MAX / 2, 4 * S, 4 * S }, -EINVAL },
		{ { 20 * S, 3 * S, UINT64_MAX, 4 * S }, -EINVAL },
		{ { 300 * S, 3 * S, 4 * S, 4 * S }, 0 },
		{ { 300 * S + 1, 3 * S, 4 * S, 4 * S }, -EINVAL },      /* longer than others wait */
		{ { 10, 1, 6, 1 }, 0 },
		{ { 10, 1, 5, 2 }, 0 },
		{ { 10, 1, 9, 1 }, -EINVAL },
		{ { 100 * S, 1, 97 * S, 1 * S }, -EINVAL },             /* the drift takes the rest */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		assert_int_equal(lease_times_check(&table[i].times), table[i].rc);
	assert_int_equal(lease_times_check(&lease_times_default), 0);
}

static void test_valid_until(void **state)
{
	const struct lease_times *times = &lease_times_default;
	/* 20 - 4 - 4 - 0.4 */
	uint64_t until_ns = lease_valid_until_ns(times, 100 * S);
	const struct lease_times odd = { 1001, 1, 1, 1 };

	(void)state;
	assert_int_equal(until_ns, 100 * S + 11600 * NS_PER_MS);
	assert_true(lease_may_send(until_ns, 100 * S));
	assert_true(lease_may_send(until_ns, until_ns - 1));
	assert_false(lease_may_send(until_ns, until_ns));
	assert_false(lease_may_send(until_ns, UINT64_MAX));
	/* Before the first renewal nothing may be sent. */
	assert_false(lease_may_send(0, 0));
	/* 2 % of 1001 is 20.02: 21 are taken off, never 20. */
	assert_int_equal(lease_valid_until_ns(&odd, 0), 1001 - 1 - 1 - 21);
	assert_false(lease_may_send(lease_valid_until_ns(times, UINT64_MAX - S), UINT64_MAX));
}

/*
 * The rule as a whole: whatever the holder sent last, at whatever drift, has settled before any
 * breaker may take the lock, even one that saw the stamp the moment it was sent.
 */
static void test_no_overlap(void **state)
{
	static const struct lease_times table[] = { { 20 * S, 3 * S, 4 * S, 4 * S },
						    { 16 * S, 3 * S, 3 * S, 3 * S },
						    { 60 * S, 5 * S, 4 * S, 9 * S } };

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		const struct lease_times *times = &table[i];
		struct lease_watch watch = { 0 };
		uint64_t sent_ns = 1000 * S;
		uint64_t last_send_ns = lease_valid_until_ns(times, sent_ns) - 1;
		uint64_t settled_ns = last_send_ns + times->wire_ns + times->server_ns;
		uint64_t wait_ns = lease_watch_note(&watch, times, 7, 0, sent_ns);
		/* The breaker's clock runs 2 % fast. */
		uint64_t broken_ns = sent_ns + wait_ns / 102 * 100;

		assert_true(settled_ns < broken_ns);
	}
}

static void test_watch(void **state)
{
	const struct lease_times *ours = &lease_times_default;
	struct lease_watch watch = { 0 };

	(void)state;
	/* Our first sight counts, not how old the stamp is already. */
	assert_int_equal(lease_watch_note(&watch, ours, 1, 0, 500 * S), 20 * S);
	assert_int_equal(lease_watch_note(&watch, ours, 1, 0, 519 * S), S);
	/* It lives: from the beginning. */
	assert_int_equal(lease_watch_note(&watch, ours, 2, 0, 519 * S + 1), 20 * S);
	assert_int_equal(lease_watch_note(&watch, ours, 2, 0, 539 * S), 1);
	assert_int_equal(lease_watch_note(&watch, ours, 2, 0, 539 * S + 1), 0);
	/* Dead once, but it renewed before it was taken: alive. */
	assert_int_equal(lease_watch_note(&watch, ours, 3, 0, 600 * S), 20 * S);
	/* A longer lease is honoured, a shorter one not, an absurd one is bounded. */
	assert_int_equal(lease_watch_note(&watch, ours, 4, 30 * S, 700 * S), 30 * S);
	assert_int_equal(lease_watch_note(&watch, ours, 4, 1 * S, 720 * S), 10 * S);
	assert_int_equal(lease_watch_note(&watch, ours, 5, 1 * S, 800 * S), 20 * S);
	assert_int_equal(lease_watch_note(&watch, ours, 6, UINT64_MAX, 900 * S), LEASE_CLAIM_MAX_NS);
	/* A stamp that comes back is a new sight too. */
	assert_int_equal(lease_watch_note(&watch, ours, 5, 0, 2000 * S), 20 * S);
}

static void test_after_lapse(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 32; bits++) {
		const struct lease_return now = {
			.old_connections_dead = bits & 1,
			.record_read = bits & 2,
			.is_ours = bits & 4,
			.same_generation = bits & 8,
			.renewed = bits & 16,
		};
		enum lease_verdict wanted = bits == 31 ? LEASE_GOES_ON : LEASE_STOPPED;

		if (now.record_read && !(now.is_ours && now.same_generation))
			wanted = LEASE_LOST;
		assert_int_equal(lease_after_lapse(&now), wanted);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_times),       cmocka_unit_test(test_valid_until),
		cmocka_unit_test(test_no_overlap),  cmocka_unit_test(test_watch),
		cmocka_unit_test(test_after_lapse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

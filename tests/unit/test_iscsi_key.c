/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a living holder is never taken for dead, a dead one is after its lease (R-F2). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "datastores/iscsi_key.h"

#define LEASE_NS (20 * NS_PER_S)
#define BEAT_NS (3 * NS_PER_S)

static void test_keys(void **state)
{
	static const uint8_t none[16] = { 0 };
	/* A UUID whose parts cancel each other out is a host all the same. */
	static const uint8_t twice[16] = { 1, 2, 3, 4, 1, 2, 3, 4 };
	static const uint8_t host[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	uint64_t key = iscsi_key_first(host), last = key | UINT32_MAX;

	(void)state;
	assert_int_not_equal(iscsi_key_first(none), 0);
	assert_int_not_equal(iscsi_key_first(twice), 0);
	assert_int_equal(iscsi_key_next(key), key + 1);
	assert_true(iscsi_key_same_host(key, iscsi_key_next(key)));
	assert_int_equal(iscsi_key_next(last), key);
	assert_false(iscsi_key_same_host(key, iscsi_key_first(none)));
}

static void test_lists(void **state)
{
	static uint8_t many[8 + 8 * (ISCSI_KEYS_MAX + 1)] = { [6] = 4, [7] = 8 };
	uint8_t list[24] = { 0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 2 };
	struct iscsi_keys keys;

	(void)state;
	assert_int_equal(iscsi_keys_parse(list, sizeof(list), &keys), 0);
	assert_int_equal(keys.generation, 9);
	assert_int_equal(keys.count, 2);
	assert_true(iscsi_keys_has(&keys, UINT64_C(0x100000007)));
	assert_true(iscsi_keys_has(&keys, UINT64_C(0x200000000)));
	assert_false(iscsi_keys_has(&keys, 7));
	/* A list that is not whole proves nobody's absence. */
	assert_int_equal(iscsi_keys_parse(list, 23, &keys), -EPROTO);
	assert_int_equal(iscsi_keys_parse(list, 7, &keys), -EPROTO);
	list[7] = 15;
	assert_int_equal(iscsi_keys_parse(list, sizeof(list), &keys), -EPROTO);
	assert_int_equal(iscsi_keys_parse(many, sizeof(many), &keys), -E2BIG);
}

static void test_reservations(void **state)
{
	uint8_t held[24] = { 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 6, [21] = 0x05 };
	struct iscsi_reservation reservation;

	(void)state;
	assert_int_equal(iscsi_reservation_parse(held, sizeof(held), &reservation), 0);
	assert_true(reservation.held);
	assert_int_equal(reservation.key, UINT64_C(0x500000006));
	assert_int_equal(reservation.type, ISCSI_RESERVATION_TYPE);
	assert_int_equal(reservation.scope, 0);
	assert_int_equal(iscsi_reservation_parse(held, 23, &reservation), -EPROTO);
	held[7] = 8;
	assert_int_equal(iscsi_reservation_parse(held, sizeof(held), &reservation), -EPROTO);
	held[7] = 0;
	assert_int_equal(iscsi_reservation_parse(held, 8, &reservation), 0);
	assert_false(reservation.held);
}

/* Questions and answers of random length, a holder that beats in time: never dead. */
static void test_the_living_live(void **state)
{
	struct loop *loop = loop_sim_new(11);

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct iscsi_key_watch watch = { 0 };
		uint64_t now_ns = loop_random_below(loop, 1000 * NS_PER_S);

		for (int step = 0; step < 200; step++) {
			uint64_t sent_ns = now_ns;
			uint64_t read_ns = sent_ns + loop_random_below(loop, 15 * NS_PER_S);
			uint64_t answered_ns = read_ns + loop_random_below(loop, 15 * NS_PER_S);
			uint64_t key = UINT64_C(7) << 32 | read_ns / BEAT_NS;

			assert_false(iscsi_key_watch_see(&watch, key, sent_ns, answered_ns, LEASE_NS));
			now_ns = answered_ns + loop_random_below(loop, 60 * NS_PER_S);
		}
	}
	loop_free(loop);
}

static void test_the_dead_are_dead_after_the_lease(void **state)
{
	struct iscsi_key_watch watch = { 0 };
	const uint64_t key = UINT64_C(7) << 32 | 3, seen_ns = 5 * NS_PER_S;

	(void)state;
	assert_false(iscsi_key_watch_see(&watch, key, NS_PER_S, seen_ns, LEASE_NS));
	/* Sent in time, answered after the lease: the key is as old as the question only. */
	assert_false(iscsi_key_watch_see(&watch, key, seen_ns + LEASE_NS - 1,
					 seen_ns + 2 * LEASE_NS, LEASE_NS));
	assert_true(iscsi_key_watch_see(&watch, key, seen_ns + LEASE_NS, seen_ns + LEASE_NS + 1,
					LEASE_NS));
	/* It beats once more: the count begins anew. */
	assert_false(iscsi_key_watch_see(&watch, iscsi_key_next(key), seen_ns + 2 * LEASE_NS,
					 seen_ns + 2 * LEASE_NS, LEASE_NS));
	assert_false(iscsi_key_watch_see(&watch, iscsi_key_next(key), seen_ns + 3 * LEASE_NS - 1,
					 seen_ns + 3 * LEASE_NS - 1, LEASE_NS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_reservations),
		cmocka_unit_test(test_the_living_live),
		cmocka_unit_test(test_the_dead_are_dead_after_the_lease),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

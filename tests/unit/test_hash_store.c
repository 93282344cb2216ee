/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the store never tells a hash that is not the region's; forgetting is always allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/mirror/hash_store.h"

#define CHUNK 4096u
#define CHUNK_BYTES (CHUNK * 8u)
#define REGIONS (3 * CHUNK + 5)

static enum hash_kind kind_of(const struct hash_store *store, uint64_t region)
{
	uint64_t hash;

	return hash_store_get(store, region, &hash);
}

static void test_put_get_forget(void **unused)
{
	struct hash_store *store = hash_store_new(REGIONS, 1 << 20);
	uint64_t hash = 0;

	(void)unused;
	assert_int_equal(kind_of(store, 0), HASH_UNKNOWN);
	hash_store_put(store, 7, 1234);
	assert_int_equal(hash_store_get(store, 7, &hash), HASH_VALUE);
	assert_int_equal(hash, 1234);
	hash_store_put_zero(store, 8, 1);
	assert_int_equal(kind_of(store, 8), HASH_ZERO);
	assert_int_equal(kind_of(store, 9), HASH_UNKNOWN);
	hash_store_forget(store, 7, 1);
	assert_int_equal(kind_of(store, 7), HASH_UNKNOWN);
	assert_int_equal(kind_of(store, 8), HASH_ZERO);
	hash_store_put(store, REGIONS - 1, 99);
	assert_int_equal(kind_of(store, REGIONS - 1), HASH_VALUE);
	hash_store_free(store);
	hash_store_free(NULL);
}

/* Runs of zero over chunks cost nothing, and one hash inside keeps the others zero. */
static void test_zero_chunks(void **unused)
{
	struct hash_store *store = hash_store_new(REGIONS, CHUNK_BYTES);

	(void)unused;
	hash_store_put_zero(store, CHUNK, 2 * CHUNK);
	assert_int_equal(kind_of(store, CHUNK - 1), HASH_UNKNOWN);
	assert_int_equal(kind_of(store, CHUNK), HASH_ZERO);
	assert_int_equal(kind_of(store, 3 * CHUNK - 1), HASH_ZERO);
	assert_int_equal(kind_of(store, 3 * CHUNK), HASH_UNKNOWN);
	hash_store_put(store, CHUNK + 3, 77);
	assert_int_equal(kind_of(store, CHUNK + 3), HASH_VALUE);
	assert_int_equal(kind_of(store, CHUNK + 4), HASH_ZERO);
	/* The limit is reached: a hash there makes all of that chunk unknown, never wrong. */
	hash_store_put(store, 2 * CHUNK, 78);
	assert_int_equal(kind_of(store, 2 * CHUNK), HASH_UNKNOWN);
	assert_int_equal(kind_of(store, 2 * CHUNK + 1), HASH_UNKNOWN);
	/* Given back, the room can be used again. */
	hash_store_forget(store, CHUNK, CHUNK);
	hash_store_put(store, 2 * CHUNK, 79);
	assert_int_equal(kind_of(store, 2 * CHUNK), HASH_VALUE);
	hash_store_free(store);
}

static void test_no_room_at_all(void **unused)
{
	struct hash_store *store = hash_store_new(REGIONS, 0);

	(void)unused;
	hash_store_put(store, 1, 5);
	assert_int_equal(kind_of(store, 1), HASH_UNKNOWN);
	hash_store_put_zero(store, 0, CHUNK);
	assert_int_equal(kind_of(store, 1), HASH_ZERO);
	hash_store_forget(store, 1, 1);
	assert_int_equal(kind_of(store, 1), HASH_UNKNOWN);
	hash_store_free(store);
}

/* Against an array: what the store knows is right; within its limit it knows everything. */
static void against_an_array(uint64_t limit_bytes)
{
	struct loop *loop = loop_sim_new(5);
	struct hash_store *store = hash_store_new(REGIONS, limit_bytes);
	uint64_t *truth = calloc(REGIONS, sizeof(*truth)); /* 0 unknown, 1 zero, else the hash */

	for (int op = 0; op < 3000; op++) {
		uint64_t first = loop_random_below(loop, REGIONS);
		uint64_t count = 1 + loop_random_below(loop, loop_random_below(loop, 8) ? 9 : REGIONS);
		uint64_t hash = 2 + loop_random_below(loop, 1000);

		count = count > REGIONS - first ? REGIONS - first : count;
		switch (loop_random_below(loop, 3)) {
		case 0:
			hash_store_put(store, first, hash);
			truth[first] = hash;
			break;
		case 1:
			hash_store_put_zero(store, first, count);
			for (uint64_t i = 0; i < count; i++)
				truth[first + i] = 1;
			break;
		default:
			hash_store_forget(store, first, count);
			memset(truth + first, 0, count * sizeof(*truth));
			break;
		}
		for (int i = 0; i < 200; i++) {
			uint64_t region = loop_random_below(loop, REGIONS), found = 0;
			enum hash_kind kind = hash_store_get(store, region, &found);

			if (kind == HASH_UNKNOWN) {
				if (limit_bytes >= 4 * CHUNK_BYTES)
					assert_int_equal(truth[region], 0);
			} else {
				assert_int_equal(truth[region], kind == HASH_ZERO ? 1 : found);
			}
		}
	}
	hash_store_free(store);
	free(truth);
	loop_free(loop);
}

static void test_against_an_array(void **unused)
{
	(void)unused;
	against_an_array(4 * CHUNK_BYTES);
	against_an_array(2 * CHUNK_BYTES);
	against_an_array(CHUNK_BYTES);
}

static void test_bytes(void **unused)
{
	uint8_t bytes[8192] = { 0 };

	(void)unused;
	for (size_t len = 512; len <= sizeof(bytes); len *= 2) {
		assert_true(bytes_are_zero(bytes, len));
		for (size_t at = 0; at < len; at += at < 16 || at > len - 20 ? 1 : 61) {
			bytes[at] = 1;
			assert_false(bytes_are_zero(bytes, len));
			bytes[at] = 0;
		}
		bytes[len - 1] = 1;
		assert_false(bytes_are_zero(bytes, len));
		bytes[len - 1] = 0;
	}
	assert_true(hash_region(bytes, 512) >= 2);
	assert_true(hash_region(bytes, 512) != hash_region(bytes, 1024));
	bytes[0] = 1;
	assert_true(hash_region(bytes, 512) != hash_region(bytes + 512, 512));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_get_forget),
		cmocka_unit_test(test_zero_chunks),
		cmocka_unit_test(test_no_room_at_all),
		cmocka_unit_test(test_against_an_array),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

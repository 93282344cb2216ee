/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: random, of the right version, and the same after a trip through text. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/uuid.h"

static void test_random(void **state)
{
	struct uuid uuids[200];
	struct uuid either = { 0 }, both;

	(void)state;
	memset(&both, 0xff, sizeof(both));
	for (unsigned i = 0; i < ARRAY_COUNT(uuids); i++) {
		uuids[i] = uuid_random();
		assert_int_equal(uuids[i].bytes[6] >> 4, 4);
		assert_int_equal(uuids[i].bytes[8] >> 6, 2);
		for (unsigned j = 0; j < i; j++)
			assert_false(uuid_equal(&uuids[i], &uuids[j]));
		for (unsigned j = 0; j < UUID_BYTES; j++) {
			either.bytes[j] |= uuids[i].bytes[j];
			both.bytes[j] &= uuids[i].bytes[j];
		}
	}
	for (unsigned j = 0; j < UUID_BYTES; j++) {     /* every free bit was 0 and was 1 */
		assert_int_equal(either.bytes[j], j == 6 ? 0x4f : j == 8 ? 0xbf : 0xff);
		assert_int_equal(both.bytes[j], j == 6 ? 0x40 : j == 8 ? 0x80 : 0);
	}
}

static void test_text(void **state)
{
	const char *text = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
	char shown[UUID_TEXT_BYTES];
	struct uuid uuid, again;

	(void)state;
	assert_int_equal(uuid_parse(text, &uuid), 0);
	assert_int_equal(uuid.bytes[0], 0xf8);
	assert_int_equal(uuid.bytes[15], 0xf6);
	assert_string_equal(uuid_format(&uuid, shown), text);
	assert_int_equal(uuid_parse("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", &again), 0);
	assert_true(uuid_equal(&uuid, &again));
	for (int i = 0; i < 100; i++) {
		uuid = uuid_random();
		assert_int_equal(uuid_parse(uuid_format(&uuid, shown), &again), 0);
		assert_true(uuid_equal(&uuid, &again));
	}
}

static void test_refused(void **state)
{
	static const char *const table[] = {
		"",
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf",
		"f81d4fae-7dec-11d0-a765-00a0c91e6bf67",
		"f81d4fae07dec-11d0-a765-00a0c91e6bf6",
		"f81d4fae-7dec-11d0-a765000a0c91e6bf6",
		"f81d4fae-7dec-11d0-a765-00a0c91e6bg6",
		"f81d4fae-7dec-11d0-a765-00a0c91e6b-6",
		"-81d4fae-7dec-11d0-a765-00a0c91e6bf6",
		"{81d4fae-7dec-11d0-a765-00a0c91e6bf}",
		"f81d4fae7dec11d0a76500a0c91e6bf6",
		" 81d4fae-7dec-11d0-a765-00a0c91e6bf6",
	};
	struct uuid uuid, before = uuid_random();

	(void)state;
	uuid = before;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		assert_int_equal(uuid_parse(table[i], &uuid), -EINVAL);
	assert_true(uuid_equal(&uuid, &before));
}

static void test_null(void **state)
{
	struct uuid uuid = { 0 };

	(void)state;
	assert_true(uuid_is_null(&uuid));
	uuid.bytes[15] = 1;
	assert_false(uuid_is_null(&uuid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

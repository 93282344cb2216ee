/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a lock's generation is what its name says, and no torn or foreign record is believed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "datastores/lock_file.h"

static void test_names(void **state)
{
	char name[DS_FILE_NAME_BYTES];

	(void)state;
	assert_int_equal(lock_name_format("d.img", 42, name), 0);
	assert_string_equal(name, ".d.img.blkmirror-lock.000000000000002a");
	assert_int_equal(lock_name_generation(name, "d.img"), 42);
	assert_int_equal(lock_name_generation(name, "e.img"), 0);
	assert_int_equal(lock_name_generation(name, "d.im"), 0);
	assert_int_equal(lock_name_format("d.img", LOCK_GENERATION_MAX, name), 0);
	assert_true(lock_name_generation(name, "d.img") == LOCK_GENERATION_MAX);
	assert_int_equal(lock_name_format("d.img", 0, name), -EINVAL);
	assert_int_equal(lock_name_format("d.img", LOCK_GENERATION_MAX + 1, name), -EINVAL);
}

static void test_foreign_names(void **state)
{
	static const char *const table[] = {
		"",
		".d.img.blkmirror-lock.",
		".d.img.blkmirror-lock.2a",
		".d.img.blkmirror-lock.0000000000000000",
		".d.img.blkmirror-lock.000000000000002A",
		".d.img.blkmirror-lock.000000000000002g",
		".d.img.blkmirror-lock.0000000000000 2a",
		".d.img.blkmirror-lock.000000000000002a ",
		".d.img.blkmirror-lock.0000000000000002a",
		".d.img.blkmirror-lock.8000000000000000",
		".d.img.blkmirror-lock.ffffffffffffffff",
		"xd.img.blkmirror-lock.000000000000002a",
		".d.img.blkmirror-tmp..000000000000002a",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		assert_int_equal(lock_name_generation(table[i], "d.img"), 0);
}

/* The longest part that a path may have still has room for its lock. */
static void test_longest_name(void **state)
{
	char data[300], name[DS_FILE_NAME_BYTES];

	(void)state;
	memset(data, 'x', sizeof(data));
	data[DS_PATH_PART_BYTES_MAX] = 0;
	assert_int_equal(lock_name_format(data, 1, name), 0);
	assert_int_equal(lock_name_generation(name, data), 1);
	memset(data, 'x', sizeof(data));
	data[sizeof(data) - 1] = 0;
	assert_int_equal(lock_name_format(data, 1, name), -ENAMETOOLONG);
}

static struct lock_record example(void)
{
	struct lock_record record = { .host = "esx1.example", .stamp = UINT64_MAX,
				      .lease_ms = UINT32_MAX };

	record.owner = uuid_random();
	return record;
}

static void test_record(void **state)
{
	struct lock_record record = example(), again;
	char bytes[LOCK_RECORD_BYTES], other[LOCK_RECORD_BYTES];

	(void)state;
	for (int released = 0; released < 2; released++) {
		record.released = released;
		lock_record_format(&record, bytes);
		assert_int_equal(lock_record_parse(bytes, sizeof(bytes), &again), 0);
		assert_true(uuid_equal(&record.owner, &again.owner));
		assert_string_equal(again.host, record.host);
		assert_true(again.stamp == record.stamp);
		assert_int_equal(again.lease_ms, record.lease_ms);
		assert_int_equal(again.released, released);
	}
	/* Every renewal is another stamp, and so is another generation. */
	record.stamp--;
	lock_record_format(&record, other);
	assert_true(lock_record_stamp(1, bytes, sizeof(bytes)) !=
		    lock_record_stamp(1, other, sizeof(other)));
	assert_true(lock_record_stamp(1, bytes, sizeof(bytes)) !=
		    lock_record_stamp(2, bytes, sizeof(bytes)));
	assert_true(lock_record_stamp(1, "", 0) != lock_record_stamp(2, "", 0));
}

/* A host's name comes from the system: it can forge no line, and be no longer than it may. */
static void test_host_is_cleaned(void **state)
{
	struct lock_record record = example(), again;
	char bytes[LOCK_RECORD_BYTES];

	(void)state;
	strcpy(record.host, "a\nstamp=1 \x7f\x01z");
	lock_record_format(&record, bytes);
	assert_int_equal(lock_record_parse(bytes, sizeof(bytes), &again), 0);
	assert_string_equal(again.host, "astamp=1z");
	assert_true(again.stamp == record.stamp);
	memset(record.host, 'h', sizeof(record.host) - 1);
	record.host[sizeof(record.host) - 1] = 0;
	lock_record_format(&record, bytes);
	assert_int_equal(lock_record_parse(bytes, sizeof(bytes), &again), 0);
	assert_string_equal(again.host, record.host);
}

/* One bit anywhere in what is told, one byte less, nothing at all: not believed. */
static void test_damage(void **state)
{
	struct lock_record record = example(), again;
	char bytes[LOCK_RECORD_BYTES + 1];
	size_t told;

	(void)state;
	lock_record_format(&record, bytes);
	bytes[LOCK_RECORD_BYTES] = 0;
	told = (size_t)(strstr(bytes, "checksum=") - bytes) + 9 + 16 + 1;
	for (size_t i = 0; i < told; i++) {
		for (int bit = 0; bit < 8; bit++) {
			bytes[i] ^= (char)(1 << bit);
			assert_int_equal(lock_record_parse(bytes, LOCK_RECORD_BYTES, &again),
					 -EINVAL);
			bytes[i] ^= (char)(1 << bit);
		}
	}
	assert_int_equal(lock_record_parse(bytes, LOCK_RECORD_BYTES, &again), 0);
	assert_int_equal(lock_record_parse(bytes, LOCK_RECORD_BYTES - 1, &again), -EINVAL);
	assert_int_equal(lock_record_parse(bytes, LOCK_RECORD_BYTES + 1, &again), -EINVAL);
	assert_int_equal(lock_record_parse("", 0, &again), -EINVAL);
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(lock_record_parse(bytes, LOCK_RECORD_BYTES, &again), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_foreign_names),
		cmocka_unit_test(test_longest_name),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_host_is_cleaned),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

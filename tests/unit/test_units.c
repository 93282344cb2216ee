/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what people write is taken exactly or refused with a reason; what they read is right. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/units.h"

#define UNTOUCHED 12345u

struct good {
	const char *text;
	uint64_t value;
};

struct bad {
	const char *text;
	int rc;
};

typedef int parser(const char *text, uint64_t *out, struct err *err);

static void assert_accepts(parser *parse, const struct good *table, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct err err = { 0 };
		uint64_t value = UNTOUCHED;

		if (parse(table[i].text, &value, &err))
			fail_msg("'%s': %s", table[i].text, err.cause);
		if (value != table[i].value)
			fail_msg("'%s' became %llu", table[i].text, (unsigned long long)value);
	}
}

static void assert_refuses(parser *parse, const struct bad *table, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct err err = { 0 };
		uint64_t value = UNTOUCHED;
		int rc = parse(table[i].text, &value, &err);

		if (rc != table[i].rc)
			fail_msg("'%s' gave %d", table[i].text, rc);
		assert_int_equal(value, UNTOUCHED);
		assert_int_equal(err.id, ERR_BAD_UNIT);
		assert_true(strlen(err.cause) > 0);
		assert_int_equal(parse(table[i].text, &value, NULL), rc);
	}
}

static void test_sizes(void **state)
{
	static const struct good table[] = {
		{ "0B", 0 },
		{ "512B", 512 },
		{ "1K", 1024 },
		{ "1KiB", 1024 },
		{ "1KB", 1000 },
		{ "4GiB", UINT64_C(4) << 30 },
		{ "4 GiB", UINT64_C(4) << 30 },
		{ "4G", UINT64_C(4) << 30 },
		{ "500MB", 500000000 },
		{ "500M", UINT64_C(500) << 20 },
		{ "1.5T", UINT64_C(3) << 39 },
		{ "62TiB", UINT64_C(62) << 40 },
		{ "1TB", UINT64_C(1000000000000) },
		{ "2GB", UINT64_C(2000000000) },
		{ "0.1KiB", 102 },
		{ "0.999999999999999999TiB", UINT64_C(1099511627775) },
		{ "0.000000000000000001TiB", 0 },
		{ "1.9B", 1 },
		{ "000001K", 1024 },
		{ "8388607TiB", UINT64_C(8388607) << 40 },
		{ "9223372036854775807B", INT64_MAX },
	};
	static const struct bad refused[] = {
		{ "", -EINVAL },        { "100", -EINVAL },     { "GiB", -EINVAL },
		{ "-1G", -EINVAL },     { "+1G", -EINVAL },     { "1e3G", -EINVAL },
		{ "nan", -EINVAL },     { "NaNG", -EINVAL },    { "infG", -EINVAL },
		{ "0x10G", -EINVAL },   { "1g", -EINVAL },      { "1gib", -EINVAL },
		{ "1kB", -EINVAL },     { "1Gi", -EINVAL },     { "1Gib", -EINVAL },
		{ " 1G", -EINVAL },     { "1G ", -EINVAL },     { "1  G", -EINVAL },
		{ "1G1", -EINVAL },     { "1.G", -EINVAL },     { ".5G", -EINVAL },
		{ "1.2.3G", -EINVAL },  { "1,5G", -EINVAL },    { "1G/s", -EINVAL },
		{ "1P", -EINVAL },      { "1\nG", -EINVAL },    { "1 ", -EINVAL },
		{ "0.1234567890123456789G", -EINVAL },
		{ "9223372036854775808B", -ERANGE },
		{ "8388608TiB", -ERANGE },
		{ "18446744073709551616B", -ERANGE },
		{ "99999999999999999999999999999999999999T", -ERANGE },
		{ "18446744073709551615T", -ERANGE },
	};

	(void)state;
	assert_accepts(units_parse_size, table, ARRAY_COUNT(table));
	assert_refuses(units_parse_size, refused, ARRAY_COUNT(refused));
}

static void test_rates(void **state)
{
	static const struct good table[] = {
		{ "200MiB/s", UINT64_C(200) << 20 }, { "1GB/s", UINT64_C(1000000000) },
		{ "1.5 K/s", 1536 },                 { "1B/s", 1 },
	};
	static const struct bad refused[] = {
		{ "200MiB", -EINVAL },  { "200/s", -EINVAL },    { "/s", -EINVAL },
		{ "none", -EINVAL },    { "0MiB/s", -EINVAL },   { "0.1B/s", -EINVAL },
		{ "1M/s/s", -EINVAL },  { "1M/min", -EINVAL },   { "1Mb/s", -EINVAL },
		{ "s", -EINVAL },       { "9999999999T/s", -ERANGE },
	};

	(void)state;
	assert_accepts(units_parse_rate, table, ARRAY_COUNT(table));
	assert_refuses(units_parse_rate, refused, ARRAY_COUNT(refused));
}

static void test_times(void **state)
{
	static const struct good table[] = {
		{ "100ms", 100000000 },
		{ "5s", UINT64_C(5000000000) },
		{ "2min", UINT64_C(120000000000) },
		{ "1h", UINT64_C(3600000000000) },
		{ "250us", 250000 },
		{ "0.5s", 500000000 },
		{ "1.5 min", UINT64_C(90000000000) },
		{ "0s", 0 },
	};
	static const struct bad refused[] = {
		{ "5", -EINVAL },   { "5m", -EINVAL }, { "5sec", -EINVAL },
		{ "-5s", -EINVAL }, { "", -EINVAL },   { "s", -EINVAL },
		{ "5S", -EINVAL },  { "5d", -EINVAL }, { "9223372037s", -ERANGE },
	};

	(void)state;
	assert_accepts(units_parse_time, table, ARRAY_COUNT(table));
	assert_refuses(units_parse_time, refused, ARRAY_COUNT(refused));
}

/* What was typed comes back, cut and without what could forge a line. */
static void test_causes(void **state)
{
	struct err err;
	uint64_t value;
	char text[300];

	(void)state;
	assert_int_equal(units_parse_size("100", &value, &err), -EINVAL);
	assert_string_equal(err.cause, "'100' is not a size with a unit");
	assert_int_equal(units_parse_rate("0K/s", &value, &err), -EINVAL);
	assert_string_equal(err.cause, "'0K/s' is not a rate above zero with a unit");
	assert_int_equal(units_parse_time("99999999999999h", &value, &err), -ERANGE);
	assert_string_equal(err.cause, "'99999999999999h' is too large for a time");
	assert_int_equal(units_parse_size("1\x1b[31m\n", &value, &err), -EINVAL);
	assert_string_equal(err.cause, "'1?[31m?' is not a size with a unit");
	memset(text, '7', sizeof(text));
	text[sizeof(text) - 1] = 0;
	assert_int_equal(units_parse_size(text, &value, &err), -ERANGE);
	assert_true(strlen(err.cause) < 100);
}

static void test_format_bytes(void **state)
{
	static const struct good table[] = {
		{ "0 B", 0 },
		{ "1023 B", 1023 },
		{ "1.00 KiB", 1024 },
		{ "1.50 KiB", 1536 },
		{ "1023.99 KiB", 1048566 },
		{ "1.00 MiB", 1048575 },
		{ "1.50 GiB", UINT64_C(3) << 29 },
		{ "62.00 TiB", UINT64_C(62) << 40 },
		{ "16.00 EiB", UINT64_MAX },
	};
	char text[FORMAT_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		assert_string_equal(format_bytes(text, table[i].value), table[i].text);
	assert_string_equal(format_rate(text, 200 << 20), "200.00 MiB/s");
	assert_string_equal(format_rate(text, 7), "7 B/s");
}

static void test_format_duration(void **state)
{
	static const struct good table[] = {
		{ "0 us", 0 },
		{ "0 us", 999 },
		{ "999 us", 999999 },
		{ "1 ms", 1000000 },
		{ "999 ms", 999999999 },
		{ "1.0 s", UINT64_C(1000000000) },
		{ "5.2 s", UINT64_C(5290000000) },
		{ "59.9 s", UINT64_C(59999999999) },
		{ "1m 0s", UINT64_C(60000000000) },
		{ "1m 23s", UINT64_C(83900000000) },
		{ "59m 59s", UINT64_C(3599999999999) },
		{ "2h 5m", UINT64_C(7530000000000) },
		{ "3d 4h", UINT64_C(273600000000000) },
		{ "213503d 23h", UINT64_MAX },
	};
	char text[FORMAT_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++)
		assert_string_equal(format_duration(text, table[i].value), table[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),        cmocka_unit_test(test_rates),
		cmocka_unit_test(test_times),        cmocka_unit_test(test_causes),
		cmocka_unit_test(test_format_bytes), cmocka_unit_test(test_format_duration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the catalogue is sound, and an error reaches the admin whole: id, cause, remedy. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/err.h"

static void test_set_fills_all_three(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(err_set(&err, ERR_DS_UNKNOWN, -ENOENT, "no datastore '%s'", "ds1"),
			 -ENOENT);
	assert_int_equal(err.id, ERR_DS_UNKNOWN);
	assert_string_equal(err.cause, "no datastore 'ds1'");
	assert_string_equal(err.remedy, err_default_remedy(ERR_DS_UNKNOWN));
	err_remedy(&err, "create %s", "it");
	assert_string_equal(err.remedy, "create it");
	assert_string_equal(err.cause, "no datastore 'ds1'");
	err_clear(&err);
	assert_int_equal(err.id, ERR_NONE);
	assert_string_equal(err.cause, "");
	assert_string_equal(err.remedy, "");
}

static void test_null_is_harmless(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, ERR_INTERNAL, -EIO, "x"), -EIO);
	err_remedy(NULL, "x");
	err_clear(NULL);
}

static void test_a_long_cause_is_cut(void **state)
{
	char text[2 * ERR_TEXT_BYTES];
	struct err err;

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	err_set(&err, ERR_INTERNAL, -EIO, "%s", text);
	assert_int_equal(strlen(err.cause), ERR_TEXT_BYTES - 1);
	err_remedy(&err, "%s", text);
	assert_int_equal(strlen(err.remedy), ERR_TEXT_BYTES - 1);
}

/* Every row: a name that leads back to it, a known status, a whole sentence that fits. */
static void test_catalogue(void **state)
{
	unsigned count = 0;

	(void)state;
	for (enum err_id id; (id = err_at(count)) != ERR_NONE; count++) {
		const char *remedy = err_default_remedy(id);
		char name[16];

		snprintf(name, sizeof(name), "BM-%d", (int)id);
		assert_string_equal(err_name(id), name);
		assert_int_equal(err_from_name(name), id);
		assert_in_range(err_http_status(id), 400, 504);
		assert_true(strlen(remedy) > 10);
		assert_true(strlen(remedy) < ERR_TEXT_BYTES);
		assert_true(remedy[strlen(remedy) - 1] == '.');
		for (unsigned i = 0; i < count; i++)
			assert_int_not_equal(err_at(i), id);
	}
	assert_true(count > 50);
	assert_int_equal(err_at(count + 1), ERR_NONE);
	assert_int_equal(err_at(UINT_MAX), ERR_NONE);
}

static void test_unknown_values(void **state)
{
	(void)state;
	assert_int_equal(err_from_name("BM-1"), ERR_NONE);
	assert_int_equal(err_from_name(""), ERR_NONE);
	assert_int_equal(err_http_status((enum err_id)77), 500);
	assert_string_equal(err_default_remedy((enum err_id)77), "");
	assert_non_null(err_name((enum err_id)77));
}

static void test_strerror(void **state)
{
	(void)state;
	assert_string_equal(err_strerror(-ENOSPC), "No space left on device");
	assert_string_equal(err_strerror(ENOSPC), "No space left on device");
	assert_string_equal(err_strerror(-100000), "unknown error");
	assert_string_equal(err_strerror(INT_MIN), "unknown error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_fills_all_three), cmocka_unit_test(test_null_is_harmless),
		cmocka_unit_test(test_a_long_cause_is_cut), cmocka_unit_test(test_catalogue),
		cmocka_unit_test(test_unknown_values),      cmocka_unit_test(test_strerror),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

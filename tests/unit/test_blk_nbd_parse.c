/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the two pure judges of the NBD client, of URIs and of block status, are exact. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/blkdev/blk_nbd_private.h"

/*
 * Random answers against a table of single bytes: every run is inside what was told,
 * no byte that may be anything else counts as zero, and there is always progress.
 */
static void test_translation_against_a_shadow(void **state)
{
	enum { BYTES = 64 * 512 };
	static uint8_t flags[BYTES];
	struct loop *loop = loop_sim_new(5);

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct blk_extent runs[8];
		struct blk_extents out = { runs, 1 + (uint32_t)loop_random_below(loop, 8), 0 };
		uint32_t entries[32];
		size_t count = 2 + 2 * loop_random_below(loop, 15);
		uint64_t told = 0, at = 0;

		for (size_t i = 0; i < count; i += 2) {
			bool whole = loop_random_below(loop, 2);
			uint64_t length = 1 + loop_random_below(loop, whole ? 8 : 3000);

			entries[i] = (uint32_t)(whole ? length * 512 : length);
			entries[i + 1] = (uint32_t)loop_random_below(loop, 4);
			for (uint64_t j = 0; j < entries[i] && told < BYTES; j++)
				flags[told++] = (uint8_t)entries[i + 1];
		}
		assert_int_equal(blk_nbd_extents_translate(entries, count, BYTES, 512, &out), 0);
		assert_in_range(out.count, 1, out.capacity);
		for (uint32_t i = 0; i < out.count; i++) {
			uint8_t wanted = runs[i].status == BLK_EXTENT_HOLE ? 3
					 : runs[i].status == BLK_EXTENT_ZERO ? 2 : 0;

			assert_true(runs[i].len_bytes > 0);
			assert_int_equal(runs[i].len_bytes % 512, 0);
			if (i)
				assert_int_not_equal(runs[i].status, runs[i - 1].status);
			for (uint64_t end = at + runs[i].len_bytes; at < end; at++)
				if (wanted)
					assert_true(at < told && flags[at] == wanted);
		}
		assert_true(at <= BYTES);
		assert_true(at < told + 512);
	}
	loop_free(loop);
}

/* ---- the URI ---- */

static void test_good_uris(void **state)
{
	static const struct {
		const char *uri, *host, *port, *socket, *export_name;
	} table[] = {
		{ "nbd://host", "host", "10809", "", "" },
		{ "nbd://host/", "host", "10809", "", "" },
		{ "nbd://host:1/a/b", "host", "1", "", "a/b" },
		{ "nbd://10.0.0.1:65535/x%20y", "10.0.0.1", "65535", "", "x y" },
		{ "nbd://[::1]:1234/x", "::1", "1234", "", "x" },
		{ "nbd://[fe80::1%eth0]", "fe80::1%eth0", "10809", "", "" },
		{ "nbd:///x", "localhost", "10809", "", "x" },
		{ "nbd+unix:///x?socket=/run/a.sock", "", "", "/run/a.sock", "x" },
		{ "nbd+unix://?socket=/a", "", "", "/a", "" },
		{ "nbd+unix:///?socket=/a%3Fb%25", "", "", "/a?b%", "" },
	};
	static struct blk_nbd_address address;

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		struct err err = { 0 };

		if (blk_nbd_address_parse(table[i].uri, &address, &err))
			fail_msg("%s: %s", table[i].uri, err.cause);
		assert_int_equal(address.is_unix, table[i].socket[0] != 0);
		assert_string_equal(address.host, table[i].host);
		assert_string_equal(address.port, table[i].port);
		assert_string_equal(address.socket_path, table[i].socket);
		assert_string_equal(address.export_name, table[i].export_name);
		assert_true(strlen(address.shown) > 0);
	}
}

static void test_bad_uris(void **state)
{
	static const char *const table[] = {
		"", "nbd", "nbd:", "nbd:/", "NBD://host", "nbds://host", "nbds+unix:///?socket=/a",
		"nbd+vsock://1", "http://host", "/dev/sda", "nbd://ho st", "nbd://host:",
		"nbd://host:0", "nbd://host:65536", "nbd://host:999999", "nbd://host:1x",
		"nbd://host:-1", "nbd://[::1", "nbd://[]", "nbd://[::1]x", "nbd://host?tls=1",
		"nbd://host/x?", "nbd://host/x#y", "nbd://host/%", "nbd://host/%0",
		"nbd://host/%zz", "nbd://host/%00", "nbd://host/%0a", "nbd://host/\n", "nbd+unix:///x",
		"nbd+unix:///x?socket=", "nbd+unix:///x?socket=rel", "nbd+unix://host/x?socket=/a",
		"nbd+unix:///x?socket=/a&tls=1", "nbd+unix:///x?tls-psk-file=/a&socket=/b",
		"nbd+unix:///x?socket=/a%00b", "nbd+unix:///x?Socket=/a",
	};
	static const char *const secret[] = {
		"nbd://user:hunter2@host/x", "nbd://user@host", "nbd+unix://u:hunter2@/x?socket=/a",
	};
	static char longest[9000];
	static struct blk_nbd_address address;
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		err_clear(&err);
		if (blk_nbd_address_parse(table[i], &address, &err) != -EINVAL)
			fail_msg("'%s' was taken", table[i]);
		assert_int_equal(err.id, ERR_DS_BAD_URL);
	}
	for (size_t i = 0; i < ARRAY_COUNT(secret); i++) {
		err_clear(&err);
		assert_int_equal(blk_nbd_address_parse(secret[i], &address, &err), -EINVAL);
		assert_int_equal(err.id, ERR_DS_SECRET_IN_URL);
		assert_null(strstr(err.cause, "hunter2"));
	}
	for (size_t length = 100; length < sizeof(longest); length += 800) {
		memset(longest, 'a', sizeof(longest));
		memcpy(longest, "nbd://h/", 8);
		longest[length] = 0;
		assert_int_equal(blk_nbd_address_parse(longest, &address, &err) == 0,
				 length - 8 <= NBD_EXPORT_NAME_MAX);
		memcpy(longest, "nbd+unix:///?socket=/", 21);
		assert_int_equal(blk_nbd_address_parse(longest, &address, &err) == 0,
				 length - 20 < 108);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_translation_against_a_shadow),
		cmocka_unit_test(test_good_uris),
		cmocka_unit_test(test_bad_uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

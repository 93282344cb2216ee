/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: every option is answered as the protocol says, also when it is malformed, unknown,
 * oversize or never finished.
 * Method: a real server on a loop thread over a device in memory; a blocking client that
 * writes every byte itself.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/nbd_fixture.h"

/* ---- handshake ---- */

static void expect_reply(struct nbd_client *client, uint32_t option, uint32_t type,
			 struct nbd_client_reply *reply)
{
	ok(nbd_client_reply(client, reply));
	assert_int_equal(reply->option, option);
	assert_int_equal(reply->type, type);
}

static void test_go_tells_size_flags_and_blocks(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = greeted(fixture);
	struct nbd_client_reply reply;
	uint8_t go[] = { 0, 0, 0, 2, 'd', '1', 0, 4, 0, 1, 0, 2, 0, 3, 0, 9 };
	struct nbd_info_block_size blocks;
	struct nbd_info_export info;

	(void)unused;
	ok(nbd_client_option(&client, NBD_OPT_GO, go, sizeof(go)));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_INFO, &reply);
	assert_int_equal(reply.len, sizeof(info));
	memcpy(&info, reply.data, sizeof(info));
	assert_int_equal(be16_get(info.type), NBD_INFO_EXPORT);
	assert_int_equal(be64_get(info.size_bytes), DISK_BYTES);
	/* no DF: structured replies were not asked for */
	assert_int_equal(be16_get(info.flags),
			 NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			 NBD_FLAG_CAN_MULTI_CONN);
	expect_reply(&client, NBD_OPT_GO, NBD_REP_INFO, &reply);
	assert_memory_equal(reply.data, "\0\1d1", 4);
	assert_int_equal(reply.len, 4);
	expect_reply(&client, NBD_OPT_GO, NBD_REP_INFO, &reply);
	assert_memory_equal(reply.data, "\0\2", 2);
	expect_reply(&client, NBD_OPT_GO, NBD_REP_INFO, &reply);
	assert_int_equal(reply.len, sizeof(blocks));
	memcpy(&blocks, reply.data, sizeof(blocks));
	assert_int_equal(be16_get(blocks.type), NBD_INFO_BLOCK_SIZE);
	assert_int_equal(be32_get(blocks.minimum_bytes), 512);
	assert_int_equal(be32_get(blocks.preferred_bytes), 4096);
	assert_int_equal(be32_get(blocks.maximum_bytes), MAX_BYTES);
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ACK, &reply);
	ok(nbd_client_simple(&client, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_flags_follow_the_device(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client client;
	uint8_t block[4096] = { 0 };

	(void)unused;
	fixture->limits.can_unmap = false;
	fixture->limits.block_bytes = 4096;
	fixture->options.read_only = true;
	fixture_start(fixture);
	client = started(fixture, true);
	assert_true(client.flags & NBD_FLAG_READ_ONLY);
	assert_true(client.flags & NBD_FLAG_SEND_DF);
	assert_false(client.flags & NBD_FLAG_SEND_TRIM);
	assert_int_equal(nbd_client_write(&client, 0, block, 4096, 0), NBD_EPERM);
	assert_int_equal(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES, 0, 0, 4096), NBD_EPERM);
	assert_int_equal(nbd_client_simple(&client, NBD_CMD_TRIM, 0, 0, 4096), NBD_EPERM);
	assert_int_equal(nbd_client_read(&client, 512, block, 512), NBD_EINVAL);
	ok(nbd_client_read(&client, 4096, block, 4096));
	ok(nbd_client_simple(&client, NBD_CMD_FLUSH, 0, 0, 0));
	assert_int_equal(look_at(fixture).ops[BLK_WRITE], 0);
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_trim_without_unmap_writes_nothing(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client client;

	(void)unused;
	fixture->limits.can_unmap = false;
	fixture_start(fixture);
	client = started(fixture, false);
	assert_int_equal(nbd_client_simple(&client, NBD_CMD_TRIM, 0, 0, 4096), NBD_EINVAL);
	assert_int_equal(look_at(fixture).ops[BLK_WRITE_ZEROES], 0);
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_export_name_with_and_without_zeroes(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_export_reply reply;
	struct nbd_client client;
	size_t short_bytes = offsetof(struct nbd_export_reply, zeroes);

	(void)unused;
	client = connected(fixture);
	ok(nbd_client_greet(&client, NBD_FLAG_FIXED_NEWSTYLE));
	ok(nbd_client_option(&client, NBD_OPT_EXPORT_NAME, "d1", 2));
	ok(nbd_client_receive(&client, &reply, sizeof(reply)));
	assert_int_equal(be64_get(reply.size_bytes), DISK_BYTES);
	assert_true(be16_get(reply.flags) & NBD_FLAG_HAS_FLAGS);
	for (int i = 0; i < NBD_EXPORT_REPLY_ZEROES; i++)
		assert_int_equal(reply.zeroes[i], 0);
	ok(nbd_client_simple(&client, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&client);

	client = greeted(fixture);              /* NO_ZEROES, and the default export */
	ok(nbd_client_option(&client, NBD_OPT_EXPORT_NAME, "", 0));
	ok(nbd_client_receive(&client, &reply, short_bytes));
	assert_int_equal(be64_get(reply.size_bytes), DISK_BYTES);
	ok(nbd_client_simple(&client, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&client);

	client = greeted(fixture);
	ok(nbd_client_option(&client, NBD_OPT_EXPORT_NAME, "other", 5));
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_list_info_unknown_abort(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = greeted(fixture);
	struct nbd_client_reply reply;
	uint8_t unknown_name[] = { 0, 0, 0, 1, 'x', 0, 0 };
	uint8_t bad_len[] = { 0, 0, 0, 9, 'x', 0, 0 };
	uint8_t trailing[] = { 0, 0, 0, 0, 0, 0, 7 };

	(void)unused;
	ok(nbd_client_option(&client, NBD_OPT_LIST, NULL, 0));
	expect_reply(&client, NBD_OPT_LIST, NBD_REP_SERVER, &reply);
	assert_int_equal(reply.len, 6);
	assert_memory_equal(reply.data, "\0\0\0\2d1", 6);
	expect_reply(&client, NBD_OPT_LIST, NBD_REP_ACK, &reply);
	ok(nbd_client_option(&client, NBD_OPT_LIST, "x", 1));
	expect_reply(&client, NBD_OPT_LIST, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_go(&client, NBD_OPT_INFO, "d1"));
	assert_int_equal(client.size_bytes, DISK_BYTES);
	ok(nbd_client_option(&client, NBD_OPT_GO, unknown_name, sizeof(unknown_name)));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, &reply);
	ok(nbd_client_option(&client, NBD_OPT_GO, bad_len, sizeof(bad_len)));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_option(&client, NBD_OPT_INFO, trailing, sizeof(trailing)));
	expect_reply(&client, NBD_OPT_INFO, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_option(&client, NBD_OPT_GO, NULL, 0));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_option(&client, NBD_OPT_STARTTLS, NULL, 0));
	expect_reply(&client, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, &reply);
	ok(nbd_client_option(&client, 11, NULL, 0));
	expect_reply(&client, 11, NBD_REP_ERR_UNSUP, &reply);
	ok(nbd_client_option(&client, 0x12345678, "abc", 3));
	expect_reply(&client, 0x12345678, NBD_REP_ERR_UNSUP, &reply);
	ok(nbd_client_option(&client, NBD_OPT_STRUCTURED_REPLY, "x", 1));
	expect_reply(&client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_option(&client, NBD_OPT_ABORT, NULL, 0));
	expect_reply(&client, NBD_OPT_ABORT, NBD_REP_ACK, &reply);
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	assert_int_equal(look_at(fixture).protocol_errors, 0);
	fixture_free(fixture);
}

static void test_oversize_options(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = greeted(fixture);
	struct nbd_client_reply reply;
	uint8_t *big = calloc(1, 300000);

	(void)unused;
	assert_non_null(big);
	ok(nbd_client_option(&client, NBD_OPT_GO, big, 300000));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG, &reply);
	ok(nbd_client_option(&client, NBD_OPT_LIST, NULL, 0));  /* in step again */
	expect_reply(&client, NBD_OPT_LIST, NBD_REP_SERVER, &reply);
	expect_reply(&client, NBD_OPT_LIST, NBD_REP_ACK, &reply);
	ok(nbd_client_option(&client, NBD_OPT_GO, big, 0));
	expect_reply(&client, NBD_OPT_GO, NBD_REP_ERR_INVALID, &reply);
	{
		struct nbd_option endless = { .magic = be64_of(NBD_OPTION_MAGIC),
					      .option = be32_of(77), .len = be32_of(UINT32_MAX) };

		ok(nbd_client_send(&client, &endless, sizeof(endless)));
	}
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	client = greeted(fixture);
	{
		struct nbd_option long_name = { .magic = be64_of(NBD_OPTION_MAGIC),
						.option = be32_of(NBD_OPT_EXPORT_NAME),
						.len = be32_of(5000) };

		ok(nbd_client_send(&client, &long_name, sizeof(long_name)));
	}
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	free(big);
	fixture_free(fixture);
}

static void test_bad_flags_and_magic_end_it(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = connected(fixture);
	uint8_t garbage[64];

	(void)unused;
	memset(garbage, 0x5a, sizeof(garbage));
	ok(nbd_client_greet(&client, 0x80));
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	client = greeted(fixture);
	ok(nbd_client_send(&client, garbage, sizeof(garbage)));
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	client = started(fixture, false);
	ok(nbd_client_send(&client, garbage, sizeof(garbage)));
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	assert_int_equal(look_at(fixture).protocol_errors, 3);
	fixture_free(fixture);
}

/* Longer than an option may be. */
static const uint8_t big_option[5000];

static void test_meta_contexts(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client_answer answer;
	struct nbd_client client = greeted(fixture);
	struct nbd_client_reply reply;
	static const char *const listing[] = { NULL, "base:", "base:allocation" };
	uint8_t endless[] = { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };

	(void)unused;
	ok(nbd_client_contexts(&client, NBD_OPT_SET_META_CONTEXT, "d1", "base:allocation"));
	expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_option(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0));
	expect_reply(&client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, &reply);
	for (size_t i = 0; i < ARRAY_COUNT(listing); i++) {
		ok(nbd_client_contexts(&client, NBD_OPT_LIST_META_CONTEXT, "", listing[i]));
		expect_reply(&client, NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT, &reply);
		assert_int_equal(reply.len, 4 + strlen("base:allocation"));
		assert_memory_equal(reply.data + 4, "base:allocation", reply.len - 4);
		expect_reply(&client, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, &reply);
	}
	ok(nbd_client_contexts(&client, NBD_OPT_LIST_META_CONTEXT, "d1", "qemu:dirty"));
	expect_reply(&client, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK, &reply);
	ok(nbd_client_contexts(&client, NBD_OPT_LIST_META_CONTEXT, "d2", NULL));
	expect_reply(&client, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_UNKNOWN, &reply);
	ok(nbd_client_option(&client, NBD_OPT_LIST_META_CONTEXT, endless, sizeof(endless)));
	expect_reply(&client, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_INVALID, &reply);
	ok(nbd_client_contexts(&client, NBD_OPT_SET_META_CONTEXT, "d1", "base:allocation"));
	expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, &reply);
	expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, &reply);
	/* A later choice replaces the first: the namespace alone chooses nothing. */
	ok(nbd_client_contexts(&client, NBD_OPT_SET_META_CONTEXT, "d1", "base:"));
	expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, &reply);
	ok(nbd_client_go(&client, NBD_OPT_GO, "d1"));
	ok(nbd_client_request(&client, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096));
	ok(nbd_client_answer(&client, &answer, NULL, 0));
	assert_int_equal(answer.error, NBD_EINVAL);
	nbd_client_close(&client);
	fixture_free(fixture);
}

/* Also a later choice that failed: the client cannot know what an id means now. */
static void test_failed_choice_ends_the_old(void **unused)
{
	static const uint8_t *const bad[] = { (const uint8_t *)"\0\0\0\7", big_option };
	static const uint32_t bad_len[] = { 4, sizeof(big_option) };
	struct fixture *fixture = fixture_usual();
	struct nbd_client_answer answer;
	struct nbd_client_reply reply;

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct nbd_client client = greeted(fixture);

		ok(nbd_client_option(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0));
		expect_reply(&client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, &reply);
		ok(nbd_client_contexts(&client, NBD_OPT_SET_META_CONTEXT, "", "base:allocation"));
		expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, &reply);
		expect_reply(&client, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, &reply);
		ok(nbd_client_option(&client, NBD_OPT_SET_META_CONTEXT, bad[i], bad_len[i]));
		ok(nbd_client_reply(&client, &reply));
		assert_true(reply.type >= NBD_REP_ERR_UNSUP);
		ok(nbd_client_go(&client, NBD_OPT_GO, "d1"));
		ok(nbd_client_request(&client, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096));
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.error, NBD_EINVAL);
		nbd_client_close(&client);
	}
	fixture_free(fixture);
}

static void test_handshake_has_a_deadline(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client silent, fast;
	struct nbd_greeting greeting;

	(void)unused;
	fixture->options.handshake_timeout_ns = NS_PER_S;       /* enough for a busy machine */
	fixture_start(fixture);
	fast = started(fixture, true);
	silent = connected(fixture);
	ok(nbd_client_receive(&silent, &greeting, sizeof(greeting)));
	ok(nbd_client_expect_end(&silent));
	/* The deadline was the handshake's only. */
	ok(nbd_client_simple(&fast, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&silent);
	nbd_client_close(&fast);
	fixture_free(fixture);
}

static void test_connection_cap(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client first, second, third;

	(void)unused;
	fixture->options.max_connections = 2;
	fixture_start(fixture);
	first = started(fixture, true);
	second = started(fixture, true);
	third = connected(fixture);
	ok(nbd_client_expect_end(&third));
	nbd_client_close(&third);
	nbd_client_close(&second);
	wait_until(fixture, now, now.connections == 1);
	third = started(fixture, true);
	ok(nbd_client_simple(&third, NBD_CMD_FLUSH, 0, 0, 0));
	ok(nbd_client_simple(&first, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&first);
	nbd_client_close(&third);
	fixture_free(fixture);
}

/* All options pipelined and never a reply read until the end: memory stays bounded, order too. */
static void test_pipelined_options(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = greeted(fixture);
	struct nbd_client_reply reply;

	(void)unused;
	for (int i = 0; i < 400; i++)
		ok(nbd_client_option(&client, NBD_OPT_LIST, NULL, 0));
	for (int i = 0; i < 400; i++) {
		expect_reply(&client, NBD_OPT_LIST, NBD_REP_SERVER, &reply);
		expect_reply(&client, NBD_OPT_LIST, NBD_REP_ACK, &reply);
	}
	nbd_client_close(&client);
	fixture_free(fixture);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_go_tells_size_flags_and_blocks),
		cmocka_unit_test(test_flags_follow_the_device),
		cmocka_unit_test(test_trim_without_unmap_writes_nothing),
		cmocka_unit_test(test_export_name_with_and_without_zeroes),
		cmocka_unit_test(test_list_info_unknown_abort),
		cmocka_unit_test(test_oversize_options),
		cmocka_unit_test(test_bad_flags_and_magic_end_it),
		cmocka_unit_test(test_meta_contexts),
		cmocka_unit_test(test_failed_choice_ends_the_old),
		cmocka_unit_test(test_handshake_has_a_deadline),
		cmocka_unit_test(test_connection_cap),
		cmocka_unit_test(test_pipelined_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

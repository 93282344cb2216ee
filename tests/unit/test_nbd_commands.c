/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: each command reaches the device as what it means, and what breaks the rules is
 * refused with the right error on a connection that lives on.
 * Method: a real server on a loop thread over a device in memory; a blocking client that
 * writes every byte itself.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/nbd_fixture.h"

/* ---- commands ---- */

static void check_write_and_read(struct fixture *fixture, bool structured)
{
	static const uint32_t sizes[] = { 512, 4096, 65536, 100 * 512, 1 << 20, MAX_BYTES };
	struct nbd_client client = started(fixture, structured);
	uint8_t *out = malloc(MAX_BYTES), *in = malloc(MAX_BYTES);

	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		uint64_t offset_bytes = i * 512;

		fill(out, sizes[i], (unsigned)i);
		ok(nbd_client_write(&client, offset_bytes, out, sizes[i], 0));
		ok(nbd_client_read(&client, offset_bytes, in, sizes[i]));
		assert_memory_equal(out, in, sizes[i]);
	}
	ok(nbd_client_write(&client, DISK_BYTES - 512, out, 512, 0));
	ok(nbd_client_read(&client, DISK_BYTES - 512, in, 512));
	assert_memory_equal(out, in, 512);
	free(out);
	free(in);
	nbd_client_close(&client);
}

static void test_write_and_read(void **unused)
{
	struct fixture *fixture = fixture_usual();

	(void)unused;
	check_write_and_read(fixture, false);
	check_write_and_read(fixture, true);
	fixture_free(fixture);
}

static void test_flags_reach_the_device(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	uint8_t block[4096] = { 1 };
	struct look look;

	(void)unused;
	ok(nbd_client_write(&client, 0, block, 4096, 0));
	look = look_at(fixture);
	assert_int_equal(look.last_flags[BLK_WRITE], BLK_STABLE);
	assert_true(look.last_had_data);
	ok(nbd_client_write(&client, 0, block, 4096, NBD_CMD_FLAG_FUA));
	assert_int_equal(look_at(fixture).last_flags[BLK_WRITE], BLK_STABLE | BLK_FUA);
	ok(nbd_client_simple(&client, NBD_CMD_TRIM, 0, 0, 4096));       /* R8 */
	look = look_at(fixture);
	assert_int_equal(look.last_flags[BLK_WRITE_ZEROES], BLK_MAY_UNMAP);
	assert_int_equal(look.ops[BLK_DISCARD], 0);
	ok(nbd_client_simple(&client, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096));
	assert_int_equal(look_at(fixture).last_flags[BLK_WRITE_ZEROES], BLK_MAY_UNMAP | BLK_FUA);
	ok(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES, 0, 0, 4096));
	assert_int_equal(look_at(fixture).last_flags[BLK_WRITE_ZEROES], BLK_MAY_UNMAP);
	ok(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES,
			     NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA, 0, 4096));
	assert_int_equal(look_at(fixture).last_flags[BLK_WRITE_ZEROES], BLK_FUA);
	assert_int_equal(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO,
					   0, 4096), NBD_ENOTSUP);
	/* Zeroes may be longer than a transfer. */
	ok(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES, 0, 0, (uint32_t)DISK_BYTES));
	ok(nbd_client_simple(&client, NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0));
	assert_int_equal(look_at(fixture).ops[BLK_FLUSH], 1);
	nbd_client_close(&client);
	fixture_free(fixture);
}

struct bad_row {
	uint16_t type, flags;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	int error;
};

static const struct bad_row bad_rows[] = {
	{ NBD_CMD_READ, 0, 0, 0, NBD_EINVAL },
	{ NBD_CMD_READ, 0, 1, 512, NBD_EINVAL },
	{ NBD_CMD_READ, 0, 0, 511, NBD_EINVAL },
	{ NBD_CMD_READ, 0, DISK_BYTES, 512, NBD_EINVAL },
	{ NBD_CMD_READ, 0, DISK_BYTES - 512, 1024, NBD_EINVAL },
	{ NBD_CMD_READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL },
	{ NBD_CMD_READ, 0, UINT64_MAX - 511, 1024, NBD_EINVAL },
	{ NBD_CMD_READ, 0, 0, MAX_BYTES + 512, NBD_EINVAL },
	{ NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL },
	{ NBD_CMD_READ, 0x8000, 0, 512, NBD_EINVAL },
	{ NBD_CMD_READ, 0x20, 0, 512, NBD_EINVAL },
	{ NBD_CMD_WRITE, 0, 0, 0, NBD_EINVAL },
	{ NBD_CMD_WRITE, 0, 0, 513, NBD_EINVAL },
	{ NBD_CMD_WRITE, 0, 7, 1024, NBD_EINVAL },
	{ NBD_CMD_WRITE, 0, DISK_BYTES, 512, NBD_ENOSPC },
	{ NBD_CMD_WRITE, 0, DISK_BYTES - 4096, 8192, NBD_ENOSPC },
	{ NBD_CMD_WRITE, 0, UINT64_MAX, 512, NBD_ENOSPC },
	{ NBD_CMD_WRITE, 0, 0, MAX_BYTES + 512, NBD_EINVAL },
	{ NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 4096, NBD_EINVAL },
	{ NBD_CMD_TRIM, 0, 0, 0, NBD_EINVAL },
	{ NBD_CMD_TRIM, 0, 256, 512, NBD_EINVAL },
	{ NBD_CMD_TRIM, 0, DISK_BYTES, 512, NBD_EINVAL },
	{ NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL },
	{ NBD_CMD_WRITE_ZEROES, 0, 0, 0, NBD_EINVAL },
	{ NBD_CMD_WRITE_ZEROES, 0, 0, 100, NBD_EINVAL },
	{ NBD_CMD_WRITE_ZEROES, 0, DISK_BYTES, 512, NBD_ENOSPC },
	{ NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_REQ_ONE, 0, 512, NBD_EINVAL },
	{ NBD_CMD_FLUSH, NBD_CMD_FLAG_DF, 0, 0, NBD_EINVAL },
	{ NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL },
	{ NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL },
	{ NBD_CMD_BLOCK_STATUS, 0, DISK_BYTES, 512, NBD_EINVAL },
	{ NBD_CMD_CACHE, 0, 0, 512, NBD_EINVAL },
	{ 8, 0, 0, 512, NBD_EINVAL },
	{ 0xffff, 0, 0, 512, NBD_EINVAL },
};

static void check_bad_requests(struct fixture *fixture, bool structured)
{
	struct nbd_client client = started(fixture, structured);
	struct nbd_client_answer answer;
	uint8_t *payload = malloc(MAX_BYTES + 512), good[4096], back[4096];

	assert_non_null(payload);
	memset(payload, 0xee, MAX_BYTES + 512);
	fill(good, sizeof(good), 3);
	for (size_t i = 0; i < ARRAY_COUNT(bad_rows); i++) {
		const struct bad_row *row = &bad_rows[i];

		ok(nbd_client_request(&client, row->type, row->flags, i, row->offset_bytes,
				      row->len_bytes));
		if (row->type == NBD_CMD_WRITE)
			ok(nbd_client_send(&client, payload, row->len_bytes));
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.cookie, i);
		assert_int_equal(answer.error, row->error);
		assert_int_equal(answer.chunk, structured && (row->type == NBD_CMD_READ ||
					row->type == NBD_CMD_BLOCK_STATUS));
		/* The connection lives and is in step. */
		ok(nbd_client_write(&client, 8192, good, sizeof(good), 0));
		ok(nbd_client_read(&client, 8192, back, sizeof(back)));
		assert_memory_equal(good, back, sizeof(good));
	}
	free(payload);
	nbd_client_close(&client);
}

static void test_bad_requests_are_refused_and_drained(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct look look;

	(void)unused;
	check_bad_requests(fixture, false);
	check_bad_requests(fixture, true);
	look = look_at(fixture);
	assert_int_equal(look.ops[BLK_WRITE], 2 * ARRAY_COUNT(bad_rows));
	assert_int_equal(look.ops[BLK_READ], 2 * ARRAY_COUNT(bad_rows));
	assert_int_equal(look.ops[BLK_WRITE_ZEROES] + look.ops[BLK_EXTENTS] + look.ops[BLK_FLUSH],
			 0);
	fixture_free(fixture);
}

static void test_df(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	struct nbd_client_answer answer;
	uint8_t *data = malloc(MAX_BYTES);

	(void)unused;
	assert_non_null(data);
	ok(nbd_client_request(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1, 0, MAX_BYTES));
	ok(nbd_client_answer(&client, &answer, data, MAX_BYTES));
	assert_int_equal(answer.type, NBD_CHUNK_OFFSET_DATA);
	assert_int_equal(answer.flags, NBD_CHUNK_FLAG_DONE);
	assert_int_equal(answer.len, MAX_BYTES + 8);
	ok(nbd_client_request(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 2, 0, MAX_BYTES + 4096));
	ok(nbd_client_answer(&client, &answer, data, MAX_BYTES));
	assert_int_equal(answer.error, NBD_EOVERFLOW);
	nbd_client_close(&client);
	client = started(fixture, false);       /* DF needs structured replies */
	ok(nbd_client_request(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 3, 0, 4096));
	ok(nbd_client_answer(&client, &answer, data, 4096));
	assert_int_equal(answer.error, NBD_EINVAL);
	nbd_client_close(&client);
	free(data);
	fixture_free(fixture);
}

static void test_device_errors_are_mapped(void **unused)
{
	static const struct { int rc; int error; } rows[] = {
		{ -EIO, NBD_EIO }, { -ENOSPC, NBD_ENOSPC }, { -EDQUOT, NBD_ENOSPC },
		{ -EFBIG, NBD_ENOSPC }, { -EPERM, NBD_EPERM }, { -EACCES, NBD_EPERM },
		{ -EROFS, NBD_EPERM }, { -ENOMEM, NBD_ENOMEM }, { -EINVAL, NBD_EINVAL },
		{ -EOVERFLOW, NBD_EOVERFLOW }, { -ENOTSUP, NBD_ENOTSUP },
		{ -ESHUTDOWN, NBD_ESHUTDOWN }, { -ETIMEDOUT, NBD_EIO }, { -ENODEV, NBD_EIO },
	};
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true), simple = started(fixture, false);
	struct nbd_client_answer answer;
	uint8_t block[4096] = { 0 };

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		for (enum blk_op op = 0; op < BLK_OP_COUNT; op++)
			device_fail(fixture, op, rows[i].rc);
		assert_int_equal(nbd_client_write(&client, 0, block, 4096, 0), rows[i].error);
		assert_int_equal(nbd_client_simple(&client, NBD_CMD_FLUSH, 0, 0, 0),
				 rows[i].error);
		assert_int_equal(nbd_client_simple(&client, NBD_CMD_TRIM, 0, 0, 4096),
				 rows[i].error);
		assert_int_equal(nbd_client_read(&simple, 0, block, 4096), rows[i].error);
		ok(nbd_client_request(&client, NBD_CMD_BLOCK_STATUS, 0, 5, 0, 4096));
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.type, NBD_CHUNK_ERROR);
		assert_int_equal(answer.error, rows[i].error);
		ok(nbd_client_request(&client, NBD_CMD_READ, 0, 6, 8192, 4096));
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.type, NBD_CHUNK_ERROR_OFFSET);
		assert_int_equal(answer.offset_bytes, 8192);
		assert_int_equal(answer.error, rows[i].error);
	}
	nbd_client_close(&client);
	nbd_client_close(&simple);
	fixture_free(fixture);
}

/* ---- block status ---- */

static void ask_status(struct nbd_client *client, uint16_t flags, uint64_t offset_bytes,
		       uint32_t len_bytes, struct nbd_client_answer *answer)
{
	ok(nbd_client_request(client, NBD_CMD_BLOCK_STATUS, flags, 9, offset_bytes, len_bytes));
	ok(nbd_client_answer(client, answer, NULL, 0));
	assert_true(answer->chunk);
	assert_int_equal(answer->cookie, 9);
	assert_int_equal(answer->type, NBD_CHUNK_BLOCK_STATUS);
	assert_int_equal(answer->flags, NBD_CHUNK_FLAG_DONE);
}

static void expect_extent(const struct nbd_client_answer *answer, uint32_t index,
			  uint32_t len_bytes, uint32_t flags)
{
	assert_true(index < answer->extent_count);
	assert_int_equal(be32_get(answer->extents[index].len_bytes), len_bytes);
	assert_int_equal(be32_get(answer->extents[index].flags), flags);
}

static void test_block_status(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	struct nbd_client_answer answer;
	uint8_t block[8192] = { 1 };

	(void)unused;
	ok(nbd_client_write(&client, 4096, block, 8192, 0));
	ok(nbd_client_simple(&client, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 12288, 4096));
	ask_status(&client, 0, 0, 32768, &answer);
	assert_int_equal(answer.extent_count, 4);
	expect_extent(&answer, 0, 4096, NBD_STATE_HOLE | NBD_STATE_ZERO);
	expect_extent(&answer, 1, 8192, 0);
	expect_extent(&answer, 2, 4096, NBD_STATE_ZERO);
	expect_extent(&answer, 3, 16384, NBD_STATE_HOLE | NBD_STATE_ZERO);
	ask_status(&client, 0, 4608, 512, &answer);
	assert_int_equal(answer.extent_count, 1);
	expect_extent(&answer, 0, 512, 0);
	ask_status(&client, NBD_CMD_FLAG_REQ_ONE, 0, 32768, &answer);
	assert_int_equal(answer.extent_count, 1);
	expect_extent(&answer, 0, 4096, NBD_STATE_HOLE | NBD_STATE_ZERO);
	/* What the device tells in pieces is joined. */
	ask_status(&client, 0, 1 << 20, 16 << 20, &answer);
	assert_int_equal(answer.extent_count, 1);
	expect_extent(&answer, 0, 16 << 20, NBD_STATE_HOLE | NBD_STATE_ZERO);
	/* A checkerboard has more runs than one answer holds. */
	for (uint64_t i = 0; i < 600; i++)
		ok(nbd_client_write(&client, (1 << 20) + i * 8192, block, 4096, 0));
	ask_status(&client, 0, 1 << 20, 600 * 8192, &answer);
	assert_int_equal(answer.extent_count, 512);
	expect_extent(&answer, 510, 4096, 0);
	expect_extent(&answer, 511, 4096, NBD_STATE_HOLE | NBD_STATE_ZERO);
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_block_status_needs_its_context(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, false);

	(void)unused;
	assert_int_equal(nbd_client_simple(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 4096), NBD_EINVAL);
	assert_int_equal(look_at(fixture).ops[BLK_EXTENTS], 0);
	nbd_client_close(&client);
	fixture_free(fixture);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_and_read),
		cmocka_unit_test(test_flags_reach_the_device),
		cmocka_unit_test(test_bad_requests_are_refused_and_drained),
		cmocka_unit_test(test_df),
		cmocka_unit_test(test_device_errors_are_mapped),
		cmocka_unit_test(test_block_status),
		cmocka_unit_test(test_block_status_needs_its_context),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

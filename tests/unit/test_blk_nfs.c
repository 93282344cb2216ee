/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a server that does less than it was asked, forgets, lies or goes away never makes the
 * device say that data are there which are not (M14, R2, R9).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/nfs_private.h"
#include "tests/lib/nfs_fake.h"

static void test_data(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(FILE_BYTES), *again = calloc(1, FILE_BYTES);

	(void)state;
	for (unsigned most = LIMIT_BYTES; most > 5000; most = most / 2 - 3) {
		rig->server.most_bytes = most;  /* short answers: the rest is asked for */
		memset(rig->server.file, 0, FILE_BYTES);
		memset(again, 0, FILE_BYTES);
		assert_int_equal(fake_io(rig, BLK_WRITE, 1024, bytes + 1024, 3000320, 0), 0);
		assert_memory_equal(rig->server.file + 1024, bytes + 1024, 3000320);
		assert_int_equal(rig->server.file[1023] | rig->server.file[1024 + 3000320], 0);
		assert_int_equal(fake_io(rig, BLK_READ, 1024, again, 3000320, 0), 0);
		assert_memory_equal(again, bytes + 1024, 3000320);
	}
	rig->server.most_bytes = UINT32_MAX;
	assert_int_equal(fake_io(rig, BLK_WRITE_ZEROES, 512, NULL, 1 << 20, BLK_MAY_UNMAP), 0);
	memset(again, 0, 1 << 20);
	assert_memory_equal(rig->server.file + 512, again, 1 << 20);
	assert_int_equal(rig->server.file[512 + (1 << 20)], bytes[512 + (1 << 20)]);
	/* R9: a first flush reaches the server. */
	assert_int_equal(rig->server.commits, 0);
	assert_int_equal(fake_flush(rig), 0);
	assert_int_equal(rig->server.commits, 1);
	fake_free(rig);
	free(bytes);
	free(again);
}

static void test_stable(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(512);

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(rig->server.stable, 0);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, BLK_FUA), 0);
	assert_int_equal(rig->server.stable, 1);
	rig->server.says_unstable = true;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, BLK_FUA), -EIO);
	fake_free(rig);
	rig = fake_new(BLK_NFS_PLAIN, true, NULL);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(rig->server.unstable, 0);
	rig->server.says_unstable = true;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EIO);
	fake_free(rig);
	free(bytes);
}

/* M14: found by a COMMIT, found by a later write; told once, then trusted again. */
static void test_verifier(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(512);

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	assert_int_equal(fake_flush(rig), -EIO);
	assert_int_equal(fake_flush(rig), 0);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(fake_flush(rig), 0);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	/* The write itself is fine, and the COMMIT will name the same life as this one. */
	assert_int_equal(fake_io(rig, BLK_WRITE, 512, bytes, 512, 0), 0);
	assert_int_equal(fake_flush(rig), -EIO);
	assert_int_equal(fake_flush(rig), 0);
	assert_false(blk_nfs_is_dead(rig->dev));
	fake_free(rig);
	free(bytes);
}

static void test_flushes_at_once(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(512);
	struct io_op flushes[4];

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	for (unsigned i = 0; i < ARRAY_COUNT(flushes); i++) {
		flushes[i] = (struct io_op){ .req = { .op = BLK_FLUSH } };
		io_submit_op(&rig->wait, rig->dev, &flushes[i]);
	}
	assert_true(io_wait_for(&rig->wait, ARRAY_COUNT(flushes)));
	for (unsigned i = 0; i < ARRAY_COUNT(flushes); i++)
		assert_int_equal(flushes[i].req.result, -EIO);
	assert_int_equal(fake_flush(rig), 0);
	fake_free(rig);
	free(bytes);
}

static void test_refusals(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(512);

	(void)state;
	rig->server.write_status = NFS3ERR_NOSPC;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), -ENOSPC);
	rig->server.write_status = NFS3ERR_ROFS;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EROFS);
	rig->server.write_status = 0;
	rig->server.commit_status = NFS3ERR_IO;
	assert_int_equal(fake_flush(rig), -EIO);
	rig->server.commit_status = 0;
	assert_int_equal(fake_flush(rig), 0);
	/* A server that does nothing at all would be asked for ever. */
	rig->server.most_bytes = 0;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EIO);
	rig->server.most_bytes = UINT32_MAX;
	rig->server.reads_nothing = true;
	assert_int_equal(fake_io(rig, BLK_READ, 0, bytes, 512, 0), -EIO);
	rig->server.reads_nothing = false;
	rig->server.reads_too_much = true;
	assert_int_equal(fake_io(rig, BLK_READ, 0, bytes, 512, 0), -EIO);
	fake_free(rig);
	free(bytes);
}

/* R2: all that was under way fails, what comes after too, and nothing is sent again. */
static void test_lost(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_PLAIN, false, NULL);
	uint8_t *bytes = pattern(64 << 10);
	struct iovec iov = { bytes, 64 << 10 };
	struct io_op writes[40];

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.hangs_up = true;
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++) {
		writes[i] = (struct io_op){ .req = { .op = BLK_WRITE, .offset_bytes = i * 65536,
						     .len_bytes = 65536, .iov = &iov,
						     .iov_count = 1 } };
		io_submit_op(&rig->wait, rig->dev, &writes[i]);
	}
	assert_true(io_wait_for(&rig->wait, ARRAY_COUNT(writes)));
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++)
		assert_int_equal(writes[i].req.result, -EIO);
	assert_true(blk_nfs_is_dead(rig->dev));
	assert_int_equal(fake_flush(rig), -EIO);
	assert_int_equal(rig->server.unstable, 1);
	fake_free(rig);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),     cmocka_unit_test(test_stable),
		cmocka_unit_test(test_verifier), cmocka_unit_test(test_flushes_at_once),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a guest's disk on NFS outlives its connections and its server's memory (R3, M14); a mirror's
 * target tells what it may have lost, and not before it can land no more (R2); nothing is sent
 * under a lease that has lapsed (R-F1, R-F3).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/nfs_recovery.h"
#include "tests/lib/nfs_fake.h"

static void begin(struct nfs_fake *rig, struct io_op *io, enum blk_op op, struct iovec *iov,
		  uint64_t offset)
{
	*io = (struct io_op){ .req = { .op = op, .offset_bytes = offset,
				       .len_bytes = iov ? iov->iov_len : 0, .iov = iov,
				       .iov_count = iov != NULL } };
	io_submit_op(&rig->wait, rig->dev, io);
}

/* M14: what was answered and not committed is written again, in its order. */
static void test_source_replays(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_SOURCE, false, NULL);
	uint8_t *bytes = pattern(1 << 20);

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 65536, 0), 0);
	assert_int_equal(fake_flush(rig), 0);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(fake_io(rig, BLK_WRITE, i * 512, bytes + i * 1000, 65536, 0), 0);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes + 77, 512, BLK_FUA), 0);
	assert_int_equal(fake_io(rig, BLK_WRITE_ZEROES, 200704, NULL, 65536, 0), 0);
	fake_restart(&rig->server);
	/* Found by the COMMIT; the guest's flush is good all the same. */
	assert_int_equal(fake_flush(rig), 0);
	for (unsigned i = 1; i < 9; i++)
		assert_memory_equal(rig->server.safe + i * 512, bytes + i * 1000, 512);
	assert_memory_equal(rig->server.safe + 9 * 512, bytes + 9000, 65536);
	assert_memory_equal(rig->server.safe, bytes + 77, 512);
	assert_false(blk_nfs_is_dead(rig->dev));
	/* Found by a later write. */
	assert_int_equal(fake_io(rig, BLK_WRITE, 1 << 20, bytes, 4096, 0), 0);
	fake_restart(&rig->server);
	assert_int_equal(fake_io(rig, BLK_WRITE, 2 << 20, bytes, 4096, 0), 0);
	assert_memory_equal(rig->server.file + (1 << 20), bytes, 4096);
	assert_int_equal(fake_flush(rig), 0);
	assert_memory_equal(rig->server.safe + (2 << 20), bytes, 4096);
	fake_free(rig);
	free(bytes);
}

/* R9: a COMMIT that failed is not made good by one that succeeds: the data are written again. */
static void test_source_commit_fails(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_SOURCE, false, NULL);
	uint8_t *bytes = pattern(4096);
	struct io_op flush;

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 4096, 0), 0);
	rig->server.commit_status = NFS3ERR_IO;
	begin(rig, &flush, BLK_FLUSH, NULL, 0);
	io_wait_pass(&rig->wait, 300 * NS_PER_MS);
	assert_true(flush.in_flight);    /* the guest waits */
	memset(rig->server.file, 0, 4096);
	rig->server.commit_status = 0;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(flush.req.result, 0);
	assert_memory_equal(rig->server.safe, bytes, 4096);
	fake_free(rig);
	free(bytes);
}

/* M14: memory for what is not committed is bounded by COMMITs of our own. */
static void test_source_bounds_what_it_keeps(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_SOURCE, false, NULL);
	uint8_t *bytes = pattern(1 << 20);

	(void)state;
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(fake_io(rig, BLK_WRITE, i % 4 << 20, bytes, 1 << 20, 0), 0);
	assert_true(rig->server.commits >= 5);
	fake_free(rig);
	free(bytes);
}

/* The server goes and comes back: what was under way is sent again, and the guest sees nothing. */
static void test_source_waits(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_SOURCE, false, NULL);
	uint8_t *bytes = pattern(65536);
	struct iovec iov = { bytes, 65536 };
	struct io_op writes[40];

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 3 << 20, bytes, 512, 0), 0);
	rig->server.hangs_up = true;
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++)
		begin(rig, &writes[i], BLK_WRITE, &iov, i * 65536);
	io_wait_pass(&rig->wait, 200 * NS_PER_MS);
	assert_true(writes[0].in_flight);
	fake_restart(&rig->server);
	rig->server.hangs_up = false;
	assert_true(io_wait_for(&rig->wait, ARRAY_COUNT(writes)));
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++) {
		assert_int_equal(writes[i].req.result, 0);
		assert_memory_equal(rig->server.file + i * 65536, bytes, 65536);
	}
	assert_memory_equal(rig->server.file + (3 << 20), bytes, 512);
	assert_int_equal(fake_flush(rig), 0);
	fake_free(rig);
	free(bytes);
}

/* R3: a server that has not restarted may still carry out what it has: that is waited for. */
static void test_barrier_waits_out_the_quarantine(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_SOURCE, false, NULL);
	uint8_t *bytes = pattern(4096);
	struct iovec iov = { bytes, 4096 };
	struct io_op write;
	uint64_t begun_ns;

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.swallows = true;
	begun_ns = fence_clock_ns();
	begin(rig, &write, BLK_WRITE, &iov, 8192);
	io_wait_pass(&rig->wait, 100 * NS_PER_MS);
	rig->server.swallows = false;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(write.req.result, 0);
	assert_true(fence_clock_ns() - begun_ns >= NFS_QUARANTINE_WIRE_NS +
							   NFS_QUARANTINE_SERVER_NS);
	fake_free(rig);
	free(bytes);
}

/* R2: a target's lost write is answered when it can land no more, and is never sent again. */
static void test_target_fails_late(void **state)
{
	struct nfs_fake *rig = fake_new(BLK_NFS_TARGET, false, NULL);
	uint8_t *bytes = pattern(4096);
	struct iovec iov = { bytes, 4096 };
	struct io_op writes[2];

	(void)state;
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.hangs_up = true;
	begin(rig, &writes[0], BLK_WRITE, &iov, 8192);
	begin(rig, &writes[1], BLK_WRITE, &iov, 65536);
	io_wait_pass(&rig->wait, 200 * NS_PER_MS);
	assert_true(writes[0].in_flight);
	fake_restart(&rig->server);
	rig->server.hangs_up = false;
	assert_true(io_wait_for(&rig->wait, 2));
	assert_int_equal(writes[0].req.result, -EIO);
	assert_int_equal(writes[1].req.result, -EIO);
	assert_int_equal(rig->server.unstable, 1);
	assert_false(blk_is_lost(rig->dev));
	/* M14: the first write was lost with the server's memory: the next flush says so. */
	assert_int_equal(fake_flush(rig), -EIO);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(fake_flush(rig), 0);
	/* From now on a guest's disk: nothing is told, all is kept. */
	blk_nfs_promote(rig->dev);
	assert_int_equal(fake_io(rig, BLK_WRITE, 4096, bytes, 4096, 0), 0);
	fake_restart(&rig->server);
	assert_int_equal(fake_flush(rig), 0);
	assert_memory_equal(rig->server.safe + 4096, bytes, 4096);
	fake_free(rig);
	free(bytes);
}

/* R-F1, R-F3: nothing is sent while the lease is out; it goes on when it is renewed. */
static void test_fence(void **state)
{
	struct fence *fence = fence_new();
	struct nfs_fake *rig;
	uint8_t *bytes = pattern(4096);
	struct iovec iov = { bytes, 4096 };
	struct io_op write;

	(void)state;
	fence_renew(fence, fence_clock_ns() + 3600 * NS_PER_S);
	rig = fake_new(BLK_NFS_SOURCE, false, fence);
	assert_int_equal(fake_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	fence_renew(fence, fence_clock_ns());
	begin(rig, &write, BLK_WRITE, &iov, 8192);
	io_wait_pass(&rig->wait, 300 * NS_PER_MS);
	assert_true(write.in_flight);
	assert_int_equal(rig->server.file[8192 + 100], 0);
	fence_renew(fence, fence_clock_ns() + 3600 * NS_PER_S);
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(write.req.result, 0);
	assert_memory_equal(rig->server.file + 8192, bytes, 4096);
	/* Lost: for good, and whoever waits is told. */
	fence_lose(fence);
	assert_int_equal(fake_io(rig, BLK_WRITE, 16384, bytes, 512, 0), -EIO);
	assert_int_equal(fake_io(rig, BLK_READ, 16384, bytes, 512, 0), -EIO);
	assert_true(blk_is_lost(rig->dev));
	assert_int_equal(rig->server.file[16384 + 100], 0);
	fake_free(rig);
	fence_put(fence);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source_replays),
		cmocka_unit_test(test_source_commit_fails),
		cmocka_unit_test(test_source_bounds_what_it_keeps),
		cmocka_unit_test(test_source_waits),
		cmocka_unit_test(test_barrier_waits_out_the_quarantine),
		cmocka_unit_test(test_target_fails_late),
		cmocka_unit_test(test_fence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_file.c - blk_file on real files: what is written is read, in each of its modes;
 * memory of any alignment; zeroes, holes and extents; sizes and limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/blkdev/blk_file_private.h"
#include "tests/lib/file_fixture.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)
#define DIRECT (O_RDWR | O_DIRECT)

static int setup(void **state)
{
	static struct file_fixture fixture;

	file_fixture_init(&fixture);
	*state = &fixture;
	return 0;
}

static int teardown(void **state)
{
	file_fixture_release(*state);
	return 0;
}

static uint64_t allocated_bytes(struct file_fixture *fixture, const char *name)
{
	int fd = file_open(fixture, name, O_RDONLY);
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	return (uint64_t)st.st_blocks * 512;
}

/* ---- every mode keeps the data ---- */

static void torture_mode(struct file_fixture *fixture, int flags, struct blk_file_options options)
{
	int fd = file_make(fixture, "disk", 16 * MIB, flags);
	struct blk_dev *dev = file_device(fixture, fd, options);

	file_torture(fixture, dev, 3000);
	file_close(fixture, dev);
}

static void test_direct_keeps_data(void **state)
{
	torture_mode(*state, DIRECT, (struct blk_file_options){ 0 });
}

static void test_submit_thread_keeps_data(void **state)
{
	torture_mode(*state, DIRECT, (struct blk_file_options){ .submit_thread = true });
}

static void test_small_depth_queues_the_rest(void **state)
{
	torture_mode(*state, DIRECT, (struct blk_file_options){ .depth = 1 });
	torture_mode(*state, DIRECT,
		     (struct blk_file_options){ .depth = 3, .submit_thread = true });
}

static void test_buffered_keeps_data(void **state)
{
	torture_mode(*state, O_RDWR, (struct blk_file_options){ .submit_thread = true });
}

static void test_tmpfs_keeps_data(void **state)
{
	static const int flags[] = { O_RDWR, DIRECT };
	struct file_fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_COUNT(flags); i++) {
		char path[] = "/dev/shm/blk_file.XXXXXX";
		int fd = mkstemp(path);
		struct blk_dev *dev;

		if (fd < 0)
			skip();
		close(fd);
		fd = open(path, flags[i] | O_CLOEXEC);
		assert_int_equal(unlink(path), 0);
		if (fd < 0) {
			assert_int_equal(errno, EINVAL);
			continue;       /* tmpfs of old: callers then open without O_DIRECT */
		}
		assert_int_equal(ftruncate(fd, 16 * (off_t)MIB), 0);
		dev = file_device(fixture, fd, (struct blk_file_options){ 0 });
		file_torture(fixture, dev, 1000);
		file_close(fixture, dev);
	}
}

static void test_thread_can_be_switched(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", MIB, DIRECT),
					  (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(64 * KIB, 7);
	uint8_t *found = file_pattern(64 * KIB, 8);

	for (int round = 0; round < 20; round++) {
		assert_int_equal(blk_file_set_submit_thread(dev, round % 3 != 0), 0);
		memset(bytes, round + 1, 64 * KIB);
		assert_int_equal(file_write(fixture, dev, 0, bytes, 64 * KIB, 0), 0);
		assert_int_equal(file_read(fixture, dev, 0, found, 64 * KIB), 0);
		assert_memory_equal(found, bytes, 64 * KIB);
	}
	file_close(fixture, dev);
	free(bytes);
	free(found);
}

static void test_largest_request(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", 64 * MIB, DIRECT),
					  (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(BLK_MAX_TRANSFER_BYTES + 512, 3);
	uint8_t *found = file_pattern(BLK_MAX_TRANSFER_BYTES, 4);
	struct iovec iov[BLK_MAX_IOV];
	struct io_op ops[4];

	/* Aligned in as many pieces as there may be, and four at once that must all be bounced. */
	for (uint32_t i = 0; i < BLK_MAX_IOV; i++)
		iov[i] = (struct iovec){ bytes + i * (BLK_MAX_TRANSFER_BYTES / BLK_MAX_IOV),
					 BLK_MAX_TRANSFER_BYTES / BLK_MAX_IOV };
	ops[0] = (struct io_op){ .req = { .op = BLK_WRITE, .len_bytes = BLK_MAX_TRANSFER_BYTES,
					  .iov = iov, .iov_count = BLK_MAX_IOV } };
	assert_int_equal(io_do(&fixture->wait, dev, &ops[0]), 0);
	assert_int_equal(file_read(fixture, dev, 0, found, BLK_MAX_TRANSFER_BYTES), 0);
	assert_memory_equal(found, bytes, BLK_MAX_TRANSFER_BYTES);
	iov[0] = (struct iovec){ bytes + 3, BLK_MAX_TRANSFER_BYTES };
	for (uint32_t i = 0; i < ARRAY_COUNT(ops); i++) {
		ops[i] = (struct io_op){ .req = { .op = BLK_WRITE,
						  .offset_bytes = i / 2 * BLK_MAX_TRANSFER_BYTES,
						  .len_bytes = BLK_MAX_TRANSFER_BYTES,
						  .iov = iov, .iov_count = 1 } };
		io_submit_op(&fixture->wait, dev, &ops[i]);
	}
	assert_true(io_wait_for(&fixture->wait, ARRAY_COUNT(ops)));
	for (uint32_t i = 0; i < ARRAY_COUNT(ops); i++)
		assert_int_equal(ops[i].req.result, 0);
	assert_int_equal(file_read(fixture, dev, BLK_MAX_TRANSFER_BYTES, found,
				   BLK_MAX_TRANSFER_BYTES), 0);
	assert_memory_equal(found, bytes + 3, BLK_MAX_TRANSFER_BYTES);
	file_close(fixture, dev);
	free(bytes);
	free(found);
}

/* ---- closing from the last completion ---- */

static void close_in_then(struct io_op *op)
{
	struct file_fixture *fixture = container_of(op->wait, struct file_fixture, wait);

	file_close(fixture, (struct blk_dev *)(uintptr_t)op->tag);
}

static void test_close_from_completion(void **state)
{
	static const struct { int flags; bool thread; enum blk_op op; } cases[] = {
		{ DIRECT, false, BLK_FLUSH },        { DIRECT, true, BLK_FLUSH },
		{ DIRECT, false, BLK_WRITE_ZEROES }, { DIRECT, true, BLK_WRITE_ZEROES },
		{ O_RDWR, false, BLK_FLUSH },        { O_RDWR, false, BLK_DISCARD },
	};
	struct file_fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct blk_file_options options = { .submit_thread = cases[i].thread };
		struct blk_dev *dev = file_device(
			fixture, file_make(fixture, "disk", MIB, cases[i].flags), options);
		struct io_op op = { .req = { .op = cases[i].op, .len_bytes = 4096 },
				    .then = close_in_then, .tag = (uintptr_t)dev };

		assert_int_equal(io_do(&fixture->wait, dev, &op), 0);
	}
}

/* ---- zeroes ---- */

static void test_zeroes_keep_or_give_space(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", 8 * MIB, DIRECT),
					  (struct blk_file_options){ .submit_thread = true });
	uint8_t *bytes = file_pattern(8 * MIB, 5);
	uint8_t *found = file_pattern(8 * MIB, 6);
	uint64_t full_bytes;

	assert_true(dev->limits.can_unmap);
	assert_int_equal(file_write(fixture, dev, 0, bytes, 8 * MIB, BLK_FUA), 0);
	full_bytes = allocated_bytes(fixture, "disk");
	assert_true(full_bytes >= 8 * MIB);

	/* Without the flag: zeroes, the space stays. */
	memset(bytes, 0, 4 * MIB);
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, 4 * MIB, BLK_FUA), 0);
	assert_int_equal(file_read(fixture, dev, 0, found, 8 * MIB), 0);
	assert_memory_equal(found, bytes, 8 * MIB);
	assert_true(allocated_bytes(fixture, "disk") >= full_bytes);

	/* With it: zeroes, the space goes. */
	memset(bytes + 4 * MIB, 0, 2 * MIB);
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 4 * MIB, 2 * MIB,
				     BLK_FUA | BLK_MAY_UNMAP), 0);
	assert_int_equal(file_read(fixture, dev, 0, found, 8 * MIB), 0);
	assert_memory_equal(found, bytes, 8 * MIB);
	assert_true(allocated_bytes(fixture, "disk") <= full_bytes - 2 * MIB);

	/* Single sectors inside the file system's blocks: their neighbours stay. */
	if (dev->limits.block_bytes < 4096) {
		memset(bytes + 6 * MIB + 512, 0, 512);
		memset(bytes + 7 * MIB - 512, 0, 1024);
		assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 6 * MIB + 512, 512,
					     BLK_MAY_UNMAP), 0);
		assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 7 * MIB - 512, 1024,
					     0), 0);
		assert_int_equal(file_read(fixture, dev, 0, found, 8 * MIB), 0);
		assert_memory_equal(found, bytes, 8 * MIB);
	}
	assert_int_equal(file_simple(fixture, dev, BLK_DISCARD, 0, 8 * MIB, 0), 0);
	assert_true(allocated_bytes(fixture, "disk") < MIB);
	file_close(fixture, dev);
	free(bytes);
	free(found);
}

static void test_zeroes_longer_than_a_step(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", TIB, DIRECT),
					  (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(4096, 5);
	uint8_t *found = file_pattern(4096, 6);
	const uint64_t places[] = { 0, GIB - 4096, GIB, 3 * GIB + 8192 };

	for (size_t i = 0; i < ARRAY_COUNT(places); i++)
		assert_int_equal(file_write(fixture, dev, places[i], bytes, 4096, 0), 0);
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, TIB, BLK_MAY_UNMAP), 0);
	memset(bytes, 0, 4096);
	for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
		assert_int_equal(file_read(fixture, dev, places[i], found, 4096), 0);
		assert_memory_equal(found, bytes, 4096);
	}
	file_close(fixture, dev);
	free(bytes);
	free(found);
}

/* ---- extents ---- */

static void expect_runs(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes,
			uint64_t len_bytes, const struct blk_extent *expected, uint32_t count)
{
	struct blk_extent runs[16];
	struct blk_extents extents = { .runs = runs, .capacity = ARRAY_COUNT(runs) };

	assert_int_equal(file_extents(fixture, dev, offset_bytes, len_bytes, &extents), 0);
	assert_int_equal(extents.count, count);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(runs[i].len_bytes, expected[i].len_bytes);
		assert_int_equal(runs[i].status, expected[i].status);
	}
}

#define EXPECT_RUNS(fixture, dev, offset, len, ...)                                                \
	do {                                                                                       \
		const struct blk_extent expected_runs[] = { __VA_ARGS__ };                         \
		expect_runs(fixture, dev, offset, len, expected_runs, ARRAY_COUNT(expected_runs)); \
	} while (0)
#define HOLE(len) { len, BLK_EXTENT_HOLE }
#define DATA(len) { len, BLK_EXTENT_DATA }

static void test_extents_of_sparse_file(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", TIB, DIRECT),
					  (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(64 * KIB, 9);

	assert_true(dev->limits.has_extents);
	EXPECT_RUNS(fixture, dev, 0, TIB, HOLE(TIB));
	assert_int_equal(file_write(fixture, dev, GIB, bytes, 64 * KIB, 0), 0);
	assert_int_equal(file_write(fixture, dev, TIB - 64 * KIB, bytes, 64 * KIB, 0), 0);
	EXPECT_RUNS(fixture, dev, 0, TIB, HOLE(GIB), DATA(64 * KIB),
		    HOLE(TIB - GIB - 128 * KIB), DATA(64 * KIB));
	EXPECT_RUNS(fixture, dev, GIB + 4096, 8192, DATA(8192));
	EXPECT_RUNS(fixture, dev, GIB - 4096, 8192, HOLE(4096), DATA(4096));
	EXPECT_RUNS(fixture, dev, GIB + 60 * KIB, 8192, DATA(4096), HOLE(4096));
	EXPECT_RUNS(fixture, dev, 0, 4096, HOLE(4096));
	EXPECT_RUNS(fixture, dev, TIB - 4096, 4096, DATA(4096));
	file_close(fixture, dev);
	free(bytes);
}

static void test_extents_stop_at_capacity(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = file_device(fixture, file_make(fixture, "disk", 64 * MIB, DIRECT),
					  (struct blk_file_options){ 0 });
	struct blk_extent runs[4096];
	uint8_t *bytes = file_pattern(4096, 9);
	uint64_t told_bytes = 0;

	for (uint64_t at = 0; at < 16 * MIB; at += 8192)
		assert_int_equal(file_write(fixture, dev, at, bytes, 4096, 0), 0);
	for (uint32_t capacity = 1; capacity <= 4; capacity++) {
		struct blk_extents extents = { .runs = runs, .capacity = capacity };

		memset(runs, 0xff, sizeof(runs));
		assert_int_equal(file_extents(fixture, dev, 0, 64 * MIB, &extents), 0);
		assert_int_equal(extents.count, capacity);
		for (uint32_t i = 0; i < capacity; i++)
			assert_int_equal(runs[i].len_bytes, 4096);
		assert_int_equal(runs[capacity].len_bytes, UINT64_MAX);
	}
	/* 4096 runs are there, but one request only answers for so many. */
	while (told_bytes < 64 * MIB) {
		struct blk_extents extents = { .runs = runs, .capacity = ARRAY_COUNT(runs) };

		assert_int_equal(file_extents(fixture, dev, told_bytes, 64 * MIB - told_bytes,
					      &extents), 0);
		assert_in_range(extents.count, 1, 1024);
		for (uint32_t i = 0; i < extents.count; i++)
			told_bytes += runs[i].len_bytes;
	}
	assert_int_equal(told_bytes, 64 * MIB);
	file_close(fixture, dev);
	free(bytes);
}

/* ---- a file that somebody cuts ---- */

static void test_cut_file_fails_loudly(void **state)
{
	static const struct { int flags; bool thread; } modes[] = { { DIRECT, false },
								   { DIRECT, true },
								   { O_RDWR, false } };
	struct file_fixture *fixture = *state;
	uint8_t *bytes = file_pattern(MIB, 9);

	for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
		struct blk_file_options options = { .submit_thread = modes[i].thread };
		int fd = file_make(fixture, "disk", 4 * MIB, modes[i].flags);
		struct blk_dev *dev = file_device(fixture, fd, options);

		assert_int_equal(file_write(fixture, dev, 0, bytes, MIB, 0), 0);
		assert_int_equal(ftruncate(fd, 2 * MIB), 0);
		assert_int_equal(file_read(fixture, dev, 3 * MIB, bytes, MIB), -EIO);
		assert_int_equal(file_read(fixture, dev, 2 * MIB - 4096, bytes, MIB), -EIO);
		assert_int_equal(file_read(fixture, dev, MIB, bytes, MIB), 0);
		/* What is not there is no hole: a copy of it must fail, not write zeroes. */
		EXPECT_RUNS(fixture, dev, 0, 4 * MIB, DATA(MIB), HOLE(MIB), DATA(2 * MIB));
		EXPECT_RUNS(fixture, dev, 3 * MIB, MIB, DATA(MIB));
		file_close(fixture, dev);
	}
	free(bytes);
}

/* ---- sizes, limits, refusals ---- */

static void expect_whole(struct file_fixture *fixture, struct blk_dev *dev)
{
	struct blk_extent runs[4];
	struct blk_extents extents = { .runs = runs, .capacity = ARRAY_COUNT(runs) };
	uint64_t told_bytes = 0;

	assert_int_equal(file_extents(fixture, dev, 0, dev->size_bytes, &extents), 0);
	for (uint32_t i = 0; i < extents.count; i++)
		told_bytes += runs[i].len_bytes;
	assert_int_equal(told_bytes, dev->size_bytes);
}

static void test_sizes_with_a_short_tail(void **state)
{
	struct file_fixture *fixture = *state;
	uint8_t *bytes = file_pattern(4096, 9);
	uint8_t *found = file_pattern(4096, 10);
	static const uint8_t zeroes[512];
	static const uint64_t sizes[] = { 512, MIB + 512, 3 * MIB - 1536 };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct blk_dev *dev = file_device(fixture,
						  file_make(fixture, "disk", sizes[i], DIRECT),
						  (struct blk_file_options){ 0 });

		assert_int_equal(dev->size_bytes, sizes[i]);
		assert_int_equal(dev->limits.block_bytes, 512);
		assert_int_equal(file_write(fixture, dev, sizes[i] - 512, bytes, 512, BLK_FUA), 0);
		assert_int_equal(file_read(fixture, dev, sizes[i] - 512, found, 512), 0);
		assert_memory_equal(found, bytes, 512);
		assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, sizes[i],
					     BLK_MAY_UNMAP), 0);
		/* The block that the end cuts is zeroed, but not given back. */
		assert_int_equal(file_read(fixture, dev, sizes[i] - 512, found, 512), 0);
		assert_memory_equal(found, zeroes, 512);
		expect_whole(fixture, dev);
		file_close(fixture, dev);
	}
	free(bytes);
	free(found);
}

static void expect_refusal(struct file_fixture *fixture, int fd, enum err_id id)
{
	struct blk_file_options options = { .name = "it" };
	struct blk_dev *dev = NULL;
	struct err err = { 0 };

	assert_true(fd >= 0);
	assert_int_equal(blk_file_new(fixture->loop, fd, &options, &dev, &err), -EINVAL);
	assert_null(dev);
	assert_int_equal(err.id, id);
	assert_non_null(strstr(err.cause, "'it'"));
	assert_true(strlen(err.remedy) > 0);
	assert_int_equal(close(fd), 0);         /* still ours */
}

static void test_refusals(void **state)
{
	struct file_fixture *fixture = *state;
	int pipe_fds[2];

	expect_refusal(fixture, file_make(fixture, "odd", MIB + 100, DIRECT), ERR_DISK_BAD_SIZE);
	expect_refusal(fixture, open("/dev/null", O_RDWR | O_CLOEXEC), ERR_DISK_BAD_FORMAT);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	close(pipe_fds[1]);
	{
		struct blk_file_options options = { .read_only = true };
		struct blk_dev *dev = NULL;

		assert_int_equal(blk_file_new(fixture->loop, pipe_fds[0], &options, &dev, NULL),
				 -EINVAL);
	}
	close(pipe_fds[0]);
}

static void test_limits(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_file_options options = { .reads_zero = true };
	int fd = file_make(fixture, "disk", MIB, DIRECT);
	struct blk_dev *dev = file_device(fixture, fd, options);

	assert_true(blk_dev_is_file(dev));
	assert_true(dev->limits.reads_zero);
	assert_true(dev->limits.can_block_submitter);
	assert_false(dev->limits.read_only);
	assert_int_equal(dev->limits.best_transfer_bytes, MIB);
	assert_true(dev->limits.physical_bytes >= 4096);
	file_close(fixture, dev);

	options = (struct blk_file_options){ .read_only = true };
	dev = file_device(fixture, file_open(fixture, "disk", O_RDONLY), options);
	assert_false(dev->limits.reads_zero);
	assert_false(dev->limits.can_block_submitter);
	assert_true(dev->limits.read_only);
	assert_int_equal(dev->limits.memory_align_bytes, 1);
	assert_int_equal(dev->limits.block_bytes, 512);
	assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	file_close(fixture, dev);
}

static void test_sector_from_sysfs(void **state)
{
	struct file_fixture *fixture = *state;
	struct stat st;

	assert_int_equal(stat(fixture->dir, &st), 0);
	if (major(st.st_dev) == 0)
		skip();                         /* a file system without a device */
	assert_in_range(blk_file_queue_limit(major(st.st_dev), minor(st.st_dev),
					     "logical_block_size"), 512, 65536);
	assert_int_equal(blk_file_queue_limit(0, 0, "logical_block_size"), 0);
	assert_int_equal(blk_file_queue_limit(major(st.st_dev), minor(st.st_dev), "no_such"), 0);
}

static void test_loop_keeps_lock_until_close(void **state)
{
	struct file_fixture *fixture = *state;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	int fd = file_make(fixture, "disk", MIB, DIRECT);
	int other = file_open(fixture, "disk", DIRECT);
	struct blk_dev *dev;

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	dev = file_device(fixture, fd, (struct blk_file_options){ .submit_thread = true });
	assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), -1);
	file_close(fixture, dev);
	lock.l_type = F_WRLCK;
	assert_int_equal(fcntl(other, F_OFD_SETLKW, &lock), 0); /* at once, or soon */
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_direct_keeps_data),
		cmocka_unit_test(test_submit_thread_keeps_data),
		cmocka_unit_test(test_small_depth_queues_the_rest),
		cmocka_unit_test(test_buffered_keeps_data),
		cmocka_unit_test(test_tmpfs_keeps_data),
		cmocka_unit_test(test_thread_can_be_switched),
		cmocka_unit_test(test_largest_request),
		cmocka_unit_test(test_close_from_completion),
		cmocka_unit_test(test_zeroes_keep_or_give_space),
		cmocka_unit_test(test_zeroes_longer_than_a_step),
		cmocka_unit_test(test_extents_of_sparse_file),
		cmocka_unit_test(test_extents_stop_at_capacity),
		cmocka_unit_test(test_cut_file_fails_loudly),
		cmocka_unit_test(test_sizes_with_a_short_tail),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_sector_from_sysfs),
		cmocka_unit_test(test_loop_keeps_lock_until_close),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: sectors come back as they were written, at any 512-byte offset, through a file and through
 * a device on a loop; the test-and-set of a block is one; a volume that is written has one writer.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/loop_thread.h"
#include "tests/lib/mem_dev.h"
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_io.h"
#include "vmfs/vmfs_mkfs.h"

#define SIZE (UINT64_C(8) << 20)
#define VOLUME_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)

static char folder[] = "/tmp/test_vmfs_io.XXXXXX";
static char path[64];

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/volume", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static struct vmfs_io *make_file(uint64_t size_bytes)
{
	const struct vmfs_io_file_options options = { .create = true, .size_bytes = size_bytes };
	struct vmfs_io *io;
	struct err err = { 0 };

	unlink(path);
	if (vmfs_io_file_open(path, &options, &io, &err))
		fail_msg("%s", err.cause);
	return io;
}

/* Odd places and lengths, over the bounce buffer's end. */
static void exercise(struct vmfs_io *io)
{
	const size_t len = (3u << 20) + io->block_bytes;
	uint8_t *wanted = malloc(len), *seen = calloc(1, len);

	assert_non_null(wanted);
	assert_non_null(seen);
	for (size_t i = 0; i < len; i++)
		wanted[i] = (uint8_t)(i / 512 + i * 31);
	assert_int_equal(vmfs_io_write(io, 5 * io->block_bytes, wanted, len), 0);
	assert_int_equal(vmfs_io_flush(io), 0);
	assert_int_equal(vmfs_io_read(io, 5 * io->block_bytes, seen, len), 0);
	assert_memory_equal(wanted, seen, len);
	/* Reads may begin and end inside a block of the device. */
	assert_int_equal(vmfs_io_read(io, 5 * io->block_bytes + 512, seen, 512), 0);
	assert_memory_equal(wanted + 512, seen, 512);
	assert_int_equal(vmfs_io_read(io, io->size_bytes - 512, seen, 512), 0);
	assert_int_equal(seen[0], 0);
	free(wanted);
	free(seen);
}

static void test_file(void **state)
{
	struct vmfs_io *io = make_file(SIZE);

	(void)state;
	assert_int_equal(io->size_bytes, SIZE);
	assert_true(io->exclusive);
	exercise(io);
	vmfs_io_close(io);
}

static void test_compare_write(void **state)
{
	uint8_t old[512] = { 0 }, new[512], seen[512];
	struct vmfs_io *io = make_file(SIZE);

	(void)state;
	memset(new, 7, sizeof(new));
	assert_int_equal(vmfs_io_compare_write(io, 1024, old, new, 512), 0);
	assert_int_equal(vmfs_io_compare_write(io, 1024, old, new, 512), -EAGAIN);
	assert_int_equal(vmfs_io_read(io, 1024, seen, 512), 0);
	assert_memory_equal(seen, new, 512);
	assert_int_equal(vmfs_io_compare_write(io, 1024, new, old, 512), 0);
	vmfs_io_close(io);
}

static void test_one_writer(void **state)
{
	const struct vmfs_io_file_options write = { 0 }, read = { .read_only = true };
	struct vmfs_io *io = make_file(SIZE), *other;
	uint8_t sector[512] = { 1 };
	struct err err = { 0 };

	(void)state;
	assert_int_equal(vmfs_io_file_open(path, &write, &other, &err), -EBUSY);
	assert_int_equal(err.id, ERR_VMFS_IN_USE);
	assert_int_equal(vmfs_io_file_open(path, &read, &other, &err), 0);
	assert_int_equal(vmfs_io_write(other, 0, sector, 512), -EROFS);
	assert_int_equal(vmfs_io_compare_write(other, 0, sector, sector, 512), -EROFS);
	vmfs_io_close(other);
	vmfs_io_close(io);
	assert_int_equal(vmfs_io_file_open(path, &write, &other, &err), 0);
	vmfs_io_close(other);
}

static void test_refusals(void **state)
{
	const struct vmfs_io_file_options create = { .create = true, .size_bytes = SIZE };
	const struct vmfs_io_file_options read = { .read_only = true };
	struct vmfs_io *io = make_file(SIZE);
	struct err err = { 0 };

	(void)state;
	vmfs_io_close(io);
	assert_int_equal(vmfs_io_file_open(path, &create, &io, &err), -EEXIST);
	assert_int_equal(err.id, ERR_VMFS_IO);
	assert_int_equal(access(path, F_OK), 0);        /* somebody else's: still there */
	assert_int_equal(vmfs_io_file_open(folder, &read, &io, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMFS_NOT_ONE);
	assert_int_equal(vmfs_io_file_open("/nowhere/at/all", &read, &io, &err), -ENOENT);
}

/* A file that was cut while it was open fails loudly. */
static void test_cut_file(void **state)
{
	struct vmfs_io *io = make_file(SIZE);
	uint8_t sector[512];

	(void)state;
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(vmfs_io_read(io, 8192, sector, 512), -EIO);
	vmfs_io_close(io);
}

/* ---- through a loop ---- */

struct far {
	struct loop_thread *thread;
	struct mem_dev *mem;
	struct blk_limits limits;
	uint64_t size_bytes;
	int fail_writes;
};

static void far_open(void *user)
{
	struct far *far = user;

	far->mem = mem_dev_new(loop_thread_loop(far->thread), far->size_bytes, &far->limits);
	CHECK(far->mem);
}

static void far_close(void *user)
{
	struct far *far = user;

	blk_close(&far->mem->dev);
}

static void far_fail(void *user)
{
	struct far *far = user;

	far->mem->fail_with[BLK_WRITE] = far->fail_writes;
	far->mem->fail_with[BLK_FLUSH] = far->fail_writes;
}

static void test_device(void **state)
{
	static const uint32_t blocks[] = { 512, 4096 };
	uint8_t sector[4096] = { 1 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_COUNT(blocks); i++) {
		struct far far = { .thread = loop_thread_new(), .limits = mem_dev_limits(),
				   .size_bytes = SIZE, .fail_writes = -EIO };
		struct vmfs_io *io;

		far.limits.block_bytes = blocks[i];
		far.limits.physical_bytes = blocks[i];
		loop_thread_call(far.thread, far_open, &far);
		io = vmfs_io_dev_new(&far.mem->dev);
		assert_non_null(io);
		assert_int_equal(io->block_bytes, blocks[i]);
		exercise(io);
		assert_int_equal(vmfs_io_compare_write(io, 0, sector, sector, 4096), -ENOTSUP);
		loop_thread_call(far.thread, far_fail, &far);
		assert_int_equal(vmfs_io_write(io, 0, sector, blocks[i]), -EIO);
		assert_int_equal(vmfs_io_flush(io), -EIO);
		vmfs_io_close(io);
		loop_thread_call(far.thread, far_close, &far);
		loop_thread_free(far.thread);
	}
}

/* A whole volume on a device of a loop. */
static void test_volume_on_device(void **state)
{
	const struct vmfs_mkfs_options mkfs = { .reads_zero = true, .file_count = 64 };
	const struct vmfs_attributes attributes = { .mode = 0644 };
	const struct vmfs_options options = { 0 };
	struct far far = { .thread = loop_thread_new(), .limits = mem_dev_limits(),
			   .size_bytes = VOLUME_BYTES };
	struct vmfs_fsck_result result;
	struct vmfs_node *root, *node;
	struct vmfs_io *io;
	struct vmfs *fs;
	struct err err = { 0 };

	(void)state;
	loop_thread_call(far.thread, far_open, &far);
	io = vmfs_io_dev_new(&far.mem->dev);
	assert_non_null(io);
	assert_int_equal(vmfs_mkfs(&io, 1, &mkfs, &err), 0);
	assert_int_equal(vmfs_open(&io, 1, &options, &fs, &err), 0);
	assert_int_equal(vmfs_walk(fs, "/", &root, &err), 0);
	assert_int_equal(vmfs_create(root, "file", &attributes, &node, &err), 0);
	assert_int_equal(vmfs_write(node, 3u << 20, "data", 4, &err), 0);
	assert_int_equal(vmfs_fsck(fs, NULL, NULL, &result, &err), 0);
	assert_int_equal(result.total, 0);
	assert_int_equal(vmfs_node_put(node, &err), 0);
	assert_int_equal(vmfs_node_put(root, &err), 0);
	assert_int_equal(vmfs_close(fs, &err), 0);
	vmfs_io_close(io);
	loop_thread_call(far.thread, far_close, &far);
	loop_thread_free(far.thread);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_compare_write),
		cmocka_unit_test(test_one_writer),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_cut_file),
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_volume_on_device),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

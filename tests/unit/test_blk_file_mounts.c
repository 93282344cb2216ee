/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_file_mounts.c - blk_file on file systems and block devices of our own making: one
 * that is frozen, one that is full, loop devices with sectors of 512 and 4096 bytes.
 *
 * Needs root and loop devices; skipped without.  Mounts live in a mount namespace of the
 * program's own; an alarm thaws what is frozen and ends the program if a test hangs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/file_fixture.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define DIRECT (O_RDWR | O_DIRECT)
#define HANG_S 120

static struct file_fixture fixture;
static char loop_path[64];              /* of the loop device that is set up; "" none */
static bool is_mounted;
static volatile int frozen_fd = -1;     /* a directory on the frozen file system */

/* ---- tools ---- */

static void hung(int signal_number)
{
	static const char text[] = "hung: thawing and giving up\n";

	(void)signal_number;
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 || frozen_fd < 0)
		_exit(1);
	ioctl(frozen_fd, FITHAW, 0);
	_exit(1);
}

static bool run(const char *format, ...) PRINTF_LIKE(1, 2);
static bool run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command) == 0;
}

static void loop_device_make(uint64_t size_bytes, unsigned sector_bytes)
{
	char command[1024];
	FILE *pipe;

	close(file_make(&fixture, "image", size_bytes, O_RDWR));
	snprintf(command, sizeof(command), "losetup --find --show --sector-size %u '%s/image' 2>&1",
		 sector_bytes, fixture.dir);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	if (!fgets(loop_path, sizeof(loop_path), pipe))
		loop_path[0] = '\0';
	loop_path[strcspn(loop_path, "\n")] = '\0';
	if (pclose(pipe) != 0) {
		print_message("no loop device: %s\n", loop_path);
		loop_path[0] = '\0';
		skip();
	}
}

static void mount_make(uint64_t size_bytes)
{
	assert_true(run("mkdir -p '%s/mnt'", fixture.dir));
	loop_device_make(size_bytes, 512);
	if (!run("mkfs.ext4 -q -F %s && mount -t ext4 %s '%s/mnt'", loop_path, loop_path,
		 fixture.dir)) {
		print_message("cannot make or mount an ext4 file system\n");
		skip();
	}
	is_mounted = true;
}

static void freeze(void)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/mnt", fixture.dir);
	frozen_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(frozen_fd >= 0);
	assert_int_equal(ioctl(frozen_fd, FIFREEZE, 0), 0);
}

static void thaw(void)
{
	int fd = frozen_fd;

	if (fd < 0)
		return;
	assert_int_equal(ioctl(fd, FITHAW, 0), 0);
	frozen_fd = -1;
	close(fd);
}

static int setup(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	file_fixture_init(&fixture);
	signal(SIGALRM, hung);
	alarm(HANG_S);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	alarm(0);
	thaw();
	/* A descriptor that a stuck store kept may take a moment to go: wait for it. */
	if (is_mounted)
		assert_true(run("for i in $(seq 200); do umount '%s/mnt' && exit 0; sleep 0.05; "
				"done; exit 1", fixture.dir));
	is_mounted = false;
	if (loop_path[0])
		assert_true(run("losetup -d %s", loop_path));
	loop_path[0] = '\0';
	file_fixture_release(&fixture);
	return 0;
}

static void need_root(void)
{
	if (geteuid() != 0) {
		print_message("not root: no mounts\n");
		skip();
	}
}

/* ---- R5: a frozen file system ---- */

struct ticker {
	struct timer timer;
	uint32_t count;
};

static void ticked(struct timer *timer)
{
	struct ticker *ticker = container_of(timer, struct ticker, timer);

	ticker->count++;
	timer_start(timer, NS_PER_MS);
}

static void test_frozen_store_does_not_stop_the_loop(void **state)
{
	static const enum blk_op ops[] = { BLK_WRITE, BLK_WRITE, BLK_WRITE_ZEROES, BLK_WRITE };
	uint8_t *bytes = file_pattern(64 * KIB, 1);
	uint8_t *found = file_pattern(64 * KIB, 2);
	struct iovec iov = { bytes, 64 * KIB };
	struct io_op stuck[ARRAY_COUNT(ops)];
	struct ticker ticker = { .count = 0 };
	struct blk_dev *dev, *idle, *deleted;

	(void)state;
	need_root();
	mount_make(64 * MIB);
	dev = file_device(&fixture, file_make(&fixture, "mnt/disk", 8 * MIB, DIRECT),
			  (struct blk_file_options){ .submit_thread = true });
	idle = file_device(&fixture, file_make(&fixture, "mnt/idle", MIB, DIRECT),
			   (struct blk_file_options){ .submit_thread = true });
	deleted = file_device(&fixture, file_make(&fixture, "mnt/deleted", MIB, DIRECT),
			      (struct blk_file_options){ 0 });
	assert_int_equal(file_write(&fixture, dev, 0, bytes, 64 * KIB, BLK_FUA), 0);
	assert_int_equal(file_write(&fixture, deleted, 0, bytes, 64 * KIB, BLK_FUA), 0);
	assert_true(run("rm '%s/mnt/deleted'", fixture.dir));
	memset(bytes, 0x5a, 64 * KIB);
	freeze();

	timer_init(&ticker.timer, fixture.loop, ticked);
	timer_start(&ticker.timer, NS_PER_MS);
	for (size_t i = 0; i < ARRAY_COUNT(ops); i++) {
		stuck[i] = (struct io_op){ .req = { .op = ops[i], .offset_bytes = i * 64 * KIB,
						    .len_bytes = 64 * KIB, .iov = &iov,
						    .iov_count = 1 } };
		io_submit_op(&fixture.wait, dev, &stuck[i]);
	}
	while (ticker.count < 100)
		io_wait_pass(&fixture.wait, 10 * NS_PER_MS);
	/* R2: nothing is answered before the store has answered. */
	for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
		assert_true(stuck[i].in_flight);
	/* Closing what has nothing in flight does not wait, not even for freeing a deleted file. */
	file_close(&fixture, idle);
	file_close(&fixture, deleted);
	ticker.count = 0;
	while (ticker.count < 20)
		io_wait_pass(&fixture.wait, 10 * NS_PER_MS);
	for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
		assert_true(stuck[i].in_flight);

	thaw();
	assert_true(io_wait_for(&fixture.wait, ARRAY_COUNT(ops)));
	timer_stop(&ticker.timer);
	for (size_t i = 0; i < ARRAY_COUNT(ops); i++) {
		assert_int_equal(stuck[i].req.result, 0);
		memset(bytes, ops[i] == BLK_WRITE ? 0x5a : 0, 64 * KIB);
		assert_int_equal(file_read(&fixture, dev, i * 64 * KIB, found, 64 * KIB), 0);
		assert_memory_equal(found, bytes, 64 * KIB);
	}
	file_close(&fixture, dev);
	free(bytes);
	free(found);
}

/* ---- a full file system ---- */

static void test_full_store_says_so(void **state)
{
	static const struct { int flags; bool thread; } modes[] = { { DIRECT, false },
								   { DIRECT, true },
								   { O_RDWR, false } };
	uint8_t *bytes = file_pattern(MIB, 1);
	uint8_t *found = file_pattern(MIB, 2);

	(void)state;
	need_root();
	mount_make(16 * MIB);
	for (size_t i = 0; i < ARRAY_COUNT(modes); i++) {
		struct blk_file_options options = { .submit_thread = modes[i].thread };
		int fd = file_make(&fixture, "mnt/disk", 64 * MIB, modes[i].flags);
		struct blk_dev *dev = file_device(&fixture, fd, options);
		uint64_t written_bytes = 0;
		int rc = 0;

		while (written_bytes < 64 * MIB && rc == 0) {
			rc = file_write(&fixture, dev, written_bytes, bytes, MIB, BLK_FUA);
			if (rc == 0)
				written_bytes += MIB;
		}
		assert_int_equal(rc, -ENOSPC);
		assert_in_range(written_bytes, 4 * MIB, 16 * MIB);
		assert_int_equal(file_simple(&fixture, dev, BLK_WRITE_ZEROES, 32 * MIB, 16 * MIB,
					     0), -ENOSPC);
		for (uint64_t at = 0; at < written_bytes; at += MIB) {
			assert_int_equal(file_read(&fixture, dev, at, found, MIB), 0);
			assert_memory_equal(found, bytes, MIB);
		}
		/* Space that is given back can be used. */
		assert_int_equal(file_simple(&fixture, dev, BLK_WRITE_ZEROES, 0, 2 * MIB,
					     BLK_MAY_UNMAP | BLK_FUA), 0);
		assert_int_equal(file_write(&fixture, dev, 40 * MIB, bytes, MIB, BLK_FUA), 0);
		file_close(&fixture, dev);
		assert_true(run("rm '%s/mnt/disk'", fixture.dir));
	}
	free(bytes);
	free(found);
}

/* ---- block devices ---- */

static struct blk_dev *loop_device_open(bool submit_thread)
{
	return file_device(&fixture, open(loop_path, DIRECT | O_CLOEXEC),
			   (struct blk_file_options){ .submit_thread = submit_thread,
						      .name = loop_path });
}

/* The flushes that a block device has seen: the 16th number of its statistics. */
static uint64_t loop_device_flushes(void)
{
	unsigned long long numbers[17] = { 0 };
	char path[128];
	FILE *file;
	int count = 0;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", loop_path + strlen("/dev/"));
	file = fopen(path, "r");
	assert_non_null(file);
	while (count < 17 && fscanf(file, "%llu", &numbers[count]) == 1)
		count++;
	fclose(file);
	assert_int_equal(count, 17);
	return numbers[15];
}

static void block_device_with(unsigned sector_bytes)
{
	struct blk_extent runs[4];
	struct blk_extents extents = { .runs = runs, .capacity = 4 };
	struct blk_dev *dev;

	loop_device_make(16 * MIB, sector_bytes);
	for (int thread = 0; thread < 2; thread++) {
		dev = loop_device_open(thread);
		assert_int_equal(file_simple(&fixture, dev, BLK_WRITE_ZEROES, 0, 16 * MIB,
					     BLK_FUA), 0);
		assert_int_equal(dev->size_bytes, 16 * MIB);
		assert_int_equal(dev->limits.block_bytes, sector_bytes);
		assert_true(dev->limits.physical_bytes >= sector_bytes);
		assert_false(dev->limits.has_extents);
		file_torture(&fixture, dev, 2000);
		assert_int_equal(file_extents(&fixture, dev, 8192, MIB, &extents), 0);
		assert_int_equal(extents.count, 1);
		assert_int_equal(runs[0].status, BLK_EXTENT_DATA);
		assert_int_equal(runs[0].len_bytes, MIB);
		assert_int_equal(file_simple(&fixture, dev, BLK_DISCARD, 0, MIB, 0), 0);
		file_close(&fixture, dev);
	}
}

static void test_block_device(void **state)
{
	(void)state;
	need_root();
	block_device_with(512);
}

static void test_block_device_of_4096(void **state)
{
	(void)state;
	need_root();
	block_device_with(4096);
}

/* R9, at the device itself: the first flush of a device that has written nothing. */
static void test_flush_and_fua_reach_the_device(void **state)
{
	uint8_t *bytes = file_pattern(4096, 1);
	struct blk_dev *dev;
	uint64_t before;

	(void)state;
	need_root();
	loop_device_make(16 * MIB, 512);
	dev = loop_device_open(true);
	before = loop_device_flushes();
	assert_int_equal(file_simple(&fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_equal(loop_device_flushes(), before + 1);
	assert_int_equal(file_write(&fixture, dev, 0, bytes, 4096, 0), 0);
	assert_int_equal(loop_device_flushes(), before + 1);
	assert_int_equal(file_write(&fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_true(loop_device_flushes() > before + 1);
	file_close(&fixture, dev);
	free(bytes);
}

static void test_unmap_of_block_device_gives_space_back(void **state)
{
	uint8_t *bytes = file_pattern(8 * MIB, 1);
	struct blk_dev *dev;
	struct stat full, thin;
	char path[512];

	(void)state;
	need_root();
	loop_device_make(16 * MIB, 512);
	snprintf(path, sizeof(path), "%s/image", fixture.dir);
	dev = loop_device_open(false);
	assert_true(dev->limits.can_unmap);
	assert_int_equal(file_write(&fixture, dev, 0, bytes, 8 * MIB, BLK_FUA), 0);
	assert_int_equal(stat(path, &full), 0);
	assert_int_equal(file_simple(&fixture, dev, BLK_WRITE_ZEROES, 0, 4 * MIB,
				     BLK_MAY_UNMAP | BLK_FUA), 0);
	assert_int_equal(stat(path, &thin), 0);
	assert_true(thin.st_blocks * 512 + 4 * (off_t)MIB <= full.st_blocks * 512);
	assert_int_equal(file_read(&fixture, dev, 0, bytes, 8 * MIB), 0);
	for (uint64_t i = 0; i < 4 * MIB; i++)
		assert_int_equal(bytes[i], 0);
	file_close(&fixture, dev);
	free(bytes);
}

/* A disk of whole sectors that 4096-byte sectors cannot hold exactly: buffered, not cut. */
static void test_odd_disk_on_4096_store(void **state)
{
	uint8_t *bytes = file_pattern(512, 1);
	uint8_t *found = file_pattern(512, 2);
	struct blk_dev *dev;

	(void)state;
	need_root();
	assert_true(run("mkdir -p '%s/mnt'", fixture.dir));
	loop_device_make(64 * MIB, 4096);
	if (!run("mkfs.ext4 -q -F %s && mount -t ext4 %s '%s/mnt'", loop_path, loop_path,
		 fixture.dir))
		skip();
	is_mounted = true;
	dev = file_device(&fixture, file_make(&fixture, "mnt/even", MIB, DIRECT),
			  (struct blk_file_options){ 0 });
	assert_int_equal(dev->limits.block_bytes, 4096);
	assert_true(dev->limits.can_block_submitter);
	file_close(&fixture, dev);
	dev = file_device(&fixture, file_make(&fixture, "mnt/odd", MIB + 512, DIRECT),
			  (struct blk_file_options){ .submit_thread = true });
	assert_int_equal(dev->size_bytes, MIB + 512);
	assert_int_equal(dev->limits.block_bytes, 512);
	assert_int_equal(file_write(&fixture, dev, MIB, bytes, 512, BLK_FUA), 0);
	assert_int_equal(file_read(&fixture, dev, MIB, found, 512), 0);
	assert_memory_equal(found, bytes, 512);
	file_close(&fixture, dev);
	free(bytes);
	free(found);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_frozen_store_does_not_stop_the_loop),
		TEST(test_full_store_says_so),
		TEST(test_block_device),
		TEST(test_block_device_of_4096),
		TEST(test_flush_and_fua_reach_the_device),
		TEST(test_unmap_of_block_device_gives_space_back),
		TEST(test_odd_disk_on_4096_store),
	};

	if (geteuid() == 0 &&
	    (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)) {
		puts("no mount namespace of our own");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

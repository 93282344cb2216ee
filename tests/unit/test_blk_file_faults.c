/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_blk_file_faults.c - what the kernel may answer instead of yes.
 *
 * The program's own io_submit(), fallocate() and so on take the place of the libraries', look
 * at what comes by and pass it on, or answer as a test wants.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/blkdev/blk_file_private.h"
#include "tests/lib/file_fixture.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define DIRECT (O_RDWR | O_DIRECT)
#define BATCH_MAX 256

/* ---- the impostor ---- */

static struct iocb held[BATCH_MAX];
static _Atomic uint32_t held_count;

static struct {
	/* what was seen */
	_Atomic uint32_t submit_count;
	_Atomic uint32_t largest_batch;
	_Atomic uint32_t fdsync_iocb_count;
	_Atomic uint32_t dsync_iocb_count;
	_Atomic uint32_t flat_iocb_count;       /* one buffer, not an iovec */
	_Atomic uint32_t in_kernel, in_kernel_max;
	_Atomic uint32_t fdatasync_count;
	_Atomic uint32_t fallocate_count;
	_Atomic int submit_tid;
	_Atomic int fdatasync_tid;
	_Atomic int fallocate_tid;
	_Atomic int destroy_tid;
	_Atomic uint32_t transfer_count;
	io_context_t context;
	/* what to answer */
	_Atomic int again_count;                /* so many times -EAGAIN */
	_Atomic uint32_t room;                  /* what the kernel takes at once; 0: all */
	_Atomic int refuse_fdsync;              /* -errno for every FDSYNC */
	_Atomic int refuse_dsync;               /* -errno for every iocb with RWF_DSYNC */
	_Atomic int refuse_writes;              /* -errno for every write */
	_Atomic uint64_t refuse_offset_bytes;   /* only at this offset; UINT64_MAX: everywhere */
	_Atomic uint32_t shorten_every;         /* each nth transfer is cut to its first block */
	_Atomic bool hold;                      /* accept, but do not begin yet */
	_Atomic int stuck_fd;                   /* close() of it does not return; 0: none */
	_Atomic int setup_rc;
	_Atomic int fdatasync_errno;
	_Atomic int punch_errno, zero_range_errno;
	_Atomic int pwritev2_errno;
	_Atomic int seek_errno;
} kernel;

int io_setup(int maxevents, io_context_t *ctxp)
{
	if (kernel.setup_rc)
		return kernel.setup_rc;
	if (syscall(SYS_io_setup, maxevents, ctxp) != 0)
		return -errno;
	kernel.context = *ctxp;
	return 0;
}

/*
 * What follows plays the kernel, which orders a submission before its completion by itself and
 * is not instrumented either: without this its looks at the iocbs would count as races.
 */
#define AS_KERNEL __attribute__((no_sanitize("thread"), noinline))

AS_KERNEL static bool iocb_writes(const struct iocb *iocb)
{
	return iocb->aio_lio_opcode == IO_CMD_PWRITE || iocb->aio_lio_opcode == IO_CMD_PWRITEV;
}

AS_KERNEL static int iocb_verdict(const struct iocb *iocb)
{
	uint64_t only = kernel.refuse_offset_bytes;

	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC)
		return kernel.refuse_fdsync;
	if (only != UINT64_MAX && (uint64_t)iocb->u.c.offset != only)
		return 0;
	if (iocb->aio_rw_flags && kernel.refuse_dsync)
		return kernel.refuse_dsync;
	return iocb_writes(iocb) ? kernel.refuse_writes : 0;
}

/* A short transfer, really: the kernel is asked for less than the caller was told. */
AS_KERNEL static void iocb_shorten(struct iocb *iocb)
{
	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC)
		return;
	if (iocb->aio_lio_opcode == IO_CMD_PREADV || iocb->aio_lio_opcode == IO_CMD_PWRITEV) {
		const struct iovec *first = iocb->u.c.buf;

		iocb->aio_lio_opcode = iocb_writes(iocb) ? IO_CMD_PWRITE : IO_CMD_PREAD;
		iocb->u.c.buf = first->iov_base;
		iocb->u.c.nbytes = first->iov_len;
	}
	iocb->u.c.nbytes = MIN(iocb->u.c.nbytes, 4096);
}

AS_KERNEL static void iocb_look(const struct iocb *iocb)
{
	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC)
		kernel.fdsync_iocb_count++;
	else if (iocb->aio_rw_flags)
		kernel.dsync_iocb_count++;
	if (iocb->aio_lio_opcode == IO_CMD_PREAD || iocb->aio_lio_opcode == IO_CMD_PWRITE) {
		kernel.flat_iocb_count++;
		CHECK((uintptr_t)iocb->u.c.buf % 512 == 0);
	}
}

/*
 * Copies are submitted, never the iocbs themselves: nothing may touch a request that was
 * handed to the kernel, so what is to be looked at is looked at before.
 */
AS_KERNEL int io_submit(io_context_t ctx, long nr, struct iocb *ios[])
{
	static _Thread_local struct iocb copies[BATCH_MAX];
	struct iocb *pointers[BATCH_MAX];
	long rc, count = 0;

	kernel.submit_count++;
	kernel.submit_tid = (int)syscall(SYS_gettid);
	kernel.largest_batch = MAX(kernel.largest_batch, (uint32_t)nr);
	if (kernel.again_count > 0) {
		kernel.again_count--;
		return -EAGAIN;
	}
	for (; count < nr && count < BATCH_MAX; count++) {
		int verdict = iocb_verdict(ios[count]);

		if (verdict && count == 0)
			return verdict;
		if (verdict || (kernel.room && kernel.in_kernel == kernel.room))
			break;
		kernel.in_kernel++;
		iocb_look(ios[count]);
		copies[count] = *ios[count];
		pointers[count] = &copies[count];
		if (kernel.shorten_every && kernel.transfer_count++ % kernel.shorten_every == 0)
			iocb_shorten(&copies[count]);
	}
	kernel.in_kernel_max = MAX(kernel.in_kernel_max, kernel.in_kernel);
	if (count == 0)
		return -EAGAIN;
	if (kernel.hold) {
		for (long i = 0; i < count; i++)
			held[held_count++] = copies[i];
		return (int)count;
	}
	rc = syscall(SYS_io_submit, ctx, count, pointers);
	CHECK(rc == count);
	return (int)rc;
}

/* Begin one that is held. */
static void release_one(void)
{
	struct iocb *pointer = &held[--held_count];

	assert_int_equal(syscall(SYS_io_submit, kernel.context, 1L, &pointer), 1);
}

int io_destroy(io_context_t ctx)
{
	kernel.destroy_tid = (int)syscall(SYS_gettid);
	return syscall(SYS_io_destroy, ctx) == 0 ? 0 : -errno;
}

int close(int fd)
{
	while (fd > 0 && fd == kernel.stuck_fd)
		syscall(SYS_futex, &kernel.stuck_fd, FUTEX_WAIT_PRIVATE, fd, NULL, NULL, 0);
	return (int)syscall(SYS_close, fd);
}

int fdatasync(int fd)
{
	kernel.fdatasync_count++;
	kernel.fdatasync_tid = (int)syscall(SYS_gettid);
	if (kernel.fdatasync_errno) {
		errno = kernel.fdatasync_errno;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	int error = mode & FALLOC_FL_PUNCH_HOLE ? kernel.punch_errno : kernel.zero_range_errno;

	CHECK(mode & FALLOC_FL_KEEP_SIZE);
	kernel.fallocate_count++;
	kernel.fallocate_tid = (int)syscall(SYS_gettid);
	if (error) {
		errno = error;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	if (flags && kernel.pwritev2_errno) {
		errno = kernel.pwritev2_errno;
		return -1;
	}
	return syscall(SYS_pwritev2, fd, iov, (long)count, offset, 0L, flags);
}

off_t lseek(int fd, off_t offset, int whence)
{
	if ((whence == SEEK_DATA || whence == SEEK_HOLE) && kernel.seek_errno) {
		errno = kernel.seek_errno;
		return -1;
	}
	return syscall(SYS_lseek, fd, offset, whence);
}

/* ---- fixture ---- */

static int setup(void **state)
{
	static struct file_fixture fixture;

	memset(&kernel, 0, sizeof(kernel));
	kernel.refuse_offset_bytes = UINT64_MAX;
	file_fixture_init(&fixture);
	*state = &fixture;
	return 0;
}

static int teardown(void **state)
{
	file_fixture_release(*state);
	return 0;
}

static struct blk_dev *make_device(struct file_fixture *fixture, int flags,
				   struct blk_file_options options)
{
	return file_device(fixture, file_make(fixture, "disk", 16 * MIB, flags), options);
}

#define READS_MAX 128
static struct io_op reads[READS_MAX];
static struct iovec read_iovs[READS_MAX];
static uint8_t *read_memory;

static void read_landed(struct io_op *op)
{
	(void)op;
	kernel.in_kernel--;
}

static void submit_reads(struct file_fixture *fixture, struct blk_dev *dev, uint32_t count)
{
	free(read_memory);
	read_memory = file_pattern(count * 4096, 1);
	for (uint32_t i = 0; i < count; i++) {
		read_iovs[i] = (struct iovec){ read_memory + i * 4096, 4096 };
		reads[i] = (struct io_op){ .then = read_landed,
					   .req = { .op = BLK_READ, .offset_bytes = i * 4096,
						    .len_bytes = 4096, .iov = &read_iovs[i],
						    .iov_count = 1 } };
		io_submit_op(&fixture->wait, dev, &reads[i]);
	}
}

static void expect_reads(struct file_fixture *fixture, uint32_t count)
{
	assert_true(io_wait_for(&fixture->wait, count));
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(reads[i].req.result, 0);
	for (uint64_t i = 0; i < count * 4096; i++)
		assert_int_equal(read_memory[i], 0);
	free(read_memory);
	read_memory = NULL;
}

/* ---- batches ---- */

static void test_one_submit_a_turn(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });

	submit_reads(fixture, dev, 100);
	assert_int_equal(kernel.submit_count, 0);
	expect_reads(fixture, 100);
	assert_int_equal(kernel.submit_count, 1);
	assert_int_equal(kernel.largest_batch, 100);
	assert_int_equal(kernel.submit_tid, syscall(SYS_gettid));
	assert_int_equal(kernel.flat_iocb_count, 0);    /* aligned: not copied */
	file_close(fixture, dev);
}

/* R5: with a submit thread the loop's thread makes no call that can block. */
static void test_submit_thread_submits(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT,
					  (struct blk_file_options){ .submit_thread = true });
	int tid = (int)syscall(SYS_gettid);

	submit_reads(fixture, dev, 100);
	expect_reads(fixture, 100);
	assert_int_equal(kernel.submit_count, 1);
	assert_int_not_equal(kernel.submit_tid, tid);
	assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_not_equal(kernel.submit_tid, tid);
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, MIB, BLK_FUA), 0);
	assert_int_not_equal(kernel.fallocate_tid, tid);
	assert_int_not_equal(kernel.fdatasync_tid, tid);
	kernel.refuse_fdsync = -EINVAL;
	assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_not_equal(kernel.fdatasync_tid, tid);
	assert_int_equal(blk_file_set_submit_thread(dev, false), 0);
	submit_reads(fixture, dev, 10);
	expect_reads(fixture, 10);
	assert_int_equal(kernel.submit_tid, tid);
	file_close(fixture, dev);
}

/* F1: as one comes back, one goes down. */
static void test_depth_is_kept(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .depth = 4, .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.hold = true;
		submit_reads(fixture, dev, 20);
		for (uint32_t i = 0; i < 16; i++) {
			for (int patience = 0; held_count < 4 && patience < 5000; patience++)
				io_wait_pass(&fixture->wait, NS_PER_MS);
			assert_int_equal(held_count, 4);
			release_one();
			assert_true(io_wait_for(&fixture->wait, 1));
		}
		io_wait_pass(&fixture->wait, 5 * NS_PER_MS);
		assert_int_equal(held_count, 4);
		kernel.hold = false;
		for (uint32_t i = 0; i < 4; i++) {
			release_one();
			assert_true(io_wait_for(&fixture->wait, 1));
		}
		assert_int_equal(kernel.in_kernel_max, 4);
		for (uint32_t i = 0; i < 20; i++)
			assert_int_equal(reads[i].req.result, 0);
		file_close(fixture, dev);
	}
}

/* ---- no room in the kernel ---- */

static void test_again_with_nothing_in_flight(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.submit_count = 0;
		kernel.again_count = 3;
		submit_reads(fixture, dev, 16);
		expect_reads(fixture, 16);
		assert_int_equal(kernel.submit_count, 4);       /* no busy loop */
		file_close(fixture, dev);
	}
}

static void test_again_until_completions_come(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.submit_count = 0;
		kernel.room = 2;
		submit_reads(fixture, dev, READS_MAX);
		expect_reads(fixture, READS_MAX);
		assert_in_range(kernel.submit_count, READS_MAX / 2, READS_MAX * 4);
		kernel.room = 0;
		file_close(fixture, dev);
	}
}

static void test_one_refused_among_many(void **state)
{
	struct file_fixture *fixture = *state;
	uint8_t *bytes = file_pattern(16 * 4096, 1);

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.refuse_writes = -EFBIG;
		kernel.refuse_offset_bytes = 5 * 4096;
		for (uint32_t i = 0; i < 16; i++) {
			read_iovs[i] = (struct iovec){ bytes + i * 4096, 4096 };
			reads[i] = (struct io_op){ .req = { .op = BLK_WRITE,
							    .offset_bytes = i * 4096,
							    .len_bytes = 4096, .iov = &read_iovs[i],
							    .iov_count = 1 } };
			io_submit_op(&fixture->wait, dev, &reads[i]);
		}
		assert_true(io_wait_for(&fixture->wait, 16));
		for (uint32_t i = 0; i < 16; i++)
			assert_int_equal(reads[i].req.result, i == 5 ? -EFBIG : 0);
		file_close(fixture, dev);
	}
	free(bytes);
}

/* ---- short transfers, and the other way to reap ---- */

static void test_short_transfers_are_continued(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.shorten_every = 2;
		file_torture(fixture, dev, 1000);
		kernel.shorten_every = 0;
		file_close(fixture, dev);
	}
}

static void test_unknown_ring_is_read_by_the_kernel(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });
	uint32_t *ring = (uint32_t *)kernel.context;

	assert_int_equal(ring[4], 0xa10a10a1);
	ring[4] = 0x12345678;
	file_torture(fixture, dev, 1000);
	submit_reads(fixture, dev, READS_MAX);
	assert_true(io_wait_for(&fixture->wait, READS_MAX));
	file_close(fixture, dev);
}

/* ---- flush ---- */

/* R9: the first one of a device that wrote nothing, and every one after. */
static void test_every_flush_reaches_the_kernel(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });

	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		assert_int_equal(kernel.fdsync_iocb_count, i);
	}
	file_close(fixture, dev);
	dev = make_device(fixture, O_RDWR, (struct blk_file_options){ 0 });
	for (uint32_t i = 1; i <= 3; i++) {
		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		assert_int_equal(kernel.fdatasync_count, i);
	}
	file_close(fixture, dev);
}

static void test_flush_without_aio_fdsync(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);
		uint32_t submits;

		kernel.fdatasync_count = 0;
		kernel.fdatasync_errno = 0;
		kernel.refuse_fdsync = -EINVAL;
		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		assert_int_equal(kernel.fdatasync_count, 1);
		submits = kernel.submit_count;
		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		assert_int_equal(kernel.fdatasync_count, 2);
		assert_int_equal(kernel.submit_count, submits);         /* learned */
		kernel.fdatasync_errno = EIO;
		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), -EIO);
		file_close(fixture, dev);
	}
}

/* ---- FUA ---- */

static void test_fua_is_dsync(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(8192, 1);

	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, 0), 0);
	assert_int_equal(kernel.dsync_iocb_count, 0);
	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.dsync_iocb_count, 1);
	assert_int_equal(file_write(fixture, dev, 0, bytes + 1, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.dsync_iocb_count, 2);
	assert_int_equal(kernel.flat_iocb_count, 1);            /* only the unaligned one */
	/* The rest of a short one is as durable as its beginning. */
	kernel.shorten_every = 1;
	assert_int_equal(file_write(fixture, dev, 0, bytes, 8192, BLK_FUA), 0);
	assert_int_equal(kernel.dsync_iocb_count, 4);
	assert_int_equal(kernel.fdatasync_count, 0);
	file_close(fixture, dev);
	free(bytes);
}

static void test_fua_without_dsync(void **state)
{
	struct file_fixture *fixture = *state;
	uint8_t *bytes = file_pattern(8192, 1);
	uint8_t *found = file_pattern(4096, 2);

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		struct blk_dev *dev = make_device(fixture, DIRECT, options);

		kernel.dsync_iocb_count = kernel.fdatasync_count = 0;
		kernel.fdatasync_errno = 0;
		kernel.refuse_dsync = -EOPNOTSUPP;
		assert_int_equal(file_write(fixture, dev, 4096, bytes + 1, 4096, BLK_FUA), 0);
		assert_int_equal(kernel.fdatasync_count, 1);
		assert_int_equal(file_read(fixture, dev, 4096, found, 4096), 0);
		assert_memory_equal(found, bytes + 1, 4096);
		kernel.refuse_dsync = 0;
		assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
		assert_int_equal(kernel.fdatasync_count, 2);
		assert_int_equal(kernel.dsync_iocb_count, 0);   /* learned */
		assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, 0), 0);
		assert_int_equal(kernel.fdatasync_count, 2);
		kernel.fdatasync_errno = EIO;
		assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), -EIO);
		file_close(fixture, dev);
	}
	free(bytes);
	free(found);
}

/* An -EINVAL of another cause is the request's error, and teaches nothing about FUA. */
static void test_fua_refused_for_another_reason(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(4096, 1);

	kernel.refuse_writes = -EINVAL;
	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), -EINVAL);
	kernel.refuse_writes = 0;
	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.dsync_iocb_count, 1);
	assert_int_equal(kernel.fdatasync_count, 0);
	file_close(fixture, dev);
	free(bytes);
}

static void test_buffered_fua_without_dsync(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, O_RDWR, (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(4096, 1);

	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.fdatasync_count, 0);
	kernel.pwritev2_errno = EOPNOTSUPP;
	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.fdatasync_count, 1);
	assert_int_equal(file_write(fixture, dev, 0, bytes, 4096, BLK_FUA), 0);
	assert_int_equal(kernel.fdatasync_count, 2);
	file_close(fixture, dev);
	free(bytes);
}

/* ---- zeroes ---- */

static void zeroes_with(struct file_fixture *fixture, int flags, unsigned req_flags,
			uint32_t fallocate_count)
{
	struct blk_dev *dev = make_device(fixture, flags, (struct blk_file_options){ 0 });
	uint8_t *bytes = file_pattern(16 * MIB, 1);
	uint8_t *found = file_pattern(16 * MIB, 2);

	assert_int_equal(file_write(fixture, dev, 0, bytes, 16 * MIB, 0), 0);
	for (int round = 0; round < 2; round++) {
		uint64_t at = (uint64_t)round * 8 * MIB;

		kernel.fallocate_count = 0;
		kernel.fdatasync_count = 0;
		memset(bytes + at + 512, 0, 5 * MIB + 1024);
		assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, at + 512,
					     5 * MIB + 1024, req_flags), 0);
		/* What is missing is tried once, then known. */
		assert_int_equal(kernel.fallocate_count,
				 round == 0 ? fallocate_count :
				 kernel.zero_range_errno && kernel.punch_errno ? 0 : 1);
		assert_int_equal(kernel.fdatasync_count, req_flags & BLK_FUA ? 1 : 0);
	}
	assert_int_equal(file_read(fixture, dev, 0, found, 16 * MIB), 0);
	assert_memory_equal(found, bytes, 16 * MIB);
	file_close(fixture, dev);
	free(bytes);
	free(found);
}

static void test_zeroes_without_fallocate(void **state)
{
	struct file_fixture *fixture = *state;
	static const int flags[] = { DIRECT, O_RDWR };

	for (size_t i = 0; i < ARRAY_COUNT(flags); i++) {
		kernel.punch_errno = kernel.zero_range_errno = 0;
		zeroes_with(fixture, flags[i], BLK_MAY_UNMAP | BLK_FUA, 1);
		zeroes_with(fixture, flags[i], BLK_FUA, 1);
		kernel.punch_errno = EOPNOTSUPP;
		zeroes_with(fixture, flags[i], BLK_MAY_UNMAP, 2);
		kernel.zero_range_errno = EOPNOTSUPP;
		zeroes_with(fixture, flags[i], BLK_MAY_UNMAP | BLK_FUA, 2);
		zeroes_with(fixture, flags[i], 0, 1);
	}
}

static void test_zeroing_errors_are_told(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });

	kernel.punch_errno = EIO;
	kernel.zero_range_errno = ENOSPC;
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, MIB, BLK_MAY_UNMAP), -EIO);
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, MIB, 0), -ENOSPC);
	assert_int_equal(file_simple(fixture, dev, BLK_DISCARD, 0, MIB, 0), -EIO);
	kernel.zero_range_errno = 0;
	kernel.fdatasync_errno = EIO;
	assert_int_equal(file_simple(fixture, dev, BLK_WRITE_ZEROES, 0, MIB, BLK_FUA), -EIO);
	kernel.punch_errno = EOPNOTSUPP;
	assert_int_equal(file_simple(fixture, dev, BLK_DISCARD, 0, MIB, 0), 0); /* a hint */
	file_close(fixture, dev);
}

/* ---- extents ---- */

static void test_extents_without_seek(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_dev *dev = make_device(fixture, DIRECT, (struct blk_file_options){ 0 });
	struct blk_extent runs[4];
	struct blk_extents extents = { .runs = runs, .capacity = 4 };

	kernel.seek_errno = EINVAL;
	assert_int_equal(file_extents(fixture, dev, 4096, MIB, &extents), 0);
	assert_int_equal(extents.count, 1);
	assert_int_equal(runs[0].status, BLK_EXTENT_DATA);
	assert_int_equal(runs[0].len_bytes, MIB);
	kernel.seek_errno = EIO;
	assert_int_equal(file_extents(fixture, dev, 4096, MIB, &extents), -EIO);
	file_close(fixture, dev);
}

/* ---- setting up ---- */

static void test_setup_errors(void **state)
{
	struct file_fixture *fixture = *state;
	struct blk_file_options options = { .name = "it", .submit_thread = true };
	int fd = file_make(fixture, "disk", MIB, DIRECT);
	struct blk_dev *dev = NULL;
	struct err err = { 0 };

	kernel.setup_rc = -EAGAIN;
	assert_int_equal(blk_file_new(fixture->loop, fd, &options, &dev, &err), -EAGAIN);
	assert_null(dev);
	assert_int_equal(err.id, ERR_DISK_IO);
	assert_non_null(strstr(err.cause, "fs.aio-max-nr"));
	assert_non_null(strstr(err.remedy, "sysctl"));
	kernel.setup_rc = -ENOMEM;
	assert_int_equal(blk_file_new(fixture->loop, fd, &options, &dev, &err), -ENOMEM);
	assert_int_equal(err.id, ERR_NO_MEMORY);
	kernel.setup_rc = 0;
	dev = file_device(fixture, fd, options);        /* fd was left alone */
	assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
	file_close(fixture, dev);
}

/* A store that does not let go of the file keeps a thread waiting, not the loop. */
static void test_close_does_not_wait_for_the_store(void **state)
{
	struct file_fixture *fixture = *state;

	for (int thread = 0; thread < 2; thread++) {
		struct blk_file_options options = { .submit_thread = thread };
		int fd = file_make(fixture, "disk", MIB, DIRECT);
		struct blk_dev *dev = file_device(fixture, fd, options);

		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		kernel.destroy_tid = 0;
		kernel.stuck_fd = fd;
		file_close(fixture, dev);
		assert_true(fcntl(fd, F_GETFD) >= 0);           /* still there: stuck */
		kernel.stuck_fd = 0;
		syscall(SYS_futex, &kernel.stuck_fd, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		for (int patience = 0; !kernel.destroy_tid && patience < 5000; patience++)
			io_wait_pass(&fixture->wait, NS_PER_MS);
		assert_int_not_equal(kernel.destroy_tid, 0);
		assert_int_not_equal(kernel.destroy_tid, syscall(SYS_gettid));
		assert_int_equal(fcntl(fd, F_GETFD), -1);
	}
}

static void count_closed(void *user)
{
	++*(unsigned *)user;
}

/* Without blocking at all: told when the descriptor is gone, or after a while when it is stuck. */
static void test_close_later_never_blocks(void **state)
{
	struct file_fixture *fixture = *state;

	for (int stuck = 0; stuck < 2; stuck++) {
		struct blk_file_options options = { .submit_thread = stuck };
		int fd = file_make(fixture, "disk", MIB, DIRECT);
		struct blk_dev *dev = file_device(fixture, fd, options);
		unsigned closed = 0;

		assert_int_equal(file_simple(fixture, dev, BLK_FLUSH, 0, 0, 0), 0);
		kernel.destroy_tid = 0;
		kernel.stuck_fd = stuck ? fd : 0;
		blk_file_close_later(dev, count_closed, &closed);
		fixture->open_count--;
		assert_int_equal(closed, 0);
		for (int patience = 0; !closed && patience < 5000; patience++)
			io_wait_pass(&fixture->wait, NS_PER_MS);
		assert_int_equal(closed, 1);
		assert_int_equal(fcntl(fd, F_GETFD) >= 0, stuck);
		kernel.stuck_fd = 0;
		syscall(SYS_futex, &kernel.stuck_fd, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		for (int patience = 0; !kernel.destroy_tid && patience < 5000; patience++)
			io_wait_pass(&fixture->wait, NS_PER_MS);
		io_wait_pass(&fixture->wait, 10 * NS_PER_MS);
		assert_int_equal(fcntl(fd, F_GETFD), -1);
		assert_int_equal(closed, 1);
	}
}

/*
 * Each request alone finds the thread asleep, or about to: a lost wake-up would hang.  On a
 * tmpfs a request is done before io_submit() returns, so that the next one comes just then.
 */
static void test_no_wake_up_is_lost(void **state)
{
	struct file_fixture *fixture = *state;
	char path[] = "/dev/shm/blk_file.XXXXXX";
	int fd = mkstemp(path);
	uint8_t *bytes = file_pattern(4096, 1);
	struct blk_dev *dev;

	assert_true(fd >= 0);
	close(fd);
	fd = open(path, DIRECT | O_CLOEXEC);
	assert_int_equal(unlink(path), 0);
	if (fd < 0)
		fd = file_make(fixture, "disk", MIB, DIRECT);   /* tmpfs of old */
	assert_int_equal(ftruncate(fd, MIB), 0);
	dev = file_device(fixture, fd, (struct blk_file_options){ .submit_thread = true });
	for (int i = 0; i < 50000; i++)
		assert_int_equal(file_read(fixture, dev, 0, bytes, 4096), 0);
	file_close(fixture, dev);
	free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_one_submit_a_turn),
		TEST(test_submit_thread_submits),
		TEST(test_depth_is_kept),
		TEST(test_again_with_nothing_in_flight),
		TEST(test_again_until_completions_come),
		TEST(test_one_refused_among_many),
		TEST(test_short_transfers_are_continued),
		TEST(test_unknown_ring_is_read_by_the_kernel),
		TEST(test_every_flush_reaches_the_kernel),
		TEST(test_flush_without_aio_fdsync),
		TEST(test_fua_is_dsync),
		TEST(test_fua_without_dsync),
		TEST(test_fua_refused_for_another_reason),
		TEST(test_buffered_fua_without_dsync),
		TEST(test_zeroes_without_fallocate),
		TEST(test_zeroing_errors_are_told),
		TEST(test_extents_without_seek),
		TEST(test_setup_errors),
		TEST(test_close_does_not_wait_for_the_store),
		TEST(test_close_later_never_blocks),
		TEST(test_no_wake_up_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/file_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#define STRIPES 32
#define TORTURE_IOV_MAX 5

/* ---- the directory ---- */

void file_fixture_init(struct file_fixture *fixture)
{
	const char *tmp = getenv("TMPDIR");

	*fixture = (struct file_fixture){ .seed = 42 };
	snprintf(fixture->dir, sizeof(fixture->dir), "%s/blk_file.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(fixture->dir));
	fixture->loop = loop_new();
	assert_non_null(fixture->loop);
	io_wait_init(&fixture->wait, fixture->loop);
}

void file_fixture_release(struct file_fixture *fixture)
{
	char command[512];

	if (fixture->open_count == 0)
		loop_free(fixture->loop);
	snprintf(command, sizeof(command), "rm -rf --one-file-system '%s'", fixture->dir);
	assert_int_equal(system(command), 0);
}

int file_open(struct file_fixture *fixture, const char *name, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", fixture->dir, name);
	return open(path, flags | O_CLOEXEC, 0600);
}

int file_make(struct file_fixture *fixture, const char *name, uint64_t size_bytes, int flags)
{
	int fd = file_open(fixture, name, flags | O_CREAT | O_TRUNC);

	if (fd < 0 && errno == EINVAL && (flags & O_DIRECT)) {
		print_message("no O_DIRECT in %s: set TMPDIR to a disk\n", fixture->dir);
		skip();
	}
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	return fd;
}

struct blk_dev *file_device(struct file_fixture *fixture, int fd, struct blk_file_options options)
{
	struct blk_dev *dev = NULL;
	struct err err = { 0 };
	int rc;

	assert_true(fd >= 0);
	rc = blk_file_new(fixture->loop, fd, &options, &dev, &err);
	if (rc)
		print_message("%s\n", err.cause);
	assert_int_equal(rc, 0);
	fixture->open_count++;
	return dev;
}

void file_close(struct file_fixture *fixture, struct blk_dev *dev)
{
	blk_close(dev);
	fixture->open_count--;
}

/* ---- single requests ---- */

static int file_transfer(struct file_fixture *fixture, struct blk_dev *dev, struct blk_req req)
{
	struct io_op op = { .req = req };

	return io_do(&fixture->wait, dev, &op);
}

int file_write(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes,
	       void *bytes, uint64_t len_bytes, unsigned flags)
{
	struct iovec iov = { bytes, len_bytes };

	return file_transfer(fixture, dev,
			     (struct blk_req){ .op = BLK_WRITE, .flags = flags,
					       .offset_bytes = offset_bytes, .len_bytes = len_bytes,
					       .iov = &iov, .iov_count = 1 });
}

int file_read(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes, void *bytes,
	      uint64_t len_bytes)
{
	struct iovec iov = { bytes, len_bytes };

	return file_transfer(fixture, dev,
			     (struct blk_req){ .op = BLK_READ, .offset_bytes = offset_bytes,
					       .len_bytes = len_bytes,
					       .iov = &iov, .iov_count = 1 });
}

int file_simple(struct file_fixture *fixture, struct blk_dev *dev, enum blk_op op,
		uint64_t offset_bytes, uint64_t len_bytes, unsigned flags)
{
	return file_transfer(fixture, dev,
			     (struct blk_req){ .op = op, .flags = flags,
					       .offset_bytes = offset_bytes,
					       .len_bytes = len_bytes });
}

int file_extents(struct file_fixture *fixture, struct blk_dev *dev, uint64_t offset_bytes,
		 uint64_t len_bytes, struct blk_extents *extents)
{
	return file_transfer(fixture, dev,
			     (struct blk_req){ .op = BLK_EXTENTS, .offset_bytes = offset_bytes,
					       .len_bytes = len_bytes, .extents = extents });
}

/* ---- memory and chance ---- */

static uint64_t mix(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t file_random_below(struct file_fixture *fixture, uint64_t bound)
{
	return mix(&fixture->seed) % bound;
}

uint8_t *file_pattern(uint64_t len_bytes, uint64_t seed)
{
	uint8_t *bytes = NULL;

	assert_int_equal(posix_memalign((void **)&bytes, 4096, len_bytes), 0);
	for (uint64_t i = 0; i < len_bytes; i++)
		bytes[i] = (uint8_t)(i % 8 == 0 ? mix(&seed) : bytes[i - 1] * 31u + 7);
	return bytes;
}

/* ---- torture ---- */

struct torture;

struct stripe {
	struct io_op op;
	struct torture *torture;
	uint64_t start_bytes;
	uint8_t *memory;                /* of one stripe, and a page for shifting */
	uint8_t *at;                    /* where in memory this request's data lie */
	struct iovec iov[TORTURE_IOV_MAX];
};

struct torture {
	struct file_fixture *fixture;
	struct blk_dev *dev;
	uint8_t *shadow;
	uint64_t stripe_bytes;
	uint32_t left;                  /* not yet submitted */
	uint64_t bad_count;
	struct stripe stripes[STRIPES];
};

/* Cut [at, at + len) into pieces: at whole blocks, or anywhere. */
static void torture_cut(struct stripe *stripe, uint64_t len_bytes, bool anywhere)
{
	struct file_fixture *fixture = stripe->torture->fixture;
	uint64_t unit = anywhere ? 1 : stripe->torture->dev->limits.block_bytes;
	uint32_t count = 0;
	uint64_t cut_bytes = 0;

	while (cut_bytes < len_bytes) {
		uint64_t rest = len_bytes - cut_bytes;
		uint64_t piece = (1 + file_random_below(fixture, rest / unit)) * unit;

		if (count == TORTURE_IOV_MAX - 1)
			piece = rest;
		stripe->iov[count++] = (struct iovec){ stripe->at + cut_bytes, piece };
		cut_bytes += piece;
	}
	stripe->op.req.iov = stripe->iov;
	stripe->op.req.iov_count = count;
}

static void torture_next(struct stripe *stripe)
{
	static const enum blk_op ops[] = { BLK_READ, BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE,
					   BLK_WRITE, BLK_WRITE, BLK_WRITE_ZEROES, BLK_FLUSH };
	struct torture *torture = stripe->torture;
	struct file_fixture *fixture = torture->fixture;
	uint64_t block_bytes = torture->dev->limits.block_bytes;
	uint64_t blocks = torture->stripe_bytes / block_bytes;
	uint64_t first = file_random_below(fixture, blocks);
	uint64_t count = 1 + file_random_below(fixture, MIN(blocks - first, 256));
	bool shifted = file_random_below(fixture, 4) == 0;
	struct blk_req *req = &stripe->op.req;

	torture->left--;
	*req = (struct blk_req){ .op = ops[file_random_below(fixture, ARRAY_COUNT(ops))] };
	stripe->at = stripe->memory + (shifted ? 1 + file_random_below(fixture, 4095) : 0);
	if (req->op != BLK_FLUSH) {
		req->offset_bytes = stripe->start_bytes + first * block_bytes;
		req->len_bytes = count * block_bytes;
	}
	if (req->op == BLK_READ || req->op == BLK_WRITE)
		torture_cut(stripe, req->len_bytes, shifted);
	if (blk_op_writes(req->op) && file_random_below(fixture, 4) == 0)
		req->flags |= BLK_FUA;
	if (req->op == BLK_WRITE_ZEROES && file_random_below(fixture, 2) == 0)
		req->flags |= BLK_MAY_UNMAP;
	if (req->op == BLK_READ)
		memset(stripe->at, 0xee, req->len_bytes);
	if (req->op == BLK_WRITE) {
		for (uint64_t i = 0; i < req->len_bytes; i++)
			stripe->at[i] = (uint8_t)(torture->left * 17 + i * 5 + i / 512);
		memcpy(torture->shadow + req->offset_bytes, stripe->at, req->len_bytes);
	}
	if (req->op == BLK_WRITE_ZEROES)
		memset(torture->shadow + req->offset_bytes, 0, req->len_bytes);
	io_submit_op(&fixture->wait, torture->dev, &stripe->op);
}

static void torture_then(struct io_op *op)
{
	struct stripe *stripe = container_of(op, struct stripe, op);
	struct torture *torture = stripe->torture;
	const struct blk_req *req = &op->req;

	if (req->result != 0 ||
	    (req->op == BLK_READ &&
	     memcmp(stripe->at, torture->shadow + req->offset_bytes, req->len_bytes) != 0)) {
		struct statvfs space = { 0 };

		/* A machine whose disk somebody else has filled: say so. */
		statvfs(torture->fixture->dir, &space);
		print_message("%s at %llu + %llu: %d; %llu blocks free\n", blk_op_name(req->op),
			      (unsigned long long)req->offset_bytes,
			      (unsigned long long)req->len_bytes, req->result,
			      (unsigned long long)space.f_bfree);
		torture->bad_count++;
	}
	if (torture->left)
		torture_next(stripe);
}

void file_torture(struct file_fixture *fixture, struct blk_dev *dev, uint32_t request_count)
{
	struct torture torture = { .fixture = fixture, .dev = dev, .left = request_count };
	uint8_t *found = file_pattern(dev->size_bytes, 1);

	torture.stripe_bytes = dev->size_bytes / STRIPES;
	assert_int_equal(torture.stripe_bytes % dev->limits.block_bytes, 0);
	torture.shadow = calloc(1, dev->size_bytes);
	assert_non_null(torture.shadow);
	for (uint32_t i = 0; i < STRIPES; i++) {
		struct stripe *stripe = &torture.stripes[i];

		stripe->torture = &torture;
		stripe->start_bytes = i * torture.stripe_bytes;
		stripe->memory = file_pattern(torture.stripe_bytes + 4096, i);
		stripe->op.then = torture_then;
		torture_next(stripe);
	}
	assert_true(io_wait_for(&fixture->wait, request_count));
	assert_int_equal(torture.bad_count, 0);
	assert_int_equal(file_read(fixture, dev, 0, found, dev->size_bytes), 0);
	assert_memory_equal(found, torture.shadow, dev->size_bytes);
	for (uint32_t i = 0; i < STRIPES; i++)
		free(torture.stripes[i].memory);
	free(torture.shadow);
	free(found);
}

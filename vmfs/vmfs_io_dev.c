/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_io_dev.c - metadata through a block device that lives on a loop.
 *
 * The calling thread hands the loop one request at a time and sleeps until it is done.  A
 * request that never completes keeps its caller for ever (R2: a deadline ends no request);
 * that is why callers are workers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_io.h"

#define TRANSFER_BYTES ((size_t)1 << 20)
#define TRANSFER_ALIGN 4096u

struct io_dev {
	struct vmfs_io io;
	struct blk_dev *dev;
	uint8_t *bounce;
	struct iovec iov;
	struct blk_req req;             /* the loop's while `busy` */
	struct task start;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy;                      /* under the lock */
};

static void io_dev_start(struct task *task)
{
	struct io_dev *io = container_of(task, struct io_dev, start);

	blk_submit(io->dev, &io->req);
}

static void io_dev_done(struct blk_req *req)
{
	struct io_dev *io = container_of(req, struct io_dev, req);

	pthread_mutex_lock(&io->lock);
	io->busy = false;
	/* Under the lock: once it is released the waiter may free us. */
	pthread_cond_signal(&io->changed);
	pthread_mutex_unlock(&io->lock);
}

static int io_dev_call(struct io_dev *io, enum blk_op op, uint64_t offset_bytes, size_t len_bytes)
{
	CHECK(!loop_is_here(io->dev->loop));
	io->iov = (struct iovec){ io->bounce, len_bytes };
	io->req = (struct blk_req){
		.op = op,
		.flags = BLK_STABLE,
		.offset_bytes = offset_bytes,
		.len_bytes = len_bytes,
		.iov = op == BLK_FLUSH ? NULL : &io->iov,
		.iov_count = op == BLK_FLUSH ? 0 : 1,
		.done = io_dev_done,
	};
	io->busy = true;
	io->start.run = io_dev_start;
	loop_send(io->dev->loop, &io->start);
	pthread_mutex_lock(&io->lock);
	while (io->busy)
		pthread_cond_wait(&io->changed, &io->lock);
	pthread_mutex_unlock(&io->lock);
	return io->req.result;
}

static int io_dev_read(struct vmfs_io *base, uint64_t offset_bytes, uint8_t *bytes,
		       size_t len_bytes)
{
	struct io_dev *io = container_of(base, struct io_dev, io);

	while (len_bytes > 0) {
		uint64_t start = round_down(offset_bytes, base->block_bytes);
		size_t skip = (size_t)(offset_bytes - start);
		size_t part = MIN(len_bytes, TRANSFER_BYTES - skip);
		int rc = io_dev_call(io, BLK_READ, start, (size_t)round_up(skip + part,
									   base->block_bytes));

		if (rc)
			return rc;
		memcpy(bytes, io->bounce + skip, part);
		bytes += part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

static int io_dev_write(struct vmfs_io *base, uint64_t offset_bytes, const uint8_t *bytes,
			size_t len_bytes)
{
	struct io_dev *io = container_of(base, struct io_dev, io);

	while (len_bytes > 0) {
		size_t part = MIN(len_bytes, TRANSFER_BYTES);
		int rc;

		memcpy(io->bounce, bytes, part);
		rc = io_dev_call(io, BLK_WRITE, offset_bytes, part);
		if (rc)
			return rc;
		bytes += part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

static int io_dev_flush(struct vmfs_io *base)
{
	return io_dev_call(container_of(base, struct io_dev, io), BLK_FLUSH, 0, 0);
}

static void io_dev_close(struct vmfs_io *base)
{
	struct io_dev *io = container_of(base, struct io_dev, io);

	CHECK(!io->busy);
	pthread_cond_destroy(&io->changed);
	pthread_mutex_destroy(&io->lock);
	free(io->bounce);
	free(io);
}

static const struct vmfs_io_ops io_dev_ops = {
	.name = "device",
	.read = io_dev_read,
	.write = io_dev_write,
	.flush = io_dev_flush,
	.close = io_dev_close,
};

struct vmfs_io *vmfs_io_dev_new(struct blk_dev *dev)
{
	struct io_dev *io = calloc(1, sizeof(*io));

	CHECK(dev->limits.block_bytes <= VMFS_IO_BLOCK_MAX);
	if (!io)
		return NULL;
	io->bounce = aligned_alloc(TRANSFER_ALIGN, TRANSFER_BYTES);
	if (!io->bounce) {
		free(io);
		return NULL;
	}
	pthread_mutex_init(&io->lock, NULL);
	pthread_cond_init(&io->changed, NULL);
	io->dev = dev;
	io->io = (struct vmfs_io){
		.ops = &io_dev_ops,
		.size_bytes = round_down(dev->size_bytes, dev->limits.block_bytes),
		.block_bytes = dev->limits.block_bytes,
		.read_only = dev->limits.read_only,
	};
	return &io->io;
}

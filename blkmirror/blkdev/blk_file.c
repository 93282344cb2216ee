/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/blk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file_private.h"

/* Bounce buffers of one device: two of the largest requests. */
#define BOUNCE_LIMIT_BYTES (2 * BUF_MAX_BYTES)

/* How long a close waits for close(2), which is done at once unless the store is stuck. */
#define CLOSE_WAIT_NS (20 * NS_PER_MS)

/* ---- a request's way in and out ---- */

static bool request_is_aligned(const struct blk_file *file, const struct blk_req *req)
{
	uintptr_t address_mask = file->dev.limits.memory_align_bytes - 1;
	size_t len_mask = file->dev.limits.block_bytes - 1;

	for (uint32_t i = 0; i < req->iov_count; i++)
		if (((uintptr_t)req->iov[i].iov_base & address_mask) ||
		    (req->iov[i].iov_len & len_mask))
			return false;
	return true;
}

static void blk_file_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct blk_file *file = blk_file_of(dev);
	struct file_req *file_req = file_req_of(req);

	*file_req = (struct file_req){ 0 };
	switch (req->op) {
	case BLK_READ:
	case BLK_WRITE:
		if (!file->direct) {
			blk_file_work(file, req);
			return;
		}
		file_req->flat = !request_is_aligned(file, req);
		blk_file_aio_queue(file, req);
		return;
	case BLK_FLUSH:
		/* R9: never left out, whatever this device has or has not written itself. */
		if (file->direct && !file->kernel_lacks_fdsync)
			blk_file_aio_queue(file, req);
		else
			blk_file_work_sync(file, req);
		return;
	case BLK_DISCARD:
		if (dev->limits.can_unmap)
			blk_file_work(file, req);
		else
			blk_complete_later(req, 0);     /* a hint that it cannot take */
		return;
	case BLK_WRITE_ZEROES:
	case BLK_EXTENTS:
		blk_file_work(file, req);
		return;
	case BLK_OP_COUNT:
		break;
	}
	CHECK(false);
}

/* Copy a read's bounced part out to the caller's pieces. */
static void scatter(const struct blk_req *req, const uint8_t *bytes, uint64_t from_bytes)
{
	uint64_t piece_start = 0;

	for (uint32_t i = 0; i < req->iov_count; i++) {
		const struct iovec *piece = &req->iov[i];
		uint64_t skip = from_bytes > piece_start ? from_bytes - piece_start : 0;

		if (skip < piece->iov_len)
			memcpy((uint8_t *)piece->iov_base + skip, bytes + piece_start + skip,
			       piece->iov_len - skip);
		piece_start += piece->iov_len;
	}
}

void blk_file_release_bounce(struct blk_file *file, struct file_req *file_req, int result)
{
	struct blk_req *req = blk_req_of(file_req);

	if (!file_req->bounce)
		return;
	if (req->op == BLK_READ && result == 0)
		scatter(req, file_req->bounce->bytes, file_req->bounce_from_bytes);
	buf_put(file_req->bounce);
	file_req->bounce = NULL;
	/* Somebody may be waiting for it. */
	if (!list_is_empty(&file->waiting))
		loop_at_turn_end(file->dev.loop, &file->dispatch);
}

void blk_file_finish(struct blk_file *file, struct file_req *file_req, int result)
{
	blk_file_release_bounce(file, file_req, result);
	blk_complete(blk_req_of(file_req), result);     /* F2: nothing after this */
}

/* ---- closing ---- */

/*
 * The last close of a file frees its blocks if it was deleted, that of a block device
 * writes back, that of a file on a network or FUSE asks its server: all can take as long as
 * the store likes, and so must not run on the loop.  io_destroy() waits for an RCU period,
 * 30 to 50 ms here.  A thread of their own does both.  The loop
 * gives close() a moment all the same: who closes a device expects to be able to lock,
 * unmount or open exclusively right after, and on a healthy store it is so.
 */
struct farewell {
	int fd;
	io_context_t aio;
	_Atomic uint32_t fd_is_closed;  /* futex */
	_Atomic uint32_t holders;
	/*
	 * blk_file_close_later(): the thread sends `told` as the last that it does with the loop,
	 * and is joined there, unless the timer was first: then it tells nobody.
	 */
	struct loop *loop;
	void (*closed)(void *user);
	void *user;
	pthread_t thread;
	bool has_thread;
	struct task told;
	struct timer patience;
	_Atomic bool is_told;
};

static void farewell_put(struct farewell *farewell)
{
	if (atomic_fetch_sub(&farewell->holders, 1) == 1)
		free(farewell);
}

static void *farewell_destroy(void *arg)
{
	struct farewell *farewell = arg;

	if (farewell->aio)
		io_destroy(farewell->aio);
	farewell_put(farewell);
	return NULL;
}

static void *farewell_main(void *arg)
{
	struct farewell *farewell = arg;

	pthread_setname_np(pthread_self(), "bm-close");
	close(farewell->fd);
	atomic_store(&farewell->fd_is_closed, 1);
	syscall(SYS_futex, &farewell->fd_is_closed, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	return farewell_destroy(farewell);
}

static void *farewell_main_later(void *arg)
{
	struct farewell *farewell = arg;

	pthread_setname_np(pthread_self(), "bm-close");
	close(farewell->fd);
	if (atomic_exchange(&farewell->is_told, true))
		return farewell_destroy(farewell);
	loop_send(farewell->loop, &farewell->told);
	return NULL;
}

static int farewell_start(struct farewell *farewell, void *(*thread_main)(void *))
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&farewell->thread, NULL, thread_main, farewell);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* On a thread that nobody joins; here when there is none to be had: late is better than never. */
static void farewell_detach(struct farewell *farewell, void *(*thread_main)(void *))
{
	if (farewell_start(farewell, thread_main) == 0)
		pthread_detach(farewell->thread);
	else
		thread_main(farewell);
}

static void farewell_wait(struct farewell *farewell)
{
	struct timespec patience = { .tv_nsec = CLOSE_WAIT_NS };

	while (!atomic_load(&farewell->fd_is_closed))
		if (syscall(SYS_futex, &farewell->fd_is_closed, FUTEX_WAIT_PRIVATE, 0, &patience,
			    NULL, 0) != 0 && errno == ETIMEDOUT)
			return;
}

static void farewell_told(struct task *task)
{
	struct farewell *farewell = container_of(task, struct farewell, told);

	timer_stop(&farewell->patience);
	if (farewell->has_thread)
		pthread_join(farewell->thread, NULL);   /* it has nothing more to do */
	farewell->closed(farewell->user);
	farewell_detach(farewell, farewell_destroy);
	farewell_put(farewell);
}

/* The store is stuck: nobody waits any longer. */
static void farewell_impatient(struct timer *timer)
{
	struct farewell *farewell = container_of(timer, struct farewell, patience);

	if (atomic_exchange(&farewell->is_told, true))
		return;                 /* it comes just now */
	pthread_detach(farewell->thread);
	farewell->closed(farewell->user);
	farewell_put(farewell);
}

static void blk_file_free_lanes(struct blk_file *file)
{
	for (uint32_t i = 0; i < BLK_FILE_LANES; i++)
		worker_free(file->lanes[i]);
}

/* All but the descriptor and the kernel's context: those go with the farewell. */
static struct farewell *blk_file_wind_up(struct blk_file *file)
{
	struct farewell *farewell = file->farewell;

	LOOP_CHECK(file->dev.loop);
	if (file->direct)
		blk_file_aio_close(file);
	blk_file_free_lanes(file);
	buf_pool_free(file->bounces);
	farewell->fd = file->fd;
	farewell->aio = file->aio;
	atomic_init(&farewell->fd_is_closed, 0);
	atomic_init(&farewell->holders, 2);
	free(file);
	return farewell;
}

static void blk_file_close(struct blk_dev *dev)
{
	struct farewell *farewell = blk_file_wind_up(blk_file_of(dev));

	farewell_detach(farewell, farewell_main);
	farewell_wait(farewell);
	farewell_put(farewell);
}

void blk_file_close_later(struct blk_dev *dev, void (*closed)(void *user), void *user)
{
	struct loop *loop = dev->loop;
	struct farewell *farewell;

	CHECK(blk_dev_is_file(dev));
	CHECK(dev->in_flight == 0);
	farewell = blk_file_wind_up(blk_file_of(dev));
	farewell->loop = loop;
	farewell->closed = closed;
	farewell->user = user;
	farewell->told.run = farewell_told;
	atomic_init(&farewell->is_told, false);
	timer_init(&farewell->patience, loop, farewell_impatient);
	timer_start(&farewell->patience, CLOSE_WAIT_NS);
	farewell->has_thread = true;
	if (farewell_start(farewell, farewell_main_later) != 0) {
		farewell->has_thread = false;
		farewell_main_later(farewell);
	}
}

/* ---- making ---- */

static const struct blk_ops blk_file_ops = {
	.name = "file",
	.submit = blk_file_submit,
	.close = blk_file_close,
};

static int blk_file_make_lanes(struct blk_file *file)
{
	uint32_t count = file->direct ? 1 : BLK_FILE_LANES;

	for (uint32_t i = 0; i < count; i++) {
		file->lanes[i] = worker_new(file->dev.loop, "bm-file");
		if (!file->lanes[i])
			return -ENOMEM;
	}
	return 0;
}

static int blk_file_open_direct(struct blk_file *file, bool submit_thread, struct err *err)
{
	int rc;

	rc = blk_file_aio_open(file, err);
	if (rc || !submit_thread)
		return rc;
	rc = file_thread_new(file, &file->thread);
	if (!rc)
		return 0;
	blk_file_aio_close(file);
	io_destroy(file->aio);
	return err_set(err, ERR_NO_MEMORY, rc, "cannot start a thread for '%s': %s", file->name,
		       err_strerror(rc));
}

int blk_file_new(struct loop *loop, int fd, const struct blk_file_options *options,
		 struct blk_dev **out, struct err *err)
{
	uint32_t depth = options->depth ? options->depth : BLK_FILE_DEPTH_DEFAULT;
	struct file_geometry geometry;
	struct blk_file *file;
	int rc;

	LOOP_CHECK(loop);
	CHECK(fd >= 0);
	CHECK(depth <= BLK_FILE_DEPTH_MAX);
	file = calloc(1, sizeof(*file));
	if (!file)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(file->name, sizeof(file->name), "%s", options->name ? options->name : "file");
	rc = blk_file_measure(fd, options, file->name, &geometry, err);
	if (rc)
		goto free_file;
	blk_dev_init(&file->dev, &blk_file_ops, loop, geometry.size_bytes, &geometry.limits);
	file->fd = fd;
	file->is_block_device = geometry.is_block_device;
	file->direct = geometry.direct;
	file->depth = depth;
	list_init(&file->waiting);
	file->farewell = calloc(1, sizeof(*file->farewell));
	file->bounces = buf_pool_new(loop, BOUNCE_LIMIT_BYTES);
	rc = blk_file_make_lanes(file);
	if (rc || !file->farewell || !file->bounces) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_parts;
	}
	if (file->direct) {
		rc = blk_file_open_direct(file, options->submit_thread, err);
		if (rc)
			goto free_parts;
	}
	*out = &file->dev;
	return 0;

free_parts:
	blk_file_free_lanes(file);
	buf_pool_free(file->bounces);
	free(file->farewell);
free_file:
	free(file);
	return rc;
}

int blk_file_set_submit_thread(struct blk_dev *dev, bool on)
{
	struct blk_file *file = blk_file_of(dev);

	LOOP_CHECK(dev->loop);
	CHECK(blk_dev_is_file(dev));
	CHECK(dev->in_flight == 0);
	if (!file->direct || on == (file->thread != NULL))
		return 0;
	if (on)
		return file_thread_new(file, &file->thread);
	file_thread_free(file->thread);
	file->thread = NULL;
	return 0;
}

bool blk_dev_is_file(const struct blk_dev *dev)
{
	return dev->ops == &blk_file_ops;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file_aio.c - the direct path: one io_submit() a turn, completions from the ring.
 *
 * Going down.  blk_submit() only queues.  The turn hook takes as many as the depth allows,
 * prepares their iocbs and hands the batch to the kernel, or to the submit thread (R5).
 *
 * Coming up.  Each iocb names the device's eventfd, which the loop watches.  Completions are
 * taken from the ring that the kernel maps at the address of the context: a tail that the
 * kernel moves, a head that we move.  That layout is not in any manual, but it has been
 * stable since 2002, and carries a magic number and an incompat mask; where they are not as
 * known, io_getevents() does the same with a system call.
 *
 * Going round.  A short transfer is no success.  The rest goes down again, through a bounce
 * buffer, so that the caller's iovec need not be cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_file_private.h"

/* In case the system's headers are older than the kernel. */
#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

/* ---- the kernel's ring ---- */

struct aio_ring {
	uint32_t id;
	uint32_t count;                 /* of events */
	uint32_t head;                  /* ours */
	uint32_t tail;                  /* the kernel's */
	uint32_t magic;
	uint32_t compat_features;
	uint32_t incompat_features;
	uint32_t header_bytes;
	struct io_event events[];
};
_Static_assert(sizeof(struct aio_ring) == 32, "the kernel's header");
_Static_assert(sizeof(struct io_event) == 32, "the kernel's event");

#define AIO_RING_MAGIC 0xa10a10a1u
#define GETEVENTS_COUNT 64

struct landed_list {
	struct file_req *first;
	struct file_req **last;
	uint32_t count;
};

static void landed_add(struct landed_list *landed, const struct io_event *event)
{
	struct file_req *file_req = event->data;

	file_req->result = (int64_t)event->res;
	file_req->next = NULL;
	*landed->last = file_req;
	landed->last = &file_req->next;
	landed->count++;
}

static bool ring_is_known(const struct aio_ring *ring)
{
	return ring->magic == AIO_RING_MAGIC && ring->incompat_features == 0 &&
	       ring->header_bytes == sizeof(*ring);
}

/*
 * The kernel writes an event, then the tail: acquire makes the event visible.  It may reuse
 * a place once the head has passed it: release keeps our reads before that.
 */
static void ring_take(struct aio_ring *ring, struct landed_list *landed)
{
	uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	uint32_t head = ring->head;

	while (head != tail) {
		landed_add(landed, &ring->events[head]);
		head = head + 1 == ring->count ? 0 : head + 1;
	}
	__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
}

static void getevents_take(io_context_t aio, struct landed_list *landed)
{
	struct io_event events[GETEVENTS_COUNT];
	struct timespec no_wait = { 0 };
	int count;

	do {
		count = io_getevents(aio, 0, GETEVENTS_COUNT, events, &no_wait);
		CHECK(count >= 0 || count == -EINTR);
		for (int i = 0; i < count; i++)
			landed_add(landed, &events[i]);
	} while (count == GETEVENTS_COUNT || count == -EINTR);
}

/* ---- preparing ---- */

static void gather(uint8_t *bytes, const struct blk_req *req)
{
	for (uint32_t i = 0; i < req->iov_count; i++) {
		memcpy(bytes, req->iov[i].iov_base, req->iov[i].iov_len);
		bytes += req->iov[i].iov_len;
	}
}

/* 0; -EAGAIN: all are in use and one will come back; -ENOMEM. */
static int prepare_bounce(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);

	file_req->bounce = buf_get(file->bounces, req->len_bytes);
	if (!file_req->bounce)
		return buf_pool_used_bytes(file->bounces) ? -EAGAIN : -ENOMEM;
	if (req->op == BLK_WRITE)
		gather(file_req->bounce->bytes, req);
	file_req->bounce_from_bytes = file_req->done_bytes;
	return 0;
}

static void prepare_transfer(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);
	struct iocb *iocb = &file_req->iocb;
	bool is_write = req->op == BLK_WRITE;
	long long offset = (long long)(req->offset_bytes + file_req->done_bytes);

	if (file_req->bounce) {
		uint8_t *bytes = file_req->bounce->bytes + file_req->done_bytes;
		size_t len_bytes = req->len_bytes - file_req->done_bytes;

		if (is_write)
			io_prep_pwrite(iocb, file->fd, bytes, len_bytes, offset);
		else
			io_prep_pread(iocb, file->fd, bytes, len_bytes, offset);
	} else if (is_write) {
		io_prep_pwritev(iocb, file->fd, req->iov, (int)req->iov_count, offset);
	} else {
		io_prep_preadv(iocb, file->fd, req->iov, (int)req->iov_count, offset);
	}
	if (is_write && (req->flags & BLK_FUA)) {
		if (atomic_load_explicit(&file->lacks_dsync, memory_order_relaxed))
			file_req->sync_after = true;
		if (!file_req->sync_after)
			iocb->aio_rw_flags = RWF_DSYNC;
	}
}

static int prepare(struct blk_file *file, struct file_req *file_req)
{
	struct iocb *iocb = &file_req->iocb;

	if (blk_req_of(file_req)->op == BLK_FLUSH) {
		io_prep_fdsync(iocb, file->fd);
	} else {
		if (file_req->flat && !file_req->bounce) {
			int rc = prepare_bounce(file, file_req);

			if (rc)
				return rc;
		}
		prepare_transfer(file, file_req);
	}
	iocb->data = file_req;
	io_set_eventfd(iocb, file->event_fd);
	return 0;
}

/*
 * Fill the batch from the FIFO.  When the bounce buffers run out, the first that lacks one
 * keeps its turn: nobody behind it gets a buffer before, though who needs none goes on.
 */
static uint32_t gather_batch(struct blk_file *file)
{
	bool bounces_are_out = false;
	uint32_t count = 0;

	list_for_each(node, &file->waiting) {
		struct blk_req *req = list_entry(node, struct blk_req, node);
		struct file_req *file_req = file_req_of(req);
		int rc;

		if (file->requests_in_kernel + count == file->depth)
			break;          /* F1 */
		if (bounces_are_out && file_req->flat && !file_req->bounce)
			continue;
		rc = prepare(file, file_req);
		if (rc == -EAGAIN) {
			bounces_are_out = true;
			continue;
		}
		list_remove(node);
		if (rc)
			blk_complete_later(req, rc);
		else
			file->batch[count++] = &file_req->iocb;
	}
	return count;
}

/* ---- W5: going down ---- */

uint32_t blk_file_aio_submit(struct blk_file *file, struct iocb **batch, uint32_t count,
			     void (*refuse)(struct blk_file *file, struct file_req *file_req))
{
	uint32_t done = 0;

	while (done < count) {
		int rc = io_submit(file->aio, (long)(count - done), batch + done);

		if (rc > 0) {
			done += (uint32_t)rc;
		} else if (rc == 0 || rc == -EAGAIN) {
			break;
		} else {
			/* The first is at fault: an error further in ends the count before it. */
			struct file_req *file_req = batch[done]->data;

			done++;
			file_req->result = rc;
			refuse(file, file_req);
		}
	}
	return done;
}

static void refuse_here(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);

	req->task = (struct task){ .run = blk_file_aio_refused };
	loop_post(file->dev.loop, &req->task);
}

/* The kernel has no room: in order, back to the head of the FIFO. */
static void put_back(struct blk_file *file, uint32_t first, uint32_t count)
{
	for (uint32_t i = count; i > first; i--) {
		struct file_req *file_req = file->batch[i - 1]->data;

		list_prepend(&file->waiting, &blk_req_of(file_req)->node);
	}
	file->requests_in_kernel -= count - first;
	/* Any completion sends them down again; without one to come, time does. */
	if (file->requests_in_kernel == 0)
		timer_start(&file->retry, BLK_FILE_RETRY_NS);
}

static void blk_file_dispatch(struct turn_hook *hook)
{
	struct blk_file *file = container_of(hook, struct blk_file, dispatch);
	uint32_t count = gather_batch(file);
	uint32_t done;

	if (count == 0)
		return;
	file->requests_in_kernel += count;
	if (file->thread) {
		file_thread_send(file->thread, file->batch, count);
		return;
	}
	done = blk_file_aio_submit(file, file->batch, count, refuse_here);
	if (done < count)
		put_back(file, done, count);
}

static void blk_file_retry(struct timer *timer)
{
	struct blk_file *file = container_of(timer, struct blk_file, retry);

	loop_at_turn_end(file->dev.loop, &file->dispatch);
}

void blk_file_aio_queue(struct blk_file *file, struct blk_req *req)
{
	list_append(&file->waiting, &req->node);
	loop_at_turn_end(file->dev.loop, &file->dispatch);
}

/* Down again, before those that never were. */
static void requeue(struct blk_file *file, struct file_req *file_req)
{
	list_prepend(&file->waiting, &blk_req_of(file_req)->node);
	loop_at_turn_end(file->dev.loop, &file->dispatch);
}

/* ---- coming up ---- */

static void flush_landed(struct blk_file *file, struct file_req *file_req)
{
	if (!file_rc_is_unsupported(file_req->result)) {
		blk_file_finish(file, file_req, file_req->result < 0 ? (int)file_req->result : 0);
		return;
	}
	if (!file->kernel_lacks_fdsync)
		log_info("blk_file", "%s: no asynchronous flush here (%s): using a thread",
			 file->name, err_strerror((int)file_req->result));
	file->kernel_lacks_fdsync = true;
	blk_file_work_sync(file, blk_req_of(file_req));
}

/* An error that may only mean that RWF_DSYNC is not known: once more without. */
static bool retry_without_dsync(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);

	if (req->op != BLK_WRITE || !(req->flags & BLK_FUA) || file_req->sync_after ||
	    !file_rc_is_unsupported(file_req->result))
		return false;
	file_req->sync_after = true;
	requeue(file, file_req);
	return true;
}

static void transfer_is_whole(struct blk_file *file, struct file_req *file_req)
{
	if (!file_req->sync_after) {
		blk_file_finish(file, file_req, 0);
		return;
	}
	if (file_first_sight(&file->lacks_dsync))
		log_info("blk_file", "%s: no RWF_DSYNC here: durable writes are synced by a thread",
			 file->name);
	blk_file_release_bounce(file, file_req, 0);
	blk_file_work_sync(file, blk_req_of(file_req));
}

static void transfer_landed(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);
	uint64_t before_bytes = file_req->done_bytes;

	if (file_req->result < 0) {
		if (!retry_without_dsync(file, file_req))
			blk_file_finish(file, file_req, (int)file_req->result);
		return;
	}
	CHECK((uint64_t)file_req->result <= req->len_bytes - before_bytes);
	file_req->done_bytes += (uint64_t)file_req->result;
	if (file_req->done_bytes == req->len_bytes) {
		transfer_is_whole(file, file_req);
		return;
	}
	/* Only whole blocks count: the rest must begin aligned. */
	file_req->done_bytes = round_down(file_req->done_bytes, file->dev.limits.block_bytes);
	if (file_req->done_bytes == before_bytes) {
		/* The end of a file that somebody has cut, or a store that takes nothing. */
		blk_file_finish(file, file_req, -EIO);
		return;
	}
	file_req->flat = true;
	requeue(file, file_req);
}

/* F2: nothing after the last of these. */
static void settle(struct blk_file *file, struct file_req *file_req)
{
	if (blk_req_of(file_req)->op == BLK_FLUSH)
		flush_landed(file, file_req);
	else
		transfer_landed(file, file_req);
}

static void room_in_kernel(struct blk_file *file, uint32_t count)
{
	CHECK(file->requests_in_kernel >= count);
	file->requests_in_kernel -= count;
	if (!list_is_empty(&file->waiting))
		loop_at_turn_end(file->dev.loop, &file->dispatch);
}

void blk_file_aio_refused(struct task *task)
{
	struct blk_req *req = container_of(task, struct blk_req, task);
	struct blk_file *file = blk_file_of(req->dev);

	room_in_kernel(file, 1);
	settle(file, file_req_of(req));
}

/* At most depth completions a wake-up (F1). */
static void blk_file_landed(struct watch *watch, unsigned events)
{
	struct blk_file *file = container_of(watch, struct blk_file, landed);
	struct aio_ring *ring = (struct aio_ring *)file->aio;
	struct landed_list landed = { .last = &landed.first };
	uint64_t signals;

	(void)events;
	/* First the signal, then the ring: what comes in between signals again. */
	if (read(file->event_fd, &signals, sizeof(signals)) < 0 && errno != EAGAIN)
		CHECK(errno == EINTR);
	if (file->thread)
		file_thread_landed(file->thread);
	if (ring_is_known(ring))
		ring_take(ring, &landed);
	else
		getevents_take(file->aio, &landed);
	if (landed.count == 0)
		return;
	room_in_kernel(file, landed.count);
	for (struct file_req *file_req = landed.first, *next; file_req; file_req = next) {
		next = file_req->next;
		settle(file, file_req);
	}
}

/* ---- open and close ---- */

static int aio_setup_failed(struct blk_file *file, int rc, struct err *err)
{
	if (rc != -EAGAIN)
		return err_set(err, rc == -ENOMEM ? ERR_NO_MEMORY : ERR_DISK_IO, rc,
			       "cannot set up asynchronous I/O for '%s': %s", file->name,
			       err_strerror(rc));
	err_set(err, ERR_DISK_IO, rc,
		"cannot set up asynchronous I/O for '%s': this host's fs.aio-max-nr is used up",
		file->name);
	err_remedy(err,
		   "Raise it, by %u for each disk: sysctl -w fs.aio-max-nr=1048576, and the same "
		   "in /etc/sysctl.d to keep it.",
		   file->depth);
	return rc;
}

int blk_file_aio_open(struct blk_file *file, struct err *err)
{
	int rc;

	turn_hook_init(&file->dispatch, blk_file_dispatch);
	timer_init(&file->retry, file->dev.loop, blk_file_retry);
	file->batch = calloc(file->depth, sizeof(file->batch[0]));
	if (!file->batch)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	file->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (file->event_fd < 0) {
		rc = err_set(err, ERR_DISK_IO, -errno, "cannot make an eventfd for '%s': %s",
			     file->name, err_strerror(-errno));
		goto free_batch;
	}
	rc = io_setup((int)file->depth, &file->aio);
	if (rc) {
		rc = aio_setup_failed(file, rc, err);
		goto close_event_fd;
	}
	rc = watch_start(&file->landed, file->dev.loop, file->event_fd, WATCH_READ,
			 blk_file_landed);
	if (!rc)
		return 0;
	rc = err_set(err, ERR_DISK_IO, rc, "cannot watch the completions of '%s': %s", file->name,
		     err_strerror(rc));
	io_destroy(file->aio);
close_event_fd:
	close(file->event_fd);
free_batch:
	free(file->batch);
	return rc;
}

void blk_file_aio_close(struct blk_file *file)
{
	CHECK(file->requests_in_kernel == 0);
	CHECK(list_is_empty(&file->waiting));
	file_thread_free(file->thread);
	turn_hook_cancel(&file->dispatch);
	timer_stop(&file->retry);
	watch_stop(&file->landed);
	close(file->event_fd);
	free(file->batch);
}

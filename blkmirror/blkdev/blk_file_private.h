/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file_private.h - what the parts of blk_file share.
 *
 *   blk_file.c         making, routing a request to its path, finishing it, closing
 *   blk_file_limits.c  what the kernel says about the file: size, sectors, alignment
 *   blk_file_aio.c     the direct path: batches into the kernel, completions out of it
 *   blk_file_thread.c  the submit thread (R5)
 *   blk_file_work.c    what only exists as a blocking call, and buffered I/O
 *
 * A request is at any moment in exactly one place:
 *
 *   blk_submit -> waiting -> kernel -> finished          READ, WRITE, FLUSH; direct
 *                    ^  \      /|
 *                    |   thread |                        (R5: between waiting and kernel)
 *                    +----------+                        the rest of a short transfer
 *   blk_submit -> worker -> finished                     everything else
 *
 * Invariants:
 *   F1  requests_in_kernel counts those with the thread or the kernel; it never passes depth,
 *       so the kernel's ring cannot overflow and the thread's inbox is bounded.
 *   F2  blk_complete() is the last thing that is done to the device on any path: the
 *       caller may close it from there once nothing else is in flight.
 *   F3  whoever hands a request on (thread, kernel, worker) does not touch it afterwards.
 */
#ifndef BM_BLK_FILE_PRIVATE_H
#define BM_BLK_FILE_PRIVATE_H

#include <errno.h>
#include <libaio.h>
#include <stdatomic.h>

#include "blkmirror/base/buf.h"
#include "blkmirror/base/worker.h"
#include "blkmirror/blkdev/blk_file.h"

#define BLK_FILE_NAME_BYTES 64
#define BLK_FILE_DEPTH_DEFAULT 256u
#define BLK_FILE_DEPTH_MAX 4096u
/* Buffered I/O blocks its thread: as many run at once.  Lane 0 also does the odd jobs. */
#define BLK_FILE_LANES 4u
/* After -EAGAIN with nothing in the kernel (short of memory) no completion will come. */
#define BLK_FILE_RETRY_NS (10 * NS_PER_MS)

/* A request's private part.  The iocb and the job are never needed at the same time. */
struct file_req {
	union {
		struct iocb iocb;
		struct job job;
	};
	struct file_req *next;          /* to the submit thread, and back from the ring */
	struct buf *bounce;             /* holds the request from its byte 0 on; NULL: none */
	uint64_t bounce_from_bytes;     /* what is before it lies in the caller's memory already */
	uint64_t done_bytes;
	int64_t result;                 /* the kernel's last word: bytes or -errno */
	bool flat;                      /* must go through a bounce buffer */
	bool sync_after;                /* FUA without RWF_DSYNC: sync before finishing */
};
_Static_assert(sizeof(struct file_req) <= BLK_REQ_PRIVATE_BYTES, "fits in a request");
_Static_assert(_Alignof(struct file_req) <= 16, "a request's private part is aligned to 16");

struct file_thread;
struct farewell;

struct blk_file {
	struct blk_dev dev;
	char name[BLK_FILE_NAME_BYTES];
	int fd;
	bool is_block_device;
	bool direct;                    /* else all I/O is buffered and runs on the lanes */
	uint32_t depth;
	struct worker *lanes[BLK_FILE_LANES];   /* lane 0 only when direct */
	struct buf_pool *bounces;
	struct farewell *farewell;      /* made early, so that closing cannot fail */

	/* The direct path; the loop's. */
	io_context_t aio;
	int event_fd;
	struct watch landed;
	struct turn_hook dispatch;
	struct timer retry;
	struct list waiting;            /* FIFO of blk_req.node */
	uint32_t requests_in_kernel;    /* F1 */
	struct iocb **batch;            /* depth of them */
	bool kernel_lacks_fdsync;
	struct file_thread *thread;     /* NULL: submit on the loop */

	/* Known for good once seen: whoever sees it first says so once. */
	_Atomic bool lacks_dsync;
	_Atomic bool lacks_punch;
	_Atomic bool lacks_zero_range;
	_Atomic bool lacks_seek;
};

static inline struct blk_file *blk_file_of(struct blk_dev *dev)
{
	return container_of(dev, struct blk_file, dev);
}

static inline struct file_req *file_req_of(struct blk_req *req)
{
	return (struct file_req *)(void *)req->private_bytes;
}

static inline struct blk_req *blk_req_of(struct file_req *file_req)
{
	return container_of(file_req, struct blk_req, private_bytes);
}

static inline bool file_rc_is_unsupported(int64_t rc)
{
	return rc == -EOPNOTSUPP || rc == -EINVAL || rc == -ENOSYS;
}

/* True for the first caller only; for "said once". */
static inline bool file_first_sight(_Atomic bool *known)
{
	return !atomic_exchange_explicit(known, true, memory_order_relaxed);
}

/* ---- blk_file.c ---- */

/* Give the bounce buffer back (a read's data to the caller first), then complete.  F2. */
void blk_file_finish(struct blk_file *file, struct file_req *file_req, int result);
void blk_file_release_bounce(struct blk_file *file, struct file_req *file_req, int result);

/* ---- blk_file_limits.c ---- */

struct file_geometry {
	uint64_t size_bytes;
	bool is_block_device;
	bool direct;
	struct blk_limits limits;
};

/*
 * 0 or -EINVAL with *err.  May turn O_DIRECT off on fd, when the kernel refuses it or the
 * size is no multiple of what it asks for; logs a warning then.
 */
MUST_CHECK int blk_file_measure(int fd, const struct blk_file_options *options, const char *name,
				struct file_geometry *out, struct err *err);

/* A number from /sys/dev/block/MAJOR:MINOR/queue/, also for a partition; 0: not known. */
uint64_t blk_file_queue_limit(unsigned dev_major, unsigned dev_minor, const char *attribute);

/* ---- blk_file_aio.c ---- */

MUST_CHECK int blk_file_aio_open(struct blk_file *file, struct err *err);
/* Leaves file->aio itself, which takes tens of milliseconds to destroy, to the caller. */
void blk_file_aio_close(struct blk_file *file);
void blk_file_aio_queue(struct blk_file *file, struct blk_req *req);

/*
 * Hand count iocbs to the kernel; any thread.  Those that it refuses one by one are sent to
 * refuse().  Returns how many were dealt with: fewer than count when the kernel says -EAGAIN.
 */
uint32_t blk_file_aio_submit(struct blk_file *file, struct iocb **batch, uint32_t count,
			     void (*refuse)(struct blk_file *file, struct file_req *file_req));
/* Take a refused request back on the loop; its result is set.  The task of loop_send(). */
void blk_file_aio_refused(struct task *task);

/* ---- blk_file_thread.c ---- */

MUST_CHECK int file_thread_new(struct blk_file *file, struct file_thread **out);
/* Nothing may be in flight, so it joins at once.  NULL is harmless. */
void file_thread_free(struct file_thread *thread);
/* Never blocks.  F3. */
void file_thread_send(struct file_thread *thread, struct iocb **batch, uint32_t count);
/* Completions came: pairs with the thread's hand-over, and wakes it if it waits for room. */
void file_thread_landed(struct file_thread *thread);

/* ---- blk_file_work.c ---- */

void blk_file_work(struct blk_file *file, struct blk_req *req);
void blk_file_work_sync(struct blk_file *file, struct blk_req *req);

#endif

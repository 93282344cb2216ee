/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_io.h - the I/O threads, and calls from the main loop to them and back.
 *
 * A thread is a loop with its buffer pool.  Every disk is pinned to one: its device, gate,
 * export and mover live there.  Nothing on it may block.
 */
#ifndef BM_VMOTION_DISK_IO_H
#define BM_VMOTION_DISK_IO_H

#include <pthread.h>

#include "blkmirror/base/buf.h"
#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

struct io_thread {
	struct loop *loop;
	struct buf_pool *pool;
	uint32_t disk_count;            /* the main loop's: disks pinned here */
	struct list serving;            /* the I/O loop's: disks with an export */
	struct timer census;            /* the I/O loop's: runs while some are served */
	pthread_t thread;               /* private */
	char name[16];
};

/* Start thread `index`, named "ioN".  0, or -errno with *err. */
MUST_CHECK int io_thread_start(uint32_t index, uint64_t buffer_bytes, struct io_thread **out,
			       struct err *err);
/* No disk may be pinned to it.  Joins.  NULL is harmless. */
void io_thread_stop(struct io_thread *thread);

/*
 * One errand on an I/O loop: run() there, which ends, then or later, with io_call_finish()
 * there; then done() on the main loop.  Embedded by its user; busy until done() runs.
 */
struct io_call {
	void (*run)(struct io_call *call);
	void (*done)(struct io_call *call);
	struct loop *io_loop, *main_loop;       /* private from here */
	struct task task;
};

/* On the main loop. */
void io_call_send(struct io_call *call, struct loop *io_loop, struct loop *main_loop,
		  void (*run)(struct io_call *call), void (*done)(struct io_call *call));
void io_call_finish(struct io_call *call);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_thread.h - one loop on one thread for bulk work without a guest (import, export, verify).
 *
 * Guests have the disk service's threads to themselves.
 */
#ifndef BM_IO_THREAD_H
#define BM_IO_THREAD_H

#include "blkmirror/base/buf.h"
#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

struct io_thread;

/* name: at most 15 characters. */
MUST_CHECK int io_thread_new(const char *name, uint64_t buffer_bytes, struct io_thread **out,
			     struct err *err);
/* Nothing may be left on its loop.  Stops and joins.  NULL is harmless. */
void io_thread_free(struct io_thread *thread);

struct loop *io_thread_loop(struct io_thread *thread);          /* [any] */
struct buf_pool *io_thread_pool(struct io_thread *thread);      /* lives on the loop */

#endif

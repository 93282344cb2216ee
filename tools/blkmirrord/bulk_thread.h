/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bulk_thread.h - one loop on one thread for bulk work without a guest (import, export, verify).
 *
 * Guests have the disk service's threads to themselves.
 */
#ifndef BM_BULK_THREAD_H
#define BM_BULK_THREAD_H

#include "blkmirror/base/buf.h"
#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

struct bulk_thread;

/* name: at most 15 characters. */
MUST_CHECK int bulk_thread_new(const char *name, uint64_t buffer_bytes, struct bulk_thread **out,
			     struct err *err);
/* Nothing may be left on its loop.  Stops and joins.  NULL is harmless. */
void bulk_thread_free(struct bulk_thread *thread);

struct loop *bulk_thread_loop(struct bulk_thread *thread);          /* [any] */
struct buf_pool *bulk_thread_pool(struct bulk_thread *thread);      /* lives on the loop */

#endif

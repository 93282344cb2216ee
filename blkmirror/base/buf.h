/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.h - aligned, counted data buffers from a bounded pool.
 *
 * A guest's write may outlive its answer: a leg that passed its deadline goes on
 * reading the buffer (R2).  So data buffers are counted: whoever still reads one
 * holds a reference, and the last one returns it to the pool.
 *
 * Buffers are page-aligned (fit for O_DIRECT) and come in power-of-two classes
 * of 4 KiB to the pool's largest.  The pool never holds more than limit_bytes;
 * beyond that buf_get() returns NULL and the caller waits (buf_wait()) or sheds.
 * Freed buffers are kept for reuse, so a steady state allocates nothing.
 *
 * Threading: a pool and its buffers' counts belong to one loop; the bytes may be
 * read or written by other threads while a reference is held.
 */
#ifndef BM_BASE_BUF_H
#define BM_BASE_BUF_H

#include <stdint.h>

#include "blkmirror/base/loop.h"

#define BUF_MIN_BYTES 4096u
#define BUF_MAX_BYTES (UINT64_C(32) << 20)

struct buf_pool;

struct buf {
	uint8_t *bytes;
	uint64_t capacity_bytes;
	uint32_t refs;                  /* private from here */
	uint32_t class_index;
	bool spare;
	struct buf_pool *pool;
	struct list node;
};

struct buf_waiter {
	void (*ready)(struct buf_waiter *waiter);       /* called from a posted task */
	struct list node;                               /* list_init() before first use */
};

/* NULL: out of memory.  limit_bytes at least BUF_MAX_BYTES. */
struct buf_pool *buf_pool_new(struct loop *loop, uint64_t limit_bytes);

/* All buffers must be back, no waiter queued.  NULL is harmless. */
void buf_pool_free(struct buf_pool *pool);

/* One reference; NULL when the pool's limit (or memory) is reached.  0 < bytes <= BUF_MAX_BYTES. */
struct buf *buf_get(struct buf_pool *pool, uint64_t bytes);

/*
 * The same for work that nobody waits for (copies, verifications): such buffers together take
 * at most half of the limit, so that a store that hangs with them in hand leaves room for
 * guests.  NULL: wait as above.
 */
struct buf *buf_get_spare(struct buf_pool *pool, uint64_t bytes);

struct buf *buf_ref(struct buf *buf);

/* NULL is harmless. */
void buf_put(struct buf *buf);

/* Call waiter->ready() once after a buffer has come back.  FIFO. */
void buf_wait(struct buf_pool *pool, struct buf_waiter *waiter);
void buf_wait_cancel(struct buf_waiter *waiter);

/* Bytes handed out now. */
uint64_t buf_pool_used_bytes(const struct buf_pool *pool);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wrap_private.h - what the three wrappers share: a request's copy for the device below.
 *
 * A device owns a request's private parts from submit to done, so a wrapper cannot
 * pass its caller's request on: it sends a copy of its own down and answers the
 * caller's when the copy is back.  Each wrapper embeds struct wrap_op as the first
 * member of what it remembers per request.
 */
#ifndef BM_WRAP_PRIVATE_H
#define BM_WRAP_PRIVATE_H

#include "blkmirror/blkdev/blkdev.h"

struct wrap_op {
	struct list node;               /* idle here, then the wrapper's */
	struct blk_req *parent;
	struct blk_req child;
};

struct wrap_pool {
	size_t op_bytes;
	struct list idle;               /* wrap_op.node */
	struct list chunks;
};

/* -ENOMEM, or 0.  op_bytes: the size of the wrapper's struct. */
MUST_CHECK int wrap_pool_init(struct wrap_pool *pool, size_t op_bytes);
void wrap_pool_release(struct wrap_pool *pool);

/* The child is ready to be submitted to the device below.  NULL: out of memory. */
struct wrap_op *wrap_op_get(struct wrap_pool *pool, struct blk_req *parent,
			    void (*child_done)(struct blk_req *child));

/* Gives the op back, then answers the parent: the caller may close the wrapper from there. */
void wrap_op_answer(struct wrap_pool *pool, struct wrap_op *op, int result);

static inline bool wrap_op_matches(unsigned ops, const struct blk_req *req)
{
	return (ops >> req->op) & 1u;
}

#endif

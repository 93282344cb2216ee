/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/blkdev/wrap_private.h"

#define CHUNK_OPS 128

struct wrap_chunk {
	struct list node;
	_Alignas(16) uint8_t ops[];
};

static int wrap_pool_grow(struct wrap_pool *pool)
{
	struct wrap_chunk *chunk = calloc(1, sizeof(*chunk) + CHUNK_OPS * pool->op_bytes);

	if (!chunk)
		return -ENOMEM;
	list_append(&pool->chunks, &chunk->node);
	for (size_t i = 0; i < CHUNK_OPS; i++) {
		struct wrap_op *op = (struct wrap_op *)(void *)(chunk->ops + i * pool->op_bytes);

		list_append(&pool->idle, &op->node);
	}
	return 0;
}

int wrap_pool_init(struct wrap_pool *pool, size_t op_bytes)
{
	CHECK(op_bytes >= sizeof(struct wrap_op));
	CHECK(op_bytes % _Alignof(struct wrap_op) == 0);
	pool->op_bytes = op_bytes;
	list_init(&pool->idle);
	list_init(&pool->chunks);
	return wrap_pool_grow(pool);
}

void wrap_pool_release(struct wrap_pool *pool)
{
	struct list *node;

	while ((node = list_pop(&pool->chunks)))
		free(list_entry(node, struct wrap_chunk, node));
}

struct wrap_op *wrap_op_get(struct wrap_pool *pool, struct blk_req *parent,
			    void (*child_done)(struct blk_req *child))
{
	struct wrap_op *op;

	if (list_is_empty(&pool->idle) && wrap_pool_grow(pool))
		return NULL;
	op = list_entry(list_pop(&pool->idle), struct wrap_op, node);
	op->parent = parent;
	op->child = (struct blk_req){
		.op = parent->op, .flags = parent->flags, .offset_bytes = parent->offset_bytes,
		.len_bytes = parent->len_bytes, .iov = parent->iov,
		.iov_count = parent->iov_count, .data = parent->data,
		.extents = parent->extents, .done = child_done,
	};
	return op;
}

void wrap_op_answer(struct wrap_pool *pool, struct wrap_op *op, int result)
{
	struct blk_req *parent = op->parent;

	list_prepend(&pool->idle, &op->node);
	blk_complete(parent, result);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/buf.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "blkmirror/base/overflow.h"

#define CLASS_COUNT 14                  /* 4 KiB << 13 = 32 MiB */

struct buf_pool {
	struct loop *loop;
	uint64_t limit_bytes;
	uint64_t used_bytes;            /* handed out */
	uint64_t spare_bytes;           /* of these, to background work */
	uint64_t idle_bytes;            /* on the free lists */
	struct list idle[CLASS_COUNT];
	struct list waiters;
	struct task wake;
};

_Static_assert((UINT64_C(4096) << (CLASS_COUNT - 1)) == BUF_MAX_BYTES, "classes reach the maximum");

static uint32_t class_of(uint64_t bytes)
{
	uint32_t index = 0;

	while ((UINT64_C(4096) << index) < bytes)
		index++;
	return index;
}

/* Each waiter gets one try; one that finds the pool full again queues for the next put. */
static void buf_pool_wake(struct task *task)
{
	struct buf_pool *pool = container_of(task, struct buf_pool, wake);
	struct list trying;
	struct list *node;

	list_init(&trying);
	list_splice(&trying, &pool->waiters);
	while ((node = list_pop(&trying))) {
		struct buf_waiter *waiter = list_entry(node, struct buf_waiter, node);

		waiter->ready(waiter);
	}
}

struct buf_pool *buf_pool_new(struct loop *loop, uint64_t limit_bytes)
{
	struct buf_pool *pool = calloc(1, sizeof(*pool));

	CHECK(limit_bytes >= BUF_MAX_BYTES);
	if (!pool)
		return NULL;
	pool->loop = loop;
	pool->limit_bytes = limit_bytes;
	for (size_t i = 0; i < CLASS_COUNT; i++)
		list_init(&pool->idle[i]);
	list_init(&pool->waiters);
	pool->wake.run = buf_pool_wake;
	return pool;
}

static void buf_destroy(struct buf *buf)
{
	munmap(buf->bytes, buf->capacity_bytes);
	free(buf);
}

/* Give idle memory of any class back to the system until `bytes` more fit. */
static void buf_pool_trim(struct buf_pool *pool, uint64_t bytes)
{
	for (int i = CLASS_COUNT - 1; i >= 0; i--) {
		while (pool->used_bytes + pool->idle_bytes + bytes > pool->limit_bytes) {
			struct list *node = list_pop(&pool->idle[i]);
			struct buf *buf;

			if (!node)
				break;
			buf = list_entry(node, struct buf, node);
			pool->idle_bytes -= buf->capacity_bytes;
			buf_destroy(buf);
		}
	}
}

void buf_pool_free(struct buf_pool *pool)
{
	if (!pool)
		return;
	CHECK(pool->used_bytes == 0);
	CHECK(list_is_empty(&pool->waiters));
	loop_unpost(pool->loop, &pool->wake);   /* posted for a waiter that gave up since */
	buf_pool_trim(pool, pool->limit_bytes);
	free(pool);
}

static struct buf *buf_create(struct buf_pool *pool, uint32_t class_index)
{
	uint64_t bytes = UINT64_C(4096) << class_index;
	struct buf *buf;

	buf_pool_trim(pool, bytes);
	buf = calloc(1, sizeof(*buf));
	if (!buf)
		return NULL;
	buf->bytes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf->bytes == MAP_FAILED) {
		free(buf);
		return NULL;
	}
	buf->capacity_bytes = bytes;
	buf->class_index = class_index;
	buf->pool = pool;
	list_init(&buf->node);
	return buf;
}

struct buf *buf_get(struct buf_pool *pool, uint64_t bytes)
{
	uint32_t class_index = class_of(bytes);
	uint64_t capacity_bytes = UINT64_C(4096) << class_index;
	struct list *node;
	struct buf *buf;

	LOOP_CHECK(pool->loop);
	CHECK(bytes > 0);
	CHECK(bytes <= BUF_MAX_BYTES);
	node = list_pop(&pool->idle[class_index]);
	if (node) {
		buf = list_entry(node, struct buf, node);
		pool->idle_bytes -= capacity_bytes;
	} else {
		if (pool->used_bytes + capacity_bytes > pool->limit_bytes)
			return NULL;
		buf = buf_create(pool, class_index);
		if (!buf)
			return NULL;
	}
	pool->used_bytes += capacity_bytes;
	buf->refs = 1;
	buf->spare = false;
	return buf;
}

struct buf *buf_get_spare(struct buf_pool *pool, uint64_t bytes)
{
	uint64_t capacity_bytes;
	struct buf *buf;

	CHECK(bytes <= BUF_MAX_BYTES);
	capacity_bytes = UINT64_C(4096) << class_of(bytes);
	if (pool->spare_bytes + capacity_bytes > pool->limit_bytes / 2)
		return NULL;
	buf = buf_get(pool, bytes);
	if (!buf)
		return NULL;
	buf->spare = true;
	pool->spare_bytes += capacity_bytes;
	return buf;
}

struct buf *buf_ref(struct buf *buf)
{
	CHECK(buf->refs > 0);
	buf->refs++;
	return buf;
}

void buf_put(struct buf *buf)
{
	struct buf_pool *pool;

	if (!buf)
		return;
	CHECK(buf->refs > 0);
	if (--buf->refs)
		return;
	pool = buf->pool;
	LOOP_CHECK(pool->loop);
	pool->used_bytes -= buf->capacity_bytes;
	pool->idle_bytes += buf->capacity_bytes;
	if (buf->spare)
		pool->spare_bytes -= buf->capacity_bytes;
	/* Last in, first out: the warmest buffer is used next. */
	list_prepend(&pool->idle[buf->class_index], &buf->node);
	if (!list_is_empty(&pool->waiters) && !pool->wake.queued)
		loop_post(pool->loop, &pool->wake);
}

void buf_wait(struct buf_pool *pool, struct buf_waiter *waiter)
{
	CHECK(!list_is_linked(&waiter->node));
	list_append(&pool->waiters, &waiter->node);
}

void buf_wait_cancel(struct buf_waiter *waiter)
{
	list_remove(&waiter->node);
}

uint64_t buf_pool_used_bytes(const struct buf_pool *pool)
{
	return pool->used_bytes;
}

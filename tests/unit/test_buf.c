/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the pool keeps its limit whatever is asked, reuses memory, and wakes waiters in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/buf.h"
#include "blkmirror/base/loop_sim.h"

struct rig {
	struct loop *loop;
	struct buf_pool *pool;
};

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->loop = loop_sim_new(1);
	rig->pool = buf_pool_new(rig->loop, BUF_MAX_BYTES);
	*state = rig;
	return 0;
}

static void rig_run(struct rig *rig)
{
	while (loop_sim_step(rig->loop))
		continue;
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;

	buf_pool_free(rig->pool);
	loop_free(rig->loop);
	free(rig);
	return 0;
}

static void test_classes_and_alignment(void **state)
{
	struct rig *rig = *state;
	const uint64_t sizes[][2] = {
		{ 1, 4096 }, { 4096, 4096 }, { 4097, 8192 }, { 65536, 65536 }, { 65537, 131072 },
		{ BUF_MAX_BYTES / 2 + 1, BUF_MAX_BYTES }, { BUF_MAX_BYTES, BUF_MAX_BYTES },
	};

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct buf *buf = buf_get(rig->pool, sizes[i][0]);

		assert_non_null(buf);
		assert_int_equal(buf->capacity_bytes, sizes[i][1]);
		assert_int_equal((uintptr_t)buf->bytes % 4096, 0);
		assert_int_equal(buf_pool_used_bytes(rig->pool), sizes[i][1]);
		memset(buf->bytes, 1, buf->capacity_bytes);
		buf_put(buf);
		assert_int_equal(buf_pool_used_bytes(rig->pool), 0);
	}
}

static void test_limit(void **state)
{
	struct rig *rig = *state;
	struct buf *halves[2];

	halves[0] = buf_get(rig->pool, BUF_MAX_BYTES / 2);
	halves[1] = buf_get(rig->pool, BUF_MAX_BYTES / 2);
	assert_non_null(halves[1]);
	assert_null(buf_get(rig->pool, 1));
	buf_put(halves[0]);
	assert_null(buf_get(rig->pool, BUF_MAX_BYTES / 2 + 1));
	buf_put(halves[1]);
	assert_int_equal(buf_pool_used_bytes(rig->pool), 0);
}

/* Idle memory of one class must not keep another class from its share of the limit. */
static void test_trim_across_classes(void **state)
{
	struct rig *rig = *state;
	static struct buf *small[BUF_MAX_BYTES / BUF_MIN_BYTES];
	struct buf *large;

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_COUNT(small); i++) {
			small[i] = buf_get(rig->pool, 1);
			assert_non_null(small[i]);
		}
		assert_null(buf_get(rig->pool, 1));
		for (size_t i = 0; i < ARRAY_COUNT(small); i++)
			buf_put(small[i]);
		large = buf_get(rig->pool, BUF_MAX_BYTES);
		assert_non_null(large);
		assert_null(buf_get(rig->pool, 1));
		buf_put(large);
	}
}

static void test_reuse_is_last_in_first_out(void **state)
{
	struct rig *rig = *state;
	struct buf *a = buf_get(rig->pool, 4096), *b = buf_get(rig->pool, 4096);
	uint8_t *bytes = b->bytes;

	buf_put(a);
	buf_put(b);
	a = buf_get(rig->pool, 100);
	assert_ptr_equal(a->bytes, bytes);
	buf_put(a);
}

static void test_references(void **state)
{
	struct rig *rig = *state;
	struct buf *buf = buf_get(rig->pool, 4096);

	assert_ptr_equal(buf_ref(buf), buf);
	buf_put(buf);
	assert_int_equal(buf_pool_used_bytes(rig->pool), 4096);
	buf_put(buf);
	assert_int_equal(buf_pool_used_bytes(rig->pool), 0);
	buf_put(NULL);
}

/* ---- waiters ---- */

struct waiting {
	struct buf_waiter waiter;
	struct rig *rig;
	uint64_t wants_bytes;
	struct buf *got;
	unsigned calls, order;
};

static unsigned got_count;

static void waiting_ready(struct buf_waiter *waiter)
{
	struct waiting *waiting = container_of(waiter, struct waiting, waiter);

	waiting->calls++;
	waiting->got = buf_get(waiting->rig->pool, waiting->wants_bytes);
	if (waiting->got)
		waiting->order = got_count++;
	else
		buf_wait(waiting->rig->pool, waiter);
}

static void waiting_start(struct waiting *waiting, struct rig *rig, uint64_t wants_bytes)
{
	*waiting = (struct waiting){ .waiter.ready = waiting_ready, .rig = rig,
				     .wants_bytes = wants_bytes };
	list_init(&waiting->waiter.node);
	buf_wait(rig->pool, &waiting->waiter);
}

static void test_waiters_in_order(void **state)
{
	struct rig *rig = *state;
	struct buf *halves[2];
	struct waiting waiting[4];

	got_count = 0;
	halves[0] = buf_get(rig->pool, BUF_MAX_BYTES / 2);
	halves[1] = buf_get(rig->pool, BUF_MAX_BYTES / 2);
	for (size_t i = 0; i < 4; i++)
		waiting_start(&waiting[i], rig, BUF_MAX_BYTES / 2);
	rig_run(rig);
	assert_int_equal(waiting[0].calls, 0);
	buf_put(halves[0]);
	assert_int_equal(waiting[0].calls, 0);          /* never from inside buf_put() */
	rig_run(rig);
	assert_non_null(waiting[0].got);
	assert_null(waiting[1].got);
	buf_put(halves[1]);
	rig_run(rig);
	for (size_t i = 2; i < 4; i++) {
		buf_put(waiting[i - 2].got);
		rig_run(rig);
	}
	for (size_t i = 0; i < 4; i++) {
		assert_non_null(waiting[i].got);
		assert_int_equal(waiting[i].order, i);
	}
	buf_put(waiting[2].got);
	buf_put(waiting[3].got);
}

static void test_cancelled_waiter(void **state)
{
	struct rig *rig = *state;
	struct buf *all = buf_get(rig->pool, BUF_MAX_BYTES);
	struct waiting first, second;

	waiting_start(&first, rig, 4096);
	waiting_start(&second, rig, 4096);
	buf_wait_cancel(&first.waiter);
	buf_put(all);
	rig_run(rig);
	assert_int_equal(first.calls, 0);
	assert_int_equal(second.calls, 1);
	buf_put(second.got);
}

/* The wake-up is posted, then the waiter gives up: the pool may be freed at once. */
static void test_free_after_a_waiter_gave_up(void **state)
{
	struct rig *rig = *state;
	struct buf *all = buf_get(rig->pool, BUF_MAX_BYTES);
	struct waiting waiting;

	waiting_start(&waiting, rig, 4096);
	buf_put(all);
	buf_wait_cancel(&waiting.waiter);
	buf_pool_free(rig->pool);
	rig->pool = NULL;
	assert_false(loop_sim_step(rig->loop));
	assert_int_equal(waiting.calls, 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

/* Background work takes half of the limit at most, and what it gives back counts again. */
static void test_spare_buffers_leave_half(void **unused)
{
	struct loop *loop = loop_sim_new(1);
	struct buf_pool *pool = buf_pool_new(loop, BUF_MAX_BYTES);
	struct buf *half, *guest, *small;

	(void)unused;
	assert_null(buf_get_spare(pool, BUF_MAX_BYTES));
	half = buf_get_spare(pool, BUF_MAX_BYTES / 2);
	assert_non_null(half);
	assert_null(buf_get_spare(pool, BUF_MIN_BYTES));
	guest = buf_get(pool, BUF_MAX_BYTES / 2);
	assert_non_null(guest);
	buf_put(half);
	small = buf_get_spare(pool, BUF_MIN_BYTES);
	assert_non_null(small);
	buf_put(guest);
	/* The same memory, handed out again to a guest, is not counted as spare. */
	half = buf_get_spare(pool, BUF_MAX_BYTES / 2);
	assert_null(half);
	buf_put(small);
	small = buf_get(pool, BUF_MIN_BYTES);
	half = buf_get_spare(pool, BUF_MAX_BYTES / 2);
	assert_non_null(half);
	buf_put(half);
	buf_put(small);
	buf_pool_free(pool);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_classes_and_alignment),
		CASE(test_limit),
		CASE(test_trim_across_classes),
		CASE(test_reuse_is_last_in_first_out),
		CASE(test_references),
		CASE(test_waiters_in_order),
		CASE(test_cancelled_waiter),
		CASE(test_free_after_a_waiter_gave_up),
		cmocka_unit_test(test_spare_buffers_leave_half),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

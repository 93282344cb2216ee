/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the range lock grants as a plain list does that is searched from its beginning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/mirror/range_lock.h"

#define RANGES 48
#define MIB (UINT64_C(1) << 20)

struct item {
	struct range range;
	bool in, granted;
	uint64_t order;                 /* of asking */
	int release_inside;             /* from granted(): release this one too; -1: none */
	bool release_itself;
};

static struct loop *loop;
static struct range_lock lock;
static struct item items[RANGES];
static uint64_t next_order;
static unsigned told;

static uint64_t dice(uint64_t bound)
{
	return loop_random_below(loop, bound);
}

static bool overlap(const struct item *a, const struct item *b)
{
	return a->range.start_bytes < b->range.end_bytes &&
	       b->range.start_bytes < a->range.end_bytes;
}

/* The model: granted when no earlier one that overlaps is left. */
static bool may_be_granted(const struct item *item)
{
	for (int i = 0; i < RANGES; i++)
		if (&items[i] != item && items[i].in && items[i].order < item->order &&
		    overlap(&items[i], item))
			return false;
	return true;
}

static void item_release(struct item *item)
{
	item->in = false;
	item->granted = false;
	range_lock_release(&lock, &item->range);
}

static void on_granted(struct range *range)
{
	struct item *item = container_of(range, struct item, range);

	told++;
	assert_true(item->in);
	assert_false(item->granted);
	assert_true(may_be_granted(item));
	item->granted = true;
	if (item->release_inside >= 0 && items[item->release_inside].in &&
	    &items[item->release_inside] != item)
		item_release(&items[item->release_inside]);
	if (item->release_itself)
		item_release(item);
}

/* Everything that may be granted is, and nothing else. */
static void check_model(void)
{
	uint64_t count = 0;

	for (int i = 0; i < RANGES; i++) {
		count += items[i].in;
		if (!items[i].in)
			continue;
		assert_int_equal(items[i].granted, may_be_granted(&items[i]));
		assert_int_equal(range_is_granted(&items[i].range), items[i].granted);
	}
	assert_int_equal(lock.count, count);
	assert_int_equal(range_lock_is_empty(&lock), count == 0);
}

/* Short ones in a few chunks, some over a border, some over the whole disk. */
static void place(struct range *range)
{
	uint64_t base = dice(3) * MIB + (dice(4) ? 0 : dice(200) * MIB);

	range->start_bytes = base + dice(64) * 4096;
	range->end_bytes = range->start_bytes + (1 + dice(16)) * 4096;
	if (dice(6) == 0)
		range->end_bytes += MIB;
	if (dice(24) == 0)
		range->end_bytes += 300 * MIB;
}

static bool any_overlap(const struct item *item)
{
	for (int i = 0; i < RANGES; i++)
		if (&items[i] != item && items[i].in && overlap(&items[i], item))
			return true;
	return false;
}

static void ask(struct item *item, bool reentrant)
{
	bool tries = dice(5) == 0, free_now, got;

	place(&item->range);
	item->range.granted = on_granted;
	item->release_inside = reentrant && dice(3) == 0 ? (int)dice(RANGES) : -1;
	item->release_itself = reentrant && dice(4) == 0;
	free_now = !any_overlap(item);
	assert_int_equal(range_lock_overlaps(&lock, item->range.start_bytes, item->range.end_bytes),
			 !free_now);
	if (tries) {
		got = range_lock_try(&lock, &item->range);
		assert_int_equal(got, free_now);
	} else {
		got = range_lock_acquire(&lock, &item->range);
	}
	item->order = next_order++;
	item->in = got || !tries;
	item->granted = got;
	assert_int_equal(got, item->in && free_now);
}

static void run(uint64_t rounds, bool reentrant)
{
	range_lock_init(&lock);
	for (int i = 0; i < RANGES; i++)
		items[i] = (struct item){ 0 };
	for (uint64_t round = 0; round < rounds; round++) {
		struct item *item = &items[dice(RANGES)];

		if (!item->in)
			ask(item, reentrant);
		else if (item->granted || dice(6) == 0)
			item_release(item);     /* or gives up waiting */
		check_model();
	}
	for (int i = 0; i < RANGES; i++)
		if (items[i].in)
			item_release(&items[i]);
	assert_true(range_lock_is_empty(&lock));
}

static void test_against_a_list(void **unused)
{
	(void)unused;
	told = 0;
	run(40000, false);
	assert_true(told > 1000);
}

/* granted() releases itself, and others that are granted or wait. */
static void test_releases_from_inside(void **unused)
{
	(void)unused;
	told = 0;
	run(40000, true);
	assert_true(told > 1000);
}

static unsigned log_count;
static struct range *told_order[8];

static void log_granted(struct range *range)
{
	told_order[log_count++] = range;
}

static struct range make(uint64_t start, uint64_t end)
{
	return (struct range){ .start_bytes = start, .end_bytes = end, .granted = log_granted };
}

/* The picture in the header. */
static void test_first_come_first_served(void **unused)
{
	struct range a = make(0, 8), b = make(4, 12), c = make(8, 16), d = make(20, 24);

	(void)unused;
	range_lock_init(&lock);
	log_count = 0;
	assert_true(range_lock_acquire(&lock, &a));
	assert_false(range_lock_acquire(&lock, &b));
	assert_false(range_lock_acquire(&lock, &c));
	assert_true(range_lock_acquire(&lock, &d));
	range_lock_release(&lock, &a);
	assert_int_equal(log_count, 1);
	assert_ptr_equal(told_order[0], &b);
	range_lock_release(&lock, &b);
	assert_ptr_equal(told_order[1], &c);
	range_lock_release(&lock, &c);
	range_lock_release(&lock, &d);
	assert_int_equal(log_count, 2);
}

static struct range *acquire_inside;
static bool inside_was_granted;

static void acquire_granted(struct range *range)
{
	(void)range;
	inside_was_granted = range_lock_acquire(&lock, acquire_inside);
}

/* A newcomer that asks from inside granted() comes behind those already told to go. */
static void test_acquires_from_inside(void **unused)
{
	struct range a = make(0, 8), b = make(0, 4), c = make(4, 8), late = make(4, 6);

	(void)unused;
	range_lock_init(&lock);
	log_count = 0;
	b.granted = acquire_granted;
	acquire_inside = &late;
	assert_true(range_lock_acquire(&lock, &a));
	assert_false(range_lock_acquire(&lock, &b));
	assert_false(range_lock_acquire(&lock, &c));
	range_lock_release(&lock, &a);
	assert_false(inside_was_granted);
	assert_int_equal(log_count, 1);
	assert_ptr_equal(told_order[0], &c);
	range_lock_release(&lock, &c);
	assert_ptr_equal(told_order[1], &late);
	range_lock_release(&lock, &late);
	range_lock_release(&lock, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_a_list),
		cmocka_unit_test(test_releases_from_inside),
		cmocka_unit_test(test_first_come_first_served),
		cmocka_unit_test(test_acquires_from_inside),
	};
	int rc;

	loop = loop_sim_new(12);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return rc;
}

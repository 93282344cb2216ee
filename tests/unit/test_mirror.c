/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the mirror's rules, each as the schedule that breaks a mirror without it.
 * Method: one mirror over two disks in memory whose requests wait until the test lets them
 * go, so that every interleaving stands in the test as it is read.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/mirror/mirror_private.h"
#include "tests/lib/mem_dev.h"

#define DISK (UINT64_C(1) << 20)
#define REGION 65536u
#define BLOCK 4096u
#define DEADLINE (3 * NS_PER_S)
#define REQS 8

struct guest_req {
	struct blk_req req;
	struct iovec iov;
	uint8_t bytes[2 * REGION];
	bool done;
};

struct rig {
	struct loop *loop;
	struct buf_pool *pool;
	struct mem_dev *source, *target;
	struct mirror *mirror;
	struct guest_req guests[REQS];
	int trouble;
	unsigned dirtied, settled;
	bool may_mirror;
	struct mirror_flush flush;
	int flush_result;
};

/* ---- the rig ---- */

static void on_trouble(int error, void *user)
{
	((struct rig *)user)->trouble = error;
}

static void on_dirtied(void *user)
{
	((struct rig *)user)->dirtied++;
}

static void on_settled(void *user)
{
	((struct rig *)user)->settled++;
}

static bool on_may_mirror(uint64_t bytes, void *user)
{
	(void)bytes;
	return ((struct rig *)user)->may_mirror;
}

static void on_wrote(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	(void)offset_bytes;
	(void)len_bytes;
	(void)user;
}

static const struct mirror_hooks hooks = {
	.trouble = on_trouble, .dirtied = on_dirtied, .settled = on_settled,
	.may_mirror = on_may_mirror, .wrote = on_wrote,
};

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct mirror_options options = { .mode = MIRROR_SYNC, .region_bytes = REGION,
					  .leg_deadline_ns = DEADLINE,
					  .async_buffer_bytes = 4 * REGION };

	assert_non_null(rig);
	rig->loop = loop_sim_new(3);
	rig->pool = buf_pool_new(rig->loop, BUF_MAX_BYTES);
	rig->source = mem_dev_new(rig->loop, DISK, NULL);
	rig->target = mem_dev_new(rig->loop, DISK, NULL);
	rig->may_mirror = true;
	rig->flush_result = 1;
	memset(rig->source->bytes, 0x11, DISK);
	assert_int_equal(mirror_new(rig->loop, rig->pool, &rig->source->dev, &rig->target->dev,
				    DISK, &options, &hooks, rig, &rig->mirror), 0);
	*state = rig;
	return 0;
}

static void null_fired(struct timer *timer)
{
	(void)timer;
}

/* Let `ns` pass, and all that happens meanwhile. */
static void pass(struct rig *rig, uint64_t ns)
{
	struct timer timer;

	timer_init(&timer, rig->loop, null_fired);
	timer_start(&timer, ns);
	while (timer.started)
		assert_true(loop_sim_step(rig->loop));
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;

	mem_dev_hang(rig->source, false);
	mem_dev_hang(rig->target, false);
	while (loop_sim_step(rig->loop))
		continue;
	mirror_free(rig->mirror);
	blk_close(&rig->source->dev);
	blk_close(&rig->target->dev);
	buf_pool_free(rig->pool);
	loop_free(rig->loop);
	free(rig);
	return 0;
}

static void guest_done(struct blk_req *req)
{
	((struct guest_req *)req->user)->done = true;
}

static struct guest_req *begin(struct rig *rig, int which, enum blk_op op, uint64_t offset,
			       uint64_t len, uint8_t fill)
{
	struct guest_req *guest = &rig->guests[which];

	assert_true(len <= sizeof(guest->bytes) || op != BLK_WRITE);
	memset(guest->bytes, fill, sizeof(guest->bytes));
	guest->done = false;
	guest->iov = (struct iovec){ .iov_base = guest->bytes, .iov_len = len };
	guest->req = (struct blk_req){ .op = op, .offset_bytes = offset, .len_bytes = len,
				       .done = guest_done, .user = guest };
	if (op == BLK_WRITE) {
		guest->req.iov = &guest->iov;
		guest->req.iov_count = 1;
	}
	blk_submit(mirror_as_dev(rig->mirror), &guest->req);
	return guest;
}

static struct guest_req *begin_write(struct rig *rig, int which, uint64_t offset, uint64_t len,
				     uint8_t fill)
{
	return begin(rig, which, BLK_WRITE, offset, len, fill);
}

static void all_in_sync(struct rig *rig)
{
	memcpy(rig->target->bytes, rig->source->bytes, DISK);
	dirty_bitmap_clear_all(mirror_dirty(rig->mirror));
}

static bool is_dirty(struct rig *rig, uint64_t offset)
{
	return dirty_bitmap_test(mirror_dirty(rig->mirror), offset);
}

static bool equal(struct rig *rig)
{
	return memcmp(rig->source->bytes, rig->target->bytes, DISK) == 0;
}

/* What the copier does inside a window, by hand. */
static void copy_by_hand(struct rig *rig, struct window *window)
{
	memcpy(rig->target->bytes + window->offset_bytes, rig->source->bytes + window->offset_bytes,
	       window->len_bytes);
	mirror_target_written(rig->mirror, window->offset_bytes, window->len_bytes);
	(void)mirror_window_clear(rig->mirror, window, window->offset_bytes, window->len_bytes);
	mirror_window_close(rig->mirror, window);
}

/* ---- R1 ---- */

/* A source-only write that began before the copy would land behind the copier's read. */
static void test_r1_no_window_over_a_write_in_flight(void **state)
{
	struct rig *rig = *state;
	struct window window;

	mem_dev_hang(rig->source, true);
	begin_write(rig, 0, BLOCK, BLOCK, 0x22);
	assert_false(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	/* The neighbour is free, and a longer window ends before what is busy. */
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, REGION, REGION));
	mirror_window_close(rig->mirror, &window);
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	copy_by_hand(rig, &window);
	assert_false(is_dirty(rig, 0));
	assert_memory_equal(rig->target->bytes, rig->source->bytes, REGION);
}

static void test_r1_a_window_ends_before_what_is_busy(void **state)
{
	struct rig *rig = *state;
	struct window window;

	mem_dev_hang(rig->source, true);
	begin_write(rig, 0, 2 * REGION + BLOCK, BLOCK, 0x22);
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, 4 * REGION));
	assert_int_equal(window.len_bytes, 2 * REGION);
	mirror_window_close(rig->mirror, &window);
}

/* A write that starts inside goes on at once and breaks its region, and only that. */
static void test_r1_a_broken_region_stays_dirty(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guest;
	struct window window;

	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, 2 * REGION));
	guest = begin_write(rig, 0, 0, BLOCK, 0x33);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);               /* the guest never waits for the copier */
	copy_by_hand(rig, &window);
	assert_true(is_dirty(rig, 0));
	assert_false(is_dirty(rig, REGION));
}

/* The extents said hole, the guest wrote: what was asked before must not clear it. */
static void test_r1_a_scan_clears_nothing_that_was_written(void **state)
{
	struct rig *rig = *state;
	struct window before, during;

	mem_dev_hang(rig->source, true);
	begin_write(rig, 0, 0, BLOCK, 0x44);    /* started before the scan */
	assert_true(mirror_window_open(rig->mirror, &before, WINDOW_SCAN, 0, 4 * REGION));
	mem_dev_hang(rig->source, false);
	begin_write(rig, 1, REGION, BLOCK, 0x45);       /* started inside */
	pass(rig, NS_PER_MS);
	assert_int_equal(mirror_window_clear(rig->mirror, &before, 0, 4 * REGION), 2 * REGION);
	mirror_window_close(rig->mirror, &before);
	assert_true(is_dirty(rig, 0));
	assert_true(is_dirty(rig, REGION));
	assert_false(is_dirty(rig, 2 * REGION));
	assert_true(mirror_window_open(rig->mirror, &during, WINDOW_SCAN, 0, REGION));
	mirror_window_close(rig->mirror, &during);
}

/* W2 waits for W1; meanwhile the region becomes clean: W2's legs are chosen when it starts. */
static void test_r1_legs_are_chosen_after_the_wait(void **state)
{
	struct rig *rig = *state;

	mem_dev_hang(rig->source, true);
	begin_write(rig, 0, 0, BLOCK, 0x55);
	begin_write(rig, 1, 0, BLOCK, 0x66);
	assert_int_equal(rig->source->waiting_count, 1);
	all_in_sync(rig);
	memset(rig->target->bytes, 0x55, BLOCK);        /* as if W1 had been copied */
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->source->bytes[0], 0x66);
	assert_int_equal(rig->target->bytes[0], 0x66);
	assert_true(equal(rig));
}

/* ---- R2, R13 ---- */

/* The zombie: W1's target leg is late, W2 goes to the source alone, W1 lands last. */
static void test_r2_a_late_leg_keeps_its_range_until_it_settles(void **state)
{
	struct rig *rig = *state;
	struct guest_req *first, *second;
	struct window window;

	all_in_sync(rig);
	mem_dev_hang(rig->target, true);
	first = begin_write(rig, 0, 0, BLOCK, 0x71);
	pass(rig, DEADLINE - NS_PER_MS);
	assert_false(first->done);
	pass(rig, 2 * NS_PER_MS);
	assert_true(first->done);
	assert_int_equal(first->req.result, 0);
	assert_int_equal(rig->trouble, -ETIMEDOUT);
	assert_int_equal(mirror_state(rig->mirror), MIRROR_SUSPENDED);
	assert_true(is_dirty(rig, 0));
	/* The operator resumes although the leg has not settled. */
	mirror_resume(rig->mirror);
	second = begin_write(rig, 1, 0, BLOCK, 0x72);
	pass(rig, NS_PER_MS);
	assert_true(second->done);
	assert_false(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	assert_false(mirror_window_open(rig->mirror, &window, WINDOW_DUAL, 0, REGION));
	assert_false(mirror_is_settled(rig->mirror));
	assert_false(mirror_is_idle(rig->mirror));
	/* A scan opens, but clears nothing there. */
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_SCAN, 0, REGION));
	assert_int_equal(mirror_window_clear(rig->mirror, &window, 0, REGION), 0);
	mirror_window_close(rig->mirror, &window);
	memset(rig->guests[0].bytes, 0xdd, BLOCK);      /* the guest's memory is the guest's again */
	mem_dev_hang(rig->target, false);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->target->bytes[0], 0x71);  /* landed, with its own data */
	assert_true(is_dirty(rig, 0));
	assert_true(mirror_is_settled(rig->mirror));
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	copy_by_hand(rig, &window);
	assert_true(equal(rig));
}

/* One is late, so all would be: nobody waits a deadline of his own for this target. */
static void test_r13_the_first_late_leg_frees_all(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guests[3];

	all_in_sync(rig);
	mem_dev_hang(rig->target, true);
	guests[0] = begin_write(rig, 0, 0, BLOCK, 1);
	pass(rig, NS_PER_S);
	guests[1] = begin_write(rig, 1, REGION, BLOCK, 2);
	pass(rig, DEADLINE - NS_PER_S + NS_PER_MS);
	assert_true(guests[0]->done);
	assert_true(guests[1]->done);
	guests[2] = begin_write(rig, 2, 2 * REGION, BLOCK, 3);
	pass(rig, NS_PER_MS);
	assert_true(guests[2]->done);
	assert_true(is_dirty(rig, REGION));
	assert_true(is_dirty(rig, 2 * REGION));
}

/* R2: what detached legs keep from the pool is bounded over any number of late spells. */
static void test_r2_detached_legs_do_not_take_the_pool(void **state)
{
	struct rig *rig = *state;

	all_in_sync(rig);
	mem_dev_hang(rig->target, true);
	begin_write(rig, 0, 0, BLOCK, 0x61);
	begin_write(rig, 1, REGION, REGION, 0x62);
	pass(rig, DEADLINE + NS_PER_MS);
	assert_int_equal(rig->mirror->suspect_held_bytes, BLOCK + REGION);
	mirror_resume(rig->mirror);
	/* As after many such spells. */
	rig->mirror->suspect_held_bytes += MIRROR_SUSPECT_MAX;
	begin_write(rig, 2, 4 * REGION, BLOCK, 0x63);
	pass(rig, NS_PER_MS);
	assert_true(rig->guests[2].done);
	assert_true(is_dirty(rig, 4 * REGION));
	rig->mirror->suspect_held_bytes -= MIRROR_SUSPECT_MAX;
	mem_dev_hang(rig->target, false);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->mirror->suspect_held_bytes, 0);
	assert_int_equal(rig->target->ops[BLK_WRITE], 2);
}

/* ---- R4 ---- */

static void test_r4_a_leg_in_a_dual_window_follows_the_copier(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guest;
	struct window window;

	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_DUAL, 0, REGION));
	guest = begin_write(rig, 0, 0, BLOCK, 0x81);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->source->bytes[0], 0x81);  /* at once */
	assert_int_equal(rig->target->ops[BLK_WRITE], 0);
	assert_false(guest->done);
	/* The copier read before the guest wrote: its write must come first. */
	memset(rig->target->bytes, 0x11, REGION);
	assert_int_equal(mirror_window_clear(rig->mirror, &window, 0, REGION), REGION);
	mirror_window_close(rig->mirror, &window);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);
	assert_false(is_dirty(rig, 0));
	assert_memory_equal(rig->target->bytes, rig->source->bytes, REGION);
}

/* What was in flight at the source alone joins the dual window with a leg of its own. */
static void test_r4_writes_in_flight_join_the_dual_window(void **state)
{
	struct rig *rig = *state;
	struct window window;
	struct guest_req *guest;

	mem_dev_hang(rig->source, true);
	guest = begin_write(rig, 0, 0, BLOCK, 0x82);
	/* Its data may change under us: the first try only asks to hold data from now on. */
	assert_false(mirror_window_open(rig->mirror, &window, WINDOW_DUAL, 0, REGION));
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);
	mem_dev_hang(rig->source, true);
	guest = begin_write(rig, 0, 0, BLOCK, 0x83);
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_DUAL, 0, REGION));
	memset(rig->target->bytes, 0x11, REGION);
	assert_int_equal(mirror_window_clear(rig->mirror, &window, 0, REGION), REGION);
	mirror_window_close(rig->mirror, &window);
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);
	assert_int_equal(rig->target->bytes[0], 0x83);
	assert_int_equal(rig->source->bytes[0], 0x83);
}

/* The copier's write hangs: the guest in its dual window waits its deadline and no longer. */
static void test_r4_a_hung_copier_holds_nobody_beyond_the_deadline(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guest;
	struct window window;

	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_DUAL, 0, REGION));
	guest = begin_write(rig, 0, 0, BLOCK, 0x84);
	pass(rig, DEADLINE + NS_PER_MS);
	assert_true(guest->done);
	assert_int_equal(guest->req.result, 0);
	/* The leg was dropped, so the copier's write alone is not enough. */
	assert_int_equal(mirror_window_clear(rig->mirror, &window, 0, REGION), 0);
	mirror_window_close(rig->mirror, &window);
	assert_true(is_dirty(rig, 0));
	assert_true(mirror_is_settled(rig->mirror));
}

/* ---- R6, R7, R8, R10 ---- */

static void test_r6_what_may_not_be_mirrored_is_shed(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guest;

	all_in_sync(rig);
	rig->may_mirror = false;
	guest = begin_write(rig, 0, 0, BLOCK, 0x91);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);
	assert_true(is_dirty(rig, 0));
	assert_int_equal(rig->target->ops[BLK_WRITE], 0);
}

static void test_r7_legs_cover_clean_parts_only(void **state)
{
	struct rig *rig = *state;

	all_in_sync(rig);
	dirty_bitmap_set(mirror_dirty(rig->mirror), REGION, REGION);
	begin_write(rig, 0, REGION / 2, REGION, 0xa1);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->target->ops[BLK_WRITE], 1);
	assert_int_equal(rig->target->bytes[REGION - 1], 0xa1);
	assert_int_equal(rig->target->bytes[REGION], 0x11);
	assert_true(is_dirty(rig, REGION));
	assert_false(is_dirty(rig, 0));
}

static void test_r8_a_discard_zeroes_both_legs(void **state)
{
	struct rig *rig = *state;

	all_in_sync(rig);
	begin(rig, 0, BLK_DISCARD, 512, 1024, 0);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->source->ops[BLK_DISCARD], 0);
	assert_int_equal(rig->target->ops[BLK_DISCARD], 0);
	assert_int_equal(rig->source->last_flags[BLK_WRITE_ZEROES] & BLK_MAY_UNMAP, BLK_MAY_UNMAP);
	assert_int_equal(rig->target->last_flags[BLK_WRITE_ZEROES] & BLK_MAY_UNMAP, BLK_MAY_UNMAP);
	assert_int_equal(rig->source->bytes[512], 0);
	assert_true(equal(rig));
}

/* Two sectors of one physical block do not overlap, yet both legs read and write the block. */
static void test_r10_sectors_of_one_block_are_serialised(void **state)
{
	struct rig *rig = *state;

	all_in_sync(rig);
	mem_dev_hang(rig->source, true);
	begin_write(rig, 0, 0, 512, 0xb1);
	begin_write(rig, 1, 512, 512, 0xb2);
	begin_write(rig, 2, BLOCK, 512, 0xb3);          /* another block */
	assert_int_equal(rig->source->waiting_count, 2);
	assert_int_equal(rig->target->ops[BLK_WRITE], 2);
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_true(rig->guests[1].done);
	assert_true(equal(rig));
}

/* ---- R9 ---- */

static void flushed(struct mirror_flush *flush, int result)
{
	container_of(flush, struct rig, flush)->flush_result = result;
}

/* A failed flush leaves all in doubt that was written since the last good one. */
static void test_r9_a_failed_flush_dirties_what_it_covered_and_what_came_since(void **state)
{
	struct rig *rig = *state;

	rig->flush.done = flushed;
	all_in_sync(rig);
	begin_write(rig, 0, 0, BLOCK, 0xc1);
	pass(rig, NS_PER_MS);
	mirror_flush_target(rig->mirror, &rig->flush);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->flush_result, 0);
	assert_false(mirror_needs_flush(rig->mirror));

	begin_write(rig, 0, REGION, BLOCK, 0xc2);       /* covered by the flush that fails */
	pass(rig, NS_PER_MS);
	mem_dev_hang(rig->target, true);
	rig->target->fail_with[BLK_FLUSH] = -EIO;
	mirror_flush_target(rig->mirror, &rig->flush);
	begin_write(rig, 1, 3 * REGION, BLOCK, 0xc4);   /* in flight when the flush fails */
	/* Settled while the flush is under way: written directly, past the hanging queue. */
	mirror_target_written(rig->mirror, 2 * REGION, BLOCK);
	mem_dev_hang(rig->target, false);
	pass(rig, NS_PER_MS);
	assert_int_equal(rig->flush_result, -EIO);
	assert_int_equal(rig->trouble, -EIO);
	assert_false(is_dirty(rig, 0));                 /* durable before */
	assert_true(is_dirty(rig, REGION));
	assert_true(is_dirty(rig, 2 * REGION));
	assert_false(is_dirty(rig, 4 * REGION));
	rig->target->fail_with[BLK_FLUSH] = 0;
}

/* A leg and a window that are under way when the flush fails are in doubt too. */
static void test_r9_what_is_under_way_is_in_doubt(void **state)
{
	struct rig *rig = *state;
	struct window window;

	rig->flush.done = flushed;
	all_in_sync(rig);
	dirty_bitmap_set(mirror_dirty(rig->mirror), 5 * REGION, REGION);
	rig->target->fail_with[BLK_FLUSH] = -EIO;
	mirror_flush_target(rig->mirror, &rig->flush);
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 5 * REGION, REGION));
	mem_dev_hang(rig->target, true);
	begin_write(rig, 0, 0, BLOCK, 0xc5);
	while (rig->flush_result == 1)
		assert_true(loop_sim_step(rig->loop));
	mem_dev_hang(rig->target, false);
	pass(rig, NS_PER_MS);
	assert_true(is_dirty(rig, 0));
	copy_by_hand(rig, &window);
	assert_true(is_dirty(rig, 5 * REGION));
	rig->target->fail_with[BLK_FLUSH] = 0;
}

/* ---- R12 ---- */

static void test_r12_async_sheds_and_never_waits(void **state)
{
	struct rig *rig = *state;
	struct mirror_stats stats;
	struct window window;

	mirror_set_mode(rig->mirror, MIRROR_ASYNC);
	all_in_sync(rig);
	mem_dev_hang(rig->target, true);
	for (int i = 0; i < REQS; i++) {
		begin_write(rig, i, (uint64_t)i * REGION, REGION, (uint8_t)(0xd0 + i));
		pass(rig, NS_PER_MS);
		assert_true(rig->guests[i].done);
	}
	mirror_stats(rig->mirror, &stats);
	assert_int_equal(stats.buffered_bytes, 4 * REGION);
	assert_false(is_dirty(rig, 3 * REGION));
	assert_true(is_dirty(rig, 4 * REGION));
	assert_false(mirror_is_settled(rig->mirror));
	/* W2 dirties a region whose W1 is still queued: nothing overtakes it. */
	rig->may_mirror = false;
	begin_write(rig, 0, 0, BLOCK, 0xee);
	pass(rig, NS_PER_MS);
	assert_true(is_dirty(rig, 0));
	assert_false(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	mem_dev_hang(rig->target, false);
	pass(rig, NS_PER_MS);
	assert_true(mirror_window_open(rig->mirror, &window, WINDOW_COPY, 0, REGION));
	copy_by_hand(rig, &window);
	assert_memory_equal(rig->source->bytes, rig->target->bytes, 4 * REGION);
}

/* A small leg of a large buffer keeps the large buffer: that is what is counted. */
static void test_r12_the_buffer_is_counted_not_the_leg(void **state)
{
	struct rig *rig = *state;

	mirror_set_mode(rig->mirror, MIRROR_ASYNC);
	all_in_sync(rig);
	mem_dev_hang(rig->target, true);
	for (int i = 0; i < REQS; i++) {
		/* Clean in one block's length only, at the end of the write. */
		dirty_bitmap_set(mirror_dirty(rig->mirror), 0, REGION);
		begin_write(rig, i, BLOCK, REGION, (uint8_t)i);
		pass(rig, NS_PER_MS);
		assert_true(rig->guests[i].done);
		dirty_bitmap_clear_all(mirror_dirty(rig->mirror));
	}
	assert_true(buf_pool_used_bytes(rig->pool) <= 4 * REGION);
}

/* ---- M4 ---- */

static void test_m4_a_target_error_is_not_the_guests(void **state)
{
	struct rig *rig = *state;
	struct guest_req *guest;

	all_in_sync(rig);
	rig->target->fail_with[BLK_WRITE] = -EIO;
	guest = begin_write(rig, 0, 0, BLOCK, 0xe1);
	pass(rig, NS_PER_MS);
	assert_true(guest->done);
	assert_int_equal(guest->req.result, 0);
	assert_int_equal(rig->trouble, -EIO);
	assert_true(is_dirty(rig, 0));
	rig->target->fail_with[BLK_WRITE] = 0;
	/* The source's error is, and then nobody knows what either leg holds. */
	rig->source->fail_with[BLK_WRITE] = -EIO;
	guest = begin_write(rig, 0, 3 * REGION, BLOCK, 0xe2);
	pass(rig, NS_PER_MS);
	assert_int_equal(guest->req.result, -EIO);
	assert_true(is_dirty(rig, 3 * REGION));
}

/* ---- more than the mirror takes at once ---- */

static unsigned flood_done;

static void flood_one_done(struct blk_req *req)
{
	assert_int_equal(req->result, 0);
	flood_done++;
}

static void test_more_requests_than_ops_wait_their_turn(void **state)
{
	const unsigned count = 3 * MIRROR_OPS_MAX;
	struct rig *rig = *state;
	struct blk_req *reqs = calloc(count, sizeof(*reqs));
	uint8_t block[512];
	struct iovec iov = { .iov_base = block, .iov_len = sizeof(block) };

	assert_non_null(reqs);
	memset(block, 0x77, sizeof(block));
	all_in_sync(rig);
	flood_done = 0;
	mem_dev_hang(rig->source, true);
	for (unsigned i = 0; i < count; i++) {
		reqs[i] = (struct blk_req){ .op = BLK_WRITE, .offset_bytes = i % 2000 * 512,
					    .len_bytes = 512, .iov = &iov, .iov_count = 1,
					    .done = flood_one_done };
		blk_submit(mirror_as_dev(rig->mirror), &reqs[i]);
	}
	assert_int_equal(rig->mirror->ops_in_use, MIRROR_OPS_MAX);
	mem_dev_hang(rig->source, false);
	pass(rig, NS_PER_MS);
	assert_int_equal(flood_done, count);
	assert_true(equal(rig));
	free(reqs);
}

#define test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		test(test_r1_no_window_over_a_write_in_flight),
		test(test_r1_a_window_ends_before_what_is_busy),
		test(test_r1_a_broken_region_stays_dirty),
		test(test_r1_a_scan_clears_nothing_that_was_written),
		test(test_r1_legs_are_chosen_after_the_wait),
		test(test_r2_a_late_leg_keeps_its_range_until_it_settles),
		test(test_r2_detached_legs_do_not_take_the_pool),
		test(test_r13_the_first_late_leg_frees_all),
		test(test_r4_a_leg_in_a_dual_window_follows_the_copier),
		test(test_r4_writes_in_flight_join_the_dual_window),
		test(test_r4_a_hung_copier_holds_nobody_beyond_the_deadline),
		test(test_r6_what_may_not_be_mirrored_is_shed),
		test(test_r7_legs_cover_clean_parts_only),
		test(test_r8_a_discard_zeroes_both_legs),
		test(test_r10_sectors_of_one_block_are_serialised),
		test(test_r9_a_failed_flush_dirties_what_it_covered_and_what_came_since),
		test(test_r9_what_is_under_way_is_in_doubt),
		test(test_r12_async_sheds_and_never_waits),
		test(test_r12_the_buffer_is_counted_not_the_leg),
		test(test_m4_a_target_error_is_not_the_guests),
		test(test_more_requests_than_ops_wait_their_turn),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

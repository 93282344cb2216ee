/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a move keeps going, keeps its bounds and tells the truth whatever its targets do.
 * Each test is one schedule that has gone wrong, or that an operator will try.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/copy_private.h"
#include "tests/lib/move_rig.h"

#define MIB (UINT64_C(1) << 20)
#define REGION (UINT64_C(64) << 10)
#define ALL_OPS ((1u << BLK_OP_COUNT) - 1)
#define MS NS_PER_MS

static struct rig_options usual(uint32_t disk_count, uint64_t size_bytes)
{
	return (struct rig_options){
		.disk_count = disk_count, .size_bytes = size_bytes,
		.source_delay = { .ops = ALL_OPS, .min_ns = MS / 10, .max_ns = MS },
		.target_delay = { .ops = ALL_OPS, .min_ns = MS / 10, .max_ns = MS },
		.mover = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .verify = true },
	};
}

static void hang_target(struct rig *rig, uint32_t disk, bool hung)
{
	wrap_delay_hang(rig->disks[disk].target_delay, hung);
}

/* ---- going on ---- */

/*
 * Several disks share one pacer.  The jobs of one disk fill its window again and again; a disk
 * that found no room must be told when there is some, though it has no job of its own left.
 */
static void test_no_disk_is_forgotten(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct rig_options options = usual(4, 48 * MIB);
		struct rig *rig;

		options.seed = seed;
		options.source_delay.min_ns = options.source_delay.max_ns = 4 * MS;
		options.mover.verify = seed % 2;
		rig = rig_new(&options);
		rig_start(rig);
		assert_true(rig_run_to_state(rig, MOVER_DONE, 100 * NS_PER_S));
		assert_true(rig_disks_are_equal(rig));
		rig_free(rig);
	}
}

/* The walk ahead of the copy is bounded: the ring is a ring, and a job costs what it copies. */
static void test_the_scan_stays_near_the_copy(void **unused)
{
	struct rig_options options = usual(1, 256 * MIB);
	struct rig *rig;
	struct copy_engine *engine;
	uint64_t ahead_bytes = 0;

	(void)unused;
	options.mover.region_bytes = 4096;
	rig = rig_new(&options);
	hang_target(rig, 0, true);
	rig_start(rig);
	rig_run_for(rig, NS_PER_S);
	engine = rig->mover->parts[0].engine;
	for (uint32_t i = 0; i < engine->run_count; i++)
		ahead_bytes += engine->runs[(engine->run_head + i) % COPY_RUNS_MAX].len_bytes;
	assert_true(ahead_bytes > 0);
	assert_true(ahead_bytes <= 4 * WINDOW_REGIONS_MAX * UINT64_C(4096));
	rig_free(rig);
}

/* An engine whose mirror was suspended behind its back has nothing to do, and ends its turn. */
static void test_a_suspended_mirror_stops_the_walk(void **unused)
{
	struct rig_options options = usual(1, 8 * MIB);
	struct rig *rig = rig_new(&options);

	(void)unused;
	hang_target(rig, 0, true);
	rig_start(rig);
	rig_run_for(rig, 10 * MS);
	mirror_suspend(rig->mover->parts[0].mirror);
	copy_engine_kick(rig->mover->parts[0].engine);
	rig_run_for(rig, 100 * MS);
	mirror_resume(rig->mover->parts[0].mirror);
	copy_engine_kick(rig->mover->parts[0].engine);
	hang_target(rig, 0, false);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 10 * NS_PER_S));
	rig_free(rig);
}

/* ---- verification ---- */

/* Under a cap the verifier often has to wait: that is no way round the disk. */
static void test_a_cap_does_not_skip_the_verification(void **unused)
{
	struct rig_options options = usual(1, 16 * MIB);
	struct rig *rig;

	(void)unused;
	options.mover.bandwidth_bytes_per_s = 4 * MIB;
	rig = rig_new(&options);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_VERIFY, 100 * NS_PER_S));
	rig->disks[0].target->bytes[15 * MIB] ^= 1;
	assert_true(rig_run_until(rig, rig_has_ended, 100 * NS_PER_S));
	assert_int_equal(mover_state(rig->mover), MOVER_FAILED);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_VERIFY);
	assert_int_equal(rig->commits, 0);
	assert_ptr_equal(gate_next(rig->disks[0].gate), rig->disks[0].source_delay);
	rig_free(rig);
}

/* The same when the pool has no buffer for it, again and again. */
static void test_no_buffers_do_not_skip_the_verification(void **unused)
{
	struct rig_options options = usual(1, 16 * MIB);
	struct rig *rig;
	struct buf *all[32];
	int count = 0;

	(void)unused;
	options.pool_bytes = 32 * MIB;
	options.mover.hold = true;
	rig = rig_new(&options);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_VERIFY, 100 * NS_PER_S));
	rig->disks[0].target->bytes[15 * MIB] ^= 1;
	while (count < 32 && (all[count] = buf_get(rig->pool, MIB)))
		count++;
	for (int i = 0; i < 20; i++) {
		verifier_kick(rig->mover->parts[0].verifier);
		rig_run_for(rig, MS);
	}
	assert_int_not_equal(mover_state(rig->mover), MOVER_HOLD);
	while (count)
		buf_put(all[--count]);
	assert_true(rig_run_until(rig, rig_has_ended, 100 * NS_PER_S));
	assert_int_equal(mover_state(rig->mover), MOVER_FAILED);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_VERIFY);
	rig_free(rig);
}

enum { FLIP_EXTENTS = 1, FLIP_ZEROES = 2, FLIP_NO_HASHES = 4, FLIP_KINDS = 8 };

static bool flip_and_fail(uint64_t at_bytes, uint64_t size_bytes, int kind)
{
	struct rig_options options = usual(1, size_bytes);
	struct rig *rig;
	bool failed;

	options.target_limits = mem_dev_limits();
	options.target_limits.has_extents = kind & FLIP_EXTENTS;
	rig = rig_new(&options);
	if (kind & FLIP_ZEROES)
		memset(rig->disks[0].source->bytes, 0, size_bytes);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_VERIFY, 100 * NS_PER_S));
	if (kind & FLIP_NO_HASHES)      /* as when guests have written there: the source is read */
		hash_store_forget(rig->mover->parts[0].hashes, 0, div_round_up(size_bytes, REGION));
	rig->disks[0].target->bytes[at_bytes] ^= 0x80;
	/* A store that lies about what it wrote knows it as data. */
	rig->disks[0].target->pages[at_bytes / MEM_DEV_PAGE_BYTES] = BLK_EXTENT_DATA;
	assert_true(rig_run_until(rig, rig_has_ended, 100 * NS_PER_S));
	failed = mover_state(rig->mover) == MOVER_FAILED &&
		 rig->mover->error.id == ERR_MOVE_VERIFY && rig->commits == 0;
	rig_free(rig);
	return failed;
}

/* One flipped bit anywhere, the short tail region and zeroes included, fails the move. */
static void test_one_flipped_bit_fails_the_move(void **unused)
{
	const uint64_t odd = 3 * MIB + 3 * MEM_DEV_PAGE_BYTES;

	(void)unused;
	for (int kind = 0; kind < FLIP_KINDS; kind++) {
		assert_true(flip_and_fail(0, odd, kind));
		assert_true(flip_and_fail(REGION - 1, odd, kind));
		assert_true(flip_and_fail(odd - 1, odd, kind));
		assert_true(flip_and_fail(odd - 2 * MEM_DEV_PAGE_BYTES, odd, kind));
		assert_true(flip_and_fail(MIB - 1, MIB, kind));
	}
}

/*
 * A full store of hashes gives up those of a whole chunk when one region of it is written: a
 * read-back of its neighbours may be under way then, and has nothing to be judged by.
 */
static void test_hashes_may_go_while_they_are_needed(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig_options options = usual(1, 4 * MIB);
		struct rig *rig;

		options.seed = seed;
		rig = rig_new(&options);
		rig_start(rig);
		assert_true(rig_run_to_state(rig, MOVER_VERIFY, 100 * NS_PER_S));
		rig_run_for(rig, seed * MS / 10);
		hash_store_forget(rig->mover->parts[0].hashes, 0, 4 * MIB / REGION);
		assert_true(rig_run_to_state(rig, MOVER_DONE, 100 * NS_PER_S));
		assert_true(rig_disks_are_equal(rig));
		rig_free(rig);
	}
}

/* A held move does not read back each write of a guest, but all of them when it is completed. */
static void test_a_held_move_does_not_read_back_every_write(void **unused)
{
	struct rig_options options = usual(1, 4 * MIB);
	struct rig *rig;
	struct err err;
	uint64_t reads;

	(void)unused;
	options.mover.hold = true;
	rig = rig_new(&options);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 100 * NS_PER_S));
	reads = rig->disks[0].target->ops[BLK_READ];
	for (int i = 0; i < 2000; i++)
		rig_write(rig, 0, (uint64_t)(i % 4) * REGION, 4096, (uint8_t)i);
	assert_true(rig->disks[0].target->ops[BLK_READ] - reads < 50);
	rig->disks[0].target->bytes[REGION + 9] ^= 1;
	rig_write(rig, 0, REGION + 4096, 4096, 1);
	rig_run_for(rig, MS);
	assert_int_equal(mover_complete(rig->mover, &err), 0);
	assert_true(rig_run_until(rig, rig_has_ended, 10 * NS_PER_S));
	assert_int_equal(mover_state(rig->mover), MOVER_FAILED);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_VERIFY);
	assert_int_equal(rig->commits, 0);
	rig_free(rig);
}

/* After the switch a target that cannot be read ends the comparison, not in an endless loop. */
static void test_an_unreadable_target_ends_the_comparison(void **unused)
{
	struct rig_options options = usual(1, 4 * MIB);
	struct wrap_fault_rule rule = { .ops = 1u << BLK_READ, .from_nth = 1,
					.fail_count = UINT64_MAX, .error = -EIO };
	struct rig *rig = rig_new(&options);
	uint64_t reads;

	(void)unused;
	rig->hold_commit = true;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_COMMIT, 100 * NS_PER_S));
	verifier_add(rig->mover->parts[0].verifier, 0, REGION);
	wrap_fault_set(rig->disks[0].target_fault, &rule);
	reads = wrap_fault_fired(rig->disks[0].target_fault);
	mover_committed(rig->mover, 0);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 10 * NS_PER_S));
	assert_int_equal(rig->mover->error.id, ERR_MOVE_VERIFY);
	assert_true(wrap_fault_fired(rig->disks[0].target_fault) - reads <= 16);
	rig_free(rig);
}

/* A comparison in flight at a cancel sees writes that no longer pass the mirror: no verdict. */
static void test_a_cancelled_move_accuses_nobody(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct rig_options options = usual(1, 4 * MIB);
		struct rig *rig;
		struct err err;

		options.seed = seed;
		rig = rig_new(&options);
		rig_start(rig);
		assert_true(rig_run_to_state(rig, MOVER_VERIFY, 100 * NS_PER_S));
		hash_store_forget(rig->mover->parts[0].hashes, 0, 4 * MIB / REGION);
		verifier_add(rig->mover->parts[0].verifier, 0, 4 * MIB);
		verifier_kick(rig->mover->parts[0].verifier);
		loop_sim_step(rig->loop);
		loop_sim_step(rig->loop);
		assert_int_equal(mover_cancel(rig->mover, &err), 0);
		for (uint64_t at = 0; at < 4 * MIB; at += REGION)
			memset(rig->disks[0].source->bytes + at, 0x77, 512);
		rig_run_for(rig, NS_PER_S);
		assert_int_equal(mover_state(rig->mover), MOVER_CANCELLED);
		assert_int_equal(rig->mover->error.id, ERR_TASK_CANCELLED);
		rig_free(rig);
	}
}

/* ---- a target that hangs ---- */

static uint64_t hung_bound_ns(const struct rig *rig)
{
	return rig->mover->options.leg_deadline_ns + NS_PER_S;
}

static void pause_with_hung_target(enum mover_state when)
{
	struct rig_options options = usual(2, 8 * MIB);
	struct rig *rig = rig_new(&options);
	struct err err;

	rig_start(rig);
	if (when == MOVER_COPY)
		rig_run_for(rig, 5 * MS);
	assert_true(rig_run_to_state(rig, when, 10 * NS_PER_S));
	hang_target(rig, 1, true);
	rig_run_for(rig, 3 * MS);
	assert_int_equal(mover_pause(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, hung_bound_ns(rig)));
	/* It stays so when the target comes back, and goes on when it is told to. */
	hang_target(rig, 1, false);
	rig_run_for(rig, 40 * NS_PER_S);
	assert_int_equal(mover_state(rig->mover), MOVER_PAUSED);
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 100 * NS_PER_S));
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

static void test_pause_with_a_hung_target(void **unused)
{
	(void)unused;
	pause_with_hung_target(MOVER_COPY);
	pause_with_hung_target(MOVER_VERIFY);
}

/* Paused while it is degraded already: at once. */
static void test_pause_of_a_degraded_move(void **unused)
{
	struct rig_options options = usual(1, 8 * MIB);
	struct rig *rig = rig_new(&options);
	struct err err;

	(void)unused;
	rig_start(rig);
	rig_run_for(rig, 5 * MS);
	hang_target(rig, 0, true);
	rig_run_for(rig, 5 * NS_PER_S);
	assert_true(rig->mover->breaker);
	assert_int_equal(mover_pause(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 100 * MS));
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	hang_target(rig, 0, false);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 100 * NS_PER_S));
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

/* The target comes back while the pause still waits for a job: the pause wins. */
static void test_a_pause_outlives_the_probe(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct rig_options options = usual(1, 8 * MIB);
		struct rig *rig;
		struct err err;

		options.seed = seed;
		rig = rig_new(&options);
		rig_start(rig);
		rig_run_for(rig, 5 * MS);
		assert_int_equal(mover_pause(rig->mover, &err), 0);
		hang_target(rig, 0, true);
		rig_run_for(rig, 3 * NS_PER_S + seed * 50 * MS);
		hang_target(rig, 0, false);
		assert_true(rig_run_to_state(rig, MOVER_PAUSED, 5 * NS_PER_S));
		rig_free(rig);
	}
}

/* A read-back that never returns is as late as a write: the move says so and goes on later. */
static void test_a_hung_verification_is_noticed(void **unused)
{
	struct rig_options options = usual(1, 8 * MIB);
	struct rig *rig = rig_new(&options);

	(void)unused;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_VERIFY, 10 * NS_PER_S));
	hang_target(rig, 0, true);
	rig_run_for(rig, hung_bound_ns(rig));
	assert_true(rig->mover->breaker);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_TARGET_STUCK);
	rig_run_for(rig, 32 * NS_PER_S);
	assert_int_equal(mover_state(rig->mover), MOVER_PAUSED);
	rig_free(rig);
}

/* An async guest waits for nobody: a hung target must be noticed all the same. */
static void test_a_hung_target_is_noticed_in_async_mode(void **unused)
{
	struct rig_options options = usual(1, 4 * MIB);
	struct rig *rig;

	(void)unused;
	options.mover.mode = MIRROR_ASYNC;
	options.mover.hold = true;
	rig = rig_new(&options);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 10 * NS_PER_S));
	hang_target(rig, 0, true);
	rig_write(rig, 0, 4096, 4096, 0x42);
	rig_run_for(rig, hung_bound_ns(rig));
	assert_true(rig->mover->breaker);
	hang_target(rig, 0, false);
	rig_run_for(rig, 5 * NS_PER_S);
	assert_false(rig->mover->breaker);
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

static void cancel_with_hung_target(enum mover_state when)
{
	struct rig_options options = usual(2, 8 * MIB);
	struct rig_write *write = rig_write_new();
	struct rig *rig;
	struct err err;
	uint64_t from_ns;

	options.mover.hold = when == MOVER_HOLD;
	rig = rig_new(&options);
	rig_start(rig);
	if (when == MOVER_COPY)
		rig_run_for(rig, 5 * MS);
	assert_true(rig_run_to_state(rig, when, 10 * NS_PER_S));
	hang_target(rig, 0, true);
	rig_write_begin(rig, 0, write, REGION, 4096, 0x99);
	rig_run_for(rig, 3 * MS);
	from_ns = loop_now_ns(rig->loop);
	assert_int_equal(mover_cancel(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_CANCELLED, 100 * MS));
	assert_true(loop_now_ns(rig->loop) - from_ns <= 100 * MS);
	rig_run_for(rig, 10 * MS);
	assert_true(write->done);
	assert_int_equal(write->req.result, 0);
	rig_free(rig);
	free(write);
}

static void test_cancel_with_a_hung_target(void **unused)
{
	(void)unused;
	cancel_with_hung_target(MOVER_COPY);
	cancel_with_hung_target(MOVER_VERIFY);
	cancel_with_hung_target(MOVER_HOLD);
	cancel_with_hung_target(MOVER_SWITCH);
}

static bool freed_flag;

static void set_freed_flag(void *user)
{
	struct rig *rig = user;

	rig->freed = freed_flag = true;
}

/* R2: freed() comes once every late leg has settled, and not before. */
static void test_free_waits_for_late_legs(void **unused)
{
	struct rig_options options = usual(1, 4 * MIB);
	struct rig_write *write = rig_write_new();
	struct rig *rig;
	struct err err;

	(void)unused;
	options.mover.hold = true;
	rig = rig_new(&options);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 10 * NS_PER_S));
	hang_target(rig, 0, true);
	rig_write_begin(rig, 0, write, 0, 4096, 0x31);
	rig_run_for(rig, 2 * MS);
	assert_false(write->done);
	assert_int_equal(mover_cancel(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_CANCELLED, 100 * MS));
	assert_true(write->done);
	freed_flag = false;
	mover_free(rig->mover, set_freed_flag, rig);
	rig_run_for(rig, 100 * NS_PER_S);
	assert_false(freed_flag);
	hang_target(rig, 0, false);
	rig_run_for(rig, NS_PER_S);
	assert_true(freed_flag);
	rig_free(rig);
	free(write);
}

/* The copier and the verifier leave room in the pool: a hung target keeps no guest from a buffer. */
static void test_hung_copies_leave_buffers_for_guests(void **unused)
{
	struct rig_options options = usual(4, 32 * MIB);
	struct rig *rig;
	struct buf *buf;

	(void)unused;
	options.target_delay.min_ns = options.target_delay.max_ns = NS_PER_S;
	options.pool_bytes = 32 * MIB;
	rig = rig_new(&options);
	/* As wide as several movers that share the pool. */
	rig->mover->pacer.window_bytes = UINT64_C(1) << 40;
	rig_start(rig);
	rig_run_for(rig, 15 * MS);
	assert_true(buf_pool_used_bytes(rig->pool) >= 8 * MIB);
	buf = buf_get(rig->pool, 16 * MIB);
	assert_non_null(buf);
	buf_put(buf);
	rig_free(rig);
}

/* ---- one target failure, wherever it strikes ---- */

struct busy_guest {
	struct rig *rig;
	struct timer timer;
	struct rig_write *write;
	uint64_t written, longest_ns;
	bool stopped;
};

static void busy_guest_fired(struct timer *timer)
{
	struct busy_guest *guest = container_of(timer, struct busy_guest, timer);
	uint64_t at = loop_random_below(guest->rig->loop, MIB / 4096) * 4096;

	if (guest->write->done) {
		CHECK(guest->write->req.result == 0);
		guest->longest_ns = MAX(guest->longest_ns, guest->write->took_ns);
		if (guest->stopped)
			return;
		rig_write_begin(guest->rig, 0, guest->write, at, 4096, (uint8_t)++guest->written);
	}
	timer_start(timer, MS / 4);
}

/*
 * Fail the 1st request to the target, then the 2nd ... until a run has fewer: each time the
 * guest sees nothing of it and the move comes to hold both disks equal.
 */
static uint64_t fail_the_nth(uint64_t nth, bool after, uint64_t *fired)
{
	struct rig_options options = usual(1, MIB);
	struct busy_guest guest = { .write = rig_write_new() };
	struct wrap_fault_rule rule = { .ops = ALL_OPS, .from_nth = nth, .fail_count = 1,
					.error = -EIO, .after = after };
	struct rig *rig;
	uint64_t longest_ns;

	options.mover.hold = true;
	options.target_limits = mem_dev_limits();
	options.target_limits.reads_zero = nth % 2;
	rig = rig_new(&options);
	wrap_fault_set(rig->disks[0].target_fault, &rule);
	guest.rig = rig;
	guest.write->done = true;
	timer_init(&guest.timer, rig->loop, busy_guest_fired);
	timer_start(&guest.timer, 1);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	rig_run_for(rig, 50 * MS);              /* legs by the dozen */
	guest.stopped = true;
	rig_run_for(rig, NS_PER_S);
	assert_int_equal(mover_state(rig->mover), MOVER_HOLD);
	assert_true(mover_part_in_sync(&rig->mover->parts[0]));
	assert_true(rig_disks_are_equal(rig));
	*fired = wrap_fault_fired(rig->disks[0].target_fault);
	longest_ns = guest.longest_ns;
	rig_free(rig);
	free(guest.write);
	return longest_ns;
}

static void test_no_single_target_failure_is_seen(void **unused)
{
	(void)unused;
	for (int after = 0; after < 2; after++) {
		uint64_t fired = 1, nth;

		for (nth = 1; fired; nth++) {
			assert_true(fail_the_nth(nth, after, &fired) <= 50 * MS);
			assert_true(nth < 2000);
		}
		assert_true(nth > 20);
	}
}

/* ---- progress ---- */

/*
 * A guest that dirties what was copied, a target that fails once, and a pause in which the
 * guest goes on: what is told never falls, is half after the copy where there is a
 * verification, and ends whole.
 */
static void test_progress_never_falls(void **unused)
{
	struct mover_stats *stats = calloc(1, sizeof(*stats));
	struct rig_options options = usual(1, 16 * MIB);
	struct busy_guest guest = { .write = rig_write_new() };
	struct wrap_fault_rule rule = { .ops = ALL_OPS, .from_nth = 60, .fail_count = 1,
					.error = -EIO };
	uint64_t last_bytes = 0;
	bool was_verifying = false, was_paused = false;
	unsigned paused_rounds = 0;
	struct rig *rig;

	(void)unused;
	assert_non_null(stats);
	options.mover.verify = true;
	options.source_delay.min_ns = options.source_delay.max_ns = 20 * MS;
	options.target_delay = options.source_delay;
	rig = rig_new(&options);
	wrap_fault_set(rig->disks[0].target_fault, &rule);
	guest.rig = rig;
	guest.write->done = true;
	timer_init(&guest.timer, rig->loop, busy_guest_fired);
	timer_start(&guest.timer, 1);
	rig_start(rig);
	do {
		rig_run_for(rig, 10 * MS);
		if (last_bytes >= 4 * MIB && !was_paused) {
			assert_int_equal(mover_pause(rig->mover, NULL), 0);
			was_paused = true;
		}
		paused_rounds += mover_state(rig->mover) == MOVER_PAUSED;
		if (paused_rounds == 50 && mover_state(rig->mover) == MOVER_PAUSED)
			assert_int_equal(mover_resume(rig->mover, NULL), 0);
		mover_stats(rig->mover, stats);
		assert_int_equal(stats->total_bytes, 32 * MIB);
		assert_in_range(stats->done_bytes, last_bytes, stats->total_bytes);
		last_bytes = stats->done_bytes;
		if (stats->state == MOVER_COPY && !was_verifying)
			assert_true(last_bytes <= 16 * MIB);
		if (stats->state >= MOVER_VERIFY && stats->state <= MOVER_SWITCHED)
			was_verifying = true;
		guest.stopped = was_verifying;
	} while (stats->state != MOVER_DONE);
	assert_true(was_verifying);
	assert_true(paused_rounds >= 50);
	assert_int_equal(last_bytes, 32 * MIB);
	guest.stopped = true;
	rig_run_for(rig, NS_PER_S);
	rig_free(rig);
	free(guest.write);
	free(stats);
}

/* ---- odd shapes ---- */

/* What cannot be moved is refused, not met with an abort. */
static void test_geometry_is_judged(void **unused)
{
	struct rig_options options = usual(1, MIB);
	struct rig *rig = rig_new(&options);
	struct blk_limits coarse = mem_dev_limits();
	struct mem_dev *small = mem_dev_new(rig->loop, MIB / 2, NULL);
	struct mem_dev *sectors;
	struct mover_options mover_options = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED };
	const struct mover_ops ops = { 0 };
	struct mover_disk disk = { .gate = rig->disks[0].gate, .source = rig->disks[0].source_delay,
				   .target = &small->dev, .name = "d" };
	struct mover *mover = NULL;
	struct err err;

	(void)unused;
	coarse.block_bytes = 4096;
	sectors = mem_dev_new(rig->loop, MIB, &coarse);
	assert_int_equal(mover_new(rig->loop, rig->pool, &disk, 1, &mover_options, &ops, NULL,
				   &mover, &err), -EINVAL);
	assert_int_equal(err.id, ERR_MOVE_TARGET_SMALL);
	disk.target = &sectors->dev;
	assert_int_equal(mover_new(rig->loop, rig->pool, &disk, 1, &mover_options, &ops, NULL,
				   &mover, &err), -EINVAL);
	assert_int_equal(err.id, ERR_MOVE_SECTOR);
	assert_null(mover);
	blk_close(&small->dev);
	blk_close(&sectors->dev);
	rig_free(rig);
}

/* Holes that must be zeroed are not read, though the source tells of them in short answers. */
static void test_holes_on_a_used_target_are_not_read(void **unused)
{
	struct rig_options options = usual(1, 64 * MIB);
	struct rig *rig;
	struct mem_dev *source, *target;
	uint64_t reads;

	(void)unused;
	options.target_limits = mem_dev_limits();
	options.target_limits.reads_zero = false;
	options.mover.verify = false;
	rig = rig_new(&options);
	source = rig->disks[0].source;
	target = rig->disks[0].target;
	memset(source->bytes, 0, 64 * MIB);
	memset(source->pages, BLK_EXTENT_HOLE, 64 * MIB / MEM_DEV_PAGE_BYTES);
	memset(target->bytes, 0xee, 64 * MIB);
	reads = source->ops[BLK_READ];
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 100 * NS_PER_S));
	assert_int_equal(source->ops[BLK_READ], reads);
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_disk_is_forgotten),
		cmocka_unit_test(test_the_scan_stays_near_the_copy),
		cmocka_unit_test(test_a_suspended_mirror_stops_the_walk),
		cmocka_unit_test(test_a_cap_does_not_skip_the_verification),
		cmocka_unit_test(test_no_buffers_do_not_skip_the_verification),
		cmocka_unit_test(test_one_flipped_bit_fails_the_move),
		cmocka_unit_test(test_hashes_may_go_while_they_are_needed),
		cmocka_unit_test(test_a_held_move_does_not_read_back_every_write),
		cmocka_unit_test(test_an_unreadable_target_ends_the_comparison),
		cmocka_unit_test(test_a_cancelled_move_accuses_nobody),
		cmocka_unit_test(test_pause_with_a_hung_target),
		cmocka_unit_test(test_pause_of_a_degraded_move),
		cmocka_unit_test(test_a_pause_outlives_the_probe),
		cmocka_unit_test(test_a_hung_verification_is_noticed),
		cmocka_unit_test(test_a_hung_target_is_noticed_in_async_mode),
		cmocka_unit_test(test_cancel_with_a_hung_target),
		cmocka_unit_test(test_free_waits_for_late_legs),
		cmocka_unit_test(test_hung_copies_leave_buffers_for_guests),
		cmocka_unit_test(test_no_single_target_failure_is_seen),
		cmocka_unit_test(test_progress_never_falls),
		cmocka_unit_test(test_geometry_is_judged),
		cmocka_unit_test(test_holes_on_a_used_target_are_not_read),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	log_set_level(LOG_LEVEL_NONE);          /* the faults are meant */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

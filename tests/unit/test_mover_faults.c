/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the table of target troubles in mover.h, row by row.  In every one the guest's writes
 * succeed, none waits longer than a leg deadline, and what was copied stays copied.
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
#include "blkmirror/mirror/mirror_private.h"
#include "tests/lib/move_rig.h"

#define MIB (UINT64_C(1) << 20)
#define ALL_OPS ((1u << BLK_OP_COUNT) - 1)
#define WRITES (1u << BLK_WRITE | 1u << BLK_WRITE_ZEROES)
#define MS NS_PER_MS
#define DEADLINE NS_PER_S

static struct rig *new_rig(uint64_t size_bytes, uint64_t target_ns)
{
	struct rig_options options = {
		.disk_count = 1, .size_bytes = size_bytes,
		.source_delay = { .ops = ALL_OPS, .min_ns = MS / 10, .max_ns = MS },
		.target_delay = { .ops = ALL_OPS, .min_ns = target_ns, .max_ns = target_ns },
		.mover = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .hold = true,
			   .leg_deadline_ns = DEADLINE },
	};

	return rig_new(&options);
}

static void hang(struct rig *rig, bool hung)
{
	wrap_delay_hang(rig->disks[0].target_delay, hung);
}

static void break_target(struct rig *rig, unsigned ops, int error)
{
	struct wrap_fault_rule rule = { .ops = ops, .from_nth = 1, .fail_count = UINT64_MAX,
					.error = error };

	wrap_fault_set(rig->disks[0].target_fault, error ? &rule : NULL);
}

/* ---- a guest that writes one after the other ---- */

struct guest {
	struct rig *rig;
	struct timer timer;
	struct rig_write *write;
	uint64_t range_bytes;
	uint64_t longest_ns, written;
	bool stopped;
};

static void guest_fired(struct timer *timer)
{
	struct guest *guest = container_of(timer, struct guest, timer);

	if (guest->write->done) {
		assert_int_equal(guest->write->req.result, 0);
		guest->longest_ns = MAX(guest->longest_ns, guest->write->took_ns);
		if (guest->stopped)
			return;
		rig_write_begin(guest->rig, 0, guest->write,
				loop_random_below(guest->rig->loop, guest->range_bytes / 4096) *
					4096, 4096, (uint8_t)++guest->written);
	}
	timer_start(timer, MS / 2);
}

static void guest_start(struct guest *guest, struct rig *rig, uint64_t range_bytes)
{
	*guest = (struct guest){ .rig = rig, .write = rig_write_new(),
				 .range_bytes = range_bytes };
	guest->write->done = true;
	timer_init(&guest->timer, rig->loop, guest_fired);
	timer_start(&guest->timer, 1);
}

static void guest_stop(struct guest *guest)
{
	guest->stopped = true;
	rig_run_for(guest->rig, 2 * DEADLINE);
	assert_false(guest->timer.started);
	free(guest->write);
}

static uint64_t copied_bytes(const struct rig *rig)
{
	struct copy_stats stats;

	copy_engine_stats(rig->mover->parts[0].engine, &stats);
	return stats.copied_bytes;
}

static void expect_finish(struct rig *rig, struct guest *guest, uint64_t size_bytes)
{
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 200 * NS_PER_S));
	guest_stop(guest);
	/* What was copied before the trouble was not copied again: but for what the guest wrote. */
	assert_true(copied_bytes(rig) <= size_bytes + size_bytes / 2);
	assert_true(rig_disks_are_equal(rig));
}

/* ---- full, refused ---- */

static void pauses_at_once(int error, enum err_id id)
{
	struct rig *rig = new_rig(32 * MIB, 2 * MS);
	struct guest guest;
	struct err err;
	uint64_t copied, fired;

	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 60 * MS);
	break_target(rig, WRITES, error);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 20 * MS));
	assert_int_equal(rig->mover->error.id, id);
	assert_true(rig->mover->error.cause[0]);
	assert_true(rig->mover->error.remedy[0]);
	copied = copied_bytes(rig);
	assert_true(copied > MIB);
	/* Nothing more is sent there, however much the guest writes. */
	rig_run_for(rig, 10 * MS);
	fired = wrap_fault_fired(rig->disks[0].target_fault);
	rig_run_for(rig, 5 * NS_PER_S);
	assert_int_equal(wrap_fault_fired(rig->disks[0].target_fault), fired);
	/* Resumed before it is mended: one copier's write finds out, no guest's. */
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, NS_PER_S));
	assert_int_equal(wrap_fault_fired(rig->disks[0].target_fault), fired + 1);
	assert_int_equal(rig->mover->error.id, id);
	break_target(rig, 0, 0);
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	expect_finish(rig, &guest, 32 * MIB);
	assert_true(guest.longest_ns < 100 * MS);
	rig_free(rig);
}

static void test_a_full_target_pauses_at_once(void **unused)
{
	(void)unused;
	pauses_at_once(-ENOSPC, ERR_MOVE_TARGET_FULL);
	pauses_at_once(-EDQUOT, ERR_MOVE_TARGET_FULL);
}

static void test_a_read_only_target_pauses_at_once(void **unused)
{
	(void)unused;
	pauses_at_once(-EROFS, ERR_MOVE_TARGET_WRITE);
}

/* ---- errors that may pass ---- */

static void test_errors_are_tried_again_and_then_pause(void **unused)
{
	struct rig *rig = new_rig(32 * MIB, 2 * MS);
	struct guest guest;
	struct err err;
	uint64_t from_ns;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 60 * MS);
	break_target(rig, WRITES, -EIO);
	from_ns = loop_now_ns(rig->loop);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 60 * NS_PER_S));
	/* Not at the first burst, and not for ever. */
	assert_true(loop_now_ns(rig->loop) - from_ns > 5 * NS_PER_S);
	assert_true(loop_now_ns(rig->loop) - from_ns < 15 * NS_PER_S);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_TARGET_WRITE);
	break_target(rig, 0, 0);
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	expect_finish(rig, &guest, 32 * MIB);
	assert_true(guest.longest_ns < 100 * MS);
	rig_free(rig);
}

/* A path that fails over: the move goes on by itself. */
static void test_a_short_burst_of_errors_passes(void **unused)
{
	struct rig *rig = new_rig(32 * MIB, 2 * MS);
	struct guest guest;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 60 * MS);
	break_target(rig, ALL_OPS, -EIO);
	rig_run_for(rig, 2 * NS_PER_S);
	assert_int_not_equal(mover_state(rig->mover), MOVER_PAUSED);
	break_target(rig, 0, 0);
	expect_finish(rig, &guest, 32 * MIB);
	rig_free(rig);
}

/* One error now and then, over hours, is no reason to stop. */
static void test_rare_errors_are_forgotten(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, MS);
	struct guest guest;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	for (int i = 0; i < 30; i++) {
		struct wrap_fault_rule once = { .ops = WRITES, .from_nth = 1, .fail_count = 1,
						.error = -EIO };

		wrap_fault_set(rig->disks[0].target_fault, &once);
		rig_run_for(rig, 11 * NS_PER_S);
		assert_int_equal(mover_state(rig->mover), MOVER_HOLD);
	}
	assert_int_equal(wrap_fault_fired(rig->disks[0].target_fault), 30);
	guest_stop(&guest);
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

/* ---- lost ---- */

static void test_a_lost_target_is_not_used_again(void **unused)
{
	struct rig *rig = new_rig(32 * MIB, 2 * MS);
	struct guest guest;
	struct err err;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 60 * MS);
	rig->disks[0].target_delay->lost = true;
	break_target(rig, ALL_OPS, -EIO);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 100 * MS));
	assert_int_equal(rig->mover->error.id, ERR_MOVE_SUSPECT);
	rig_run_for(rig, NS_PER_S);
	err_clear(&err);
	assert_int_equal(mover_resume(rig->mover, &err), -EBUSY);
	assert_int_equal(err.id, ERR_MOVE_SUSPECT);
	assert_int_equal(mover_state(rig->mover), MOVER_PAUSED);
	assert_int_equal(mover_cancel(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_CANCELLED, NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* ---- late: the breaker ---- */

/* R13: the first late leg detaches all; the later ones do not wait for their own deadline. */
static void test_the_first_late_leg_detaches_all(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, MS);
	struct rig_write *writes[8];

	(void)unused;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	hang(rig, true);
	for (unsigned i = 0; i < 8; i++) {
		writes[i] = rig_write_new();
		rig_write_begin(rig, 0, writes[i], i * 65536, 4096, 0x31);
		rig_run_for(rig, 100 * MS);
	}
	rig_run_for(rig, 300 * MS);             /* 1.1 s after the first */
	for (unsigned i = 0; i < 8; i++) {
		assert_true(writes[i]->done);
		assert_int_equal(writes[i]->req.result, 0);
		assert_true(writes[i]->took_ns <= DEADLINE + 10 * MS - i * 100 * MS);
		free(writes[i]);
	}
	assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_TARGET_STUCK);
	rig_free(rig);
}

/* R13: half open, the target gets the copier's writes and no guest's, and closes when it answers. */
static void test_only_the_copier_probes(void **unused)
{
	struct rig *rig = new_rig(8 * MIB, MS);
	struct guest guest;

	(void)unused;
	guest_start(&guest, rig, 2 * MIB);
	rig_start(rig);
	rig_run_for(rig, 20 * MS);
	hang(rig, true);
	rig_run_for(rig, 2 * NS_PER_S);
	assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
	hang(rig, false);
	for (int i = 0; i < 2000 && rig->mover->breaker == BREAKER_OPEN; i++)
		rig_run_for(rig, MS);
	assert_int_equal(rig->mover->breaker, BREAKER_PROBING);
	assert_int_equal(mirror_state(rig->mover->parts[0].mirror), MIRROR_COPY_ONLY);
	assert_int_equal(rig->mover->parts[0].mirror->legs_in_use, 0);
	/* The probe itself hangs: open again, later than before, and no guest has noticed. */
	hang(rig, true);
	guest.longest_ns = 0;
	rig_run_for(rig, DEADLINE + 200 * MS);
	assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
	assert_int_equal(rig->mover->backoff_ns, 2 * NS_PER_S);
	assert_true(guest.longest_ns < 10 * MS);
	hang(rig, false);
	rig_run_for(rig, NS_PER_S);
	assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
	expect_finish(rig, &guest, 8 * MIB);
	assert_int_equal(rig->mover->breaker, BREAKER_CLOSED);
	assert_int_equal(rig->mover->trips, 1);
	rig_free(rig);
}

/* Nothing to copy, or one region that its guest never leaves alone: it closes all the same. */
static void test_a_probe_finds_something_to_ask(void **unused)
{
	(void)unused;
	for (int busy = 0; busy < 2; busy++) {
		struct rig *rig = new_rig(4 * MIB, MS);
		struct guest guests[6];

		rig_start(rig);
		assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
		for (int i = 0; busy && i < 6; i++)
			guest_start(&guests[i], rig, 65536);
		if (busy)
			rig_run_for(rig, 10 * MS);
		mover_target_trouble(&rig->mover->parts[0], -ETIMEDOUT);
		assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
		rig_run_for(rig, 4 * NS_PER_S);
		assert_int_equal(rig->mover->breaker, BREAKER_CLOSED);
		for (int i = 0; busy && i < 6; i++)
			guest_stop(&guests[i]);
		rig_run_for(rig, NS_PER_S);
		assert_true(rig_disks_are_equal(rig));
		rig_free(rig);
	}
}

/* A target that hangs whenever guests may use it costs them ever less. */
static void test_the_back_off_grows(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, MS);
	struct guest guest;
	uint64_t trips = 0, closed_for_ns = 0, until_ns;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	until_ns = loop_now_ns(rig->loop) + 200 * NS_PER_S;
	while (loop_now_ns(rig->loop) < until_ns) {
		hang(rig, rig->mover->breaker == BREAKER_CLOSED);
		rig_run_for(rig, MS);
		closed_for_ns += rig->mover->breaker == BREAKER_CLOSED ? MS : 0;
	}
	trips = rig->mover->trips;
	assert_true(trips >= 5);
	assert_true(trips <= 20);
	assert_true(closed_for_ns <= 25 * NS_PER_S);
	assert_true(guest.longest_ns <= DEADLINE + 10 * MS);
	assert_int_equal(mover_state(rig->mover), MOVER_HOLD);
	hang(rig, false);
	rig_run_for(rig, 20 * NS_PER_S);
	guest_stop(&guest);
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

/* Paused after 30 s; told to resume while it still hangs, no guest waits for it again. */
static void test_resuming_a_stuck_target_costs_the_guest_nothing(void **unused)
{
	struct rig *rig = new_rig(8 * MIB, MS);
	struct guest guest;
	struct err err;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 20 * MS);
	hang(rig, true);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 40 * NS_PER_S));
	assert_int_equal(rig->mover->error.id, ERR_MOVE_TARGET_STUCK);
	guest.longest_ns = 0;
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	rig_run_for(rig, 20 * NS_PER_S);
	assert_true(guest.longest_ns < 10 * MS);
	assert_int_not_equal(rig->mover->breaker, BREAKER_CLOSED);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 20 * NS_PER_S));
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	hang(rig, false);
	expect_finish(rig, &guest, 8 * MIB);
	assert_true(guest.longest_ns < 100 * MS);
	rig_free(rig);
}

/* The same when nothing is left under way: what hung has ended, and the next would hang again. */
static void test_resuming_lets_the_copier_find_out(void **unused)
{
	struct rig *rig = new_rig(8 * MIB, MS);
	struct guest guest;
	struct err err;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, NS_PER_S));
	hang(rig, true);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, 40 * NS_PER_S));
	hang(rig, false);
	rig_run_for(rig, NS_PER_S);
	assert_true(mirror_is_settled(rig->mover->parts[0].mirror));
	hang(rig, true);
	guest.longest_ns = 0;
	guest.range_bytes = 8 * MIB;    /* where the target is good: a leg would begin there */
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	rig_run_for(rig, 20 * NS_PER_S);
	assert_true(guest.longest_ns < 10 * MS);
	hang(rig, false);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 200 * NS_PER_S));
	guest_stop(&guest);
	assert_true(rig_disks_are_equal(rig));
	rig_free(rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_full_target_pauses_at_once),
		cmocka_unit_test(test_a_read_only_target_pauses_at_once),
		cmocka_unit_test(test_errors_are_tried_again_and_then_pause),
		cmocka_unit_test(test_a_short_burst_of_errors_passes),
		cmocka_unit_test(test_rare_errors_are_forgotten),
		cmocka_unit_test(test_a_lost_target_is_not_used_again),
		cmocka_unit_test(test_the_first_late_leg_detaches_all),
		cmocka_unit_test(test_only_the_copier_probes),
		cmocka_unit_test(test_a_probe_finds_something_to_ask),
		cmocka_unit_test(test_the_back_off_grows),
		cmocka_unit_test(test_resuming_a_stuck_target_costs_the_guest_nothing),
		cmocka_unit_test(test_resuming_lets_the_copier_find_out),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	log_set_level(LOG_LEVEL_NONE);          /* the faults are meant */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

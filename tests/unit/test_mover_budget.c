/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the latency budget (R13): a slow target does not make its guest slow, the move ends
 * all the same where that is possible at all, and it does not swing to and fro.
 */
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
#define MS NS_PER_MS
#define SLOW (40 * MS)
#define BUDGET (5 * MS)

static struct rig *new_rig(uint64_t size_bytes, uint64_t target_ns, uint64_t budget_ns)
{
	struct rig_options options = {
		.disk_count = 1, .size_bytes = size_bytes,
		.source_delay = { .ops = ALL_OPS, .min_ns = MS / 10, .max_ns = MS },
		.target_delay = { .ops = ALL_OPS, .min_ns = target_ns, .max_ns = target_ns },
		.mover = { .bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .verify = true,
			   .max_stun_ns = 500 * MS, .latency_budget_ns = budget_ns },
	};

	return rig_new(&options);
}

/* ---- a guest: one 4 KiB write after the other, anywhere below range_bytes ---- */

struct guest {
	struct rig *rig;
	struct timer timer;
	struct rig_write *write;
	uint64_t range_bytes, think_ns;
	uint64_t longest_ns, sum_ns, written;
	bool stopped;
};

static void guest_fired(struct timer *timer)
{
	struct guest *guest = container_of(timer, struct guest, timer);

	if (guest->write->done) {
		guest->longest_ns = MAX(guest->longest_ns, guest->write->took_ns);
		guest->sum_ns += guest->write->took_ns;
		if (guest->stopped)
			return;
		rig_write_begin(guest->rig, 0, guest->write,
				loop_random_below(guest->rig->loop, guest->range_bytes / 4096) *
					4096, 4096, (uint8_t)++guest->written);
	}
	timer_start(timer, guest->think_ns);
}

static void guest_start(struct guest *guest, struct rig *rig, uint64_t range_bytes)
{
	*guest = (struct guest){ .rig = rig, .write = rig_write_new(),
				 .range_bytes = range_bytes, .think_ns = MS / 2 };
	guest->write->done = true;
	timer_init(&guest->timer, rig->loop, guest_fired);
	timer_start(&guest->timer, 1);
}

static void guest_stop(struct guest *guest)
{
	guest->stopped = true;
	rig_run_for(guest->rig, NS_PER_S);
	assert_false(guest->timer.started);
	free(guest->write);
}

static uint64_t guest_mean_ns(struct guest *guest, uint64_t for_ns)
{
	uint64_t written = guest->written;

	guest->sum_ns = 0;
	rig_run_for(guest->rig, for_ns);
	return guest->sum_ns / MAX(guest->written - written, UINT64_C(1));
}

static enum budget_state budget_state(const struct rig *rig)
{
	return rig->mover->budget.state;
}

/* ---- tests ---- */

/* Without a budget the guest is as slow as the target: what the budget is for. */
static void test_without_a_budget_the_guest_waits(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, SLOW, 0);
	struct guest guest;

	(void)unused;
	rig->mover->options.hold = true;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	guest_start(&guest, rig, MIB);
	assert_true(guest_mean_ns(&guest, 5 * NS_PER_S) >= SLOW / 2);
	assert_int_equal(rig->mover->budget.sheds, 0);
	guest_stop(&guest);
	rig_free(rig);
}

static void test_a_slow_target_is_shed_and_reached(void **unused)
{
	struct rig *rig = new_rig(16 * MIB, SLOW, BUDGET);
	struct mover_stats stats;
	struct guest guest;

	(void)unused;
	rig->mover->options.hold = true;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	guest_start(&guest, rig, MIB);
	rig_run_for(rig, 2 * NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	assert_true(guest_mean_ns(&guest, 60 * NS_PER_S) < 2 * MS);
	/* Held: it stays so, and says so. */
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	assert_int_equal(rig->mover->budget.sheds, 1);
	mover_stats(rig->mover, &stats);
	assert_true(stats.degraded);
	assert_true(stats.shedding);
	assert_int_equal(stats.error.id, ERR_MOVE_SLOW_TARGET);
	assert_true(stats.disks[0].shed_bytes > MIB);
	assert_int_equal(mover_complete(rig->mover, NULL), 0);
	assert_true(rig_run_to_state(rig, MOVER_COMMIT, 20 * NS_PER_S));
	assert_true(rig_disks_are_equal(rig));
	assert_true(rig_run_to_state(rig, MOVER_DONE, 20 * NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* From the start, with everything to copy and to verify. */
static void test_a_move_to_a_slow_target_ends(void **unused)
{
	struct rig *rig = new_rig(64 * MIB, SLOW, BUDGET);
	struct guest guest;

	(void)unused;
	guest_start(&guest, rig, 2 * MIB);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_COMMIT, 300 * NS_PER_S));
	assert_true(rig_disks_are_equal(rig));
	assert_int_equal(rig->mover->budget.sheds, 1);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 20 * NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* A stall is seen while it lasts, long before the leg deadline. */
static void test_a_stall_is_cut_short(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, MS, BUDGET);
	struct guest guest;

	(void)unused;
	rig->mover->options.hold = true;
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	guest_start(&guest, rig, MIB);
	rig_run_for(rig, 3 * NS_PER_S);
	assert_int_equal(rig->mover->budget.sheds, 0);
	guest.longest_ns = 0;
	wrap_delay_hang(rig->disks[0].target_delay, true);
	rig_run_for(rig, 2500 * MS);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	/* Its few milliseconds, weighed against some hundred writes that waited for one. */
	assert_true(guest.longest_ns < 2300 * MS);
	wrap_delay_hang(rig->disks[0].target_delay, false);
	guest_stop(&guest);
	rig_free(rig);
}

/* Where little is left never comes, the guest stays fast and the state stays the same. */
static void test_a_guest_that_is_too_fast_is_left_alone(void **unused)
{
	struct rig *rig = new_rig(64 * MIB, SLOW, BUDGET);
	struct guest guest;

	(void)unused;
	rig->mover->options.bandwidth_bytes_per_s = 2 * MIB;
	mover_set_bandwidth(rig->mover, 2 * MIB);
	guest_start(&guest, rig, 64 * MIB);
	rig_start(rig);
	rig_run_for(rig, 60 * NS_PER_S);
	guest.longest_ns = 0;
	rig_run_for(rig, 600 * NS_PER_S);
	assert_true(guest.longest_ns < 20 * MS);
	assert_true(rig->mover->budget.sheds <= 1);
	guest_stop(&guest);
	rig_free(rig);
}

/*
 * The last sync is bounded, and so is their number: here no switch-over can ever be made, as
 * the target needs longer than a stun may take.
 */
static void test_it_does_not_swing(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, SLOW, BUDGET);
	struct guest guest;
	uint64_t slow_ns = 0, syncs = 0;
	enum budget_state before = BUDGET_MIRRORING;

	(void)unused;
	mover_set_max_stun(rig->mover, 10 * MS);
	rig->mover->options.max_switchover_ns = 100000 * NS_PER_S;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 10 * NS_PER_S);
	for (int i = 0; i < 600 * 100; i++) {
		enum budget_state now = budget_state(rig);

		syncs += now == BUDGET_LAST_SYNC && before != BUDGET_LAST_SYNC;
		slow_ns += now == BUDGET_SHEDDING ? 0 : 10 * MS;
		before = now;
		rig_run_for(rig, 10 * MS);
	}
	assert_true(syncs >= 3);
	assert_true(syncs <= 10);
	assert_true(slow_ns <= 10 * 3 * NS_PER_S);
	assert_int_equal(rig->mover->budget.sheds, 1);
	mover_set_max_stun(rig->mover, NS_PER_S);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 700 * NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* A target that was slow for a while is mirrored again; a new budget is measured anew. */
static void test_it_ends_with_its_cause(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, MS, BUDGET);
	struct guest guest;
	struct err err;

	(void)unused;
	mover_set_max_stun(rig->mover, 1);      /* no switch-over: it goes on trying */
	rig->mover->options.max_switchover_ns = 100000 * NS_PER_S;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	rig_run_for(rig, 5 * NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_MIRRORING);
	mover_set_latency_budget(rig->mover, MS / 100);
	rig_run_for(rig, 3 * NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	/* Paused and resumed, it sheds on. */
	assert_int_equal(mover_pause(rig->mover, &err), 0);
	assert_true(rig_run_to_state(rig, MOVER_PAUSED, NS_PER_S));
	rig_run_for(rig, NS_PER_S);
	assert_int_equal(mover_resume(rig->mover, &err), 0);
	rig_run_for(rig, NS_PER_S);
	assert_int_equal(mirror_state(rig->mover->parts[0].mirror), MIRROR_COPY_ONLY);
	rig->mover->options.latency_budget_ns = BUDGET;
	rig_run_for(rig, 10 * NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_MIRRORING);
	assert_int_equal(mirror_state(rig->mover->parts[0].mirror), MIRROR_ACTIVE);
	mover_set_latency_budget(rig->mover, MS / 100);
	rig_run_for(rig, NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	mover_set_latency_budget(rig->mover, 0);
	assert_int_equal(budget_state(rig), BUDGET_MIRRORING);
	mover_set_max_stun(rig->mover, NS_PER_S);
	assert_true(rig_run_to_state(rig, MOVER_DONE, 20 * NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* The breaker and the budget together: the target hangs while it is shed for being slow. */
static void test_a_slow_target_may_hang_too(void **unused)
{
	struct rig *rig = new_rig(16 * MIB, SLOW, BUDGET);
	struct guest guest;

	(void)unused;
	guest_start(&guest, rig, MIB);
	rig_start(rig);
	for (int i = 0; i < 1000 && budget_state(rig) != BUDGET_SHEDDING; i++)
		rig_run_for(rig, 10 * MS);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	wrap_delay_hang(rig->disks[0].target_delay, true);
	rig_run_for(rig, 4 * NS_PER_S);
	assert_int_equal(rig->mover->breaker, BREAKER_OPEN);
	assert_int_equal(rig->mover->error.id, ERR_MOVE_TARGET_STUCK);
	wrap_delay_hang(rig->disks[0].target_delay, false);
	assert_true(rig_run_to_state(rig, MOVER_COMMIT, 60 * NS_PER_S));
	assert_true(rig_disks_are_equal(rig));
	assert_true(rig_run_to_state(rig, MOVER_DONE, 20 * NS_PER_S));
	guest_stop(&guest);
	rig_free(rig);
}

/* Nobody waits for a leg in async mode: nothing is shed for it. */
static void test_async_adds_nothing(void **unused)
{
	struct rig *rig = new_rig(4 * MIB, SLOW, BUDGET);
	struct guest guest;

	(void)unused;
	rig->mover->options.hold = true;
	mover_set_mode(rig->mover, MIRROR_ASYNC);
	rig_start(rig);
	assert_true(rig_run_to_state(rig, MOVER_HOLD, 60 * NS_PER_S));
	guest_start(&guest, rig, MIB);
	assert_true(guest_mean_ns(&guest, 5 * NS_PER_S) < 2 * MS);
	assert_int_equal(rig->mover->budget.sheds, 0);
	/* And back: now they do. */
	mover_set_mode(rig->mover, MIRROR_SYNC);
	rig_run_for(rig, 2 * NS_PER_S);
	assert_int_equal(budget_state(rig), BUDGET_SHEDDING);
	mover_set_mode(rig->mover, MIRROR_ASYNC);
	assert_int_equal(budget_state(rig), BUDGET_MIRRORING);
	guest_stop(&guest);
	rig_free(rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_budget_the_guest_waits),
		cmocka_unit_test(test_a_slow_target_is_shed_and_reached),
		cmocka_unit_test(test_a_move_to_a_slow_target_ends),
		cmocka_unit_test(test_a_stall_is_cut_short),
		cmocka_unit_test(test_a_guest_that_is_too_fast_is_left_alone),
		cmocka_unit_test(test_it_does_not_swing),
		cmocka_unit_test(test_it_ends_with_its_cause),
		cmocka_unit_test(test_a_slow_target_may_hang_too),
		cmocka_unit_test(test_async_adds_nothing),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	log_set_level(LOG_LEVEL_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the copier keeps to the cap (R6), and is told whenever it may go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/mirror/pacer.h"

#define MIB (UINT64_C(1) << 20)
#define MS NS_PER_MS

struct rig {
	struct loop *loop;
	struct pacer pacer;
	unsigned ready;
	/* the copier that takes what it may get */
	bool copies;
	uint64_t copied_bytes, job_ns;
	/* a guest that writes at a steady pace, mirrored when it may be */
	struct timer write;
	uint64_t write_bytes, write_every_ns, mirrored_bytes, shed_bytes;
};

struct job {
	struct timer timer;
	struct rig *rig;
	uint64_t bytes, started_ns;
};

static void copy_some(struct rig *rig);

static void job_done(struct timer *timer)
{
	struct job *job = container_of(timer, struct job, timer);
	struct rig *rig = job->rig;

	rig->copied_bytes += job->bytes;
	pacer_finished(&rig->pacer, job->bytes, job->started_ns);
	free(job);
	copy_some(rig);
}

static void copy_some(struct rig *rig)
{
	uint64_t bytes = pacer_job_bytes(&rig->pacer);

	while (rig->copies && pacer_may_start(&rig->pacer, bytes)) {
		struct job *job = calloc(1, sizeof(*job));

		assert_non_null(job);
		job->rig = rig;
		job->bytes = bytes;
		job->started_ns = loop_now_ns(rig->loop);
		timer_init(&job->timer, rig->loop, job_done);
		pacer_started(&rig->pacer, bytes);
		timer_start(&job->timer, rig->job_ns);
	}
}

static void on_ready(void *user)
{
	struct rig *rig = user;

	rig->ready++;
	copy_some(rig);
}

/* Nobody there: test_pacer_guest.c has the guests. */
static void on_sample(void *user, struct io_snapshot *out, uint64_t *in_flight)
{
	(void)user;
	*out = (struct io_snapshot){ 0 };
	*in_flight = 0;
}

static void write_fired(struct timer *timer)
{
	struct rig *rig = container_of(timer, struct rig, write);

	if (pacer_may_mirror(&rig->pacer, rig->write_bytes))
		rig->mirrored_bytes += rig->write_bytes;
	else
		rig->shed_bytes += rig->write_bytes;
	timer_start(timer, rig->write_every_ns);
}

static struct rig *rig_new(uint64_t rate)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->loop = loop_sim_new(1);
	rig->job_ns = 2 * MS;
	pacer_init(&rig->pacer, rig->loop, rate, on_ready, on_sample, rig);
	timer_init(&rig->write, rig->loop, write_fired);
	pacer_start(&rig->pacer);
	return rig;
}

static void rig_free(struct rig *rig)
{
	rig->copies = false;
	timer_stop(&rig->write);
	pacer_stop(&rig->pacer);
	while (loop_sim_step(rig->loop))
		continue;
	loop_free(rig->loop);
	free(rig);
}

static void nothing(struct timer *timer)
{
	(void)timer;
}

static void run_for(struct rig *rig, uint64_t ns)
{
	struct timer timer;

	timer_init(&timer, rig->loop, nothing);
	timer_start(&timer, ns);
	while (timer.started)
		assert_true(loop_sim_step(rig->loop));
}

static void assert_near(uint64_t value, uint64_t wanted, unsigned per_cent)
{
	assert_in_range(value, wanted - wanted * per_cent / 100, wanted + wanted * per_cent / 100);
}

static void test_the_cap_is_kept(void **unused)
{
	const uint64_t rates[] = { 8 * MIB, 50 * MIB, 200 * MIB, 1000 * MIB };

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rates); i++) {
		struct rig *rig = rig_new(rates[i]);
		uint64_t before;

		rig->copies = true;
		copy_some(rig);
		run_for(rig, NS_PER_S);
		for (int second = 0; second < 5; second++) {
			before = rig->copied_bytes;
			run_for(rig, NS_PER_S);
			/* One job more or less, on top of the promised accuracy. */
			assert_near(rig->copied_bytes - before, rates[i], (unsigned)(5 + 100 * MIB / rates[i]));
		}
		before = rig->copied_bytes;
		run_for(rig, 20 * NS_PER_S);
		assert_near(rig->copied_bytes - before, 20 * rates[i], 2);
		rig_free(rig);
	}
}

/* Looking often must not lose the time of a broken byte: small writes at a low rate. */
static void test_many_looks_lose_nothing(void **unused)
{
	struct rig *rig = rig_new(64 << 10);

	(void)unused;
	rig->write_bytes = 512;
	rig->write_every_ns = 29 * NS_PER_US;   /* far more than the cap: most is shed */
	timer_start(&rig->write, 1);
	run_for(rig, 40 * NS_PER_S);
	rig->mirrored_bytes = 0;
	run_for(rig, 20 * NS_PER_S);
	assert_near(rig->mirrored_bytes, 20 * (64 << 10), 5);
	assert_true(pacer_is_shedding(&rig->pacer));
	rig_free(rig);
}

/* R6: mirrored writes run into debt, then are shed; the copier stands back meanwhile. */
static void test_debt_is_bounded_and_sheds(void **unused)
{
	const uint64_t rate = 16 * MIB;
	struct rig *rig = rig_new(rate);
	uint64_t taken = 0;

	(void)unused;
	run_for(rig, NS_PER_S);                 /* at its widest: growing would call ready() too */
	while (taken < rate && pacer_may_mirror(&rig->pacer, 64 << 10))
		taken += 64 << 10;
	assert_in_range(taken, rate / 4, rate / 4 + 2 * MIB);
	assert_true(pacer_is_shedding(&rig->pacer));
	assert_false(pacer_may_start(&rig->pacer, 1));
	rig->ready = 0;
	run_for(rig, 200 * MS);
	assert_int_equal(rig->ready, 0);
	run_for(rig, 200 * MS);                 /* the debt is paid: it is told */
	assert_true(rig->ready > 0);
	assert_true(pacer_may_start(&rig->pacer, 1));
	run_for(rig, NS_PER_S);
	assert_false(pacer_is_shedding(&rig->pacer));
	rig_free(rig);
}

static void test_the_rate_can_be_changed(void **unused)
{
	struct rig *rig = rig_new(MIB);
	uint64_t before;

	(void)unused;
	rig->copies = true;
	copy_some(rig);
	run_for(rig, 3 * NS_PER_S);
	pacer_set_rate(&rig->pacer, 100 * MIB);
	run_for(rig, NS_PER_S);
	before = rig->copied_bytes;
	run_for(rig, 5 * NS_PER_S);
	assert_near(rig->copied_bytes - before, 500 * MIB, 5);
	pacer_set_rate(&rig->pacer, MOVER_RATE_UNLIMITED);
	before = rig->copied_bytes;
	run_for(rig, NS_PER_S);
	assert_true(rig->copied_bytes - before > 1000 * MIB);
	/* The lowest and the highest finite rates overflow nothing. */
	pacer_set_rate(&rig->pacer, 1);
	run_for(rig, NS_PER_S);
	pacer_set_rate(&rig->pacer, MOVER_RATE_UNLIMITED - 1);
	run_for(rig, 100 * MS);
	rig_free(rig);
}

/* Several share it: who finds no room is told when there is some, with nothing of its own left. */
static void test_who_found_no_room_is_told(void **unused)
{
	struct rig *rig = rig_new(MOVER_RATE_UNLIMITED);
	uint64_t window;

	(void)unused;
	run_for(rig, NS_PER_S);
	window = rig->pacer.window_bytes;       /* it will not grow: nothing says that it pays */
	pacer_started(&rig->pacer, window);
	assert_false(pacer_may_start(&rig->pacer, MIB));
	rig->ready = 0;
	run_for(rig, NS_PER_S);
	assert_int_equal(rig->ready, 0);
	pacer_finished(&rig->pacer, MIB, loop_now_ns(rig->loop));
	assert_int_equal(rig->ready, 1);
	assert_true(pacer_may_start(&rig->pacer, MIB));
	pacer_finished(&rig->pacer, window - MIB, loop_now_ns(rig->loop));
	assert_int_equal(rig->ready, 1);
	/* The copy must go on: one request always may. */
	assert_true(pacer_may_start(&rig->pacer, UINT64_C(1) << 40));
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_cap_is_kept),
		cmocka_unit_test(test_many_looks_lose_nothing),
		cmocka_unit_test(test_debt_is_bounded_and_sheds),
		cmocka_unit_test(test_the_rate_can_be_changed),
		cmocka_unit_test(test_who_found_no_room_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

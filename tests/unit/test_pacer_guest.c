/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the copier takes an idle disk whole, and makes room for a guest, whatever kind it is.
 * Method: a model of a store, on the simulated loop.  Requests are served one after another
 * (bytes at a rate, and something for each), then take a while that overlaps; a throttled one
 * lets what is over its rate wait for the kernel's next tick.  A job of the copier reads and
 * writes there, a guest's request writes.  What the guest gets beside the copy is compared
 * with what it gets alone, and the copy with one that is alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/mirror/pacer.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define US NS_PER_US
#define MS NS_PER_MS
#define GUEST_BYTES (4 * KIB)
#define GUEST_DEPTH_MAX 64

struct store {
	uint64_t bytes_per_ms;
	uint64_t each_ns;               /* of the server's time, for any request */
	uint64_t latency_ns;            /* that overlaps with others' */
	uint64_t tick_ns;               /* throttled: what must wait waits for a tick; 0: not */
	/* now and then everything stands still, whoever is to blame */
	uint64_t stall_every_ns, stall_ns;
};

struct rig;

struct request {
	struct timer timer;
	struct rig *rig;
	uint64_t bytes, started_ns;
	bool writes;                    /* a copier's job: it has been read */
};

struct rig {
	struct loop *loop;
	struct pacer pacer;
	struct store store;
	uint64_t free_ns;               /* when the server has done what it has */
	bool copies;
	uint64_t copied_bytes;
	struct io_stats stats;
	uint64_t guest_in_flight;
	uint64_t rate_per_s;            /* 0: none, or a closed loop */
	uint64_t depth;
	struct timer arrival;
	bool guest_stops;
	bool stuck;                     /* no request comes back */
};

/* ---- the store ---- */

static uint64_t store_serve(struct rig *rig, uint64_t bytes)
{
	const struct store *store = &rig->store;
	uint64_t now_ns = loop_now_ns(rig->loop);
	uint64_t start_ns = MAX(now_ns, rig->free_ns), done_ns;

	rig->free_ns = start_ns + store->each_ns + bytes * MS / store->bytes_per_ms;
	done_ns = rig->free_ns;
	if (store->tick_ns) {
		/* Below its rate it is as fast as memory; over it, at the tick. */
		done_ns = now_ns + bytes * MS / (4096 * MIB / 1000);
		if (start_ns > now_ns + MS / 2)
			done_ns = (start_ns / store->tick_ns + 1) * store->tick_ns;
	}
	done_ns += store->latency_ns + loop_random_below(rig->loop, store->latency_ns / 2 + 1);
	if (store->stall_every_ns && done_ns % store->stall_every_ns < store->stall_ns)
		done_ns += store->stall_ns - done_ns % store->stall_every_ns;
	return done_ns;
}

static struct request *request_start(struct rig *rig, uint64_t bytes,
				     void (*done)(struct timer *timer))
{
	struct request *request = calloc(1, sizeof(*request));

	assert_non_null(request);
	*request = (struct request){ .rig = rig, .bytes = bytes,
				     .started_ns = loop_now_ns(rig->loop) };
	timer_init(&request->timer, rig->loop, done);
	timer_start_at(&request->timer, store_serve(rig, bytes));
	return request;
}

/* ---- the copier ---- */

static void copy_some(struct rig *rig);

static void copy_done(struct timer *timer)
{
	struct request *request = container_of(timer, struct request, timer);
	struct rig *rig = request->rig;

	if (!request->writes) {
		request->writes = true;
		timer_start_at(timer, store_serve(rig, request->bytes));
		return;
	}
	rig->copied_bytes += request->bytes;
	pacer_finished(&rig->pacer, request->bytes, request->started_ns);
	free(request);
	copy_some(rig);
}

static void copy_some(struct rig *rig)
{
	while (rig->copies && pacer_may_start(&rig->pacer, pacer_job_bytes(&rig->pacer))) {
		uint64_t bytes = pacer_job_bytes(&rig->pacer);

		pacer_started(&rig->pacer, bytes);
		request_start(rig, bytes, copy_done);
	}
}

static void on_ready(void *user)
{
	copy_some(user);
}

/* ---- the guest ---- */

static void guest_start(struct rig *rig);

static void guest_done(struct timer *timer)
{
	struct request *request = container_of(timer, struct request, timer);
	struct rig *rig = request->rig;

	if (rig->stuck && !rig->guest_stops) {
		timer_start(timer, 10 * MS);
		return;
	}
	io_stats_record(&rig->stats, BLK_WRITE, request->bytes,
			loop_now_ns(rig->loop) - request->started_ns, 0);
	rig->guest_in_flight--;
	free(request);
	if (rig->depth && !rig->guest_stops)
		guest_start(rig);
}

static void guest_start(struct rig *rig)
{
	rig->guest_in_flight++;
	request_start(rig, GUEST_BYTES, guest_done);
}

static void guest_arrives(struct timer *timer)
{
	struct rig *rig = container_of(timer, struct rig, arrival);
	uint64_t mean_ns = NS_PER_S / rig->rate_per_s;

	if (rig->guest_stops)
		return;
	if (rig->guest_in_flight < GUEST_DEPTH_MAX)
		guest_start(rig);
	timer_start(timer, mean_ns / 2 + loop_random_below(rig->loop, mean_ns));
}

static void guest_begin(struct rig *rig, uint64_t rate_per_s, uint64_t depth)
{
	rig->guest_stops = false;
	rig->rate_per_s = rate_per_s;
	rig->depth = depth;
	if (rate_per_s)
		timer_start(&rig->arrival, 1);
	for (uint64_t i = 0; i < depth; i++)
		guest_start(rig);
}

static void guest_end(struct rig *rig)
{
	rig->guest_stops = true;
	timer_stop(&rig->arrival);
}

static void on_sample(void *user, struct io_snapshot *out, uint64_t *in_flight)
{
	struct rig *rig = user;

	io_stats_snapshot(&rig->stats, out);
	*in_flight = rig->guest_in_flight;
}

/* ---- running ---- */

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

static struct rig *rig_new(const struct store *store)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->loop = loop_sim_new(7);
	rig->store = *store;
	pacer_init(&rig->pacer, rig->loop, MOVER_RATE_UNLIMITED, on_ready, on_sample, rig);
	timer_init(&rig->arrival, rig->loop, guest_arrives);
	return rig;
}

static void rig_copy(struct rig *rig)
{
	pacer_start(&rig->pacer);
	rig->copies = true;
	copy_some(rig);
}

static void rig_free(struct rig *rig)
{
	rig->copies = false;
	guest_end(rig);
	pacer_stop(&rig->pacer);
	while (loop_sim_step(rig->loop))
		continue;
	assert_int_equal(rig->pacer.in_flight_bytes, 0);
	loop_free(rig->loop);
	free(rig);
}

struct felt {
	uint64_t ops, p50_ns, p99_ns, copied_bytes;
};

static struct felt feel_for(struct rig *rig, uint64_t ns)
{
	struct io_snapshot before, after;
	uint64_t copied_bytes = rig->copied_bytes;

	io_stats_snapshot(&rig->stats, &before);
	run_for(rig, ns);
	io_stats_snapshot(&rig->stats, &after);
	io_snapshot_subtract(&after, &before);
	return (struct felt){ .ops = io_snapshot_ops(&after),
			      .p50_ns = io_snapshot_quantile_ns(&after, 500),
			      .p99_ns = io_snapshot_quantile_ns(&after, 990),
			      .copied_bytes = rig->copied_bytes - copied_bytes };
}

/* ---- the table ---- */

static const struct store disk = { .bytes_per_ms = 2048 * KIB, .each_ns = 10 * US,
				   .latency_ns = 80 * US };
static const struct store slow_disk = { .bytes_per_ms = 120 * KIB, .each_ns = 100 * US,
					.latency_ns = 500 * US };
static const struct store far = { .bytes_per_ms = 1024 * KIB, .each_ns = 5 * US,
				  .latency_ns = 20 * MS };
static const struct store throttled = { .bytes_per_ms = 800 * KIB, .latency_ns = 60 * US,
					.tick_ns = 4 * MS };
static const struct store noisy = { .bytes_per_ms = 2048 * KIB, .each_ns = 10 * US,
				    .latency_ns = 80 * US, .stall_every_ns = 97 * MS,
				    .stall_ns = 3 * MS };

static const struct wanted {
	const char *name;
	const struct store *store;
	uint64_t rate_per_s, depth;
	unsigned copy_per_cent;         /* of a copy alone, at least */
	unsigned ops_per_cent;          /* of the guest alone, at least */
	unsigned p99_times;             /* of the guest alone, at most; 0: it has no time to spare */
} table[] = {
	{ "disk, fixed",         &disk,      2000, 0,  67, 90, 3 },
	{ "disk, fixed, few",    &disk,      100,  0,  67, 90, 4 },
	{ "disk, closed 1",      &disk,      0,    1,  33, 40, 3 },
	{ "disk, closed 8",      &disk,      0,    8,  33, 40, 3 },
	{ "slow, fixed",         &slow_disk, 200,  0,  67, 90, 4 },
	{ "slow, closed 8",      &slow_disk, 0,    8,  25, 40, 3 },
	{ "far, fixed",          &far,       500,  0,  67, 90, 3 },
	{ "far, closed 8",       &far,       0,    8,  67, 90, 3 },
	{ "throttled, fixed",    &throttled, 2000, 0,  67, 90, 3 },
	{ "throttled, closed 8", &throttled, 0,    8,  33, 40, 0 },
	{ "noisy, fixed",        &noisy,     2000, 0,  67, 90, 3 },
	{ "noisy, closed 8",     &noisy,     0,    8,  33, 40, 3 },
};

static uint64_t copy_alone(const struct store *store)
{
	struct rig *rig = rig_new(store);
	struct felt felt;

	rig_copy(rig);
	felt = feel_for(rig, 5 * NS_PER_S);
	rig_free(rig);
	return felt.copied_bytes;
}

static void test_the_table(void **unused)
{
	unsigned failed = 0;

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		const struct wanted *wanted = &table[i];
		uint64_t idle_bytes = copy_alone(wanted->store);
		struct rig *rig = rig_new(wanted->store);
		struct felt alone, beside;
		bool ok;

		guest_begin(rig, wanted->rate_per_s, wanted->depth);
		run_for(rig, NS_PER_S);
		alone = feel_for(rig, 5 * NS_PER_S);
		rig_copy(rig);
		beside = feel_for(rig, 5 * NS_PER_S);
		rig_free(rig);
		ok = beside.copied_bytes * 100 >= idle_bytes * wanted->copy_per_cent &&
		     beside.ops * 100 >= alone.ops * wanted->ops_per_cent &&
		     (!wanted->p99_times || beside.p99_ns <= alone.p99_ns * wanted->p99_times);
		print_message("%-20s copy %3u %% of %4u MB/s, IOPS %3u %% of %6u, p99 x %5.2f of %5.2f ms%s\n",
			      wanted->name, (unsigned)(beside.copied_bytes * 100 / idle_bytes),
			      (unsigned)(idle_bytes / 5000000),
			      (unsigned)(beside.ops * 100 / alone.ops), (unsigned)(alone.ops / 5),
			      (double)beside.p99_ns / (double)alone.p99_ns,
			      (double)alone.p99_ns / 1e6, ok ? "" : "  <- missed");
		failed += !ok;
	}
	assert_int_equal(failed, 0);
}

/* The model's own limit: a job's bytes pass twice. */
static void test_an_idle_disk_is_taken_whole(void **unused)
{
	const struct store *stores[] = { &disk, &slow_disk, &throttled, &noisy };

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(stores); i++)
		assert_true(copy_alone(stores[i]) >= 5000 * stores[i]->bytes_per_ms / 2 * 95 / 100);
}

/* Whole, but not with a queue that the first request of a guest would stand in for long. */
static void test_an_idle_disk_has_no_long_queue(void **unused)
{
	struct rig *rig = rig_new(&slow_disk);
	struct felt felt;

	(void)unused;
	rig_copy(rig);
	run_for(rig, 3 * NS_PER_S);
	guest_start(rig);
	felt = feel_for(rig, NS_PER_S);
	assert_int_equal(felt.ops, 1);
	assert_in_range(felt.p99_ns, 1, 60 * MS);
	rig_free(rig);
}

/* The guest comes when the window is wide: what it feels then must not pass for normal. */
static void test_a_guest_that_comes_late_is_known(void **unused)
{
	struct rig *rig = rig_new(&disk);

	(void)unused;
	rig_copy(rig);
	run_for(rig, 3 * NS_PER_S);
	assert_int_equal(rig->pacer.window_bytes, PACER_WINDOW_MAX);
	guest_begin(rig, 2000, 0);
	run_for(rig, 300 * MS);
	assert_in_range(rig->pacer.watch.late_ns, 100 * US, 500 * US);
	assert_true(rig->pacer.window_bytes < PACER_WINDOW_START);
	/* It goes: whole again, at once; a moment without requests is no leave, though. */
	run_for(rig, NS_PER_S);
	guest_end(rig);
	run_for(rig, 60 * MS);
	assert_true(rig->pacer.window_bytes < PACER_WINDOW_START);
	run_for(rig, 300 * MS);
	assert_int_equal(rig->pacer.window_bytes, PACER_WINDOW_MAX);
	rig_free(rig);
}

/* Not one request comes back: that is no idle guest, and no reason to end the copy either. */
static void test_a_stuck_guest_is_not_idle(void **unused)
{
	(void)unused;
	for (int from_the_start = 0; from_the_start < 2; from_the_start++) {
		struct rig *rig = rig_new(&disk);

		rig->stuck = from_the_start;
		rig_copy(rig);
		guest_begin(rig, 2000, 0);
		run_for(rig, NS_PER_S);
		rig->stuck = true;
		run_for(rig, NS_PER_S);
		assert_int_equal(rig->pacer.window_bytes, PACER_WINDOW_MIN);
		assert_true(feel_for(rig, 5 * NS_PER_S).copied_bytes > 10 * MIB);
		rig->stuck = false;
		run_for(rig, 3 * NS_PER_S);
		assert_true(rig->pacer.window_bytes >= PACER_WINDOW_SMALL);
		rig_free(rig);
	}
}

/* The store has become slower, or faster: the window follows, and the guest keeps its pace. */
static void test_a_changed_store_is_noticed(void **unused)
{
	struct rig *rig = rig_new(&disk);
	uint64_t wide_bytes;

	(void)unused;
	rig_copy(rig);
	guest_begin(rig, 1000, 0);
	run_for(rig, 5 * NS_PER_S);
	wide_bytes = feel_for(rig, 2 * NS_PER_S).copied_bytes;
	rig->store.bytes_per_ms /= 4;
	run_for(rig, NS_PER_S);
	assert_true(feel_for(rig, 2 * NS_PER_S).ops >= 1900);
	rig->store.bytes_per_ms *= 4;
	run_for(rig, 5 * NS_PER_S);
	assert_true(feel_for(rig, 2 * NS_PER_S).copied_bytes >= wide_bytes * 3 / 4);
	rig_free(rig);
}

/* A guest that works differently from now on is learnt anew, upwards and downwards. */
static void test_a_changed_guest_is_learnt(void **unused)
{
	struct rig *rig = rig_new(&disk);

	(void)unused;
	rig_copy(rig);
	guest_begin(rig, 1000, 0);
	run_for(rig, 5 * NS_PER_S);
	assert_in_range(rig->pacer.watch.late_ns, 100 * US, 500 * US);
	rig->store.latency_ns = 2 * MS;
	run_for(rig, 5 * NS_PER_S);
	assert_in_range(rig->pacer.watch.late_ns, 5 * MS, 10 * MS);
	assert_true(rig->pacer.window_bytes > PACER_WINDOW_SMALL);
	rig->store.latency_ns = disk.latency_ns;
	run_for(rig, 5 * NS_PER_S);
	assert_in_range(rig->pacer.watch.late_ns, 100 * US, 500 * US);
	rig_free(rig);
}

/* What the copier itself costs must not pass for what the guest feels alone, ever. */
static void test_the_copier_is_not_learnt(void **unused)
{
	struct rig *rig = rig_new(&disk);

	(void)unused;
	rig_copy(rig);
	guest_begin(rig, 0, 8);
	run_for(rig, 2 * NS_PER_S);
	for (int i = 0; i < 30; i++) {
		run_for(rig, NS_PER_S);
		assert_in_range(rig->pacer.watch.late_ns, 100 * US, 500 * US);
	}
	rig_free(rig);
}

/* A guest that does something now and then does not keep the copier looking at it. */
static void test_a_rare_guest_costs_little(void **unused)
{
	uint64_t idle_bytes = copy_alone(&disk);
	struct rig *rig = rig_new(&disk);

	(void)unused;
	guest_begin(rig, 3, 0);
	rig_copy(rig);
	assert_true(feel_for(rig, 5 * NS_PER_S).copied_bytes >= idle_bytes / 2);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_table),
		cmocka_unit_test(test_an_idle_disk_is_taken_whole),
		cmocka_unit_test(test_an_idle_disk_has_no_long_queue),
		cmocka_unit_test(test_a_guest_that_comes_late_is_known),
		cmocka_unit_test(test_a_stuck_guest_is_not_idle),
		cmocka_unit_test(test_a_changed_store_is_noticed),
		cmocka_unit_test(test_a_changed_guest_is_learnt),
		cmocka_unit_test(test_the_copier_is_not_learnt),
		cmocka_unit_test(test_a_rare_guest_costs_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

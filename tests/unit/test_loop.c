/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the real loop keeps its contract: order, once, from other threads, no lost wake-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/base/loop.h"

/* Each test has a loop of its own; a test that hangs is ended by this alarm. */
static struct loop *loop;

static int loop_setup(void **state)
{
	(void)state;
	alarm(120);
	loop = loop_new();
	return loop ? 0 : -1;
}

static int loop_teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

/* ---- tasks ---- */

#define TASKS 1000

struct numbered {
	struct task task;
	unsigned number;
};

static struct numbered numbered[TASKS];
static unsigned next_number;

static void numbered_ran(struct task *task)
{
	struct numbered *one = container_of(task, struct numbered, task);

	assert_int_equal(one->number, next_number++);
	assert_false(task->queued);
	if (next_number == TASKS)
		loop_stop(loop);
}

static void numbered_init(void)
{
	next_number = 0;
	for (unsigned i = 0; i < TASKS; i++)
		numbered[i] = (struct numbered){ .task.run = numbered_ran, .number = i };
}

static void test_posts_run_in_order_and_later(void **state)
{
	(void)state;
	numbered_init();
	for (unsigned i = 0; i < TASKS; i++)
		loop_post(loop, &numbered[i].task);
	assert_int_equal(next_number, 0);
	loop_run(loop);
	assert_int_equal(next_number, TASKS);
}

static void test_sends_run_in_order(void **state)
{
	(void)state;
	numbered_init();
	for (unsigned i = 0; i < TASKS; i++)
		loop_send(loop, &numbered[i].task);
	loop_run(loop);
	assert_int_equal(next_number, TASKS);
}

static void must_not_run(struct task *task)
{
	(void)task;
	fail_msg("a task that was taken back ran");
}

static void test_unpost(void **state)
{
	struct task extra[3];

	(void)state;
	numbered_init();
	for (int i = 0; i < 3; i++)
		extra[i] = (struct task){ .run = must_not_run };
	loop_unpost(loop, &extra[0]);
	loop_post(loop, &extra[0]);                     /* first, middle and last in the queue */
	for (unsigned i = 0; i < TASKS; i++) {
		loop_post(loop, &numbered[i].task);
		if (i == TASKS / 2)
			loop_post(loop, &extra[1]);
	}
	loop_post(loop, &extra[2]);
	for (int i = 0; i < 3; i++) {
		loop_unpost(loop, &extra[i]);
		assert_false(extra[i].queued);
	}
	loop_run(loop);
	assert_int_equal(next_number, TASKS);
	loop_post(loop, &extra[0]);                     /* the tail survived an emptied queue */
	loop_unpost(loop, &extra[0]);
	next_number = TASKS - 1;
	numbered[0].number = TASKS - 1;
	loop_post(loop, &numbered[0].task);
	loop_run(loop);
}

static unsigned inside_depth, inside_runs;

static void reposting(struct task *task)
{
	assert_int_equal(inside_depth, 0);              /* never from inside loop_post() */
	inside_depth++;
	if (++inside_runs < 500)
		loop_post(loop, task);                  /* more than one turn's worth */
	else
		loop_stop(loop);
	inside_depth--;
}

static void test_post_from_inside(void **state)
{
	struct task task = { .run = reposting };

	(void)state;
	inside_runs = 0;
	loop_post(loop, &task);
	loop_run(loop);
	assert_int_equal(inside_runs, 500);
}

/* ---- senders from other threads ---- */

#define SENDERS 4
#define MESSAGES 20000

struct message {
	struct task task;
	unsigned sender, number;
};

struct sender {
	pthread_t thread;
	struct message *messages;
	unsigned number, received;
};

static struct sender senders[SENDERS];
static unsigned received_count;

static void message_received(struct task *task)
{
	struct message *message = container_of(task, struct message, task);
	struct sender *sender = &senders[message->sender];

	assert_true(loop_is_here(loop));
	assert_int_equal(message->number, sender->received++);  /* FIFO per sender */
	if (++received_count == SENDERS * MESSAGES)
		loop_stop(loop);
}

static void *sender_main(void *arg)
{
	struct sender *sender = arg;

	for (unsigned i = 0; i < MESSAGES; i++) {
		sender->messages[i] = (struct message){ .task.run = message_received,
							.sender = sender->number, .number = i };
		loop_send(loop, &sender->messages[i].task);
	}
	return NULL;
}

static void run_senders(uint64_t spin_ns)
{
	received_count = 0;
	loop_set_spin_ns(loop, spin_ns);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .number = i };
		senders[i].messages = calloc(MESSAGES, sizeof(struct message));
		assert_int_equal(pthread_create(&senders[i].thread, NULL, sender_main,
						&senders[i]), 0);
	}
	loop_run(loop);
	for (unsigned i = 0; i < SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		assert_int_equal(senders[i].received, MESSAGES);
		free(senders[i].messages);
	}
}

static void test_many_senders(void **state)
{
	(void)state;
	run_senders(0);
}

static void test_many_senders_while_spinning(void **state)
{
	(void)state;
	run_senders(50 * NS_PER_US);
}

/* ---- ping-pong between two loops: a lost wake-up hangs it ---- */

struct ping {
	struct loop *loops[2];
	struct task task;
	unsigned hops;
};

static void ping_hop(struct task *task)
{
	struct ping *ping = container_of(task, struct ping, task);
	unsigned here = ping->hops++ % 2;

	assert_true(loop_is_here(ping->loops[here]));
	if (ping->hops >= 20000) {
		loop_stop(ping->loops[0]);
		loop_stop(ping->loops[1]);
		return;
	}
	loop_send(ping->loops[1 - here], task);
}

static void *loop_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void test_ping_pong(void **state)
{
	struct ping ping = { .loops = { loop, loop_new() }, .task.run = ping_hop };
	pthread_t thread;

	(void)state;
	loop_set_spin_ns(ping.loops[1], 20 * NS_PER_US);        /* one sleeps, one spins */
	assert_int_equal(pthread_create(&thread, NULL, loop_thread, ping.loops[1]), 0);
	loop_send(loop, &ping.task);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_int_equal(ping.hops, 20000);
	loop_free(ping.loops[1]);
}

/* ---- stop ---- */

static void *stopper_main(void *arg)
{
	loop_stop(arg);
	return NULL;
}

/* An idle loop must see a stop from elsewhere, whether it sleeps or spins just then. */
static void test_stop_from_another_thread(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		pthread_t thread;

		loop_set_spin_ns(loop, i % 2 ? 20 * NS_PER_MS : 0);
		assert_int_equal(pthread_create(&thread, NULL, stopper_main, loop), 0);
		loop_run(loop);
		pthread_join(thread, NULL);
	}
}

static void test_stop_before_run(void **state)
{
	(void)state;
	loop_stop(loop);
	loop_run(loop);
	loop_stop(loop);
	loop_run(loop);
}

/* ---- timers ---- */

#define TIMERS 64
#define SHADOW_STEPS 10000

static struct timer timers[TIMERS];
static bool shadow_started[TIMERS];
static uint64_t shadow_deadline_ns[TIMERS], shadow_sequence[TIMERS], shadow_clock;
static unsigned shadow_fired;

static int shadow_first(void)
{
	int first = -1;

	for (int i = 0; i < TIMERS; i++) {
		if (!shadow_started[i])
			continue;
		if (first < 0 || shadow_deadline_ns[i] < shadow_deadline_ns[first] ||
		    (shadow_deadline_ns[i] == shadow_deadline_ns[first] &&
		     shadow_sequence[i] < shadow_sequence[first]))
			first = i;
	}
	return first;
}

static void shadow_timer_fired(struct timer *timer)
{
	int index = (int)(timer - timers);

	assert_int_equal(index, shadow_first());
	assert_true(loop_now_ns(loop) >= shadow_deadline_ns[index]);
	assert_false(timer->started);
	shadow_started[index] = false;
	shadow_fired++;
	if (shadow_first() < 0)
		loop_stop(loop);
}

static void shadow_start(int index, uint64_t deadline_ns)
{
	timer_start_at(&timers[index], deadline_ns);
	shadow_started[index] = true;
	shadow_deadline_ns[index] = deadline_ns;
	shadow_sequence[index] = shadow_clock++;
}

/* Random starts and stops against a table searched in full; what is left fires in order. */
static void test_timers_against_a_shadow(void **state)
{
	(void)state;
	shadow_fired = 0;
	for (int i = 0; i < TIMERS; i++)
		timer_init(&timers[i], loop, shadow_timer_fired);
	for (int round = 0; round < 4; round++) {
		uint64_t now_ns = loop_now_ns(loop);

		for (int step = 0; step < SHADOW_STEPS; step++) {
			int index = (int)loop_random_below(loop, TIMERS);

			if (loop_random_below(loop, 3) == 0) {
				timer_stop(&timers[index]);
				shadow_started[index] = false;
			} else {                /* few distinct deadlines: ties are frequent */
				shadow_start(index, now_ns + loop_random_below(loop, 20) *
								     NS_PER_MS / 4);
			}
			assert_int_equal(timers[index].started, shadow_started[index]);
		}
		shadow_start(0, now_ns);
		loop_run(loop);
		assert_int_equal(shadow_first(), -1);
	}
	assert_true(shadow_fired > TIMERS);
}

static void never_fires(struct timer *timer)
{
	(void)timer;
	fail_msg("a stopped timer fired");
}

static void stop_others(struct timer *timer)
{
	for (int i = 0; i < TIMERS; i++)
		if (&timers[i] != timer)
			timer_stop(&timers[i]);
	loop_stop(loop);
}

static void test_stop_timers_from_a_timer(void **state)
{
	(void)state;
	for (int i = 0; i < TIMERS; i++) {
		timer_init(&timers[i], loop, i ? never_fires : stop_others);
		timer_start_at(&timers[i], 1);          /* all long due; the first one wins */
	}
	loop_run(loop);
	timer_stop(&timers[0]);                         /* harmless */
}

/* A timer that is always late must not keep its loop from posted tasks and from stopping. */
static unsigned late_fired;

static void always_late(struct timer *timer)
{
	late_fired++;
	timer_start_at(timer, 1);
}

static void stop_now(struct task *task)
{
	(void)task;
	loop_stop(loop);
}

static void test_a_late_timer_does_not_starve(void **state)
{
	struct task task = { .run = stop_now };

	(void)state;
	late_fired = 0;
	timer_init(&timers[0], loop, always_late);
	timer_start_at(&timers[0], 1);
	loop_post(loop, &task);
	loop_run(loop);
	assert_int_equal(late_fired, 1);
	timer_stop(&timers[0]);
}

static void stop_by_timer(struct timer *timer)
{
	(void)timer;
	loop_stop(loop);
}

static void test_a_delay_beyond_the_clock(void **state)
{
	(void)state;
	timer_init(&timers[0], loop, never_fires);
	timer_init(&timers[1], loop, stop_by_timer);
	timer_start(&timers[0], LOOP_NO_DEADLINE);
	timer_start(&timers[1], 2 * NS_PER_MS);
	loop_run(loop);
	timer_stop(&timers[0]);
}

/* Alone in the loop: only the timerfd can end the wait, sleeping or spinning. */
static void test_a_lone_timer_wakes_the_loop(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		uint64_t start_ns = loop_now_ns(loop);

		loop_set_spin_ns(loop, i % 2 ? 5 * NS_PER_MS : 0);
		timer_init(&timers[0], loop, stop_by_timer);
		timer_init(&timers[1], loop, never_fires);
		timer_start(&timers[1], 3600 * NS_PER_S);
		timer_start(&timers[0], NS_PER_MS);
		loop_run(loop);
		assert_true(loop_now_ns(loop) >= start_ns + NS_PER_MS);
		timer_stop(&timers[1]);
	}
}

/* ---- watches ---- */

struct watched {
	struct watch watch;
	unsigned calls;
	unsigned last_events;
	unsigned stop_after;
};

static void watched_ready(struct watch *watch, unsigned events)
{
	struct watched *watched = container_of(watch, struct watched, watch);

	watched->calls++;
	watched->last_events = events;
	if (watched->calls == watched->stop_after)
		loop_stop(loop);
}

static void test_watch_read_is_level_triggered(void **state)
{
	struct watched watched = { .stop_after = 3 };
	int pipe_fds[2];

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	assert_int_equal(watch_start(&watched.watch, loop, pipe_fds[0], WATCH_READ, watched_ready),
			 0);
	assert_true(watch_is_started(&watched.watch));
	loop_run(loop);                                 /* nobody reads: it comes again */
	assert_int_equal(watched.calls, 3);
	assert_int_equal(watched.last_events, WATCH_READ);
	watch_stop(&watched.watch);
	watch_stop(&watched.watch);
	assert_false(watch_is_started(&watched.watch));
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void test_watch_write_pause_and_again(void **state)
{
	struct watched watched = { .stop_after = 1 };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(watch_start(&watched.watch, loop, fds[0], WATCH_READ, watched_ready), 0);
	timer_init(&timers[0], loop, stop_by_timer);
	timer_start(&timers[0], 2 * NS_PER_MS);
	loop_run(loop);
	assert_int_equal(watched.calls, 0);
	watch_set_events(&watched.watch, WATCH_READ | WATCH_WRITE);
	loop_run(loop);
	assert_int_equal(watched.last_events, WATCH_WRITE);
	watch_set_events(&watched.watch, 0);            /* paused: writable, but nobody asks */
	timer_start(&timers[0], 2 * NS_PER_MS);
	loop_run(loop);
	assert_int_equal(watched.calls, 1);
	watched.stop_after = 2;
	watch_set_events(&watched.watch, WATCH_WRITE);
	loop_run(loop);
	watch_stop(&watched.watch);
	close(fds[0]);
	close(fds[1]);
}

static void test_watch_hangup(void **state)
{
	struct watched watched = { .stop_after = 1 };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(watch_start(&watched.watch, loop, fds[0], WATCH_HANGUP, watched_ready), 0);
	close(fds[1]);
	loop_run(loop);
	assert_true(watched.last_events & WATCH_HANGUP);
	watch_stop(&watched.watch);
	close(fds[0]);
}

/* A descriptor in error state (EPOLLERR) goes on telling until its watch is stopped. */
static void test_watch_error_is_level_triggered(void **state)
{
	struct watched watched = { .stop_after = 3 };
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(watch_start(&watched.watch, loop, fds[1], WATCH_WRITE, watched_ready), 0);
	close(fds[0]);                                  /* no reader: EPOLLERR on the writer */
	loop_run(loop);
	assert_int_equal(watched.calls, 3);
	assert_true(watched.last_events & WATCH_HANGUP);
	assert_true(watched.last_events & WATCH_WRITE);
	watch_stop(&watched.watch);
	close(fds[1]);
}

static void stops_itself(struct watch *watch, unsigned events)
{
	(void)events;
	assert_true(watch_is_started(watch));
	watch_stop(watch);
	loop_stop(loop);
}

static void test_watch_stop_in_callback_and_restart(void **state)
{
	struct watch watch;
	int pipe_fds[2];

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	for (int i = 0; i < 3; i++) {                   /* the same descriptor, at once */
		assert_int_equal(watch_start(&watch, loop, pipe_fds[0], WATCH_READ, stops_itself),
				 0);
		loop_run(loop);
		assert_false(watch_is_started(&watch));
	}
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void test_watch_of_a_plain_file_is_refused(void **state)
{
	struct watch watch;
	FILE *file = tmpfile();

	(void)state;
	assert_non_null(file);
	assert_true(watch_start(&watch, loop, fileno(file), WATCH_READ, stops_itself) < 0);
	assert_false(watch_is_started(&watch));
	fclose(file);
}

/* ---- turn hooks ---- */

struct hooked {
	struct turn_hook hook;
	struct task task;
	unsigned runs, turns;
};

static void hook_ran(struct turn_hook *hook)
{
	container_of(hook, struct hooked, hook)->runs++;
}

static void hooked_turn(struct task *task)
{
	struct hooked *hooked = container_of(task, struct hooked, task);

	assert_int_equal(hooked->runs, hooked->turns);
	for (int i = 0; i < 5; i++)
		loop_at_turn_end(loop, &hooked->hook);  /* armed often, run once */
	if (++hooked->turns == 5) {
		turn_hook_cancel(&hooked->hook);
		loop_stop(loop);
	}
}

static void test_hook_once_per_turn(void **state)
{
	struct hooked hooked = { .task.run = hooked_turn };

	(void)state;
	turn_hook_init(&hooked.hook, hook_ran);
	for (int turn = 0; turn < 5; turn++) {
		struct task stop = { .run = stop_now };

		loop_post(loop, &hooked.task);
		loop_post(loop, &stop);
		loop_run(loop);
	}
	assert_int_equal(hooked.turns, 5);
	assert_int_equal(hooked.runs, 4);               /* the last one was cancelled */
}

static unsigned rearming_runs;

static void hook_rearms(struct turn_hook *hook)
{
	if (++rearming_runs == 100)
		loop_stop(loop);
	loop_at_turn_end(loop, hook);
}

/* A hook that arms itself again runs once per turn, and the loop does not sleep meanwhile. */
static void test_hook_that_rearms(void **state)
{
	struct turn_hook hook;

	(void)state;
	rearming_runs = 0;
	turn_hook_init(&hook, hook_rearms);
	loop_at_turn_end(loop, &hook);
	loop_run(loop);
	assert_int_equal(rearming_runs, 100);
	turn_hook_cancel(&hook);
}

/* ---- chance ---- */

static void test_random(void **state)
{
	uint64_t seen = 0;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		uint64_t value = loop_random_below(loop, 10);

		assert_true(value < 10);
		seen |= UINT64_C(1) << value;
	}
	assert_int_equal(seen, 0x3ff);
	assert_int_equal(loop_random_below(loop, 1), 0);
	assert_true(loop_random(loop) != loop_random(loop));
	assert_false(loop_is_simulated(loop));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, loop_setup, loop_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_posts_run_in_order_and_later),
		CASE(test_sends_run_in_order),
		CASE(test_unpost),
		CASE(test_post_from_inside),
		CASE(test_many_senders),
		CASE(test_many_senders_while_spinning),
		CASE(test_ping_pong),
		CASE(test_stop_from_another_thread),
		CASE(test_stop_before_run),
		CASE(test_timers_against_a_shadow),
		CASE(test_stop_timers_from_a_timer),
		CASE(test_a_late_timer_does_not_starve),
		CASE(test_a_delay_beyond_the_clock),
		CASE(test_a_lone_timer_wakes_the_loop),
		CASE(test_watch_read_is_level_triggered),
		CASE(test_watch_write_pause_and_again),
		CASE(test_watch_hangup),
		CASE(test_watch_error_is_level_triggered),
		CASE(test_watch_stop_in_callback_and_restart),
		CASE(test_watch_of_a_plain_file_is_refused),
		CASE(test_hook_once_per_turn),
		CASE(test_hook_that_rearms),
		CASE(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a simulated run is its seed: same seed, same steps; nothing takes real time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"

#define ACTORS 8
#define TRACE_BYTES 4000

/* Actors that post and time themselves at random and leave their number in a trace. */
struct world {
	struct loop *loop;
	uint8_t trace[TRACE_BYTES];
	size_t used;
	struct actor {
		struct world *world;
		uint8_t number;
		struct task task;
		struct timer timer;
	} actors[ACTORS];
};

static void actor_act(struct actor *actor)
{
	struct world *world = actor->world;

	if (world->used == TRACE_BYTES)
		return;
	world->trace[world->used++] = actor->number;
	if (loop_random_below(world->loop, 3))
		loop_post(world->loop, &actor->task);
	else
		timer_start(&actor->timer, loop_random_below(world->loop, NS_PER_S));
}

static void actor_ran(struct task *task)
{
	actor_act(container_of(task, struct actor, task));
}

static void actor_timed(struct timer *timer)
{
	actor_act(container_of(timer, struct actor, timer));
}

static uint64_t world_run(struct world *world, uint64_t seed)
{
	uint64_t end_ns;

	memset(world, 0, sizeof(*world));
	world->loop = loop_sim_new(seed);
	assert_non_null(world->loop);
	for (uint8_t i = 0; i < ACTORS; i++) {
		struct actor *actor = &world->actors[i];

		actor->world = world;
		actor->number = i;
		actor->task.run = actor_ran;
		timer_init(&actor->timer, world->loop, actor_timed);
		loop_post(world->loop, &actor->task);
	}
	while (loop_sim_step(world->loop))
		continue;
	end_ns = loop_now_ns(world->loop);
	loop_free(world->loop);
	return end_ns;
}

static void test_same_seed_same_trace(void **state)
{
	static struct world one, two;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		assert_int_equal(world_run(&one, seed), world_run(&two, seed));
		assert_int_equal(one.used, TRACE_BYTES);
		assert_memory_equal(one.trace, two.trace, TRACE_BYTES);
	}
}

static void test_seeds_differ(void **state)
{
	static struct world one, two;

	(void)state;
	world_run(&one, 0);
	for (uint64_t seed = 1; seed < 20; seed++) {
		world_run(&two, seed);
		assert_memory_not_equal(one.trace, two.trace, TRACE_BYTES);
	}
}

static unsigned fired_count;
static uint64_t fired_at_ns[8];

static void note_fired(struct timer *timer)
{
	fired_at_ns[fired_count++] = loop_now_ns(timer->loop);
}

static void test_virtual_time(void **state)
{
	struct loop *loop = loop_sim_new(1);
	uint64_t start_ns = loop_now_ns(loop);
	struct timer day, hour, late;

	(void)state;
	assert_true(start_ns >= NS_PER_S);
	fired_count = 0;
	timer_init(&day, loop, note_fired);
	timer_init(&hour, loop, note_fired);
	timer_init(&late, loop, note_fired);
	timer_start(&day, 86400 * NS_PER_S);
	timer_start(&hour, 3600 * NS_PER_S);
	assert_int_equal(loop_now_ns(loop), start_ns);
	assert_true(loop_sim_step(loop));
	assert_int_equal(fired_at_ns[0], start_ns + 3600 * NS_PER_S);
	timer_start_at(&late, start_ns);                /* in the past: time never runs back */
	assert_true(loop_sim_step(loop));
	assert_int_equal(fired_at_ns[1], start_ns + 3600 * NS_PER_S);
	assert_true(loop_sim_step(loop));
	assert_int_equal(fired_at_ns[2], start_ns + 86400 * NS_PER_S);
	assert_false(loop_sim_step(loop));
	assert_int_equal(loop_sim_step_count(loop), 3);
	loop_free(loop);
}

static void test_never_is_no_step(void **state)
{
	struct loop *loop = loop_sim_new(1);
	struct timer timer;

	(void)state;
	timer_init(&timer, loop, note_fired);
	timer_start(&timer, LOOP_NO_DEADLINE);
	assert_false(loop_sim_step(loop));
	timer_stop(&timer);
	loop_free(loop);
}

static void note_ran(struct task *task)
{
	(void)task;
	fired_count++;
}

static void test_messages_and_unpost(void **state)
{
	struct loop *loop = loop_sim_new(1);
	struct task sent = { .run = note_ran }, posted = { .run = note_ran };

	(void)state;
	fired_count = 0;
	loop_unpost(loop, &posted);                     /* harmless */
	loop_send(loop, &sent);
	loop_post(loop, &posted);
	loop_unpost(loop, &posted);
	assert_false(posted.queued);
	assert_true(loop_sim_step(loop));
	assert_false(loop_sim_step(loop));
	assert_int_equal(fired_count, 1);
	loop_free(loop);
}

struct again_hook {
	struct turn_hook hook;
	struct loop *loop;
	int runs;
};

static void hook_again(struct turn_hook *hook)
{
	struct again_hook *again = container_of(hook, struct again_hook, hook);

	if (++again->runs < 3)
		loop_at_turn_end(again->loop, hook);
}

static void test_a_hook_rearms_for_the_next_step(void **state)
{
	struct again_hook again = { .loop = loop_sim_new(1) };
	struct task task = { .run = note_ran };

	(void)state;
	turn_hook_init(&again.hook, hook_again);
	loop_at_turn_end(again.loop, &again.hook);
	loop_post(again.loop, &task);
	assert_true(loop_sim_step(again.loop));
	assert_int_equal(again.runs, 1);
	assert_true(loop_sim_step(again.loop));
	assert_true(loop_sim_step(again.loop));
	assert_int_equal(again.runs, 3);
	assert_false(loop_sim_step(again.loop));
	loop_free(again.loop);
}

static void test_watches_do_not_exist(void **state)
{
	struct loop *loop = loop_sim_new(1);
	struct watch watch;

	(void)state;
	assert_true(loop_is_simulated(loop));
	assert_int_equal(watch_start(&watch, loop, 0, WATCH_READ, NULL), -ENOTSUP);
	assert_false(watch_is_started(&watch));
	watch_stop(&watch);
	loop_free(loop);
}

static void test_chance(void **state)
{
	struct loop *loop = loop_sim_new(3);
	unsigned hits = 0;

	(void)state;
	for (int i = 0; i < 10000; i++)
		hits += loop_sim_chance(loop, 10);
	assert_in_range(hits, 800, 1200);
	for (int i = 0; i < 100; i++)
		assert_true(loop_sim_chance(loop, 1));
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_seeds_differ),
		cmocka_unit_test(test_virtual_time),
		cmocka_unit_test(test_never_is_no_step),
		cmocka_unit_test(test_messages_and_unpost),
		cmocka_unit_test(test_a_hook_rearms_for_the_next_step),
		cmocka_unit_test(test_watches_do_not_exist),
		cmocka_unit_test(test_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

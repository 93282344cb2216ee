/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/loop_sim.h"

#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/loop_private.h"

struct loop_sim {
	struct loop base;
	uint64_t now_ns;
	uint64_t step_count;
};

static uint64_t loop_sim_now_ns(const struct loop *base)
{
	return container_of(base, struct loop_sim, base)->now_ns;
}

static void loop_sim_wait(struct loop *base, uint64_t deadline_ns)
{
	(void)deadline_ns;
	CHECK(!loop_is_simulated(base));        /* it is stepped, not run */
}

static void loop_sim_wake(struct loop *base)
{
	(void)base;                     /* every step reads the inbox */
}

static int loop_sim_watch_start(struct loop *base, struct watch *watch)
{
	(void)base;
	(void)watch;
	return -ENOTSUP;
}

static void loop_sim_watch_none(struct watch *watch)
{
	(void)watch;
}

static void loop_sim_free(struct loop *base)
{
	loop_release(base);
	free(container_of(base, struct loop_sim, base));
}

static const struct loop_backend loop_sim_backend = {
	.simulated = true,
	.now_ns = loop_sim_now_ns,
	.wait = loop_sim_wait,
	.wake = loop_sim_wake,
	.watch_start = loop_sim_watch_start,
	.watch_update = loop_sim_watch_none,
	.watch_stop = loop_sim_watch_none,
	.free = loop_sim_free,
};

struct loop *loop_sim_new(uint64_t seed)
{
	struct loop_sim *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop_init(&loop->base, &loop_sim_backend, seed);
	loop->now_ns = NS_PER_S;        /* so that "a second ago" is never negative */
	return &loop->base;
}

/* Take the index-th ready task out of the queue. */
static struct task *loop_sim_pick(struct loop *base)
{
	uint64_t index = loop_random_below(base, base->ready.count);

	for (uint64_t i = 0; i < index; i++)
		task_queue_push(&base->ready, task_queue_pop(&base->ready));
	return task_queue_pop(&base->ready);
}

bool loop_sim_step(struct loop *base)
{
	struct loop_sim *loop = container_of(base, struct loop_sim, base);
	struct timer *timer = loop_first_timer(base);

	CHECK(base->backend == &loop_sim_backend);
	loop_take_inbox(base);
	if (base->ready.count) {
		struct task *task = loop_sim_pick(base);

		task->queued = false;
		task->run(task);
	} else if (timer && timer->deadline_ns != LOOP_NO_DEADLINE) {
		if (timer->deadline_ns > loop->now_ns)
			loop->now_ns = timer->deadline_ns;
		CHECK(loop_fire_due_timer(base, loop->now_ns, UINT64_MAX));
	} else if (list_is_empty(&base->turn_hooks)) {
		return false;
	}
	loop_run_turn_hooks(base);
	loop->step_count++;
	return true;
}

uint64_t loop_sim_step_count(const struct loop *base)
{
	return container_of(base, struct loop_sim, base)->step_count;
}

bool loop_sim_chance(struct loop *loop, uint64_t one_in)
{
	return loop_random_below(loop, one_in) == 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - what the real and the simulated loop have in common.
 *
 * Timers live in a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986):
 * intrusive, so that starting one never allocates.  Equal deadlines fire in the
 * order of starting, which keeps a simulated run reproducible.
 */
#include "blkmirror/base/loop.h"

#include <stdlib.h>

#include "blkmirror/base/loop_private.h"

/* A turn runs at most this many tasks before it looks at descriptors again. */
#define TURN_TASKS_MAX 128

/* ---- task queue ---- */

void task_queue_init(struct task_queue *queue)
{
	queue->head = NULL;
	queue->tail = &queue->head;
	queue->count = 0;
}

void task_queue_push(struct task_queue *queue, struct task *task)
{
	task->next = NULL;
	*queue->tail = task;
	queue->tail = &task->next;
	queue->count++;
}

struct task *task_queue_pop(struct task_queue *queue)
{
	struct task *task = queue->head;

	if (!task)
		return NULL;
	queue->head = task->next;
	if (!queue->head)
		queue->tail = &queue->head;
	queue->count--;
	return task;
}

bool task_queue_remove(struct task_queue *queue, struct task *task)
{
	for (struct task **link = &queue->head; *link; link = &(*link)->next) {
		if (*link != task)
			continue;
		*link = task->next;
		if (queue->tail == &task->next)
			queue->tail = link;
		queue->count--;
		return true;
	}
	return false;
}

void loop_post(struct loop *loop, struct task *task)
{
	LOOP_CHECK(loop);
	CHECK(task->run);
	CHECK(!task->queued);
	task->queued = true;
	task_queue_push(&loop->ready, task);
}

void loop_send(struct loop *loop, struct task *task)
{
	struct task *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);

	CHECK(task->run);
	CHECK(!task->queued);
	task->queued = true;
	do {
		task->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &head, task,
							memory_order_release, memory_order_relaxed));
	/* Whoever made the inbox non-empty wakes the loop; later senders ride along. */
	if (!head)
		loop->backend->wake(loop);
}

void loop_unpost(struct loop *loop, struct task *task)
{
	LOOP_CHECK(loop);
	if (task_queue_remove(&loop->ready, task))
		task->queued = false;
}

void loop_take_inbox(struct loop *loop)
{
	struct task *task = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
	struct task *in_order = NULL;

	while (task) {
		struct task *next = task->next;

		task->next = in_order;
		in_order = task;
		task = next;
	}
	while (in_order) {
		struct task *next = in_order->next;

		task_queue_push(&loop->ready, in_order);
		in_order = next;
	}
}

/* ---- timers ---- */

static bool timer_before(const struct timer *a, const struct timer *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns;
	return a->sequence < b->sequence;
}

/* Both may be NULL; the later one becomes the first child of the earlier one. */
static struct timer *timer_meld(struct timer *a, struct timer *b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	if (timer_before(b, a)) {
		struct timer *swap = a;

		a = b;
		b = swap;
	}
	b->sibling = a->child;
	if (b->sibling)
		b->sibling->prev = b;
	b->prev = a;
	a->child = b;
	a->sibling = NULL;
	a->prev = NULL;
	return a;
}

/* Pair siblings from left to right, then meld the pairs from right to left. */
static struct timer *timer_meld_siblings(struct timer *first)
{
	struct timer *pairs = NULL, *root = NULL;

	while (first) {
		struct timer *second = first->sibling;
		struct timer *rest = second ? second->sibling : NULL;
		struct timer *pair;

		first->sibling = first->prev = NULL;
		if (second)
			second->sibling = second->prev = NULL;
		pair = timer_meld(first, second);
		pair->sibling = pairs;
		pairs = pair;
		first = rest;
	}
	while (pairs) {
		struct timer *next = pairs->sibling;

		pairs->sibling = NULL;
		root = timer_meld(root, pairs);
		pairs = next;
	}
	return root;
}

void timer_init(struct timer *timer, struct loop *loop, void (*fired)(struct timer *timer))
{
	*timer = (struct timer){ .fired = fired, .loop = loop };
}

void timer_start_at(struct timer *timer, uint64_t deadline_ns)
{
	struct loop *loop = timer->loop;

	LOOP_CHECK(loop);
	timer_stop(timer);
	timer->deadline_ns = deadline_ns;
	timer->sequence = loop->timer_sequence++;
	timer->child = timer->sibling = timer->prev = NULL;
	timer->started = true;
	loop->timers = timer_meld(loop->timers, timer);
}

void timer_start(struct timer *timer, uint64_t delay_ns)
{
	uint64_t now_ns = loop_now_ns(timer->loop);

	timer_start_at(timer, delay_ns < LOOP_NO_DEADLINE - now_ns ? now_ns + delay_ns
								   : LOOP_NO_DEADLINE);
}

void timer_stop(struct timer *timer)
{
	struct loop *loop = timer->loop;
	struct timer *children;

	if (!timer->started)
		return;
	LOOP_CHECK(loop);
	timer->started = false;
	children = timer_meld_siblings(timer->child);
	timer->child = NULL;
	if (loop->timers == timer) {
		loop->timers = children;
		return;
	}
	/* prev is the parent for a first child, else the left sibling. */
	if (timer->prev->child == timer)
		timer->prev->child = timer->sibling;
	else
		timer->prev->sibling = timer->sibling;
	if (timer->sibling)
		timer->sibling->prev = timer->prev;
	timer->sibling = timer->prev = NULL;
	loop->timers = timer_meld(loop->timers, children);
}

struct timer *loop_first_timer(const struct loop *loop)
{
	return loop->timers;
}

bool loop_fire_due_timer(struct loop *loop, uint64_t now_ns, uint64_t fence)
{
	struct timer *timer = loop->timers;

	if (!timer || timer->deadline_ns > now_ns || timer->sequence >= fence)
		return false;
	timer_stop(timer);
	timer->fired(timer);
	return true;
}

/* ---- watches ---- */

int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned events,
		void (*ready)(struct watch *watch, unsigned events))
{
	LOOP_CHECK(loop);
	CHECK(fd >= 0);
	*watch = (struct watch){ .ready = ready, .fd = fd, .events = events, .loop = loop };
	return loop->backend->watch_start(loop, watch);
}

void watch_set_events(struct watch *watch, unsigned events)
{
	CHECK(watch->backend);
	if (watch->events == events)
		return;
	watch->events = events;
	watch->loop->backend->watch_update(watch);
}

void watch_stop(struct watch *watch)
{
	if (!watch->backend)
		return;
	LOOP_CHECK(watch->loop);
	watch->loop->backend->watch_stop(watch);
	watch->backend = NULL;
}

/* ---- turn hooks ---- */

void turn_hook_init(struct turn_hook *hook, void (*run)(struct turn_hook *hook))
{
	hook->run = run;
	list_init(&hook->node);
}

void loop_at_turn_end(struct loop *loop, struct turn_hook *hook)
{
	LOOP_CHECK(loop);
	if (!list_is_linked(&hook->node))
		list_append(&loop->turn_hooks, &hook->node);
}

void turn_hook_cancel(struct turn_hook *hook)
{
	list_remove(&hook->node);
}

void loop_run_turn_hooks(struct loop *loop)
{
	struct list due;
	struct list *node;

	/* A hook that arms itself again must not keep the turn from ending. */
	list_init(&due);
	list_splice(&due, &loop->turn_hooks);
	while ((node = list_pop(&due))) {
		struct turn_hook *hook = list_entry(node, struct turn_hook, node);

		hook->run(hook);
	}
}

/* ---- the loop ---- */

void loop_init(struct loop *loop, const struct loop_backend *backend, uint64_t seed)
{
	loop->backend = backend;
	task_queue_init(&loop->ready);
	atomic_init(&loop->inbox, NULL);
	loop->timers = NULL;
	loop->timer_sequence = 0;
	list_init(&loop->turn_hooks);
	loop->random_state = seed;
	loop->spin_ns = 0;
	loop->thread = pthread_self();
	atomic_init(&loop->stopping, false);
}

void loop_release(struct loop *loop)
{
	loop_take_inbox(loop);
	CHECK(!loop->ready.head);
	CHECK(!loop->timers);
	CHECK(list_is_empty(&loop->turn_hooks));
}

static void loop_turn(struct loop *loop)
{
	uint64_t now_ns = loop_now_ns(loop);
	uint64_t fence = loop->timer_sequence;

	loop_take_inbox(loop);
	while (loop_fire_due_timer(loop, now_ns, fence))
		continue;
	for (int i = 0; i < TURN_TASKS_MAX; i++) {
		struct task *task = task_queue_pop(&loop->ready);

		if (!task)
			break;
		task->queued = false;
		task->run(task);
	}
	loop_run_turn_hooks(loop);
}

void loop_run(struct loop *loop)
{
	loop->thread = pthread_self();
	while (!atomic_load(&loop->stopping)) {
		struct timer *timer;

		loop_turn(loop);
		timer = loop_first_timer(loop);
		if (loop->ready.head || atomic_load(&loop->stopping))
			loop->backend->wait(loop, 0);
		else
			loop->backend->wait(loop, timer ? timer->deadline_ns : LOOP_NO_DEADLINE);
	}
	atomic_store(&loop->stopping, false);
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stopping, true);
	loop->backend->wake(loop);
}

void loop_free(struct loop *loop)
{
	if (loop)
		loop->backend->free(loop);
}

uint64_t loop_now_ns(const struct loop *loop)
{
	return loop->backend->now_ns(loop);
}

/* splitmix64 (Steele, Lea, Flood 2014): every seed is as good as any other. */
uint64_t loop_random(struct loop *loop)
{
	uint64_t z = (loop->random_state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t loop_random_below(struct loop *loop, uint64_t bound)
{
	CHECK(bound > 0);
	return (uint64_t)(((unsigned __int128)loop_random(loop) * bound) >> 64);
}

bool loop_is_here(const struct loop *loop)
{
	return pthread_equal(loop->thread, pthread_self());
}

bool loop_is_simulated(const struct loop *loop)
{
	return loop->backend->simulated;
}

void loop_set_spin_ns(struct loop *loop, uint64_t spin_ns)
{
	loop->spin_ns = spin_ns;
}

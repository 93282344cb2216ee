/* SPDX-License-Identifier: Apache-2.0 */
/* loop_private.h - what the loop's common part shares with its two implementations. */
#ifndef BM_BASE_LOOP_PRIVATE_H
#define BM_BASE_LOOP_PRIVATE_H

#include <stdatomic.h>

#include "blkmirror/base/loop.h"

struct loop_backend {
	bool simulated;
	uint64_t (*now_ns)(const struct loop *loop);
	/* Wait for descriptors or a wake-up until deadline_ns (0: only look). */
	void (*wait)(struct loop *loop, uint64_t deadline_ns);
	void (*wake)(struct loop *loop);
	int (*watch_start)(struct loop *loop, struct watch *watch);
	void (*watch_update)(struct watch *watch);
	void (*watch_stop)(struct watch *watch);
	void (*free)(struct loop *loop);
};

struct task_queue {
	struct task *head;
	struct task **tail;
	uint64_t count;
};

struct loop {
	const struct loop_backend *backend;
	struct task_queue ready;
	_Atomic(struct task *) inbox;   /* a stack; the newest is first */
	struct timer *timers;           /* root of a pairing heap */
	uint64_t timer_sequence;
	struct list turn_hooks;
	uint64_t random_state;
	uint64_t spin_ns;
	pthread_t thread;
	_Atomic bool stopping;
};

void loop_init(struct loop *loop, const struct loop_backend *backend, uint64_t seed);
void loop_release(struct loop *loop);

void task_queue_init(struct task_queue *queue);
void task_queue_push(struct task_queue *queue, struct task *task);
struct task *task_queue_pop(struct task_queue *queue);
/* Whether it was there. */
bool task_queue_remove(struct task_queue *queue, struct task *task);

/* Move messages of other threads to the ready queue. */
void loop_take_inbox(struct loop *loop);
/* The earliest started timer, NULL for none. */
struct timer *loop_first_timer(const struct loop *loop);
/* Fire it if it is due by now_ns and was started before `fence`; false when it is not. */
bool loop_fire_due_timer(struct loop *loop, uint64_t now_ns, uint64_t fence);
void loop_run_turn_hooks(struct loop *loop);

#endif

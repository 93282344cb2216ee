/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the event loop: tasks, timers, file descriptors, messages, time, chance.
 *
 * One loop is one thread.  Everything reachable from a disk belongs to one loop,
 * and its functions begin with LOOP_CHECK(loop).  Loops talk only by loop_send().
 * Time and randomness come only from here, so that the simulated loop
 * (loop_sim.h) can own them: the same code runs under both, nothing else may
 * call clock_gettime() or rand() on a data or state path.
 *
 * A turn: messages from other threads, expired timers, posted tasks (bounded),
 * then turn hooks (batched system calls go there), then waiting for descriptors.
 *
 * Units:     nanoseconds of a monotonic clock.
 * Ordering:  posted tasks of one loop run in the order of posting on the real
 *            loop and in a seeded order on the simulated one: rely on none.
 * Ownership: task, timer, watch and turn_hook structs are the caller's and must
 *            stay in place while queued or started (they are borrowed).
 * Threading: every function but loop_send() and loop_stop() must be called on
 *            the loop's own thread, or before loop_run().
 */
#ifndef BM_BASE_LOOP_H
#define BM_BASE_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"
#include "blkmirror/base/list.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define LOOP_NO_DEADLINE UINT64_MAX

struct loop;

/* ---- tasks ---- */

struct task {
	void (*run)(struct task *task);
	struct task *next;              /* private to the loop */
	bool queued;                    /* private to the loop */
};

/* Run task->run() once, later on this loop, never from inside.  The task must not be queued. */
void loop_post(struct loop *loop, struct task *task);

/* The same from any thread.  The task must not be queued anywhere.  Lock-free. */
void loop_send(struct loop *loop, struct task *task);

/* Take back what loop_post() queued; harmless otherwise.  Control path: walks the queue. */
void loop_unpost(struct loop *loop, struct task *task);

/* ---- timers: exact to the clock, no allocation ---- */

struct timer {
	void (*fired)(struct timer *timer);
	struct loop *loop;              /* private from here */
	uint64_t deadline_ns;
	uint64_t sequence;
	struct timer *child, *sibling, *prev;
	bool started;
};

void timer_init(struct timer *timer, struct loop *loop, void (*fired)(struct timer *timer));

/*
 * (Re)start: fires once, at the first turn that begins at or after deadline_ns.  One that
 * is started by a timer's callback waits for the next turn, however late it is already.
 */
void timer_start_at(struct timer *timer, uint64_t deadline_ns);
/* A sum beyond the clock's range never fires. */
void timer_start(struct timer *timer, uint64_t delay_ns);

/* Harmless on a timer that is not started. */
void timer_stop(struct timer *timer);

/* ---- descriptors (level-triggered); real loop only ---- */

enum { WATCH_READ = 1, WATCH_WRITE = 2, WATCH_HANGUP = 4 };

struct watch {
	void (*ready)(struct watch *watch, unsigned events);
	int fd;
	unsigned events;
	struct loop *loop;              /* private from here */
	void *backend;
};

/* 0, or -errno (-ENOMEM, -EPERM for a plain file).  ready() may stop its own watch. */
MUST_CHECK int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned events,
			   void (*ready)(struct watch *watch, unsigned events));

/* Change what is waited for; 0 pauses the watch.  Costs a system call when it differs. */
void watch_set_events(struct watch *watch, unsigned events);

/* Harmless when stopped.  Must precede close(fd). */
void watch_stop(struct watch *watch);
static inline bool watch_is_started(const struct watch *watch)
{
	return watch->backend != NULL;
}

/* ---- turn hooks: once before this turn ends, e.g. one io_submit for all requests ---- */

struct turn_hook {
	void (*run)(struct turn_hook *hook);
	struct list node;
};

void turn_hook_init(struct turn_hook *hook, void (*run)(struct turn_hook *hook));
/* Harmless when armed already.  Armed from inside a hook, it runs in the next turn. */
void loop_at_turn_end(struct loop *loop, struct turn_hook *hook);
void turn_hook_cancel(struct turn_hook *hook);

/* ---- the loop itself ---- */

/* The real loop, on libuv.  NULL: out of memory or descriptors (errno is set). */
struct loop *loop_new(void);

/* Run turns until loop_stop(); binds the loop to the calling thread. */
void loop_run(struct loop *loop);

/* From any thread. */
void loop_stop(struct loop *loop);

/* The loop must be stopped and nothing may be queued or started on it.  NULL is harmless. */
void loop_free(struct loop *loop);

uint64_t loop_now_ns(const struct loop *loop);

/* 64 random bits: the kernel's seed on the real loop, the run's seed on the simulated one. */
uint64_t loop_random(struct loop *loop);

/* Uniform in [0, bound); bound > 0. */
uint64_t loop_random_below(struct loop *loop, uint64_t bound);

bool loop_is_here(const struct loop *loop);
bool loop_is_simulated(const struct loop *loop);
#define LOOP_CHECK(loop) CHECK(loop_is_here(loop))

/* How long to look for events before sleeping, for latency; 0 (default) never spins. */
void loop_set_spin_ns(struct loop *loop, uint64_t spin_ns);

#endif

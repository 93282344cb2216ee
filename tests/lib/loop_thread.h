/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_thread.h - a real loop on a thread of its own, for tests with blocking clients.
 *
 * loop_thread_call() runs a function on the loop and returns when it has run: the test
 * looks at what lives there only that way.
 */
#ifndef BM_TESTS_LOOP_THREAD_H
#define BM_TESTS_LOOP_THREAD_H

#include "blkmirror/base/loop.h"

struct loop_thread;

/* Fails by CHECK. */
struct loop_thread *loop_thread_new(void);
struct loop *loop_thread_loop(struct loop_thread *thread);

/* Run on the loop, wait for it. */
void loop_thread_call(struct loop_thread *thread, void (*function)(void *user), void *user);

/* Stops the loop, joins the thread, frees both. */
void loop_thread_free(struct loop_thread *thread);

/* A flag that one thread raises and another waits for, e.g. "closed() has run". */
struct latch {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool raised;
};

#define LATCH_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false }

void latch_raise(struct latch *latch);
/* False: not within timeout_ns. */
MUST_CHECK bool latch_wait(struct latch *latch, uint64_t timeout_ns);

#endif

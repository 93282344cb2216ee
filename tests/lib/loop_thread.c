/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/loop_thread.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct loop_thread {
	struct loop *loop;
	pthread_t thread;
};

struct call {
	struct task task;
	void (*function)(void *user);
	void *user;
	struct latch latch;
};

void latch_raise(struct latch *latch)
{
	pthread_mutex_lock(&latch->mutex);
	latch->raised = true;
	pthread_cond_broadcast(&latch->changed);
	pthread_mutex_unlock(&latch->mutex);
}

bool latch_wait(struct latch *latch, uint64_t timeout_ns)
{
	struct timespec until;
	uint64_t end_ns;
	bool raised;

	clock_gettime(CLOCK_REALTIME, &until);
	end_ns = (uint64_t)until.tv_sec * NS_PER_S + (uint64_t)until.tv_nsec + timeout_ns;
	until.tv_sec = (time_t)(end_ns / NS_PER_S);
	until.tv_nsec = (long)(end_ns % NS_PER_S);
	pthread_mutex_lock(&latch->mutex);
	while (!latch->raised &&
	       pthread_cond_timedwait(&latch->changed, &latch->mutex, &until) != ETIMEDOUT)
		continue;
	raised = latch->raised;
	pthread_mutex_unlock(&latch->mutex);
	return raised;
}

static void *loop_thread_main(void *user)
{
	struct loop_thread *thread = user;

	loop_run(thread->loop);
	return NULL;
}

struct loop_thread *loop_thread_new(void)
{
	struct loop_thread *thread = calloc(1, sizeof(*thread));

	CHECK(thread);
	thread->loop = loop_new();
	CHECK(thread->loop);
	CHECK(pthread_create(&thread->thread, NULL, loop_thread_main, thread) == 0);
	return thread;
}

struct loop *loop_thread_loop(struct loop_thread *thread)
{
	return thread->loop;
}

static void call_run(struct task *task)
{
	struct call *call = container_of(task, struct call, task);

	call->function(call->user);
	latch_raise(&call->latch);
}

void loop_thread_call(struct loop_thread *thread, void (*function)(void *user), void *user)
{
	struct call call = { .task = { .run = call_run }, .function = function, .user = user,
			     .latch = LATCH_INIT };

	loop_send(thread->loop, &call.task);
	CHECK(latch_wait(&call.latch, 60 * NS_PER_S));
}

void loop_thread_free(struct loop_thread *thread)
{
	loop_stop(thread->loop);
	CHECK(pthread_join(thread->thread, NULL) == 0);
	loop_free(thread->loop);
	free(thread);
}

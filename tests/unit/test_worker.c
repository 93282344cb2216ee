/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: jobs run in order on one other thread, answers come to the loop, each exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/worker.h"

#define JOBS 1000

struct counting {
	struct job job;
	unsigned number;
	pthread_t ran_on;
	char thread_name[16];
};

static struct loop *loop;
static struct worker *worker;
static struct counting jobs[JOBS];
static unsigned ran, answered;

static void job_run(struct job *job)
{
	struct counting *counting = container_of(job, struct counting, job);

	assert_int_equal(counting->number, ran++);      /* only this thread touches it */
	counting->ran_on = pthread_self();
	pthread_getname_np(pthread_self(), counting->thread_name, sizeof(counting->thread_name));
}

static void job_done(struct job *job)
{
	struct counting *counting = container_of(job, struct counting, job);

	assert_true(loop_is_here(loop));
	assert_int_equal(counting->number, answered++);
	assert_int_equal(worker_pending(worker), JOBS - answered);
	if (answered == JOBS)
		loop_stop(loop);
}

static void test_order_and_threads(void **state)
{
	(void)state;
	loop = loop_new();
	worker = worker_new(loop, "a name that is much too long");
	assert_int_equal(worker_pending(worker), 0);
	for (unsigned i = 0; i < JOBS; i++) {
		jobs[i] = (struct counting){ .job = { .run = job_run, .done = job_done },
					     .number = i };
		worker_submit(worker, &jobs[i].job);
	}
	assert_int_equal(worker_pending(worker), JOBS);
	loop_run(loop);
	assert_int_equal(answered, JOBS);
	for (unsigned i = 0; i < JOBS; i++) {
		assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
		assert_true(pthread_equal(jobs[i].ran_on, jobs[0].ran_on));
	}
	assert_string_equal(jobs[0].thread_name, "a name that is ");
	worker_free(worker);
	loop_free(loop);
}

/* A job may be submitted again from its done(), and the worker freed from the last one. */
static void again_run(struct job *job)
{
	(void)job;
}

static void again_done(struct job *job)
{
	if (++answered < 100) {
		worker_submit(worker, job);
		return;
	}
	worker_free(worker);
	loop_stop(loop);
}

static void test_resubmit_and_free_from_done(void **state)
{
	struct job job = { .run = again_run, .done = again_done };

	(void)state;
	loop = loop_new();
	worker = worker_new(loop, "again");
	answered = 0;
	worker_submit(worker, &job);
	loop_run(loop);
	assert_int_equal(answered, 100);
	loop_free(loop);
}

static void test_unused_and_null(void **state)
{
	(void)state;
	loop = loop_new();
	worker_free(worker_new(loop, "unused"));
	worker_free(NULL);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_threads),
		cmocka_unit_test(test_resubmit_and_free_from_done),
		cmocka_unit_test(test_unused_and_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

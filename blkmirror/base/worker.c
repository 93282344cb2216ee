/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - control path only: a mutex and a condition, no cleverness. */
#include "blkmirror/base/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define WORKER_NAME_BYTES 16

struct worker {
	struct loop *loop;
	char name[WORKER_NAME_BYTES];
	uint64_t pending;               /* the loop's */
	bool started;                   /* the loop's */
	pthread_t thread;
	pthread_mutex_t lock;           /* guards what follows */
	pthread_cond_t changed;
	struct job *head;
	struct job **tail;
	bool stopping;
};

static struct job *worker_next(struct worker *worker)
{
	struct job *job;

	pthread_mutex_lock(&worker->lock);
	while (!worker->head && !worker->stopping)
		pthread_cond_wait(&worker->changed, &worker->lock);
	job = worker->head;
	if (job) {
		worker->head = job->next;
		if (!worker->head)
			worker->tail = &worker->head;
	}
	pthread_mutex_unlock(&worker->lock);
	return job;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct job *job;

	pthread_setname_np(pthread_self(), worker->name);
	while ((job = worker_next(worker))) {
		job->run(job);
		loop_send(worker->loop, &job->answer);
	}
	return NULL;
}

static void worker_answer(struct task *task)
{
	struct job *job = container_of(task, struct job, answer);

	job->worker->pending--;
	job->done(job);
}

struct worker *worker_new(struct loop *loop, const char *name)
{
	struct worker *worker = calloc(1, sizeof(*worker));

	if (!worker)
		return NULL;
	worker->loop = loop;
	snprintf(worker->name, sizeof(worker->name), "%s", name);
	pthread_mutex_init(&worker->lock, NULL);
	pthread_cond_init(&worker->changed, NULL);
	worker->tail = &worker->head;
	return worker;
}

/* Signals belong to the main thread. */
static void worker_start(struct worker *worker)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	CHECK(pthread_create(&worker->thread, NULL, worker_main, worker) == 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	worker->started = true;
}

void worker_submit(struct worker *worker, struct job *job)
{
	LOOP_CHECK(worker->loop);
	CHECK(job->run);
	CHECK(job->done);
	job->worker = worker;
	job->next = NULL;
	job->answer = (struct task){ .run = worker_answer };
	worker->pending++;
	if (!worker->started)
		worker_start(worker);
	pthread_mutex_lock(&worker->lock);
	*worker->tail = job;
	worker->tail = &job->next;
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
}

uint64_t worker_pending(const struct worker *worker)
{
	return worker->pending;
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	CHECK(worker->pending == 0);
	if (worker->started) {
		pthread_mutex_lock(&worker->lock);
		worker->stopping = true;
		pthread_cond_signal(&worker->changed);
		pthread_mutex_unlock(&worker->lock);
		pthread_join(worker->thread, NULL);
	}
	pthread_cond_destroy(&worker->changed);
	pthread_mutex_destroy(&worker->lock);
	free(worker);
}

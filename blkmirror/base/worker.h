/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - one thread for calls that may block, one queue, answers by message.
 *
 * What hangs, hangs alone: each user that can hang (a datastore, a device) has a
 * worker of its own instead of a share in a pool.  The thread starts with the
 * first job.  Jobs run in order; run() on the worker's thread, done() on the
 * loop that the worker belongs to.
 */
#ifndef BM_BASE_WORKER_H
#define BM_BASE_WORKER_H

#include "blkmirror/base/loop.h"

struct worker;

struct job {
	void (*run)(struct job *job);   /* on the worker's thread */
	void (*done)(struct job *job);  /* on the loop; the job is the caller's again */
	struct job *next;               /* private from here */
	struct worker *worker;
	struct task answer;
};

/* NULL: out of memory.  name: at most 15 characters, seen in ps and gdb. */
struct worker *worker_new(struct loop *loop, const char *name);

/* On the worker's loop.  The job must not be queued. */
void worker_submit(struct worker *worker, struct job *job);

/* Jobs queued or running, or whose done() has not run yet. */
uint64_t worker_pending(const struct worker *worker);

/* No job may be pending.  Joins the thread.  NULL is harmless. */
void worker_free(struct worker *worker);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/disk_io.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static void *io_thread_main(void *arg)
{
	struct io_thread *thread = arg;

	pthread_setname_np(pthread_self(), thread->name);
	loop_run(thread->loop);
	buf_pool_free(thread->pool);    /* the loop's, so here */
	return NULL;
}

/* Signals belong to the main thread. */
static int io_thread_spawn(struct io_thread *thread)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread->thread, NULL, io_thread_main, thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -rc;
}

int io_thread_start(uint32_t index, uint64_t buffer_bytes, struct io_thread **out, struct err *err)
{
	struct io_thread *thread = calloc(1, sizeof(*thread));
	int rc = -ENOMEM;

	if (!thread)
		goto fail;
	snprintf(thread->name, sizeof(thread->name), "io%u", index);
	list_init(&thread->serving);
	thread->loop = loop_new();
	if (!thread->loop) {
		rc = -errno;
		goto free_thread;
	}
	thread->pool = buf_pool_new(thread->loop, buffer_bytes);
	if (!thread->pool)
		goto free_loop;
	rc = io_thread_spawn(thread);
	if (rc)
		goto free_pool;
	*out = thread;
	return 0;

free_pool:
	buf_pool_free(thread->pool);
free_loop:
	loop_free(thread->loop);
free_thread:
	free(thread);
fail:
	return err_set(err, ERR_NO_MEMORY, rc, "cannot start I/O thread io%u: %s", index,
		       err_strerror(rc));
}

void io_thread_stop(struct io_thread *thread)
{
	if (!thread)
		return;
	CHECK(thread->disk_count == 0);
	loop_stop(thread->loop);
	pthread_join(thread->thread, NULL);
	CHECK(list_is_empty(&thread->serving));
	loop_free(thread->loop);
	free(thread);
}

/* ---- calls ---- */

static void io_call_run(struct task *task)
{
	struct io_call *call = container_of(task, struct io_call, task);

	call->run(call);
}

static void io_call_done(struct task *task)
{
	struct io_call *call = container_of(task, struct io_call, task);

	call->done(call);
}

void io_call_send(struct io_call *call, struct loop *io_loop, struct loop *main_loop,
		  void (*run)(struct io_call *call), void (*done)(struct io_call *call))
{
	LOOP_CHECK(main_loop);
	*call = (struct io_call){ .run = run, .done = done, .io_loop = io_loop,
				  .main_loop = main_loop, .task.run = io_call_run };
	loop_send(io_loop, &call->task);
}

void io_call_finish(struct io_call *call)
{
	LOOP_CHECK(call->io_loop);
	call->task.run = io_call_done;
	loop_send(call->main_loop, &call->task);
}

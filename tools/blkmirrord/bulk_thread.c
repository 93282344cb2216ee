/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/bulk_thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct bulk_thread {
	struct loop *loop;
	struct buf_pool *pool;
	pthread_t thread;
};

static void *bulk_thread_main(void *arg)
{
	struct bulk_thread *thread = arg;

	loop_run(thread->loop);
	buf_pool_free(thread->pool); /* it belongs to this thread's loop */
	return NULL;
}

int bulk_thread_new(const char *name, uint64_t buffer_bytes, struct bulk_thread **out,
		  struct err *err)
{
	struct bulk_thread *thread = calloc(1, sizeof(*thread));
	int rc;

	if (!thread)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	thread->loop = loop_new();
	if (!thread->loop) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot make an I/O loop");
		goto free_thread;
	}
	thread->pool = buf_pool_new(thread->loop, buffer_bytes);
	if (!thread->pool) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_loop;
	}
	rc = -pthread_create(&thread->thread, NULL, bulk_thread_main, thread);
	if (rc) {
		err_set(err, ERR_NO_MEMORY, rc, "cannot start an I/O thread: %s", err_strerror(rc));
		goto free_pool;
	}
	pthread_setname_np(thread->thread, name);
	*out = thread;
	return 0;

free_pool:
	buf_pool_free(thread->pool);
free_loop:
	loop_free(thread->loop);
free_thread:
	free(thread);
	return rc;
}

void bulk_thread_free(struct bulk_thread *thread)
{
	if (!thread)
		return;
	loop_stop(thread->loop);
	pthread_join(thread->thread, NULL);
	loop_free(thread->loop);
	free(thread);
}

struct loop *bulk_thread_loop(struct bulk_thread *thread)
{
	return thread->loop;
}

struct buf_pool *bulk_thread_pool(struct bulk_thread *thread)
{
	return thread->pool;
}

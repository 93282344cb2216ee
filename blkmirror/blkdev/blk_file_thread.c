/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file_thread.c - io_submit() on a thread of the device's own (R5).
 *
 * The loop pushes a turn's requests with one compare-and-swap; the thread takes all there
 * are with one exchange.  A wake-up, a system call, is only spent on a thread that sleeps:
 *
 *   loop                                thread
 *     push to the inbox                   asleep = IDLE
 *     if asleep: clear it, wake           if the inbox is empty: wait while asleep == IDLE
 *
 * Both sides write first and look second, sequentially consistent, so that one of them
 * always sees the other.  STARVED says that the thread holds requests that the kernel has
 * no room for: then completions wake it too.
 *
 * A stuck store keeps the thread inside io_submit(); requests gather in the inbox, bounded by
 * the device's depth (F1), and complete when the kernel says so (R2).
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/blkdev/blk_file_private.h"

enum { AWAKE, IDLE, STARVED };

struct file_thread {
	struct blk_file *file;
	pthread_t id;
	_Atomic(struct file_req *) inbox;       /* a stack; the newest is first */
	_Atomic uint32_t asleep;                /* futex: AWAKE, IDLE or STARVED */
	_Atomic bool stopping;
	/* Moves on before each io_submit(): what the thread did happens before what the loop
	 * does with a completed request.  The kernel orders it, this says so to the language. */
	_Atomic uint64_t hand_overs;
	struct iocb **batch;                    /* the thread's; depth of them */
	uint32_t count;                         /* the thread's */
};

/* ---- the loop's side ---- */

static void thread_wake(struct file_thread *thread)
{
	if (atomic_exchange(&thread->asleep, AWAKE) != AWAKE)
		syscall(SYS_futex, &thread->asleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void file_thread_send(struct file_thread *thread, struct iocb **batch, uint32_t count)
{
	struct file_req *oldest = batch[0]->data;
	struct file_req *newest = NULL;
	struct file_req *head;

	for (uint32_t i = 0; i < count; i++) {
		struct file_req *file_req = batch[i]->data;

		file_req->next = newest;
		newest = file_req;
	}
	head = atomic_load_explicit(&thread->inbox, memory_order_relaxed);
	do {
		oldest->next = head;
	} while (!atomic_compare_exchange_weak(&thread->inbox, &head, newest));
	/* F3: from here on they are the thread's. */
	if (atomic_load(&thread->asleep) != AWAKE)
		thread_wake(thread);
}

void file_thread_landed(struct file_thread *thread)
{
	(void)atomic_load_explicit(&thread->hand_overs, memory_order_acquire);
	if (atomic_load(&thread->asleep) == STARVED)
		thread_wake(thread);
}

/* ---- the thread's side ---- */

/* Append what is in the inbox to the batch, oldest first. */
static void thread_take(struct file_thread *thread)
{
	struct file_req *file_req = atomic_exchange(&thread->inbox, NULL);
	struct file_req *in_order = NULL;

	while (file_req) {
		struct file_req *next = file_req->next;

		file_req->next = in_order;
		in_order = file_req;
		file_req = next;
	}
	for (; in_order; in_order = in_order->next) {
		CHECK(thread->count < thread->file->depth);     /* F1 */
		thread->batch[thread->count++] = &in_order->iocb;
	}
}

static void refuse_to_loop(struct blk_file *file, struct file_req *file_req)
{
	struct blk_req *req = blk_req_of(file_req);

	req->task = (struct task){ .run = blk_file_aio_refused };
	loop_send(file->dev.loop, &req->task);
}

static void thread_submit(struct file_thread *thread)
{
	uint32_t done;

	atomic_fetch_add_explicit(&thread->hand_overs, 1, memory_order_release);
	done = blk_file_aio_submit(thread->file, thread->batch, thread->count, refuse_to_loop);
	thread->count -= done;
	for (uint32_t i = 0; i < thread->count; i++)
		thread->batch[i] = thread->batch[done + i];
}

static void thread_sleep(struct file_thread *thread)
{
	uint32_t how = thread->count ? STARVED : IDLE;
	struct timespec retry = { .tv_nsec = BLK_FILE_RETRY_NS };

	atomic_store(&thread->asleep, how);
	if (!atomic_load(&thread->inbox) && !atomic_load(&thread->stopping))
		syscall(SYS_futex, &thread->asleep, FUTEX_WAIT_PRIVATE, how,
			how == STARVED ? &retry : NULL, NULL, 0);
	atomic_store(&thread->asleep, AWAKE);
}

static void *thread_main(void *arg)
{
	struct file_thread *thread = arg;

	pthread_setname_np(pthread_self(), "bm-submit");
	while (!atomic_load(&thread->stopping)) {
		thread_take(thread);
		if (thread->count)
			thread_submit(thread);
		if (thread->count || !atomic_load(&thread->inbox))
			thread_sleep(thread);
	}
	CHECK(thread->count == 0);
	CHECK(!atomic_load(&thread->inbox));
	return NULL;
}

/* ---- life ---- */

int file_thread_new(struct blk_file *file, struct file_thread **out)
{
	struct file_thread *thread = calloc(1, sizeof(*thread));
	sigset_t all, before;
	int rc = -ENOMEM;

	if (!thread)
		return rc;
	thread->file = file;
	thread->batch = calloc(file->depth, sizeof(thread->batch[0]));
	if (!thread->batch)
		goto free_thread;
	/* Signals belong to the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&thread->id, NULL, thread_main, thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		goto free_batch;
	*out = thread;
	return 0;

free_batch:
	free(thread->batch);
free_thread:
	free(thread);
	return rc;
}

void file_thread_free(struct file_thread *thread)
{
	if (!thread)
		return;
	atomic_store(&thread->stopping, true);
	thread_wake(thread);
	pthread_join(thread->id, NULL);
	free(thread->batch);
	free(thread);
}

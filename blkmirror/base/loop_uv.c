/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_uv.c - the real loop: libuv waits for descriptors, the common part does the rest.
 *
 * libuv's own timers count milliseconds; ours go through one timerfd, so that a
 * pacer can wait 200 us.  A wake-up from another thread is a uv_async.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "blkmirror/base/loop_private.h"

struct loop_uv {
	struct loop base;
	uv_loop_t uv;
	uv_async_t wake;
	uv_poll_t alarm;
	int alarm_fd;
	uint64_t alarm_deadline_ns;     /* what the timerfd is set to; LOOP_NO_DEADLINE: disarmed */
};

struct watch_uv {
	uv_poll_t poll;
	struct watch *watch;            /* NULL once stopped, until libuv lets go */
};

static uint64_t loop_uv_now_ns(const struct loop *loop)
{
	struct timespec now;

	(void)loop;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- waiting ---- */

static void loop_uv_set_alarm(struct loop_uv *loop, uint64_t deadline_ns)
{
	struct itimerspec alarm = { 0 };

	if (deadline_ns == loop->alarm_deadline_ns)
		return;
	if (deadline_ns != LOOP_NO_DEADLINE) {
		alarm.it_value.tv_sec = (time_t)(deadline_ns / NS_PER_S);
		alarm.it_value.tv_nsec = (long)(deadline_ns % NS_PER_S);
	}
	CHECK(timerfd_settime(loop->alarm_fd, TFD_TIMER_ABSTIME, &alarm, NULL) == 0);
	loop->alarm_deadline_ns = deadline_ns;
}

static void loop_uv_alarm_rang(uv_poll_t *poll, int status, int events)
{
	struct loop_uv *loop = container_of(poll, struct loop_uv, alarm);
	uint64_t expirations;

	(void)status;
	(void)events;
	if (read(loop->alarm_fd, &expirations, sizeof(expirations)) > 0)
		loop->alarm_deadline_ns = LOOP_NO_DEADLINE;
}

static void loop_uv_woken(uv_async_t *async)
{
	(void)async;                    /* the common part reads the inbox each turn */
}

static bool loop_uv_has_work(const struct loop *loop)
{
	return loop->ready.head || !list_is_empty(&loop->turn_hooks) ||
	       atomic_load_explicit(&loop->inbox, memory_order_relaxed) ||
	       atomic_load_explicit(&loop->stopping, memory_order_relaxed);
}

/* Look for events without sleeping for up to spin_ns; true when something came. */
static bool loop_uv_spin(struct loop_uv *loop, uint64_t deadline_ns)
{
	uint64_t end_ns = loop_uv_now_ns(&loop->base) + loop->base.spin_ns;

	if (deadline_ns < end_ns)
		end_ns = deadline_ns;
	do {
		uv_run(&loop->uv, UV_RUN_NOWAIT);
		if (loop_uv_has_work(&loop->base))
			return true;
	} while (loop_uv_now_ns(&loop->base) < end_ns);
	return loop_uv_now_ns(&loop->base) >= deadline_ns;
}

static void loop_uv_wait(struct loop *base, uint64_t deadline_ns)
{
	struct loop_uv *loop = container_of(base, struct loop_uv, base);

	if (deadline_ns == 0 || loop_uv_has_work(base)) {
		uv_run(&loop->uv, UV_RUN_NOWAIT);
		return;
	}
	if (base->spin_ns && loop_uv_spin(loop, deadline_ns))
		return;
	loop_uv_set_alarm(loop, deadline_ns);
	uv_run(&loop->uv, UV_RUN_ONCE);
}

static void loop_uv_wake(struct loop *base)
{
	struct loop_uv *loop = container_of(base, struct loop_uv, base);

	CHECK(uv_async_send(&loop->wake) == 0);
}

/* ---- watches ---- */

static void watch_uv_ready(uv_poll_t *poll, int status, int events);

static void watch_uv_update(struct watch *watch)
{
	struct watch_uv *watch_uv = watch->backend;
	int events = 0;

	if (watch->events & WATCH_READ)
		events |= UV_READABLE;
	if (watch->events & WATCH_WRITE)
		events |= UV_WRITABLE;
	if (watch->events & WATCH_HANGUP)
		events |= UV_DISCONNECT;
	if (events)
		CHECK(uv_poll_start(&watch_uv->poll, events, watch_uv_ready) == 0);
	else
		CHECK(uv_poll_stop(&watch_uv->poll) == 0);
}

static void watch_uv_ready(uv_poll_t *poll, int status, int events)
{
	struct watch_uv *watch_uv = container_of(poll, struct watch_uv, poll);
	struct watch *watch = watch_uv->watch;
	unsigned ready = 0;

	if (!watch)
		return;
	if (status < 0) {
		/*
		 * EPOLLERR: the owner's read() tells what it is.  libuv stops polling at
		 * one; a watch is level-triggered and goes on until its owner stops it.
		 */
		watch_uv_update(watch);
		watch->ready(watch, WATCH_HANGUP | watch->events);
		return;
	}
	if (events & UV_READABLE)
		ready |= WATCH_READ;
	if (events & UV_WRITABLE)
		ready |= WATCH_WRITE;
	if (events & UV_DISCONNECT)
		ready |= WATCH_HANGUP;
	watch->ready(watch, ready);
}

static int watch_uv_start(struct loop *base, struct watch *watch)
{
	struct loop_uv *loop = container_of(base, struct loop_uv, base);
	struct watch_uv *watch_uv = calloc(1, sizeof(*watch_uv));
	int rc;

	if (!watch_uv)
		return -ENOMEM;
	rc = uv_poll_init(&loop->uv, &watch_uv->poll, watch->fd);
	if (rc) {
		free(watch_uv);
		return rc;              /* libuv's errors are -errno */
	}
	watch_uv->watch = watch;
	watch->backend = watch_uv;
	watch_uv_update(watch);
	return 0;
}

static void watch_uv_closed(uv_handle_t *handle)
{
	free(container_of((uv_poll_t *)handle, struct watch_uv, poll));
}

static void watch_uv_stop(struct watch *watch)
{
	struct watch_uv *watch_uv = watch->backend;

	watch_uv->watch = NULL;
	uv_close((uv_handle_t *)&watch_uv->poll, watch_uv_closed);
}

/* ---- life ---- */

static void loop_uv_free(struct loop *base)
{
	struct loop_uv *loop = container_of(base, struct loop_uv, base);

	base->thread = pthread_self();
	loop_release(base);
	uv_close((uv_handle_t *)&loop->wake, NULL);
	uv_close((uv_handle_t *)&loop->alarm, NULL);
	while (uv_run(&loop->uv, UV_RUN_NOWAIT))
		continue;
	CHECK(uv_loop_close(&loop->uv) == 0);
	close(loop->alarm_fd);
	free(loop);
}

static const struct loop_backend loop_uv_backend = {
	.simulated = false,
	.now_ns = loop_uv_now_ns,
	.wait = loop_uv_wait,
	.wake = loop_uv_wake,
	.watch_start = watch_uv_start,
	.watch_update = watch_uv_update,
	.watch_stop = watch_uv_stop,
	.free = loop_uv_free,
};

static int loop_uv_open(struct loop_uv *loop)
{
	int rc;

	loop->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->alarm_fd < 0)
		return -errno;
	loop->alarm_deadline_ns = LOOP_NO_DEADLINE;
	rc = uv_loop_init(&loop->uv);
	if (rc)
		goto close_alarm;
	rc = uv_async_init(&loop->uv, &loop->wake, loop_uv_woken);
	if (rc)
		goto close_loop;
	rc = uv_poll_init(&loop->uv, &loop->alarm, loop->alarm_fd);
	if (rc)
		goto close_async;
	CHECK(uv_poll_start(&loop->alarm, UV_READABLE, loop_uv_alarm_rang) == 0);
	return 0;

close_async:
	uv_close((uv_handle_t *)&loop->wake, NULL);
	uv_run(&loop->uv, UV_RUN_NOWAIT);
close_loop:
	uv_loop_close(&loop->uv);
close_alarm:
	close(loop->alarm_fd);
	return rc;
}

struct loop *loop_new(void)
{
	struct loop_uv *loop = calloc(1, sizeof(*loop));
	uint64_t seed;
	int rc;

	if (!loop)
		return NULL;
	CHECK(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
	loop_init(&loop->base, &loop_uv_backend, seed);
	rc = loop_uv_open(loop);
	if (rc) {
		free(loop);
		errno = -rc;
		return NULL;
	}
	return &loop->base;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/fence.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "blkmirror/base/loop.h"

struct fence {
	atomic_uint users;
	atomic_uint_fast64_t valid_until_ns;
	atomic_bool lost;
	pthread_mutex_t lock;           /* of `changed` only */
	pthread_cond_t changed;
	uint64_t changes;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	CHECK(clock_gettime(clock, &now) == 0);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t fence_clock_ns(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}

struct fence *fence_new(void)
{
	struct fence *fence = calloc(1, sizeof(*fence));
	pthread_condattr_t monotonic;

	if (!fence)
		return NULL;
	atomic_init(&fence->users, 1);
	pthread_mutex_init(&fence->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&fence->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return fence;
}

struct fence *fence_get(struct fence *fence)
{
	atomic_fetch_add(&fence->users, 1);
	return fence;
}

void fence_put(struct fence *fence)
{
	if (!fence || atomic_fetch_sub(&fence->users, 1) > 1)
		return;
	pthread_cond_destroy(&fence->changed);
	pthread_mutex_destroy(&fence->lock);
	free(fence);
}

void fence_wake(struct fence *fence)
{
	pthread_mutex_lock(&fence->lock);
	fence->changes++;
	pthread_cond_broadcast(&fence->changed);
	pthread_mutex_unlock(&fence->lock);
}

void fence_renew(struct fence *fence, uint64_t valid_until_ns)
{
	bool was_open = fence_is_open(fence);

	atomic_store(&fence->valid_until_ns, valid_until_ns);
	if (!was_open)
		fence_wake(fence);
}

void fence_lose(struct fence *fence)
{
	atomic_store(&fence->lost, true);
	fence_wake(fence);
}

bool fence_is_lost(const struct fence *fence)
{
	return atomic_load(&fence->lost);
}

bool fence_is_open(const struct fence *fence)
{
	uint64_t until_ns = atomic_load(&fence->valid_until_ns);

	/* R-F1: judged now, by the clock, not by what a timer has noted. */
	return !atomic_load(&fence->lost) &&
	       (until_ns == UINT64_MAX || fence_clock_ns() < until_ns);
}

void fence_wait(struct fence *fence, uint64_t timeout_ns)
{
	uint64_t until_ns = clock_ns(CLOCK_MONOTONIC) + timeout_ns;
	struct timespec until = { .tv_sec = (time_t)(until_ns / NS_PER_S),
				  .tv_nsec = (long)(until_ns % NS_PER_S) };
	uint64_t seen;

	pthread_mutex_lock(&fence->lock);
	seen = fence->changes;
	while (fence->changes == seen &&
	       pthread_cond_timedwait(&fence->changed, &fence->lock, &until) == 0)
		;
	pthread_mutex_unlock(&fence->lock);
}

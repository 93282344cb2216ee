/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fence.h - may this host still send to a disk (R-F1, R-F3)?
 *
 * Between whoever keeps a disk's lease and the devices that write under it.  The keeper says
 * until when the lease is good; a device asks at each system call that sends.  Once lost, a
 * fence stays lost.
 *
 * Any thread.  Counted: each user has a reference of its own.
 */
#ifndef BM_FENCE_H
#define BM_FENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

struct fence;

/* Closed.  NULL: out of memory. */
struct fence *fence_new(void);
struct fence *fence_get(struct fence *fence);
void fence_put(struct fence *fence);

/* The clock of leases: goes on while the host is suspended. */
uint64_t fence_clock_ns(void);

/* The first instant at which nothing may be sent; UINT64_MAX: it has no end. */
void fence_renew(struct fence *fence, uint64_t valid_until_ns);
/* Somebody else has, or had, the disk: for good. */
void fence_lose(struct fence *fence);

bool fence_is_open(const struct fence *fence);
bool fence_is_lost(const struct fence *fence);

/* Wait until anything changes, fence_wake(), or the time has passed.  Blocks. */
void fence_wait(struct fence *fence, uint64_t timeout_ns);
void fence_wake(struct fence *fence);

#endif

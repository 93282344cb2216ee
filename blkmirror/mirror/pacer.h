/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pacer.h - how much the copier may have in flight, so that the guest comes first.
 *
 * Two limits.  The window: bytes the copier has in flight, steered by the guest's latency:
 * it shrinks when the guest's mean rises over what it was undisturbed, grows while it does
 * not, and opens wide when the guest is idle.  The cap (R6): bytes a second of copier plus
 * mirrored writes together, a token bucket.  The cap never delays a guest: mirrored writes
 * only run the bucket into debt, and beyond a quarter second of debt they are shed to dirty.
 *
 * Threading: one loop.
 */
#ifndef BM_PACER_H
#define BM_PACER_H

#include "blkmirror/blkdev/io_stats.h"
#include "blkmirror/base/loop.h"
#include "blkmirror/mirror/mover.h"

#define PACER_WINDOW_MIN (UINT64_C(256) << 10)
#define PACER_WINDOW_START (UINT64_C(2) << 20)
#define PACER_WINDOW_MAX (UINT64_C(16) << 20)

struct pacer {
	struct loop *loop;
	void (*ready)(void *user);      /* there is room again */
	void *user;

	uint64_t rate_bytes_per_s;
	int64_t tokens_bytes;
	uint64_t refilled_ns;
	uint64_t shed_ns;               /* when a mirrored write was last refused; 0: never */
	struct timer refill;            /* tokens, or the end of a rest */
	uint64_t rest_until_ns;

	uint64_t window_bytes;
	uint64_t in_flight_bytes;
	bool refused;                   /* someone found no room in the window: tell when there is */
	struct timer sample;
	uint64_t guest_base_ns;         /* the guest's mean when nothing disturbs it; 0: unknown */
	uint64_t guest_ops, guest_latency_sum_ns;       /* at the last sample */
	uint64_t (*guest_sample)(void *user, uint64_t *latency_sum_ns);
};

/*
 * guest_sample: operations and summed latency of all guests served so far (of the gates).
 * Both callbacks run on the loop.
 */
void pacer_init(struct pacer *pacer, struct loop *loop, uint64_t rate_bytes_per_s,
		void (*ready)(void *user),
		uint64_t (*guest_sample)(void *user, uint64_t *latency_sum_ns), void *user);
void pacer_start(struct pacer *pacer);
void pacer_stop(struct pacer *pacer);
void pacer_set_rate(struct pacer *pacer, uint64_t rate_bytes_per_s);

/*
 * May the copier start that much?  When not, ready() comes once it may: several disks share
 * a pacer, so who asked in vain may have nothing in flight that would make it ask again.
 */
bool pacer_may_start(struct pacer *pacer, uint64_t bytes);
void pacer_started(struct pacer *pacer, uint64_t bytes);
void pacer_finished(struct pacer *pacer, uint64_t bytes);

/* Nothing of the copier's starts for so long; ready() comes then. */
void pacer_rest(struct pacer *pacer, uint64_t rest_ns);

/* R6: may these bytes be mirrored?  Charges them when they may. */
bool pacer_may_mirror(struct pacer *pacer, uint64_t bytes);

/* Were mirrored writes shed for the cap within the last second? */
bool pacer_is_shedding(const struct pacer *pacer);

/* A good size for one copy request now, a power of two. */
uint64_t pacer_job_bytes(const struct pacer *pacer);

#endif

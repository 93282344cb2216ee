/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pacer.h - how much the copier may have in flight, so that the guest comes first.
 *
 * Two limits.
 *
 * The window says how many bytes the copier has in flight, and how many it starts in a
 * millisecond: a store that is slower than that is limited by what is in flight, one that is
 * faster by the pace.  Twenty milliseconds' samples steer it:
 *
 *   - nobody there: it doubles, as long as our own requests do not queue.  An idle disk is
 *     used whole; a long queue only makes the first request of the guest wait.
 *   - a guest appears, and every two seconds again: the copier steps back for a moment and
 *     looks what the guest feels alone (guest_watch.h).
 *   - the guest's requests are late: it shrinks, at most to a third of what the copy has been
 *     able to do; to the least only for a guest that starves.
 *   - they are in time: it grows, slowly near where they were late before, faster further away.
 *     So it stays just below where the guest's tail rises.
 *   - too few requests to tell: our own queueing delay, from the start of a job to its
 *     end, over the least there was, stands for theirs.
 *
 *       window ^         late            late
 *              |        /|           ___/|           ___
 *              |      _/ |      ____/    |      ____/
 *              |    _/   |   __/         |   __/
 *              |  _/     |__/            |__/
 *              +--------------------------------------------> time
 *
 * The cap (R6): bytes a second of copier plus mirrored writes together, a token bucket.  It
 * never delays a guest: mirrored writes only run the bucket into debt, and beyond a quarter
 * second of debt they are shed to dirty.
 *
 * Threading: one loop.
 */
#ifndef BM_PACER_H
#define BM_PACER_H

#include "blkmirror/base/loop.h"
#include "blkmirror/mirror/guest_watch.h"
#include "blkmirror/mirror/mover.h"
#include "blkmirror/mirror/token_bucket.h"

#define PACER_WINDOW_MIN (UINT64_C(64) << 10)           /* for a guest that starves */
#define PACER_WINDOW_SMALL (UINT64_C(256) << 10)
#define PACER_WINDOW_START (UINT64_C(2) << 20)
#define PACER_WINDOW_MAX (UINT64_C(16) << 20)

/* Between two looks at what the guest feels alone. */
enum pacer_step {
	PACER_FORWARD,
	PACER_DRAINING,                 /* stepped back: nothing starts, what had started runs */
	PACER_LOOKING,                  /* nothing of ours runs: the sample shows the guest alone */
};

struct pacer {
	struct loop *loop;
	void (*ready)(void *user);      /* there is room again */
	void (*guest_sample)(void *user, struct io_snapshot *out, uint64_t *in_flight);
	void *user;

	struct token_bucket cap;        /* its rate may be MOVER_RATE_UNLIMITED: then unused */
	uint64_t shed_ns;               /* when a mirrored write was last refused; 0: never */
	struct timer refill;            /* of the cap or of the pace, or the end of a rest */
	uint64_t rest_until_ns;

	uint64_t window_bytes;
	uint64_t ceiling_bytes;         /* where the guest was last late; 0: not yet */
	struct token_bucket pace;       /* the window in each millisecond */
	uint64_t in_flight_bytes;
	bool refused;                   /* someone found no room in the window: tell when there is */
	bool was_short;                 /* in this sample: the window is what limits the copy */
	uint32_t settle_samples;        /* until it may shrink again */

	struct timer sample;
	uint64_t finished_bytes;        /* in this sample */
	unsigned __int128 byte_ns;      /* of those: each byte times how long it took */
	uint64_t rate_bytes;            /* a sample, of late */
	uint64_t best_rate_bytes;       /* a sample; fades */
	uint64_t delay_ns;              /* of our own requests, in the last sample that had any */
	uint64_t least_delay_ns;        /* 0: not known */

	struct guest_watch watch;
	enum pacer_step step;
	uint32_t looks_left;
	uint32_t back_samples;          /* since it stepped back */
	uint64_t look_again_ns, look_every_ns;
};

/*
 * guest_sample: what all guests of the move have felt so far (the sum of their gates'
 * statistics), and how many requests are in flight.  Both callbacks run on the loop.
 */
void pacer_init(struct pacer *pacer, struct loop *loop, uint64_t rate_bytes_per_s,
		void (*ready)(void *user),
		void (*guest_sample)(void *user, struct io_snapshot *out, uint64_t *in_flight),
		void *user);
void pacer_start(struct pacer *pacer);
void pacer_stop(struct pacer *pacer);
void pacer_set_rate(struct pacer *pacer, uint64_t rate_bytes_per_s);

/*
 * May the copier start that much?  When not, ready() comes once it may: several disks share
 * a pacer, so who asked in vain may have nothing in flight that would make it ask again.
 */
bool pacer_may_start(struct pacer *pacer, uint64_t bytes);
void pacer_started(struct pacer *pacer, uint64_t bytes);
/* started_ns: when pacer_started() was called for these. */
void pacer_finished(struct pacer *pacer, uint64_t bytes, uint64_t started_ns);

/* Nothing of the copier's starts for so long; ready() comes then. */
void pacer_rest(struct pacer *pacer, uint64_t rest_ns);

/* R6: may these bytes be mirrored?  Charges them when they may. */
bool pacer_may_mirror(struct pacer *pacer, uint64_t bytes);

/* Were mirrored writes shed for the cap within the last second? */
bool pacer_is_shedding(const struct pacer *pacer);

/* A good size for one copy request now, a power of two. */
uint64_t pacer_job_bytes(const struct pacer *pacer);

#endif

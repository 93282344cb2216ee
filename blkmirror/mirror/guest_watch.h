/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_watch.h - does the guest suffer from us?
 *
 * Takes samples of what the guests of a move have felt (the gates' statistics).  From samples
 * in which nothing of ours ran it learns what they feel alone: a histogram that forgets.  Every
 * other sample is judged against that:
 *
 *     late      a request that took longer than two and a half times the 99th percentile
 *               alone.  One in two hundred may, and what is so alone: what is more is a debt,
 *               and until it is paid off by requests in time there is no cause to press harder.
 *               So p99 stays below that, and a single outlier is nobody's fault.
 *     starving  less than half of what it does alone gets done, and each takes twice as long
 *     stuck     nothing comes back at all
 *
 * Units: nanoseconds; a sample lasts as long as the caller likes, always equally long.
 * Threading: one loop.
 */
#ifndef BM_GUEST_WATCH_H
#define BM_GUEST_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/blkdev/io_stats.h"

enum guest_mood {
	GUEST_IDLE,             /* nobody there */
	GUEST_UNKNOWN,          /* too few requests, or too little known of it, to say */
	GUEST_FINE,             /* and no debt is left */
	GUEST_TOUCHY,           /* not now, but it has been late: no more pressing */
	GUEST_LATE,
	GUEST_VERY_LATE,        /* a quarter of its requests and more */
	GUEST_STARVES,
	GUEST_STUCK,
};

struct guest_watch {
	struct io_snapshot last;        /* at the end of the last sample */
	struct io_snapshot seen;        /* within it */
	uint64_t in_flight;             /* at its end */
	uint64_t sample_ns;
	uint32_t quiet_samples;         /* in a row: no request done, none in flight */
	uint32_t stuck_samples;         /* in a row: none done, some in flight */
	uint64_t alone_buckets[IO_STATS_BUCKETS];       /* in units of a fraction of a request */
	uint64_t alone_total, alone_sum_ns;             /* likewise */
	uint64_t alone_ops;             /* a sample */
	uint64_t late_ns;               /* beyond this a request is late; 0: not known */
	uint64_t late_ppm;              /* so many may be */
	int64_t debt;                   /* late ones beyond that, times 1000000 */
	int64_t debt_before;            /* the last sample */
	enum guest_mood mood;
};

/* now: what all guests have felt so far. */
void guest_watch_init(struct guest_watch *watch, const struct io_snapshot *now,
		      uint64_t sample_ns);

/* The end of a sample. */
void guest_watch_sample(struct guest_watch *watch, const struct io_snapshot *now,
			uint64_t in_flight);

/* Of the last sample. */
uint64_t guest_watch_ops(const struct guest_watch *watch);

/* In the last sample nothing of ours ran: learn from it. */
void guest_watch_learn(struct guest_watch *watch);
/* Another guest, or another life of it: nothing is known. */
void guest_watch_forget(struct guest_watch *watch);

#endif

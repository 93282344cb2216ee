/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.h - how long a lock may be relied upon, and when another's is dead (R-F1, R-F3).
 *
 * The holder renews its lock every period.  It may write until
 *
 *	sent + lease - wire - server - 2 % of the lease
 *
 * where `sent` is when the last renewal that succeeded was *sent*: its answer may be late, but
 * the store cannot have stamped it before.  `wire` bounds how long a byte may sit in a socket
 * (TCP_USER_TIMEOUT), `server` how long a request may sit in the server, and 2 % is how far two
 * clocks may drift apart.  Somebody else takes the lock only after he has seen one and the same
 * stamp for a whole lease on his own clock, counted from *his* first sight of it.
 *
 * Units: nanoseconds of CLOCK_BOOTTIME, which goes on while the host is suspended.
 * Pure functions; any thread.
 */
#ifndef BM_LEASE_H
#define BM_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

struct lease_times {
	uint64_t lease_ns;
	uint64_t period_ns;
	uint64_t wire_ns;
	uint64_t server_ns;
};

/* 20 s, renewed every 3 s; 4 s on the wire, 4 s in the server. */
extern const struct lease_times lease_times_default;

/*
 * -EINVAL: a time is zero, the sum overflows, or the lease does not outlast three periods, the
 * wire and the server; or nothing would be left of it to write in.
 */
MUST_CHECK int lease_times_check(const struct lease_times *times);

/* The first instant at which nothing may be sent any more; UINT64_MAX never results. */
uint64_t lease_valid_until_ns(const struct lease_times *times, uint64_t sent_ns);

/* Compared at each system call that sends a write, never by a timer's flag. */
static inline bool lease_may_send(uint64_t valid_until_ns, uint64_t now_ns)
{
	return now_ns < valid_until_ns;
}

/* ---- the breaker's side ---- */

/* Zeroed before the first sight. */
struct lease_watch {
	bool seen;
	uint64_t stamp;                 /* a hash of the record as it stands: any change is life */
	uint64_t first_sight_ns;        /* of this stamp */
	uint64_t lease_ns;              /* the longest that was claimed for it, and ours */
};

/* How long a foreign record may make us wait at most, whatever it claims. */
#define LEASE_CLAIM_MAX_NS UINT64_C(300000000000)

/*
 * The lock was read at now_ns (take it *after* the read has been answered: it can only make the
 * wait longer).  claimed_ns: the lease that the record names, 0 when it cannot be
 * read.  Returns how long to wait still; 0: the holder is dead, its lock may be taken.
 */
uint64_t lease_watch_note(struct lease_watch *watch, const struct lease_times *ours,
			  uint64_t stamp, uint64_t claimed_ns, uint64_t now_ns);

/* ---- after a lapse (R-F3) ---- */

enum lease_verdict {
	LEASE_STOPPED,                  /* not yet: hold what is to be written */
	LEASE_GOES_ON,
	LEASE_LOST,                     /* for good: somebody else has, or had, the disk */
};

/* What is known since the lapse. */
struct lease_return {
	bool old_connections_dead;      /* R3: nothing sent before the lapse can still arrive */
	bool record_read;               /* the rest is known */
	bool is_ours;                   /* same owner ... */
	bool same_generation;           /* ... and it is still the highest */
	bool renewed;                   /* and a renewal has succeeded after that look */
};

enum lease_verdict lease_after_lapse(const struct lease_return *now);

#endif

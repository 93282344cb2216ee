/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/lease.h"

#include <errno.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

#define DRIFT_PERCENT 2u

const struct lease_times lease_times_default = {
	.lease_ns = 20 * NS_PER_S,
	.period_ns = 3 * NS_PER_S,
	.wire_ns = 4 * NS_PER_S,
	.server_ns = 4 * NS_PER_S,
};

/* What of the lease is not the holder's to write in; rounded up.  Cannot overflow once checked. */
static uint64_t margin_ns(const struct lease_times *times)
{
	uint64_t drift_ns = times->lease_ns / 100 * DRIFT_PERCENT +
			    div_round_up(times->lease_ns % 100 * DRIFT_PERCENT, 100);

	return times->wire_ns + times->server_ns + drift_ns;
}

int lease_times_check(const struct lease_times *times)
{
	uint64_t needed_ns;

	if (!times->lease_ns || !times->period_ns || !times->wire_ns || !times->server_ns ||
	    times->lease_ns > LEASE_CLAIM_MAX_NS)
		return -EINVAL;
	/* R-F1 */
	if (!u64_mul(times->period_ns, 3, &needed_ns) ||
	    !u64_add(needed_ns, times->wire_ns, &needed_ns) ||
	    !u64_add(needed_ns, times->server_ns, &needed_ns) || times->lease_ns < needed_ns)
		return -EINVAL;
	return margin_ns(times) < times->lease_ns ? 0 : -EINVAL;
}

uint64_t lease_valid_until_ns(const struct lease_times *times, uint64_t sent_ns)
{
	uint64_t until_ns;

	CHECK(lease_times_check(times) == 0);
	if (!u64_add(sent_ns, times->lease_ns - margin_ns(times), &until_ns))
		return UINT64_MAX - 1;
	return until_ns;
}

uint64_t lease_watch_note(struct lease_watch *watch, const struct lease_times *ours,
			  uint64_t stamp, uint64_t claimed_ns, uint64_t now_ns)
{
	uint64_t lease_ns = MAX(ours->lease_ns, MIN(claimed_ns, LEASE_CLAIM_MAX_NS));
	uint64_t stood_ns;

	if (!watch->seen || watch->stamp != stamp) {
		*watch = (struct lease_watch){ .seen = true, .stamp = stamp,
					       .first_sight_ns = now_ns, .lease_ns = lease_ns };
		return lease_ns;
	}
	CHECK(now_ns >= watch->first_sight_ns);
	watch->lease_ns = MAX(watch->lease_ns, lease_ns);
	stood_ns = now_ns - watch->first_sight_ns;
	return stood_ns < watch->lease_ns ? watch->lease_ns - stood_ns : 0;
}

/* R-F3: a lapse is not yet a loss; a look at somebody else's record is. */
enum lease_verdict lease_after_lapse(const struct lease_return *now)
{
	if (now->record_read && (!now->is_ours || !now->same_generation))
		return LEASE_LOST;
	return now->record_read && now->old_connections_dead && now->renewed ? LEASE_GOES_ON
									      : LEASE_STOPPED;
}

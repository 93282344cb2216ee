/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover_budget.c - a budget on what mirroring adds to the guests' writes (R13).
 *
 *                 mean over the budget
 *     MIRRORING ----------------------> SHEDDING ------- nearly in sync -------> LAST SYNC
 *         ^                                ^                                      |  |
 *         |                                +-- 2 s are over, still over: later ---+  |
 *         +----------------- 2 s are over, within the budget ------------------------+
 *
 * A target that is merely slow, never late, would make its guest as slow as itself.  With a
 * budget the regions are shed to dirty instead: guests write to the source only and the
 * copier follows.  It follows, so it can never quite arrive: once little is left, mirroring
 * is taken up again for a bounded time, in which the rest is copied and the switch-over
 * made.  There is no way back to mirroring but this one, and each try that fails, or that
 * was true for less than a minute, doubles the time to the next: a target near the budget
 * does not make the move swing to and fro.
 */
#include <inttypes.h>

#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

#define WINDOW_NS (500 * NS_PER_MS)     /* the mean is that of the last one to two of these */
#define LAST_SYNC_NS (2 * NS_PER_S)
#define WAIT_FIRST_NS (5 * NS_PER_S)
#define WAIT_MAX_NS (300 * NS_PER_S)
#define CALM_NS (60 * NS_PER_S)         /* mirroring for so long: what was before is forgotten */
#define WAIT_IN_SWITCH_NS (100 * NS_PER_MS)
#define NEARLY_BYTES (UINT64_C(1) << 20)

/* ---- the mean ---- */

static struct added_latency budget_added(struct mover *mover)
{
	struct added_latency added = { 0 };

	mover_for_each(part, mover) {
		struct mirror_stats stats;

		mirror_stats(part->mirror, &stats);
		added.ops += stats.mirrored_ops;
		added.sum_ns += stats.added_sum_ns;
	}
	return added;
}

static void budget_restart_window(struct mover *mover)
{
	mover->budget.newer = mover->budget.older = budget_added(mover);
	mover->budget.newer_from_ns = loop_now_ns(mover->loop);
}

/* What is waiting now counts with what it has waited so far: a stall is seen while it lasts. */
static uint64_t budget_mean_ns(struct mover *mover)
{
	struct added_latency added = budget_added(mover);
	uint64_t waited_ns;

	added.ops -= mover->budget.older.ops;
	added.sum_ns -= mover->budget.older.sum_ns;
	mover_for_each(part, mover) {
		added.ops += mirror_waiting_ops(part->mirror, &waited_ns);
		added.sum_ns += waited_ns;
	}
	return added.ops ? added.sum_ns / added.ops : 0;
}

static void budget_roll_window(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);

	if (now_ns - mover->budget.newer_from_ns < WINDOW_NS)
		return;
	mover->budget.older = mover->budget.newer;
	mover->budget.newer = budget_added(mover);
	mover->budget.newer_from_ns = now_ns;
}

/* ---- shedding ---- */

bool mover_is_shedding(const struct mover *mover)
{
	return mover->budget.state == BUDGET_SHEDDING;
}

static void budget_wait(struct mover *mover)
{
	mover->budget.state = BUDGET_SHEDDING;
	mover->budget.try_at_ns = loop_now_ns(mover->loop) + mover->budget.wait_ns;
	timer_start_at(&mover->budget.timer, mover->budget.try_at_ns);
	mover_apply_mirrors(mover);
	mover_tell(mover);
}

static void budget_shed(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);

	log_warn("mover", "the target adds %" PRIu64 " us to a guest's write, the budget is %" PRIu64
		 " us: guest writes are copied later", mover->budget.mean_ns / NS_PER_US,
		 mover->options.latency_budget_ns / NS_PER_US);
	mover->budget.shed_mean_ns = mover->budget.mean_ns;
	mover->budget.sheds++;
	if (!mover->budget.wait_ns || now_ns - mover->budget.stopped_at_ns > CALM_NS)
		mover->budget.wait_ns = WAIT_FIRST_NS;
	else
		mover->budget.wait_ns = MIN(mover->budget.wait_ns * 2, WAIT_MAX_NS);
	mover->budget.copy_rate = 0;
	mover->budget.copied_at_ns = 0;
	budget_wait(mover);
}

static void budget_stop_shedding(struct mover *mover)
{
	if (mover->budget.state == BUDGET_MIRRORING)
		return;
	mover->budget.state = BUDGET_MIRRORING;
	mover->budget.stopped_at_ns = loop_now_ns(mover->loop);
	timer_stop(&mover->budget.timer);
	budget_restart_window(mover);
	mover_apply_mirrors(mover);
	mover_tell(mover);
	mover_look(mover);
}

/* Bytes a second of the copier, the best of late: it idles when there is nothing to copy. */
static void budget_measure_copier(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop), bytes = 0;
	double rate;

	mover_for_each(part, mover) {
		struct copy_stats stats;

		copy_engine_stats(part->engine, &stats);
		bytes += stats.copied_bytes + stats.zero_bytes;
	}
	if (mover->budget.copied_at_ns && now_ns > mover->budget.copied_at_ns) {
		rate = (double)(bytes - mover->budget.copied_bytes) * 1e9 /
		       (double)(now_ns - mover->budget.copied_at_ns);
		mover->budget.copy_rate = MAX(rate, mover->budget.copy_rate * 0.98);
	}
	mover->budget.copied_at_ns = now_ns;
	mover->budget.copied_bytes = bytes;
}

/* ---- the last sync ---- */

/* Can the copier be expected to make the rest in a quarter of the last sync? */
bool mover_nearly_in_sync(struct mover *mover)
{
	double reach = mover->budget.copy_rate * ((double)LAST_SYNC_NS / 1e9) / 4;
	uint64_t dirty_bytes = 0;

	mover_for_each(part, mover) {
		if (part->old_requests)
			return false;
		dirty_bytes += dirty_bitmap_bytes(mirror_dirty(part->mirror));
	}
	return dirty_bytes <= NEARLY_BYTES || (double)dirty_bytes <= reach;
}

void mover_budget_try(struct mover *mover)
{
	if (loop_now_ns(mover->loop) < mover->budget.try_at_ns)
		return;                 /* the timer makes us look */
	log_info("mover", "nearly in sync: guest writes are mirrored for the last of it");
	mover->budget.state = BUDGET_LAST_SYNC;
	budget_restart_window(mover);
	timer_start(&mover->budget.timer, LAST_SYNC_NS);
	mover_apply_mirrors(mover);
	mover_tell(mover);
}

void mover_budget_end_trial(struct mover *mover)
{
	if (mover->budget.state != BUDGET_LAST_SYNC)
		return;
	mover->budget.wait_ns = MIN(mover->budget.wait_ns * 2, WAIT_MAX_NS);
	budget_wait(mover);
}

void mover_budget_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, budget.timer);

	if (mover->leaving || mover->state >= MOVER_COMMIT) {
		mover_look(mover);
		return;
	}
	if (mover->budget.state == BUDGET_LAST_SYNC) {
		/* A switch-over under way has bounds of its own. */
		if (mover->state == MOVER_SWITCH)
			timer_start(timer, WAIT_IN_SWITCH_NS);
		else if (budget_mean_ns(mover) <= mover->options.latency_budget_ns)
			budget_stop_shedding(mover);
		else
			mover_budget_end_trial(mover);
	}
	mover_look(mover);
}

/* ---- what the mover calls ---- */

void mover_watch_budget(struct mover *mover)
{
	if (!mover->options.latency_budget_ns || mover->breaker != BREAKER_CLOSED ||
	    mover->pausing || mover->leaving || mover->state > MOVER_HOLD)
		return;
	if (mover_is_shedding(mover)) {
		budget_measure_copier(mover);
		mover_look(mover);
		return;
	}
	mover->budget.mean_ns = budget_mean_ns(mover);
	budget_roll_window(mover);
	if (mover->budget.state == BUDGET_MIRRORING &&
	    mover->budget.mean_ns > mover->options.latency_budget_ns)
		budget_shed(mover);
}

void mover_set_latency_budget(struct mover *mover, uint64_t latency_budget_ns)
{
	LOOP_CHECK(mover->loop);
	mover->options.latency_budget_ns = latency_budget_ns;
	mover->budget.wait_ns = 0;
	budget_stop_shedding(mover);            /* measured anew */
}

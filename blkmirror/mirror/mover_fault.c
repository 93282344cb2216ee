/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover_fault.c - what target and source troubles lead to.  The guest never sees them (M4).
 *
 *   a late leg         the mirror suspends itself (R13): degraded; looked at again until the
 *                      target has settled, then it goes on; after 30 s of nothing: paused
 *   late copier write,  the same
 *   flush, read-back
 *   target full        paused at once: more writes do not make space
 *   target errors      their regions are copied again; eight within 10 s: paused
 *   source read error  paused: the source stays as it is and authoritative
 *   mismatch           the target lies: failed (before the switch)
 */
#include <errno.h>
#include <inttypes.h>

#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

#define STUCK_NS (30 * NS_PER_S)

static bool mover_can_still_fall_back(const struct mover *mover)
{
	return mover->state < MOVER_COMMIT || mover->state == MOVER_PAUSED;
}

/* No target I/O from now on; what is in flight ends by itself. */
void mover_pause_for(struct mover *mover)
{
	if (mover->state == MOVER_SWITCH)
		mover_switch_fall_back(mover);
	mover->pausing = false;
	mover_halt_jobs(mover);
	mover_for_each(part, mover)
		mirror_suspend(part->mirror);
	timer_stop(&mover->probe);
	mover_set_state(mover, MOVER_PAUSED);
}

static void mover_target_late(struct mover_part *part)
{
	struct mover *mover = part->mover;

	if (mover->degraded)
		return;
	err_set(&mover->error, ERR_MOVE_TARGET_STUCK, -ETIMEDOUT,
		"the target of '%s' has not answered a write for %" PRIu64 " ms", part->name,
		mover->options.leg_deadline_ns / NS_PER_MS);
	log_warn("mover", "%s: guest writes go to the source only", mover->error.cause);
	mover->degraded = true;
	mover->degraded_since_ns = loop_now_ns(mover->loop);
	if (mover->pausing) {
		mover_pause_for(mover);
		return;
	}
	if (mover->state == MOVER_SWITCH)
		mover_switch_fall_back(mover);
	mover_halt_jobs(mover);
	mover_for_each(other, mover)
		mirror_suspend(other->mirror);
	timer_start(&mover->probe, MOVER_PROBE_NS);
	mover_tell(mover);
}

void mover_watch_targets(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);

	if (mover->state >= MOVER_COMMIT || mover->leaving)
		return;
	mover_for_each(part, mover) {
		uint64_t from_ns = MIN(copy_engine_oldest_write_ns(part->engine),
				       verifier_oldest_read_ns(part->verifier));

		from_ns = MIN(from_ns, mirror_legs_still_ns(part->mirror));
		if (part->flushing)
			from_ns = MIN(from_ns, part->flush_from_ns);
		if (from_ns < now_ns && now_ns - from_ns > mover->options.leg_deadline_ns) {
			mover_target_late(part);
			return;
		}
	}
}

/* Has every late leg settled?  Then the target answers again. */
void mover_probe_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, probe);
	bool settled = true;

	if (!mover->degraded || !mover_can_still_fall_back(mover))
		return;
	mover_for_each(part, mover)
		settled = settled && mirror_is_settled(part->mirror) && !part->flushing &&
			  verifier_oldest_read_ns(part->verifier) == UINT64_MAX;
	if (!settled) {
		if (loop_now_ns(mover->loop) - mover->degraded_since_ns > STUCK_NS)
			mover_pause_for(mover);
		else
			timer_start(&mover->probe, MOVER_PROBE_NS);
		return;
	}
	mover->degraded = false;
	err_clear(&mover->error);
	log_info("mover", "the target answers again");
	mover_for_each(part, mover)
		mirror_resume(part->mirror);
	mover_run_jobs(mover);
	mover_tell(mover);
}

/* After the switch only the last comparison is left: it ends, and the error says so. */
static void mover_end_comparison(struct mover_part *part)
{
	verifier_stop(part->verifier);
	mover_look(part->mover);
}

void mover_target_trouble(struct mover_part *part, int error)
{
	struct mover *mover = part->mover;
	uint64_t now_ns = loop_now_ns(mover->loop);

	if (mover->state == MOVER_SWITCHED) {
		err_set(&mover->error, ERR_MOVE_VERIFY, error,
			"cannot compare the last regions of '%s': reading the target: %s",
			part->name, err_strerror(error));
		mover_end_comparison(part);
		return;
	}
	if (!mover_can_still_fall_back(mover) || mover->state == MOVER_PAUSED || mover->leaving)
		return;
	if (error == -ETIMEDOUT) {
		mover_target_late(part);
		return;
	}
	if (now_ns - mover->fault_since_ns > MOVER_FAULT_SPAN_NS) {
		mover->fault_since_ns = now_ns;
		mover->fault_count = 0;
	}
	mover->fault_count++;
	if (error != -ENOSPC && error != -EDQUOT && mover->fault_count < MOVER_FAULTS_MAX)
		return;
	err_set(&mover->error, ERR_MOVE_TARGET_WRITE, error, "cannot write the target of '%s': %s",
		part->name, err_strerror(error));
	mover_pause_for(mover);
}

void mover_source_trouble(struct mover_part *part, int error, uint64_t offset_bytes)
{
	struct mover *mover = part->mover;

	if (mover->state == MOVER_SWITCHED) {
		err_set(&mover->error, ERR_MOVE_SOURCE_READ, error,
			"cannot compare the last regions of '%s': reading its old copy at %" PRIu64
			": %s", part->name, offset_bytes, err_strerror(error));
		mover_end_comparison(part);
		return;
	}
	if (!mover_can_still_fall_back(mover) || mover->state == MOVER_PAUSED || mover->leaving)
		return;
	err_set(&mover->error, ERR_MOVE_SOURCE_READ, error,
		"cannot read the source of '%s' at %" PRIu64 ": %s", part->name, offset_bytes,
		err_strerror(error));
	mover_pause_for(mover);
}

void mover_mismatch(struct mover_part *part, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct mover *mover = part->mover;

	/* Guests no longer pass the mirror: source and target differ by right. */
	if (mover->leaving || (!mover_can_still_fall_back(mover) && mover->state != MOVER_SWITCHED))
		return;
	err_set(&mover->error, ERR_MOVE_VERIFY, -EBADMSG,
		"the target of '%s' does not hold what was written: %" PRIu64 " bytes at %" PRIu64,
		part->name, len_bytes, offset_bytes);
	log_error("mover", "%s", mover->error.cause);
	if (mover_can_still_fall_back(mover)) {
		mover_leave(mover, MOVER_FAILED);
		return;
	}
	mover_end_comparison(part);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* mover_fault.c - what is told of a target or a source, judged by the table in mover.h (M4). */
#include <errno.h>
#include <inttypes.h>

#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

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
	mover_budget_end_trial(mover);
	mover_for_each(part, mover)
		copy_engine_set_jobs_max(part->engine, 0);
	mover->breaker = BREAKER_CLOSED;
	timer_stop(&mover->probe);
	mover_set_state(mover, MOVER_PAUSED);
	mover_apply_mirrors(mover);
}

/* ---- late ---- */

static void mover_target_late(struct mover_part *part)
{
	struct mover *mover = part->mover;

	if (mover->breaker == BREAKER_OPEN)
		return;
	err_set(&mover->error, ERR_MOVE_TARGET_STUCK, -ETIMEDOUT,
		"the target of '%s' has not answered for %" PRIu64 " ms", part->name,
		mover->options.leg_deadline_ns / NS_PER_MS);
	log_warn("mover", "%s: guest writes go to the source only", mover->error.cause);
	mover_breaker_open(mover);
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

/* ---- failed ---- */

enum target_fault {
	FAULT_PASSING,          /* tried again, so often */
	FAULT_FULL,
	FAULT_REFUSED,
	FAULT_LOST,
};

static enum target_fault target_fault_of(const struct mover_part *part, int error)
{
	if (blk_is_lost(mirror_target(part->mirror)))
		return FAULT_LOST;
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return FAULT_FULL;
	case -EROFS:
	case -EACCES:
	case -EPERM:
		return FAULT_REFUSED;
	default:
		return FAULT_PASSING;
	}
}

/*
 * One round of a passing error: what fails while the copier rests belongs to the round that
 * sent it to rest.  The copier rests longer each time; rounds are forgotten one by one.
 */
static bool mover_tries_again(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);
	uint64_t forgotten = (now_ns - mover->fault_at_ns) / MOVER_FAULT_FORGET_NS;
	uint64_t rest_ns;

	if (now_ns < mover->fault_rest_until_ns)
		return true;
	mover->fault_count -= (uint32_t)MIN(forgotten, (uint64_t)mover->fault_count);
	mover->fault_at_ns = now_ns;
	if (++mover->fault_count >= MOVER_FAULTS_MAX)
		return false;
	rest_ns = MOVER_FAULT_REST_NS << (mover->fault_count - 1);
	mover->fault_rest_until_ns = now_ns + rest_ns;
	pacer_rest(&mover->pacer, rest_ns);
	return true;
}

static void mover_tell_target(struct mover_part *part, enum target_fault fault, int error)
{
	struct err *err = &part->mover->error;

	switch (fault) {
	case FAULT_LOST:
		err_set(err, ERR_MOVE_SUSPECT, error,
			"the connection to the target of '%s' is lost; what was under way may "
			"still land there", part->name);
		return;
	case FAULT_FULL:
		err_set(err, ERR_MOVE_TARGET_FULL, error, "the target of '%s' is full: %s",
			part->name, err_strerror(error));
		return;
	case FAULT_REFUSED:
	case FAULT_PASSING:
		err_set(err, ERR_MOVE_TARGET_WRITE, error, "cannot write the target of '%s': %s",
			part->name, err_strerror(error));
		if (fault == FAULT_REFUSED)
			err_remedy(err, "Make the target's store writable for this host and "
				   "'task resume', or cancel the task.");
		return;
	}
}

/* It was paused for its target, or what was under way there before the pause has not ended. */
bool mover_target_is_in_doubt(struct mover *mover)
{
	if (mover->error.id == ERR_MOVE_TARGET_STUCK || mover->error.id == ERR_MOVE_TARGET_WRITE ||
	    mover->error.id == ERR_MOVE_TARGET_FULL)
		return true;
	mover_for_each(part, mover) {
		if (mirror_is_settled(part->mirror))
			continue;
		err_set(&mover->error, ERR_MOVE_TARGET_STUCK, -ETIMEDOUT,
			"the target of '%s' has not yet answered what was under way before the "
			"pause", part->name);
		return true;
	}
	return false;
}

/* R2: a lost connection had no barrier; nothing is sent to that target instance again. */
int mover_judge_targets(struct mover *mover, struct err *err)
{
	mover_for_each(part, mover)
		if (blk_is_lost(mirror_target(part->mirror)))
			return err_set(err, ERR_MOVE_SUSPECT, -EBUSY,
				       "cannot resume: the connection to the target of '%s' is lost",
				       part->name);
	return 0;
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
	enum target_fault fault;

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
	fault = target_fault_of(part, error);
	if (fault == FAULT_PASSING && mover_tries_again(mover)) {
		log_debug("mover", "target of '%s': %s; tried again", part->name,
			  err_strerror(error));
		return;
	}
	mover_tell_target(part, fault, error);
	log_warn("mover", "%s", mover->error.cause);
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

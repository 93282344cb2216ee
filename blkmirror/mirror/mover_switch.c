/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover_switch.c - the switch-over of all disks in one instant.
 *
 *   S1 preflush   flush the targets while the guests run: the last flush is short then
 *   S2 quiet      no copy or verify job in flight
 *   S3 drain      hold every gate; the stun begins; wait for the requests inside
 *   S4 settle     buffered legs land; every region clean, nothing unsettled (R2)
 *   S5 flush      the targets hold all that the guests were told
 *   S6 commit     the bound is checked, then the record is issued: no way back (R-J3)
 *   S7 switched   the gates open onto the targets
 *
 * Until S6 everything, the bound included, falls back to the source.
 */
#include <errno.h>
#include <inttypes.h>

#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

#define RETRY_NS (200 * NS_PER_MS)

static void mover_switch_step(struct mover *mover, enum switch_step step)
{
	mover->step = step;
	mover->step_pending = 0;
	mover->step_failed = false;
}

/* ---- falling back ---- */

static bool mover_gates_are_held(const struct mover *mover)
{
	return mover->step >= SWITCH_DRAIN;
}

/* Guests go on where they were; the jobs go on too. */
void mover_switch_fall_back(struct mover *mover)
{
	bool held = mover_gates_are_held(mover);

	CHECK(mover->step != SWITCH_COMMITTING);
	timer_stop(&mover->stun);
	mover_switch_step(mover, SWITCH_IDLE);
	mover_set_state(mover, MOVER_VERIFY);
	mover_for_each(part, mover) {
		if (!held)
			break;
		gate_drain_cancel(part->gate);
		gate_release(part->gate);
	}
	mover_run_jobs(mover);
}

/* This try has failed: again a little later, or, past the overall bound, hold. */
static void mover_switch_again(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);

	mover_switch_fall_back(mover);
	if (now_ns - mover->switch_from_ns >= mover->options.max_switchover_ns) {
		err_set(&mover->error, ERR_MOVE_STUN, -ETIMEDOUT,
			"no switch-over within %" PRIu64 " ms of stun in %u tries; still in sync on the source",
			mover->options.max_stun_ns / NS_PER_MS, mover->tries);
		mover->completing = false;
		mover->options.hold = true;
		mover_set_state(mover, MOVER_HOLD);
		return;
	}
	timer_start(&mover->retry, RETRY_NS);
}

void mover_retry_fired(struct timer *timer)
{
	mover_look(container_of(timer, struct mover, retry));
}

void mover_stun_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, stun);

	if (mover->step == SWITCH_COMMITTING || mover->step == SWITCH_IDLE)
		return;
	mover_switch_again(mover);
}

/* ---- S7: switched ---- */

static void mover_log_stun(const struct mover *mover)
{
	log_info("mover", "switched over: guest I/O was held for %" PRIu64 " us: drained in %" PRIu64
		 ", targets flushed in %" PRIu64 ", record written in %" PRIu64 "; %u tries",
		 mover->stun_ns / NS_PER_US, (mover->drained_ns - mover->stun_from_ns) / NS_PER_US,
		 (mover->flushed_ns - mover->drained_ns) / NS_PER_US,
		 (mover->stun_from_ns + mover->stun_ns - mover->flushed_ns) / NS_PER_US,
		 mover->tries);
}

static void mover_switch_done(struct mover *mover)
{
	mover->stun_ns = loop_now_ns(mover->loop) - mover->stun_from_ns;
	mover_switch_step(mover, SWITCH_IDLE);
	mover_for_each(part, mover)
		mirror_switch(part->mirror);
	mover_for_each(part, mover)
		gate_release(part->gate);
	mover_log_stun(mover);
	err_clear(&mover->error);
	mover_set_state(mover, MOVER_SWITCHED);
	/* The last regions: source against target, both known, one of them at rest. */
	mover_for_each(part, mover)
		if (mover->options.verify)
			verifier_start(part->verifier);
	mover_look(mover);
}

void mover_committed(struct mover *mover, int result)
{
	LOOP_CHECK(mover->loop);
	CHECK(mover->state == MOVER_COMMIT);
	CHECK(mover->step == SWITCH_COMMITTING);
	if (result == 0) {
		mover_switch_done(mover);
	} else if (result == -ECANCELED) {
		/* A durable ABORT record: the only way back.  Nothing is unknown any more. */
		err_clear(&mover->error);
		mover->step = SWITCH_FLUSH;
		mover_switch_fall_back(mover);
		timer_start(&mover->retry, RETRY_NS);
	} else {
		err_set(&mover->error, ERR_MOVE_COMMIT, result,
			"the switch record may or may not be durable: %s", err_strerror(result));
		log_error("mover", "%s; guest I/O stays held", mover->error.cause);
		mover_tell(mover);
	}
}

/* ---- S5, S6: flush, commit ---- */

static void mover_switch_commit(struct mover *mover)
{
	uint64_t stun_ns = loop_now_ns(mover->loop) - mover->stun_from_ns;

	/* R-J3: the last look at the bound. */
	if (stun_ns > mover->options.max_stun_ns) {
		mover_switch_again(mover);
		return;
	}
	timer_stop(&mover->stun);
	mover->flushed_ns = loop_now_ns(mover->loop);
	mover_switch_step(mover, SWITCH_COMMITTING);
	mover_set_state(mover, MOVER_COMMIT);
	mover->ops.commit(mover, mover->user);
}

static void mover_flushed(struct mirror_flush *flush, int result)
{
	struct mover_part *part = container_of(flush, struct mover_part, flush);
	struct mover *mover = part->mover;

	part->flushing = false;
	if (mover->step != SWITCH_PREFLUSH && mover->step != SWITCH_FLUSH)
		return;                 /* of a try that fell back meanwhile */
	if (result)
		mover->step_failed = true;
	mover_look(mover);
}

static void mover_flush_all(struct mover *mover)
{
	mover_for_each(part, mover) {
		if (part->flushing)     /* a flush of an earlier try: it covers less, so wait for it */
			continue;
		part->flushing = true;
		part->flush_from_ns = loop_now_ns(mover->loop);
		part->flush.done = mover_flushed;
		mirror_flush_target(part->mirror, &part->flush);
	}
}

static bool mover_any_flushing(const struct mover *mover)
{
	mover_for_each(part, (struct mover *)mover)
		if (part->flushing)
			return true;
	return false;
}

/* ---- S3, S4: drain, settle ---- */

static void mover_gate_drained(struct gate *gate, void *user)
{
	struct mover *mover = user;

	(void)gate;
	if (mover->step != SWITCH_DRAIN)
		return;
	CHECK(mover->step_pending > 0);
	mover->step_pending--;
	mover_look(mover);
}

static void mover_switch_drain(struct mover *mover)
{
	mover->tries++;
	mover->stun_from_ns = loop_now_ns(mover->loop);
	timer_start(&mover->stun, mover->options.max_stun_ns);
	mover_switch_step(mover, SWITCH_DRAIN);
	mover->step_pending = mover->part_count;
	mover_for_each(part, mover)
		gate_hold(part->gate);
	mover_for_each(part, mover)
		gate_drain(part->gate, mover_gate_drained, mover);
}

static bool mover_all_settled(struct mover *mover)
{
	mover_for_each(part, mover)
		if (!mirror_is_settled(part->mirror))
			return false;
	return true;
}

static bool mover_all_in_sync(struct mover *mover)
{
	mover_for_each(part, mover)
		if (!mover_part_in_sync(part))
			return false;
	return true;
}

/* ---- the steps ---- */

/* S4: with every gate held and drained, what is not clean now will not become so. */
static void mover_switch_settle(struct mover *mover)
{
	if (!mover_all_settled(mover))
		return;
	if (!mover_all_in_sync(mover)) {
		mover_switch_again(mover);
		return;
	}
	/* A flush of before the hold proves nothing about what landed since: ask a new one. */
	if (mover_any_flushing(mover))
		return;
	mover_switch_step(mover, SWITCH_FLUSH);
	mover_flush_all(mover);
}

/* S5 is over: the targets hold everything, or the regions in doubt are dirty again. */
static void mover_switch_flushed(struct mover *mover)
{
	if (mover_any_flushing(mover))
		return;
	if (mover->step_failed || !mover_all_in_sync(mover))
		mover_switch_again(mover);
	else
		mover_switch_commit(mover);
}

void mover_switch_look(struct mover *mover)
{
	switch (mover->step) {
	case SWITCH_PREFLUSH:
		if (mover_any_flushing(mover))
			return;
		if (mover->step_failed || !mover_all_in_sync(mover)) {
			mover_switch_again(mover);
			return;
		}
		/* S2: the jobs come to rest while the guests still run. */
		mover_switch_step(mover, SWITCH_QUIET);
		mover_halt_jobs(mover);
		mover_look(mover);
		return;
	case SWITCH_QUIET:
		if (mover_jobs_are_quiet(mover))
			mover_switch_drain(mover);
		return;
	case SWITCH_DRAIN:
		if (mover->step_pending)
			return;
		mover->drained_ns = loop_now_ns(mover->loop);
		mover_switch_step(mover, SWITCH_SETTLE);
		mover_switch_settle(mover);
		return;
	case SWITCH_SETTLE:
		mover_switch_settle(mover);
		return;
	case SWITCH_FLUSH:
		mover_switch_flushed(mover);
		return;
	case SWITCH_IDLE:
	case SWITCH_COMMITTING:
		return;
	}
}

/* S1: all is in sync.  What the targets can flush now need not be flushed in the stun. */
void mover_switch_begin(struct mover *mover)
{
	if (!mover->switch_from_ns)
		mover->switch_from_ns = loop_now_ns(mover->loop);
	timer_stop(&mover->retry);
	mover_set_state(mover, MOVER_SWITCH);
	mover_switch_step(mover, SWITCH_PREFLUSH);
	mover_flush_all(mover);
}

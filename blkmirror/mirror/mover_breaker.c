/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover_breaker.c - who may talk to a target that has failed or is late (R13).
 *
 *              late, failed                    settled, back-off over
 *     CLOSED ----------------> OPEN ------------------------------------> PROBING
 *        ^                      ^ |                                         | |
 *        |                      | +-- 30 s without a good answer: paused    | |
 *        |                      +--- late or failed again, back-off doubled + |
 *        +------------------- every target has answered a write --------------+
 *
 *   OPEN     no new target I/O.  Guests write to the source only, what waited for a target
 *            is answered at once, and what is in flight there settles by itself (R2).
 *   PROBING  the copier alone goes on, one job a disk: the guest never finds out for it
 *            whether the target is well.  A disk with nothing to copy, or nothing that its
 *            guest leaves alone long enough, is asked to flush.
 *
 * The back-off grows while the trouble returns and is forgotten after a quiet minute, so a
 * target that comes and goes costs a guest one leg deadline in every back-off at most.
 */
#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

#define BACKOFF_FIRST_NS NS_PER_S
#define BACKOFF_MAX_NS (16 * NS_PER_S)
#define CALM_NS (60 * NS_PER_S)
#define STUCK_NS (30 * NS_PER_S)

/* ---- what the mirrors may do now: the breaker first, then the budget ---- */

void mover_apply_mirrors(struct mover *mover)
{
	mover_for_each(part, mover) {
		if (mover->state == MOVER_PAUSED || mover->breaker == BREAKER_OPEN)
			mirror_suspend(part->mirror);
		else if (mover->breaker == BREAKER_PROBING || mover_is_shedding(mover))
			mirror_copy_only(part->mirror);
		else
			mirror_resume(part->mirror);
	}
}

/* ---- opening ---- */

static void breaker_arm(struct mover *mover)
{
	mover->probe_at_ns = loop_now_ns(mover->loop) + mover->backoff_ns;
	timer_start_at(&mover->probe, mover->probe_at_ns);
}

void mover_breaker_open(struct mover *mover)
{
	uint64_t now_ns = loop_now_ns(mover->loop);

	CHECK(mover->breaker != BREAKER_OPEN);
	if (mover->breaker == BREAKER_CLOSED) {
		mover->open_from_ns = now_ns;
		mover->trips++;
		if (!mover->backoff_ns || now_ns - mover->closed_at_ns > CALM_NS)
			mover->backoff_ns = BACKOFF_FIRST_NS / 2;
	}
	mover->backoff_ns = MIN(mover->backoff_ns * 2, BACKOFF_MAX_NS);
	mover->breaker = BREAKER_OPEN;
	if (mover->pausing) {
		mover_pause_for(mover);
		return;
	}
	if (mover->state == MOVER_SWITCH)
		mover_switch_fall_back(mover);
	mover_budget_end_trial(mover);
	mover_halt_jobs(mover);
	mover_apply_mirrors(mover);
	breaker_arm(mover);
	mover_tell(mover);
}

void mover_breaker_ask(struct mover *mover)
{
	mover->breaker = BREAKER_OPEN;
	mover->open_from_ns = loop_now_ns(mover->loop);
	mover->backoff_ns = 0;
	breaker_arm(mover);
}

/* ---- probing ---- */

static bool breaker_is_settled(struct mover *mover)
{
	mover_for_each(part, mover)
		if (!mirror_is_settled(part->mirror) || part->flushing ||
		    !copy_engine_is_stopped(part->engine) ||
		    verifier_oldest_read_ns(part->verifier) != UINT64_MAX)
			return false;
	return true;
}

static void part_probe_flushed(struct mirror_flush *flush, int result)
{
	struct mover_part *part = container_of(flush, struct mover_part, flush);

	part->flushing = false;
	part->probed = result == 0;     /* an error has been told to mover_target_trouble() */
	mover_look(part->mover);
}

/* Nothing to copy: a flush is answered by the target, too. */
static void part_probe_by_flush(struct mover_part *part)
{
	part->flushing = true;
	part->flush_from_ns = loop_now_ns(part->mover->loop);
	part->flush.done = part_probe_flushed;
	mirror_flush_target(part->mirror, &part->flush);
}

static uint64_t part_target_writes(const struct mover_part *part)
{
	struct copy_stats stats;

	copy_engine_stats(part->engine, &stats);
	return stats.target_writes;
}

static void breaker_probe(struct mover *mover)
{
	log_info("mover", "the copier probes the target");
	mover->breaker = BREAKER_PROBING;
	mover->probe_at_ns = loop_now_ns(mover->loop) + mover->options.leg_deadline_ns;
	timer_start_at(&mover->probe, mover->probe_at_ns);
	mover_apply_mirrors(mover);
	mover_for_each(part, mover) {
		part->probed = false;
		part->probe_from_writes = part_target_writes(part);
		copy_engine_set_jobs_max(part->engine, 1);
		if (!part->old_requests)        /* R1 */
			copy_engine_start(part->engine);
	}
	mover_look(mover);
}

static void part_look_at_probe(struct mover_part *part)
{
	if (part->probed || part->flushing || part->old_requests)
		return;
	if (part_target_writes(part) > part->probe_from_writes)
		part->probed = true;
	else if (mirror_is_settled(part->mirror) &&
		 (dirty_bitmap_is_clean(mirror_dirty(part->mirror)) ||
		  loop_now_ns(part->mover->loop) >= part->mover->probe_at_ns))
		part_probe_by_flush(part);
	else
		copy_engine_start(part->engine);
}

/* ---- closing ---- */

static void breaker_close(struct mover *mover)
{
	log_info("mover", "the target answers again");
	timer_stop(&mover->probe);
	mover->breaker = BREAKER_CLOSED;
	mover->closed_at_ns = loop_now_ns(mover->loop);
	err_clear(&mover->error);
	mover_for_each(part, mover)
		copy_engine_set_jobs_max(part->engine, 0);
	mover_apply_mirrors(mover);
	mover_run_jobs(mover);
	mover_tell(mover);
}

void mover_breaker_look(struct mover *mover)
{
	bool probed = true;

	if (mover->state > MOVER_HOLD || mover->pausing || mover->leaving)
		return;
	if (mover->breaker == BREAKER_OPEN && loop_now_ns(mover->loop) >= mover->probe_at_ns &&
	    breaker_is_settled(mover))
		breaker_probe(mover);
	if (mover->breaker != BREAKER_PROBING)
		return;
	mover_for_each(part, mover) {
		part_look_at_probe(part);
		probed = probed && part->probed;
	}
	if (probed)
		breaker_close(mover);
}

/* The back-off is over, or the patience with the target, or with a probe that finds nothing to copy. */
void mover_probe_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, probe);
	uint64_t now_ns = loop_now_ns(mover->loop);

	if (mover->state > MOVER_HOLD || mover->leaving)
		return;
	mover_breaker_look(mover);
	if (mover->breaker != BREAKER_OPEN)
		return;
	if (now_ns >= mover->open_from_ns + STUCK_NS)
		mover_pause_for(mover);
	else    /* until then what settles makes us look */
		timer_start_at(timer, mover->open_from_ns + STUCK_NS);
}

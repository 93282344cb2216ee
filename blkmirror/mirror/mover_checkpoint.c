/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover_checkpoint.c - the journals of a mover: checkpoints, and what to do without one.
 *
 * A checkpoint flushes both legs (R-J1), so there is none while the target is late, paused or
 * about to become the source.  One more is made when the daemon stops, on a target at rest.
 *
 * A journal that cannot be written ends the move: the guest's next write to a region that the
 * journal calls clean would otherwise be lost by a resume.  Such writes wait until the move can
 * durably not be resumed (ops->abandon()).
 */
#include <errno.h>

#include "blkmirror/base/log.h"
#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/mover_private.h"

#define ABANDON_RETRY_NS NS_PER_S

/* ---- one disk's checkpoint ---- */

static void part_touch(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	struct mover_part *part = user;

	journal_touch(part->journal, offset_bytes, len_bytes);
}

static void part_touch_in_flight(void *user)
{
	struct mover_part *part = user;

	mirror_visit_in_flight(part->mirror, part_touch, part);
}

static void part_leg_flushed(struct mover_part *part, int result)
{
	if (result && !part->checkpoint_result)
		part->checkpoint_result = result;
	if (--part->checkpoint_pending == 0)
		journal_flushed(part->journal, part->checkpoint_result);
}

static void part_source_flushed(struct blk_req *req)
{
	part_leg_flushed(req->user, req->result);
}

static void part_target_flushed(struct mirror_flush *flush, int result)
{
	part_leg_flushed(container_of(flush, struct mover_part, checkpoint_flush), result);
}

static void part_flush_both(void *user)
{
	struct mover_part *part = user;

	part->checkpoint_pending = 2;
	part->checkpoint_result = 0;
	part->checkpoint_req = (struct blk_req){ .op = BLK_FLUSH, .flags = BLK_COPIER,
						 .done = part_source_flushed, .user = part };
	part->checkpoint_flush.done = part_target_flushed;
	blk_submit(mirror_source(part->mirror), &part->checkpoint_req);
	mirror_flush_target(part->mirror, &part->checkpoint_flush);
}

/* A failed one has cleared nothing: the next is due in its time. */
static void part_checkpointed(int result, void *user)
{
	struct mover_part *part = user;

	struct mover *mover = part->mover;

	if (result)
		log_debug("mover", "%s: checkpoint failed: %d", part->name, result);
	if (result && !mover->checkpoint_result)
		mover->checkpoint_result = result;
	if (mover->checkpointed && !mover_in_checkpoint(mover) && !mover->checkpoint_task.queued)
		loop_post(mover->loop, &mover->checkpoint_task);
	mover_look(mover);
}

static void part_checkpoint(struct mover_part *part)
{
	part->checkpoint_ops = (struct journal_checkpoint_ops){
		.dirty = mirror_dirty(part->mirror),
		.touch_in_flight = part_touch_in_flight,
		.flush_both = part_flush_both,
		.done = part_checkpointed,
	};
	journal_checkpoint(part->journal, &part->checkpoint_ops, part);
}

bool mover_in_checkpoint(const struct mover *mover)
{
	mover_for_each(part, (struct mover *)mover)
		if (part->journal && journal_in_checkpoint(part->journal))
			return true;
	return false;
}

void mover_checkpoint_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, checkpoint);

	if (mover->state < MOVER_SWITCH && !mover->leaving && mover->breaker == BREAKER_CLOSED) {
		mover_for_each(part, mover)
			if (part->journal && !journal_in_checkpoint(part->journal) &&
			    mirror_state(part->mirror) != MIRROR_SUSPENDED)
				part_checkpoint(part);
	}
	timer_start(timer, mover->options.checkpoint_ns);
}

/* All is copied: a crash within the interval should not cost it. */
void mover_checkpoint_soon(struct mover *mover)
{
	if (mover->checkpoint.started)
		timer_start(&mover->checkpoint, 0);
}

/* ---- the last one, before a stop ---- */

void mover_checkpoint_told(struct task *task)
{
	struct mover *mover = container_of(task, struct mover, checkpoint_task);
	void (*done)(int result, void *user) = mover->checkpointed;

	mover->checkpointed = NULL;
	done(mover->checkpoint_result, mover->checkpointed_user);
}

/* With a leg that has not settled a flush proves nothing (R2): it stays dirty, and is not waited for. */
static bool part_can_checkpoint(const struct mover_part *part)
{
	return part->journal && mirror_is_settled(part->mirror) && !part->flushing;
}

void mover_checkpoint(struct mover *mover, void (*done)(int result, void *user), void *user)
{
	LOOP_CHECK(mover->loop);
	CHECK(mover->state == MOVER_PAUSED);
	CHECK(!mover->checkpointed);
	mover->checkpointed = done;
	mover->checkpointed_user = user;
	mover->checkpoint_result = 0;
	mover_for_each(part, mover) {
		if (!part_can_checkpoint(part))
			mover->checkpoint_result = -EBUSY;
		else if (!journal_in_checkpoint(part->journal))
			part_checkpoint(part);
	}
	if (!mover_in_checkpoint(mover))
		loop_post(mover->loop, &mover->checkpoint_task);
}

/* ---- giving up ---- */

void mover_abandon_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, abandon);

	mover->ops.abandon(mover, mover->user);
}

void mover_abandoned(struct mover *mover, int result)
{
	LOOP_CHECK(mover->loop);
	CHECK(mover->abandoning);
	if (result) {
		log_error("mover", "the move cannot be given up durably: %s; guest writes wait",
			  err_strerror(result));
		timer_start(&mover->abandon, ABANDON_RETRY_NS);
		return;
	}
	mover->abandoning = false;
	mover->abandoned = true;
	mover_for_each(part, mover) {
		if (!part->journal)
			continue;
		mirror_set_journal(part->mirror, NULL);
		journal_release_waiters(part->journal);
	}
	mover_let_go(mover);
}

bool mover_abandon(struct mover *mover)
{
	bool any = false;

	mover_for_each(part, mover)
		any = any || part->journal;
	if (!any || mover->abandoned)
		return false;
	mover->abandoning = true;
	mover->ops.abandon(mover, mover->user);
	return true;
}

void mover_watch_journals(struct mover *mover)
{
	if (mover->state >= MOVER_COMMIT && mover->state != MOVER_PAUSED)
		return;
	if (mover->leaving || mover->abandoning)
		return;
	mover_for_each(part, mover) {
		struct journal_stats stats = { 0 };

		if (part->journal)
			journal_stats(part->journal, &stats);
		if (!stats.error)
			continue;
		err_set(&mover->error, ERR_JOURNAL_IO, stats.error,
			"cannot write the journal of '%s': %s", part->name,
			err_strerror(stats.error));
		mover_leave(mover, MOVER_FAILED);
		return;
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/mover.h"

#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mover_private.h"

/* After this many rounds what still waits is being written again and again. */
#define VERIFY_PASSES_ENOUGH 2u

/* ---- telling ---- */

void mover_look(struct mover *mover)
{
	if (!mover->advance.queued)
		loop_post(mover->loop, &mover->advance);
}

void mover_tell(struct mover *mover)
{
	mover_publish(mover);
	if (!mover->changed.queued)
		loop_post(mover->loop, &mover->changed);
}

static void mover_changed(struct task *task)
{
	struct mover *mover = container_of(task, struct mover, changed);

	mover->ops.changed(mover, mover->user);
}

void mover_set_state(struct mover *mover, enum mover_state state)
{
	if (mover->state == state)
		return;
	CHECK(mover_may_move(mover->state, state));
	log_debug("mover", "%s -> %s", mover_state_name(mover->state), mover_state_name(state));
	mover->state = state;
	if (state == MOVER_VERIFY || state == MOVER_HOLD)
		mover_checkpoint_soon(mover);
	mover_tell(mover);
}

/* ---- jobs of all disks ---- */

void mover_run_jobs(struct mover *mover)
{
	/* A pause that waits for its jobs, or a target that is late, comes first. */
	if (mover->pausing || mover->breaker != BREAKER_CLOSED || mover->leaving)
		return;
	mover_for_each(part, mover) {
		if (!part->old_requests)
			copy_engine_start(part->engine);
		if (mover->verify_started)
			verifier_start(part->verifier);
	}
}

void mover_halt_jobs(struct mover *mover)
{
	mover_for_each(part, mover) {
		copy_engine_stop(part->engine);
		verifier_stop(part->verifier);
	}
}

bool mover_jobs_are_quiet(const struct mover *mover)
{
	mover_for_each(part, (struct mover *)mover)
		if (!copy_engine_is_stopped(part->engine) || !verifier_is_stopped(part->verifier))
			return false;
	return true;
}

/* ---- going on ---- */

static bool mover_in_sync(struct mover *mover)
{
	mover_for_each(part, mover)
		if (part->old_requests || !mover_part_in_sync(part))
			return false;
	return true;
}

static bool mover_is_verified(struct mover *mover)
{
	mover_for_each(part, mover)
		if (verifier_waiting_bytes(part->verifier) &&
		    verifier_passes(part->verifier) < VERIFY_PASSES_ENOUGH)
			return false;
	return true;
}

static void mover_begin_verify(struct mover *mover)
{
	mover->verify_started = true;
	mover->verify_total_bytes = 0;
	mover_for_each(part, mover) {
		mover->verify_total_bytes += verifier_waiting_bytes(part->verifier);
		verifier_start(part->verifier);
	}
	mover_set_state(mover, MOVER_VERIFY);
}

static void mover_after_sync(struct mover *mover)
{
	if (mover->options.verify && !mover->verify_started) {
		mover_begin_verify(mover);
		return;
	}
	if (mover->options.verify && !mover_is_verified(mover)) {
		if (mover->state == MOVER_COPY) /* resumed */
			mover_set_state(mover, MOVER_VERIFY);
		return;
	}
	if (mover->options.hold && !mover->completing)
		mover_set_state(mover, MOVER_HOLD);
	else if (!mover->retry.started)
		mover_switch_begin(mover);
}

/* The budget has shed: what can be done without mirroring is done first. */
static void mover_while_shedding(struct mover *mover)
{
	if (!mover_nearly_in_sync(mover))
		return;
	if (mover->options.verify && !mover->verify_started)
		mover_begin_verify(mover);
	if (mover->options.verify && !mover_is_verified(mover)) {
		if (mover->state == MOVER_COPY)
			mover_set_state(mover, MOVER_VERIFY);
		return;
	}
	if (mover->options.hold && !mover->completing)
		mover_set_state(mover, MOVER_HOLD);
	else if (!mover->retry.started)
		mover_budget_try(mover);
}

/* SWITCHED: the last regions are judged, or cannot be (the error says so). */
static void mover_after_switch(struct mover *mover)
{
	mover_for_each(part, mover) {
		if (mover->options.verify && mover->error.id == ERR_NONE &&
		    verifier_waiting_bytes(part->verifier))
			return;
		verifier_stop(part->verifier);
	}
	if (!mover_jobs_are_quiet(mover))
		return;
	mover_for_each(part, mover)
		mover_part_swap(part, mirror_target(part->mirror));
	mover_set_state(mover, MOVER_DONE);
}

static void mover_leave_if_drained(struct mover *mover)
{
	mover_for_each(part, mover)
		if (part->old_requests)
			return;
	if (mover->abandoning)
		return;
	mover->leaving = false;
	mover_set_state(mover, mover->leave_to);
}

/* R1: requests from before the mirror was put in break no windows: none opens until they are done. */
static void mover_start_engines(struct mover *mover)
{
	if (mover->pausing || mover->breaker != BREAKER_CLOSED)
		return;
	mover_for_each(part, mover)
		if (!part->old_requests && copy_engine_is_stopped(part->engine))
			copy_engine_start(part->engine);
}

static void mover_go_on(struct mover *mover)
{
	if (mover->pausing || mover->breaker != BREAKER_CLOSED)
		return;
	if (mover_is_shedding(mover))
		mover_while_shedding(mover);
	else if (mover_in_sync(mover))
		mover_after_sync(mover);
}

static void mover_advance(struct task *task)
{
	struct mover *mover = container_of(task, struct mover, advance);

	if (mover->freed) {
		if (!mover->free_task.queued)
			loop_post(mover->loop, &mover->free_task);
		return;
	}
	if (mover->leaving) {
		mover_leave_if_drained(mover);
		return;
	}
	if (mover->pausing && mover_jobs_are_quiet(mover))
		mover_pause_for(mover);
	if (mover->breaker != BREAKER_CLOSED)
		mover_breaker_look(mover);
	switch (mover->state) {
	case MOVER_COPY:
		mover_start_engines(mover);
		mover_go_on(mover);
		return;
	case MOVER_VERIFY:
		mover_go_on(mover);
		return;
	case MOVER_HOLD:
		if (mover->completing)
			mover_go_on(mover);
		return;
	case MOVER_SWITCH:
		mover_switch_look(mover);
		return;
	case MOVER_SWITCHED:
		mover_after_switch(mover);
		return;
	default:
		return;
	}
}

/* ---- start ---- */

void mover_start(struct mover *mover)
{
	LOOP_CHECK(mover->loop);
	mover->rate_at_ns = loop_now_ns(mover->loop);
	mover_for_each(part, mover)
		mover_part_swap(part, mirror_as_dev(part->mirror));
	pacer_start(&mover->pacer);
	timer_start(&mover->publish, MOVER_PUBLISH_NS);
	timer_start(&mover->checkpoint, mover->options.checkpoint_ns);
	mover_tell(mover);
}

/* Suspended before the first guest request comes through: no leg is ever tried. */
void mover_start_paused(struct mover *mover, const struct err *why)
{
	LOOP_CHECK(mover->loop);
	mover_for_each(part, mover)
		mirror_suspend(part->mirror);
	if (why)
		mover->error = *why;
	mover_set_state(mover, MOVER_PAUSED);
	mover_start(mover);
}

/* ---- the operator's verbs ---- */

static int mover_refuse(const struct mover *mover, struct err *err, const char *verb)
{
	if (mover->state == MOVER_COMMIT || mover->state == MOVER_SWITCHED ||
	    mover->state == MOVER_DONE)
		return err_set(err, ERR_TASK_COMMITTED, -EBUSY,
			       "cannot %s: the switch-over has been committed", verb);
	return err_set(err, ERR_TASK_STATE, -EBUSY, "cannot %s while it is in state '%s'", verb,
		       mover->leaving ? "leaving" : mover_state_name(mover->state));
}

int mover_pause(struct mover *mover, struct err *err)
{
	LOOP_CHECK(mover->loop);
	if (mover->state > MOVER_HOLD || mover->leaving || mover->pausing)
		return mover_refuse(mover, err, "pause");
	if (mover->breaker != BREAKER_CLOSED) { /* what is still in flight is late: it is not waited for */
		mover_pause_for(mover);
		return 0;
	}
	mover->pausing = true;
	mover_halt_jobs(mover);
	mover_look(mover);
	return 0;
}

int mover_resume(struct mover *mover, struct err *err)
{
	int rc;

	LOOP_CHECK(mover->loop);
	if (mover->state != MOVER_PAUSED || mover->leaving)
		return mover_refuse(mover, err, "resume");
	rc = mover_judge_targets(mover, &mover->error);
	if (rc) {
		if (err)
			*err = mover->error;
		mover_tell(mover);      /* who asked for it may be away, and wait for it to run */
		return rc;
	}
	mover->fault_count = 0;
	mover->fault_rest_until_ns = 0;
	mover->switch_from_ns = 0;
	mover_set_state(mover, MOVER_COPY);
	/* R13: whether the target is well is for the copier to find out, wherever that is in doubt. */
	if (mover_target_is_in_doubt(mover))
		mover_breaker_ask(mover);
	else
		err_clear(&mover->error);
	mover_apply_mirrors(mover);
	mover_run_jobs(mover);
	mover_look(mover);
	return 0;
}

/*
 * A write that goes past the journal may not be followed by a resume: so guests keep writing
 * through it, source only, until the move is given up durably.
 */
void mover_leave(struct mover *mover, enum mover_state to)
{
	if (mover->leaving)
		return;
	if (mover->state == MOVER_SWITCH)
		mover_switch_fall_back(mover);
	mover->pausing = false;
	mover->leaving = true;
	mover->leave_to = to;
	mover_halt_jobs(mover);
	timer_stop(&mover->probe);
	timer_stop(&mover->budget.timer);
	timer_stop(&mover->retry);
	mover_for_each(part, mover)
		mirror_suspend(part->mirror);
	if (!mover_abandon(mover))
		mover_let_go(mover);
}

void mover_let_go(struct mover *mover)
{
	mover_for_each(part, mover) {
		mirror_retire(part->mirror);
		mover_part_swap(part, mirror_source(part->mirror));
	}
	mover_look(mover);
}

int mover_cancel(struct mover *mover, struct err *err)
{
	LOOP_CHECK(mover->loop);
	if ((mover->state > MOVER_SWITCH && mover->state != MOVER_PAUSED) || mover->leaving)
		return mover_refuse(mover, err, "cancel");
	err_set(&mover->error, ERR_TASK_CANCELLED, -ECANCELED, "cancelled by the operator");
	mover_leave(mover, MOVER_CANCELLED);
	return 0;
}

int mover_fail(struct mover *mover, const struct err *why, struct err *err)
{
	LOOP_CHECK(mover->loop);
	if ((mover->state > MOVER_SWITCH && mover->state != MOVER_PAUSED) || mover->leaving)
		return mover_refuse(mover, err, "fail");
	mover->error = *why;
	mover_leave(mover, MOVER_FAILED);
	return 0;
}

int mover_complete(struct mover *mover, struct err *err)
{
	LOOP_CHECK(mover->loop);
	if (mover->state > MOVER_HOLD || mover->leaving)
		return mover_refuse(mover, err, "complete");
	mover->completing = true;
	mover->switch_from_ns = 0;
	/* What was written while it was held is verified first, without waiting. */
	if (mover->state == MOVER_HOLD && mover->verify_started && !mover->pausing &&
	    mover->breaker == BREAKER_CLOSED)
		mover_for_each(part, mover)
			verifier_start(part->verifier);
	if (mover->error.id == ERR_MOVE_STUN)
		err_clear(&mover->error);
	mover_look(mover);
	return 0;
}

void mover_set_bandwidth(struct mover *mover, uint64_t bytes_per_s)
{
	LOOP_CHECK(mover->loop);
	mover->options.bandwidth_bytes_per_s = bytes_per_s;
	pacer_set_rate(&mover->pacer, bytes_per_s);
}

void mover_set_mode(struct mover *mover, enum mirror_mode mode)
{
	LOOP_CHECK(mover->loop);
	mover->options.mode = mode;
	if (mode == MIRROR_ASYNC)       /* nobody waits for a leg: there is nothing to shed for */
		mover_set_latency_budget(mover, mover->options.latency_budget_ns);
	mover_for_each(part, mover)
		mirror_set_mode(part->mirror, mode);
}

void mover_set_max_stun(struct mover *mover, uint64_t max_stun_ns)
{
	LOOP_CHECK(mover->loop);
	mover->options.max_stun_ns = max_stun_ns;
}

enum mover_state mover_state(const struct mover *mover)
{
	return mover->state;
}

/* ---- life ---- */

static void mover_pacer_ready(void *user)
{
	struct mover *mover = user;

	/* In turns: who is told first takes what there is. */
	mover->first_served = (mover->first_served + 1) % mover->part_count;
	for (uint32_t i = 0; i < mover->part_count; i++) {
		struct mover_part *part =
			&mover->parts[(mover->first_served + i) % mover->part_count];

		copy_engine_kick(part->engine);
		verifier_kick(part->verifier);
	}
}

static void mover_guest_sample(void *user, struct io_snapshot *out, uint64_t *in_flight)
{
	struct mover *mover = user;

	*out = (struct io_snapshot){ 0 };
	*in_flight = 0;
	mover_for_each(part, mover) {
		struct io_snapshot one;

		io_stats_snapshot(gate_stats(part->gate), &one);
		io_snapshot_add(out, &one);
		*in_flight += gate_in_flight(part->gate) + gate_held(part->gate);
	}
}

static void mover_default(uint64_t *value, uint64_t otherwise)
{
	if (*value == 0)
		*value = otherwise;
}

static bool mover_is_idle(struct mover *mover)
{
	mover_for_each(part, mover)
		if (!mirror_is_idle(part->mirror) || part->old_requests || part->flushing)
			return false;
	return mover_jobs_are_quiet(mover) && !mover_in_checkpoint(mover);
}

static void mover_free_now(struct task *task)
{
	struct mover *mover = container_of(task, struct mover, free_task);
	void (*freed)(void *user) = mover->freed;
	void *user = mover->freed_user;

	if (!mover_is_idle(mover))
		return;                 /* what settles makes us look again */
	if (mover->advance.queued || mover->changed.queued || mover->checkpoint_task.queued) {
		loop_post(mover->loop, &mover->free_task);
		return;
	}
	pacer_stop(&mover->pacer);
	timer_stop(&mover->publish);
	timer_stop(&mover->checkpoint);
	timer_stop(&mover->abandon);
	timer_stop(&mover->probe);
	timer_stop(&mover->budget.timer);
	timer_stop(&mover->stun);
	timer_stop(&mover->retry);
	mover_for_each(part, mover)
		mover_part_release(part);
	pthread_mutex_destroy(&mover->stats_lock);
	free(mover);
	freed(user);
}

void mover_free(struct mover *mover, void (*freed)(void *user), void *user)
{
	LOOP_CHECK(mover->loop);
	CHECK(mover->state == MOVER_DONE || mover->state == MOVER_FAILED ||
	      mover->state == MOVER_CANCELLED || mover->state == MOVER_PAUSED);
	CHECK(!mover->freed);
	CHECK(!mover->leaving);
	if (mover->state == MOVER_PAUSED)
		mover_for_each(part, mover)
			mover_part_swap(part, mirror_source(part->mirror));
	mover->freed = freed;
	mover->freed_user = user;
	mover_look(mover);
}

int mover_new(struct loop *loop, struct buf_pool *pool, const struct mover_disk *disks,
	      uint32_t disk_count, const struct mover_options *options,
	      const struct mover_ops *ops, void *user, struct mover **out, struct err *err)
{
	struct mover *mover = calloc(1, sizeof(*mover));
	int rc;

	CHECK(disk_count >= 1);
	CHECK(disk_count <= MOVER_DISKS_MAX);
	if (!mover)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for a move");
	mover->loop = loop;
	mover->pool = pool;
	mover->options = *options;
	mover->ops = *ops;
	mover->user = user;
	mover->state = MOVER_COPY;
	mover_default(&mover->options.max_stun_ns, 100 * NS_PER_MS);
	mover_default(&mover->options.max_switchover_ns, 100 * NS_PER_S);
	mover_default(&mover->options.leg_deadline_ns, 3 * NS_PER_S);
	mover_default(&mover->options.async_buffer_bytes, UINT64_C(16) << 20);
	mover_default(&mover->options.checkpoint_ns, 5 * NS_PER_S);
	mover->advance.run = mover_advance;
	mover->changed.run = mover_changed;
	mover->free_task.run = mover_free_now;
	mover->checkpoint_task.run = mover_checkpoint_told;
	timer_init(&mover->probe, loop, mover_probe_fired);
	timer_init(&mover->budget.timer, loop, mover_budget_fired);
	timer_init(&mover->publish, loop, mover_publish_fired);
	timer_init(&mover->checkpoint, loop, mover_checkpoint_fired);
	timer_init(&mover->abandon, loop, mover_abandon_fired);
	timer_init(&mover->stun, loop, mover_stun_fired);
	timer_init(&mover->retry, loop, mover_retry_fired);
	pacer_init(&mover->pacer, loop, mover->options.bandwidth_bytes_per_s, mover_pacer_ready,
		   mover_guest_sample, mover);
	pthread_mutex_init(&mover->stats_lock, NULL);
	mover->part_count = disk_count;
	for (uint32_t i = 0; i < disk_count; i++) {
		rc = mover_part_init(&mover->parts[i], mover, &disks[i], err);
		if (rc) {
			while (i--)
				mover_part_release(&mover->parts[i]);
			pthread_mutex_destroy(&mover->stats_lock);
			free(mover);
			return rc;
		}
	}
	*out = mover;
	return 0;
}

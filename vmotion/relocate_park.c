/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_park.c - the daemon stops: a relocation is left standing for the next one.
 *
 *   1 the mover is paused, guests still served; one in its switch-over falls back first, or
 *     commits and finishes
 *   2 the exports are closed: every guest request is answered, none comes any more
 *   3 the last checkpoint: what is clean is so durably, nothing is active (R-J1)
 *   4 mover, journals and devices are closed: nothing is in flight to any target (R2)
 *   5 the record says so (MOVE_PARKED); its state stays RESERVED, the marks stay where they are
 *
 * None of it is needed: a crash at any moment is resumed as well, it only copies more, and a
 * target without marks needs the operator's word then.  So what hangs is not waited for long.
 */
#include "blkmirror/base/log.h"
#include "vmotion/relocate_private.h"

#define PARK_PATIENCE_NS (5 * NS_PER_S)

/* ---- 2: exports ---- */

static void park_unserve(struct relocation *relocation, uint32_t from);

static void park_unserved(struct disk *disk, void *user)
{
	struct relocation *relocation = user;
	uint32_t index = 0;

	while (relocation->plan.disks[index].disk != disk)
		index++;
	park_unserve(relocation, index + 1);
}

static void park_unserve(struct relocation *relocation, uint32_t from)
{
	if (from == relocation->plan.disk_count)
		step_done(relocation);
	else
		disk_unserve(relocation->plan.disks[from].disk, park_unserved, relocation);
}

static void park_exports(struct relocation *relocation)
{
	timer_start(&relocation->patience, MIN(PARK_PATIENCE_NS,
					       relocation->plan.service->patience_ns));
	park_unserve(relocation, 0);
}

/* ---- 3: the last checkpoint ---- */

static void park_checkpointed(int result, void *user)
{
	struct relocation *relocation = user;

	if (result)
		log_info("relocate", "%s: no checkpoint at the end: %s",
			 relocation->plan.journal_id, err_strerror(result));
	io_call_finish(&relocation->call);
}

static void park_checkpoint_run(struct io_call *call)
{
	struct relocation *relocation = container_of(call, struct relocation, call);

	mover_checkpoint(relocation->io.mover, park_checkpointed, relocation);
}

static void park_checkpoint_done(struct io_call *call)
{
	step_done(container_of(call, struct relocation, call));
}

static void park_checkpoint(struct relocation *relocation)
{
	io_call_send(&relocation->call, relocate_any_loop(relocation),
		     relocation->plan.service->main_loop, park_checkpoint_run,
		     park_checkpoint_done);
}

/* ---- 4: targets ---- */

static int park_close_target(struct relocation *relocation, struct move_disk *disk,
			     struct err *err)
{
	(void)relocation;
	(void)err;
	ds_disk_close(disk->target_opened);
	disk->target_opened = NULL;
	return 0;
}

static void park_targets(struct relocation *relocation)
{
	walk_open_targets(relocation, park_close_target);
}

/* ---- 5: the record ---- */

static void park_note_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);
	unsigned flags = move_record_info(relocation->record)->flags | MOVE_PARKED;

	relocation->job_rc = move_record_write(relocation->record, MOVE_RESERVED, flags,
					       &relocation->job_err);
}

static void park_noted(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (relocation->job_rc)
		log_warn("relocate", "%s: left as after a crash: %s", relocation->plan.journal_id,
			 relocation->job_err.cause);
	step_done(relocation);
}

static void park_note(struct relocation *relocation)
{
	relocation_job(relocation, park_note_run, park_noted);
}

static const struct relocate_step park_program[] = {
	{ "close the exports", park_exports },
	{ "wait for the targets", relocate_await_fetch },
	{ "make a checkpoint", park_checkpoint },
	{ "free the mover", relocate_io_free_mover },
	{ "close the targets", park_targets },
	{ "note that nothing is in flight", park_note },
	{ "give promises back", relocate_release_promises_step },
	{ "wait for verbs", relocate_io_drain_verbs },
	{ "release the disks", relocate_release_disks },
	{ "detach what was not attached", relocate_detach_next },
	{ "end", relocation_ended },
};

/* ---- 1: when ---- */

static void apply_park(struct mover *mover, const struct mover_options *options)
{
	(void)options;
	/* Refused while it pauses already, or switches over: it is asked again. */
	if (mover_pause(mover, NULL))
		log_debug("relocate", "not paused for the stop: the mover is %s",
			  mover_state_name(mover_state(mover)));
}

static bool can_park(const struct relocation *relocation)
{
	return relocation->stage == STAGE_MOVING || relocation->stage == STAGE_HELD ||
	       relocation->stage == STAGE_PAUSED;
}

static enum relocate_state state_to_keep(const struct relocation *relocation)
{
	return relocation->stage == STAGE_PAUSED ? RELOCATE_PAUSED
	       : relocation->stage == STAGE_HELD ? RELOCATE_HELD
						 : RELOCATE_RUNNING;
}

void relocate_park_noticed(struct relocation *relocation, enum mover_state state)
{
	struct err err;

	if (!can_park(relocation))
		return;
	if (state == MOVER_PAUSED) {
		relocation->parked_state = relocation->outcome = state_to_keep(relocation);
		relocation->parked = true;
		relocation_event(relocation, EVENT_PARK);
		relocation_run(relocation, park_program);
	} else if (!relocation->verbs_under_way &&
		   relocate_io_verb(relocation, apply_park, &err)) {
		log_warn("relocate", "%s: %s", relocation->plan.journal_id, err.cause);
	}
}

void relocation_park(struct relocation *relocation)
{
	LOOP_CHECK(relocation->plan.service->main_loop);
	relocation->park_wanted = true;
	if (relocation->stage == STAGE_PREPARING && !relocation->resuming &&
	    !relocation->cancel_wanted) {
		relocation->cancel_wanted = true;       /* nothing was copied: it begins anew */
		relocation->parked = true;
		relocation->parked_state = RELOCATE_RUNNING;
	}
	if (relocation->mover_alive)
		relocate_park_noticed(relocation, (enum mover_state)atomic_load(
							  &relocation->io.mover_state));
}

bool relocation_parking(const struct relocation *relocation)
{
	return relocation->parked;
}

bool relocation_parked(const struct relocation *relocation)
{
	return relocation->parked && (relocation->stage == STAGE_LINGERING ||
				      relocation->stage == STAGE_ENDED);
}

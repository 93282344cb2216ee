/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_cleanup.c - the two ends of a move: settled on the target, or undone.
 *
 * Numbers and letters are those of relocate.c.
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/relocate_private.h"

/* The identity of a copy in its last role: no journal has it any more. */
static struct disk_identity final_identity(const struct disk_identity *identity,
					   enum disk_role role)
{
	struct disk_identity final = *identity;

	final.role = role;
	final.journal_id[0] = '\0';
	memset(final.host_uuid, 0, sizeof(final.host_uuid));
	return final;
}

static int mark_opened(struct ds_disk *opened, const struct disk_identity *identity,
		       enum disk_role role, struct err *err)
{
	struct disk_identity final = final_identity(identity, role);
	int rc = ds_disk_mark(opened, &final, err);

	return rc == -ENOTSUP ? 0 : rc;
}

/* ---- 5, 6: marks ---- */

static int mark_target_live(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	(void)relocation;
	return mark_opened(disk->target_opened, &disk->target_identity, DISK_LIVE, err);
}

static void settle_mark_targets(struct relocation *relocation)
{
	walk_disks(relocation, true, true, mark_target_live);
}

static int mark_source_retired(struct relocation *relocation, struct move_disk *disk,
			       struct err *err)
{
	(void)relocation;
	if (!(disk->done & MOVE_SOURCE_MARKED))
		return 0;
	return mark_opened(disk_opened(disk->disk), &disk->source_identity, DISK_RETIRED, err);
}

static void settle_mark_sources(struct relocation *relocation)
{
	walk_disks(relocation, false, true, mark_source_retired);
}

/* ---- 7: the owner's inventory ---- */

static void settle_inventory(struct relocation *relocation)
{
	struct err err;
	int rc;

	if (!relocation->switched) {
		step_done(relocation);
		return;
	}
	rc = relocation->switched(relocation, relocation->user);
	if (rc) {
		err_set(&err, ERR_MOVE_LEFTOVER, rc,
			"where the disks are now could not be noted: %s", err_strerror(rc));
		step_failed(relocation, &err);
		return;
	}
	step_done(relocation);
}

/* ---- the mover's end, and the swap ---- */

static void settle_await_mover(struct relocation *relocation)
{
	if (relocation->mover_done)
		step_done(relocation);
}

void relocate_mover_is_done(struct relocation *relocation)
{
	if (relocation->program == relocate_settle_program &&
	    relocation->program[relocation->step].begin == settle_await_mover)
		step_done(relocation);
}

static void judge_verification(struct relocation *relocation)
{
	const struct mover_stats *stats = &relocation->stats;
	uint64_t mismatches = 0, unverified_bytes = 0;

	for (uint32_t i = 0; i < stats->disk_count; i++) {
		mismatches += stats->disks[i].verify_mismatches;
		unverified_bytes += stats->disks[i].unverified_bytes;
	}
	relocation->verified = relocation->plan.options.verify && !mismatches && !unverified_bytes;
	relocation->outcome = RELOCATE_COMPLETED;
	if (!relocation->plan.options.verify || relocation->verified)
		return;
	relocation->outcome = RELOCATE_FAILED;
	err_set(&relocation->error, ERR_MOVE_VERIFY, -EIO,
		"the target is authoritative, and %llu of the last regions compared with the "
		"source differ, %llu bytes could not be compared; the source is kept, retired",
		(unsigned long long)mismatches, (unsigned long long)unverified_bytes);
}

static void settle_swap(struct relocation *relocation)
{
	judge_verification(relocation);
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		disk_move_end(disk->disk, disk->target_opened, disk->target_device,
			      &disk->old_opened, &disk->old_device);
		disk->target_opened = NULL;
		disk->target_device = NULL;
	}
	step_done(relocation);
}

static int close_source(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	(void)relocation;
	(void)err;
	ds_disk_close(disk->old_opened);
	disk->old_opened = NULL;
	return 0;
}

static void settle_close_sources(struct relocation *relocation)
{
	walk_disks(relocation, false, true, close_source);
}

/* ---- 8, 9: the retired source ---- */

/* Never without verification, and never before every mark is where it belongs. */
static bool may_delete(const struct relocation *relocation)
{
	return relocation->verified && !relocation->plan.keep_source && !relocation->keep_record;
}

static void record_written(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (relocation->job_rc)
		step_failed(relocation, &relocation->job_err);
	else
		step_done(relocation);
}

static void allow_deletion_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	relocation->job_rc = move_record_write(relocation->record, MOVE_COMMITTED,
					       MOVE_DELETE_SOURCE, &relocation->job_err);
}

static void settle_allow_deletion(struct relocation *relocation)
{
	if (may_delete(relocation))
		relocation_job(relocation, allow_deletion_run, record_written);
	else
		step_done(relocation);
}

static int delete_source(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	(void)relocation;
	if (!disk->source.has_identity)
		return 0;               /* an export or a LUN is not ours to delete */
	return move_delete_retired(disk->source_datastore, disk->source_path,
				   &disk->source_identity, err);
}

static void settle_delete_sources(struct relocation *relocation)
{
	if (may_delete(relocation))
		walk_disks(relocation, false, true, delete_source);
	else
		step_done(relocation);
}

/* ---- 10, c: the record ---- */

static void remove_record_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	relocate_journal_files_close(relocation);       /* of a move that never began to copy */
	relocation->job_rc = 0;
	if (relocation->keep_record)
		return;
	relocation->job_rc = move_record_remove(relocation->record, &relocation->job_err);
	if (!relocation->job_rc)
		relocation->job_rc = move_journals_remove(relocation->plan.state_dir,
							  relocation->plan.journal_id,
							  relocation->plan.disk_count,
							  &relocation->job_err);
}

static void drop_record(struct relocation *relocation)
{
	if (!relocation->record)
		step_done(relocation);
	else
		relocation_job(relocation, remove_record_run, record_written);
}

/* ---- both: promises, disks attached for the move ---- */

void relocate_release_promises_step(struct relocation *relocation)
{
	relocate_release_promises(relocation);
	step_done(relocation);
}

static void detached(const struct err *err, void *user)
{
	struct relocation *relocation = user;

	if (err)
		relocation_left_over(relocation, err);
	relocate_detach_next(relocation);
}

void relocate_detach_next(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *move = &relocation->plan.disks[i];
		struct disk *disk = move->disk;

		if (!disk || move->attached)
			continue;
		move->disk = NULL;
		disk_detach(disk, true, detached, relocation);
		return;
	}
	step_done(relocation);
}

/* ---- a, b: undo ---- */

static int mark_source_live(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	(void)relocation;
	if (!(disk->done & MOVE_SOURCE_MARKED))
		return 0;
	return mark_opened(disk_opened(disk->disk), &disk->source_identity, DISK_LIVE, err);
}

static void undo_marks(struct relocation *relocation)
{
	relocation_set_phase(relocation, RELOCATE_CLEANUP);
	walk_disks(relocation, false, true, mark_source_live);
}

static int remove_target(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	ds_disk_close(disk->target_opened);
	disk->target_opened = NULL;
	if (!(disk->done & MOVE_TARGET_CREATED))
		return 0;
	return move_delete_incoming(disk->target_datastore, disk->target_path,
				    relocation->plan.journal_id, &disk->target_identity, err);
}

/* Of a resumed move whose targets were not fetched: they may be there all the same. */
static void find_targets(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		if (!disk->target_datastore)
			disk->target_datastore = relocation->resume_ops.find_datastore(
				disk->target_name, relocation->user);
	}
}

static void undo_targets(struct relocation *relocation)
{
	find_targets(relocation);
	walk_disks(relocation, true, true, remove_target);
}

void relocate_release_disks(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		if (relocation->plan.disks[i].disk)
			disk_move_end(relocation->plan.disks[i].disk, NULL, NULL, NULL, NULL);
	step_done(relocation);
}

const struct relocate_step relocate_settle_program[] = {
	{ "mark the targets live", settle_mark_targets },
	{ "mark the sources retired", settle_mark_sources },
	{ "tell the inventory", settle_inventory },
	{ "wait for the mover", settle_await_mover },
	{ "free the mover", relocate_io_free_mover },
	{ "swap the disks", settle_swap },
	{ "close the sources' devices", relocate_io_close_old },
	{ "close the sources", settle_close_sources },
	{ "allow deletion", settle_allow_deletion },
	{ "delete the sources", settle_delete_sources },
	{ "remove the record", drop_record },
	{ "give promises back", relocate_release_promises_step },
	{ "wait for verbs", relocate_io_drain_verbs },
	{ "detach what was not attached", relocate_detach_next },
	{ "end", relocation_ended },
};

const struct relocate_step relocate_undo_program[] = {
	{ "mark the sources live", undo_marks },
	{ "wait for the targets", relocate_await_fetch },
	{ "free the mover", relocate_io_free_mover },
	{ "remove the targets", undo_targets },
	{ "remove the record", drop_record },
	{ "give promises back", relocate_release_promises_step },
	{ "wait for verbs", relocate_io_drain_verbs },
	{ "release the disks", relocate_release_disks },
	{ "detach what was not attached", relocate_detach_next },
	{ "end", relocation_ended },
};

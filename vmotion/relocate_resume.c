/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_resume.c - a relocation that goes on where a daemon before has left it.
 *
 *   1 record      RESERVED still, its journals opened; MOVE_PARKED is taken back
 *   2 sources     attached with their gates held: opened with the move's id, they must be the
 *                 very copies that the record names, marked MOVING by this move
 *   3 journals    read: whose they are, which regions may differ (R-J1, R-J2, R-J6)
 *   4 mover       PAUSED, on empty slots; then the gates open: guests are served, their
 *                 writes known to the journals
 *   5 targets     opened beside that: INCOMING by this move, the same lineage; put into the
 *                 slots, and the mover goes on
 *
 * Until 4 nothing is written but marks of our own.  Why the guest does not wait for 5: a
 * target, or its store, may be slow or away; the source is authoritative, and all that a write
 * needs is its journal.
 *
 * What is not proved is not gone on with.  A source that cannot be attached leaves everything
 * as it was found.  Once one is attached its guest is held, so the move is given up durably
 * (ABORTED, then the gates) and undone.  A target that is somebody else's fails the move in
 * the same way; one that is away, or a store that is, is waited for.
 *
 * R2, the writes of the dead daemon: on a local file they have ended when the lock on it is
 * ours (R-J7).  A LUN or an NBD export has neither lock nor mark: what protects it is this
 * host's record alone, and a write may still be under way to it, unless the daemon stopped in
 * order (MOVE_PARKED).  So it is opened only on the operator's word.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/slot.h"
#include "vmotion/relocate_private.h"

/* ---- 1: the record ---- */

/* On the main loop, which is asked about the plan at any time. */
static int plan_from_record(struct relocation *relocation, struct err *err)
{
	const struct move_record_info *info = move_record_info(relocation->record);
	struct move_plan *plan = &relocation->plan;

	if (info->state != MOVE_RESERVED)
		return err_set(err, ERR_RECOVER_PROVED, -ESTALE, "the record of the move %s says %s",
			       plan->journal_id, move_record_state_name(info->state));

	plan->disks = calloc(info->disk_count, sizeof(*plan->disks));
	if (!plan->disks)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot go on with the relocation");
	plan->disk_count = info->disk_count;
	for (uint32_t i = 0; i < info->disk_count; i++) {
		const struct move_record_disk *from = &info->disks[i];
		struct move_disk *disk = &plan->disks[i];
		struct disk_identity identity = { .generation = from->source_generation,
						  .role = DISK_MOVING };

		memcpy(identity.uuid, from->uuid, sizeof(identity.uuid));
		memcpy(identity.host_uuid, plan->host_uuid, sizeof(identity.host_uuid));
		memcpy(identity.journal_id, plan->journal_id, sizeof(identity.journal_id));
		disk->source_identity = disk->target_identity = identity;
		disk->target_identity.role = DISK_INCOMING;
		disk->target_identity.generation = from->target_generation;
		disk->journal_fd = -1;
		disk->source.has_identity = from->source_has_identity;
		disk->target.has_identity = from->target_has_identity;
		disk->target_present = !from->target_has_identity;
		disk->done = (from->source_has_identity ? MOVE_SOURCE_MARKED : 0) |
			     (from->target_has_identity ? MOVE_TARGET_CREATED : 0);
		strcpy(disk->source_name, from->source_datastore);
		strcpy(disk->target_name, from->target_datastore);
		strcpy(disk->source_path, from->source_path);
		strcpy(disk->target_path, from->target_path);
		snprintf(disk->name, sizeof(disk->name), "%s", disk->source_path);
	}
	return 0;
}

/* Was the last daemon's work on the targets at rest when it ended?  It will not be from now on. */
static int take_parked_back(struct relocation *relocation, struct err *err)
{
	unsigned flags = move_record_info(relocation->record)->flags;

	relocation->was_parked = flags & MOVE_PARKED;
	if (!relocation->was_parked)
		return 0;
	return move_record_write(relocation->record, MOVE_RESERVED, flags & ~(unsigned)MOVE_PARKED,
				 err);
}

static void resume_read_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);
	struct move_plan *plan = &relocation->plan;

	relocation->job_rc = move_record_load(plan->state_dir, plan->journal_id,
					      &relocation->record, &relocation->job_err);
}

static void resume_have_read(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (!relocation->job_rc)
		relocation->job_rc = plan_from_record(relocation, &relocation->job_err);
	if (relocation->job_rc)
		step_failed(relocation, &relocation->job_err);
	else
		step_done(relocation);
}

static void resume_files_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);
	int rc = relocate_journal_files_open(relocation, &relocation->job_err);

	if (!rc)
		rc = take_parked_back(relocation, &relocation->job_err);
	relocation->job_rc = rc;
}

static void resume_have_files(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (relocation->job_rc)
		step_failed(relocation, &relocation->job_err);
	else
		step_done(relocation);
}

static void resume_files(struct relocation *relocation)
{
	relocation_job(relocation, resume_files_run, resume_have_files);
}

static void resume_read(struct relocation *relocation)
{
	relocation_job(relocation, resume_read_run, resume_have_read);
}

/* ---- 2: the sources ---- */

/* DS_OPEN_FOR_MOVE also opens what is not marked at all: that is another matter (R-J4, R-J5). */
static int judge_source(const struct relocation *relocation, const struct move_disk *disk,
			struct err *err)
{
	struct disk_info info;

	disk_info(disk->disk, &info);
	if (!disk->source.has_identity && !info.disk.has_identity)
		return 0;               /* the record alone proves it */
	if (disk->source.has_identity == info.disk.has_identity &&
	    disk_identity_same_copy(&info.disk.identity, &disk->source_identity) &&
	    info.disk.identity.role == DISK_MOVING &&
	    strcmp(info.disk.identity.journal_id, relocation->plan.journal_id) == 0)
		return 0;
	return err_set(err, ERR_DISK_MARKED, -ESTALE,
		       "'%s:%.120s' is not the copy that this move was moving", disk->source_name,
		       disk->source_path);
}

static void resume_attach_next(struct relocation *relocation);

static void resume_attached(struct disk *attached, const struct err *err, void *user)
{
	struct relocation *relocation = user;
	struct move_disk *disk = relocation->plan.disks;
	struct err why;

	while (disk->disk)
		disk++;                 /* the one that was being attached */
	if (attached) {
		disk->disk = attached;
		CHECK(disk_move_begin(attached, NULL) == 0);    /* nobody else knows it yet */
		disk->io_loop = disk_loop(attached);
		disk->source_datastore = ds_disk_datastore(disk_opened(attached));
	}
	if (disk->attached)
		relocation->resume_ops.attached(disk->source_name, disk->source_path, attached, err,
						relocation->user);
	if (!attached) {
		disk->attached = false;
		step_failed(relocation, err);
	} else if (judge_source(relocation, disk, &why)) {
		step_failed(relocation, &why);
	} else {
		resume_attach_next(relocation);
	}
}

static const struct disk *any_attached(const struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		if (relocation->plan.disks[i].disk)
			return relocation->plan.disks[i].disk;
	return NULL;
}

static void resume_attach(struct relocation *relocation, struct move_disk *disk)
{
	const struct relocate_resume_ops *ops = &relocation->resume_ops;
	struct disk_attach_spec spec = { .export_kind = DISK_EXPORT_NONE };

	disk->attached = ops->attach_spec(disk->source_name, disk->source_path, &spec,
					  relocation->user);
	spec.datastore = disk->source_datastore;
	spec.path = disk->source_path;
	spec.beside = any_attached(relocation);
	spec.wait_lock = true;          /* R-J7 */
	spec.move_journal_id = relocation->plan.journal_id;
	spec.hold = true;
	if (disk->attached && spec.id)
		snprintf(disk->name, sizeof(disk->name), "%s", spec.id);
	disk_attach(relocation->plan.service, &spec, resume_attached, relocation);
}

static void resume_attach_next(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		struct err err;

		if (disk->disk)
			continue;
		disk->source_datastore = relocation->resume_ops.find_datastore(disk->source_name,
									      relocation->user);
		if (disk->source_datastore) {
			resume_attach(relocation, disk);
			return;
		}
		err_set(&err, ERR_DS_UNREACHABLE, -ENXIO, "the datastore '%s' is not there now",
			disk->source_name);
		step_failed(relocation, &err);
		return;
	}
	step_done(relocation);
}

/* ---- 3, 4: journals and mover ---- */

static void resume_start(struct relocation *relocation)
{
	struct move_plan *plan = &relocation->plan;

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		struct move_disk *disk = &plan->disks[i];

		if (disk->attached)
			disk_info(disk->disk, &disk->info);
		if (disk->target_present && !relocation->was_parked && !relocation->hold_targets) {
			relocation->hold_targets = true;        /* R2 */
			err_set(&relocation->fetch.err, ERR_MOVE_SUSPECT, 0,
				"'%s:%.100s' keeps no mark and no lock: a write of the daemon that "
				"was killed may still be on its way to it", disk->target_name,
				disk->target_path);
			err_remedy(&relocation->fetch.err, "Restart the target's server, or make sure "
				   "that it has ended the old connection's requests; then 'task resume'.");
		}
	}
	relocate_note_guests_before(relocation);
	relocation_set_phase(relocation, RELOCATE_COPY);
	relocate_io_resume_mover(relocation);
}

static const struct relocate_step resume_program[] = {
	{ "read the record", resume_read },
	{ "open the journals", resume_files },
	{ "attach the sources", resume_attach_next },
	{ "go on from the journals", resume_start },
	{ NULL, NULL },
};

/* ---- when it cannot go on ---- */

/* Guests are held: nothing else may come before this, and it is tried until it is durable. */
static void abort_again(struct timer *timer);

static void abort_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	relocate_journal_files_close(relocation);
	relocation->job_rc = move_record_write(relocation->record, MOVE_ABORTED, 0,
					       &relocation->job_err);
}

static void aborted(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (!relocation->job_rc) {
		step_done(relocation);
		return;
	}
	log_error("relocate", "%s: guest I/O is held: %s", relocation->plan.journal_id,
		  relocation->job_err.cause);
	timer_init(&relocation->abort_retry, relocation->plan.service->main_loop, abort_again);
	timer_start(&relocation->abort_retry, NS_PER_S);
}

static void abort_record(struct relocation *relocation)
{
	relocation_job(relocation, abort_run, aborted);
}

static void abort_again(struct timer *timer)
{
	abort_record(container_of(timer, struct relocation, abort_retry));
}

static void abort_undo(struct relocation *relocation)
{
	relocation->resuming = false;
	relocation_run(relocation, relocate_undo_program);
}

/* A source that could not be attached is recovery's: the record stays for it. */
static void abort_leave_rest(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		if (disk->disk || !disk->done)
			continue;
		disk->done = 0;
		relocation_left_over(relocation, &relocation->error);
	}
	step_done(relocation);
}

static const struct relocate_step abort_program[] = {
	{ "give the move up", abort_record },
	{ "let the guests in", relocate_io_open_gates },
	{ "leave what is not attached", abort_leave_rest },
	{ "undo", abort_undo },
};

static void forget_run(struct job *job)
{
	relocate_journal_files_close(container_of(job, struct relocation, job));
}

static void forgotten(struct job *job)
{
	step_done(container_of(job, struct relocation, job));
}

static void forget_files(struct relocation *relocation)
{
	relocation_job(relocation, forget_run, forgotten);
}

static const struct relocate_step forget_program[] = {
	{ "close the journals' files", forget_files },
	{ "end", relocation_ended },
};

void relocate_resume_failed(struct relocation *relocation, const struct err *err)
{
	relocation->outcome = RELOCATE_FAILED;
	relocation->error = *err;
	relocation_event(relocation, EVENT_GIVE_UP);
	log_warn("relocate", "%s: cannot be gone on with: %s", relocation->plan.journal_id,
		 err->cause);
	relocation->not_resumed = !any_attached(relocation);
	relocation_run(relocation, relocation->not_resumed ? forget_program : abort_program);
}

bool relocation_not_resumed(const struct relocation *relocation)
{
	return relocation->not_resumed;
}

/* ---- 5: the targets ---- */

static void fetch_next(struct relocation *relocation);

static void fetch_ended(struct relocation *relocation)
{
	struct target_fetch *fetch = &relocation->fetch;

	struct err err;

	fetch->under_way = false;
	fetch->done = fetch->rc == 0;
	if (fetch->done && fetch->then_resume) {
		fetch->resuming = true;
		if (relocation_io_resume(relocation, &err))
			log_warn("relocate", "%s: %s", relocation->plan.journal_id, err.cause);
	}
	if (fetch->rc)
		log_warn("relocate", "%s: its target cannot be had: %s",
			 relocation->plan.journal_id, fetch->err.cause);
	if (fetch->awaited) {
		fetch->awaited = false;
		step_done(relocation);
		return;
	}
	relocate_io_noticed(relocation);
	relocation_changed(relocation);
}

/* On the I/O loop: into the slots. */
static void fetch_fill_run(struct io_call *call)
{
	struct relocation *relocation = container_of(call, struct relocation, fetch.call);
	struct target_fetch *fetch = &relocation->fetch;

	for (uint32_t i = 0; !fetch->rc && i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		struct blk_dev *device;

		/* Freed with its mover, or filled before. */
		if (!relocation->io.mover || !disk->target_device ||
		    slot_inner(disk->target_device))
			continue;
		fetch->rc = ds_disk_make_dev(disk->target_opened, disk_loop(disk->disk), true,
					     &device, &fetch->err);
		if (fetch->rc)
			break;
		fetch->rc = slot_fill(disk->target_device, device, &fetch->err);
		if (fetch->rc)
			blk_close(device);
	}
	if (fetch->replaced && relocation->io.mover &&
	    mover_fail(relocation->io.mover, &fetch->err, NULL))
		log_info("relocate", "%s: it is ending already", relocation->plan.journal_id);
	io_call_finish(call);
}

static void fetch_filled(struct io_call *call)
{
	fetch_ended(container_of(call, struct relocation, fetch.call));
}

static void fetch_fill(struct relocation *relocation)
{
	io_call_send(&relocation->fetch.call, relocate_any_loop(relocation),
		     relocation->plan.service->main_loop, fetch_fill_run, fetch_filled);
}

/*
 * Is it the target that this move made?  Only then does the journal speak of it.  A LUN or an
 * export carries no mark, then or now: the record alone names it.
 */
static int judge_target(const struct relocation *relocation, const struct move_disk *disk,
			const struct ds_disk_info *info, struct err *err)
{
	if (!disk->target.has_identity && !info->has_identity)
		return 0;
	if (disk->target.has_identity == info->has_identity &&
	    disk_identity_same_copy(&info->identity, &disk->target_identity) &&
	    info->identity.role == DISK_INCOMING &&
	    strcmp(info->identity.journal_id, relocation->plan.journal_id) == 0)
		return 0;
	return err_set(err, ERR_DISK_MARKED, -ESTALE,
		       "'%s:%.120s' is not the target that this move has made", disk->target_name,
		       disk->target_path);
}

/* As far as it is known, what the source has and the target has not yet. */
static int promise_rest(const struct move_disk *disk, struct target_fetch *fetch)
{
	const struct ds_disk_info *source = ds_disk_info(disk_opened(disk->disk));
	const struct ds_disk_info *target = ds_disk_info(fetch->opened);

	fetch->promised_bytes = 0;
	if (disk->target_present || source->allocated_bytes <= target->allocated_bytes)
		return 0;
	fetch->promised_bytes = source->allocated_bytes - target->allocated_bytes;
	return datastore_reserve(fetch->datastore, fetch->promised_bytes, &fetch->err);
}

static void fetch_open_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, fetch.job);
	struct target_fetch *fetch = &relocation->fetch;
	const struct move_disk *disk = &relocation->plan.disks[fetch->index];
	struct ds_disk_info there;
	int rc = ds_disk_stat(fetch->datastore, disk->target_path, &there, &fetch->err);

	if (!rc) {
		rc = judge_target(relocation, disk, &there, &fetch->err);
		fetch->replaced = rc == -ESTALE;
	}
	if (!rc)
		rc = ds_disk_open(fetch->datastore, disk->target_path,
				  DS_OPEN_FOR_MOVE | DS_OPEN_WAIT_LOCK, relocation->plan.journal_id,
				  &fetch->opened, &fetch->err);
	fetch->rc = rc;
	if (rc)
		return;
	/* Under the lock it is what it was. */
	fetch->rc = judge_target(relocation, disk, ds_disk_info(fetch->opened), &fetch->err);
	fetch->replaced = fetch->rc == -ESTALE;
	if (!fetch->rc)
		fetch->rc = promise_rest(disk, fetch);
	if (fetch->rc)
		ds_disk_close(fetch->opened);
}

static void fetch_opened(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, fetch.job);
	struct target_fetch *fetch = &relocation->fetch;
	struct move_disk *disk = &relocation->plan.disks[fetch->index];

	if (fetch->rc) {
		fetch_fill(relocation); /* to tell the mover, where it is that bad */
		return;
	}
	disk->target_opened = fetch->opened;
	disk->need_bytes = disk->promised_bytes = fetch->promised_bytes;
	fetch->index++;
	fetch_next(relocation);
}

static void fetch_open(struct relocation *relocation, struct move_disk *disk,
		       struct datastore *datastore)
{
	struct target_fetch *fetch = &relocation->fetch;

	disk->target_datastore = datastore;
	fetch->datastore = datastore;
	fetch->job = (struct job){ .run = fetch_open_run, .done = fetch_opened };
	worker_submit(datastore_worker(datastore), &fetch->job);
}

static void fetch_next(struct relocation *relocation)
{
	struct target_fetch *fetch = &relocation->fetch;

	for (; fetch->index < relocation->plan.disk_count; fetch->index++) {
		struct move_disk *disk = &relocation->plan.disks[fetch->index];
		struct datastore *datastore;

		if (disk->target_opened)
			continue;
		datastore = relocation->resume_ops.find_datastore(disk->target_name,
								  relocation->user);
		if (datastore) {
			fetch_open(relocation, disk, datastore);
			return;
		}
		fetch->rc = err_set(&fetch->err, ERR_DS_UNREACHABLE, -ENXIO,
				    "the target's datastore '%s' is not there now",
				    disk->target_name);
		err_remedy(&fetch->err, "Bring it back and 'task resume', or cancel the task.");
		break;
	}
	fetch_fill(relocation);
}

void relocate_fetch_targets(struct relocation *relocation, bool then_resume)
{
	struct target_fetch *fetch = &relocation->fetch;

	CHECK(!fetch->under_way);
	fetch->under_way = true;
	fetch->then_resume = then_resume;
	fetch->index = 0;
	fetch->rc = 0;
	fetch->since_ns = loop_now_ns(relocation->plan.service->main_loop);
	err_clear(&fetch->err);
	fetch_next(relocation);
}

void relocate_await_fetch(struct relocation *relocation)
{
	if (!relocation->fetch.under_way) {
		step_done(relocation);
		return;
	}
	relocation->fetch.awaited = true;
	if (!relocation->patience.started)
		timer_start(&relocation->patience, relocation->plan.service->patience_ns);
}

/* ---- begin ---- */

int relocate_resume(struct disk_service *service, const struct relocate_resume_spec *spec,
		    void (*changed)(struct relocation *relocation, void *user), void *user,
		    struct relocation **out, struct err *err)
{
	struct relocation *relocation;
	struct move_plan *plan;

	LOOP_CHECK(service->main_loop);
	if (strlen(spec->state_dir) >= sizeof(plan->state_dir) ||
	    strlen(spec->journal_id) >= sizeof(plan->journal_id))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the state directory's name is too long");
	relocation = relocation_new(service, changed, user);
	if (!relocation)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot go on with the relocation");
	plan = &relocation->plan;
	*plan = (struct move_plan){ .service = service, .options = spec->options,
				    .keep_source = spec->keep_source };
	snprintf(plan->state_dir, sizeof(plan->state_dir), "%s", spec->state_dir);
	snprintf(plan->journal_id, sizeof(plan->journal_id), "%s", spec->journal_id);
	memcpy(plan->host_uuid, spec->host_uuid, sizeof(plan->host_uuid));
	relocation->switched = spec->switched;
	relocation->resume_ops = spec->ops;
	relocation->start_paused = spec->paused;
	relocation->paused_why = spec->paused_why;
	relocation->resuming = true;
	relocation->phase = RELOCATE_RESERVE;
	relocation_begin(relocation, resume_program);
	*out = relocation;
	return 0;
}

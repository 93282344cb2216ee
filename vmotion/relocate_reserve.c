/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_reserve.c - the steps before a byte is copied: check, space, record, marks, targets.
 *
 * The record and the journals' files come before the marks, the marks before the mover (R-J4);
 * the journals begin with it (move_journal.h).  Each step notes what
 * it has done per disk; the undo program (relocate_cleanup.c) takes back exactly that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/uuid.h"
#include "vmotion/relocate_private.h"

/* ---- check ---- */

static void prepare_checked(struct move_check *check)
{
	struct relocation *relocation = container_of(check, struct relocation, check);

	if (relocation->report.error_count) {
		relocation->refused = true;
		relocation_fail(relocation, &relocation->report.errors[0]);
		return;
	}
	relocation_set_phase(relocation, RELOCATE_RESERVE);
	step_done(relocation);
}

static void prepare_check(struct relocation *relocation)
{
	move_check_start(&relocation->check, &relocation->plan, &relocation->report, true,
			 prepare_checked);
}

/* ---- space ---- */

/* On the worker: the store is asked how much it has left. */
static int promise_space(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	int rc;

	(void)relocation;
	if (disk->need_bytes == 0)
		return 0;
	rc = datastore_reserve(disk->target_datastore, disk->need_bytes, err);
	if (!rc)
		disk->promised_bytes = disk->need_bytes;
	return rc;
}

static void prepare_space(struct relocation *relocation)
{
	walk_disks(relocation, true, false, promise_space);
}

static void promise_at_most(struct move_disk *disk, uint64_t bytes)
{
	if (disk->promised_bytes <= bytes)
		return;
	datastore_unreserve(disk->target_datastore, disk->promised_bytes - bytes);
	disk->promised_bytes = bytes;
}

void relocate_release_promises(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		promise_at_most(&relocation->plan.disks[i], 0);
}

/* What has been written is no longer free, so it need not be promised any more. */
void relocate_lower_promises(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->stats.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		uint64_t written_bytes = relocation->stats.disks[i].copied_bytes;

		promise_at_most(disk, disk->need_bytes > written_bytes
					      ? disk->need_bytes - written_bytes : 0);
	}
}

/* ---- disks that are not attached ---- */

static void prepare_attach_next(struct relocation *relocation);

static void prepare_attached(struct disk *attached, const struct err *err, void *user)
{
	struct relocation *relocation = user;

	if (!attached) {
		step_failed(relocation, err);
		return;
	}
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		if (disk->disk)
			continue;
		disk->disk = attached;
		CHECK(disk_move_begin(attached, NULL) == 0);    /* nobody else knows it yet */
		break;
	}
	prepare_attach_next(relocation);
}

static const struct disk *any_attached(const struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		if (relocation->plan.disks[i].disk)
			return relocation->plan.disks[i].disk;
	return NULL;
}

/* All disks of a move live on one I/O loop: they switch over in one instant. */
static void prepare_attach_next(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		const struct move_disk *disk = &relocation->plan.disks[i];
		struct disk_attach_spec spec = {
			.datastore = disk->source_datastore,
			.path = disk->source_path,
			.export_kind = DISK_EXPORT_NONE,
			.beside = any_attached(relocation),
		};

		if (disk->disk)
			continue;
		disk_attach(relocation->plan.service, &spec, prepare_attached, relocation);
		return;
	}
	step_done(relocation);
}

/* ---- the record, and the journals' files ---- */

/*
 * The lineage keeps its uuid, each switch-over adds one to the generation: so the target is
 * never mistaken for the source, whatever the paths (R-J5).
 */
static void make_identities(struct relocation *relocation, struct move_disk *disk)
{
	struct disk_identity identity;
	struct disk_info info;

	/* The opened disk knows best: its first opening may have given it a uuid. */
	disk_info(disk->disk, &info);
	disk->source.has_identity = info.disk.has_identity;
	identity = info.disk.identity;
	if (!info.disk.has_identity) {
		memset(&identity, 0, sizeof(identity));
		memcpy(identity.uuid, uuid_random().bytes, sizeof(identity.uuid));
	}
	identity.role = DISK_MOVING;
	snprintf(identity.journal_id, sizeof(identity.journal_id), "%s",
		 relocation->plan.journal_id);
	memcpy(identity.host_uuid, relocation->plan.host_uuid, sizeof(identity.host_uuid));
	disk->source_identity = identity;
	disk->target_identity = identity;
	disk->target_identity.role = DISK_INCOMING;
	disk->target_identity.generation++;
}

/* With the target's physical blocks, not known yet, regions may be larger and the journal smaller. */
static void size_journal(struct relocation *relocation, struct move_disk *disk)
{
	const struct blk_dev *source = disk_device(disk->disk);
	uint64_t size_bytes = gate_as_dev(disk_gate(disk->disk))->size_bytes;
	struct journal_identity identity = {
		.size_bytes = size_bytes,
		.region_bytes = mover_region_bytes(&relocation->plan.options, source, source,
						   size_bytes),
	};

	disk->journal_bytes = journal_device_bytes(&identity);
}

static void fill_record_disk(const struct move_disk *disk, struct move_record_disk *out)
{
	*out = (struct move_record_disk){
		.source_generation = disk->source_identity.generation,
		.target_generation = disk->target_identity.generation,
		.source_has_identity = disk->source.has_identity,
		.target_has_identity = !disk->target_present || disk->target.has_identity,
	};
	memcpy(out->uuid, disk->source_identity.uuid, sizeof(out->uuid));
	strcpy(out->source_datastore, disk->source_name);
	strcpy(out->target_datastore, disk->target_name);
	strcpy(out->source_path, disk->source_path);
	strcpy(out->target_path, disk->target_path);
}

static void record_create_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);
	struct move_record_info info = { .disk_count = relocation->plan.disk_count };

	memcpy(info.id, relocation->plan.journal_id, sizeof(info.id));
	memcpy(info.host_uuid, relocation->plan.host_uuid, sizeof(info.host_uuid));
	info.disks = calloc(info.disk_count, sizeof(*info.disks));
	if (!info.disks) {
		relocation->job_rc = err_set(&relocation->job_err, ERR_NO_MEMORY, -ENOMEM,
					     "cannot make the move's record");
		return;
	}
	for (uint32_t i = 0; i < info.disk_count; i++)
		fill_record_disk(&relocation->plan.disks[i], &info.disks[i]);
	relocation->job_rc = move_record_create(relocation->plan.state_dir, &info,
						&relocation->record, &relocation->job_err);
	free(info.disks);
	/* The record first: a journal without one is an orphan. */
	if (!relocation->job_rc)
		relocation->job_rc = relocate_journal_files_make(relocation, &relocation->job_err);
	if (!relocation->job_rc)
		relocation->job_rc = relocate_journal_files_open(relocation, &relocation->job_err);
}

static void record_created(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, job);

	if (relocation->job_rc)
		step_failed(relocation, &relocation->job_err);
	else
		step_done(relocation);
}

static void prepare_record(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		make_identities(relocation, &relocation->plan.disks[i]);
		size_journal(relocation, &relocation->plan.disks[i]);
	}
	relocation_job(relocation, record_create_run, record_created);
}

/* ---- marks and targets ---- */

static int mark_source(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	int rc;

	(void)relocation;
	if (!disk->source.has_identity)
		return 0;
	/* A mark that failed may be on the store all the same: it has to be taken back too. */
	disk->done |= MOVE_SOURCE_MARKED;
	rc = ds_disk_mark(disk_opened(disk->disk), &disk->source_identity, err);
	return rc == -ENOTSUP ? 0 : rc;
}

static void prepare_marks(struct relocation *relocation)
{
	walk_disks(relocation, false, false, mark_source);
}

static int create_target(const struct move_disk *disk, struct err *err)
{
	struct ds_create_spec spec = {
		.size_bytes = disk->source.size_bytes,
		.provision = disk->provision,
		.identity = &disk->target_identity,
	};

	return ds_disk_create(disk->target_datastore, disk->target_path, &spec, err);
}

static int make_target(struct relocation *relocation, struct move_disk *disk, struct err *err)
{
	int rc;

	if (!disk->target_present) {
		rc = create_target(disk, err);
		if (rc)
			return rc;
		disk->done |= MOVE_TARGET_CREATED;
	}
	rc = ds_disk_open(disk->target_datastore, disk->target_path, DS_OPEN_FOR_MOVE,
			  relocation->plan.journal_id, &disk->target_opened, err);
	if (rc || !disk->target_present)
		return rc;
	rc = ds_disk_mark(disk->target_opened, &disk->target_identity, err);
	return rc == -ENOTSUP ? 0 : rc;
}

static void prepare_targets(struct relocation *relocation)
{
	walk_disks(relocation, true, false, make_target);
}

/* ---- the mover ---- */

static void prepare_mover(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		if (disk->provision != PROVISION_THIN)
			promise_at_most(disk, 0);       /* it has its space now */
	}
	relocate_io_start_mover(relocation);
}

const struct relocate_step relocate_prepare_program[] = {
	{ "check", prepare_check },
	{ "promise space", prepare_space },
	{ "attach what is not", prepare_attach_next },
	{ "write the record, make the journals", prepare_record },
	{ "mark the sources", prepare_marks },
	{ "make the targets", prepare_targets },
	{ "start the mover", prepare_mover },
	{ NULL, NULL },
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_check.c - find every refusal before a byte moves.
 *
 *   K1 what the spec alone tells: counts, duplicates, same source and target, states of
 *      attached disks, datastores that are down (main loop)
 *   K2 per disk: its source, with a try at its lock when it is not attached (source's worker)
 *   K3 per disk: what is at the target's path, and the space there (target's worker)
 *   K4 over all disks: space per datastore, the state directory, the estimate
 *
 * K2 and K3 look through ds_disk_stat(), not through opened disks, so that a disk may be
 * detached while a check looks at it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmotion/relocate_private.h"

#define CAREFUL_RATE_BYTES_PER_S (UINT64_C(100) << 20)
/* A thin target may grow while its source is copied: by a 16th, and at least this. */
#define THIN_GROWTH_MIN_BYTES (UINT64_C(64) << 20)
#define METADATA_BYTES (UINT64_C(1) << 20)

struct err *check_report_error(struct check_report *report)
{
	if (report->error_count < CHECK_REPORT_MAX)
		report->error_count++;
	return &report->errors[report->error_count - 1];
}

struct err *check_report_warning(struct check_report *report)
{
	if (report->warning_count < CHECK_REPORT_MAX)
		report->warning_count++;
	return &report->warnings[report->warning_count - 1];
}

/* ---- K1: the plan ---- */

static void copy_path(char out[DS_PATH_BYTES], const char *path, const char *what,
		      struct check_report *report)
{
	if (strlen(path) < DS_PATH_BYTES)
		snprintf(out, DS_PATH_BYTES, "%s", path);
	else
		err_set(check_report_error(report), ERR_DS_PATH_ESCAPE, -ENAMETOOLONG,
			"the %s path '%.60s...' is longer than %d bytes", what, path,
			DS_PATH_BYTES - 1);
}

static void plan_name(struct move_disk *disk, const struct relocate_disk_spec *spec)
{
	const char *name = spec->name;

	if (!name)
		name = disk->disk ? disk->info.id : disk->source_path;
	snprintf(disk->name, sizeof(disk->name), "%.64s", name);
}

static void plan_disk(struct move_disk *disk, struct disk_service *service,
		      const struct relocate_disk_spec *spec, struct check_report *report)
{
	disk->journal_fd = -1;
	disk->target_datastore = spec->target_datastore;
	disk->provision = spec->provision;
	disk->disk = spec->disk;
	if (!disk->disk)                /* named by its path, and attached all the same */
		disk->disk = disk_find_by_path(service, spec->source_datastore, spec->source_path);
	if (disk->disk) {
		disk->attached = true;
		disk_info(disk->disk, &disk->info);
		disk->io_loop = disk_loop(disk->disk);
		disk->block_bytes = gate_as_dev(disk_gate(disk->disk))->limits.block_bytes;
		disk->source_datastore = ds_disk_datastore(disk_opened(disk->disk));
		snprintf(disk->source_path, sizeof(disk->source_path), "%s", disk->info.path);
	} else {
		disk->source_datastore = spec->source_datastore;
		copy_path(disk->source_path, spec->source_path, "source", report);
	}
	snprintf(disk->source_name, sizeof(disk->source_name), "%s",
		 datastore_name(disk->source_datastore));
	snprintf(disk->target_name, sizeof(disk->target_name), "%s",
		 datastore_name(disk->target_datastore));
	copy_path(disk->target_path, spec->target_path ? spec->target_path : disk->source_path,
		  "target", report);
	plan_name(disk, spec);
}

static bool same_place(const struct datastore *ds, const char *path,
		       const struct datastore *other_ds, const char *other_path)
{
	return ds == other_ds && strcmp(path, other_path) == 0;
}

static void judge_pair(const struct move_disk *disk, const struct move_disk *other,
		       struct check_report *report)
{
	if (same_place(disk->source_datastore, disk->source_path, other->source_datastore,
		       other->source_path))
		err_set(check_report_error(report), ERR_USAGE, -EINVAL,
			"the disk '%s' is named twice", disk->name);
	if (same_place(disk->target_datastore, disk->target_path, other->target_datastore,
		       other->target_path))
		err_set(check_report_error(report), ERR_MOVE_TARGET_EXISTS, -EINVAL,
			"'%s' and '%s' have the same target '%s:%.100s'", disk->name, other->name,
			datastore_name(disk->target_datastore), disk->target_path);
	if (disk->io_loop && other->io_loop && disk->io_loop != other->io_loop)
		err_set(check_report_error(report), ERR_MOVE_THREADS, -EINVAL,
			"'%s' and '%s' are served by different I/O threads and cannot switch over "
			"in one instant", disk->name, other->name);
}

static void judge_datastore(const struct move_disk *disk, struct datastore *ds,
			    struct check_report *report)
{
	enum ds_state state = datastore_state(ds);

	/* One that was down when last asked is asked again; one that hangs would hang us. */
	if (state == DS_RECONNECTING)
		err_set(check_report_error(report), ERR_DS_UNREACHABLE, -ENOTCONN,
			"the datastore '%s' of the disk '%s' is %s", datastore_name(ds), disk->name,
			ds_state_name(state));
}

static void judge_attached(const struct move_disk *disk, bool own, struct check_report *report)
{
	if (disk->info.moving && !own)
		err_set(check_report_error(report), ERR_DISK_MOVING, -EBUSY,
			"the disk '%s' is being moved already", disk->name);
	if (disk->info.read_only)
		err_set(check_report_error(report), ERR_DISK_READ_ONLY, -EROFS,
			"the disk '%s' is attached read-only", disk->name);
}

/* Is another relocation on its way to that place? */
static bool is_claimed(const struct move_plan *plan, const struct move_disk *disk)
{
	list_for_each(node, &plan->service->relocations) {
		const struct relocation *other = list_entry(node, struct relocation, node);

		for (uint32_t i = 0; &other->plan != plan && i < other->plan.disk_count; i++)
			if (strcmp(disk->target_name, other->plan.disks[i].target_name) == 0 &&
			    strcmp(disk->target_path, other->plan.disks[i].target_path) == 0)
				return true;
	}
	return false;
}

static void judge_places(const struct move_plan *plan, const struct move_disk *disk,
			 struct check_report *report)
{
	if (same_place(disk->source_datastore, disk->source_path, disk->target_datastore,
		       disk->target_path))
		err_set(check_report_error(report), ERR_MOVE_SAME, -EINVAL,
			"the disk '%s' is at '%s:%.120s' already", disk->name,
			datastore_name(disk->target_datastore), disk->target_path);
	else if (is_claimed(plan, disk) ||
		 disk_find_by_path(plan->service, disk->target_datastore, disk->target_path))
		err_set(check_report_error(report), ERR_MOVE_TARGET_EXISTS, -EBUSY,
			"'%s:%.120s' is in use on this host",
			datastore_name(disk->target_datastore), disk->target_path);
}

int move_plan_init(struct move_plan *plan, struct disk_service *service,
		   const struct relocate_spec *spec, struct check_report *report)
{
	*plan = (struct move_plan){ .service = service, .options = spec->options,
				    .keep_source = spec->keep_source };
	memcpy(plan->host_uuid, spec->host_uuid, sizeof(plan->host_uuid));
	if (strlen(spec->state_dir) >= sizeof(plan->state_dir))
		err_set(check_report_error(report), ERR_STATE_DIR, -ENAMETOOLONG,
			"the state directory's name is too long");
	else
		snprintf(plan->state_dir, sizeof(plan->state_dir), "%s", spec->state_dir);
	if (move_record_make_id(spec->task_id, spec->host_uuid, plan->journal_id,
				&report->errors[0]))
		report->error_count = 1;
	if (spec->disk_count < 1 || spec->disk_count > MOVER_DISKS_MAX) {
		err_set(check_report_error(report), ERR_USAGE, -EINVAL,
			"a relocation takes 1 to %d disks, not %u", MOVER_DISKS_MAX,
			spec->disk_count);
		return 0;
	}
	plan->disks = calloc(spec->disk_count, sizeof(*plan->disks));
	if (!plan->disks)
		return -ENOMEM;
	plan->disk_count = spec->disk_count;
	for (uint32_t i = 0; i < plan->disk_count; i++)
		plan_disk(&plan->disks[i], service, &spec->disks[i], report);
	return 0;
}

void move_plan_release(struct move_plan *plan)
{
	free(plan->disks);
	plan->disks = NULL;
}

static void judge_plan(const struct move_check *check)
{
	const struct move_plan *plan = check->plan;
	struct check_report *report = check->report;

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		const struct move_disk *disk = &plan->disks[i];

		for (uint32_t j = 0; j < i; j++)
			judge_pair(disk, &plan->disks[j], report);
		if (disk->attached)
			judge_attached(disk, check->own, report);
		judge_places(plan, disk, report);
		judge_datastore(disk, disk->source_datastore, report);
		if (disk->target_datastore != disk->source_datastore)
			judge_datastore(disk, disk->target_datastore, report);
	}
}

/* ---- K2: the source ---- */

static bool host_is_ours(const struct move_plan *plan, const struct disk_identity *identity)
{
	return memcmp(identity->host_uuid, plan->host_uuid, sizeof(plan->host_uuid)) == 0;
}

static void judge_source_role(const struct move_plan *plan, const struct move_disk *disk,
			      struct check_report *report)
{
	const struct disk_identity *identity = &disk->source.identity;

	if (!disk->source.has_identity || identity->role == DISK_LIVE)
		return;
	if (identity->role == DISK_RETIRED) {
		err_set(check_report_error(report), ERR_DISK_RETIRED, -EINVAL,
			"'%s:%.120s' is a retired copy", datastore_name(disk->source_datastore),
			disk->source_path);
		return;
	}
	/* Attached here, so locked and authoritative: a mark that could not be lifted. */
	if (disk->attached && host_is_ours(plan, identity))
		return;
	err_set(check_report_error(report), ERR_DISK_MARKED, -EBUSY,
		"'%s:%.120s' is marked '%s' by the move %.40s",
		datastore_name(disk->source_datastore), disk->source_path,
		disk_role_name(identity->role), identity->journal_id);
}

/*
 * Only a try tells whether somebody else has it: taken and given back at once.  For reading,
 * since the first opening for writing gives a disk its identity; so another host's reader
 * is only met at the start.
 */
static void try_source_lock(const struct move_disk *disk, struct check_report *report)
{
	struct ds_disk *opened;
	struct err err;

	if (ds_disk_open(disk->source_datastore, disk->source_path, DS_OPEN_READ_ONLY, NULL,
			 &opened, &err) == 0)
		ds_disk_close(opened);
	else
		*check_report_error(report) = err;
}

static void check_source_run(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);
	struct move_disk *disk = &check->plan->disks[check->index];
	uint32_t errors_before = check->report->error_count;
	struct err err;

	if (ds_disk_stat(disk->source_datastore, disk->source_path, &disk->source, &err)) {
		*check_report_error(check->report) = err;
		return;
	}
	disk->source_known = true;
	judge_source_role(check->plan, disk, check->report);
	if (!disk->attached && check->report->error_count == errors_before)
		try_source_lock(disk, check->report);
	if (!disk->block_bytes)
		disk->block_bytes = disk->source.sector_bytes;
	if (!disk->source.has_identity)
		err_set(check_report_warning(check->report), ERR_MOVE_HOST_LOCAL, -ENOTSUP,
			"the source '%s:%.100s' can carry no mark: only this host knows that it "
			"moves, and it is not deleted", datastore_name(disk->source_datastore),
			disk->source_path);
}

/* ---- K3: the target ---- */

/* Without marks, opening it for writing changes nothing, and tells most. */
static void judge_remote_target(struct move_disk *disk, struct check_report *report)
{
	const char *ds = datastore_name(disk->target_datastore), *path = disk->target_path;
	const struct ds_disk_info *target;
	struct ds_disk *opened;
	struct err err;

	if (ds_disk_open(disk->target_datastore, path, 0, NULL, &opened, &err)) {
		*check_report_error(report) = err;      /* in use, or not writable */
		return;
	}
	disk->target = *ds_disk_info(opened);
	ds_disk_close(opened);
	target = &disk->target;
	if (target->read_only)
		err_set(check_report_error(report), ERR_DS_READ_ONLY, -EROFS,
			"the target '%s:%.120s' is read-only", ds, path);
	if (disk->source_known && target->size_bytes < disk->source.size_bytes)
		err_set(check_report_error(report), ERR_MOVE_TARGET_SMALL, -ENOSPC,
			"the target '%s:%.100s' has %llu bytes, the disk '%s' %llu", ds, path,
			(unsigned long long)target->size_bytes, disk->name,
			(unsigned long long)disk->source.size_bytes);
	if (disk->provision != PROVISION_SAME)
		err_set(check_report_error(report), ERR_NOT_SUPPORTED, -ENOTSUP,
			"'%s:%.120s' is there already: it cannot be provisioned as %s", ds, path,
			provision_name(disk->provision));
	if (disk->block_bytes && target->sector_bytes > disk->block_bytes)
		err_set(check_report_error(report), ERR_MOVE_SECTOR, -EINVAL,
			"the disk '%s' has sectors of %u bytes, the target '%s:%.100s' of %u",
			disk->name, disk->block_bytes, ds, path, target->sector_bytes);
	if (!target->has_identity)
		err_set(check_report_warning(report), ERR_MOVE_HOST_LOCAL, -ENOTSUP,
			"the target '%s:%.120s' can carry no mark: only this host knows that it is "
			"incomplete", ds, path);
}

static void judge_target(struct move_disk *disk, int rc, const struct err *err,
			 struct check_report *report)
{
	if (rc == 0 && disk->target.format == DISK_FORMAT_REMOTE) {
		disk->target_present = true;
		judge_remote_target(disk, report);
	} else if (rc == 0 || err->id == ERR_DISK_CHAIN || err->id == ERR_DISK_BAD_DESCRIPTOR ||
		   err->id == ERR_DISK_BAD_FORMAT) {
		err_set(check_report_error(report), ERR_MOVE_TARGET_EXISTS, -EEXIST,
			"there is something at '%s:%.120s' already",
			datastore_name(disk->target_datastore), disk->target_path);
	} else if (err->id != ERR_DISK_UNKNOWN ||
		   strcmp(datastore_kind(disk->target_datastore), "nbd") == 0) {
		*check_report_error(report) = *err;     /* an NBD server's exports cannot be made */
	}
}

/* R-F4: a lease is kept by its holder alone; who is frozen longer than it lasts may wake up. */
static void warn_of_lease(struct move_disk *disk, struct check_report *report)
{
	if (strcmp(datastore_lock_scheme(disk->target_datastore), "lease") == 0)
		err_set(check_report_warning(report), ERR_NFS_NO_FENCE, -ENOTSUP,
			"the datastore '%s' cannot shut out a host that has lost its lock: the lock "
			"of '%s' is a lease, which each host keeps by itself",
			datastore_name(disk->target_datastore), disk->name);
}

static void check_target_run(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);
	struct move_disk *disk = &check->plan->disks[check->index];
	struct err err = { .id = ERR_NONE };
	int rc;

	rc = ds_disk_stat(disk->target_datastore, disk->target_path, &disk->target, &err);
	judge_target(disk, rc, &err, check->report);
	warn_of_lease(disk, check->report);
	if (!disk->target_present && datastore_probe(disk->target_datastore, &err))
		*check_report_error(check->report) = err;
	if (datastore_space(disk->target_datastore, &disk->space, &err))
		*check_report_error(check->report) = err;
	else
		disk->space_known = disk->space.capacity_bytes > 0;
}

/* ---- K4: all together ---- */

static void resolve_need(struct move_disk *disk)
{
	uint64_t size_bytes = disk->source.size_bytes;
	uint64_t allocated_bytes = MIN(disk->source.allocated_bytes, size_bytes);
	uint64_t growth_bytes;

	if (disk->provision == PROVISION_SAME)
		disk->provision = disk->source.provision;
	if (disk->target_present)
		return;                 /* it has its space */
	disk->need_bytes = size_bytes + METADATA_BYTES;
	if (disk->provision != PROVISION_THIN)
		return;
	growth_bytes = MAX(allocated_bytes / 16, THIN_GROWTH_MIN_BYTES);
	disk->need_bytes = MIN(size_bytes, allocated_bytes + growth_bytes) + METADATA_BYTES;
}

static void judge_space(const struct move_plan *plan, uint32_t first, struct check_report *report)
{
	const struct move_disk *disk = &plan->disks[first];
	const char *ds = datastore_name(disk->target_datastore);
	uint64_t need_bytes = 0, full_bytes = 0, free_bytes = 0;

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		const struct move_disk *other = &plan->disks[i];

		if (other->target_datastore != disk->target_datastore)
			continue;
		if (i < first)
			return;         /* judged with its first disk */
		need_bytes += other->need_bytes;
		if (!other->target_present)
			full_bytes += other->source.size_bytes;
	}
	if (!disk->space_known)
		return;
	if (disk->space.free_bytes > disk->space.reserved_bytes)
		free_bytes = disk->space.free_bytes - disk->space.reserved_bytes;
	if (need_bytes > free_bytes)
		err_set(check_report_error(report), ERR_DS_NO_SPACE, -ENOSPC,
			"the datastore '%s' has %llu bytes left and the move needs %llu", ds,
			(unsigned long long)free_bytes, (unsigned long long)need_bytes);
	else if (full_bytes > free_bytes)
		err_set(check_report_warning(report), ERR_MOVE_THIN, -ENOSPC,
			"the thin disks may grow to %llu bytes and the datastore '%s' has %llu "
			"left",
			(unsigned long long)full_bytes, ds, (unsigned long long)free_bytes);
}

static void estimate(const struct move_plan *plan, struct check_report *report)
{
	uint64_t rate = MIN(plan->options.bandwidth_bytes_per_s, CAREFUL_RATE_BYTES_PER_S);
	uint64_t passes = plan->options.verify ? 2 : 1;

	for (uint32_t i = 0; i < plan->disk_count; i++)
		report->estimate_bytes += MIN(plan->disks[i].source.allocated_bytes,
					      plan->disks[i].source.size_bytes);
	if (rate == 0)
		rate = 1;
	report->estimate_seconds = report->estimate_bytes / rate * passes + 1;
}

/* On the record worker: the state directory may hang as well. */
static void check_end_run(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);
	const struct move_plan *plan = check->plan;
	struct err err;

	if (move_record_judge(plan->state_dir, plan->journal_id, &err))
		*check_report_error(check->report) = err;
	for (uint32_t i = 0; i < plan->disk_count; i++)
		resolve_need(&plan->disks[i]);
	for (uint32_t i = 0; i < plan->disk_count; i++)
		judge_space(plan, i, check->report);
	estimate(plan, check->report);
	if (!plan->keep_source && !plan->options.verify)
		err_set(check_report_warning(check->report), ERR_MOVE_UNVERIFIED, 0,
			"without verification the source is not deleted but kept, marked retired");
}

/* ---- the chain ---- */

static void check_disk_source(struct move_check *check);

static void check_ended(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);

	check->checked(check);
}

static void check_target_done(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);

	check->index++;
	check_disk_source(check);
}

static void check_source_done(struct job *job)
{
	struct move_check *check = container_of(job, struct move_check, job);
	struct move_disk *disk = &check->plan->disks[check->index];

	check->job = (struct job){ .run = check_target_run, .done = check_target_done };
	worker_submit(datastore_worker(disk->target_datastore), &check->job);
}

static void check_disk_source(struct move_check *check)
{
	struct move_disk *disk = &check->plan->disks[check->index];

	if (check->index == check->plan->disk_count) {
		check->job = (struct job){ .run = check_end_run, .done = check_ended };
		worker_submit(check->plan->service->record_worker, &check->job);
		return;
	}
	check->job = (struct job){ .run = check_source_run, .done = check_source_done };
	worker_submit(datastore_worker(disk->source_datastore), &check->job);
}

static void check_finish(struct task *task)
{
	struct move_check *check = container_of(task, struct move_check, finish);

	check->checked(check);
}

void move_check_start(struct move_check *check, struct move_plan *plan,
		      struct check_report *report, bool own,
		      void (*checked)(struct move_check *check))
{
	*check = (struct move_check){ .plan = plan, .report = report, .own = own,
				      .checked = checked, .finish.run = check_finish };
	if (plan->disk_count && report->error_count == 0)
		judge_plan(check);
	/* A spec that is wrong in itself, or a store that is down, is not looked at any further. */
	if (report->error_count)
		loop_post(plan->service->main_loop, &check->finish);
	else
		check_disk_source(check);
}

/* ---- a check of its own ---- */

struct lone_check {
	struct move_check check;
	struct move_plan plan;
	struct check_report report;
	void (*checked)(const struct check_report *report, void *user);
	void *user;
};

static void lone_checked(struct move_check *check)
{
	struct lone_check *lone = container_of(check, struct lone_check, check);

	lone->checked(&lone->report, lone->user);
	move_plan_release(&lone->plan);
	free(lone);
}

void relocate_check(struct disk_service *service, const struct relocate_spec *spec,
		    void (*checked)(const struct check_report *report, void *user), void *user)
{
	static struct check_report no_memory;
	struct lone_check *lone = calloc(1, sizeof(*lone));

	LOOP_CHECK(service->main_loop);
	if (!lone || move_plan_init(&lone->plan, service, spec, &lone->report)) {
		free(lone);
		no_memory.error_count = 1;
		err_set(&no_memory.errors[0], ERR_NO_MEMORY, -ENOMEM,
			"cannot check the relocation");
		checked(&no_memory, user);
		return;
	}
	lone->checked = checked;
	lone->user = user;
	move_check_start(&lone->check, &lone->plan, &lone->report, false, lone_checked);
}

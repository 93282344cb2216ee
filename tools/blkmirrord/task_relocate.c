/* SPDX-License-Identifier: Apache-2.0 */
/* task_relocate.c - a relocation (vmotion/relocate.h) as a task. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/task_relocate_private.h"


/* ---- where from, where to ---- */

static int find_by_id(struct daemon *daemon, const char *id, struct relocate_place *out,
		      struct err *err)
{
	struct attachment *attachment = inventory_attachment(daemon->inventory, id);

	if (!attachment)
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT, "no disk '%s' is attached", id);
	if (!attachment->disk)
		return err_set(err, ERR_DISK_NOT_ATTACHED, -ENODEV, "'%s' waits to be attached: %s",
			       id, attachment->error.cause);
	out->disk = attachment->disk;
	out->source = attachment->entry;
	snprintf(out->source_path, sizeof(out->source_path), "%s", attachment->path);
	return 0;
}

int relocate_find_place(struct daemon *daemon, const struct disk_relocate_request *request,
			struct relocate_place *out, struct err *err)
{
	memset(out, 0, sizeof(*out));
	if (request->id[0]) {
		int rc = find_by_id(daemon, request->id, out, err);

		if (rc)
			return rc;
	} else {
		out->source = inventory_open_entry(daemon->inventory, request->disk.datastore, err);
		if (!out->source)
			return -ENOENT;
		snprintf(out->source_path, sizeof(out->source_path), "%s", request->disk.path);
		out->disk = disk_find_by_path(daemon->disks, out->source->datastore,
					      out->source_path);
	}
	out->target = inventory_open_entry(daemon->inventory, request->target.datastore, err);
	if (!out->target)
		return -ENOENT;
	snprintf(out->target_path, sizeof(out->target_path), "%s",
		 request->target.path[0] ? request->target.path : out->source_path);
	out->provision = request->provision;
	return 0;
}

uint64_t relocate_bandwidth(uint64_t asked, const struct relocate_place *places,
			    uint32_t place_count)
{
	for (uint32_t i = 0; i < place_count; i++)
		asked = MIN(asked, MIN(places[i].source->bandwidth, places[i].target->bandwidth));
	return asked;
}

int relocate_find_move(struct daemon *daemon, const struct vm_move_disk *disk,
		       struct relocate_place *out, struct err *err)
{
	memset(out, 0, sizeof(*out));
	out->source = inventory_open_entry(daemon->inventory, disk->source_datastore, err);
	if (!out->source)
		return -ENOENT;
	out->target = inventory_open_entry(daemon->inventory, disk->target_datastore, err);
	if (!out->target)
		return -ENOENT;
	memcpy(out->source_path, disk->source_path, sizeof(out->source_path));
	memcpy(out->target_path, disk->target_path, sizeof(out->target_path));
	memcpy(out->name, disk->drive, sizeof(out->name));
	out->provision = disk->provision;
	out->disk = disk_find_by_path(daemon->disks, out->source->datastore, out->source_path);
	return 0;
}

void relocate_hold(const struct relocate_place *places, uint32_t place_count)
{
	for (uint32_t i = 0; i < place_count; i++) {
		ds_entry_get(places[i].source);
		ds_entry_get(places[i].target);
	}
}

void relocate_unhold(const struct relocate_place *places, uint32_t place_count)
{
	for (uint32_t i = 0; i < place_count; i++) {
		ds_entry_put(places[i].source);
		ds_entry_put(places[i].target);
	}
}

void relocate_fill_spec(struct daemon *daemon, const struct disk_relocate_request *request,
			const struct relocate_place *places, uint32_t place_count,
			struct relocate_disk_spec *disk_specs, struct relocate_spec *spec)
{
	for (uint32_t i = 0; i < place_count; i++)
		disk_specs[i] = (struct relocate_disk_spec){
			.name = places[i].name[0] ? places[i].name : NULL,
			.disk = places[i].disk,
			.source_datastore = places[i].source->datastore,
			.source_path = places[i].source_path,
			.target_datastore = places[i].target->datastore,
			.target_path = places[i].target_path,
			.provision = places[i].provision,
		};
	*spec = (struct relocate_spec){
		.disks = disk_specs,
		.disk_count = place_count,
		.options = {
			.mode = request->mode,
			.bandwidth_bytes_per_s =
				relocate_bandwidth(request->bandwidth, places, place_count),
			.max_stun_ns = request->max_stun_ns,
			.leg_deadline_ns = request->target_timeout_ns,
			.latency_budget_ns = request->latency_budget_ns,
			.verify = request->verify,
			.hold = request->hold,
		},
		.keep_source = request->keep_source,
		.state_dir = daemon->config.state_dir,
	};
	memcpy(spec->host_uuid, daemon->host_uuid, sizeof(spec->host_uuid));
}

/* ---- JSON ---- */

static json_t *disk_status_json(const struct relocate_disk_status *disk)
{
	const struct mover_disk_stats *stats = &disk->stats;
	json_t *object = json_pack(
		"{s:o, s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
		"s:I}", "disk",
		json_edge_text(disk->name), "source", json_edge_text(disk->source), "target",
		json_edge_text(disk->target), "authoritative",
		disk->target_authoritative ? "target" : "source", "copied_bytes",
		(json_int_t)stats->copied_bytes, "zero_bytes", (json_int_t)stats->zero_bytes,
		"hole_bytes", (json_int_t)stats->hole_bytes, "recopied_bytes",
		(json_int_t)stats->recopied_bytes, "resumed_bytes",
		(json_int_t)stats->resumed_bytes, "mirrored_writes",
		(json_int_t)stats->mirrored_writes, "mirrored_bytes",
		(json_int_t)stats->mirrored_bytes, "shed_bytes", (json_int_t)stats->shed_bytes,
		"dirty_bytes", (json_int_t)stats->dirty_bytes,
		"suspect_bytes", (json_int_t)stats->suspect_bytes, "active_bytes",
		(json_int_t)stats->active_bytes, "journal_dirty_bytes",
		(json_int_t)stats->journal_dirty_bytes);

	if (object)
		json_object_set_new(object, "verified",
				    disk->verified < 0 ? json_null()
						       : json_boolean(disk->verified));
	return object;
}

static json_t *status_json(const struct relocate_status *status)
{
	json_t *disks = json_array();

	for (uint32_t i = 0; disks && i < status->disk_count; i++)
		json_array_append_new(disks, disk_status_json(&status->disks[i]));
	return json_pack(
		"{s:{s:I,s:I,s:I,s:I,s:I}, s:o, s:o?, s:{s:I,s:I,s:I,s:I,s:I,s:I}, s:{s:o}}",
		"progress", "total_bytes", (json_int_t)status->total_bytes, "done_bytes",
		(json_int_t)status->done_bytes, "remaining_bytes",
		(json_int_t)status->remaining_bytes, "rate_bytes_per_s",
		(json_int_t)status->rate_bytes_per_s, "eta_s", (json_int_t)status->eta_s, "disks",
		disks, "degraded",
		status->degraded_why.id != ERR_NONE ? json_edge_err_object(&status->degraded_why)
						    : NULL,
		"guest", "iops", (json_int_t)status->guest_iops, "p50_us",
		(json_int_t)(status->guest_p50_ns / NS_PER_US), "p99_us",
		(json_int_t)(status->guest_p99_ns / NS_PER_US), "max_us",
		(json_int_t)(status->guest_max_ns / NS_PER_US), "iops_before",
		(json_int_t)status->guest_iops_before, "p99_before_us",
		(json_int_t)(status->guest_p99_before_ns / NS_PER_US), "switchover", "stun_us",
		status->stun_ns ? json_integer((json_int_t)(status->stun_ns / NS_PER_US))
				: json_null());
}

static bool task_describe(const struct user_task *task, json_t *object)
{
	struct relocate_task *relocate = relocate_task_of(task);
	json_t *described = relocate->described;
	bool ok = true;

	if (relocate->faults)
		ok = json_object_set(object, "faults", relocate->faults) == 0;
	if (described && !relocate->relocation)
		return ok && json_object_update(object, described) == 0;
	if (!relocate->status)
		return ok;
	described = status_json(relocate->status);
	ok = ok && described && json_object_update(object, described) == 0;
	json_decref(described);
	return ok;
}

/* ---- running ---- */

static const enum user_task_state task_states[RELOCATE_STATE_COUNT] = {
	[RELOCATE_RUNNING] = USER_TASK_RUNNING,     [RELOCATE_HELD] = USER_TASK_HELD,
	[RELOCATE_PAUSED] = USER_TASK_PAUSED,       [RELOCATE_COMPLETED] = USER_TASK_COMPLETED,
	[RELOCATE_FAILED] = USER_TASK_FAILED,       [RELOCATE_CANCELLED] = USER_TASK_CANCELLED,
};

static void keep_faults(struct relocate_task *relocate)
{
	const struct check_report *report = relocation_refused(relocate->relocation);

	if (!report)
		return;
	relocate->faults = json_array();
	for (uint32_t i = 0; relocate->faults && i < report->error_count; i++)
		json_array_append_new(relocate->faults, json_edge_err_object(&report->errors[i]));
}

static void free_relocation(struct relocate_task *relocate);
static void begin_or_fail(struct relocate_task *relocate);

/* Ended: what is told from now on is fixed, and the datastores are let go. */
static void relocate_ended(struct relocate_task *relocate)
{
	json_decref(relocate->described);
	relocate->described = status_json(relocate->status);
	if (relocate->relocation)
		keep_faults(relocate);
	for (uint32_t i = 0; i < relocate->place_count; i++) {
		ds_entry_refresh(relocate->places[i].source);
		ds_entry_refresh(relocate->places[i].target);
	}
	relocate_let_go(relocate);
	free_relocation(relocate);
}

static void free_relocation(struct relocate_task *relocate)
{
	if (relocate->relocation)
		relocation_free(relocate->relocation);
	relocate->relocation = NULL;
	free(relocate->status);
	relocate->status = NULL;
}

void relocate_let_go(struct relocate_task *relocate)
{
	if (relocate->holding)
		relocate_unhold(relocate->places, relocate->place_count);
	relocate->holding = false;
}

/* ---- of a machine: what comes after its disks ---- */

void relocate_drop_move(struct relocate_task *relocate)
{
	struct vm_entry *vm = relocate->vm;

	relocate->vm = NULL;
	if (vm)
		vms_move_drop(vm);
}

static void settled(const struct err *err, void *user)
{
	struct relocate_task *relocate = user;
	struct user_task *task = &relocate->base;

	relocate->settling = false;
	relocate->vm = NULL;            /* its move is over */
	if (err && relocate->outcome == USER_TASK_COMPLETED)
		user_task_fail(task, err);
	else
		user_task_move(task, relocate->outcome);
}

void relocate_settle(struct relocate_task *relocate, enum user_task_state outcome)
{
	relocate->settling = true;
	relocate->waits = false;
	relocate->outcome = outcome;
	user_task_set_phase(&relocate->base, relocate_phase_name(RELOCATE_CLEANUP));
	if (relocate->base.state != USER_TASK_RUNNING)
		user_task_move(&relocate->base, USER_TASK_RUNNING);
	vms_move_settle(relocate->vm, settled, relocate);
}

/* True: the machine's VMX has to be told first. */
static bool machine_goes_on(struct relocate_task *relocate, enum user_task_state state)
{
	if (!relocate->vm || !user_task_state_ended(state))
		return false;
	if (relocate->vm->move->state == VM_MOVE_PLANNED) {
		relocate_drop_move(relocate);
		return false;
	}
	/* Where the copy is not in order nothing of the old place goes. */
	if (state != USER_TASK_COMPLETED)
		relocate->vm->move->keep_source = true;
	relocate_settle(relocate, state);
	return true;
}

/* Attachments that a resumed move took and did not come to are the inventory's again. */
void relocate_give_back(struct relocate_task *relocate, const struct err *why)
{
	for (uint32_t i = 0; i < ARRAY_COUNT(relocate->attaching); i++) {
		struct attachment *attachment = relocate->attaching[i];

		relocate->attaching[i] = NULL;
		if (attachment)
			inventory_move_attached(attachment, NULL, why);
	}
}

/* The names that the machine has for its disks: the record does not keep them. */
static void name_disks(struct relocate_task *relocate)
{
	struct relocate_status *status = relocate->status;
	char source[DS_NAME_BYTES + DS_PATH_BYTES];

	for (uint32_t i = 0; relocate->vm && i < relocate->place_count; i++) {
		const struct relocate_place *place = &relocate->places[i];

		snprintf(source, sizeof(source), "%s:%s", place->source->name, place->source_path);
		for (uint32_t j = 0; j < status->disk_count; j++)
			if (strcmp(status->disks[j].source, source) == 0)
				snprintf(status->disks[j].name, sizeof(status->disks[j].name), "%s",
					 place->name);
	}
}

/* Not the end of the task: its move could not be gone on with, and is as it was, or never began. */
static bool goes_another_way(struct relocate_task *relocate)
{
	const struct relocate_status *status = relocate->status;
	struct err why = status->error;

	if (status->state != RELOCATE_FAILED || relocate->daemon->stopping)
		return false;
	if (relocation_not_resumed(relocate->relocation)) {
		free_relocation(relocate);
		relocate_not_resumed(relocate, &why);
		return true;
	}
	if (why.id != ERR_TASK_INTERRUPTED)
		return false;
	/* A daemon before had reserved, and copied nothing. */
	free_relocation(relocate);
	relocate_give_back(relocate, &why);
	log_info("task", "%s: begins anew: %s", relocate->base.id, why.cause);
	begin_or_fail(relocate);
	return true;
}

void relocate_changed(struct relocation *relocation, void *user)
{
	struct relocate_task *relocate = user;
	struct user_task *task = &relocate->base;
	enum user_task_state state;

	relocation_status(relocation, relocate->status);
	name_disks(relocate);
	/* The daemon stops: what is stored stays as it is; relocate_park() looks. */
	if (relocation_parking(relocation) || goes_another_way(relocate))
		return;
	relocate_tell_resumed(relocate);
	state = task_states[relocate->status->state];
	user_task_set_phase(task, relocate_phase_name(relocate->status->phase));
	if (state == USER_TASK_FAILED)
		task->error = relocate->status->error;
	if (state == USER_TASK_CANCELLED)
		err_set(&task->error, ERR_TASK_CANCELLED, 0, "cancelled by an operator");
	if (user_task_state_ended(state)) {
		relocate_give_back(relocate, &task->error);
		relocate_ended(relocate);
	}
	if (machine_goes_on(relocate, state))
		return;
	/* What its space is now concerns who looks at the datastore, and what is admitted to it. */
	if (state == USER_TASK_PAUSED && task->state != state &&
	    relocate->status->degraded_why.id == ERR_MOVE_TARGET_FULL)
		for (uint32_t i = 0; i < relocate->place_count; i++)
			ds_entry_refresh(relocate->places[i].target);
	if (state == task->state)
		user_task_changed(task);
	else
		user_task_move(task, state);
	if (!user_task_state_ended(state))
		relocate_go_on_if_wanted(relocate);
}

/* The switch stands: the attachments now lie on the targets, and the machine's row says so. */
int relocate_switched(struct relocation *relocation, void *user)
{
	struct relocate_task *relocate = user;
	struct inventory *inventory = relocate->daemon->inventory;
	int rc = 0;

	(void)relocation;
	for (uint32_t i = 0; !rc && i < relocate->place_count; i++) {
		const struct relocate_place *place = &relocate->places[i];
		struct attachment *attachment = inventory_attachment_of(
			inventory, place->source->name, place->source_path);

		if (attachment)
			rc = inventory_moved(inventory, attachment->id, place->target,
					     place->target_path);
	}
	if (!rc && relocate->vm)
		rc = vms_move_switched(relocate->vm);
	return rc;
}

/* Between queueing and now disks may have moved: hold what is used. */
static int find_places(struct relocate_task *relocate, struct err *err)
{
	struct relocate_place *places = calloc(MAX(relocate->place_count, 1), sizeof(*places));
	int rc = 0;

	if (!places)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	if (!relocate->vm)
		rc = relocate_find_place(relocate->daemon, &relocate->request, places, err);
	for (uint32_t i = 0; !rc && relocate->vm && i < relocate->place_count; i++)
		rc = relocate_find_move(relocate->daemon, &relocate->vm->move->disks[i], &places[i],
					err);
	if (rc) {
		free(places);
		return rc;
	}
	relocate_hold(places, relocate->place_count);
	relocate_let_go(relocate);
	free(relocate->places);
	relocate->places = places;
	relocate->holding = true;
	return 0;
}

static int begin_disks(struct relocate_task *relocate, struct err *err)
{
	struct relocate_disk_spec *disks = calloc(relocate->place_count, sizeof(*disks));
	struct relocate_spec spec;
	int rc = -ENOMEM;

	relocate->status = calloc(1, sizeof(*relocate->status));
	if (!disks || !relocate->status) {
		err_set(err, ERR_NO_MEMORY, rc, "out of memory");
		goto free_disks;
	}
	relocate_fill_spec(relocate->daemon, &relocate->request, relocate->places,
			   relocate->place_count, disks, &spec);
	spec.task_id = relocate->base.id;
	spec.switched = relocate_switched;
	rc = relocate_start(relocate->daemon->disks, &spec, relocate_changed, relocate,
			    &relocate->relocation, err);
free_disks:
	free(disks);
	if (!rc)
		return 0;
	free(relocate->status);
	relocate->status = NULL;
	return rc;
}

int relocate_begin(struct relocate_task *relocate, struct err *err)
{
	int rc = find_places(relocate, err);

	if (rc)
		return rc;
	if (relocate->place_count)
		return begin_disks(relocate, err);
	rc = vms_move_switched(relocate->vm);
	if (rc)
		return err_set(err, ERR_STATE_DIR, rc, "the move of '%.100s' cannot be noted",
			       relocate->vm->name);
	relocate_settle(relocate, USER_TASK_COMPLETED);
	return 0;
}

static void begin_or_fail(struct relocate_task *relocate)
{
	struct err err = { 0 };

	if (relocate->relocation || relocate->settling || !relocate_begin(relocate, &err))
		return;
	relocate_drop_move(relocate);
	relocate_let_go(relocate);
	user_task_fail(&relocate->base, &err);
}

static void plan_stored(int rc, const struct err *err, void *user)
{
	struct relocate_task *relocate = user;

	relocate->storing = false;
	if (relocate->daemon->stopping)
		return;                 /* the next daemon's */
	if (!rc) {
		begin_or_fail(relocate);
		return;
	}
	relocate_drop_move(relocate);
	relocate_let_go(relocate);
	user_task_fail(&relocate->base, err);
}

static void relocate_task_start(struct user_task *task)
{
	struct relocate_task *relocate = relocate_task_of(task);
	struct err err = { 0 };

	if (!relocate->vm || relocate->relocation || relocate->vm->move->stored) {
		begin_or_fail(relocate);
		return;
	}
	relocate->storing = true;
	if (vms_move_store(relocate->vm, task->id, plan_stored, relocate, &err))
		plan_stored(-EBUSY, &err, relocate);
}

/* ---- verbs ---- */

static int refuse_waiting(const struct user_task *task, struct err *err)
{
	if (relocate_task_of(task)->settling)
		return err_set(err, ERR_TASK_COMMITTED, -EBUSY,
			       "%s has moved the disks and finishes the machine's VMX", task->id);
	if (relocate_task_of(task)->storing)
		return err_set(err, ERR_TASK_STATE, -EBUSY, "%s is just beginning", task->id);
	return err_set(err, ERR_TASK_STATE, -EBUSY, "%s waits for its disks to be attached again",
		       task->id);
}

static int task_pause(struct user_task *task, struct err *err)
{
	if (!relocate_task_of(task)->relocation)
		return refuse_waiting(task, err);
	relocate_task_of(task)->resume_wanted = false;
	return relocation_pause(relocate_task_of(task)->relocation, err);
}

static int task_resume(struct user_task *task, struct err *err)
{
	struct relocate_task *relocate = relocate_task_of(task);
	bool is_down = false;

	if (relocate->settling || relocate->storing)
		return refuse_waiting(task, err);
	if (!relocate->relocation)
		return relocate_waiting_resume(relocate, err);
	/* Down, it would not be tried again for minutes: now, and then the move goes on. */
	for (uint32_t i = 0; i < relocate->place_count; i++) {
		if (relocate->places[i].target->datastore)
			continue;
		is_down = relocate->resume_wanted = true;
		ds_entry_retry(relocate->places[i].target);
	}
	if (is_down)
		return 0;
	return relocation_resume(relocate_task_of(task)->relocation, err);
}

static int task_cancel(struct user_task *task, struct err *err)
{
	if (relocate_task_of(task)->settling || relocate_task_of(task)->storing)
		return refuse_waiting(task, err);
	if (!relocate_task_of(task)->relocation)
		return relocate_waiting_cancel(relocate_task_of(task), err);
	return relocation_cancel(relocate_task_of(task)->relocation, err);
}

/* The word outlasts a restart: what holds no more is not held again. */
static int task_complete(struct user_task *task, struct err *err)
{
	struct relocate_task *relocate = relocate_task_of(task);
	int rc;

	if (!relocate->relocation)
		return refuse_waiting(task, err);
	rc = relocation_complete(relocate->relocation, err);
	if (rc)
		return rc;
	relocate->request.hold = false;
	user_task_persist(task);
	return 0;
}

static int task_set(struct user_task *task, const struct task_set_request *request,
			struct err *err)
{
	struct relocate_task *relocate = relocate_task_of(task);
	int rc = 0;

	if (request->bandwidth_given) {
		relocate->request.bandwidth = request->bandwidth;
		if (relocate->relocation)
			rc = relocation_set_bandwidth(relocate->relocation, request->bandwidth, err);
	}
	if (!rc && request->mode_given) {
		relocate->request.mode = request->mode_choice ? MIRROR_ASYNC : MIRROR_SYNC;
		if (relocate->relocation)
			rc = relocation_set_mode(relocate->relocation, relocate->request.mode, err);
	}
	if (!rc && request->max_stun_given) {
		relocate->request.max_stun_ns = request->max_stun_ns;
		if (relocate->relocation)
			rc = relocation_set_max_stun(relocate->relocation, request->max_stun_ns, err);
	}
	if (!rc && request->latency_budget_given) {
		relocate->request.latency_budget_ns = request->latency_budget_ns;
		if (relocate->relocation)
			rc = relocation_set_latency_budget(relocate->relocation,
							   request->latency_budget_ns, err);
	}
	return rc;
}

static void task_release(struct user_task *task)
{
	struct relocate_task *relocate = relocate_task_of(task);

	json_decref(relocate->described);
	json_decref(relocate->faults);
	free(relocate->status);
	free(relocate->places);
	free(relocate);
}

static void task_dropped(struct user_task *task)
{
	relocate_drop_move(relocate_task_of(task));
	relocate_let_go(relocate_task_of(task));
}

/* The daemon stops: what is not finished is the next one's. */
static bool task_park(struct user_task *task)
{
	struct relocate_task *relocate = relocate_task_of(task);

	if (relocate->storing || (relocate->settling && !vms_move_park(relocate->vm)))
		return false;
	if (relocate->relocation && !relocation_parked(relocate->relocation)) {
		relocation_park(relocate->relocation);
		return false;
	}
	if (relocate->status) {
		json_decref(relocate->described);
		relocate->described = status_json(relocate->status);
	}
	free_relocation(relocate);
	relocate_let_go(relocate);
	return true;
}

const struct user_task_ops relocate_ops = {
	.type = "relocate",
	.start = relocate_task_start,
	.dropped = task_dropped,
	.pause = task_pause,
	.resume = task_resume,
	.cancel = task_cancel,
	.complete = task_complete,
	.set = task_set,
	.describe = task_describe,
	.request = relocate_request_json,
	.park = task_park,
	.release = task_release,
};

/* A machine's move counts once on each datastore, as a disk's does. */
static void claim_once(struct admission_claim *claim, const char *name)
{
	for (uint32_t i = 0; i < claim->side_count; i++)
		if (strcmp(claim->sides[i].datastore, name) == 0)
			return;
	/* Disks on more datastores than that: those beyond are not counted. */
	if (claim->side_count < ADMISSION_SIDES_MAX)
		admission_claim_side(claim, name, RELOCATE_DATASTORE_UNITS);
}

void relocate_claim(struct relocate_task *relocate)
{
	struct admission_claim *claim = &relocate->base.claim;

	claim->host_units = RELOCATE_HOST_UNITS;
	for (uint32_t i = 0; i < relocate->place_count; i++) {
		claim_once(claim, relocate->places[i].source->name);
		claim_once(claim, relocate->places[i].target->name);
	}
}

static void prepare_task(struct relocate_task *relocate, struct daemon *daemon,
			 const struct disk_relocate_request *request)
{
	struct user_task *task = &relocate->base;

	task->ops = &relocate_ops;
	task->priority = (enum task_priority)request->priority_choice;
	task->weight = (uint32_t)request->weight;
	relocate->daemon = daemon;
	relocate->request = *request;
	relocate->request.text = relocate->request.to = NULL;
}

static struct relocate_task *task_new(uint32_t place_count)
{
	struct relocate_task *relocate = calloc(1, sizeof(*relocate));

	if (!relocate)
		return NULL;
	relocate->place_count = place_count;
	relocate->places = calloc(MAX(place_count, 1), sizeof(*relocate->places));
	if (relocate->places)
		return relocate;
	free(relocate);
	return NULL;
}

static int add_task(struct relocate_task *relocate, struct user_task **out, struct err *err)
{
	int rc;

	relocate_claim(relocate);
	rc = task_table_add(relocate->daemon->tasks, &relocate->base, err);
	if (rc)
		return rc;
	relocate_hold(relocate->places, relocate->place_count);
	relocate->holding = true;
	*out = &relocate->base;
	return 0;
}

static void task_free(struct relocate_task *relocate)
{
	free(relocate->places);
	free(relocate);
}

int task_relocate_add(struct daemon *daemon, const struct disk_relocate_request *request,
		      struct user_task **out, struct err *err)
{
	struct relocate_task *relocate = task_new(1);
	int rc;

	if (!relocate)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = relocate_find_place(daemon, request, relocate->places, err);
	if (!rc) {
		prepare_task(relocate, daemon, request);
		snprintf(relocate->base.subject, sizeof(relocate->base.subject), "%s:%s",
			 relocate->places->source->name, relocate->places->source_path);
		rc = add_task(relocate, out, err);
	}
	if (rc)
		task_free(relocate);
	return rc;
}

int task_vm_relocate_add(struct daemon *daemon, struct vm_entry *vm, struct vm_move *move,
			 const struct disk_relocate_request *request, struct user_task **out,
			 struct err *err)
{
	struct relocate_task *relocate = task_new(move->disk_count);
	int rc = 0;

	if (!relocate)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	for (uint32_t i = 0; !rc && i < move->disk_count; i++)
		rc = relocate_find_move(daemon, &move->disks[i], &relocate->places[i], err);
	if (!rc)
		rc = vms_move_take(vm, move, err);
	if (rc)
		goto free_task;
	prepare_task(relocate, daemon, request);
	relocate->vm = vm;
	snprintf(relocate->base.subject, sizeof(relocate->base.subject), "%s", vm->name);
	rc = add_task(relocate, out, err);
	if (rc) {
		vm->move = NULL;        /* the caller's still */
		goto free_task;
	}
	snprintf(move->task, sizeof(move->task), "%s", relocate->base.id);
	return 0;

free_task:
	task_free(relocate);
	return rc;
}

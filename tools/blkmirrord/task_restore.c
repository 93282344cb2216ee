/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/task_restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/recovering.h"
#include "tools/blkmirrord/task_relocate_private.h"

/* ---- what was asked, and back ---- */

json_t *relocate_request_json(const struct user_task *task)
{
	const struct relocate_task *relocate = relocate_task_of(task);
	const struct disk_relocate_request *request = &relocate->request;
	char disk[DS_NAME_BYTES + DS_PATH_BYTES] = "", target[DS_NAME_BYTES + DS_PATH_BYTES] = "";

	if (!request->id[0] && !relocate->vm)
		snprintf(disk, sizeof(disk), "%s:%s", request->disk.datastore, request->disk.path);
	if (!relocate->vm)
		snprintf(target, sizeof(target), "%s:%s", request->target.datastore,
			 request->target.path);
	return json_pack("{s:s, s:o, s:o, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, "
			 "s:b, s:s, s:o}",
			 "id", request->id, "disk", json_edge_text(disk), "target",
			 json_edge_text(target), "provision", (int)request->provision, "mode",
			 (int)request->mode, "priority", (int)task->priority, "weight",
			 (json_int_t)task->weight, "bandwidth", (json_int_t)request->bandwidth,
			 "max_stun_ns", (json_int_t)request->max_stun_ns, "target_timeout_ns",
			 (json_int_t)request->target_timeout_ns, "latency_budget_ns",
			 (json_int_t)request->latency_budget_ns, "keep_source",
			 request->keep_source, "verify", request->verify, "hold", request->hold,
			 "paused_for_source", relocate->paused_for_source, "vm",
			 relocate->vm ? relocate->vm->id : "", "plan",
			 relocate->vm ? vm_move_json(relocate->vm->move) : json_null());
}

static bool split_name(const char *text, struct disk_name *out)
{
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (!colon || length >= sizeof(out->datastore) || strlen(colon + 1) >= sizeof(out->path))
		return false;
	memcpy(out->datastore, text, length);
	out->datastore[length] = '\0';
	strcpy(out->path, colon + 1);
	return ds_name_is_valid(out->datastore);
}

/* Its plan: the machine's own where the row is there, else what was asked. */
static bool read_machine(struct relocate_task *relocate, const char *id, const json_t *plan)
{
	struct vm_entry *vm = vms_find(relocate->daemon->vms, id, NULL);
	struct vm_move *move;

	if (!vm)
		return false;
	if (!vm->move) {
		move = vm_move_read(plan);
		if (!move)
			return false;
		snprintf(move->task, sizeof(move->task), "%s", relocate->base.id);
		vm->move = move;
	} else if (strcmp(vm->move->task, relocate->base.id) != 0) {
		return false;
	}
	relocate->vm = vm;
	return true;
}

/* False: not what relocate_request_json() has made. */
static bool read_request(const json_t *stored, struct relocate_task *relocate)
{
	struct disk_relocate_request *request = &relocate->request;
	const char *id, *disk, *target, *vm = "";
	int provision, mode, priority, keep_source, verify, hold, paused_for_source;
	json_int_t weight, bandwidth, max_stun, timeout, latency_budget = 0;

	if (json_unpack((json_t *)stored,
			"{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s?I, s:b, s:b, s:b, "
			"s:b, s?s}", "id", &id, "disk", &disk, "target", &target, "provision", &provision,
			"mode", &mode, "priority", &priority, "weight", &weight, "bandwidth",
			&bandwidth, "max_stun_ns", &max_stun, "target_timeout_ns", &timeout,
			"latency_budget_ns", &latency_budget,
			"keep_source", &keep_source, "verify", &verify, "hold", &hold,
			"paused_for_source", &paused_for_source, "vm", &vm))
		return false;
	if (vm[0] && !read_machine(relocate, vm, json_object_get(stored, "plan")))
		return false;
	if (strlen(id) >= sizeof(request->id) || provision < PROVISION_SAME ||
	    provision > PROVISION_EAGER || mode < MIRROR_SYNC || mode > MIRROR_ASYNC ||
	    priority < TASK_PRIORITY_LOW || priority > TASK_PRIORITY_HIGH || weight < 1 ||
	    weight > 1000 || bandwidth == 0 || max_stun < 0 || timeout < 0 ||
	    latency_budget < 0)
		return false;
	if (!relocate->vm &&
	    (!split_name(target, &request->target) ||
	     (id[0] ? !ds_name_is_valid(id) : !split_name(disk, &request->disk))))
		return false;
	strcpy(request->id, id);
	request->provision = (enum provision)provision;
	request->mode = (enum mirror_mode)mode;
	request->bandwidth = (uint64_t)bandwidth;       /* -1: UINT64_MAX, none */
	request->max_stun_ns = (uint64_t)max_stun;
	request->target_timeout_ns = (uint64_t)timeout;
	request->latency_budget_ns = (uint64_t)latency_budget;
	request->keep_source = keep_source;
	request->verify = verify;
	request->hold = hold;
	relocate->paused_for_source = paused_for_source;
	relocate->base.priority = (enum task_priority)priority;
	relocate->base.weight = (uint32_t)weight;
	return true;
}

/* ---- restoring ---- */

static const char *known_phase(const char *name)
{
	for (int phase = 0; name && phase < RELOCATE_PHASE_COUNT; phase++)
		if (strcmp(name, relocate_phase_name((enum relocate_phase)phase)) == 0)
			return relocate_phase_name((enum relocate_phase)phase);
	return NULL;
}

/* What is told of it until its move is found: what was told last. */
static json_t *last_told(const json_t *task)
{
	static const char *const keys[] = { "progress", "disks", "degraded", "guest", "faults",
					    "switchover" };
	json_t *told = json_object();

	for (size_t i = 0; told && i < ARRAY_COUNT(keys); i++) {
		json_t *value = json_object_get(task, keys[i]);

		if (value && json_object_set(told, keys[i], value)) {
			json_decref(told);
			return NULL;
		}
	}
	return told;
}

static int find_place(struct inventory *inventory, const char *source, const char *target,
		      struct relocate_place *out, struct err *err)
{
	out->source = inventory_find(inventory, source, err);
	out->target = inventory_find(inventory, target, err);
	return out->source && out->target ? 0 : -ENOENT;
}

static int find_machines_places(struct relocate_task *relocate, struct err *err)
{
	const struct vm_move *move = relocate->vm->move;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < move->disk_count; i++) {
		const struct vm_move_disk *disk = &move->disks[i];
		struct relocate_place *place = &relocate->places[i];

		rc = find_place(relocate->daemon->inventory, disk->source_datastore,
				disk->target_datastore, place, err);
		memcpy(place->source_path, disk->source_path, sizeof(place->source_path));
		memcpy(place->target_path, disk->target_path, sizeof(place->target_path));
		memcpy(place->name, disk->drive, sizeof(place->name));
		place->provision = disk->provision;
	}
	return rc;
}

/* The source as it was when the task was made: its subject. */
static int find_entries(struct relocate_task *relocate, const json_t *task, struct err *err)
{
	const char *subject = json_string_value(json_object_get(task, "subject"));
	struct relocate_place *place;
	struct disk_name source;
	int rc;

	relocate->place_count = relocate->vm ? relocate->vm->move->disk_count : 1;
	relocate->places = calloc(MAX(relocate->place_count, 1), sizeof(*relocate->places));
	if (!relocate->places)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	if (!subject || (!relocate->vm && !split_name(subject, &source)))
		return err_set(err, ERR_TASK_INTERRUPTED, -EINVAL, "its disk is not known any more");
	snprintf(relocate->base.subject, sizeof(relocate->base.subject), "%s", subject);
	if (relocate->vm)
		return find_machines_places(relocate, err);
	place = relocate->places;
	rc = find_place(relocate->daemon->inventory, source.datastore,
			relocate->request.target.datastore, place, err);
	memcpy(place->source_path, source.path, sizeof(place->source_path));
	snprintf(place->target_path, sizeof(place->target_path), "%s",
		 relocate->request.target.path[0] ? relocate->request.target.path : source.path);
	place->provision = relocate->request.provision;
	return rc;
}

static int restore_prepare(struct relocate_task *relocate, const json_t *unfinished,
			   enum user_task_state *state, struct err *err)
{
	const json_t *task = json_object_get(unfinished, "task");
	const char *state_name = json_string_value(json_object_get(unfinished, "state"));
	const char *phase = known_phase(json_string_value(json_object_get(task, "phase")));

	if (!state_name || !user_task_state_parse(state_name, state) ||
	    user_task_state_ended(*state) ||
	    !read_request(json_object_get(unfinished, "request"), relocate))
		return err_set(err, ERR_TASK_INTERRUPTED, -EINVAL,
			       "what was asked of it cannot be read any more");
	if (find_entries(relocate, task, err))
		return -ENOENT;
	/* A machine whose disks have moved does not begin again. */
	if (relocate->vm && relocate->vm->move->state != VM_MOVE_PLANNED)
		*state = *state == USER_TASK_QUEUED ? USER_TASK_RUNNING : *state;
	/* Nothing was copied: if not even a record is found, it begins anew in its turn. */
	else if (*state == USER_TASK_RUNNING &&
	    (!phase || strcmp(phase, "check") == 0 || strcmp(phase, "reserve") == 0))
		*state = USER_TASK_QUEUED;
	relocate->described = last_told(task);
	if (!relocate->described)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	relocate->start_paused = *state == USER_TASK_PAUSED && !relocate->paused_for_source;
	relocate->waits = *state != USER_TASK_QUEUED;
	relocate->base.phase = *state == USER_TASK_QUEUED ? NULL : phase;
	return 0;
}

static int restore_one(struct daemon *daemon, const json_t *unfinished, struct err *err)
{
	struct relocate_task *relocate = calloc(1, sizeof(*relocate));
	const char *type = json_string_value(json_object_get(unfinished, "type"));
	enum user_task_state state = USER_TASK_QUEUED;
	struct err why = { 0 };

	if (!relocate)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	relocate->daemon = daemon;
	relocate->base.ops = &relocate_ops;
	snprintf(relocate->base.id, sizeof(relocate->base.id), "t%lld",
		 (long long)json_integer_value(json_object_get(unfinished, "number")));
	if (!type || strcmp(type, relocate_ops.type) != 0)
		err_set(&why, ERR_TASK_INTERRUPTED, 0, "a task of its type is not restored");
	else if (!restore_prepare(relocate, unfinished, &state, &why)) {
		relocate_hold(relocate->places, relocate->place_count);
		relocate->holding = true;
		relocate_claim(relocate);
		task_table_restore(daemon->tasks, &relocate->base, unfinished, state);
		return 0;
	}
	if (relocate->vm && !relocate->vm->move->stored)
		relocate_drop_move(relocate);
	json_decref(relocate->described);
	free(relocate->places);
	free(relocate);
	return task_table_interrupt(daemon->tasks, unfinished, &why, err);
}

int tasks_restore(struct daemon *daemon, struct err *err)
{
	json_t *unfinished = task_table_take_unfinished(daemon->tasks), *one;
	size_t i;
	int rc = 0;

	json_array_foreach (unfinished, i, one) {
		if (!rc)
			rc = restore_one(daemon, one, err);
	}
	json_decref(unfinished);
	return rc;
}

/* ---- finding their moves ---- */

static struct relocate_task *task_of_move(struct daemon *daemon, const char *move_id)
{
	char id[MOVE_ID_BYTES];

	for (struct user_task *task = task_table_next(daemon->tasks, NULL); task;
	     task = task_table_next(daemon->tasks, task)) {
		if (task->ops != &relocate_ops || user_task_state_ended(task->state) ||
		    move_record_make_id(task->id, daemon->host_uuid, id, NULL))
			continue;
		if (strcmp(id, move_id) == 0)
			return relocate_task_of(task);
	}
	return NULL;
}

static bool has_target(const struct relocate_task *relocate, const struct ds_entry *entry);

static struct datastore *find_datastore(const char *name, void *user)
{
	struct relocate_task *relocate = user;
	struct ds_entry *entry = inventory_find(relocate->daemon->inventory, name, NULL);

	/* It is not away, only slower than its source's: the move goes on when it is there. */
	if (entry && has_target(relocate, entry) && !entry->datastore && entry->opening)
		relocate->resume_wanted = true;
	return entry ? entry->datastore : NULL;
}

/* The attachment of that place that was taken for the move; NULL: none. */
static struct attachment **taken_of(struct relocate_task *relocate, const char *datastore,
				    const char *path)
{
	for (uint32_t i = 0; i < ARRAY_COUNT(relocate->attaching); i++) {
		struct attachment *attachment = relocate->attaching[i];

		if (attachment && strcmp(attachment->datastore, datastore) == 0 &&
		    strcmp(attachment->path, path) == 0)
			return &relocate->attaching[i];
	}
	return NULL;
}

static bool attach_spec(const char *datastore, const char *path, struct disk_attach_spec *out,
			void *user)
{
	struct attachment **taken = taken_of(user, datastore, path);

	if (!taken)
		return false;
	inventory_move_spec(*taken, out);
	return true;
}

static void attached(const char *datastore, const char *path, struct disk *disk,
		     const struct err *err, void *user)
{
	struct attachment **taken = taken_of(user, datastore, path), *attachment = *taken;

	*taken = NULL;
	inventory_move_attached(attachment, disk, err);
}

static void fill_options(const struct relocate_task *relocate, struct mover_options *out)
{
	const struct disk_relocate_request *request = &relocate->request;

	*out = (struct mover_options){
		.mode = request->mode,
		.bandwidth_bytes_per_s = relocate_bandwidth(request->bandwidth, relocate->places,
							    relocate->place_count),
		.max_stun_ns = request->max_stun_ns,
		.leg_deadline_ns = request->target_timeout_ns,
		.latency_budget_ns = request->latency_budget_ns,
		.verify = request->verify,
		.hold = request->hold,
	};
}

static int resume_move(struct relocate_task *relocate, const char *move_id, struct err *err)
{
	struct relocate_resume_spec spec = {
		.journal_id = move_id,
		.state_dir = relocate->daemon->config.state_dir,
		.keep_source = relocate->request.keep_source,
		.paused = relocate->start_paused,
		.ops = { .find_datastore = find_datastore, .attach_spec = attach_spec,
			 .attached = attached },
		.switched = relocate_switched,
	};

	fill_options(relocate, &spec.options);
	json_edge_err_read(json_object_get(relocate->described, "degraded"), &spec.paused_why);
	memcpy(spec.host_uuid, relocate->daemon->host_uuid, sizeof(spec.host_uuid));
	relocate->status = calloc(1, sizeof(*relocate->status));
	if (!relocate->status)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	return relocate_resume(relocate->daemon->disks, &spec, relocate_changed, relocate,
			       &relocate->relocation, err);
}

/* False: one is served already, without its journal: there is nothing to go on from. */
static bool take_all(struct relocate_task *relocate, const struct move_record_info *move)
{
	struct inventory *inventory = relocate->daemon->inventory;
	struct err why = { 0 };

	for (uint32_t i = 0; i < move->disk_count; i++) {
		const struct move_record_disk *disk = &move->disks[i];

		if (!inventory_attachment_of(inventory, disk->source_datastore, disk->source_path))
			continue;       /* nobody uses it */
		relocate->attaching[i] = inventory_move_takes(inventory, disk->source_datastore,
							      disk->source_path);
		if (relocate->attaching[i])
			continue;
		err_set(&why, ERR_BUSY, -EBUSY, "another of its machine's disks is served already");
		relocate_give_back(relocate, &why);
		return false;
	}
	return true;
}

bool task_restore_resume(const struct move_record_info *move, struct daemon *daemon)
{
	struct relocate_task *relocate = task_of_move(daemon, move->id);
	struct err err = { 0 };

	if (!relocate || relocate->relocation || relocate->roll_back || daemon->stopping ||
	    relocate->settling || move->disk_count != relocate->place_count)
		return false;
	if (!take_all(relocate, move))
		return false;
	if (!resume_move(relocate, move->id, &err))
		return true;
	free(relocate->status);
	relocate->status = NULL;
	relocate_not_resumed(relocate, &err);
	return true;
}

/* ---- those that wait ---- */

/* Why it waits: told as what degrades it, until it goes on. */
static void tell_why(struct relocate_task *relocate, const struct err *why)
{
	struct user_task *task = &relocate->base;

	relocate->paused_for_source = !relocate->start_paused;
	if (relocate->described &&
	    json_object_set_new(relocate->described, "degraded", json_edge_err_object(why)))
		log_warn("task", "%s: out of memory: it waits: %s", task->id, why->cause);
	if (task->state == USER_TASK_RUNNING || task->state == USER_TASK_HELD)
		user_task_move(task, USER_TASK_PAUSED);
	else
		user_task_changed(task);
}

void relocate_not_resumed(struct relocate_task *relocate, const struct err *why)
{
	relocate_give_back(relocate, why);
	relocate->waits = relocate->base.state != USER_TASK_QUEUED;
	tell_why(relocate, why);
}

int relocate_waiting_resume(struct relocate_task *relocate, struct err *err)
{
	if (relocate->daemon->stopping)
		return err_set(err, ERR_SHUTTING_DOWN, -ESHUTDOWN, "the daemon is stopping");
	relocate->start_paused = false;
	/* Where it comes up, recovery runs again. */
	for (uint32_t i = 0; i < relocate->place_count; i++)
		ds_entry_retry(relocate->places[i].source);
	recovering_run(relocate->daemon);
	return 0;
}

int relocate_waiting_cancel(struct relocate_task *relocate, struct err *err)
{
	(void)err;
	relocate->roll_back = true;
	recovering_run(relocate->daemon);
	return 0;
}

static void end_task(struct relocate_task *relocate, enum user_task_state state,
		     const struct err *error)
{
	relocate->waits = false;
	relocate_drop_move(relocate);
	relocate_let_go(relocate);
	if (error)
		relocate->base.error = *error;
	user_task_move(&relocate->base, state);
}

static void end_on_target(struct relocate_task *relocate)
{
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(relocate->described, "disks"), i, disk)
		if (json_object_set_new(disk, "authoritative", json_string("target")))
			log_warn("task", "%s: out of memory", relocate->base.id);
	if (!relocate->vm)
		end_task(relocate, USER_TASK_COMPLETED, NULL);
	/* Else look_at_waiting(): it has marks of its own to go by. */
}

void task_restore_ended(const struct move_record_info *move, enum recover_side side,
			struct daemon *daemon)
{
	struct relocate_task *relocate = task_of_move(daemon, move->id);
	struct err why = { 0 };

	if (!relocate || relocate->relocation || !relocate->waits)
		return;
	if (side == RECOVER_TARGET) {
		end_on_target(relocate);
	} else if (relocate->roll_back) {
		err_set(&why, ERR_TASK_CANCELLED, 0, "cancelled by an operator");
		end_task(relocate, USER_TASK_CANCELLED, &why);
	} else {
		err_set(&why, ERR_TASK_INTERRUPTED, 0,
			"the daemon stopped, and its copy could not be gone on with: rolled back");
		end_task(relocate, USER_TASK_FAILED, &why);
	}
}

static bool find_listed(struct daemon *daemon, const char *task_id, struct err *why)
{
	char id[MOVE_ID_BYTES];

	if (!recovering_find(daemon, task_id, id))
		return false;
	for (uint32_t i = 0; i < recovery_count(daemon->recovery); i++) {
		struct recover_entry entry;

		recovery_entry(daemon->recovery, i, &entry);
		if (strcmp(entry.id, id) == 0)
			*why = entry.why;
	}
	return true;
}

/* The disks have moved: what is left to do wants both places of the VMX. */
static void settle_waiting(struct daemon *daemon, struct relocate_task *relocate)
{
	const struct vm_move *move = relocate->vm->move;
	struct err why = { 0 };

	if (!inventory_open_entry(daemon->inventory, move->config_from, &why) ||
	    !inventory_open_entry(daemon->inventory, move->config_to, &why)) {
		tell_why(relocate, &why);
		return;
	}
	relocate_let_go(relocate);
	relocate_settle(relocate, USER_TASK_COMPLETED);
}

static void look_at_waiting(struct daemon *daemon, struct relocate_task *relocate)
{
	struct user_task *task = &relocate->base;
	struct err why = { 0 };

	if (relocate->vm && relocate->vm->move->state != VM_MOVE_PLANNED) {
		settle_waiting(daemon, relocate);
		return;
	}

	if (find_listed(daemon, task->id, &why)) {
		if (!relocate->roll_back) {
			tell_why(relocate, &why);
			return;
		}
		err_set(&why, ERR_TASK_CANCELLED, 0,
			"cancelled; 'recover list' shows what could not be rolled back yet");
		end_task(relocate, USER_TASK_CANCELLED, &why);
		return;
	}
	err_set(&why, ERR_TASK_INTERRUPTED, 0,
		"the daemon stopped while it was in phase '%s', and nothing of its move is left",
		task->phase ? task->phase : "none");
	end_task(relocate, USER_TASK_FAILED, &why);
}

/* A task that is not over, or a move that recovery has not come to the end of. */
static bool is_alive(const char *task_id, void *user)
{
	struct daemon *daemon = user;
	struct user_task *task = task_table_find(daemon->tasks, task_id);
	char id[MOVE_ID_BYTES];

	return (task && !user_task_state_ended(task->state)) ||
	       recovering_find(daemon, task_id, id);
}

void task_restore_looked(struct daemon *daemon)
{
	for (struct user_task *task = task_table_next(daemon->tasks, NULL); task;) {
		struct user_task *next = task_table_next(daemon->tasks, task);

		if (task->ops == &relocate_ops && !user_task_state_ended(task->state) &&
		    relocate_task_of(task)->waits && !relocate_task_of(task)->relocation)
			look_at_waiting(daemon, relocate_task_of(task));
		task = next;
	}
	vms_move_sweep(daemon->vms, is_alive, daemon);
}

/* ---- targets that were away ---- */

static void go_on(struct relocate_task *relocate)
{
	struct err err = { 0 };

	relocate->resume_wanted = false;
	/* Cancelled meanwhile, or ended: then there is nothing to resume. */
	if (relocate->relocation && relocation_resume(relocate->relocation, &err))
		log_info("task", "%s: %s", relocate->base.id, err.cause);
}

static bool has_target(const struct relocate_task *relocate, const struct ds_entry *entry)
{
	for (uint32_t i = 0; i < relocate->place_count; i++)
		if (relocate->places[i].target == entry)
			return true;
	return false;
}

static bool is_opening(const struct relocate_task *relocate)
{
	for (uint32_t i = 0; i < relocate->place_count; i++)
		if (relocate->places[i].target->opening)
			return true;
	return false;
}

/* Not before the move has found its target missing: while it looks for it, it runs. */
void relocate_go_on_if_wanted(struct relocate_task *relocate)
{
	if (relocate->resume_wanted && relocate->status &&
	    relocate->status->state == RELOCATE_PAUSED && !is_opening(relocate))
		go_on(relocate);
}

void task_restore_tried(struct ds_entry *entry, void *user)
{
	struct daemon *daemon = user;

	for (struct user_task *task = task_table_next(daemon->tasks, NULL); task;) {
		struct user_task *next = task_table_next(daemon->tasks, task);

		if (task->ops == &relocate_ops && !user_task_state_ended(task->state) &&
		    has_target(relocate_task_of(task), entry))
			relocate_go_on_if_wanted(relocate_task_of(task));
		task = next;
	}
}

/* ---- going on ---- */

void relocate_tell_resumed(struct relocate_task *relocate)
{
	const struct relocate_status *status = relocate->status;
	uint64_t resumed = 0, dirty = 0, active = 0;

	if (relocate->told_resumed || !status->resumed)
		return;
	relocate->told_resumed = true;
	relocate->waits = relocate->paused_for_source = false;
	for (uint32_t i = 0; i < status->disk_count; i++) {
		resumed += status->disks[i].stats.resumed_bytes;
		dirty += status->disks[i].resumed_dirty_bytes;
		active += status->disks[i].resumed_active_bytes;
	}
	log_info("task", "%s goes on: %llu bytes are known to be there, %llu are dirty, %llu were "
		 "in active extents", relocate->base.id, (unsigned long long)resumed,
		 (unsigned long long)dirty, (unsigned long long)active);
	events_emit(relocate->daemon->events, "task_resumed",
		    json_pack("{s:s, s:I, s:I, s:I}", "id", relocate->base.id, "resumed_bytes",
			      (json_int_t)resumed, "dirty_bytes", (json_int_t)dirty,
			      "active_bytes", (json_int_t)active));
}

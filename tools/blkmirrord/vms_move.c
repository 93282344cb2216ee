/* SPDX-License-Identifier: Apache-2.0 */
/* vms_move.c - the row of a move, and what the other verbs may do meanwhile. */
#include "tools/blkmirrord/vms_move.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_private.h"

static bool config_moves(const struct vm_move *move)
{
	return strcmp(move->config_from, move->config_to) != 0;
}

int vms_move_take(struct vm_entry *entry, struct vm_move *move, struct err *err)
{
	if (entry->move)
		return err_set(err, ERR_VM_MOVING, -EBUSY, "'%.100s' is being relocated already",
			       entry->name);
	entry->move = move;
	return 0;
}

/* ---- the row ---- */

int vms_move_store(struct vm_entry *entry, const char *task_id,
		   void (*stored)(int rc, const struct err *err, void *user), void *user,
		   struct err *err)
{
	struct vm_move *move = entry->move;
	json_t *plan = vm_move_json(move);
	char *text = plan ? json_dumps(plan, JSON_COMPACT) : NULL;
	struct store_value values[] = { STORE_TEXT(entry->id), STORE_TEXT(task_id),
					STORE_TEXT(text) };
	int rc = -ENOMEM;

	json_decref(plan);
	if (!text)
		return err_set(err, ERR_NO_MEMORY, rc, "out of memory");
	snprintf(move->task, sizeof(move->task), "%s", task_id);
	rc = store_exec(entry->vms->options.store,
			"INSERT OR REPLACE INTO vm_move VALUES(?1, ?2, 0, ?3)", values, 3, stored,
			user, err);
	move->stored = !rc;
	free(text);
	return rc;
}

int vms_move_switched(struct vm_entry *entry)
{
	struct store_value value = STORE_TEXT(entry->id);
	struct err err = { 0 };
	int rc = store_exec_now(entry->vms->options.store,
				"UPDATE vm_move SET switched = 1 WHERE vm = ?1", &value, 1, &err);

	if (rc)
		log_error("vm", "%s: %s", entry->id, err.cause);
	else if (entry->move->state == VM_MOVE_PLANNED)
		entry->move->state = VM_MOVE_SWITCHED;
	return rc;
}

int vms_move_committed(struct vms *vms, const char *move_id)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry)) {
		size_t len = entry->move ? strlen(entry->move->task) : 0;

		/* A record's id is its task's, a dash, and the host. */
		if (len && entry->move->stored && strncmp(entry->move->task, move_id, len) == 0 &&
		    move_id[len] == '-')
			return vms_move_switched(entry);
	}
	return 0;
}

struct vm_entry *vms_move_find(struct vms *vms, const char *task_id)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry))
		if (entry->move && strcmp(entry->move->task, task_id) == 0)
			return entry;
	return NULL;
}

/* What it kept the machine from is made up for: disks that could not be detached. */
void vm_move_over(struct vm_entry *entry)
{
	vm_move_free(entry->move);
	entry->move = NULL;
	if (vm_state(entry->vm) == VM_OFF && entry->adopted && !entry->vms->stopping)
		vm_entry_release(entry, NULL);
}

void vms_move_drop(struct vm_entry *entry)
{
	struct store_value value = STORE_TEXT(entry->id);
	struct err err = { 0 };

	if (!entry->move)
		return;
	/* A row that stays is dropped at the next start: no task and no record will know it. */
	if (entry->move->stored &&
	    store_exec(entry->vms->options.store, "DELETE FROM vm_move WHERE vm = ?1", &value, 1,
		       NULL, NULL, &err))
		log_warn("vm", "%s: %s", entry->id, err.cause);
	vm_move_over(entry);
}

static int load_row(struct vms *vms, const json_t *row, struct err *err)
{
	const char *id = json_string_value(json_array_get(row, 0));
	const char *task = json_string_value(json_array_get(row, 1));
	const char *text = json_string_value(json_array_get(row, 3));
	json_t *plan = text ? json_loads(text, 0, NULL) : NULL;
	struct vm_entry *entry = id ? vms_find(vms, id, NULL) : NULL;
	struct vm_move *move = plan ? vm_move_read(plan) : NULL;

	json_decref(plan);
	if (!entry || !move || !task || strlen(task) >= sizeof(move->task)) {
		vm_move_free(move);
		return err_set(err, ERR_STATE_DIR, -EINVAL, "a stored move of a machine is incomplete");
	}
	strcpy(move->task, task);
	move->stored = true;
	move->state = VM_MOVE_PLANNED;
	if (json_integer_value(json_array_get(row, 2)))
		move->state = config_moves(move) && strcmp(entry->datastore, move->config_to) == 0
				      ? VM_MOVE_SETTLED
				      : VM_MOVE_SWITCHED;
	entry->move = move;
	return 0;
}

int vms_move_load(struct vms *vms, struct err *err)
{
	json_t *rows = NULL, *row;
	size_t i;
	int rc = store_exec_now(vms->options.store,
				"CREATE TABLE IF NOT EXISTS vm_move(vm TEXT PRIMARY KEY, "
				"task TEXT NOT NULL, switched INTEGER NOT NULL, "
				"plan TEXT NOT NULL) STRICT", NULL, 0, err);

	if (!rc)
		rc = store_load(vms->options.store, "SELECT vm, task, switched, plan FROM vm_move",
				&rows, err);
	json_array_foreach (rows, i, row) {
		if (!rc)
			rc = load_row(vms, row, err);
	}
	json_decref(rows);
	return rc;
}

void vms_move_sweep(struct vms *vms, bool (*is_alive)(const char *task_id, void *user),
		    void *user)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry)) {
		if (!entry->move || !entry->move->stored || is_alive(entry->move->task, user))
			continue;
		if (entry->move->state == VM_MOVE_SWITCHED) {
			entry->move->owed = true;
			continue;
		}
		if (entry->move->state == VM_MOVE_SETTLED)
			log_warn("vm", "%s: its old files on '%s' stay", entry->id,
				 entry->move->config_from);
		vms_move_drop(entry);
	}
}

/* ---- the other verbs ---- */

bool vms_move_holds(const struct vm_entry *entry)
{
	return entry->move && !entry->move->owed;
}

int vms_move_judge(const struct vm_entry *entry, enum vms_verb verb, struct err *err)
{
	const struct vm_move *move = entry->move;

	if (!move || (move->owed && verb != VMS_UNREGISTER))
		return 0;
	if (move->state == VM_MOVE_PLANNED && (verb == VMS_RESUME || verb == VMS_SUSPEND))
		return 0;
	return err_set(err, ERR_VM_MOVING, -EBUSY, "the machine '%.100s' is being relocated%s%s",
		       entry->name, move->task[0] ? " by " : "", move->task);
}

int vms_move_rewrite_run(struct datastore *datastore, const struct vm_entry *entry,
			 struct err *err)
{
	CLEANUP_FREE char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	const struct vm_move *move = entry->move;
	struct vmx *vmx = NULL;
	bool changed = false;
	const char *text;
	size_t len;
	int rc;

	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(datastore, entry->path, bytes, VMX_TEXT_MAX_BYTES, &len, err);
	if (!rc)
		rc = vmx_parse(bytes, len, entry->path, &vmx, err);
	if (!rc)
		rc = vm_vmx_rewrite(vmx, entry->datastore, entry->datastore, entry->path,
				    move->disks, move->disk_count, &changed, err);
	if (!rc && changed) {
		text = vmx_text(vmx, &len);
		rc = ds_file_write(datastore, entry->path, text, len, false, err);
	}
	vmx_free(vmx);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vms.c - the table of machines, its store, and operations as chains; the verbs are in vms_verbs.c. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_private.h"
#include "tools/common/json_edge.h"

#define ADOPT_RETRY_NS (5 * NS_PER_S)

/* ---- entries ---- */

struct vm_entry *vm_entry_new(struct vms *vms, const char *id)
{
	struct vm_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	snprintf(entry->id, sizeof(entry->id), "%s", id);
	entry->vm = vm_new(&vms->setup, id, &vms_hooks, entry);
	if (!entry->vm) {
		free(entry);
		return NULL;
	}
	entry->vms = vms;
	entry->image_fd = -1;
	entry->record.state = VM_OFF;
	list_init(&entry->release_waiters);
	list_append(&vms->entries, &entry->node);
	vms->count++;
	return entry;
}

void vm_entry_free(struct vm_entry *entry)
{
	CHECK(!entry->op && vms_move_park(entry));
	vm_move_free(entry->move);
	list_remove(&entry->node);
	entry->vms->count--;
	vm_free(entry->vm);
	free(entry);
}

struct vm_entry *vms_next(struct vms *vms, struct vm_entry *entry)
{
	struct list *next = entry ? entry->node.next : vms->entries.next;

	return next == &vms->entries ? NULL : list_entry(next, struct vm_entry, node);
}

struct vm_entry *vms_find(struct vms *vms, const char *text, struct err *err)
{
	struct vm_entry *found = NULL;

	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry)) {
		if (strcmp(entry->id, text) == 0)
			return entry;
		if (strcmp(entry->name, text) != 0)
			continue;
		if (found) {
			err_set(err, ERR_VM_EXISTS, -EEXIST, "%s and %s are both called '%.120s'",
				found->id, entry->id, text);
			return NULL;
		}
		found = entry;
	}
	if (!found)
		err_set(err, ERR_VM_UNKNOWN, -ENOENT, "there is no machine '%.160s'", text);
	return found;
}

struct vm_entry *vms_owner(struct vms *vms, const char *disk_id)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry)) {
		size_t len = strlen(entry->id);

		if (strncmp(disk_id, entry->id, len) == 0 && disk_id[len] == '-' &&
		    (!entry->adopted || entry->op || vm_state(entry->vm) != VM_OFF))
			return entry;
	}
	return NULL;
}

struct inventory *vms_inventory(const struct vms *vms)
{
	return vms->options.inventory;
}

const char *vms_state_name(const struct vm_entry *entry)
{
	return vm_state_name(entry->adopted ? vm_state(entry->vm) : entry->record.state);
}

void vms_console_path(const struct vm_entry *entry, char out[108])
{
	vm_console_path(&entry->vms->setup, entry->id, out);
}

void vms_log_path(const struct vm_entry *entry, char out[PATH_MAX])
{
	vm_log_path(&entry->vms->setup, entry->id, out);
}

/* ---- operations ---- */

struct vm_op *vm_op_new(struct vms *vms, struct vm_entry *entry, vms_done *done, void *user)
{
	struct vm_op *op = NULL;
	struct err err = { 0 };

	if (vms->stopping)
		err_set(&err, ERR_SHUTTING_DOWN, 0, "the daemon is stopping");
	else if (entry && (entry->op || entry->releasing || !entry->adopted))
		err_set(&err, ERR_BUSY, 0, "the machine '%.100s' is busy with something else",
			entry->name);
	else if (!(op = calloc(1, sizeof(*op))))
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
	if (!op) {
		done(entry, NULL, NULL, &err, user);
		return NULL;
	}
	op->vms = vms;
	op->entry = entry;
	op->done = done;
	op->user = user;
	op->image_fd = -1;
	if (entry) {
		entry->op = op;
		snprintf(op->datastore, sizeof(op->datastore), "%s", entry->datastore);
		snprintf(op->path, sizeof(op->path), "%s", entry->path);
	}
	vms->jobs++;
	return op;
}

void vm_op_end(struct vm_op *op, const struct err *err)
{
	struct vm_entry *entry = op->entry;

	if (entry)
		entry->op = NULL;
	op->vms->jobs--;
	op->done(op->entry, op->config, &op->findings, err, op->user);
	if (op->image_fd >= 0)
		close(op->image_fd);
	vmx_free(op->vmx);
	free(op->config);
	for (size_t i = 0; i < ARRAY_COUNT(op->words); i++)
		free(op->words[i]);
	free(op);
	if (entry)
		vms_move_poke(entry);
}

static void op_worked(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);

	if (base->rc)
		vm_op_end(op, &base->err);
	else
		op->then(op);
}

void vm_op_run(struct vm_op *op, void (*work)(struct ds_job *job), void (*then)(struct vm_op *op))
{
	op->base.run = work;
	op->base.done = op_worked;
	op->then = then;
	if (ds_job_start(op->vms->options.inventory, op->datastore, &op->base, &op->err))
		vm_op_end(op, &op->err);
}

int vm_op_load(struct vm_op *op)
{
	CLEANUP_FREE char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	struct err *err = &op->base.err;
	size_t len;
	int rc;

	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(op->base.datastore, op->path, bytes, VMX_TEXT_MAX_BYTES, &len, err);
	if (!rc)
		rc = vmx_parse(bytes, len, op->path, &op->vmx, err);
	if (rc)
		return rc;
	rc = vm_config_read(op->vmx, op->datastore, op->path, &op->config, &op->findings);
	if (!rc && op->vms->host.problem.id == ERR_NONE)
		qemu_check(op->config, &op->vms->host.qemu, &op->findings);
	if (op->findings.error_count) {
		*err = *vm_findings_first_error(&op->findings);
		return -EINVAL;
	}
	return rc;
}

/* ---- after a restart ---- */

struct adopt_job {
	struct ds_job base;
	struct vm_entry *entry;
	bool image_kept;
};

static void adopt_now(struct vm_entry *entry, bool image_kept)
{
	entry->adopted = true;
	vm_adopt(entry->vm, &entry->record, image_kept);
}

static void adopt_run(struct ds_job *base)
{
	struct adopt_job *job = container_of(base, struct adopt_job, base);
	CLEANUP_FREE char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	struct vmx *vmx = NULL;
	size_t len;

	base->rc = bytes ? ds_file_read(base->datastore, job->entry->path, bytes,
					VMX_TEXT_MAX_BYTES, &len, &base->err)
			 : -ENOMEM;
	if (!base->rc)
		base->rc = vmx_parse(bytes, len, job->entry->path, &vmx, &base->err);
	job->image_kept = !base->rc && vmx_has(vmx, "blkmirror.suspend.fileName");
	vmx_free(vmx);
}

static void adopt_done(struct ds_job *base)
{
	struct adopt_job *job = container_of(base, struct adopt_job, base);
	struct vm_entry *entry = job->entry;

	entry->vms->jobs--;
	if (base->rc) {
		entry->error = base->err;
		if (!entry->vms->stopping)
			timer_start(&entry->vms->adopt_timer, ADOPT_RETRY_NS);
	} else if (!entry->adopted) {
		adopt_now(entry, job->image_kept);
	}
	free(job);
}

/* Only the VMX can tell whether the image counts. */
static void adopt_by_vmx(struct vm_entry *entry)
{
	struct adopt_job *job = calloc(1, sizeof(*job));
	struct err err = { 0 };

	if (job) {
		job->entry = entry;
		job->base.run = adopt_run;
		job->base.done = adopt_done;
		entry->vms->jobs++;
		if (!ds_job_start(entry->vms->options.inventory, entry->datastore, &job->base,
				  &err))
			return;
		entry->vms->jobs--;
		entry->error = err;
		free(job);
	}
	timer_start(&entry->vms->adopt_timer, ADOPT_RETRY_NS);
}

static void adopt_entry(struct vm_entry *entry)
{
	switch (entry->record.state) {
	case VM_OFF:
	case VM_SUSPENDED:
		entry->adopted = true;
		vm_reap_orphan(&entry->vms->setup, entry->id);
		vm_settle(entry->vm, entry->record.state);
		if (entry->record.state == VM_OFF && !vms_move_holds(entry))
			vm_entry_release(entry, NULL);
		break;
	case VM_SUSPENDING:
	case VM_RESUMING:
		adopt_by_vmx(entry);
		break;
	default:
		adopt_now(entry, false);
	}
}

void vms_adopt(struct vms *vms)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry)) {
		if (!entry->adopted && !vms->stopping)
			adopt_entry(entry);
		vms_move_poke(entry);
	}
}

static void adopt_fired(struct timer *timer)
{
	vms_adopt(container_of(timer, struct vms, adopt_timer));
}

/* ---- loading ---- */

static int load_entry(struct vms *vms, const json_t *row, struct err *err)
{
	const char *text[6];
	struct vm_entry *entry;
	unsigned long long number;

	for (size_t i = 0; i < ARRAY_COUNT(text); i++) {
		text[i] = json_string_value(json_array_get(row, i));
		if (!text[i])
			return err_set(err, ERR_STATE_DIR, -EINVAL,
				       "a stored machine is incomplete");
	}
	entry = vm_entry_new(vms, text[0]);
	if (!entry)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(entry->name, sizeof(entry->name), "%s", text[1]);
	snprintf(entry->datastore, sizeof(entry->datastore), "%s", text[2]);
	snprintf(entry->path, sizeof(entry->path), "%s", text[3]);
	if (!vm_state_parse(text[4], &entry->record.state))
		return err_set(err, ERR_STATE_DIR, -EINVAL, "a stored machine is '%s'", text[4]);
	entry->record.process.pid = (pid_t)json_integer_value(json_array_get(row, 6));
	entry->record.process.start_ticks =
		(uint64_t)json_integer_value(json_array_get(row, 7));
	snprintf(entry->record.process.boot_id, sizeof(entry->record.process.boot_id), "%s",
		 text[5]);
	if (sscanf(entry->id, "vm%llu", &number) == 1)
		vms->last_number = MAX(vms->last_number, number);
	/* Before its disks are attached again, so that their sockets get the right group. */
	return vm_prepare_run_dir(&vms->setup, entry->id, err);
}

static int load(struct vms *vms, struct err *err)
{
	json_t *rows = NULL, *row;
	size_t i;
	int rc = store_exec_now(vms->options.store,
				"CREATE TABLE IF NOT EXISTS vm(id TEXT PRIMARY KEY, "
				"name TEXT NOT NULL, datastore TEXT NOT NULL, path TEXT NOT NULL, "
				"state TEXT NOT NULL, boot_id TEXT NOT NULL, pid INTEGER NOT NULL, "
				"start_ticks INTEGER NOT NULL) STRICT",
				NULL, 0, err);

	if (!rc)
		rc = store_load(vms->options.store,
				"SELECT id, name, datastore, path, state, boot_id, pid, "
				"start_ticks FROM vm ORDER BY rowid", &rows, err);
	json_array_foreach (rows, i, row) {
		if (!rc)
			rc = load_entry(vms, row, err);
	}
	json_decref(rows);
	rows = NULL;
	if (!rc)
		rc = store_load(vms->options.store,
				"SELECT value FROM meta WHERE key = 'last_vm'", &rows, err);
	vms->last_number = MAX(vms->last_number,
			       (uint64_t)json_integer_value(
				       json_array_get(json_array_get(rows, 0), 0)));
	json_decref(rows);
	return rc ? rc : vms_move_load(vms, err);
}

static void fill_setup(struct vms *vms)
{
	const struct daemon_config *config = vms->options.config;
	const struct group *group = config->group[0] ? getgrnam(config->group) : NULL;

	vms->setup = (struct vm_setup){
		.loop = vms->options.loop,
		.worker = vms->worker,
		.run_dir = config->run_dir,
		.state_dir = config->state_dir,
		.host = &vms->host.qemu,
		.efi_vars = config->vm.efi_vars[0] ? config->vm.efi_vars : NULL,
		.drop = vms->host.drop,
		.uid = vms->host.uid,
		.gid = vms->host.gid,
		.has_group = vms->host.has_group,
		.group = vms->host.group,
		.has_console_gid = group != NULL,
		.console_gid = group ? group->gr_gid : 0,
	};
}

int vms_new(const struct vms_options *options, struct vms **out, struct err *err)
{
	struct vms *vms = calloc(1, sizeof(*vms));
	int rc;

	if (!vms)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	vms->options = *options;
	list_init(&vms->entries);
	timer_init(&vms->adopt_timer, options->loop, adopt_fired);
	vms->worker = worker_new(options->loop, "vm");
	if (!vms->worker) {
		free(vms);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	vm_host_probe(&vms->host, &options->config->vm);
	fill_setup(vms);
	rc = load(vms, err);
	if (rc)
		vms_free(vms);
	else
		*out = vms;
	return rc;
}

void vms_stop(struct vms *vms)
{
	vms->stopping = true;
	timer_stop(&vms->adopt_timer);
}

bool vms_is_busy(const struct vms *vms)
{
	if (vms->jobs || worker_pending(vms->worker))
		return true;
	list_for_each (node, &vms->entries) {
		const struct vm_entry *entry = list_entry(node, struct vm_entry, node);

		if (entry->releasing || vm_is_busy(entry->vm))
			return true;
	}
	return false;
}

void vms_free(struct vms *vms)
{
	if (!vms)
		return;
	list_for_each (node, &vms->entries)
		vm_entry_free(list_entry(node, struct vm_entry, node));
	timer_stop(&vms->adopt_timer);
	worker_free(vms->worker);
	vm_host_release(&vms->host);
	free(vms);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vms_hooks.c - what a machine asks of its owner: its record, its memory image, its news. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_private.h"
#include "tools/common/json_edge.h"

#define SUSPEND_KEY "blkmirror.suspend.fileName"

/* ---- the record ---- */

struct record_call {
	struct vm_entry *entry;
	vm_kept *kept;
	void *kept_user;
};

static void record_stored(int rc, const struct err *err, void *user)
{
	struct record_call *call = user;
	struct record_call done = *call;

	free(call);
	done.entry->vms->jobs--;
	done.kept(rc ? err : NULL, done.kept_user);
	vms_move_poke(done.entry);
}

static void hook_record(const struct vm_record *record, vm_kept *kept, void *kept_user, void *user)
{
	struct vm_entry *entry = user;
	struct record_call *call = calloc(1, sizeof(*call));
	struct store_value values[] = {
		STORE_TEXT(entry->id),
		STORE_TEXT(vm_state_name(record->state)),
		STORE_INT(record->process.pid),
		STORE_INT(record->process.start_ticks),
		STORE_TEXT(record->process.boot_id),
	};
	struct err err;

	if (!call) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		kept(&err, kept_user);
		return;
	}
	entry->record = *record;
	*call = (struct record_call){ entry, kept, kept_user };
	entry->vms->jobs++;
	if (store_exec(entry->vms->options.store,
		       "UPDATE vm SET state = ?2, pid = ?3, start_ticks = ?4, boot_id = ?5 "
		       "WHERE id = ?1", values, 5, record_stored, call, &err))
		record_stored(-EBUSY, &err, call);
}

/* ---- the image ---- */

struct image_job {
	struct ds_job base;
	struct vm_entry *entry;
	vm_kept *kept;
	void *kept_user;
};

void vm_image_path(const struct vm_entry *entry, char out[DS_PATH_BYTES])
{
	size_t len = strlen(entry->path);

	if (ds_path_has_suffix(entry->path, ".vmx"))
		len -= 4;
	snprintf(out, DS_PATH_BYTES, "%.*s.blkmirror-vmss", (int)len, entry->path);
}

/* [worker] Change one key of the VMX (value NULL: take it out), durably. */
static int edit_vmx(struct datastore *datastore, const char *path, const char *value,
		    struct err *err)
{
	CLEANUP_FREE char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	struct vmx *vmx = NULL;
	const char *text;
	size_t len;
	int rc;

	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(datastore, path, bytes, VMX_TEXT_MAX_BYTES, &len, err);
	if (!rc)
		rc = vmx_parse(bytes, len, path, &vmx, err);
	if (!rc && value)
		rc = vmx_set(vmx, SUSPEND_KEY, value, err);
	else if (!rc)
		vmx_remove(vmx, SUSPEND_KEY);
	if (!rc) {
		text = vmx_text(vmx, &len);
		rc = ds_file_write(datastore, path, text, len, false, err);
	}
	vmx_free(vmx);
	return rc;
}

int vm_image_forget(struct datastore *datastore, const char *vmx_path, struct err *err)
{
	return edit_vmx(datastore, vmx_path, NULL, err);
}

static void keep_run(struct ds_job *base)
{
	struct image_job *job = container_of(base, struct image_job, base);
	struct vm_entry *entry = job->entry;
	size_t parent_len;

	if (fsync(entry->image_fd))
		base->rc = err_set(&base->err, ERR_VM_SUSPEND, -errno,
				   "the image '%.160s' is not durable: %s", entry->image_path,
				   err_strerror(-errno));
	else
		base->rc = edit_vmx(base->datastore, entry->path,
				    ds_path_last(entry->image_path, &parent_len), &base->err);
}

static void drop_run(struct ds_job *base)
{
	struct image_job *job = container_of(base, struct image_job, base);
	struct err err = { 0 };

	base->rc = vm_image_forget(base->datastore, job->entry->path, &base->err);
	/* Nobody reads it any more: it only takes room. */
	if (!base->rc && ds_file_delete(base->datastore, job->entry->image_path, &err))
		log_warn("vm", "%s: %s", job->entry->id, err.cause);
}

static void image_done(struct ds_job *base)
{
	struct image_job *job = container_of(base, struct image_job, base);
	struct vm_entry *entry = job->entry;

	entry->vms->jobs--;
	if (entry->image_fd >= 0)
		close(entry->image_fd);
	entry->image_fd = -1;
	job->kept(base->rc ? &base->err : NULL, job->kept_user);
	free(job);
}

static void image_start(struct vm_entry *entry, void (*run)(struct ds_job *), vm_kept *kept,
			void *kept_user)
{
	struct image_job *job = calloc(1, sizeof(*job));
	struct err err = { 0 };

	if (!job) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		kept(&err, kept_user);
		return;
	}
	*job = (struct image_job){ .entry = entry, .kept = kept, .kept_user = kept_user };
	job->base.run = run;
	job->base.done = image_done;
	entry->vms->jobs++;
	if (!ds_job_start(entry->vms->options.inventory, entry->datastore, &job->base, &err))
		return;
	entry->vms->jobs--;
	free(job);
	kept(&err, kept_user);
}

static void hook_keep_image(vm_kept *kept, void *kept_user, void *user)
{
	image_start(user, keep_run, kept, kept_user);
}

static void hook_drop_image(vm_kept *kept, void *kept_user, void *user)
{
	image_start(user, drop_run, kept, kept_user);
}

/* ---- news ---- */

static void hook_moved(enum vm_state state, const struct err *err, void *user)
{
	struct vm_entry *entry = user;

	if (err)
		entry->error = *err;
	else if (state == VM_RUNNING || state == VM_STARTING)
		err_clear(&entry->error);
	events_emit(entry->vms->options.events, "vm_state",
		    json_pack("{s:s, s:o, s:s, s:o?}", "vm", entry->id, "name",
			      json_edge_text(entry->name), "state", vm_state_name(state), "error",
			      err ? json_edge_err_object(err) : NULL));
	if (state == VM_OFF && !entry->vms->stopping && !vms_move_holds(entry))
		vm_entry_release(entry, NULL);
	vms_move_poke(entry);
}

const struct vm_hooks vms_hooks = {
	.record = hook_record,
	.keep_image = hook_keep_image,
	.drop_image = hook_drop_image,
	.moved = hook_moved,
};

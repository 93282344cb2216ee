/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vms_settle.c - steps 4 to 8 of a machine's move (vms_move.h), as one operation on the machine.
 *
 *   J1 old place    4; read small files and VMX; open the memory image
 *   J2 new place    an empty file for the image
 *   J3 own thread   copy the image
 *   J4 new place    5: small files, then the VMX
 *      store        6
 *   J5 new place    what is there now: what the old place may be rid of
 *   J6 old place    7
 *      store        8
 *
 * It waits for its turn: while something else is under way with the machine, the end of that
 * pokes it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_move.h"
#include "tools/blkmirrord/vms_private.h"

struct vm_settle {
	struct vm_entry *entry;
	struct vm_op *op;               /* NULL: waits for its turn */
	bool rewritten;                 /* 4 is done */
	bool settled;                   /* 6 is done */
	struct vm_folder folder;
	char *text;                     /* the VMX for its new place; then, as it is there */
	size_t text_len;
	struct uuid uuid;               /* of the machine there */
	char image_path[DS_PATH_BYTES]; /* "": not suspended */
	off_t image_bytes;
	int source_fd, target_fd;
	struct worker *worker;
	struct job job;
	int rc;
	struct err err;
	void (*done)(const struct err *err, void *user);
	void *user;
};

static struct vm_settle *settle_of(struct vm_op *op)
{
	return op->user;
}

static struct vm_settle *settle_of_job(struct ds_job *base)
{
	return settle_of(container_of(base, struct vm_op, base));
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void settle_free(struct vm_settle *settle)
{
	close_fd(&settle->source_fd);
	close_fd(&settle->target_fd);
	vm_folder_release(&settle->folder);
	worker_free(settle->worker);
	free(settle->text);
	free(settle);
}

/* ---- J1: the old place ---- */

static int read_vmx(struct datastore *ds, const char *path, struct vmx **out, struct err *err)
{
	CLEANUP_FREE char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	size_t len;
	int rc;

	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(ds, path, bytes, VMX_TEXT_MAX_BYTES, &len, err);
	return rc ? rc : vmx_parse(bytes, len, path, out, err);
}

static int keep_text(struct vm_settle *settle, const struct vmx *vmx, struct err *err)
{
	const char *text = vmx_text(vmx, &settle->text_len);

	free(settle->text);
	settle->text = malloc(MAX(settle->text_len, 1));
	if (!settle->text)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	memcpy(settle->text, text, settle->text_len);
	return 0;
}

/* The VMX as it is to be at the new place; config: as it is at the old one. */
static int prepare_vmx(struct vm_op *op, struct datastore *ds, struct err *err)
{
	struct vm_settle *settle = settle_of(op);
	const struct vm_entry *entry = settle->entry;
	struct vmx *vmx = NULL;
	bool changed;
	int rc = read_vmx(ds, entry->path, &vmx, err);

	if (!rc)
		rc = vm_vmx_rewrite(vmx, entry->datastore, entry->move->config_to, entry->path,
				    entry->move->disks, entry->move->disk_count, &changed, err);
	if (!rc)
		rc = keep_text(settle, vmx, err);
	vmx_free(vmx);
	return rc;
}

static void old_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	struct vm_settle *settle = settle_of(op);
	const struct vm_entry *entry = settle->entry;
	struct err *err = &base->err;

	base->rc = vms_move_rewrite_run(base->datastore, entry, err);           /* 4 */
	if (base->rc)
		return;
	settle->rewritten = true;
	if (strcmp(entry->move->config_from, entry->move->config_to) == 0)
		return;
	base->rc = vm_op_load(op);
	if (!base->rc)
		base->rc = prepare_vmx(op, base->datastore, err);
	if (!base->rc)
		base->rc = vm_folder_read(base->datastore, op->config, &settle->folder, err);
	if (base->rc || !op->config->suspend_path[0])
		return;
	memcpy(settle->image_path, op->config->suspend_path, sizeof(settle->image_path));
	base->rc = ds_file_descriptor(base->datastore, settle->image_path, false,
				      &settle->source_fd, err);
}

/* ---- J2, J3: the image ---- */

static void settle_write(struct vm_op *op);

static void image_run(struct job *job)
{
	struct vm_settle *settle = container_of(job, struct vm_settle, job);

	settle->rc = vm_image_copy(settle->source_fd, settle->target_fd, &settle->err);
}

static void image_copied(struct job *job)
{
	struct vm_settle *settle = container_of(job, struct vm_settle, job);
	struct vm_op *op = settle->op;

	close_fd(&settle->source_fd);
	close_fd(&settle->target_fd);
	if (settle->rc)
		vm_op_end(op, &settle->err);
	else
		settle_write(op);
}

static void image_place_run(struct ds_job *base)
{
	struct vm_settle *settle = settle_of_job(base);

	base->rc = ds_file_descriptor(base->datastore, settle->image_path, true,
				      &settle->target_fd, &base->err);
}

static void image_placed(struct vm_op *op)
{
	struct vm_settle *settle = settle_of(op);

	settle->worker = worker_new(op->vms->options.loop, "vm-move");
	if (!settle->worker) {
		err_set(&op->err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		vm_op_end(op, &op->err);
		return;
	}
	settle->job.run = image_run;
	settle->job.done = image_copied;
	worker_submit(settle->worker, &settle->job);
}

/* ---- J4: the new place ---- */

static bool same_uuid(const struct vmx *a, const struct vmx *b)
{
	char one[128], other[128];

	return vmx_get(a, "uuid.bios", one, sizeof(one), NULL) == 0 && one[0] &&
	       vmx_get(b, "uuid.bios", other, sizeof(other), NULL) == 0 &&
	       strcmp(one, other) == 0;
}

/* What is at the new place already is ours if a try before has written it: the same machine. */
static int judge_present(struct vm_settle *settle, struct datastore *ds, bool *is_there,
			 struct err *err)
{
	struct vmx *there = NULL, *ours = NULL;
	const char *text;
	size_t len;
	int rc = read_vmx(ds, settle->entry->path, &there, err);

	*is_there = rc != -ENOENT;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = vmx_parse(settle->text, settle->text_len, settle->entry->path, &ours, err);
	text = vmx_text(there, &len);
	if (!rc && !(len == settle->text_len && memcmp(text, settle->text, len) == 0) &&
	    !same_uuid(there, ours))
		rc = err_set(err, ERR_DISK_EXISTS, -EEXIST, "'%s:%.160s' is there already",
			     datastore_name(ds), settle->entry->path);
	vmx_free(there);
	vmx_free(ours);
	return rc;
}

static void new_run(struct ds_job *base)
{
	struct vm_settle *settle = settle_of_job(base);
	bool is_there;

	base->rc = judge_present(settle, base->datastore, &is_there, &base->err);
	if (!base->rc)
		base->rc = vm_folder_write(base->datastore, settle->entry->path, &settle->folder,
					   &base->err);
	/* Last: until it is there nobody takes the folder for a machine's. */
	if (!base->rc)
		base->rc = ds_file_write(base->datastore, settle->entry->path, settle->text,
					 settle->text_len, !is_there, &base->err);
}

/* ---- J5, J6: clearing up ---- */

static void look_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	struct vm_settle *settle = settle_of(op);
	struct vmx *vmx = NULL;
	struct stat st;
	int fd = -1;

	vm_folder_release(&settle->folder);
	free(op->config);
	op->config = NULL;
	vmx_free(op->vmx);
	op->vmx = NULL;
	base->rc = vm_op_load(op);
	if (!base->rc)
		base->rc = read_vmx(base->datastore, op->path, &vmx, &base->err);
	if (!base->rc)
		base->rc = keep_text(settle, vmx, &base->err);
	vmx_free(vmx);
	if (!base->rc)
		base->rc = vm_folder_read(base->datastore, op->config, &settle->folder, &base->err);
	settle->image_path[0] = '\0';
	if (base->rc || !op->config->suspend_path[0])
		return;
	base->rc = ds_file_descriptor(base->datastore, op->config->suspend_path, false, &fd,
				      &base->err);
	if (!base->rc && fstat(fd, &st) == 0) {
		settle->image_bytes = st.st_size;
		memcpy(settle->image_path, op->config->suspend_path, sizeof(settle->image_path));
	}
	close_fd(&fd);
}

/* Is it still the VMX that was copied? */
static bool is_old_vmx(struct vm_settle *settle, struct datastore *ds)
{
	const struct vm_move *move = settle->entry->move;
	struct vmx *old = NULL, *now = NULL;
	struct err err = { 0 };
	const char *text;
	bool changed, ours = false;
	size_t len;

	if (read_vmx(ds, settle->entry->path, &old, &err) ||
	    vmx_parse(settle->text, settle->text_len, settle->entry->path, &now, &err))
		goto release;
	ours = same_uuid(old, now);
	if (!ours && vm_vmx_rewrite(old, move->config_from, move->config_to, settle->entry->path,
				    move->disks, move->disk_count, &changed, &err) == 0) {
		text = vmx_text(old, &len);
		ours = len == settle->text_len && memcmp(text, settle->text, len) == 0;
	}
release:
	vmx_free(old);
	vmx_free(now);
	return ours;
}

static void delete_image(struct vm_settle *settle, struct datastore *ds)
{
	struct err err = { 0 };
	struct stat st;
	int fd = -1;

	if (!settle->image_path[0] || ds_file_descriptor(ds, settle->image_path, false, &fd, &err))
		return;
	if (fstat(fd, &st) == 0 && st.st_size == settle->image_bytes &&
	    ds_file_delete(ds, settle->image_path, &err))
		log_warn("vm", "%s stays: %s", settle->image_path, err.cause);
	close_fd(&fd);
}

/* The VMX last: it takes the folder with it, when that is empty then. */
static void clear_run(struct ds_job *base)
{
	struct vm_settle *settle = settle_of_job(base);
	struct err err = { 0 };

	if (!is_old_vmx(settle, base->datastore)) {
		log_warn("vm", "%s: what is at '%s:%s' is not what was copied: it stays",
			 settle->entry->id, datastore_name(base->datastore), settle->entry->path);
		return;
	}
	delete_image(settle, base->datastore);
	vm_folder_delete(base->datastore, settle->entry->path, &settle->folder);
	if (ds_file_delete(base->datastore, settle->entry->path, &err))
		log_warn("vm", "%s stays: %s", settle->entry->path, err.cause);
}

/* ---- the order ---- */

static void at(struct vm_op *op, const char *datastore, void (*run)(struct ds_job *job),
	       void (*then)(struct vm_op *op))
{
	snprintf(op->datastore, sizeof(op->datastore), "%s", datastore);
	vm_op_run(op, run, then);
}

static void settle_end(struct vm_op *op)
{
	vm_op_end(op, NULL);
}

static void settle_look(struct vm_op *op)
{
	at(op, settle_of(op)->entry->move->config_from, clear_run, settle_end);
}

static void settle_clear(struct vm_op *op)
{
	const struct vm_move *move = settle_of(op)->entry->move;

	if (move->keep_source || strcmp(move->config_from, move->config_to) == 0)
		settle_end(op);
	else
		at(op, move->config_to, look_run, settle_look);
}

static void place_stored(int rc, const struct err *err, void *user)
{
	struct vm_op *op = user;
	struct vm_settle *settle = settle_of(op);
	struct vm_entry *entry = settle->entry;

	if (rc) {
		vm_op_end(op, err);
		return;
	}
	settle->settled = true;
	entry->move->state = VM_MOVE_SETTLED;
	snprintf(entry->datastore, sizeof(entry->datastore), "%s", entry->move->config_to);
	log_info("vm", "%s is at %s:%s now", entry->id, entry->datastore, entry->path);
	events_emit(op->vms->options.events, "vm_relocated",
		    json_pack("{s:s, s:s}", "vm", entry->id, "datastore", entry->datastore));
	settle_clear(op);
}

static void settle_place(struct vm_op *op)
{
	const struct vm_entry *entry = settle_of(op)->entry;
	struct store_value values[] = { STORE_TEXT(entry->id), STORE_TEXT(entry->move->config_to) };

	if (store_exec(op->vms->options.store, "UPDATE vm SET datastore = ?2 WHERE id = ?1", values,
		       2, place_stored, op, &op->err))
		vm_op_end(op, &op->err);
}

static void settle_write(struct vm_op *op)
{
	at(op, settle_of(op)->entry->move->config_to, new_run, settle_place);
}

static void settle_read(struct vm_op *op)
{
	struct vm_settle *settle = settle_of(op);
	const struct vm_move *move = settle->entry->move;

	if (strcmp(move->config_from, move->config_to) == 0)
		settle_end(op);
	else if (settle->source_fd >= 0)
		at(op, move->config_to, image_place_run, image_placed);
	else
		settle_write(op);
}

/* What went wrong, as the task is to tell it; true: something did. */
static bool judge_end(struct vm_settle *settle, const struct err *err, struct err *out)
{
	struct vm_entry *entry = settle->entry;

	if (!err)
		return false;
	if (settle->settled) {          /* 7: what is left takes room only */
		log_warn("vm", "%s: its old files on '%s' stay: %s", entry->id,
			 entry->move->config_from, err->cause);
		return false;
	}
	if (!settle->rewritten) {
		entry->move->owed = true;
		err_set(out, ERR_VM_CONFIG_STAYED, 0,
			"the disks have moved, and '%s:%.80s' could not be told: %.160s",
			entry->datastore, entry->path, err->cause);
		err_remedy(out, "Mend the datastore; the VMX is rewritten when the machine is started.");
	} else {
		err_set(out, ERR_VM_CONFIG_STAYED, 0,
			"the disks have moved, the VMX stays on '%s' and names them: %.160s",
			entry->datastore, err->cause);
	}
	return true;
}

static void settle_done(struct vm_entry *entry, const struct vm_config *config,
			const struct vm_findings *findings, const struct err *err, void *user)
{
	struct vm_settle *settle = user, kept = *settle;
	struct err why = { 0 };
	bool failed;

	(void)config;
	(void)findings;
	if (err && err->id == ERR_SHUTTING_DOWN) {
		settle->op = NULL;      /* as it is, for the next daemon */
		return;
	}
	failed = judge_end(settle, err, &why);
	entry->settle = NULL;
	settle_free(settle);
	if (!entry->move->owed)
		vms_move_drop(entry);
	kept.done(failed ? &why : NULL, kept.user);
}

/* ---- its turn ---- */

static bool is_free(const struct vm_entry *entry)
{
	switch (vm_state(entry->vm)) {
	case VM_OFF:
	case VM_RUNNING:
	case VM_SUSPENDED:
		return entry->adopted && !entry->op && !entry->releasing &&
		       !vm_is_busy(entry->vm);
	default:
		return false;
	}
}

void vms_move_poke(struct vm_entry *entry)
{
	struct vm_settle *settle = entry->settle;
	struct vm_op *op;

	if (!settle || settle->op || !is_free(entry) || entry->vms->stopping)
		return;
	op = vm_op_new(entry->vms, entry, settle_done, settle);
	if (!op)
		return;
	settle->op = op;
	if (entry->move->state == VM_MOVE_SETTLED) {
		settle->settled = settle->rewritten = true;
		settle_clear(op);
	} else {
		vm_op_run(op, old_run, settle_read);
	}
}

bool vms_move_park(struct vm_entry *entry)
{
	if (!entry->settle)
		return true;
	if (entry->settle->op)
		return false;
	settle_free(entry->settle);
	entry->settle = NULL;
	return true;
}

void vms_move_settle(struct vm_entry *entry, void (*done)(const struct err *err, void *user),
		     void *user)
{
	struct vm_settle *settle = calloc(1, sizeof(*settle));
	struct err err = { 0 };

	CHECK(entry->move && !entry->settle);
	if (!settle) {
		entry->move->owed = entry->move->state == VM_MOVE_SWITCHED;
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		done(&err, user);
		return;
	}
	*settle = (struct vm_settle){ .entry = entry, .source_fd = -1, .target_fd = -1,
				      .done = done, .user = user };
	entry->settle = settle;
	vms_move_poke(entry);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vms_verbs.c - register, unregister, start, suspend, stop: chains of jobs and answers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_private.h"

/* ---- register ---- */

static struct vm_entry *find_path(struct vms *vms, const char *datastore, const char *path)
{
	for (struct vm_entry *entry = vms_next(vms, NULL); entry; entry = vms_next(vms, entry))
		if (strcmp(entry->datastore, datastore) == 0 && strcmp(entry->path, path) == 0)
			return entry;
	return NULL;
}

static void load_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);

	base->rc = vm_op_load(op);
}

static void register_stored(int rc, const struct err *err, void *user)
{
	struct vm_op *op = user;
	struct vm_entry *entry = op->entry;

	if (!rc) {
		log_info("vm", "%s is registered: '%s' at %s:%s", entry->id, entry->name,
			 entry->datastore, entry->path);
		events_emit(op->vms->options.events, "vm_registered",
			    json_pack("{s:s}", "vm", entry->id));
		vm_op_end(op, NULL);
		return;
	}
	entry->op = NULL;
	op->entry = NULL;
	vm_entry_free(entry);
	vm_op_end(op, err);
}

/* Numbers are not used again: another machine's logs and EFI variables lie under them. */
static int register_store(struct vm_op *op, struct vm_entry *entry, struct err *err)
{
	struct store_value number = STORE_INT(op->vms->last_number);
	struct store_value values[] = {
		STORE_TEXT(entry->id),	 STORE_TEXT(entry->name),
		STORE_TEXT(entry->datastore), STORE_TEXT(entry->path),
	};
	int rc = store_exec(op->vms->options.store,
			    "INSERT OR REPLACE INTO meta VALUES('last_vm', ?1)", &number, 1, NULL,
			    NULL, err);

	return rc ? rc
		  : store_exec(op->vms->options.store,
			       "INSERT INTO vm VALUES(?1, ?2, ?3, ?4, 'off', '', 0, 0)", values, 4,
			       register_stored, op, err);
}

static void register_loaded(struct vm_op *op)
{
	struct vm_entry *there = find_path(op->vms, op->datastore, op->path), *entry;
	char id[VM_ID_BYTES];

	if (there) {
		err_set(&op->err, ERR_VM_EXISTS, -EEXIST, "%s:%.160s is registered as '%s'",
			op->datastore, op->path, there->id);
		vm_op_end(op, &op->err);
		return;
	}
	snprintf(id, sizeof(id), "vm%llu", (unsigned long long)++op->vms->last_number);
	entry = vm_entry_new(op->vms, id);
	if (!entry) {
		err_set(&op->err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		vm_op_end(op, &op->err);
		return;
	}
	snprintf(entry->name, sizeof(entry->name), "%s", op->config->name);
	snprintf(entry->datastore, sizeof(entry->datastore), "%s", op->datastore);
	snprintf(entry->path, sizeof(entry->path), "%s", op->path);
	entry->adopted = true;
	entry->op = op;
	op->entry = entry;
	/* A machine that blkmirror had suspended, and that was unregistered or moved here, stays so. */
	if (op->config->suspend_path[0])
		vm_settle(entry->vm, VM_SUSPENDED);
	if (register_store(op, entry, &op->err))
		register_stored(-EBUSY, &op->err, op);
}

void vms_register(struct vms *vms, const char *datastore, const char *path, vms_done *done,
		  void *user)
{
	struct vm_op *op = vm_op_new(vms, NULL, done, user);

	if (!op)
		return;
	if (vms->count >= VMS_MAX) {
		err_set(&op->err, ERR_BUSY, -ENOSPC, "%u machines are registered already",
			vms->count);
		vm_op_end(op, &op->err);
		return;
	}
	snprintf(op->datastore, sizeof(op->datastore), "%s", datastore);
	snprintf(op->path, sizeof(op->path), "%s", path);
	vm_op_run(op, load_run, register_loaded);
}

/* ---- unregister ---- */

static void unregister_stored(int rc, const struct err *err, void *user)
{
	struct vm_op *op = user;
	struct vm_entry *entry = op->entry;

	if (rc) {
		vm_op_end(op, err);
		return;
	}
	log_info("vm", "%s is unregistered", entry->id);
	events_emit(op->vms->options.events, "vm_unregistered",
		    json_pack("{s:s}", "vm", entry->id));
	entry->op = NULL;
	op->entry = NULL;
	vm_entry_free(entry);
	vm_op_end(op, NULL);
}

void vms_unregister(struct vm_entry *entry, vms_done *done, void *user)
{
	struct vm_op *op = vm_op_new(entry->vms, entry, done, user);
	struct store_value value = STORE_TEXT(entry->id);
	int rc = 0;

	if (!op)
		return;
	if (vm_state(entry->vm) != VM_OFF || vm_is_busy(entry->vm))
		rc = err_set(&op->err, ERR_VM_STATE, -EBUSY, "the machine '%.100s' is %s",
			     entry->name, vms_state_name(entry));
	if (!rc)
		rc = vms_move_judge(entry, VMS_UNREGISTER, &op->err);
	if (!rc)
		rc = store_exec(op->vms->options.store, "DELETE FROM vm WHERE id = ?1", &value, 1,
				unregister_stored, op, &op->err);
	if (rc)
		vm_op_end(op, &op->err);
}

/* ---- read ---- */

/* A VMX that is refused is shown all the same, with what is wrong. */
static void read_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);

	op->err = (struct err){ 0 };
	if (vm_op_load(op))
		op->err = base->err;
}

static void read_done(struct vm_op *op)
{
	vm_op_end(op, op->err.id != ERR_NONE ? &op->err : NULL);
}

void vms_read(struct vm_entry *entry, vms_done *done, void *user)
{
	struct vm_op *op = calloc(1, sizeof(*op));
	struct err err = { 0 };

	/* Beside whatever else is under way: it only looks. */
	if (!op) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		done(entry, NULL, NULL, &err, user);
		return;
	}
	op->vms = entry->vms;
	op->image_fd = -1;
	op->done = done;
	op->user = user;
	snprintf(op->datastore, sizeof(op->datastore), "%s", entry->datastore);
	snprintf(op->path, sizeof(op->path), "%s", entry->path);
	entry->vms->jobs++;
	vm_op_run(op, read_run, read_done);
}

/* ---- start, resume ---- */

static void start_answered(struct release_waiter *waiter)
{
	struct vm_op *op = container_of(waiter, struct vm_op, waiter);

	vm_op_end(op, op->err.id != ERR_NONE ? &op->err : NULL);
}

/* When the machine is off: answer after its disks are detached. */
static void end_when_released(struct vm_op *op)
{
	op->waiter.released = start_answered;
	if (vm_state(op->entry->vm) == VM_OFF && !vms_move_holds(op->entry))
		vm_entry_release(op->entry, &op->waiter);
	else
		start_answered(&op->waiter);
}

static void started(const struct err *err, void *user)
{
	struct vm_op *op = user;

	if (!err) {
		vm_op_end(op, NULL);
		return;
	}
	op->err = *err;
	end_when_released(op);
}

static void start_attached(struct vm_op *op)
{
	int image_fd = op->image_fd;

	op->image_fd = -1;
	vm_image_path(op->entry, op->entry->image_path);
	vm_start(op->entry->vm, op->config, op->places, image_fd, started, op);
}

/* [worker] What must stay from now on is written before anything is started with it. */
static int start_complete(struct vm_op *op)
{
	struct err *err = &op->base.err;
	bool changed = false;
	const char *text;
	size_t len;
	int rc = vm_config_complete(op->config, op->vmx, op->vms->host.qemu.machine, &changed, err);

	if (rc || !changed)
		return rc;
	text = vmx_text(op->vmx, &len);
	return ds_file_write(op->base.datastore, op->path, text, len, false, err);
}

static void start_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);

	if (op->entry->move && op->entry->move->owed)
		base->rc = vms_move_rewrite_run(base->datastore, op->entry, &base->err);
	if (!base->rc)
		base->rc = vm_op_load(op);
	if (!base->rc && op->only_resume && !op->config->suspend_path[0])
		base->rc = err_set(&base->err, ERR_VM_STATE, -EINVAL, "the machine is not suspended");
	if (!base->rc)
		base->rc = start_complete(op);
	if (!base->rc)
		base->rc = vm_prepare_run_dir(&op->vms->setup, op->entry->id, &base->err);
	if (!base->rc && op->config->suspend_path[0])
		base->rc = ds_file_descriptor(base->datastore, op->config->suspend_path, false,
					      &op->image_fd, &base->err);
}

static void start_loaded(struct vm_op *op)
{
	if (op->entry->move && op->entry->move->owed)
		vms_move_drop(op->entry);
	snprintf(op->entry->name, sizeof(op->entry->name), "%s", op->config->name);
	/* The VMX says whether it is suspended: it may have been edited, or restored. */
	if (vm_state(op->entry->vm) == VM_OFF && op->image_fd >= 0)
		vm_settle(op->entry->vm, VM_SUSPENDED);
	else if (vm_state(op->entry->vm) == VM_SUSPENDED && op->image_fd < 0)
		vm_settle(op->entry->vm, VM_OFF);
	vm_op_attach(op, start_attached);
}

void vms_start(struct vm_entry *entry, bool only_resume, vms_done *done, void *user)
{
	struct vm_op *op = vm_op_new(entry->vms, entry, done, user);
	enum vm_state state = vm_state(entry->vm);

	if (!op)
		return;
	op->only_resume = only_resume;
	if (entry->vms->host.problem.id != ERR_NONE)
		op->err = entry->vms->host.problem;
	else if (state != VM_SUSPENDED && (state != VM_OFF || only_resume))
		err_set(&op->err, ERR_VM_STATE, -EBUSY, "the machine '%.100s' is %s", entry->name,
			vm_state_name(state));
	if (op->err.id != ERR_NONE ||
	    vms_move_judge(entry, state == VM_OFF ? VMS_START : VMS_RESUME, &op->err))
		vm_op_end(op, &op->err);
	else
		vm_op_run(op, start_run, start_loaded);
}

/* ---- suspend ---- */

static void suspend_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);

	base->rc = ds_file_descriptor(base->datastore, op->entry->image_path, true, &op->image_fd,
				      &base->err);
}

static void unsuspended_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	struct err err = { 0 };

	if (ds_file_delete(base->datastore, op->entry->image_path, &err))
		log_warn("vm", "%s: %s", op->entry->id, err.cause);
}

static void unsuspended_done(struct vm_op *op)
{
	vm_op_end(op, &op->err);
}

static void suspended(const struct err *err, void *user)
{
	struct vm_op *op = user;
	struct vm_entry *entry = op->entry;

	if (entry->image_fd >= 0)
		close(entry->image_fd);
	entry->image_fd = -1;
	if (!err) {
		vm_op_end(op, NULL);
		return;
	}
	op->err = *err;
	/* An image that is not the machine's takes room only; one that may be stays. */
	if (vm_state(entry->vm) == VM_RUNNING)
		vm_op_run(op, unsuspended_run, unsuspended_done);
	else
		vm_op_end(op, &op->err);
}

static void suspend_opened(struct vm_op *op)
{
	int image_fd = op->image_fd;

	op->image_fd = -1;
	op->entry->image_fd = fcntl(image_fd, F_DUPFD_CLOEXEC, 0);
	if (op->entry->image_fd < 0) {
		err_set(&op->err, ERR_VM_SUSPEND, -errno, "cannot keep the image open: %s",
			err_strerror(-errno));
		close(image_fd);
		vm_op_end(op, &op->err);
		return;
	}
	vm_suspend(op->entry->vm, image_fd, suspended, op);
}

void vms_suspend(struct vm_entry *entry, vms_done *done, void *user)
{
	struct vm_op *op = vm_op_new(entry->vms, entry, done, user);

	if (!op)
		return;
	if (vm_state(entry->vm) != VM_RUNNING) {
		err_set(&op->err, ERR_VM_STATE, -EBUSY, "the machine '%.100s' is %s", entry->name,
			vms_state_name(entry));
		vm_op_end(op, &op->err);
		return;
	}
	if (vms_move_judge(entry, VMS_SUSPEND, &op->err)) {
		vm_op_end(op, &op->err);
		return;
	}
	vm_image_path(entry, entry->image_path);
	vm_op_run(op, suspend_run, suspend_opened);
}

/* ---- stop ---- */

static void halted(const struct err *err, void *user)
{
	struct vm_op *op = user;

	if (err)
		op->err = *err;
	end_when_released(op);
}

static void discard_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	struct err err = { 0 };

	vm_image_path(op->entry, op->entry->image_path);
	base->rc = vm_image_forget(base->datastore, op->entry->path, &base->err);
	if (!base->rc && ds_file_delete(base->datastore, op->entry->image_path, &err))
		log_warn("vm", "%s: %s", op->entry->id, err.cause);
}

static void discard_done(struct vm_op *op)
{
	vm_discarded(op->entry->vm);
	end_when_released(op);
}

/* A forced stop overtakes a gentle one, and has no turn of its own. */
struct forced_stop {
	struct vm_entry *entry;
	vms_done *done;
	void *user;
};

static void forced(const struct err *err, void *user)
{
	struct forced_stop *stop = user;

	stop->entry->vms->jobs--;
	stop->done(stop->entry, NULL, NULL, err, stop->user);
	free(stop);
}

void vms_halt(struct vm_entry *entry, bool force, uint64_t timeout_ns, vms_done *done, void *user)
{
	enum vm_state state = vm_state(entry->vm);
	struct forced_stop *stop;
	struct vm_op *op;

	if (force && entry->op && state == VM_STOPPING) {
		stop = calloc(1, sizeof(*stop));
		if (stop) {
			*stop = (struct forced_stop){ entry, done, user };
			entry->vms->jobs++;
			vm_stop(entry->vm, true, timeout_ns, forced, stop);
			return;
		}
	}
	op = vm_op_new(entry->vms, entry, done, user);
	if (!op)
		return;
	if (state == VM_SUSPENDED && force) {
		vm_op_run(op, discard_run, discard_done);
	} else if (state == VM_OFF || state == VM_SUSPENDED) {
		err_set(&op->err, ERR_VM_STATE, -EBUSY, "the machine '%.100s' is %s", entry->name,
			vm_state_name(state));
		if (state == VM_SUSPENDED)
			err_remedy(&op->err, "Resume it, or throw its memory away with --force.");
		vm_op_end(op, &op->err);
	} else {
		vm_stop(entry->vm, force, timeout_ns, halted, op);
	}
}

/* ---- create ---- */

static int create_vmx(const struct vms_create *create, struct vmx **out, struct err *err)
{
	char memory[32], cpus[16];
	const struct {
		const char *key, *value;
	} lines[] = {
		{ "config.version", "8" },
		{ "virtualHW.version", "19" },
		{ "displayName", create->name },
		{ "guestOS", "other6xlinux-64" },
		{ "memSize", memory },
		{ "numvcpus", cpus },
		{ "floppy0.present", "FALSE" },
		{ "scsi0.present", "TRUE" },
		{ "scsi0.virtualDev", create->controller ? create->controller : "virtio" },
		{ "ethernet0.present", create->network ? "TRUE" : NULL },
		{ "ethernet0.virtualDev", create->network ? "virtio" : NULL },
		{ "ethernet0.networkName", create->network },
		{ "ethernet0.addressType", create->network ? "generated" : NULL },
		{ "blkmirror.kernel", create->kernel },
		{ "blkmirror.initrd", create->initrd },
		{ "blkmirror.append", create->append },
	};
	struct vmx *vmx;
	int rc = vmx_new(create->name, &vmx, err);

	if (rc)
		return rc;
	snprintf(memory, sizeof(memory), "%llu",
		 (unsigned long long)(create->memory_bytes >> 20));
	snprintf(cpus, sizeof(cpus), "%u", create->cpu_count);
	for (size_t i = 0; !rc && i < ARRAY_COUNT(lines); i++)
		if (lines[i].value)
			rc = vmx_set(vmx, lines[i].key, lines[i].value, err);
	if (rc)
		vmx_free(vmx);
	else
		*out = vmx;
	return rc;
}

static int create_add_disk(struct vmx *vmx, unsigned unit, const char *file, struct err *err)
{
	char key[64];
	int rc;

	snprintf(key, sizeof(key), "scsi0:%u.deviceType", unit);
	rc = vmx_set(vmx, key, "scsi-hardDisk", err);
	snprintf(key, sizeof(key), "scsi0:%u.fileName", unit);
	if (!rc)
		rc = vmx_set(vmx, key, file, err);
	snprintf(key, sizeof(key), "scsi0:%u.present", unit);
	return rc ? rc : vmx_set(vmx, key, "TRUE", err);
}

static void create_disk_path(const struct vms_create *create, uint32_t index,
			     char path[DS_PATH_BYTES])
{
	char number[16] = "";

	if (index)
		snprintf(number, sizeof(number), "_%u", index);
	snprintf(path, DS_PATH_BYTES, "%s/%s%s.vmdk", create->name, create->name, number);
}

/* [worker] Those made before the failure are empty and ours: deleted again. */
static void create_unmake(struct vm_op *op, uint32_t made)
{
	char path[DS_PATH_BYTES];
	struct err err = { 0 };

	while (made--) {
		create_disk_path(&op->create, made, path);
		if (ds_disk_delete(op->base.datastore, path, NULL, &err))
			log_warn("vm", "%s", err.cause);
	}
}

static int create_files(struct vm_op *op, struct vmx *vmx, uint32_t *made)
{
	struct err *err = &op->base.err;
	char path[DS_PATH_BYTES];
	const char *text;
	size_t len;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < op->create.disk_count; i++) {
		struct ds_create_spec spec = { .size_bytes = op->create.disk_bytes[i],
					       .provision = PROVISION_THIN };

		create_disk_path(&op->create, i, path);
		rc = create_add_disk(vmx, i < 7 ? i : i + 1, strchr(path, '/') + 1, err);
		if (!rc)
			rc = ds_disk_create(op->base.datastore, path, &spec, err);
		*made += rc == 0;
	}
	text = vmx_text(vmx, &len);
	return rc ? rc : ds_file_write(op->base.datastore, op->path, text, len, true, err);
}

static void create_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	struct vmx *vmx = NULL;
	uint32_t made = 0;

	base->rc = create_vmx(&op->create, &vmx, &base->err);
	if (!base->rc)
		base->rc = create_files(op, vmx, &made);
	vmx_free(vmx);
	if (base->rc)
		create_unmake(op, made);
	else
		base->rc = vm_op_load(op);
}

static int copy_words(struct vm_op *op)
{
	const char **words[] = { &op->create.name,   &op->create.network, &op->create.controller,
				 &op->create.kernel, &op->create.initrd,  &op->create.append };

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		if (!*words[i])
			continue;
		op->words[i] = strdup(*words[i]);
		if (!op->words[i])
			return -ENOMEM;
		*words[i] = op->words[i];
	}
	return 0;
}

void vms_create(struct vms *vms, const struct vms_create *create, vms_done *done, void *user)
{
	struct vm_op *op = vm_op_new(vms, NULL, done, user);

	if (!op)
		return;
	op->create = *create;
	if (vms->count >= VMS_MAX)
		err_set(&op->err, ERR_BUSY, -ENOSPC, "%u machines are registered already",
			vms->count);
	else if (copy_words(op))
		err_set(&op->err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(op->datastore, sizeof(op->datastore), "%s", create->datastore);
	snprintf(op->path, sizeof(op->path), "%s/%s.vmx", create->name, create->name);
	if (op->err.id != ERR_NONE)
		vm_op_end(op, &op->err);
	else
		vm_op_run(op, create_run, register_loaded);
}

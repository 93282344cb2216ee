/* SPDX-License-Identifier: Apache-2.0 */
/* vms_disks.c - a machine's disks: attached one after the other before it starts, detached at its end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/vms_private.h"

static void attach_next(struct vm_op *op);

/* ---- attaching ---- */

/* What is attached already is let go again, then the op ends with its error. */
static void undone(struct release_waiter *waiter)
{
	struct vm_op *op = container_of(waiter, struct vm_op, waiter);

	vm_op_end(op, &op->err);
}

static void attach_failed(struct vm_op *op, const struct err *err)
{
	op->err = *err;
	if (op->ds_entry)
		ds_entry_put(op->ds_entry);
	op->ds_entry = NULL;
	op->waiter.released = undone;
	if (vm_state(op->entry->vm) == VM_OFF)
		vm_entry_release(op->entry, &op->waiter);
	else
		undone(&op->waiter);
}

static void attach_stored(int rc, const struct err *err, void *user)
{
	struct vm_op *op = user;

	if (rc) {
		attach_failed(op, err);
		return;
	}
	ds_entry_put(op->ds_entry);
	op->ds_entry = NULL;
	op->drive++;
	attach_next(op);
}

static void attached_alone(const struct err *err, void *user)
{
	(void)user;
	if (err)
		log_error("vm", "a disk stays attached until the daemon stops: %s", err->cause);
}

static void attached(struct disk *disk, const struct err *err, void *user)
{
	struct vm_op *op = user;
	struct err refused = { 0 };

	if (!disk) {
		attach_failed(op, err);
		return;
	}
	if (!inventory_attached(op->vms->options.inventory, op->ds_entry, disk, attach_stored, op,
				&refused))
		return;
	/* What cannot be remembered is not attached: a restart would lose it under the guest. */
	disk_detach(disk, true, attached_alone, NULL);
	attach_failed(op, &refused);
}

/*
 * Over vhost-user what is virtio; over NBD what QEMU emulates.  A CD-ROM is read-only, and may be one
 * for several machines: NBD, too.
 */
static enum disk_export export_of(const struct vm_config *config, const struct vm_drive *drive)
{
	bool virtio = drive->bus == VM_BUS_SCSI && drive->media == VM_MEDIA_DISK &&
		      config->scsi[drive->controller] == VM_SCSI_VIRTIO;

	return virtio ? DISK_EXPORT_VHOST_USER : DISK_EXPORT_NBD;
}

static void attach_one(struct vm_op *op)
{
	const struct vm_drive *drive = &op->config->drives[op->drive];
	struct err err = { 0 };

	op->ds_entry = inventory_open_entry(op->vms->options.inventory, drive->datastore, &err);
	if (!op->ds_entry) {
		attach_failed(op, &err);
		return;
	}
	ds_entry_get(op->ds_entry);

	struct disk_attach_spec spec = {
		.datastore = op->ds_entry->datastore,
		.path = drive->path,
		.export_kind = export_of(op->config, drive),
		.id = op->disk_ids[op->drive],
		.socket_path = op->sockets[op->drive],
		.read_only = drive->media == VM_MEDIA_CDROM,
		.group = op->entry->id,
	};

	disk_attach(op->vms->options.disks, &spec, attached, op);
}

/* Attached already: the machine was suspended.  It must be the disk that the VMX names. */
static int judge_present(const struct vm_op *op, const struct attachment *present, struct err *err)
{
	const struct vm_drive *drive = &op->config->drives[op->drive];

	if (strcmp(present->datastore, drive->datastore) != 0 ||
	    strcmp(present->path, drive->path) != 0)
		return err_set(err, ERR_VM_DISK, -EBUSY,
			       "%s is attached as %s:%.120s, and the VMX names another file",
			       drive->name, present->datastore, present->path);
	if (!present->disk)
		return err_set(err, ERR_DISK_NOT_ATTACHED, -EAGAIN, "%s is not attached: %.160s",
			       drive->name, present->error.cause);
	return 0;
}

static void attach_next(struct vm_op *op)
{
	for (; op->drive < op->config->drive_count; op->drive++) {
		const struct vm_drive *drive = &op->config->drives[op->drive];
		char name[sizeof(drive->name)];
		struct attachment *present;
		struct err err = { 0 };
		char *colon;

		if (!drive->has_file)
			continue;
		memcpy(name, drive->name, sizeof(name));
		colon = strchr(name, ':');
		if (colon)
			*colon = '-';
		snprintf(op->disk_ids[op->drive], DISK_ID_BYTES, "%s-%s", op->entry->id, name);
		vm_disk_socket_path(&op->vms->setup, op->entry->id, name, op->sockets[op->drive]);
		op->places[op->drive] = (struct qemu_place){
			.socket_path = op->sockets[op->drive],
			.export_name = op->disk_ids[op->drive],
		};
		present = inventory_attachment(op->vms->options.inventory,
					       op->disk_ids[op->drive]);
		if (!present) {
			op->places[op->drive].vhost_user =
				export_of(op->config, drive) == DISK_EXPORT_VHOST_USER;
			attach_one(op);
			return;
		}
		/* A suspended machine goes on with the devices that it had. */
		op->places[op->drive].vhost_user = present->export_kind == DISK_EXPORT_VHOST_USER;
		if (judge_present(op, present, &err)) {
			attach_failed(op, &err);
			return;
		}
	}
	op->then(op);
}

void vm_op_attach(struct vm_op *op, void (*then)(struct vm_op *op))
{
	op->then = then;
	op->drive = 0;
	attach_next(op);
}

/* ---- detaching ---- */

struct release {
	struct vm_entry *entry;
	char disk_id[DISK_ID_BYTES];
	unsigned failures;
};

static void release_next(struct release *release);

static void release_ended(struct release *release)
{
	struct vm_entry *entry = release->entry;
	struct list *node;

	entry->releasing = false;
	free(release);
	while ((node = list_pop(&entry->release_waiters))) {
		struct release_waiter *waiter = list_entry(node, struct release_waiter, node);

		waiter->released(waiter);
	}
	vms_move_poke(entry);
}

static void release_stored(int rc, const struct err *err, void *user)
{
	struct release *release = user;

	if (rc)
		log_error("vm", "%s: %s", release->disk_id, err->cause);
	release_next(release);
}

static void release_forget(struct release *release)
{
	struct inventory *inventory = release->entry->vms->options.inventory;
	struct err err = { 0 };

	if (!inventory_forget(inventory, release->disk_id, release_stored, release, &err))
		return;
	/* Still recorded: it is attached again at the next start, and let go then. */
	log_error("vm", "%s: %s", release->disk_id, err.cause);
	release_ended(release);
}

static void release_detached(const struct err *err, void *user)
{
	struct release *release = user;

	if (!err) {
		release_forget(release);
		return;
	}
	log_error("vm", "%s: %s", release->disk_id, err->cause);
	release_ended(release);
}

static struct attachment *next_of(struct vm_entry *entry)
{
	struct inventory *inventory = entry->vms->options.inventory;
	size_t len = strlen(entry->id);

	for (struct attachment *a = inventory_next_attachment(inventory, NULL); a;
	     a = inventory_next_attachment(inventory, a))
		if (strncmp(a->id, entry->id, len) == 0 && a->id[len] == '-' && !a->attaching)
			return a;
	return NULL;
}

static void release_next(struct release *release)
{
	struct attachment *attachment = next_of(release->entry);

	if (!attachment) {
		release_ended(release);
		return;
	}
	memcpy(release->disk_id, attachment->id, sizeof(release->disk_id));
	if (attachment->disk)
		disk_detach(attachment->disk, true, release_detached, release);
	else
		release_forget(release);
}

void vm_entry_release(struct vm_entry *entry, struct release_waiter *waiter)
{
	struct release *release;

	if (waiter)
		list_append(&entry->release_waiters, &waiter->node);
	if (entry->releasing)
		return;
	entry->releasing = true;
	release = calloc(1, sizeof(*release));
	if (!release) {
		log_error("vm", "%s: no memory to detach its disks", entry->id);
		entry->releasing = false;
		if (waiter) {
			list_remove(&waiter->node);
			waiter->released(waiter);
		}
		return;
	}
	release->entry = entry;
	release_next(release);
}

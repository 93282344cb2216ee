/* SPDX-License-Identifier: Apache-2.0 */
/* api_attach.c - attaching disks to machines, and detaching them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/api_disk_json.h"
#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/daemon.h"

/* ---- list ---- */

void api_disk_list(struct api_call *call)
{
	struct inventory *inventory = api_daemon(call)->inventory;
	json_t *list = json_array();

	for (struct attachment *a = inventory_next_attachment(inventory, NULL); a && list;
	     a = inventory_next_attachment(inventory, a))
		json_array_append_new(list, attachment_json(a));
	api_answer(call, 200, json_pack("{s:o}", "disks", list));
}

/* ---- attach: open, remember durably, answer ---- */

struct attach_call {
	struct api_call *call;
	struct ds_entry *entry;
	char id[DISK_ID_BYTES];
	struct err err;                 /* why it is undone */
};

static void attach_end(struct attach_call *attach)
{
	ds_entry_put(attach->entry);
	free(attach);
}

static void attach_undone(const struct err *err, void *user)
{
	struct attach_call *attach = user;

	if (err)
		log_error("disk", "'%s' stays attached until the daemon stops: %s", attach->id,
			  err->cause);
	api_fail(attach->call, &attach->err);
	attach_end(attach);
}

/* What cannot be remembered is not attached: a restart would silently lose it. */
static void attach_undo(struct attach_call *attach, const struct err *err)
{
	struct disk *disk = disk_find(api_daemon(attach->call)->disks, attach->id);

	attach->err = *err;
	disk_detach(disk, true, attach_undone, attach);
}

static void attach_stored(int rc, const struct err *err, void *user)
{
	struct attach_call *attach = user;
	struct inventory *inventory = api_daemon(attach->call)->inventory;
	struct err ignored = { 0 };

	if (rc) {
		if (inventory_forget(inventory, attach->id, NULL, NULL, &ignored))
			log_error("disk", "'%s': %s", attach->id, ignored.cause);
		attach_undo(attach, err);
		return;
	}
	api_answer(attach->call, 201,
		   attachment_json(inventory_attachment(inventory, attach->id)));
	attach_end(attach);
}

static void attach_done(struct disk *disk, const struct err *err, void *user)
{
	struct attach_call *attach = user;
	struct disk_info info;
	struct err refused = { 0 };

	if (!disk) {
		api_fail(attach->call, err);
		attach_end(attach);
		return;
	}
	disk_info(disk, &info);
	memcpy(attach->id, info.id, sizeof(attach->id));
	if (inventory_attached(api_daemon(attach->call)->inventory, attach->entry, disk,
			       attach_stored, attach, &refused))
		attach_undo(attach, &refused);
}

static int attach_judge(struct daemon *daemon, const struct disk_attach_request *request,
			struct err *err)
{
	if (disk_must_be_idle(daemon, &request->disk, err))
		return -EBUSY;
	/* An id that waits for its datastore is taken, though no disk has it yet. */
	if (request->id && inventory_attachment(daemon->inventory, request->id))
		return err_set(err, ERR_DISK_ID_TAKEN, -EEXIST, "the id '%s' is taken", request->id);
	if (request->socket_path && !config_allows_path(&daemon->config, request->socket_path) &&
	    strncmp(request->socket_path, daemon->config.run_dir,
		    strlen(daemon->config.run_dir)) != 0)
		return err_set(err, ERR_DS_NOT_ALLOWED, -EPERM, "'%s' is not below an allowed root",
			       request->socket_path);
	return 0;
}

void api_disk_attach(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct disk_attach_request request;
	struct attach_call *attach;
	struct err err = { 0 };

	if (judge_disk_attach(api_body(call), &request, &err) ||
	    attach_judge(daemon, &request, &err)) {
		api_fail(call, &err);
		return;
	}
	attach = calloc(1, sizeof(*attach));
	if (!attach) {
		api_answer(call, 200, NULL);
		return;
	}
	attach->call = call;
	attach->entry = inventory_find(daemon->inventory, request.disk.datastore, NULL);
	ds_entry_get(attach->entry);

	struct disk_attach_spec spec = {
		.datastore = attach->entry->datastore,
		.path = request.disk.path,
		.export_kind = request.export_kind,
		.id = request.id,
		.socket_path = request.socket_path,
		.read_only = request.read_only,
	};

	disk_attach(daemon->disks, &spec, attach_done, attach);
}

/* ---- detach ---- */

struct detach_call {
	struct api_call *call;
	char id[DISK_ID_BYTES];
};

static void detach_stored(int rc, const struct err *err, void *user)
{
	struct detach_call *detach = user;

	if (rc)
		api_fail(detach->call, err);
	else
		api_answer(detach->call, 200, json_pack("{s:s}", "detached", detach->id));
	free(detach);
}

static void detach_done(const struct err *err, void *user)
{
	struct detach_call *detach = user;
	struct inventory *inventory = api_daemon(detach->call)->inventory;
	struct err refused = { 0 };

	if (!err && !inventory_forget(inventory, detach->id, detach_stored, detach, &refused))
		return;
	if (!err) {
		/* Still to be attached at the next start: say so, and keep the record true. */
		inventory_attachment(inventory, detach->id)->disk = NULL;
		err = &refused;
	}
	api_fail(detach->call, err);
	free(detach);
}

void api_disk_detach(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct disk_detach_request request;
	struct attachment *attachment = NULL;
	const struct vm_entry *owner;
	struct detach_call *detach;
	struct err err = { 0 };

	if (!judge_disk_detach(api_body(call), &request, &err)) {
		attachment = inventory_attachment(daemon->inventory, request.id);
		if (!attachment)
			err_set(&err, ERR_DISK_UNKNOWN, 0, "no disk '%s' is attached", request.id);
		else if (attachment->attaching)
			err_set(&err, ERR_BUSY, 0, "'%s' is being attached", request.id);
		else if ((owner = vms_owner(daemon->vms, request.id)))
			err_set(&err, ERR_VM_DISK, 0, "'%s' is a disk of the machine '%.100s', "
				"which is %s", request.id, owner->name, vms_state_name(owner));
	}
	if (err.id != ERR_NONE) {
		api_fail(call, &err);
		return;
	}
	detach = calloc(1, sizeof(*detach));
	if (!detach) {
		api_answer(call, 200, NULL);
		return;
	}
	detach->call = call;
	memcpy(detach->id, attachment->id, sizeof(detach->id));
	if (attachment->disk)
		disk_detach(attachment->disk, request.force, detach_done, detach);
	else
		detach_done(NULL, detach);
}

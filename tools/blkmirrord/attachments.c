/* SPDX-License-Identifier: Apache-2.0 */
/* attachments.c - the disks that are to be attached, over restarts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/inventory_private.h"
#include "tools/common/json_edge.h"

#define LOCK_WAIT_NS (30 * NS_PER_S)
#define LOCK_PAUSE_FIRST_NS (5 * NS_PER_MS)
#define LOCK_PAUSE_MAX_NS (250 * NS_PER_MS)
#define LATE_PAUSE_NS (5 * NS_PER_S)

static json_t *attachment_event(const struct attachment *attachment)
{
	char disk[DS_NAME_BYTES + DS_PATH_BYTES];

	snprintf(disk, sizeof(disk), "%s:%s", attachment->datastore, attachment->path);
	return json_pack("{s:s, s:o, s:o?}", "id", attachment->id, "disk", json_edge_text(disk),
			 "error",
			 attachment->error.id != ERR_NONE ? json_edge_err_object(&attachment->error)
							  : NULL);
}

/* It is no longer waited for: tried with success, or without for too long, or forgotten. */
static void waited_enough(struct attachment *attachment)
{
	if (!attachment->lock_waited)
		return;
	attachment->lock_waited = false;
	CHECK(attachment->inventory->lock_waits > 0);
	attachment->inventory->lock_waits--;
}

static void attachment_free(struct attachment *attachment)
{
	timer_stop(&attachment->again);
	waited_enough(attachment);
	list_remove(&attachment->node);
	attachment->inventory->attachment_count--;
	if (attachment->entry)
		ds_entry_put(attachment->entry);
	free(attachment);
}

/* ---- attaching again ---- */

static void attachment_failed(struct attachment *attachment, const struct err *err)
{
	struct inventory *inventory = attachment->inventory;
	bool news = attachment->error.id != err->id;

	attachment->error = *err;
	if (!news && attachment->pause_ns)
		return;         /* tried again, and the same again */
	log_error("disk", "%s cannot be attached again: %s (%s)", attachment->id, err->cause,
		  err_name(err->id));
	events_emit(inventory->events, "disk_failed", attachment_event(attachment));
}

/* R-J7: the lock is the last process's until its last request is done. */
static void attachment_wait_lock(struct attachment *attachment, const struct err *err)
{
	struct inventory *inventory = attachment->inventory;
	uint64_t now_ns = loop_now_ns(inventory->loop);

	if (!attachment->pause_ns) {
		log_warn("disk", "%s waits: %s", attachment->id, err->cause);
		attachment->error = *err;
		attachment->waits_since_ns = now_ns;
		attachment->pause_ns = LOCK_PAUSE_FIRST_NS;
		attachment->lock_waited = true;
		inventory->lock_waits++;
	} else if (attachment->lock_waited && now_ns - attachment->waits_since_ns < LOCK_WAIT_NS) {
		attachment->error = *err;
		attachment->pause_ns = MIN(attachment->pause_ns * 2, LOCK_PAUSE_MAX_NS);
	} else {
		if (attachment->lock_waited)
			err_clear(&attachment->error);  /* now it is news */
		attachment_failed(attachment, err);
		waited_enough(attachment);
		attachment->pause_ns = LATE_PAUSE_NS;
	}
	timer_start(&attachment->again, attachment->pause_ns);
}

/* Its datastore may come back; a socket that another program serves may become free. */
static void attachment_give_up(struct attachment *attachment, const struct err *err)
{
	bool again = err->id == ERR_EXPORT_SOCKET && !attachment->inventory->stopping;

	attachment_failed(attachment, err);
	waited_enough(attachment);
	attachment->pause_ns = again ? LATE_PAUSE_NS : 0;
	if (again)
		timer_start(&attachment->again, LATE_PAUSE_NS);
}

static void say_served(const struct attachment *attachment)
{
	const struct inventory *inventory = attachment->inventory;
	uint64_t now_ns = loop_now_ns(inventory->loop);

	if (inventory->begun_ns && inventory->restoring)
		log_info("disk", "%s is served, %llu ms after the start: %s:%s", attachment->id,
			 (unsigned long long)((now_ns - inventory->begun_ns) / NS_PER_MS),
			 attachment->datastore, attachment->path);
	else
		log_info("disk", "%s is attached again: %s:%s", attachment->id,
			 attachment->datastore, attachment->path);
}

static void attachment_attached(struct disk *disk, const struct err *err, void *user)
{
	struct attachment *attachment = user;
	struct inventory *inventory = attachment->inventory;

	attachment->attaching = false;
	inventory->attaches--;
	attachment->disk = disk;
	if (disk) {
		err_clear(&attachment->error);
		attachment->pause_ns = 0;
		waited_enough(attachment);
		say_served(attachment);
		events_emit(inventory->events, "disk_attached", attachment_event(attachment));
	} else {
		ds_entry_put(attachment->entry);
		attachment->entry = NULL;
		if (err->id == ERR_DISK_IN_USE && !inventory->stopping)
			attachment_wait_lock(attachment, err);
		else
			attachment_give_up(attachment, err);
	}
	inventory_check_restored(inventory);
}

void inventory_move_spec(const struct attachment *attachment, struct disk_attach_spec *out)
{
	out->export_kind = attachment->export_kind;
	out->id = attachment->id;
	out->socket_path = attachment->socket_path;
	out->read_only = attachment->read_only;
	out->group = attachment->group[0] ? attachment->group : NULL;
}

static void attachment_begin(struct attachment *attachment, struct ds_entry *entry)
{
	ds_entry_get(entry);
	attachment->entry = entry;
	attachment->attaching = true;
	attachment->inventory->attaches++;
}

struct attachment *inventory_move_takes(struct inventory *inventory, const char *datastore,
					const char *path)
{
	struct attachment *attachment = inventory_attachment_of(inventory, datastore, path);
	struct ds_entry *entry = inventory_find(inventory, datastore, NULL);

	if (!attachment || !entry || attachment->disk || attachment->attaching)
		return NULL;
	attachment_begin(attachment, entry);
	return attachment;
}

void inventory_move_attached(struct attachment *attachment, struct disk *disk,
			     const struct err *err)
{
	attachment_attached(disk, err, attachment);
}

static void attachment_attach(struct attachment *attachment, struct ds_entry *entry)
{
	struct disk_attach_spec spec = { .datastore = entry->datastore,
					 .path = attachment->path };

	attachment_begin(attachment, entry);
	inventory_move_spec(attachment, &spec);
	disk_attach(attachment->inventory->disks, &spec, attachment_attached, attachment);
}

static void attachment_try(struct attachment *attachment)
{
	struct inventory *inventory = attachment->inventory;
	struct ds_entry *entry = inventory_find(inventory, attachment->datastore, NULL);

	if (inventory->stopping || !entry || !entry->datastore || attachment->disk ||
	    attachment->attaching)
		return;
	timer_stop(&attachment->again);
	attachment_attach(attachment, entry);
}

static void again_fired(struct timer *timer)
{
	attachment_try(container_of(timer, struct attachment, again));
}

void inventory_attach(struct inventory *inventory, struct attachment *attachment)
{
	CHECK(attachment->inventory == inventory);
	attachment_try(attachment);
}

void inventory_attach_waiting(struct inventory *inventory)
{
	inventory->settling = false;
	list_for_each (node, &inventory->attachments)
		attachment_try(list_entry(node, struct attachment, node));
	inventory_check_restored(inventory);
}

void attachments_attach_on(struct inventory *inventory, struct ds_entry *entry)
{
	list_for_each (node, &inventory->attachments) {
		struct attachment *attachment = list_entry(node, struct attachment, node);

		if (!attachment->in_move && strcmp(attachment->datastore, entry->name) == 0)
			attachment_try(attachment);
	}
}

void attachments_stop(struct inventory *inventory)
{
	list_for_each (node, &inventory->attachments) {
		struct attachment *attachment = list_entry(node, struct attachment, node);

		timer_stop(&attachment->again);
		waited_enough(attachment);
	}
}

void inventory_sweep_sockets(struct inventory *inventory)
{
	char (*ids)[DISK_ID_BYTES] = calloc(inventory->attachment_count + 1, sizeof(*ids));
	size_t count = 0;

	if (!ids)
		return;         /* they are swept at the next start */
	list_for_each (node, &inventory->attachments)
		memcpy(ids[count++], list_entry(node, struct attachment, node)->id, sizeof(*ids));
	disk_sockets_sweep(inventory->disks, ids, count);
}

/* ---- the table ---- */

static struct attachment *attachment_new(struct inventory *inventory, const char *id,
					 const char *datastore, const char *path)
{
	struct attachment *attachment = calloc(1, sizeof(*attachment));

	if (!attachment)
		return NULL;
	snprintf(attachment->id, sizeof(attachment->id), "%s", id);
	snprintf(attachment->datastore, sizeof(attachment->datastore), "%s", datastore);
	snprintf(attachment->path, sizeof(attachment->path), "%s", path);
	attachment->inventory = inventory;
	timer_init(&attachment->again, inventory->loop, again_fired);
	list_append(&inventory->attachments, &attachment->node);
	inventory->attachment_count++;
	return attachment;
}

static int load_attachment(struct inventory *inventory, const json_t *row, struct err *err)
{
	const char *text[6];
	struct attachment *attachment;

	for (size_t i = 0; i < ARRAY_COUNT(text); i++) {
		text[i] = json_string_value(json_array_get(row, i));
		if (!text[i])
			return err_set(err, ERR_STATE_DIR, -EINVAL,
				       "a stored attachment is incomplete");
	}
	attachment = attachment_new(inventory, text[0], text[1], text[2]);
	if (!attachment)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	if (!disk_export_parse(text[3], &attachment->export_kind))
		return err_set(err, ERR_STATE_DIR, -EINVAL, "a stored attachment has export '%s'",
			       text[3]);
	snprintf(attachment->socket_path, sizeof(attachment->socket_path), "%s", text[4]);
	snprintf(attachment->group, sizeof(attachment->group), "%s", text[5]);
	attachment->read_only = json_integer_value(json_array_get(row, 6)) != 0;
	attachment->in_move = inventory->in_move &&
			      inventory->in_move(attachment->datastore, attachment->path,
						 inventory->came_up_user);
	err_set(&attachment->error, ERR_DS_UNREACHABLE, 0, "datastore '%s' is not up yet",
		attachment->datastore);
	return 0;
}

int attachments_load(struct inventory *inventory, struct err *err)
{
	json_t *rows = NULL, *row;
	size_t i;
	int rc = store_load(inventory->store,
			    "SELECT id, datastore, path, export, socket, disk_group, read_only "
			    "FROM attachment ORDER BY id",
			    &rows, err);

	json_array_foreach (rows, i, row) {
		if (!rc)
			rc = load_attachment(inventory, row, err);
	}
	json_decref(rows);
	return rc;
}

void attachments_free(struct inventory *inventory)
{
	list_for_each (node, &inventory->attachments)
		attachment_free(list_entry(node, struct attachment, node));
}

int inventory_attached(struct inventory *inventory, struct ds_entry *entry, struct disk *disk,
		       void (*stored)(int rc, const struct err *err, void *user), void *user,
		       struct err *err)
{
	struct attachment *attachment;
	struct disk_info info;
	int rc;

	disk_info(disk, &info);
	if (inventory->attachment_count >= INVENTORY_ATTACHMENTS_MAX)
		return err_set(err, ERR_BUSY, -ENOSPC, "%u disks are attached already",
			       inventory->attachment_count);
	attachment = attachment_new(inventory, info.id, info.datastore, info.path);
	if (!attachment)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	attachment->export_kind = info.export_kind;
	attachment->read_only = info.read_only;
	attachment->disk = disk;
	snprintf(attachment->socket_path, sizeof(attachment->socket_path), "%s", info.socket_path);
	snprintf(attachment->group, sizeof(attachment->group), "%s", info.group);

	struct store_value values[] = {
		STORE_TEXT(attachment->id), STORE_TEXT(attachment->datastore),
		STORE_TEXT(attachment->path), STORE_TEXT(disk_export_name(info.export_kind)),
		STORE_TEXT(attachment->socket_path), STORE_INT(info.read_only),
		STORE_TEXT(attachment->group),
	};

	rc = store_exec(inventory->store,
			"INSERT OR REPLACE INTO attachment VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)", values,
			7, stored, user, err);
	if (rc) {
		attachment_free(attachment);
		return rc;
	}
	ds_entry_get(entry);
	attachment->entry = entry;
	events_emit(inventory->events, "disk_attached", attachment_event(attachment));
	return 0;
}

int inventory_moved(struct inventory *inventory, const char *id, struct ds_entry *entry,
		    const char *path)
{
	struct attachment *attachment = inventory_attachment(inventory, id);
	struct store_value values[] = { STORE_TEXT(id), STORE_TEXT(entry->name), STORE_TEXT(path) };
	struct err err = { 0 };
	int rc;

	if (!attachment)
		return 0; /* attached for the time of a move only */
	rc = store_exec_now(inventory->store,
			    "UPDATE attachment SET datastore = ?2, path = ?3 WHERE id = ?1", values,
			    3, &err);
	if (rc) {
		log_error("disk", "%s: %s", id, err.cause);
		return rc;
	}
	if (attachment->entry) {        /* attached: it holds where it lies */
		ds_entry_get(entry);
		ds_entry_put(attachment->entry);
		attachment->entry = entry;
	}
	snprintf(attachment->datastore, sizeof(attachment->datastore), "%s", entry->name);
	snprintf(attachment->path, sizeof(attachment->path), "%s", path);
	return 0;
}

int inventory_forget(struct inventory *inventory, const char *id,
		     void (*stored)(int rc, const struct err *err, void *user), void *user,
		     struct err *err)
{
	struct attachment *attachment = inventory_attachment(inventory, id);
	struct store_value value = STORE_TEXT(id);
	int rc;

	CHECK(attachment);
	rc = store_exec(inventory->store, "DELETE FROM attachment WHERE id = ?1", &value, 1,
			stored, user, err);
	if (rc)
		return rc;
	events_emit(inventory->events, "disk_detached", attachment_event(attachment));
	/* One that waited has a socket of its last life, if somebody holds it. */
	if (attachment->export_kind != DISK_EXPORT_NONE)
		disk_socket_drop(inventory->disks, id, attachment->socket_path);
	attachment_free(attachment);
	return 0;
}

struct attachment *inventory_attachment(struct inventory *inventory, const char *id)
{
	list_for_each (node, &inventory->attachments) {
		struct attachment *attachment = list_entry(node, struct attachment, node);

		if (strcmp(attachment->id, id) == 0)
			return attachment;
	}
	return NULL;
}

struct attachment *inventory_attachment_of(struct inventory *inventory, const char *datastore,
					   const char *path)
{
	list_for_each (node, &inventory->attachments) {
		struct attachment *attachment = list_entry(node, struct attachment, node);

		if (strcmp(attachment->datastore, datastore) == 0 &&
		    strcmp(attachment->path, path) == 0)
			return attachment;
	}
	return NULL;
}

struct attachment *inventory_next_attachment(struct inventory *inventory,
					     struct attachment *attachment)
{
	struct list *next = attachment ? attachment->node.next : inventory->attachments.next;

	return next == &inventory->attachments ? NULL
					       : list_entry(next, struct attachment, node);
}

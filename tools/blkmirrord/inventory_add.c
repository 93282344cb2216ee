/* SPDX-License-Identifier: Apache-2.0 */
/* inventory_add.c - naming a datastore, changing what is known of it, and forgetting it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/inventory_private.h"
#include "vmotion/relocate.h"

/* ---- adding ---- */

struct add_request {
	void (*added)(struct ds_entry *entry, const struct err *err, void *user);
	void *user;
	struct ds_entry *entry;
};

static void add_stored(int rc, const struct err *err, void *user)
{
	struct add_request *request = user;
	struct ds_entry *entry = request->entry;
	struct datastore *datastore = entry->unstored;

	entry->unstored = NULL;
	entry->opening = false;
	if (rc) {
		datastore_close(datastore);
		ds_entry_free(entry);
		request->added(NULL, err, request->user);
	} else {
		ds_entry_opened(entry, datastore);
		request->added(entry, NULL, request->user);
	}
	free(request);
}

/* Not a datastore of the inventory before it is recorded: until then nobody finds it open. */
static void add_opened(struct ds_entry *entry, const struct err *err, void *user)
{
	struct add_request *request = user;
	struct store_value values[3];
	struct err refused = { 0 };

	if (entry) {
		values[0] = STORE_TEXT(entry->name);
		values[1] = STORE_TEXT(entry->url);
		values[2] = STORE_TEXT(entry->secret_file);
		request->entry = entry;
		if (!store_exec(entry->inventory->store,
				"INSERT INTO datastore(name, url, secret_file) VALUES(?1, ?2, ?3)",
				values, 3, add_stored, request, &refused))
			return;
		add_stored(-EIO, &refused, request);
		return;
	}
	request->added(NULL, err, request->user);
	free(request);
}

static int add_judge(struct inventory *inventory, const char *name, const char *url,
		     struct err *err)
{
	struct ds_entry *there = inventory_find(inventory, name, NULL);

	if (there)
		return err_set(err, ERR_DS_EXISTS, -EEXIST, "there is a datastore '%s' already: %s",
			       name, there->datastore ? datastore_url(there->datastore) : "down");
	if (inventory->entry_count >= INVENTORY_DATASTORES_MAX)
		return err_set(err, ERR_BUSY, -ENOSPC, "there are %u datastores already",
			       inventory->entry_count);
	if (strlen(url) >= DS_URL_BYTES)
		return err_set(err, ERR_DS_BAD_URL, -EINVAL, "the URL is longer than %d bytes",
			       DS_URL_BYTES - 1);
	return 0;
}

void inventory_add(struct inventory *inventory, const char *name, const char *url,
		   const char *secret_file,
		   void (*added)(struct ds_entry *entry, const struct err *err, void *user),
		   void *user)
{
	struct add_request *request = calloc(1, sizeof(*request));
	struct ds_entry *entry = NULL;
	struct err err = { 0 };

	if (!request) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	} else if (!add_judge(inventory, name, url, &err)) {
		entry = ds_entry_new(inventory, name, url, secret_file);
		if (!entry)
			err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	if (!entry) {
		free(request);
		added(NULL, &err, user);
		return;
	}
	request->added = added;
	request->user = user;
	entry->added = add_opened;
	entry->added_user = request;
	ds_entry_open(entry);
	/* ds_entry_open() without memory has left it down: nothing is kept then. */
	if (!entry->opening) {
		err = entry->error;
		entry->added = NULL;
		ds_entry_free(entry);
		free(request);
		added(NULL, &err, user);
	}
}

/* ---- removing ---- */

struct remove_request {
	void (*removed)(int rc, const struct err *err, void *user);
	void *user;
	struct ds_entry *entry;
};

/* Nobody finds it since it was asked for; it is found again when it could not be forgotten. */
static void remove_stored(int rc, const struct err *err, void *user)
{
	struct remove_request request = *(struct remove_request *)user;
	struct ds_entry *entry = request.entry;
	struct inventory *inventory = entry->inventory;

	free(user);
	if (rc) {
		list_append(&inventory->entries, &entry->node);
		ds_entry_retry(entry);
		ds_entry_refresh(entry);
	} else {
		log_info("datastore", "%s is removed from the inventory", entry->name);
		events_emit(inventory->events, "datastore_removed",
			    json_pack("{s:s}", "datastore", entry->name));
		entry->gone = true;
		if (!entry->refreshing)
			ds_entry_free(entry);
	}
	request.removed(rc, err, request.user);
}

int inventory_remove(struct inventory *inventory, const char *name,
		     void (*removed)(int rc, const struct err *err, void *user), void *user,
		     struct err *err)
{
	struct ds_entry *entry = inventory_find(inventory, name, err);
	struct remove_request *request;
	struct store_value value;
	int rc;

	if (!entry)
		return -ENOENT;
	if (inventory->settling)
		return err_set(err, ERR_BUSY, -EAGAIN, "interrupted moves are being looked through");
	for (struct attachment *a = inventory_next_attachment(inventory, NULL); a;
	     a = inventory_next_attachment(inventory, a))
		if (strcmp(a->datastore, name) == 0)
			return err_set(err, ERR_DS_IN_USE, -EBUSY, "disk '%s' of '%s' is attached",
				       a->id, name);
	/* The question for its space is our own and soon answered, unless the store hangs. */
	if (entry->opening || entry->users > (entry->refreshing ? 1u : 0u) ||
	    (entry->datastore && (relocate_uses(inventory->disks, entry->datastore) ||
				  disk_service_uses(inventory->disks, entry->datastore))))
		return err_set(err, ERR_DS_IN_USE, -EBUSY, "'%s' is in use", name);
	request = malloc(sizeof(*request));
	if (!request)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	*request = (struct remove_request){ .removed = removed, .user = user, .entry = entry };
	value = STORE_TEXT(entry->name);
	rc = store_exec(inventory->store, "DELETE FROM datastore WHERE name = ?1", &value, 1,
			remove_stored, request, err);
	if (rc) {
		free(request);
		return rc;
	}
	list_remove(&entry->node);
	timer_stop(&entry->retry);
	timer_stop(&entry->refresh);
	return 0;
}

int inventory_store_settings(struct inventory *inventory, struct ds_entry *entry,
			     void (*stored)(int rc, const struct err *err, void *user), void *user,
			     struct err *err)
{
	struct store_value values[] = {
		STORE_TEXT(entry->name),
		entry->bandwidth == UINT64_MAX ? STORE_TEXT(NULL) : STORE_INT(entry->bandwidth),
		entry->budget ? STORE_INT(entry->budget) : STORE_TEXT(NULL),
		entry->lease_ns ? STORE_INT(entry->lease_ns) : STORE_TEXT(NULL),
	};

	return store_exec(inventory->store,
			  "UPDATE datastore SET bandwidth = ?2, budget = ?3, lease_ns = ?4 "
			  "WHERE name = ?1",
			  values, 4, stored, user, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* inventory.c - the datastores: opened, kept open, found.  Attachments are in attachments.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/worker.h"
#include "tools/blkmirrord/inventory_private.h"
#include "tools/common/json_edge.h"

#define RETRY_FIRST_NS (5 * NS_PER_S)
#define RETRY_MAX_NS (300 * NS_PER_S)
#define REFRESH_NS (15 * NS_PER_S)

struct open_job {
	struct job job;
	struct ds_entry *entry;
	struct ds_config config;
	struct datastore *datastore;
	struct err err;
	int rc;
};

struct space_job {
	struct job job;
	struct ds_entry *entry;
	struct ds_space space;
	struct err err;
	int rc;
};

/* ---- space ---- */

static void space_run(struct job *base)
{
	struct space_job *job = container_of(base, struct space_job, job);

	job->rc = datastore_space(job->entry->datastore, &job->space, &job->err);
}

static void space_done(struct job *base)
{
	struct space_job *job = container_of(base, struct space_job, job);
	struct ds_entry *entry = job->entry;

	if (job->rc)
		log_debug("datastore", "%s: %s", entry->name, job->err.cause);
	else
		entry->space = job->space;
	entry->refreshing = false;
	ds_entry_put(entry);
	free(job);
	if (entry->gone)
		ds_entry_free(entry);
	else if (!entry->inventory->stopping)
		timer_start(&entry->refresh, REFRESH_NS);
}

/* A store that hangs has one question waiting, not one per tick. */
void ds_entry_refresh(struct ds_entry *entry)
{
	struct space_job *job;

	if (entry->refreshing || !entry->datastore)
		return;
	job = calloc(1, sizeof(*job));
	if (!job)
		return; /* the numbers stay as old as they are; the timer asks again */
	job->entry = entry;
	job->job.run = space_run;
	job->job.done = space_done;
	entry->refreshing = true;
	ds_entry_get(entry);
	worker_submit(datastore_worker(entry->datastore), &job->job);
}

static void refresh_fired(struct timer *timer)
{
	struct ds_entry *entry = container_of(timer, struct ds_entry, refresh);

	ds_entry_refresh(entry);
	if (!entry->refreshing)
		timer_start(&entry->refresh, REFRESH_NS);
}

/* ---- opening ---- */

static json_t *entry_event(const struct ds_entry *entry)
{
	return json_pack("{s:s, s:s, s:o?}", "datastore", entry->name, "state",
			 ds_entry_state(entry), "error",
			 entry->error.id != ERR_NONE ? json_edge_err_object(&entry->error) : NULL);
}

void ds_entry_free(struct ds_entry *entry)
{
	CHECK(entry->users == 0);
	CHECK(!entry->opening);
	timer_stop(&entry->retry);
	timer_stop(&entry->refresh);
	list_remove(&entry->node);
	entry->inventory->entry_count--;
	datastore_close(entry->datastore);
	worker_free(entry->opener);
	free(entry->secret_file);
	free(entry);
}

static void entry_state_changed(void *user)
{
	struct ds_entry *entry = user;

	events_emit(entry->inventory->events, "datastore_state", entry_event(entry));
}

void ds_entry_opened(struct ds_entry *entry, struct datastore *datastore)
{
	entry->datastore = datastore;
	datastore_watch_state(datastore, entry_state_changed, entry);
	entry->retry_ns = RETRY_FIRST_NS;
	err_clear(&entry->error);
	log_info("datastore", "%s is up: %s", entry->name, datastore_url(datastore));
	events_emit(entry->inventory->events, "datastore_state", entry_event(entry));
	ds_entry_refresh(entry);
	if (!entry->inventory->stopping) {
		attachments_attach_on(entry->inventory, entry);
		entry->inventory->settling = true;
		entry->inventory->came_up(entry->inventory->came_up_user);
	}
}

static void entry_stayed_down(struct ds_entry *entry, const struct err *err)
{
	bool news = entry->error.id != err->id || strcmp(entry->error.cause, err->cause) != 0;

	entry->error = *err;
	if (news) {
		log_warn("datastore", "%s is down: %s (%s)", entry->name, err->cause,
			 err_name(err->id));
		events_emit(entry->inventory->events, "datastore_state", entry_event(entry));
	}
	if (entry->inventory->stopping)
		return;
	timer_start(&entry->retry, entry->retry_ns);
	entry->retry_ns = MIN(entry->retry_ns * 2, RETRY_MAX_NS);
}

static void open_run(struct job *base)
{
	struct open_job *job = container_of(base, struct open_job, job);

	job->rc = datastore_open(job->entry->inventory->loop, &job->config, &job->datastore,
				 &job->err);
}

static void open_done(struct job *base)
{
	struct open_job *job = container_of(base, struct open_job, job);
	struct ds_entry *entry = job->entry;
	struct inventory *inventory = entry->inventory;
	void (*added)(struct ds_entry *, const struct err *, void *) = entry->added;
	void *user = entry->added_user;

	entry->added = NULL;
	inventory->opens--;
	if (added && job->rc == 0) {
		entry->unstored = job->datastore;
		added(entry, NULL, user);
	} else {
		entry->opening = false;
		if (job->rc == 0)
			ds_entry_opened(entry, job->datastore);
		else if (!added)
			entry_stayed_down(entry, &job->err);
		else
			ds_entry_free(entry);
		if (!added && inventory->tried)
			inventory->tried(entry, inventory->came_up_user);
		if (added)
			added(NULL, &job->err, user);
	}
	free(job);
	inventory_check_restored(inventory);
}

void ds_entry_open(struct ds_entry *entry)
{
	struct inventory *inventory = entry->inventory;
	struct open_job *job = calloc(1, sizeof(*job));
	struct err err;

	if (!job) {
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
		entry_stayed_down(entry, &err);
		return;
	}
	job->entry = entry;
	job->config = (struct ds_config){ .name = entry->name, .url = entry->url,
					  .secret_file = entry->secret_file,
					  .allowed_roots = inventory->allowed_roots };
	memcpy(job->config.host_uuid, inventory->host_uuid, sizeof(job->config.host_uuid));
	job->job.run = open_run;
	job->job.done = open_done;
	entry->opening = true;
	inventory->opens++;
	worker_submit(entry->opener, &job->job);
}

void ds_entry_retry(struct ds_entry *entry)
{
	if (entry->opening || entry->datastore || entry->inventory->stopping)
		return;
	timer_stop(&entry->retry);
	entry->retry_ns = RETRY_FIRST_NS;
	ds_entry_open(entry);
}

static void retry_fired(struct timer *timer)
{
	struct ds_entry *entry = container_of(timer, struct ds_entry, retry);

	if (!entry->opening && !entry->datastore && !entry->inventory->stopping)
		ds_entry_open(entry);
}

struct ds_entry *ds_entry_new(struct inventory *inventory, const char *name, const char *url,
				  const char *secret_file)
{
	struct ds_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	snprintf(entry->url, sizeof(entry->url), "%s", url);
	entry->bandwidth = UINT64_MAX;
	entry->retry_ns = RETRY_FIRST_NS;
	entry->inventory = inventory;
	timer_init(&entry->retry, inventory->loop, retry_fired);
	timer_init(&entry->refresh, inventory->loop, refresh_fired);
	entry->opener = worker_new(inventory->loop, "datastore-open");
	if (!entry->opener)
		goto free_entry;
	if (secret_file && !(entry->secret_file = strdup(secret_file)))
		goto free_opener;
	list_append(&inventory->entries, &entry->node);
	inventory->entry_count++;
	return entry;

free_opener:
	worker_free(entry->opener);
free_entry:
	free(entry);
	return NULL;
}

/* ---- lookup ---- */

struct ds_entry *inventory_find(struct inventory *inventory, const char *name, struct err *err)
{
	list_for_each (node, &inventory->entries) {
		struct ds_entry *entry = list_entry(node, struct ds_entry, node);

		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	err_set(err, ERR_DS_UNKNOWN, -ENOENT, "there is no datastore '%s'", name);
	return NULL;
}

struct ds_entry *inventory_open_entry(struct inventory *inventory, const char *name,
				      struct err *err)
{
	struct ds_entry *entry = inventory_find(inventory, name, err);

	if (!entry || entry->datastore)
		return entry;
	err_set(err, entry->error.id != ERR_NONE ? entry->error.id : ERR_DS_UNREACHABLE, -EHOSTDOWN,
		"datastore '%s' is down: %s", name,
		entry->error.id != ERR_NONE ? entry->error.cause : "it is being opened");
	return NULL;
}

struct ds_entry *inventory_next(struct inventory *inventory, struct ds_entry *entry)
{
	struct list *next = entry ? entry->node.next : inventory->entries.next;

	return next == &inventory->entries ? NULL : list_entry(next, struct ds_entry, node);
}

void ds_entry_get(struct ds_entry *entry)
{
	entry->users++;
}

void ds_entry_put(struct ds_entry *entry)
{
	CHECK(entry->users > 0);
	entry->users--;
}

const char *ds_entry_state(const struct ds_entry *entry)
{
	return ds_state_name(entry->datastore ? datastore_state(entry->datastore) : DS_DOWN);
}

/* ---- the inventory ---- */

int inventory_new(const struct inventory_options *options, struct inventory **out,
		  struct err *err)
{
	struct inventory *inventory = calloc(1, sizeof(*inventory));

	if (!inventory)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	inventory->loop = options->loop;
	inventory->store = options->store;
	inventory->events = options->events;
	inventory->disks = options->disks;
	inventory->allowed_roots = options->allowed_roots;
	inventory->begun_ns = options->begun_ns;
	inventory->in_move = options->in_move;
	inventory->came_up = options->came_up;
	inventory->tried = options->tried;
	inventory->came_up_user = options->user;
	memcpy(inventory->host_uuid, options->host_uuid, sizeof(inventory->host_uuid));
	list_init(&inventory->entries);
	list_init(&inventory->attachments);
	*out = inventory;
	return 0;
}

static int load_entry(struct inventory *inventory, const json_t *row, struct err *err)
{
	const char *name = json_string_value(json_array_get(row, 0));
	const char *url = json_string_value(json_array_get(row, 1));
	const json_t *bandwidth = json_array_get(row, 3);
	struct ds_entry *entry;

	if (!name || !url || !ds_name_is_valid(name))
		return err_set(err, ERR_STATE_DIR, -EINVAL, "a stored datastore has no valid name");
	entry = ds_entry_new(inventory, name, url, json_string_value(json_array_get(row, 2)));
	if (!entry)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	if (json_is_integer(bandwidth))
		entry->bandwidth = (uint64_t)json_integer_value(bandwidth);
	entry->budget = (uint32_t)json_integer_value(json_array_get(row, 4));
	entry->lease_ns = (uint64_t)json_integer_value(json_array_get(row, 5));
	return 0;
}

int inventory_load(struct inventory *inventory, struct err *err)
{
	json_t *rows = NULL, *row;
	size_t i;
	int rc = store_load(inventory->store,
			    "SELECT name, url, secret_file, bandwidth, budget, lease_ns "
			    "FROM datastore ORDER BY name",
			    &rows, err);

	json_array_foreach (rows, i, row) {
		if (!rc)
			rc = load_entry(inventory, row, err);
	}
	json_decref(rows);
	return rc ? rc : attachments_load(inventory, err);
}

void inventory_start(struct inventory *inventory, void (*restored)(void *user), void *user)
{
	inventory->restored = restored;
	inventory->restored_user = user;
	inventory->restoring = true;
	inventory->opens++; /* not restored before all have begun */
	list_for_each (node, &inventory->entries)
		ds_entry_open(list_entry(node, struct ds_entry, node));
	inventory->opens--;
	inventory_check_restored(inventory);
}

void inventory_check_restored(struct inventory *inventory)
{
	if (!inventory->restoring || inventory->opens || inventory->attaches ||
	    inventory->lock_waits || inventory->settling)
		return;
	inventory->restoring = false;
	inventory->restored(inventory->restored_user);
}

void inventory_stop(struct inventory *inventory)
{
	inventory->stopping = true;
	inventory->restoring = false;
	list_for_each (node, &inventory->entries) {
		struct ds_entry *entry = list_entry(node, struct ds_entry, node);

		timer_stop(&entry->retry);
		timer_stop(&entry->refresh);
	}
	attachments_stop(inventory);
}

bool inventory_is_busy(const struct inventory *inventory)
{
	if (inventory->opens || inventory->attaches)
		return true;
	list_for_each (node, &inventory->entries)
		if (list_entry(node, struct ds_entry, node)->users)
			return true;
	return false;
}

void inventory_free(struct inventory *inventory)
{
	if (!inventory)
		return;
	CHECK(inventory->opens == 0);
	attachments_free(inventory);
	list_for_each (node, &inventory->entries)
		ds_entry_free(list_entry(node, struct ds_entry, node));
	free(inventory);
}

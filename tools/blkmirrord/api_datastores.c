/* SPDX-License-Identifier: Apache-2.0 */
/* api_datastores.c - the API's datastores. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"
#include "tools/blkmirrord/ds_job.h"
#include "tools/common/wall.h"

/* ---- JSON ---- */

static json_t *entry_json(const struct ds_entry *entry)
{
	const struct datastore *ds = entry->datastore;
	json_t *object = json_pack(
		"{s:s, s:o, s:s?, s:s, s:s?, s:I, s:I, s:I, s:I, s:o?}", "name", entry->name, "url",
		json_edge_text(ds ? datastore_url(ds) : entry->url), "kind",
		ds ? datastore_kind(ds) : NULL, "state", ds_entry_state(entry), "lock_scheme",
		ds ? datastore_lock_scheme(ds) : NULL, "capacity_bytes",
		(json_int_t)entry->space.capacity_bytes, "free_bytes",
		(json_int_t)entry->space.free_bytes, "reserved_bytes",
		(json_int_t)entry->space.reserved_bytes, "users", (json_int_t)entry->users, "error",
		entry->error.id != ERR_NONE ? json_edge_err_object(&entry->error) : NULL);

	if (!object)
		return NULL;
	json_object_set_new(object, "bandwidth_bytes_per_s",
			    entry->bandwidth == UINT64_MAX ? json_null()
							   : json_integer((json_int_t)entry->bandwidth));
	json_object_set_new(object, "budget_units",
			    entry->budget ? json_integer(entry->budget) : json_null());
	json_object_set_new(object, "lease_ns", entry->lease_ns
							? json_integer((json_int_t)entry->lease_ns)
							: json_null());
	return object;
}

void api_datastore_list(struct api_call *call)
{
	struct inventory *inventory = api_daemon(call)->inventory;
	json_t *list = json_array();

	for (struct ds_entry *entry = inventory_next(inventory, NULL); entry;
	     entry = inventory_next(inventory, entry))
		json_array_append_new(list, entry_json(entry));
	api_answer(call, 200, json_pack("{s:o}", "datastores", list));
}

/* ---- show: asks the store for its space now ---- */

struct show_job {
	struct ds_job base;
	struct api_call *call;
	int status;
	struct ds_space space;
};

static void show_run(struct ds_job *base)
{
	struct show_job *job = container_of(base, struct show_job, base);

	base->rc = datastore_space(base->datastore, &job->space, &base->err);
}

static void show_done(struct ds_job *base)
{
	struct show_job *job = container_of(base, struct show_job, base);

	if (!base->rc)
		base->entry->space = job->space;
	api_answer(job->call, job->status, entry_json(base->entry));
	free(job);
}

static void answer_fresh(struct api_call *call, struct ds_entry *entry, int status)
{
	struct show_job *job = entry->datastore ? calloc(1, sizeof(*job)) : NULL;
	struct err err = { 0 };

	if (!job) {
		api_answer(call, status, entry_json(entry));
		return;
	}
	job->call = call;
	job->status = status;
	job->base.run = show_run;
	job->base.done = show_done;
	if (ds_job_start(api_daemon(call)->inventory, entry->name, &job->base, &err)) {
		free(job);
		api_fail(call, &err);
	}
}

void api_datastore_show(struct api_call *call)
{
	struct err err = { 0 };
	struct ds_entry *entry =
		inventory_find(api_daemon(call)->inventory, api_param(call), &err);

	if (entry)
		answer_fresh(call, entry, 200);
	else
		api_fail(call, &err);
}

/* ---- add, remove, set ---- */

static void add_done(struct ds_entry *entry, const struct err *err, void *user)
{
	struct api_call *call = user;

	if (entry)
		answer_fresh(call, entry, 201);
	else
		api_fail(call, err);
}

void api_datastore_add(struct api_call *call)
{
	struct datastore_add_request request;
	struct err err = { 0 };

	if (judge_datastore_add(api_body(call), &request, &err))
		api_fail(call, &err);
	else
		inventory_add(api_daemon(call)->inventory, request.name, request.url,
			      request.secret_file, add_done, call);
}

static void remove_done(int rc, const struct err *err, void *user)
{
	struct api_call *call = user;

	if (rc)
		api_fail(call, err);
	else
		api_answer(call, 200, json_pack("{s:s}", "removed", api_param(call)));
}

void api_datastore_remove(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct err err = { 0 };

	if (inventory_remove(daemon->inventory, api_param(call), remove_done, call, &err))
		api_fail(call, &err);
}

struct set_call {
	struct api_call *call;
	struct ds_entry *entry;         /* held */
	uint64_t bandwidth, lease_ns;   /* as it was */
	uint32_t budget;
};

static void set_stored(int rc, const struct err *err, void *user)
{
	struct set_call set = *(struct set_call *)user;

	free(user);
	ds_entry_put(set.entry);
	if (!rc) {
		api_answer(set.call, 200, entry_json(set.entry));
		return;
	}
	set.entry->bandwidth = set.bandwidth;
	set.entry->budget = set.budget;
	set.entry->lease_ns = set.lease_ns;
	api_fail(set.call, err);
}

static void set_apply(struct ds_entry *entry, const struct datastore_set_request *request)
{
	if (request->bandwidth_given)
		entry->bandwidth = request->bandwidth;
	if (request->budget_given)
		entry->budget = (uint32_t)request->budget;
	if (request->lease_given)
		entry->lease_ns = request->lease_ns;
}

void api_datastore_set(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct datastore_set_request request;
	struct err err = { 0 };
	struct ds_entry *entry;
	struct set_call *set;

	if (judge_datastore_set(api_body(call), &request, &err) ||
	    !(entry = inventory_find(daemon->inventory, api_param(call), &err))) {
		api_fail(call, &err);
		return;
	}
	set = malloc(sizeof(*set));
	if (!set) {
		api_answer(call, 200, NULL);
		return;
	}
	*set = (struct set_call){ .call = call, .entry = entry, .bandwidth = entry->bandwidth,
				  .budget = entry->budget, .lease_ns = entry->lease_ns };
	set_apply(entry, &request);
	ds_entry_get(entry);
	if (inventory_store_settings(daemon->inventory, entry, set_stored, set, &err))
		set_stored(-EIO, &err, set);
}

/* ---- files ---- */

struct files_job {
	struct ds_job base;
	struct api_call *call;
	char dir[DS_PATH_BYTES];
	struct ds_file_list list;
};

static const char *file_kind_name(enum ds_file_kind kind)
{
	static const char *const names[] = { "dir", "disk", "disk-data", "vmx", "other" };

	return (unsigned)kind < ARRAY_COUNT(names) ? names[kind] : "other";
}

static json_t *files_json(const struct files_job *job)
{
	json_t *files = json_array();

	for (uint32_t i = 0; files && i < job->list.count; i++) {
		const struct ds_file *file = &job->list.files[i];
		char modified[WALL_TEXT_BYTES];
		json_t *object;

		wall_format(file->modified_s * 1000, modified);
		object = json_pack("{s:o, s:s, s:I, s:I, s:s}", "name", json_edge_text(file->name),
				   "kind", file_kind_name(file->kind), "size_bytes",
				   (json_int_t)file->size_bytes, "allocated_bytes",
				   (json_int_t)file->allocated_bytes, "modified", modified);
		if (!object || json_array_append_new(files, object)) {
			json_decref(files);
			return NULL;
		}
	}
	return json_pack("{s:s, s:o, s:o, s:b}", "datastore", job->base.entry->name, "dir",
			 json_edge_text(job->dir), "files", files, "truncated",
			 job->list.truncated);
}

static void files_run(struct ds_job *base)
{
	struct files_job *job = container_of(base, struct files_job, base);

	base->rc = datastore_list(base->datastore, job->dir, &job->list, &base->err);
}

static void files_done(struct ds_job *base)
{
	struct files_job *job = container_of(base, struct files_job, base);

	if (base->rc) {
		api_fail(job->call, &base->err);
	} else {
		api_answer(job->call, 200, files_json(job));
		ds_file_list_release(&job->list);
	}
	free(job);
}

void api_datastore_files(struct api_call *call)
{
	const char *dir = api_query(call, "dir");
	struct files_job *job = calloc(1, sizeof(*job));
	struct err err = { 0 };

	if (!job)
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
	else if (dir && strlen(dir) >= sizeof(job->dir))
		err_set(&err, ERR_BAD_FIELD, 0, "'dir' is longer than %d bytes", DS_PATH_BYTES - 1);
	else if (job) {
		snprintf(job->dir, sizeof(job->dir), "%s", dir ? dir : "");
		job->call = call;
		job->base.run = files_run;
		job->base.done = files_done;
		if (!ds_job_start(api_daemon(call)->inventory, api_param(call), &job->base, &err))
			return;
	}
	free(job);
	api_fail(call, &err);
}

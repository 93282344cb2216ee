/* SPDX-License-Identifier: Apache-2.0 */
/* task_bulk.c - the chain of steps, the task's verbs and JSON. */
#include "tools/blkmirrord/task_bulk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_NS (200 * NS_PER_MS)

static struct bulk_task *bulk_of(const struct user_task *task)
{
	return container_of(task, struct bulk_task, base);
}

/* ---- the chain ---- */

static const char *step_phase(enum bulk_step step, enum bulk_kind kind)
{
	if (step < BULK_RUN)
		return "reserve";
	if (step == BULK_RUN)
		return kind == BULK_VERIFY ? "verify" : "copy";
	return "cleanup";
}

static bool step_applies(const struct bulk_task *bulk, enum bulk_step step)
{
	bool failed = bulk->err.id != ERR_NONE;

	switch (step) {
	case BULK_OPEN_FILE:
	case BULK_CREATE_DISK:
		return !failed && bulk->kind == BULK_IMPORT;
	case BULK_OPEN_DISK:
	case BULK_RUN:
		return !failed;
	case BULK_OPEN_OTHER:
		return !failed && bulk->kind == BULK_VERIFY;
	case BULK_CREATE_FILE:
		return !failed && bulk->kind == BULK_EXPORT;
	case BULK_CLOSE_DISK:
		return bulk->sides[0].disk != NULL;
	case BULK_CLOSE_OTHER:
		return bulk->sides[1].disk != NULL;
	case BULK_UNDO_DISK:
		return failed && bulk->made_disk;
	case BULK_UNDO_FILE:
		return bulk->file_fd >= 0 || (failed && bulk->made_file);
	default:
		return true;
	}
}

static void bulk_end(struct bulk_task *bulk)
{
	struct user_task *task = &bulk->base;

	timer_stop(&bulk->progress);
	for (int i = 0; i < 2; i++) {
		if (!bulk->sides[i].entry)
			continue;
		ds_entry_refresh(bulk->sides[i].entry);
		ds_entry_put(bulk->sides[i].entry);
		bulk->sides[i].entry = NULL;
	}
	worker_free(bulk->file_worker);
	bulk->file_worker = NULL;
	if (bulk->err.id == ERR_NONE) {
		user_task_move(task, USER_TASK_COMPLETED);
	} else if (bulk->err.id == ERR_TASK_CANCELLED) {
		task->error = bulk->err;
		user_task_move(task, USER_TASK_CANCELLED);
	} else {
		user_task_fail(task, &bulk->err);
	}
}

static void bulk_enter(struct bulk_task *bulk)
{
	while (!step_applies(bulk, bulk->step))
		bulk->step++;
	user_task_set_phase(&bulk->base, step_phase(bulk->step, bulk->kind));
	if (bulk->step == BULK_END)
		bulk_end(bulk);
	else if (bulk->step == BULK_RUN)
		bulk_run(bulk);
	else
		bulk_start_step(bulk);
}

void bulk_step_done(struct bulk_task *bulk)
{
	if (bulk->cancelled && bulk->err.id == ERR_NONE && bulk->step < BULK_RUN)
		err_set(&bulk->err, ERR_TASK_CANCELLED, 0, "cancelled in phase %s",
			bulk->base.phase);
	bulk->size_bytes = MAX(bulk->size_bytes, bulk->found_bytes);
	bulk->step++;
	bulk_enter(bulk);
}

static void bulk_progress(struct timer *timer)
{
	struct bulk_task *bulk = container_of(timer, struct bulk_task, progress);
	uint64_t now_ns = loop_now_ns(bulk->daemon->loop);
	uint64_t before_bytes = bulk->done_bytes;

	bulk_run_sample(bulk);
	if (bulk->progress_at_ns) {
		uint64_t span_ns = now_ns - bulk->progress_at_ns;
		uint64_t now_rate = (bulk->done_bytes - before_bytes) * 1000 / (span_ns / NS_PER_MS + 1);

		bulk->rate_bytes_per_s = bulk->rate_bytes_per_s
						 ? (bulk->rate_bytes_per_s * 7 + now_rate) / 8
						 : now_rate;
	}
	bulk->progress_at_ns = now_ns;
	user_task_changed(&bulk->base);
	timer_start(&bulk->progress, PROGRESS_NS);
}

static void bulk_start(struct user_task *task)
{
	struct bulk_task *bulk = bulk_of(task);

	timer_start(&bulk->progress, PROGRESS_NS);
	bulk_enter(bulk);
}

/* ---- verbs, JSON ---- */

static int bulk_cancel(struct user_task *task, struct err *err)
{
	struct bulk_task *bulk = bulk_of(task);

	(void)err;
	bulk->cancelled = true;
	bulk_run_cancel(bulk);
	return 0;
}

static void bulk_dropped(struct user_task *task)
{
	struct bulk_task *bulk = bulk_of(task);

	for (int i = 0; i < 2; i++)
		if (bulk->sides[i].entry)
			ds_entry_put(bulk->sides[i].entry);
	worker_free(bulk->file_worker);
	bulk->file_worker = NULL;
}

static bool bulk_describe(const struct user_task *task, json_t *object)
{
	struct bulk_task *bulk = bulk_of(task);
	uint64_t left_bytes = bulk->size_bytes - MIN(bulk->size_bytes, bulk->done_bytes);
	json_t *extra = json_pack(
		"{s:{s:I,s:I,s:I,s:I,s:I}}", "progress", "total_bytes",
		(json_int_t)bulk->size_bytes, "done_bytes", (json_int_t)bulk->done_bytes,
		"remaining_bytes", (json_int_t)left_bytes, "rate_bytes_per_s",
		(json_int_t)bulk->rate_bytes_per_s, "eta_s",
		(json_int_t)(bulk->rate_bytes_per_s ? left_bytes / bulk->rate_bytes_per_s : 0));
	bool ok = extra && json_object_update(object, extra) == 0;

	json_decref(extra);
	if (!ok || bulk->kind == BULK_VERIFY)
		return ok;
	extra = json_pack("{s:I, s:I, s:I, s:o}", "copied_bytes",
			  (json_int_t)bulk->stats.copied_bytes, "zero_bytes",
			  (json_int_t)bulk->stats.zero_bytes, "hole_bytes",
			  (json_int_t)bulk->stats.hole_bytes, "file", json_edge_text(bulk->file));
	return extra && json_object_set_new(object, "copy", extra) == 0;
}

static void bulk_release(struct user_task *task)
{
	struct bulk_task *bulk = bulk_of(task);

	pthread_mutex_destroy(&bulk->lock);
	free(bulk->file);
	free(bulk);
}

#define BULK_OPS(name)                                                                             \
	{                                                                                          \
		.type = name, .start = bulk_start, .cancel = bulk_cancel,                          \
		.dropped = bulk_dropped, .describe = bulk_describe, .release = bulk_release,       \
	}
static const struct user_task_ops bulk_ops[] = {
	[BULK_IMPORT] = BULK_OPS("import"),
	[BULK_EXPORT] = BULK_OPS("export"),
	[BULK_VERIFY] = BULK_OPS("verify"),
};

/* ---- making one ---- */

static struct bulk_task *bulk_new(struct daemon *daemon, enum bulk_kind kind, const char *file,
				  struct err *err)
{
	struct bulk_task *bulk = calloc(1, sizeof(*bulk));

	if (!bulk)
		goto no_memory;
	bulk->base.ops = &bulk_ops[kind];
	bulk->base.priority = TASK_PRIORITY_NORMAL;
	bulk->base.claim.host_units = BULK_HOST_UNITS;
	bulk->daemon = daemon;
	bulk->kind = kind;
	bulk->file_fd = -1;
	timer_init(&bulk->progress, daemon->loop, bulk_progress);
	if (!file) {
		pthread_mutex_init(&bulk->lock, NULL);
		return bulk;
	}
	bulk->file = strdup(file);
	bulk->file_worker = worker_new(daemon->loop, "bulk-file");
	if (!bulk->file || !bulk->file_worker)
		goto free_bulk;
	pthread_mutex_init(&bulk->lock, NULL);
	return bulk;

free_bulk:
	worker_free(bulk->file_worker);
	free(bulk->file);
	free(bulk);
no_memory:
	err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	return NULL;
}

static int bulk_side(struct bulk_task *bulk, int index, const struct disk_name *name,
		     struct err *err)
{
	struct ds_entry *entry =
		inventory_open_entry(bulk->daemon->inventory, name->datastore, err);

	if (!entry)
		return -ENOENT;
	bulk->sides[index].name = *name;
	bulk->sides[index].entry = entry;
	ds_entry_get(entry);
	admission_claim_side(&bulk->base.claim, entry->name, BULK_DATASTORE_UNITS);
	return 0;
}

static int bulk_add(struct bulk_task *bulk, struct user_task **out, struct err *err)
{
	const struct disk_name *name = &bulk->sides[0].name;
	int rc;

	snprintf(bulk->base.subject, sizeof(bulk->base.subject), "%s:%s", name->datastore,
		 name->path);
	rc = task_table_add(bulk->daemon->tasks, &bulk->base, err);
	if (!rc)
		*out = &bulk->base;
	return rc;
}

static void bulk_abandon(struct bulk_task *bulk)
{
	bulk_dropped(&bulk->base);
	bulk_release(&bulk->base);
}

static int add_copy(struct daemon *daemon, enum bulk_kind kind,
		    const struct disk_copy_request *request, struct user_task **out,
		    struct err *err)
{
	struct bulk_task *bulk;
	int rc;

	if (!config_allows_path(&daemon->config, request->file))
		return err_set(err, ERR_DS_NOT_ALLOWED, -EPERM, "'%.200s' is not below an allowed root",
			       request->file);
	bulk = bulk_new(daemon, kind, request->file, err);
	if (!bulk)
		return -ENOMEM;
	bulk->provision = request->provision;
	rc = bulk_side(bulk, 0, &request->disk, err);
	if (!rc)
		rc = bulk_add(bulk, out, err);
	if (rc)
		bulk_abandon(bulk);
	return rc;
}

int task_import_add(struct daemon *daemon, const struct disk_copy_request *request,
		    struct user_task **out, struct err *err)
{
	return add_copy(daemon, BULK_IMPORT, request, out, err);
}

int task_export_add(struct daemon *daemon, const struct disk_copy_request *request,
		    struct user_task **out, struct err *err)
{
	return add_copy(daemon, BULK_EXPORT, request, out, err);
}

int task_verify_add(struct daemon *daemon, const struct disk_verify_request *request,
		    struct user_task **out, struct err *err)
{
	struct bulk_task *bulk = bulk_new(daemon, BULK_VERIFY, NULL, err);
	int rc;

	if (!bulk)
		return -ENOMEM;
	rc = bulk_side(bulk, 0, &request->disk, err);
	if (!rc)
		rc = bulk_side(bulk, 1, &request->other, err);
	if (!rc)
		rc = bulk_add(bulk, out, err);
	if (rc)
		bulk_abandon(bulk);
	return rc;
}

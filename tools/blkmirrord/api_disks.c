/* SPDX-License-Identifier: Apache-2.0 */
/* api_disks.c - disks that lie on a datastore: create, show, resize, delete, unlock, fork. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/uuid.h"
#include "tools/blkmirrord/api_disk_json.h"
#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"
#include "tools/blkmirrord/ds_job.h"

struct disk_job {
	struct ds_job base;
	struct api_call *call;
	char path[DS_PATH_BYTES];
	struct ds_create_spec create;
	uint64_t size_bytes;
	struct ds_disk_info info;
	int status;
};

/* ---- refusals that need no I/O ---- */

int disk_must_be_idle(struct daemon *daemon, const struct disk_name *name, struct err *err)
{
	struct ds_entry *entry = inventory_open_entry(daemon->inventory, name->datastore, err);
	struct attachment *attachment;
	struct disk *disk;
	struct disk_info info;

	if (!entry)
		return -ENOENT;
	attachment = inventory_attachment_of(daemon->inventory, name->datastore, name->path);
	disk = disk_find_by_path(daemon->disks, entry->datastore, name->path);
	if (disk) {
		disk_info(disk, &info);
		if (info.moving)
			return err_set(err, ERR_DISK_MOVING, -EBUSY, "'%s:%.160s' is being moved",
				       name->datastore, name->path);
		return err_set(err, ERR_DISK_ATTACHED, -EBUSY, "'%s:%.160s' is attached as '%s'",
			       name->datastore, name->path, info.id);
	}
	if (attachment)
		return err_set(err, ERR_DISK_ATTACHED, -EBUSY,
			       "'%s:%.160s' is to be attached as '%s'", name->datastore, name->path,
			       attachment->id);
	return 0;
}

/* ---- the common way of a job ---- */

static void disk_job_done(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);
	struct daemon *daemon = api_daemon(job->call);

	if (base->rc) {
		api_fail(job->call, &base->err);
	} else {
		struct disk_name name;

		snprintf(name.datastore, sizeof(name.datastore), "%s", base->entry->name);
		snprintf(name.path, sizeof(name.path), "%s", job->path);
		api_answer(job->call, job->status, disk_json(daemon, &name, &job->info));
		ds_entry_refresh(base->entry);
	}
	free(job);
}

static struct disk_job *disk_job_new(struct api_call *call, const char *path,
				     void (*run)(struct ds_job *job), struct err *err)
{
	struct disk_job *job = calloc(1, sizeof(*job));

	if (!job) {
		err_set(err, ERR_NO_MEMORY, 0, "out of memory");
		return NULL;
	}
	job->call = call;
	job->status = 200;
	job->base.run = run;
	job->base.done = disk_job_done;
	snprintf(job->path, sizeof(job->path), "%s", path);
	return job;
}

/* Starts it, or answers with why not. */
static void disk_job_start(struct disk_job *job, const char *datastore)
{
	struct api_call *call = job->call;
	struct err err = { 0 };

	if (!ds_job_start(api_daemon(call)->inventory, datastore, &job->base, &err))
		return;
	free(job);
	api_fail(call, &err);
}

static void stat_again(struct disk_job *job)
{
	struct ds_job *base = &job->base;

	base->rc = ds_disk_stat(base->datastore, job->path, &job->info, &base->err);
}

/* ---- create ---- */

static void create_run(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);

	base->rc = ds_disk_create(base->datastore, job->path, &job->create, &base->err);
	if (!base->rc)
		stat_again(job);
}

void api_disk_create(struct api_call *call)
{
	struct disk_create_request request;
	struct disk_job *job;
	struct err err = { 0 };

	if (judge_disk_create(api_body(call), &request, &err) ||
	    !(job = disk_job_new(call, request.disk.path, create_run, &err))) {
		api_fail(call, &err);
		return;
	}
	job->create.size_bytes = request.size_bytes;
	job->create.provision = request.provision;
	job->status = 201;
	disk_job_start(job, request.disk.datastore);
}

/* ---- show ---- */

static void show_run(struct ds_job *base)
{
	stat_again(container_of(base, struct disk_job, base));
}

void api_disk_show(struct api_call *call)
{
	const char *text = api_query(call, "disk");
	struct attachment *attachment;
	struct disk_name name;
	struct disk_job *job;
	struct err err = { 0 };

	if (!text) {
		err_set(&err, ERR_BAD_FIELD, 0, "the query needs 'disk'");
	} else if (!strchr(text, ':')) {
		attachment = inventory_attachment(api_daemon(call)->inventory, text);
		if (attachment) {
			snprintf(name.datastore, sizeof(name.datastore), "%s",
				 attachment->datastore);
			snprintf(name.path, sizeof(name.path), "%s", attachment->path);
		} else {
			err_set(&err, ERR_DISK_UNKNOWN, 0, "no disk '%.64s' is attached", text);
		}
	} else if (ds_name_parse(text, name.datastore, name.path, &err)) {
		CHECK(err.id != ERR_NONE);
	}
	job = err.id == ERR_NONE ? disk_job_new(call, name.path, show_run, &err) : NULL;
	if (job)
		disk_job_start(job, name.datastore);
	else
		api_fail(call, &err);
}

/* ---- resize, delete, unlock, fork ---- */

static void resize_run(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);
	struct ds_disk *disk;

	base->rc = ds_disk_open(base->datastore, job->path, 0, NULL, &disk, &base->err);
	if (base->rc)
		return;
	base->rc = ds_disk_resize(disk, job->size_bytes, &base->err);
	ds_disk_close(disk);
	if (!base->rc)
		stat_again(job);
}

void api_disk_resize(struct api_call *call)
{
	struct disk_resize_request request;
	struct disk_job *job;
	struct err err = { 0 };

	if (judge_disk_resize(api_body(call), &request, &err) ||
	    disk_must_be_idle(api_daemon(call), &request.disk, &err) ||
	    !(job = disk_job_new(call, request.disk.path, resize_run, &err))) {
		api_fail(call, &err);
		return;
	}
	job->size_bytes = request.size_bytes;
	disk_job_start(job, request.disk.datastore);
}

static void delete_run(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);

	base->rc = ds_disk_stat(base->datastore, job->path, &job->info, &base->err);
	if (!base->rc)
		base->rc = ds_disk_delete(base->datastore, job->path, NULL, &base->err);
}

void api_disk_delete(struct api_call *call)
{
	struct disk_only_request request;
	struct disk_job *job;
	struct err err = { 0 };

	if (judge_disk_delete(api_body(call), &request, &err) ||
	    disk_must_be_idle(api_daemon(call), &request.disk, &err) ||
	    !(job = disk_job_new(call, request.disk.path, delete_run, &err))) {
		api_fail(call, &err);
		return;
	}
	disk_job_start(job, request.disk.datastore);
}

static void unlock_run(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);

	base->rc = ds_disk_unlock(base->datastore, job->path, &base->err);
	if (!base->rc)
		stat_again(job);
}

void api_disk_unlock(struct api_call *call)
{
	struct disk_unlock_request request;
	struct disk_job *job;
	struct err err = { 0 };

	if (judge_disk_unlock(api_body(call), &request, &err) ||
	    disk_must_be_idle(api_daemon(call), &request.disk, &err) ||
	    !(job = disk_job_new(call, request.disk.path, unlock_run, &err))) {
		api_fail(call, &err);
		return;
	}
	disk_job_start(job, request.disk.datastore);
}

/* A retired copy gets an identity of its own: it is nobody's past any more. */
static int fork_marked(struct disk_job *job, struct ds_disk *disk)
{
	struct disk_identity identity = { .generation = 1, .role = DISK_LIVE };
	struct uuid uuid = uuid_random();
	int rc;

	if (ds_disk_info(disk)->identity.role != DISK_RETIRED)
		return err_set(&job->base.err, ERR_DISK_NOT_RETIRED, -EINVAL, "'%.200s' is %s",
			       job->path, disk_role_name(ds_disk_info(disk)->identity.role));
	memcpy(identity.uuid, uuid.bytes, sizeof(identity.uuid));
	rc = ds_disk_mark(disk, &identity, &job->base.err);
	if (rc == -ENOTSUP)
		return err_set(&job->base.err, ERR_NOT_SUPPORTED, rc,
			       "'%.200s' carries no marks that could be changed", job->path);
	return rc;
}

static void fork_run(struct ds_job *base)
{
	struct disk_job *job = container_of(base, struct disk_job, base);
	struct ds_disk *disk;

	base->rc = ds_disk_open(base->datastore, job->path, DS_OPEN_RETIRED, NULL, &disk,
				&base->err);
	if (base->rc)
		return;
	base->rc = fork_marked(job, disk);
	ds_disk_close(disk);
	if (!base->rc)
		stat_again(job);
}

void api_disk_fork(struct api_call *call)
{
	struct disk_only_request request;
	struct disk_job *job;
	struct err err = { 0 };

	if (judge_disk_fork(api_body(call), &request, &err) ||
	    disk_must_be_idle(api_daemon(call), &request.disk, &err) ||
	    !(job = disk_job_new(call, request.disk.path, fork_run, &err))) {
		api_fail(call, &err);
		return;
	}
	disk_job_start(job, request.disk.datastore);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* task_bulk_steps.c - the steps that may block: files and disks opened, made, closed, undone. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/task_bulk.h"

/* ---- the local file, on the task's own worker ---- */

/* With O_DIRECT where that works; blk_file does the rest. */
static int open_direct(const char *path, int flags)
{
	int fd = open(path, flags | O_DIRECT | O_CLOEXEC | O_NONBLOCK, 0600);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0600);
	return fd < 0 ? -errno : fd;
}

/* A link below an allowed root must not lead out of it. */
static int check_resolved(struct bulk_task *bulk, const char *path)
{
	char resolved[PATH_MAX];

	if (bulk->daemon->config.allowed_root_count == 0)
		return 0;
	if (!realpath(path, resolved))
		return err_set(&bulk->err, ERR_LOCAL_FILE, -errno, "cannot resolve '%.200s': %s", path,
			       err_strerror(-errno));
	if (!config_allows_path(&bulk->daemon->config, resolved))
		return err_set(&bulk->err, ERR_DS_NOT_ALLOWED, -EPERM,
			       "'%.200s' leads out of the allowed roots", path);
	return 0;
}

static int open_file(struct bulk_task *bulk)
{
	struct stat st;
	off_t end;
	int fd;

	if (check_resolved(bulk, bulk->file))
		return -EPERM;
	fd = open_direct(bulk->file, O_RDONLY);
	if (fd < 0)
		return err_set(&bulk->err, ERR_LOCAL_FILE, fd, "cannot open '%.200s': %s", bulk->file,
			       err_strerror(fd));
	bulk->file_fd = fd;
	if (fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return err_set(&bulk->err, ERR_LOCAL_FILE, -EINVAL,
			       "'%.200s' is neither a file nor a block device", bulk->file);
	end = lseek(fd, 0, SEEK_END);
	if (end < (off_t)DS_DISK_SIZE_MIN || end % 512)
		return err_set(&bulk->err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "'%.200s' has %lld bytes, which is no size for a disk", bulk->file,
			       (long long)end);
	bulk->found_bytes = (uint64_t)end;
	return 0;
}

static int create_file(struct bulk_task *bulk)
{
	char copy[PATH_MAX];
	int fd;

	snprintf(copy, sizeof(copy), "%s", bulk->file);
	if (check_resolved(bulk, dirname(copy)))
		return -EPERM;
	fd = open_direct(bulk->file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
	if (fd < 0)
		return err_set(&bulk->err, ERR_LOCAL_FILE, fd, "cannot create '%.200s': %s",
			       bulk->file, err_strerror(fd));
	bulk->file_fd = fd;
	bulk->made_file = true;
	if (ftruncate(fd, (off_t)bulk->size_bytes))
		return err_set(&bulk->err, ERR_LOCAL_FILE, -errno, "cannot size '%.200s': %s",
			       bulk->file, err_strerror(-errno));
	return 0;
}

/* Made with O_EXCL, so it is ours; a name that cannot be removed is left and said. */
static void undo_file(struct bulk_task *bulk)
{
	if (bulk->file_fd >= 0)
		close(bulk->file_fd);
	bulk->file_fd = -1;
	if (bulk->made_file && bulk->err.id != ERR_NONE && unlink(bulk->file))
		log_warn("task", "%s: '%s' is left over: %s", bulk->base.id, bulk->file,
			 err_strerror(-errno));
}

static void file_run(struct job *job)
{
	struct bulk_task *bulk = container_of(job, struct bulk_task, file_job);
	int rc = 0;

	if (bulk->step == BULK_OPEN_FILE)
		rc = open_file(bulk);
	else if (bulk->step == BULK_CREATE_FILE)
		rc = create_file(bulk);
	else
		undo_file(bulk);
	CHECK(!rc || bulk->err.id != ERR_NONE);
}

static void file_done(struct job *job)
{
	bulk_step_done(container_of(job, struct bulk_task, file_job));
}

/* ---- the disks, on their datastores' workers ---- */

static struct bulk_side *step_side(struct bulk_task *bulk)
{
	return &bulk->sides[bulk->step == BULK_OPEN_OTHER || bulk->step == BULK_CLOSE_OTHER];
}

static void create_disk(struct bulk_task *bulk, struct ds_job *job)
{
	struct ds_create_spec spec = { .size_bytes = bulk->size_bytes,
				       .provision = bulk->provision };
	struct ds_disk_info info;

	job->rc = ds_disk_create(job->datastore, bulk->sides[0].name.path, &spec, &job->err);
	if (job->rc)
		return;
	bulk->made_disk = true;
	job->rc = ds_disk_stat(job->datastore, bulk->sides[0].name.path, &info, &job->err);
	if (!job->rc)
		bulk->made_identity = info.identity;
}

static void open_disk(struct bulk_task *bulk, struct bulk_side *side, struct ds_job *job)
{
	unsigned flags = bulk->kind == BULK_IMPORT ? 0 : DS_OPEN_READ_ONLY | DS_OPEN_RETIRED;

	job->rc = ds_disk_open(job->datastore, side->name.path, flags, NULL, &side->disk,
			       &job->err);
	if (!job->rc && bulk->kind != BULK_IMPORT)
		bulk->found_bytes = MAX(bulk->found_bytes, ds_disk_info(side->disk)->size_bytes);
}

static void disk_run(struct ds_job *job)
{
	struct bulk_task *bulk = container_of(job, struct bulk_task, ds_job);
	struct bulk_side *side = step_side(bulk);

	switch (bulk->step) {
	case BULK_CREATE_DISK:
		create_disk(bulk, job);
		break;
	case BULK_OPEN_DISK:
	case BULK_OPEN_OTHER:
		open_disk(bulk, side, job);
		break;
	case BULK_UNDO_DISK: /* R-J5: by identity, never by path alone */
		job->rc = ds_disk_delete(job->datastore, side->name.path, &bulk->made_identity,
					 &job->err);
		break;
	default:
		ds_disk_close(side->disk);
		side->disk = NULL;
	}
}

static void disk_done(struct ds_job *job)
{
	struct bulk_task *bulk = container_of(job, struct bulk_task, ds_job);

	if (job->rc && bulk->step == BULK_UNDO_DISK)
		log_warn("task", "%s: the unfinished disk is left over: %s", bulk->base.id,
			 job->err.cause);
	else if (job->rc && bulk->err.id == ERR_NONE)
		bulk->err = job->err;
	bulk_step_done(bulk);
}

void bulk_start_step(struct bulk_task *bulk)
{
	struct err err = { 0 };

	if (bulk->step == BULK_OPEN_FILE || bulk->step == BULK_CREATE_FILE ||
	    bulk->step == BULK_UNDO_FILE) {
		bulk->file_job.run = file_run;
		bulk->file_job.done = file_done;
		worker_submit(bulk->file_worker, &bulk->file_job);
		return;
	}
	bulk->ds_job.run = disk_run;
	bulk->ds_job.done = disk_done;
	/* The entry is held since the task was queued, and an open datastore stays open. */
	CHECK(ds_job_start(bulk->daemon->inventory, step_side(bulk)->name.datastore, &bulk->ds_job,
			   &err) == 0);
}

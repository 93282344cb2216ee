/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_bulk_run.c - the step that reads and writes, on the daemon's own I/O thread.
 *
 * The devices are made, used and closed there; the main loop only samples and cancels, under
 * the task's lock.
 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/blkdev/blk_file.h"
#include "tools/blkmirrord/task_bulk.h"

static struct loop *io_loop(struct bulk_task *bulk)
{
	return bulk_thread_loop(bulk->daemon->io);
}

/* ---- back on the main loop ---- */

static void run_returned(struct task *task)
{
	struct bulk_task *bulk = container_of(task, struct bulk_task, back);

	bulk->stats = bulk->last_stats;
	bulk->done_bytes = bulk->last_done_bytes;
	if (bulk->kind == BULK_VERIFY && bulk->err.id == ERR_NONE)
		bulk->base.result = json_pack("{s:b, s:I, s:s}", "identical",
					      bulk->compared.differing_bytes == 0,
					      "differing_bytes",
					      (json_int_t)bulk->compared.differing_bytes, "hash",
					      bulk->compared.hash);
	bulk_step_done(bulk);
}

/* ---- on the I/O loop ---- */

static uint64_t copied_so_far(const struct bulk_copy_stats *stats)
{
	return stats->copied_bytes + stats->zero_bytes + stats->hole_bytes;
}

static void run_close(struct bulk_task *bulk)
{
	struct bulk_copy *copy;
	struct bulk_compare *compare;

	if (bulk->copy) {
		bulk_copy_stats(bulk->copy, &bulk->last_stats);
		bulk->last_done_bytes = copied_so_far(&bulk->last_stats);
	}
	if (bulk->compare)
		bulk->last_done_bytes = bulk_compare_done_bytes(bulk->compare);
	pthread_mutex_lock(&bulk->lock);
	copy = bulk->copy;
	compare = bulk->compare;
	bulk->copy = NULL;
	bulk->compare = NULL;
	pthread_mutex_unlock(&bulk->lock);
	bulk_copy_free(copy);
	bulk_compare_free(compare);
	for (int i = 0; i < 2; i++) {
		blk_close(bulk->devs[i]);
		bulk->devs[i] = NULL;
	}
	bulk->back.run = run_returned;
	loop_send(bulk->daemon->loop, &bulk->back);
}

/* done() may not free the job that calls it: from a task of its own. */
static void run_close_posted(struct task *task)
{
	run_close(container_of(task, struct bulk_task, hop));
}

static void run_ended(struct bulk_task *bulk, int result, bool of_source)
{
	bool of_disk = (bulk->kind == BULK_IMPORT) != of_source;

	if (result == -ECANCELED)
		err_set(&bulk->err, ERR_TASK_CANCELLED, 0, "cancelled in phase %s",
			bulk->kind == BULK_VERIFY ? "verify" : "copy");
	else if (result && !of_disk)
		err_set(&bulk->err, ERR_LOCAL_FILE, 0, "cannot %s '%.200s': %s",
			of_source ? "read" : "write", bulk->file, err_strerror(result));
	else if (result)
		err_set(&bulk->err, result == -ENOSPC ? ERR_DS_NO_SPACE : ERR_DISK_IO, 0,
			"cannot %s '%s:%.160s': %s", of_source ? "read" : "write",
			bulk->sides[0].name.datastore, bulk->sides[0].name.path,
			err_strerror(result));
	bulk->hop.run = run_close_posted;
	loop_post(io_loop(bulk), &bulk->hop);
}

static void copy_done(struct bulk_copy *copy, int result, bool source_failed, void *user)
{
	(void)copy;
	run_ended(user, result, source_failed);
}

static void compare_done(struct bulk_compare *compare, const struct bulk_compare_result *result,
			 void *user)
{
	struct bulk_task *bulk = user;

	(void)compare;
	bulk->compared = *result;
	run_ended(bulk, result->result, true);
}

static int make_file_dev(struct bulk_task *bulk, struct blk_dev **out)
{
	struct blk_file_options options = {
		.read_only = bulk->kind == BULK_IMPORT,
		.submit_thread = true, /* R5: a bad file must not hold up the other tasks here */
		.reads_zero = bulk->kind == BULK_EXPORT,
		.name = bulk->file,
	};
	int rc = blk_file_new(io_loop(bulk), bulk->file_fd, &options, out, &bulk->err);

	if (!rc)
		bulk->file_fd = -1; /* the device's now */
	return rc;
}

/* devs[0] is read; devs[1] is written, or compared. */
static int make_devs(struct bulk_task *bulk)
{
	int disk_at = bulk->kind == BULK_IMPORT;
	int rc = ds_disk_make_dev(bulk->sides[0].disk, io_loop(bulk), true, &bulk->devs[disk_at],
				  &bulk->err);

	if (rc)
		return rc;
	if (bulk->kind == BULK_VERIFY)
		return ds_disk_make_dev(bulk->sides[1].disk, io_loop(bulk), true, &bulk->devs[1],
					&bulk->err);
	return make_file_dev(bulk, &bulk->devs[!disk_at]);
}

static bool start_job(struct bulk_task *bulk)
{
	struct bulk_copy_spec copy = {
		.source = bulk->devs[0], .target = bulk->devs[1],
		.pool = bulk_thread_pool(bulk->daemon->io), .size_bytes = bulk->size_bytes,
		.keep_allocated = bulk->kind == BULK_IMPORT && bulk->provision != PROVISION_THIN,
		.done = copy_done, .user = bulk,
	};
	struct bulk_compare_spec compare = {
		.first = bulk->devs[0], .second = bulk->devs[1],
		.pool = bulk_thread_pool(bulk->daemon->io), .done = compare_done, .user = bulk,
	};
	bool started;

	pthread_mutex_lock(&bulk->lock);
	if (bulk->kind == BULK_VERIFY)
		bulk->compare = bulk_compare_start(&compare);
	else
		bulk->copy = bulk_copy_start(&copy);
	started = bulk->compare || bulk->copy;
	pthread_mutex_unlock(&bulk->lock);
	return started;
}

static void run_begin(struct task *task)
{
	struct bulk_task *bulk = container_of(task, struct bulk_task, hop);

	if (!make_devs(bulk)) {
		if (start_job(bulk))
			return;
		err_set(&bulk->err, ERR_NO_MEMORY, -ENOMEM, "no memory for the copy's buffers");
	}
	run_close(bulk);
}

/* ---- from the main loop ---- */

void bulk_run(struct bulk_task *bulk)
{
	bulk->hop.run = run_begin;
	loop_send(io_loop(bulk), &bulk->hop);
}

void bulk_run_cancel(struct bulk_task *bulk)
{
	pthread_mutex_lock(&bulk->lock);
	if (bulk->copy)
		bulk_copy_cancel(bulk->copy);
	if (bulk->compare)
		bulk_compare_cancel(bulk->compare);
	pthread_mutex_unlock(&bulk->lock);
}

void bulk_run_sample(struct bulk_task *bulk)
{
	pthread_mutex_lock(&bulk->lock);
	if (bulk->copy) {
		bulk_copy_stats(bulk->copy, &bulk->stats);
		bulk->done_bytes = copied_so_far(&bulk->stats);
	}
	if (bulk->compare)
		bulk->done_bytes = bulk_compare_done_bytes(bulk->compare);
	pthread_mutex_unlock(&bulk->lock);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/ds_job.h"

#include <errno.h>

static void ds_job_run(struct job *base)
{
	struct ds_job *job = container_of(base, struct ds_job, job);

	job->run(job);
}

static void ds_job_done(struct job *base)
{
	struct ds_job *job = container_of(base, struct ds_job, job);

	ds_entry_put(job->entry);
	if (job->rc && job->err.id == ERR_NONE)
		err_set(&job->err, ERR_INTERNAL, 0, "an operation on '%s' failed: %s",
			job->entry->name, err_strerror(job->rc));
	job->done(job);
}

int ds_job_start(struct inventory *inventory, const char *datastore, struct ds_job *job,
		 struct err *err)
{
	struct ds_entry *entry = inventory_open_entry(inventory, datastore, err);

	if (!entry)
		return -ENOENT;
	job->entry = entry;
	job->datastore = entry->datastore;
	job->rc = 0;
	err_clear(&job->err);
	job->job.run = ds_job_run;
	job->job.done = ds_job_done;
	ds_entry_get(entry);
	worker_submit(datastore_worker(entry->datastore), &job->job);
	return 0;
}

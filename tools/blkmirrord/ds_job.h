/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_job.h - one blocking operation on a datastore's worker, for an API call.
 *
 * Embed it, set run (on the worker; fills rc and err) and done (main loop), start it with the
 * datastore's name.  The datastore cannot be removed while it runs.
 */
#ifndef BM_DS_JOB_H
#define BM_DS_JOB_H

#include "blkmirror/base/worker.h"
#include "tools/blkmirrord/inventory.h"

struct ds_job {
	void (*run)(struct ds_job *job);
	void (*done)(struct ds_job *job);
	struct datastore *datastore;    /* set by ds_job_start() */
	struct ds_entry *entry;
	struct err err;
	int rc;
	struct job job;                 /* private */
};

/* 0; or -errno with *err (ERR_DS_UNKNOWN, ERR_DS_UNREACHABLE): then done() does not run. */
MUST_CHECK int ds_job_start(struct inventory *inventory, const char *datastore,
			    struct ds_job *job, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_mark.c - marks and deletions by path, judged by identity; blocking, on a worker.
 *
 * A path may meanwhile name another disk (R-J5): uuid and generation must be the expected
 * ones, and the role must be one that only this move can have given.  The role matters
 * since a later move of the same disk to the same path would have the same generation.
 */
#include <errno.h>
#include <stdio.h>

#include "vmotion/relocate_private.h"

int move_mark_path(struct datastore *ds, const char *path, const char *journal_id,
		   const struct disk_identity *identity, struct err *err)
{
	struct ds_disk *disk;
	int rc;

	rc = ds_disk_open(ds, path, DS_OPEN_FOR_MOVE | DS_OPEN_RETIRED | DS_OPEN_WAIT_LOCK,
			  journal_id, &disk, err);
	if (rc)
		return rc;
	rc = ds_disk_mark(disk, identity, err);
	ds_disk_close(disk);
	return rc == -ENOTSUP ? 0 : rc;
}

/* The datastore judges, under the disk's lock, also what an interrupted delete has left (D2). */
static int delete_as(struct datastore *ds, const char *path, const struct disk_identity *expected,
		     struct err *err)
{
	int rc = ds_disk_delete(ds, path, expected, err);

	if (rc == -ENOENT) {
		err_clear(err);
		return 0;
	}
	if (rc == -ESTALE)
		err_set(err, ERR_DISK_MARKED, rc,
			"'%s:%.120s' is not the disk that this move left there: it is not deleted",
			datastore_name(ds), path);
	return rc;
}

int move_delete_incoming(struct datastore *ds, const char *path, const char *journal_id,
			 const struct disk_identity *identity, struct err *err)
{
	struct disk_identity expected = *identity;

	expected.role = DISK_INCOMING;
	snprintf(expected.journal_id, sizeof(expected.journal_id), "%s", journal_id);
	return delete_as(ds, path, &expected, err);
}

int move_delete_retired(struct datastore *ds, const char *path,
			const struct disk_identity *identity, struct err *err)
{
	struct disk_identity expected = *identity;

	expected.role = DISK_RETIRED;
	return delete_as(ds, path, &expected, err);
}

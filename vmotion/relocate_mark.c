/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_mark.c - marks and deletions by path, judged by identity; blocking, on a worker.
 *
 * A path may meanwhile name another disk (R-J5): uuid and generation must be the expected
 * ones, and the role must be one that only this move can have given.  The role matters
 * since a later move of the same disk to the same path would have the same generation.
 */
#include <errno.h>
#include <string.h>

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

/* 0: there and ours; -ENOENT: gone; -ESTALE: something else. */
static int judge_there(struct datastore *ds, const char *path, const struct disk_identity *expected,
		       const char *journal_id, struct err *err)
{
	struct ds_disk_info there;
	bool ours;
	int rc = ds_disk_stat(ds, path, &there, err);

	if (rc)
		return rc;
	/* A target is INCOMING with our id; a source is RETIRED. */
	ours = there.has_identity && disk_identity_same_copy(&there.identity, expected) &&
	       (journal_id ? there.identity.role == DISK_INCOMING &&
			     strcmp(there.identity.journal_id, journal_id) == 0
			   : there.identity.role == DISK_RETIRED);
	if (ours)
		return 0;
	return err_set(err, ERR_DISK_MARKED, -ESTALE,
		       "'%s:%.120s' is not the disk that this move left there: it is not deleted",
		       datastore_name(ds), path);
}

static int delete_judged(struct datastore *ds, const char *path,
			 const struct disk_identity *expected, const char *journal_id,
			 struct err *err)
{
	int rc = judge_there(ds, path, expected, journal_id, err);

	if (!rc)
		rc = ds_disk_delete(ds, path, expected, err);
	if (rc == -ENOENT) {
		err_clear(err);
		return 0;
	}
	return rc;
}

int move_delete_incoming(struct datastore *ds, const char *path, const char *journal_id,
			 const struct disk_identity *identity, struct err *err)
{
	return delete_judged(ds, path, identity, journal_id, err);
}

int move_delete_retired(struct datastore *ds, const char *path,
			const struct disk_identity *identity, struct err *err)
{
	return delete_judged(ds, path, identity, NULL, err);
}

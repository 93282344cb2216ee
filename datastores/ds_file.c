/* SPDX-License-Identifier: Apache-2.0 */
/* ds_file.c - the edge of a datastore's files that are no disks: paths judged, then the kind's. */
#include <errno.h>

#include "datastores/datastore_private.h"
#include "datastores/ds_path.h"

static int judge(struct datastore *ds, const char *path, bool offered, struct err *err)
{
	int rc = ds_path_check(path, false, err);

	if (rc || offered)
		return rc;
	return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
		       "a %s datastore cannot hold a machine's files", ds->ops->kind);
}

int ds_file_read(struct datastore *ds, const char *path, char *bytes, size_t capacity, size_t *len,
		 struct err *err)
{
	int rc = judge(ds, path, ds->ops->file_read != NULL, err);

	return rc ? rc : ds->ops->file_read(ds, path, bytes, capacity, len, err);
}

int ds_file_write(struct datastore *ds, const char *path, const char *bytes, size_t len,
		  bool must_be_new, struct err *err)
{
	int rc = judge(ds, path, ds->ops->file_write != NULL, err);

	return rc ? rc : ds->ops->file_write(ds, path, bytes, len, must_be_new, err);
}

int ds_file_delete(struct datastore *ds, const char *path, struct err *err)
{
	int rc = judge(ds, path, ds->ops->file_delete != NULL, err);

	return rc ? rc : ds->ops->file_delete(ds, path, err);
}

int ds_file_descriptor(struct datastore *ds, const char *path, bool create, int *fd,
		       struct err *err)
{
	int rc = judge(ds, path, ds->ops->file_descriptor != NULL, err);

	return rc ? rc : ds->ops->file_descriptor(ds, path, create, fd, err);
}

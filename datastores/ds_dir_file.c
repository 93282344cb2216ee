/* SPDX-License-Identifier: Apache-2.0 */
/* ds_dir_file.c - files of a machine in a folder of the host: its VMX, its memory image. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datastores/beneath.h"
#include "datastores/ds_dir.h"
#include "datastores/ds_path.h"

static const char *last_of(const char *path)
{
	size_t parent_len;

	return ds_path_last(path, &parent_len);
}

int dir_file_read(struct datastore *ds, const char *path, char *bytes, size_t capacity,
		  size_t *len, struct err *err)
{
	CLEANUP_CLOSE int dir_fd = beneath_open_parent(ds_dir_root(ds), path, err);
	ssize_t got;

	if (dir_fd < 0)
		return dir_fd;
	got = dir_read_small(dir_fd, last_of(path), bytes, capacity);
	if (got == -EFBIG)
		return err_set(err, ERR_TOO_LARGE, -EFBIG, "'%.160s' has more than %zu bytes", path,
			       capacity);
	if (got < 0)
		return beneath_fail(err, (int)got, "read", path);
	*len = (size_t)got;
	return 0;
}

int dir_file_write(struct datastore *ds, const char *path, const char *bytes, size_t len,
		   bool must_be_new, struct err *err)
{
	int root_fd = ds_dir_root(ds);
	unsigned made = 0;
	int dir_fd, rc = 0;

	if (must_be_new)
		rc = beneath_make_parents(root_fd, path, &made, err);
	if (rc)
		return rc;
	dir_fd = beneath_open_parent(root_fd, path, err);
	if (dir_fd < 0)
		return dir_fd;
	rc = dir_write_small(dir_fd, last_of(path), bytes, len, must_be_new);
	close(dir_fd);
	if (rc == -EEXIST)
		err_set(err, ERR_DISK_EXISTS, rc, "'%.180s' is there already", path);
	else if (rc)
		beneath_fail(err, rc, "write", path);
	if (rc)
		beneath_remove_parents(root_fd, path, made);
	return rc;
}

int dir_file_delete(struct datastore *ds, const char *path, struct err *err)
{
	CLEANUP_CLOSE int dir_fd = beneath_open_parent(ds_dir_root(ds), path, err);

	if (dir_fd < 0)
		return dir_fd;
	if (unlinkat(dir_fd, last_of(path), 0) || fsync(dir_fd))
		return beneath_fail(err, -errno, "delete", path);
	beneath_remove_parents(ds_dir_root(ds), path, 1);
	return 0;
}

/* What lay there is unlinked first: its readers keep their bytes, and no link is followed. */
int dir_file_descriptor(struct datastore *ds, const char *path, bool create, int *fd,
			struct err *err)
{
	int flags = create ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY | O_NONBLOCK;
	CLEANUP_CLOSE int dir_fd = -1;
	unsigned made = 0;
	struct stat st;
	int opened, rc = 0;

	if (create)
		rc = beneath_make_parents(ds_dir_root(ds), path, &made, err);
	if (!rc)
		dir_fd = beneath_open_parent(ds_dir_root(ds), path, err);
	if (rc || dir_fd < 0)
		return rc ? rc : dir_fd;
	if (create && unlinkat(dir_fd, last_of(path), 0) && errno != ENOENT)
		return beneath_fail(err, -errno, "replace", path);
	opened = openat(dir_fd, last_of(path), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (opened < 0)
		return beneath_fail(err, -errno, "open", path);
	rc = fstat(opened, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (!rc && create && fsync(dir_fd))
		rc = -errno;
	if (rc) {
		close(opened);
		return beneath_fail(err, rc, "open", path);
	}
	*fd = opened;
	return 0;
}

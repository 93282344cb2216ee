/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "datastores/datastore.h"
#include "datastores/ds_path.h"

/* A rename elsewhere in the tree makes openat2() answer EAGAIN: try again, not for ever. */
#define RACE_RETRIES 64

static int open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.mode = (flags & O_CREAT) ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	for (int attempt = 0; attempt < RACE_RETRIES; attempt++) {
		fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd >= 0 ? (int)fd : -errno;
}

int beneath_probe(int root_fd, struct err *err)
{
	int fd = open_beneath(root_fd, ".", O_PATH | O_DIRECTORY, 0);

	if (fd == -ENOSYS)
		return err_set(err, ERR_NOT_SUPPORTED, fd,
			       "this kernel has no openat2(): Linux 5.6 or later is needed");
	if (fd < 0)
		return beneath_fail(err, fd, "open", ".");
	close(fd);
	return 0;
}

int beneath_open(int root_fd, const char *path, int flags, mode_t mode)
{
	return open_beneath(root_fd, path[0] ? path : ".", flags, mode);
}

static enum err_id fail_id(int rc)
{
	switch (-rc) {
	case EXDEV:
	case ELOOP:
		return ERR_DS_PATH_ESCAPE;
	case ENOENT:
	case ENOTDIR:
		return ERR_DISK_UNKNOWN;
	case EACCES:
	case EPERM:
		return ERR_DS_PERMISSION;
	case EROFS:
		return ERR_DS_READ_ONLY;
	case ENOSPC:
	case EDQUOT:
		return ERR_DS_NO_SPACE;
	case ENOMEM:
	case ENFILE:
	case EMFILE:
		return ERR_NO_MEMORY;
	default:
		return ERR_DS_IO;
	}
}

int beneath_fail(struct err *err, int rc, const char *what, const char *path)
{
	const char *why = rc == -EXDEV ? "it leads out of the datastore" : err_strerror(rc);

	return err_set(err, fail_id(rc), rc, "cannot %s '%.160s': %s", what, path, why);
}

int beneath_open_err(int root_fd, const char *path, int flags, struct err *err)
{
	int fd = beneath_open(root_fd, path, flags, 0);

	return fd < 0 ? beneath_fail(err, fd, "open", path) : fd;
}

/* The part of path above its last '/'; "." at the root. */
static void parent_of(const char *path, char *parent)
{
	size_t len;

	ds_path_last(path, &len);
	if (len == 0)
		strcpy(parent, ".");
	else
		snprintf(parent, DS_PATH_BYTES, "%.*s", (int)len, path);
}

int beneath_open_parent(int root_fd, const char *path, struct err *err)
{
	char parent[DS_PATH_BYTES];

	parent_of(path, parent);
	return beneath_open_err(root_fd, parent, O_RDONLY | O_DIRECTORY, err);
}

/* ---- plain paths ---- */

/* Where the kernel says that fd is; not terminated by a newline or anything else. */
static int path_of_fd(int fd, char *path, size_t capacity)
{
	char link[64];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, capacity - 1);
	if (len < 0)
		return -errno;
	if ((size_t)len == capacity - 1)
		return -ENAMETOOLONG;
	path[len] = 0;
	return 0;
}

/*
 * Both names are asked at one moment, but the result is only a name: it is opened beneath
 * the root again, so a rename in between can mislead, not escape.
 */
static int relative_to_root(int root_fd, int fd, char *plain)
{
	char root[4096], full[4096];
	size_t root_len;
	int rc = path_of_fd(root_fd, root, sizeof(root));

	if (!rc)
		rc = path_of_fd(fd, full, sizeof(full));
	if (rc)
		return rc;
	root_len = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (strncmp(full, root, root_len) != 0)
		return -EXDEV;
	if (full[root_len] == 0 || strcmp(full + root_len, "/") == 0) {
		plain[0] = 0;
		return 0;
	}
	if (full[root_len] != '/')
		return -EXDEV;
	if (strlen(full + root_len + 1) >= DS_PATH_BYTES)
		return -ENAMETOOLONG;
	strcpy(plain, full + root_len + 1);
	return 0;
}

static int plain_of(int root_fd, const char *path, char *plain)
{
	int fd = beneath_open(root_fd, path, O_PATH, 0);
	int rc;

	if (fd < 0)
		return fd;
	rc = relative_to_root(root_fd, fd, plain);
	close(fd);
	return rc;
}

static bool is_link(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

/* folder/last, in DS_PATH_BYTES. */
static bool join(char *path, const char *folder, const char *last)
{
	size_t folder_len = strlen(folder), last_len = strlen(last);

	if (folder_len + 1 + last_len >= DS_PATH_BYTES)
		return false;
	memcpy(path, folder, folder_len);
	if (folder_len)
		path[folder_len++] = '/';
	memcpy(path + folder_len, last, last_len + 1);
	return true;
}

int beneath_plain_path(int root_fd, const char *path, char *plain, struct err *err)
{
	CLEANUP_CLOSE int dir_fd = beneath_open_parent(root_fd, path, err);
	char folder[DS_PATH_BYTES];
	size_t parent_len;
	const char *last = ds_path_last(path, &parent_len);
	int rc;

	if (dir_fd < 0)
		return dir_fd;
	if (is_link(dir_fd, last)) {
		rc = plain_of(root_fd, path, plain);
		return rc ? beneath_fail(err, rc, "follow the link", path)
			  : ds_path_check(plain, false, err);
	}
	rc = relative_to_root(root_fd, dir_fd, folder);
	if (rc)
		return beneath_fail(err, rc, "follow", path);
	if (!join(plain, folder, last))
		return beneath_fail(err, -ENAMETOOLONG, "follow", path);
	return ds_path_check(plain, false, err);
}

/* ---- folders ---- */

static int make_folder(int root_fd, const char *path, bool *made, struct err *err)
{
	CLEANUP_CLOSE int dir_fd = beneath_open_parent(root_fd, path, err);
	size_t parent_len;
	const char *last = ds_path_last(path, &parent_len);

	*made = false;
	if (dir_fd < 0)
		return dir_fd;
	if (mkdirat(dir_fd, last, 0770) < 0) {
		int rc = -errno;

		return rc == -EEXIST ? 0 : beneath_fail(err, rc, "make the folder", path);
	}
	if (fsync(dir_fd) < 0) {
		int rc = -errno;

		unlinkat(dir_fd, last, AT_REMOVEDIR);
		return beneath_fail(err, rc, "make the folder durable", path);
	}
	*made = true;
	return 0;
}

int beneath_make_parents(int root_fd, const char *path, unsigned *made, struct err *err)
{
	*made = 0;
	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		char folder[DS_PATH_BYTES];
		bool one = false;
		int rc;

		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
		rc = make_folder(root_fd, folder, &one, err);
		*made += one;
		if (rc) {
			beneath_remove_parents(root_fd, folder, *made);
			return rc;
		}
	}
	return 0;
}

void beneath_remove_parents(int root_fd, const char *path, unsigned made)
{
	char folder[DS_PATH_BYTES], above[DS_PATH_BYTES];

	snprintf(above, sizeof(above), "%s", path);
	for (; made; made--) {
		size_t parent_len;
		int dir_fd;

		parent_of(above, folder);
		if (strcmp(folder, ".") == 0)
			return;
		dir_fd = beneath_open_parent(root_fd, folder, NULL);
		if (dir_fd < 0)
			return;
		/* Not empty, or somebody else's by now: it stays. */
		if (unlinkat(dir_fd, ds_path_last(folder, &parent_len), AT_REMOVEDIR) < 0)
			made = 1;
		close(dir_fd);
		strcpy(above, folder);
	}
}

/* ---- small files ---- */

bool dir_has(int dir_fd, const char *name)
{
	struct stat st;

	return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool dir_names_fd(int dir_fd, const char *name, int fd)
{
	struct stat named, held;

	return fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &held) == 0 &&
	       named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

void dir_tmp_name(const char *name, char *tmp)
{
	int len = snprintf(tmp, DS_FILE_NAME_BYTES, ".%s" DS_TMP_SUFFIX, name);

	CHECK(len > 0 && len < DS_FILE_NAME_BYTES);
}

static ssize_t read_whole(int fd, char *bytes, size_t capacity)
{
	size_t len = 0;

	for (;;) {
		char beyond;
		ssize_t got = len < capacity ? read(fd, bytes + len, capacity - len)
					     : read(fd, &beyond, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return (ssize_t)len;
		if (len == capacity)
			return -EFBIG;
		len += (size_t)got;
	}
}

ssize_t dir_read_small(int dir_fd, const char *name, char *bytes, size_t capacity)
{
	/* O_NONBLOCK: somebody's FIFO must not hang us before fstat() tells what it is. */
	CLEANUP_CLOSE int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return read_whole(fd, bytes, capacity);
}

static int write_whole(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t put = write(fd, bytes, len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		bytes += put;
		len -= (size_t)put;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int dir_rename_new(int dir_fd, const char *from, const char *to)
{
	if (renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system without RENAME_NOREPLACE (NFS, some FUSE): link() does not replace. */
	if (linkat(dir_fd, from, dir_fd, to, 0) < 0)
		return -errno;
	return unlinkat(dir_fd, from, 0) < 0 ? -errno : 0;
}

/*
 * The new file takes the old one's mode and owner, as far as we may: a descriptor of QEMU's
 * own user stays readable to it.  A daemon without the right to give files
 * away cannot keep an owner other than itself; that is no reason to refuse the update.
 */
static int take_over_owner(int fd, const struct stat *old)
{
	if (fchown(fd, old->st_uid, old->st_gid) < 0 && errno != EPERM)
		return -errno;
	return fchmod(fd, old->st_mode & 0777) < 0 ? -errno : 0;
}

int dir_write_small(int dir_fd, const char *name, const char *bytes, size_t len, bool must_be_new)
{
	char tmp[DS_FILE_NAME_BYTES];
	struct stat old;
	bool replaces = fstatat(dir_fd, name, &old, AT_SYMLINK_NOFOLLOW) == 0;
	int fd, rc;

	dir_tmp_name(name, tmp);
	/* A stray one of an interrupted update: never complete, never anybody's. */
	if (unlinkat(dir_fd, tmp, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
	if (fd < 0)
		return -errno;
	rc = replaces ? take_over_owner(fd, &old) : 0;
	if (!rc)
		rc = write_whole(fd, bytes, len);
	close(fd);
	if (!rc && must_be_new)
		rc = dir_rename_new(dir_fd, tmp, name);
	else if (!rc && renameat(dir_fd, tmp, dir_fd, name) < 0)
		rc = -errno;
	if (rc) {
		unlinkat(dir_fd, tmp, 0);
		return rc;
	}
	return fsync(dir_fd) < 0 ? -errno : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_dir.c - dir://, a folder of the host's own file systems: every walk is beneath the root
 * (beneath.h), locks are the kernel's (disk_lock.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file.h"
#include "datastores/beneath.h"
#include "datastores/ds_dir.h"
#include "datastores/ds_tree.h"
#include "datastores/provision.h"

struct ds_dir {
	struct ds_tree tree;
	int root_fd;
	bool said_no_direct;
};

static const struct tree_ops dir_files;

static struct ds_dir *ds_dir_of(struct datastore *ds)
{
	return container_of(ds, struct ds_dir, tree.ds);
}

int ds_dir_root(struct datastore *ds)
{
	return ds_dir_of(ds)->root_fd;
}

static int root_of(struct ds_tree *tree)
{
	return ds_dir_of(&tree->ds)->root_fd;
}

/* ---- open ---- */

static bool is_below(const char *path, const char *root)
{
	size_t len = strlen(root);

	if (strcmp(root, "/") == 0)
		return true;
	return strncmp(path, root, len) == 0 && (path[len] == 0 || path[len] == '/');
}

/* Judged on where the opened descriptor really is, so no link can be changed in between. */
static int check_allowed(int root_fd, const char *const *allowed, struct err *err)
{
	char link[64], real[PATH_MAX];
	ssize_t len;

	if (!allowed)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", root_fd);
	len = readlink(link, real, sizeof(real) - 1);
	if (len < 0 || len == (ssize_t)sizeof(real) - 1)
		return err_set(err, ERR_DS_NOT_ALLOWED, -EPERM,
			       "cannot tell where the datastore's folder really is");
	real[len] = 0;
	for (; *allowed; allowed++) {
		CLEANUP_FREE char *root = realpath(*allowed, NULL);

		if (root && is_below(real, root))
			return 0;
	}
	return err_set(err, ERR_DS_NOT_ALLOWED, -EPERM,
		       "'%.200s' lies in none of the folders that datastores may lie in", real);
}

static int open_failed(int rc, const char *path, struct err *err)
{
	enum err_id id = rc == -EACCES || rc == -EPERM ? ERR_DS_PERMISSION
			 : rc == -EROFS		       ? ERR_DS_READ_ONLY
						       : ERR_DS_UNREACHABLE;

	return err_set(err, id, rc, "cannot use '%.180s' as a datastore: %s", path,
		       err_strerror(rc));
}

static int open_root(const char *path, const char *const *allowed, int *out, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return open_failed(-errno, path, err);
	rc = check_allowed(fd, allowed, err);
	if (rc)
		goto close_root;
	if (faccessat(fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) < 0) {
		rc = open_failed(-errno, path, err);
		goto close_root;
	}
	rc = beneath_probe(fd, err);
	if (rc)
		goto close_root;
	*out = fd;
	return 0;

close_root:
	close(fd);
	return rc;
}

static int dir_open(const struct ds_url *url, const struct ds_config *config,
		    struct datastore **out, struct err *err)
{
	struct ds_dir *dir = calloc(1, sizeof(*dir));
	int rc;

	if (!dir)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = open_root(url->path, config->allowed_roots, &dir->root_fd, err);
	if (rc) {
		free(dir);
		return rc;
	}
	dir->tree.ds.ops = &ds_dir_ops;
	dir->tree.files = &dir_files;
	*out = &dir->tree.ds;
	return 0;
}

static void dir_close(struct datastore *ds)
{
	struct ds_dir *dir = ds_dir_of(ds);

	close(dir->root_fd);
	free(dir);
}

static int dir_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	struct statvfs fs;
	int rc = fstatvfs(ds_dir_of(ds)->root_fd, &fs) < 0 ? -errno : 0;

	datastore_set_state(ds, rc ? DS_DOWN : DS_UP);
	if (rc)
		return err_set(err, ERR_DS_IO, rc, "cannot ask the datastore %s for its space: %s",
			       ds->name, err_strerror(rc));
	out->capacity_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
	out->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return 0;
}

/* ---- below the root ---- */

static int dir_plain_path(struct ds_tree *tree, const char *path, char *plain, struct err *err)
{
	return beneath_plain_path(root_of(tree), path, plain, err);
}

static int dir_open_dir(struct ds_tree *tree, const char *path, struct tree_node *out,
			struct err *err)
{
	*out = TREE_NODE_NONE;
	out->fd = beneath_open_err(root_of(tree), path, O_RDONLY | O_DIRECTORY, err);
	return out->fd < 0 ? out->fd : 0;
}

static int dir_make_parents(struct ds_tree *tree, const char *path, unsigned *made,
			    struct err *err)
{
	return beneath_make_parents(root_of(tree), path, made, err);
}

static void dir_remove_parents(struct ds_tree *tree, const char *path, unsigned made)
{
	beneath_remove_parents(root_of(tree), path, made);
}

/* ---- names ---- */

static void stat_take(struct tree_stat *out, const struct stat *st)
{
	*out = (struct tree_stat){
		.kind = S_ISREG(st->st_mode)   ? TREE_FILE
			: S_ISDIR(st->st_mode) ? TREE_DIR
			: S_ISLNK(st->st_mode) ? TREE_LINK
					       : TREE_OTHER,
		.size_bytes = (uint64_t)st->st_size,
		.allocated_bytes = (uint64_t)st->st_blocks * 512,
		.modified_s = st->st_mtim.tv_sec,
	};
}

static ssize_t dir_files_read_small(struct ds_tree *tree, const struct tree_node *dir,
				    const char *name, char *bytes, size_t capacity)
{
	(void)tree;
	return dir_read_small(dir->fd, name, bytes, capacity);
}

static int dir_files_write_small(struct ds_tree *tree, const struct tree_node *dir,
				 const char *name, const char *bytes, size_t len,
				 bool must_be_new)
{
	(void)tree;
	return dir_write_small(dir->fd, name, bytes, len, must_be_new);
}

static int dir_files_rename_new(struct ds_tree *tree, const struct tree_node *dir,
				const char *from, const char *to)
{
	(void)tree;
	return dir_rename_new(dir->fd, from, to);
}

static int dir_stat(struct ds_tree *tree, const struct tree_node *dir, const char *name,
		    struct tree_stat *out)
{
	struct stat st;

	(void)tree;
	if (fstatat(dir->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	stat_take(out, &st);
	return 0;
}

static int dir_remove(struct ds_tree *tree, const struct tree_node *dir, const char *name)
{
	(void)tree;
	return unlinkat(dir->fd, name, 0) < 0 ? -errno : 0;
}

static int dir_sync_dir(struct ds_tree *tree, const struct tree_node *dir)
{
	(void)tree;
	return fsync(dir->fd) < 0 ? -errno : 0;
}

static int dir_list(struct ds_tree *tree, const struct tree_node *dir,
		    int (*each)(const char *name, const struct tree_stat *known, void *user),
		    void *user)
{
	int fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 3);
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	int rc = 0;

	(void)tree;
	if (!entries) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (errno = 0; rc == 0 && (entry = readdir(entries)); errno = 0)
		rc = each(entry->d_name, NULL, user);
	if (rc == 0 && errno)
		rc = -errno;
	closedir(entries);
	return rc;
}

static int dir_stat_link(struct ds_tree *tree, const char *folder, const char *name,
			 struct tree_stat *out)
{
	char path[DS_PATH_BYTES + DS_FILE_NAME_BYTES];
	struct stat st;
	int fd, rc;

	snprintf(path, sizeof(path), "%s%s%s", folder, folder[0] ? "/" : "", name);
	fd = beneath_open(root_of(tree), path, O_PATH, 0);
	if (fd < 0)
		return fd;
	rc = fstat(fd, &st) < 0 ? -errno : 0;
	close(fd);
	if (!rc)
		stat_take(out, &st);
	return rc;
}

static bool dir_may_write(struct ds_tree *tree, const struct tree_node *dir, const char *name)
{
	(void)tree;
	return faccessat(dir->fd, name, W_OK, AT_EACCESS) == 0;
}

/* ---- files ---- */

static int open_plain(const struct tree_node *dir, const char *name, int flags)
{
	/* O_NONBLOCK: a FIFO of that name must not hang us; it means nothing to a plain file. */
	int fd = openat(dir->fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -EINVAL;
}

/* For I/O: O_DIRECT where the file system has it; said once per datastore where it has not. */
static int dir_open_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			 bool writes, bool for_io, struct tree_node *out)
{
	struct ds_dir *ds = ds_dir_of(&tree->ds);
	int flags = writes ? O_RDWR : O_RDONLY;

	*out = TREE_NODE_NONE;
	out->fd = open_plain(dir, name, for_io ? flags | O_DIRECT : flags);
	if (out->fd != -EINVAL || !for_io)
		return MIN(out->fd, 0);
	out->fd = open_plain(dir, name, flags);
	if (out->fd >= 0 && !ds->said_no_direct) {
		ds->said_no_direct = true;
		log_warn("datastore", "%s: this file system takes no direct I/O: the page cache is"
				      " used", tree->ds.name);
	}
	return MIN(out->fd, 0);
}

static int dir_create_file(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			   struct tree_node *out)
{
	(void)tree;
	*out = TREE_NODE_NONE;
	out->fd = openat(dir->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
	return out->fd < 0 ? -errno : 0;
}

static void dir_close_node(struct ds_tree *tree, struct tree_node *node)
{
	(void)tree;
	if (node->fd >= 0)
		close(node->fd);
	*node = TREE_NODE_NONE;
}

static int dir_stat_file(struct ds_tree *tree, const struct tree_node *file,
			 struct tree_stat *out)
{
	struct stat st;

	(void)tree;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	stat_take(out, &st);
	return 0;
}

static ssize_t dir_read_file(struct ds_tree *tree, const struct tree_node *file, void *bytes,
			     size_t len_bytes, uint64_t offset_bytes)
{
	ssize_t len = pread(file->fd, bytes, len_bytes, (off_t)offset_bytes);

	(void)tree;
	return len < 0 ? -errno : len;
}

static bool dir_is_named(struct ds_tree *tree, const struct tree_node *dir, const char *name,
			 const struct tree_node *file)
{
	(void)tree;
	return dir_names_fd(dir->fd, name, file->fd);
}

/* The same file without O_DIRECT and without a part in the lock, for odd lengths. */
static int reopen_buffered(int fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	fd = open(link, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int dir_grow(struct ds_tree *tree, const struct tree_node *file, uint64_t old_bytes,
		    uint64_t new_bytes, enum provision provision, const char *path,
		    struct err *err)
{
	CLEANUP_CLOSE int fd = reopen_buffered(file->fd);

	(void)tree;
	if (fd < 0)
		return err_set(err, ERR_DS_IO, fd, "cannot open '%.160s' again: %s", path,
			       err_strerror(fd));
	return provision_grow(fd, old_bytes, new_bytes, provision, path, err);
}

static bool dir_is_unwritten(struct ds_tree *tree, const struct tree_node *file)
{
	(void)tree;
	return lseek(file->fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

/*
 * What the kernel asks of direct I/O on this file, as blk_file will find; 512 where it does
 * not tell, or where the size does not allow direct I/O.
 */
static uint32_t dir_sector_bytes(struct ds_tree *tree, const struct tree_node *file,
				 uint64_t size_bytes)
{
	(void)tree;
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align > 512 &&
	    stx.stx_dio_offset_align <= 4096 && size_bytes % stx.stx_dio_offset_align == 0)
		return stx.stx_dio_offset_align;
#else
	(void)file;
	(void)size_bytes;
#endif
	return 512;
}

/* ---- disks ---- */

/* The lock is the description's: it ends with its last descriptor (R-J7). */
static int dir_lock(struct ds_tree *tree, const struct tree_claim *claim, struct tree_lock **out,
		    struct err *err)
{
	(void)tree;
	*out = NULL;
	if (claim->wait_ms == TREE_WAIT_SOON)
		return disk_lock_take_soon(claim->file->fd, claim->mode, claim->path, err);
	return disk_lock_take(claim->file->fd, claim->mode, claim->wait_ms, claim->path, err);
}

static int dir_make_dev(struct tree_disk *disk, struct loop *io_loop, bool as_target,
			struct blk_dev **out, struct err *err)
{
	const struct ds_disk *base = &disk->disk;
	struct blk_file_options options = {
		.read_only = base->info.read_only,
		.submit_thread = as_target,     /* R5 */
		.reads_zero = base->info.reads_zero,
		.name = base->path,
	};
	int fd = fcntl(disk->file.fd, F_DUPFD_CLOEXEC, 3);
	int rc;

	if (fd < 0)
		return err_set(err, ERR_NO_MEMORY, -errno, "cannot open '%.160s' for a device: %s",
			       base->path, err_strerror(errno));
	rc = blk_file_new(io_loop, fd, &options, out, err);
	if (rc)
		close(fd);
	return rc;
}

/* The kernel ends a lock with its holder: a dead one's is never left, there is nothing to break. */
static int dir_break_lock(struct ds_tree *tree, const struct tree_claim *claim, struct err *err)
{
	int rc = disk_lock_take(claim->file->fd, DISK_LOCK_WRITE, 0, claim->path, err);

	(void)tree;
	if (rc == -EAGAIN)
		err_remedy(err, "A local lock lasts as long as the program that holds it:"
				" stop that program.");
	return rc;
}

static const struct tree_ops dir_files = {
	.fail = beneath_fail,
	.plain_path = dir_plain_path,
	.open_dir = dir_open_dir,
	.make_parents = dir_make_parents,
	.remove_parents = dir_remove_parents,
	.read_small = dir_files_read_small,
	.write_small = dir_files_write_small,
	.rename_new = dir_files_rename_new,
	.stat = dir_stat,
	.remove = dir_remove,
	.sync_dir = dir_sync_dir,
	.list = dir_list,
	.stat_link = dir_stat_link,
	.may_write = dir_may_write,
	.open_file = dir_open_file,
	.create_file = dir_create_file,
	.close = dir_close_node,
	.stat_file = dir_stat_file,
	.read_file = dir_read_file,
	.is_named = dir_is_named,
	.grow = dir_grow,
	.is_unwritten = dir_is_unwritten,
	.sector_bytes = dir_sector_bytes,
	.lock = dir_lock,
	.make_dev = dir_make_dev,
	.break_lock = dir_break_lock,
};

const struct datastore_ops ds_dir_ops = {
	.kind = "dir",
	.lock_scheme = "ofd",
	.has_identity = true,
	.open = dir_open,
	.close = dir_close,
	.space = dir_space,
	.list = tree_list,
	.disk_create = tree_disk_create,
	.disk_stat = tree_disk_stat,
	.disk_open = tree_disk_open,
	.disk_delete = tree_disk_delete,
	.disk_unlock = tree_disk_unlock,
	.file_read = dir_file_read,
	.file_write = dir_file_write,
	.file_delete = dir_file_delete,
	.file_descriptor = dir_file_descriptor,
};

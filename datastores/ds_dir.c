/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/ds_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "datastores/beneath.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"

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
	dir->ds.ops = &ds_dir_ops;
	*out = &dir->ds;
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

/* ---- listing ---- */

struct lister {
	struct ds_dir *dir;
	const char *folder;             /* "" at the root */
	int dir_fd;
	struct vmdk *vmdk;              /* scratch */
	char text[VMDK_TEXT_BYTES];     /* scratch */
	uint64_t unnameable_count;
};

/* Files that lie in a VM's folder and are surely no raw disks. */
static bool is_other(const char *name)
{
	static const char *const suffixes[] = {
		".log",	  ".nvram", ".vmsd", ".vmxf", ".vmss",	".vmsn", ".vmem", ".vswp",
		".iso",	  ".lck",   ".txt",  ".json", ".qcow2", ".vdi",	 ".vhd",  ".vhdx",
		".qed",	  ".ova",   ".ovf",  ".gz",   ".xz",	".zst",	 ".zip",  ".tar",
		".vmtx",
	};

	for (size_t i = 0; i < ARRAY_COUNT(suffixes); i++)
		if (ds_path_has_suffix(name, suffixes[i]))
			return true;
	return false;
}

/* A descriptor counts for its disk: the guest's size, the data file's space. */
static bool list_descriptor(struct lister *lister, struct ds_file *file)
{
	struct stat st;
	ssize_t len = dir_read_small(lister->dir_fd, file->name, lister->text,
				     sizeof(lister->text));

	if (len < 0 || vmdk_parse(lister->text, (size_t)len, file->name, lister->vmdk, NULL))
		return false;
	file->size_bytes = lister->vmdk->size_bytes;
	if (fstatat(lister->dir_fd, lister->vmdk->data_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		file->allocated_bytes = (uint64_t)st.st_blocks * 512;
		file->modified_s = MAX(file->modified_s, (int64_t)st.st_mtim.tv_sec);
	}
	return true;
}

static enum ds_file_kind kind_of(struct lister *lister, struct ds_file *file)
{
	if (dir_is_companion(file->name))
		return DS_FILE_DISK_DATA;
	if (ds_path_has_suffix(file->name, ".vmx"))
		return DS_FILE_VMX;
	if (ds_path_has_suffix(file->name, VMDK_SUFFIX))
		return list_descriptor(lister, file) ? DS_FILE_DISK : DS_FILE_OTHER;
	if (is_other(file->name) || provision_check_size(file->size_bytes, NULL))
		return DS_FILE_OTHER;
	return DS_FILE_DISK;
}

/* The entry as it stands, or what a link inside the root leads to.  False: not to be listed. */
static bool stat_entry(struct lister *lister, const char *name, struct stat *st)
{
	char path[DS_PATH_BYTES + DS_FILE_NAME_BYTES];
	int fd;
	bool ok;

	if (fstatat(lister->dir_fd, name, st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (!S_ISLNK(st->st_mode))
		return true;
	snprintf(path, sizeof(path), "%s%s%s", lister->folder, lister->folder[0] ? "/" : "", name);
	fd = beneath_open(lister->dir->root_fd, path, O_PATH, 0);
	if (fd < 0)
		return false;
	ok = fstat(fd, st) == 0;
	close(fd);
	return ok;
}

static bool is_hidden(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	       ds_path_has_suffix(name, DS_TMP_SUFFIX);
}

/* -ENOMEM, 0, or 1 when the list is full. */
static int list_entry_add(struct lister *lister, const char *name, struct ds_file_list *list)
{
	struct ds_file *file;
	struct stat st;
	bool full;

	if (is_hidden(name))
		return 0;
	if (!ds_path_part_is_valid(name)) {
		lister->unnameable_count++;
		return 0;
	}
	if (!stat_entry(lister, name, &st))
		return 0;
	file = ds_file_list_add(list, &full);
	if (!file)
		return full ? 1 : -ENOMEM;
	snprintf(file->name, sizeof(file->name), "%s", name);
	file->modified_s = st.st_mtim.tv_sec;
	file->kind = S_ISDIR(st.st_mode) ? DS_FILE_DIR : DS_FILE_OTHER;
	if (!S_ISREG(st.st_mode))
		return 0;
	file->size_bytes = (uint64_t)st.st_size;
	file->allocated_bytes = (uint64_t)st.st_blocks * 512;
	file->kind = kind_of(lister, file);
	return 0;
}

static int list_entries(struct lister *lister, DIR *entries, struct ds_file_list *list,
			struct err *err)
{
	struct dirent *entry;
	int rc = 0;

	for (errno = 0; rc == 0 && (entry = readdir(entries)); errno = 0)
		rc = list_entry_add(lister, entry->d_name, list);
	if (rc == 0 && errno)
		return beneath_fail(err, -errno, "list", lister->folder);
	if (lister->unnameable_count)
		log_warn("datastore", "%s: '%s' has %llu files whose names cannot be shown or used",
			 lister->dir->ds.name, lister->folder,
			 (unsigned long long)lister->unnameable_count);
	return rc < 0 ? err_set(err, ERR_NO_MEMORY, rc, "out of memory") : 0;
}

static int dir_list(struct datastore *ds, const char *folder, struct ds_file_list *out,
		    struct err *err)
{
	struct ds_dir *dir = ds_dir_of(ds);
	int fd = beneath_open(dir->root_fd, folder, O_RDONLY | O_DIRECTORY, 0);
	struct lister *lister = malloc(sizeof(*lister));
	struct vmdk *vmdk = malloc(sizeof(*vmdk));
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	int rc;

	if (fd < 0) {
		rc = beneath_fail(err, fd, "list", folder);
	} else if (!entries || !lister || !vmdk) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	} else {
		lister->dir = dir;
		lister->folder = folder;
		lister->dir_fd = fd;
		lister->vmdk = vmdk;
		lister->unnameable_count = 0;
		rc = list_entries(lister, entries, out, err);
	}
	if (entries)
		closedir(entries);
	else if (fd >= 0)
		close(fd);
	free(vmdk);
	free(lister);
	return rc;
}

const struct datastore_ops ds_dir_ops = {
	.kind = "dir",
	.lock_scheme = "ofd",
	.has_identity = true,
	.open = dir_open,
	.close = dir_close,
	.space = dir_space,
	.list = dir_list,
	.disk_create = dir_disk_create,
	.disk_stat = dir_disk_stat,
	.disk_open = dir_disk_open,
	.disk_delete = dir_disk_delete,
	.disk_unlock = dir_disk_unlock,
	.file_read = dir_file_read,
	.file_write = dir_file_write,
	.file_delete = dir_file_delete,
	.file_descriptor = dir_file_descriptor,
};

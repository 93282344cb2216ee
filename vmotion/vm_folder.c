/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/vm_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "blkmirror/base/log.h"

#define IMAGE_CHUNK_BYTES (1u << 20)
#define SUSPEND_KEY "blkmirror.suspend.fileName"

/* ---- the VMX ---- */

static const struct vm_move_disk *move_of(const struct vm_drive *drive,
					  const struct vm_move_disk *disks, uint32_t disk_count)
{
	for (uint32_t i = 0; i < disk_count; i++)
		if (strcmp(disks[i].drive, drive->name) == 0 &&
		    strcmp(disks[i].source_datastore, drive->datastore) == 0 &&
		    strcmp(disks[i].source_path, drive->path) == 0)
			return &disks[i];
	return NULL;
}

/* Let key name datastore:path in a VMX at home:vmx_path, if it does not already. */
static int set_file(struct vmx *vmx, const char *key, const char *home, const char *vmx_path,
		    const char *datastore, const char *path, bool *changed, struct err *err)
{
	char text[VMX_VALUE_BYTES], named[DS_NAME_BYTES], at[DS_PATH_BYTES];
	int rc = vmx_get(vmx, key, text, sizeof(text), err);

	if (rc)
		return rc;
	if (vm_file_parse(text, home, vmx_path, named, at, NULL) == 0 &&
	    strcmp(named, datastore) == 0 && strcmp(at, path) == 0)
		return 0;
	vm_file_format(datastore, path, home, vmx_path, text);
	*changed = true;
	return vmx_set(vmx, key, text, err);
}

int vm_vmx_rewrite(struct vmx *vmx, const char *datastore, const char *home, const char *path,
		   const struct vm_move_disk *disks, uint32_t disk_count, bool *changed,
		   struct err *err)
{
	struct vm_findings *findings = calloc(1, sizeof(*findings));
	struct vm_config *config = NULL;
	int rc = findings ? vm_config_read(vmx, datastore, path, &config, findings) : -ENOMEM;

	*changed = false;
	if (rc == -EINVAL)
		*err = *vm_findings_first_error(findings);
	else if (rc)
		err_set(err, ERR_NO_MEMORY, rc, "out of memory");
	for (uint32_t i = 0; !rc && i < config->drive_count; i++) {
		const struct vm_drive *drive = &config->drives[i];
		const struct vm_move_disk *move = move_of(drive, disks, disk_count);
		char key[64];

		if (!drive->has_file)
			continue;
		snprintf(key, sizeof(key), "%s.fileName", drive->name);
		rc = set_file(vmx, key, home, path, move ? move->target_datastore : drive->datastore,
			      move ? move->target_path : drive->path, changed, err);
	}
	if (!rc && config->suspend_path[0])
		rc = set_file(vmx, SUSPEND_KEY, home, path, home, config->suspend_path, changed,
			      err);
	free(config);
	free(findings);
	return rc;
}

/* ---- which files ---- */

/* The path beside the VMX; false: it would be too long. */
static bool beside(const char *vmx_path, const char *name, char out[DS_PATH_BYTES])
{
	size_t parent_len;

	ds_path_last(vmx_path, &parent_len);
	return (size_t)snprintf(out, DS_PATH_BYTES, "%.*s%s%s", (int)parent_len, vmx_path,
				parent_len ? "/" : "", name) < DS_PATH_BYTES;
}

/* Of a drive, or the memory image: these have ways of their own. */
static bool is_named(const struct vm_config *config, const char *path)
{
	if (strcmp(config->suspend_path, path) == 0)
		return true;
	for (uint32_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].has_file &&
		    strcmp(config->drives[i].datastore, config->home_datastore) == 0 &&
		    strcmp(config->drives[i].path, path) == 0)
			return true;
	return false;
}

/* What a machine makes anew when it starts, a disk that cannot be read, an image of before. */
static bool goes_along(const struct vm_config *config, const struct ds_file *file,
		       const char *path)
{
	static const char *const stay[] = { ".vmdk", ".lck", ".vswp", ".vmem", ".vmss",
					    ".blkmirror-vmss" };

	if (file->kind != DS_FILE_OTHER || is_named(config, path))
		return false;
	for (size_t i = 0; i < ARRAY_COUNT(stay); i++)
		if (ds_path_has_suffix(file->name, stay[i]))
			return false;
	return true;
}

/* ---- reading ---- */

static void leave(struct vm_folder *folder, const char *name)
{
	if (!folder->left_count++)
		snprintf(folder->left, sizeof(folder->left), "%s", name);
}

/* It may grow or go while we look: what is read counts. */
static int read_file(struct datastore *ds, const char *path, const struct ds_file *listed,
		     struct vm_folder *out, struct err *err)
{
	size_t capacity = VM_FOLDER_FILE_BYTES, len;
	struct vm_folder_file *file = &out->files[out->count];
	char *bytes;
	int rc;

	if (listed->size_bytes > capacity || out->count == VM_FOLDER_FILES_MAX ||
	    listed->size_bytes > VM_FOLDER_TOTAL_BYTES - out->total_bytes) {
		leave(out, listed->name);
		return 0;
	}
	capacity = MIN(capacity, VM_FOLDER_TOTAL_BYTES - out->total_bytes);
	bytes = malloc(MAX(capacity, 1));
	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(ds, path, bytes, capacity, &len, err);
	if (rc) {
		free(bytes);
		if (rc == -ENOENT)
			return 0;
		if (rc != -ELOOP && rc != -EFBIG && rc != -EINVAL)
			return rc;
		leave(out, listed->name);       /* a link, no plain file, or grown meanwhile */
		return 0;
	}
	file->bytes = realloc(bytes, MAX(len, 1));
	if (!file->bytes)
		file->bytes = bytes;
	file->len = len;
	snprintf(file->name, sizeof(file->name), "%s", listed->name);
	out->total_bytes += len;
	out->count++;
	return 0;
}

int vm_folder_read(struct datastore *ds, const struct vm_config *config, struct vm_folder *out,
		   struct err *err)
{
	struct ds_file_list list = { 0 };
	char folder[DS_PATH_BYTES], path[DS_PATH_BYTES];
	int rc;

	*out = (struct vm_folder){ 0 };
	vm_config_folder(config, folder);
	if (!folder[0])
		return 0;
	out->files = calloc(VM_FOLDER_FILES_MAX, sizeof(*out->files));
	if (!out->files)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = datastore_list(ds, folder, &list, err);
	for (uint32_t i = 0; !rc && i < list.count; i++) {
		if (!beside(config->home_path, list.files[i].name, path))
			leave(out, list.files[i].name);
		else if (goes_along(config, &list.files[i], path))
			rc = read_file(ds, path, &list.files[i], out, err);
	}
	ds_file_list_release(&list);
	return rc;
}

void vm_folder_release(struct vm_folder *folder)
{
	for (uint32_t i = 0; i < folder->count; i++)
		free(folder->files[i].bytes);
	free(folder->files);
	*folder = (struct vm_folder){ 0 };
}

/* ---- writing and deleting ---- */

/* 0: the very same bytes are there; 1: others; -ENOENT: nothing; or -errno. */
static int compare(struct datastore *ds, const char *path, const struct vm_folder_file *file,
		   struct err *err)
{
	char *bytes = malloc(file->len + 1);    /* one more: a longer file is another */
	size_t len;
	int rc;

	if (!bytes)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ds_file_read(ds, path, bytes, file->len + 1, &len, err);
	if (rc == -EFBIG || rc == -ELOOP || rc == -EINVAL)
		rc = 1;
	else if (!rc)
		rc = len != file->len || memcmp(bytes, file->bytes, len) != 0;
	free(bytes);
	return rc;
}

static int write_file(struct datastore *ds, const char *path, const struct vm_folder_file *file,
		      struct err *err)
{
	int rc = compare(ds, path, file, err);

	if (rc == 0)
		return 0;
	if (rc == 1)
		return err_set(err, ERR_DISK_EXISTS, -EEXIST, "'%s:%.160s' is there already",
			       datastore_name(ds), path);
	if (rc != -ENOENT)
		return rc;
	rc = ds_file_write(ds, path, file->bytes, file->len, true, err);
	if (rc)
		return rc;
	rc = compare(ds, path, file, err);
	if (rc == 1)
		return err_set(err, ERR_DS_IO, -EIO, "'%s:%.160s' does not read as it was written",
			       datastore_name(ds), path);
	return rc;
}

int vm_folder_write(struct datastore *ds, const char *vmx_path, const struct vm_folder *folder,
		    struct err *err)
{
	char path[DS_PATH_BYTES];
	int rc = 0;

	for (uint32_t i = 0; !rc && i < folder->count; i++) {
		if (!beside(vmx_path, folder->files[i].name, path))
			return err_set(err, ERR_DS_PATH_ESCAPE, -ENAMETOOLONG,
				       "the path of '%.100s' is too long", folder->files[i].name);
		rc = write_file(ds, path, &folder->files[i], err);
	}
	return rc;
}

void vm_folder_delete(struct datastore *ds, const char *vmx_path, const struct vm_folder *folder)
{
	char path[DS_PATH_BYTES];
	struct err err = { 0 };

	for (uint32_t i = 0; i < folder->count; i++) {
		if (!beside(vmx_path, folder->files[i].name, path) ||
		    compare(ds, path, &folder->files[i], &err))
			continue;               /* gone, or changed since: not what was copied */
		if (ds_file_delete(ds, path, &err))
			log_warn("vm", "%s stays: %s", path, err.cause);
	}
}

/* ---- the image ---- */

static int image_failed(struct err *err, int rc, const char *what)
{
	return err_set(err, ERR_DS_IO, rc, "cannot %s the memory image: %s", what, err_strerror(rc));
}

static int write_all(int fd, const char *bytes, size_t len, off_t at)
{
	while (len) {
		ssize_t done = pwrite(fd, bytes, len, at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		bytes += done;
		at += done;
		len -= (size_t)done;
	}
	return 0;
}

/* Read the whole file, hash it, and write it to target_fd where that is not -1. */
static int walk_image(int fd, int target_fd, uint64_t *hash, off_t *size)
{
	char *chunk = malloc(IMAGE_CHUNK_BYTES);
	XXH3_state_t *state = XXH3_createState();
	ssize_t got = 0;
	int rc = chunk && state ? 0 : -ENOMEM;

	*size = 0;
	if (!rc)
		XXH3_64bits_reset(state);
	while (!rc && (got = pread(fd, chunk, IMAGE_CHUNK_BYTES, *size)) != 0) {
		if (got < 0) {
			rc = errno == EINTR ? 0 : -errno;
			continue;
		}
		XXH3_64bits_update(state, chunk, (size_t)got);
		if (target_fd >= 0)
			rc = write_all(target_fd, chunk, (size_t)got, *size);
		*size += got;
	}
	if (!rc)
		*hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	free(chunk);
	return rc;
}

int vm_image_copy(int source_fd, int target_fd, struct err *err)
{
	uint64_t source_hash, target_hash;
	off_t source_size, target_size;
	int rc = walk_image(source_fd, target_fd, &source_hash, &source_size);

	if (!rc && fsync(target_fd))
		rc = -errno;
	if (rc)
		return image_failed(err, rc, "copy");
	/* From the store, as far as the kernel lets go of what it has in memory. */
	posix_fadvise(target_fd, 0, 0, POSIX_FADV_DONTNEED);
	rc = walk_image(target_fd, -1, &target_hash, &target_size);
	if (rc)
		return image_failed(err, rc, "read back");
	if (source_hash != target_hash || source_size != target_size)
		return image_failed(err, -EIO, "verify");
	return 0;
}

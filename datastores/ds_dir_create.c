/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_dir_create.c - disks come and go whole.
 *
 * Create:  1. data under a temporary name, locked, with all their space (may take long)
 *          2. meta file, never replacing one
 *          3. data get their name, never replacing one
 * Delete:  1. under the writer's lock: is it who it should be (R-J5)?
 *          2. data   3. meta file   4. the folder, when it is empty
 *
 * A crash before create's 2 leaves a temporary file that nobody lists and the next create or
 * delete at that path removes; between 2 and 3, or delete's 2 and 3, a meta file that says who it is: the
 * journal's clean-up, or the operator, deletes it (D2).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "datastores/beneath.h"
#include "datastores/disk_lock.h"
#include "datastores/ds_dir.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"

/* ---- the unfinished data file ---- */

static int creating_elsewhere(const struct dir_place *place, struct err *err)
{
	return err_set(err, ERR_DISK_IN_USE, -EAGAIN, "the disk '%.160s' is just being created",
		       place->path);
}

/*
 * A temporary file that is there already: somebody's who holds its lock, or a dead one's, which is
 * removed.  Whoever holds the lock of the file that has the name may remove the name.
 */
static int remove_stray(const struct dir_place *place, const char *tmp, struct err *err)
{
	CLEANUP_CLOSE int fd = openat(place->dir_fd, tmp,
				      O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return beneath_fail(err, -errno, "open the unfinished", tmp);
	if (disk_lock_take(fd, DISK_LOCK_WRITE, 0, tmp, NULL))
		return creating_elsewhere(place, err);
	if (!dir_names_fd(place->dir_fd, tmp, fd))
		return creating_elsewhere(place, err);
	if (unlinkat(place->dir_fd, tmp, 0) < 0 && errno != ENOENT)
		return beneath_fail(err, -errno, "remove the unfinished", tmp);
	return 0;
}

/* A new, locked temporary file. */
static int make_tmp(const struct dir_place *place, const char *tmp, struct err *err)
{
	int rc = remove_stray(place, tmp, err);
	int fd;

	if (rc)
		return rc;
	fd = openat(place->dir_fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
	if (fd < 0 && errno == EEXIST)
		return creating_elsewhere(place, err);
	if (fd < 0)
		return beneath_fail(err, -errno, "create", place->path);
	/* Between create and lock another creator may take it for a stray. */
	if (disk_lock_take(fd, DISK_LOCK_WRITE, 0, tmp, NULL) == 0 &&
	    dir_names_fd(place->dir_fd, tmp, fd))
		return fd;
	close(fd);
	return creating_elsewhere(place, err);
}

/* ---- create ---- */

static int check_free(const struct dir_place *place, const char *name, struct err *err)
{
	if (!dir_has(place->dir_fd, name))
		return 0;
	if (strcmp(name, place->data_name) != 0 || place->format == DISK_FORMAT_RAW)
		return err_set(err, ERR_DISK_EXISTS, -EEXIST, "'%.160s' exists", name);
	err_set(err, ERR_DISK_EXISTS, -EEXIST, "the data file '%.160s' exists without its descriptor",
		name);
	err_remedy(err, "Choose another path; or write a descriptor for it, or remove it.");
	return -EEXIST;
}

/* What a new disk's meta file says. */
static int meta_text(const struct dir_place *place, const struct ds_create_spec *spec,
		     struct vmdk *scratch, size_t *len, struct err *err)
{
	struct disk_record record;
	struct vmdk_spec vmdk = {
		.size_bytes = spec->size_bytes, .data_name = place->data_name, .record = &record,
	};
	int rc = disk_record_new(&record, spec->identity, err);

	if (rc)
		return rc;
	record.provision = spec->provision;
	record.fresh = true;
	if (place->format == DISK_FORMAT_RAW) {
		_Static_assert(SIDECAR_BYTES_MAX <= VMDK_TEXT_BYTES, "room for either");
		*len = sidecar_format(&record, scratch->text);
		return 0;
	}
	/* Any number but the two that mean "none"; from the uuid, so that copies differ. */
	memcpy(&vmdk.cid, record.identity.uuid, sizeof(vmdk.cid));
	vmdk.cid &= 0x7fffffff;
	rc = vmdk_format(&vmdk, scratch, err);
	*len = scratch->text_len;
	return rc;
}

static int place_failed(int rc, const char *name, struct err *err)
{
	if (rc == -EEXIST)
		return err_set(err, ERR_DISK_EXISTS, rc, "'%.160s' exists", name);
	return beneath_fail(err, rc, "create", name);
}

static int write_meta(const struct dir_place *place, const struct ds_create_spec *spec,
		      struct err *err)
{
	CLEANUP_FREE struct vmdk *scratch = malloc(sizeof(*scratch));
	size_t len;
	int rc;

	if (!scratch)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = meta_text(place, spec, scratch, &len, err);
	if (rc)
		return rc;
	rc = dir_write_small(place->dir_fd, place->meta_name, scratch->text, len, true);
	return rc ? place_failed(rc, place->meta_name, err) : 0;
}

static int create_files(const struct dir_place *place, const struct ds_create_spec *spec,
			struct err *err)
{
	char tmp[DS_FILE_NAME_BYTES];
	int fd, rc;

	dir_tmp_name(place->data_name, tmp);
	fd = make_tmp(place, tmp, err);                                         /* 1 */
	if (fd < 0)
		return fd;
	rc = provision_grow(fd, 0, spec->size_bytes, spec->provision, place->path, err);
	if (rc)
		goto remove_tmp;
	rc = write_meta(place, spec, err);                                      /* 2 */
	if (rc)
		goto remove_tmp;
	rc = dir_rename_new(place->dir_fd, tmp, place->data_name);              /* 3 */
	if (rc) {
		place_failed(rc, place->data_name, err);
		goto remove_meta;
	}
	if (fsync(place->dir_fd) < 0) {
		rc = beneath_fail(err, -errno, "make durable", place->path);
		goto remove_data;
	}
	close(fd);
	return 0;

remove_data:
	unlinkat(place->dir_fd, place->data_name, 0);
remove_meta:
	unlinkat(place->dir_fd, place->meta_name, 0);
remove_tmp:
	unlinkat(place->dir_fd, tmp, 0);
	close(fd);
	return rc;
}

static int check_new_name(const char *path, struct err *err)
{
	char flat[DS_FILE_NAME_BYTES];
	size_t parent_len;
	const char *last = ds_path_last(path, &parent_len);

	if (dir_is_companion(last) || ds_path_has_suffix(last, ".vmx")) {
		err_set(err, ERR_USAGE, -EINVAL, "a disk cannot be called '%.160s'", last);
		err_remedy(err, "Call it NAME.vmdk, or NAME.img for a raw file.");
		return -EINVAL;
	}
	if (ds_path_has_suffix(last, VMDK_SUFFIX) && !dir_flat_name(last, flat))
		return err_set(err, ERR_DS_PATH_ESCAPE, -EINVAL, "the name '%.160s' is too long",
			       last);
	return 0;
}

int dir_disk_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
		    struct err *err)
{
	struct ds_dir *dir = ds_dir_of(ds);
	struct dir_place place;
	unsigned made = 0;
	int rc = check_new_name(path, err);

	if (rc)
		return rc;
	rc = beneath_make_parents(dir->root_fd, path, &made, err);
	if (rc)
		return rc;
	rc = dir_place_find(dir, path, &place, err);
	if (!rc && place.format == DISK_FORMAT_VMDK)
		rc = dir_flat_name(place.meta_name, place.data_name) ? 0 : -ENAMETOOLONG;
	if (!rc)
		rc = check_free(&place, place.meta_name, err);
	if (!rc)
		rc = check_free(&place, place.data_name, err);
	if (!rc)
		rc = create_files(&place, spec, err);
	dir_place_release(&place);
	if (rc)
		beneath_remove_parents(dir->root_fd, path, made);
	return rc;
}

/* ---- delete ---- */

static int remove_file(const struct dir_place *place, const char *name, struct err *err)
{
	if (unlinkat(place->dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return beneath_fail(err, -errno, "delete", name);
}

static void remove_tmp_of(const struct dir_place *place, const char *name)
{
	char tmp[DS_FILE_NAME_BYTES];

	dir_tmp_name(name, tmp);
	(void)unlinkat(place->dir_fd, tmp, 0);  /* a stray; nobody lists it either */
}

static int remove_all(struct ds_dir *dir, const struct dir_place *place, struct err *err)
{
	int rc = remove_file(place, place->data_name, err);

	/* The data's end is durable before the name of who they were goes (D2). */
	if (!rc && fsync(place->dir_fd) < 0)
		rc = beneath_fail(err, -errno, "make durable the end of", place->path);
	if (!rc)
		rc = remove_file(place, place->meta_name, err);
	if (rc)
		return rc;
	remove_tmp_of(place, place->meta_name);
	if (fsync(place->dir_fd) < 0)
		return beneath_fail(err, -errno, "make durable the end of", place->path);
	beneath_remove_parents(dir->root_fd, place->path, 1);
	return 0;
}

/*
 * There is no such disk; but of one whose creation was cut there may be the data, under
 * their temporary name, and a folder.  What a living creator holds, stays.
 */
static void remove_unborn(struct ds_dir *dir, struct dir_place *place)
{
	char tmp[DS_FILE_NAME_BYTES];

	if (place->format == DISK_FORMAT_VMDK && !dir_flat_name(place->meta_name, place->data_name))
		return;
	dir_tmp_name(place->data_name, tmp);
	if (!dir_has(place->dir_fd, tmp) || remove_stray(place, tmp, NULL))
		return;
	beneath_remove_parents(dir->root_fd, place->path, 1);
}

/* Only the meta file is left, of a create or a delete that was interrupted, or under way. */
static int delete_rest(struct ds_dir *dir, const struct dir_place *place,
		       const struct disk_identity *expected, struct err *err)
{
	char tmp[DS_FILE_NAME_BYTES];
	int rc;

	if (!place->has_meta)
		return err_set(err, ERR_DISK_UNKNOWN, -ENOENT, "there is no disk '%.160s'",
			       place->path);
	dir_tmp_name(place->data_name, tmp);
	rc = remove_stray(place, tmp, err);
	if (!rc)
		rc = disk_record_may_delete(&place->record, expected, place->path, err);
	return rc ? rc : remove_all(dir, place, err);
}

static int delete_locked(struct ds_dir *dir, struct dir_place *place,
			 const struct disk_identity *expected, int fd, struct err *err)
{
	/* Soon: who moved it has just closed it (a relocation's clean-up). */
	int rc = disk_lock_take_soon(fd, DISK_LOCK_WRITE, place->path, err);

	if (!rc)
		rc = dir_place_recheck(place, fd, err);
	if (!rc)
		rc = disk_record_may_delete(&place->record, expected, place->path, err);
	return rc ? rc : remove_all(dir, place, err);
}

int dir_disk_delete(struct datastore *ds, const char *path, const struct disk_identity *expected,
		    struct err *err)
{
	struct ds_dir *dir = ds_dir_of(ds);
	struct dir_place place;
	int rc = dir_place_find(dir, path, &place, err);

	if (!rc)
		rc = dir_place_read(&place, err);
	if (!rc && !dir_has(place.dir_fd, place.data_name)) {
		rc = delete_rest(dir, &place, expected, err);
	} else if (!rc) {
		int fd = dir_place_open_data(&place, O_RDWR, err);

		rc = fd < 0 ? fd : delete_locked(dir, &place, expected, fd, err);
		if (fd >= 0)
			close(fd);
	}
	if (rc == -ENOENT && place.dir_fd >= 0 && !dir_has(place.dir_fd, place.meta_name))
		remove_unborn(dir, &place);
	dir_place_release(&place);
	return rc;
}

/* ---- unlock ---- */

/* The kernel ends a lock with its holder: a dead one's is never left, there is nothing to break. */
int dir_disk_unlock(struct datastore *ds, const char *path, struct err *err)
{
	struct dir_place place;
	int rc = dir_place_find(ds_dir_of(ds), path, &place, err);

	if (!rc)
		rc = dir_place_read(&place, err);
	if (!rc) {
		int fd = dir_place_open_data(&place, O_RDWR, err);

		rc = fd < 0 ? fd : disk_lock_take(fd, DISK_LOCK_WRITE, 0, path, err);
		if (rc == -EAGAIN)
			err_remedy(err, "A local lock lasts as long as the program that holds it:"
					" stop that program.");
		if (fd >= 0)
			close(fd);
	}
	dir_place_release(&place);
	return rc;
}

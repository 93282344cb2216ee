/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_tree_create.c - disks come and go whole.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "datastores/beneath.h"
#include "datastores/ds_tree.h"
#include "datastores/provision.h"
#include "datastores/sidecar.h"

static int place_fail(const struct tree_place *place, struct err *err, int rc, const char *what,
		      const char *name)
{
	return place->tree->files->fail(err, rc, what, name);
}

static int remove_name(const struct tree_place *place, const char *name)
{
	return place->tree->files->remove(place->tree, &place->dir, name);
}

static int sync_dir(const struct tree_place *place)
{
	return place->tree->files->sync_dir(place->tree, &place->dir);
}

static bool is_named(const struct tree_place *place, const char *name,
		     const struct tree_node *file)
{
	return place->tree->files->is_named(place->tree, &place->dir, name, file);
}

static void close_file(const struct tree_place *place, struct tree_node *file)
{
	place->tree->files->close(place->tree, file);
}

/* ---- the unfinished data file ---- */

static int creating_elsewhere(const struct tree_place *place, struct err *err)
{
	return err_set(err, ERR_DISK_IN_USE, -EAGAIN, "the disk '%.160s' is just being created",
		       place->path);
}

/*
 * A temporary file that is there already: somebody's who holds its lock, or a dead one's, which is
 * removed.  Whoever holds the lock of the file that has the name may remove the name.
 */
static int remove_locked_stray(const struct tree_place *place, const char *tmp,
			       const struct tree_node *file, struct err *err)
{
	struct tree_lock *lock;
	int rc;

	if (tree_place_lock(place, file, DISK_LOCK_WRITE, 0, &lock, NULL))
		return creating_elsewhere(place, err);
	if (is_named(place, tmp, file)) {
		rc = remove_name(place, tmp);
		rc = rc && rc != -ENOENT ? place_fail(place, err, rc, "remove the unfinished", tmp)
					 : 0;
	} else {
		rc = creating_elsewhere(place, err);
	}
	tree_unlock(place->tree, lock, true);
	return rc;
}

static int remove_stray(const struct tree_place *place, const char *tmp, struct err *err)
{
	struct tree_node file;
	int rc = place->tree->files->open_file(place->tree, &place->dir, tmp, true, false, &file);

	if (rc == -ENOENT)
		return 0;
	if (rc)
		return place_fail(place, err, rc, "open the unfinished", tmp);
	rc = remove_locked_stray(place, tmp, &file, err);
	close_file(place, &file);
	return rc;
}

/* A new, locked temporary file. */
static int make_tmp(const struct tree_place *place, const char *tmp, struct tree_node *file,
		    struct tree_lock **lock, struct err *err)
{
	int rc = remove_stray(place, tmp, err);

	if (rc)
		return rc;
	rc = place->tree->files->create_file(place->tree, &place->dir, tmp, file);
	if (rc == -EEXIST)
		return creating_elsewhere(place, err);
	if (rc)
		return place_fail(place, err, rc, "create", place->path);
	/* Between create and lock another creator may take it for a stray. */
	if (tree_place_lock(place, file, DISK_LOCK_WRITE, 0, lock, NULL) == 0) {
		if (is_named(place, tmp, file))
			return 0;
		tree_unlock(place->tree, *lock, false);
	}
	close_file(place, file);
	return creating_elsewhere(place, err);
}

/* ---- create ---- */

static int check_free(const struct tree_place *place, const char *name, struct err *err)
{
	if (!tree_place_has(place, name))
		return 0;
	if (strcmp(name, place->data_name) != 0 || place->format == DISK_FORMAT_RAW)
		return err_set(err, ERR_DISK_EXISTS, -EEXIST, "'%.160s' exists", name);
	err_set(err, ERR_DISK_EXISTS, -EEXIST, "the data file '%.160s' exists without its descriptor",
		name);
	err_remedy(err, "Choose another path; or write a descriptor for it, or remove it.");
	return -EEXIST;
}

/* What a new disk's meta file says. */
static int meta_text(const struct tree_place *place, const struct ds_create_spec *spec,
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

static int place_failed(const struct tree_place *place, int rc, const char *name,
			struct err *err)
{
	if (rc == -EEXIST)
		return err_set(err, ERR_DISK_EXISTS, rc, "'%.160s' exists", name);
	return place_fail(place, err, rc, "create", name);
}

static int write_meta(const struct tree_place *place, const struct ds_create_spec *spec,
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
	rc = place->tree->files->write_small(place->tree, &place->dir, place->meta_name,
					     scratch->text, len, true);
	return rc ? place_failed(place, rc, place->meta_name, err) : 0;
}

static int create_files(const struct tree_place *place, const struct ds_create_spec *spec,
			struct err *err)
{
	const struct tree_ops *files = place->tree->files;
	char tmp[DS_FILE_NAME_BYTES];
	struct tree_lock *lock;
	struct tree_node file;
	int rc;

	dir_tmp_name(place->data_name, tmp);
	rc = make_tmp(place, tmp, &file, &lock, err);                           /* 1 */
	if (rc)
		return rc;
	rc = files->grow(place->tree, &file, 0, spec->size_bytes, spec->provision, place->path,
			 err);
	if (!rc)
		rc = tree_confirm(place->tree, lock, place->path, err);
	if (rc)
		goto remove_tmp;
	rc = write_meta(place, spec, err);                                      /* 2 */
	if (rc)
		goto remove_tmp;
	rc = files->rename_new(place->tree, &place->dir, tmp, place->data_name);        /* 3 */
	if (rc) {
		place_failed(place, rc, place->data_name, err);
		goto remove_meta;
	}
	rc = sync_dir(place);
	if (rc) {
		place_fail(place, err, rc, "make durable", place->path);
		goto remove_data;
	}
	tree_unlock(place->tree, lock, false);
	close_file(place, &file);
	return 0;

remove_data:
	(void)remove_name(place, place->data_name);
remove_meta:
	(void)remove_name(place, place->meta_name);
remove_tmp:
	(void)remove_name(place, tmp);
	tree_unlock(place->tree, lock, true);
	close_file(place, &file);
	return rc;
}

static int check_new_name(const char *path, struct err *err)
{
	char flat[DS_FILE_NAME_BYTES];
	size_t parent_len;
	const char *last = ds_path_last(path, &parent_len);

	if (tree_is_companion(last) || ds_path_has_suffix(last, ".vmx")) {
		err_set(err, ERR_USAGE, -EINVAL, "a disk cannot be called '%.160s'", last);
		err_remedy(err, "Call it NAME.vmdk, or NAME.img for a raw file.");
		return -EINVAL;
	}
	if (ds_path_has_suffix(last, VMDK_SUFFIX) && !tree_flat_name(last, flat))
		return err_set(err, ERR_DS_PATH_ESCAPE, -EINVAL, "the name '%.160s' is too long",
			       last);
	return 0;
}

int tree_disk_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
		    struct err *err)
{
	struct ds_tree *tree = ds_tree_of(ds);
	struct tree_place place;
	unsigned made = 0;
	int rc = check_new_name(path, err);

	if (rc)
		return rc;
	rc = tree->files->make_parents(tree, path, &made, err);
	if (rc)
		return rc;
	rc = tree_place_find(tree, path, &place, err);
	if (!rc && place.format == DISK_FORMAT_VMDK)
		rc = tree_flat_name(place.meta_name, place.data_name) ? 0 : -ENAMETOOLONG;
	if (!rc)
		rc = check_free(&place, place.meta_name, err);
	if (!rc)
		rc = check_free(&place, place.data_name, err);
	if (!rc)
		rc = create_files(&place, spec, err);
	tree_place_release(&place);
	if (rc)
		tree->files->remove_parents(tree, path, made);
	return rc;
}

/* ---- delete ---- */

static int remove_file(const struct tree_place *place, const char *name, struct err *err)
{
	int rc = remove_name(place, name);

	return rc && rc != -ENOENT ? place_fail(place, err, rc, "delete", name) : 0;
}

static void remove_tmp_of(const struct tree_place *place, const char *name)
{
	char tmp[DS_FILE_NAME_BYTES];

	dir_tmp_name(name, tmp);
	(void)remove_name(place, tmp);  /* a stray; nobody lists it either */
}

static int sync_end(const struct tree_place *place, struct err *err)
{
	int rc = sync_dir(place);

	return rc ? place_fail(place, err, rc, "make durable the end of", place->path) : 0;
}

static int remove_files(const struct tree_place *place, struct err *err)
{
	int rc = remove_file(place, place->data_name, err);

	/* The data's end is durable before the name of who they were goes (D2). */
	if (!rc)
		rc = sync_end(place, err);
	if (!rc)
		rc = remove_file(place, place->meta_name, err);
	if (rc)
		return rc;
	remove_tmp_of(place, place->meta_name);
	return sync_end(place, err);
}

static void remove_folder(const struct tree_place *place)
{
	place->tree->files->remove_parents(place->tree, place->path, 1);
}

/*
 * There is no such disk; but of one whose creation was cut there may be the data, under
 * their temporary name, and a folder.  What a living creator holds, stays.
 */
static void remove_unborn(struct tree_place *place)
{
	char tmp[DS_FILE_NAME_BYTES];

	if (place->format == DISK_FORMAT_VMDK &&
	    !tree_flat_name(place->meta_name, place->data_name))
		return;
	dir_tmp_name(place->data_name, tmp);
	if (!tree_place_has(place, tmp) || remove_stray(place, tmp, NULL))
		return;
	remove_folder(place);
}

/* Only the meta file is left, of a create or a delete that was interrupted, or under way. */
static int delete_rest(const struct tree_place *place, const struct disk_identity *expected,
		       struct err *err)
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
	if (!rc)
		rc = remove_files(place, err);
	if (!rc)
		remove_folder(place);
	return rc;
}

static int delete_locked(struct tree_place *place, const struct disk_identity *expected,
			 const struct tree_node *file, struct err *err)
{
	/* Soon: who moved it has just closed it (a relocation's clean-up). */
	struct tree_lock *lock;
	int rc = tree_place_lock(place, file, DISK_LOCK_WRITE, TREE_WAIT_SOON, &lock, err);

	if (rc)
		return rc;
	rc = tree_place_recheck(place, file, err);
	if (!rc)
		rc = disk_record_may_delete(&place->record, expected, place->path, err);
	if (!rc)
		rc = tree_confirm(place->tree, lock, place->path, err);
	if (!rc)
		rc = remove_files(place, err);
	tree_unlock(place->tree, lock, rc == 0);
	if (!rc)
		remove_folder(place);
	return rc;
}

int tree_disk_delete(struct datastore *ds, const char *path, const struct disk_identity *expected,
		     struct err *err)
{
	struct tree_place place;
	int rc = tree_place_find(ds_tree_of(ds), path, &place, err);

	if (!rc)
		rc = tree_place_read(&place, err);
	if (!rc && !tree_place_has(&place, place.data_name)) {
		rc = delete_rest(&place, expected, err);
	} else if (!rc) {
		struct tree_node file;

		rc = tree_place_open_data(&place, true, false, &file, err);
		if (!rc)
			rc = delete_locked(&place, expected, &file, err);
		close_file(&place, &file);
	}
	if (rc == -ENOENT && tree_node_is_open(&place.dir) &&
	    !tree_place_has(&place, place.meta_name))
		remove_unborn(&place);
	tree_place_release(&place);
	return rc;
}

/* ---- unlock ---- */

int tree_disk_unlock(struct datastore *ds, const char *path, struct err *err)
{
	struct tree_place place;
	int rc = tree_place_find(ds_tree_of(ds), path, &place, err);

	if (!rc)
		rc = tree_place_read(&place, err);
	if (!rc) {
		struct tree_node file;
		struct tree_claim claim = {
			.dir = &place.dir, .data_name = place.data_name, .file = &file,
			.mode = DISK_LOCK_WRITE, .path = place.path,
		};

		rc = tree_place_open_data(&place, true, false, &file, err);
		if (!rc)
			rc = place.tree->files->break_lock(place.tree, &claim, err);
		close_file(&place, &file);
	}
	tree_place_release(&place);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datastores/ds_tree.h"
#include "datastores/sidecar.h"

bool tree_flat_name(const char *descriptor, char *flat)
{
	size_t base = strlen(descriptor) - strlen(VMDK_SUFFIX);

	if (base + strlen(VMDK_FLAT_SUFFIX) > DS_PATH_PART_BYTES_MAX)
		return false;
	snprintf(flat, DS_FILE_NAME_BYTES, "%.*s" VMDK_FLAT_SUFFIX, (int)base, descriptor);
	return true;
}

bool tree_is_companion(const char *name)
{
	return ds_path_has_suffix(name, VMDK_FLAT_SUFFIX) || ds_path_has_suffix(name, "-ctk.vmdk") ||
	       ds_path_has_suffix(name, "-delta.vmdk") ||
	       ds_path_has_suffix(name, "-sesparse.vmdk") ||
	       ds_path_has_suffix(name, "-rdm.vmdk") || ds_path_has_suffix(name, "-rdmp.vmdk") ||
	       ds_path_has_suffix(name, SIDECAR_SUFFIX);
}

static int refuse_companion(const char *path, struct err *err)
{
	err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL,
		"'%.160s' is a part of a disk, not the disk", path);
	if (ds_path_has_suffix(path, VMDK_FLAT_SUFFIX))
		err_remedy(err, "Name its descriptor: '%.*s.vmdk'.",
			   (int)MIN(strlen(path) - strlen(VMDK_FLAT_SUFFIX), (size_t)160), path);
	else
		err_remedy(err, "Name the disk itself: its .vmdk descriptor, or its raw file.");
	return -EINVAL;
}

int tree_place_find(struct ds_tree *tree, const char *path, struct tree_place *place,
		    struct err *err)
{
	char parent[DS_PATH_BYTES];
	size_t parent_len;
	const char *last;
	int rc;

	*place = (struct tree_place){ .tree = tree, .dir = TREE_NODE_NONE };
	rc = tree->files->plain_path(tree, path, place->path, err);
	if (rc)
		return rc;
	last = ds_path_last(place->path, &parent_len);
	if (tree_is_companion(last))
		return refuse_companion(place->path, err);
	place->format = ds_path_has_suffix(last, VMDK_SUFFIX) ? DISK_FORMAT_VMDK : DISK_FORMAT_RAW;
	if (place->format == DISK_FORMAT_VMDK) {
		strcpy(place->meta_name, last);
	} else {
		snprintf(place->meta_name, sizeof(place->meta_name), "%.*s" SIDECAR_SUFFIX,
			 DS_PATH_PART_BYTES_MAX, last);
		strcpy(place->data_name, last);
	}
	snprintf(parent, sizeof(parent), "%.*s", (int)parent_len, place->path);
	return tree->files->open_dir(tree, parent, &place->dir, err);
}

void tree_place_release(struct tree_place *place)
{
	place->tree->files->close(place->tree, &place->dir);
	free(place->vmdk);
	place->vmdk = NULL;
}

/* ---- the meta file ---- */

static int read_descriptor(struct tree_place *place, struct err *err)
{
	/* One byte more than a descriptor may have: what is longer is judged as too long. */
	CLEANUP_FREE char *bytes = malloc(VMDK_TEXT_BYTES + 1);
	ssize_t len;
	int rc;

	if (!place->vmdk)
		place->vmdk = malloc(sizeof(*place->vmdk));
	if (!bytes || !place->vmdk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	len = place->tree->files->read_small(place->tree, &place->dir, place->meta_name, bytes,
					     VMDK_TEXT_BYTES + 1);
	if (len == -EFBIG)
		len = VMDK_TEXT_BYTES + 1;
	if (len == -EINVAL)
		return err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL, "'%.160s' is no plain file",
			       place->path);
	if (len < 0)
		return place->tree->files->fail(err, (int)len, "read", place->path);
	rc = vmdk_parse(bytes, (size_t)len, place->meta_name, place->vmdk, err);
	if (rc)
		return rc;
	place->has_meta = true;
	place->record = place->vmdk->record;
	strcpy(place->data_name, place->vmdk->data_name);
	return 0;
}

static int read_sidecar(struct tree_place *place, struct err *err)
{
	char bytes[SIDECAR_BYTES_MAX];
	ssize_t len = place->tree->files->read_small(place->tree, &place->dir, place->meta_name,
						     bytes, sizeof(bytes));

	place->has_meta = false;
	disk_record_init(&place->record);
	if (len == -ENOENT)
		return 0;
	if (len == -EFBIG || len == -EINVAL || len == -ELOOP)
		len = 0;        /* judged by the parser: not one of ours */
	if (len < 0)
		return place->tree->files->fail(err, (int)len, "read", place->meta_name);
	place->has_meta = true;
	return sidecar_parse(bytes, (size_t)len, place->meta_name, &place->record, err);
}

int tree_place_read(struct tree_place *place, struct err *err)
{
	return place->format == DISK_FORMAT_VMDK ? read_descriptor(place, err)
						 : read_sidecar(place, err);
}

int tree_place_write(struct tree_place *place, const struct disk_record *record, struct err *err)
{
	const struct tree_ops *files = place->tree->files;
	char text[SIDECAR_BYTES_MAX];
	int rc;

	if (place->format == DISK_FORMAT_VMDK) {
		rc = vmdk_set_record(place->vmdk, record, err);
		if (rc)
			return rc;
		rc = files->write_small(place->tree, &place->dir, place->meta_name, place->vmdk->text,
				     place->vmdk->text_len, false);
	} else {
		rc = files->write_small(place->tree, &place->dir, place->meta_name, text,
				     sidecar_format(record, text), false);
	}
	if (rc)
		return place->tree->files->fail(err, rc, "write", place->meta_name);
	place->has_meta = true;
	place->record = *record;
	return 0;
}

/* ---- the data file ---- */

int tree_place_open_data(const struct tree_place *place, bool writes, bool for_io,
			 struct tree_node *out, struct err *err)
{
	const struct tree_ops *files = place->tree->files;
	int rc;

	*out = TREE_NODE_NONE;
	rc = files->open_file(place->tree, &place->dir, place->data_name, writes, for_io, out);
	if (rc == -ENOENT && place->format == DISK_FORMAT_VMDK)
		return err_set(err, ERR_DISK_BAD_DESCRIPTOR, -ENOENT,
			       "the data file '%.80s' of '%.100s' is missing", place->data_name,
			       place->path);
	if (rc == -EISDIR)
		return err_set(err, ERR_DISK_BAD_FORMAT, rc, "'%.160s' is a folder", place->path);
	if (rc == -EINVAL)
		return err_set(err, ERR_DISK_BAD_FORMAT, rc, "'%.160s' is no plain file",
			       place->data_name);
	return rc ? files->fail(err, rc, "open", place->data_name) : 0;
}

int tree_place_lock(const struct tree_place *place, const struct tree_node *file,
		    enum disk_lock_mode mode, unsigned wait_ms, struct tree_lock **out,
		    struct err *err)
{
	const struct tree_claim claim = {
		.dir = &place->dir, .data_name = place->data_name, .file = file, .mode = mode,
		.wait_ms = wait_ms, .path = place->path,
	};

	*out = NULL;
	return place->tree->files->lock(place->tree, &claim, out, err);
}

int tree_place_recheck(struct tree_place *place, const struct tree_node *file, struct err *err)
{
	char data_name[DS_FILE_NAME_BYTES];
	int rc;

	strcpy(data_name, place->data_name);
	rc = tree_place_read(place, err);
	if (rc)
		return rc;
	if (strcmp(data_name, place->data_name) == 0 &&
	    place->tree->files->is_named(place->tree, &place->dir, place->data_name, file))
		return 0;
	return err_set(err, ERR_DISK_UNKNOWN, -ENOENT,
		       "the disk '%.160s' was deleted or replaced just now", place->path);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datastores/beneath.h"
#include "datastores/ds_dir.h"
#include "datastores/sidecar.h"

bool dir_flat_name(const char *descriptor, char *flat)
{
	size_t base = strlen(descriptor) - strlen(VMDK_SUFFIX);

	if (base + strlen(VMDK_FLAT_SUFFIX) > DS_PATH_PART_BYTES_MAX)
		return false;
	snprintf(flat, DS_FILE_NAME_BYTES, "%.*s" VMDK_FLAT_SUFFIX, (int)base, descriptor);
	return true;
}

bool dir_is_companion(const char *name)
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

int dir_place_find(struct ds_dir *dir, const char *path, struct dir_place *place, struct err *err)
{
	size_t parent_len;
	const char *last;
	int rc;

	*place = (struct dir_place){ .dir_fd = -1 };
	rc = beneath_plain_path(dir->root_fd, path, place->path, err);
	if (rc)
		return rc;
	last = ds_path_last(place->path, &parent_len);
	if (dir_is_companion(last))
		return refuse_companion(place->path, err);
	place->format = ds_path_has_suffix(last, VMDK_SUFFIX) ? DISK_FORMAT_VMDK : DISK_FORMAT_RAW;
	if (place->format == DISK_FORMAT_VMDK) {
		strcpy(place->meta_name, last);
	} else {
		snprintf(place->meta_name, sizeof(place->meta_name), "%.*s" SIDECAR_SUFFIX,
			 DS_PATH_PART_BYTES_MAX, last);
		strcpy(place->data_name, last);
	}
	place->dir_fd = beneath_open_parent(dir->root_fd, place->path, err);
	return place->dir_fd < 0 ? place->dir_fd : 0;
}

void dir_place_release(struct dir_place *place)
{
	if (place->dir_fd >= 0)
		close(place->dir_fd);
	free(place->vmdk);
	place->dir_fd = -1;
	place->vmdk = NULL;
}

/* ---- the meta file ---- */

static int read_descriptor(struct dir_place *place, struct err *err)
{
	/* One byte more than a descriptor may have: what is longer is judged as too long. */
	CLEANUP_FREE char *bytes = malloc(VMDK_TEXT_BYTES + 1);
	ssize_t len;
	int rc;

	if (!place->vmdk)
		place->vmdk = malloc(sizeof(*place->vmdk));
	if (!bytes || !place->vmdk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	len = dir_read_small(place->dir_fd, place->meta_name, bytes, VMDK_TEXT_BYTES + 1);
	if (len == -EFBIG)
		len = VMDK_TEXT_BYTES + 1;
	if (len == -EINVAL)
		return err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL, "'%.160s' is no plain file",
			       place->path);
	if (len < 0)
		return beneath_fail(err, (int)len, "read", place->path);
	rc = vmdk_parse(bytes, (size_t)len, place->meta_name, place->vmdk, err);
	if (rc)
		return rc;
	place->has_meta = true;
	place->record = place->vmdk->record;
	strcpy(place->data_name, place->vmdk->data_name);
	return 0;
}

static int read_sidecar(struct dir_place *place, struct err *err)
{
	char bytes[SIDECAR_BYTES_MAX];
	ssize_t len = dir_read_small(place->dir_fd, place->meta_name, bytes, sizeof(bytes));

	place->has_meta = false;
	disk_record_init(&place->record);
	if (len == -ENOENT)
		return 0;
	if (len == -EFBIG || len == -EINVAL || len == -ELOOP)
		len = 0;        /* judged by the parser: not one of ours */
	if (len < 0)
		return beneath_fail(err, (int)len, "read", place->meta_name);
	place->has_meta = true;
	return sidecar_parse(bytes, (size_t)len, place->meta_name, &place->record, err);
}

int dir_place_read(struct dir_place *place, struct err *err)
{
	return place->format == DISK_FORMAT_VMDK ? read_descriptor(place, err)
						 : read_sidecar(place, err);
}

int dir_place_write(struct dir_place *place, const struct disk_record *record, struct err *err)
{
	char text[SIDECAR_BYTES_MAX];
	int rc;

	if (place->format == DISK_FORMAT_VMDK) {
		rc = vmdk_set_record(place->vmdk, record, err);
		if (rc)
			return rc;
		rc = dir_write_small(place->dir_fd, place->meta_name, place->vmdk->text,
				     place->vmdk->text_len, false);
	} else {
		rc = dir_write_small(place->dir_fd, place->meta_name, text,
				     sidecar_format(record, text), false);
	}
	if (rc)
		return beneath_fail(err, rc, "write", place->meta_name);
	place->has_meta = true;
	place->record = *record;
	return 0;
}

/* ---- the data file ---- */

int dir_place_open_data(const struct dir_place *place, int flags, struct err *err)
{
	/* O_NONBLOCK: a FIFO of that name must not hang us; it means nothing to a plain file. */
	int fd = openat(place->dir_fd, place->data_name,
			flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 && errno == ENOENT && place->format == DISK_FORMAT_VMDK)
		return err_set(err, ERR_DISK_BAD_DESCRIPTOR, -ENOENT,
			       "the data file '%.80s' of '%.100s' is missing", place->data_name,
			       place->path);
	if (fd < 0 && errno == EISDIR)
		return err_set(err, ERR_DISK_BAD_FORMAT, -EISDIR, "'%.160s' is a folder",
			       place->path);
	if (fd < 0 && errno == EINVAL && flags & O_DIRECT)
		return -EINVAL;         /* the caller tries again without */
	if (fd < 0)
		return beneath_fail(err, -errno, "open", place->data_name);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL, "'%.160s' is no plain file",
			       place->data_name);
	}
	return fd;
}

int dir_place_recheck(struct dir_place *place, int data_fd, struct err *err)
{
	char data_name[DS_FILE_NAME_BYTES];
	int rc;

	strcpy(data_name, place->data_name);
	rc = dir_place_read(place, err);
	if (rc)
		return rc;
	if (strcmp(data_name, place->data_name) == 0 &&
	    dir_names_fd(place->dir_fd, place->data_name, data_fd))
		return 0;
	return err_set(err, ERR_DISK_UNKNOWN, -ENOENT,
		       "the disk '%.160s' was deleted or replaced just now", place->path);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_tree_disk.c - a disk that is files in a folder: look, open and lock, serve, mark, grow.
 *
 * Opening: find, open the data, lock them, and only then believe what the meta file says: the
 * holder before us may have marked, moved or deleted the disk while we waited.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "datastores/disk_format.h"
#include "datastores/ds_tree.h"
#include "datastores/provision.h"

static const struct ds_disk_ops tree_disk_ops;

static struct tree_disk *tree_disk_of(struct ds_disk *disk)
{
	return container_of(disk, struct tree_disk, disk);
}

/* ---- what there is ---- */

/*
 * R11: a note of ours that nothing was written yet, which the file must not belie (somebody
 * else may have written to it without our lock).
 */
static bool reads_zero(const struct tree_place *place, const struct tree_node *file)
{
	if (!place->record.fresh)
		return false;
	return place->record.provision == PROVISION_EAGER ||
	       place->tree->files->is_unwritten(place->tree, file);
}

/* The descriptor's size against the data file's. */
static int check_size(const struct tree_place *place, uint64_t file_bytes, struct err *err)
{
	int rc = provision_check_size(file_bytes, err);

	if (rc)
		return rc;
	if (place->format == DISK_FORMAT_VMDK && file_bytes < place->vmdk->size_bytes)
		return err_set(err, ERR_DISK_BAD_DESCRIPTOR, -EINVAL,
			       "'%.80s' is shorter (%" PRIu64 ") than its descriptor says (%" PRIu64
			       ")", place->data_name, file_bytes, place->vmdk->size_bytes);
	return 0;
}

/* What looks like another format is none of our raw disks (disk_format.h). */
static int check_raw(const struct tree_place *place, const struct tree_node *file,
		     uint64_t size_bytes, struct err *err)
{
	/* Aligned and a whole block: for direct I/O. */
	_Alignas(4096) uint8_t head[4096], tail[4096];
	uint64_t tail_at = size_bytes > sizeof(tail) ? (size_bytes - 1) & ~(uint64_t)4095 : 0;
	const struct tree_ops *files = place->tree->files;
	ssize_t head_len = files->read_file(place->tree, file, head, sizeof(head), 0);
	ssize_t tail_len = files->read_file(place->tree, file, tail, sizeof(tail), tail_at);
	int rc = head_len < 0 ? (int)head_len : tail_len < 0 ? (int)tail_len : 0;

	if (rc)
		return err_set(err, ERR_DISK_IO, rc, "cannot read '%.160s': %s", place->path,
			       err_strerror(rc));
	return disk_format_check_raw(head, (size_t)head_len,
				     tail_len >= 512 ? tail + tail_len - 512 : NULL, place->path,
				     err);
}

/*
 * Judge the opened data file and fill *info.  The size is the file's: where it is larger than
 * the descriptor says, a resize was interrupted (see first_write()).
 */
static int look(const struct tree_place *place, const struct tree_node *file,
		struct ds_disk_info *info, struct err *err)
{
	const struct tree_ops *files = place->tree->files;
	const struct disk_record *record = &place->record;
	struct tree_stat st;
	int rc = files->stat_file(place->tree, file, &st);

	if (rc)
		return err_set(err, ERR_DS_IO, rc, "cannot stat '%.160s': %s", place->path,
			       err_strerror(rc));
	/* What it is comes first: a qcow2 file's odd length would be the lesser news. */
	if (place->format == DISK_FORMAT_RAW && !place->has_meta)
		rc = check_raw(place, file, st.size_bytes, err);
	if (!rc)
		rc = check_size(place, st.size_bytes, err);
	if (rc)
		return rc;
	*info = (struct ds_disk_info){
		.size_bytes = st.size_bytes,
		.allocated_bytes = st.allocated_bytes,
		.provision = record->provision != PROVISION_SAME
				     ? record->provision
				     : provision_guess(st.size_bytes, st.allocated_bytes),
		.format = place->format,
		.sector_bytes = files->sector_bytes(place->tree, file, st.size_bytes),
		.reads_zero = reads_zero(place, file),
		.has_identity = true,
		.identity = record->identity,
	};
	return 0;
}

int tree_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		   struct err *err)
{
	struct ds_tree *tree = ds_tree_of(ds);
	struct tree_node file = TREE_NODE_NONE;
	struct tree_place place;
	struct ds_disk_info info;
	int rc = tree_place_find(tree, path, &place, err);

	if (!rc)
		rc = tree_place_read(&place, err);
	if (!rc)
		rc = tree_place_open_data(&place, false, false, &file, err);
	if (!rc)
		rc = look(&place, &file, &info, err);
	if (!rc) {
		info.read_only = !tree->files->may_write(tree, &place.dir, place.data_name);
		*out = info;
	}
	tree->files->close(tree, &file);
	tree_place_release(&place);
	return rc;
}

/* ---- open ---- */

/*
 * Before the first byte can be written: the disk has an identity, which also says that a raw
 * file is raw (sidecar.h); it is not fresh any more (R11); its descriptor tells its size.
 */
static int first_write(struct tree_place *place, struct ds_disk_info *info, struct err *err)
{
	struct disk_record record = place->record;
	bool grown = place->format == DISK_FORMAT_VMDK &&
		     info->size_bytes != place->vmdk->size_bytes;
	int rc;

	if (record.assigned && !record.fresh && !grown)
		return 0;
	if (!record.assigned) {
		rc = disk_record_new(&record, NULL, err);
		if (rc)
			return rc;
		record.provision = place->record.provision;
	}
	record.fresh = false;
	if (grown) {
		log_info("datastore", "'%s': its data file has grown to %" PRIu64
				      " bytes; its descriptor is brought up to date", place->path,
			 info->size_bytes);
		rc = vmdk_set_size(place->vmdk, info->size_bytes, err);
		if (rc)
			return rc;
	}
	rc = tree_place_write(place, &record, err);
	info->identity = record.identity;
	return rc;
}

struct open_request {
	unsigned flags;
	const char *journal_id;
	const char *path;
};

static int open_locked(struct tree_disk *disk, const struct open_request *req, struct err *err)
{
	bool read_only = req->flags & DS_OPEN_READ_ONLY;
	struct tree_place *place = &disk->place;
	const struct tree_ops *files = place->tree->files;
	int rc = tree_place_read(place, err);

	if (!rc)
		rc = tree_place_open_data(place, !read_only, true, &disk->file, err);
	if (!rc)
		rc = tree_place_lock(place, &disk->file,
				     read_only ? DISK_LOCK_READ : DISK_LOCK_WRITE,
				     req->flags & DS_OPEN_WAIT_LOCK ? place->tree->ds.lock_wait_ms
								    : 0, &disk->lock, err);
	if (!rc)
		rc = tree_place_recheck(place, &disk->file, err);
	if (!rc && place->record.assigned)
		rc = disk_identity_may_open(&place->record.identity, req->flags, req->journal_id,
					    req->path, err);
	if (!rc)
		rc = look(place, &disk->file, &disk->disk.info, err);
	if (!rc && !read_only)
		rc = first_write(place, &disk->disk.info, err);
	disk->disk.info.read_only = read_only;
	if (!rc && files->prepare_io)
		rc = files->prepare_io(disk, err);
	return rc;
}

static void tree_disk_close(struct ds_disk *base)
{
	struct tree_disk *disk = tree_disk_of(base);
	struct ds_tree *tree = disk->place.tree;

	if (disk->io)
		tree->files->release_io(disk);
	tree_unlock(tree, disk->lock, false);
	/* dir, no explicit unlock: a device that were still alive would keep its lock (R-J7). */
	tree->files->close(tree, &disk->file);
	tree_place_release(&disk->place);
	free(disk);
}

int tree_disk_open(struct datastore *ds, const char *path, unsigned flags,
		   const char *move_journal_id, struct ds_disk **out, struct err *err)
{
	struct open_request req = { .flags = flags, .journal_id = move_journal_id, .path = path };
	struct tree_disk *disk = calloc(1, sizeof(*disk));
	int rc;

	if (!disk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	disk->file = TREE_NODE_NONE;
	ds_disk_init(&disk->disk, &tree_disk_ops, ds, path);
	rc = tree_place_find(ds_tree_of(ds), path, &disk->place, err);
	if (!rc)
		rc = open_locked(disk, &req, err);
	if (rc) {
		tree_disk_close(&disk->disk);
		return rc;
	}
	*out = &disk->disk;
	return 0;
}

/* ---- an open disk ---- */

static int tree_disk_make_dev(struct ds_disk *base, struct loop *io_loop, bool as_target,
			      struct blk_dev **out, struct err *err)
{
	struct tree_disk *disk = tree_disk_of(base);

	return disk->place.tree->files->make_dev(disk, io_loop, as_target, out, err);
}

static int tree_disk_mark(struct ds_disk *base, const struct disk_identity *identity,
			  struct err *err)
{
	struct tree_disk *disk = tree_disk_of(base);
	struct disk_record record = disk->place.record;
	int rc = tree_confirm(disk->place.tree, disk->lock, base->path, err);

	if (rc)
		return rc;
	record.assigned = true;
	record.identity = *identity;
	return tree_place_write(&disk->place, &record, err);
}

/* Data, then the descriptor: a crash in between leaves the larger file (see first_write()). */
static int tree_disk_resize(struct ds_disk *base, uint64_t size_bytes, struct err *err)
{
	struct tree_disk *disk = tree_disk_of(base);
	struct ds_tree *tree = disk->place.tree;
	int rc = tree_confirm(tree, disk->lock, base->path, err);

	if (!rc)
		rc = tree->files->grow(tree, &disk->file, base->size_bytes, size_bytes,
				       base->info.provision, base->path, err);
	if (!rc)
		rc = tree_confirm(tree, disk->lock, base->path, err);
	if (rc || disk->place.format != DISK_FORMAT_VMDK)
		return rc;
	rc = vmdk_set_size(disk->place.vmdk, size_bytes, err);
	if (!rc)
		rc = tree_place_write(&disk->place, &disk->place.record, err);
	if (!rc)
		return 0;
	/* Whether the new descriptor is durable is not known; the shorter file must not be then. */
	log_warn("datastore", "'%s': the data file has grown, its descriptor has not", base->path);
	return rc;
}

static int tree_disk_allocated(struct ds_disk *base, uint64_t *out, struct err *err)
{
	struct tree_disk *disk = tree_disk_of(base);
	struct tree_stat st;
	int rc = disk->place.tree->files->stat_file(disk->place.tree, &disk->file, &st);

	if (rc)
		return err_set(err, ERR_DS_IO, rc, "cannot stat '%.160s': %s", base->path,
			       err_strerror(rc));
	*out = st.allocated_bytes;
	return 0;
}

static const struct ds_disk_ops tree_disk_ops = {
	.make_dev = tree_disk_make_dev,
	.mark = tree_disk_mark,
	.resize = tree_disk_resize,
	.allocated = tree_disk_allocated,
	.close = tree_disk_close,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_dir_disk.c - a disk on a local folder: look, open and lock, serve, mark, grow.
 *
 * Opening: find, open the data, lock them, and only then believe what the meta file says: the
 * holder before us may have marked, moved or deleted the disk while we waited.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file.h"
#include "datastores/disk_format.h"
#include "datastores/disk_lock.h"
#include "datastores/ds_dir.h"
#include "datastores/provision.h"

struct dir_disk {
	struct ds_disk disk;
	/*
	 * The description that is locked and does the I/O; the device has a dup of it, so the lock
	 * lasts until both are closed and the kernel has ended the last request (R-J7).
	 */
	int fd;
	struct dir_place place;
};

static const struct ds_disk_ops dir_disk_ops;

static struct dir_disk *dir_disk_of(struct ds_disk *disk)
{
	return container_of(disk, struct dir_disk, disk);
}

/* ---- what there is ---- */

/*
 * What the kernel asks of direct I/O on this file, as blk_file will find; 512 where it does
 * not tell, or where the size does not allow direct I/O.
 */
static uint32_t sector_bytes_of(int fd, uint64_t size_bytes)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    stx.stx_mask & STATX_DIOALIGN && stx.stx_dio_offset_align > 512 &&
	    stx.stx_dio_offset_align <= 4096 && size_bytes % stx.stx_dio_offset_align == 0)
		return stx.stx_dio_offset_align;
#else
	(void)fd;
	(void)size_bytes;
#endif
	return 512;
}

/*
 * R11: a note of ours that nothing was written yet, which the file must not belie (somebody
 * else may have written to it without our lock).
 */
static bool reads_zero(const struct disk_record *record, int fd)
{
	if (!record->fresh)
		return false;
	return record->provision == PROVISION_EAGER ||
	       (lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
}

/* The descriptor's size against the data file's. */
static int check_size(const struct dir_place *place, uint64_t file_bytes, struct err *err)
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

/*
 * Judge the opened data file and fill *info.  The size is the file's: where it is larger than
 * the descriptor says, a resize was interrupted (see first_write()).
 */
static int look(const struct dir_place *place, int fd, struct ds_disk_info *info, struct err *err)
{
	const struct disk_record *record = &place->record;
	uint64_t size_bytes, allocated_bytes;
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_DS_IO, -errno, "cannot stat '%.160s': %s", place->path,
			       err_strerror(errno));
	size_bytes = (uint64_t)st.st_size;
	allocated_bytes = (uint64_t)st.st_blocks * 512;
	/* What it is comes first: a qcow2 file's odd length would be the lesser news. */
	rc = place->format == DISK_FORMAT_RAW && !place->has_meta
		     ? disk_format_check_raw(fd, size_bytes, place->path, err)
		     : 0;
	if (!rc)
		rc = check_size(place, size_bytes, err);
	if (rc)
		return rc;
	*info = (struct ds_disk_info){
		.size_bytes = size_bytes,
		.allocated_bytes = allocated_bytes,
		.provision = record->provision != PROVISION_SAME
				     ? record->provision
				     : provision_guess(size_bytes, allocated_bytes),
		.format = place->format,
		.sector_bytes = sector_bytes_of(fd, size_bytes),
		.reads_zero = reads_zero(record, fd),
		.has_identity = true,
		.identity = record->identity,
	};
	return 0;
}

int dir_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		  struct err *err)
{
	struct dir_place place;
	struct ds_disk_info info;
	int fd = -1;
	int rc = dir_place_find(ds_dir_of(ds), path, &place, err);

	if (!rc)
		rc = dir_place_read(&place, err);
	if (!rc) {
		fd = dir_place_open_data(&place, O_RDONLY, err);
		rc = fd < 0 ? fd : look(&place, fd, &info, err);
	}
	if (!rc) {
		info.read_only = faccessat(place.dir_fd, place.data_name, W_OK, AT_EACCESS) < 0;
		*out = info;
	}
	if (fd >= 0)
		close(fd);
	dir_place_release(&place);
	return rc;
}

/* ---- open ---- */

/* O_DIRECT where the file system has it; said once per datastore where it has not. */
static int open_for_io(struct ds_dir *dir, const struct dir_place *place, int flags,
		       struct err *err)
{
	int fd = dir_place_open_data(place, flags | O_DIRECT, err);

	if (fd != -EINVAL)
		return fd;
	fd = dir_place_open_data(place, flags, err);
	if (fd >= 0 && !dir->said_no_direct) {
		dir->said_no_direct = true;
		log_warn("datastore", "%s: this file system takes no direct I/O: the page cache is"
				      " used", dir->ds.name);
	}
	return fd;
}

/*
 * Before the first byte can be written: the disk has an identity, which also says that a raw
 * file is raw (sidecar.h); it is not fresh any more (R11); its descriptor tells its size.
 */
static int first_write(struct dir_place *place, struct ds_disk_info *info, struct err *err)
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
	rc = dir_place_write(place, &record, err);
	info->identity = record.identity;
	return rc;
}

struct open_request {
	unsigned flags;
	const char *journal_id;
	const char *path;
};

static int open_locked(struct dir_disk *disk, struct ds_dir *dir, const struct open_request *req,
		       struct err *err)
{
	bool read_only = req->flags & DS_OPEN_READ_ONLY;
	struct dir_place *place = &disk->place;
	int rc = dir_place_read(place, err);

	if (rc)
		return rc;
	disk->fd = open_for_io(dir, place, read_only ? O_RDONLY : O_RDWR, err);
	if (disk->fd < 0)
		return disk->fd;
	rc = disk_lock_take(disk->fd, read_only ? DISK_LOCK_READ : DISK_LOCK_WRITE,
			    req->flags & DS_OPEN_WAIT_LOCK ? dir->ds.lock_wait_ms : 0, req->path,
			    err);
	if (!rc)
		rc = dir_place_recheck(place, disk->fd, err);
	if (!rc && place->record.assigned)
		rc = disk_identity_may_open(&place->record.identity, req->flags, req->journal_id,
					    req->path, err);
	if (!rc)
		rc = look(place, disk->fd, &disk->disk.info, err);
	if (!rc && !read_only)
		rc = first_write(place, &disk->disk.info, err);
	disk->disk.info.read_only = read_only;
	return rc;
}

static void dir_disk_close(struct ds_disk *base)
{
	struct dir_disk *disk = dir_disk_of(base);

	/* No explicit unlock: a device that were still alive would keep its lock (R-J7). */
	if (disk->fd >= 0)
		close(disk->fd);
	dir_place_release(&disk->place);
	free(disk);
}

int dir_disk_open(struct datastore *ds, const char *path, unsigned flags,
		  const char *move_journal_id, struct ds_disk **out, struct err *err)
{
	struct open_request req = { .flags = flags, .journal_id = move_journal_id, .path = path };
	struct dir_disk *disk = calloc(1, sizeof(*disk));
	int rc;

	if (!disk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	disk->fd = -1;
	rc = dir_place_find(ds_dir_of(ds), path, &disk->place, err);
	if (!rc)
		rc = open_locked(disk, ds_dir_of(ds), &req, err);
	if (rc) {
		dir_disk_close(&disk->disk);
		return rc;
	}
	ds_disk_init(&disk->disk, &dir_disk_ops, ds, path);
	*out = &disk->disk;
	return 0;
}

/* ---- an open disk ---- */

static int dir_disk_make_dev(struct ds_disk *base, struct loop *io_loop, bool as_target,
			     struct blk_dev **out, struct err *err)
{
	struct dir_disk *disk = dir_disk_of(base);
	struct blk_file_options options = {
		.read_only = base->info.read_only,
		.submit_thread = as_target,     /* R5 */
		.reads_zero = base->info.reads_zero,
		.name = base->path,
	};
	int fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
	int rc;

	if (fd < 0)
		return err_set(err, ERR_NO_MEMORY, -errno, "cannot open '%.160s' for a device: %s",
			       base->path, err_strerror(errno));
	rc = blk_file_new(io_loop, fd, &options, out, err);
	if (rc)
		close(fd);
	return rc;
}

static int dir_disk_mark(struct ds_disk *base, const struct disk_identity *identity,
			 struct err *err)
{
	struct dir_disk *disk = dir_disk_of(base);
	struct disk_record record = disk->place.record;

	record.assigned = true;
	record.identity = *identity;
	return dir_place_write(&disk->place, &record, err);
}

/* The same file without O_DIRECT and without a part in the lock, for odd lengths. */
static int reopen_buffered(int fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	fd = open(link, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Data, then the descriptor: a crash in between leaves the larger file (see first_write()). */
static int dir_disk_resize(struct ds_disk *base, uint64_t size_bytes, struct err *err)
{
	struct dir_disk *disk = dir_disk_of(base);
	CLEANUP_CLOSE int fd = reopen_buffered(disk->fd);
	uint64_t old_bytes = base->size_bytes;
	int rc;

	if (fd < 0)
		return err_set(err, ERR_DS_IO, fd, "cannot open '%.160s' again: %s", base->path,
			       err_strerror(fd));
	rc = provision_grow(fd, old_bytes, size_bytes, base->info.provision, base->path, err);
	if (rc || disk->place.format != DISK_FORMAT_VMDK)
		return rc;
	rc = vmdk_set_size(disk->place.vmdk, size_bytes, err);
	if (!rc)
		rc = dir_place_write(&disk->place, &disk->place.record, err);
	if (!rc)
		return 0;
	/* Whether the new descriptor is durable is not known; the shorter file must not be then. */
	log_warn("datastore", "'%s': the data file has grown, its descriptor has not", base->path);
	return rc;
}

static int dir_disk_allocated(struct ds_disk *base, uint64_t *out, struct err *err)
{
	struct stat st;

	if (fstat(dir_disk_of(base)->fd, &st) < 0)
		return err_set(err, ERR_DS_IO, -errno, "cannot stat '%.160s': %s", base->path,
			       err_strerror(errno));
	*out = (uint64_t)st.st_blocks * 512;
	return 0;
}

static const struct ds_disk_ops dir_disk_ops = {
	.make_dev = dir_disk_make_dev,
	.mark = dir_disk_mark,
	.resize = dir_disk_resize,
	.allocated = dir_disk_allocated,
	.close = dir_disk_close,
};

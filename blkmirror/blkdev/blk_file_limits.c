/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file_limits.c - size, sectors and alignment of an open file.
 *
 * The smallest unit of O_DIRECT I/O, in order of trust:
 *   1. a block device: BLKSSZGET;
 *   2. statx(STATX_DIOALIGN), Linux 6.1 and later: the file system's own word, which
 *      also knows of copy-on-write and verity files;
 *   3. the logical sector of the block device that holds the file (st_dev), from sysfs:
 *      what ext4 and XFS ask for on older kernels;
 *   4. 4096.  A file system without a device of its own (FUSE, network) tells nobody what
 *      it needs.  4096 is what every store takes; 512 would be a guess whose failure is
 *      a guest's I/O error.
 * A disk that is a whole number of 512-byte sectors but not of that unit, or a unit over
 * 4096, is served buffered: correct, slower, and logged.
 *
 * physical_bytes (R10) of a plain file is at least 4096: below that, file systems, page
 * cache and disks all read, modify and write.
 *
 * None of these calls waits for the storage.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_file_private.h"

#define SECTOR_BYTES 512u
#define BLOCK_BYTES_MAX 4096u
#define PHYSICAL_BYTES_MAX (1u << 20)
#define MEMORY_ALIGN_MAX 4096u
#define BEST_TRANSFER_BYTES (1u << 20)
#define BEST_DEPTH 16u

struct direct_needs {
	uint32_t block_bytes;           /* 0: no direct I/O on this file */
	uint32_t memory_align_bytes;
};

/* ---- sysfs ---- */

static uint64_t read_number(const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t len;

	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	if (len <= 0)
		return 0;
	text[len] = '\0';
	return strtoull(text, NULL, 10);
}

uint64_t blk_file_queue_limit(unsigned dev_major, unsigned dev_minor, const char *attribute)
{
	/* A partition has no queue directory; its parent, the disk, has. */
	static const char *const places[] = { "", "../" };
	char path[128];

	for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", dev_major,
			 dev_minor, places[i], attribute);
		if (access(path, R_OK) == 0)
			return read_number(path);
	}
	return 0;
}

static uint32_t usable_power(uint64_t value, uint32_t low, uint32_t high, uint32_t otherwise)
{
	if (!is_power_of_two(value) || value > high)
		return otherwise;
	return value < low ? low : (uint32_t)value;
}

/* ---- plain files ---- */

static struct direct_needs plain_needs(const struct statx *st)
{
	struct direct_needs needs = { .block_bytes = BLOCK_BYTES_MAX,
				      .memory_align_bytes = MEMORY_ALIGN_MAX };
	uint64_t sector_bytes;

#ifdef STATX_DIOALIGN
	if (st->stx_mask & STATX_DIOALIGN) {
		needs.block_bytes = usable_power(st->stx_dio_offset_align, SECTOR_BYTES,
						 BLOCK_BYTES_MAX, 0);
		needs.memory_align_bytes = usable_power(st->stx_dio_mem_align, 1, MEMORY_ALIGN_MAX,
							MEMORY_ALIGN_MAX);
		return needs;
	}
#endif
	sector_bytes = blk_file_queue_limit(st->stx_dev_major, st->stx_dev_minor,
					    "logical_block_size");
	needs.block_bytes = usable_power(sector_bytes, SECTOR_BYTES, BLOCK_BYTES_MAX,
					 BLOCK_BYTES_MAX);
	return needs;
}

static int plain_measure(const struct statx *st, const char *name, struct file_geometry *out,
			 struct err *err)
{
	struct direct_needs needs = plain_needs(st);

	if (st->stx_size % SECTOR_BYTES) {
		err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			"cannot use '%s' as a disk: its size, %" PRIu64
			" bytes, is not a whole number of 512-byte sectors",
			name, (uint64_t)st->stx_size);
		err_remedy(err, "Extend it first: truncate --size=%%512 FILE rounds up and adds "
				"zeroes.");
		return -EINVAL;
	}
	out->size_bytes = st->stx_size;
	if (out->direct && needs.block_bytes == 0) {
		log_warn("blk_file", "%s: the file system does no direct I/O on it", name);
		out->direct = false;
	}
	if (out->direct && st->stx_size % needs.block_bytes) {
		log_warn("blk_file", "%s: its size is no multiple of direct I/O's %u bytes", name,
			 needs.block_bytes);
		out->direct = false;
	}
	out->limits.block_bytes = out->direct ? needs.block_bytes : SECTOR_BYTES;
	out->limits.memory_align_bytes = out->direct ? needs.memory_align_bytes : 1;
	out->limits.physical_bytes = MAX(out->limits.block_bytes, BLOCK_BYTES_MAX);
	out->limits.can_unmap = true;
	out->limits.has_extents = true;
	return 0;
}

/* ---- block devices ---- */

static int device_measure(int fd, const struct statx *st, const char *name,
			  struct file_geometry *out, struct err *err)
{
	unsigned physical_bytes = 0;
	int sector_bytes = 0;
	uint64_t size_bytes = 0;

	if (ioctl(fd, BLKGETSIZE64, &size_bytes) || ioctl(fd, BLKSSZGET, &sector_bytes))
		return err_set(err, ERR_DISK_IO, -EINVAL, "cannot measure block device '%s': %s",
			       name, err_strerror(-errno));
	if (ioctl(fd, BLKPBSZGET, &physical_bytes))
		physical_bytes = 0;
	if (!is_power_of_two((uint64_t)sector_bytes) || sector_bytes < (int)SECTOR_BYTES ||
	    sector_bytes > (int)PHYSICAL_BYTES_MAX || size_bytes % (uint64_t)sector_bytes)
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "cannot use '%s' as a disk: %" PRIu64 " bytes in sectors of %d",
			       name, size_bytes, sector_bytes);
	out->size_bytes = size_bytes;
	out->is_block_device = true;
	out->limits.block_bytes = (uint32_t)sector_bytes;
	out->limits.memory_align_bytes = out->direct ? (uint32_t)sector_bytes : 1;
#ifdef STATX_DIOALIGN
	if (out->direct && (st->stx_mask & STATX_DIOALIGN) && st->stx_dio_mem_align)
		out->limits.memory_align_bytes = usable_power(st->stx_dio_mem_align, 1,
							      MEMORY_ALIGN_MAX, MEMORY_ALIGN_MAX);
#endif
	out->limits.physical_bytes = usable_power(physical_bytes, (uint32_t)sector_bytes,
						  PHYSICAL_BYTES_MAX, (uint32_t)sector_bytes);
	/* Zeroing that gives space back needs both; else fallocate would write zeroes. */
	out->limits.can_unmap =
		blk_file_queue_limit(st->stx_rdev_major, st->stx_rdev_minor, "discard_max_bytes") &&
		blk_file_queue_limit(st->stx_rdev_major, st->stx_rdev_minor,
				     "write_zeroes_max_bytes");
	return 0;
}

/* ---- both ---- */

static int drop_direct(int fd, int flags, const char *name, struct err *err)
{
	if ((flags & O_DIRECT) && fcntl(fd, F_SETFL, flags & ~O_DIRECT) != 0)
		return err_set(err, ERR_DISK_IO, -EINVAL, "cannot turn direct I/O off for '%s': %s",
			       name, err_strerror(-errno));
	log_warn("blk_file", "%s: using buffered I/O, through threads", name);
	return 0;
}

int blk_file_measure(int fd, const struct blk_file_options *options, const char *name,
		     struct file_geometry *out, struct err *err)
{
	unsigned mask = STATX_TYPE | STATX_SIZE;
	int flags = fcntl(fd, F_GETFL);
	struct statx st;
	int rc;

	CHECK(flags >= 0);
	CHECK(!(flags & O_APPEND));     /* would move every write to the end */
	CHECK(options->read_only || (flags & O_ACCMODE) == O_RDWR);
#ifdef STATX_DIOALIGN
	mask |= STATX_DIOALIGN;
#endif
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, &st) != 0)
		return err_set(err, ERR_DISK_IO, -EINVAL, "cannot examine '%s': %s", name,
			       err_strerror(-errno));
	*out = (struct file_geometry){ .direct = flags & O_DIRECT };
	if (S_ISREG(st.stx_mode))
		rc = plain_measure(&st, name, out, err);
	else if (S_ISBLK(st.stx_mode))
		rc = device_measure(fd, &st, name, out, err);
	else
		rc = err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL,
			     "cannot use '%s' as a disk: neither a file nor a block device", name);
	if (!rc && !out->direct)
		rc = drop_direct(fd, flags, name, err);
	if (rc)
		return rc;
	out->limits.best_transfer_bytes = BEST_TRANSFER_BYTES;
	out->limits.best_depth = BEST_DEPTH;
	out->limits.reads_zero = options->reads_zero;           /* R11: only the caller knows */
	out->limits.can_block_submitter = out->direct;          /* R5; the lanes block themselves */
	out->limits.read_only = options->read_only;
	return 0;
}

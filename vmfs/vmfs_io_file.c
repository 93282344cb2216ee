/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_io_file.c - a volume in a file, or on a block device, of this host.
 *
 * Everything passes an aligned bounce buffer, so that O_DIRECT takes any memory and any
 * multiple of 512 bytes: metadata are small.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_io.h"

#define BOUNCE_BYTES ((size_t)1 << 20)
#define BOUNCE_ALIGN 4096u

struct io_file {
	struct vmfs_io io;
	int fd;
	uint8_t *bounce;
};

static int read_all(int fd, uint8_t *bytes, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t got = pread(fd, bytes, len, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO;    /* it has been cut since it was opened */
		bytes += got;
		len -= (size_t)got;
		offset += (uint64_t)got;
	}
	return 0;
}

static int write_all(int fd, const uint8_t *bytes, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t put = pwrite(fd, bytes, len, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		bytes += put;
		len -= (size_t)put;
		offset += (uint64_t)put;
	}
	return 0;
}

/* Reads are rounded out to whole blocks of the device. */
static int io_file_read(struct vmfs_io *io, uint64_t offset_bytes, uint8_t *bytes,
			size_t len_bytes)
{
	struct io_file *file = container_of(io, struct io_file, io);

	while (len_bytes > 0) {
		uint64_t start = round_down(offset_bytes, io->block_bytes);
		size_t skip = (size_t)(offset_bytes - start);
		size_t part = MIN(len_bytes, BOUNCE_BYTES - skip);
		size_t span = (size_t)MIN(round_up(skip + part, io->block_bytes),
					  io->size_bytes - start);
		int rc = read_all(file->fd, file->bounce, span, start);

		if (rc)
			return rc;
		memcpy(bytes, file->bounce + skip, part);
		bytes += part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

static int io_file_write(struct vmfs_io *io, uint64_t offset_bytes, const uint8_t *bytes,
			 size_t len_bytes)
{
	struct io_file *file = container_of(io, struct io_file, io);

	while (len_bytes > 0) {
		size_t part = MIN(len_bytes, BOUNCE_BYTES);
		int rc;

		memcpy(file->bounce, bytes, part);
		rc = write_all(file->fd, file->bounce, part, offset_bytes);
		if (rc)
			return rc;
		bytes += part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

static int io_file_flush(struct vmfs_io *io)
{
	struct io_file *file = container_of(io, struct io_file, io);

	return fdatasync(file->fd) ? -errno : 0;
}

static int swap_sector(struct vmfs_io *io, uint64_t offset_bytes, const uint8_t *expected,
		       const uint8_t *replacement, size_t len_bytes)
{
	uint8_t now[VMFS_IO_BLOCK_MAX];
	int rc = io_file_read(io, offset_bytes, now, len_bytes);

	if (rc)
		return rc;
	if (memcmp(now, expected, len_bytes) != 0)
		return -EAGAIN;
	return io_file_write(io, offset_bytes, replacement, len_bytes);
}

static int lock_range(int fd, short type, uint64_t offset_bytes, size_t len_bytes)
{
	struct flock range = { .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset_bytes,
			       .l_len = (off_t)len_bytes };

	while (fcntl(fd, F_OFD_SETLKW, &range))
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Atomic because of the lock on the descriptor, or when that is shared of one on the sector. */
static int io_file_compare_write(struct vmfs_io *io, uint64_t offset_bytes,
				 const uint8_t *expected, const uint8_t *replacement,
				 size_t len_bytes)
{
	struct io_file *file = container_of(io, struct io_file, io);
	int rc, last;

	if (io->exclusive)
		return swap_sector(io, offset_bytes, expected, replacement, len_bytes);
	rc = lock_range(file->fd, F_WRLCK, offset_bytes, len_bytes);
	if (rc)
		return rc;
	rc = swap_sector(io, offset_bytes, expected, replacement, len_bytes);
	last = lock_range(file->fd, F_UNLCK, offset_bytes, len_bytes);
	return rc ? rc : last;
}

static void io_file_close(struct vmfs_io *io)
{
	struct io_file *file = container_of(io, struct io_file, io);

	close(file->fd);
	free(file->bounce);
	free(file);
}

static const struct vmfs_io_ops io_file_ops = {
	.name = "file",
	.read = io_file_read,
	.write = io_file_write,
	.flush = io_file_flush,
	.compare_write = io_file_compare_write,
	.close = io_file_close,
};

/* ---- opening ---- */

static int open_fd(const char *path, const struct vmfs_io_file_options *options)
{
	int flags = (options->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC |
		    (options->create ? O_CREAT | O_EXCL : 0);
	int fd = open(path, flags | O_DIRECT, 0600);

	/* A file system without O_DIRECT says so after it has made the file. */
	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags & ~O_EXCL, 0600);
	return fd < 0 ? -errno : fd;
}

static int take_lock(int fd, bool shared)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (shared)
		return 0;
	if (fcntl(fd, F_OFD_SETLK, &whole))
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	return 0;
}

static int find_size(struct io_file *file, const struct vmfs_io_file_options *options)
{
	struct stat st;
	int sector = 0;

	if (options->create && ftruncate(file->fd, (off_t)options->size_bytes))
		return -errno;
	if (fstat(file->fd, &st))
		return -errno;
	file->io.block_bytes = VMFS_SECTOR_BYTES;
	if (S_ISREG(st.st_mode)) {
		file->io.size_bytes = round_down((uint64_t)st.st_size, VMFS_SECTOR_BYTES);
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return -ENOTBLK;
	if (ioctl(file->fd, BLKGETSIZE64, &file->io.size_bytes) || ioctl(file->fd, BLKSSZGET, &sector))
		return -errno;
	if (sector < (int)VMFS_SECTOR_BYTES || sector > (int)VMFS_IO_BLOCK_MAX ||
	    !is_power_of_two((uint64_t)sector))
		return -ENOTBLK;
	file->io.block_bytes = (uint32_t)sector;
	return 0;
}

/* A plain file on a disk of 4096-byte sectors takes no smaller O_DIRECT: go buffered there. */
static int probe_direct(struct io_file *file)
{
	int flags = fcntl(file->fd, F_GETFL);

	if (flags < 0)
		return -errno;
	if (!(flags & O_DIRECT) || file->io.size_bytes < VMFS_SECTOR_BYTES)
		return 0;
	if (pread(file->fd, file->bounce, file->io.block_bytes,
		  (off_t)(file->io.size_bytes - file->io.block_bytes)) >= 0)
		return 0;
	if (errno != EINVAL)
		return -errno;
	return fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) ? -errno : 0;
}

static int set_up(struct io_file *file, const struct vmfs_io_file_options *options)
{
	int rc = options->read_only ? 0 : take_lock(file->fd, options->shared);

	if (!rc)
		rc = find_size(file, options);
	return rc ? rc : probe_direct(file);
}

static int refuse(const char *path, int rc, struct err *err)
{
	switch (rc) {
	case -EBUSY:
		return err_set(err, ERR_VMFS_IN_USE, rc, "another process uses '%.180s'", path);
	case -ENOTBLK:
		return err_set(err, ERR_VMFS_NOT_ONE, -EINVAL,
			       "'%.180s' is neither a file nor a block device that can hold a volume",
			       path);
	case -ENOMEM:
		return err_set(err, ERR_NO_MEMORY, rc, "no memory to open '%.180s'", path);
	default:
		return err_set(err, ERR_VMFS_IO, rc, "cannot open '%.160s': %s", path,
			       err_strerror(rc));
	}
}

int vmfs_io_file_open(const char *path, const struct vmfs_io_file_options *options,
		      struct vmfs_io **out, struct err *err)
{
	struct io_file *file = calloc(1, sizeof(*file));
	int rc;

	if (!file)
		return refuse(path, -ENOMEM, err);
	file->bounce = aligned_alloc(BOUNCE_ALIGN, BOUNCE_BYTES);
	if (!file->bounce) {
		rc = -ENOMEM;
		goto free_file;
	}
	file->io.ops = &io_file_ops;
	file->io.read_only = options->read_only;
	file->io.exclusive = !options->read_only && !options->shared;
	file->fd = open_fd(path, options);
	if (file->fd < 0) {
		rc = file->fd;
		goto free_bounce;
	}
	rc = set_up(file, options);
	if (rc)
		goto close_fd;
	*out = &file->io;
	return 0;

close_fd:
	close(file->fd);
	if (options->create)
		unlink(path);
free_bounce:
	free(file->bounce);
free_file:
	free(file);
	return refuse(path, rc, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ledger_block.h"
#include "ledger_stats.h"
#include "ledger_work.h"

/* ---- opening ---- */

/* Sleep until something is created beside @path, or @deadline_ns.  Buses probe on their own. */
static void wait_for_neighbour(int inotify_fd, uint64_t deadline_ns)
{
	char events[4096];
	uint64_t now_ns = stats_now_ns();
	struct pollfd pollfd = { .fd = inotify_fd, .events = POLLIN };

	if (now_ns >= deadline_ns)
		return;
	if (poll(&pollfd, 1, (int)((deadline_ns - now_ns) / 1000000) + 1) > 0 &&
	    read(inotify_fd, events, sizeof(events)) < 0)
		return;
}

static int open_when_there(const char *path, int flags, unsigned wait_seconds)
{
	bool device = !strncmp(path, "/dev/", 5);
	uint64_t deadline_ns = stats_now_ns() + wait_seconds * UINT64_C(1000000000);
	int inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	int fd;

	if (slash)
		*slash = '\0';
	if (inotify_fd >= 0)
		inotify_add_watch(inotify_fd, slash ? folder : ".", IN_CREATE | IN_MOVED_TO);
	/* The watch stands before the first try, so a creation in between is not missed. */
	while ((fd = open(path, flags)) < 0 && device && (errno == ENOENT || errno == ENXIO) &&
	       inotify_fd >= 0 && stats_now_ns() < deadline_ns)
		wait_for_neighbour(inotify_fd, deadline_ns);
	fd = fd < 0 ? -errno : fd;
	if (inotify_fd >= 0)
		close(inotify_fd);
	free(folder);
	return fd;
}

static bool disk_find_size(struct disk *disk, const char *path, uint64_t size_bytes)
{
	struct stat st;
	uint64_t own_bytes;

	if (fstat(disk->fd, &st)) {
		ledger_say("ERROR cannot stat '%s': %s", path, strerror(errno));
		return false;
	}
	disk->is_block = S_ISBLK(st.st_mode);
	own_bytes = (uint64_t)st.st_size;
	if (disk->is_block && ioctl(disk->fd, BLKGETSIZE64, &own_bytes)) {
		ledger_say("ERROR cannot learn the size of '%s': %s", path, strerror(errno));
		return false;
	}
	if (size_bytes > own_bytes) {
		ledger_say("ERROR '%s' has %llu bytes only", path, (unsigned long long)own_bytes);
		return false;
	}
	disk->size_bytes = size_bytes ? size_bytes : own_bytes;
	return true;
}

bool disk_open(struct disk *disk, const char *path, uint64_t size_bytes, bool buffered,
	       unsigned wait_seconds)
{
	int flags = O_RDWR | O_CLOEXEC | (buffered ? 0 : O_DIRECT);

	disk->fd = open_when_there(path, flags, wait_seconds);
	if (disk->fd == -EINVAL && !buffered) {
		ledger_say("ERROR '%s' does not support O_DIRECT: use --buffered", path);
		return false;
	}
	if (disk->fd < 0) {
		ledger_say("ERROR cannot open '%s': %s", path, strerror(-disk->fd));
		return false;
	}
	if (disk_find_size(disk, path, size_bytes))
		return true;
	close(disk->fd);
	return false;
}

/* ---- requests ---- */

static int transferred(ssize_t done, uint64_t len_bytes)
{
	if (done < 0)
		return -errno;
	return (uint64_t)done == len_bytes ? 0 : -EIO;
}

int disk_read(const struct disk *disk, void *buf, uint64_t offset_bytes, uint64_t len_bytes)
{
	return transferred(pread(disk->fd, buf, len_bytes, (off_t)offset_bytes), len_bytes);
}

int disk_write(const struct disk *disk, const void *buf, uint64_t offset_bytes,
	       uint64_t len_bytes)
{
	return transferred(pwrite(disk->fd, buf, len_bytes, (off_t)offset_bytes), len_bytes);
}

static int file_write_zeroes(const struct disk *disk, uint64_t offset_bytes, uint64_t len_bytes)
{
	static _Alignas(4096) const char zeroes[LEDGER_BLOCK_BYTES];
	int rc = 0;

	for (uint64_t at = 0; !rc && at < len_bytes; at += sizeof(zeroes))
		rc = disk_write(disk, zeroes, offset_bytes + at, sizeof(zeroes));
	return rc;
}

int disk_zero(const struct disk *disk, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t range[2] = { offset_bytes, len_bytes };

	if (disk->is_block)
		return ioctl(disk->fd, BLKZEROOUT, range) ? -errno : 0;
	if (!fallocate(disk->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset_bytes,
		       (off_t)len_bytes))
		return 0;
	return errno == EOPNOTSUPP ? file_write_zeroes(disk, offset_bytes, len_bytes) : -errno;
}

int disk_discard(const struct disk *disk, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t range[2] = { offset_bytes, len_bytes };

	if (disk->is_block)
		return ioctl(disk->fd, BLKDISCARD, range) ? -errno : 0;
	return fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)offset_bytes, (off_t)len_bytes) ? -errno : 0;
}

int disk_flush(const struct disk *disk)
{
	return fdatasync(disk->fd) ? -errno : 0;
}

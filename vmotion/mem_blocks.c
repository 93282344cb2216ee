/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_blocks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"

#define MAP_LINE_BYTES 4608             /* the fields and a path */
#define MEMFD_PREFIX "/memfd:memory-backend"

/* ---- /proc/PID/maps ---- */

bool mem_mapping_parse(const char *line, struct mem_mapping *out)
{
	struct mem_mapping mapping = { 0 };
	unsigned device_major, device_minor;
	char permissions[5];
	const char *path;
	int path_at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
		   &mapping.start, &mapping.end, permissions, &mapping.offset_bytes, &device_major,
		   &device_minor, &mapping.inode, &path_at) != 7 || !path_at)
		return false;
	if (mapping.end <= mapping.start || strlen(permissions) != 4)
		return false;
	path = line + path_at;
	mapping.device = makedev(device_major, device_minor);
	mapping.is_writable = permissions[1] == 'w';
	mapping.is_shared = permissions[3] == 's';
	mapping.is_memfd = strncmp(path, MEMFD_PREFIX, strlen(MEMFD_PREFIX)) == 0;
	mapping.is_file = path[0] == '/' && strncmp(path, "/memfd:", 7) != 0;
	snprintf(mapping.path, sizeof(mapping.path), "%.*s", (int)strcspn(path, "\n"), path);
	*out = mapping;
	return true;
}

/* ---- from mappings to blocks ---- */

struct candidate {
	struct mem_mapping mapping;
	int fd;                         /* ours; -1: it is none after all */
	int their_fd;
	uint32_t page_bytes;
};

struct search {
	pid_t pid;
	int pidfd;
	uint32_t count;
	struct candidate list[MEM_BLOCKS_MAX];
};

static bool joins(const struct mem_mapping *before, const struct mem_mapping *after)
{
	return before->device == after->device && before->inode == after->inode &&
	       before->end == after->start &&
	       before->offset_bytes + (before->end - before->start) == after->offset_bytes;
}

static int add_mapping(struct search *search, const struct mem_mapping *mapping)
{
	struct candidate *last = search->count ? &search->list[search->count - 1] : NULL;

	if (!mapping->is_shared || !mapping->is_writable || (!mapping->is_memfd && !mapping->is_file))
		return 0;
	if (last && joins(&last->mapping, mapping)) {
		last->mapping.end = mapping->end;
		return 0;
	}
	if (search->count == MEM_BLOCKS_MAX)
		return -E2BIG;
	search->list[search->count++] = (struct candidate) { .mapping = *mapping, .fd = -1 };
	return 0;
}

static int read_maps(struct search *search)
{
	char path[64], line[MAP_LINE_BYTES];
	struct mem_mapping mapping;
	FILE *maps;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)search->pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!rc && fgets(line, sizeof(line), maps))
		if (mem_mapping_parse(line, &mapping))
			rc = add_mapping(search, &mapping);
	if (!rc && ferror(maps))
		rc = -EIO;
	fclose(maps);
	return rc;
}

/* ---- descriptors ---- */

static int take_fd(int pidfd, int their_fd)
{
	long fd = syscall(SYS_pidfd_getfd, pidfd, their_fd, 0);

	return fd < 0 ? -errno : (int)fd;
}

/* Is it memory, of the file that is mapped there?  Other files of the same kind are let go. */
static bool fits(int fd, const struct candidate *candidate, uint32_t *page_bytes)
{
	struct stat stat;
	struct statfs statfs;

	if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || fstatfs(fd, &statfs) < 0)
		return false;
	if (stat.st_dev != candidate->mapping.device || stat.st_ino != candidate->mapping.inode)
		return false;
	if (statfs.f_type != TMPFS_MAGIC && statfs.f_type != HUGETLBFS_MAGIC)
		return false;
	*page_bytes = statfs.f_type == HUGETLBFS_MAGIC ? (uint32_t)statfs.f_bsize : MEM_PAGE_BYTES;
	return true;
}

/* Could this be one?  Asked of the name alone: to stat a file on a dead store could hang. */
static bool name_fits(const struct search *search, int dir_fd, const char *entry)
{
	char target[MEM_PATH_BYTES];
	ssize_t len = readlinkat(dir_fd, entry, target, sizeof(target) - 1);

	if (len <= 0)
		return false;
	target[len] = '\0';
	for (uint32_t i = 0; i < search->count; i++)
		if (strcmp(target, search->list[i].mapping.path) == 0)
			return true;
	return false;
}

static int try_fd(struct search *search, int their_fd)
{
	uint32_t page_bytes = 0;
	int fd = take_fd(search->pidfd, their_fd);

	if (fd == -EBADF)               /* closed meanwhile */
		return 0;
	if (fd < 0)
		return fd;
	for (uint32_t i = 0; i < search->count; i++) {
		struct candidate *candidate = &search->list[i];

		if (candidate->fd >= 0 || !fits(fd, candidate, &page_bytes))
			continue;
		candidate->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (candidate->fd < 0)
			break;
		candidate->their_fd = their_fd;
		candidate->page_bytes = page_bytes;
	}
	close(fd);
	return 0;
}

static int find_fds(struct search *search)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)search->pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (!rc && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && name_fits(search, dirfd(dir), entry->d_name))
			rc = try_fd(search, atoi(entry->d_name));
	closedir(dir);
	return rc;
}

static int by_fd(const void *a, const void *b)
{
	const struct candidate *left = a, *right = b;

	if (left->their_fd != right->their_fd)
		return left->their_fd < right->their_fd ? -1 : 1;
	return left->mapping.start < right->mapping.start ? -1 : 1;
}

static int fill_space(struct search *search, struct mem_space *space)
{
	int rc = 0;

	qsort(search->list, search->count, sizeof(search->list[0]), by_fd);
	for (uint32_t i = 0; i < search->count && !rc; i++) {
		struct candidate *candidate = &search->list[i];
		struct mem_block block = {
			.len_bytes = candidate->mapping.end - candidate->mapping.start,
			.backing_bytes = candidate->page_bytes,
			.hva = candidate->mapping.start,
			.fd = candidate->fd,
			.fd_offset_bytes = candidate->mapping.offset_bytes,
		};

		if (candidate->fd < 0)
			continue;
		snprintf(block.name, sizeof(block.name), "ram%u", space->count);
		rc = mem_space_add(space, &block);
		if (!rc)
			candidate->fd = -1;
	}
	return rc;
}

/* ---- the whole ---- */

static int judge_sum(const struct mem_space *space, pid_t pid, uint64_t expected_bytes,
		     struct err *err)
{
	if (!space->count)
		return err_set(err, ERR_MEM_NOT_SHARED, -EINVAL,
			       "QEMU (process %d) has no RAM in shared memory", (int)pid);
	if (expected_bytes && space->len_bytes != expected_bytes)
		return err_set(err, ERR_MEM_NOT_SHARED, -EINVAL,
			       "%" PRIu64 " MiB of shared memory were found in QEMU (process %d), but the guest has %"
			       PRIu64 " MiB of RAM",
			       space->len_bytes >> 20, (int)pid, expected_bytes >> 20);
	/* Twice the same memory at two places could not be told apart by its descriptor. */
	for (uint32_t i = 0; i < space->count; i++)
		for (uint32_t k = 0; k < i; k++) {
			struct stat a, b;

			if (fstat(space->blocks[i].fd, &a) < 0 || fstat(space->blocks[k].fd, &b) < 0)
				return err_set(err, ERR_MEM_ATTACH, -errno,
					       "cannot look at QEMU's memory: %s",
					       err_strerror(-errno));
			if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
				return err_set(err, ERR_MEM_NOT_SHARED, -EINVAL,
					       "QEMU (process %d) has the same memory mapped twice",
					       (int)pid);
		}
	return 0;
}

static int refuse(pid_t pid, int rc, struct err *err)
{
	if (rc == -EPERM || rc == -EACCES)
		return err_set(err, ERR_MEM_PERMISSION, rc,
			       "cannot look into QEMU (process %d): %s", (int)pid, err_strerror(rc));
	if (rc == -E2BIG || rc == -ENOSPC)
		return err_set(err, ERR_MEM_NOT_SHARED, rc,
			       "QEMU (process %d) has more than %u blocks of memory, or more than 64 TiB",
			       (int)pid, MEM_BLOCKS_MAX);
	return err_set(err, ERR_MEM_ATTACH, rc, "cannot look into QEMU (process %d): %s", (int)pid,
		       err_strerror(rc));
}

int mem_blocks_find(pid_t pid, int pidfd, uint64_t expected_bytes, struct mem_space *out,
		    struct err *err)
{
	CLEANUP_FREE struct search *search = calloc(1, sizeof(*search));
	int rc = -ENOMEM;

	CHECK(out->count == 0);
	if (search) {
		search->pid = pid;
		search->pidfd = pidfd;
		rc = read_maps(search);
		if (!rc)
			rc = find_fds(search);
		if (!rc)
			rc = fill_space(search, out);
		for (uint32_t i = 0; i < search->count; i++)
			if (search->list[i].fd >= 0)
				close(search->list[i].fd);
	}
	rc = rc ? refuse(pid, rc, err) : judge_sum(out, pid, expected_bytes, err);
	if (rc)
		mem_space_release(out);
	return rc;
}

bool mem_blocks_name(struct mem_space *space, uint64_t hva, const char *name)
{
	for (uint32_t i = 0; i < space->count; i++) {
		struct mem_block *block = &space->blocks[i];

		if (hva - block->hva >= block->len_bytes)
			continue;
		snprintf(block->name, sizeof(block->name), "%s", name);
		return true;
	}
	return false;
}

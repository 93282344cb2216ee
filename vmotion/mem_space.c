/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_space.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"

/* ---- blocks behind descriptors ---- */

static int fd_read(const struct mem_block *block, uint64_t offset_bytes, void *into,
		   uint64_t len_bytes)
{
	uint8_t *at = into;

	while (len_bytes) {     /* R-E3 */
		ssize_t got = pread(block->fd, at, len_bytes,
				    (off_t)(block->fd_offset_bytes + offset_bytes));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		at += got;
		offset_bytes += (uint64_t)got;
		len_bytes -= (uint64_t)got;
	}
	return 0;
}

/* hugetlbfs knows no SEEK_DATA of its own and calls all of a file data: correct, only slower. */
static int fd_next_data(const struct mem_block *block, uint64_t from_bytes, uint64_t *start_bytes,
			uint64_t *end_bytes)
{
	uint64_t base = block->fd_offset_bytes, file_end = base + block->len_bytes;
	off_t start, end;

	if (from_bytes >= block->len_bytes)
		return -ENXIO;
	start = lseek(block->fd, (off_t)(base + from_bytes), SEEK_DATA);
	if (start < 0)
		return -errno;
	if ((uint64_t)start >= file_end)
		return -ENXIO;
	end = lseek(block->fd, start, SEEK_HOLE);
	if (end < 0)
		return -errno;
	/* A punch between the two calls may leave nothing: the page was data a moment ago. */
	end = MAX(end, start + MEM_PAGE_BYTES);
	*start_bytes = round_down((uint64_t)start - base, MEM_PAGE_BYTES);
	*end_bytes = MIN(round_up((uint64_t)end - base, MEM_PAGE_BYTES), block->len_bytes);
	return 0;
}

static int fd_empty(const struct mem_block *block, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t inner = round_up(offset_bytes, block->backing_bytes);
	uint64_t end = round_down(offset_bytes + len_bytes, block->backing_bytes);

	if (inner >= end) {
		memset(block->bytes + offset_bytes, 0, len_bytes);
		return 0;
	}
	memset(block->bytes + offset_bytes, 0, inner - offset_bytes);
	memset(block->bytes + end, 0, offset_bytes + len_bytes - end);
	if (fallocate(block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(block->fd_offset_bytes + inner), (off_t)(end - inner)) < 0)
		return -errno;
	return 0;
}

static const struct mem_space_ops fd_ops = {
	.read = fd_read,
	.next_data = fd_next_data,
	.empty = fd_empty,
};

/* ---- the space ---- */

void mem_space_init(struct mem_space *space)
{
	memset(space, 0, sizeof(*space));
	space->ops = &fd_ops;
}

void mem_space_release(struct mem_space *space)
{
	for (uint32_t i = 0; i < space->count; i++) {
		struct mem_block *block = &space->blocks[i];

		if (block->bytes && block->fd >= 0)
			munmap(block->bytes, block->len_bytes);
		if (block->fd >= 0)
			close(block->fd);
	}
	memset(space, 0, sizeof(*space));
}

int mem_space_add(struct mem_space *space, const struct mem_block *block)
{
	struct mem_block *own = &space->blocks[space->count];

	if (space->count == MEM_BLOCKS_MAX)
		return -ENOSPC;
	if (!block->len_bytes || block->len_bytes % MEM_PAGE_BYTES ||
	    block->fd_offset_bytes % MEM_PAGE_BYTES || !is_power_of_two(block->backing_bytes) ||
	    block->backing_bytes < MEM_PAGE_BYTES || block->fd_offset_bytes > INT64_MAX / 2)
		return -EINVAL;
	if (block->len_bytes > MEM_SPACE_BYTES_MAX - space->len_bytes)
		return -ENOSPC;
	*own = *block;
	own->first_page = round_up(space->page_count, MEM_CHUNK_PAGES);
	space->page_count = own->first_page + mem_block_pages(own);
	space->len_bytes += own->len_bytes;
	space->count++;
	return 0;
}

int mem_space_map(struct mem_space *space, struct err *err)
{
	for (uint32_t i = 0; i < space->count; i++) {
		struct mem_block *block = &space->blocks[i];
		int seals = fcntl(block->fd, F_GET_SEALS);
		void *bytes;

		if (seals < 0 || !(seals & F_SEAL_SHRINK))
			return err_set(err, ERR_MEM_NOT_SHARED, -EINVAL,
				       "memory block %u of the receiving QEMU is not a sealed memfd", i);
		bytes = mmap(NULL, block->len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd,
			     (off_t)block->fd_offset_bytes);
		if (bytes == MAP_FAILED)
			return err_set(err, ERR_MEM_ATTACH, -errno,
				       "cannot map memory block %u of the receiving QEMU: %s", i,
				       err_strerror(-errno));
		block->bytes = bytes;
	}
	return 0;
}

const struct mem_block *mem_space_block_of(const struct mem_space *space, uint64_t page)
{
	uint32_t low = 0, high = space->count;
	const struct mem_block *block;

	/* The last block that begins at or before the page. */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (space->blocks[middle].first_page <= page)
			low = middle;
		else
			high = middle;
	}
	if (!space->count)
		return NULL;
	block = &space->blocks[low];
	return page - block->first_page < mem_block_pages(block) ? block : NULL;
}

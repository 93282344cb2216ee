/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/vmfs_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

static void save_pages(struct vmfs_mem *mem, uint64_t offset, size_t len)
{
	for (uint64_t page = offset / PAGE; page <= (offset + len - 1) / PAGE; page++) {
		struct vmfs_mem_page *saved;

		if (mem->saved_bits[page / 8] >> page % 8 & 1)
			continue;
		mem->saved_bits[page / 8] |= (uint8_t)(1 << page % 8);
		if (mem->saved_count == mem->saved_capacity) {
			mem->saved_capacity = mem->saved_capacity * 2 + 256;
			mem->saved = realloc(mem->saved, mem->saved_capacity * sizeof(mem->saved[0]));
			CHECK(mem->saved);
		}
		saved = &mem->saved[mem->saved_count++];
		saved->number = page;
		saved->bytes = malloc(PAGE);
		CHECK(saved->bytes);
		memcpy(saved->bytes, mem->bytes + page * PAGE, PAGE);
	}
}

static void record(struct vmfs_mem *mem, uint64_t offset, const uint8_t *bytes, size_t len)
{
	struct vmfs_mem_event *event;

	if (!mem->recording)
		return;
	if (mem->event_count == mem->event_capacity) {
		mem->event_capacity = mem->event_capacity * 2 + 256;
		mem->events = realloc(mem->events, mem->event_capacity * sizeof(mem->events[0]));
		CHECK(mem->events);
	}
	event = &mem->events[mem->event_count++];
	*event = (struct vmfs_mem_event){ .offset_bytes = offset, .len_bytes = len, .tag = mem->tag };
	if (len) {
		event->bytes = malloc(len);
		CHECK(event->bytes);
		memcpy(event->bytes, bytes, len);
	}
}

static bool fails(struct vmfs_mem *mem)
{
	return mem->fail_from && mem->writes + mem->flushes >= mem->fail_from;
}

static int mem_read(struct vmfs_io *io, uint64_t offset, uint8_t *bytes, size_t len)
{
	struct vmfs_mem *mem = container_of(io, struct vmfs_mem, io);

	mem->reads++;
	memcpy(bytes, mem->bytes + offset, len);
	return 0;
}

static int mem_write(struct vmfs_io *io, uint64_t offset, const uint8_t *bytes, size_t len)
{
	struct vmfs_mem *mem = container_of(io, struct vmfs_mem, io);

	mem->writes++;
	if (fails(mem))
		return -EIO;
	record(mem, offset, bytes, len);
	vmfs_mem_poke(mem, offset, bytes, len);
	return 0;
}

static int mem_flush(struct vmfs_io *io)
{
	struct vmfs_mem *mem = container_of(io, struct vmfs_mem, io);

	mem->flushes++;
	if (fails(mem))
		return -EIO;
	record(mem, 0, NULL, 0);
	return 0;
}

static int mem_compare_write(struct vmfs_io *io, uint64_t offset, const uint8_t *expected,
			     const uint8_t *replacement, size_t len)
{
	struct vmfs_mem *mem = container_of(io, struct vmfs_mem, io);

	if (memcmp(mem->bytes + offset, expected, len) != 0)
		return -EAGAIN;
	return mem_write(io, offset, replacement, len);
}

static void mem_close(struct vmfs_io *io)
{
	vmfs_mem_free(container_of(io, struct vmfs_mem, io));
}

static const struct vmfs_io_ops mem_ops = {
	.name = "memory",
	.read = mem_read,
	.write = mem_write,
	.flush = mem_flush,
	.compare_write = mem_compare_write,
	.close = mem_close,
};

struct vmfs_mem *vmfs_mem_new(uint64_t size_bytes)
{
	struct vmfs_mem *mem = calloc(1, sizeof(*mem));

	CHECK(mem);
	CHECK(size_bytes % PAGE == 0);
	mem->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(mem->bytes != MAP_FAILED);
	mem->saved_bits = calloc(1, size_bytes / PAGE / 8 + 1);
	CHECK(mem->saved_bits);
	mem->io = (struct vmfs_io){ .ops = &mem_ops, .size_bytes = size_bytes,
				    .block_bytes = VMFS_SECTOR_BYTES, .exclusive = true };
	return mem;
}

void vmfs_mem_clear_events(struct vmfs_mem *mem)
{
	for (size_t i = 0; i < mem->event_count; i++)
		free(mem->events[i].bytes);
	mem->event_count = 0;
}

void vmfs_mem_mark(struct vmfs_mem *mem)
{
	for (size_t i = 0; i < mem->saved_count; i++)
		free(mem->saved[i].bytes);
	mem->saved_count = 0;
	memset(mem->saved_bits, 0, mem->io.size_bytes / PAGE / 8 + 1);
}

void vmfs_mem_reset(struct vmfs_mem *mem)
{
	for (size_t i = 0; i < mem->saved_count; i++)
		memcpy(mem->bytes + mem->saved[i].number * PAGE, mem->saved[i].bytes, PAGE);
	vmfs_mem_mark(mem);
}

void vmfs_mem_poke(struct vmfs_mem *mem, uint64_t offset_bytes, const void *bytes, size_t len_bytes)
{
	save_pages(mem, offset_bytes, len_bytes);
	memcpy(mem->bytes + offset_bytes, bytes, len_bytes);
}

void vmfs_mem_free(struct vmfs_mem *mem)
{
	vmfs_mem_clear_events(mem);
	vmfs_mem_mark(mem);
	munmap(mem->bytes, mem->io.size_bytes);
	free(mem->events);
	free(mem->saved);
	free(mem->saved_bits);
	free(mem);
}

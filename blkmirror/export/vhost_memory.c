/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/export/vhost_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

/* ---- life ---- */

struct vhost_memory *vhost_memory_new(void)
{
	struct vhost_memory *memory = calloc(1, sizeof(*memory));

	if (memory)
		memory->refs = 1;
	return memory;
}

struct vhost_memory *vhost_memory_ref(struct vhost_memory *memory)
{
	CHECK(memory->refs > 0);
	memory->refs++;
	return memory;
}

void vhost_memory_put(struct vhost_memory *memory)
{
	if (!memory)
		return;
	CHECK(memory->refs > 0);
	if (--memory->refs)
		return;
	for (uint32_t i = 0; i < memory->count; i++)
		vhost_map_put(memory->regions[i].map);
	free(memory);
}

struct vhost_memory *vhost_memory_copy(const struct vhost_memory *memory, uint32_t except)
{
	struct vhost_memory *copy = vhost_memory_new();

	if (!copy)
		return NULL;
	for (uint32_t i = 0; i < memory->count; i++) {
		if (i == except)
			continue;
		copy->regions[copy->count] = memory->regions[i];
		vhost_map_ref(copy->regions[copy->count++].map);
	}
	return copy;
}

/* ---- regions ---- */

static bool ranges_meet(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static int region_judge(const struct vhost_memory *memory, const struct vhost_wire_region *wire)
{
	uint64_t end;

	if (memory->count == VHOST_REGIONS_MAX)
		return -ENOSPC;
	if (wire->len_bytes == 0 || !u64_add(wire->gpa, wire->len_bytes, &end) ||
	    !u64_add(wire->hva, wire->len_bytes, &end))
		return -EINVAL;
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct vhost_region *other = &memory->regions[i];

		/* One memory may be seen at two guest addresses, but not two at one. */
		if (ranges_meet(wire->gpa, wire->len_bytes, other->gpa, other->len_bytes))
			return -EINVAL;
	}
	return 0;
}

int vhost_memory_add(struct vhost_memory *memory, const struct vhost_wire_region *wire, int fd)
{
	struct vhost_region region = { .gpa = wire->gpa, .len_bytes = wire->len_bytes,
				       .hva = wire->hva };
	uint32_t at = memory->count;
	int rc = region_judge(memory, wire);

	CHECK(memory->refs == 1);
	if (rc)
		return rc;
	rc = vhost_map_new(fd, wire->mmap_offset_bytes, wire->len_bytes, &region.map);
	if (rc)
		return rc;
	while (at > 0 && memory->regions[at - 1].gpa > region.gpa) {
		memory->regions[at] = memory->regions[at - 1];
		at--;
	}
	memory->regions[at] = region;
	memory->count++;
	return 0;
}

uint32_t vhost_memory_find(const struct vhost_memory *memory, const struct vhost_wire_region *wire)
{
	uint32_t i = 0;

	while (i < memory->count && !(memory->regions[i].gpa == wire->gpa &&
				      memory->regions[i].len_bytes == wire->len_bytes &&
				      memory->regions[i].hva == wire->hva))
		i++;
	return i;
}

bool vhost_memory_is_torn(const struct vhost_memory *memory)
{
	for (uint32_t i = 0; i < memory->count; i++)
		if (vhost_map_is_torn(memory->regions[i].map))
			return true;
	return false;
}

/* ---- addresses ---- */

void *vhost_memory_at_hva(const struct vhost_memory *memory, uint64_t hva, uint64_t len_bytes)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct vhost_region *region = &memory->regions[i];

		if (hva >= region->hva &&
		    range_fits(hva - region->hva, len_bytes, region->len_bytes))
			return region->map->bytes + (hva - region->hva);
	}
	return NULL;
}

/* The region that holds this address; NULL: none. */
static const struct vhost_region *region_at(const struct vhost_memory *memory, uint64_t gpa)
{
	uint32_t low = 0, high = memory->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct vhost_region *region = &memory->regions[middle];

		if (gpa < region->gpa)
			high = middle;
		else if (gpa - region->gpa >= region->len_bytes)
			low = middle + 1;
		else
			return region;
	}
	return NULL;
}

static bool pieces_add(struct vhost_pieces *pieces, uint8_t *bytes, uint64_t len_bytes)
{
	struct iovec *last = NULL;

	CHECK(pieces->list);
	if (pieces->count > pieces->join)
		last = &pieces->list[pieces->count - 1];
	if (last && (uint8_t *)last->iov_base + last->iov_len == bytes) {
		last->iov_len += len_bytes;
		return true;
	}
	if (pieces->count == pieces->max)
		return false;
	pieces->list[pieces->count++] = (struct iovec){ .iov_base = bytes, .iov_len = len_bytes };
	return true;
}

bool vhost_memory_pieces(const struct vhost_memory *memory, uint64_t gpa, uint64_t len_bytes,
			 struct vhost_pieces *pieces)
{
	uint64_t end;

	if (!u64_add(gpa, len_bytes, &end))
		return false;
	while (len_bytes) {
		const struct vhost_region *region = region_at(memory, gpa);
		uint64_t into, part;

		if (!region)
			return false;
		into = gpa - region->gpa;
		part = MIN(len_bytes, region->len_bytes - into);
		if (!pieces_add(pieces, region->map->bytes + into, part))
			return false;
		gpa += part;
		len_bytes -= part;
	}
	return true;
}

bool vhost_memory_gpa_of(const struct vhost_memory *memory, const void *byte, uint64_t *gpa,
			 uint64_t *left_bytes)
{
	uintptr_t at = (uintptr_t)byte;

	for (uint32_t i = 0; i < memory->count; i++) {
		const struct vhost_region *region = &memory->regions[i];
		uintptr_t start = (uintptr_t)region->map->bytes;

		if (at < start || at - start >= region->len_bytes)
			continue;
		*gpa = region->gpa + (at - start);
		*left_bytes = region->len_bytes - (at - start);
		return true;
	}
	return false;
}

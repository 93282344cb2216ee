/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_batch.c - the layout of a batch and the edge where one from outside is judged.
 */
#include "vmotion/mem_batch.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "vmotion/mem_batch_private.h"

#define PAGE_BITS 40u
#define KIND_BITS 8u

const char *mem_codec_name(enum mem_codec codec)
{
	static const char *const names[MEM_CODEC_COUNT] = { "none", "lz4", "zstd" };

	CHECK(codec < MEM_CODEC_COUNT);
	return names[codec];
}

/* ---- numbers ---- */

static void put_u32(uint8_t *at, uint32_t value)
{
	uint32_t little = htole32(value);

	memcpy(at, &little, sizeof(little));
}

static void put_u64(uint8_t *at, uint64_t value)
{
	uint64_t little = htole64(value);

	memcpy(at, &little, sizeof(little));
}

static uint32_t get_u16(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get_u32(const uint8_t *at)
{
	uint32_t little;

	memcpy(&little, at, sizeof(little));
	return le32toh(little);
}

static uint64_t get_u64(const uint8_t *at)
{
	uint64_t little;

	memcpy(&little, at, sizeof(little));
	return le64toh(little);
}

void mem_batch_put_head(uint8_t *at, const struct mem_batch_head *head)
{
	at[0] = MEM_BATCH_VERSION;
	at[1] = 0;
	at[2] = head->kind;
	at[3] = head->codec;
	put_u32(at + 4, head->round);
	put_u32(at + 8, head->stream);
	put_u32(at + 12, head->entry_count);
	put_u32(at + 16, head->stored_bytes);
	put_u32(at + 20, head->packed_bytes);
	put_u32(at + 24, head->packed_wire_bytes);
	put_u32(at + 28, 0);
	put_u64(at + 32, head->sequence);
}

void mem_batch_put_entry(uint8_t *at, const struct mem_entry *entry)
{
	CHECK(entry->page >> PAGE_BITS == 0);
	put_u64(at, entry->page | (uint64_t)entry->kind << PAGE_BITS |
		    (uint64_t)entry->count << (PAGE_BITS + KIND_BITS));
}

struct mem_entry mem_batch_entry(const uint8_t *bytes, uint32_t index)
{
	uint64_t word = get_u64(bytes + MEM_BATCH_HEAD_BYTES + index * 8u);

	return (struct mem_entry) {
		.page = word & ((UINT64_C(1) << PAGE_BITS) - 1),
		.kind = (enum mem_entry_kind)(word >> PAGE_BITS & 0xff),
		.count = (uint32_t)(word >> (PAGE_BITS + KIND_BITS)),
	};
}

uint32_t mem_batch_stored_at(const struct mem_batch_head *head)
{
	return MEM_BATCH_HEAD_BYTES + head->entry_count * 8u;
}

uint32_t mem_batch_packed_at(const struct mem_batch_head *head)
{
	return mem_batch_stored_at(head) + head->stored_bytes;
}

uint32_t mem_batch_len(const struct mem_batch_head *head)
{
	return mem_batch_packed_at(head) + head->packed_wire_bytes;
}

/* ---- the edge ---- */

struct sums {
	uint32_t stored_bytes, packed_bytes, pages;
};

static bool judge_head(const uint8_t *bytes, struct mem_batch_head *head)
{
	*head = (struct mem_batch_head) {
		.kind = bytes[2], .codec = bytes[3], .round = get_u32(bytes + 4),
		.stream = get_u32(bytes + 8), .entry_count = get_u32(bytes + 12),
		.stored_bytes = get_u32(bytes + 16), .packed_bytes = get_u32(bytes + 20),
		.packed_wire_bytes = get_u32(bytes + 24), .sequence = get_u64(bytes + 32),
	};
	if (get_u16(bytes) != MEM_BATCH_VERSION || get_u32(bytes + 28) ||
	    head->codec >= MEM_CODEC_COUNT || head->entry_count > MEM_BATCH_ENTRIES_MAX)
		return false;
	if (head->stored_bytes > MEM_BATCH_PART_BYTES || head->packed_bytes > MEM_BATCH_PART_BYTES ||
	    head->stored_bytes + head->packed_bytes > MEM_BATCH_PART_BYTES)
		return false;
	if (head->codec == MEM_CODEC_NONE ? head->packed_wire_bytes != head->packed_bytes :
					    head->packed_wire_bytes >= head->packed_bytes)
		return false;
	switch (head->kind) {
	case MEM_BATCH_PAGES:
		return head->entry_count > 0;
	case MEM_BATCH_END:
		return !head->entry_count && !head->stored_bytes && !head->packed_bytes;
	default:
		return false;
	}
}

static bool count_entry(const struct mem_entry *entry, struct sums *sums)
{
	switch (entry->kind) {
	case MEM_ENTRY_ZERO:
		return true;
	case MEM_ENTRY_STORED:
		sums->stored_bytes += entry->count * MEM_PAGE_BYTES;
		break;
	case MEM_ENTRY_PACKED:
		sums->packed_bytes += entry->count * MEM_PAGE_BYTES;
		break;
	case MEM_ENTRY_DELTA:
		sums->packed_bytes += entry->count;
		sums->pages++;
		return entry->count > MEM_DELTA_HASH_BYTES &&
		       entry->count <= MEM_DELTA_HASH_BYTES + MEM_DELTA_MAX_BYTES &&
		       sums->pages <= MEM_BATCH_PAGES_MAX;
	default:
		return false;
	}
	sums->pages += entry->count;
	return sums->pages <= MEM_BATCH_PAGES_MAX;
}

static bool judge_entry(const struct mem_entry *entry, const struct mem_space *space,
			uint32_t stream, uint32_t stream_count)
{
	const struct mem_block *block = mem_space_block_of(space, entry->page);
	uint64_t last = entry->page;

	if (!block || !entry->count)
		return false;
	if (entry->kind != MEM_ENTRY_DELTA)
		last += entry->count - 1;
	return last / MEM_CHUNK_PAGES == entry->page / MEM_CHUNK_PAGES &&
	       last - block->first_page < mem_block_pages(block) &&
	       entry->page / MEM_CHUNK_PAGES % stream_count == stream;
}

int mem_batch_judge(const uint8_t *bytes, uint32_t len_bytes, const struct mem_space *space,
		    uint32_t stream_count, struct mem_batch_head *out, uint32_t *need_bytes)
{
	struct mem_batch_head head;
	struct sums sums = { 0 };

	CHECK(stream_count > 0);
	if (len_bytes < MEM_BATCH_HEAD_BYTES) {
		*need_bytes = MEM_BATCH_HEAD_BYTES;
		return -EAGAIN;
	}
	if (!judge_head(bytes, &head) || head.stream >= stream_count)
		return -EBADMSG;
	if (len_bytes < mem_batch_stored_at(&head)) {
		*need_bytes = mem_batch_stored_at(&head);
		return -EAGAIN;
	}
	for (uint32_t i = 0; i < head.entry_count; i++) {
		struct mem_entry entry = mem_batch_entry(bytes, i);

		if (!count_entry(&entry, &sums) ||
		    !judge_entry(&entry, space, head.stream, stream_count))
			return -EBADMSG;
	}
	if (sums.stored_bytes != head.stored_bytes || sums.packed_bytes != head.packed_bytes)
		return -EBADMSG;
	*out = head;
	return 0;
}

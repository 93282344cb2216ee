/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_pack.c - a stream's batches: gathered page by page, compressed as one piece, unpacked.
 *
 * One piece, because a page alone is too short for a codec to learn anything from; pages that
 * look like noise stay out of it, because they would cost its time and gain nothing.
 */
#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "vmotion/mem_batch_private.h"

#define ZSTD_LEVEL 1

struct mem_packer {
	ZSTD_CCtx *zstd;
	uint64_t sequence;
	uint32_t stream, round;
	uint32_t entry_count, page_count, stored_bytes, packed_bytes;
	struct mem_entry entries[MEM_BATCH_ENTRIES_MAX];
	uint8_t stored[MEM_BATCH_PART_BYTES];
	uint8_t packed[MEM_BATCH_PART_BYTES];
};

struct mem_packer *mem_packer_new(uint32_t stream)
{
	struct mem_packer *packer = malloc(sizeof(*packer));

	if (!packer)
		return NULL;
	packer->zstd = ZSTD_createCCtx();
	if (!packer->zstd) {
		free(packer);
		return NULL;
	}
	packer->sequence = 0;
	packer->stream = stream;
	mem_packer_begin(packer, 0);
	return packer;
}

void mem_packer_free(struct mem_packer *packer)
{
	if (!packer)
		return;
	ZSTD_freeCCtx(packer->zstd);
	free(packer);
}

void mem_packer_begin(struct mem_packer *packer, uint32_t round)
{
	packer->round = round;
	packer->entry_count = 0;
	packer->page_count = 0;
	packer->stored_bytes = 0;
	packer->packed_bytes = 0;
}

uint32_t mem_packer_room(const struct mem_packer *packer)
{
	return MIN(MEM_BATCH_ENTRIES_MAX - packer->entry_count,
		   MEM_BATCH_PAGES_MAX - packer->page_count);
}

bool mem_packer_is_empty(const struct mem_packer *packer)
{
	return packer->entry_count == 0;
}

uint64_t mem_packer_raw_bytes(const struct mem_packer *packer)
{
	return (uint64_t)packer->stored_bytes + packer->packed_bytes;
}

/* Longer by one page where the last entry ends just before it, else a new entry. */
static void add_page(struct mem_packer *packer, uint64_t page, enum mem_entry_kind kind)
{
	struct mem_entry *last = packer->entry_count ? &packer->entries[packer->entry_count - 1] :
						       NULL;

	if (last && last->kind == kind && last->page + last->count == page &&
	    page % MEM_CHUNK_PAGES) {
		last->count++;
		return;
	}
	CHECK(packer->entry_count < MEM_BATCH_ENTRIES_MAX);
	packer->entries[packer->entry_count++] = (struct mem_entry) {
		.page = page, .kind = kind, .count = 1,
	};
}

void mem_packer_zero(struct mem_packer *packer, uint64_t page)
{
	add_page(packer, page, MEM_ENTRY_ZERO);
}

void mem_packer_page(struct mem_packer *packer, uint64_t page, const uint8_t *bytes, bool dense)
{
	CHECK(packer->page_count < MEM_BATCH_PAGES_MAX);
	packer->page_count++;
	add_page(packer, page, dense ? MEM_ENTRY_STORED : MEM_ENTRY_PACKED);
	if (dense) {
		memcpy(packer->stored + packer->stored_bytes, bytes, MEM_PAGE_BYTES);
		packer->stored_bytes += MEM_PAGE_BYTES;
	} else {
		memcpy(packer->packed + packer->packed_bytes, bytes, MEM_PAGE_BYTES);
		packer->packed_bytes += MEM_PAGE_BYTES;
	}
}

void mem_packer_delta(struct mem_packer *packer, uint64_t page, const uint8_t *delta,
		      uint32_t len_bytes, uint64_t result_hash)
{
	uint64_t little = htole64(result_hash);
	uint8_t *at = packer->packed + packer->packed_bytes;

	CHECK(packer->page_count < MEM_BATCH_PAGES_MAX);
	CHECK(packer->entry_count < MEM_BATCH_ENTRIES_MAX);
	packer->page_count++;
	packer->entries[packer->entry_count++] = (struct mem_entry) {
		.page = page, .kind = MEM_ENTRY_DELTA, .count = MEM_DELTA_HASH_BYTES + len_bytes,
	};
	memcpy(at, &little, MEM_DELTA_HASH_BYTES);
	memcpy(at + MEM_DELTA_HASH_BYTES, delta, len_bytes);
	packer->packed_bytes += MEM_DELTA_HASH_BYTES + len_bytes;
}

/* The packed length, less than the part itself; 0: it does not get smaller. */
static uint32_t compress(struct mem_packer *packer, enum mem_codec codec, uint8_t *out)
{
	uint32_t room = packer->packed_bytes ? packer->packed_bytes - 1 : 0;
	size_t zstd_bytes;
	int lz4_bytes;

	switch (codec) {
	case MEM_CODEC_LZ4:
		lz4_bytes = LZ4_compress_default((const char *)packer->packed, (char *)out,
						 (int)packer->packed_bytes, (int)room);
		return lz4_bytes > 0 ? (uint32_t)lz4_bytes : 0;
	case MEM_CODEC_ZSTD:
		zstd_bytes = ZSTD_compressCCtx(packer->zstd, out, room, packer->packed,
					       packer->packed_bytes, ZSTD_LEVEL);
		return ZSTD_isError(zstd_bytes) ? 0 : (uint32_t)zstd_bytes;
	default:
		return 0;
	}
}

uint32_t mem_packer_seal(struct mem_packer *packer, enum mem_batch_kind kind, enum mem_codec codec,
			 uint8_t *out)
{
	struct mem_batch_head head = {
		.kind = (uint8_t)kind, .round = packer->round, .stream = packer->stream,
		.entry_count = packer->entry_count, .stored_bytes = packer->stored_bytes,
		.packed_bytes = packer->packed_bytes, .sequence = packer->sequence++,
	};
	uint8_t *packed_at = out + mem_batch_packed_at(&head);

	CHECK((kind == MEM_BATCH_END) == mem_packer_is_empty(packer));
	for (uint32_t i = 0; i < packer->entry_count; i++)
		mem_batch_put_entry(out + MEM_BATCH_HEAD_BYTES + i * 8u, &packer->entries[i]);
	memcpy(out + mem_batch_stored_at(&head), packer->stored, packer->stored_bytes);
	head.packed_wire_bytes = packer->packed_bytes > 1 ? compress(packer, codec, packed_at) : 0;
	if (head.packed_wire_bytes) {
		head.codec = (uint8_t)codec;
	} else {
		memcpy(packed_at, packer->packed, packer->packed_bytes);
		head.packed_wire_bytes = packer->packed_bytes;
	}
	mem_batch_put_head(out, &head);
	return mem_batch_len(&head);
}

/* ---- the other end ---- */

struct mem_unpacker {
	ZSTD_DCtx *zstd;
	uint8_t bytes[MEM_BATCH_PART_BYTES];
};

struct mem_unpacker *mem_unpacker_new(void)
{
	struct mem_unpacker *unpacker = malloc(sizeof(*unpacker));

	if (!unpacker)
		return NULL;
	unpacker->zstd = ZSTD_createDCtx();
	if (!unpacker->zstd) {
		free(unpacker);
		return NULL;
	}
	return unpacker;
}

void mem_unpacker_free(struct mem_unpacker *unpacker)
{
	if (!unpacker)
		return;
	ZSTD_freeDCtx(unpacker->zstd);
	free(unpacker);
}

/* The lengths have been judged: neither decoder reads or writes beyond them, whatever comes. */
static bool unpack(struct mem_unpacker *unpacker, const struct mem_batch_head *head,
		   const uint8_t *packed)
{
	if (head->codec == MEM_CODEC_LZ4)
		return LZ4_decompress_safe((const char *)packed, (char *)unpacker->bytes,
					   (int)head->packed_wire_bytes, (int)head->packed_bytes) ==
		       (int)head->packed_bytes;
	return ZSTD_decompressDCtx(unpacker->zstd, unpacker->bytes, head->packed_bytes, packed,
				   head->packed_wire_bytes) == head->packed_bytes;
}

static int judge_deltas(const struct mem_batch_head *head, const uint8_t *table,
			const uint8_t *bytes)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < head->entry_count; i++) {
		struct mem_entry entry = mem_batch_entry(table, i);

		if (entry.kind == MEM_ENTRY_PACKED)
			at += entry.count * MEM_PAGE_BYTES;
		if (entry.kind != MEM_ENTRY_DELTA)
			continue;
		if (mem_delta_judge(bytes + at + MEM_DELTA_HASH_BYTES,
				    entry.count - MEM_DELTA_HASH_BYTES))
			return -EBADMSG;
		at += entry.count;
	}
	CHECK(at == head->packed_bytes);
	return 0;
}

int mem_unpacker_run(struct mem_unpacker *unpacker, const struct mem_batch_head *head,
		     const uint8_t *table, const uint8_t *packed, const uint8_t **out)
{
	const uint8_t *bytes = packed;

	if (head->codec != MEM_CODEC_NONE) {
		if (!unpack(unpacker, head, packed))
			return -EBADMSG;
		bytes = unpacker->bytes;
	}
	if (judge_deltas(head, table, bytes))
		return -EBADMSG;
	*out = bytes;
	return 0;
}

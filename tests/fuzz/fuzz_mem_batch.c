/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_mem_batch.c - input: what a hostile peer sends as a guest's memory.
 *
 *	byte 0    0 to 127: the rest is one batch, as it is
 *	          else: a batch is made by the rules from what follows, and then bytes of it change
 *	made:     byte 1 codec, byte 2 how many pages, byte 3 how many changes; per change 3 bytes
 *	          (place, value); the rest are the pages' contents
 *
 * Whatever comes: nothing outside the guest's memory is touched, and what was refused says so.
 */
#include <stdlib.h>
#include <string.h>

#include "vmotion/mem_blocks.h"
#include "vmotion/mem_receive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGES = 20 };

static struct mem_space space;
static uint8_t *batch;

static int empty(const struct mem_block *block, uint64_t offset_bytes, uint64_t len_bytes)
{
	CHECK(offset_bytes <= block->len_bytes);
	CHECK(len_bytes <= block->len_bytes - offset_bytes);
	memset(block->bytes + offset_bytes, 0, len_bytes);
	return 0;
}

static const struct mem_space_ops ops = { .empty = empty };

/* Two blocks of their own, so that ASan sees a byte beyond either. */
static void prepare(void)
{
	if (space.count)
		return;
	mem_space_init(&space);
	space.ops = &ops;
	for (uint32_t i = 0; i < 2; i++) {
		struct mem_block block = {
			.len_bytes = PAGES * MEM_PAGE_BYTES, .backing_bytes = MEM_PAGE_BYTES, .fd = -1,
		};

		block.bytes = calloc(PAGES, MEM_PAGE_BYTES);
		CHECK(block.bytes);
		CHECK(mem_space_add(&space, &block) == 0);
	}
	batch = malloc(MEM_BATCH_MAX_BYTES);
	CHECK(batch);
}

static void gather(struct mem_packer *packer, uint8_t count, const uint8_t *data, size_t size)
{
	uint8_t page[MEM_PAGE_BYTES] = { 0 };

	for (uint8_t i = 0; i < count % (PAGES / 2) + 1; i++) {
		size_t part = MIN(size, 64);

		memcpy(page + (i * 64u) % MEM_PAGE_BYTES, data, part);
		data += part;
		size -= part;
		switch (part ? page[(i * 64u) % MEM_PAGE_BYTES] % 4 : 0) {
		case 0:
			mem_packer_zero(packer, i);
			break;
		case 1:
			mem_packer_delta(packer, i, page, 1 + page[1], 7);
			break;
		default:
			mem_packer_page(packer, i, page, page[2] & 1);
		}
	}
}

/* The length; 0: too short an input. */
static uint32_t make(const uint8_t *data, size_t size)
{
	struct mem_packer *packer;
	uint8_t changes;
	uint32_t len;

	if (size < 3 || size < 3 + data[2] * 3u)
		return 0;
	changes = data[2];
	packer = mem_packer_new(0);
	CHECK(packer);
	mem_packer_begin(packer, 1);
	gather(packer, data[1], data + 3 + changes * 3u, size - 3 - changes * 3u);
	len = mem_packer_seal(packer, MEM_BATCH_PAGES, data[0] % MEM_CODEC_COUNT, batch);
	for (uint8_t i = 0; i < changes; i++) {
		const uint8_t *change = data + 3 + i * 3u;

		batch[(change[0] | (uint32_t)change[1] << 8) % len] = change[2];
	}
	mem_packer_free(packer);
	return len;
}

static void fuzz_deltas(const uint8_t *data, size_t size)
{
	uint8_t page[MEM_PAGE_BYTES] = { 0 };

	if (mem_delta_judge(data, (uint32_t)MIN(size, 65536)) == 0)
		mem_delta_apply(page, data, (uint32_t)size);
}

static void fuzz_maps(const uint8_t *data, size_t size)
{
	struct mem_mapping mapping;
	char line[512];

	size = MIN(size, sizeof(line) - 1);
	memcpy(line, data, size);
	line[size] = '\0';
	if (mem_mapping_parse(line, &mapping))
		CHECK(mapping.start < mapping.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mem_receiver_options options = { .stream_count = 1 };
	struct mem_receiver *receiver;
	struct err err = { 0 };
	uint32_t len;
	int rc;

	if (!size)
		return 0;
	prepare();
	fuzz_deltas(data + 1, size - 1);
	fuzz_maps(data + 1, size - 1);
	CHECK(mem_receiver_new(&space, &options, &receiver, &err) == 0);
	if (data[0] < 128) {
		len = (uint32_t)MIN(size - 1, MEM_BATCH_MAX_BYTES);
		memcpy(batch, data + 1, len);
	} else {
		len = make(data + 1, size - 1);
	}
	for (uint32_t i = 0; i < 2; i++) {
		rc = mem_receiver_batch(receiver, 0, batch, len, &err);
		CHECK((rc == 0) == (err.id == ERR_NONE));
		/* The same again is a repetition at least. */
		CHECK(i == 0 || rc);
	}
	mem_receiver_free(receiver);
	return 0;
}

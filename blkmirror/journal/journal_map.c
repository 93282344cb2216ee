/* SPDX-License-Identifier: Apache-2.0 */
/* journal_map.c - the persisted bitmap: which blocks of it have changed, and writing them. */
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

#define BLOCK_REGIONS ((uint64_t)JOURNAL_MAP_BITS * JOURNAL_BLOCK_SECTORS)
#define SECTOR_WORDS (JOURNAL_PAYLOAD_BYTES / sizeof(uint64_t))

void journal_map_changed(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t block_bytes = BLOCK_REGIONS * journal->identity.region_bytes;

	if (!len_bytes)
		return;
	for (uint64_t block = offset_bytes / block_bytes;
	     block <= (offset_bytes + len_bytes - 1) / block_bytes; block++) {
		journal->map_dirty_count += !journal->map_dirty[block];
		journal->map_dirty[block] = 1;
	}
}

void journal_map_build(struct journal *journal, uint64_t map_block, uint8_t *block)
{
	struct journal_sector *sectors = (struct journal_sector *)block;
	uint64_t first = map_block * JOURNAL_BLOCK_SECTORS;

	memset(block, 0, JOURNAL_BLOCK_BYTES);
	for (uint64_t i = 0; i < JOURNAL_BLOCK_SECTORS; i++) {
		uint64_t words[SECTOR_WORDS], marking[SECTOR_WORDS];

		dirty_bitmap_export(journal->persisted, (first + i) * SECTOR_WORDS, SECTOR_WORDS,
				    words);
		dirty_bitmap_export(journal->marking, (first + i) * SECTOR_WORDS, SECTOR_WORDS,
				    marking);
		for (size_t word = 0; word < SECTOR_WORDS; word++)
			words[word] |= marking[word];
		memcpy(sectors[i].payload, words, sizeof(words));
		journal_seal(&sectors[i], journal->key, JOURNAL_MAP, journal->map_sequence,
			     JOURNAL_MAP_SECTOR + first + i);
	}
}

static void journal_map_written(struct blk_req *req)
{
	struct journal *journal = req->user;

	journal->map_in_flight--;
	if (req->result)
		journal_fail(journal, req->result);
	if (journal->map_in_flight == 0)
		journal_map_write(journal);
	journal_settled(journal);
}

static void journal_map_submit(struct journal *journal, uint64_t map_block, uint32_t slot)
{
	uint8_t *block = journal->map_blocks + (uint64_t)slot * JOURNAL_BLOCK_BYTES;

	journal_map_build(journal, map_block, block);
	journal->map_dirty[map_block] = 0;
	journal->map_dirty_count--;
	journal->stats.map_writes++;
	journal->map_iovs[slot] = (struct iovec){ .iov_base = block,
						  .iov_len = JOURNAL_BLOCK_BYTES };
	journal->map_reqs[slot] = (struct blk_req){
		.op = BLK_WRITE, .flags = BLK_FUA | BLK_STABLE,
		.offset_bytes = JOURNAL_MAP_SECTOR * (uint64_t)JOURNAL_SECTOR_BYTES +
				map_block * JOURNAL_BLOCK_BYTES,
		.len_bytes = JOURNAL_BLOCK_BYTES, .iov = &journal->map_iovs[slot], .iov_count = 1,
		.done = journal_map_written, .user = journal,
	};
	blk_submit(journal->dev, &journal->map_reqs[slot]);
}

/* A batch at a time; what changes meanwhile is written before the end is told. */
void journal_map_write(struct journal *journal)
{
	uint32_t slot = 0;

	if (journal->map_in_flight)
		return;
	if (journal->stats.error || !journal->map_dirty_count) {
		journal_map_durable(journal, journal->stats.error);
		return;
	}
	journal->map_sequence++;
	journal->map_in_flight = 1;     /* so that nothing counts down to 0 before all are sent */
	for (uint64_t block = 0; block < journal->map_block_count && slot < JOURNAL_MAP_BATCH;
	     block++) {
		if (!journal->map_dirty[block])
			continue;
		journal->map_in_flight++;
		journal_map_submit(journal, block, slot++);
	}
	journal->map_in_flight--;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_journal.c - a journal of arbitrary bytes is loaded: refused, or read with doubt as dirty.
 *
 * With the first byte odd, the input is patched over a good journal and the sectors it touches
 * are sealed again, so that what lies behind the seals is reached too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"
#include "tests/lib/sim_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct journal_identity identity = {
	.size_bytes = 3000 * 2048, .region_bytes = 2048, .extent_bytes = 65536, .generation = 1,
	.journal_id = "t1",
};

struct answer {
	struct journal *journal;
	int result;
	bool come;
	struct journal_identity found;
};

static void opened(struct journal *journal, int result, void *user)
{
	*(struct answer *)user = (struct answer){ .journal = journal, .result = result, .come = true };
}

/* What a header claims is believed where it was judged: then it loads, whatever comes of it. */
static void peeked(const struct journal_identity *found, int result, void *user)
{
	struct answer *answer = user;

	CHECK((result == 0) == (found != NULL));
	if (found)
		answer->found = *found;
	answer->result = result;
	answer->come = true;
}

static void run(struct loop *loop, struct answer *answer)
{
	while (!answer->come)
		CHECK(loop_sim_step(loop));
	while (loop_sim_step(loop))
		continue;
}

/* Patches: 2 bytes of sector number, 2 of offset, 1 of length, then the bytes. */
static void patch(struct sim_disk *disk, uint64_t key, const uint8_t *data, size_t size)
{
	uint64_t sectors = disk->options.size_bytes / SIM_BLOCK;

	while (size >= 6) {
		uint64_t index = (uint64_t)(data[0] | data[1] << 8) % sectors;
		struct journal_sector *sector =
			(struct journal_sector *)(disk->bytes + index * SIM_BLOCK);
		uint64_t at = (uint64_t)(data[2] | data[3] << 8) % JOURNAL_PAYLOAD_BYTES;
		size_t len = MIN((size_t)data[4], MIN(size - 5, JOURNAL_PAYLOAD_BYTES - at));
		enum journal_sector_kind kind = index < JOURNAL_LOG_SECTOR ? JOURNAL_HEADER :
						index < JOURNAL_MAP_SECTOR ? JOURNAL_LOG :
									     JOURNAL_MAP;

		memcpy(sector->payload + at, data + 5, len);
		journal_seal(sector, kind == JOURNAL_HEADER ? 0 : key, kind, data[4], index);
		data += 5 + len;
		size -= 5 + len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct loop *loop = loop_sim_new(1);
	struct sim_disk_options options = {
		.size_bytes = journal_device_bytes(&identity), .physical_bytes = SIM_BLOCK,
		.reads_zero = true, .max_latency_ns = 1000, .name = "journal",
	};
	struct sim_disk *disk = sim_disk_new(loop, &options);
	struct answer answer = { 0 };
	uint64_t key;

	log_set_level(LOG_LEVEL_NONE);
	if (size && (data[0] & 1)) {
		journal_create(&disk->dev, &identity, opened, &answer);
		run(loop, &answer);
		CHECK(answer.journal);
		key = answer.journal->key;
		journal_free(answer.journal);
		answer = (struct answer){ 0 };
		patch(disk, key, data + 1, size - 1);
	} else if (size) {
		memcpy(disk->bytes, data + 1, MIN(size - 1, (size_t)options.size_bytes));
	}
	journal_peek(&disk->dev, peeked, &answer);
	run(loop, &answer);
	if (answer.result == 0) {
		struct journal_identity found = answer.found;

		answer = (struct answer){ 0 };
		journal_load(&disk->dev, &found, opened, &answer);
		run(loop, &answer);
		CHECK((answer.result == 0) == (answer.journal != NULL));
		journal_free(answer.journal);
	}
	answer = (struct answer){ 0 };
	journal_load(&disk->dev, &identity, opened, &answer);
	run(loop, &answer);
	CHECK((answer.result == 0) == (answer.journal != NULL));
	if (answer.journal)
		CHECK(dirty_bitmap_bytes(journal_persisted(answer.journal)) <= identity.size_bytes);
	journal_free(answer.journal);
	blk_close(&disk->dev);
	loop_free(loop);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger_block.h"

#include <endian.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MAGIC UINT64_C(0x31524744454c4d42) /* "BMLEDGR1" */

enum {
	WORD_COUNT = LEDGER_BLOCK_BYTES / 8,
	WORD_MAGIC = 0,
	WORD_SEQUENCE = 1,
	WORD_LBA = 2,
	WORD_RUN = 3,
	WORD_TIME = 4,
	WORD_CHECKSUM = 5,
	WORD_BODY = 6,
};

uint64_t ledger_mix64(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static uint64_t checksum_step(uint64_t sum, uint64_t word)
{
	sum ^= word;
	sum = (sum << 27) | (sum >> 37);
	return sum * UINT64_C(0x9e3779b97f4a7c15);
}

/* The checksum's own word is left out.  Every step is a bijection: one changed word shows. */
static uint64_t block_checksum(const uint64_t *words)
{
	uint64_t sum = UINT64_C(0x6c65646765726d42);

	for (int i = 0; i < WORD_CHECKSUM; i++)
		sum = checksum_step(sum, le64toh(words[i]));
	for (int i = WORD_BODY; i < WORD_COUNT; i++)
		sum = checksum_step(sum, le64toh(words[i]));
	return ledger_mix64(sum);
}

void ledger_block_make(void *block, uint64_t run, uint64_t lba, uint64_t sequence,
		       uint64_t time_ns)
{
	uint64_t *words = block;
	uint64_t state = ledger_mix64(run ^ ledger_mix64(lba ^ ledger_mix64(sequence))) | 1;

	words[WORD_MAGIC] = htole64(MAGIC);
	words[WORD_SEQUENCE] = htole64(sequence);
	words[WORD_LBA] = htole64(lba);
	words[WORD_RUN] = htole64(run);
	words[WORD_TIME] = htole64(time_ns);
	for (int i = WORD_BODY; i < WORD_COUNT; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = htole64(state);
	}
	words[WORD_CHECKSUM] = htole64(block_checksum(words));
}

static bool block_is_zero(const uint64_t *words)
{
	uint64_t any = 0;

	if (words[0])
		return false;
	for (int i = 0; i < WORD_COUNT; i += 8)
		any |= words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] |
		       words[i + 5] | words[i + 6] | words[i + 7];
	return !any;
}

struct ledger_finding ledger_block_judge(const void *block, uint64_t run, uint64_t lba)
{
	const uint64_t *words = block;
	struct ledger_finding finding = { .kind = LEDGER_GARBAGE };
	uint64_t checksum = le64toh(words[WORD_CHECKSUM]);

	if (block_is_zero(words)) {
		finding.kind = LEDGER_ZERO;
		return finding;
	}
	if (le64toh(words[WORD_MAGIC]) != MAGIC || checksum != block_checksum(words))
		return finding;
	finding.sequence = le64toh(words[WORD_SEQUENCE]);
	finding.lba = le64toh(words[WORD_LBA]);
	finding.run = le64toh(words[WORD_RUN]);
	finding.checksum = checksum;
	if (finding.run != run)
		finding.kind = LEDGER_FOREIGN;
	else if (finding.lba != lba)
		finding.kind = LEDGER_MISPLACED;
	else
		finding.kind = LEDGER_SOUND;
	return finding;
}

const char *ledger_kind_name(enum ledger_kind kind)
{
	switch (kind) {
	case LEDGER_ZERO: return "zero";
	case LEDGER_SOUND: return "sound";
	case LEDGER_GARBAGE: return "garbage";
	case LEDGER_MISPLACED: return "misplaced";
	case LEDGER_FOREIGN: return "foreign";
	}
	return "?";
}

/* ---- digest ---- */

void ledger_digest_fold(struct ledger_digest *digest, const struct ledger_finding *finding)
{
	uint64_t a, b;

	if (finding->kind == LEDGER_ZERO)
		return;
	a = ledger_mix64(finding->lba ^ ledger_mix64(finding->sequence ^ finding->checksum));
	b = ledger_mix64(finding->checksum + ledger_mix64(~finding->lba ^ finding->sequence));
	digest->sum += a;
	digest->mix ^= b;
	digest->block_count++;
}

void ledger_digest_merge(struct ledger_digest *into, const struct ledger_digest *part)
{
	into->sum += part->sum;
	into->mix ^= part->mix;
	into->block_count += part->block_count;
}

void ledger_digest_format(const struct ledger_digest *digest, char text[LEDGER_DIGEST_CHARS])
{
	snprintf(text, LEDGER_DIGEST_CHARS, "%016" PRIx64 "%016" PRIx64,
		 digest->sum + ledger_mix64(digest->block_count), digest->mix);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ledger_sector.h"

#include <endian.h>
#include <stdbool.h>

#define MAGIC UINT64_C(0x31434553474c4d42) /* "BMLGSEC1" */

enum {
	WORD_MAGIC,
	WORD_RUN,
	WORD_SECTOR,
	WORD_SEQUENCE,
	WORD_CHECKSUM,
	WORD_BODY,
	WORD_COUNT = LEDGER_SECTOR_BYTES / 8,
};

const char *sector_kind_name(enum sector_kind kind)
{
	static const char *const names[] = { "zero", "sound", "garbage", "misplaced", "foreign" };

	return names[kind];
}

uint64_t ledger_mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* Each step is a bijection of the sum: one changed word always shows. */
static uint64_t checksum(const uint64_t *words)
{
	uint64_t sum = UINT64_C(0x6c65646765727365);

	for (unsigned i = 0; i < WORD_COUNT; i++) {
		if (i == WORD_CHECKSUM)
			continue;
		sum ^= le64toh(words[i]);
		sum = ((sum << 27) | (sum >> 37)) * UINT64_C(0x9e3779b97f4a7c15);
	}
	return sum;
}

void ledger_sector_make(void *bytes, uint64_t run, uint64_t sector, uint32_t sequence)
{
	uint64_t *words = bytes;
	uint64_t state = ledger_mix(run ^ ledger_mix(sector ^ ledger_mix(sequence))) | 1;

	words[WORD_MAGIC] = htole64(MAGIC);
	words[WORD_RUN] = htole64(run);
	words[WORD_SECTOR] = htole64(sector);
	words[WORD_SEQUENCE] = htole64(sequence);
	for (unsigned i = WORD_BODY; i < WORD_COUNT; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = htole64(state);
	}
	words[WORD_CHECKSUM] = htole64(checksum(words));
}

static bool is_zero(const uint64_t *words)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < WORD_COUNT; i++)
		any |= words[i];
	return !any;
}

struct sector_finding ledger_sector_judge(const void *bytes, uint64_t run, uint64_t sector)
{
	const uint64_t *words = bytes;
	struct sector_finding finding = { .kind = SECTOR_GARBAGE };

	if (words[0] == 0 && is_zero(words)) {
		finding.kind = SECTOR_ZERO;
		return finding;
	}
	if (le64toh(words[WORD_MAGIC]) != MAGIC ||
	    le64toh(words[WORD_CHECKSUM]) != checksum(words))
		return finding;
	finding.sequence = (uint32_t)le64toh(words[WORD_SEQUENCE]);
	finding.sector = le64toh(words[WORD_SECTOR]);
	if (le64toh(words[WORD_RUN]) != run)
		finding.kind = SECTOR_FOREIGN;
	else if (finding.sector != sector)
		finding.kind = SECTOR_MISPLACED;
	else
		finding.kind = SECTOR_SOUND;
	return finding;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_sector.h - sectors that say what they are.
 *
 *   bytes  0- 7  magic            24-31  sequence of the write
 *          8-15  run              32-39  checksum of all the rest
 *         16-23  its own sector   40-511 pseudo-random, from (run, sector, sequence)
 *
 * A sector of zeroes has sequence 0.  Numbers are little-endian.
 *
 * Threading: pure functions.
 */
#ifndef BM_TEST_LEDGER_SECTOR_H
#define BM_TEST_LEDGER_SECTOR_H

#include <stdint.h>

#define LEDGER_SECTOR_BYTES 512u

enum sector_kind {
	SECTOR_ZERO,
	SECTOR_SOUND,           /* ours, whole, in its place */
	SECTOR_GARBAGE,         /* torn or damaged */
	SECTOR_MISPLACED,       /* whole, but another sector's */
	SECTOR_FOREIGN,         /* whole, but another run's */
};
const char *sector_kind_name(enum sector_kind kind);

struct sector_finding {
	enum sector_kind kind;
	uint32_t sequence;
	uint64_t sector;        /* whose it says it is */
};

/* A bijective scrambler; what choices are made with. */
uint64_t ledger_mix(uint64_t x);

/* bytes: LEDGER_SECTOR_BYTES, aligned to 8. */
void ledger_sector_make(void *bytes, uint64_t run, uint64_t sector, uint32_t sequence);
struct sector_finding ledger_sector_judge(const void *bytes, uint64_t run, uint64_t sector);

#endif

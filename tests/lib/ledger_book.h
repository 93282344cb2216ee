/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_book.h - the book of what was acknowledged, sector by sector, in a mapped file.
 *
 * For each sector of the disk it holds the sequence of the last acknowledged write, 4 bytes
 * (a disk of 4 GiB: 32 MiB), and beside that the requests that are not answered yet: until
 * they are, their sectors may be as before or as after.  The file outlives its program, so
 * an image can be held against it alone.
 *
 * Sectors under a request are locked: who writes the book begins no overlapping one
 * (ledger_book_is_locked()).  So each sector has one right content, or two.
 *
 * Units: sectors of LEDGER_SECTOR_BYTES.  Threading: one thread.
 */
#ifndef BM_TEST_LEDGER_BOOK_H
#define BM_TEST_LEDGER_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/ledger_sector.h"

#define LEDGER_SLOTS_MAX 256u

/* What a slot's request does to its sectors. */
enum ledger_change {
	LEDGER_NOTHING,         /* the slot is free */
	LEDGER_READS,           /* locks only */
	LEDGER_WRITES,
	LEDGER_ZEROES,
	LEDGER_MAY_ZERO,        /* a discard: as before or zeroes, until it is read */
};

struct ledger_book;

/* Both say on stderr why not, and return NULL.  create: all sectors read as zeroes. */
struct ledger_book *ledger_book_create(const char *path, uint64_t run, uint64_t sector_count);
struct ledger_book *ledger_book_open(const char *path);
void ledger_book_close(struct ledger_book *book);

uint64_t ledger_book_run(const struct ledger_book *book);
uint64_t ledger_book_sectors(const struct ledger_book *book);

bool ledger_book_is_locked(const struct ledger_book *book, uint64_t sector, uint32_t count);

/* Lock the sectors for a request; returns its sequence (0 for what writes no data). */
uint32_t ledger_book_begin(struct ledger_book *book, unsigned slot, enum ledger_change change,
			   uint64_t sector, uint32_t count);
/* It is answered: what it did stands.  A discard's sectors are as `read_back` shows. */
void ledger_book_answered(struct ledger_book *book, unsigned slot, const uint8_t *read_back);

struct ledger_verdict {
	uint64_t sectors;
	uint64_t lost;          /* an older write's content, or zeroes: an acknowledged write is gone */
	uint64_t early;         /* newer than anything sent, or not zeroed */
	uint64_t damaged;       /* torn, misplaced, another run's */
};

static inline uint64_t ledger_verdict_bad(const struct ledger_verdict *verdict)
{
	return verdict->lost + verdict->early + verdict->damaged;
}

/* Hold what was read against the book; adds to *verdict, the first few go to stdout. */
void ledger_book_check(const struct ledger_book *book, uint64_t sector, uint32_t count,
		       const uint8_t *bytes, struct ledger_verdict *verdict);

#endif

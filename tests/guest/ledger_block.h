/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_block.h - blocks that say what they are.
 *
 * Every 4 KiB block that the ledger writes carries its own place, the sequence number of the
 * write it belongs to, the identity of the run and a checksum over all of it.  A block can
 * therefore be judged alone, by the guest that wrote it or later by a stranger on the host:
 * torn, misplaced, of another run, or sound and of which write.
 *
 *   bytes  0- 7  magic            24-31  run (the seed that both sides know)
 *          8-15  sequence         32-39  time of the write, CLOCK_REALTIME, ns
 *         16-23  lba (in blocks)  40-47  checksum of bytes 0-39 and 48-4095
 *         48-4095  pseudo-random, derived from (run, lba, sequence)
 *
 * A block of zeroes has sequence LEDGER_SEQ_ZERO: never written, discarded or zeroed.
 *
 * Units: lba and counts are 4 KiB blocks.  All functions are pure and thread-safe.
 */
#ifndef LEDGER_BLOCK_H
#define LEDGER_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define LEDGER_BLOCK_BYTES 4096u

enum {
	LEDGER_SEQ_ZERO = 0,  /* reads as zeroes */
	LEDGER_SEQ_FILL = 1,  /* put there before the run began */
	LEDGER_SEQ_FIRST = 2, /* the run's first write */
};

enum ledger_kind {
	LEDGER_ZERO,      /* all zeroes */
	LEDGER_SOUND,     /* ours, whole, in its place */
	LEDGER_GARBAGE,   /* no header, or the checksum is wrong: torn or damaged */
	LEDGER_MISPLACED, /* whole, but it belongs to another lba */
	LEDGER_FOREIGN,   /* whole, but of another run */
};

/* What a block turned out to be.  sequence, lba and checksum are 0 for zeroes and garbage. */
struct ledger_finding {
	enum ledger_kind kind;
	uint64_t sequence;
	uint64_t lba;
	uint64_t run;
	uint64_t checksum;
};

/* Fill the 4 KiB at @block (8-byte aligned). */
void ledger_block_make(void *block, uint64_t run, uint64_t lba, uint64_t sequence,
		       uint64_t time_ns);

/* Judge the 4 KiB at @block (8-byte aligned), read from @lba.  Any content is safe. */
struct ledger_finding ledger_block_judge(const void *block, uint64_t run, uint64_t lba);

/* The word for @kind in messages. */
const char *ledger_kind_name(enum ledger_kind kind);

/*
 * A digest of a whole disk: folds (lba, sequence, checksum) of every block that is not zero.
 * The order of folding does not matter, so threads can fold parts and merge them.
 */
struct ledger_digest {
	uint64_t sum;
	uint64_t mix;
	uint64_t block_count; /* of blocks folded */
};

#define LEDGER_DIGEST_CHARS 33 /* 32 hex digits and the NUL */

void ledger_digest_fold(struct ledger_digest *digest, const struct ledger_finding *finding);
void ledger_digest_merge(struct ledger_digest *into, const struct ledger_digest *part);
void ledger_digest_format(const struct ledger_digest *digest, char text[LEDGER_DIGEST_CHARS]);

/* A bijective scrambler of 64 bits; also what the workload seeds its choices with. */
uint64_t ledger_mix64(uint64_t x);

#endif

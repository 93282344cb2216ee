/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_work.h - a guest's work on an NBD export, that survives the loss of its server.
 *
 * Reads, writes (some with FUA), write-zeroes, trims and flushes of 512 B to 256 KiB, half of them in
 * a few hot spots, with `depth` in flight over one or more connections.  What a connection
 * takes with it is sent again, on whichever is up first, before anything newer (R3); no two
 * requests in flight overlap.  Half of the writes that had to be sent again are followed at
 * once by a newer one to the same place: should the first transmission still land, late, it
 * lands on newer data, and shows.  Whatever is read is held against the book (ledger_book.h).
 *
 * The seed decides every request; time decides which are tried while another is in their
 * place.
 *
 * A verification reads the whole disk, beside the work.
 *
 * Threading: one thread.
 */
#ifndef BM_TEST_LEDGER_WORK_H
#define BM_TEST_LEDGER_WORK_H

#include "tests/lib/ledger_book.h"
#include "tests/lib/ledger_link.h"

#define WORK_LINKS_MAX 8u
#define WORK_DEPTH_MAX (LEDGER_SLOTS_MAX - 1)   /* one slot is the verification's */
#define WORK_REQUEST_SECTORS 512u
#define WORK_VERIFY_SECTORS 2048u

struct work_options {
	const char *uri;
	unsigned connections;
	unsigned depth;                 /* 0: only verifies */
	unsigned rate;                  /* requests a second; 0: as they are answered */
	unsigned read_percent, flush_percent, fua_percent;
	unsigned zero_percent;          /* write-zeroes and trims, half each */
	uint64_t fill_bytes;            /* written first, from the beginning of the disk */
	uint64_t late_ns;               /* a request that takes longer gets a line */
	uint64_t seed;
};

struct work_stats {
	uint64_t reads, writes, zeroes, trims, flushes, replays;
	uint64_t errors;                /* answers other than success */
	uint64_t late;
	uint64_t longest_ns;            /* from the first sending to the answer */
	uint64_t longest_served_ns;     /* the same, of requests whose connection lived */
	struct ledger_verdict verdict;
};

struct work;

/* Borrows the options' strings and the book.  Dials. */
struct work *work_new(const struct work_options *options, struct ledger_book *book);
void work_free(struct work *work);

/* Size and abilities of the export; -1 and a line on stderr when it cannot be reached. */
int work_probe(const char *uri, uint64_t *size_bytes);

/* One turn: start what may start, wait at most until_ns or for other_fd, take the answers. */
void work_turn(struct work *work, uint64_t until_ns, int other_fd);

/* No new requests; those in flight are ended. */
void work_hold(struct work *work, bool on);
bool work_is_idle(const struct work *work);
/* The fill is written. */
bool work_is_filled(const struct work *work);

/* Begin to read everything; work_verified() is true once. */
void work_verify(struct work *work);
bool work_verified(struct work *work, struct ledger_verdict *out);

/* Tear one connection down, without a word to the server. */
void work_drop(struct work *work);

const struct work_stats *work_stats(const struct work *work);
uint64_t work_losses(const struct work *work);
uint64_t work_longest_outage_ns(const struct work *work);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_work.h - the guest's work on its disk, and the book of what was acknowledged.
 *
 * Worker threads write, read, zero and discard ranges of 4 KiB to 256 KiB with O_DIRECT, at
 * random places, at a set rate.  The book holds, for every block of the disk, the sequence
 * number that a read must find.  No two requests in flight overlap: a read therefore has one
 * right answer, with these exceptions, each remembered in the book until a read settles it:
 *
 *   a write that failed may or may not be on the disk       (old or new)
 *   a discard may do nothing or zero                        (old or zero; read back at once)
 *
 * Every request counts as an error that fails, and every block read that is not what the book
 * says; the first are reported as IOERROR, the second as MISMATCH lines (see ledger_say()).
 *
 * Threading: all functions are called from the main thread; the workers are inside.
 */
#ifndef LEDGER_WORK_H
#define LEDGER_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger_block.h"

struct work_options {
	const char *path;
	uint64_t size_bytes;      /* 0: the device's or the file's own */
	uint64_t filled_bytes;    /* this much holds LEDGER_SEQ_FILL blocks already */
	uint64_t run;             /* names the run, seeds every choice */
	unsigned rate;            /* requests a second, 0: as fast as it goes */
	unsigned thread_count;
	unsigned read_percent;
	unsigned trim_permille;   /* discards and zeroes, of each half */
	unsigned flush_every;     /* a flush after so many writes, 0: never */
	bool buffered;            /* no O_DIRECT (file systems that lack it) */
};

struct work_result {
	struct ledger_digest digest;
	uint64_t block_count;
	uint64_t write_count;
	uint64_t error_count;     /* of the whole run, the final reading included */
};

struct work;

/* One line for the observer, written in one piece: "LEDGER " and the text and a newline. */
void ledger_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Open the disk (a block device that is not there yet is waited for, at most 30 s) and make
 * the book.  Returns NULL after saying why.
 */
struct work *work_open(const struct work_options *options);

uint64_t work_block_count(const struct work *work);

/* Start the workers and the tick thread.  false: a thread could not be made. */
bool work_start(struct work *work);

/* Park every worker between two requests; the line "HELD" says that all are parked. */
void work_hold(struct work *work);
void work_go(struct work *work);

/* Say the line of the second or of the phase named @phase that ends now. */
void work_report_second(struct work *work);
void work_report_phase(struct work *work, const char *phase);

/* End the workers; returns when the last request has been answered and the disk is flushed. */
void work_stop(struct work *work);

/* Read the whole disk and hold every block against the book. */
struct work_result work_verify(struct work *work);

void work_free(struct work *work);

#endif

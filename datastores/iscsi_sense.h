/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_sense.h - what a SCSI answer means for the command and for the session.
 *
 * A status and its sense data become a verdict: what to do with the command (deliver,
 * fail with an -errno, send again now or later), and what the answer says about the logical
 * unit beside that (its size changed, registrations are gone ...).  A unit attention tells its
 * news with a command that was not carried out: the news is noted and the command sent again.
 *
 * Retries are bounded by iscsi_retry, so that a target that answers "busy" for ever becomes
 * an error.  Every answer that asks for a retry is an answer: the command is settled in the
 * sense of R2, and sending it again brings no second copy of it into the world.
 *
 * Pure; any thread.  The sense data come from the target: any bytes are judged.
 */
#ifndef BM_ISCSI_SENSE_H
#define BM_ISCSI_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

enum iscsi_action {
	ISCSI_DONE,             /* it was carried out */
	ISCSI_FAIL,             /* it was not, and will not be: verdict.error */
	ISCSI_RETRY_NOW,        /* news came instead of an answer */
	ISCSI_RETRY_LATER,      /* the unit is busy, or becoming ready */
};

enum iscsi_news {
	ISCSI_NEWS_CAPACITY = 1,        /* the unit's size changed: read it again */
	ISCSI_NEWS_RESERVATIONS = 2,    /* registrations or reservations may be gone (R-F2) */
	ISCSI_NEWS_FENCED = 4,          /* another host holds the reservation */
	ISCSI_NEWS_PARAMETERS = 8,      /* mode pages or inquiry data changed */
	ISCSI_NEWS_LUNS = 16,           /* the list of units changed */
	ISCSI_NEWS_SPACE = 32,          /* a thin unit runs, or has run, out of space */
};

/* Fixed or descriptor format, taken apart. */
struct iscsi_sense {
	bool valid;             /* false: nothing usable came */
	uint8_t key;
	uint8_t code, qualifier;        /* ASC and ASCQ */
};

struct iscsi_verdict {
	enum iscsi_action action;
	int error;              /* -errno with ISCSI_FAIL; also what a retry gives up with; else 0 */
	unsigned news;          /* enum iscsi_news */
};

/* Sense data without the two bytes of length that iSCSI puts before them; len may be 0. */
struct iscsi_sense iscsi_sense_parse(const uint8_t *bytes, size_t len);

/* status: as on the wire (SAM), 0 to 255.  sense counts with CHECK CONDITION only. */
struct iscsi_verdict iscsi_judge(uint8_t status, const struct iscsi_sense *sense);

/* How often a command has been sent again; zeroed when it is first sent. */
struct iscsi_retry {
	uint16_t now_count, later_count;
};

#define ISCSI_RETRY_NOW_MAX 16u
#define ISCSI_RETRY_LATER_MAX 40u

/*
 * Counts one more retry.  verdict->action asks for one; where the bounds are spent it becomes
 * ISCSI_FAIL.  *delay_ns: how long to wait before sending it again, 0 for now.
 */
void iscsi_retry_count(struct iscsi_retry *retry, struct iscsi_verdict *verdict,
		       uint64_t *delay_ns);

/* "illegal request, 24/00"; at most 47 characters. */
#define ISCSI_SENSE_TEXT_BYTES 48
const char *iscsi_sense_text(uint8_t status, const struct iscsi_sense *sense,
			     char text[ISCSI_SENSE_TEXT_BYTES]);

#endif

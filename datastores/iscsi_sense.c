/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_sense.h"

#include <errno.h>
#include <stdio.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

enum {
	STATUS_GOOD = 0x00,
	STATUS_CHECK_CONDITION = 0x02,
	STATUS_CONDITION_MET = 0x04,
	STATUS_BUSY = 0x08,
	STATUS_RESERVATION_CONFLICT = 0x18,
	STATUS_TASK_SET_FULL = 0x28,
	STATUS_ACA_ACTIVE = 0x30,
	STATUS_TASK_ABORTED = 0x40,
};

enum {
	KEY_NO_SENSE = 0x0,
	KEY_RECOVERED = 0x1,
	KEY_NOT_READY = 0x2,
	KEY_MEDIUM = 0x3,
	KEY_HARDWARE = 0x4,
	KEY_ILLEGAL = 0x5,
	KEY_ATTENTION = 0x6,
	KEY_PROTECT = 0x7,
	KEY_ABORTED = 0xb,
	KEY_OVERFLOW = 0xd,
	KEY_MISCOMPARE = 0xe,
	KEY_COMPLETED = 0xf,
};

#define ANY 0xff        /* of a qualifier in the table: whatever it is */

/*
 * The first row that fits.  A row for a key alone (code ANY) ends the key's rows, and a key
 * without rows is an I/O error.  4/0A to 4/0C are the states of asymmetric access; without
 * multipath there is nothing to do but to wait for a transition.
 */
// clang-format off
static const struct {
	uint8_t key, code, qualifier;
	enum iscsi_action action;
	int error;
	unsigned news;
} rows[] = {
	{ KEY_NO_SENSE,   ANY,  ANY,  ISCSI_DONE,        0,           0 },
	{ KEY_RECOVERED,  ANY,  ANY,  ISCSI_DONE,        0,           0 },
	{ KEY_COMPLETED,  ANY,  ANY,  ISCSI_DONE,        0,           0 },
	{ KEY_NOT_READY,  0x04, 0x00, ISCSI_RETRY_LATER, -EIO,        0 },      /* no cause told */
	{ KEY_NOT_READY,  0x04, 0x01, ISCSI_RETRY_LATER, -EIO,        0 },      /* becoming ready */
	{ KEY_NOT_READY,  0x04, 0x04, ISCSI_RETRY_LATER, -EIO,        0 },      /* format */
	{ KEY_NOT_READY,  0x04, 0x05, ISCSI_RETRY_LATER, -EIO,        0 },      /* rebuild */
	{ KEY_NOT_READY,  0x04, 0x06, ISCSI_RETRY_LATER, -EIO,        0 },      /* recalculation */
	{ KEY_NOT_READY,  0x04, 0x07, ISCSI_RETRY_LATER, -EIO,        0 },      /* operation under way */
	{ KEY_NOT_READY,  0x04, 0x09, ISCSI_RETRY_LATER, -EIO,        0 },      /* self-test */
	{ KEY_NOT_READY,  0x04, 0x0a, ISCSI_RETRY_LATER, -EIO,        0 },      /* access in transition */
	{ KEY_NOT_READY,  0x04, 0x14, ISCSI_RETRY_LATER, -ENOSPC,     ISCSI_NEWS_SPACE },
	{ KEY_NOT_READY,  0x3a, ANY,  ISCSI_FAIL,        -ENOMEDIUM,  0 },
	{ KEY_NOT_READY,  ANY,  ANY,  ISCSI_FAIL,        -EIO,        0 },
	{ KEY_MEDIUM,     ANY,  ANY,  ISCSI_FAIL,        -EIO,        0 },
	{ KEY_HARDWARE,   ANY,  ANY,  ISCSI_FAIL,        -EIO,        0 },
	{ KEY_ILLEGAL,    0x20, ANY,  ISCSI_FAIL,        -EOPNOTSUPP, 0 },      /* unknown command */
	{ KEY_ILLEGAL,    0x21, ANY,  ISCSI_FAIL,        -ERANGE,     0 },      /* beyond the end */
	{ KEY_ILLEGAL,    0x24, ANY,  ISCSI_FAIL,        -EOPNOTSUPP, 0 },      /* a field of it */
	{ KEY_ILLEGAL,    0x25, ANY,  ISCSI_FAIL,        -ENXIO,      0 },      /* no such unit */
	{ KEY_ILLEGAL,    0x26, ANY,  ISCSI_FAIL,        -EOPNOTSUPP, 0 },      /* its parameters */
	{ KEY_ILLEGAL,    ANY,  ANY,  ISCSI_FAIL,        -EREMOTEIO,  0 },
	{ KEY_ATTENTION,  0x28, ANY,  ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_CAPACITY },
	{ KEY_ATTENTION,  0x29, ANY,  ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_RESERVATIONS },
	{ KEY_ATTENTION,  0x2a, 0x03, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_RESERVATIONS },
	{ KEY_ATTENTION,  0x2a, 0x04, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_RESERVATIONS },
	{ KEY_ATTENTION,  0x2a, 0x05, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_RESERVATIONS },
	{ KEY_ATTENTION,  0x2a, 0x09, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_CAPACITY },
	{ KEY_ATTENTION,  0x2a, ANY,  ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_PARAMETERS },
	{ KEY_ATTENTION,  0x2f, ANY,  ISCSI_RETRY_NOW,   -EIO,        0 },      /* others' commands */
	{ KEY_ATTENTION,  0x38, 0x07, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_SPACE },
	{ KEY_ATTENTION,  0x3f, 0x0e, ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_LUNS },
	{ KEY_ATTENTION,  0x3f, ANY,  ISCSI_RETRY_NOW,   -EIO,        ISCSI_NEWS_PARAMETERS },
	{ KEY_ATTENTION,  ANY,  ANY,  ISCSI_RETRY_NOW,   -EIO,        0 },
	{ KEY_PROTECT,    0x27, 0x07, ISCSI_FAIL,        -ENOSPC,     ISCSI_NEWS_SPACE },
	{ KEY_PROTECT,    ANY,  ANY,  ISCSI_FAIL,        -EROFS,      0 },
	{ KEY_ABORTED,    ANY,  ANY,  ISCSI_RETRY_LATER, -EIO,        0 },
	{ KEY_OVERFLOW,   ANY,  ANY,  ISCSI_FAIL,        -ENOSPC,     0 },
	{ KEY_MISCOMPARE, ANY,  ANY,  ISCSI_FAIL,        -EILSEQ,     0 },      /* COMPARE AND WRITE */
};

static const char *const key_names[16] = {
	"no sense", "recovered error", "not ready", "medium error", "hardware error",
	"illegal request", "unit attention", "data protect", "blank check", "vendor specific",
	"copy aborted", "aborted command", "reserved", "volume overflow", "miscompare", "completed",
};
// clang-format on

struct iscsi_sense iscsi_sense_parse(const uint8_t *bytes, size_t len)
{
	struct iscsi_sense sense = { 0 };
	uint8_t response = len ? bytes[0] & 0x7f : 0;

	/* A deferred error (71, 73) tells of an earlier command; this one was not carried out. */
	if ((response == 0x70 || response == 0x71) && len >= 3) {
		sense.valid = true;
		sense.key = bytes[2] & 0x0f;
		if (len >= 14 && bytes[7] >= 6) {
			sense.code = bytes[12];
			sense.qualifier = bytes[13];
		}
	} else if ((response == 0x72 || response == 0x73) && len >= 4) {
		sense.valid = true;
		sense.key = bytes[1] & 0x0f;
		sense.code = bytes[2];
		sense.qualifier = bytes[3];
	}
	if (sense.valid && (response & 1)) {
		/* What failed was acknowledged long ago: durability is lost, and nobody can say of what. */
		sense.key = KEY_HARDWARE;
	}
	return sense;
}

static struct iscsi_verdict judge_sense(const struct iscsi_sense *sense)
{
	if (!sense->valid)
		return (struct iscsi_verdict){ ISCSI_FAIL, -EIO, 0 };
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		if (rows[i].key != sense->key ||
		    (rows[i].code != ANY && rows[i].code != sense->code) ||
		    (rows[i].qualifier != ANY && rows[i].qualifier != sense->qualifier))
			continue;
		return (struct iscsi_verdict){ rows[i].action, rows[i].error, rows[i].news };
	}
	return (struct iscsi_verdict){ ISCSI_FAIL, -EIO, 0 };
}

struct iscsi_verdict iscsi_judge(uint8_t status, const struct iscsi_sense *sense)
{
	switch (status) {
	case STATUS_GOOD:
	case STATUS_CONDITION_MET:
		return (struct iscsi_verdict){ ISCSI_DONE, 0, 0 };
	case STATUS_CHECK_CONDITION:
		return judge_sense(sense);
	case STATUS_BUSY:
	case STATUS_TASK_SET_FULL:
	case STATUS_ACA_ACTIVE:
		return (struct iscsi_verdict){ ISCSI_RETRY_LATER, -EBUSY, 0 };
	case STATUS_TASK_ABORTED:
		return (struct iscsi_verdict){ ISCSI_RETRY_LATER, -EIO, 0 };
	case STATUS_RESERVATION_CONFLICT:
		return (struct iscsi_verdict){ ISCSI_FAIL, -EBADE, ISCSI_NEWS_FENCED };
	default:
		return (struct iscsi_verdict){ ISCSI_FAIL, -EIO, 0 };
	}
}

/* 10, 20, 40 ... 500 ms: 40 of them last about 18 s, what a failover of a store takes. */
#define DELAY_FIRST_NS (10 * NS_PER_MS)
#define DELAY_MOST_NS (500 * NS_PER_MS)

void iscsi_retry_count(struct iscsi_retry *retry, struct iscsi_verdict *verdict,
		       uint64_t *delay_ns)
{
	*delay_ns = 0;
	if (verdict->action == ISCSI_RETRY_NOW) {
		if (++retry->now_count > ISCSI_RETRY_NOW_MAX)
			verdict->action = ISCSI_FAIL;
		return;
	}
	CHECK(verdict->action == ISCSI_RETRY_LATER);
	if (++retry->later_count > ISCSI_RETRY_LATER_MAX) {
		verdict->action = ISCSI_FAIL;
		return;
	}
	*delay_ns = DELAY_FIRST_NS << MIN(retry->later_count - 1u, 6u);
	*delay_ns = MIN(*delay_ns, DELAY_MOST_NS);
}

const char *iscsi_sense_text(uint8_t status, const struct iscsi_sense *sense,
			     char text[ISCSI_SENSE_TEXT_BYTES])
{
	if (status != STATUS_CHECK_CONDITION)
		snprintf(text, ISCSI_SENSE_TEXT_BYTES, "SCSI status %02x", status);
	else if (!sense->valid)
		snprintf(text, ISCSI_SENSE_TEXT_BYTES, "an error without sense data");
	else
		snprintf(text, ISCSI_SENSE_TEXT_BYTES, "%s, %02x/%02x", key_names[sense->key & 15],
			 sense->code, sense->qualifier);
	return text;
}

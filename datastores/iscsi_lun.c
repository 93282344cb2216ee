/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_lun.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/dial.h"
#include "datastores/iscsi_private.h"

enum {
	OP_RESERVE_6 = 0x16,
	OP_RELEASE_6 = 0x17,
	OP_READ_16 = 0x88,
	OP_COMPARE_AND_WRITE = 0x89,
	OP_WRITE_16 = 0x8a,
	OP_SYNC_16 = 0x91,
};

/* Between two tries for a reservation that another session has: nothing tells when it ends. */
#define CONFLICT_PAUSE_MS_MIN 2
#define CONFLICT_PAUSE_MS_MAX 50
/* An answer's block has to fit. */
_Static_assert(ISCSI_ANSWER_BYTES >= 4096, "a block");
_Static_assert(ISCSI_DATA_BYTES >= 2 * 4096, "two blocks");

struct iscsi_lun {
	struct iscsi_place place;
	uint64_t timeout_ns;
	struct iscsi_link *link;        /* NULL: to be made */
	struct iscsi_unit unit;
	bool no_compare_and_write;
};

static int lun_link(struct iscsi_lun *lun, struct err *err)
{
	int rc;

	if (lun->link && !lun->link->dead)
		return 0;
	iscsi_link_free(lun->link);
	lun->link = NULL;
	rc = iscsi_place_connect(&lun->place, 0, lun->timeout_ns, &lun->link, err);
	if (rc) {
		lun->link = NULL;
		return rc;
	}
	rc = iscsi_link_ready(lun->link, lun->place.lun, lun->timeout_ns, err);
	return rc == -EBADE ? 0 : rc;   /* reserved by another: that is for the command to wait */
}

int iscsi_lun_open(const struct iscsi_place *place, uint64_t timeout_ns, struct iscsi_lun **out,
		   struct err *err)
{
	struct iscsi_lun *lun = calloc(1, sizeof(*lun));
	int rc;

	if (!lun)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot open lun%u", place->lun);
	lun->place = *place;
	lun->timeout_ns = timeout_ns;
	rc = lun_link(lun, err);
	rc = rc ? rc : iscsi_link_probe(lun->link, place->lun, timeout_ns, &lun->unit, err);
	if (rc) {
		iscsi_lun_close(lun);
		return rc;
	}
	*out = lun;
	return 0;
}

const struct iscsi_unit *iscsi_lun_unit(const struct iscsi_lun *lun)
{
	return &lun->unit;
}

/* Waits for another's reservation of the unit, which is short where it serves to lock. */
static int lun_ask(struct iscsi_lun *lun, const struct iscsi_question *question,
		   struct iscsi_answer *answer, struct err *err)
{
	uint64_t deadline_ns = iscsi_deadline_after(lun->timeout_ns);
	int pause_ms = CONFLICT_PAUSE_MS_MIN;

	for (;;) {
		int rc = lun_link(lun, err);

		if (!rc)
			rc = iscsi_link_ask(lun->link, lun->place.lun, question, deadline_ns,
					    answer, err);
		if (rc != -EBADE)
			return rc;
		if (dial_clock_ns() >= deadline_ns)
			return err_set(err, ERR_ISCSI_FENCED, -EBUSY,
				       "lun%u stays reserved by another host", lun->place.lun);
		err_clear(err);
		(void)poll(NULL, 0, pause_ms);
		pause_ms = MIN(pause_ms * 2, CONFLICT_PAUSE_MS_MAX);
	}
}

static void put_block(const struct iscsi_lun *lun, struct iscsi_question *question,
		      uint64_t offset_bytes)
{
	uint64_t block = offset_bytes / lun->unit.block_bytes;

	CHECK(offset_bytes % lun->unit.block_bytes == 0);
	CHECK(range_fits(offset_bytes, lun->unit.block_bytes, lun->unit.size_bytes));
	for (unsigned i = 8; i-- > 0; block >>= 8)
		question->cdb[2 + i] = (uint8_t)block;
	question->cdb[13] = 1;          /* of READ and WRITE: the length's last byte */
}

int iscsi_lun_read(struct iscsi_lun *lun, uint64_t offset_bytes, uint8_t *block, struct err *err)
{
	struct iscsi_question question = {
		.what = "READ", .cdb_bytes = 16, .cdb = { OP_READ_16 },
		.answer_bytes = (int)lun->unit.block_bytes,
	};
	struct iscsi_answer answer;
	int rc;

	put_block(lun, &question, offset_bytes);
	rc = lun_ask(lun, &question, &answer, err);
	if (rc)
		return rc;
	if (answer.len != lun->unit.block_bytes)
		return err_set(err, ERR_ISCSI_PROTOCOL, -EPROTO, "lun%u: a block was cut short",
			       lun->place.lun);
	memcpy(block, answer.bytes, answer.len);
	return 0;
}

int iscsi_lun_write(struct iscsi_lun *lun, uint64_t offset_bytes, const uint8_t *block,
		    struct err *err)
{
	struct iscsi_question question = {
		.what = "WRITE", .cdb_bytes = 16, .cdb = { OP_WRITE_16 },
		.data = block, .data_bytes = lun->unit.block_bytes,
	};

	put_block(lun, &question, offset_bytes);
	return lun_ask(lun, &question, NULL, err);
}

int iscsi_lun_flush(struct iscsi_lun *lun, struct err *err)
{
	static const struct iscsi_question question = {
		.what = "SYNCHRONIZE CACHE", .cdb_bytes = 16, .cdb = { OP_SYNC_16 },
	};

	return lun_ask(lun, &question, NULL, err);
}

/* ---- the whole unit ---- */

int iscsi_lun_reserve(struct iscsi_lun *lun, struct err *err)
{
	static const struct iscsi_question question = {
		.what = "RESERVE", .cdb_bytes = 6, .cdb = { OP_RESERVE_6 },
	};

	return lun_ask(lun, &question, NULL, err);
}

int iscsi_lun_release(struct iscsi_lun *lun, struct err *err)
{
	static const struct iscsi_question question = {
		.what = "RELEASE", .cdb_bytes = 6, .cdb = { OP_RELEASE_6 },
	};

	return lun_ask(lun, &question, NULL, err);
}

/* ---- test and set ---- */

static int compare_and_write(struct iscsi_lun *lun, uint64_t offset_bytes,
			     const uint8_t *expected, const uint8_t *replacement,
			     struct err *err)
{
	uint32_t block_bytes = lun->unit.block_bytes;
	uint8_t both[ISCSI_DATA_BYTES];
	struct iscsi_question question = {
		.what = "COMPARE AND WRITE", .cdb_bytes = 16, .cdb = { OP_COMPARE_AND_WRITE },
		.data = both, .data_bytes = 2 * (size_t)block_bytes,
	};

	memcpy(both, expected, block_bytes);
	memcpy(both + block_bytes, replacement, block_bytes);
	put_block(lun, &question, offset_bytes);
	return lun_ask(lun, &question, NULL, err);
}

/* A session that ends in between takes the reservation with it: then nothing more is written. */
static int compare_reserved(struct iscsi_lun *lun, uint64_t offset_bytes,
			    const uint8_t *expected, const uint8_t *replacement, struct err *err)
{
	const struct iscsi_link *session = lun->link;
	uint8_t now[ISCSI_ANSWER_BYTES];
	int rc = iscsi_lun_read(lun, offset_bytes, now, err);

	if (rc)
		return rc;
	if (lun->link != session || session->dead)
		return err_set(err, ERR_ISCSI_CONNECT, -EIO, "lun%u: the session ended",
			       lun->place.lun);
	if (memcmp(now, expected, lun->unit.block_bytes) != 0)
		return -EAGAIN;
	return iscsi_lun_write(lun, offset_bytes, replacement, err);
}

static int compare_write_by_reservation(struct iscsi_lun *lun, uint64_t offset_bytes,
					const uint8_t *expected, const uint8_t *replacement,
					struct err *err)
{
	struct err release_err = { 0 };
	int rc = iscsi_lun_reserve(lun, err);

	if (rc)
		return rc;
	rc = compare_reserved(lun, offset_bytes, expected, replacement, err);
	/* What cannot be given back ends with its session. */
	if (iscsi_lun_release(lun, &release_err)) {
		iscsi_link_free(lun->link);
		lun->link = NULL;
	}
	return rc;
}

int iscsi_lun_compare_write(struct iscsi_lun *lun, uint64_t offset_bytes, const uint8_t *expected,
			    const uint8_t *replacement, struct err *err)
{
	int rc = -EOPNOTSUPP;

	if (!lun->no_compare_and_write)
		rc = compare_and_write(lun, offset_bytes, expected, replacement, err);
	if (rc == -EILSEQ) {
		err_clear(err);
		return -EAGAIN;
	}
	if (rc != -EOPNOTSUPP)
		return rc;
	lun->no_compare_and_write = true;
	err_clear(err);
	return compare_write_by_reservation(lun, offset_bytes, expected, replacement, err);
}

void iscsi_lun_close(struct iscsi_lun *lun)
{
	if (!lun)
		return;
	iscsi_link_free(lun->link);
	free(lun);
}

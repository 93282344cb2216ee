/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_probe.c - commands without side effects, one at a time, and what they tell.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/dial.h"
#include "datastores/iscsi_private.h"

struct iscsi_sense iscsi_task_sense(const struct scsi_task *task, int status)
{
	const uint8_t *bytes = task->datain.data;
	size_t len = task->datain.size > 2 && bytes ? (size_t)task->datain.size - 2 : 0;

	if (status != SCSI_STATUS_CHECK_CONDITION || !len)
		return (struct iscsi_sense){ 0 };
	return iscsi_sense_parse(bytes + 2, MIN(len, (size_t)bytes[0] << 8 | bytes[1]));
}

/* One try.  0: there is a status; -errno: the link is dead. */
static int ask_once(struct iscsi_link *link, uint32_t lun, const struct iscsi_question *question,
		    uint64_t deadline_ns)
{
	uint8_t cdb[ISCSI_CDB_BYTES];
	/* libiscsi keeps the pointer: the bytes live as long as the link. */
	struct iscsi_data data = { question->data_bytes, link->data };

	if (link->dead)
		return -EIO;
	if (link->task)
		scsi_free_scsi_task(link->task);
	memcpy(cdb, question->cdb, sizeof(cdb));
	link->task = scsi_create_task(question->cdb_bytes, cdb,
				      question->data ? SCSI_XFER_WRITE : SCSI_XFER_READ,
				      question->data ? (int)question->data_bytes
						     : question->answer_bytes);
	if (!link->task)
		return -ENOMEM;
	if (question->data) {
		CHECK(question->data_bytes <= sizeof(link->data));
		memcpy(link->data, question->data, question->data_bytes);
	}
	link->answered = false;
	if (iscsi_scsi_command_async(link->context, (int)lun, link->task, iscsi_link_answered,
				     question->data ? &data : NULL, link)) {
		link->dead = true;
		return -EIO;
	}
	return iscsi_link_wait(link, deadline_ns);
}

int iscsi_link_ask(struct iscsi_link *link, uint32_t lun, const struct iscsi_question *question,
		   uint64_t deadline_ns, struct iscsi_answer *out, struct err *err)
{
	struct iscsi_retry retry = { 0 };
	char text[ISCSI_SENSE_TEXT_BYTES];

	for (;;) {
		struct iscsi_verdict verdict;
		struct iscsi_sense sense;
		uint64_t delay_ns = 0;
		int rc = ask_once(link, lun, question, deadline_ns);

		/* Statuses above 255 are libiscsi's own: it gave up on the connection. */
		if (rc || link->status > 0xff) {
			link->dead = true;
			return err_set(err, ERR_ISCSI_CONNECT, rc ? rc : -EIO,
				       "%s: no answer to %s", link->shown, question->what);
		}
		sense = iscsi_task_sense(link->task, link->status);
		verdict = iscsi_judge((uint8_t)link->status, &sense);
		if (verdict.action == ISCSI_DONE) {
			int got = MAX(link->task->datain.size, 0);

			if (!out)
				return 0;
			out->len = MIN((size_t)MIN(got, question->answer_bytes), ISCSI_ANSWER_BYTES);
			if (out->len)
				memcpy(out->bytes, link->task->datain.data, out->len);
			return 0;
		}
		if (verdict.action != ISCSI_FAIL)
			iscsi_retry_count(&retry, &verdict, &delay_ns);
		if (verdict.action == ISCSI_FAIL || dial_clock_ns() + delay_ns >= deadline_ns)
			return err_set(err, verdict.news & ISCSI_NEWS_FENCED ? ERR_ISCSI_FENCED
									     : ERR_ISCSI_COMMAND,
				       verdict.error,
				       "%s: lun%u answered %s with %s", link->shown, lun,
				       question->what, iscsi_sense_text((uint8_t)link->status,
									&sense, text));
		/* The target asked for time. */
		(void)poll(NULL, 0, (int)(delay_ns / NS_PER_MS));
	}
}

/* ---- what is asked ---- */

int iscsi_link_luns(struct iscsi_link *link, uint64_t timeout_ns, uint32_t luns[ISCSI_LUNS_MAX],
		    size_t *count, struct err *err)
{
	static const struct iscsi_question question = {
		.what = "REPORT LUNS",
		.cdb_bytes = 12,
		.cdb = { 0xa0, 0, 0, 0, 0, 0, 0, 0, ISCSI_ANSWER_BYTES >> 8, ISCSI_ANSWER_BYTES & 0xff },
		.answer_bytes = ISCSI_ANSWER_BYTES,
	};
	struct iscsi_answer answer;
	int rc = iscsi_link_ask(link, 0, &question, iscsi_deadline_after(timeout_ns), &answer, err);

	if (!rc)
		*count = iscsi_unit_judge_luns(answer.bytes, answer.len, luns);
	return rc;
}

static int ask_page(struct iscsi_link *link, uint32_t lun, int page, uint64_t deadline_ns,
		    struct iscsi_answer *answer, struct err *err)
{
	const struct iscsi_question question = {
		.what = "INQUIRY",
		.cdb_bytes = 6,
		.cdb = { 0x12, page >= 0, (uint8_t)(page >= 0 ? page : 0), 0, 0xff },
		.answer_bytes = 0xff,
	};

	return iscsi_link_ask(link, lun, &question, deadline_ns, answer, err);
}

static int ask_capacity(struct iscsi_link *link, struct iscsi_unit *unit, uint64_t deadline_ns,
			struct err *err)
{
	static const struct iscsi_question question = {
		.what = "READ CAPACITY",
		.cdb_bytes = 16,
		.cdb = { 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32 },
		.answer_bytes = 32,
	};
	struct iscsi_answer answer;
	int rc = iscsi_link_ask(link, unit->lun, &question, deadline_ns, &answer, err);

	return rc ? rc : iscsi_unit_judge_capacity(unit, answer.bytes, answer.len, err);
}

/* A unit that refuses the question has told nothing; any other failure is one. */
static int optional(const struct iscsi_link *link, int rc)
{
	return rc == -EOPNOTSUPP && !link->dead ? 0 : rc;
}

static int ask_mode(struct iscsi_link *link, struct iscsi_unit *unit, uint64_t deadline_ns,
		    struct err *err)
{
	static const struct iscsi_question question = {
		.what = "MODE SENSE",
		.cdb_bytes = 6,
		.cdb = { 0x1a, 0x08, 0x3f, 0, 0xff },
		.answer_bytes = 0xff,
	};
	struct iscsi_answer answer;
	int rc = iscsi_link_ask(link, unit->lun, &question, deadline_ns, &answer, err);

	if (!rc)
		iscsi_unit_judge_mode(unit, answer.bytes, answer.len);
	return optional(link, rc);
}

static int ask_pages(struct iscsi_link *link, struct iscsi_unit *unit, uint64_t deadline_ns,
		     struct err *err)
{
	static const struct {
		uint8_t page;
		void (*judge)(struct iscsi_unit *unit, const uint8_t *bytes, size_t len);
	} pages[] = {
		{ 0x00, iscsi_unit_judge_pages },
		{ ISCSI_PAGE_IDENTITY, iscsi_unit_judge_identity },
		{ ISCSI_PAGE_LIMITS, iscsi_unit_judge_limits },
		{ ISCSI_PAGE_PROVISIONING, iscsi_unit_judge_provisioning },
	};
	struct iscsi_answer answer;

	for (size_t i = 0; i < ARRAY_COUNT(pages); i++) {
		int rc;

		if (i && !unit->has_pages[pages[i].page])
			continue;
		rc = ask_page(link, unit->lun, pages[i].page, deadline_ns, &answer, err);
		if (!rc)
			pages[i].judge(unit, answer.bytes, answer.len);
		rc = optional(link, rc);
		if (rc)
			return rc;
	}
	return 0;
}

int iscsi_link_probe(struct iscsi_link *link, uint32_t lun, uint64_t timeout_ns,
		     struct iscsi_unit *out, struct err *err)
{
	uint64_t deadline_ns = iscsi_deadline_after(timeout_ns);
	struct iscsi_unit unit;
	struct iscsi_answer answer;
	int rc;

	CHECK(lun <= ISCSI_LUN_MAX);
	iscsi_unit_init(&unit, lun);
	rc = ask_page(link, lun, -1, deadline_ns, &answer, err);
	rc = rc ? rc : iscsi_unit_judge_inquiry(&unit, answer.bytes, answer.len, err);
	rc = rc ? rc : ask_capacity(link, &unit, deadline_ns, err);
	rc = rc ? rc : ask_pages(link, &unit, deadline_ns, err);
	rc = rc ? rc : ask_mode(link, &unit, deadline_ns, err);
	if (rc)
		return rc;
	err_clear(err);                 /* of what was optional */
	*out = unit;
	return 0;
}

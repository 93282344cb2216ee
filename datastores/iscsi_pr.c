/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_pr.h"

#include <errno.h>

#include "datastores/iscsi_private.h"

enum { IN_KEYS = 0, IN_RESERVATION = 1 };
enum { OUT_REGISTER = 0, OUT_RESERVE = 1, OUT_RELEASE = 2, OUT_PREEMPT = 4 };

#define PARAMETER_BYTES 24

static int pr_in(const struct iscsi_pr *pr, uint8_t action, struct iscsi_answer *answer,
		 struct err *err)
{
	const struct iscsi_question question = {
		.what = "PERSISTENT RESERVE IN",
		.cdb_bytes = 10,
		.cdb = { 0x5e, action, 0, 0, 0, 0, 0, ISCSI_ANSWER_BYTES >> 8,
			 ISCSI_ANSWER_BYTES & 0xff },
		.answer_bytes = ISCSI_ANSWER_BYTES,
	};

	return iscsi_link_ask(pr->link, pr->lun, &question,
			      iscsi_deadline_after(pr->timeout_ns), answer, err);
}

int iscsi_pr_keys(const struct iscsi_pr *pr, struct iscsi_keys *out, struct err *err)
{
	struct iscsi_answer answer;
	int rc = pr_in(pr, IN_KEYS, &answer, err);

	if (rc)
		return rc;
	rc = iscsi_keys_parse(answer.bytes, answer.len, out);
	return rc ? err_set(err, ERR_ISCSI_PROTOCOL, rc, "lun%u: its list of keys %s", pr->lun,
			    rc == -E2BIG ? "is too long" : "makes no sense") : 0;
}

int iscsi_pr_holder(const struct iscsi_pr *pr, struct iscsi_reservation *out, struct err *err)
{
	struct iscsi_answer answer;
	int rc = pr_in(pr, IN_RESERVATION, &answer, err);

	if (rc)
		return rc;
	rc = iscsi_reservation_parse(answer.bytes, answer.len, out);
	return rc ? err_set(err, ERR_ISCSI_PROTOCOL, rc, "lun%u: its reservation makes no sense",
			    pr->lun) : 0;
}

static void put_key(uint8_t *bytes, uint64_t key)
{
	for (int i = 7; i >= 0; i--, key >>= 8)
		bytes[i] = (uint8_t)key;
}

static int pr_out(const struct iscsi_pr *pr, uint8_t action, uint64_t key, uint64_t other_key,
		  struct err *err)
{
	uint8_t parameters[PARAMETER_BYTES] = { 0 };
	const struct iscsi_question question = {
		.what = "PERSISTENT RESERVE OUT",
		.cdb_bytes = 10,
		.cdb = { 0x5f, action, action == OUT_REGISTER ? 0 : ISCSI_RESERVATION_TYPE, 0, 0,
			 0, 0, 0, PARAMETER_BYTES },
		.data = parameters,
		.data_bytes = sizeof(parameters),
	};

	put_key(parameters, key);
	put_key(parameters + 8, other_key);
	return iscsi_link_ask(pr->link, pr->lun, &question,
			      iscsi_deadline_after(pr->timeout_ns), NULL, err);
}

int iscsi_pr_register(const struct iscsi_pr *pr, uint64_t old_key, uint64_t new_key,
		      struct err *err)
{
	return pr_out(pr, OUT_REGISTER, old_key, new_key, err);
}

int iscsi_pr_reserve(const struct iscsi_pr *pr, uint64_t key, struct err *err)
{
	return pr_out(pr, OUT_RESERVE, key, 0, err);
}

int iscsi_pr_release(const struct iscsi_pr *pr, uint64_t key, struct err *err)
{
	return pr_out(pr, OUT_RELEASE, key, 0, err);
}

int iscsi_pr_preempt(const struct iscsi_pr *pr, uint64_t key, uint64_t victim, struct err *err)
{
	return pr_out(pr, OUT_PREEMPT, key, victim, err);
}

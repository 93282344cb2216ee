/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_pr.h - persistent reservations of a unit, one command at a time (R-F2).
 *
 * Blocking, for a worker; iscsi_key.h says what the keys mean.  A registration belongs to the
 * session that made it: every session of a host that writes must register.  A session whose
 * registration is gone (preempted, or lost with the target's memory, which tgt and istgt do not
 * keep over a restart) gets -EBADE with ERR_ISCSI_FENCED.
 *
 * Commands that change something and are not answered (ERR_ISCSI_CONNECT) may have been
 * carried out: read the keys again on a new session.
 */
#ifndef BM_ISCSI_PR_H
#define BM_ISCSI_PR_H

#include "datastores/iscsi_key.h"
#include "datastores/iscsi_link.h"

/* One unit by way of one session; both borrowed. */
struct iscsi_pr {
	struct iscsi_link *link;
	uint32_t lun;
	uint64_t timeout_ns;            /* of each call */
};

MUST_CHECK int iscsi_pr_keys(const struct iscsi_pr *pr, struct iscsi_keys *out, struct err *err);
MUST_CHECK int iscsi_pr_holder(const struct iscsi_pr *pr, struct iscsi_reservation *out,
			       struct err *err);

/* old_key 0: this session has none yet.  new_key 0: unregister. */
MUST_CHECK int iscsi_pr_register(const struct iscsi_pr *pr, uint64_t old_key, uint64_t new_key,
				 struct err *err);
MUST_CHECK int iscsi_pr_reserve(const struct iscsi_pr *pr, uint64_t key, struct err *err);
MUST_CHECK int iscsi_pr_release(const struct iscsi_pr *pr, uint64_t key, struct err *err);
/* Takes the reservation from the sessions registered with victim, and their registrations. */
MUST_CHECK int iscsi_pr_preempt(const struct iscsi_pr *pr, uint64_t key, uint64_t victim,
				struct err *err);

#endif

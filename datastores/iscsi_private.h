/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_private.h - the link as its own files and its device see it.
 */
#ifndef BM_ISCSI_PRIVATE_H
#define BM_ISCSI_PRIVATE_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "datastores/iscsi_link.h"
#include "datastores/iscsi_sense.h"

struct iscsi_link {
	struct iscsi_context *context;
	struct scsi_task *task;         /* the one that a blocking call waits for, or died with */
	bool answered;
	int status;                     /* of the answer */
	bool logged_in, dead;
	char shown[DS_URL_HOST_BYTES + 16];
};

/* libiscsi's callback for a blocking call: notes the answer.  user: the link. */
void iscsi_link_answered(struct iscsi_context *context, int status, void *data, void *user);
/* 0: the answer is in link->status.  -ETIMEDOUT or -EIO: the link is dead. */
MUST_CHECK int iscsi_link_wait(struct iscsi_link *link, uint64_t deadline_ns);
/* A sum beyond the clock's range never comes. */
uint64_t iscsi_deadline_after(uint64_t timeout_ns);

/* Sense data as they came, bounded: libiscsi's own parser trusts their length. */
struct iscsi_sense iscsi_task_sense(const struct scsi_task *task, int status);

#endif

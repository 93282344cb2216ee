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

#define ISCSI_ANSWER_BYTES 4096u
#define ISCSI_DATA_BYTES 8192u           /* COMPARE AND WRITE of a block of 4096 */
#define ISCSI_CDB_BYTES 16

struct iscsi_link {
	struct iscsi_context *context;
	struct scsi_task *task;         /* the one that a blocking call waits for, or died with */
	bool answered;
	int status;                     /* of the answer */
	bool logged_in, dead;
	int cancel_fd;
	uint32_t response;              /* of a task management function */
	uint8_t data[ISCSI_DATA_BYTES]; /* of that task, where it sends any */
	char shown[DS_URL_HOST_BYTES + 16];
};

/* libiscsi's callback for a blocking call: notes the answer.  user: the link. */
void iscsi_link_answered(struct iscsi_context *context, int status, void *data, void *user);
/* 0: the answer is in link->status.  -ETIMEDOUT or -EIO: the link is dead. */
MUST_CHECK int iscsi_link_wait(struct iscsi_link *link, uint64_t deadline_ns);
/* A sum beyond the clock's range never comes. */
uint64_t iscsi_deadline_after(uint64_t timeout_ns);

/* A command for the blocking half: it reads an answer, or sends a few bytes. */
struct iscsi_question {
	const char *what;               /* for messages */
	int cdb_bytes;
	uint8_t cdb[ISCSI_CDB_BYTES];
	int answer_bytes;
	const uint8_t *data;            /* borrowed; NULL: it reads */
	size_t data_bytes;              /* at most ISCSI_DATA_BYTES */
};

struct iscsi_answer {
	uint8_t bytes[ISCSI_ANSWER_BYTES];
	size_t len;
};

/*
 * Send it, again where the unit asks for that, and wait.  out: may be NULL.  Fails with the
 * verdict's error and ERR_ISCSI_COMMAND or ERR_ISCSI_FENCED; with ERR_ISCSI_CONNECT the link
 * is dead, and the command may yet be carried out (R2).
 */
MUST_CHECK int iscsi_link_ask(struct iscsi_link *link, uint32_t lun,
			      const struct iscsi_question *question, uint64_t deadline_ns,
			      struct iscsi_answer *out, struct err *err);

/* Sense data as they came, bounded: libiscsi's own parser trusts their length. */
struct iscsi_sense iscsi_task_sense(const struct scsi_task *task, int status);

#endif

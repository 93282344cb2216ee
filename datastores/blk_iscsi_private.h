/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_iscsi_private.h - the parts of the iSCSI device.
 *
 *   blk_iscsi_links.c    the blocking half: sessions, barrier, and the thread that makes them anew
 *   blk_iscsi_command.c  what a request's next command is, and what its answer means
 *   blk_iscsi.c          requests, sessions lost and found
 */
#ifndef BM_BLK_ISCSI_PRIVATE_H
#define BM_BLK_ISCSI_PRIVATE_H

#include <pthread.h>

#include "datastores/blk_iscsi.h"
#include "datastores/iscsi_private.h"

#define BLK_ISCSI_COMMANDS 64u
#define BLK_ISCSI_ZERO_BYTES (128u << 10)       /* of one WRITE, where WRITE SAME is refused */

/* ---- the blocking half ---- */

struct blk_iscsi_links {
	struct iscsi_place place;
	struct iscsi_lock *lock;        /* borrowed; NULL */
	bool read_only;
	unsigned count;
	uint64_t key;                   /* iscsi_lock_join()'s */
	struct iscsi_unit unit;
	struct iscsi_link *links[BLK_ISCSI_SESSIONS_MAX];       /* NULL while there is none */
};

/* Blocks; on failure there are no sessions. */
MUST_CHECK int blk_iscsi_links_make(struct blk_iscsi_links *links, int cancel_fd, struct err *err);
/* Does not block: what is in flight is told by its callback; nothing is said to the target. */
void blk_iscsi_links_drop(struct blk_iscsi_links *links);

/* One attempt at a time, on a thread of its own; the descriptor is readable when it is over. */
struct blk_iscsi_dialer {
	struct blk_iscsi_links *links;  /* the thread's while it runs */
	pthread_t thread;
	bool running;
	int done_fd, cancel_fd;
	int rc;
	struct err err;
};

MUST_CHECK int blk_iscsi_dialer_init(struct blk_iscsi_dialer *dialer,
				     struct blk_iscsi_links *links);
MUST_CHECK int blk_iscsi_dialer_start(struct blk_iscsi_dialer *dialer);
/* done_fd is readable: joins the thread; its result is in rc and err. */
void blk_iscsi_dialer_finish(struct blk_iscsi_dialer *dialer);
/* Cancels and joins what runs: the thread looks at cancel_fd wherever it waits. */
void blk_iscsi_dialer_release(struct blk_iscsi_dialer *dialer);

/* ---- commands ---- */

/* How far a request is; in blk_req.private_bytes. */
struct iscsi_progress {
	uint64_t next_bytes, end_bytes; /* what has not been sent yet */
	size_t iov_offset_bytes;        /* of next_bytes, inside piece iov_index */
	uint32_t iov_index;
	uint32_t in_flight;             /* commands */
	int error;                      /* the first one; nothing more is sent after it */
	bool lost;                      /* a command of it went with its session */
	bool flush_now;                 /* FLUSH; FUA where the unit has none, its data being there */
	bool flush_after;
	uint64_t losses_told;           /* FLUSH: as it was when this one was submitted */
};

_Static_assert(sizeof(struct iscsi_progress) <= BLK_REQ_PRIVATE_BYTES, "fits the request");

static inline struct iscsi_progress *iscsi_progress_of(struct blk_req *req)
{
	return (struct iscsi_progress *)(void *)req->private_bytes;
}

enum iscsi_kind {
	ISCSI_READ, ISCSI_WRITE, ISCSI_WRITE_SAME, ISCSI_WRITE_ZEROES, ISCSI_UNMAP, ISCSI_SYNC,
	ISCSI_EXTENTS, ISCSI_CAPACITY,
};

struct iscsi_command {
	struct list node;               /* idle, sent, answered or delayed */
	struct blk_iscsi *iscsi;
	struct blk_req *req;            /* NULL: ISCSI_CAPACITY */
	enum iscsi_kind kind;
	unsigned link;
	uint64_t offset_bytes, len_bytes;
	struct scsi_task *task;
	struct iscsi_data data;         /* what WRITE SAME and UNMAP send */
	uint8_t parameters[24];
	struct iscsi_retry retry;
	uint64_t sent_ns, again_ns;
	int status;                     /* libiscsi's, when it was answered */
	uint32_t iov_count;
	struct iovec iov[BLK_MAX_IOV + 2];
};

/* What the unit turned out not to know. */
struct iscsi_quirks {
	bool no_write_same, no_extents, no_unmap;
};

struct iscsi_session_watch {
	struct watch watch;
	struct blk_iscsi *iscsi;
	unsigned index;                 /* of the session */
};

struct blk_iscsi {
	struct blk_dev dev;
	struct blk_iscsi_links *links;
	struct iscsi_unit unit;         /* the loop's copy: the dialer writes the other one */
	struct iscsi_quirks quirks;
	struct blk_iscsi_dialer dialer;
	struct iscsi_session_watch watches[BLK_ISCSI_SESSIONS_MAX];
	struct watch dialer_watch;
	struct turn_hook turn_hook;
	struct timer tick;              /* while commands are out */
	struct timer redial;
	uint64_t canary;                /* see blk_iscsi_command.c */
	struct list waiting;            /* blk_req.node: has something to send */
	struct list held;               /* blk_req.node: lost their session, wait for the barrier */
	struct list over;               /* blk_req.node: to be completed by settle */
	struct list idle, sent, answered, delayed;      /* iscsi_command.node */
	struct iscsi_command *commands;
	uint8_t *zeroes;
	char name[DS_URL_IQN_BYTES + 32];
	uint32_t turn;                  /* the next command's session */
	enum blk_iscsi_state state;
	bool as_target, read_only;
	bool dropping;                  /* libiscsi is telling the end to what was in flight */
	bool ask_capacity;
	uint64_t away_since_ns;
	unsigned attempts;
	uint64_t losses, losses_told;   /* R9: as a target, writes may be gone */
	void (*changed)(void *user, enum blk_iscsi_state state);
	void *user;
};

/* Takes the request's next piece; there is one.  Sets all but the link. */
void iscsi_command_prepare(struct iscsi_command *command, struct blk_req *req);
/* Hand it to its session.  -errno: the session is no good. */
MUST_CHECK int iscsi_command_send(struct iscsi_command *command);

enum iscsi_outcome {
	ISCSI_OUTCOME_OVER,             /* *error: 0 or -errno, as blkdev.h has it */
	ISCSI_OUTCOME_AGAIN,            /* send it again after *delay_ns */
	ISCSI_OUTCOME_LOST,             /* the session is no good, or the lock must be looked at */
};
enum iscsi_outcome iscsi_command_judge(struct iscsi_command *command, int *error,
				       uint64_t *delay_ns);
void iscsi_command_done_with(struct iscsi_command *command);

/* Has the request anything to send now? */
bool iscsi_has_more_to_send(struct blk_req *req);

/* libiscsi's callback, in blk_iscsi.c. */
void blk_iscsi_answered(struct iscsi_context *context, int status, void *data, void *user);

#endif

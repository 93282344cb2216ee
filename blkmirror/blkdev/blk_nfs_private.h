/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nfs_private.h - inside the device on an NFS file.
 *
 *   blk_nfs.c        requests become calls; what is completed when
 *   blk_nfs_call.c   one call: sent, answered
 *   blk_nfs_lost.c   a connection is lost, and there again
 */
#ifndef BM_BLK_NFS_PRIVATE_H
#define BM_BLK_NFS_PRIVATE_H

#include "blkmirror/blkdev/blk_nfs.h"
#include "blkmirror/blkdev/nfs_private.h"
#include "blkmirror/blkdev/nfs_recovery.h"

#define CALLS 32u

struct blk_nfs_links {
	char host[NFS_HOST_BYTES];
	uint16_t port;
	unsigned count;
	struct nfs_handle file;
	struct nfs_limits limits;
	char name[NFS_SHOWN_BYTES];
	struct nfs_link links[BLK_NFS_CONNECTIONS_MAX];
};

/* How far a request is; in blk_req.private_bytes. */
struct progress {
	uint64_t next_bytes, end_bytes; /* what has not been sent yet */
	uint32_t in_flight;             /* calls */
	uint32_t connection;            /* all its calls go here */
	int error;                      /* the first one; nothing more is sent after it */
	uint64_t losses_told;           /* FLUSH: as it was when this one was submitted */
	bool commit;                    /* FLUSH: to be sent */
};

_Static_assert(sizeof(struct progress) <= BLK_REQ_PRIVATE_BYTES, "fits the request");

struct call {
	struct list node;               /* idle or answered */
	struct blk_nfs *nfs;
	struct blk_req *req;            /* NULL: a COMMIT of our own */
	uint64_t offset_bytes;
	uint32_t len_bytes;
	uint32_t done_bytes;            /* of it: servers may do less than was asked */
	int result;
	bool unsettled;                 /* its connection was lost before its answer came */
	struct nfs_kept *kept;          /* SOURCE: what it writes */
	uint64_t epoch;                 /* COMMIT: covers what was done in this one and before */
};

struct connection {
	struct blk_nfs *nfs;
	struct nfs_link *link;
	struct watch watch;
};

struct blk_nfs {
	struct blk_dev dev;
	struct blk_nfs_links *links;
	struct connection connections[BLK_NFS_CONNECTIONS_MAX];
	struct turn_hook settle_hook;
	struct list waiting;            /* blk_req.node: has something to send */
	struct list over;               /* blk_req.node: to be completed by settle */
	struct list idle, answered;     /* call.node */
	struct list unsettled;          /* call.node: until the recovery has ended */
	struct call calls[CALLS];
	struct call own_commit;         /* unasked: M14's bound */
	bool committing;
	enum blk_nfs_role role;
	struct fence *fence;
	struct nfs_recovery *recovery;  /* NULL: connected */
	bool must_recover;
	void (*told)(void *user, bool connected);
	void *user;
	_Atomic uint64_t *unsettled_until_ns;
	uint8_t *bounce;                /* write_bytes: one write's data; libnfs copies */
	uint32_t turn;                  /* the next request's connection */
	bool stable, dead, sending;

	/* M14 */
	bool has_verifier;
	writeverf3 verifier;            /* of the UNSTABLE writes that no COMMIT has covered */
	uint64_t losses;                /* how often such writes were found to be lost */
	uint64_t losses_told;           /* of these, told by a flush that failed */
	struct list kept;               /* nfs_kept.node, SOURCE: done, not committed; in order */
	uint64_t kept_bytes;            /* with those under way */
	uint64_t done_bytes;            /* on the list */
	uint64_t epoch;
};

static inline struct progress *progress_of(struct blk_req *req)
{
	return (struct progress *)(void *)req->private_bytes;
}

static inline bool has_more_to_send(struct blk_req *req)
{
	const struct progress *progress = progress_of(req);

	return !progress->error && (progress->next_bytes < progress->end_bytes || progress->commit);
}

/* ---- blk_nfs_call.c ---- */

/* The call, or the rest of it. */
void nfs_call_start(struct call *call);
void nfs_call_must_recover(struct call *call);
/* M14: true when this is another life of the server than that of what is not committed yet. */
bool nfs_verifier_note(struct blk_nfs *nfs, const writeverf3 verifier);

/* ---- blk_nfs_lost.c ---- */

/* Everything is closed, then made again; what has been answered meanwhile counts. */
void blk_nfs_lose(struct blk_nfs *nfs);
/* R2: all connections go, so that no call of the device can be answered any more. */
void blk_nfs_drop_links(struct blk_nfs *nfs);
void blk_nfs_tell(struct blk_nfs *nfs, bool connected);

/* ---- blk_nfs.c ---- */

void nfs_call_settle(struct blk_nfs *nfs, struct call *call);
void blk_nfs_settle(struct blk_nfs *nfs);
void blk_nfs_fail_waiting(struct blk_nfs *nfs);
MUST_CHECK int blk_nfs_watch_all(struct blk_nfs *nfs);

#endif

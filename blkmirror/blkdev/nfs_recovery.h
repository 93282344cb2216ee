/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_recovery.h - from a lost connection to a usable one, beside the device's loop (R3, M14).
 *
 *	1. new connections, tried again with growing pauses
 *	2. the barrier: nothing that was sent on the old ones can still land.  Their sockets
 *	   drop what was queued; what the server has is done with when it has restarted (its write
 *	   verifier is another one), or after a quarantine: wire and server time since the loss,
 *	   and server time since it answers again.
 *	3. the lease is good (fence.h), as R-F3 asks
 *	4. what was answered as done, but is covered by no COMMIT, is written again in its order
 *	   and committed
 *
 * A recovery does not give up, but where the fence is lost or the file is gone.
 *
 * Threading: called on the device's loop; a thread of its own does the work and tells by message.
 */
#ifndef BM_NFS_RECOVERY_H
#define BM_NFS_RECOVERY_H

#include "blkmirror/base/list.h"
#include "blkmirror/base/loop.h"
#include "blkmirror/blkdev/fence.h"
#include "blkmirror/blkdev/nfs_private.h"

/* Data that the server has taken and may still lose. */
struct nfs_kept {
	struct list node;
	uint64_t offset_bytes;
	uint64_t epoch;                 /* the device's: of COMMITs */
	uint32_t len_bytes;
	bool zeroes;                    /* no bytes: all are zero */
	uint8_t bytes[];
};

void nfs_kept_free_all(struct list *kept);

#define NFS_QUARANTINE_WIRE_NS (4 * NS_PER_S)
#define NFS_QUARANTINE_SERVER_NS (4 * NS_PER_S)
#define NFS_LINKS_MAX 16u

struct nfs_recovery_spec {
	char host[NFS_HOST_BYTES];
	uint16_t port;
	struct nfs_handle file;
	uint32_t write_bytes;
	unsigned link_count;
	bool read_only;                 /* nothing was written: no barrier, no COMMIT */
	bool needs_barrier;             /* writes were sent and not answered */
	bool has_verifier;
	writeverf3 verifier;
	uint64_t lost_at_ns;            /* dial_clock_ns() */
	const char *name;               /* for messages; copied */
};

struct nfs_recovery;

struct nfs_recovered {
	int rc;                         /* 0; -ESTALE: the file is gone; -EKEYREVOKED: the fence is lost */
	struct nfs_link *links;         /* link_count of them, the receiver's now */
	bool has_verifier;
	writeverf3 verifier;
};

/*
 * kept: nfs_kept.node, emptied: they are the recovery's now.  done() runs once on the loop, but
 * not after nfs_recovery_cancel(); the recovery is gone after it.  0 or -errno, and kept is as it was.
 */
MUST_CHECK int nfs_recovery_start(struct loop *loop, const struct nfs_recovery_spec *spec,
				  struct fence *fence, struct list *kept,
				  void (*done)(void *user, struct nfs_recovered *result),
				  void *user, struct nfs_recovery **out);
/* Does not block. */
void nfs_recovery_cancel(struct nfs_recovery *recovery);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_keeper.h - the locks of this host's disks on one NFS export, and their renewal (R-F1..R-F4).
 *
 * A lock is a file beside the disk's data (lock_file.h), taken by exclusive create of the next
 * generation.  A thread with a connection of its own renews all locks every period and tells
 * each one's fence (fence.h) until when it is good.  After a lapse it looks whether the lock
 * is still ours before it renews (R-F3); where it is not, the fence is lost for good.
 *
 * A holder that is silent for a whole lease on our own clock is dead: as nothing here waits that
 * long, the keeper remembers when it first saw a stamp, and a later try succeeds.  A lock of
 * our own former life (R-F5) is free once what that life may have sent cannot land any more.
 *
 * What is not promised: version 3 has no fence at the server.  A write that a holder sent in time
 * but the server carries out after the margins of lease.h is beyond anybody's reach.
 *
 * Threading: calls marked [worker] block and come from one thread at a time.
 */
#ifndef BM_NFS_KEEPER_H
#define BM_NFS_KEEPER_H

#include "blkmirror/base/uuid.h"
#include "blkmirror/blkdev/fence.h"
#include "blkmirror/blkdev/nfs_session.h"
#include "datastores/lease.h"
#include "datastores/lock_file.h"

struct nfs_keeper;
struct nfs_lock;

/* NULL: out of memory.  place is copied.  told (may be NULL): [the keeper's thread] renewals
 * began to fail, or succeed again. */
struct nfs_keeper *nfs_keeper_new(const struct nfs_place *place, const struct uuid *owner,
				  const struct lease_times *times,
				  void (*told)(void *user, bool renews), void *user);
/* No lock may be held.  Joins the thread.  NULL is harmless. */
void nfs_keeper_free(struct nfs_keeper *keeper);

struct nfs_claim {
	struct nfs_session *session;    /* the caller's */
	const struct nfs_handle *dir;
	const char *data_name;
	bool shared;                    /* a reader: others of this host may read too */
	unsigned wait_ms;
	const char *path;               /* for messages */
};

/*
 * [worker] Take it.  0 and *out (gives); -EAGAIN with ERR_DISK_IN_USE, which names the holder; or
 * -errno with what the server said.  Its fence is open.
 */
MUST_CHECK int nfs_lock_take(struct nfs_keeper *keeper, const struct nfs_claim *claim,
			     struct nfs_lock **out, struct err *err);
/*
 * [worker] gone: the disk is deleted, its lock files go too.  unsettled_until_ns: of
 * fence_clock_ns(); before that what we have sent may still land, so the lock is not given
 * back but left to run out.
 */
void nfs_lock_release(struct nfs_lock *lock, struct nfs_session *session, bool gone,
		      uint64_t unsettled_until_ns);

/* Borrowed. */
struct fence *nfs_lock_fence(struct nfs_lock *lock);

/* [worker] The operator's word that the holder is dead.  0 also where nobody held it. */
MUST_CHECK int nfs_lock_break(struct nfs_keeper *keeper, const struct nfs_claim *claim,
			      struct err *err);

#endif

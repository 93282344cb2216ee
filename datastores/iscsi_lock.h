/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_lock.h - one writing host for a unit: a persistent reservation with a heart (R-F1, R-F2).
 *
 *	the heart's session     holds the reservation (type 5); its key beats every period
 *	the device's sessions   are registered with a key of their own, so that they may write
 *
 * A thread of the lock's own renews the key by a session of its own, so that neither a stuck
 * device nor a busy loop can stop the heart.  Who is preempted cannot write any more: the unit
 * itself refuses it, frozen or not.  Who cannot renew in time stops by itself: before each
 * write that is sent, ask iscsi_lock_may_write() (R-F1).
 *
 * After a lapse the lock goes on only when the reservation is still this host's, or when the
 * target has forgotten all of them (tgt and istgt do, when they restart) and nobody else has
 * taken it; anything else is loss, for good (R-F3).
 *
 * A process takes a unit once, whatever way leads to it; other processes of this host cannot be,
 * because the host's identity is locked (R-F5), so what an earlier one left is ours to take over.
 */
#ifndef BM_ISCSI_LOCK_H
#define BM_ISCSI_LOCK_H

#include "datastores/iscsi_key.h"
#include "datastores/iscsi_place.h"
#include "datastores/lease.h"

struct iscsi_lock;

/*
 * [worker] Blocks.  0 and *out (gives); *out NULL: the unit knows no persistent reservations, so
 * nothing but this daemon keeps a second writer away.  ERR_DISK_IN_USE names the holder: another
 * host whose key has not stood still for a lease, counted by `watch` over repeated calls.
 * Also what iscsi_link_connect() fails with.
 */
MUST_CHECK int iscsi_lock_take(const struct iscsi_place *place, const struct lease_times *times,
			       struct iscsi_key_watch *watch, struct iscsi_lock **out,
			       struct err *err);

/* [any thread] R-F1: may a write be sent now?  Ask at each one. */
bool iscsi_lock_may_write(const struct iscsi_lock *lock);
/* [any thread] For good: somebody else has, or had, the unit. */
bool iscsi_lock_is_lost(const struct iscsi_lock *lock);

/*
 * [any thread; blocks] Register a device's new sessions, and shut out those it had before.
 * *key: 0 at first, then what the call before left there.  -EAGAIN with ERR_ISCSI_FENCED: the
 * heart does not hold the unit now; later it may.  -EBADE with ERR_ISCSI_FENCED: lost.
 */
MUST_CHECK int iscsi_lock_join(struct iscsi_lock *lock, struct iscsi_link *const *links,
			       size_t count, uint64_t *key, struct err *err);

/* [worker] Gives the unit back; the device's sessions must be gone.  Blocks.  NULL is harmless. */
void iscsi_lock_release(struct iscsi_lock *lock);

/*
 * [worker] The operator's word that the holder is dead: takes its reservation and registrations
 * away.  0 also where nobody holds it; *broken: somebody did.
 */
MUST_CHECK int iscsi_lock_break(const struct iscsi_place *place, bool *broken, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_lock.h - heartbeats of hosts and on-disk locks of objects, as an open volume sees them:
 * read and shown, and freed before a repair.  Taking them is vmfs_host.h's.
 *
 * A lock is stale when its holder's slot is not in use, or has another generation or owner;
 * one whose slot is in use may still belong to a dead host, which only watching the slot's
 * stamp for a lease time can tell.
 *
 * Threading and errors: as vmfs.h.
 */
#ifndef BM_VMFS_LOCK_H
#define BM_VMFS_LOCK_H

#include "vmfs/vmfs.h"

uint32_t vmfs_heartbeat_count(const struct vmfs *fs);
/* index below vmfs_heartbeat_count().  -EUCLEAN: its magic or own offset is wrong. */
MUST_CHECK int vmfs_heartbeat_read(struct vmfs *fs, uint32_t index, struct vmfs_heartbeat *out,
				   struct err *err);

/* How many slots are in use, or being replayed.  A slot that says neither is damage. */
MUST_CHECK int vmfs_heartbeats_in_use(struct vmfs *fs, uint32_t *count_out);

/* Call see() for each slot that is in use. */
MUST_CHECK int vmfs_heartbeats_walk(struct vmfs *fs,
				    void (*see)(uint32_t index, const struct vmfs_heartbeat *slot,
						void *user),
				    void *user, struct err *err);

uint64_t vmfs_heartbeat_offset(const struct vmfs *fs, uint32_t index);
/* -EUCLEAN: its magic or own offset is wrong. */
MUST_CHECK int vmfs_heartbeat_judge(struct vmfs *fs, uint32_t index,
				    const struct vmfs_heartbeat *slot);

/* Free the slots of hosts that are gone; waits for a lease if there are any.  -EBUSY: one lives. */
MUST_CHECK int vmfs_takeover(struct vmfs *fs);

/* The lock block of a node. */
MUST_CHECK int vmfs_lock_read(struct vmfs_node *node, struct vmfs_lock *out, struct err *err);

/* Is a lock that is not free certainly nobody's any more?  By its slot alone, without waiting. */
MUST_CHECK int vmfs_lock_is_stale(struct vmfs *fs, const struct vmfs_lock *lock, bool *stale_out,
				  struct err *err);

const char *vmfs_lock_mode_name(uint32_t mode);

#endif

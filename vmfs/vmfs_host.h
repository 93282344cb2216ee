/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_host.h - this host among those that share a VMFS5 volume: its heartbeat slot, its lease,
 * the locks it holds, and the burial of hosts that are gone.
 *
 *   slot     free --join--> active --leave--> free
 *                             |  a lease without a change, as another host saw it
 *                             +--bury--> being replayed --replayed--> free
 *
 * All changes of slots and locks go through the atomic primitive of vmfs_io.h, from exactly the
 * bytes that were read: who was overtaken notices.
 *
 * R-F1  A host may write until its last successful renewal was *sent* plus the lease, less
 *       what a request may still take on the wire and in the server, less 2 % for the clocks.
 *       vmfs_host_may_write() is to be asked right before each request is sent.  Who buries
 *       waits a whole lease on his own clock, from when he first saw the slot as it is.  What is
 *       between the asking and the sending cannot be fenced from inside a process that may be
 *       frozen.
 * R-F3  After a lapse nothing may be written.  A renewal may bring the host back: it succeeds
 *       only when the slot still has its owner, generation and state; else the host is lost for
 *       good.  The caller sees to it that the connection of before is dead (R3) before he renews
 *       after a lapse.
 * R-F5  Owners are told apart by the identity of the daemon, not of the machine.
 * R-F6  Locks that a host leaves behind are stale only when its slot is free again: after what its
 *       journal holds has been carried out, never while that is under way.
 *
 * A slot that is being replayed has the state VMFS_HB_REPLAYING, whose value is a guess [?]; its
 * owner and generation stay, so that its locks do.  Slots from VMFS_HOST_SLOTS on are left to other
 * kinds of hosts: each slot of ours has an area of the journal (vmfs_journal.h).
 *
 * Units:     microseconds of CLOCK_BOOTTIME, or what now_us() tells.
 * Errors:    -ESTALE the lease has lapsed or the host is lost; -EBUSY another holds it; -EUCLEAN
 *            not what it should be; others from the devices.
 * Threading: vmfs_host_renew() on a thread and a connection of its own (`beat`); the others on one
 *            further thread.  vmfs_host_may_write() on any.
 * Ownership: borrows the volumes.
 */
#ifndef BM_VMFS_HOST_H
#define BM_VMFS_HOST_H

#include "vmfs/vmfs_lv.h"

#define VMFS_HOST_SLOTS 15u
#define VMFS_HOST_LEASE_MS 16000u
#define VMFS_HOST_PULSE_MS 3000u        /* how often to renew: lease >= 3 pulses + wire + server */
/* A request is sent within this time, or cut off; and carried out within that. */
#define VMFS_HOST_WIRE_MS 3000u
#define VMFS_HOST_SERVER_MS 3000u

struct vmfs_host;

struct vmfs_host_options {
	uint8_t uuid[VMFS_UUID_BYTES];
	const char *name;               /* shown by other hosts' tools; may be NULL */
	uint64_t (*now_us)(void *user); /* NULL: CLOCK_BOOTTIME */
	void *user;
};

/* Take a free slot.  -EBUSY: there is none. */
MUST_CHECK int vmfs_host_join(struct vmfs_lv *lv, struct vmfs_lv *beat,
			      const struct vmfs_host_options *options, struct vmfs_host **out);
/* Locks are released before.  The host is gone whatever the result; NULL is harmless. */
int vmfs_host_leave(struct vmfs_host *host);
/* Forget it without a word to the volume: as if this host had crashed. */
void vmfs_host_abandon(struct vmfs_host *host);

MUST_CHECK int vmfs_host_renew(struct vmfs_host *host);
bool vmfs_host_may_write(const struct vmfs_host *host);
bool vmfs_host_is_lost(const struct vmfs_host *host);
uint32_t vmfs_host_slot(const struct vmfs_host *host);

/* ---- hosts that are gone ---- */

struct vmfs_watch {
	uint32_t slot;
	uint64_t since_us;              /* when we first saw it as it is */
	uint8_t seen[VMFS_HB_BYTES];
};

MUST_CHECK int vmfs_watch_begin(struct vmfs_host *host, uint32_t slot, struct vmfs_watch *out);
/* 0: it stood still for a lease; -EAGAIN: not yet, or it beats; -ENOENT: it is free. */
MUST_CHECK int vmfs_watch_look(struct vmfs_host *host, struct vmfs_watch *watch);

/*
 * After vmfs_watch_look() gave 0: take the slot, carry out its journal with replay(), free it.
 * replay() asks may_go_on() before each write: -ESTALE otherwise.  -EBUSY: it beats after all, or
 * another buries it.
 */
struct vmfs_burial {
	int (*replay)(struct vmfs_burial *burial, uint32_t slot);
	void *user;
	struct vmfs_host *host;         /* set by vmfs_host_bury() */
	uint64_t until_us;
};

MUST_CHECK int vmfs_host_bury(struct vmfs_host *host, const struct vmfs_watch *watch,
			      struct vmfs_burial *burial);
bool vmfs_burial_may_go_on(const struct vmfs_burial *burial);

/* ---- locks ---- */

/*
 * Take the lock at a place of the volume.  -EBUSY: *holder_out (may be NULL) is a slot of a host
 * that holds it against this mode; it may be watched.  Stale holders are put aside.
 * What the lock protects is read after this.  A host takes a lock once: what it holds in that
 * mode it is given again.
 */
MUST_CHECK int vmfs_host_lock(struct vmfs_host *host, uint64_t place, enum vmfs_lock_type type,
			      enum vmfs_lock_mode mode, uint32_t *holder_out);
/* What it protects is durable, and no record of it live (VJ3). */
MUST_CHECK int vmfs_host_unlock(struct vmfs_host *host, uint64_t place, enum vmfs_lock_type type);

#endif

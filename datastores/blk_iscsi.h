/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_iscsi.h - a logical unit of an iSCSI target as a block device.
 *
 * Requests are cut to the unit's limits and pipelined over one or several sessions.  Zeroes go
 * as WRITE SAME where the unit has it; with BLK_MAY_UNMAP, and where the unit promises that
 * what is given back reads as zeroes (R11), the space is given back.  UNMAP alone is a hint that a
 * unit may ignore, so it serves BLK_DISCARD only.  GET LBA STATUS tells holes where it is
 * offered; where not, all is data.
 *
 * A session that ends is made again, by a thread of the device's own and with back-off; all
 * requests wait.  Before anything is sent on new sessions, the old ones are shut out (their
 * registration is preempted, where there is a lock) and the target has answered a LOGICAL
 * UNIT RESET: from then on nothing that was sent before can be carried out any more (R2, R3).
 * What was under way is settled by that, and then
 *
 *   as the guest's disk   sent again.  Nothing that overlaps it can have been sent meanwhile.
 *                         After GIVE_UP without a session, all requests fail until there is one.
 *   as a target           reads are sent again; writes fail with -EIO, and so does the first
 *                         flush after it: whoever mirrors copies again what was written since
 *                         the last good flush (R9).  Late requests of a target are never
 *                         replayed (R2), and none fails before the barrier.
 *
 * A command that is not answered for COMMAND_DEADLINE ends its session, and so is settled by the
 * barrier.  Commands that the unit puts off are sent again (iscsi_sense.h), so often.
 *
 * The device is lost (blk_dev.lost) when the lock is, or when another unit answers in its place,
 * or a smaller one.  A unit that has grown is told by the log; the device keeps its size.
 */
#ifndef BM_BLK_ISCSI_H
#define BM_BLK_ISCSI_H

#include "blkmirror/blkdev/blkdev.h"
#include "datastores/iscsi_lock.h"
#include "datastores/iscsi_place.h"

#define BLK_ISCSI_SESSIONS_MAX 8u

enum blk_iscsi_state {
	BLK_ISCSI_UP,
	BLK_ISCSI_RECONNECTING,         /* requests wait */
	BLK_ISCSI_DOWN,                 /* ... for long */
};

struct blk_iscsi_options {
	bool as_target;
	const char *name;               /* for messages; copied */
	/* May be NULL.  On the device's loop, when the state has changed. */
	void (*changed)(void *user, enum blk_iscsi_state state);
	void *user;
};

/* The sessions with one unit: the blocking half, made on a worker, of no loop yet. */
struct blk_iscsi_links;

/*
 * Make `count` sessions.  lock: borrowed, must outlive the device; NULL: none.  For writing the
 * barrier is run here too: what an earlier process sent is settled.  0 and *out (gives), or -errno
 * with *err.
 */
MUST_CHECK int blk_iscsi_connect(const struct iscsi_place *place, struct iscsi_lock *lock,
				 bool read_only, unsigned count, struct blk_iscsi_links **out,
				 struct err *err);
const struct iscsi_unit *blk_iscsi_links_unit(const struct blk_iscsi_links *links);
/* For links that no device has taken.  NULL is harmless. */
void blk_iscsi_links_free(struct blk_iscsi_links *links);

/* Make a device of the links; takes them on success.  Does not block. */
MUST_CHECK int blk_iscsi_new(struct loop *loop, struct blk_iscsi_links *links,
			     const struct blk_iscsi_options *options, struct blk_dev **out,
			     struct err *err);

bool blk_dev_is_iscsi(const struct blk_dev *dev);
/* [the loop, no write in flight] A target has become the guest's disk. */
void blk_iscsi_promote(struct blk_dev *dev);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover.h - move a set of disks together: copy, verify, hold, switch over in one instant.
 *
 * One mover holds a mirror, a copy engine and a verifier for each disk of one machine
 * and drives them through its state table.  It knows devices and gates, no datastores,
 * names or files: who creates and deletes those is vmotion/relocate.
 *
 *     COPY -> VERIFY -> HOLD (if asked) -> SWITCH -> COMMIT -> SWITCHED -> DONE
 *       ^________|_________|________|        any before SWITCH -> PAUSED -> COPY
 *                                            any before COMMIT -> FAILED, CANCELLED
 *
 * A switch-over that cannot be made within its bounds falls back, is tried again, and in the
 * end is held (HOLD, with ERR_MOVE_STUN): the disks stay in sync, mover_complete() tries anew.
 *
 * Verification comes before the switch-over: what fails it leaves the source
 * authoritative.  Regions written by the guest after they were verified are verified
 * again, until few are left; the last ones are compared with the source after the switch.
 *
 * The commit (R-J3): when every disk is held, drained, clean, settled and flushed, and
 * the bound has not passed, the mover calls ops->commit() once.  Before that call every
 * failure falls back to the source.  After it there is no time-out and no falling back:
 * guest I/O stays held until the answer comes.  -ECANCELED from commit() means that a
 * durable record of higher sequence forbids the switch: fall back.  Other errors mean
 * that the outcome is unknown: I/O stays held, ops->changed() tells (alarm).
 *
 * What becomes of a target's troubles.  The guest never sees them: its writes succeed on the
 * source, their regions are dirty, and no error or delay of the target is passed on (M4).
 *
 *   target says          the mover                                           told as
 *   -------------------  --------------------------------------------------  -----------------
 *   late: a leg, copier  the breaker opens (R13): guests write to the source    degraded,
 *   write, flush or      only, what waits for a target is answered at once.     MOVE_TARGET_STUCK
 *   read-back beyond     Once all late requests have settled (R2) and a
 *   leg_deadline_ns      back-off (1 s, doubled to 16 s while it returns) is
 *                        over, the copier alone probes; its first answered
 *                        write closes the breaker.
 *   ... for 30 s         PAUSED; mover_resume() probes in the same way          MOVE_TARGET_STUCK
 *   ENOSPC EDQUOT EFBIG  PAUSED at once: more writes make no space              MOVE_TARGET_FULL
 *   EROFS EACCES EPERM   PAUSED at once: trying again changes nothing           MOVE_TARGET_WRITE
 *   EIO, anything else   its regions are copied again, the copier rests (50 ms, MOVE_TARGET_WRITE
 *                        doubled); the 8th round without 10 s of quiet each:
 *                        PAUSED
 *   connection lost      PAUSED; mover_resume() is refused: what was under way  MOVE_SUSPECT
 *   (blk_dev.lost)       may still land (R2), so this target is not used again
 *   flush failed         all written since the last good flush is dirty (R9),   as its error
 *                        then as the error says
 *   slower than the      guest writes are shed to dirty until little is left,   degraded,
 *   latency budget       then mirrored for 2 s to finish; repeated with         MOVE_SLOW_TARGET
 *                        growing pauses (5 s, doubled to 5 min)
 *   wrong bytes          FAILED before the switch                               MOVE_VERIFY
 *
 * PAUSED keeps all that was copied: mover_resume() goes on with what is dirty.  Its error's
 * remedy says what to mend.  The stage of a switch-over that is interrupted falls back.
 *
 * Threading: a mover lives on the I/O loop of its disks; every call is made there,
 * but mover_stats(), which any thread may call.
 */
#ifndef BM_MOVER_H
#define BM_MOVER_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/gate.h"

enum mover_state {
	MOVER_COPY,             /* copying dirty regions; guest writes to clean ones are mirrored */
	MOVER_VERIFY,           /* in sync; reading the target back */
	MOVER_HOLD,             /* in sync and verified; waits for mover_complete() */
	MOVER_SWITCH,           /* switch-over under way; not committed */
	MOVER_COMMIT,           /* commit issued: no way back but its own answer (R-J3) */
	MOVER_SWITCHED,         /* target authoritative; the last regions are compared with the source */
	MOVER_DONE,             /* target authoritative, the gates lead there, nothing left to do */
	MOVER_PAUSED,           /* no target I/O; guest writes only dirty */
	MOVER_FAILED,           /* source authoritative, gates lead there; see mover_error() */
	MOVER_CANCELLED,        /* the same, by the operator's word */
	MOVER_STATE_COUNT,
};
const char *mover_state_name(enum mover_state state);

enum mirror_mode { MIRROR_SYNC, MIRROR_ASYNC };

#define MOVER_RATE_UNLIMITED UINT64_MAX

struct mover_options {
	enum mirror_mode mode;
	uint64_t bandwidth_bytes_per_s; /* copier plus mirrored bytes (R6); MOVER_RATE_UNLIMITED */
	uint64_t max_stun_ns;           /* 0: 100 ms: a switch-over that takes longer falls back */
	uint64_t max_switchover_ns;     /* 0: 100 s: overall bound of the tries, then HOLD with ERR_MOVE_STUN */
	uint64_t leg_deadline_ns;       /* 0: 3 s (R2, M13); relocate's --target-timeout */
	/*
	 * What mirroring may add to a guest's write, as the mean of the last second (R13); 0: no
	 * budget.  None is the default: without one the guest's writes wait for a slow target, and
	 * so every move converges in one pass; with one a guest that writes faster than its target
	 * takes is never slowed down, and may never be done.  Nothing is added in async mode.
	 */
	uint64_t latency_budget_ns;
	uint64_t async_buffer_bytes;    /* 0: 16 MiB (R12) */
	uint32_t region_bytes;          /* 0: by size, 64 KiB to 1 MiB */
	uint64_t checkpoint_ns;         /* 0: 5 s: between two checkpoints of the journal */
	bool verify;
	bool hold;
};

struct mover_disk {
	struct gate *gate;              /* leads to source; the guest's requests come through it */
	struct blk_dev *source;
	struct blk_dev *target;         /* at least as large as the gate's size */
	const char *name;               /* for messages; copied */
	/*
	 * What survives a crash (journal.h), of the gate's size and in regions of
	 * mover_region_bytes(); NULL: a crash begins anew.  Borrowed.  With `resumed` it was
	 * loaded: the copy goes on with what it says is dirty, in its regions.
	 */
	struct journal *journal;
	bool resumed;
};

#define MOVER_DISKS_MAX 64

struct mover_disk_stats {
	uint64_t size_bytes;
	uint64_t copied_bytes;          /* read, and written as data */
	uint64_t zero_bytes;            /* read and found zero, or zero extents: not sent as data */
	uint64_t hole_bytes;            /* never read */
	uint64_t recopied_bytes;        /* copied more than once */
	uint64_t resumed_bytes;         /* known clean from a journal at the start */
	uint64_t mirrored_writes, mirrored_bytes;
	uint64_t shed_bytes;            /* made dirty instead of mirrored (R6, R12, R13) */
	uint64_t dirty_bytes;
	uint64_t suspect_bytes;         /* under target legs that have not settled (R2) */
	uint64_t active_bytes;          /* in active extents of the journal (R-J2) */
	uint64_t journal_dirty_bytes;   /* persisted as dirty: with active_bytes, what a crash now would cost */
	uint64_t verified_bytes, unverified_bytes;
	uint64_t verify_read_bytes;
	uint64_t verify_mismatches;
	bool target_authoritative;
};

struct mover_stats {
	enum mover_state state;
	/*
	 * Progress over all disks and phases: each byte to be copied, and to be verified where
	 * that is asked for.  Never falls; all of it once DONE.
	 */
	uint64_t done_bytes, total_bytes;
	uint64_t rate_bytes_per_s;              /* over the last seconds */
	uint64_t mirror_rate_bytes_per_s;
	uint64_t stun_ns;                       /* of the switch-over; 0: not yet */
	uint32_t switchover_tries;
	bool degraded;                          /* the target is late or too slow; guest writes only dirty */
	bool shedding;                          /* ... for the latency budget */
	uint64_t added_latency_ns;              /* by mirroring to a guest's write, of late; with a budget */
	uint64_t breaker_trips, budget_sheds;   /* how often either began */
	bool not_converging;                    /* R6 */
	struct err error;                       /* FAILED, or why it is PAUSED or degraded */
	uint32_t disk_count;
	struct mover_disk_stats disks[MOVER_DISKS_MAX];
};

struct mover;

struct mover_ops {
	/* State, error or degradation changed.  On the loop, from a posted task. */
	void (*changed)(struct mover *mover, void *user);
	/*
	 * Make the switch record durable (one for all disks) and answer with
	 * mover_committed() on this loop.  Guest I/O is held meanwhile.
	 */
	void (*commit)(struct mover *mover, void *user);
	/*
	 * A move with journals fails or is cancelled: make it durably impossible that it is
	 * resumed (an ABORTED record, or the target's end), and answer with mover_abandoned().
	 * Until then guests write through the journals still (R-J2): a crash resumes.  Where the
	 * journal is what has failed, writes that it would have to know of wait.  May be NULL
	 * without journals.
	 */
	void (*abandon)(struct mover *mover, void *user);
};

/*
 * Borrows gates and devices until mover_free().  Nothing starts before mover_start().
 * 0 and *out, or -errno with *err: -ENOMEM, -EINVAL (a target too small, or with sectors
 * larger than the disk's; a journal that does not fit).
 */
MUST_CHECK int mover_new(struct loop *loop, struct buf_pool *pool, const struct mover_disk *disks,
			 uint32_t disk_count, const struct mover_options *options,
			 const struct mover_ops *ops, void *user, struct mover **out,
			 struct err *err);

void mover_start(struct mover *mover);
/*
 * Or: begin PAUSED, on a target that may not be there yet (slot.h); why (may be NULL) is told as the
 * error.  Guests are served from the source at once, their writes are known to the journals
 * (R-J2), and mover_resume() goes on.
 */
void mover_start_paused(struct mover *mover, const struct err *why);
/* PAUSED once no target I/O is in flight (what is late apart: it bounds the wait).  Refused (-EBUSY) from SWITCH on. */
MUST_CHECK int mover_pause(struct mover *mover, struct err *err);
MUST_CHECK int mover_resume(struct mover *mover, struct err *err);
/*
 * The last checkpoint before a stop: PAUSED, with no guest request inside.  Flushes both legs
 * where the target has settled, and answers with done(), 0 or -errno: what was not flushed stays
 * dirty in the journal, as after a crash.  For a target that hangs the answer may take long.
 */
void mover_checkpoint(struct mover *mover, void (*done)(int result, void *user), void *user);

/* Back to the source.  Refused (-EBUSY, ERR_TASK_COMMITTED) once the commit is issued. */
MUST_CHECK int mover_cancel(struct mover *mover, struct err *err);
/* The same, for a reason that the mover cannot see: FAILED with that error. */
MUST_CHECK int mover_fail(struct mover *mover, const struct err *why, struct err *err);
/* Lift the hold: go on to the switch-over. */
MUST_CHECK int mover_complete(struct mover *mover, struct err *err);
void mover_set_bandwidth(struct mover *mover, uint64_t bytes_per_s);
void mover_set_mode(struct mover *mover, enum mirror_mode mode);
void mover_set_max_stun(struct mover *mover, uint64_t max_stun_ns);
/* 0: none; what is shed is mirrored again. */
void mover_set_latency_budget(struct mover *mover, uint64_t latency_budget_ns);

/* The regions that a new move of a disk of that size gets, between these two devices. */
uint32_t mover_region_bytes(const struct mover_options *options, const struct blk_dev *source,
			    const struct blk_dev *target, uint64_t size_bytes);

/* The answer to ops->commit(): 0, -ECANCELED, or another -errno (unknown). */
void mover_committed(struct mover *mover, int result);

/* The answer to ops->abandon(): 0, or -errno: asked again a second later. */
void mover_abandoned(struct mover *mover, int result);

enum mover_state mover_state(const struct mover *mover);

/* [any thread] A snapshot, at most 100 ms old. */
void mover_stats(const struct mover *mover, struct mover_stats *out);

/*
 * In DONE, FAILED or CANCELLED, where the gates lead past the mover; or, so that the next daemon
 * resumes it from its journals, in PAUSED with no guest left that could write: the gates lead
 * to the source then.  freed() runs from a posted task once every late leg has settled (R2):
 * only then may the devices be closed; for a stuck target that may take long.
 */
void mover_free(struct mover *mover, void (*freed)(void *user), void *user);

#endif

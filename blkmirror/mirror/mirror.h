/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror.h - keep a target disk equal to a source disk that a guest is using.
 *
 * One dirty bit per region says "the target may differ here".  All bits start set; the
 * copy engine clears them through copy windows, a failed or late target leg sets them.
 *
 *   guest write, region dirty            -> source only: it will be copied later
 *   guest write, region clean            -> source and target, answered when both are done
 *   guest write, region in a dual window -> source at once, target behind the copier's write
 *   a write over several kinds           -> target legs for the mirrored parts only (R7)
 *
 * Rules (docs/ARCHITECTURE.md tells the failure each prevents):
 *   R1  A copy window opens only over regions that no started guest write, discard or zero
 *       touches, before the extents query and the source read; it closes when its target
 *       write has settled.  A guest request that starts inside breaks it there: a broken
 *       region is not cleared.  Legs are chosen at the moment a request starts, after
 *       every wait.
 *   R2  A deadline ends the guest's wait, never the leg: a late leg is detached, keeps its
 *       buffer and its range of the target lock until it settles; its region is dirty.
 *   R4  In a dual window the guest's target legs queue behind the copier's target write.
 *   R7  Legs cover clean parts only.        R8  A guest's discard is write-zeroes, both legs.
 *   R9  A failed target flush dirties all that was written there since the last good one.
 *   R10 Overlaps are serialised, rounded out to the larger physical block of both legs.
 *   R12 Async: a full buffer sheds to dirty; nothing overtakes a queued leg.
 *   R13 The first late leg detaches all (breaker); only the copier probes the target
 *       (COPY_ONLY).  How long legs make guests wait is counted, for a budget.
 *
 * Invariants:
 *   M1  A clean region that no started request, leg or window touches holds the same
 *       bytes on both legs.
 *   M2  Two started guest writes whose rounded ranges overlap are never in flight together.
 *   M3  Target writes whose rounded ranges overlap happen in the order in which the target
 *       lock was asked, one at a time.
 *   M4  The guest's answer is the primary's: no target error or delay changes it.
 *
 * Reads come from the source (from the target after the switch).
 *
 * Threading and errors: as blkdev.h.
 */
#ifndef BM_MIRROR_H
#define BM_MIRROR_H

#include "blkmirror/blkdev/blkdev.h"
#include "blkmirror/base/dirty_bitmap.h"
#include "blkmirror/mirror/mover.h"
#include "blkmirror/mirror/range_lock.h"

/* ---- states ---- */

enum mirror_state {
	MIRROR_UNDECIDED,       /* a hole in the table; never a state */
	MIRROR_ACTIVE,          /* legs as above */
	MIRROR_SUSPENDED,       /* source only, no target I/O; every write dirties (breaker, pause) */
	MIRROR_COPY_ONLY,       /* the same for guests, but copy windows open (probe, budget) */
	MIRROR_SWITCHED,        /* the target is authoritative; target only */
	MIRROR_RETIRED,         /* given up: source only, the target is nobody's */
	MIRROR_STATE_COUNT,
};

enum mirror_event {
	MIRROR_EV_SUSPEND,
	MIRROR_EV_COPY_ONLY,
	MIRROR_EV_RESUME,
	MIRROR_EV_SWITCH,
	MIRROR_EV_RETIRE,
	MIRROR_EVENT_COUNT,
};

enum mirror_state mirror_next_state(enum mirror_state state, enum mirror_event event);
const char *mirror_state_name(enum mirror_state state);

/* ---- the mirror ---- */

struct mirror;
struct journal;

struct mirror_hooks {
	/* A target leg failed (error < 0) or is late (error == -ETIMEDOUT; the mirror is suspended). */
	void (*trouble)(int error, void *user);
	/* A region has become dirty: there is something to copy. */
	void (*dirtied)(void *user);
	/* A detached leg has settled, a window or a leg has let go of its range. */
	void (*settled)(void *user);
	/* May these bytes be mirrored now (R6)?  Charges them when the answer is yes. */
	bool (*may_mirror)(uint64_t bytes, void *user);
	/* A guest write, zero or discard starts: what was known of this range is void. */
	void (*wrote)(uint64_t offset_bytes, uint64_t len_bytes, void *user);
};

struct mirror_options {
	enum mirror_mode mode;
	uint32_t region_bytes;          /* power of two, >= both physical blocks */
	uint64_t leg_deadline_ns;
	uint64_t async_buffer_bytes;
};

struct mirror_stats {
	uint64_t mirrored_writes, mirrored_bytes;
	uint64_t shed_bytes;
	uint64_t suspect_bytes;         /* under detached legs now */
	uint64_t buffered_bytes;        /* memory behind async legs now */
	uint64_t broken_regions;        /* how often a window lost a region */
	uint64_t late_legs, failed_legs;
	/* Guest writes that had a target leg, and how much longer than the source they took (R13). */
	uint64_t mirrored_ops, added_sum_ns;
};

/* The size that a mirror covers is size_bytes; both devices are at least as large.  -ENOMEM. */
MUST_CHECK int mirror_new(struct loop *loop, struct buf_pool *pool, struct blk_dev *source,
			  struct blk_dev *target, uint64_t size_bytes,
			  const struct mirror_options *options, const struct mirror_hooks *hooks,
			  void *user, struct mirror **out);

/*
 * Ask this journal before every write while the mirror is ACTIVE or SUSPENDED (R-J2); NULL: no
 * more.  Borrowed.  Requests that wait in the old one are not lost: they ask again.
 */
void mirror_set_journal(struct mirror *mirror, struct journal *journal);

/* Begin with these dirty regions instead of all, on a target that holds unknown bytes. */
void mirror_resume_from(struct mirror *mirror, const struct dirty_bitmap *dirty);

/* Call visit() for everything that is in flight or unsettled on either leg. */
void mirror_visit_in_flight(struct mirror *mirror,
			    void (*visit)(uint64_t offset_bytes, uint64_t len_bytes, void *user),
			    void *user);

/* Nothing in flight: mirror_is_idle(). */
void mirror_free(struct mirror *mirror);

/* The mirror as the device behind the gate. */
struct blk_dev *mirror_as_dev(struct mirror *mirror);

enum mirror_state mirror_state(const struct mirror *mirror);
void mirror_set_mode(struct mirror *mirror, enum mirror_mode mode);

/*
 * Source only from now on, every region written dirties; legs not yet submitted are dropped,
 * those in flight detached.  For a pause, and by itself as the breaker.
 */
void mirror_suspend(struct mirror *mirror);
/*
 * The same for the guest, but the copier may go on: its windows open, no hot region's do
 * (DUAL), for a guest's write has no leg that could follow.
 */
void mirror_copy_only(struct mirror *mirror);
void mirror_resume(struct mirror *mirror);

/* Give up: source only for good; dirty bits mean nothing any more. */
void mirror_retire(struct mirror *mirror);

/* The target becomes authoritative: mirror_is_settled() must hold and no guest request be inside. */
void mirror_switch(struct mirror *mirror);

/*
 * Since when no leg has settled though some are in flight (detached ones apart); UINT64_MAX:
 * none is.  Nobody waits for a buffered leg (async): who looks here notices a target that hangs.
 */
uint64_t mirror_legs_still_ns(const struct mirror *mirror);

/*
 * Guest writes that wait for nothing but their target legs now, and how long they have: what
 * will be added to mirrored_ops and added_sum_ns at least.
 */
uint32_t mirror_waiting_ops(const struct mirror *mirror, uint64_t *waited_sum_ns);

/* No target write of any kind is queued, in flight or detached. */
bool mirror_is_settled(struct mirror *mirror);
/* No guest request, leg, window or flush is left inside. */
bool mirror_is_idle(struct mirror *mirror);

struct dirty_bitmap *mirror_dirty(struct mirror *mirror);
void mirror_stats(const struct mirror *mirror, struct mirror_stats *out);
struct blk_dev *mirror_source(struct mirror *mirror);
struct blk_dev *mirror_target(struct mirror *mirror);
uint32_t mirror_region_bytes(const struct mirror *mirror);
uint64_t mirror_size_bytes(const struct mirror *mirror);

/* ---- copy windows (R1) ---- */

#define WINDOW_REGIONS_MAX 1024u
#define WINDOW_WORDS (WINDOW_REGIONS_MAX / 64u)

enum window_kind {
	WINDOW_COPY,            /* dirty regions; will write them on the target */
	WINDOW_DUAL,            /* one hot, dirty region; guests' target legs queue behind it (R4) */
	WINDOW_SCAN,            /* asks the source's extents; clears what is a hole; writes nothing */
	WINDOW_VERIFY,          /* clean regions; reads both legs */
};

struct window {
	enum window_kind kind;
	uint64_t offset_bytes;
	uint64_t len_bytes;
	struct range range;             /* of the target lock; COPY and DUAL */
	struct list node;
	uint64_t broken[WINDOW_WORDS];  /* a bit per region: may not be cleared, or judged */
	uint64_t touched[WINDOW_WORDS]; /* a guest wrote here, broken or queued behind us */
};

/*
 * Open over as much of [offset, offset + len) as no busy region stands in the way of, from
 * offset on; sets window->len_bytes.  offset is region-aligned; COPY and DUAL need dirty
 * regions.  SCAN opens over all of it and breaks the busy regions.  False: the first region
 * is busy, or the mirror is neither ACTIVE nor COPY_ONLY (SWITCHED is fine for VERIFY).  DUAL
 * needs an ACTIVE mirror.
 */
MUST_CHECK bool mirror_window_open(struct mirror *mirror, struct window *window,
				   enum window_kind kind, uint64_t offset_bytes, uint64_t len_bytes);

/* Is the region that holds this byte broken, or touched? */
bool window_is_broken(const struct mirror *mirror, const struct window *window,
		      uint64_t offset_bytes);
bool window_is_touched(const struct mirror *mirror, const struct window *window,
		       uint64_t offset_bytes);

/* Clear the unbroken regions that [offset, offset + len) covers; COPY, DUAL and SCAN, before close. */
uint64_t mirror_window_clear(struct mirror *mirror, struct window *window, uint64_t offset_bytes,
			     uint64_t len_bytes);

/* Lets waiting legs go on. */
void mirror_window_close(struct mirror *mirror, struct window *window);

/* Regions written on the target by the copier: the next target flush covers them (R9). */
void mirror_target_written(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes);
/* Has anything been written there since the mirror was made (R11)? */
bool mirror_target_untouched(const struct mirror *mirror, uint64_t offset_bytes,
			     uint64_t len_bytes);
/* The target holds unknown bytes from before (a resume): nothing counts as untouched. */
void mirror_target_is_old(struct mirror *mirror);

/* ---- target flush (R9) ---- */

struct mirror_flush {
	void (*done)(struct mirror_flush *flush, int result);
	struct list node;
};

/*
 * Flush the target; everything settled before this call is covered.  On failure the regions
 * written since the last good flush are dirty when done() runs.
 */
void mirror_flush_target(struct mirror *mirror, struct mirror_flush *flush);
/* Is anything written on the target and not yet known durable? */
bool mirror_needs_flush(const struct mirror *mirror);

#endif

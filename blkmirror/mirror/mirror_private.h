/* SPDX-License-Identifier: Apache-2.0 */
/* mirror_private.h - what the mirror's own rooms share. */
#ifndef BM_MIRROR_PRIVATE_H
#define BM_MIRROR_PRIVATE_H

#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/mirror.h"

#define MIRROR_OPS_MAX 1024u            /* started or waiting; more wait outside */
#define MIRROR_LEGS_MAX 4096u           /* beyond: shed */
#define MIRROR_LEGS_PER_OP 4u           /* runs of clean parts of one write; beyond: shed */
#define MIRROR_SUSPECT_MAX (UINT64_C(8) << 20)  /* memory behind detached legs; beyond: shed (R2) */
#define MIRROR_HOLD_DATA_NS (100 * NS_PER_MS)
#define MIRROR_FLUSH_DELAY_NS (500 * NS_PER_MS)

/* One guest write, zero or discard inside the mirror. */
struct mirror_op {
	struct mirror *mirror;
	struct blk_req *guest;
	struct range range;             /* of the guest lock */
	struct list node;               /* mirror->started, or the free list */
	struct journal_wait wait;       /* for its extents to be active (R-J2) */
	bool started;
	bool primary_pending;
	uint32_t legs_waited;           /* target legs that the guest's answer waits for */
	bool mirrored;                  /* it had a leg */
	uint64_t primary_done_ns;
	struct list legs;               /* attached legs */
	/* The data as both legs see them: one stable piece; NULL when there is none. */
	struct buf *data;
	uint8_t *bytes;
	struct iovec bounce;            /* the primary leg's, when bounced */
	struct blk_req primary;
};

/* One target write of a guest's request. */
struct mirror_leg {
	struct mirror *mirror;
	struct mirror_op *op;           /* NULL once the guest does not wait for it */
	struct range range;             /* of the target lock, until it settles (R2) */
	struct list node;               /* mirror->legs: every leg not settled; or the free list */
	struct list op_node;
	struct buf *data;
	struct iovec iov;
	struct blk_req req;
	uint64_t started_ns;
	/* What the leg keeps from the pool: all of the buffer, however little of it is written. */
	uint64_t held_bytes;
	bool submitted;
	bool detached;                  /* late, or cut off by a suspend: suspect */
	bool buffered;                  /* async: counted in buffered_bytes */
	/* Dirty when it settles, whatever its result: the primary failed, or a flush did (R9). */
	bool in_doubt;
};

struct mirror {
	struct blk_dev dev;
	struct buf_pool *pool;
	struct blk_dev *source;
	struct blk_dev *target;
	struct blk_dev *primary;        /* source, or target after the switch */
	enum mirror_state state;
	enum mirror_mode mode;
	uint32_t region_bytes;
	uint32_t align_bytes;           /* R10 */
	uint64_t leg_deadline_ns;
	uint64_t async_buffer_bytes;
	struct mirror_hooks hooks;
	void *user;

	struct journal *journal;        /* NULL: a crash begins anew */
	struct dirty_bitmap *dirty;
	struct range_lock guest_lock;
	struct range_lock target_lock;
	struct list started;
	struct list outside;            /* guest requests waiting for an op */
	struct list free_ops;
	uint32_t op_count;              /* allocated */
	uint32_t ops_in_use;

	struct list legs;               /* in order of start */
	struct list free_legs;
	uint32_t leg_count;             /* allocated */
	uint32_t legs_in_use;
	uint32_t legs_in_flight;        /* submitted, not detached */
	uint64_t leg_moved_ns;          /* one settled, or the first of them was submitted */
	uint64_t suspect_held_bytes;
	struct timer deadline;

	struct list windows;
	uint32_t dual_count;
	/*
	 * A dual window could not open over a write whose data the guest may still change: until
	 * then every write's data are held, so that the next try finds them stable.
	 */
	uint64_t hold_data_until_ns;

	struct dirty_bitmap *written;   /* on the target, ever */
	struct dirty_bitmap *unflushed; /* settled on the target since the last flush began */
	struct dirty_bitmap *flushing;  /* covered by the flush in flight */
	struct blk_req flush_req;
	struct list flush_now, flush_next;
	bool flush_in_flight;
	struct timer flush_timer;

	struct mirror_stats stats;
};

/* ---- mirror_write.c ---- */
void mirror_write_submit(struct mirror *mirror, struct blk_req *guest);
/* One of the op's parts has ended: answer the guest when nothing is left to wait for. */
void mirror_op_part_done(struct mirror_op *op);
/* What a leg of it keeps from the pool. */
uint64_t mirror_op_held_bytes(const struct mirror_op *op);
void mirror_ops_release(struct mirror *mirror);

/* ---- mirror_leg.c ---- */
/* False: no leg to be had; the caller sheds. */
bool mirror_leg_add(struct mirror_op *op, uint64_t offset_bytes, uint64_t len_bytes);
/* Hand the op's legs to the target lock. */
void mirror_legs_start(struct mirror_op *op);
void mirror_legs_cut(struct mirror *mirror);
/* Nobody waits for the op's legs any more (async, or the guest is answered). */
void mirror_legs_let_go(struct mirror_op *op);
void mirror_legs_doubt(struct mirror *mirror);
void mirror_legs_release(struct mirror *mirror);
void mirror_leg_deadline_fired(struct timer *timer);

/* ---- mirror_window.c ---- */
/* A started request touches the range: break what it must. */
void mirror_windows_break(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes);
/* Inside a dual window a target leg follows: only verify and scan windows break. */
void mirror_windows_follow(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes);
void mirror_windows_doubt(struct mirror *mirror);
bool mirror_in_dual_window(const struct mirror *mirror, uint64_t offset_bytes);

/* ---- mirror_flush.c ---- */
void mirror_flush_soon(struct mirror *mirror);
void mirror_flush_timer_fired(struct timer *timer);

/* ---- mirror.c ---- */
void mirror_set_dirty(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range_lock.h - byte ranges that may not overlap: FIFO among those that do.
 *
 * A range is granted when no earlier range that overlaps it, granted or waiting, is left.
 * So overlapping ranges are granted in the order of asking, and ranges that overlap
 * nothing never wait.
 *
 *     asked:   A [0..8)   B [4..12)   C [8..16)   D [20..24)
 *     granted: A          -           -           D          C waits for B, B for A
 *
 * The mirror has two: one orders the guest's requests (R10), the other the writes to the
 * target, the copier's among them (R4, R12).
 *
 * Cost: ranges inside one 1 MiB chunk meet only the ranges of that chunk's bucket and the
 * few that span chunks.  Nothing here allocates: a range is the caller's.
 */
#ifndef BM_RANGE_LOCK_H
#define BM_RANGE_LOCK_H

#include <stdint.h>

#include "blkmirror/base/list.h"

#define RANGE_LOCK_BUCKETS 64

struct range {
	uint64_t start_bytes, end_bytes;
	/* Called when a range that had to wait is granted; from inside range_lock_release(). */
	void (*granted)(struct range *range);
	struct list node;               /* private from here */
	struct list tell_node;
	uint64_t sequence;
	uint32_t blockers;              /* earlier, overlapping ranges */
	bool held;                      /* in the lock, granted or waiting */
};

struct range_lock {
	struct list buckets[RANGE_LOCK_BUCKETS];
	struct list wide;               /* ranges that span chunks */
	struct list to_tell;            /* granted, callback still to come */
	bool telling;
	uint64_t sequence;
	uint64_t count;
};

void range_lock_init(struct range_lock *lock);

/* True: granted now.  False: range->granted() comes later. */
bool range_lock_acquire(struct range_lock *lock, struct range *range);

/* Grant now or not at all. */
bool range_lock_try(struct range_lock *lock, struct range *range);

/* Let go of a granted range, or give up waiting; grants those that can go now. */
void range_lock_release(struct range_lock *lock, struct range *range);

/*
 * Call visit() for each range, granted or waiting, that overlaps; it must not change the
 * lock.  False from visit() stops the walk, and then the answer is false.
 */
bool range_lock_visit(struct range_lock *lock, uint64_t start_bytes, uint64_t end_bytes,
		      bool (*visit)(struct range *range, void *user), void *user);

bool range_lock_overlaps(struct range_lock *lock, uint64_t start_bytes, uint64_t end_bytes);

static inline bool range_is_granted(const struct range *range)
{
	return range->held && range->blockers == 0;
}

static inline bool range_lock_is_empty(const struct range_lock *lock)
{
	return lock->count == 0;
}

#endif

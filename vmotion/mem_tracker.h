/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_tracker.h - which pages of a guest may have changed since the last look.
 *
 *   kernel    userfaultfd write protection of the guest's own mapping, looked at and armed again
 *             in one step from outside (mem_attach.h); exact, at the size of the page table's
 *             entries: of a huge page all 4 KiB pages are told, and the sender's hashes narrow it
 *   hash      knows nothing: every page that holds something may have changed, and the sender's
 *             hashes find out.  For kernels before 6.7; each round reads all of the memory
 *
 * What we write into guest memory ourselves (reads of a vhost-user disk) passes the guest's page
 * tables by, so the kernel does not see it: whoever writes marks it, after the data have landed
 * (R-E4).  Marked earlier, a page could be taken, sent with its old contents and never again.
 *
 * Order (R-E1): pages are read after the harvest that told them; what changes in between is told
 * by the next one.
 *
 * Threading: mem_tracker_mark_written() from any thread; harvest on one thread at a time.
 */
#ifndef BM_VMOTION_MEM_TRACKER_H
#define BM_VMOTION_MEM_TRACKER_H

#include "vmotion/mem_map.h"
#include "vmotion/mem_space.h"

struct mem_tracker;

struct mem_tracker_ops {
	const char *name;
	/* Set in `dirty` what may have changed since the last harvest; the first may set anything. */
	int (*harvest)(struct mem_tracker *tracker, struct mem_map *dirty, struct err *err);
	/*
	 * Set in `absent` every page that may be a hole by now: those that the guest's page table
	 * does not hold.  Cheaper than looking at the memory's file.  NULL: any page may be one.
	 */
	int (*absent)(struct mem_tracker *tracker, struct mem_map *absent, struct err *err);
};

struct mem_tracker {
	const struct mem_tracker_ops *ops;
	const struct mem_space *space;  /* borrows */
	struct mem_map marks;
	bool exact;                     /* false: tells pages that nobody wrote */
};

/* For an implementation.  0 or -ENOMEM. */
MUST_CHECK int mem_tracker_init(struct mem_tracker *tracker, const struct mem_tracker_ops *ops,
				const struct mem_space *space);
void mem_tracker_release(struct mem_tracker *tracker);

/* The fall-back.  0 or -ENOMEM. */
MUST_CHECK int mem_tracker_init_hash(struct mem_tracker *tracker, const struct mem_space *space);

/* Add to `dirty` (of the space's page_count) what was written since the last harvest. */
MUST_CHECK int mem_tracker_harvest(struct mem_tracker *tracker, struct mem_map *dirty,
				   struct err *err);

/* Add to `absent` the pages that may have become holes; all others have not. */
MUST_CHECK int mem_tracker_absent(struct mem_tracker *tracker, struct mem_map *absent,
				  struct err *err);

/* We have written [hva, hva + len), as QEMU numbers its memory.  What lies in no block is ignored. */
void mem_tracker_mark_written(struct mem_tracker *tracker, uint64_t hva, uint64_t len_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extent_scout.h - what lies ahead on a device that nobody writes: data or nothing.
 *
 * Asks BLK_EXTENTS a stretch at a time and remembers the answer, so that a sequential
 * reader skips what reads as zeroes without reading it.
 *
 * Threading: the device's loop.  One question at a time.
 */
#ifndef BM_EXTENT_SCOUT_H
#define BM_EXTENT_SCOUT_H

#include "blkmirror/blkdev/blkdev.h"

#define EXTENT_SCOUT_RUNS 128u

struct extent_scout {
	struct blk_dev *dev;
	struct blk_extent runs[EXTENT_SCOUT_RUNS];
	struct blk_extents extents;
	struct blk_req req;
	uint64_t from_bytes, until_bytes;       /* what the answer covers */
	bool asking;
	void (*ready)(struct extent_scout *scout, int result);
};

void extent_scout_init(struct extent_scout *scout, struct blk_dev *dev,
		       void (*ready)(struct extent_scout *scout, int result));

/* Does the last answer cover this offset (or is there nothing to ask)? */
bool extent_scout_knows(const struct extent_scout *scout, uint64_t offset_bytes);
/* Is all of it known to read as zeroes?  What lies beyond the answer counts as data. */
bool extent_scout_is_zero(const struct extent_scout *scout, uint64_t offset_bytes,
			  uint64_t len_bytes);
/* Ask from offset on.  ready() runs later with 0 or -errno. */
void extent_scout_ask(struct extent_scout *scout, uint64_t offset_bytes);

#endif

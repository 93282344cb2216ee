/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slot.h - a place for a device that is not there yet.
 *
 * A move that goes on after a restart must serve its guest at once, whether or not its target
 * can be reached.  So the mirror gets a slot as its target: empty at first, every request is
 * answered with -ENODEV; later the target's device is put in, and requests go there.
 *
 * Size, block and physical block are promised when the slot is made and never change: what
 * was built upon it (the rounding of R10 above all) stays true.  A device that cannot keep
 * the promise is not taken.  The hints (best transfer and depth, unmap, extents) are the
 * device's, from when it is put in.
 *
 * A slot never says that it reads zeroes (R11): what is put in has a past.
 *
 * Threading and errors: as blkdev.h.
 */
#ifndef BM_SLOT_H
#define BM_SLOT_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

/* NULL: out of memory.  block_bytes and physical_bytes: powers of two, block <= physical. */
struct blk_dev *slot_new(struct loop *loop, uint64_t size_bytes, uint32_t block_bytes,
			 uint32_t physical_bytes);

/*
 * Put a device in; takes it: blk_close() of the slot closes it.  0, or -errno with *err, and the
 * device stays the caller's: ERR_MOVE_TARGET_SMALL, ERR_MOVE_SECTOR, ERR_MOVE_PHYSICAL,
 * ERR_DS_READ_ONLY.  Only an empty slot.
 */
MUST_CHECK int slot_fill(struct blk_dev *slot, struct blk_dev *inner, struct err *err);

/* The device inside, borrowed; NULL: empty. */
struct blk_dev *slot_inner(const struct blk_dev *slot);

/*
 * Give the device up, to be used without the slot.  What is in flight is the device's already; who
 * submits to the slot must submit to the device from now on.
 */
struct blk_dev *slot_take(struct blk_dev *slot);

bool blk_dev_is_slot(const struct blk_dev *dev);

#endif

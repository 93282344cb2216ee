/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram_dev.h - a tiny device in memory, for tests of gates and wrappers.
 *
 * A request is carried out inside submit and answered from a posted task, or kept
 * unanswered while the device is held.  `carried_out` counts what reached the bytes.
 */
#ifndef TESTS_RAM_DEV_H
#define TESTS_RAM_DEV_H

#include "blkmirror/blkdev/blkdev.h"

struct ram_dev {
	struct blk_dev dev;
	uint8_t *bytes;
	uint64_t carried_out;
	uint64_t by_op[BLK_OP_COUNT];
	bool held;
	struct list waiting;            /* blk_req.node, while held */
};

/* Blocks of 512 bytes.  NULL: out of memory.  Freed by blk_close(&ram->dev). */
struct ram_dev *ram_dev_new(struct loop *loop, uint64_t size_bytes);

/* While held nothing is answered; letting go answers in the order of submission. */
void ram_dev_hold(struct ram_dev *ram, bool held);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_dev.h - a block device in memory, for tests: looks inside, hangs and fails on demand.
 *
 * Requests take effect when they are submitted and complete from a posted task; while the
 * device hangs they have no effect and wait.  Allocation is kept per MEM_DEV_PAGE_BYTES, so
 * BLK_EXTENTS tells data, zeroes and holes as a thin file would, in runs that never cross
 * a multiple of MEM_DEV_RUN_BYTES: who asks has to join them.  Everything in the struct
 * may be read on the device's loop.
 */
#ifndef BM_TESTS_MEM_DEV_H
#define BM_TESTS_MEM_DEV_H

#include "blkmirror/blkdev/blkdev.h"

#define MEM_DEV_PAGE_BYTES 4096u
#define MEM_DEV_RUN_BYTES (1u << 20)

struct mem_dev {
	struct blk_dev dev;
	uint8_t *bytes;
	uint8_t *pages;                         /* enum blk_extent_status, one per page */
	uint64_t ops[BLK_OP_COUNT];             /* submitted */
	unsigned last_flags[BLK_OP_COUNT];
	bool last_had_data;                     /* of the last write: req->data was set */
	int fail_with[BLK_OP_COUNT];            /* -errno: every such request fails; 0: none */
	bool hung;
	struct list waiting;
	uint64_t waiting_count;
};

/* The limits a test mostly wants: 512-byte blocks, unmap, extents. */
struct blk_limits mem_dev_limits(void);

/* size_bytes: a multiple of MEM_DEV_PAGE_BYTES.  limits NULL: mem_dev_limits().  NULL: no memory. */
struct mem_dev *mem_dev_new(struct loop *loop, uint64_t size_bytes,
			    const struct blk_limits *limits);

/* Close with blk_close(&mem->dev). */

/* From now on requests wait; false carries out and completes those that do. */
void mem_dev_hang(struct mem_dev *mem, bool hung);

#endif

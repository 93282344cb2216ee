/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/slot.h"

#include <errno.h>
#include <stdlib.h>

struct slot {
	struct blk_dev dev;
	struct blk_dev *inner;          /* NULL: empty */
};

static void slot_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct slot *slot = container_of(dev, struct slot, dev);

	if (!slot->inner) {
		blk_complete_later(req, -ENODEV);
		return;
	}
	/* The request is the inner device's from now on, its completion included. */
	dev->in_flight--;
	blk_submit(slot->inner, req);
}

static void slot_close(struct blk_dev *dev)
{
	struct slot *slot = container_of(dev, struct slot, dev);

	blk_close(slot->inner);
	free(slot);
}

static bool slot_is_lost(const struct blk_dev *dev)
{
	const struct slot *slot = container_of(dev, struct slot, dev);

	return slot->inner && blk_is_lost(slot->inner);
}

static const struct blk_ops slot_ops = {
	.name = "slot",
	.submit = slot_submit,
	.close = slot_close,
	.is_lost = slot_is_lost,
};

struct blk_dev *slot_new(struct loop *loop, uint64_t size_bytes, uint32_t block_bytes,
			 uint32_t physical_bytes)
{
	struct blk_limits limits = {
		.block_bytes = block_bytes,
		.physical_bytes = physical_bytes,
		.memory_align_bytes = 1,
		.best_transfer_bytes = BLK_MAX_TRANSFER_BYTES,
		.best_depth = 1,
	};
	struct slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return NULL;
	blk_dev_init(&slot->dev, &slot_ops, loop, size_bytes, &limits);
	return &slot->dev;
}

static int slot_judge(const struct blk_dev *slot, const struct blk_dev *inner, struct err *err)
{
	if (inner->size_bytes < slot->size_bytes)
		return err_set(err, ERR_MOVE_TARGET_SMALL, -ENOSPC,
			       "the target has %llu bytes, the disk %llu",
			       (unsigned long long)inner->size_bytes,
			       (unsigned long long)slot->size_bytes);
	if (inner->limits.block_bytes > slot->limits.block_bytes)
		return err_set(err, ERR_MOVE_SECTOR, -EINVAL,
			       "the target has sectors of %u bytes, the disk of %u",
			       inner->limits.block_bytes, slot->limits.block_bytes);
	if (inner->limits.physical_bytes > slot->limits.physical_bytes)
		return err_set(err, ERR_MOVE_PHYSICAL, -EINVAL,
			       "the target has physical blocks of %u bytes, it had %u when the move "
			       "began", inner->limits.physical_bytes, slot->limits.physical_bytes);
	if (inner->limits.read_only)
		return err_set(err, ERR_DS_READ_ONLY, -EROFS, "the target is read-only");
	return 0;
}

int slot_fill(struct blk_dev *dev, struct blk_dev *inner, struct err *err)
{
	struct slot *slot = container_of(dev, struct slot, dev);
	struct blk_limits limits = inner->limits;
	int rc;

	LOOP_CHECK(dev->loop);
	CHECK(dev->ops == &slot_ops);
	CHECK(!slot->inner);
	CHECK(inner->loop == dev->loop);
	rc = slot_judge(dev, inner, err);
	if (rc)
		return rc;
	limits.block_bytes = dev->limits.block_bytes;
	limits.physical_bytes = dev->limits.physical_bytes;
	limits.reads_zero = false;      /* R11 */
	dev->limits = limits;
	slot->inner = inner;
	return 0;
}

struct blk_dev *slot_inner(const struct blk_dev *dev)
{
	CHECK(dev->ops == &slot_ops);
	return container_of(dev, struct slot, dev)->inner;
}

struct blk_dev *slot_take(struct blk_dev *dev)
{
	struct slot *slot = container_of(dev, struct slot, dev);
	struct blk_dev *inner = slot->inner;

	LOOP_CHECK(dev->loop);
	CHECK(dev->ops == &slot_ops);
	CHECK(inner);
	slot->inner = NULL;
	return inner;
}

bool blk_dev_is_slot(const struct blk_dev *dev)
{
	return dev->ops == &slot_ops;
}

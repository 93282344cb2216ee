/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/blkdev.h"

#include "blkmirror/base/overflow.h"

static const char *const op_names[BLK_OP_COUNT] = {
	[BLK_READ] = "read",       [BLK_WRITE] = "write", [BLK_WRITE_ZEROES] = "write-zeroes",
	[BLK_DISCARD] = "discard", [BLK_FLUSH] = "flush", [BLK_EXTENTS] = "extents",
};

const char *blk_op_name(enum blk_op op)
{
	CHECK(op < BLK_OP_COUNT);
	return op_names[op];
}

void blk_dev_init(struct blk_dev *dev, const struct blk_ops *ops, struct loop *loop,
		  uint64_t size_bytes, const struct blk_limits *limits)
{
	CHECK(ops->submit);
	CHECK(ops->close);
	CHECK(is_power_of_two(limits->block_bytes));
	CHECK(is_power_of_two(limits->physical_bytes));
	CHECK(limits->physical_bytes >= limits->block_bytes);
	CHECK(is_power_of_two(limits->memory_align_bytes));
	CHECK(limits->best_transfer_bytes >= limits->block_bytes);
	CHECK(limits->best_transfer_bytes % limits->block_bytes == 0);
	CHECK(limits->best_depth >= 1);
	CHECK(size_bytes % limits->block_bytes == 0);
	*dev = (struct blk_dev){ .ops = ops, .loop = loop, .size_bytes = size_bytes,
				 .limits = *limits };
}

bool blk_req_is_valid(const struct blk_dev *dev, const struct blk_req *req)
{
	const struct blk_limits *limits = &dev->limits;

	if (req->op >= BLK_OP_COUNT || !req->done)
		return false;
	if (req->op == BLK_FLUSH)
		return true;
	if (req->len_bytes == 0 || !range_fits(req->offset_bytes, req->len_bytes, dev->size_bytes))
		return false;
	if ((req->offset_bytes | req->len_bytes) & (limits->block_bytes - 1))
		return false;
	if (req->op == BLK_READ || req->op == BLK_WRITE)
		return req->len_bytes <= BLK_MAX_TRANSFER_BYTES && req->iov &&
		       req->iov_count >= 1 && req->iov_count <= BLK_MAX_IOV;
	if (req->op == BLK_EXTENTS)
		return req->extents && req->extents->capacity >= 1;
	return true;
}

void blk_submit(struct blk_dev *dev, struct blk_req *req)
{
	LOOP_CHECK(dev->loop);
	CHECK(blk_req_is_valid(dev, req));
	CHECK(!blk_op_writes(req->op) || !dev->limits.read_only);
	req->dev = dev;
	dev->in_flight++;
	dev->ops->submit(dev, req);
}

void blk_complete(struct blk_req *req, int result)
{
	struct blk_dev *dev = req->dev;

	CHECK(result <= 0);
	CHECK(dev->in_flight > 0);
	dev->in_flight--;
	req->result = result;
	req->done(req);
}

static void blk_complete_task(struct task *task)
{
	struct blk_req *req = container_of(task, struct blk_req, task);

	blk_complete(req, req->result);
}

void blk_complete_later(struct blk_req *req, int result)
{
	req->result = result;
	req->task = (struct task){ .run = blk_complete_task };
	loop_post(req->dev->loop, &req->task);
}

void blk_close(struct blk_dev *dev)
{
	if (!dev)
		return;
	CHECK(dev->in_flight == 0);
	dev->ops->close(dev);
}

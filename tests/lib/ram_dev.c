/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ram_dev.h"

#include <stdlib.h>
#include <string.h>

#define RAM_BLOCK_BYTES 512u

static void ram_dev_copy(struct ram_dev *ram, const struct blk_req *req)
{
	uint8_t *at = ram->bytes + req->offset_bytes;
	uint64_t copied = 0;

	for (uint32_t i = 0; i < req->iov_count; i++) {
		const struct iovec *iov = &req->iov[i];

		CHECK(iov->iov_len <= req->len_bytes - copied);
		if (req->op == BLK_READ)
			memcpy(iov->iov_base, at + copied, iov->iov_len);
		else
			memcpy(at + copied, iov->iov_base, iov->iov_len);
		copied += iov->iov_len;
	}
	CHECK(copied == req->len_bytes);
}

static void ram_dev_carry_out(struct ram_dev *ram, const struct blk_req *req)
{
	ram->carried_out++;
	ram->by_op[req->op]++;
	switch (req->op) {
	case BLK_READ:
	case BLK_WRITE:
		ram_dev_copy(ram, req);
		break;
	case BLK_WRITE_ZEROES:
		memset(ram->bytes + req->offset_bytes, 0, req->len_bytes);
		break;
	case BLK_EXTENTS:
		req->extents->runs[0] = (struct blk_extent){ req->len_bytes, BLK_EXTENT_DATA };
		req->extents->count = 1;
		break;
	default:
		break;
	}
}

static void ram_dev_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct ram_dev *ram = container_of(dev, struct ram_dev, dev);

	memset(req->private_bytes, 0xa5, sizeof(req->private_bytes));  
	ram_dev_carry_out(ram, req);
	if (ram->held)
		list_append(&ram->waiting, &req->node);
	else
		blk_complete_later(req, 0);
}

static void ram_dev_close(struct blk_dev *dev)
{
	struct ram_dev *ram = container_of(dev, struct ram_dev, dev);

	free(ram->bytes);
	free(ram);
}

static const struct blk_ops ram_dev_ops = {
	.name = "ram",
	.submit = ram_dev_submit,
	.close = ram_dev_close,
};

struct ram_dev *ram_dev_new(struct loop *loop, uint64_t size_bytes)
{
	const struct blk_limits limits = {
		.block_bytes = RAM_BLOCK_BYTES, .physical_bytes = RAM_BLOCK_BYTES,
		.memory_align_bytes = 1, .best_transfer_bytes = 65536, .best_depth = 8,
		.reads_zero = true,
	};
	struct ram_dev *ram = calloc(1, sizeof(*ram));

	if (!ram)
		return NULL;
	ram->bytes = calloc(1, size_bytes);
	if (!ram->bytes) {
		free(ram);
		return NULL;
	}
	list_init(&ram->waiting);
	blk_dev_init(&ram->dev, &ram_dev_ops, loop, size_bytes, &limits);
	return ram;
}

void ram_dev_hold(struct ram_dev *ram, bool held)
{
	struct list *node;

	ram->held = held;
	while (!held && (node = list_pop(&ram->waiting)))
		blk_complete_later(list_entry(node, struct blk_req, node), 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mem_dev.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blkmirror/base/overflow.h"

static void mem_dev_copy(struct mem_dev *mem, const struct blk_req *req)
{
	uint8_t *at = mem->bytes + req->offset_bytes;

	for (uint32_t i = 0; i < req->iov_count; i++) {
		const struct iovec *part = &req->iov[i];

		if (req->op == BLK_WRITE)
			memcpy(at, part->iov_base, part->iov_len);
		else
			memcpy(part->iov_base, at, part->iov_len);
		at += part->iov_len;
	}
}

/* Pages that lie in the range become `status`; one that is only touched is data from now on. */
static void mem_dev_mark(struct mem_dev *mem, const struct blk_req *req,
			 enum blk_extent_status status)
{
	uint64_t end = req->offset_bytes + req->len_bytes;

	for (uint64_t page = round_down(req->offset_bytes, MEM_DEV_PAGE_BYTES); page < end;
	     page += MEM_DEV_PAGE_BYTES) {
		bool inside = page >= req->offset_bytes && page + MEM_DEV_PAGE_BYTES <= end;

		mem->pages[page / MEM_DEV_PAGE_BYTES] =
			(uint8_t)(inside ? status : BLK_EXTENT_DATA);
	}
}

static void mem_dev_extents(const struct mem_dev *mem, const struct blk_req *req)
{
	struct blk_extents *extents = req->extents;
	uint64_t at = req->offset_bytes, end = req->offset_bytes + req->len_bytes;

	extents->count = 0;
	while (at < end) {
		uint8_t status = mem->pages[at / MEM_DEV_PAGE_BYTES];
		uint64_t len = MIN(end, round_down(at, MEM_DEV_PAGE_BYTES) + MEM_DEV_PAGE_BYTES) -
			       at;
		uint32_t count = extents->count;

		if (count && extents->runs[count - 1].status == status && at % MEM_DEV_RUN_BYTES) {
			extents->runs[count - 1].len_bytes += len;
		} else {
			if (count == extents->capacity)
				return;
			extents->runs[extents->count++] = (struct blk_extent){
				.len_bytes = len, .status = (enum blk_extent_status)status };
		}
		at += len;
	}
}

static void mem_dev_carry_out(struct mem_dev *mem, struct blk_req *req)
{
	int rc = mem->fail_with[req->op];

	if (!rc && (req->op == BLK_READ || req->op == BLK_WRITE))
		mem_dev_copy(mem, req);
	if (!rc && req->op == BLK_WRITE)
		mem_dev_mark(mem, req, BLK_EXTENT_DATA);
	if (!rc && req->op == BLK_WRITE_ZEROES) {
		memset(mem->bytes + req->offset_bytes, 0, req->len_bytes);
		mem_dev_mark(mem, req, req->flags & BLK_MAY_UNMAP ? BLK_EXTENT_HOLE :
								    BLK_EXTENT_ZERO);
	}
	if (!rc && req->op == BLK_EXTENTS)
		mem_dev_extents(mem, req);
	blk_complete_later(req, rc);
}

static void mem_dev_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct mem_dev *mem = container_of(dev, struct mem_dev, dev);

	mem->ops[req->op]++;
	mem->last_flags[req->op] = req->flags;
	if (req->op == BLK_WRITE)
		mem->last_had_data = req->data != NULL;
	if (mem->hung) {
		list_append(&mem->waiting, &req->node);
		mem->waiting_count++;
		return;
	}
	mem_dev_carry_out(mem, req);
}

void mem_dev_hang(struct mem_dev *mem, bool hung)
{
	struct list *node;

	mem->hung = hung;
	while (!hung && (node = list_pop(&mem->waiting))) {
		mem->waiting_count--;
		mem_dev_carry_out(mem, list_entry(node, struct blk_req, node));
	}
}

static void mem_dev_close(struct blk_dev *dev)
{
	struct mem_dev *mem = container_of(dev, struct mem_dev, dev);

	munmap(mem->bytes, dev->size_bytes);
	free(mem->pages);
	free(mem);
}

static const struct blk_ops mem_dev_ops = {
	.name = "memory",
	.submit = mem_dev_submit,
	.close = mem_dev_close,
};

struct blk_limits mem_dev_limits(void)
{
	return (struct blk_limits){
		.block_bytes = 512,
		.physical_bytes = 4096,
		.memory_align_bytes = 1,
		.best_transfer_bytes = 1 << 20,
		.best_depth = 16,
		.reads_zero = true,
		.can_unmap = true,
		.has_extents = true,
	};
}

struct mem_dev *mem_dev_new(struct loop *loop, uint64_t size_bytes, const struct blk_limits *limits)
{
	struct blk_limits usual = mem_dev_limits();
	struct mem_dev *mem = calloc(1, sizeof(*mem));

	CHECK(size_bytes > 0);
	CHECK(size_bytes % MEM_DEV_PAGE_BYTES == 0);
	if (!mem)
		return NULL;
	mem->pages = malloc(size_bytes / MEM_DEV_PAGE_BYTES);
	if (!mem->pages)
		goto free_mem;
	memset(mem->pages, BLK_EXTENT_HOLE, size_bytes / MEM_DEV_PAGE_BYTES);
	mem->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem->bytes == MAP_FAILED)
		goto free_pages;
	list_init(&mem->waiting);
	blk_dev_init(&mem->dev, &mem_dev_ops, loop, size_bytes, limits ? limits : &usual);
	return mem;

free_pages:
	free(mem->pages);
free_mem:
	free(mem);
	return NULL;
}

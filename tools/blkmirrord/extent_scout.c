/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/extent_scout.h"

static void scout_answered(struct blk_req *req)
{
	struct extent_scout *scout = container_of(req, struct extent_scout, req);

	scout->asking = false;
	scout->until_bytes = scout->from_bytes;
	for (uint32_t i = 0; !req->result && i < scout->extents.count; i++)
		scout->until_bytes += scout->runs[i].len_bytes;
	scout->ready(scout, req->result);
}

void extent_scout_init(struct extent_scout *scout, struct blk_dev *dev,
		       void (*ready)(struct extent_scout *scout, int result))
{
	*scout = (struct extent_scout){ .dev = dev, .ready = ready };
	scout->extents.runs = scout->runs;
	scout->extents.capacity = EXTENT_SCOUT_RUNS;
}

bool extent_scout_knows(const struct extent_scout *scout, uint64_t offset_bytes)
{
	return !scout->dev->limits.has_extents ||
	       (offset_bytes >= scout->from_bytes && offset_bytes < scout->until_bytes);
}

bool extent_scout_is_zero(const struct extent_scout *scout, uint64_t offset_bytes,
			  uint64_t len_bytes)
{
	uint64_t at_bytes = scout->from_bytes;
	uint64_t end_bytes = offset_bytes + len_bytes;

	if (!scout->dev->limits.has_extents || end_bytes > scout->until_bytes)
		return false;
	for (uint32_t i = 0; i < scout->extents.count; i++) {
		uint64_t run_end = at_bytes + scout->runs[i].len_bytes;

		if (scout->runs[i].status == BLK_EXTENT_DATA && run_end > offset_bytes &&
		    at_bytes < end_bytes)
			return false;
		at_bytes = run_end;
	}
	return true;
}

void extent_scout_ask(struct extent_scout *scout, uint64_t offset_bytes)
{
	CHECK(!scout->asking);
	scout->asking = true;
	scout->from_bytes = offset_bytes;
	scout->req = (struct blk_req){
		.op = BLK_EXTENTS,
		.flags = BLK_COPIER,
		.offset_bytes = offset_bytes,
		.len_bytes = scout->dev->size_bytes - offset_bytes,
		.extents = &scout->extents,
		.done = scout_answered,
	};
	blk_submit(scout->dev, &scout->req);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_tracker.h"

#include <errno.h>

int mem_tracker_init(struct mem_tracker *tracker, const struct mem_tracker_ops *ops,
		     const struct mem_space *space)
{
	tracker->ops = ops;
	tracker->space = space;
	tracker->exact = true;
	return mem_map_init(&tracker->marks, space->page_count);
}

void mem_tracker_release(struct mem_tracker *tracker)
{
	mem_map_release(&tracker->marks);
}

/* ---- the fall-back: whatever holds something may have changed ---- */

static int harvest_block(const struct mem_space *space, const struct mem_block *block,
			 struct mem_map *dirty, struct err *err)
{
	uint64_t start = 0, end = 0;
	int rc;

	while ((rc = space->ops->next_data(block, end, &start, &end)) == 0)
		mem_map_set_range(dirty, block->first_page + start / MEM_PAGE_BYTES,
				  (end - start) / MEM_PAGE_BYTES);
	if (rc == -ENXIO)
		return 0;
	return err_set(err, ERR_MEM_TRACK, rc, "cannot look for data in memory block '%s': %s",
		       block->name, err_strerror(rc));
}

static int hash_harvest(struct mem_tracker *tracker, struct mem_map *dirty, struct err *err)
{
	for (uint32_t i = 0; i < tracker->space->count; i++) {
		int rc = harvest_block(tracker->space, &tracker->space->blocks[i], dirty, err);

		if (rc)
			return rc;
	}
	return 0;
}

static const struct mem_tracker_ops hash_ops = {
	.name = "hash",
	.harvest = hash_harvest,
};

int mem_tracker_init_hash(struct mem_tracker *tracker, const struct mem_space *space)
{
	int rc = mem_tracker_init(tracker, &hash_ops, space);

	tracker->exact = false;
	return rc;
}

/* ---- harvest ---- */

static void take_marks(struct mem_tracker *tracker, struct mem_map *dirty)
{
	for (uint64_t i = 0; i < mem_map_word_count(&tracker->marks); i++)
		if (__atomic_load_n(&tracker->marks.words[i], __ATOMIC_RELAXED))
			dirty->words[i] |= mem_map_take_word_atomic(&tracker->marks, i);
}

int mem_tracker_harvest(struct mem_tracker *tracker, struct mem_map *dirty, struct err *err)
{
	int rc;

	CHECK(dirty->page_count == tracker->space->page_count);
	rc = tracker->ops->harvest(tracker, dirty, err);
	if (rc)
		return rc;
	take_marks(tracker, dirty);     /* R-E4 */
	return 0;
}

int mem_tracker_absent(struct mem_tracker *tracker, struct mem_map *absent, struct err *err)
{
	CHECK(absent->page_count == tracker->space->page_count);
	if (tracker->ops->absent)
		return tracker->ops->absent(tracker, absent, err);
	mem_map_set_range(absent, 0, absent->page_count);
	return 0;
}

static void mark_in_block(struct mem_tracker *tracker, const struct mem_block *block, uint64_t hva,
			  uint64_t len_bytes)
{
	uint64_t start = MAX(hva, block->hva);
	uint64_t end = MIN(hva + len_bytes, block->hva + block->len_bytes);

	if (start >= end)
		return;
	for (uint64_t page = (start - block->hva) / MEM_PAGE_BYTES;
	     page <= (end - 1 - block->hva) / MEM_PAGE_BYTES; page++)
		mem_map_set_atomic(&tracker->marks, block->first_page + page);
}

void mem_tracker_mark_written(struct mem_tracker *tracker, uint64_t hva, uint64_t len_bytes)
{
	CHECK(len_bytes <= UINT64_MAX - hva);
	for (uint32_t i = 0; i < tracker->space->count; i++)
		mark_in_block(tracker, &tracker->space->blocks[i], hva, len_bytes);
}

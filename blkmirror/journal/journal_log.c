/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_log.c - the activity log: extents that are being written (R-J2).
 *
 * All extents that one loop turn wants go down in one log write; while it is under way the
 * next wants gather.  The two slots are written in turn, so the newest durable slot is never
 * the one being overwritten.
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

/* ---- the set ---- */

static struct list *extent_bucket(struct journal *journal, uint32_t index)
{
	return &journal->buckets[index % JOURNAL_HASH_BUCKETS];
}

struct extent *journal_extent_find(struct journal *journal, uint32_t index)
{
	list_for_each(node, extent_bucket(journal, index)) {
		struct extent *extent = list_entry(node, struct extent, bucket_node);

		if (extent->index == index)
			return extent;
	}
	return NULL;
}

static struct extent *extent_take(struct journal *journal, uint32_t index)
{
	struct list *node = list_pop(&journal->free_extents);
	struct extent *extent;

	if (!node)
		return NULL;
	extent = list_entry(node, struct extent, lru_node);
	extent->index = index;
	extent->state = EXTENT_WANTED;
	extent->touched = 0;
	extent->fresh = false;
	list_append(extent_bucket(journal, index), &extent->bucket_node);
	list_append(&journal->lru, &extent->lru_node);
	journal->extent_used++;
	return extent;
}

static void extent_give(struct journal *journal, struct extent *extent)
{
	list_remove(&extent->bucket_node);
	list_remove(&extent->lru_node);
	extent->state = EXTENT_FREE;
	journal->extent_used--;
	list_append(&journal->free_extents, &extent->lru_node);
}

void journal_extents_leave(struct journal *journal)
{
	list_for_each(node, &journal->lru) {
		struct extent *extent = list_entry(node, struct extent, lru_node);

		if (extent->state == EXTENT_LEAVING) {
			extent_give(journal, extent);
			journal->log_changed = true;
		}
	}
	journal_wake_all(journal);
}

/* ---- waiting ---- */

void journal_wake_all(struct journal *journal)
{
	if (!list_is_empty(&journal->waiting) && !journal->wake.queued)
		loop_post(journal->loop, &journal->wake);
}

void journal_release_waiters(struct journal *journal)
{
	journal_wake_all(journal);
}

void journal_wait_cancel(struct journal_wait *wait)
{
	list_remove(&wait->node);
}

/* ---- the log write ---- */

void journal_log_build(struct journal *journal, uint64_t sequence, uint64_t slot, uint8_t *block)
{
	struct journal_sector *sectors = (struct journal_sector *)block;
	uint64_t first = JOURNAL_LOG_SECTOR + slot * JOURNAL_LOG_SLOT_SECTORS;
	uint32_t count[JOURNAL_LOG_SLOT_SECTORS] = { 0 };
	uint32_t at = 0;

	memset(block, 0, JOURNAL_BLOCK_BYTES);
	list_for_each(node, &journal->lru) {
		const struct extent *extent = list_entry(node, struct extent, lru_node);
		uint32_t sector = at % JOURNAL_LOG_SLOT_SECTORS;
		struct journal_log *log = (struct journal_log *)sectors[sector].payload;

		log->extents[count[sector]++] = to_le32(extent->index);
		at++;
	}
	for (uint32_t i = 0; i < JOURNAL_LOG_SLOT_SECTORS; i++) {
		struct journal_log *log = (struct journal_log *)sectors[i].payload;

		log->count = to_le32(count[i]);
		log->sectors = to_le32(JOURNAL_LOG_SLOT_SECTORS);
		journal_seal(&sectors[i], journal->key, JOURNAL_LOG, sequence, first + i);
	}
}

static void journal_log_written(struct blk_req *req)
{
	struct journal *journal = container_of(req, struct journal, log_req);

	journal->log_in_flight = false;
	if (req->result) {
		journal_fail(journal, req->result);
		journal_settled(journal);
		return;
	}
	list_for_each(node, &journal->lru) {
		struct extent *extent = list_entry(node, struct extent, lru_node);

		if (extent->state != EXTENT_WRITING)
			continue;
		extent->state = EXTENT_ACTIVE;
		extent->fresh = !list_is_empty(&journal->waiting);
	}
	journal_wake_all(journal);
	journal_log_look(journal);
	journal_settled(journal);
}

/*
 * Everybody has asked again: from now on what was activated for them may make room for others.
 * Not before: two who wait for more extents than there are would take them from each other,
 * unused, for ever.
 */
void journal_extents_settle(struct journal *journal)
{
	bool any = false;

	list_for_each(node, &journal->lru) {
		struct extent *extent = list_entry(node, struct extent, lru_node);

		any |= extent->fresh;
		extent->fresh = false;
	}
	if (any)
		journal_wake_all(journal);      /* who found no room, because of that */
}

static void journal_log_write(struct journal *journal)
{
	uint64_t sequence = ++journal->log_sequence;
	uint64_t slot = sequence % JOURNAL_LOG_SLOTS;

	journal_log_build(journal, sequence, slot, journal->log_block);
	list_for_each(node, &journal->lru) {
		struct extent *extent = list_entry(node, struct extent, lru_node);

		if (extent->state == EXTENT_WANTED)
			extent->state = EXTENT_WRITING;
	}
	journal->log_changed = false;
	journal->log_in_flight = true;
	journal->stats.log_writes++;
	journal->log_iov = (struct iovec){ .iov_base = journal->log_block,
					   .iov_len = JOURNAL_BLOCK_BYTES };
	journal->log_req = (struct blk_req){
		.op = BLK_WRITE, .flags = BLK_FUA | BLK_STABLE,
		.offset_bytes = (JOURNAL_LOG_SECTOR + slot * JOURNAL_LOG_SLOT_SECTORS) *
				(uint64_t)JOURNAL_SECTOR_BYTES,
		.len_bytes = JOURNAL_BLOCK_BYTES, .iov = &journal->log_iov, .iov_count = 1,
		.done = journal_log_written,
	};
	blk_submit(journal->dev, &journal->log_req);
}

static bool journal_log_is_due(const struct journal *journal)
{
	return journal->log_changed && !journal->log_in_flight && !journal->log_blocked &&
	       !journal->stats.error && !journal->closed;
}

void journal_log_look(struct journal *journal)
{
	if (journal_log_is_due(journal))
		loop_at_turn_end(journal->loop, &journal->log_hook);
}

void journal_log_hook(struct turn_hook *hook)
{
	struct journal *journal = container_of(hook, struct journal, log_hook);

	if (journal_log_is_due(journal))
		journal_log_write(journal);
}

/* ---- demotion: room for the next ---- */

/* The touched regions of an extent are dirty on disk from now on: no flush is needed for that. */
static void extent_demote(struct journal *journal, struct extent *extent)
{
	uint64_t region_bytes = journal->identity.region_bytes;
	uint64_t start = (uint64_t)extent->index * journal->identity.extent_bytes;

	for (uint64_t touched = extent->touched; touched; touched &= touched - 1) {
		uint64_t at = start + (uint64_t)__builtin_ctzll(touched) * region_bytes;
		uint64_t len = MIN(region_bytes, journal->identity.size_bytes - at);

		dirty_bitmap_set(journal->persisted, at, len);
		journal_map_changed(journal, at, len);
	}
	extent->state = EXTENT_LEAVING;
	journal->stats.demotions++;
}

/* A quarter of the log leaves at once, the least recently used first. */
static void journal_make_room(struct journal *journal)
{
	uint32_t wanted = MAX(journal->extent_max / 4, 1u);
	bool demoted = false;

	list_for_each(node, &journal->lru) {
		struct extent *extent = list_entry(node, struct extent, lru_node);

		if (extent->state == EXTENT_LEAVING)
			return;         /* room is being made already */
		if (extent->state != EXTENT_ACTIVE || extent->fresh)
			continue;
		extent_demote(journal, extent);
		demoted = true;
		if (--wanted == 0)
			break;
	}
	/* With none to demote the log write under way makes them active, and wakes. */
	if (demoted)
		journal_map_write(journal);
}

/* ---- R-J2 ---- */

/* Note which regions of an extent are written. */
static void extent_touch(struct journal *journal, struct extent *extent, uint64_t start,
			 uint64_t end)
{
	uint64_t base = (uint64_t)extent->index * journal->identity.extent_bytes;
	uint32_t region_bytes = journal->identity.region_bytes;

	for (uint64_t at = round_down(start, region_bytes); at < end; at += region_bytes)
		extent->touched |= UINT64_C(1) << ((at - base) / region_bytes);
	/* One that was about to leave stays: what its departure claimed is no longer true. */
	if (extent->state == EXTENT_LEAVING)
		extent->state = EXTENT_ACTIVE;
	list_remove(&extent->lru_node);
	list_append(&journal->lru, &extent->lru_node);
}

/* Is this part of one extent free to be written?  Asks for the extent when it is not. */
static bool journal_admit_part(struct journal *journal, uint64_t start, uint64_t end)
{
	uint32_t index = (uint32_t)(start / journal->identity.extent_bytes);
	struct extent *extent = journal_extent_find(journal, index);

	if (extent && (extent->state == EXTENT_ACTIVE || extent->state == EXTENT_LEAVING))
		return true;
	if (!dirty_bitmap_any_clean(journal->persisted, start, end - start))
		return true;
	if (extent)
		return false;
	if (extent_take(journal, index)) {
		journal->log_changed = true;
		journal_log_look(journal);
	} else {
		journal_make_room(journal);
	}
	return false;
}

static uint64_t part_end(const struct journal *journal, uint64_t at, uint64_t end)
{
	uint32_t extent_bytes = journal->identity.extent_bytes;

	return MIN(round_down(at, extent_bytes) + extent_bytes, end);
}

void journal_touch(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t end = offset_bytes + len_bytes;

	if (journal->step != CHECKPOINT_IDLE)
		dirty_bitmap_set(journal->touched, offset_bytes, len_bytes);
	if (!journal->extent_used)
		return;
	for (uint64_t at = offset_bytes; at < end; at = part_end(journal, at, end)) {
		uint32_t index = (uint32_t)(at / journal->identity.extent_bytes);
		struct extent *extent = journal_extent_find(journal, index);

		if (extent)
			extent_touch(journal, extent, at, part_end(journal, at, end));
	}
}

/* A request over so much of the log that it might never fit: its regions are marked instead. */
static bool journal_admit_wide(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (!dirty_bitmap_any_clean(journal->persisted, offset_bytes, len_bytes))
		return true;
	dirty_bitmap_set(journal->marking, offset_bytes, len_bytes);
	journal_map_changed(journal, offset_bytes, len_bytes);
	journal_map_write(journal);
	return false;
}

static bool journal_is_wide(const struct journal *journal, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	uint64_t first = offset_bytes / journal->identity.extent_bytes;
	uint64_t last = (offset_bytes + len_bytes - 1) / journal->identity.extent_bytes;

	return last - first >= MAX(journal->extent_max / 4, 1u);
}

bool journal_admit(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes,
		   struct journal_wait *wait)
{
	uint64_t end = offset_bytes + len_bytes;
	bool admitted = true;

	LOOP_CHECK(journal->loop);
	if (journal_is_wide(journal, offset_bytes, len_bytes)) {
		admitted = journal_admit_wide(journal, offset_bytes, len_bytes);
		if (admitted)
			journal_touch(journal, offset_bytes, len_bytes);
		else
			list_append(&journal->waiting, &wait->node);
		return admitted;
	}
	/* Ask for every extent that is missing: one log write for all. */
	for (uint64_t at = offset_bytes; at < end; at = part_end(journal, at, end))
		admitted &= journal_admit_part(journal, at, part_end(journal, at, end));
	if (admitted)
		journal_touch(journal, offset_bytes, len_bytes);
	else
		list_append(&journal->waiting, &wait->node);
	return admitted;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/journal/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

/* ---- geometry ---- */

static uint32_t identity_extent_bytes(const struct journal_identity *identity)
{
	uint32_t bytes = identity->extent_bytes ? identity->extent_bytes : JOURNAL_EXTENT_BYTES;

	return MAX(bytes, identity->region_bytes);
}

static uint64_t identity_regions(const struct journal_identity *identity)
{
	return div_round_up(identity->size_bytes, identity->region_bytes);
}

uint64_t journal_device_bytes(const struct journal_identity *identity)
{
	uint64_t map_sectors = journal_map_sectors(identity_regions(identity));

	return JOURNAL_MAP_SECTOR * (uint64_t)JOURNAL_SECTOR_BYTES +
	       round_up(map_sectors * JOURNAL_SECTOR_BYTES, JOURNAL_BLOCK_BYTES);
}

uint32_t journal_extents_max(const struct journal_identity *identity)
{
	uint64_t extents = div_round_up(identity->size_bytes, identity_extent_bytes(identity));

	if (identity->log_extents)
		return identity->log_extents;
	return (uint32_t)MAX(MIN(extents / 20, (uint64_t)JOURNAL_EXTENTS_MAX), UINT64_C(1));
}

/* ---- facts ---- */

void journal_stats(const struct journal *journal, struct journal_stats *out)
{
	*out = journal->stats;
	out->dirty_bytes = dirty_bitmap_bytes(journal->persisted);
	out->active_bytes = (uint64_t)journal->extent_used * journal->identity.extent_bytes;
}

const struct journal_identity *journal_identity(const struct journal *journal)
{
	return &journal->identity;
}

const struct dirty_bitmap *journal_persisted(const struct journal *journal)
{
	return journal->persisted;
}

bool journal_is_dirty(const struct journal *journal, uint64_t offset_bytes)
{
	return dirty_bitmap_test(journal->persisted, offset_bytes) ||
	       journal_extent_find((struct journal *)journal,
				   (uint32_t)(offset_bytes / journal->identity.extent_bytes));
}

bool journal_is_idle(const struct journal *journal)
{
	return !journal->log_in_flight && !journal->map_in_flight &&
	       journal->step == CHECKPOINT_IDLE && !journal->wake.queued &&
	       list_is_empty(&journal->waiting);
}

void journal_fail(struct journal *journal, int error)
{
	if (journal->stats.error)
		return;
	journal->stats.error = error;
	log_error("journal", "cannot write the journal of move '%s': %s",
		  journal->identity.journal_id, err_strerror(error));
}

/* ---- life ---- */

static void journal_woken(struct task *task)
{
	struct journal *journal = container_of(task, struct journal, wake);
	struct list waking;
	struct list *node;

	list_init(&waking);
	list_splice(&waking, &journal->waiting);
	while ((node = list_pop(&waking))) {
		struct journal_wait *wait = list_entry(node, struct journal_wait, node);

		wait->ready(wait);
	}
	journal_extents_settle(journal);
	journal_settled(journal);
}

void journal_free(struct journal *journal)
{
	if (!journal)
		return;
	CHECK(journal_is_idle(journal));
	turn_hook_cancel(&journal->log_hook);
	dirty_bitmap_free(journal->persisted);
	dirty_bitmap_free(journal->marking);
	dirty_bitmap_free(journal->touched);
	dirty_bitmap_free(journal->clearing);
	dirty_bitmap_free(journal->dirty_then);
	free(journal->extents);
	free(journal->map_dirty);
	free(journal->log_block);
	free(journal->map_blocks);
	free(journal);
}

void journal_settled(struct journal *journal)
{
	if (journal->closed && journal_is_idle(journal) && !journal->close_task.queued)
		loop_post(journal->loop, &journal->close_task);
}

static void journal_closed(struct task *task)
{
	struct journal *journal = container_of(task, struct journal, close_task);
	void (*closed)(void *user) = journal->closed;
	void *user = journal->closed_user;

	/* The log write of this turn's end may have come between. */
	if (!journal_is_idle(journal))
		return;
	journal_free(journal);
	closed(user);
}

void journal_close(struct journal *journal, void (*closed)(void *user), void *user)
{
	LOOP_CHECK(journal->loop);
	CHECK(!journal->closed);
	CHECK(list_is_empty(&journal->waiting));
	journal->closed = closed;
	journal->closed_user = user;
	journal->close_task.run = journal_closed;
	turn_hook_cancel(&journal->log_hook);
	journal_settled(journal);
}

static void journal_init_lists(struct journal *journal)
{
	list_init(&journal->free_extents);
	list_init(&journal->lru);
	list_init(&journal->waiting);
	for (size_t i = 0; i < JOURNAL_HASH_BUCKETS; i++)
		list_init(&journal->buckets[i]);
	turn_hook_init(&journal->log_hook, journal_log_hook);
	journal->wake.run = journal_woken;
}

static bool journal_allocate(struct journal *journal)
{
	const struct journal_identity *identity = &journal->identity;

	journal->persisted = dirty_bitmap_new(identity->size_bytes, identity->region_bytes);
	journal->marking = dirty_bitmap_new(identity->size_bytes, identity->region_bytes);
	journal->touched = dirty_bitmap_new(identity->size_bytes, identity->region_bytes);
	journal->clearing = dirty_bitmap_new(identity->size_bytes, identity->region_bytes);
	journal->dirty_then = dirty_bitmap_new(identity->size_bytes, identity->region_bytes);
	journal->extents = calloc(journal->extent_max, sizeof(*journal->extents));
	journal->map_dirty = calloc(journal->map_block_count, 1);
	journal->log_block = aligned_alloc(JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_BYTES);
	journal->map_blocks = aligned_alloc(JOURNAL_BLOCK_BYTES,
					    JOURNAL_MAP_BATCH * JOURNAL_BLOCK_BYTES);
	return journal->persisted && journal->marking && journal->touched && journal->clearing &&
	       journal->dirty_then && journal->extents &&
	       journal->map_dirty && journal->log_block && journal->map_blocks;
}

struct journal *journal_new(struct blk_dev *dev, const struct journal_identity *identity)
{
	struct journal *journal = calloc(1, sizeof(*journal));

	if (!journal)
		return NULL;
	CHECK(dev->size_bytes >= journal_device_bytes(identity));
	journal->dev = dev;
	journal->loop = dev->loop;
	journal->identity = *identity;
	journal->identity.extent_bytes = identity_extent_bytes(identity);
	journal->region_count = identity_regions(identity);
	journal->regions_per_extent = journal->identity.extent_bytes / identity->region_bytes;
	CHECK(journal->regions_per_extent <= 64);
	journal->map_block_count = div_round_up(journal_map_sectors(journal->region_count),
						JOURNAL_BLOCK_SECTORS);
	journal->extent_max = journal_extents_max(&journal->identity);
	CHECK(journal->extent_max <= JOURNAL_LOG_EXTENTS * JOURNAL_LOG_SLOT_SECTORS);
	journal_init_lists(journal);
	if (!journal_allocate(journal)) {
		journal_free(journal);
		return NULL;
	}
	for (uint32_t i = 0; i < journal->extent_max; i++) {
		list_init(&journal->extents[i].bucket_node);
		list_append(&journal->free_extents, &journal->extents[i].lru_node);
	}
	dirty_bitmap_set_all(journal->persisted);
	return journal;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_checkpoint.c - clearing persisted bits, and letting extents go clean (R-J1).
 *
 *   1 snapshot   what is dirty on disk and clean in memory is to be cleared; from now on
 *                every write is noted, those in flight too
 *   2 flush      both legs; begun after the snapshot, so it covers what the snapshot saw
 *   3 judge      untouched and still clean: cleared in memory's picture of the disk, so that
 *                the next write there asks for its extent (R-J2); untouched extents leave,
 *                and what of them was dirty at 1, or is now, is marked
 *   4 map        written durably
 *   5 leave      only now do extents leave the log
 *
 * Between 3 and 4 the picture says clear while the disk may still say dirty: the safe side.
 */
#include <errno.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

void journal_checkpoint(struct journal *journal, const struct journal_checkpoint_ops *ops,
			void *user)
{
	LOOP_CHECK(journal->loop);
	CHECK(journal->step == CHECKPOINT_IDLE);
	journal->ops = ops;
	journal->ops_user = user;
	journal->step = CHECKPOINT_FLUSHING;
	dirty_bitmap_clear_all(journal->touched);
	dirty_bitmap_clear_all(journal->clearing);
	dirty_bitmap_merge(journal->clearing, journal->persisted);
	dirty_bitmap_subtract(journal->clearing, ops->dirty);
	dirty_bitmap_clear_all(journal->dirty_then);
	dirty_bitmap_merge(journal->dirty_then, ops->dirty);
	ops->touch_in_flight(user);
	ops->flush_both(user);
}

bool journal_in_checkpoint(const struct journal *journal)
{
	return journal->step != CHECKPOINT_IDLE;
}

static void checkpoint_end(struct journal *journal, int result)
{
	const struct journal_checkpoint_ops *ops = journal->ops;

	journal->step = CHECKPOINT_IDLE;
	journal->ops = NULL;
	journal->stats.checkpoints += result == 0;
	ops->done(result, journal->ops_user);
}

/* Every run of the set has changed on the map. */
static void checkpoint_mark(struct journal *journal, const struct dirty_bitmap *set)
{
	uint64_t at = 0, offset, len;

	while (dirty_bitmap_find(set, at, UINT64_MAX, &offset, &len)) {
		journal_map_changed(journal, offset, len);
		at = offset + len;
	}
}

/*
 * An extent that nobody has touched since the snapshot: its regions that were clean then, and still
 * are, were flushed.  What the copier has cleaned since was perhaps written after the flush had
 * begun: it is dirty on disk until the next checkpoint.
 */
static void checkpoint_extent(struct journal *journal, struct extent *extent)
{
	uint64_t start = (uint64_t)extent->index * journal->identity.extent_bytes;
	uint64_t end = MIN(start + journal->identity.extent_bytes, journal->identity.size_bytes);
	uint64_t region_bytes = journal->identity.region_bytes;

	if (extent->state != EXTENT_ACTIVE ||
	    dirty_bitmap_any_dirty(journal->touched, start, end - start))
		return;
	for (uint64_t at = start; at < end; at += region_bytes) {
		uint64_t len = MIN(region_bytes, end - at);

		if (!dirty_bitmap_test(journal->ops->dirty, at) &&
		    !dirty_bitmap_test(journal->dirty_then, at))
			continue;
		dirty_bitmap_set(journal->persisted, at, len);
		journal_map_changed(journal, at, len);
	}
	extent->state = EXTENT_LEAVING;
}

void journal_flushed(struct journal *journal, int result)
{
	LOOP_CHECK(journal->loop);
	CHECK(journal->step == CHECKPOINT_FLUSHING);
	if (result || journal->stats.error) {
		checkpoint_end(journal, result ? result : journal->stats.error);
		return;
	}
	/* A request that waits to be marked dirty there will write as soon as it is. */
	dirty_bitmap_subtract(journal->clearing, journal->marking);
	dirty_bitmap_subtract(journal->clearing, journal->touched);
	dirty_bitmap_subtract(journal->clearing, journal->ops->dirty);
	dirty_bitmap_subtract(journal->persisted, journal->clearing);
	checkpoint_mark(journal, journal->clearing);
	list_for_each(node, &journal->lru)
		checkpoint_extent(journal, list_entry(node, struct extent, lru_node));
	journal->step = CHECKPOINT_MAPPING;
	journal_map_write(journal);
}

void journal_map_durable(struct journal *journal, int result)
{
	if (!result) {
		journal->log_blocked = false;
		dirty_bitmap_merge(journal->persisted, journal->marking);
		dirty_bitmap_clear_all(journal->marking);
		journal_extents_leave(journal);
		journal_log_look(journal);
	}
	if (journal->step == CHECKPOINT_MAPPING)
		checkpoint_end(journal, result);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror_flush.c - flushing the target, and remembering what a failed flush leaves in doubt (R9).
 *
 * Regions go to `unflushed` when a write has settled on the target.  A flush takes them all
 * to `flushing`; success forgets them, failure makes them dirty: a retried fsync that
 * succeeds proves nothing about pages that were dropped.  One flush is in flight at a time;
 * who asks meanwhile shares the next one.
 */
#include "blkmirror/base/log.h"
#include "blkmirror/mirror/mirror_private.h"

static void mirror_flush_start(struct mirror *mirror);

/*
 * R-J1: what is copied again for this is written after the flush of a checkpoint under way has
 * begun; that flush may not make it clean.
 */
static void mirror_flush_touch(struct mirror *mirror, const struct dirty_bitmap *doubted)
{
	uint64_t at_bytes = 0, offset_bytes, len_bytes;

	while (mirror->journal &&
	       dirty_bitmap_find(doubted, at_bytes, UINT64_MAX, &offset_bytes, &len_bytes)) {
		journal_touch(mirror->journal, offset_bytes, len_bytes);
		at_bytes = offset_bytes + len_bytes;
	}
}

/*
 * Everything written since the last good flush, what settled while this one was under way and
 * what is in flight included: the store may have dropped it and forgotten that it did.
 */
static void mirror_flush_doubt(struct mirror *mirror)
{
	dirty_bitmap_merge(mirror->dirty, mirror->flushing);
	dirty_bitmap_merge(mirror->dirty, mirror->unflushed);
	mirror_flush_touch(mirror, mirror->flushing);
	mirror_flush_touch(mirror, mirror->unflushed);
	mirror_legs_doubt(mirror);
	mirror_windows_doubt(mirror);
	mirror->hooks.dirtied(mirror->user);
}

static void mirror_flush_finish(struct mirror *mirror, int result)
{
	struct list done;
	struct list *node;

	mirror->flush_in_flight = false;
	if (result) {
		log_debug("mirror", "flushing the target failed: %d", result);
		mirror_flush_doubt(mirror);
	}
	dirty_bitmap_clear_all(mirror->flushing);
	list_init(&done);
	list_splice(&done, &mirror->flush_now);
	if (!list_is_empty(&mirror->flush_next))
		mirror_flush_start(mirror);
	while ((node = list_pop(&done))) {
		struct mirror_flush *flush = list_entry(node, struct mirror_flush, node);

		flush->done(flush, result);
	}
	if (result)
		mirror->hooks.trouble(result, mirror->user);
	mirror->hooks.settled(mirror->user);
}

static void mirror_flush_done(struct blk_req *req)
{
	mirror_flush_finish(container_of(req, struct mirror, flush_req), req->result);
}

static void mirror_flush_start(struct mirror *mirror)
{
	CHECK(!mirror->flush_in_flight);
	timer_stop(&mirror->flush_timer);
	list_splice(&mirror->flush_now, &mirror->flush_next);
	dirty_bitmap_swap(mirror->unflushed, mirror->flushing);
	mirror->flush_in_flight = true;
	mirror->flush_req = (struct blk_req){ .op = BLK_FLUSH, .done = mirror_flush_done };
	blk_submit(mirror->target, &mirror->flush_req);
}

void mirror_flush_target(struct mirror *mirror, struct mirror_flush *flush)
{
	LOOP_CHECK(mirror->dev.loop);
	list_append(&mirror->flush_next, &flush->node);
	if (!mirror->flush_in_flight)
		mirror_flush_start(mirror);
}

bool mirror_needs_flush(const struct mirror *mirror)
{
	return mirror->flush_in_flight || !dirty_bitmap_is_clean(mirror->unflushed);
}

void mirror_flush_timer_fired(struct timer *timer)
{
	struct mirror *mirror = container_of(timer, struct mirror, flush_timer);

	if (mirror->state == MIRROR_ACTIVE && !mirror->flush_in_flight &&
	    !dirty_bitmap_is_clean(mirror->unflushed))
		mirror_flush_start(mirror);
}

void mirror_flush_soon(struct mirror *mirror)
{
	if (!mirror->flush_timer.started && !mirror->flush_in_flight)
		timer_start(&mirror->flush_timer, MIRROR_FLUSH_DELAY_NS);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/mirror.h"

#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/mirror_private.h"

/* ---- the device behind the gate ---- */

/* Reads, flushes and extents need no op: hand the guest's request on as it is. */
static void mirror_forward(struct mirror *mirror, struct blk_req *req)
{
	mirror->dev.in_flight--;
	blk_submit(mirror->primary, req);
}

static void mirror_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct mirror *mirror = container_of(dev, struct mirror, dev);

	if (blk_op_writes(req->op)) {
		mirror_write_submit(mirror, req);
		return;
	}
	/* R9: the guest's flush waits for the primary only; the target's follows by itself. */
	if (req->op == BLK_FLUSH && mirror->state == MIRROR_ACTIVE)
		mirror_flush_soon(mirror);
	mirror_forward(mirror, req);
}

static void mirror_dev_close(struct blk_dev *dev)
{
	mirror_free(container_of(dev, struct mirror, dev));
}

static const struct blk_ops mirror_ops = {
	.name = "mirror",
	.submit = mirror_submit,
	.close = mirror_dev_close,
};

struct blk_dev *mirror_as_dev(struct mirror *mirror)
{
	return &mirror->dev;
}

/* ---- state ---- */

static void mirror_move_state(struct mirror *mirror, enum mirror_event event)
{
	enum mirror_state next = mirror_next_state(mirror->state, event);

	if (next == mirror->state)
		return;
	log_debug("mirror", "%s -> %s", mirror_state_name(mirror->state), mirror_state_name(next));
	mirror->state = next;
}

void mirror_suspend(struct mirror *mirror)
{
	LOOP_CHECK(mirror->dev.loop);
	mirror_move_state(mirror, MIRROR_EV_SUSPEND);
	if (mirror->state == MIRROR_SUSPENDED)
		mirror_legs_cut(mirror);
}

void mirror_copy_only(struct mirror *mirror)
{
	LOOP_CHECK(mirror->dev.loop);
	mirror_move_state(mirror, MIRROR_EV_COPY_ONLY);
	if (mirror->state == MIRROR_COPY_ONLY)
		mirror_legs_cut(mirror);
}

void mirror_resume(struct mirror *mirror)
{
	LOOP_CHECK(mirror->dev.loop);
	mirror_move_state(mirror, MIRROR_EV_RESUME);
}

void mirror_retire(struct mirror *mirror)
{
	LOOP_CHECK(mirror->dev.loop);
	mirror_move_state(mirror, MIRROR_EV_RETIRE);
	timer_stop(&mirror->flush_timer);
	if (mirror->state == MIRROR_RETIRED)
		mirror_legs_cut(mirror);
}

void mirror_switch(struct mirror *mirror)
{
	LOOP_CHECK(mirror->dev.loop);
	CHECK(mirror->state == MIRROR_ACTIVE);
	CHECK(mirror_is_settled(mirror));
	CHECK(mirror->ops_in_use == 0);
	CHECK(dirty_bitmap_is_clean(mirror->dirty));
	mirror_move_state(mirror, MIRROR_EV_SWITCH);
	mirror->primary = mirror->target;
	timer_stop(&mirror->flush_timer);
}

enum mirror_state mirror_state(const struct mirror *mirror)
{
	return mirror->state;
}

void mirror_set_mode(struct mirror *mirror, enum mirror_mode mode)
{
	mirror->mode = mode;
}

bool mirror_is_settled(struct mirror *mirror)
{
	return range_lock_is_empty(&mirror->target_lock);
}

bool mirror_is_idle(struct mirror *mirror)
{
	return mirror_is_settled(mirror) && mirror->ops_in_use == 0 &&
	       mirror->legs_in_use == 0 && list_is_empty(&mirror->windows) &&
	       !mirror->flush_in_flight && list_is_empty(&mirror->outside);
}

/* ---- dirt ---- */

void mirror_set_dirty(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	if (mirror->state == MIRROR_SWITCHED || mirror->state == MIRROR_RETIRED)
		return;
	dirty_bitmap_set(mirror->dirty, offset_bytes, len_bytes);
	mirror->hooks.dirtied(mirror->user);
}

struct dirty_bitmap *mirror_dirty(struct mirror *mirror)
{
	return mirror->dirty;
}

void mirror_target_written(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	dirty_bitmap_set(mirror->written, offset_bytes, len_bytes);
	dirty_bitmap_set(mirror->unflushed, offset_bytes, len_bytes);
}

bool mirror_target_untouched(const struct mirror *mirror, uint64_t offset_bytes,
			     uint64_t len_bytes)
{
	return !dirty_bitmap_any_dirty(mirror->written, offset_bytes, len_bytes);
}

void mirror_target_is_old(struct mirror *mirror)
{
	dirty_bitmap_set_all(mirror->written);
}

/* ---- the journal ---- */

void mirror_set_journal(struct mirror *mirror, struct journal *journal)
{
	mirror->journal = journal;
}

void mirror_resume_from(struct mirror *mirror, const struct dirty_bitmap *dirty)
{
	dirty_bitmap_clear_all(mirror->dirty);
	dirty_bitmap_merge(mirror->dirty, dirty);
	mirror_target_is_old(mirror);
}

struct in_flight_visit {
	struct mirror *mirror;
	void (*visit)(uint64_t offset_bytes, uint64_t len_bytes, void *user);
	void *user;
};

static bool visit_range(struct range *range, void *user)
{
	const struct in_flight_visit *visit = user;
	uint64_t end_bytes = MIN(range->end_bytes, visit->mirror->dev.size_bytes);

	if (range->start_bytes < end_bytes)
		visit->visit(range->start_bytes, end_bytes - range->start_bytes, visit->user);
	return true;
}

void mirror_visit_in_flight(struct mirror *mirror,
			    void (*visit)(uint64_t offset_bytes, uint64_t len_bytes, void *user),
			    void *user)
{
	struct in_flight_visit all = { .mirror = mirror, .visit = visit, .user = user };
	uint64_t end_bytes = round_up(mirror->dev.size_bytes, mirror->align_bytes);

	range_lock_visit(&mirror->guest_lock, 0, end_bytes, visit_range, &all);
	range_lock_visit(&mirror->target_lock, 0, end_bytes, visit_range, &all);
}

/* ---- facts ---- */

void mirror_stats(const struct mirror *mirror, struct mirror_stats *out)
{
	*out = mirror->stats;
}

uint32_t mirror_waiting_ops(const struct mirror *mirror, uint64_t *waited_sum_ns)
{
	uint64_t now_ns = loop_now_ns(mirror->dev.loop);
	uint32_t count = 0;

	*waited_sum_ns = 0;
	list_for_each(node, (struct list *)&mirror->started) {
		const struct mirror_op *op = list_entry(node, struct mirror_op, node);

		if (op->primary_pending || !op->legs_waited)
			continue;
		count++;
		*waited_sum_ns += now_ns - op->primary_done_ns;
	}
	return count;
}

struct blk_dev *mirror_source(struct mirror *mirror)
{
	return mirror->source;
}

struct blk_dev *mirror_target(struct mirror *mirror)
{
	return mirror->target;
}

uint32_t mirror_region_bytes(const struct mirror *mirror)
{
	return mirror->region_bytes;
}

uint64_t mirror_size_bytes(const struct mirror *mirror)
{
	return mirror->dev.size_bytes;
}

/* ---- life ---- */

static void mirror_init_lists(struct mirror *mirror)
{
	range_lock_init(&mirror->guest_lock);
	range_lock_init(&mirror->target_lock);
	list_init(&mirror->started);
	list_init(&mirror->outside);
	list_init(&mirror->free_ops);
	list_init(&mirror->legs);
	list_init(&mirror->free_legs);
	list_init(&mirror->windows);
	list_init(&mirror->flush_now);
	list_init(&mirror->flush_next);
}

static void mirror_free_bitmaps(struct mirror *mirror)
{
	dirty_bitmap_free(mirror->dirty);
	dirty_bitmap_free(mirror->written);
	dirty_bitmap_free(mirror->unflushed);
	dirty_bitmap_free(mirror->flushing);
}

static int mirror_new_bitmaps(struct mirror *mirror, uint64_t size_bytes)
{
	struct dirty_bitmap **const bitmaps[] = { &mirror->dirty, &mirror->written,
						  &mirror->unflushed, &mirror->flushing };

	for (size_t i = 0; i < ARRAY_COUNT(bitmaps); i++) {
		*bitmaps[i] = dirty_bitmap_new(size_bytes, mirror->region_bytes);
		if (!*bitmaps[i])
			return -ENOMEM;
	}
	dirty_bitmap_set_all(mirror->dirty);
	return 0;
}

int mirror_new(struct loop *loop, struct buf_pool *pool, struct blk_dev *source,
	       struct blk_dev *target, uint64_t size_bytes, const struct mirror_options *options,
	       const struct mirror_hooks *hooks, void *user, struct mirror **out)
{
	struct mirror *mirror = calloc(1, sizeof(*mirror));

	if (!mirror)
		return -ENOMEM;
	CHECK(size_bytes <= source->size_bytes);
	CHECK(size_bytes <= target->size_bytes);
	CHECK(source->limits.block_bytes >= target->limits.block_bytes);
	blk_dev_init(&mirror->dev, &mirror_ops, loop, size_bytes, &source->limits);
	mirror->pool = pool;
	mirror->source = source;
	mirror->primary = source;
	mirror->target = target;
	mirror->state = MIRROR_ACTIVE;
	mirror->mode = options->mode;
	mirror->region_bytes = options->region_bytes;
	mirror->align_bytes = MAX(source->limits.physical_bytes, target->limits.physical_bytes);
	CHECK(mirror->region_bytes % mirror->align_bytes == 0);
	mirror->leg_deadline_ns = options->leg_deadline_ns;
	mirror->async_buffer_bytes = options->async_buffer_bytes;
	mirror->hooks = *hooks;
	mirror->user = user;
	mirror_init_lists(mirror);
	timer_init(&mirror->deadline, loop, mirror_leg_deadline_fired);
	timer_init(&mirror->flush_timer, loop, mirror_flush_timer_fired);
	if (mirror_new_bitmaps(mirror, size_bytes)) {
		mirror_free_bitmaps(mirror);
		free(mirror);
		return -ENOMEM;
	}
	*out = mirror;
	return 0;
}

void mirror_free(struct mirror *mirror)
{
	if (!mirror)
		return;
	CHECK(mirror_is_idle(mirror));
	timer_stop(&mirror->deadline);
	timer_stop(&mirror->flush_timer);
	mirror_ops_release(mirror);
	mirror_legs_release(mirror);
	mirror_free_bitmaps(mirror);
	free(mirror);
}

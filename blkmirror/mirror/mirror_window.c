/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror_window.c - copy windows: how the copier and the guest share a region (R1, R4).
 *
 *   guest   ......W(start)...........W(done)
 *   copier  [open, read ............ write, settled, clear?]      W broke it: no clear
 *
 *   guest   ......W(start, source leg)....... (target leg) W(done)
 *   copier  [DUAL: read ... write, settled, clear]^ the leg waits for the copier's range
 *
 * A window's range is in the target lock from opening to closing, so a leg that must come
 * after the copier's write just queues there.
 */
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/mirror_private.h"

/* ---- regions of a window ---- */

static uint64_t window_region(const struct mirror *mirror, const struct window *window,
			      uint64_t offset_bytes)
{
	CHECK(offset_bytes >= window->offset_bytes);
	CHECK(offset_bytes < window->offset_bytes + window->len_bytes);
	return (offset_bytes - window->offset_bytes) / mirror->region_bytes;
}

static bool bit_test(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> (bit % 64) & 1;
}

static void bit_set(uint64_t *words, uint64_t bit)
{
	words[bit / 64] |= UINT64_C(1) << (bit % 64);
}

bool window_is_broken(const struct mirror *mirror, const struct window *window,
		      uint64_t offset_bytes)
{
	return bit_test(window->broken, window_region(mirror, window, offset_bytes));
}

bool window_is_touched(const struct mirror *mirror, const struct window *window,
		       uint64_t offset_bytes)
{
	return bit_test(window->touched, window_region(mirror, window, offset_bytes));
}

/* Mark the regions that the range and the window share; counts the newly broken. */
static void window_mark(struct mirror *mirror, struct window *window, uint64_t offset_bytes,
			uint64_t len_bytes, bool breaks)
{
	uint64_t start = MAX(offset_bytes, window->offset_bytes);
	uint64_t end = MIN(offset_bytes + len_bytes, window->offset_bytes + window->len_bytes);

	if (start >= end)
		return;
	for (uint64_t region = window_region(mirror, window, start),
		      last = window_region(mirror, window, end - 1);
	     region <= last; region++) {
		bit_set(window->touched, region);
		if (breaks && !bit_test(window->broken, region)) {
			bit_set(window->broken, region);
			mirror->stats.broken_regions++;
		}
	}
}

/* ---- the guest's side ---- */

void mirror_windows_break(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	list_for_each(node, &mirror->windows)
		window_mark(mirror, list_entry(node, struct window, node), offset_bytes, len_bytes,
			    true);
}

void mirror_windows_follow(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	list_for_each(node, &mirror->windows) {
		struct window *window = list_entry(node, struct window, node);

		window_mark(mirror, window, offset_bytes, len_bytes, window->kind != WINDOW_DUAL);
	}
}

void mirror_windows_doubt(struct mirror *mirror)
{
	list_for_each(node, &mirror->windows) {
		struct window *window = list_entry(node, struct window, node);

		window_mark(mirror, window, window->offset_bytes, window->len_bytes, true);
	}
}

bool mirror_in_dual_window(const struct mirror *mirror, uint64_t offset_bytes)
{
	if (!mirror->dual_count)
		return false;
	list_for_each(node, &mirror->windows) {
		const struct window *window = list_entry(node, struct window, node);

		if (window->kind == WINDOW_DUAL && offset_bytes >= window->offset_bytes &&
		    offset_bytes < window->offset_bytes + window->len_bytes &&
		    !window_is_broken(mirror, window, offset_bytes))
			return true;
	}
	return false;
}

/* ---- opening ---- */

struct busy_search {
	uint64_t first_bytes;           /* of all that is busy */
};

static bool busy_guest(struct range *range, void *user)
{
	const struct mirror_op *op = container_of(range, struct mirror_op, range);
	struct busy_search *search = user;

	/* One that has not started chooses its legs later, and breaks the window then. */
	if (op->started)
		search->first_bytes = MIN(search->first_bytes, range->start_bytes);
	return true;
}

static bool busy_target(struct range *range, void *user)
{
	struct busy_search *search = user;

	search->first_bytes = MIN(search->first_bytes, range->start_bytes);
	return true;
}

/* How much of the range, from its start, no started request and no target write touches. */
static uint64_t mirror_free_len(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct busy_search search = { .first_bytes = UINT64_MAX };
	uint64_t end_bytes = round_up(offset_bytes + len_bytes, mirror->align_bytes);

	range_lock_visit(&mirror->guest_lock, offset_bytes, end_bytes, busy_guest, &search);
	range_lock_visit(&mirror->target_lock, offset_bytes, end_bytes, busy_target, &search);
	if (search.first_bytes >= offset_bytes + len_bytes)
		return len_bytes;
	if (search.first_bytes <= offset_bytes)
		return 0;
	return round_down(search.first_bytes - offset_bytes, mirror->region_bytes);
}

static void window_enter(struct mirror *mirror, struct window *window)
{
	if (window->kind == WINDOW_COPY || window->kind == WINDOW_DUAL) {
		CHECK(!dirty_bitmap_any_clean(mirror->dirty, window->offset_bytes,
					      window->len_bytes));
		window->range = (struct range){
			.start_bytes = window->offset_bytes,
			.end_bytes = round_up(window->offset_bytes + window->len_bytes,
					      mirror->align_bytes),
		};
		CHECK(range_lock_try(&mirror->target_lock, &window->range));
	}
	list_append(&mirror->windows, &window->node);
	mirror->dual_count += window->kind == WINDOW_DUAL;
}

static bool window_break_guest(struct range *range, void *user)
{
	const struct mirror_op *op = container_of(range, struct mirror_op, range);
	struct window *window = user;

	if (op->started)
		window_mark(op->mirror, window, range->start_bytes,
			    range->end_bytes - range->start_bytes, true);
	return true;
}

struct scan_break {
	struct mirror *mirror;
	struct window *window;
};

static bool window_break_target(struct range *range, void *user)
{
	struct scan_break *scan = user;

	window_mark(scan->mirror, scan->window, range->start_bytes,
		    range->end_bytes - range->start_bytes, true);
	return true;
}

/* A scan covers all; what is busy is broken from the start (R1, and R2 for unsettled legs). */
static void window_open_scan(struct mirror *mirror, struct window *window)
{
	struct scan_break scan = { .mirror = mirror, .window = window };
	uint64_t end_bytes = window->offset_bytes + window->len_bytes;

	window_enter(mirror, window);
	range_lock_visit(&mirror->guest_lock, window->offset_bytes, end_bytes, window_break_guest,
			 window);
	range_lock_visit(&mirror->target_lock, window->offset_bytes, end_bytes,
			 window_break_target, &scan);
}

/* R4: what is in flight at the source only gets a target leg too, behind the window's range. */
struct dual_search {
	struct window *window;
	bool possible;
};

static bool dual_possible(struct range *range, void *user)
{
	const struct mirror_op *op = container_of(range, struct mirror_op, range);
	struct dual_search *search = user;

	/* Its data must still be ours to send; a leg of it here would not be behind us. */
	if (op->started && op->guest->op == BLK_WRITE && !op->data &&
	    !((op->guest->flags & BLK_STABLE) && op->guest->data && op->guest->iov_count == 1))
		search->possible = false;
	return search->possible;
}

static bool dual_follow(struct range *range, void *user)
{
	struct mirror_op *op = container_of(range, struct mirror_op, range);
	struct dual_search *search = user;
	struct window *window = search->window;
	struct mirror *mirror = op->mirror;
	const struct blk_req *guest = op->guest;
	uint64_t start, end;

	if (!op->started)
		return true;
	start = MAX(guest->offset_bytes, window->offset_bytes);
	end = MIN(guest->offset_bytes + guest->len_bytes, window->offset_bytes + window->len_bytes);
	if (start >= end)               /* only the rounded range touches */
		return true;
	if (guest->op == BLK_WRITE && !op->data) {
		op->data = buf_ref(guest->data);
		op->bytes = guest->iov[0].iov_base;
	}
	if (mirror_leg_add(op, start, end - start)) {
		window_mark(mirror, window, start, end - start, false);
		mirror_legs_start(op);
	} else {
		window_mark(mirror, window, start, end - start, true);
	}
	return true;
}

static bool window_open_dual(struct mirror *mirror, struct window *window)
{
	struct dual_search search = { .window = window, .possible = true };
	uint64_t end_bytes = round_up(window->offset_bytes + window->len_bytes,
				      mirror->align_bytes);

	CHECK(window->len_bytes <= mirror->region_bytes);
	if (range_lock_overlaps(&mirror->target_lock, window->offset_bytes, end_bytes))
		return false;
	range_lock_visit(&mirror->guest_lock, window->offset_bytes, end_bytes, dual_possible,
			 &search);
	if (!search.possible) {
		mirror->hold_data_until_ns = loop_now_ns(mirror->dev.loop) + MIRROR_HOLD_DATA_NS;
		return false;
	}
	window_enter(mirror, window);
	/* The range is ours now: the legs that join here queue behind it. */
	range_lock_visit(&mirror->guest_lock, window->offset_bytes, end_bytes, dual_follow,
			 &search);
	return true;
}

static bool mirror_window_allowed(const struct mirror *mirror, enum window_kind kind)
{
	return mirror->state == MIRROR_ACTIVE ||
	       (mirror->state == MIRROR_COPY_ONLY && kind != WINDOW_DUAL) ||
	       (mirror->state == MIRROR_SWITCHED && kind == WINDOW_VERIFY);
}

/* Verification judges clean regions only. */
static uint64_t mirror_clean_len(const struct mirror *mirror, uint64_t offset_bytes,
				 uint64_t len_bytes)
{
	uint64_t dirty_bytes, dirty_len;

	if (!dirty_bitmap_find(mirror->dirty, offset_bytes, mirror->region_bytes, &dirty_bytes,
			       &dirty_len) || dirty_bytes >= offset_bytes + len_bytes)
		return len_bytes;
	return dirty_bytes - offset_bytes;
}

bool mirror_window_open(struct mirror *mirror, struct window *window, enum window_kind kind,
			uint64_t offset_bytes, uint64_t len_bytes)
{
	LOOP_CHECK(mirror->dev.loop);
	CHECK(len_bytes > 0);
	CHECK(offset_bytes % mirror->region_bytes == 0);
	CHECK(range_fits(offset_bytes, len_bytes, mirror->dev.size_bytes));
	if (!mirror_window_allowed(mirror, kind))
		return false;
	len_bytes = MIN(len_bytes, (uint64_t)WINDOW_REGIONS_MAX * mirror->region_bytes);
	*window = (struct window){ .kind = kind, .offset_bytes = offset_bytes,
				   .len_bytes = len_bytes };
	if (kind == WINDOW_SCAN) {
		window_open_scan(mirror, window);
		return true;
	}
	if (kind == WINDOW_DUAL)
		return window_open_dual(mirror, window);
	window->len_bytes = mirror_free_len(mirror, offset_bytes, len_bytes);
	if (kind == WINDOW_VERIFY && window->len_bytes)
		window->len_bytes = mirror_clean_len(mirror, offset_bytes, window->len_bytes);
	if (window->len_bytes == 0)
		return false;
	window_enter(mirror, window);
	return true;
}

/* ---- closing ---- */

uint64_t mirror_window_clear(struct mirror *mirror, struct window *window, uint64_t offset_bytes,
			     uint64_t len_bytes)
{
	uint64_t end_bytes = offset_bytes + len_bytes;
	uint64_t cleared_bytes = 0;

	CHECK(window->kind != WINDOW_VERIFY);
	CHECK(offset_bytes >= window->offset_bytes);
	CHECK(end_bytes <= window->offset_bytes + window->len_bytes);
	for (uint64_t at = round_up(offset_bytes, mirror->region_bytes); at < end_bytes;
	     at += mirror->region_bytes) {
		uint64_t len = MIN((uint64_t)mirror->region_bytes, mirror->dev.size_bytes - at);

		/* R1: a broken region clears nothing. */
		if (at + len > end_bytes || window_is_broken(mirror, window, at))
			continue;
		dirty_bitmap_clear(mirror->dirty, at, len);
		cleared_bytes += len;
	}
	return cleared_bytes;
}

void mirror_window_close(struct mirror *mirror, struct window *window)
{
	list_remove(&window->node);
	mirror->dual_count -= window->kind == WINDOW_DUAL;
	if (window->kind == WINDOW_COPY || window->kind == WINDOW_DUAL)
		range_lock_release(&mirror->target_lock, &window->range);
	mirror->hooks.settled(mirror->user);
}

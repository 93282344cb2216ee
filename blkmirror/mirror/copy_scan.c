/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_scan.c - ask the source what is a hole, inside a window (R1), and clear it (R11).
 *
 * Asking early and clearing late is the classic loss: the extents say hole, the guest writes,
 * the bit is cleared without copying.  The scan window is open from before the query until
 * the clearing; what a guest request touched meanwhile is broken and is not cleared.
 */
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/copy_private.h"

/* R11: a hole needs no write where the target reads zeroes and nothing was written there. */
static bool hole_needs_no_write(struct copy_engine *engine, uint64_t offset_bytes,
				uint64_t len_bytes)
{
	struct mirror *mirror = engine->mirror;

	return mirror_target(mirror)->limits.reads_zero &&
	       mirror_target_untouched(mirror, offset_bytes, len_bytes);
}

static void scan_note_zero(struct copy_engine *engine, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct mirror *mirror = engine->mirror;
	uint32_t region_bytes = mirror_region_bytes(mirror);
	uint64_t end_bytes = offset_bytes + len_bytes;

	for (uint64_t at = offset_bytes; engine->hashes && at < end_bytes; at += region_bytes)
		if (!window_is_touched(mirror, &engine->scan_window, at))
			hash_store_put_zero(engine->hashes, at / region_bytes, 1);
}

/* The regions that a hole covers whole; its ragged ends belong to the data beside it. */
static void scan_take_hole(struct copy_engine *engine, uint64_t start_bytes, uint64_t end_bytes)
{
	struct mirror *mirror = engine->mirror;
	uint64_t before_bytes = dirty_bitmap_bytes(mirror_dirty(mirror));

	if (!hole_needs_no_write(engine, start_bytes, end_bytes - start_bytes)) {
		copy_run_push(engine, start_bytes, end_bytes - start_bytes, RUN_ZERO);
		return;
	}
	mirror_window_clear(mirror, &engine->scan_window, start_bytes, end_bytes - start_bytes);
	scan_note_zero(engine, start_bytes, end_bytes - start_bytes);
	engine->stats.hole_bytes += before_bytes - dirty_bitmap_bytes(mirror_dirty(mirror));
	engine->hooks.copied(start_bytes, end_bytes - start_bytes, engine->user);
}

/* Data from `at` on, rounded out to regions; joins a data run that ends there. */
static void scan_take_data(struct copy_engine *engine, uint64_t start_bytes, uint64_t end_bytes)
{
	if (!copy_run_join(engine, start_bytes, end_bytes))
		copy_run_push(engine, start_bytes, end_bytes - start_bytes, RUN_DATA);
}

/*
 *     extents   [data   ][hole                    ][data ]
 *     regions   |    |    |    |    |    |    |    |    |
 *     taken as  data.....|hole                |data.....
 *
 * Returns up to where the answer (and the ring) reached: a region boundary or the window's end.
 */
static uint64_t scan_take_answer(struct copy_engine *engine)
{
	const struct window *window = &engine->scan_window;
	uint32_t region_bytes = mirror_region_bytes(engine->mirror);
	uint64_t window_end = window->offset_bytes + window->len_bytes;
	uint64_t at = window->offset_bytes, taken = at;

	for (uint32_t i = 0; i < engine->scan_extents.count && copy_run_room(engine) >= 2; i++) {
		const struct blk_extent *extent = &engine->scan_runs[i];
		uint64_t end = MIN(at + extent->len_bytes, window_end);
		uint64_t start = at;

		if (extent->status != BLK_EXTENT_DATA) {
			uint64_t whole = round_up(start, region_bytes);
			uint64_t whole_end = end == window_end ? end : round_down(end, region_bytes);

			if (whole < whole_end) {
				if (taken < whole)
					scan_take_data(engine, taken, whole);
				scan_take_hole(engine, whole, whole_end);
				taken = whole_end;
			}
		}
		at = end;
	}
	/* What is left up to the answer's end is data, and parts of regions with data. */
	at = at == window_end ? at : round_down(at, region_bytes);
	if (taken < at) {
		scan_take_data(engine, taken, at);
		taken = at;
	}
	return taken;
}

static void scan_done(struct blk_req *req)
{
	struct copy_engine *engine = container_of(req, struct copy_engine, scan_req);
	struct window *window = &engine->scan_window;
	uint64_t end_bytes = window->offset_bytes + window->len_bytes;

	if (req->result) {
		/* Without an answer all of it counts as data. */
		scan_take_data(engine, window->offset_bytes, end_bytes);
	} else {
		end_bytes = scan_take_answer(engine);
		if (end_bytes == window->offset_bytes) {
			/* Extents finer than one region: it counts as data, and the walk goes on. */
			end_bytes += MIN((uint64_t)mirror_region_bytes(engine->mirror),
					 window->len_bytes);
			scan_take_data(engine, window->offset_bytes, end_bytes);
		}
	}
	engine->cursor_bytes = end_bytes;
	engine->scan_in_flight = false;
	mirror_window_close(engine->mirror, window);
	copy_engine_kick(engine);
}

bool copy_scan_start(struct copy_engine *engine, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct mirror *mirror = engine->mirror;

	CHECK(!engine->scan_in_flight);
	if (!mirror_window_open(mirror, &engine->scan_window, WINDOW_SCAN, offset_bytes, len_bytes))
		return false;
	engine->scan_in_flight = true;
	engine->scan_extents = (struct blk_extents){ .runs = engine->scan_runs,
						     .capacity = COPY_SCAN_RUNS };
	engine->scan_req = (struct blk_req){
		.op = BLK_EXTENTS, .flags = BLK_COPIER,
		.offset_bytes = engine->scan_window.offset_bytes,
		.len_bytes = round_up(engine->scan_window.len_bytes,
				      mirror_source(mirror)->limits.block_bytes),
		.extents = &engine->scan_extents, .done = scan_done,
	};
	blk_submit(mirror_source(mirror), &engine->scan_req);
	return true;
}

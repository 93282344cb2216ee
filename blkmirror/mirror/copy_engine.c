/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/copy_engine.h"

#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/copy_private.h"

/* A dirty run of so many regions is worth asking the source what of it is a hole. */
#define SCAN_WORTH_REGIONS 4u

/* ---- the ring of runs ---- */

uint32_t copy_run_room(const struct copy_engine *engine)
{
	return COPY_RUNS_MAX - engine->run_count;
}

/* With the ring full the run is dropped: its regions stay dirty and are found again. */
void copy_run_push(struct copy_engine *engine, uint64_t offset_bytes, uint64_t len_bytes,
		   enum run_kind kind)
{
	uint32_t slot = (engine->run_head + engine->run_count) % COPY_RUNS_MAX;

	if (!copy_run_room(engine))
		return;
	engine->runs[slot] = (struct copy_run){ .offset_bytes = offset_bytes,
						.len_bytes = len_bytes, .kind = kind };
	engine->run_count++;
	engine->run_bytes += len_bytes;
}

bool copy_run_join(struct copy_engine *engine, uint64_t start_bytes, uint64_t end_bytes)
{
	struct copy_run *last;
	uint64_t last_end;

	if (!engine->run_count)
		return false;
	last = &engine->runs[(engine->run_head + engine->run_count - 1) % COPY_RUNS_MAX];
	last_end = last->offset_bytes + last->len_bytes;
	if (last->kind != RUN_DATA || last->offset_bytes > start_bytes || last_end < start_bytes)
		return false;
	if (end_bytes > last_end) {
		last->len_bytes += end_bytes - last_end;
		engine->run_bytes += end_bytes - last_end;
	}
	return true;
}

/* Forget the first `by_bytes` of the first run. */
static void copy_run_advance(struct copy_engine *engine, uint64_t by_bytes)
{
	struct copy_run *run = &engine->runs[engine->run_head];

	if (by_bytes < run->len_bytes) {
		run->offset_bytes += by_bytes;
		run->len_bytes -= by_bytes;
		engine->run_bytes -= by_bytes;
		return;
	}
	engine->run_bytes -= run->len_bytes;
	engine->run_head = (engine->run_head + 1) % COPY_RUNS_MAX;
	engine->run_count--;
}

/* ---- hot regions ---- */

static struct hot_slot *hot_slot(struct copy_engine *engine, uint64_t offset_bytes)
{
	uint64_t region = offset_bytes / mirror_region_bytes(engine->mirror);
	struct hot_slot *slot = &engine->hot[(region * UINT64_C(0x9e3779b97f4a7c15) >> 32) %
					     COPY_HOT_SLOTS];

	if (slot->region != region)
		*slot = (struct hot_slot){ .region = region };
	return slot;
}

void copy_hot_count(struct copy_engine *engine, uint64_t offset_bytes)
{
	hot_slot(engine, offset_bytes)->count++;
}

static bool copy_is_hot(struct copy_engine *engine, uint64_t offset_bytes)
{
	return hot_slot(engine, offset_bytes)->count >= COPY_HOT_AFTER;
}

/* ---- C1: pick ---- */

/* What the first run still has dirty, from its start; false when nothing. */
static bool copy_next_dirty(struct copy_engine *engine, struct copy_run *out)
{
	struct dirty_bitmap *dirty = mirror_dirty(engine->mirror);

	while (engine->run_count) {
		struct copy_run *run = &engine->runs[engine->run_head];
		uint64_t end = run->offset_bytes + run->len_bytes;
		uint64_t max = MIN(run->len_bytes, copy_job_max_bytes(engine, run->kind));
		uint64_t offset, len;

		if (dirty_bitmap_find(dirty, run->offset_bytes, max, &offset, &len) &&
		    offset < end) {
			*out = (struct copy_run){ .offset_bytes = offset, .len_bytes = len,
						  .kind = run->kind };
			copy_run_advance(engine, offset - run->offset_bytes);
			return true;
		}
		copy_run_advance(engine, run->len_bytes);
	}
	return false;
}

/* Find the next dirty run and make it a run to copy, or scan it.  False: none from here on. */
static bool copy_find_more(struct copy_engine *engine)
{
	struct mirror *mirror = engine->mirror;
	uint64_t max = (uint64_t)WINDOW_REGIONS_MAX * mirror_region_bytes(mirror);
	uint64_t offset, len;

	if (!dirty_bitmap_find(mirror_dirty(mirror), engine->cursor_bytes, max, &offset, &len))
		return false;
	if (mirror_source(mirror)->limits.has_extents &&
	    (engine->first_pass || len >= SCAN_WORTH_REGIONS * mirror_region_bytes(mirror))) {
		engine->cursor_bytes = offset;
		if (!copy_scan_start(engine, offset, len))
			return false;
	} else {
		copy_run_push(engine, offset, len, RUN_DATA);
		engine->cursor_bytes = offset + len;
	}
	return true;
}

/* Look ahead while the copy has little left to do. */
static void copy_look_ahead(struct copy_engine *engine)
{
	uint64_t max = (uint64_t)COPY_AHEAD_REGIONS * mirror_region_bytes(engine->mirror);

	while (!engine->scan_in_flight && engine->run_count < COPY_RUNS_MAX / 4 &&
	       engine->run_bytes < max)
		if (!copy_find_more(engine))
			return;
}

enum copy_start { COPY_STARTED, COPY_BUSY, COPY_NOT_NOW };

/* One job from the first run. */
static enum copy_start copy_start_one(struct copy_engine *engine)
{
	struct copy_run run;
	int64_t started;

	if (!pacer_may_start(engine->pacer, pacer_job_bytes(engine->pacer)) ||
	    !copy_next_dirty(engine, &run))
		return COPY_NOT_NOW;
	started = copy_job_start(engine, &run, copy_is_hot(engine, run.offset_bytes));
	if (started == -ENOBUFS)
		return COPY_NOT_NOW;
	if (started > 0) {
		copy_run_advance(engine, (uint64_t)started);
		return COPY_STARTED;
	}
	/* Busy: later, and then, if it goes on, through a dual window. */
	copy_hot_count(engine, run.offset_bytes);
	copy_run_advance(engine, mirror_region_bytes(engine->mirror));
	return COPY_BUSY;
}

static void copy_go_on(struct copy_engine *engine)
{
	if (!engine->pump.queued)
		loop_post(engine->loop, &engine->pump);
}

/* A map full of busy regions is walked in steps: guests are served between them. */
static void copy_fill(struct copy_engine *engine)
{
	enum copy_start start = COPY_STARTED;
	uint32_t busy_count = 0;

	copy_look_ahead(engine);
	while (engine->jobs_in_flight < engine->jobs_max && start != COPY_NOT_NOW) {
		start = copy_start_one(engine);
		busy_count += start == COPY_BUSY;
		if (busy_count == COPY_BUSY_TRIES) {
			copy_go_on(engine);
			return;
		}
		copy_look_ahead(engine);
	}
}

/* Is anything dirty that no job of ours has in hand, and was there cause to look for it? */
static bool copy_may_begin_anew(const struct copy_engine *engine)
{
	return engine->again && engine->cursor_bytes && !engine->run_count &&
	       !engine->scan_in_flight &&
	       dirty_bitmap_bytes(mirror_dirty(engine->mirror)) > engine->window_bytes;
}

static bool copy_is_quiet(const struct copy_engine *engine)
{
	return engine->jobs_in_flight == 0 && !engine->scan_in_flight;
}

static void copy_pump(struct task *task)
{
	struct copy_engine *engine = container_of(task, struct copy_engine, pump);
	struct dirty_bitmap *dirty = mirror_dirty(engine->mirror);

	if (!engine->running) {
		if (copy_is_quiet(engine))
			engine->hooks.stopped(engine->user);
		return;
	}
	copy_fill(engine);
	/*
	 * The end of the disk: begin again with what is dirty once more.  Only once a kick: what
	 * is busy now is tried again when something settles, which kicks.
	 */
	if (copy_may_begin_anew(engine)) {
		engine->again = false;
		engine->cursor_bytes = 0;
		engine->first_pass = false;
		copy_fill(engine);
	}
	if (copy_is_quiet(engine) && dirty_bitmap_is_clean(dirty))
		engine->hooks.synced(engine->user);
}

void copy_engine_kick(struct copy_engine *engine)
{
	engine->again = true;
	copy_go_on(engine);
}

static void copy_buf_ready(struct buf_waiter *waiter)
{
	copy_engine_kick(container_of(waiter, struct copy_engine, buf_waiter));
}

/* ---- life ---- */

struct copy_engine *copy_engine_new(struct mirror *mirror, struct buf_pool *pool,
				    struct pacer *pacer, struct hash_store *hashes,
				    const struct copy_hooks *hooks, void *user)
{
	struct copy_engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return NULL;
	engine->copied = dirty_bitmap_new(mirror_size_bytes(mirror), mirror_region_bytes(mirror));
	if (!engine->copied) {
		free(engine);
		return NULL;
	}
	engine->mirror = mirror;
	engine->pool = pool;
	engine->pacer = pacer;
	engine->hashes = hashes;
	engine->hooks = *hooks;
	engine->user = user;
	engine->loop = mirror_as_dev(mirror)->loop;
	engine->first_pass = true;
	engine->jobs_max = COPY_JOBS_MAX;
	engine->pump.run = copy_pump;
	engine->buf_waiter.ready = copy_buf_ready;
	list_init(&engine->buf_waiter.node);
	list_init(&engine->jobs);
	list_init(&engine->free_jobs);
	return engine;
}

void copy_engine_free(struct copy_engine *engine)
{
	if (!engine)
		return;
	CHECK(copy_engine_is_stopped(engine));
	buf_wait_cancel(&engine->buf_waiter);
	copy_jobs_release(engine);
	dirty_bitmap_free(engine->copied);
	free(engine);
}

void copy_engine_start(struct copy_engine *engine)
{
	engine->running = true;
	copy_engine_kick(engine);
}

void copy_engine_set_jobs_max(struct copy_engine *engine, uint32_t jobs_max)
{
	CHECK(jobs_max <= COPY_JOBS_MAX);
	engine->jobs_max = jobs_max ? jobs_max : COPY_JOBS_MAX;
}

void copy_engine_stop(struct copy_engine *engine)
{
	if (!engine->running)
		return;
	engine->running = false;
	copy_engine_kick(engine);       /* tells when it has stopped */
}

bool copy_engine_is_stopped(const struct copy_engine *engine)
{
	return !engine->running && copy_is_quiet(engine) && !engine->pump.queued;
}

void copy_engine_stats(const struct copy_engine *engine, struct copy_stats *out)
{
	*out = engine->stats;
}

uint64_t copy_engine_oldest_write_ns(const struct copy_engine *engine)
{
	uint64_t oldest_ns = UINT64_MAX;

	list_for_each(node, &engine->jobs) {
		const struct copy_job *job = list_entry(node, struct copy_job, node);

		if (job->started_ns && job->started_ns < oldest_ns)
			oldest_ns = job->started_ns;
	}
	return oldest_ns;
}

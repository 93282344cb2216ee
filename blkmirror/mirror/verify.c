/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/verify.h"

#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define VERIFY_JOBS_MAX 16u
#define VERIFY_EXTENTS 32u
#define VERIFY_SPAN_MAX (UINT64_C(1) << 30)     /* zero regions judged by extents at once */
/*
 * What a guest writes again and again waits again and again.  After so many ways round (the
 * mover asks for no more) the next ones come at this distance: else a guest under a held
 * move would pay for reading back each of its writes, for as long as it is held.
 */
#define VERIFY_QUICK_ROUNDS 3u
#define VERIFY_ROUND_NS (5 * NS_PER_S)
#define VERIFY_BUSY_TRIES 32u                   /* regions met in vain in one turn of the loop */

struct verify_job {
	struct verifier *verifier;
	struct list node;
	struct window window;
	bool need_source;
	uint32_t pending;
	int target_result, source_result;
	uint64_t charged_bytes, charged_ns;     /* at the pacer, and when */
	uint64_t target_from_ns;        /* 0: no read of the target in flight */
	struct buf *data;               /* the target's bytes, then the source's */
	uint8_t *target_bytes, *source_bytes;
	struct iovec target_iov, source_iov;
	struct blk_req target_read, source_read;
	struct blk_extents extents;
	struct blk_extent extent_runs[VERIFY_EXTENTS];
};

struct verifier {
	struct mirror *mirror;
	struct buf_pool *pool;
	struct pacer *pacer;
	struct hash_store *hashes;
	struct verify_hooks hooks;
	void *user;
	struct loop *loop;
	bool running;
	struct dirty_bitmap *waiting;
	uint64_t cursor_bytes;
	uint64_t pass_count;            /* how often the cursor has come round */
	bool again;                     /* kicked since the walk last began anew */
	uint64_t round_from_ns;
	struct timer round;             /* the next way round may begin */
	/* The target told that it has data here: zeroes are read, not asked for again. */
	uint64_t read_from_bytes, read_to_bytes;
	bool asking;                    /* an extents answer may turn the cursor back */
	uint32_t jobs_in_flight;
	struct list jobs, free_jobs;
	struct task pump;
	struct buf_waiter buf_waiter;
	struct verify_stats stats;
};

/* ---- jobs ---- */

static struct verify_job *verify_job_get(struct verifier *verifier)
{
	struct list *node = list_pop(&verifier->free_jobs);
	struct verify_job *job = node ? list_entry(node, struct verify_job, node) :
					malloc(sizeof(*job));

	if (!job)
		return NULL;
	memset(job, 0, sizeof(*job));
	job->verifier = verifier;
	list_init(&job->node);
	return job;
}

static void verify_job_put(struct verify_job *job)
{
	buf_put(job->data);
	list_remove(&job->node);
	list_prepend(&job->verifier->free_jobs, &job->node);
}

static void verify_job_end(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;

	verifier->jobs_in_flight--;
	pacer_finished(verifier->pacer, job->charged_bytes, job->charged_ns);
	mirror_window_close(verifier->mirror, &job->window);
	verify_job_put(job);
	verifier_kick(verifier);
}

/* ---- judging ---- */

enum verdict {
	VERDICT_EQUAL,
	VERDICT_DIFFERENT,
	VERDICT_NONE,           /* the hash has been given up (the store was full): read the source */
};

static enum verdict verdict_of(bool equal)
{
	return equal ? VERDICT_EQUAL : VERDICT_DIFFERENT;
}

static enum verdict verify_region_verdict(const struct verify_job *job, uint64_t at_bytes,
					  uint64_t len_bytes)
{
	struct verifier *verifier = job->verifier;
	uint64_t in_window = at_bytes - job->window.offset_bytes;
	const uint8_t *target = job->target_bytes + in_window;
	uint64_t hash = 0;

	/* The source, where it was read, is the better witness. */
	if (job->need_source)
		return verdict_of(memcmp(target, job->source_bytes + in_window, len_bytes) == 0);
	switch (hash_store_get(verifier->hashes, at_bytes / mirror_region_bytes(verifier->mirror),
			       &hash)) {
	case HASH_ZERO:
		return verdict_of(bytes_are_zero(target, len_bytes));
	case HASH_VALUE:
		return verdict_of(hash_region(target, len_bytes) == hash);
	case HASH_UNKNOWN:
		break;
	}
	return VERDICT_NONE;
}

static void verify_region(struct verify_job *job, uint64_t at_bytes, uint64_t len_bytes)
{
	struct verifier *verifier = job->verifier;

	if (window_is_broken(verifier->mirror, &job->window, at_bytes))
		return;                 /* waits again */
	switch (verify_region_verdict(job, at_bytes, len_bytes)) {
	case VERDICT_EQUAL:
		dirty_bitmap_clear(verifier->waiting, at_bytes, len_bytes);
		verifier->stats.verified_bytes += len_bytes;
		return;
	case VERDICT_DIFFERENT:
		verifier->stats.mismatches++;
		verifier->hooks.mismatch(at_bytes, len_bytes, verifier->user);
		return;
	case VERDICT_NONE:
		return;
	}
}

static void verify_job_judge(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;
	uint32_t region_bytes = mirror_region_bytes(verifier->mirror);
	uint64_t end_bytes = job->window.offset_bytes + job->window.len_bytes;

	for (uint64_t at = job->window.offset_bytes; at < end_bytes; at += region_bytes)
		verify_region(job, at, MIN((uint64_t)region_bytes, end_bytes - at));
	verify_job_end(job);
}

static void verify_job_part_read(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;
	uint64_t offset_bytes = job->window.offset_bytes;
	bool at_source = job->source_result != 0;
	int error = at_source ? job->source_result : job->target_result;

	if (--job->pending)
		return;
	if (!error) {
		verifier->stats.read_bytes += job->window.len_bytes;
		verify_job_judge(job);
		return;
	}
	verify_job_end(job);
	verifier->hooks.failed(at_source, error, offset_bytes, verifier->user);
}

static void verify_target_read(struct blk_req *req)
{
	struct verify_job *job = container_of(req, struct verify_job, target_read);

	job->target_result = req->result;
	job->target_from_ns = 0;
	verify_job_part_read(job);
}

static void verify_source_read(struct blk_req *req)
{
	struct verify_job *job = container_of(req, struct verify_job, source_read);

	job->source_result = req->result;
	verify_job_part_read(job);
}

/* ---- zero regions by extents: the target's holes are not read ---- */

/* How much of the window, from its start, has one kind; whole regions for zeroes. */
static uint64_t verify_same_len(const struct verify_job *job, bool data)
{
	uint32_t region_bytes = mirror_region_bytes(job->verifier->mirror);
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < job->extents.count; i++) {
		if ((job->extents.runs[i].status == BLK_EXTENT_DATA) != data)
			break;
		bytes += job->extents.runs[i].len_bytes;
	}
	if (bytes >= job->window.len_bytes)
		return job->window.len_bytes;
	return data ? round_up(bytes, region_bytes) : round_down(bytes, region_bytes);
}

static void verify_extents_done(struct blk_req *req)
{
	struct verify_job *job = container_of(req, struct verify_job, target_read);
	struct verifier *verifier = job->verifier;
	uint32_t region_bytes = mirror_region_bytes(verifier->mirror);
	uint64_t start = job->window.offset_bytes;
	uint64_t zero_bytes = req->result ? 0 : verify_same_len(job, false);
	uint64_t data_bytes = req->result ? job->window.len_bytes : verify_same_len(job, true);

	job->target_from_ns = 0;
	for (uint64_t at = start; at < start + zero_bytes; at += region_bytes) {
		uint64_t len = MIN((uint64_t)region_bytes, start + zero_bytes - at);

		if (window_is_broken(verifier->mirror, &job->window, at))
			continue;
		dirty_bitmap_clear(verifier->waiting, at, len);
		verifier->stats.verified_bytes += len;
	}
	if (zero_bytes == 0) {
		verifier->read_from_bytes = start;
		verifier->read_to_bytes = start + MAX(data_bytes, (uint64_t)region_bytes);
	}
	verifier->cursor_bytes = start + zero_bytes;
	verifier->asking = false;
	verify_job_end(job);
}

static void verify_job_ask(struct verify_job *job)
{
	job->verifier->asking = true;
	job->target_from_ns = loop_now_ns(job->verifier->loop);
	job->extents = (struct blk_extents){ .runs = job->extent_runs, .capacity = VERIFY_EXTENTS };
	job->target_read = (struct blk_req){
		.op = BLK_EXTENTS, .flags = BLK_COPIER, .offset_bytes = job->window.offset_bytes,
		.len_bytes = job->window.len_bytes, .extents = &job->extents,
		.done = verify_extents_done,
	};
	blk_submit(mirror_target(job->verifier->mirror), &job->target_read);
}

/* ---- reading ---- */

static bool verify_region_needs_source(const struct verifier *verifier, uint64_t at_bytes)
{
	uint64_t hash;

	return hash_store_get(verifier->hashes, at_bytes / mirror_region_bytes(verifier->mirror),
			      &hash) == HASH_UNKNOWN;
}

static bool verify_wants_source(const struct verifier *verifier, uint64_t offset_bytes,
				uint64_t len_bytes)
{
	if (mirror_state(verifier->mirror) == MIRROR_SWITCHED)
		return true;
	for (uint64_t at = offset_bytes; at < offset_bytes + len_bytes;
	     at += mirror_region_bytes(verifier->mirror))
		if (verify_region_needs_source(verifier, at))
			return true;
	return false;
}

/*
 * Room for the target's bytes, and for the source's behind them; in one piece and before the
 * window opens, so that a job that finds no room gives nothing back (which would wake it).
 */
static bool verify_job_take_buf(struct verify_job *job, uint64_t len_bytes)
{
	struct verifier *verifier = job->verifier;

	job->data = buf_get_spare(verifier->pool, job->need_source ? 2 * len_bytes : len_bytes);
	if (job->data) {
		buf_wait_cancel(&verifier->buf_waiter);
		return true;
	}
	if (!list_is_linked(&verifier->buf_waiter.node))
		buf_wait(verifier->pool, &verifier->buf_waiter);
	return false;
}

static void verify_submit_read(struct blk_dev *dev, struct blk_req *req, struct iovec *iov,
			       uint8_t *bytes, const struct window *window)
{
	*iov = (struct iovec){ .iov_base = bytes, .iov_len = window->len_bytes };
	req->op = BLK_READ;
	req->flags = BLK_COPIER;
	req->offset_bytes = window->offset_bytes;
	req->len_bytes = window->len_bytes;
	req->iov = iov;
	req->iov_count = 1;
	blk_submit(dev, req);
}

static void verify_job_read(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;
	uint64_t len = job->window.len_bytes;

	job->target_bytes = job->data->bytes;
	job->source_bytes = job->data->bytes + len;
	job->charged_bytes = len;
	job->target_from_ns = loop_now_ns(verifier->loop);
	job->charged_ns = job->target_from_ns;
	pacer_started(verifier->pacer, len);
	job->pending = job->need_source ? 2 : 1;
	job->target_read = (struct blk_req){ .data = job->data, .done = verify_target_read };
	job->source_read = (struct blk_req){ .data = job->data, .done = verify_source_read };
	verify_submit_read(mirror_target(verifier->mirror), &job->target_read, &job->target_iov,
			   job->target_bytes, &job->window);
	if (job->need_source)
		verify_submit_read(mirror_source(verifier->mirror), &job->source_read,
				   &job->source_iov, job->source_bytes, &job->window);
}

/* ---- picking ---- */

/* How much is read at once. */
static uint64_t verify_read_max(const struct verifier *verifier)
{
	return MAX(pacer_job_bytes(verifier->pacer),
		   (uint64_t)mirror_region_bytes(verifier->mirror));
}

/* The first part of a run that is zero throughout, or the first part that is not. */
static uint64_t verify_uniform_len(const struct verifier *verifier, uint64_t offset_bytes,
				   uint64_t len_bytes, bool *zero)
{
	uint32_t region_bytes = mirror_region_bytes(verifier->mirror);
	uint64_t hash, at = offset_bytes;

	*zero = hash_store_get(verifier->hashes, at / region_bytes, &hash) == HASH_ZERO;
	/* Looked at no further than one job goes: a long run is not walked for each of its jobs. */
	if (!*zero)
		len_bytes = MIN(len_bytes, verify_read_max(verifier));
	do {
		at += region_bytes;
	} while (at < offset_bytes + len_bytes &&
		 (hash_store_get(verifier->hashes, at / region_bytes, &hash) == HASH_ZERO) == *zero);
	return MIN(at - offset_bytes, len_bytes);
}

/* Zeroes are judged by the target's extents, unless it has told that it holds data there. */
static bool verify_by_extents(const struct verifier *verifier, uint64_t offset_bytes, bool zero)
{
	struct mirror *mirror = verifier->mirror;

	return zero && mirror_state(mirror) != MIRROR_SWITCHED &&
	       mirror_target(mirror)->limits.has_extents &&
	       !(offset_bytes >= verifier->read_from_bytes &&
		 offset_bytes < verifier->read_to_bytes);
}

/* One job over the run; returns how far it came, 0: the first region is busy; -1: not now. */
static int64_t verify_job_start(struct verifier *verifier, uint64_t offset_bytes,
				uint64_t len_bytes)
{
	struct mirror *mirror = verifier->mirror;
	struct verify_job *job = verify_job_get(verifier);
	bool zero, by_extents;
	uint64_t len;

	if (!job)
		return -1;
	len = verify_uniform_len(verifier, offset_bytes, len_bytes, &zero);
	by_extents = verify_by_extents(verifier, offset_bytes, zero);
	if (!by_extents) {
		len = MIN(len, verify_read_max(verifier));
		job->need_source = verify_wants_source(verifier, offset_bytes, len);
	}
	if (!by_extents && !verify_job_take_buf(job, len)) {
		verify_job_put(job);
		return -1;
	}
	if (!mirror_window_open(mirror, &job->window, WINDOW_VERIFY, offset_bytes, len)) {
		verify_job_put(job);
		return 0;
	}
	len = job->window.len_bytes;
	list_append(&verifier->jobs, &job->node);
	verifier->jobs_in_flight++;
	if (by_extents)
		verify_job_ask(job);
	else
		verify_job_read(job);
	return (int64_t)len;
}

/* From a region that cannot be judged now: how far the cursor may go on. */
static uint64_t verify_skip_bytes(const struct verifier *verifier, uint64_t offset_bytes)
{
	struct mirror *mirror = verifier->mirror;
	uint64_t dirty_bytes, dirty_len;

	/* A dirty run is passed over as a whole: it will be copied, and wait anew. */
	if (dirty_bitmap_find(mirror_dirty(mirror), offset_bytes, VERIFY_SPAN_MAX, &dirty_bytes,
			      &dirty_len) && dirty_bytes == offset_bytes)
		return dirty_len;
	return mirror_region_bytes(mirror);
}

enum verify_start {
	VERIFY_STARTED,
	VERIFY_BUSY,            /* the region under the cursor: passed over */
	VERIFY_NOT_NOW,         /* no room: a kick follows */
	VERIFY_ROUND,           /* nothing waits from the cursor on */
};

static enum verify_start verifier_start_one(struct verifier *verifier)
{
	uint64_t offset, len;
	int64_t started;

	if (verifier->jobs_in_flight == VERIFY_JOBS_MAX || verifier->asking ||
	    !pacer_may_start(verifier->pacer, pacer_job_bytes(verifier->pacer)))
		return VERIFY_NOT_NOW;
	if (!dirty_bitmap_find(verifier->waiting, verifier->cursor_bytes, VERIFY_SPAN_MAX, &offset,
			       &len))
		return VERIFY_ROUND;
	started = verify_job_start(verifier, offset, len);
	if (started < 0)
		return VERIFY_NOT_NOW;
	if (started > 0) {
		verifier->cursor_bytes = offset + (uint64_t)started;
		return VERIFY_STARTED;
	}
	verifier->cursor_bytes = offset + verify_skip_bytes(verifier, offset);
	return VERIFY_BUSY;
}

static void verifier_go_on(struct verifier *verifier)
{
	if (!verifier->pump.queued)
		loop_post(verifier->loop, &verifier->pump);
}

/* A long way over busy regions is made in steps: guests are served between them. */
static enum verify_start verifier_walk(struct verifier *verifier)
{
	enum verify_start start = VERIFY_STARTED;
	uint32_t busy_count = 0;

	while (start == VERIFY_STARTED || start == VERIFY_BUSY) {
		start = verifier_start_one(verifier);
		busy_count += start == VERIFY_BUSY;
		if (busy_count == VERIFY_BUSY_TRIES) {
			verifier_go_on(verifier);
			return VERIFY_NOT_NOW;
		}
	}
	return start;
}

/* False: too soon; the timer kicks. */
static bool verifier_round_is_due(struct verifier *verifier)
{
	uint64_t due_ns = verifier->round_from_ns + VERIFY_ROUND_NS;

	if (verifier->pass_count < VERIFY_QUICK_ROUNDS || loop_now_ns(verifier->loop) >= due_ns)
		return true;
	if (!verifier->round.started)
		timer_start_at(&verifier->round, due_ns);
	return false;
}

static void verifier_round_fired(struct timer *timer)
{
	verifier_kick(container_of(timer, struct verifier, round));
}

static void verifier_pump(struct task *task)
{
	struct verifier *verifier = container_of(task, struct verifier, pump);
	enum verify_start start;

	if (!verifier->running) {
		if (verifier->jobs_in_flight == 0)
			verifier->hooks.stopped(verifier->user);
		return;
	}
	start = verifier_walk(verifier);
	if (verifier->jobs_in_flight)
		return;
	if (dirty_bitmap_is_clean(verifier->waiting)) {
		verifier->hooks.verified(verifier->user);
		return;
	}
	/*
	 * What was busy or broken on the way is judged on the next way round, once a kick.  Having
	 * to wait for room (the cap, a buffer) is no way round.
	 */
	if (start == VERIFY_ROUND && verifier->cursor_bytes && verifier->again &&
	    verifier_round_is_due(verifier)) {
		verifier->again = false;
		verifier->round_from_ns = loop_now_ns(verifier->loop);
		verifier->cursor_bytes = 0;
		verifier->pass_count++;
		(void)verifier_walk(verifier);
		verifier->hooks.verified(verifier->user);
	}
}

void verifier_kick(struct verifier *verifier)
{
	verifier->again = true;
	verifier_go_on(verifier);
}

uint64_t verifier_oldest_read_ns(const struct verifier *verifier)
{
	uint64_t oldest_ns = UINT64_MAX;

	list_for_each(node, &verifier->jobs) {
		const struct verify_job *job = list_entry(node, struct verify_job, node);

		if (job->target_from_ns)
			oldest_ns = MIN(oldest_ns, job->target_from_ns);
	}
	return oldest_ns;
}

static void verify_buf_ready(struct buf_waiter *waiter)
{
	verifier_kick(container_of(waiter, struct verifier, buf_waiter));
}

uint64_t verifier_passes(const struct verifier *verifier)
{
	return verifier->pass_count;
}

/* ---- the set ---- */

void verifier_add(struct verifier *verifier, uint64_t offset_bytes, uint64_t len_bytes)
{
	dirty_bitmap_set(verifier->waiting, offset_bytes, len_bytes);
}

void verifier_drop(struct verifier *verifier, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint32_t region_bytes = mirror_region_bytes(verifier->mirror);
	uint64_t start = round_down(offset_bytes, region_bytes);
	uint64_t end = MIN(round_up(offset_bytes + len_bytes, region_bytes),
			   mirror_size_bytes(verifier->mirror));

	dirty_bitmap_clear(verifier->waiting, start, end - start);
}

uint64_t verifier_waiting_bytes(const struct verifier *verifier)
{
	return dirty_bitmap_bytes(verifier->waiting);
}

/* ---- life ---- */

struct verifier *verifier_new(struct mirror *mirror, struct buf_pool *pool, struct pacer *pacer,
			      struct hash_store *hashes, const struct verify_hooks *hooks,
			      void *user)
{
	struct verifier *verifier = calloc(1, sizeof(*verifier));

	if (!verifier)
		return NULL;
	verifier->waiting =
		dirty_bitmap_new(mirror_size_bytes(mirror), mirror_region_bytes(mirror));
	if (!verifier->waiting) {
		free(verifier);
		return NULL;
	}
	verifier->mirror = mirror;
	verifier->pool = pool;
	verifier->pacer = pacer;
	verifier->hashes = hashes;
	verifier->hooks = *hooks;
	verifier->user = user;
	verifier->loop = mirror_as_dev(mirror)->loop;
	verifier->pump.run = verifier_pump;
	timer_init(&verifier->round, verifier->loop, verifier_round_fired);
	verifier->buf_waiter.ready = verify_buf_ready;
	list_init(&verifier->buf_waiter.node);
	list_init(&verifier->jobs);
	list_init(&verifier->free_jobs);
	return verifier;
}

void verifier_free(struct verifier *verifier)
{
	struct list *node;

	if (!verifier)
		return;
	CHECK(verifier_is_stopped(verifier));
	buf_wait_cancel(&verifier->buf_waiter);
	while ((node = list_pop(&verifier->free_jobs)))
		free(list_entry(node, struct verify_job, node));
	dirty_bitmap_free(verifier->waiting);
	free(verifier);
}

void verifier_start(struct verifier *verifier)
{
	verifier->running = true;
	verifier->cursor_bytes = 0;
	verifier->pass_count = 0;
	timer_stop(&verifier->round);
	verifier_kick(verifier);
}

void verifier_stop(struct verifier *verifier)
{
	if (!verifier->running)
		return;
	verifier->running = false;
	timer_stop(&verifier->round);
	verifier_kick(verifier);        /* tells when it has stopped */
}

bool verifier_is_stopped(const struct verifier *verifier)
{
	return !verifier->running && verifier->jobs_in_flight == 0 && !verifier->pump.queued;
}

void verifier_stats(const struct verifier *verifier, struct verify_stats *out)
{
	*out = verifier->stats;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/verify.h"

#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define VERIFY_JOBS_MAX 16u
#define VERIFY_EXTENTS 32u
#define VERIFY_SPAN_MAX (UINT64_C(1) << 30)     /* zero regions judged by extents at once */

struct verify_job {
	struct verifier *verifier;
	struct list node;
	struct window window;
	bool need_source;
	uint32_t pending;
	int target_result, source_result;
	uint64_t charged_bytes;
	struct buf *target_data, *source_data;
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
	/* The target told that it has data here: zeroes are read, not asked for again. */
	uint64_t read_from_bytes, read_to_bytes;
	bool asking;                    /* an extents answer may turn the cursor back */
	uint32_t jobs_in_flight;
	struct list free_jobs;
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
	buf_put(job->target_data);
	buf_put(job->source_data);
	list_prepend(&job->verifier->free_jobs, &job->node);
}

static void verify_job_end(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;

	verifier->jobs_in_flight--;
	pacer_finished(verifier->pacer, job->charged_bytes);
	mirror_window_close(verifier->mirror, &job->window);
	verify_job_put(job);
	verifier_kick(verifier);
}

/* ---- judging ---- */

/* True: the target's region is what it should be. */
static bool verify_region_matches(struct verify_job *job, uint64_t at_bytes, uint64_t len_bytes)
{
	struct verifier *verifier = job->verifier;
	uint64_t in_window = at_bytes - job->window.offset_bytes;
	const uint8_t *target = job->target_data->bytes + in_window;
	uint64_t hash = 0;

	/* The source, where it was read, is the better witness. */
	if (job->need_source)
		return memcmp(target, job->source_data->bytes + in_window, len_bytes) == 0;
	switch (hash_store_get(verifier->hashes, at_bytes / mirror_region_bytes(verifier->mirror),
			       &hash)) {
	case HASH_ZERO:
		return bytes_are_zero(target, len_bytes);
	case HASH_VALUE:
		return hash_region(target, len_bytes) == hash;
	case HASH_UNKNOWN:
		break;
	}
	CHECK_NEVER("a region without a hash is compared with the source");
}

static void verify_region(struct verify_job *job, uint64_t at_bytes, uint64_t len_bytes)
{
	struct verifier *verifier = job->verifier;

	if (window_is_broken(verifier->mirror, &job->window, at_bytes))
		return;                 /* waits again */
	if (verify_region_matches(job, at_bytes, len_bytes)) {
		dirty_bitmap_clear(verifier->waiting, at_bytes, len_bytes);
		verifier->stats.verified_bytes += len_bytes;
		return;
	}
	verifier->stats.mismatches++;
	verifier->hooks.mismatch(at_bytes, len_bytes, verifier->user);
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

static bool verify_job_wants_source(const struct verify_job *job)
{
	struct verifier *verifier = job->verifier;
	uint64_t end_bytes = job->window.offset_bytes + job->window.len_bytes;

	for (uint64_t at = job->window.offset_bytes; at < end_bytes;
	     at += mirror_region_bytes(verifier->mirror))
		if (verify_region_needs_source(verifier, at))
			return true;
	return false;
}

static void verify_submit_read(struct blk_dev *dev, struct blk_req *req, struct iovec *iov,
			       struct buf *data, const struct window *window)
{
	*iov = (struct iovec){ .iov_base = data->bytes, .iov_len = window->len_bytes };
	req->op = BLK_READ;
	req->flags = BLK_COPIER;
	req->offset_bytes = window->offset_bytes;
	req->len_bytes = window->len_bytes;
	req->iov = iov;
	req->iov_count = 1;
	req->data = data;
	blk_submit(dev, req);
}

/* False: no buffer now; the job ends and is tried again. */
static bool verify_job_read(struct verify_job *job)
{
	struct verifier *verifier = job->verifier;
	uint64_t len = job->window.len_bytes;

	job->need_source = mirror_state(verifier->mirror) == MIRROR_SWITCHED ||
			   verify_job_wants_source(job);
	job->target_data = buf_get(verifier->pool, len);
	if (job->target_data && job->need_source)
		job->source_data = buf_get(verifier->pool, len);
	if (!job->target_data || (job->need_source && !job->source_data)) {
		if (!list_is_linked(&verifier->buf_waiter.node))
			buf_wait(verifier->pool, &verifier->buf_waiter);
		return false;
	}
	job->charged_bytes = len;
	pacer_started(verifier->pacer, len);
	job->pending = job->need_source ? 2 : 1;
	job->target_read = (struct blk_req){ .done = verify_target_read };
	job->source_read = (struct blk_req){ .done = verify_source_read };
	verify_submit_read(mirror_target(verifier->mirror), &job->target_read, &job->target_iov,
			   job->target_data, &job->window);
	if (job->need_source)
		verify_submit_read(mirror_source(verifier->mirror), &job->source_read,
				   &job->source_iov, job->source_data, &job->window);
	return true;
}

/* ---- picking ---- */

/* The first part of a run that is zero throughout, or the first part that is not. */
static uint64_t verify_uniform_len(const struct verifier *verifier, uint64_t offset_bytes,
				   uint64_t len_bytes, bool *zero)
{
	uint32_t region_bytes = mirror_region_bytes(verifier->mirror);
	uint64_t hash, at = offset_bytes;

	*zero = hash_store_get(verifier->hashes, at / region_bytes, &hash) == HASH_ZERO;
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
	if (!by_extents)
		len = MIN(len, MAX(pacer_job_bytes(verifier->pacer),
				   (uint64_t)mirror_region_bytes(mirror)));
	if (!mirror_window_open(mirror, &job->window, WINDOW_VERIFY, offset_bytes, len)) {
		verify_job_put(job);
		return 0;
	}
	len = job->window.len_bytes;
	verifier->jobs_in_flight++;
	if (by_extents) {
		verify_job_ask(job);
	} else if (!verify_job_read(job)) {
		verify_job_end(job);
		return -1;
	}
	return (int64_t)len;
}

/* False: nothing more can be started from the cursor on. */
static bool verifier_start_one(struct verifier *verifier)
{
	uint64_t offset, len;
	int64_t started;

	if (verifier->jobs_in_flight == VERIFY_JOBS_MAX || verifier->asking ||
	    !pacer_may_start(verifier->pacer, pacer_job_bytes(verifier->pacer)))
		return false;
	if (!dirty_bitmap_find(verifier->waiting, verifier->cursor_bytes, VERIFY_SPAN_MAX, &offset,
			       &len))
		return false;
	started = verify_job_start(verifier, offset, len);
	if (started < 0)
		return false;
	if (started == 0)
		started = mirror_region_bytes(verifier->mirror);
	verifier->cursor_bytes = offset + (uint64_t)started;
	return true;
}

static void verifier_pump(struct task *task)
{
	struct verifier *verifier = container_of(task, struct verifier, pump);

	if (!verifier->running) {
		if (verifier->jobs_in_flight == 0)
			verifier->hooks.stopped(verifier->user);
		return;
	}
	while (verifier_start_one(verifier))
		continue;
	if (verifier->jobs_in_flight)
		return;
	if (dirty_bitmap_is_clean(verifier->waiting)) {
		verifier->hooks.verified(verifier->user);
		return;
	}
	/* What was busy or broken on the way is judged on the next way round, once a pump. */
	if (verifier->cursor_bytes) {
		verifier->cursor_bytes = 0;
		verifier->pass_count++;
		while (verifier_start_one(verifier))
			continue;
	}
}

void verifier_kick(struct verifier *verifier)
{
	if (!verifier->pump.queued)
		loop_post(verifier->loop, &verifier->pump);
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
	verifier->buf_waiter.ready = verify_buf_ready;
	list_init(&verifier->buf_waiter.node);
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
	verifier_kick(verifier);
}

void verifier_stop(struct verifier *verifier)
{
	if (!verifier->running)
		return;
	verifier->running = false;
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

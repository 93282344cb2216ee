/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_job.c - copy one run of dirty regions, in numbered stages.
 *
 * C1 pick: the engine chose a run        C2 open: the copy window (R1)
 * C3 read the source                     C4 test for zeroes, hash the regions
 * C5 write the target                    C6 clear what is not broken
 * C7 close: legs that waited go on
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/copy_private.h"

#define ZERO_GRAIN 4096u                        /* fresh targets: finer than this is not thin */
#define ZERO_RUN_MIN (64u << 10)                /* elsewhere: a request of its own must pay */
#define ZERO_JOB_MAX (UINT64_C(64) << 20)       /* zeroes to write in one window */

/* ---- jobs ---- */

static struct copy_job *copy_job_get(struct copy_engine *engine)
{
	struct list *node = list_pop(&engine->free_jobs);
	struct copy_job *job;

	if (node) {
		job = list_entry(node, struct copy_job, node);
	} else {
		if (engine->job_count == COPY_JOBS_MAX)
			return NULL;
		job = malloc(sizeof(*job));
		if (!job)
			return NULL;
		engine->job_count++;
	}
	memset(job, 0, offsetof(struct copy_job, writes));
	job->engine = engine;
	list_init(&job->node);
	return job;
}

static void copy_job_put(struct copy_job *job)
{
	struct copy_engine *engine = job->engine;

	buf_put(job->data);
	list_remove(&job->node);
	list_prepend(&engine->free_jobs, &job->node);
}

void copy_jobs_release(struct copy_engine *engine)
{
	struct list *node;

	while ((node = list_pop(&engine->free_jobs)))
		free(list_entry(node, struct copy_job, node));
}

/* ---- C7: close ---- */

static void copy_job_end(struct copy_job *job)
{
	struct copy_engine *engine = job->engine;

	engine->jobs_in_flight--;
	engine->window_bytes -= job->window.len_bytes;
	pacer_finished(engine->pacer, job->charged_bytes, job->charged_ns);
	mirror_window_close(engine->mirror, &job->window);
	copy_job_put(job);
	copy_engine_kick(engine);
}

static void copy_job_fail(struct copy_job *job, bool at_source, int error)
{
	struct copy_engine *engine = job->engine;
	uint64_t offset_bytes = job->window.offset_bytes;

	copy_job_end(job);
	engine->hooks.failed(at_source, error, offset_bytes, engine->user);
}

/* ---- C6: clear ---- */

/* One region is on the target: what is known of it, and how often it was copied. */
static void copy_job_region_done(struct copy_job *job, uint64_t at_bytes, uint64_t len_bytes)
{
	struct copy_engine *engine = job->engine;
	uint64_t region = at_bytes / mirror_region_bytes(engine->mirror);
	const uint8_t *bytes = job->data ? job->data->bytes + (at_bytes - job->window.offset_bytes) :
					   NULL;

	if (window_is_broken(engine->mirror, &job->window, at_bytes)) {
		copy_hot_count(engine, at_bytes);
		return;
	}
	if (dirty_bitmap_test(engine->copied, at_bytes))
		engine->stats.recopied_bytes += len_bytes;
	dirty_bitmap_set(engine->copied, at_bytes, len_bytes);
	/* A leg queued behind us will change the region: its hash would be wrong. */
	if (!engine->hashes || window_is_touched(engine->mirror, &job->window, at_bytes))
		return;
	if (!bytes || bytes_are_zero(bytes, len_bytes))
		hash_store_put_zero(engine->hashes, region, 1);
	else
		hash_store_put(engine->hashes, region, hash_region(bytes, len_bytes));
}

static void copy_job_finish(struct copy_job *job)
{
	struct copy_engine *engine = job->engine;
	struct mirror *mirror = engine->mirror;
	struct window *window = &job->window;
	uint64_t end_bytes = window->offset_bytes + window->len_bytes;

	for (uint64_t at = window->offset_bytes; at < end_bytes; at += mirror_region_bytes(mirror))
		copy_job_region_done(job, at, MIN((uint64_t)mirror_region_bytes(mirror),
						  end_bytes - at));
	engine->stats.copied_bytes += job->data_bytes;
	engine->stats.zero_bytes += window->len_bytes - job->data_bytes;
	engine->hooks.copied(window->offset_bytes, window->len_bytes, engine->user);
	mirror_window_clear(mirror, window, window->offset_bytes, window->len_bytes);
	copy_job_end(job);
}

/* ---- C5: write ---- */

static void copy_job_written(struct blk_req *req)
{
	struct copy_job *job = req->user;

	/* Written in part even when it failed. */
	mirror_target_written(job->engine->mirror, req->offset_bytes,
			      MIN(req->len_bytes, mirror_size_bytes(job->engine->mirror) -
							  req->offset_bytes));
	if (req->result && !job->result)
		job->result = req->result;
	job->engine->stats.target_writes += req->result == 0;
	if (--job->writes_pending)
		return;
	job->started_ns = 0;
	if (job->result)
		copy_job_fail(job, false, job->result);
	else
		copy_job_finish(job);
}

static void copy_job_add_write(struct copy_job *job, enum blk_op op, uint64_t start, uint64_t end)
{
	uint32_t i = job->write_count++;

	CHECK(i < COPY_WRITES_MAX);
	job->writes[i] = (struct blk_req){
		.op = op, .flags = BLK_COPIER | (op == BLK_WRITE ? BLK_STABLE : BLK_MAY_UNMAP),
		.offset_bytes = job->window.offset_bytes + start, .len_bytes = end - start,
		.done = copy_job_written, .user = job,
	};
	if (op != BLK_WRITE)
		return;
	job->write_iovs[i] = (struct iovec){ .iov_base = job->data->bytes + start,
					     .iov_len = end - start };
	job->writes[i].iov = &job->write_iovs[i];
	job->writes[i].iov_count = 1;
	job->writes[i].data = job->data;
	job->data_bytes += end - start;
}

static void copy_job_submit_writes(struct copy_job *job)
{
	struct blk_dev *target = mirror_target(job->engine->mirror);

	job->writes_pending = job->write_count;
	if (!job->write_count) {
		copy_job_finish(job);
		return;
	}
	job->started_ns = loop_now_ns(job->engine->loop);
	/* The job may not be touched after the last submit: nothing completes inside, though. */
	for (uint32_t i = 0; i < job->write_count; i++)
		blk_submit(target, &job->writes[i]);
}

/* ---- C4: test for zeroes ---- */

/* How zeroes are left out here: the grain, and whether they must be written as zeroes. */
struct zero_policy {
	uint32_t grain_bytes;           /* looked at in pieces of this size */
	uint64_t run_min_bytes;         /* shorter runs of zeroes go with the data beside them */
	bool write_zeroes;              /* R11: the target may hold something else */
};

static struct zero_policy copy_job_zero_policy(const struct copy_job *job)
{
	const struct mirror *mirror = job->engine->mirror;
	const struct blk_limits *limits = &mirror_target(job->engine->mirror)->limits;
	bool fresh = limits->reads_zero &&
		     mirror_target_untouched(mirror, job->window.offset_bytes,
					     job->window.len_bytes);

	return (struct zero_policy){
		.grain_bytes = MAX(ZERO_GRAIN, limits->physical_bytes),
		.run_min_bytes = fresh ? MAX(ZERO_GRAIN, limits->physical_bytes) : ZERO_RUN_MIN,
		.write_zeroes = !fresh,
	};
}

/* The end of the run of equal kind that begins at `start`. */
static uint64_t run_end(const uint8_t *bytes, uint64_t len, uint64_t start, uint32_t grain,
			bool *zero)
{
	uint64_t at = start;

	*zero = bytes_are_zero(bytes + at, MIN((uint64_t)grain, len - at));
	do {
		at = MIN(at + grain, len);
	} while (at < len && bytes_are_zero(bytes + at, MIN((uint64_t)grain, len - at)) == *zero);
	return at;
}

/*
 * Cut [0, len) into data and zero writes.  False: too many pieces for one job; the caller
 * tries again with longer runs.
 */
static bool copy_job_cut(struct copy_job *job, const struct zero_policy *policy)
{
	const uint8_t *bytes = job->data->bytes;
	uint64_t len = job->window.len_bytes;
	uint64_t data_start = 0, at = 0;        /* data not yet made a write: [data_start, at) */

	job->write_count = 0;
	job->data_bytes = 0;
	while (at < len) {
		bool zero;
		uint64_t end = run_end(bytes, len, at, policy->grain_bytes, &zero);

		if (zero && (end - at >= policy->run_min_bytes || (at == 0 && end == len))) {
			if (job->write_count + 3 > COPY_WRITES_MAX)
				return false;
			if (data_start < at)
				copy_job_add_write(job, BLK_WRITE, data_start, at);
			if (policy->write_zeroes)
				copy_job_add_write(job, BLK_WRITE_ZEROES, at, end);
			data_start = end;
		}
		at = end;
	}
	if (data_start < len)
		copy_job_add_write(job, BLK_WRITE, data_start, len);
	return true;
}

static void copy_job_read(struct blk_req *req)
{
	struct copy_job *job = container_of(req, struct copy_job, read);
	struct zero_policy policy;

	if (req->result) {
		copy_job_fail(job, true, req->result);
		return;
	}
	policy = copy_job_zero_policy(job);
	while (!copy_job_cut(job, &policy))
		policy.run_min_bytes *= 4;
	copy_job_submit_writes(job);
}

/* ---- C3: read, or ask again what is a hole ---- */

static void copy_job_submit_read(struct copy_job *job)
{
	job->read_iov = (struct iovec){ .iov_base = job->data->bytes,
					.iov_len = job->window.len_bytes };
	job->read = (struct blk_req){
		.op = BLK_READ, .flags = BLK_COPIER, .offset_bytes = job->window.offset_bytes,
		.len_bytes = job->window.len_bytes, .iov = &job->read_iov, .iov_count = 1,
		.data = job->data, .done = copy_job_read,
	};
	blk_submit(mirror_source(job->engine->mirror), &job->read);
}

/* All of it still a hole?  The window has been open since before the question (R1). */
static bool extents_are_zero(const struct blk_extents *extents, uint64_t len_bytes)
{
	uint64_t zero_bytes = 0;

	for (uint32_t i = 0; i < extents->count; i++) {
		if (extents->runs[i].status == BLK_EXTENT_DATA)
			return false;
		zero_bytes += extents->runs[i].len_bytes;
	}
	return zero_bytes >= len_bytes;
}

static void copy_job_asked(struct blk_req *req)
{
	struct copy_job *job = container_of(req, struct copy_job, read);

	if (req->result || !extents_are_zero(&job->extents, job->window.len_bytes)) {
		/* No longer a hole: it is read like data. */
		copy_run_push(job->engine, job->window.offset_bytes, job->window.len_bytes,
			      RUN_DATA);
		copy_job_end(job);
		return;
	}
	copy_job_add_write(job, BLK_WRITE_ZEROES, 0, job->window.len_bytes);
	copy_job_submit_writes(job);
}

static void copy_job_ask(struct copy_job *job)
{
	job->extents = (struct blk_extents){ .runs = job->extent_runs,
					     .capacity = ARRAY_COUNT(job->extent_runs) };
	job->read = (struct blk_req){
		.op = BLK_EXTENTS, .flags = BLK_COPIER, .offset_bytes = job->window.offset_bytes,
		.len_bytes = job->window.len_bytes, .extents = &job->extents,
		.done = copy_job_asked,
	};
	blk_submit(mirror_source(job->engine->mirror), &job->read);
}

/* ---- C2: open ---- */

uint64_t copy_job_max_bytes(const struct copy_engine *engine, enum run_kind kind)
{
	uint64_t region_bytes = mirror_region_bytes(engine->mirror);

	return kind == RUN_ZERO ? ZERO_JOB_MAX : MAX(pacer_job_bytes(engine->pacer), region_bytes);
}

int64_t copy_job_start(struct copy_engine *engine, const struct copy_run *run, bool dual)
{
	struct mirror *mirror = engine->mirror;
	uint32_t region_bytes = mirror_region_bytes(mirror);
	uint64_t len = MIN(run->len_bytes, copy_job_max_bytes(engine, run->kind));
	struct copy_job *job;

	/* Guests that send no legs cannot follow in a dual window. */
	dual = dual && mirror_state(mirror) == MIRROR_ACTIVE;
	if (dual)
		len = MIN(len, (uint64_t)region_bytes);
	job = copy_job_get(engine);
	if (!job)
		return -ENOBUFS;
	job->kind = dual ? RUN_DATA : run->kind;
	if (job->kind == RUN_DATA) {
		job->data = buf_get_spare(engine->pool, len);
		if (!job->data) {
			copy_job_put(job);
			if (!list_is_linked(&engine->buf_waiter.node))
				buf_wait(engine->pool, &engine->buf_waiter);
			return -ENOBUFS;
		}
		/* Given back for a busy region, it must wake others, not us. */
		buf_wait_cancel(&engine->buf_waiter);
	}
	if (!mirror_window_open(mirror, &job->window, dual ? WINDOW_DUAL : WINDOW_COPY,
				run->offset_bytes, len)) {
		copy_job_put(job);
		return 0;
	}
	list_append(&engine->jobs, &job->node);
	engine->jobs_in_flight++;
	engine->window_bytes += job->window.len_bytes;
	engine->stats.jobs++;
	engine->stats.dual_jobs += dual;
	job->charged_bytes = job->kind == RUN_ZERO ? 0 : job->window.len_bytes;
	job->charged_ns = loop_now_ns(engine->loop);
	pacer_started(engine->pacer, job->charged_bytes);
	len = job->window.len_bytes;
	if (job->kind == RUN_ZERO)
		copy_job_ask(job);
	else
		copy_job_submit_read(job);
	return (int64_t)len;
}

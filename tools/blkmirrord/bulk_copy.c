/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bulk_copy.c
 *
 *   1. pump: while slots are free, look what lies ahead (extent_scout.h)
 *   2. nothing there: skip it, or zero the target
 *   3. data: read a chunk into a slot
 *   4. the chunk is in: write its pieces that are not zero, one after the other
 *   5. all chunks done: flush the target, report
 */
#include "tools/blkmirrord/bulk_copy.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/mirror/hash_store.h"
#include "tools/blkmirrord/extent_scout.h"

struct copy_slot {
	struct bulk_copy *job;
	struct blk_req req;
	struct iovec iov;
	struct buf *buf;
	uint64_t offset_bytes, len_bytes;
	uint64_t at_bytes;              /* of the chunk: written up to here */
	uint64_t piece_bytes;
	bool busy;
};

struct bulk_copy {
	struct bulk_copy_spec spec;
	struct extent_scout scout;
	struct copy_slot slots[BULK_COPY_DEPTH];
	struct blk_req flush;
	struct task begin;
	uint64_t next_bytes;            /* the first byte that no slot has taken */
	uint32_t busy_count;
	int result;
	bool source_failed, finishing;
	atomic_bool cancelled;
	_Atomic uint64_t copied_bytes, zero_bytes, hole_bytes;
};

static void copy_pump(struct bulk_copy *job);

static void copy_fail(struct bulk_copy *job, int result, bool source)
{
	if (job->result)
		return;
	job->result = result;
	job->source_failed = source;
}

/* ---- 5. the end ---- */

static void copy_flushed(struct blk_req *req)
{
	struct bulk_copy *job = container_of(req, struct bulk_copy, flush);

	if (req->result)
		copy_fail(job, req->result, false);
	job->spec.done(job, job->result, job->source_failed, job->spec.user);
}

static void copy_finish(struct bulk_copy *job)
{
	if (job->finishing)
		return;
	job->finishing = true;
	if (job->result) {
		job->spec.done(job, job->result, job->source_failed, job->spec.user);
		return;
	}
	job->flush = (struct blk_req){ .op = BLK_FLUSH, .done = copy_flushed };
	blk_submit(job->spec.target, &job->flush);
}

/* ---- 4. write the pieces of a chunk ---- */

static void slot_write_next(struct copy_slot *slot);

static void slot_release(struct copy_slot *slot)
{
	slot->busy = false;
	slot->job->busy_count--;
	copy_pump(slot->job);
}

static void slot_written(struct blk_req *req)
{
	struct copy_slot *slot = container_of(req, struct copy_slot, req);

	if (req->result) {
		copy_fail(slot->job, req->result, false);
		slot_release(slot);
		return;
	}
	slot->at_bytes += slot->piece_bytes;
	slot_write_next(slot);
}

/* How long are the bytes at `at` all zero, or all not, in whole grains? */
static uint64_t piece_len(const struct copy_slot *slot, uint64_t at_bytes, bool *zero)
{
	uint64_t len_bytes = 0;

	while (at_bytes + len_bytes < slot->len_bytes) {
		uint64_t grain = MIN(BULK_COPY_GRAIN_BYTES, slot->len_bytes - at_bytes - len_bytes);
		bool is_zero = bytes_are_zero(slot->buf->bytes + at_bytes + len_bytes, grain);

		if (len_bytes == 0)
			*zero = is_zero;
		else if (is_zero != *zero)
			break;
		len_bytes += grain;
	}
	return len_bytes;
}

static void slot_submit(struct copy_slot *slot, enum blk_op op)
{
	slot->iov = (struct iovec){ slot->buf->bytes + slot->at_bytes, slot->piece_bytes };
	slot->req = (struct blk_req){
		.op = op,
		.flags = BLK_COPIER | BLK_STABLE,
		.offset_bytes = slot->offset_bytes + slot->at_bytes,
		.len_bytes = slot->piece_bytes,
		.done = slot_written,
	};
	if (op == BLK_WRITE) {
		slot->req.iov = &slot->iov;
		slot->req.iov_count = 1;
		slot->req.data = slot->buf;
	} else if (!slot->job->spec.keep_allocated) {
		slot->req.flags |= BLK_MAY_UNMAP;
	}
	blk_submit(slot->job->spec.target, &slot->req);
}

static void slot_write_next(struct copy_slot *slot)
{
	struct bulk_copy *job = slot->job;
	bool zero = false;

	while (!job->result && slot->at_bytes < slot->len_bytes) {
		slot->piece_bytes = piece_len(slot, slot->at_bytes, &zero);
		if (!zero) {
			atomic_fetch_add(&job->copied_bytes, slot->piece_bytes);
			slot_submit(slot, BLK_WRITE);
			return;
		}
		atomic_fetch_add(&job->zero_bytes, slot->piece_bytes);
		if (!job->spec.target->limits.reads_zero) { /* R11 */
			slot_submit(slot, BLK_WRITE_ZEROES);
			return;
		}
		slot->at_bytes += slot->piece_bytes;
	}
	slot_release(slot);
}

/* ---- 3. read ---- */

static void slot_read(struct blk_req *req)
{
	struct copy_slot *slot = container_of(req, struct copy_slot, req);

	if (req->result) {
		copy_fail(slot->job, req->result, true);
		slot_release(slot);
		return;
	}
	slot_write_next(slot);
}

static void slot_start_read(struct copy_slot *slot)
{
	slot->iov = (struct iovec){ slot->buf->bytes, slot->len_bytes };
	slot->req = (struct blk_req){
		.op = BLK_READ,
		.flags = BLK_COPIER,
		.offset_bytes = slot->offset_bytes,
		.len_bytes = slot->len_bytes,
		.iov = &slot->iov,
		.iov_count = 1,
		.done = slot_read,
	};
	blk_submit(slot->job->spec.source, &slot->req);
}

/* ---- 1. and 2. ---- */

static struct copy_slot *free_slot(struct bulk_copy *job)
{
	for (uint32_t i = 0; i < BULK_COPY_DEPTH; i++)
		if (!job->slots[i].busy)
			return &job->slots[i];
	return NULL;
}

static void slot_take(struct bulk_copy *job, struct copy_slot *slot, uint64_t len_bytes)
{
	slot->busy = true;
	job->busy_count++;
	slot->offset_bytes = job->next_bytes;
	slot->len_bytes = len_bytes;
	slot->at_bytes = 0;
	slot->piece_bytes = len_bytes;
	job->next_bytes += len_bytes;
}

static void scout_ready(struct extent_scout *scout, int result)
{
	struct bulk_copy *job = container_of(scout, struct bulk_copy, scout);

	if (result)
		copy_fail(job, result, true);
	copy_pump(job);
}

/* One chunk: false when there is no slot for it now. */
static bool copy_next_chunk(struct bulk_copy *job)
{
	uint64_t len_bytes = MIN(BULK_COPY_CHUNK_BYTES, job->spec.size_bytes - job->next_bytes);
	bool zero = extent_scout_is_zero(&job->scout, job->next_bytes, len_bytes);
	struct copy_slot *slot;

	if (zero && job->spec.target->limits.reads_zero) {
		atomic_fetch_add(&job->hole_bytes, len_bytes);
		job->next_bytes += len_bytes;
		return true;
	}
	slot = free_slot(job);
	if (!slot)
		return false;
	slot_take(job, slot, len_bytes);
	if (!zero) {
		slot_start_read(slot);
	} else {
		atomic_fetch_add(&job->hole_bytes, len_bytes);
		slot_submit(slot, BLK_WRITE_ZEROES);
	}
	return true;
}

static void copy_pump(struct bulk_copy *job)
{
	if (atomic_load(&job->cancelled))
		copy_fail(job, -ECANCELED, false);
	while (!job->result && job->next_bytes < job->spec.size_bytes && !job->scout.asking) {
		if (!extent_scout_knows(&job->scout, job->next_bytes))
			extent_scout_ask(&job->scout, job->next_bytes);
		else if (!copy_next_chunk(job))
			return;
	}
	if (job->busy_count == 0 && !job->scout.asking)
		copy_finish(job);
}

static void copy_begin(struct task *task)
{
	copy_pump(container_of(task, struct bulk_copy, begin));
}

struct bulk_copy *bulk_copy_start(const struct bulk_copy_spec *spec)
{
	struct bulk_copy *job = calloc(1, sizeof(*job));

	CHECK(spec->size_bytes <= spec->source->size_bytes);
	CHECK(spec->size_bytes <= spec->target->size_bytes);
	if (!job)
		return NULL;
	job->spec = *spec;
	extent_scout_init(&job->scout, spec->source, scout_ready);
	for (uint32_t i = 0; i < BULK_COPY_DEPTH; i++) {
		job->slots[i].job = job;
		job->slots[i].buf = buf_get(spec->pool, BULK_COPY_CHUNK_BYTES);
		if (!job->slots[i].buf) {
			bulk_copy_free(job);
			return NULL;
		}
	}
	job->begin.run = copy_begin;
	loop_post(spec->source->loop, &job->begin);
	return job;
}

void bulk_copy_free(struct bulk_copy *job)
{
	if (!job)
		return;
	CHECK(job->busy_count == 0);
	for (uint32_t i = 0; i < BULK_COPY_DEPTH; i++)
		buf_put(job->slots[i].buf);
	free(job);
}

void bulk_copy_cancel(struct bulk_copy *job)
{
	atomic_store(&job->cancelled, true);
}

void bulk_copy_stats(const struct bulk_copy *job, struct bulk_copy_stats *out)
{
	out->copied_bytes = atomic_load(&job->copied_bytes);
	out->zero_bytes = atomic_load(&job->zero_bytes);
	out->hole_bytes = atomic_load(&job->hole_bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bulk_compare.c - chunks are read in a ring and judged in order, because the hash is a stream.
 *
 *   ring of slots:   [ k ] [ k+1 ] [ k+2 ] [ k+3 ]     chunk n sits in slot n % DEPTH
 *                      ^ next to judge        ^ last one being read
 */
#include "tools/blkmirrord/bulk_compare.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tools/blkmirrord/extent_scout.h"

struct compare_side {
	struct bulk_compare *job;
	struct blk_dev *dev;
	struct extent_scout scout;
};

struct compare_leg {
	struct compare_slot *slot;
	struct blk_req req;
	struct iovec iov;
	struct buf *buf;
};

struct compare_slot {
	struct bulk_compare *job;
	struct compare_leg legs[2];
	uint64_t len_bytes;
	uint32_t reading;
	bool busy, zero;
};

struct bulk_compare {
	struct bulk_compare_spec spec;
	struct compare_side sides[2];
	struct compare_slot slots[BULK_COMPARE_DEPTH];
	struct task begin;
	XXH3_state_t *hash;
	uint8_t *zeroes;
	uint64_t common_bytes;          /* the shorter size */
	uint64_t next_bytes, judged_bytes;
	uint32_t reading;               /* legs in flight */
	bool finished;
	struct bulk_compare_result result;
	atomic_bool cancelled;
	_Atomic uint64_t done_bytes;
};

static void compare_pump(struct bulk_compare *job);

/* ---- judging, in order ---- */

static uint64_t count_differing(const uint8_t *a, const uint8_t *b, size_t count)
{
	uint64_t differing = 0;

	if (memcmp(a, b, count) == 0)
		return 0;
	for (size_t i = 0; i < count; i++)
		differing += a[i] != b[i];
	return differing;
}

static void slot_judge(struct bulk_compare *job, struct compare_slot *slot)
{
	const uint8_t *first = slot->zero ? job->zeroes : slot->legs[0].buf->bytes;

	CHECK(XXH3_128bits_update(job->hash, first, slot->len_bytes) == XXH_OK);
	if (!slot->zero)
		job->result.differing_bytes +=
			count_differing(first, slot->legs[1].buf->bytes, slot->len_bytes);
	slot->busy = false;
	job->judged_bytes += slot->len_bytes;
	atomic_store(&job->done_bytes, job->judged_bytes);
}

static void judge_ready(struct bulk_compare *job)
{
	for (;;) {
		struct compare_slot *slot =
			&job->slots[(job->judged_bytes / BULK_COMPARE_CHUNK_BYTES) % BULK_COMPARE_DEPTH];

		if (!slot->busy || slot->reading || job->result.result)
			return;
		slot_judge(job, slot);
	}
}

static void compare_finish(struct bulk_compare *job)
{
	XXH128_canonical_t canonical;

	if (job->finished)
		return;
	job->finished = true;
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(job->hash));
	for (size_t i = 0; i < sizeof(canonical.digest); i++)
		snprintf(job->result.hash + 2 * i, 3, "%02x", canonical.digest[i]);
	job->spec.done(job, &job->result, job->spec.user);
}

/* ---- reading ---- */

static void leg_read(struct blk_req *req)
{
	struct compare_leg *leg = container_of(req, struct compare_leg, req);
	struct compare_slot *slot = leg->slot;
	struct bulk_compare *job = slot->job;

	slot->reading--;
	job->reading--;
	if (req->result && !job->result.result)
		job->result.result = req->result;
	judge_ready(job);
	compare_pump(job);
}

static void leg_start(struct compare_leg *leg, struct blk_dev *dev, uint64_t offset_bytes,
		      uint64_t len_bytes)
{
	leg->iov = (struct iovec){ leg->buf->bytes, len_bytes };
	leg->req = (struct blk_req){
		.op = BLK_READ,
		.flags = BLK_COPIER,
		.offset_bytes = offset_bytes,
		.len_bytes = len_bytes,
		.iov = &leg->iov,
		.iov_count = 1,
		.done = leg_read,
	};
	leg->slot->reading++;
	leg->slot->job->reading++;
	blk_submit(dev, &leg->req);
}

static void scout_ready(struct extent_scout *scout, int result)
{
	struct compare_side *side = container_of(scout, struct compare_side, scout);

	if (result && !side->job->result.result)
		side->job->result.result = result;
	compare_pump(side->job);
}

/* Do both sides know what lies at next_bytes?  Asks where one does not. */
static bool scouts_know(struct bulk_compare *job)
{
	bool know = true;

	for (int i = 0; i < 2; i++) {
		struct extent_scout *scout = &job->sides[i].scout;

		if (scout->asking) {
			know = false;
		} else if (!extent_scout_knows(scout, job->next_bytes)) {
			extent_scout_ask(scout, job->next_bytes);
			know = false;
		}
	}
	return know;
}

static void slot_start(struct bulk_compare *job, struct compare_slot *slot)
{
	uint64_t offset_bytes = job->next_bytes;

	slot->len_bytes = MIN(BULK_COMPARE_CHUNK_BYTES, job->common_bytes - offset_bytes);
	slot->busy = true;
	slot->zero = extent_scout_is_zero(&job->sides[0].scout, offset_bytes, slot->len_bytes) &&
		     extent_scout_is_zero(&job->sides[1].scout, offset_bytes, slot->len_bytes);
	job->next_bytes += slot->len_bytes;
	for (int i = 0; i < 2 && !slot->zero; i++)
		leg_start(&slot->legs[i], job->sides[i].dev, offset_bytes, slot->len_bytes);
}

static void compare_pump(struct bulk_compare *job)
{
	if (atomic_load(&job->cancelled) && !job->result.result)
		job->result.result = -ECANCELED;
	while (!job->result.result && job->next_bytes < job->common_bytes) {
		struct compare_slot *slot =
			&job->slots[(job->next_bytes / BULK_COMPARE_CHUNK_BYTES) % BULK_COMPARE_DEPTH];

		if (slot->busy || !scouts_know(job))
			return;
		slot_start(job, slot);
		judge_ready(job);
	}
	if (job->reading || job->sides[0].scout.asking || job->sides[1].scout.asking)
		return;
	if (job->result.result || job->judged_bytes == job->common_bytes)
		compare_finish(job);
}

static void compare_begin(struct task *task)
{
	compare_pump(container_of(task, struct bulk_compare, begin));
}

static bool slots_init(struct bulk_compare *job)
{
	for (uint32_t i = 0; i < BULK_COMPARE_DEPTH; i++) {
		job->slots[i].job = job;
		for (int leg = 0; leg < 2; leg++) {
			job->slots[i].legs[leg].slot = &job->slots[i];
			job->slots[i].legs[leg].buf =
				buf_get(job->spec.pool, BULK_COMPARE_CHUNK_BYTES);
			if (!job->slots[i].legs[leg].buf)
				return false;
		}
	}
	return true;
}

struct bulk_compare *bulk_compare_start(const struct bulk_compare_spec *spec)
{
	struct bulk_compare *job = calloc(1, sizeof(*job));
	uint64_t first_bytes = spec->first->size_bytes, second_bytes = spec->second->size_bytes;

	if (!job)
		return NULL;
	job->spec = *spec;
	job->common_bytes = MIN(first_bytes, second_bytes);
	job->result.differing_bytes = MAX(first_bytes, second_bytes) - job->common_bytes;
	for (int i = 0; i < 2; i++) {
		job->sides[i].job = job;
		job->sides[i].dev = i ? spec->second : spec->first;
		extent_scout_init(&job->sides[i].scout, job->sides[i].dev, scout_ready);
	}
	job->hash = XXH3_createState();
	job->zeroes = calloc(1, BULK_COMPARE_CHUNK_BYTES);
	if (!job->hash || !job->zeroes || !slots_init(job)) {
		bulk_compare_free(job);
		return NULL;
	}
	CHECK(XXH3_128bits_reset(job->hash) == XXH_OK);
	job->begin.run = compare_begin;
	loop_post(spec->first->loop, &job->begin);
	return job;
}

void bulk_compare_free(struct bulk_compare *job)
{
	if (!job)
		return;
	CHECK(job->reading == 0);
	for (uint32_t i = 0; i < BULK_COMPARE_DEPTH; i++)
		for (int leg = 0; leg < 2; leg++)
			buf_put(job->slots[i].legs[leg].buf);
	XXH3_freeState(job->hash);
	free(job->zeroes);
	free(job);
}

void bulk_compare_cancel(struct bulk_compare *job)
{
	atomic_store(&job->cancelled, true);
}

uint64_t bulk_compare_done_bytes(const struct bulk_compare *job)
{
	return atomic_load(&job->done_bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/move_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop_sim.h"

#define STEPS_MAX UINT64_C(20000000)

/* ---- the record ---- */

static void rig_commit_fired(struct timer *timer)
{
	struct rig *rig = container_of(timer, struct rig, commit_timer);

	mover_committed(rig->mover, rig->commit_result);
}

static void rig_commit(struct mover *mover, void *user)
{
	struct rig *rig = user;

	(void)mover;
	rig->commits++;
	if (!rig->hold_commit)
		timer_start(&rig->commit_timer, NS_PER_MS);
}

static void rig_changed(struct mover *mover, void *user)
{
	(void)mover;
	(void)user;
}

static const struct mover_ops rig_ops = { .changed = rig_changed, .commit = rig_commit };

/* ---- life ---- */

static void rig_add_disk(struct rig *rig, const struct rig_options *options)
{
	struct rig_disk *disk = &rig->disks[rig->disk_count++];
	const struct blk_limits *limits = options->target_limits.block_bytes ?
						  &options->target_limits : NULL;

	disk->source = mem_dev_new(rig->loop, options->size_bytes, NULL);
	disk->target = mem_dev_new(rig->loop, options->size_bytes, limits);
	CHECK(disk->source && disk->target);
	for (uint64_t at = 0; at < options->size_bytes; at += 8) {
		uint64_t word = (at + 1) * UINT64_C(0x9e3779b97f4a7c15) + rig->disk_count;

		memcpy(disk->source->bytes + at, &word, 8);
	}
	memset(disk->source->pages, BLK_EXTENT_DATA, options->size_bytes / MEM_DEV_PAGE_BYTES);
	disk->source_delay = wrap_delay_new(&disk->source->dev, &options->source_delay);
	disk->target_fault = wrap_fault_new(&disk->target->dev);
	CHECK(disk->source_delay && disk->target_fault);
	disk->target_delay = wrap_delay_new(disk->target_fault, &options->target_delay);
	disk->gate = gate_new(rig->loop, disk->source_delay, options->size_bytes);
	CHECK(disk->target_delay && disk->gate);
}

struct rig *rig_new(const struct rig_options *options)
{
	struct mover_disk disks[RIG_DISKS_MAX];
	struct rig *rig = calloc(1, sizeof(*rig));
	struct err err;

	CHECK(rig);
	CHECK(options->disk_count <= RIG_DISKS_MAX);
	rig->loop = loop_sim_new(options->seed ? options->seed : 1);
	CHECK(rig->loop);
	rig->pool = buf_pool_new(rig->loop, options->pool_bytes ? options->pool_bytes :
								  UINT64_C(256) << 20);
	CHECK(rig->pool);
	timer_init(&rig->commit_timer, rig->loop, rig_commit_fired);
	for (uint32_t i = 0; i < options->disk_count; i++) {
		rig_add_disk(rig, options);
		disks[i] = (struct mover_disk){ .gate = rig->disks[i].gate,
						.source = rig->disks[i].source_delay,
						.target = rig->disks[i].target_delay,
						.name = "disk" };
	}
	CHECK(mover_new(rig->loop, rig->pool, disks, rig->disk_count, &options->mover, &rig_ops,
			rig, &rig->mover, &err) == 0);
	return rig;
}

static void rig_freed(void *user)
{
	struct rig *rig = user;

	rig->freed = true;
}

static void rig_let_all_go(struct rig *rig)
{
	for (uint32_t i = 0; i < rig->disk_count; i++) {
		struct rig_disk *disk = &rig->disks[i];

		mem_dev_hang(disk->source, false);
		mem_dev_hang(disk->target, false);
		wrap_delay_hang(disk->source_delay, false);
		wrap_delay_hang(disk->target_delay, false);
	}
}

void rig_free(struct rig *rig)
{
	struct err err;

	rig_let_all_go(rig);
	if (rig->freed)
		goto close_disks;
	if (!rig_has_ended(rig) && mover_cancel(rig->mover, &err))
		CHECK(mover_state(rig->mover) == MOVER_COMMIT ||
		      mover_state(rig->mover) == MOVER_SWITCHED || rig->mover->leaving);
	if (mover_state(rig->mover) == MOVER_COMMIT && !rig->commit_timer.started)
		mover_committed(rig->mover, 0);
	CHECK(rig_run_until(rig, rig_has_ended, 1000 * NS_PER_S));
	if (!rig->mover->freed)
		mover_free(rig->mover, rig_freed, rig);
	CHECK(rig_run_until(rig, rig_is_freed, 1000 * NS_PER_S));
close_disks:
	while (loop_sim_step(rig->loop))
		continue;
	for (uint32_t i = 0; i < rig->disk_count; i++) {
		struct rig_disk *disk = &rig->disks[i];

		gate_free(disk->gate);
		blk_close(disk->source_delay);
		blk_close(disk->target_delay);
		blk_close(disk->target_fault);
		blk_close(&disk->source->dev);
		blk_close(&disk->target->dev);
	}
	buf_pool_free(rig->pool);
	loop_free(rig->loop);
	free(rig);
}

void rig_start(struct rig *rig)
{
	mover_start(rig->mover);
}

/* ---- running ---- */

bool rig_run_until(struct rig *rig, bool (*done)(struct rig *rig), uint64_t within_ns)
{
	uint64_t until_ns = loop_now_ns(rig->loop) + within_ns;

	for (uint64_t step = 0; step < STEPS_MAX; step++) {
		if (done(rig))
			return true;
		if (loop_now_ns(rig->loop) > until_ns || !loop_sim_step(rig->loop))
			return false;
	}
	return false;
}

static bool rig_never(struct rig *rig)
{
	(void)rig;
	return false;
}

void rig_run_for(struct rig *rig, uint64_t ns)
{
	(void)rig_run_until(rig, rig_never, ns);
}

bool rig_run_to_state(struct rig *rig, enum mover_state state, uint64_t within_ns)
{
	uint64_t until_ns = loop_now_ns(rig->loop) + within_ns;

	for (uint64_t step = 0; step < STEPS_MAX; step++) {
		if (mover_state(rig->mover) == state)
			return true;
		if (loop_now_ns(rig->loop) > until_ns || !loop_sim_step(rig->loop))
			return false;
	}
	return false;
}

bool rig_has_ended(struct rig *rig)
{
	enum mover_state state;

	if (rig->freed)
		return true;
	state = mover_state(rig->mover);
	return state == MOVER_DONE || state == MOVER_FAILED || state == MOVER_CANCELLED;
}

bool rig_is_freed(struct rig *rig)
{
	return rig->freed;
}

/* ---- a guest's requests ---- */

static void rig_write_done(struct blk_req *req)
{
	struct rig_write *write = req->user;

	write->done = true;
	write->took_ns = loop_now_ns(req->dev->loop) - write->began_ns;
}

struct rig_write *rig_write_new(void)
{
	struct rig_write *write = calloc(1, sizeof(*write));

	CHECK(write);
	return write;
}

void rig_request_begin(struct rig *rig, uint32_t disk, struct rig_write *write, enum blk_op op,
		       uint64_t offset_bytes, uint64_t len_bytes)
{
	write->done = false;
	write->began_ns = loop_now_ns(rig->loop);
	write->iov = (struct iovec){ .iov_base = write->bytes, .iov_len = len_bytes };
	write->req = (struct blk_req){ .op = op, .offset_bytes = offset_bytes,
				       .len_bytes = len_bytes, .done = rig_write_done,
				       .user = write };
	if (op == BLK_READ || op == BLK_WRITE) {
		CHECK(len_bytes <= RIG_WRITE_MAX);
		write->req.iov = &write->iov;
		write->req.iov_count = 1;
	}
	blk_submit(gate_as_dev(rig->disks[disk].gate), &write->req);
}

void rig_write_begin(struct rig *rig, uint32_t disk, struct rig_write *write, uint64_t offset_bytes,
		     uint64_t len_bytes, uint8_t fill)
{
	CHECK(len_bytes <= RIG_WRITE_MAX);
	memset(write->bytes, fill, len_bytes);
	rig_request_begin(rig, disk, write, BLK_WRITE, offset_bytes, len_bytes);
}

void rig_write(struct rig *rig, uint32_t disk, uint64_t offset_bytes, uint64_t len_bytes,
	       uint8_t fill)
{
	struct rig_write *write = rig_write_new();

	rig_write_begin(rig, disk, write, offset_bytes, len_bytes, fill);
	while (!write->done)
		CHECK(loop_sim_step(rig->loop));
	CHECK(write->req.result == 0);
	free(write);
}

bool rig_disks_are_equal(const struct rig *rig)
{
	for (uint32_t i = 0; i < rig->disk_count; i++)
		if (memcmp(rig->disks[i].source->bytes, rig->disks[i].target->bytes,
			   rig->disks[i].source->dev.size_bytes) != 0)
			return false;
	return true;
}

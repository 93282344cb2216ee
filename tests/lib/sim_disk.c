/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/sim_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

struct sim_req {
	struct timer timer;
	uint8_t *rmw;                   /* the physical blocks around a small write */
	uint64_t *flushed;              /* FLUSH: the versions when it began, then the bytes */
	uint8_t stage;                  /* 0: to land, 1: to complete */
	bool fails;
	bool fails_before;              /* without landing */
	bool dropped;
};
_Static_assert(sizeof(struct sim_req) <= BLK_REQ_PRIVATE_BYTES, "fits the request");

static struct sim_req *sim_req(struct blk_req *req)
{
	return (struct sim_req *)req->private_bytes;
}

static struct sim_disk *sim_disk(struct blk_dev *dev)
{
	return container_of(dev, struct sim_disk, dev);
}

static uint64_t sim_latency(struct sim_disk *disk)
{
	const struct sim_disk_options *options = &disk->options;

	return options->min_latency_ns +
	       loop_random_below(disk->dev.loop,
				 options->max_latency_ns - options->min_latency_ns + 1);
}

static uint64_t sim_flush_latency(struct sim_disk *disk, const struct blk_req *req)
{
	if (req->op != BLK_FLUSH || !disk->options.max_flush_ns)
		return 0;
	return loop_random_below(disk->dev.loop, disk->options.max_flush_ns);
}

/* ---- landing ---- */

static void sim_fill(uint8_t *bytes, uint64_t len, uint64_t tag)
{
	for (uint64_t at = 0; at < len; at += sizeof(tag))
		memcpy(bytes + at, &tag, sizeof(tag));
}

static void sim_put(struct sim_disk *disk, uint64_t offset, const void *from, uint64_t len,
		    bool unmap)
{
	memcpy(disk->bytes + offset, from, len);
	for (uint64_t at = offset; at < offset + len; at += SIM_BLOCK) {
		disk->versions[at / SIM_BLOCK]++;
		disk->allocated[at / SIM_BLOCK] = !unmap;
	}
}

static void sim_copy_iov(uint8_t *flat, const struct blk_req *req, bool to_iov)
{
	for (uint32_t i = 0; i < req->iov_count; i++) {
		if (to_iov)
			memcpy(req->iov[i].iov_base, flat, req->iov[i].iov_len);
		else
			memcpy(flat, req->iov[i].iov_base, req->iov[i].iov_len);
		flat += req->iov[i].iov_len;
	}
}

/* How much of a write lands: a failing one may be torn. */
static uint64_t sim_landing_bytes(struct sim_disk *disk, const struct blk_req *req)
{
	if (!sim_req((struct blk_req *)req)->fails)
		return req->len_bytes;
	return (1 + loop_random_below(disk->dev.loop, req->len_bytes / SIM_BLOCK)) * SIM_BLOCK;
}

/* Some stores do not keep what they were given, and do not say so. */
static bool sim_lie(struct sim_disk *disk, const struct blk_req *req, uint8_t *bytes, uint64_t len)
{
	if (!disk->lie_one_in || !(req->flags & BLK_COPIER) ||
	    loop_random_below(disk->dev.loop, disk->lie_one_in))
		return false;
	bytes[loop_random_below(disk->dev.loop, len)] ^= 0x80;
	disk->lies++;
	return true;
}

static void sim_land_write(struct sim_disk *disk, struct blk_req *req)
{
	struct sim_req *state = sim_req(req);
	uint32_t physical = disk->options.physical_bytes;
	uint64_t start = round_down(req->offset_bytes, physical);
	uint64_t end = MIN(round_up(req->offset_bytes + req->len_bytes, physical),
			   disk->dev.size_bytes);
	uint64_t len = sim_landing_bytes(disk, req);
	uint8_t *flat = malloc(req->len_bytes);
	bool lie;

	CHECK(flat);
	if (req->op == BLK_WRITE)
		sim_copy_iov(flat, req, false);
	else
		sim_fill(flat, req->len_bytes,
			 req->op == BLK_DISCARD ? disk->options.discard_tag : 0);
	lie = sim_lie(disk, req, flat, len);
	if (state->rmw) {               /* the whole physical blocks go back, read earlier */
		memcpy(state->rmw + (req->offset_bytes - start), flat, len);
		sim_put(disk, start, state->rmw, end - start, false);
	} else {
		sim_put(disk, req->offset_bytes, flat, len,
			req->op == BLK_WRITE_ZEROES && (req->flags & BLK_MAY_UNMAP) && !lie);
	}
	free(flat);
	disk->writes++;
}

static void sim_land_extents(struct sim_disk *disk, struct blk_req *req)
{
	struct blk_extents *extents = req->extents;
	uint64_t at = req->offset_bytes, end = req->offset_bytes + req->len_bytes;

	extents->count = 0;
	while (at < end && extents->count < extents->capacity) {
		bool data = !disk->options.has_extents || disk->allocated[at / SIM_BLOCK];
		uint64_t next = at;

		while (next < end && (!disk->options.has_extents ||
				      !!disk->allocated[next / SIM_BLOCK] == data))
			next += SIM_BLOCK;
		extents->runs[extents->count++] = (struct blk_extent){
			.len_bytes = next - at,
			.status = data ? BLK_EXTENT_DATA : BLK_EXTENT_HOLE,
		};
		at = next;
	}
}

static void sim_land(struct sim_disk *disk, struct blk_req *req)
{
	switch (req->op) {
	case BLK_READ: {
		bool hole = true;

		for (uint64_t at = req->offset_bytes; at < req->offset_bytes + req->len_bytes;
		     at += SIM_BLOCK)
			hole = hole && !disk->allocated[at / SIM_BLOCK];
		disk->reads_of_holes += hole && (req->flags & BLK_COPIER);
		sim_copy_iov(disk->bytes + req->offset_bytes, req, true);
		break;
	}
	case BLK_WRITE:
	case BLK_WRITE_ZEROES:
	case BLK_DISCARD:
		sim_land_write(disk, req);
		break;
	case BLK_EXTENTS:
		sim_land_extents(disk, req);
		break;
	default:
		break;
	}
}

/* ---- a request's two moments ---- */

static void sim_flush_done(struct sim_disk *disk, struct blk_req *req)
{
	uint64_t blocks = disk->dev.size_bytes / SIM_BLOCK;
	const uint64_t *flushed = sim_req(req)->flushed;
	const uint8_t *as_it_was = (const uint8_t *)(flushed + blocks);

	/* What was written since the flush began is not covered. */
	for (uint64_t block = 0; block < blocks; block++) {
		if (flushed[block] <= disk->durable_versions[block])
			continue;
		memcpy(disk->durable + block * SIM_BLOCK, as_it_was + block * SIM_BLOCK, SIM_BLOCK);
		disk->durable_versions[block] = flushed[block];
	}
}

/* What was not durable may be gone, from the cache too; the next flush knows nothing of it. */
static void sim_flush_failed(struct sim_disk *disk)
{
	for (uint64_t block = 0; block < disk->dev.size_bytes / SIM_BLOCK; block++) {
		if (disk->versions[block] == disk->durable_versions[block] ||
		    loop_random_below(disk->dev.loop, 2))
			continue;
		memcpy(disk->bytes + block * SIM_BLOCK, disk->durable + block * SIM_BLOCK,
		       SIM_BLOCK);
		disk->allocated[block] = 1;
		disk->durable_versions[block] = disk->versions[block];
	}
}

static void sim_make_durable(struct sim_disk *disk, const struct blk_req *req)
{
	for (uint64_t at = req->offset_bytes; at < req->offset_bytes + req->len_bytes;
	     at += SIM_BLOCK) {
		memcpy(disk->durable + at, disk->bytes + at, SIM_BLOCK);
		disk->durable_versions[at / SIM_BLOCK] = disk->versions[at / SIM_BLOCK];
	}
}

/* With SIM_TRACE set in the environment every landing and completion is told. */
static void sim_trace(const struct sim_disk *disk, const struct blk_req *req, const char *what)
{
	static int wanted = -1;

	if (wanted < 0)
		wanted = getenv("SIM_TRACE") != NULL;
	if (wanted)
		fprintf(stderr, "%10llu us %s %p %s %s%s %llx blocks %llu+%llu\n",
			(unsigned long long)(loop_now_ns(disk->dev.loop) / NS_PER_US),
			disk->options.name, (const void *)disk, what, blk_op_name(req->op),
			req->flags & BLK_COPIER ? " (copier)" : "",
			req->iov ? *(const unsigned long long *)req->iov[0].iov_base : 0,
			(unsigned long long)(req->offset_bytes / SIM_BLOCK),
			(unsigned long long)(req->len_bytes / SIM_BLOCK));
}

static void sim_req_fired(struct timer *timer)
{
	struct sim_req *state = container_of(timer, struct sim_req, timer);
	struct blk_req *req = container_of((void *)state, struct blk_req, private_bytes);
	struct sim_disk *disk = sim_disk(req->dev);

	if (state->stage == 0) {
		if (disk->hung) {
			list_remove(&req->node);
			list_append(&disk->hanging, &req->node);
			return;
		}
		sim_trace(disk, req, state->fails_before ? "loses" : "lands");
		if (!state->fails_before)
			sim_land(disk, req);
		state->stage = 1;
		timer_start(timer, sim_latency(disk));
		return;
	}
	if (req->op == BLK_FLUSH && state->fails)
		sim_flush_failed(disk);
	else if (req->op == BLK_FLUSH)
		sim_flush_done(disk, req);
	if (!state->fails && (req->flags & BLK_FUA))
		sim_make_durable(disk, req);
	sim_trace(disk, req, state->fails ? "fails" : "completes");
	free(state->rmw);
	free(state->flushed);
	list_remove(&req->node);
	blk_complete(req, state->fails ? disk->error : 0);
}

static void sim_check_overlap(struct sim_disk *disk, const struct blk_req *req)
{
	uint32_t physical = disk->options.physical_bytes;
	struct list *lists[] = { &disk->in_flight, &disk->hanging };

	if (!disk->options.forbid_overlap || !blk_op_writes(req->op))
		return;
	for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
		list_for_each(node, lists[i]) {
			const struct blk_req *other = list_entry(node, struct blk_req, node);

			if (!blk_op_writes(other->op))
				continue;
			CHECK(round_down(req->offset_bytes, physical) >=
				      other->offset_bytes + other->len_bytes ||
			      round_down(other->offset_bytes, physical) >=
				      req->offset_bytes + req->len_bytes);
		}
	}
}

/* A write smaller than its physical blocks reads them first. */
static void sim_start_rmw(struct sim_disk *disk, struct blk_req *req)
{
	uint32_t physical = disk->options.physical_bytes;
	uint64_t start = round_down(req->offset_bytes, physical);
	uint64_t end = MIN(round_up(req->offset_bytes + req->len_bytes, physical),
			   disk->dev.size_bytes);

	if (!disk->options.rmw_races || !blk_op_writes(req->op) ||
	    (start == req->offset_bytes && end == req->offset_bytes + req->len_bytes))
		return;
	sim_req(req)->rmw = malloc(round_up(end - start, physical));
	CHECK(sim_req(req)->rmw);
	memcpy(sim_req(req)->rmw, disk->bytes + start, end - start);
}

static void sim_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct sim_disk *disk = sim_disk(dev);
	struct sim_req *state = sim_req(req);

	*state = (struct sim_req){ 0 };
	sim_check_overlap(disk, req);
	sim_start_rmw(disk, req);
	if (req->op == BLK_FLUSH) {
		uint64_t blocks = dev->size_bytes / SIM_BLOCK;

		state->flushed = malloc(blocks * sizeof(uint64_t) + dev->size_bytes);
		CHECK(state->flushed);
		memcpy(state->flushed, disk->versions, blocks * sizeof(uint64_t));
		memcpy(state->flushed + blocks, disk->bytes, dev->size_bytes);
	}
	if (disk->error_one_in && (disk->error_ops >> req->op & 1) &&
	    loop_random_below(dev->loop, disk->error_one_in) == 0) {
		state->fails = true;
		state->fails_before = loop_random_below(dev->loop, 2) == 0;
	}
	if (req->op == BLK_FLUSH && disk->bad_flushes && loop_random_below(dev->loop, 2)) {
		disk->bad_flushes--;
		state->fails = true;
	}
	list_append(&disk->in_flight, &req->node);
	timer_init(&state->timer, dev->loop, sim_req_fired);
	timer_start(&state->timer, sim_latency(disk) + sim_flush_latency(disk, req));
}

void sim_disk_hang(struct sim_disk *disk, bool hung)
{
	struct list *node;

	disk->hung = hung;
	while (!hung && (node = list_pop(&disk->hanging))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		list_append(&disk->in_flight, &req->node);
		timer_start(&sim_req(req)->timer, sim_latency(disk));
	}
}

void sim_disk_power_cut(struct sim_disk *disk)
{
	for (uint64_t block = 0; block < disk->dev.size_bytes / SIM_BLOCK; block++)
		if (disk->versions[block] != disk->durable_versions[block] &&
		    loop_random_below(disk->dev.loop, 2)) {
			memcpy(disk->bytes + block * SIM_BLOCK, disk->durable + block * SIM_BLOCK,
			       SIM_BLOCK);
			disk->allocated[block] = 1;
		}
}

static void sim_land_the_rest(struct sim_disk *disk, struct list *requests, bool power_cut)
{
	list_for_each(node, requests) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		if (sim_req(req)->stage == 0 && blk_op_writes(req->op) &&
		    !(power_cut && loop_random_below(disk->dev.loop, 2)))
			sim_land(disk, req);
	}
}

struct sim_disk *sim_disk_after_crash(struct loop *loop, struct sim_disk *disk, bool power_cut)
{
	uint64_t size = disk->options.size_bytes, blocks = size / SIM_BLOCK;
	struct sim_disk *copy = sim_disk_new(loop, &disk->options);

	sim_land_the_rest(disk, &disk->in_flight, power_cut);
	sim_land_the_rest(disk, &disk->hanging, power_cut);
	if (power_cut)
		sim_disk_power_cut(disk);
	memcpy(copy->bytes, disk->bytes, size);
	memcpy(copy->durable, power_cut ? disk->bytes : disk->durable, size);
	memcpy(copy->allocated, disk->allocated, blocks);
	for (uint64_t block = 0; block < blocks; block++)
		copy->versions[block] = copy->durable_versions[block] =
			power_cut ? 0 : disk->durable_versions[block];
	for (uint64_t block = 0; block < blocks && !power_cut; block++)
		copy->versions[block] = disk->versions[block];
	return copy;
}

/* ---- life ---- */

static void sim_close(struct blk_dev *dev)
{
	struct sim_disk *disk = sim_disk(dev);

	free(disk->bytes);
	free(disk->durable);
	free(disk->versions);
	free(disk->durable_versions);
	free(disk->allocated);
	free(disk);
}

static const struct blk_ops sim_ops = { .name = "sim", .submit = sim_submit, .close = sim_close };

struct sim_disk *sim_disk_new(struct loop *loop, const struct sim_disk_options *options)
{
	struct sim_disk *disk = calloc(1, sizeof(*disk));
	uint64_t blocks = options->size_bytes / SIM_BLOCK;
	struct blk_limits limits = {
		.block_bytes = SIM_BLOCK, .physical_bytes = options->physical_bytes,
		.memory_align_bytes = 1, .best_transfer_bytes = 1u << 20, .best_depth = 8,
		.reads_zero = options->reads_zero, .can_unmap = true,
		.has_extents = options->has_extents,
	};

	CHECK(disk);
	disk->options = *options;
	blk_dev_init(&disk->dev, &sim_ops, loop, options->size_bytes, &limits);
	disk->bytes = calloc(1, options->size_bytes);
	disk->durable = calloc(1, options->size_bytes);
	disk->versions = calloc(blocks, sizeof(uint64_t));
	disk->durable_versions = calloc(blocks, sizeof(uint64_t));
	disk->allocated = calloc(1, blocks);
	CHECK(disk->bytes && disk->durable && disk->versions && disk->durable_versions &&
	      disk->allocated);
	disk->error = -EIO;
	list_init(&disk->hanging);
	list_init(&disk->in_flight);
	if (!options->reads_zero)
		for (uint64_t i = 0; i < options->size_bytes; i += 8) {
			uint64_t garbage = loop_random(loop);

			memcpy(disk->bytes + i, &garbage, 8);
			memcpy(disk->durable + i, &garbage, 8);
		}
	return disk;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/sim_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define IN_FLIGHT UINT64_MAX

/* ---- the model ---- */

/* May the block still hold `write`, given what was acknowledged by `horizon`? */
static bool write_is_possible(const struct sim_block *block, const struct sim_write *write,
			      uint64_t horizon)
{
	for (uint32_t i = 0; i < block->count; i++) {
		const struct sim_write *later = &block->log[i];

		if (write->end != IN_FLIGHT && later->start > write->end && later->end < horizon)
			return false;
	}
	return true;
}

static bool tag_is_possible(const struct sim_block *block, uint64_t tag, uint64_t horizon)
{
	for (uint32_t i = 0; i < block->count; i++)
		if (block->log[i].tag == tag &&
		    write_is_possible(block, &block->log[i], horizon))
			return true;
	return false;
}

/* Forget what is impossible even after a power cut, and for every read in flight. */
static void block_prune(const struct sim_guest *guest, struct sim_block *block)
{
	uint64_t horizon = guest->flush_start;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < SIM_GUEST_SLOTS; i++)
		if (guest->slots[i].busy)
			horizon = MIN(horizon, guest->slots[i].start);
	for (uint32_t i = 0; i < block->count; i++)
		if (write_is_possible(block, &block->log[i], horizon))
			block->log[kept++] = block->log[i];
	block->count = kept;
}

static void block_log(struct sim_guest *guest, uint64_t index, uint64_t tag, uint64_t start)
{
	struct sim_block *block = &guest->blocks[index];

	if (block->count == SIM_LOG_MAX)
		block_prune(guest, block);
	CHECK(block->count < SIM_LOG_MAX);
	block->log[block->count++] = (struct sim_write){ .tag = tag, .start = start,
							 .end = IN_FLIGHT };
}

static void block_ack(struct sim_guest *guest, uint64_t index, uint64_t start)
{
	struct sim_block *block = &guest->blocks[index];

	for (uint32_t i = 0; i < block->count; i++)
		if (block->log[i].start == start)
			block->log[i].end = guest->clock;
}

static void fill_block(uint8_t *block, uint64_t tag)
{
	for (uint64_t i = 0; i < SIM_BLOCK; i += 8)
		memcpy(block + i, &tag, 8);
}

/* The tag of a block; a torn one has none. */
static uint64_t block_tag(const uint8_t *block)
{
	uint64_t tag, other;

	memcpy(&tag, block, 8);
	for (uint64_t i = 8; i < SIM_BLOCK; i += 8) {
		memcpy(&other, block + i, 8);
		if (other != tag)
			return UINT64_MAX;
	}
	return tag;
}

static void check_block(const struct sim_guest *guest, uint64_t index, const uint8_t *bytes,
			uint64_t horizon, const char *where)
{
	const struct sim_block *block = &guest->blocks[index];
	uint64_t tag = block_tag(bytes);

	if (guest->dead || tag_is_possible(block, tag, horizon))
		return;
	fprintf(stderr, "%s: block %llu holds write %llx, which it may not:\n", where,
		(unsigned long long)index, (unsigned long long)tag);
	for (uint32_t i = 0; i < block->count; i++)
		fprintf(stderr, "  write %llx [%llu, %llu]%s\n",
			(unsigned long long)block->log[i].tag,
			(unsigned long long)block->log[i].start,
			(unsigned long long)block->log[i].end,
			write_is_possible(block, &block->log[i], horizon) ? " possible" : "");
	CHECK(!"an acknowledged write was lost, or an old one came back");
}

static void check_disk(const struct sim_guest *guest, const struct sim_disk *disk,
		       uint64_t horizon, const char *where)
{
	for (uint64_t i = 0; i < guest->dev->size_bytes / SIM_BLOCK; i++)
		check_block(guest, i, disk->bytes + i * SIM_BLOCK, horizon, where);
}

void sim_guest_check(const struct sim_guest *guest, const struct sim_disk *disk)
{
	check_disk(guest, disk, guest->clock + 1, disk->options.name);
}

void sim_guest_check_after_cut(const struct sim_guest *guest, const struct sim_disk *disk)
{
	check_disk(guest, disk, guest->flush_start, disk->options.name);
}

/* ---- requests ---- */

static void slot_next(struct sim_slot *slot);

static void slot_think(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;

	if (guest->stopped || guest->ops_started >= guest->options.op_count)
		return;
	timer_start(&slot->think, loop_random_below(guest->loop, guest->options.think_max_ns + 1));
}

static void slot_check_read(struct sim_slot *slot)
{
	const struct sim_guest *guest = slot->guest;
	uint64_t first = slot->req.offset_bytes / SIM_BLOCK;

	/* What was possible at any moment of the read: writes acknowledged before it began rule out. */
	for (uint64_t i = 0; i < slot->req.len_bytes / SIM_BLOCK; i++)
		check_block(guest, first + i, slot->unstable + i * SIM_BLOCK, slot->start, "read");
}

static void slot_acked(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;
	const struct blk_req *req = &slot->req;

	guest->clock++;
	if (blk_op_writes(req->op)) {
		for (uint64_t at = req->offset_bytes; at < req->offset_bytes + req->len_bytes;
		     at += SIM_BLOCK)
			if (!req->result)
				block_ack(guest, at / SIM_BLOCK, slot->start);
	} else if (req->op == BLK_FLUSH && !req->result) {
		guest->flush_start = MAX(guest->flush_start, slot->start);
	} else if (req->op == BLK_READ && !req->result) {
		slot_check_read(slot);
	}
}

static void slot_done(struct blk_req *req)
{
	struct sim_slot *slot = req->user;
	struct sim_guest *guest = slot->guest;
	uint64_t took_ns = loop_now_ns(guest->loop) - slot->began_ns;

	CHECK(slot->busy);
	slot->busy = false;
	guest->ops_done++;
	guest->longest_ns = MAX(guest->longest_ns, took_ns);
	if (slot->began_ns >= guest->watched_ns)
		guest->watched_longest_ns = MAX(guest->watched_longest_ns, took_ns);
	timer_stop(&slot->scribble);
	if (req->result) {
		CHECK(guest->expect_errors || guest->dead);
		guest->errors++;
	}
	slot_acked(slot);
	buf_put(slot->data);
	slot->data = NULL;
	/* Freed at once: whoever still reads it is caught by the address sanitizer. */
	free(slot->unstable);
	slot->unstable = NULL;
	slot_think(slot);
}

static void slot_scribble(struct timer *timer)
{
	struct sim_slot *slot = container_of(timer, struct sim_slot, scribble);

	for (uint64_t at = 0; at < slot->req.len_bytes; at += SIM_BLOCK)
		fill_block(slot->unstable + at, slot->second_tag);
}

/* Half of all writes from a counted buffer that stays as it is, half from the guest's own memory. */
static void slot_fill(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;
	struct blk_req *req = &slot->req;
	uint8_t *bytes;

	if (loop_random_below(guest->loop, 2))
		slot->data = buf_get(guest->options.pool, req->len_bytes);
	if (slot->data) {
		bytes = slot->data->bytes;
		req->data = slot->data;
		req->flags |= BLK_STABLE;
	} else {
		bytes = slot->unstable = malloc(req->len_bytes);
		CHECK(bytes);
	}
	for (uint64_t at = 0; at < req->len_bytes; at += SIM_BLOCK)
		fill_block(bytes + at, slot->tag);
	slot->iov[0] = (struct iovec){ .iov_base = bytes, .iov_len = req->len_bytes };
	req->iov = slot->iov;
	req->iov_count = 1;
	if (slot->unstable && req->len_bytes > SIM_BLOCK) {     /* in two pieces */
		slot->iov[0].iov_len = SIM_BLOCK;
		slot->iov[1] = (struct iovec){ .iov_base = bytes + SIM_BLOCK,
					       .iov_len = req->len_bytes - SIM_BLOCK };
		req->iov_count = 2;
	}
	if (slot->unstable && guest->options.scribbles) {
		slot->second_tag = ++guest->next_tag;
		timer_start(&slot->scribble, loop_random_below(guest->loop, NS_PER_MS));
	}
}

static void slot_log(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;
	const struct blk_req *req = &slot->req;

	for (uint64_t at = req->offset_bytes; at < req->offset_bytes + req->len_bytes;
	     at += SIM_BLOCK) {
		block_log(guest, at / SIM_BLOCK, slot->tag, slot->start);
		if (slot->second_tag)
			block_log(guest, at / SIM_BLOCK, slot->second_tag, slot->start);
		for (int i = 0; i < 2 && req->op == BLK_DISCARD; i++)
			block_log(guest, at / SIM_BLOCK, guest->options.discard_tags[i], slot->start);
	}
}

static enum blk_op pick_op(struct sim_guest *guest)
{
	uint64_t dice = loop_random_below(guest->loop, 20);

	if (dice < 12)
		return BLK_WRITE;
	if (dice < 16)
		return BLK_READ;
	if (dice < 18)
		return BLK_FLUSH;
	if (dice < 19 || !guest->options.discards)
		return BLK_WRITE_ZEROES;
	return BLK_DISCARD;
}

static void slot_place(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;
	uint64_t size = guest->dev->size_bytes;
	uint64_t len = (1 + loop_random_below(guest->loop, guest->options.max_blocks)) * SIM_BLOCK;

	if (guest->options.hot_bytes && loop_random_below(guest->loop, 2))
		size = guest->options.hot_bytes;
	len = MIN(len, size);
	slot->req.len_bytes = len;
	slot->req.offset_bytes =
		loop_random_below(guest->loop, (size - len) / SIM_BLOCK + 1) * SIM_BLOCK;
}

/* How many of the block's writes are in flight or remembered is bounded by the slots and the log. */
static bool slot_has_room(const struct sim_slot *slot)
{
	const struct sim_guest *guest = slot->guest;

	for (uint64_t at = slot->req.offset_bytes;
	     at < slot->req.offset_bytes + slot->req.len_bytes; at += SIM_BLOCK) {
		struct sim_block *block = &guest->blocks[at / SIM_BLOCK];

		if (block->count + 3 > SIM_LOG_MAX)
			block_prune(guest, block);
		if (block->count + 3 > SIM_LOG_MAX)
			return false;
	}
	return true;
}

static void slot_next(struct sim_slot *slot)
{
	struct sim_guest *guest = slot->guest;
	struct blk_req *req = &slot->req;

	*req = (struct blk_req){ .op = pick_op(guest), .done = slot_done, .user = slot };
	slot->second_tag = 0;
	slot->tag = 0;
	slot_place(slot);
	if (blk_op_writes(req->op) && !slot_has_room(slot))
		req->op = BLK_FLUSH;
	guest->ops_started++;
	slot->start = ++guest->clock;
	slot->began_ns = loop_now_ns(guest->loop);
	slot->busy = true;
	if (req->op == BLK_FLUSH) {
		req->offset_bytes = req->len_bytes = 0;
	} else if (req->op == BLK_READ) {
		slot->unstable = malloc(req->len_bytes);
		CHECK(slot->unstable);
		slot->iov[0] = (struct iovec){ .iov_base = slot->unstable, .iov_len = req->len_bytes };
		req->iov = slot->iov;
		req->iov_count = 1;
	} else {
		if (req->op == BLK_WRITE) {
			slot->tag = ++guest->next_tag;
			slot_fill(slot);
		} else if (loop_random_below(guest->loop, 2)) {
			req->flags |= BLK_MAY_UNMAP;
		}
		slot_log(slot);
	}
	blk_submit(guest->dev, req);
}

static void slot_thought(struct timer *timer)
{
	slot_next(container_of(timer, struct sim_slot, think));
}

/* ---- life ---- */

struct sim_guest *sim_guest_new(struct loop *loop, struct blk_dev *dev,
				const struct sim_guest_options *options)
{
	struct sim_guest *guest = calloc(1, sizeof(*guest));

	CHECK(guest);
	CHECK(options->slots <= SIM_GUEST_SLOTS);
	guest->loop = loop;
	guest->dev = dev;
	guest->options = *options;
	guest->blocks = calloc(dev->size_bytes / SIM_BLOCK, sizeof(*guest->blocks));
	CHECK(guest->blocks);
	guest->clock = 1;
	guest->flush_start = 1;
	guest->next_tag = UINT64_C(0x1000);
	guest->watched_ns = UINT64_MAX;
	for (uint32_t i = 0; i < SIM_GUEST_SLOTS; i++) {
		guest->slots[i].guest = guest;
		timer_init(&guest->slots[i].think, loop, slot_thought);
		timer_init(&guest->slots[i].scribble, loop, slot_scribble);
	}
	return guest;
}

void sim_guest_fill(struct sim_guest *guest, struct sim_disk *disk, uint64_t index, uint64_t tag)
{
	struct sim_block *block = &guest->blocks[index];

	fill_block(disk->bytes + index * SIM_BLOCK, tag);
	fill_block(disk->durable + index * SIM_BLOCK, tag);
	disk->allocated[index] = tag != 0;
	block->log[0] = (struct sim_write){ .tag = tag, .start = 0, .end = 0 };
	block->count = 1;
}

void sim_guest_start(struct sim_guest *guest)
{
	for (uint32_t i = 0; i < guest->options.slots; i++)
		slot_think(&guest->slots[i]);
}

void sim_guest_stop(struct sim_guest *guest)
{
	guest->stopped = true;
	for (uint32_t i = 0; i < SIM_GUEST_SLOTS; i++)
		timer_stop(&guest->slots[i].think);
}

bool sim_guest_is_idle(const struct sim_guest *guest)
{
	for (uint32_t i = 0; i < SIM_GUEST_SLOTS; i++)
		if (guest->slots[i].busy || guest->slots[i].think.started)
			return false;
	return true;
}

void sim_guest_free(struct sim_guest *guest)
{
	free(guest->blocks);
	free(guest);
}

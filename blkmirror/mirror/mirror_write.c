/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror_write.c - one guest write, zero or discard, in numbered stages.
 *
 * W2 enter: an op, and the range among the guest's requests (R10)
 * W3 granted: nothing overlapping is in flight; the journal knows of its extents (R-J2)
 * W4 start: choose the legs, now and not earlier (R1), and start them
 * W5 the devices carry them out (mirror_leg.c: the target's; the stores' own files)
 * W6 settle: the primary's result is the guest's; let the next one in
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/mirror_private.h"

static void mirror_op_asked_again(struct journal_wait *wait);

/* ---- ops ---- */

static struct mirror_op *mirror_op_get(struct mirror *mirror)
{
	struct list *node = list_pop(&mirror->free_ops);
	struct mirror_op *op;

	if (node) {
		op = list_entry(node, struct mirror_op, node);
	} else {
		if (mirror->op_count == MIRROR_OPS_MAX)
			return NULL;
		op = malloc(sizeof(*op));
		if (!op)
			return NULL;
		mirror->op_count++;
	}
	memset(op, 0, offsetof(struct mirror_op, primary));
	op->mirror = mirror;
	op->wait.ready = mirror_op_asked_again;
	list_init(&op->wait.node);
	list_init(&op->node);
	list_init(&op->legs);
	mirror->ops_in_use++;
	return op;
}

static void mirror_op_put(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;

	buf_put(op->data);
	mirror->ops_in_use--;
	list_prepend(&mirror->free_ops, &op->node);
}

void mirror_ops_release(struct mirror *mirror)
{
	struct list *node;

	while ((node = list_pop(&mirror->free_ops)))
		free(list_entry(node, struct mirror_op, node));
}

/* ---- W6: settle ---- */

static void mirror_write_enter(struct mirror *mirror, struct mirror_op *op, struct blk_req *guest);

/* An op has become free: requests that waited outside come in. */
static void mirror_admit(struct mirror *mirror)
{
	struct list *node;
	struct mirror_op *op;

	while (!list_is_empty(&mirror->outside)) {
		op = mirror_op_get(mirror);
		if (!op)
			return;
		node = list_pop(&mirror->outside);
		mirror_write_enter(mirror, op, list_entry(node, struct blk_req, node));
	}
}

void mirror_op_part_done(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;
	struct blk_req *guest = op->guest;
	int result;

	if (op->primary_pending || op->legs_waited)
		return;
	result = op->primary.result;
	if (op->mirrored) {             /* R13: what mirroring has cost the guest */
		mirror->stats.mirrored_ops++;
		mirror->stats.added_sum_ns += loop_now_ns(mirror->dev.loop) - op->primary_done_ns;
	}
	/* The primary's outcome is unknown after an error, and so is the difference. */
	if (result)
		mirror_set_dirty(mirror, guest->offset_bytes, guest->len_bytes);
	mirror_legs_let_go(op);
	list_remove(&op->node);
	op->started = false;
	range_lock_release(&mirror->guest_lock, &op->range);
	mirror_op_put(op);
	mirror->hooks.settled(mirror->user);
	mirror_admit(mirror);
	blk_complete(guest, result);    /* M4 */
}

static void mirror_primary_done(struct blk_req *req)
{
	struct mirror_op *op = container_of(req, struct mirror_op, primary);

	op->primary_pending = false;
	op->primary_done_ns = loop_now_ns(op->mirror->dev.loop);
	/* R12: buffered legs go on alone, they keep their own reference to the data. */
	if (op->mirror->mode == MIRROR_ASYNC)
		mirror_legs_let_go(op);
	mirror_op_part_done(op);
}

/* ---- W4: start ---- */

static bool mirror_op_has_data(const struct mirror_op *op)
{
	return op->guest->op == BLK_WRITE;
}

/*
 * A target leg needs the data in one piece that nobody changes: the export's own counted
 * buffer, or a copy.  False: no buffer to be had.
 */
static bool mirror_op_hold_data(struct mirror_op *op)
{
	const struct blk_req *guest = op->guest;
	uint8_t *to;

	if (op->data || !mirror_op_has_data(op))
		return true;
	if (guest->data && (guest->flags & BLK_STABLE) && guest->iov_count == 1) {
		op->data = buf_ref(guest->data);
		op->bytes = guest->iov[0].iov_base;
		return true;
	}
	op->data = buf_get(op->mirror->pool, guest->len_bytes);
	if (!op->data)
		return false;
	op->bytes = to = op->data->bytes;
	for (uint32_t i = 0; i < guest->iov_count; i++) {
		memcpy(to, guest->iov[i].iov_base, guest->iov[i].iov_len);
		to += guest->iov[i].iov_len;
	}
	/* Both legs must write the same bytes, whatever the guest does to its memory. */
	op->bounce = (struct iovec){ .iov_base = op->bytes, .iov_len = guest->len_bytes };
	return true;
}

/* Best effort: without a buffer the dual window waits for the next try. */
static void mirror_op_hold_for_dual(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;

	if (loop_now_ns(mirror->dev.loop) > mirror->hold_data_until_ns)
		mirror->hold_data_until_ns = 0;
	else
		(void)mirror_op_hold_data(op);
}

/* Source only, and remembered: the region is copied later. */
static void mirror_shed(struct mirror *mirror, uint64_t offset_bytes, uint64_t len_bytes)
{
	mirror->stats.shed_bytes += len_bytes;
	mirror_set_dirty(mirror, offset_bytes, len_bytes);
	mirror_windows_break(mirror, offset_bytes, len_bytes);
}

uint64_t mirror_op_held_bytes(const struct mirror_op *op)
{
	return op->data ? op->data->capacity_bytes : BUF_MIN_BYTES;
}

/* R2, R6, R12: may this part go to the target now, or is it shed? */
static bool mirror_may_mirror(struct mirror_op *op, uint64_t len_bytes)
{
	struct mirror *mirror = op->mirror;
	bool buffered = mirror->mode == MIRROR_ASYNC;

	if (mirror->suspect_held_bytes > MIRROR_SUSPECT_MAX || !mirror_op_hold_data(op))
		return false;
	if (buffered && mirror->stats.buffered_bytes + mirror_op_held_bytes(op) >
				mirror->async_buffer_bytes)
		return false;
	/* Zeroes travel as a command, whatever their length. */
	if (!mirror_op_has_data(op))
		len_bytes = MIN(len_bytes, (uint64_t)BUF_MIN_BYTES);
	return mirror->hooks.may_mirror(len_bytes, mirror->user);
}

/* A run of mirrored parts has ended: make it a leg, or shed it. */
static void mirror_op_add_run(struct mirror_op *op, uint64_t start_bytes, uint64_t end_bytes)
{
	struct mirror *mirror = op->mirror;
	uint64_t len_bytes = end_bytes - start_bytes;

	if (op->legs_waited < MIRROR_LEGS_PER_OP && mirror_may_mirror(op, len_bytes) &&
	    mirror_leg_add(op, start_bytes, len_bytes))
		mirror_windows_follow(mirror, start_bytes, len_bytes);
	else
		mirror_shed(mirror, start_bytes, len_bytes);
}

static bool mirror_is_mirrored(const struct mirror *mirror, uint64_t at_bytes)
{
	return !dirty_bitmap_test(mirror->dirty, at_bytes) ||
	       mirror_in_dual_window(mirror, at_bytes);
}

/* R7: legs for the clean parts and for those in dual windows; the rest breaks windows. */
static void mirror_op_choose_legs(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;
	uint64_t at_bytes = op->guest->offset_bytes;
	uint64_t end_bytes = at_bytes + op->guest->len_bytes;

	while (at_bytes < end_bytes) {
		bool mirrored = mirror_is_mirrored(mirror, at_bytes);
		uint64_t next_bytes = round_down(at_bytes, mirror->region_bytes);

		do {
			next_bytes += mirror->region_bytes;
		} while (next_bytes < end_bytes &&
			 mirror_is_mirrored(mirror, next_bytes) == mirrored);
		next_bytes = MIN(next_bytes, end_bytes);
		if (mirrored)
			mirror_op_add_run(op, at_bytes, next_bytes);
		else
			mirror_windows_break(mirror, at_bytes, next_bytes - at_bytes);
		at_bytes = next_bytes;
	}
}

static void mirror_op_submit_primary(struct mirror_op *op)
{
	const struct blk_req *guest = op->guest;

	op->primary = (struct blk_req){
		.op = guest->op, .flags = guest->flags,
		.offset_bytes = guest->offset_bytes, .len_bytes = guest->len_bytes,
		.iov = guest->iov, .iov_count = guest->iov_count, .data = guest->data,
		.done = mirror_primary_done,
	};
	if (guest->op == BLK_DISCARD) {         /* R8 */
		op->primary.op = BLK_WRITE_ZEROES;
		op->primary.flags |= BLK_MAY_UNMAP;
	}
	if (op->bounce.iov_base) {
		op->primary.iov = &op->bounce;
		op->primary.iov_count = 1;
		op->primary.data = op->data;
		op->primary.flags |= BLK_STABLE;
	}
	op->primary_pending = true;
	blk_submit(op->mirror->primary, &op->primary);
}

/* R1: chosen and entered in one go, after every wait. */
static void mirror_op_start(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;
	const struct blk_req *guest = op->guest;

	op->started = true;
	list_append(&mirror->started, &op->node);
	mirror->hooks.wrote(guest->offset_bytes, guest->len_bytes, mirror->user);
	if (mirror->state == MIRROR_ACTIVE)
		mirror_op_choose_legs(op);
	else if (mirror->state == MIRROR_SUSPENDED || mirror->state == MIRROR_COPY_ONLY)
		mirror_shed(mirror, guest->offset_bytes, guest->len_bytes);
	else
		mirror_windows_break(mirror, guest->offset_bytes, guest->len_bytes);
	if (mirror->hold_data_until_ns && !op->data)
		mirror_op_hold_for_dual(op);
	/*
	 * Legs first: they only queue or go down, nothing completes inside.  The primary's
	 * done() may find them.
	 */
	mirror_legs_start(op);
	mirror_op_submit_primary(op);
}

/* ---- W2, W3: enter, granted ---- */

static bool mirror_keeps_journal(const struct mirror *mirror)
{
	return mirror->journal && mirror->state != MIRROR_SWITCHED &&
	       mirror->state != MIRROR_RETIRED;
}

/* R-J2: neither leg before the record is durable.  The legs are chosen after the wait (R1). */
static void mirror_op_admit(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;

	if (mirror_keeps_journal(mirror) &&
	    !journal_admit(mirror->journal, op->guest->offset_bytes, op->guest->len_bytes,
			   &op->wait))
		return;
	mirror_op_start(op);
}

static void mirror_op_asked_again(struct journal_wait *wait)
{
	mirror_op_admit(container_of(wait, struct mirror_op, wait));
}

static void mirror_op_granted(struct range *range)
{
	mirror_op_admit(container_of(range, struct mirror_op, range));
}

static void mirror_write_enter(struct mirror *mirror, struct mirror_op *op, struct blk_req *guest)
{
	op->guest = guest;
	op->range.start_bytes = round_down(guest->offset_bytes, mirror->align_bytes);
	op->range.end_bytes = round_up(guest->offset_bytes + guest->len_bytes, mirror->align_bytes);
	op->range.granted = mirror_op_granted;
	if (range_lock_acquire(&mirror->guest_lock, &op->range))
		mirror_op_admit(op);
}

void mirror_write_submit(struct mirror *mirror, struct blk_req *guest)
{
	struct mirror_op *op = NULL;

	if (list_is_empty(&mirror->outside))
		op = mirror_op_get(mirror);
	if (!op) {
		/*
		 * Too many inside: their ends let this one in.  With none inside (out of memory)
		 * nobody would: fail it.
		 */
		if (mirror->ops_in_use == 0)
			blk_complete_later(guest, -ENOMEM);
		else
			list_append(&mirror->outside, &guest->node);
		return;
	}
	mirror_write_enter(mirror, op, guest);
}

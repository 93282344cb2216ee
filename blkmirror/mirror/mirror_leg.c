/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mirror_leg.c - target legs: queued, submitted, late, detached, settled (R2, R12, R13).
 *
 *     added -> queued in the target lock -> submitted -> settled
 *                 |                            |
 *                 +-- cut: dropped, dirty      +-- cut or late: detached, dirty, still ours
 *
 * A leg holds its range of the target lock until it has settled, and its own reference to
 * the data.  So nothing newer is written over a detached leg's range, no copy window opens
 * there, and the switch-over waits (mirror_is_settled()).
 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/mirror_private.h"

/* ---- the pool ---- */

static struct mirror_leg *mirror_leg_get(struct mirror *mirror)
{
	struct list *node = list_pop(&mirror->free_legs);
	struct mirror_leg *leg;

	if (node) {
		leg = list_entry(node, struct mirror_leg, node);
	} else {
		if (mirror->leg_count == MIRROR_LEGS_MAX)
			return NULL;
		leg = malloc(sizeof(*leg));
		if (!leg)
			return NULL;
		mirror->leg_count++;
	}
	mirror->legs_in_use++;
	return leg;
}

static void mirror_leg_put(struct mirror_leg *leg)
{
	struct mirror *mirror = leg->mirror;

	buf_put(leg->data);
	leg->data = NULL;
	mirror->legs_in_use--;
	list_prepend(&mirror->free_legs, &leg->node);
}

void mirror_legs_release(struct mirror *mirror)
{
	struct list *node;

	while ((node = list_pop(&mirror->free_legs)))
		free(list_entry(node, struct mirror_leg, node));
}

/* ---- the deadline: legs are in order of start, so the first attached one is the first late ---- */

static struct mirror_leg *mirror_first_waited(struct mirror *mirror)
{
	list_for_each(node, &mirror->legs) {
		struct mirror_leg *leg = list_entry(node, struct mirror_leg, node);

		if (leg->op)
			return leg;
	}
	return NULL;
}

static void mirror_leg_watch(struct mirror *mirror)
{
	struct mirror_leg *leg;

	if (mirror->deadline.started)
		return;
	leg = mirror_first_waited(mirror);
	if (leg)
		timer_start_at(&mirror->deadline, leg->started_ns + mirror->leg_deadline_ns);
}

void mirror_leg_deadline_fired(struct timer *timer)
{
	struct mirror *mirror = container_of(timer, struct mirror, deadline);
	struct mirror_leg *leg = mirror_first_waited(mirror);

	if (!leg)
		return;
	if (loop_now_ns(mirror->dev.loop) < leg->started_ns + mirror->leg_deadline_ns) {
		mirror_leg_watch(mirror);
		return;
	}
	/* R13: one is late, so all would be: nobody waits for this target until it is probed. */
	mirror->stats.late_legs++;
	mirror_suspend(mirror);
	mirror->hooks.trouble(-ETIMEDOUT, mirror->user);
}

/* ---- detaching ---- */

/* The op no longer waits for this leg. */
static void mirror_leg_leave_op(struct mirror_leg *leg)
{
	list_remove(&leg->op_node);
	leg->op->legs_waited--;
	leg->op = NULL;
}

void mirror_legs_let_go(struct mirror_op *op)
{
	struct list *node;

	while ((node = list_first(&op->legs))) {
		struct mirror_leg *leg = list_entry(node, struct mirror_leg, op_node);

		leg->buffered = true;
		leg->in_doubt = leg->in_doubt || op->primary.result;
		op->mirror->stats.buffered_bytes += leg->held_bytes;
		mirror_leg_leave_op(leg);
	}
}

static void mirror_leg_unbuffer(struct mirror_leg *leg)
{
	if (!leg->buffered)
		return;
	leg->mirror->stats.buffered_bytes -= leg->held_bytes;
	leg->buffered = false;
}

/* Cut one leg off: dropped when it never went down, detached when it did. */
static void mirror_leg_cut(struct mirror_leg *leg)
{
	struct mirror *mirror = leg->mirror;
	struct mirror_op *op = leg->op;

	mirror_set_dirty(mirror, leg->req.offset_bytes, leg->req.len_bytes);
	/* R4: a leg that will not follow the copier's write breaks its window. */
	mirror_windows_break(mirror, leg->req.offset_bytes, leg->req.len_bytes);
	mirror_leg_unbuffer(leg);
	if (op)
		mirror_leg_leave_op(leg);
	if (leg->submitted) {
		if (!leg->detached) {
			mirror->stats.suspect_bytes += leg->req.len_bytes;
			mirror->suspect_held_bytes += leg->held_bytes;
			mirror->legs_in_flight--;
		}
		leg->detached = true;
		list_append(&mirror->legs, &leg->node);
	} else {
		range_lock_release(&mirror->target_lock, &leg->range);
		mirror_leg_put(leg);
	}
	if (op)
		mirror_op_part_done(op);
}

/* The mirror has left ACTIVE: no leg starts any more, so this ends. */
void mirror_legs_cut(struct mirror *mirror)
{
	struct list cutting;
	struct list *node;

	CHECK(mirror->state != MIRROR_ACTIVE);
	timer_stop(&mirror->deadline);
	list_init(&cutting);
	list_splice(&cutting, &mirror->legs);
	while ((node = list_pop(&cutting)))
		mirror_leg_cut(list_entry(node, struct mirror_leg, node));
}

void mirror_legs_doubt(struct mirror *mirror)
{
	list_for_each(node, &mirror->legs)
		list_entry(node, struct mirror_leg, node)->in_doubt = true;
}

/* ---- settled ---- */

static void mirror_leg_count(struct mirror_leg *leg, int result)
{
	struct mirror *mirror = leg->mirror;
	uint64_t len_bytes = leg->req.len_bytes;

	mirror_leg_unbuffer(leg);
	if (leg->detached) {
		mirror->stats.suspect_bytes -= len_bytes;
		mirror->suspect_held_bytes -= leg->held_bytes;
	} else {
		mirror->legs_in_flight--;
		mirror->leg_moved_ns = loop_now_ns(mirror->dev.loop);
	}
	/* It may have reached the store in part, even when it failed. */
	mirror_target_written(mirror, leg->req.offset_bytes, len_bytes);
	if (result || leg->in_doubt) {
		mirror->stats.failed_legs += result != 0;
		mirror_set_dirty(mirror, leg->req.offset_bytes, len_bytes);
		mirror_windows_break(mirror, leg->req.offset_bytes, len_bytes);
	} else {
		mirror->stats.mirrored_writes++;
		mirror->stats.mirrored_bytes += len_bytes;
	}
}

static void mirror_leg_settled(struct blk_req *req)
{
	struct mirror_leg *leg = container_of(req, struct mirror_leg, req);
	struct mirror *mirror = leg->mirror;
	struct mirror_op *op = leg->op;
	int result = req->result;

	mirror_leg_count(leg, result);
	list_remove(&leg->node);
	if (op)
		mirror_leg_leave_op(leg);
	range_lock_release(&mirror->target_lock, &leg->range);
	mirror_leg_put(leg);
	if (op)
		mirror_op_part_done(op);
	if (result)
		mirror->hooks.trouble(result, mirror->user);
	mirror->hooks.settled(mirror->user);
}

/* ---- W5: a leg goes down ---- */

static void mirror_leg_submit(struct mirror_leg *leg)
{
	struct mirror *mirror = leg->mirror;

	leg->submitted = true;
	if (mirror->legs_in_flight++ == 0)
		mirror->leg_moved_ns = loop_now_ns(mirror->dev.loop);
	blk_submit(mirror->target, &leg->req);
}

uint64_t mirror_legs_still_ns(const struct mirror *mirror)
{
	return mirror->legs_in_flight ? mirror->leg_moved_ns : UINT64_MAX;
}

static void mirror_leg_granted(struct range *range)
{
	struct mirror_leg *leg = container_of(range, struct mirror_leg, range);

	/* While legs are being cut off, those not submitted are about to be dropped. */
	if (leg->mirror->state == MIRROR_ACTIVE)
		mirror_leg_submit(leg);
}

bool mirror_leg_add(struct mirror_op *op, uint64_t offset_bytes, uint64_t len_bytes)
{
	struct mirror *mirror = op->mirror;
	const struct blk_req *guest = op->guest;
	struct mirror_leg *leg = mirror_leg_get(mirror);

	if (!leg)
		return false;
	*leg = (struct mirror_leg){
		.mirror = mirror, .op = op,
		.started_ns = loop_now_ns(mirror->dev.loop),
		.held_bytes = mirror_op_held_bytes(op),
		.range = {
			.start_bytes = round_down(offset_bytes, mirror->align_bytes),
			.end_bytes = round_up(offset_bytes + len_bytes, mirror->align_bytes),
			.granted = mirror_leg_granted,
		},
		.req = {
			.op = guest->op, .flags = guest->flags & ~(unsigned)BLK_FUA,
			.offset_bytes = offset_bytes, .len_bytes = len_bytes,
			.done = mirror_leg_settled,
		},
	};
	if (guest->op == BLK_WRITE) {
		leg->data = buf_ref(op->data);
		leg->iov = (struct iovec){ .iov_base = op->bytes + (offset_bytes - guest->offset_bytes),
					   .iov_len = len_bytes };
		leg->req.iov = &leg->iov;
		leg->req.iov_count = 1;
		leg->req.data = leg->data;
		leg->req.flags |= BLK_STABLE;
	} else if (guest->op == BLK_DISCARD) {  /* R8 */
		leg->req.op = BLK_WRITE_ZEROES;
		leg->req.flags |= BLK_MAY_UNMAP;
	}
	list_append(&op->legs, &leg->op_node);
	list_init(&leg->node);
	op->legs_waited++;
	op->mirrored = true;
	return true;
}

void mirror_legs_start(struct mirror_op *op)
{
	struct mirror *mirror = op->mirror;

	/* Submitting completes nothing inside, so the list stays as it is. */
	list_for_each(node, &op->legs) {
		struct mirror_leg *leg = list_entry(node, struct mirror_leg, op_node);

		if (list_is_linked(&leg->node))         /* started before (a dual window opened) */
			continue;
		list_append(&mirror->legs, &leg->node);
		if (range_lock_acquire(&mirror->target_lock, &leg->range))
			mirror_leg_submit(leg);
	}
	mirror_leg_watch(mirror);
}

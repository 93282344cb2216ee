/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/blkdev/wrap_private.h"

struct trace_op {
	struct wrap_op base;
	struct trace_event event;
};

struct wrap_trace {
	struct blk_dev dev;
	struct blk_dev *next;
	struct wrap_pool pool;
	uint64_t sequence;              /* of the newest event; 0: none yet */
	uint32_t ring_events;
	struct trace_event *ring;       /* event n at (n - 1) % ring_events */
	void (*hook)(const struct trace_event *event, void *user);
	void *hook_user;
};

static struct trace_event *trace_slot(const struct wrap_trace *trace, uint64_t sequence)
{
	return &trace->ring[(sequence - 1) % trace->ring_events];
}

static void trace_note(struct wrap_trace *trace, const struct trace_event *event)
{
	struct trace_event *slot = trace_slot(trace, event->sequence);

	/* A slow request's place may have been taken by a newer one meanwhile. */
	if (slot->sequence <= event->sequence)
		*slot = *event;
	if (trace->hook)
		trace->hook(event, trace->hook_user);
}

static void trace_child_done(struct blk_req *child)
{
	struct trace_op *op = container_of(child, struct trace_op, base.child);
	struct wrap_trace *trace = container_of(op->base.parent->dev, struct wrap_trace, dev);

	op->event.completed_ns = loop_now_ns(trace->dev.loop);
	op->event.result = child->result;
	trace_note(trace, &op->event);
	wrap_op_answer(&trace->pool, &op->base, child->result);
}

static void trace_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct wrap_trace *trace = container_of(dev, struct wrap_trace, dev);
	struct wrap_op *base = wrap_op_get(&trace->pool, req, trace_child_done);
	struct trace_op *op;

	if (!base) {
		blk_complete_later(req, -ENOMEM);
		return;
	}
	op = container_of(base, struct trace_op, base);
	op->event = (struct trace_event){
		.sequence = ++trace->sequence, .submitted_ns = loop_now_ns(dev->loop),
		.offset_bytes = req->offset_bytes, .len_bytes = req->len_bytes, .op = req->op,
		.flags = req->flags,
	};
	trace_note(trace, &op->event);
	blk_submit(trace->next, &base->child);
}

static void trace_close(struct blk_dev *dev)
{
	struct wrap_trace *trace = container_of(dev, struct wrap_trace, dev);

	wrap_pool_release(&trace->pool);
	free(trace->ring);
	free(trace);
}

static const struct blk_ops trace_ops = {
	.name = "trace",
	.submit = trace_submit,
	.close = trace_close,
};

struct blk_dev *wrap_trace_new(struct blk_dev *next, uint32_t ring_events)
{
	struct wrap_trace *trace = calloc(1, sizeof(*trace));

	CHECK(ring_events >= 1);
	if (!trace)
		return NULL;
	trace->ring = calloc(ring_events, sizeof(*trace->ring));
	if (!trace->ring)
		goto free_trace;
	if (wrap_pool_init(&trace->pool, sizeof(struct trace_op)))
		goto free_ring;
	trace->next = next;
	trace->ring_events = ring_events;
	blk_dev_init(&trace->dev, &trace_ops, next->loop, next->size_bytes, &next->limits);
	return &trace->dev;

free_ring:
	free(trace->ring);
free_trace:
	free(trace);
	return NULL;
}

void wrap_trace_hook(struct blk_dev *dev, void (*hook)(const struct trace_event *event, void *user),
		     void *user)
{
	struct wrap_trace *trace = container_of(dev, struct wrap_trace, dev);

	LOOP_CHECK(dev->loop);
	CHECK(dev->ops == &trace_ops);
	trace->hook = hook;
	trace->hook_user = user;
}

uint32_t wrap_trace_read(const struct blk_dev *dev, struct trace_event *out, uint32_t capacity)
{
	const struct wrap_trace *trace = container_of(dev, struct wrap_trace, dev);
	uint64_t kept, first;
	uint32_t count;

	CHECK(dev->ops == &trace_ops);
	kept = MIN(trace->sequence, (uint64_t)trace->ring_events);
	first = trace->sequence - kept + 1;
	count = (uint32_t)MIN(kept, (uint64_t)capacity);
	for (uint32_t i = 0; i < count; i++)
		out[i] = *trace_slot(trace, first + i);
	return count;
}

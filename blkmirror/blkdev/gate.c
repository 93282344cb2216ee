/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/gate.h"

#include <stdlib.h>

struct gate {
	struct blk_dev dev;
	struct blk_dev *next;
	unsigned holds;
	struct list held;               /* blk_req.node, in order of arrival */
	uint64_t held_count;
	uint64_t in_flight;             /* behind the gate */
	uint64_t epoch;                 /* counts swaps */
	uint64_t old_in_flight;         /* behind the gate, from before the last swap */
	void (*drained)(struct gate *gate, void *user);
	void *drained_user;
	struct task drained_task;
	void (*epoch_drained)(struct gate *gate, void *user);
	void *epoch_user;
	struct task epoch_task;
	struct io_stats stats;
};

static void gate_maybe_drained(struct gate *gate)
{
	if (gate->drained && gate->in_flight == 0 && !gate->drained_task.queued)
		loop_post(gate->dev.loop, &gate->drained_task);
}

static void gate_drained(struct task *task)
{
	struct gate *gate = container_of(task, struct gate, drained_task);
	void (*drained)(struct gate *gate, void *user) = gate->drained;

	if (!drained || gate->in_flight)        /* cancelled, or someone got in again */
		return;
	gate->drained = NULL;
	drained(gate, gate->drained_user);
}

static void gate_maybe_epoch_drained(struct gate *gate)
{
	if (gate->epoch_drained && gate->old_in_flight == 0 && !gate->epoch_task.queued)
		loop_post(gate->dev.loop, &gate->epoch_task);
}

static void gate_epoch_drained(struct task *task)
{
	struct gate *gate = container_of(task, struct gate, epoch_task);
	void (*drained)(struct gate *gate, void *user) = gate->epoch_drained;

	if (!drained || gate->old_in_flight)    /* another swap came between */
		return;
	gate->epoch_drained = NULL;
	drained(gate, gate->epoch_user);
}

static void gate_request_done(struct blk_req *req)
{
	struct gate *gate = container_of(req->gate.dev, struct gate, dev);
	uint64_t latency_ns = loop_now_ns(gate->dev.loop) - req->gate.entered_ns;

	gate->in_flight--;
	if (req->gate.epoch != gate->epoch) {
		CHECK(gate->old_in_flight > 0);
		gate->old_in_flight--;
		gate_maybe_epoch_drained(gate);
	}
	if (req->op != BLK_EXTENTS)
		io_stats_record(&gate->stats, (int)req->op,
				req->op == BLK_FLUSH ? 0 : req->len_bytes, latency_ns, req->result);
	req->done = req->gate.done;
	req->dev = &gate->dev;
	gate_maybe_drained(gate);
	blk_complete(req, req->result);
}

static void gate_pass(struct gate *gate, struct blk_req *req)
{
	req->gate.done = req->done;
	req->gate.dev = &gate->dev;
	req->gate.epoch = gate->epoch;
	req->done = gate_request_done;
	gate->in_flight++;
	blk_submit(gate->next, req);
}

/* W1: in at the gate; behind a closed one it waits here. */
static void gate_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct gate *gate = container_of(dev, struct gate, dev);

	req->gate.entered_ns = loop_now_ns(dev->loop);
	if (gate->holds || gate->held_count) {
		list_append(&gate->held, &req->node);
		gate->held_count++;
		return;
	}
	gate_pass(gate, req);
}

static void gate_close(struct blk_dev *dev)
{
	gate_free(container_of(dev, struct gate, dev));
}

static const struct blk_ops gate_ops = {
	.name = "gate",
	.submit = gate_submit,
	.close = gate_close,
};

struct gate *gate_new(struct loop *loop, struct blk_dev *next, uint64_t size_bytes)
{
	struct gate *gate = calloc(1, sizeof(*gate));

	if (!gate)
		return NULL;
	CHECK(size_bytes <= next->size_bytes);
	blk_dev_init(&gate->dev, &gate_ops, loop, size_bytes, &next->limits);
	gate->next = next;
	list_init(&gate->held);
	gate->drained_task.run = gate_drained;
	gate->epoch_task.run = gate_epoch_drained;
	return gate;
}

void gate_free(struct gate *gate)
{
	if (!gate)
		return;
	CHECK(gate->in_flight == 0);
	CHECK(gate->held_count == 0);
	CHECK(!gate->drained);
	CHECK(!gate->epoch_drained);
	free(gate);
}

struct blk_dev *gate_as_dev(struct gate *gate)
{
	return &gate->dev;
}

void gate_hold(struct gate *gate)
{
	LOOP_CHECK(gate->dev.loop);
	gate->holds++;
}

void gate_release(struct gate *gate)
{
	struct list *node;

	LOOP_CHECK(gate->dev.loop);
	CHECK(gate->holds > 0);
	gate->holds--;
	/*
	 * In order of arrival: while some wait, newcomers queue behind them.  The device
	 * behind may close the gate again from its submit (a trace's breakpoint does).
	 */
	while (!gate->holds && (node = list_first(&gate->held))) {
		list_remove(node);
		gate_pass(gate, list_entry(node, struct blk_req, node));
		gate->held_count--;
	}
}

void gate_drain(struct gate *gate, void (*drained)(struct gate *gate, void *user), void *user)
{
	LOOP_CHECK(gate->dev.loop);
	CHECK(!gate->drained);
	gate->drained = drained;
	gate->drained_user = user;
	gate_maybe_drained(gate);
}

void gate_epoch_drain(struct gate *gate, void (*drained)(struct gate *gate, void *user),
		      void *user)
{
	LOOP_CHECK(gate->dev.loop);
	CHECK(!gate->epoch_drained);
	gate->epoch_drained = drained;
	gate->epoch_user = user;
	gate_maybe_epoch_drained(gate);
}

void gate_epoch_drain_cancel(struct gate *gate)
{
	LOOP_CHECK(gate->dev.loop);
	gate->epoch_drained = NULL;
	loop_unpost(gate->dev.loop, &gate->epoch_task);
}

void gate_drain_cancel(struct gate *gate)
{
	LOOP_CHECK(gate->dev.loop);
	gate->drained = NULL;
	loop_unpost(gate->dev.loop, &gate->drained_task);
}

void gate_set_next(struct gate *gate, struct blk_dev *next)
{
	LOOP_CHECK(gate->dev.loop);
	CHECK(next->size_bytes >= gate->dev.size_bytes);
	CHECK(next->limits.block_bytes <= gate->dev.limits.block_bytes);
	gate->next = next;
	gate->epoch++;
	gate->old_in_flight = gate->in_flight;
}

struct blk_dev *gate_next(const struct gate *gate)
{
	return gate->next;
}

uint64_t gate_in_flight(const struct gate *gate)
{
	return gate->in_flight;
}

uint64_t gate_held(const struct gate *gate)
{
	return gate->held_count;
}

uint64_t gate_epoch_in_flight(const struct gate *gate)
{
	return gate->old_in_flight;
}

struct io_stats *gate_stats(struct gate *gate)
{
	return &gate->stats;
}

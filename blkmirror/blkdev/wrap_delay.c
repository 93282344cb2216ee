/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wrap_delay.c - a request's way through, each arrow a place where it may wait.
 *
 *   submit -> [delay] -> [hung?] -> device -> [hung?] -> done
 *   submit -> device -> [delay] -> [hung?] -> done              (after)
 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/blkdev/wrap_private.h"

struct delay_op {
	struct wrap_op base;
	struct timer timer;
	bool answered;                  /* the device has done its part */
};

struct wrap_delay {
	struct blk_dev dev;
	struct blk_dev *next;
	struct wrap_pool pool;
	struct wrap_delay_options options;
	bool hung;
	struct list kept;               /* wrap_op.node, in the order of being kept */
	uint64_t waiting;               /* kept or timed */
	struct task release;
};

static struct wrap_delay *delay_of(const struct delay_op *op)
{
	return container_of(op->base.parent->dev, struct wrap_delay, dev);
}

/* Through: to the device, or back to the caller. */
static void delay_pass(struct delay_op *op)
{
	struct wrap_delay *delay = delay_of(op);

	if (op->answered)
		wrap_op_answer(&delay->pool, &op->base, op->base.child.result);
	else
		blk_submit(delay->next, &op->base.child);
}

static void delay_pass_unless_hung(struct delay_op *op)
{
	struct wrap_delay *delay = delay_of(op);

	/* While a release is under way newcomers queue behind those it has not reached. */
	if (delay->hung || !list_is_empty(&delay->kept)) {
		list_append(&delay->kept, &op->base.node);
		delay->waiting++;
		return;
	}
	delay_pass(op);
}

static void delay_over(struct timer *timer)
{
	struct delay_op *op = container_of(timer, struct delay_op, timer);

	delay_of(op)->waiting--;
	delay_pass_unless_hung(op);
}

static void delay_start(struct delay_op *op)
{
	struct wrap_delay *delay = delay_of(op);
	const struct wrap_delay_options *options = &delay->options;
	uint64_t delay_ns = options->min_ns;

	if (options->max_ns > options->min_ns)
		delay_ns += loop_random_below(delay->dev.loop,
					      options->max_ns - options->min_ns + 1);
	if (delay_ns == 0) {
		delay_pass_unless_hung(op);
		return;
	}
	delay->waiting++;
	timer_init(&op->timer, delay->dev.loop, delay_over);
	timer_start(&op->timer, delay_ns);
}

static void delay_child_done(struct blk_req *child)
{
	struct delay_op *op = container_of(child, struct delay_op, base.child);
	struct wrap_delay *delay = delay_of(op);

	op->answered = true;
	if (!wrap_op_matches(delay->options.ops, child))
		delay_pass(op);
	else if (delay->options.after)
		delay_start(op);
	else
		delay_pass_unless_hung(op);
}

static void delay_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct wrap_delay *delay = container_of(dev, struct wrap_delay, dev);
	struct wrap_op *base = wrap_op_get(&delay->pool, req, delay_child_done);
	struct delay_op *op;

	if (!base) {
		blk_complete_later(req, -ENOMEM);
		return;
	}
	op = container_of(base, struct delay_op, base);
	op->answered = false;
	if (delay->options.after || !wrap_op_matches(delay->options.ops, req))
		delay_pass(op);
	else
		delay_start(op);
}

static void delay_released(struct task *task)
{
	struct wrap_delay *delay = container_of(task, struct wrap_delay, release);
	struct list *node;

	/* An answer may hang the device again, or close it once the last request is back. */
	while (!delay->hung && (node = list_pop(&delay->kept))) {
		bool last = list_is_empty(&delay->kept);

		delay->waiting--;
		delay_pass(container_of(list_entry(node, struct wrap_op, node), struct delay_op,
					base));
		if (last)
			return;
	}
}

static void delay_close(struct blk_dev *dev)
{
	struct wrap_delay *delay = container_of(dev, struct wrap_delay, dev);

	loop_unpost(dev->loop, &delay->release);
	wrap_pool_release(&delay->pool);
	free(delay);
}

static const struct blk_ops delay_ops = {
	.name = "delay",
	.submit = delay_submit,
	.close = delay_close,
};

struct blk_dev *wrap_delay_new(struct blk_dev *next, const struct wrap_delay_options *options)
{
	struct wrap_delay *delay = calloc(1, sizeof(*delay));

	CHECK(options->min_ns <= options->max_ns);
	CHECK(options->max_ns < UINT64_MAX);
	if (!delay)
		return NULL;
	if (wrap_pool_init(&delay->pool, sizeof(struct delay_op))) {
		free(delay);
		return NULL;
	}
	delay->next = next;
	delay->options = *options;
	list_init(&delay->kept);
	delay->release.run = delay_released;
	blk_dev_init(&delay->dev, &delay_ops, next->loop, next->size_bytes, &next->limits);
	return &delay->dev;
}

void wrap_delay_hang(struct blk_dev *dev, bool hung)
{
	struct wrap_delay *delay = container_of(dev, struct wrap_delay, dev);

	LOOP_CHECK(dev->loop);
	CHECK(dev->ops == &delay_ops);
	delay->hung = hung;
	if (!hung && !list_is_empty(&delay->kept) && !delay->release.queued)
		loop_post(dev->loop, &delay->release);
}

uint64_t wrap_delay_waiting(const struct blk_dev *dev)
{
	CHECK(dev->ops == &delay_ops);
	return container_of(dev, struct wrap_delay, dev)->waiting;
}

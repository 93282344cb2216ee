/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/io_wait.h"

#include <errno.h>

static void io_wait_barked(struct timer *timer)
{
	loop_stop(container_of(timer, struct io_wait, watchdog)->loop);
}

void io_wait_init(struct io_wait *wait, struct loop *loop)
{
	*wait = (struct io_wait){ .loop = loop };
	timer_init(&wait->watchdog, loop, io_wait_barked);
}

static void io_op_done(struct blk_req *req)
{
	struct io_op *op = container_of(req, struct io_op, req);
	struct io_wait *wait = op->wait;

	CHECK(!wait->submitting);
	CHECK(op->in_flight);
	op->in_flight = false;
	wait->done_count++;
	if (wait->done_count == wait->wanted_count)
		loop_stop(wait->loop);
	if (op->then)
		op->then(op);
}

void io_submit_op(struct io_wait *wait, struct blk_dev *dev, struct io_op *op)
{
	op->wait = wait;
	op->req.done = io_op_done;
	op->in_flight = true;
	wait->submitting = true;
	blk_submit(dev, &op->req);
	wait->submitting = false;
}

bool io_wait_for(struct io_wait *wait, uint64_t count)
{
	wait->wanted_count = wait->done_count + count;
	timer_start(&wait->watchdog, IO_WAIT_PATIENCE_NS);
	loop_run(wait->loop);
	timer_stop(&wait->watchdog);
	return wait->done_count >= wait->wanted_count;
}

int io_do(struct io_wait *wait, struct blk_dev *dev, struct io_op *op)
{
	io_submit_op(wait, dev, op);
	return io_wait_for(wait, 1) ? op->req.result : -ETIMEDOUT;
}

void io_wait_pass(struct io_wait *wait, uint64_t ns)
{
	wait->wanted_count = UINT64_MAX;
	timer_start(&wait->watchdog, ns);
	loop_run(wait->loop);
	timer_stop(&wait->watchdog);
}

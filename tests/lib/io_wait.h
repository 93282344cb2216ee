/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_wait.h - run a loop until requests are done, with a watchdog.
 *
 *	struct io_wait wait;
 *	struct io_op op = { .req = { .op = BLK_FLUSH } };
 *
 *	io_wait_init(&wait, loop);
 *	io_submit_op(&wait, dev, &op);
 *	assert_true(io_wait_for(&wait, 1));
 *	assert_int_equal(op.req.result, 0);
 *
 * Every completion is checked: once, and never from inside the submit.
 */
#ifndef BM_TEST_IO_WAIT_H
#define BM_TEST_IO_WAIT_H

#include "blkmirror/blkdev/blkdev.h"

#define IO_WAIT_PATIENCE_NS (30 * NS_PER_S)

struct io_wait {
	struct loop *loop;
	struct timer watchdog;
	uint64_t done_count;            /* completions since io_wait_init() */
	uint64_t wanted_count;
	bool submitting;
};

struct io_op {
	struct blk_req req;             /* done is set by io_submit_op() */
	struct io_wait *wait;
	void (*then)(struct io_op *op); /* called at the completion; may be NULL */
	uint64_t tag;                   /* the test's own */
	bool in_flight;
};

void io_wait_init(struct io_wait *wait, struct loop *loop);

void io_submit_op(struct io_wait *wait, struct blk_dev *dev, struct io_op *op);

/* Run until count more are done than when it was called; false: the watchdog barked. */
MUST_CHECK bool io_wait_for(struct io_wait *wait, uint64_t count);

/* Submit, wait, and give the result; -ETIMEDOUT when the watchdog barked. */
int io_do(struct io_wait *wait, struct blk_dev *dev, struct io_op *op);

/* Run the loop for a while. */
void io_wait_pass(struct io_wait *wait, uint64_t ns);

#endif

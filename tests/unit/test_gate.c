/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the gate holds, drains and swaps without losing, reordering or miscounting a request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/blkdev/gate.h"
#include "tests/lib/ram_dev.h"

#define DISK_BYTES 65536u
#define REQS 8

struct guest_req {
	struct blk_req req;
	struct iovec iov;
	uint8_t bytes[512];
	bool done;
	unsigned order;
};

struct rig {
	struct loop *loop;
	struct ram_dev *ram;
	struct gate *gate;
	struct guest_req reqs[REQS];
	unsigned done_count;
	unsigned drained_count;
};

static struct rig *current;

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->loop = loop_sim_new(7);
	rig->ram = ram_dev_new(rig->loop, DISK_BYTES);
	rig->gate = gate_new(rig->loop, &rig->ram->dev, DISK_BYTES);
	*state = current = rig;
	return 0;
}

static void rig_run(struct rig *rig)
{
	while (loop_sim_step(rig->loop))
		continue;
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;

	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	gate_free(rig->gate);
	blk_close(&rig->ram->dev);
	loop_free(rig->loop);
	free(rig);
	return 0;
}

static void guest_done(struct blk_req *req)
{
	struct guest_req *guest = container_of(req, struct guest_req, req);

	assert_false(guest->done);
	assert_int_equal(req->result, 0);
	guest->done = true;
	guest->order = current->done_count++;
}

static void guest_submit(struct rig *rig, unsigned index, enum blk_op op)
{
	struct guest_req *guest = &rig->reqs[index];

	memset(guest->bytes, (int)index + 1, sizeof(guest->bytes));
	guest->iov = (struct iovec){ guest->bytes, sizeof(guest->bytes) };
	guest->done = false;
	guest->req = (struct blk_req){ .op = op, .offset_bytes = index * 512u, .len_bytes = 512,
				       .iov = &guest->iov, .iov_count = 1, .done = guest_done };
	blk_submit(gate_as_dev(rig->gate), &guest->req);
}

static void note_drained(struct gate *gate, void *user)
{
	struct rig *rig = user;

	assert_ptr_equal(gate, rig->gate);
	assert_int_equal(gate_in_flight(gate), 0);
	rig->drained_count++;
}

static void test_open_gate_passes(void **state)
{
	struct rig *rig = *state;

	guest_submit(rig, 0, BLK_WRITE);
	assert_int_equal(gate_in_flight(rig->gate), 1);
	assert_int_equal(rig->ram->carried_out, 1);
	assert_false(rig->reqs[0].done);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
	assert_int_equal(gate_in_flight(rig->gate), 0);
	assert_int_equal(rig->ram->bytes[0], 1);
}

static void test_hold_keeps_and_release_keeps_order(void **state)
{
	struct rig *rig = *state;

	gate_hold(rig->gate);
	for (unsigned i = 0; i < REQS; i++)
		guest_submit(rig, i, BLK_WRITE);
	rig_run(rig);
	assert_int_equal(gate_held(rig->gate), REQS);
	assert_int_equal(gate_in_flight(rig->gate), 0);
	assert_int_equal(rig->ram->carried_out, 0);
	ram_dev_hold(rig->ram, true);
	gate_release(rig->gate);
	assert_int_equal(gate_held(rig->gate), 0);
	assert_int_equal(gate_in_flight(rig->gate), REQS);
	for (unsigned i = 0; i < REQS; i++) {           /* they reached the device in order */
		struct list *node = list_pop(&rig->ram->waiting);

		assert_ptr_equal(node, &rig->reqs[i].req.node);
		blk_complete_later(&rig->reqs[i].req, 0);
	}
	rig_run(rig);
	assert_int_equal(rig->done_count, REQS);
}

static void test_holds_nest(void **state)
{
	struct rig *rig = *state;

	gate_hold(rig->gate);
	gate_hold(rig->gate);
	guest_submit(rig, 0, BLK_WRITE);
	gate_release(rig->gate);
	assert_int_equal(gate_held(rig->gate), 1);
	gate_release(rig->gate);
	assert_int_equal(gate_held(rig->gate), 0);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
}

static void test_drain_waits_for_the_last(void **state)
{
	struct rig *rig = *state;

	ram_dev_hold(rig->ram, true);
	guest_submit(rig, 0, BLK_WRITE);
	guest_submit(rig, 1, BLK_FLUSH);
	gate_hold(rig->gate);
	gate_drain(rig->gate, note_drained, rig);
	guest_submit(rig, 2, BLK_WRITE);                /* held: not waited for */
	rig_run(rig);
	assert_int_equal(rig->drained_count, 0);
	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	assert_int_equal(rig->drained_count, 1);
	assert_false(rig->reqs[2].done);
	gate_release(rig->gate);
	rig_run(rig);
	assert_true(rig->reqs[2].done);
	assert_int_equal(rig->drained_count, 1);
}

static void test_drain_of_an_idle_gate_is_posted(void **state)
{
	struct rig *rig = *state;

	gate_drain(rig->gate, note_drained, rig);
	assert_int_equal(rig->drained_count, 0);
	rig_run(rig);
	assert_int_equal(rig->drained_count, 1);
	gate_drain(rig->gate, note_drained, rig);       /* and again */
	rig_run(rig);
	assert_int_equal(rig->drained_count, 2);
}

/* Someone slips in between the last completion and the posted answer: not drained yet. */
static void test_drain_sees_latecomers(void **state)
{
	struct rig *rig = *state;

	gate_drain(rig->gate, note_drained, rig);
	ram_dev_hold(rig->ram, true);
	guest_submit(rig, 0, BLK_WRITE);
	rig_run(rig);
	assert_int_equal(rig->drained_count, 0);
	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	assert_int_equal(rig->drained_count, 1);
}

static void test_cancelled_drain_and_free_at_once(void **state)
{
	struct rig *rig = *state;
	struct gate *other = gate_new(rig->loop, &rig->ram->dev, DISK_BYTES);

	gate_drain(other, note_drained, rig);
	gate_drain_cancel(other);
	gate_free(other);                               /* nothing of it is left queued */
	gate_drain(rig->gate, note_drained, rig);
	gate_drain_cancel(rig->gate);
	assert_false(loop_sim_step(rig->loop));
	assert_int_equal(rig->drained_count, 0);
	gate_free(NULL);
}

static void test_swap_and_epochs(void **state)
{
	struct rig *rig = *state;
	struct ram_dev *next = ram_dev_new(rig->loop, 2 * DISK_BYTES);

	ram_dev_hold(rig->ram, true);
	guest_submit(rig, 0, BLK_WRITE);
	guest_submit(rig, 1, BLK_WRITE);
	gate_set_next(rig->gate, &next->dev);
	assert_ptr_equal(gate_next(rig->gate), &next->dev);
	assert_int_equal(gate_as_dev(rig->gate)->size_bytes, DISK_BYTES);
	assert_int_equal(gate_epoch_in_flight(rig->gate), 2);
	guest_submit(rig, 2, BLK_WRITE);
	assert_int_equal(next->carried_out, 1);
	assert_int_equal(gate_in_flight(rig->gate), 3);
	rig_run(rig);                           /* the new one's completion is not counted */
	assert_true(rig->reqs[2].done);
	assert_int_equal(gate_epoch_in_flight(rig->gate), 2);
	guest_submit(rig, 3, BLK_WRITE);
	gate_set_next(rig->gate, &next->dev);           /* a second swap: all three are old now */
	assert_int_equal(gate_epoch_in_flight(rig->gate), 3);
	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	assert_int_equal(gate_epoch_in_flight(rig->gate), 0);
	assert_int_equal(rig->done_count, 4);
	gate_set_next(rig->gate, &rig->ram->dev);
	blk_close(&next->dev);
}

static void test_held_requests_go_to_the_new_device(void **state)
{
	struct rig *rig = *state;
	struct ram_dev *next = ram_dev_new(rig->loop, DISK_BYTES);

	gate_hold(rig->gate);
	guest_submit(rig, 4, BLK_WRITE);
	gate_set_next(rig->gate, &next->dev);
	assert_int_equal(gate_epoch_in_flight(rig->gate), 0);
	gate_release(rig->gate);
	rig_run(rig);
	assert_int_equal(rig->ram->carried_out, 0);
	assert_int_equal(next->bytes[4 * 512], 5);
	gate_set_next(rig->gate, &rig->ram->dev);
	blk_close(&next->dev);
}

/* A device that closes the gate from its submit, as a breakpoint in a test does. */
struct closing_dev {
	struct blk_dev dev;
	struct rig *rig;
};

static void closing_submit(struct blk_dev *dev, struct blk_req *req)
{
	gate_hold(container_of(dev, struct closing_dev, dev)->rig->gate);
	blk_complete_later(req, 0);
}

static void closing_close(struct blk_dev *dev)
{
	(void)dev;
}

static void test_hold_from_inside_a_release(void **state)
{
	static const struct blk_ops ops = { .name = "closing", .submit = closing_submit,
					    .close = closing_close };
	struct rig *rig = *state;
	struct closing_dev closing = { .rig = rig };

	blk_dev_init(&closing.dev, &ops, rig->loop, DISK_BYTES, &rig->ram->dev.limits);
	gate_set_next(rig->gate, &closing.dev);
	gate_hold(rig->gate);
	for (unsigned i = 0; i < 3; i++)
		guest_submit(rig, i, BLK_WRITE);
	for (unsigned i = 0; i < 3; i++) {
		gate_release(rig->gate);
		assert_int_equal(gate_held(rig->gate), 2 - i);
		rig_run(rig);
		assert_int_equal(rig->done_count, i + 1);
		assert_true(rig->reqs[i].done);
	}
	gate_release(rig->gate);
	gate_set_next(rig->gate, &rig->ram->dev);
}

static void wake_up(struct timer *timer)
{
	gate_release(current->gate);
	(void)timer;
}

static void test_latency_includes_the_time_held(void **state)
{
	struct rig *rig = *state;
	struct io_snapshot seen;
	struct timer timer;

	gate_hold(rig->gate);
	guest_submit(rig, 0, BLK_WRITE);
	timer_init(&timer, rig->loop, wake_up);
	timer_start(&timer, 70 * NS_PER_MS);
	rig_run(rig);
	io_stats_snapshot(gate_stats(rig->gate), &seen);
	assert_int_equal(seen.write_ops, 1);
	assert_int_equal(seen.write_bytes, 512);
	assert_int_equal(seen.latency_sum_ns, 70 * NS_PER_MS);
	assert_int_equal(io_stats_take_max_ns(gate_stats(rig->gate)), 70 * NS_PER_MS);
}

static void test_extents_are_not_counted(void **state)
{
	struct rig *rig = *state;
	struct blk_extent run;
	struct blk_extents extents = { .runs = &run, .capacity = 1 };
	struct guest_req *guest = &rig->reqs[0];
	struct io_snapshot seen;

	guest->req = (struct blk_req){ .op = BLK_EXTENTS, .len_bytes = DISK_BYTES,
				       .extents = &extents, .done = guest_done };
	blk_submit(gate_as_dev(rig->gate), &guest->req);
	rig_run(rig);
	assert_true(guest->done);
	io_stats_snapshot(gate_stats(rig->gate), &seen);
	assert_int_equal(io_snapshot_ops(&seen), 0);
	assert_int_equal(io_snapshot_quantile_ns(&seen, 500), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_open_gate_passes),
		CASE(test_hold_keeps_and_release_keeps_order),
		CASE(test_holds_nest),
		CASE(test_drain_waits_for_the_last),
		CASE(test_drain_of_an_idle_gate_is_posted),
		CASE(test_drain_sees_latecomers),
		CASE(test_cancelled_drain_and_free_at_once),
		CASE(test_swap_and_epochs),
		CASE(test_held_requests_go_to_the_new_device),
		CASE(test_hold_from_inside_a_release),
		CASE(test_latency_includes_the_time_held),
		CASE(test_extents_are_not_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

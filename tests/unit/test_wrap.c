/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: faults hit exactly the chosen requests, delays and hangs keep theirs, traces tell. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/blkdev/wrap.h"
#include "tests/lib/ram_dev.h"

#define DISK_BYTES 65536u
#define REQS 400

struct guest_req {
	struct blk_req req;
	struct iovec iov;
	uint8_t bytes[512];
	bool done;
	bool inside_submit;
	unsigned order;
	uint64_t done_ns;
};

struct rig {
	struct loop *loop;
	struct ram_dev *ram;
	struct blk_dev *wrap;
	struct guest_req reqs[REQS];
	unsigned done_count;
};

static struct rig *current;

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig->loop = loop_sim_new(11);
	rig->ram = ram_dev_new(rig->loop, DISK_BYTES);
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

	rig_run(rig);
	if (rig->wrap)
		assert_int_equal(rig->wrap->in_flight, 0);
	blk_close(rig->wrap);
	blk_close(&rig->ram->dev);
	loop_free(rig->loop);
	free(rig);
	return 0;
}

static void guest_done(struct blk_req *req)
{
	struct guest_req *guest = container_of(req, struct guest_req, req);

	assert_false(guest->done);
	assert_false(guest->inside_submit);
	guest->done = true;
	guest->order = current->done_count++;
	guest->done_ns = loop_now_ns(current->loop);
}

static void guest_submit(struct rig *rig, unsigned index, enum blk_op op, uint64_t offset_bytes)
{
	struct guest_req *guest = &rig->reqs[index];

	memset(guest->bytes, op == BLK_READ ? 0xee : (int)(index + 1), sizeof(guest->bytes));
	guest->iov = (struct iovec){ guest->bytes, sizeof(guest->bytes) };
	guest->done = false;
	guest->req = (struct blk_req){ .op = op, .offset_bytes = offset_bytes, .len_bytes = 512,
				       .iov = &guest->iov, .iov_count = 1, .done = guest_done };
	guest->inside_submit = true;
	blk_submit(rig->wrap, &guest->req);
	guest->inside_submit = false;
}

static int guest_run(struct rig *rig, enum blk_op op, uint64_t offset_bytes)
{
	guest_submit(rig, 0, op, offset_bytes);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
	return rig->reqs[0].req.result;
}

/* ---- fault ---- */

static void test_fault_nth_and_count(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_fault_new(&rig->ram->dev);
	assert_int_equal(guest_run(rig, BLK_WRITE, 0), 0);
	wrap_fault_set(rig->wrap, &(struct wrap_fault_rule){ .ops = 1u << BLK_WRITE, .from_nth = 3,
							     .fail_count = 2, .error = -ENOSPC });
	for (unsigned nth = 1; nth <= 6; nth++) {
		assert_int_equal(guest_run(rig, BLK_READ, 0), 0);       /* not of this kind */
		assert_int_equal(guest_run(rig, BLK_WRITE, 0),
				 nth == 3 || nth == 4 ? -ENOSPC : 0);
	}
	assert_int_equal(wrap_fault_fired(rig->wrap), 2);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 1 + 4);    /* the failed did not get there */
	wrap_fault_set(rig->wrap, &(struct wrap_fault_rule){ .ops = 1u << BLK_WRITE, .from_nth = 1,
							     .fail_count = UINT64_MAX,
							     .error = -EIO });
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(guest_run(rig, BLK_WRITE, 0), -EIO);
	wrap_fault_set(rig->wrap, NULL);
	assert_int_equal(guest_run(rig, BLK_WRITE, 0), 0);
	assert_int_equal(wrap_fault_fired(rig->wrap), 12);
}

static void test_fault_range(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_fault_new(&rig->ram->dev);
	wrap_fault_set(rig->wrap, &(struct wrap_fault_rule){
		.ops = 1u << BLK_READ | 1u << BLK_FLUSH, .offset_bytes = 1024, .len_bytes = 512,
		.from_nth = 1, .fail_count = UINT64_MAX, .error = -EIO });
	assert_int_equal(guest_run(rig, BLK_READ, 512), 0);
	assert_int_equal(guest_run(rig, BLK_READ, 1024), -EIO);
	assert_int_equal(guest_run(rig, BLK_READ, 1536), 0);
	assert_int_equal(guest_run(rig, BLK_FLUSH, 0), -EIO);
	assert_int_equal(guest_run(rig, BLK_WRITE, 1024), 0);
}

static void test_fault_after_carries_out(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_fault_new(&rig->ram->dev);
	wrap_fault_set(rig->wrap, &(struct wrap_fault_rule){ .ops = 1u << BLK_WRITE, .from_nth = 1,
							     .fail_count = 1, .error = -EIO,
							     .after = true });
	assert_int_equal(guest_run(rig, BLK_WRITE, 512), -EIO);
	assert_int_equal(rig->ram->bytes[512], 1);
	wrap_fault_set(rig->wrap, &(struct wrap_fault_rule){ .ops = 1u << BLK_WRITE, .from_nth = 1,
							     .fail_count = 1, .error = -EIO });
	assert_int_equal(guest_run(rig, BLK_WRITE, 1024), -EIO);
	assert_int_equal(rig->ram->bytes[1024], 0);
}

/* ---- delay ---- */

static const struct wrap_delay_options writes_10_to_20_ms = {
	.ops = 1u << BLK_WRITE, .min_ns = 10 * NS_PER_MS, .max_ns = 20 * NS_PER_MS,
};

static void test_delay_before(void **state)
{
	struct rig *rig = *state;
	uint64_t start_ns = loop_now_ns(rig->loop);
	uint64_t least_ns = UINT64_MAX, most_ns = 0;

	rig->wrap = wrap_delay_new(&rig->ram->dev, &writes_10_to_20_ms);
	for (unsigned i = 0; i < REQS; i++)
		guest_submit(rig, i, i == REQS - 1 ? BLK_READ : BLK_WRITE, 0);
	assert_int_equal(wrap_delay_waiting(rig->wrap), REQS - 1);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 0);
	rig_run(rig);
	assert_int_equal(rig->reqs[REQS - 1].done_ns, start_ns);        /* a read is not delayed */
	for (unsigned i = 0; i < REQS - 1; i++) {
		uint64_t took_ns = rig->reqs[i].done_ns - start_ns;

		assert_in_range(took_ns, 10 * NS_PER_MS, 20 * NS_PER_MS);
		least_ns = MIN(least_ns, took_ns);
		most_ns = MAX(most_ns, took_ns);
	}
	assert_true(least_ns < 11 * NS_PER_MS);         /* all of the range is used */
	assert_true(most_ns > 19 * NS_PER_MS);
	assert_int_equal(wrap_delay_waiting(rig->wrap), 0);
}

static void test_delay_after(void **state)
{
	struct rig *rig = *state;
	struct wrap_delay_options options = writes_10_to_20_ms;
	uint64_t start_ns = loop_now_ns(rig->loop);

	options.after = true;
	rig->wrap = wrap_delay_new(&rig->ram->dev, &options);
	guest_submit(rig, 0, BLK_WRITE, 0);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 1);
	rig_run(rig);
	assert_in_range(rig->reqs[0].done_ns - start_ns, 10 * NS_PER_MS, 20 * NS_PER_MS);
}

static void test_no_delay_at_all(void **state)
{
	struct rig *rig = *state;
	uint64_t start_ns = loop_now_ns(rig->loop);

	rig->wrap = wrap_delay_new(&rig->ram->dev,
				   &(struct wrap_delay_options){ .ops = 1u << BLK_WRITE });
	assert_int_equal(guest_run(rig, BLK_WRITE, 0), 0);
	assert_int_equal(rig->reqs[0].done_ns, start_ns);
}

static void test_hang_before(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_delay_new(&rig->ram->dev,
				   &(struct wrap_delay_options){ .ops = 1u << BLK_WRITE });
	wrap_delay_hang(rig->wrap, true);
	for (unsigned i = 0; i < 300; i++)              /* more than a pool's first chunk */
		guest_submit(rig, i, BLK_WRITE, 0);
	guest_submit(rig, 300, BLK_READ, 0);
	rig_run(rig);
	assert_int_equal(wrap_delay_waiting(rig->wrap), 300);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 0);
	assert_int_equal(rig->done_count, 1);
	assert_true(rig->reqs[300].done);
	ram_dev_hold(rig->ram, true);
	wrap_delay_hang(rig->wrap, false);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 0);        /* from a posted task */
	rig_run(rig);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 300);
	assert_int_equal(wrap_delay_waiting(rig->wrap), 0);
	assert_int_equal(rig->ram->bytes[0], 300 % 256);        /* in order: the last one won */
	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	assert_int_equal(rig->done_count, 301);
}

/* Between the release and its task nobody overtakes those who waited. */
static void test_no_overtaking_after_a_hang(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_delay_new(&rig->ram->dev,
				   &(struct wrap_delay_options){ .ops = 1u << BLK_WRITE });
	wrap_delay_hang(rig->wrap, true);
	guest_submit(rig, 0, BLK_WRITE, 0);
	wrap_delay_hang(rig->wrap, false);
	guest_submit(rig, 1, BLK_WRITE, 0);
	rig_run(rig);
	assert_int_equal(rig->done_count, 2);
	assert_int_equal(rig->ram->bytes[0], 2);
}

static void test_hang_keeps_answers_of_those_at_the_device(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_delay_new(&rig->ram->dev,
				   &(struct wrap_delay_options){ .ops = 1u << BLK_WRITE });
	guest_submit(rig, 0, BLK_WRITE, 0);
	guest_submit(rig, 1, BLK_READ, 0);
	wrap_delay_hang(rig->wrap, true);
	rig_run(rig);
	assert_false(rig->reqs[0].done);
	assert_true(rig->reqs[1].done);
	assert_int_equal(wrap_delay_waiting(rig->wrap), 1);
	wrap_delay_hang(rig->wrap, false);
	assert_false(rig->reqs[0].done);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
}

static void test_hang_catches_the_delayed(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_delay_new(&rig->ram->dev, &writes_10_to_20_ms);
	guest_submit(rig, 0, BLK_WRITE, 0);
	wrap_delay_hang(rig->wrap, true);
	rig_run(rig);                                   /* its delay is over, the hang is not */
	assert_int_equal(rig->ram->carried_out, 0);
	assert_int_equal(wrap_delay_waiting(rig->wrap), 1);
	wrap_delay_hang(rig->wrap, false);
	wrap_delay_hang(rig->wrap, true);               /* before the posted task has run */
	rig_run(rig);
	assert_int_equal(rig->ram->carried_out, 0);
	wrap_delay_hang(rig->wrap, false);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
}

static void test_hang_after(void **state)
{
	struct rig *rig = *state;

	rig->wrap = wrap_delay_new(&rig->ram->dev, &(struct wrap_delay_options){
							   .ops = 1u << BLK_WRITE, .after = true });
	wrap_delay_hang(rig->wrap, true);
	guest_submit(rig, 0, BLK_WRITE, 0);
	rig_run(rig);
	assert_int_equal(rig->ram->by_op[BLK_WRITE], 1);        /* carried out, never told */
	assert_false(rig->reqs[0].done);
	wrap_delay_hang(rig->wrap, false);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
}

/* The owner closes the wrapper from the answer to its last request. */
static struct blk_dev *closing;

static void close_from_done(struct blk_req *req)
{
	guest_done(req);
	blk_close(closing);
}

static void test_close_from_the_last_answer(void **state)
{
	struct rig *rig = *state;
	struct blk_req *req = &rig->reqs[0].req;

	closing = wrap_delay_new(&rig->ram->dev,
				 &(struct wrap_delay_options){ .ops = 1u << BLK_FLUSH,
							       .after = true });
	*req = (struct blk_req){ .op = BLK_FLUSH, .done = close_from_done };
	wrap_delay_hang(closing, true);
	blk_submit(closing, req);
	rig_run(rig);
	wrap_delay_hang(closing, false);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
	closing = wrap_fault_new(&rig->ram->dev);
	*req = (struct blk_req){ .op = BLK_FLUSH, .done = close_from_done };
	rig->reqs[0].done = false;
	blk_submit(closing, req);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
}

/* ---- trace ---- */

struct hook_seen {
	unsigned submitted, completed;
	uint64_t last_sequence;
};

static void note_event(const struct trace_event *event, void *user)
{
	struct hook_seen *seen = user;

	if (event->completed_ns) {
		seen->completed++;
		return;
	}
	seen->submitted++;
	assert_int_equal(event->sequence, seen->last_sequence + 1);
	seen->last_sequence = event->sequence;
	assert_int_equal(current->ram->carried_out, event->sequence - 1);       /* before it */
}

static void test_trace_events_and_hook(void **state)
{
	struct rig *rig = *state;
	struct hook_seen seen = { 0 };
	struct trace_event events[8];

	rig->wrap = wrap_trace_new(&rig->ram->dev, 8);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 0);
	wrap_trace_hook(rig->wrap, note_event, &seen);
	guest_submit(rig, 0, BLK_WRITE, 1024);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 1);
	assert_int_equal(events[0].sequence, 1);
	assert_int_equal(events[0].op, BLK_WRITE);
	assert_int_equal(events[0].offset_bytes, 1024);
	assert_int_equal(events[0].len_bytes, 512);
	assert_int_equal(events[0].completed_ns, 0);
	rig_run(rig);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 1);
	assert_true(events[0].completed_ns > 0);
	assert_int_equal(seen.submitted, 1);
	assert_int_equal(seen.completed, 1);
	guest_run(rig, BLK_FLUSH, 0);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 1), 1);     /* the oldest first */
	assert_int_equal(events[0].sequence, 1);
	assert_int_equal(seen.completed, 2);
}

static void test_trace_ring_is_bounded(void **state)
{
	struct rig *rig = *state;
	struct trace_event events[8];

	rig->wrap = wrap_trace_new(&rig->ram->dev, 4);
	ram_dev_hold(rig->ram, true);
	guest_submit(rig, 0, BLK_READ, 0);              /* slow: overtaken by a whole ring */
	for (unsigned i = 1; i <= 5; i++)
		guest_submit(rig, i, BLK_WRITE, i * 512);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(events[i].sequence, 3 + i);
		assert_int_equal(events[i].offset_bytes, (2 + i) * 512);
	}
	blk_complete_later(list_entry(list_pop(&rig->ram->waiting), struct blk_req, node), 0);
	rig_run(rig);
	assert_true(rig->reqs[0].done);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(events[i].sequence, 3 + i);    /* the late answer took no place */
		assert_int_equal(events[i].completed_ns, 0);
	}
	ram_dev_hold(rig->ram, false);
	rig_run(rig);
	assert_int_equal(wrap_trace_read(rig->wrap, events, 8), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_true(events[i].completed_ns > 0);
}

static void test_trace_sees_the_result(void **state)
{
	struct rig *rig = *state;
	struct blk_dev *fault = wrap_fault_new(&rig->ram->dev);
	struct trace_event event;

	wrap_fault_set(fault, &(struct wrap_fault_rule){ .ops = 1u << BLK_READ, .from_nth = 1,
							 .fail_count = 1, .error = -EILSEQ });
	rig->wrap = wrap_trace_new(fault, 1);
	assert_int_equal(guest_run(rig, BLK_READ, 0), -EILSEQ);
	assert_int_equal(wrap_trace_read(rig->wrap, &event, 1), 1);
	assert_int_equal(event.result, -EILSEQ);
	blk_close(rig->wrap);
	rig->wrap = NULL;
	blk_close(fault);
}

/* Data, limits and extents come through a stack of all three unharmed. */
static void test_stack_is_transparent(void **state)
{
	struct rig *rig = *state;
	struct blk_dev *fault = wrap_fault_new(&rig->ram->dev);
	struct blk_dev *delay = wrap_delay_new(fault, &writes_10_to_20_ms);
	struct blk_extent run;
	struct blk_extents extents = { .runs = &run, .capacity = 1 };
	struct guest_req *guest = &rig->reqs[0];

	rig->wrap = wrap_trace_new(delay, 16);
	assert_memory_equal(&rig->wrap->limits, &rig->ram->dev.limits, sizeof(struct blk_limits));
	assert_int_equal(rig->wrap->size_bytes, DISK_BYTES);
	for (unsigned i = 0; i < 100; i++)
		guest_submit(rig, i, BLK_WRITE, i * 512);
	assert_int_equal(rig->wrap->in_flight, 100);
	rig_run(rig);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(rig->ram->bytes[i * 512], i + 1);
		guest_submit(rig, i, BLK_READ, i * 512);
	}
	rig_run(rig);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(rig->reqs[i].bytes[511], i + 1);
	guest->done = false;
	guest->req = (struct blk_req){ .op = BLK_EXTENTS, .len_bytes = DISK_BYTES,
				       .extents = &extents, .done = guest_done };
	blk_submit(rig->wrap, &guest->req);
	rig_run(rig);
	assert_int_equal(extents.count, 1);
	assert_int_equal(run.len_bytes, DISK_BYTES);
	blk_close(rig->wrap);
	rig->wrap = NULL;
	blk_close(delay);
	blk_close(fault);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_fault_nth_and_count),
		CASE(test_fault_range),
		CASE(test_fault_after_carries_out),
		CASE(test_delay_before),
		CASE(test_delay_after),
		CASE(test_no_delay_at_all),
		CASE(test_hang_before),
		CASE(test_no_overtaking_after_a_hang),
		CASE(test_hang_keeps_answers_of_those_at_the_device),
		CASE(test_hang_catches_the_delayed),
		CASE(test_hang_after),
		CASE(test_close_from_the_last_answer),
		CASE(test_trace_events_and_hook),
		CASE(test_trace_ring_is_bounded),
		CASE(test_trace_sees_the_result),
		CASE(test_stack_is_transparent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

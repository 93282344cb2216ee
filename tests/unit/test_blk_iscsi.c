/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whatever a target does or forgets, no write of the device lands after one that is newer,
 * nothing passes for data that is none, and what may have been lost is told (R2, R3, R9, R11).
 *
 * The target is a thread with one unit in memory, that can keep a write back, and end sessions.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/log.h"
#include "datastores/blk_iscsi.h"
#include "tests/lib/io_wait.h"
#include "tests/lib/iscsi_fake.h"

#define IO_BYTES 8192u

struct rig {
	struct iscsi_fake fake;
	struct io_wait wait;
	struct loop *loop;
	struct blk_dev *dev;
	uint8_t bytes[IO_BYTES], other[IO_BYTES];
	struct iovec iov;
	enum blk_iscsi_state state;
	char log[FAKE_LOG_BYTES];
};

static void changed(void *user, enum blk_iscsi_state state)
{
	((struct rig *)user)->state = state;
}

static struct rig *rig_new(bool as_target)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct blk_iscsi_options options = { .as_target = as_target, .name = "unit",
					     .changed = changed, .user = rig };
	struct iscsi_place place = { .host = "127.0.0.1", .iqn = "iqn.2026-11.net.example:x",
				     .lun = 1, .host_uuid = { 1 } };
	struct blk_iscsi_links *links;
	struct err err = { 0 };

	assert_non_null(rig);
	iscsi_fake_start(&rig->fake);
	place.port = rig->fake.port;
	rig->loop = loop_new();
	assert_non_null(rig->loop);
	io_wait_init(&rig->wait, rig->loop);
	if (blk_iscsi_connect(&place, NULL, false, 2, &links, &err))
		fail_msg("%s", err.cause);
	assert_int_equal(blk_iscsi_new(rig->loop, links, &options, &rig->dev, &err), 0);
	assert_int_equal(rig->dev->size_bytes, FAKE_BYTES);
	iscsi_fake_forget(&rig->fake);
	return rig;
}

static void rig_free(struct rig *rig)
{
	blk_close(rig->dev);
	loop_free(rig->loop);
	iscsi_fake_stop(&rig->fake);
	free(rig);
}

static void prepare(struct rig *rig, struct io_op *op, enum blk_op kind, uint8_t *bytes)
{
	rig->iov = (struct iovec){ bytes, IO_BYTES };
	*op = (struct io_op){ .req = { .op = kind, .offset_bytes = 4096, .len_bytes = IO_BYTES,
				       .iov = &rig->iov, .iov_count = 1 } };
}

static int do_data(struct rig *rig, enum blk_op kind, uint8_t *bytes)
{
	struct io_op op;

	prepare(rig, &op, kind, bytes);
	return io_do(&rig->wait, rig->dev, &op);
}

static int do_flush(struct rig *rig)
{
	struct io_op op = { .req = { .op = BLK_FLUSH } };

	return io_do(&rig->wait, rig->dev, &op);
}

/* A write that the target keeps back; then its sessions end. */
static void keep_one(struct rig *rig, struct io_op *op, uint8_t value)
{
	memset(rig->bytes, value, IO_BYTES);
	prepare(rig, op, BLK_WRITE, rig->bytes);
	rig->fake.keeps_writes = true;
	io_submit_op(&rig->wait, rig->dev, op);
	while (!strchr(iscsi_fake_log(&rig->fake, rig->log), 'w'))
		io_wait_pass(&rig->wait, 10 * NS_PER_MS);
	rig->fake.keeps_writes = false;
}

/* ---- the tests ---- */

static void test_a_guests_write_is_sent_again_after_the_barrier(void **unused)
{
	struct rig *rig = rig_new(false);
	struct io_op op;
	const char *reset, *written;

	(void)unused;
	keep_one(rig, &op, 0x11);
	rig->fake.hangs_up = true;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(op.req.result, 0);
	/* R3: the reset was answered before anything was written. */
	iscsi_fake_log(&rig->fake, rig->log);
	reset = strchr(rig->log, 'R');
	written = strchr(rig->log, 'W');
	assert_non_null(reset);
	assert_non_null(written);
	assert_true(reset < written);
	/* And a newer one is not undone by the older. */
	memset(rig->bytes, 0x22, IO_BYTES);
	assert_int_equal(do_data(rig, BLK_WRITE, rig->bytes), 0);
	assert_int_equal(iscsi_fake_land(&rig->fake), 0);
	assert_int_equal(do_data(rig, BLK_READ, rig->other), 0);
	assert_memory_equal(rig->bytes, rig->other, IO_BYTES);
	assert_int_equal(do_flush(rig), 0);
	assert_int_equal(rig->state, BLK_ISCSI_UP);
	rig_free(rig);
}

static void test_a_targets_write_is_never_sent_again(void **unused)
{
	struct rig *rig = rig_new(true);
	struct io_op op;

	(void)unused;
	keep_one(rig, &op, 0x33);
	rig->fake.hangs_up = true;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(op.req.result, -EIO);
	/* R2: settled: it can land no more, and nobody sent it again. */
	iscsi_fake_log(&rig->fake, rig->log);
	assert_non_null(strchr(rig->log, 'R'));
	assert_null(strchr(rig->log, 'W'));
	assert_int_equal(iscsi_fake_land(&rig->fake), 0);
	/* R9: told once. */
	assert_int_equal(do_flush(rig), -EIO);
	assert_int_equal(do_flush(rig), 0);
	assert_false(blk_is_lost(rig->dev));
	rig_free(rig);
}

static void test_an_idle_loss_is_told_by_the_next_flush(void **unused)
{
	struct rig *rig = rig_new(true);

	(void)unused;
	assert_int_equal(do_data(rig, BLK_WRITE, rig->bytes), 0);
	rig->fake.hangs_up = true;
	while (!strchr(iscsi_fake_log(&rig->fake, rig->log), 'R'))
		io_wait_pass(&rig->wait, 20 * NS_PER_MS);
	assert_int_equal(do_flush(rig), -EIO);
	assert_int_equal(do_flush(rig), 0);
	/* A disk that has become the guest's tells nothing of the kind: nobody could repair it. */
	blk_iscsi_promote(rig->dev);
	iscsi_fake_forget(&rig->fake);
	rig->fake.hangs_up = true;
	while (!strchr(iscsi_fake_log(&rig->fake, rig->log), 'R'))
		io_wait_pass(&rig->wait, 20 * NS_PER_MS);
	assert_int_equal(do_flush(rig), 0);
	rig_free(rig);
}

/* Without the answer to the reset nothing is settled, however often it is asked. */
static void refused_barrier(bool as_target, atomic_bool *knob, struct rig *rig)
{
	struct io_op op;

	keep_one(rig, &op, 0x44);
	*knob = true;
	rig->fake.hangs_up = true;
	io_wait_pass(&rig->wait, 1500 * NS_PER_MS);
	assert_true(op.in_flight);
	assert_null(strchr(iscsi_fake_log(&rig->fake, rig->log), 'W'));
	assert_int_equal(rig->state, BLK_ISCSI_RECONNECTING);
	assert_int_equal(iscsi_fake_land(&rig->fake), 1);       /* what the wait was for */
	*knob = false;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(op.req.result, as_target ? -EIO : 0);
	assert_non_null(strchr(iscsi_fake_log(&rig->fake, rig->log), 'R'));
	rig_free(rig);
}

static void test_nothing_is_settled_without_the_barrier(void **unused)
{
	struct rig *rig = rig_new(true);

	(void)unused;
	refused_barrier(true, &rig->fake.refuses_reset, rig);
	rig = rig_new(false);
	refused_barrier(false, &rig->fake.refuses_reset, rig);
	rig = rig_new(false);
	refused_barrier(false, &rig->fake.ignores_reset, rig);
}

static void test_a_close_does_not_wait_for_a_silent_target(void **unused)
{
	struct rig *rig = rig_new(false);
	uint64_t before_ns;

	(void)unused;
	rig->fake.ignores_reset = true;
	rig->fake.hangs_up = true;
	while (rig->state != BLK_ISCSI_RECONNECTING)
		io_wait_pass(&rig->wait, 20 * NS_PER_MS);
	io_wait_pass(&rig->wait, 300 * NS_PER_MS);      /* it waits for the reset's answer */
	before_ns = loop_now_ns(rig->loop);
	blk_close(rig->dev);
	io_wait_pass(&rig->wait, 1);
	assert_true(loop_now_ns(rig->loop) - before_ns < 5 * NS_PER_S);
	loop_free(rig->loop);
	iscsi_fake_stop(&rig->fake);
	free(rig);
}

static void test_another_unit_in_its_place_ends_the_device(void **unused)
{
	struct rig *rig = rig_new(true);
	struct io_op op;

	(void)unused;
	keep_one(rig, &op, 0x55);
	rig->fake.blocks = FAKE_BYTES / 512 / 2;
	rig->fake.hangs_up = true;
	assert_true(io_wait_for(&rig->wait, 1));
	assert_int_equal(op.req.result, -EIO);
	assert_true(blk_is_lost(rig->dev));
	assert_int_equal(do_data(rig, BLK_READ, rig->other), -EIO);
	assert_null(strchr(iscsi_fake_log(&rig->fake, rig->log), 'W'));
	rig_free(rig);
}

static void test_nothing_passes_for_data(void **unused)
{
	struct rig *rig = rig_new(false);

	(void)unused;
	rig->fake.short_reads = true;
	assert_int_equal(do_data(rig, BLK_READ, rig->other), -EIO);
	rig->fake.short_reads = false;
	rig->fake.empty_reads = true;
	assert_int_equal(do_data(rig, BLK_READ, rig->other), -EIO);
	rig->fake.empty_reads = false;
	assert_int_equal(do_data(rig, BLK_READ, rig->other), 0);
	rig_free(rig);
}

static void test_a_unit_that_is_busy_is_asked_again(void **unused)
{
	struct rig *rig = rig_new(false);

	(void)unused;
	rig->fake.status = 0x08;        /* BUSY */
	rig->fake.status_count = 3;
	assert_int_equal(do_data(rig, BLK_WRITE, rig->bytes), 0);
	rig->fake.status = 0x18;        /* RESERVATION CONFLICT, and no lock of ours */
	rig->fake.status_count = 1;
	assert_int_equal(do_data(rig, BLK_WRITE, rig->bytes), -EIO);
	assert_int_equal(do_data(rig, BLK_WRITE, rig->bytes), 0);
	rig_free(rig);
}

static void test_zeroes_are_written_where_write_same_is_unknown(void **unused)
{
	struct rig *rig = rig_new(false);
	struct io_op op = { .req = { .op = BLK_WRITE_ZEROES, .flags = BLK_MAY_UNMAP,
				     .offset_bytes = 512, .len_bytes = 256 << 10 } };

	(void)unused;
	memset(rig->fake.disk, 0xff, 1 << 20);
	rig->fake.no_write_same = true;
	op.req.len_bytes = 100 << 10;
	assert_int_equal(io_do(&rig->wait, rig->dev, &op), 0);
	assert_int_equal(rig->fake.disk[511], 0xff);
	for (unsigned i = 512; i < 512 + (100 << 10); i++)
		assert_int_equal(rig->fake.disk[i], 0);
	assert_int_equal(rig->fake.disk[512 + (100 << 10)], 0xff);
	assert_null(strchr(iscsi_fake_log(&rig->fake, rig->log), 'Z'));
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guests_write_is_sent_again_after_the_barrier),
		cmocka_unit_test(test_a_targets_write_is_never_sent_again),
		cmocka_unit_test(test_an_idle_loss_is_told_by_the_next_flush),
		cmocka_unit_test(test_nothing_is_settled_without_the_barrier),
		cmocka_unit_test(test_a_close_does_not_wait_for_a_silent_target),
		cmocka_unit_test(test_another_unit_in_its_place_ends_the_device),
		cmocka_unit_test(test_nothing_passes_for_data),
		cmocka_unit_test(test_a_unit_that_is_busy_is_asked_again),
		cmocka_unit_test(test_zeroes_are_written_where_write_same_is_unknown),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

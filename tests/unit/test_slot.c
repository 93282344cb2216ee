/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a slot answers while it is empty, keeps its promises when filled, and lets its device go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/blkdev/slot.h"
#include "tests/lib/mem_dev.h"

#define SIZE (1u << 20)

struct world {
	struct loop *loop;
	struct blk_dev *slot;
	struct mem_dev *mem;
	struct blk_req req;
	struct iovec iov;
	uint8_t bytes[4096];
	bool done;
};

static int make_world(void **state)
{
	static struct world world;

	world = (struct world){ .loop = loop_sim_new(1) };
	assert_non_null(world.loop);
	world.slot = slot_new(world.loop, SIZE, 512, 4096);
	assert_non_null(world.slot);
	*state = &world;
	return 0;
}

static int end_world(void **state)
{
	struct world *world = *state;

	blk_close(world->slot);
	loop_free(world->loop);
	return 0;
}

static void request_done(struct blk_req *req)
{
	((struct world *)req->user)->done = true;
}

static int submit(struct world *world, struct blk_dev *dev, enum blk_op op)
{
	world->done = false;
	world->iov = (struct iovec){ world->bytes, sizeof(world->bytes) };
	world->req = (struct blk_req){ .op = op, .done = request_done, .user = world };
	if (op != BLK_FLUSH) {
		world->req.offset_bytes = 8192;
		world->req.len_bytes = sizeof(world->bytes);
		world->req.iov = &world->iov;
		world->req.iov_count = 1;
	}
	blk_submit(dev, &world->req);
	assert_false(world->done);      /* never from inside */
	while (!world->done)
		assert_true(loop_sim_step(world->loop));
	assert_int_equal(dev->in_flight, 0);
	return world->req.result;
}

static struct mem_dev *mem_new(struct world *world, uint64_t size_bytes, uint32_t block_bytes,
			       uint32_t physical_bytes)
{
	struct blk_limits limits = {
		.block_bytes = block_bytes, .physical_bytes = physical_bytes,
		.memory_align_bytes = 1, .best_transfer_bytes = 65536, .best_depth = 7,
		.reads_zero = true, .can_unmap = true,
	};
	struct mem_dev *mem = mem_dev_new(world->loop, size_bytes, &limits);

	assert_non_null(mem);
	return mem;
}

static void test_empty(void **state)
{
	struct world *world = *state;

	assert_null(slot_inner(world->slot));
	assert_true(blk_dev_is_slot(world->slot));
	assert_int_equal(submit(world, world->slot, BLK_WRITE), -ENODEV);
	assert_int_equal(submit(world, world->slot, BLK_READ), -ENODEV);
	assert_int_equal(submit(world, world->slot, BLK_FLUSH), -ENODEV);
	assert_false(world->slot->limits.reads_zero);
}

static void test_filled(void **state)
{
	struct world *world = *state;
	struct mem_dev *mem = mem_new(world, 2 * SIZE, 512, 512);

	assert_int_equal(slot_fill(world->slot, &mem->dev, NULL), 0);
	assert_ptr_equal(slot_inner(world->slot), &mem->dev);
	memset(world->bytes, 0x5a, sizeof(world->bytes));
	assert_int_equal(submit(world, world->slot, BLK_WRITE), 0);
	assert_memory_equal(mem->bytes + 8192, world->bytes, sizeof(world->bytes));
	assert_int_equal(submit(world, world->slot, BLK_FLUSH), 0);
	/* The promises stand, the hints are the device's, and R11. */
	assert_int_equal(world->slot->size_bytes, SIZE);
	assert_int_equal(world->slot->limits.physical_bytes, 4096);
	assert_int_equal(world->slot->limits.best_depth, 7);
	assert_true(world->slot->limits.can_unmap);
	assert_false(world->slot->limits.reads_zero);
}

static void refuse(struct world *world, struct mem_dev *mem, enum err_id id)
{
	struct err err = { 0 };

	assert_true(slot_fill(world->slot, &mem->dev, &err) < 0);
	assert_int_equal(err.id, id);
	assert_null(slot_inner(world->slot));
	assert_int_equal(submit(world, world->slot, BLK_READ), -ENODEV);
	blk_close(&mem->dev);
}

static void test_promises(void **state)
{
	struct world *world = *state;
	struct mem_dev *read_only = mem_new(world, SIZE, 512, 512);

	refuse(world, mem_new(world, SIZE / 2, 512, 512), ERR_MOVE_TARGET_SMALL);
	refuse(world, mem_new(world, SIZE, 4096, 4096), ERR_MOVE_SECTOR);
	refuse(world, mem_new(world, SIZE, 512, 8192), ERR_MOVE_PHYSICAL);
	read_only->dev.limits.read_only = true;
	refuse(world, read_only, ERR_DS_READ_ONLY);
}

/* What is in flight when the device is taken out completes as if nothing had happened. */
static void test_taken(void **state)
{
	struct world *world = *state;
	struct mem_dev *mem = mem_new(world, SIZE, 512, 512);
	struct blk_req flush = { .op = BLK_FLUSH, .done = request_done, .user = world };
	struct blk_dev *taken;

	assert_int_equal(slot_fill(world->slot, &mem->dev, NULL), 0);
	world->done = false;
	blk_submit(world->slot, &flush);
	taken = slot_take(world->slot);
	assert_ptr_equal(taken, &mem->dev);
	while (!world->done)
		assert_true(loop_sim_step(world->loop));
	assert_int_equal(flush.result, 0);
	assert_int_equal(submit(world, taken, BLK_READ), 0);
	assert_int_equal(submit(world, world->slot, BLK_READ), -ENODEV);
	blk_close(taken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, make_world, end_world),
		cmocka_unit_test_setup_teardown(test_filled, make_world, end_world),
		cmocka_unit_test_setup_teardown(test_promises, make_world, end_world),
		cmocka_unit_test_setup_teardown(test_taken, make_world, end_world),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

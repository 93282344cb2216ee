/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_relocate.c - moves of real files under a guest that writes, and what each failure leaves.
 *
 * After every failure: the source is LIVE, attached and has what the guest wrote; no target,
 * no record, no promised space is left; and the disk can move again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/mirror/mover_private.h"
#include "tests/lib/loop_thread.h"
#include "tests/lib/move_fixture.h"
#include "vmotion/relocate_private.h"

struct world {
	struct move_fixture fixture;
	struct disk *disk;
	struct relocate_disk_spec spec;
	uint8_t uuid[16];
};

static void world_open(struct world *world)
{
	struct disk_info info;

	memset(world, 0, sizeof(*world));
	move_fixture_make(&world->fixture);
	move_fixture_open(&world->fixture, 1);
	make_disk(&world->fixture, 0, "vm/a.vmdk");
	world->disk = attach_path(&world->fixture, 0, "vm/a.vmdk", "a");
	assert_non_null(world->disk);
	disk_info(world->disk, &info);
	memcpy(world->uuid, info.disk.identity.uuid, sizeof(world->uuid));
	world->spec = (struct relocate_disk_spec){
		.disk = world->disk, .target_datastore = world->fixture.ds[1],
	};
}

static void world_close(struct world *world)
{
	move_fixture_close(&world->fixture);
	move_fixture_remove(&world->fixture);
}

/* Where the disk is, as everybody can see; and nothing of a move is left. */
static void assert_at(struct world *world, unsigned ds, uint64_t generation)
{
	struct ds_disk_info there = stat_disk(&world->fixture, ds, "vm/a.vmdk");
	struct disk_info info;

	assert_int_equal(there.identity.role, DISK_LIVE);
	assert_int_equal(there.identity.generation, generation);
	assert_memory_equal(there.identity.uuid, world->uuid, 16);
	assert_string_equal(there.identity.journal_id, "");
	assert_false(disk_exists(&world->fixture, 1 - ds, "vm/a.vmdk"));
	assert_int_equal(promised_bytes(&world->fixture, 0), 0);
	assert_int_equal(promised_bytes(&world->fixture, 1), 0);
	assert_int_equal(count_records(&world->fixture), 0);
	disk_info(world->disk, &info);
	assert_string_equal(info.datastore, ds ? "two" : "one");
	assert_int_equal(info.disk.identity.role, DISK_LIVE);
	assert_int_equal(info.disk.identity.generation, generation);
	assert_false(info.moving);
}

static void test_moves_under_a_guest(void **state)
{
	struct world world;
	struct disk_info before, after;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct guest *guest;
	uint64_t failures;

	(void)state;
	world_open(&world);
	disk_info(world.disk, &before);
	guest = guest_start(&world.fixture, world.disk, 1);
	spec = move_spec(&world.fixture, &world.spec, 1);
	move_run(&move, &world.fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_int_equal(move.status.disks[0].verified, 1);
	assert_true(move.status.disks[0].target_authoritative);
	assert_string_equal(move.status.disks[0].source, "one:vm/a.vmdk");
	assert_string_equal(move.status.disks[0].target, "two:vm/a.vmdk");
	assert_true(move.status.stun_ns > 0);
	assert_int_equal(move.switched_calls, 1);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	assert_at(&world, 1, before.disk.identity.generation + 1);
	disk_info(world.disk, &after);
	assert_string_equal(after.id, before.id);
	assert_string_equal(after.uri, before.uri);
	assert_string_equal(after.socket_path, before.socket_path);
	world_close(&world);
}

static void test_kept_source_is_retired(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct ds_disk_info left;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 3);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.keep_source = true;
	move_run(&move, &world.fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	left = stat_disk(&world.fixture, 0, "vm/a.vmdk");
	assert_int_equal(left.identity.role, DISK_RETIRED);
	assert_int_equal(left.identity.generation, 1);
	assert_int_equal(stat_disk(&world.fixture, 1, "vm/a.vmdk").identity.generation, 2);
	assert_null(attach_path(&world.fixture, 0, "vm/a.vmdk", "old"));
	assert_int_equal(world.fixture.err.id, ERR_DISK_RETIRED);
	assert_true(disk_has_pattern(&world.fixture, world.disk, 3));
	assert_int_equal(count_records(&world.fixture), 0);
	world_close(&world);
}

static void test_unverified_source_is_never_deleted(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.verify = false;
	assert_int_equal(check_move(&world.fixture, &spec)->warning_count, 1);
	assert_int_equal(world.fixture.report.warnings[0].id, ERR_MOVE_UNVERIFIED);
	move_run(&move, &world.fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_int_equal(move.status.disks[0].verified, -1);
	assert_int_equal(stat_disk(&world.fixture, 0, "vm/a.vmdk").identity.role, DISK_RETIRED);
	world_close(&world);
}

static void test_moves_there_and_back(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 5);
	for (unsigned i = 0; i < 3; i++) {
		world.spec.target_datastore = world.fixture.ds[(i + 1) % 2];
		spec = move_spec(&world.fixture, &world.spec, 1);
		move_run(&move, &world.fixture, &spec);
		assert_int_equal(move.status.state, RELOCATE_COMPLETED);
		assert_at(&world, (i + 1) % 2, i + 2);
		assert_true(disk_has_pattern(&world.fixture, world.disk, 5));
	}
	world_close(&world);
}

static void test_two_disks_and_a_cold_one(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_disk_spec disks[3];
	struct relocate_spec spec;
	struct disk *cold, *other;

	(void)state;
	world_open(&world);
	make_disk(&world.fixture, 0, "vm/b.img");
	make_disk(&world.fixture, 0, "vm/c.vmdk");
	other = attach_path(&world.fixture, 0, "vm/b.img", NULL);
	fill_disk(&world.fixture, world.disk, 1);
	fill_disk(&world.fixture, other, 2);
	cold = attach_path(&world.fixture, 0, "vm/c.vmdk", "c");
	fill_disk(&world.fixture, cold, 3);
	assert_int_equal(detach(&world.fixture, cold, false), ERR_NONE);
	disks[0] = world.spec;
	disks[1] = (struct relocate_disk_spec){ .disk = other, .target_path = "x/bb.img",
						.target_datastore = world.fixture.ds[1] };
	disks[2] = (struct relocate_disk_spec){ .source_datastore = world.fixture.ds[0],
						.source_path = "vm/c.vmdk",
						.target_datastore = world.fixture.ds[1] };
	spec = move_spec(&world.fixture, disks, 3);
	move_run(&move, &world.fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_int_equal(move.status.disk_count, 3);
	assert_at(&world, 1, 2);
	assert_false(disk_exists(&world.fixture, 0, "vm/b.img"));
	assert_false(disk_exists(&world.fixture, 0, "vm/c.vmdk"));
	assert_null(disk_find_by_path(world.fixture.service, world.fixture.ds[1], "vm/c.vmdk"));
	cold = attach_path(&world.fixture, 1, "vm/c.vmdk", "c");
	assert_true(disk_has_pattern(&world.fixture, world.disk, 1));
	assert_true(disk_has_pattern(&world.fixture, other, 2));
	assert_true(disk_has_pattern(&world.fixture, cold, 3));
	world_close(&world);
}

static void test_operators_verbs(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct guest *guest;
	uint64_t failures;
	struct err err;

	(void)state;
	world_open(&world);
	guest = guest_start(&world.fixture, world.disk, 7);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	move_start(&move, &world.fixture, &spec);
	assert_int_not_equal(relocation_pause(move.relocation, &err), 0);
	assert_int_equal(err.id, ERR_TASK_STATE);
	move_wait_state(&move, RELOCATE_HELD);
	assert_int_equal(detach(&world.fixture, world.disk, true), ERR_DISK_MOVING);
	assert_int_not_equal(relocation_resume(move.relocation, &err), 0);
	assert_int_equal(err.id, ERR_TASK_STATE);
	assert_int_equal(relocation_pause(move.relocation, &err), 0);
	move_wait_state(&move, RELOCATE_PAUSED);
	assert_false(move.status.degraded);
	assert_int_equal(relocation_set_bandwidth(move.relocation, UINT64_C(1) << 30, &err), 0);
	assert_int_equal(relocation_resume(move.relocation, &err), 0);
	move_wait_state(&move, RELOCATE_HELD);
	assert_int_equal(relocation_complete(move.relocation, &err), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_int_not_equal(relocation_cancel(move.relocation, &err), 0);
	assert_int_equal(err.id, ERR_TASK_ENDED);
	move_free(&move);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	assert_at(&world, 1, 2);
	world_close(&world);
}

static void move_again(struct world *world, unsigned seed)
{
	struct move move = { 0 };
	struct relocate_spec spec = move_spec(&world->fixture, &world->spec, 1);

	move_run(&move, &world->fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_at(world, 1, 2);
	assert_true(disk_has_pattern(&world->fixture, world->disk, seed));
}

/* ---- what is set while the mover is being made ---- */

struct stopper {
	struct task task;
	struct latch reached, go_on;
};

static void stopper_run(struct task *task)
{
	struct stopper *stopper = container_of(task, struct stopper, task);

	latch_raise(&stopper->reached);
	CHECK(latch_wait(&stopper->go_on, 60 * NS_PER_S));
}

/*
 * The I/O loop has made the mover, with the options of then, and the main loop has not heard of it
 * yet: what an operator sets just then is not lost.
 */
static void test_set_while_the_mover_is_made(void **state)
{
	struct stopper stopper = { .task.run = stopper_run, .reached = LATCH_INIT,
				   .go_on = LATCH_INIT };
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 5);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	loop_send(disk_loop(world.disk), &stopper.task);
	CHECK(latch_wait(&stopper.reached, 60 * NS_PER_S));
	move_start(&move, &world.fixture, &spec);
	while (strcmp(move.relocation->program[move.relocation->step].name, "start the mover") != 0)
		wait_ns(&world.fixture, NS_PER_MS);
	latch_raise(&stopper.go_on);
	while (atomic_load(&move.relocation->io.mover_state) < 0)
		usleep(100);
	assert_false(move.relocation->mover_alive);
	assert_int_equal(relocation_set_bandwidth(move.relocation, UINT64_C(987) << 20, NULL), 0);
	move_wait_state(&move, RELOCATE_HELD);
	while (move.relocation->verbs_under_way)
		wait_ns(&world.fixture, NS_PER_MS);
	assert_int_equal(move.relocation->io.mover->options.bandwidth_bytes_per_s,
			 UINT64_C(987) << 20);
	assert_int_equal(relocation_complete(move.relocation, NULL), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	move_free(&move);
	world_close(&world);
}

static void test_cancel_leaves_the_source(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 8);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	move_start(&move, &world.fixture, &spec);
	move_wait_state(&move, RELOCATE_HELD);
	assert_int_equal(stat_disk(&world.fixture, 0, "vm/a.vmdk").identity.role, DISK_MOVING);
	assert_int_equal(stat_disk(&world.fixture, 1, "vm/a.vmdk").identity.role, DISK_INCOMING);
	assert_int_equal(count_records(&world.fixture), 1);
	assert_int_equal(relocation_cancel(move.relocation, NULL), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_CANCELLED);
	move_free(&move);
	assert_int_equal(move.switched_calls, 0);
	assert_at(&world, 0, 1);
	move_again(&world, 8);
	world_close(&world);
}

static void test_cancel_while_preparing(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 9);
	spec = move_spec(&world.fixture, &world.spec, 1);
	move_start(&move, &world.fixture, &spec);
	assert_int_equal(relocation_cancel(move.relocation, NULL), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_CANCELLED);
	move_free(&move);
	assert_at(&world, 0, 1);
	move_again(&world, 9);
	world_close(&world);
}

/*
 * Goal: one failing operation of a store, whichever, neither loses anything nor stays.
 * Method: fail the 1st, then the 2nd ... until a move has fewer operations.
 */
static void fail_nth(uint64_t nth, bool *fired)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	bool over;

	world_open(&world);
	fill_disk(&world.fixture, world.disk, 11);
	spec = move_spec(&world.fixture, &world.spec, 1);
	ds_fault_fail_at(nth);
	move_run(&move, &world.fixture, &spec);
	*fired = ds_fault_count() >= nth;
	ds_fault_fail_at(0);
	over = move.status.disks[0].target_authoritative;
	assert_true(disk_has_pattern(&world.fixture, world.disk, 11));
	if (!*fired) {
		assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	} else if (!over) {
		assert_int_equal(move.status.state, RELOCATE_FAILED);
		assert_true(move.status.error.id == ERR_DS_IO ||
			    move.status.error.id == ERR_JOURNAL_IO);
		assert_at(&world, 0, 1);
		move_again(&world, 11);
	} else {
		/* Past the commit: done on the target; what is left is told and recovered. */
		struct recovery *recovery;

		assert_int_equal(move.status.state, RELOCATE_COMPLETED);
		assert_int_equal(move.status.degraded_why.id, ERR_MOVE_LEFTOVER);
		assert_int_equal(count_records(&world.fixture), 1);
		recovery = recover(&world.fixture);
		assert_int_equal(recovery_count(recovery), 0);
		recovery_free(recovery);
		assert_int_equal(count_records(&world.fixture), 0);
		assert_int_equal(stat_disk(&world.fixture, 1, "vm/a.vmdk").identity.role,
				 DISK_LIVE);
		if (disk_exists(&world.fixture, 0, "vm/a.vmdk"))
			assert_int_equal(stat_disk(&world.fixture, 0, "vm/a.vmdk").identity.role,
					 DISK_RETIRED);
	}
	world_close(&world);
}

static void test_each_failing_operation_is_undone(void **state)
{
	bool fired = true;
	uint64_t nth;

	(void)state;
	for (nth = 1; fired; nth++)
		fail_nth(nth, &fired);
	assert_true(nth > 10);          /* a move has that many */
}

static void test_failed_commit_falls_back(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct guest *guest;
	uint64_t failures;

	(void)state;
	world_open(&world);
	guest = guest_start(&world.fixture, world.disk, 12);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	move_start(&move, &world.fixture, &spec);
	move_wait_state(&move, RELOCATE_HELD);
	record_fault_fail(1);
	assert_int_equal(relocation_complete(move.relocation, NULL), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_FAILED);
	assert_int_equal(move.status.error.id, ERR_JOURNAL_IO);
	assert_false(move.status.disks[0].target_authoritative);
	move_free(&move);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	assert_at(&world, 0, 1);
	world_close(&world);
}

/* R-J3: COMMITTED and ABORTED both fail: nothing moves before one is durable. */
static void test_unknown_commit_holds(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct guest *guest;
	uint64_t failures, writes;
	struct err err;

	(void)state;
	world_open(&world);
	guest = guest_start(&world.fixture, world.disk, 13);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	move_start(&move, &world.fixture, &spec);
	move_wait_state(&move, RELOCATE_HELD);
	record_fault_fail(UINT32_MAX);
	assert_int_equal(relocation_complete(move.relocation, NULL), 0);
	while (move.status.degraded_why.id != ERR_MOVE_COMMIT)
		loop_run(world.fixture.loop);
	assert_int_equal(move.status.state, RELOCATE_RUNNING);
	assert_int_not_equal(relocation_cancel(move.relocation, &err), 0);
	assert_int_equal(err.id, ERR_TASK_COMMITTED);
	writes = guest_writes(guest);
	wait_ns(&world.fixture, 2500 * NS_PER_MS);      /* longer than the retry */
	assert_int_equal(guest_writes(guest), writes);  /* held */
	assert_int_equal(move.status.degraded_why.id, ERR_MOVE_COMMIT);
	record_fault_fail(0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_FAILED);
	move_free(&move);
	while (guest_writes(guest) == writes)
		wait_ns(&world.fixture, NS_PER_MS);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	assert_at(&world, 0, 1);
	world_close(&world);
}

/* Where the disks are could not be noted: the record stays until a recovery has told it. */
static void test_inventory_failure_keeps_the_record(void **state)
{
	struct world world;
	struct move move = { .switched_rc = -5 };
	struct relocate_spec spec;
	struct recovery *recovery;

	(void)state;
	world_open(&world);
	spec = move_spec(&world.fixture, &world.spec, 1);
	move_run(&move, &world.fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	assert_int_equal(move.status.degraded_why.id, ERR_MOVE_LEFTOVER);
	assert_int_equal(count_records(&world.fixture), 1);
	assert_int_equal(stat_disk(&world.fixture, 0, "vm/a.vmdk").identity.role, DISK_RETIRED);
	recovery = recover(&world.fixture);
	assert_int_equal(recovery_count(recovery), 0);
	assert_int_equal(count_records(&world.fixture), 0);
	recovery_free(recovery);
	world_close(&world);
}

/*
 * R2: writes that a target's store keeps forbid deleting it.  The task ends all the same, says
 * so, and the rest is done when they have settled.
 */
static void test_stuck_target_lingers(void **state)
{
	struct world world;
	struct move move = { 0 };
	struct relocate_spec spec;
	struct guest *guest;
	uint64_t failures, writes;

	(void)state;
	world_open(&world);
	world.fixture.service->patience_ns = 200 * NS_PER_MS;
	ds_fault_hangable(true);
	guest = guest_start(&world.fixture, world.disk, 14);
	spec = move_spec(&world.fixture, &world.spec, 1);
	spec.options.hold = true;
	spec.options.leg_deadline_ns = 100 * NS_PER_MS;
	move_start(&move, &world.fixture, &spec);
	move_wait_state(&move, RELOCATE_HELD);
	ds_fault_hang(true);
	/* The guest goes on, and a leg of it is late. */
	writes = guest_writes(guest);
	while (guest_writes(guest) < writes + 100 || !move.status.degraded)
		wait_ns(&world.fixture, 10 * NS_PER_MS);
	assert_int_equal(relocation_cancel(move.relocation, NULL), 0);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_CANCELLED);
	assert_int_equal(move.status.degraded_why.id, ERR_MOVE_LEFTOVER);
	assert_int_equal(stat_disk(&world.fixture, 0, "vm/a.vmdk").identity.role, DISK_LIVE);
	assert_int_equal(stat_disk(&world.fixture, 1, "vm/a.vmdk").identity.role, DISK_INCOMING);
	assert_int_equal(count_records(&world.fixture), 1);
	assert_int_equal(detach(&world.fixture, world.disk, true), ERR_DISK_MOVING);
	relocation_free(move.relocation);
	assert_int_equal(relocate_count(world.fixture.service), 1);
	assert_true(relocate_uses(world.fixture.service, world.fixture.ds[1]));
	ds_fault_hang(false);
	while (relocate_count(world.fixture.service))
		wait_ns(&world.fixture, 10 * NS_PER_MS);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	assert_at(&world, 0, 1);
	ds_fault_hangable(false);
	world_close(&world);
}

/* ---- the check ---- */

static void assert_refused(struct world *world, struct relocate_spec *spec, enum err_id id)
{
	struct move move = { 0 };
	const struct check_report *report = check_move(&world->fixture, spec);
	bool found = false;

	for (uint32_t i = 0; i < report->error_count; i++) {
		found |= report->errors[i].id == id;
		assert_true(report->errors[i].cause[0]);
		assert_true(report->errors[i].remedy[0]);
	}
	assert_true(found);
	/* The start refuses the same, and leaves everything as it was. */
	move_start(&move, &world->fixture, spec);
	move_wait_ended(&move);
	assert_int_equal(move.status.state, RELOCATE_FAILED);
	assert_non_null(relocation_refused(move.relocation));
	assert_int_equal(relocation_refused(move.relocation)->errors[0].id, report->errors[0].id);
	move_free(&move);
	assert_at(world, 0, 1);
}

static void test_check_refuses(void **state)
{
	struct world world;
	struct relocate_disk_spec disks[2];
	struct relocate_spec spec;
	struct disk *read_only;
	struct disk_attach_spec attach_spec;

	(void)state;
	world_open(&world);
	disks[0] = disks[1] = world.spec;
	spec = move_spec(&world.fixture, disks, 2);
	assert_refused(&world, &spec, ERR_USAGE);               /* named twice */
	spec.disk_count = 0;
	assert_refused(&world, &spec, ERR_USAGE);
	spec.disk_count = 1;
	disks[0].target_datastore = world.fixture.ds[0];
	assert_refused(&world, &spec, ERR_MOVE_SAME);
	disks[0].target_path = "../x.vmdk";
	assert_refused(&world, &spec, ERR_DS_PATH_ESCAPE);
	disks[0].target_datastore = world.fixture.ds[1];
	disks[0].target_path = NULL;
	make_disk(&world.fixture, 1, "there.img");
	disks[0].target_path = "there.img";
	assert_refused(&world, &spec, ERR_MOVE_TARGET_EXISTS);
	disks[0] = (struct relocate_disk_spec){ .source_datastore = world.fixture.ds[0],
						.source_path = "nobody.vmdk",
						.target_datastore = world.fixture.ds[1] };
	assert_refused(&world, &spec, ERR_DISK_UNKNOWN);
	disks[0].source_path = "ro.img";
	make_disk(&world.fixture, 0, "ro.img");
	attach_spec = (struct disk_attach_spec){ .datastore = world.fixture.ds[0],
						 .path = "ro.img", .read_only = true };
	read_only = attach(&world.fixture, &attach_spec);
	assert_non_null(read_only);
	assert_refused(&world, &spec, ERR_DISK_READ_ONLY);
	disks[0] = world.spec;
	spec.state_dir = "/nonexistent/state";
	assert_refused(&world, &spec, ERR_STATE_DIR);
	world_close(&world);
}

static void test_check_predicts_space(void **state)
{
	struct world world;
	struct relocate_spec spec;
	struct ds_space space;
	uint64_t spare;

	(void)state;
	world_open(&world);
	fill_disk(&world.fixture, world.disk, 1);
	spec = move_spec(&world.fixture, &world.spec, 1);
	assert_int_equal(check_move(&world.fixture, &spec)->error_count, 0);
	assert_in_range(world.fixture.report.estimate_bytes, 1, MOVE_DISK_BYTES);
	/* All but 1 MiB is promised to others; the file system is shared: leave it some slack. */
	assert_int_equal(datastore_space(world.fixture.ds[1], &space, NULL), 0);
	spare = space.free_bytes - (1 << 20);
	assert_int_equal(datastore_reserve(world.fixture.ds[1], spare, NULL), 0);
	check_move(&world.fixture, &spec);
	datastore_unreserve(world.fixture.ds[1], spare);
	assert_int_equal(world.fixture.report.error_count, 1);
	assert_int_equal(world.fixture.report.errors[0].id, ERR_DS_NO_SPACE);
	world_close(&world);
}

static void test_check_changes_nothing(void **state)
{
	struct world world;
	struct relocate_disk_spec disk;
	struct relocate_spec spec;

	(void)state;
	world_open(&world);
	make_disk(&world.fixture, 0, "fresh.img");
	disk = (struct relocate_disk_spec){ .source_datastore = world.fixture.ds[0],
					    .source_path = "fresh.img",
					    .target_datastore = world.fixture.ds[1] };
	spec = move_spec(&world.fixture, &disk, 1);
	assert_true(stat_disk(&world.fixture, 0, "fresh.img").reads_zero);
	assert_int_equal(check_move(&world.fixture, &spec)->error_count, 0);
	assert_true(stat_disk(&world.fixture, 0, "fresh.img").reads_zero);
	assert_int_equal(count_records(&world.fixture), 0);
	assert_false(disk_exists(&world.fixture, 1, "fresh.img"));
	world_close(&world);
}

static void test_different_threads_are_refused(void **state)
{
	struct move_fixture fixture;
	struct relocate_disk_spec disks[2];
	struct disk_attach_spec attach_spec;
	struct relocate_spec spec;
	struct move move = { 0 };

	(void)state;
	move_fixture_make(&fixture);
	move_fixture_open(&fixture, 2);
	make_disk(&fixture, 0, "a.img");
	make_disk(&fixture, 0, "b.img");
	for (int i = 0; i < 2; i++)
		disks[i] = (struct relocate_disk_spec){
			.disk = attach_path(&fixture, 0, i ? "b.img" : "a.img", NULL),
			.target_datastore = fixture.ds[1],
		};
	spec = move_spec(&fixture, disks, 2);
	assert_int_equal(check_move(&fixture, &spec)->errors[0].id, ERR_MOVE_THREADS);
	/* With a group they share one. */
	assert_int_equal(detach(&fixture, disks[0].disk, false), ERR_NONE);
	assert_int_equal(detach(&fixture, disks[1].disk, false), ERR_NONE);
	for (int i = 0; i < 2; i++) {
		attach_spec = (struct disk_attach_spec){ .datastore = fixture.ds[0],
							 .path = i ? "b.img" : "a.img",
							 .export_kind = DISK_EXPORT_NBD,
							 .group = "vm1" };
		disks[i].disk = attach(&fixture, &attach_spec);
	}
	assert_int_equal(check_move(&fixture, &spec)->error_count, 0);
	move_run(&move, &fixture, &spec);
	assert_int_equal(move.status.state, RELOCATE_COMPLETED);
	move_fixture_close(&fixture);
	move_fixture_remove(&fixture);
}

/* ---- the tables ---- */

static void test_tables_are_total(void **state)
{
	(void)state;
	for (int stage = STAGE_PREPARING; stage < STAGE_COUNT; stage++) {
		for (int event = 0; event < EVENT_COUNT; event++) {
			enum relocate_stage next = relocate_next_stage((enum relocate_stage)stage,
								       (enum relocate_event)event);

			assert_in_range(next, STAGE_PREPARING, STAGE_ENDED);
			/* R-J3: from COMMITTED only to the end; never back to the source. */
			if (stage == STAGE_COMMITTED)
				assert_true(next == STAGE_COMMITTED || next == STAGE_LINGERING ||
					    next == STAGE_ENDED);
			if (stage == STAGE_UNDOING)
				assert_true(next == STAGE_UNDOING || next == STAGE_LINGERING ||
					    next == STAGE_ENDED);
			if (stage == STAGE_ENDED)
				assert_int_equal(next, STAGE_ENDED);
			if (event == EVENT_END && next == STAGE_ENDED)
				assert_true(stage >= STAGE_COMMITTED);
		}
		for (int verb = 0; verb < VERB_COUNT; verb++) {
			enum err_id id = relocate_verb_refusal((enum relocate_stage)stage,
							       (enum relocate_verb)verb);

			if (stage == STAGE_COMMITTING || stage == STAGE_COMMITTED)
				assert_int_equal(id, ERR_TASK_COMMITTED);
			if (stage >= STAGE_LINGERING)
				assert_int_equal(id, ERR_TASK_ENDED);
		}
		assert_non_null(relocate_stage_name((enum relocate_stage)stage));
	}
	for (int phase = 0; phase < RELOCATE_PHASE_COUNT; phase++)
		assert_non_null(relocate_phase_name((enum relocate_phase)phase));
	for (int s = 0; s < RELOCATE_STATE_COUNT; s++)
		assert_non_null(relocate_state_name((enum relocate_state)s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables_are_total),
		cmocka_unit_test(test_moves_under_a_guest),
		cmocka_unit_test(test_kept_source_is_retired),
		cmocka_unit_test(test_unverified_source_is_never_deleted),
		cmocka_unit_test(test_moves_there_and_back),
		cmocka_unit_test(test_two_disks_and_a_cold_one),
		cmocka_unit_test(test_operators_verbs),
		cmocka_unit_test(test_set_while_the_mover_is_made),
		cmocka_unit_test(test_cancel_leaves_the_source),
		cmocka_unit_test(test_cancel_while_preparing),
		cmocka_unit_test(test_each_failing_operation_is_undone),
		cmocka_unit_test(test_failed_commit_falls_back),
		cmocka_unit_test(test_unknown_commit_holds),
		cmocka_unit_test(test_inventory_failure_keeps_the_record),
		cmocka_unit_test(test_stuck_target_lingers),
		cmocka_unit_test(test_check_refuses),
		cmocka_unit_test(test_check_predicts_space),
		cmocka_unit_test(test_check_changes_nothing),
		cmocka_unit_test(test_different_threads_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_relocate_crash.c - the daemon dies at every durable step of a move; recovery finishes.
 *
 * Goal: whatever the moment, exactly one copy is authoritative afterwards, it has every byte,
 *       it can be opened by anybody, and nothing of the move is left but a retired source.
 * Method: a child moves a disk and ends with _exit() right before, or right after, its n-th
 *       operation on a store or write of the record or a journal; another child recovers, or
 *       goes on with the move, itself cut short in the same way in half of the runs; a last
 *       one looks.  n counts up until a move has fewer operations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/move_fixture.h"

#define PATTERN 21u

struct plan {
	uint64_t nth;
	bool after;
	bool keep_source;
	bool cancel;
	bool resume;                    /* the next one goes on, instead of rolling back */
};

/* 0: ended by itself, 1: crashed as told. */
static int in_child(struct move_fixture *fixture, const struct plan *plan,
		    void (*function)(struct move_fixture *fixture, const struct plan *plan))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(120);
		move_fixture_open(fixture, 1);
		function(fixture, plan);
		move_fixture_close(fixture);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CRASH_EXIT);
	return WEXITSTATUS(status) == CRASH_EXIT;
}

static void make_child(struct move_fixture *fixture, const struct plan *plan)
{
	struct disk *disk;

	(void)plan;
	make_disk(fixture, 0, "vm/a.vmdk");
	make_disk(fixture, 0, "vm/b.img");
	disk = attach_path(fixture, 0, "vm/a.vmdk", "a");
	fill_disk(fixture, disk, PATTERN);
	disk = attach_path(fixture, 0, "vm/b.img", "b");
	fill_disk(fixture, disk, PATTERN + 1);
}

static void move_child(struct move_fixture *fixture, const struct plan *plan)
{
	struct relocate_disk_spec disks[2] = {
		{ .disk = attach_path(fixture, 0, "vm/a.vmdk", "a"),
		  .target_datastore = fixture->ds[1] },
		{ .disk = attach_path(fixture, 0, "vm/b.img", "b"),
		  .target_datastore = fixture->ds[1] },
	};
	struct relocate_spec spec = move_spec(fixture, disks, 2);
	struct move move = { 0 };

	spec.keep_source = plan->keep_source;
	spec.options.hold = plan->cancel;
	ds_fault_crash_at(plan->nth, plan->after);
	move_start(&move, fixture, &spec);
	if (plan->cancel) {
		move_wait_state(&move, RELOCATE_HELD);
		CHECK(relocation_cancel(move.relocation, NULL) == 0);
	}
	move_wait_ended(&move);
	ds_fault_crash_at(0, plan->after);
	move_free(&move);
}

static void recover_child(struct move_fixture *fixture, const struct plan *plan)
{
	struct recovery *recovery;

	ds_fault_crash_at(plan->nth, plan->after);
	recovery = recover(fixture);
	ds_fault_crash_at(0, plan->after);
	CHECK(recovery_count(recovery) == 0);
	recovery_free(recovery);
}

/* Goes on with what there is; a move that had not begun to copy is rolled back by itself. */
static void resume_child(struct move_fixture *fixture, const struct plan *plan)
{
	struct recovery *recovery;
	struct move move;

	ds_fault_crash_at(plan->nth, plan->after);
	recovery = recover_and_resume(fixture, &move, false);
	if (move.relocation) {
		move_wait_ended(&move);
		CHECK(move.status.state == RELOCATE_COMPLETED ||
		      (move.status.state == RELOCATE_FAILED &&
		       move.status.error.id == ERR_TASK_INTERRUPTED));
		CHECK(move.status.state != RELOCATE_COMPLETED ||
		      move.status.disks[0].verified == 1);
		move_free(&move);
	}
	ds_fault_crash_at(0, plan->after);
	CHECK(recovery_count(recovery) == 0);
	CHECK(count_records(fixture) == 0);
	recovery_free(recovery);
}

/* One of the two copies is live and whole; the other is gone, or a retired source. */
static unsigned look_at_disk(struct move_fixture *fixture, const char *path, const char *id,
			     unsigned seed)
{
	bool there[2] = { disk_exists(fixture, 0, path), disk_exists(fixture, 1, path) };
	unsigned live = there[1] && stat_disk(fixture, 1, path).identity.role == DISK_LIVE ? 1 : 0;
	struct disk *disk;

	CHECK(there[live]);
	CHECK(stat_disk(fixture, live, path).identity.role == DISK_LIVE);
	CHECK(stat_disk(fixture, live, path).identity.generation == 1 + live);
	if (there[1 - live]) {
		CHECK(live == 1);       /* an unfinished target is never left */
		CHECK(stat_disk(fixture, 0, path).identity.role == DISK_RETIRED);
	}
	disk = attach_path(fixture, live, path, id);
	CHECK(disk);
	CHECK(disk_has_pattern(fixture, disk, seed));
	return live;
}

/* Right after the crash: two copies that anybody could open exist at no time. */
static void between_child(struct move_fixture *fixture, const struct plan *plan)
{
	static const char *const paths[] = { "vm/a.vmdk", "vm/b.img" };

	(void)plan;
	for (int i = 0; i < 2; i++) {
		unsigned live = 0;

		for (unsigned ds = 0; ds < 2; ds++)
			live += disk_exists(fixture, ds, paths[i]) &&
				stat_disk(fixture, ds, paths[i]).identity.role == DISK_LIVE;
		CHECK(live <= 1);
	}
}

static void look_child(struct move_fixture *fixture, const struct plan *plan)
{
	unsigned a = look_at_disk(fixture, "vm/a.vmdk", "a", PATTERN);
	unsigned b = look_at_disk(fixture, "vm/b.img", "b", PATTERN + 1);

	(void)plan;
	CHECK(a == b);                  /* all disks of a machine, or none (R-J4) */
	CHECK(count_records(fixture) == 0);
}

static bool crash_once(const struct plan *plan)
{
	static const struct plan whole = { 0 };
	struct move_fixture fixture;
	struct plan second = { .nth = plan->nth % (plan->resume ? 19 : 7) + 1,
			       .after = !plan->after };
	void (*go_on)(struct move_fixture *fixture, const struct plan *plan);
	bool crashed;

	move_fixture_make(&fixture);
	assert_int_equal(in_child(&fixture, &whole, make_child), 0);
	crashed = in_child(&fixture, plan, move_child);
	assert_int_equal(in_child(&fixture, &whole, between_child), 0);
	go_on = plan->resume ? resume_child : recover_child;
	if (crashed && plan->nth % 2)
		(void)in_child(&fixture, &second, go_on);
	assert_int_equal(in_child(&fixture, &whole, between_child), 0);
	assert_int_equal(in_child(&fixture, &whole, go_on), 0);
	assert_int_equal(in_child(&fixture, &whole, look_child), 0);
	move_fixture_remove(&fixture);
	return crashed;
}

static void crash_everywhere(const struct plan *how)
{
	bool crashed = true;
	uint64_t nth;

	for (nth = 1; crashed; nth++) {
		struct plan plan = *how;

		plan.nth = nth;
		/* Going on takes longer: right before and right after in turns. */
		plan.after = plan.resume && nth % 2;
		crashed = crash_once(&plan);
		if (plan.resume)
			continue;
		plan.after = true;
		crashed |= crash_once(&plan);
	}
	assert_true(nth > 15);
}

static void test_crash_of_a_move(void **state)
{
	(void)state;
	crash_everywhere(&(struct plan){ .nth = 0 });
}

static void test_crash_of_a_move_that_keeps_its_source(void **state)
{
	(void)state;
	crash_everywhere(&(struct plan){ .keep_source = true });
}

static void test_crash_of_a_cancel(void **state)
{
	(void)state;
	crash_everywhere(&(struct plan){ .cancel = true });
}

static void test_crash_of_a_move_that_goes_on(void **state)
{
	(void)state;
	crash_everywhere(&(struct plan){ .resume = true });
}

/* Cancelled durably or not at all: what is gone on with ends on the target. */
static void test_crash_of_a_cancel_that_goes_on(void **state)
{
	(void)state;
	crash_everywhere(&(struct plan){ .cancel = true, .resume = true });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash_of_a_move),
		cmocka_unit_test(test_crash_of_a_move_that_keeps_its_source),
		cmocka_unit_test(test_crash_of_a_cancel),
		cmocka_unit_test(test_crash_of_a_move_that_goes_on),
		cmocka_unit_test(test_crash_of_a_cancel_that_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_resume.c - relocations that go on where a dead or stopped daemon has left them.
 *
 * Goal: what was copied is not copied again, what cannot be proved is not gone on with, and the
 *       guest is served in every case.
 * Method: a child moves a disk and dies in mid-copy, or parks the move; then the files are as
 *       they would be, or are changed by hand; this process goes on with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/move_fixture.h"
#include "vmotion/relocate_private.h"

#define SEED 31u
#define PATH "vm/a.img"

struct world {
	struct move_fixture fixture;
	struct recovery *recovery;
	struct move move;
	struct disk *disk;
};

/* ---- the life before ---- */

static struct relocate_spec slow_spec(struct move_fixture *fixture,
				      const struct relocate_disk_spec *disk)
{
	struct relocate_spec spec = move_spec(fixture, disk, 1);

	spec.options.bandwidth_bytes_per_s = 4 << 20;
	spec.options.checkpoint_ns = 20 * NS_PER_MS;
	return spec;
}

static void copy_half(struct move_fixture *fixture, struct move *move)
{
	struct relocate_disk_spec disk;
	struct relocate_spec spec;

	make_disk(fixture, 0, PATH);
	disk = (struct relocate_disk_spec){ .disk = attach_path(fixture, 0, PATH, "a"),
					    .target_datastore = fixture->ds[1] };
	fill_disk(fixture, disk.disk, SEED);
	spec = slow_spec(fixture, &disk);
	move_start(move, fixture, &spec);
	while (!move->status.disk_count || move->status.disks[0].stats.copied_bytes < 3 << 20)
		loop_run(fixture->loop);
	wait_ns(fixture, 300 * NS_PER_MS);      /* a checkpoint or two */
	CHECK(!move->ended);
}

enum before { KILLED, PARKED, PAUSED_AND_KILLED };

static void live_before(struct move_fixture *fixture, enum before before)
{
	struct move move = { 0 };

	alarm(100);
	move_fixture_open(fixture, 1);
	copy_half(fixture, &move);
	if (before == PAUSED_AND_KILLED) {
		CHECK(relocation_pause(move.relocation, NULL) == 0);
		move_wait_state(&move, RELOCATE_PAUSED);
	}
	if (before != PARKED)
		_exit(0);
	while (!relocation_parked(move.relocation)) {
		relocation_park(move.relocation);
		loop_run(fixture->loop);
	}
	CHECK(move.status.state == RELOCATE_RUNNING);
	move_free(&move);
	move_fixture_close(fixture);
	_exit(0);
}

/* A program of its own, not a fork of one with threads: gives its exit code. */
static int other_life(struct world *world, const char *how)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "test_resume", how, world->fixture.root, (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void make_world(struct world *world, const char *how)
{
	memset(world, 0, sizeof(*world));
	move_fixture_make(&world->fixture);
	assert_int_equal(other_life(world, how), 0);
}

/* ---- the life after ---- */

static void go_on(struct world *world, bool paused)
{
	move_fixture_open(&world->fixture, 1);
	world->recovery = recover_and_resume(&world->fixture, &world->move, paused);
}

static void end_world(struct world *world)
{
	if (world->move.relocation)
		move_free(&world->move);
	recovery_free(world->recovery);
	move_fixture_close(&world->fixture);
	move_fixture_remove(&world->fixture);
}

static void assert_nothing_left(struct world *world)
{
	char command[256];

	snprintf(command, sizeof(command), "test -z \"$(ls -A %s/moves)\"",
		 world->fixture.state_dir);
	assert_int_equal(system(command), 0);
}

/* It ends on the target, with every byte, and only what was dirty was copied. */
static void assert_completes(struct world *world)
{
	const struct relocate_disk_status *disk = &world->move.status.disks[0];

	move_wait_ended(&world->move);
	assert_int_equal(world->move.status.state, RELOCATE_COMPLETED);
	assert_true(world->move.status.resumed);
	assert_int_equal(disk->verified, 1);
	assert_true(disk->stats.resumed_bytes > 0);
	assert_int_equal(disk->stats.resumed_bytes + disk->resumed_dirty_bytes +
				 disk->resumed_active_bytes,
			 MOVE_DISK_BYTES);
	assert_true(disk->stats.copied_bytes + disk->stats.zero_bytes + disk->stats.hole_bytes -
			    disk->stats.recopied_bytes <=
		    disk->resumed_dirty_bytes + disk->resumed_active_bytes);
	world->disk = disk_find_by_path(world->fixture.service, world->fixture.ds[1], PATH);
	assert_non_null(world->disk);
	assert_true(disk_has_pattern(&world->fixture, world->disk, SEED));
	assert_false(disk_exists(&world->fixture, 0, PATH));
	assert_nothing_left(world);
}

/* It ends on the source, whose guest is served, and nobody would think otherwise. */
static void assert_rolled_back(struct world *world, enum err_id id)
{
	struct disk_info info;

	move_wait_ended(&world->move);
	assert_int_equal(world->move.status.state, RELOCATE_FAILED);
	assert_int_equal(world->move.status.error.id, id);
	world->disk = disk_find_by_path(world->fixture.service, world->fixture.ds[0], PATH);
	assert_non_null(world->disk);
	disk_info(world->disk, &info);
	assert_string_equal(info.id, "a");
	assert_int_equal(info.disk.identity.role, DISK_LIVE);
	assert_false(info.moving);
	assert_true(disk_has_pattern(&world->fixture, world->disk, SEED));
	assert_int_equal(stat_disk(&world->fixture, 0, PATH).identity.role, DISK_LIVE);
}

/* In the fixture's folder, which has "one", "two" and "state". */
static void run_shell(struct world *world, const char *text)
{
	char command[512];

	snprintf(command, sizeof(command), "cd %s && %s", world->fixture.root, text);
	assert_int_equal(system(command), 0);
}

/* ---- it goes on ---- */

static void test_after_a_kill(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	go_on(&world, false);
	assert_completes(&world);
	end_world(&world);
}

static void test_after_a_stop(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "parked");
	go_on(&world, false);
	assert_completes(&world);
	/* Nothing was active: the last checkpoint came after the last write. */
	assert_int_equal(world.move.status.disks[0].resumed_active_bytes, 0);
	end_world(&world);
}

/* R-J6: what a damaged sector spoke for is copied again; a move is not refused for it. */
static void test_damaged_map(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	/* One bit of the map's first sector, in its payload: all 128 regions of the disk. */
	run_shell(&world, "cd state/moves && printf '\\377\\376' | dd of=$(ls | grep '\\.0$') bs=1 "
			  "seek=16450 conv=notrunc status=none");
	go_on(&world, false);
	move_wait_ended(&world.move);
	assert_int_equal(world.move.status.state, RELOCATE_COMPLETED);
	assert_int_equal(world.move.status.disks[0].verified, 1);
	assert_int_equal(world.move.status.disks[0].stats.resumed_bytes, 0);
	end_world(&world);
}

static void test_paused_stays_paused(void **state)
{
	struct world world;
	struct guest *guest;
	uint64_t failures;

	(void)state;
	make_world(&world, "paused");
	go_on(&world, true);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	world.disk = disk_find_by_path(world.fixture.service, world.fixture.ds[0], PATH);
	assert_non_null(world.disk);
	/* Served meanwhile; what it writes is known to the journal (R-J2). */
	guest = guest_start(&world.fixture, world.disk, SEED + 1);
	wait_ns(&world.fixture, 200 * NS_PER_MS);
	assert_int_equal(world.move.status.state, RELOCATE_PAUSED);
	assert_true(guest_writes(guest) > 0);
	assert_int_equal(relocation_resume(world.move.relocation, NULL), 0);
	move_wait_ended(&world.move);
	assert_int_equal(world.move.status.state, RELOCATE_COMPLETED);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	end_world(&world);
}

/* Killed again and again, it makes its way. */
static void test_killed_again(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	assert_int_equal(other_life(&world, "go-on"), 0);
	assert_int_equal(other_life(&world, "go-on-paused"), 0);
	assert_int_equal(other_life(&world, "go-on"), 0);
	go_on(&world, false);
	if (world.move.relocation) {
		move_wait_ended(&world.move);
		assert_int_equal(world.move.status.state, RELOCATE_COMPLETED);
	}
	world.disk = disk_find_by_path(world.fixture.service, world.fixture.ds[1], PATH);
	if (!world.disk)
		world.disk = attach_path(&world.fixture, 1, PATH, "z");
	assert_non_null(world.disk);
	assert_true(disk_has_pattern(&world.fixture, world.disk, SEED));
	end_world(&world);
}

/* ---- the target is away, or another ---- */

static void test_target_away(void **state)
{
	struct world world;
	struct guest *guest;
	uint64_t failures;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "mv two/vm two.away");
	go_on(&world, false);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	assert_int_equal(world.move.status.degraded_why.id, ERR_DISK_UNKNOWN);
	world.disk = disk_find_by_path(world.fixture.service, world.fixture.ds[0], PATH);
	guest = guest_start(&world.fixture, world.disk, SEED + 2);
	/* Not yet: told again. */
	assert_int_equal(relocation_resume(world.move.relocation, NULL), 0);
	wait_ns(&world.fixture, 50 * NS_PER_MS);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	run_shell(&world, "mv two.away two/vm");
	assert_int_equal(relocation_resume(world.move.relocation, NULL), 0);
	move_wait_ended(&world.move);
	assert_int_equal(world.move.status.state, RELOCATE_COMPLETED);
	assert_true(world.move.status.disks[0].stats.resumed_bytes > 0);
	assert_true(guest_stop(guest, &failures));
	assert_int_equal(failures, 0);
	end_world(&world);
}

/*
 * R2: the target is lost again between being fetched and being resumed on: that is told, and the
 * move does not count as running for ever.
 */
static void test_target_lost_when_fetched(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	ds_fault_hangable(true);
	ds_fault_lose(true);
	go_on(&world, false);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	while (world.move.status.degraded_why.id != ERR_MOVE_SUSPECT)
		loop_run(world.fixture.loop);
	ds_fault_lose(false);
	assert_int_equal(relocation_cancel(world.move.relocation, NULL), 0);
	move_wait_ended(&world.move);
	ds_fault_hangable(false);
	assert_int_equal(world.move.status.state, RELOCATE_CANCELLED);
	assert_nothing_left(&world);
	end_world(&world);
}

static void test_target_away_and_cancelled(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "mv two/vm two.away");
	go_on(&world, false);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	run_shell(&world, "mv two.away two/vm");
	assert_int_equal(relocation_cancel(world.move.relocation, NULL), 0);
	move_wait_ended(&world.move);
	assert_int_equal(world.move.status.state, RELOCATE_CANCELLED);
	assert_int_equal(stat_disk(&world.fixture, 0, PATH).identity.role, DISK_LIVE);
	assert_false(disk_exists(&world.fixture, 1, PATH));
	assert_nothing_left(&world);
	end_world(&world);
}

/* Somebody has made another disk there: it is neither written nor deleted (R-J5). */
static void test_target_replaced(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "rm -r two/vm");
	move_fixture_open(&world.fixture, 1);
	make_disk(&world.fixture, 1, PATH);
	move_fixture_close(&world.fixture);
	go_on(&world, false);
	assert_rolled_back(&world, ERR_DISK_MARKED);
	assert_int_equal(stat_disk(&world.fixture, 1, PATH).identity.role, DISK_LIVE);
	end_world(&world);
}

/* The target of another move, of the very same disk and generation. */
static void test_target_of_another_move(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "sed -i 's/t1-abcd/t9-abcd/' two/vm/a.img.blkmirror");
	/* The sidecar has a checksum: without the right one it is no identity at all. */
	run_shell(&world, "grep -q t9-abcd two/vm/a.img.blkmirror");
	go_on(&world, false);
	move_wait_state(&world.move, RELOCATE_PAUSED);
	assert_true(world.move.status.degraded_why.id != ERR_NONE);
	assert_int_equal(relocation_cancel(world.move.relocation, NULL), 0);
	move_wait_ended(&world.move);
	assert_int_equal(world.move.status.state, RELOCATE_CANCELLED);
	end_world(&world);
}

/* ---- the journal is not to be trusted ---- */

static void test_damaged_journal(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "cd state/moves && dd if=/dev/urandom of=$(ls | grep '\\.0$') bs=4096 "
			  "count=2 conv=notrunc status=none");
	go_on(&world, false);
	assert_rolled_back(&world, ERR_JOURNAL_DAMAGED);
	assert_false(disk_exists(&world.fixture, 1, PATH));
	assert_nothing_left(&world);
	end_world(&world);
}

static void test_journal_never_begun(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "cd state/moves && dd if=/dev/zero of=$(ls | grep '\\.0$') bs=4096 "
			  "count=5 conv=notrunc status=none");
	go_on(&world, false);
	assert_rolled_back(&world, ERR_TASK_INTERRUPTED);
	assert_nothing_left(&world);
	end_world(&world);
}

/* A journal of another life of that move: another disk's, or from before an earlier move. */
static void test_journal_of_another_disk(void **state)
{
	struct world world, other;

	(void)state;
	make_world(&world, "killed");
	make_world(&other, "killed");
	{
		char command[512];

		snprintf(command, sizeof(command), "cp %s/moves/*.0 %s/moves/$(cd %s/moves; ls | grep "
			 "'\\.0$')", other.fixture.state_dir, world.fixture.state_dir,
			 world.fixture.state_dir);
		assert_int_equal(system(command), 0);
	}
	move_fixture_remove(&other.fixture);
	go_on(&world, false);
	assert_rolled_back(&world, ERR_JOURNAL_DAMAGED);
	assert_nothing_left(&world);
	end_world(&world);
}

/* Without its journal today's rule: rolled back by recovery, without a relocation. */
static void test_journal_gone(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "rm state/moves/*.0");
	go_on(&world, false);
	assert_null(world.move.relocation);
	assert_int_equal(recovery_count(world.recovery), 0);
	assert_int_equal(stat_disk(&world.fixture, 0, PATH).identity.role, DISK_LIVE);
	assert_false(disk_exists(&world.fixture, 1, PATH));
	assert_nothing_left(&world);
	end_world(&world);
}

/* The source was given back already: whoever wrote since did not ask the journal. */
static void test_source_is_live(void **state)
{
	struct world world;
	struct recovery *recovery;

	(void)state;
	make_world(&world, "killed");
	run_shell(&world, "cp -r state/moves kept");
	move_fixture_open(&world.fixture, 1);
	recovery = recover(&world.fixture);     /* rolls back */
	recovery_free(recovery);
	move_fixture_close(&world.fixture);
	run_shell(&world, "cp -r kept/. state/moves");
	go_on(&world, false);
	assert_null(world.move.relocation);
	assert_int_equal(stat_disk(&world.fixture, 0, PATH).identity.role, DISK_LIVE);
	assert_nothing_left(&world);
	end_world(&world);
}

/* A record that is rolled back is not resumed by the next start, should this one die. */
static void test_rolled_back_says_so(void **state)
{
	struct world world;

	(void)state;
	make_world(&world, "killed");
	assert_int_equal(other_life(&world, "roll-back"), CRASH_EXIT);
	go_on(&world, false);
	assert_null(world.move.relocation);
	assert_int_equal(stat_disk(&world.fixture, 0, PATH).identity.role, DISK_LIVE);
	assert_nothing_left(&world);
	end_world(&world);
}

/* ---- stopping with a target that hangs ---- */

static void test_park_with_a_hung_target(void **state)
{
	struct world world = { 0 };
	uint64_t began_ns;

	(void)state;
	move_fixture_make(&world.fixture);
	move_fixture_open(&world.fixture, 1);
	world.fixture.service->patience_ns = 200 * NS_PER_MS;
	ds_fault_hangable(true);
	copy_half(&world.fixture, &world.move);
	ds_fault_hang(true);
	began_ns = loop_now_ns(world.fixture.loop);
	while (!relocation_parked(world.move.relocation)) {
		relocation_park(world.move.relocation);
		loop_run(world.fixture.loop);
		assert_true(loop_now_ns(world.fixture.loop) - began_ns < 30 * NS_PER_S);
	}
	assert_true(relocate_only_lingers(world.fixture.service));
	assert_int_equal(stat_disk(&world.fixture, 0, PATH).identity.role, DISK_MOVING);
	assert_int_equal(count_records(&world.fixture), 1);
	relocation_free(world.move.relocation);
	ds_fault_hang(false);
	while (relocate_count(world.fixture.service))
		wait_ns(&world.fixture, 10 * NS_PER_MS);
	ds_fault_hangable(false);
	move_fixture_close(&world.fixture);
	/* And the next one goes on. */
	go_on(&world, false);
	assert_completes(&world);
	end_world(&world);
}

/* ---- the other lives ---- */

static int live(const char *how, const char *root)
{
	static struct world world;
	struct move_fixture *fixture = &world.fixture;

	alarm(100);
	move_fixture_adopt(fixture, root);
	if (strcmp(how, "killed") == 0)
		live_before(fixture, KILLED);
	if (strcmp(how, "parked") == 0)
		live_before(fixture, PARKED);
	if (strcmp(how, "paused") == 0)
		live_before(fixture, PAUSED_AND_KILLED);
	if (strcmp(how, "roll-back") == 0) {
		move_fixture_open(fixture, 1);
		/* Two looks, ABORTED, then the mark: die before it. */
		ds_fault_crash_at(4, false);
		recovery_free(recover(fixture));
		return 0;
	}
	go_on(&world, strcmp(how, "go-on-paused") == 0);
	wait_ns(fixture, 3 * NS_PER_MS);
	_exit(0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_after_a_kill),
		cmocka_unit_test(test_after_a_stop),
		cmocka_unit_test(test_damaged_map),
		cmocka_unit_test(test_paused_stays_paused),
		cmocka_unit_test(test_killed_again),
		cmocka_unit_test(test_target_away),
		cmocka_unit_test(test_target_lost_when_fetched),
		cmocka_unit_test(test_target_away_and_cancelled),
		cmocka_unit_test(test_target_replaced),
		cmocka_unit_test(test_target_of_another_move),
		cmocka_unit_test(test_damaged_journal),
		cmocka_unit_test(test_journal_never_begun),
		cmocka_unit_test(test_journal_of_another_disk),
		cmocka_unit_test(test_journal_gone),
		cmocka_unit_test(test_source_is_live),
		cmocka_unit_test(test_rolled_back_says_so),
		cmocka_unit_test(test_park_with_a_hung_target),
	};

	if (argc == 3)
		return live(argv[1], argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

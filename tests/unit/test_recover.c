/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_recover.c - which copy is authoritative: the judgement as a table, and the operator's word.
 *
 * What recovery does after real crashes is in tests/fault/test_relocate_crash.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/move_fixture.h"
#include "vmotion/relocate_private.h"
#include "vmotion/relocate_recover_private.h"

/* ---- the judgement ---- */

enum there { GONE, UNREACHABLE, OTHER, LIVE, MOVING, MOVING_ELSEWHERE, INCOMING, INCOMING_ELSEWHERE,
	     RETIRED, REST };

static struct move_record_disk a_disk = { .source_datastore = "one", .source_path = "a",
					  .target_datastore = "two", .target_path = "a",
					  .uuid = { 1 }, .source_generation = 5,
					  .target_generation = 6, .source_has_identity = true,
					  .target_has_identity = true };
static struct move_record_info a_move = { .id = "t1-00", .disk_count = 1, .disks = &a_disk };

static struct recover_look look_of(enum there there, uint64_t generation)
{
	static const enum disk_role roles[] = {
		[OTHER] = DISK_LIVE, [LIVE] = DISK_LIVE, [MOVING] = DISK_MOVING,
		[MOVING_ELSEWHERE] = DISK_MOVING, [INCOMING] = DISK_INCOMING,
		[INCOMING_ELSEWHERE] = DISK_INCOMING, [RETIRED] = DISK_RETIRED,
	};
	struct recover_look look = { 0 };

	if (there == GONE)
		look.rc = err_set(&look.err, ERR_DISK_UNKNOWN, -ENOENT, "gone");
	if (there == REST)
		look.rc = err_set(&look.err, ERR_DISK_BAD_DESCRIPTOR, -ENOENT, "no data");
	if (there == UNREACHABLE)
		look.rc = err_set(&look.err, ERR_DS_UNREACHABLE, -EIO, "down");
	if (look.rc)
		return look;
	look.info.has_identity = true;
	look.info.identity = (struct disk_identity){ .uuid = { there == OTHER ? 2 : 1 },
						     .generation = generation,
						     .role = roles[there] };
	snprintf(look.info.identity.journal_id, sizeof(look.info.identity.journal_id), "%s",
		 there == MOVING || there == INCOMING ? "t1-00" :
		 there == MOVING_ELSEWHERE || there == INCOMING_ELSEWHERE ? "t2-00" : "");
	return look;
}

static void test_judgement(void **state)
{
	static const struct {
		enum move_record_state record;
		unsigned flags;
		enum there source, target;
		enum recover_side proved;
		unsigned actions;
		int rc;                 /* of the plan: what is left undone keeps the record */
	} rows[] = {
		{ MOVE_RESERVED, 0, LIVE, GONE, RECOVER_SOURCE, ACTION_TARGET_DELETE, 0 },
		{ MOVE_RESERVED, 0, MOVING, GONE, RECOVER_SOURCE,
		  ACTION_SOURCE_LIVE | ACTION_TARGET_DELETE, 0 },
		{ MOVE_RESERVED, 0, LIVE, REST, RECOVER_SOURCE, ACTION_TARGET_DELETE, 0 },
		{ MOVE_RESERVED, 0, REST, INCOMING, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_RESERVED, 0, MOVING, INCOMING, RECOVER_SOURCE,
		  ACTION_SOURCE_LIVE | ACTION_TARGET_DELETE, 0 },
		{ MOVE_ABORTED, 0, MOVING, INCOMING, RECOVER_SOURCE,
		  ACTION_SOURCE_LIVE | ACTION_TARGET_DELETE, 0 },
		/* Not ours any more: a later move, another disk, a live one are left alone. */
		{ MOVE_RESERVED, 0, MOVING_ELSEWHERE, INCOMING_ELSEWHERE, RECOVER_SOURCE, 0, 0 },
		{ MOVE_RESERVED, 0, LIVE, OTHER, RECOVER_SOURCE, 0, 0 },
		{ MOVE_RESERVED, 0, LIVE, LIVE, RECOVER_SOURCE, 0, 0 },
		{ MOVE_RESERVED, 0, MOVING, UNREACHABLE, RECOVER_SOURCE, ACTION_SOURCE_LIVE, -EIO },
		{ MOVE_RESERVED, 0, GONE, INCOMING, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_RESERVED, 0, OTHER, INCOMING, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_RESERVED, 0, RETIRED, INCOMING, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_RESERVED, 0, UNREACHABLE, INCOMING, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_COMMITTED, 0, MOVING, INCOMING, RECOVER_TARGET,
		  ACTION_SOURCE_RETIRE | ACTION_TARGET_LIVE, 0 },
		{ MOVE_COMMITTED, 0, MOVING, LIVE, RECOVER_TARGET, ACTION_SOURCE_RETIRE, 0 },
		{ MOVE_COMMITTED, 0, RETIRED, LIVE, RECOVER_TARGET, 0, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, RETIRED, LIVE, RECOVER_TARGET,
		  ACTION_SOURCE_DELETE, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, MOVING, INCOMING, RECOVER_TARGET,
		  ACTION_SOURCE_RETIRE | ACTION_SOURCE_DELETE | ACTION_TARGET_LIVE, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, GONE, LIVE, RECOVER_TARGET,
		  ACTION_SOURCE_DELETE, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, REST, LIVE, RECOVER_TARGET,
		  ACTION_SOURCE_DELETE, 0 },
		{ MOVE_COMMITTED, 0, REST, LIVE, RECOVER_TARGET, 0, 0 },
		{ MOVE_COMMITTED, 0, MOVING, REST, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, LIVE, LIVE, RECOVER_TARGET, 0, 0 },
		{ MOVE_COMMITTED, MOVE_DELETE_SOURCE, OTHER, LIVE, RECOVER_TARGET, 0, 0 },
		{ MOVE_COMMITTED, 0, UNREACHABLE, INCOMING, RECOVER_TARGET, ACTION_TARGET_LIVE,
		  -EIO },
		{ MOVE_COMMITTED, 0, MOVING, MOVING_ELSEWHERE, RECOVER_TARGET, ACTION_SOURCE_RETIRE,
		  0 },
		{ MOVE_COMMITTED, 0, MOVING, INCOMING_ELSEWHERE, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_COMMITTED, 0, MOVING, GONE, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_COMMITTED, 0, MOVING, OTHER, RECOVER_UNKNOWN, 0, 0 },
		{ MOVE_COMMITTED, 0, MOVING, UNREACHABLE, RECOVER_UNKNOWN, 0, 0 },
		{ (enum move_record_state)0, 0, MOVING, INCOMING, RECOVER_UNKNOWN, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct recover_looks looks = { look_of(rows[i].source, 5),
					       look_of(rows[i].target, 6) };
		struct recover_plan plan;
		struct err why = { .id = ERR_NONE };

		a_move.state = rows[i].record;
		a_move.flags = rows[i].flags;
		assert_int_equal(recover_judge(&a_move, &looks, &why), rows[i].proved);
		assert_int_equal(why.id != ERR_NONE, rows[i].proved == RECOVER_UNKNOWN);
		if (rows[i].proved == RECOVER_UNKNOWN)
			continue;
		assert_int_equal(recover_plan_disk(&a_move, 0, &looks, rows[i].proved, false, &plan,
						   &why), rows[i].rc);
		assert_int_equal(plan.actions, rows[i].actions);
	}
}

/* ---- the operator's word, on real datastores ---- */

static void put_copy(struct move_fixture *fixture, unsigned ds, enum disk_role role,
		     const char *journal_id)
{
	struct disk_identity identity = { .uuid = { 1 }, .generation = 5 + ds, .role = role };
	struct ds_create_spec spec = { .size_bytes = MOVE_DISK_BYTES, .provision = PROVISION_THIN,
				       .identity = &identity };

	if (role == DISK_MOVING || role == DISK_INCOMING) {
		snprintf(identity.journal_id, sizeof(identity.journal_id), "%s", journal_id);
		identity.host_uuid[0] = 1;
	}
	assert_int_equal(ds_disk_create(fixture->ds[ds], "a.vmdk", &spec, &fixture->err), 0);
}

static void put_record(struct move_fixture *fixture, const char *id, enum move_record_state state)
{
	struct move_record_disk disk = { .source_datastore = "one", .source_path = "a.vmdk",
					 .target_datastore = "two", .target_path = "a.vmdk",
					 .uuid = { 1 }, .source_generation = 5,
					 .target_generation = 6, .source_has_identity = true,
					 .target_has_identity = true };
	struct move_record_info info = { .disk_count = 1, .disks = &disk };
	struct move_record *record;

	snprintf(info.id, sizeof(info.id), "%s", id);
	assert_int_equal(move_record_create(fixture->state_dir, &info, &record, &fixture->err), 0);
	if (state != MOVE_RESERVED)
		assert_int_equal(move_record_write(record, state, 0, NULL), 0);
	move_record_free(record);
}

static void open_world(struct move_fixture *fixture)
{
	move_fixture_make(fixture);
	move_fixture_open(fixture, 1);
}

static void close_world(struct move_fixture *fixture)
{
	move_fixture_close(fixture);
	move_fixture_remove(fixture);
}

static void test_missing_datastore_waits(void **state)
{
	struct move_fixture fixture;
	struct recovery *recovery;
	struct recover_entry entry;
	struct datastore *two;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	put_copy(&fixture, 1, DISK_INCOMING, "t1-00");
	put_record(&fixture, "t1-00", MOVE_COMMITTED);
	two = fixture.ds[1];
	fixture.ds[1] = NULL;
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 1);
	recovery_entry(recovery, 0, &entry);
	assert_string_equal(entry.id, "t1-00");
	assert_int_equal(entry.authoritative, RECOVER_UNKNOWN);
	assert_int_equal(entry.why.id, ERR_DS_UNKNOWN);
	assert_int_equal(entry.disk_count, 1);
	assert_string_equal(entry.disks[0].target_datastore, "two");
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_MOVING);
	/* Not without the copy that is to be kept. */
	assert_int_equal(keep(&fixture, recovery, "t1-00", RECOVER_TARGET), ERR_DS_UNKNOWN);
	assert_int_equal(recovery_count(recovery), 1);
	assert_int_equal(keep(&fixture, recovery, "t2-00", RECOVER_TARGET), ERR_RECOVER_UNKNOWN);
	recovery_free(recovery);
	/* It comes back: done. */
	fixture.ds[1] = two;
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 0);
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_RETIRED);
	assert_int_equal(stat_disk(&fixture, 1, "a.vmdk").identity.role, DISK_LIVE);
	assert_int_equal(count_records(&fixture), 0);
	recovery_free(recovery);
	close_world(&fixture);
}

/* The target is lost for good: the source is kept, above the generation the target had. */
static void test_keep_source_against_a_lost_target(void **state)
{
	struct move_fixture fixture;
	struct recovery *recovery;
	struct ds_disk_info info;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	put_record(&fixture, "t1-00", MOVE_COMMITTED);
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 1);
	assert_int_equal(keep(&fixture, recovery, "t1-00", RECOVER_SOURCE), ERR_NONE);
	assert_int_equal(recovery_count(recovery), 0);
	info = stat_disk(&fixture, 0, "a.vmdk");
	assert_int_equal(info.identity.role, DISK_LIVE);
	assert_int_equal(info.identity.generation, 7);
	assert_int_equal(count_records(&fixture), 0);
	recovery_free(recovery);
	close_world(&fixture);
}

static void test_keep_against_proof_is_refused(void **state)
{
	struct move_fixture fixture;
	struct recovery *recovery;
	struct datastore *two;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	put_copy(&fixture, 1, DISK_INCOMING, "t1-00");
	put_record(&fixture, "t1-00", MOVE_COMMITTED);
	two = fixture.ds[1];
	fixture.ds[1] = NULL;
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 1);
	fixture.ds[1] = two;
	assert_int_equal(keep(&fixture, recovery, "t1-00", RECOVER_SOURCE), ERR_RECOVER_PROVED);
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_MOVING);
	assert_int_equal(stat_disk(&fixture, 1, "a.vmdk").identity.role, DISK_INCOMING);
	assert_int_equal(keep(&fixture, recovery, "t1-00", RECOVER_TARGET), ERR_NONE);
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_RETIRED);
	assert_int_equal(stat_disk(&fixture, 1, "a.vmdk").identity.role, DISK_LIVE);
	recovery_free(recovery);
	close_world(&fixture);
}

static void damage(const struct move_fixture *fixture, const char *id)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/moves/%s", fixture->state_dir, id);
	assert_int_equal(truncate(path, 100), 0);
}

static void test_damaged_record_waits(void **state)
{
	struct move_fixture fixture;
	struct recovery *recovery;
	struct recover_entry entry;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	put_record(&fixture, "t1-00", MOVE_RESERVED);
	damage(&fixture, "t1-00");
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 1);
	recovery_entry(recovery, 0, &entry);
	assert_int_equal(entry.why.id, ERR_JOURNAL_DAMAGED);
	assert_int_equal(entry.disk_count, 0);
	assert_int_equal(keep(&fixture, recovery, "t1-00", RECOVER_SOURCE), ERR_JOURNAL_DAMAGED);
	assert_int_equal(count_records(&fixture), 1);
	recovery_free(recovery);
	close_world(&fixture);
}

/* R-J5: a new disk was put at the target's path meanwhile: it is not touched. */
/*
 * R-J5, D2: an earlier recovery was itself killed between the target's data and its
 * descriptor.  What is left of this move goes, what is left of another's stays; neither keeps
 * the record.
 */
static void rest_of_a_target(const char *its_move, bool goes)
{
	struct move_fixture fixture;
	struct recovery *recovery;
	char data[128], descriptor[128];

	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	put_copy(&fixture, 1, DISK_INCOMING, its_move);
	put_record(&fixture, "t1-00", MOVE_RESERVED);
	snprintf(data, sizeof(data), "%s/two/a-flat.vmdk", fixture.root);
	snprintf(descriptor, sizeof(descriptor), "%s/two/a.vmdk", fixture.root);
	assert_int_equal(unlink(data), 0);
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 0);
	assert_int_equal(count_records(&fixture), 0);
	assert_int_equal(access(descriptor, F_OK) == 0, !goes);
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_LIVE);
	recovery_free(recovery);
	close_world(&fixture);
}

static void test_rest_of_a_target(void **state)
{
	(void)state;
	rest_of_a_target("t1-00", true);
	rest_of_a_target("t2-00", false);
}

/* ---- guests first ---- */

struct served {
	struct move_fixture *fixture;
	unsigned settled;
	bool ran;
	enum recover_side sides[2];
};

static struct datastore *served_find(const char *name, void *user)
{
	struct served *served = user;

	return served->fixture->ds[strcmp(name, "two") == 0];
}

/* Its disk could be attached here: nothing is deleted yet, of this move and the other. */
static void served_settled(const struct move_record_info *move, enum recover_side side, void *user)
{
	struct served *served = user;

	assert_true(served->settled < 2);
	served->sides[move->id[1] - '1'] = side;
	served->settled++;
	assert_true(disk_exists(served->fixture, 0, "a.vmdk"));
	assert_true(disk_exists(served->fixture, 1, "b.vmdk"));
	assert_int_equal(stat_disk(served->fixture, side == RECOVER_TARGET,
				   move->disks[0].source_path).identity.role, DISK_LIVE);
}

static void served_ran(struct recovery *recovery, const struct err *err, void *user)
{
	(void)recovery;
	assert_null(err);
	((struct served *)user)->ran = true;
	loop_stop(((struct served *)user)->fixture->loop);
}

static void put_named(struct move_fixture *fixture, unsigned ds, const char *path,
		      enum disk_role role, const char *journal_id)
{
	struct disk_identity identity = { .uuid = { 1 }, .generation = 5 + ds, .role = role,
					  .host_uuid = { 1 } };
	struct ds_create_spec spec = { .size_bytes = MOVE_DISK_BYTES, .provision = PROVISION_THIN,
				       .identity = &identity };

	snprintf(identity.journal_id, sizeof(identity.journal_id), "%s", journal_id);
	assert_int_equal(ds_disk_create(fixture->ds[ds], path, &spec, &fixture->err), 0);
}

static void put_move(struct move_fixture *fixture, const char *id, const char *path,
		     enum move_record_state state, unsigned flags)
{
	struct move_record_disk disk = { .source_datastore = "one", .target_datastore = "two",
					 .uuid = { 1 }, .source_generation = 5,
					 .target_generation = 6, .source_has_identity = true,
					 .target_has_identity = true };
	struct move_record_info info = { .disk_count = 1, .disks = &disk };
	struct move_record *record;

	snprintf(disk.source_path, sizeof(disk.source_path), "%s", path);
	snprintf(disk.target_path, sizeof(disk.target_path), "%s", path);
	snprintf(info.id, sizeof(info.id), "%s", id);
	put_named(fixture, 0, path, DISK_MOVING, id);
	put_named(fixture, 1, path, DISK_INCOMING, id);
	assert_int_equal(move_record_create(fixture->state_dir, &info, &record, &fixture->err), 0);
	assert_int_equal(move_record_write(record, state, flags, NULL), 0);
	move_record_free(record);
}

/*
 * One move to finish, whose source may go, and one to roll back: the owner is told of both
 * disks before the first deletion, which a store may take its time for.
 */
static void test_settled_before_anything_is_deleted(void **state)
{
	struct move_fixture fixture;
	struct served served = { .fixture = &fixture };
	struct recovery_options options = { .find_datastore = served_find,
					    .settled = served_settled, .user = &served };
	struct recovery *recovery;

	(void)state;
	open_world(&fixture);
	put_move(&fixture, "t1-00", "a.vmdk", MOVE_COMMITTED, MOVE_DELETE_SOURCE);
	put_move(&fixture, "t2-00", "b.vmdk", MOVE_ABORTED, 0);
	options.state_dir = fixture.state_dir;
	assert_int_equal(recovery_new(fixture.service, &options, &recovery, NULL), 0);
	recovery_run(recovery, served_ran, &served);
	wait_for(&fixture, &served.ran);
	assert_int_equal(served.settled, 2);
	assert_int_equal(served.sides[0], RECOVER_TARGET);
	assert_int_equal(served.sides[1], RECOVER_SOURCE);
	assert_int_equal(recovery_count(recovery), 0);
	assert_int_equal(count_records(&fixture), 0);
	assert_false(disk_exists(&fixture, 0, "a.vmdk"));
	assert_false(disk_exists(&fixture, 1, "b.vmdk"));
	recovery_free(recovery);
	close_world(&fixture);
}

static void test_stranger_at_the_target_survives(void **state)
{
	struct move_fixture fixture;
	struct recovery *recovery;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 0, DISK_MOVING, "t1-00");
	make_disk(&fixture, 1, "a.vmdk");
	put_record(&fixture, "t1-00", MOVE_RESERVED);
	recovery = recover(&fixture);
	assert_int_equal(recovery_count(recovery), 0);
	assert_int_equal(stat_disk(&fixture, 0, "a.vmdk").identity.role, DISK_LIVE);
	assert_true(disk_exists(&fixture, 1, "a.vmdk"));
	recovery_free(recovery);
	close_world(&fixture);
}

/* R-J5: the same uuid and generation, but taken into use since, or another move's: not deleted. */
static void test_only_this_moves_unfinished_target_is_deleted(void **state)
{
	struct move_fixture fixture;
	struct disk_identity identity;
	struct err err;

	(void)state;
	open_world(&fixture);
	put_copy(&fixture, 1, DISK_INCOMING, "t1-00");
	identity = stat_disk(&fixture, 1, "a.vmdk").identity;
	assert_int_equal(move_delete_incoming(fixture.ds[1], "a.vmdk", "t2-00", &identity, &err),
			 -ESTALE);
	assert_int_equal(err.id, ERR_DISK_MARKED);
	assert_int_equal(ds_disk_delete(fixture.ds[1], "a.vmdk", &identity, &err), 0);
	put_copy(&fixture, 1, DISK_LIVE, "");
	assert_int_equal(move_delete_incoming(fixture.ds[1], "a.vmdk", "t1-00", &identity, &err),
			 -ESTALE);
	assert_true(disk_exists(&fixture, 1, "a.vmdk"));
	assert_int_equal(ds_disk_delete(fixture.ds[1], "a.vmdk", NULL, &err), 0);
	put_copy(&fixture, 1, DISK_INCOMING, "t1-00");
	assert_int_equal(move_delete_incoming(fixture.ds[1], "a.vmdk", "t1-00", &identity, &err), 0);
	assert_false(disk_exists(&fixture, 1, "a.vmdk"));
	close_world(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judgement),
		cmocka_unit_test(test_missing_datastore_waits),
		cmocka_unit_test(test_keep_source_against_a_lost_target),
		cmocka_unit_test(test_keep_against_proof_is_refused),
		cmocka_unit_test(test_damaged_record_waits),
		cmocka_unit_test(test_rest_of_a_target),
		cmocka_unit_test(test_settled_before_anything_is_deleted),
		cmocka_unit_test(test_stranger_at_the_target_survives),
		cmocka_unit_test(test_only_this_moves_unfinished_target_is_deleted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

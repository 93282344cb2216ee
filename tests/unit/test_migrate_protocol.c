/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_migrate_protocol.c - what the tables of the commit protocol say, where it matters most:
 * the table of records (R-C3) after a restart, and what a replayed or late word may do.  How they
 * hold together is for sim_migrate.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "vmotion/migrate_protocol.h"

static char did[256];

static void note(const char *what)
{
	strncat(did, what, sizeof(did) - strlen(did) - 1);
	strncat(did, " ", sizeof(did) - strlen(did) - 1);
}

static void op_say(void *user, enum migrate_message message)
{
	static const char *const names[] = { "RESERVE", "GO", "ABORT", "RESERVED", "READY",
					     "FAILED", "STARTED", "DECLINED", "ASK" };

	(void)user;
	note(names[message]);
}

static void op_write(void *user, enum migrate_record record)
{
	static const char *const names[] = { "-", "w:reserved", "w:started", "w:declined",
					     "w:committed", "w:aborted", "w:reverted" };

	(void)user;
	note(names[record]);
}

#define NOTE_OP(name)                                                                              \
	static void op_##name(void *user)                                                          \
	{                                                                                          \
		(void)user;                                                                        \
		note(#name);                                                                       \
	}
NOTE_OP(name_heir)
NOTE_OP(disown_heir)
NOTE_OP(take_back)
NOTE_OP(begin_copy)
NOTE_OP(send_last)
NOTE_OP(hand_over)
NOTE_OP(resume)
NOTE_OP(release)
NOTE_OP(drain_disks)
NOTE_OP(take_lock)
NOTE_OP(discard)

static void op_spawn(void *user, bool paused)
{
	(void)user;
	note(paused ? "spawn" : "spawn-running");
}

static void op_run(void *user, bool cold)
{
	(void)user;
	note(cold ? "cold-start" : "run");
}

static void op_alarm(void *user, const char *what)
{
	(void)user;
	(void)what;
	note("alarm");
}

static const struct migrate_ops ops = {
	op_say, op_write, op_name_heir, op_disown_heir, op_take_back, op_begin_copy, op_send_last,
	op_hand_over, op_resume, op_release, op_spawn, op_drain_disks, op_take_lock, op_run,
	op_discard, op_alarm,
};

static struct migrate_source source;
static struct migrate_target target;

static int setup(void **unused)
{
	(void)unused;
	did[0] = '\0';
	migrate_source_init(&source, &ops, NULL);
	migrate_target_init(&target, &ops, NULL);
	return 0;
}

static void at_source(enum migrate_event event, const char *expected)
{
	did[0] = '\0';
	migrate_source_step(&source, event);
	assert_string_equal(did, expected);
}

static void at_target(enum migrate_event event, const char *expected)
{
	did[0] = '\0';
	migrate_target_step(&target, event);
	assert_string_equal(did, expected);
}

static void test_tables(void **unused)
{
	(void)unused;
	assert_true(migrate_tables_are_sound());
	for (unsigned i = 0; i < SOURCE_STATE_COUNT; i++)
		assert_non_null(migrate_source_state_name((enum migrate_source_state)i));
	for (unsigned i = 0; i < TARGET_STATE_COUNT; i++)
		assert_non_null(migrate_target_state_name((enum migrate_target_state)i));
}

static void test_good_way(void **unused)
{
	(void)unused;
	at_source(MIGRATE_BEGIN, "name_heir ");
	at_source(MIGRATE_HEIR_NAMED, "RESERVE ");
	at_target(MIGRATE_HEARD_RESERVE, "w:reserved ");
	at_target(MIGRATE_WRITTEN, "spawn RESERVED ");
	at_source(MIGRATE_HEARD_RESERVED, "begin_copy ");
	at_source(MIGRATE_PAUSED, "send_last ");
	at_source(MIGRATE_DRAINED, "hand_over ");
	at_target(MIGRATE_STATE_LOADED, "drain_disks ");
	at_target(MIGRATE_DISKS_FLUSHED, "READY ");
	at_source(MIGRATE_HEARD_READY, "");
	at_source(MIGRATE_COMPLETED, "w:committed ");
	at_source(MIGRATE_CANCEL, "");
	at_source(MIGRATE_LINK_LOST, "");
	at_source(MIGRATE_WRITTEN, "GO ");
	at_target(MIGRATE_HEARD_GO, "take_lock ");
	at_target(MIGRATE_HEARD_GO, "");
	at_target(MIGRATE_LOCK_TAKEN, "w:started ");
	at_target(MIGRATE_WRITTEN, "run STARTED ");
	/* A replayed GO starts nothing again, a forged ABORT ends nothing. */
	at_target(MIGRATE_HEARD_GO, "STARTED ");
	at_target(MIGRATE_HEARD_ABORT, "");
	at_source(MIGRATE_HEARD_STARTED, "release ");
	assert_true(migrate_source_has_ended(&source));
	assert_true(migrate_target_has_ended(&target));
}

/* A GO before anything was READY, or for a machine that is given up, runs nothing. */
static void test_early_go(void **unused)
{
	(void)unused;
	at_target(MIGRATE_HEARD_GO, "");
	at_target(MIGRATE_HEARD_RESERVE, "w:reserved ");
	at_target(MIGRATE_HEARD_GO, "");
	at_target(MIGRATE_WRITTEN, "spawn RESERVED ");
	at_target(MIGRATE_HEARD_GO, "");
	at_target(MIGRATE_STATE_LOADED, "drain_disks ");
	at_target(MIGRATE_HEARD_GO, "");
	at_target(MIGRATE_HEARD_ABORT, "discard ");
	at_target(MIGRATE_HEARD_GO, "w:declined ");
}

static void source_recovers(enum migrate_record record, const char *expected)
{
	did[0] = '\0';
	migrate_source_recover(&source, record);
	assert_string_equal(did, expected);
}

static void target_recovers(enum migrate_record record, bool lives, const char *expected)
{
	did[0] = '\0';
	migrate_target_recover(&target, record, lives);
	assert_string_equal(did, expected);
}

static void test_records(void **unused)
{
	(void)unused;
	source_recovers(MIGRATE_NO_RECORD, "w:aborted ");
	at_source(MIGRATE_HEARD_ASK, "");
	at_source(MIGRATE_WRITTEN, "disown_heir resume ABORT ");
	at_source(MIGRATE_HEARD_ASK, "ABORT ");
	source_recovers(MIGRATE_ABORTED, "disown_heir resume ABORT ");
	source_recovers(MIGRATE_REVERTED, "take_back resume ABORT ");
	source_recovers(MIGRATE_COMMITTED, "GO ");
	at_source(MIGRATE_HEARD_ASK, "GO ");
	at_source(MIGRATE_QEMU_GONE, "");
	at_source(MIGRATE_HEARD_DECLINED, "w:reverted ");
	at_source(MIGRATE_WRITE_FAILED, "alarm w:reverted ");
	at_source(MIGRATE_WRITTEN, "take_back resume ABORT ");
	target_recovers(MIGRATE_NO_RECORD, true, "discard ");
	target_recovers(MIGRATE_RESERVED, true, "ASK ");
	at_target(MIGRATE_HEARD_ABORT, "discard ");
	target_recovers(MIGRATE_RESERVED, false, "ASK ");
	at_target(MIGRATE_HEARD_GO, "w:declined ");
	at_target(MIGRATE_WRITTEN, "discard DECLINED ");
	target_recovers(MIGRATE_STARTED, true, "run STARTED ");
	target_recovers(MIGRATE_STARTED, false, "cold-start STARTED ");
	target_recovers(MIGRATE_DECLINED, true, "discard DECLINED ");
}

static void test_resume_how(void **unused)
{
	(void)unused;
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_PRE_SWITCHOVER), MIGRATE_RESUME_CANCEL);
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_ACTIVE), MIGRATE_RESUME_CANCEL);
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_FAILED_STATUS), MIGRATE_RESUME_NOTHING);
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_CANCELLED), MIGRATE_RESUME_NOTHING);
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_COMPLETED), MIGRATE_RESUME_CONT);
	assert_int_equal(migrate_resume_how(MIGRATE_QEMU_DEAD), MIGRATE_RESUME_COLD);
	assert_true(migrate_may_pause(MIGRATE_REQUEST_AGE_MAX_NS));
	assert_false(migrate_may_pause(MIGRATE_REQUEST_AGE_MAX_NS + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_tables, setup),
		cmocka_unit_test_setup(test_good_way, setup),
		cmocka_unit_test_setup(test_early_go, setup),
		cmocka_unit_test_setup(test_records, setup),
		cmocka_unit_test_setup(test_resume_how, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

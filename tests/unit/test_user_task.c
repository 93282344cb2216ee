/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: tasks move only as their table says, are admitted by budget, and survive a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/loop_sim.h"
#include "tools/blkmirrord/user_task.h"

/* ---- admission ---- */

static uint32_t budget_128(const char *name, void *user)
{
	(void)name;
	(void)user;
	return 128;
}

static uint32_t budget_16(const char *name, void *user)
{
	(void)user;
	return strcmp(name, "small") == 0 ? 16 : 128;
}

static struct admission_claim claim_of(const char *source, const char *target)
{
	struct admission_claim claim = { .host_units = 4 };

	admission_claim_side(&claim, source, 16);
	admission_claim_side(&claim, target, 16);
	return claim;
}

static void test_two_at_once(void **unused)
{
	struct admission *admission = malloc(sizeof(*admission));
	struct admission_claim claim = claim_of("a", "b");
	char why[DS_NAME_BYTES + 16];

	(void)unused;
	assert_non_null(admission);
	admission_init(admission, 8, budget_128, NULL);
	assert_true(admission_try(admission, &claim, why));
	assert_true(admission_try(admission, &claim, why));
	assert_false(admission_try(admission, &claim, why));
	assert_string_equal(why, "host budget");
	free(admission);
}

/* One that waits for a datastore lets others pass, but nobody that wants the same datastore. */
static void test_no_starvation(void **unused)
{
	struct admission *admission = malloc(sizeof(*admission));
	struct admission_claim first = claim_of("a", "small");
	struct admission_claim second = claim_of("small", "c");
	struct admission_claim third = claim_of("c", "e");
	struct admission_claim fourth = claim_of("g", "f");
	char why[DS_NAME_BYTES + 16];

	(void)unused;
	assert_non_null(admission);
	admission_init(admission, 100, budget_16, NULL);
	assert_true(admission_try(admission, &first, why));
	assert_false(admission_try(admission, &second, why));
	assert_string_equal(why, "datastore small");
	assert_false(admission_try(admission, &third, why));    /* second waits with a claim on c */
	assert_string_equal(why, "datastore c");
	assert_true(admission_try(admission, &fourth, why));    /* wants nothing anybody waits for */
	free(admission);
}

/* More than a whole budget: alone, not never. */
static void test_larger_than_budget(void **unused)
{
	struct admission *admission = malloc(sizeof(*admission));
	struct admission_claim claim = { .host_units = 4 };
	char why[DS_NAME_BYTES + 16];

	(void)unused;
	assert_non_null(admission);
	admission_claim_side(&claim, "small", 16);
	admission_claim_side(&claim, "small", 16);
	assert_int_equal(claim.side_count, 1);
	admission_init(admission, 8, budget_16, NULL);
	assert_true(admission_try(admission, &claim, why));
	assert_false(admission_try(admission, &claim, why));
	free(admission);
}

/* ---- a kind of task that does as it is told ---- */

struct fake_task {
	struct user_task base;
	int starts, pauses, cancels;
};

static int released_count;

static struct fake_task *fake_of(struct user_task *task)
{
	return container_of(task, struct fake_task, base);
}

static void fake_start(struct user_task *task)
{
	fake_of(task)->starts++;
}

static int fake_pause(struct user_task *task, struct err *err)
{
	(void)err;
	fake_of(task)->pauses++;
	user_task_move(task, USER_TASK_PAUSED);
	return 0;
}

static int fake_cancel(struct user_task *task, struct err *err)
{
	(void)err;
	fake_of(task)->cancels++;
	user_task_move(task, USER_TASK_CANCELLED);
	return 0;
}

static void fake_release(struct user_task *task)
{
	released_count++;
	free(fake_of(task));
}

static const struct user_task_ops fake_ops = {
	.type = "relocate", .start = fake_start, .pause = fake_pause, .cancel = fake_cancel,
	.release = fake_release,
};

struct bench {
	struct loop *loop;
	struct events *events;
	struct task_table *table;
};

static void bench_open(struct bench *bench)
{
	struct task_table_options options = { .host_budget = 8, .datastore_budget = budget_128,
					      .kept = 100 };

	bench->loop = loop_sim_new(1);
	assert_int_equal(events_new(NULL, 10, &bench->events, NULL), 0);
	options.loop = bench->loop;
	options.events = bench->events;
	assert_int_equal(task_table_new(&options, &bench->table, NULL), 0);
}

static void bench_close(struct bench *bench)
{
	task_table_free(bench->table);
	events_free(bench->events);
	loop_free(bench->loop);
}

static void settle(struct bench *bench)
{
	while (loop_sim_step(bench->loop))
		;
}

static struct user_task *add(struct bench *bench, enum task_priority priority)
{
	struct fake_task *fake = calloc(1, sizeof(*fake));

	assert_non_null(fake);
	fake->base.ops = &fake_ops;
	fake->base.priority = priority;
	fake->base.claim = claim_of("a", "b");
	snprintf(fake->base.subject, sizeof(fake->base.subject), "a:x");
	assert_int_equal(task_table_add(bench->table, &fake->base, NULL), 0);
	return &fake->base;
}

static void test_queue_by_priority(void **unused)
{
	struct bench bench;
	struct user_task *first, *second, *low, *normal, *high;

	(void)unused;
	bench_open(&bench);
	first = add(&bench, TASK_PRIORITY_NORMAL);
	second = add(&bench, TASK_PRIORITY_NORMAL);
	settle(&bench);
	low = add(&bench, TASK_PRIORITY_LOW);
	normal = add(&bench, TASK_PRIORITY_NORMAL);
	high = add(&bench, TASK_PRIORITY_HIGH);
	settle(&bench);
	assert_int_equal(first->state, USER_TASK_RUNNING);
	assert_int_equal(second->state, USER_TASK_RUNNING);
	assert_int_equal(high->state, USER_TASK_QUEUED);
	assert_string_equal(high->waiting_for, "host budget");
	user_task_move(first, USER_TASK_COMPLETED);
	settle(&bench);
	assert_int_equal(high->state, USER_TASK_RUNNING);
	assert_int_equal(normal->state, USER_TASK_QUEUED);
	user_task_move(second, USER_TASK_COMPLETED);
	settle(&bench);
	assert_int_equal(normal->state, USER_TASK_RUNNING);
	assert_int_equal(low->state, USER_TASK_QUEUED);
	assert_int_equal(user_task_do(low, TASK_CANCEL, NULL), 0);
	assert_int_equal(fake_of(low)->cancels, 0);     /* it had not begun */
	assert_int_equal(low->state, USER_TASK_CANCELLED);
	assert_int_equal(user_task_do(high, TASK_CANCEL, NULL), 0);
	assert_int_equal(user_task_do(normal, TASK_CANCEL, NULL), 0);
	settle(&bench);
	released_count = 0;
	bench_close(&bench);
	assert_int_equal(released_count, 5);
}

static void test_verbs_by_state(void **unused)
{
	struct bench bench;
	struct user_task *task;
	struct err err = { 0 };

	(void)unused;
	bench_open(&bench);
	task = add(&bench, TASK_PRIORITY_NORMAL);
	assert_true(user_task_do(task, TASK_PAUSE, &err) < 0);
	assert_int_equal(err.id, ERR_TASK_STATE);
	settle(&bench);
	assert_true(user_task_do(task, TASK_RESUME, &err) < 0);
	assert_int_equal(err.id, ERR_TASK_STATE);
	assert_int_equal(user_task_do(task, TASK_PAUSE, &err), 0);
	assert_int_equal(task->state, USER_TASK_PAUSED);
	assert_true(user_task_do(task, TASK_RESUME, &err) < 0);  /* this kind has none */
	assert_int_equal(err.id, ERR_NOT_SUPPORTED);
	err_set(&err, ERR_MOVE_VERIFY, 0, "x");
	user_task_fail(task, &err);
	assert_true(user_task_do(task, TASK_CANCEL, &err) < 0);
	assert_int_equal(err.id, ERR_TASK_ENDED);
	assert_int_equal(task_table_failures(bench.table, ERR_MOVE_VERIFY), 1);
	settle(&bench);
	bench_close(&bench);
}

static void test_moves_are_total(void **unused)
{
	(void)unused;
	for (int from = 0; from < USER_TASK_STATE_COUNT; from++) {
		bool any = false;

		for (int to = 0; to < USER_TASK_STATE_COUNT; to++) {
			bool may = user_task_may_move((enum user_task_state)from,
						      (enum user_task_state)to);

			any = any || may;
			assert_false(may && from == to);
			assert_false(may && to == USER_TASK_QUEUED);
		}
		assert_int_equal(any, !user_task_state_ended((enum user_task_state)from));
	}
}

static void test_json_is_whole(void **unused)
{
	static const char *const keys[] = {
		"id", "type", "subject", "state", "phase", "waiting_for", "priority", "created",
		"started", "finished", "progress", "disks", "parent", "children", "faults",
		"degraded", "guest", "switchover", "memory", "error",
	};
	struct bench bench;
	struct user_task *task;
	json_t *object;

	(void)unused;
	bench_open(&bench);
	task = add(&bench, TASK_PRIORITY_HIGH);
	settle(&bench);
	user_task_move(task, USER_TASK_COMPLETED);
	object = user_task_json(task);
	for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
		if (!json_object_get(object, keys[i]))
			fail_msg("a task lacks '%s'", keys[i]);
	assert_string_equal(json_string_value(json_object_get(object, "priority")), "high");
	json_decref(object);
	settle(&bench);
	bench_close(&bench);
}

/* ---- followers ---- */

static int woken_count;

static void woken(struct task_follower *follower)
{
	(void)follower;
	woken_count++;
}

static void test_follower_sees_the_last_form(void **unused)
{
	struct task_follower follower = { .woken = woken };
	struct bench bench;
	struct user_task *task;

	(void)unused;
	bench_open(&bench);
	task = add(&bench, TASK_PRIORITY_NORMAL);
	settle(&bench);
	list_init(&follower.node);
	follower.number = task->number;
	task_table_follow(bench.table, &follower);
	assert_ptr_equal(task_table_next_changed(bench.table, &follower), task);
	assert_null(task_table_next_changed(bench.table, &follower));
	woken_count = 0;
	for (int i = 0; i < 1000; i++)
		user_task_changed(task);                /* a slow follower costs nothing */
	user_task_move(task, USER_TASK_COMPLETED);
	assert_true(woken_count > 0);
	assert_ptr_equal(task_table_next_changed(bench.table, &follower), task);
	assert_null(task_table_next_changed(bench.table, &follower));
	task_table_unfollow(&follower);
	settle(&bench);
	bench_close(&bench);
}

static void test_ids(void **unused)
{
	uint64_t number = 0;

	(void)unused;
	assert_true(user_task_id_parse("t12", &number));
	assert_int_equal(number, 12);
	assert_false(user_task_id_parse("t0", &number));
	assert_false(user_task_id_parse("t", &number));
	assert_false(user_task_id_parse("12", &number));
	assert_false(user_task_id_parse("t1x", &number));
	assert_false(user_task_id_parse("t-1", &number));
	assert_false(user_task_id_parse("t99999999999999999999", &number));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_no_starvation),
		cmocka_unit_test(test_larger_than_budget),
		cmocka_unit_test(test_queue_by_priority),
		cmocka_unit_test(test_verbs_by_state),
		cmocka_unit_test(test_moves_are_total),
		cmocka_unit_test(test_json_is_whole),
		cmocka_unit_test(test_follower_sees_the_last_form),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

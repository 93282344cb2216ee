/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what the daemon remembers is there after a restart, and keys repeat no request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/blkmirrord/idempotency.h"
#include "tools/blkmirrord/state_dir.h"
#include "tools/blkmirrord/user_task.h"

struct life {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct task_table *table;
	struct timer poll;
};

static uint32_t budget(const char *name, void *user)
{
	(void)name;
	(void)user;
	return 128;
}

static void nothing(struct user_task *task)
{
	(void)task;
}

static void release(struct user_task *task)
{
	free(task);
}

static const struct user_task_ops ops = { .type = "relocate", .start = nothing,
					  .release = release };

static json_t *request(const struct user_task *task)
{
	return json_pack("{s:s}", "asked", task->subject);
}

static bool park(struct user_task *task)
{
	return task->state == USER_TASK_RUNNING || task->state == USER_TASK_QUEUED;
}

static unsigned starts;

static void count_start(struct user_task *task)
{
	(void)task;
	starts++;
}

/* A kind that is restored. */
static const struct user_task_ops restored_ops = { .type = "relocate", .start = count_start,
						   .request = request, .park = park,
						   .release = release };

/* Ends the loop when the store has written all. */
static void polled(struct timer *timer)
{
	struct life *life = container_of(timer, struct life, poll);

	if (store_pending(life->store) == 0)
		loop_stop(life->loop);
	else
		timer_start(timer, NS_PER_MS);
}

static void drain(struct life *life)
{
	timer_start(&life->poll, 5 * NS_PER_MS);
	loop_run(life->loop);
}

static void life_begin(struct life *life, const char *path)
{
	struct task_table_options options = { .host_budget = 8, .datastore_budget = budget,
					      .kept = 100 };

	life->loop = loop_new();
	assert_non_null(life->loop);
	timer_init(&life->poll, life->loop, polled);
	assert_int_equal(store_open(life->loop, path, &life->store, NULL), 0);
	assert_int_equal(events_new(life->store, 1000, &life->events, NULL), 0);
	options.loop = life->loop;
	options.store = life->store;
	options.events = life->events;
	assert_int_equal(task_table_new(&options, &life->table, NULL), 0);
}

static struct user_task *add_restorable(struct life *life, uint32_t host_units)
{
	struct user_task *task = calloc(1, sizeof(*task));

	assert_non_null(task);
	task->ops = &restored_ops;
	task->claim.host_units = host_units;
	snprintf(task->subject, sizeof(task->subject), "ds:disk");
	assert_int_equal(task_table_add(life->table, task, NULL), 0);
	return task;
}

static struct user_task *add(struct life *life)
{
	struct user_task *task = calloc(1, sizeof(*task));

	assert_non_null(task);
	task->ops = &ops;
	assert_int_equal(task_table_add(life->table, task, NULL), 0);
	return task;
}

/* A daemon that dies while t2 runs: in a process of its own, so nothing of it is left. */
static void live_and_die(const char *path)
{
	struct life life;

	life_begin(&life, path);
	user_task_move(add(&life), USER_TASK_CANCELLED);
	add(&life);
	drain(&life);
	_exit(task_table_find(life.table, "t2")->state == USER_TASK_RUNNING ? 0 : 1);
}

/*
 * A daemon that dies as soon as a task runs, whatever is still to be written: the task is
 * known to the next, and its number is not given to another.
 */
static void die_when_it_runs(struct timer *timer)
{
	struct life *life = container_of(timer, struct life, poll);

	if (task_table_find(life->table, "t1")->state == USER_TASK_RUNNING)
		_exit(0);
	timer_start(timer, 0);
}

static void test_what_runs_is_stored(void **unused)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct user_task *task;
	struct life life;
	int status;
	pid_t pid;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	pid = fork();
	if (pid == 0) {
		life_begin(&life, path);
		add(&life);
		timer_init(&life.poll, life.loop, die_when_it_runs);
		timer_start(&life.poll, 0);
		loop_run(life.loop);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	life_begin(&life, path);
	task = add(&life);
	assert_string_equal(task->id, "t2");
	drain(&life);
	user_task_move(task, USER_TASK_COMPLETED);
	drain(&life);
	task_table_free(life.table);
	events_free(life.events);
	store_close(life.store);
	loop_free(life.loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

struct telling {
	struct life *life;
	unsigned told;
	enum user_task_state state;
	bool failed;
	size_t rows;
};

static void told(struct user_task *task, const struct err *err, void *user)
{
	struct telling *telling = user;
	json_t *rows = NULL;

	telling->told++;
	telling->state = task->state;
	telling->failed = err != NULL;
	if (!err) {
		assert_int_equal(store_load(telling->life->store, "SELECT number FROM task", &rows,
					    NULL), 0);
		telling->rows = json_array_size(rows);
		json_decref(rows);
	}
}

static struct user_task *add_told(struct life *life, struct telling *telling)
{
	struct user_task *task = add_restorable(life, 4);

	*telling = (struct telling){ .life = life };
	task->stored = told;
	task->stored_user = telling;
	return task;
}

/* Who is told of a task finds it again: not before it is durable, and once, whatever becomes of it. */
static void test_told_when_stored(void **unused)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct telling telling, cancelled, refused;
	struct user_task *task;
	struct life life;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	life_begin(&life, path);
	task = add_told(&life, &telling);
	assert_int_equal(user_task_do(add_told(&life, &cancelled), TASK_CANCEL, NULL), 0);
	assert_int_equal(telling.told + cancelled.told, 0);
	/* Nor is it left to the next daemon before. */
	assert_false(task_table_park(life.table));
	drain(&life);
	assert_int_equal(telling.told, 1);
	assert_int_equal(telling.state, USER_TASK_QUEUED);
	assert_true(telling.rows >= 1);
	assert_int_equal(cancelled.told, 1);
	assert_int_equal(cancelled.state, USER_TASK_CANCELLED);
	assert_false(cancelled.failed);
	/* What cannot be stored is told so, and has failed. */
	assert_int_equal(store_exec_now(life.store, "ALTER TABLE task RENAME TO gone", NULL, 0, NULL),
			 0);
	add_told(&life, &refused);
	drain(&life);
	assert_int_equal(refused.told, 1);
	assert_true(refused.failed);
	assert_int_equal(refused.state, USER_TASK_FAILED);
	user_task_move(task, USER_TASK_COMPLETED);
	drain(&life);
	task_table_free(life.table);
	events_free(life.events);
	store_close(life.store);
	loop_free(life.loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

static void test_tasks_survive(void **unused)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct life life;
	struct user_task *task;
	json_t *rows = NULL;
	const char *text;
	int status;
	pid_t pid;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	pid = fork();
	if (pid == 0)
		live_and_die(path);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	life_begin(&life, path);
	drain(&life);
	assert_int_equal(store_load(life.store, "SELECT state, json FROM task ORDER BY number", &rows,
				    NULL),
			 0);
	assert_int_equal(json_array_size(rows), 2);
	assert_string_equal(json_string_value(json_array_get(json_array_get(rows, 0), 0)), "cancelled");
	assert_string_equal(json_string_value(json_array_get(json_array_get(rows, 1), 0)), "failed");
	text = json_string_value(json_array_get(json_array_get(rows, 1), 1));
	assert_non_null(strstr(text, "BM-1405"));
	json_decref(rows);
	assert_true(events_last_number(life.events) > 0);       /* numbers go on */
	task = add(&life);
	assert_string_equal(task->id, "t3");                    /* and ids */
	drain(&life);
	user_task_move(task, USER_TASK_COMPLETED);
	drain(&life);
	task_table_free(life.table);
	events_free(life.events);
	store_close(life.store);
	loop_free(life.loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

/* Dies, or stops in order, while t1 runs and t2 waits for it. */
static void live_and_leave(const char *path, bool in_order)
{
	struct life life;

	life_begin(&life, path);
	add_restorable(&life, 8);
	add_restorable(&life, 8);
	drain(&life);
	if (in_order && !task_table_park(life.table))
		_exit(2);
	drain(&life);
	if (in_order)
		task_table_free(life.table);
	_exit(starts == 1 ? 0 : 1);
}

static void restore_all(struct life *life)
{
	json_t *unfinished = task_table_take_unfinished(life->table), *one;
	size_t i;

	assert_int_equal(json_array_size(unfinished), 2);
	json_array_foreach (unfinished, i, one) {
		struct user_task *task = calloc(1, sizeof(*task));
		enum user_task_state state;

		assert_non_null(task);
		task->ops = &restored_ops;
		task->claim.host_units = 8;
		assert_string_equal(json_string_value(json_object_get(
					    json_object_get(one, "request"), "asked")), "ds:disk");
		assert_null(json_object_get(json_object_get(one, "task"), "request"));
		assert_true(user_task_state_parse(
			json_string_value(json_object_get(one, "state")), &state));
		assert_int_equal(state, i ? USER_TASK_QUEUED : USER_TASK_RUNNING);
		task_table_restore(life->table, task, one, state);
	}
	json_decref(unfinished);
}

static void restore_after(bool in_order)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct user_task *task;
	struct life life;
	int status;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	starts = 0;
	pid = fork();
	if (pid == 0)
		live_and_leave(path, in_order);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	life_begin(&life, path);
	restore_all(&life);
	task = task_table_find(life.table, "t1");
	assert_non_null(task);
	assert_int_equal(task->state, USER_TASK_RUNNING);
	assert_true(task->created_ms > 0);
	assert_true(task->started_ms >= task->created_ms);
	/* The queue waits for the daemon's disks; then its turn comes. */
	user_task_move(task, USER_TASK_COMPLETED);
	drain(&life);
	assert_int_equal(starts, 0);
	task_table_open_admission(life.table);
	drain(&life);
	assert_int_equal(starts, 1);
	task = task_table_find(life.table, "t2");
	assert_int_equal(task->state, USER_TASK_RUNNING);
	assert_string_equal(add_restorable(&life, 1)->id, "t3");
	user_task_move(task, USER_TASK_COMPLETED);
	drain(&life);
	user_task_move(task_table_find(life.table, "t3"), USER_TASK_COMPLETED);
	drain(&life);
	task_table_free(life.table);
	events_free(life.events);
	store_close(life.store);
	loop_free(life.loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

static void test_tasks_are_restored(void **unused)
{
	(void)unused;
	restore_after(false);
	restore_after(true);
}

/* Attachments of a version 1 store are there afterwards, in no group. */
static void test_schema_of_before(void **unused)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct loop *loop = loop_new();
	struct store *store = NULL;
	struct err err = { 0 };
	json_t *rows = NULL;
	char *dumped;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	assert_int_equal(store_open(loop, path, &store, &err), 0);
	assert_int_equal(store_exec_now(store, "ALTER TABLE attachment DROP COLUMN disk_group", NULL, 0,
					&err), 0);
	assert_int_equal(store_exec_now(store, "INSERT INTO attachment VALUES('d1', 'a', 'x', 'nbd', "
					"'/s', 0)", NULL, 0, &err), 0);
	assert_int_equal(store_exec_now(store, "UPDATE meta SET value = 1 WHERE key = 'schema'", NULL,
					0, &err), 0);
	store_close(store);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(store_open(loop, path, &store, &err), 0);
		assert_int_equal(store_load(store, "SELECT id, disk_group, (SELECT value FROM meta "
					    "WHERE key = 'schema') FROM attachment", &rows, &err), 0);
		dumped = json_dumps(rows, JSON_COMPACT);
		assert_string_equal(dumped, "[[\"d1\",\"\",2]]");
		free(dumped);
		json_decref(rows);
		store_close(store);
	}
	loop_free(loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

static void test_schema_of_the_future(void **unused)
{
	char dir[] = "/tmp/test-store-XXXXXX", path[64];
	struct loop *loop = loop_new();
	struct store *store = NULL;
	struct err err = { 0 };

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/tasks.db", dir);
	assert_int_equal(store_open(loop, path, &store, &err), 0);
	assert_int_equal(store_exec_now(store, "UPDATE meta SET value = 99", NULL, 0, &err), 0);
	store_close(store);
	assert_true(store_open(loop, path, &store, &err) < 0);
	assert_int_equal(err.id, ERR_STATE_DIR);
	assert_non_null(strstr(err.cause, "99"));
	loop_free(loop);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

static void test_state_dir(void **unused)
{
	char dir[] = "/tmp/test-state-XXXXXX", path[64];
	uint8_t first[16], second[16], third[16];
	struct err err = { 0 };
	int lock_fd, other_fd;
	FILE *file;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(state_dir_open(dir, 0, &lock_fd, first, &err), 0);
	assert_true(state_dir_open(dir, 0, &other_fd, second, &err) < 0);   /* one daemon */
	assert_int_equal(err.id, ERR_STATE_DIR);
	close(lock_fd);
	assert_int_equal(state_dir_open(dir, 0, &lock_fd, second, &err), 0);
	assert_memory_equal(first, second, 16);                         /* the same host */
	close(lock_fd);
	snprintf(path, sizeof(path), "%s/host-uuid", dir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs("nonsense\n", file) >= 0);
	fclose(file);
	assert_true(state_dir_open(dir, 0, &lock_fd, third, &err) < 0);     /* never a new identity */
	assert_int_equal(err.id, ERR_STATE_DIR);
	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
}

/* A dying daemon keeps its lock until the kernel has done its last request. */
static void *die_soon(void *lock_fd)
{
	usleep(50 * 1000);      /* the other one has asked in vain by then, or asks later */
	close(*(int *)lock_fd);
	return NULL;
}

static void test_dying_daemon_is_waited_for(void **unused)
{
	char dir[] = "/tmp/test-state-XXXXXX", command[64];
	uint8_t host[16];
	struct err err = { 0 };
	int dying_fd, lock_fd;
	pthread_t thread;
	sigset_t term;

	(void)unused;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(state_dir_open(dir, 0, &dying_fd, host, &err), 0);
	assert_int_equal(state_dir_open(dir, 1, &lock_fd, host, &err), -EBUSY);
	/* Who is told to stop does not wait. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &term, NULL), 0);
	assert_int_equal(raise(SIGTERM), 0);
	assert_int_equal(state_dir_open(dir, UINT32_MAX, &lock_fd, host, &err), -EINTR);
	assert_int_equal(sigwaitinfo(&term, NULL), SIGTERM);
	assert_int_equal(sigprocmask(SIG_UNBLOCK, &term, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, die_soon, &dying_fd), 0);
	assert_int_equal(state_dir_open(dir, 60000, &lock_fd, host, &err), 0);
	pthread_join(thread, NULL);
	close(lock_fd);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

/* ---- idempotency ---- */

static int answers, last_status;

static void answered(struct idempotency_waiter *waiter, int status, json_t *body)
{
	(void)waiter;
	(void)body;
	answers++;
	last_status = status;
}

static void test_idempotency(void **unused)
{
	struct idempotency *table = idempotency_new();
	struct idempotency_waiter waiter = { .answered = answered };
	struct idempotency_entry *entry, *none;
	struct err err = { 0 };
	json_t *body = json_object();
	char key[32];

	(void)unused;
	list_init(&waiter.node);
	assert_int_equal(idempotency_begin(table, "k", 1, &waiter, &entry, &err), 0);
	assert_non_null(entry);
	assert_int_equal(idempotency_begin(table, "k", 1, &waiter, &none, &err), 0);
	assert_null(none);
	assert_int_equal(answers, 0);                   /* the first is still worked on */
	assert_true(idempotency_begin(table, "k", 2, &waiter, &none, &err) < 0);
	assert_int_equal(err.id, ERR_KEY_REUSED);
	idempotency_finish(table, entry, 201, body);
	assert_int_equal(answers, 1);
	assert_int_equal(last_status, 201);
	assert_int_equal(idempotency_begin(table, "k", 1, &waiter, &none, &err), 0);
	assert_int_equal(answers, 2);
	assert_true(idempotency_begin(table, "", 1, &waiter, &none, &err) < 0);
	assert_int_equal(err.id, ERR_BAD_FIELD);
	/* Bounded: the oldest answered go, those under way stay, then it is refused. */
	for (unsigned i = 0; i < IDEMPOTENCY_ENTRIES_MAX; i++) {
		snprintf(key, sizeof(key), "n%u", i);
		assert_int_equal(idempotency_begin(table, key, 1, &waiter, &entry, &err), 0);
	}
	assert_true(idempotency_begin(table, "more", 1, &waiter, &none, &err) < 0);
	assert_int_equal(err.id, ERR_BUSY);
	idempotency_finish(table, entry, 503, body);    /* may be tried again */
	assert_int_equal(idempotency_begin(table, key, 1, &waiter, &entry, &err), 0);
	assert_non_null(entry);
	json_decref(body);
	idempotency_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_runs_is_stored),
		cmocka_unit_test(test_told_when_stored),
		cmocka_unit_test(test_tasks_survive),
		cmocka_unit_test(test_tasks_are_restored),
		cmocka_unit_test(test_schema_of_before),
		cmocka_unit_test(test_schema_of_the_future),
		cmocka_unit_test(test_state_dir),
		cmocka_unit_test(test_dying_daemon_is_waited_for),
		cmocka_unit_test(test_idempotency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* task_table.c - all tasks: ids, admission, history, followers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/task_table_private.h"
#include "tools/common/wall.h"

static void task_table_pumped(struct task *task);

/* ---- history ---- */

static const char task_put_sql[] =
	"INSERT INTO task(number, state, type, json) VALUES(?1, ?2, ?3, ?4) "
	"ON CONFLICT(number) DO UPDATE SET state = ?2, json = ?4";
static const char task_prune_sql[] =
	"DELETE FROM task WHERE number <= ?1 AND state IN ('completed', 'failed', 'cancelled')";

static int task_put(struct task_table *table, const struct user_task *task,
		    void (*done)(int rc, const struct err *err, void *user), struct err *err)
{
	json_t *object = user_task_json(task);
	char *text;
	int rc;

	if (object && task->ops->request && !user_task_state_ended(task->state) &&
	    json_object_set_new(object, "request", task->ops->request(task))) {
		json_decref(object);
		object = NULL;
	}
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	if (!text)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	struct store_value values[] = { STORE_INT(task->number),
					STORE_TEXT(user_task_state_name(task->state)),
					STORE_TEXT(task->ops->type), STORE_TEXT(text) };

	rc = store_exec(table->store, task_put_sql, values, 4, done, table, err);
	free(text);
	return rc;
}

void task_table_persist(struct task_table *table, struct user_task *task)
{
	struct err err = { 0 };

	if (table->store && task_put(table, task, NULL, &err))
		log_error("task", "%s: its history is behind: %s", task->id, err.cause);
}

/* Until then a crash forgets it: it does not begin, is told to nobody, and is not let go. */
static bool task_is_stored(const struct task_table *table, const struct user_task *task)
{
	return !table->store || task->number <= table->stored_number;
}

/* It cannot be made durable: then it is not begun either. */
static void task_not_stored(struct user_task *task, const struct err *err)
{
	if (user_task_state_ended(task->state))
		return;                 /* cancelled meanwhile */
	if (task->ops->dropped)
		task->ops->dropped(task);
	user_task_fail(task, err);
}

/* New tasks are stored in the order of their numbers, none is left out. */
static void task_stored(int rc, const struct err *err, void *user)
{
	struct task_table *table = user;
	struct user_task *task = NULL;

	table->stored_number++;
	do {
		task = task_table_next(table, task);
		CHECK(task);            /* not let go before now */
	} while (task->number != table->stored_number);
	if (rc)
		task_not_stored(task, err);
	if (task->stored)
		task->stored(task, rc ? err : NULL, task->stored_user);
	task_table_pump(table);
}

static void task_table_prune(struct task_table *table)
{
	struct store_value bound = STORE_INT((int64_t)table->last_number - (int64_t)table->kept);
	struct err err = { 0 };

	if (!table->store || bound.number <= 0)
		return;
	if (store_exec(table->store, task_prune_sql, &bound, 1, NULL, NULL, &err))
		log_warn("task", "cannot prune the history: %s", err.cause);
}

/* Not restored: what its move left is settled by recovering.c. */
int task_table_interrupt(struct task_table *table, const json_t *unfinished, const struct err *why,
			 struct err *err)
{
	json_int_t number = json_integer_value(json_object_get(unfinished, "number"));
	json_t *task = json_deep_copy(json_object_get(unfinished, "task"));
	char now[WALL_TEXT_BYTES];
	char *text = NULL;
	int rc = -ENOMEM;

	wall_format(wall_now_ms(), now);
	if (task && !json_object_set_new(task, "state", json_string("failed")) &&
	    !json_object_set_new(task, "finished", json_string(now)) &&
	    !json_object_set_new(task, "error", json_edge_err_object(why)))
		text = json_dumps(task, JSON_COMPACT);
	if (text && table->store) {
		struct store_value values[] = { STORE_INT(number), STORE_TEXT(text) };

		log_warn("task", "t%lld: failed: %s (%s)", (long long)number, why->cause,
			 err_name(why->id));
		rc = store_exec(table->store,
				"UPDATE task SET state = 'failed', json = ?2 WHERE number = ?1",
				values, 2, NULL, NULL, err);
	} else {
		err_set(err, ERR_STATE_DIR, rc, "cannot read task t%lld of the history",
			(long long)number);
	}
	free(text);
	json_decref(task);
	return rc;
}

/* A row of before: kept for its kind to restore, or interrupted. */
static int load_unfinished(struct task_table *table, json_t *row, struct err *err)
{
	json_t *task = json_loads(json_string_value(json_array_get(row, 1)), 0, NULL);
	json_t *request = json_incref(json_object_get(task, "request"));
	json_t *unfinished = json_pack("{s:O, s:O, s:O, s:o?, s:o?}", "number",
				       json_array_get(row, 0), "state", json_array_get(row, 2),
				       "type", json_array_get(row, 3), "task", task, "request",
				       request);
	struct err why = { 0 };
	int rc;

	if (!unfinished)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	json_object_del(task, "request");
	if (request) {
		if (!json_array_append_new(table->unfinished, unfinished))
			return 0;
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	err_set(&why, ERR_TASK_INTERRUPTED, 0, "the daemon stopped while t%lld was %s",
		(long long)json_integer_value(json_array_get(row, 0)),
		json_string_value(json_array_get(row, 2)));
	rc = task_table_interrupt(table, unfinished, &why, err);
	json_decref(unfinished);
	return rc;
}

static int load_history(struct task_table *table, struct err *err)
{
	json_t *rows = NULL, *row;
	size_t i;
	int rc = store_load(table->store, "SELECT coalesce(max(number), 0) FROM task", &rows, err);

	if (rc)
		return rc;
	table->last_number =
		(uint64_t)json_integer_value(json_array_get(json_array_get(rows, 0), 0));
	table->stored_number = table->last_number;
	json_decref(rows);
	rows = NULL;
	rc = store_load(table->store,
			"SELECT number, json, state, type FROM task "
			"WHERE state NOT IN ('completed', 'failed', 'cancelled') ORDER BY number",
			&rows, err);
	if (rc)
		return rc;
	json_array_foreach (rows, i, row) {
		rc = load_unfinished(table, row, err);
		if (rc)
			break;
	}
	json_decref(rows);
	return rc;
}

/* ---- the table ---- */

int task_table_new(const struct task_table_options *options, struct task_table **out,
		   struct err *err)
{
	struct task_table *table = calloc(1, sizeof(*table));
	int rc;

	if (!table)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	while (err_at(table->failure_kinds) != ERR_NONE)
		table->failure_kinds++;
	table->failures = calloc(table->failure_kinds, sizeof(*table->failures));
	table->unfinished = json_array();
	if (!table->failures || !table->unfinished) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_failures;
	}
	table->loop = options->loop;
	table->store = options->store;
	table->events = options->events;
	table->host_budget = options->host_budget;
	table->datastore_budget = options->datastore_budget;
	table->user = options->user;
	table->kept = options->kept;
	table->pump.run = task_table_pumped;
	list_init(&table->live);
	list_init(&table->recent);
	list_init(&table->followers);
	rc = table->store ? load_history(table, err) : 0;
	if (rc)
		goto free_failures;
	*out = table;
	return 0;

free_failures:
	json_decref(table->unfinished);
	free(table->failures);
	free(table);
	return rc;
}

void task_table_free(struct task_table *table)
{
	if (!table)
		return;
	CHECK(table->live_count == 0);
	CHECK(list_is_empty(&table->followers));
	CHECK(!table->pump_posted);
	list_for_each (node, &table->recent) {
		struct user_task *task = list_entry(node, struct user_task, node);

		list_remove(node);
		json_decref(task->result);
		task->ops->release(task);
	}
	json_decref(table->unfinished);
	free(table->failures);
	free(table);
}

void task_table_set_host_budget(struct task_table *table, uint32_t host_budget)
{
	table->host_budget = host_budget;
	task_table_pump(table);
}

void task_table_close_admission(struct task_table *table)
{
	table->closed = true;
}

int task_table_add(struct task_table *table, struct user_task *task, struct err *err)
{
	int rc;

	if (table->closed)
		return err_set(err, ERR_SHUTTING_DOWN, -ESHUTDOWN, "the daemon is stopping");
	if (table->live_count >= USER_TASKS_LIVE_MAX)
		return err_set(err, ERR_TASK_QUEUE_FULL, -EBUSY, "%u tasks wait or run already",
			       table->live_count);
	task->table = table;
	task->number = table->last_number + 1;
	snprintf(task->id, sizeof(task->id), "t%llu", (unsigned long long)task->number);
	task->state = USER_TASK_QUEUED;
	task->created_ms = wall_now_ms();
	if (task->weight == 0)
		task->weight = 100;
	task->stored = NULL;
	rc = table->store ? task_put(table, task, task_stored, err) : 0;
	if (rc)
		return rc;
	table->last_number = task->number;
	list_append(&table->live, &task->node);
	table->live_count++;
	task_table_stamp(table, task);
	if (task->number % 64 == 0)
		task_table_prune(table);
	task_table_pump(table);
	return 0;
}

/* ---- over a restart ---- */

json_t *task_table_take_unfinished(struct task_table *table)
{
	json_t *unfinished = table->unfinished;

	table->unfinished = NULL;
	return unfinished;
}

void task_table_restore(struct task_table *table, struct user_task *task, const json_t *unfinished,
			enum user_task_state state)
{
	const json_t *was = json_object_get(unfinished, "task");
	const char *created = json_string_value(json_object_get(was, "created"));
	const char *started = json_string_value(json_object_get(was, "started"));

	CHECK(!user_task_state_ended(state));
	task->table = table;
	task->number = (uint64_t)json_integer_value(json_object_get(unfinished, "number"));
	snprintf(task->id, sizeof(task->id), "t%llu", (unsigned long long)task->number);
	task->state = state;
	if (!created || !wall_parse(created, &task->created_ms))
		task->created_ms = wall_now_ms();
	if (started && state != USER_TASK_QUEUED && !wall_parse(started, &task->started_ms))
		task->started_ms = wall_now_ms();
	if (task->weight == 0)
		task->weight = 100;
	list_append(&table->live, &task->node);
	table->live_count++;
	table->waiting = true;
	log_info("task", "%s %s %s: restored, %s", task->id, task->ops->type, task->subject,
		 user_task_state_name(state));
	task_table_stamp(table, task);
	task_table_persist(table, task);
}

void task_table_open_admission(struct task_table *table)
{
	table->waiting = false;
	task_table_pump(table);
}

/* It stays in the store as it is, for the next daemon. */
static void leave_standing(struct task_table *table, struct user_task *task)
{
	log_info("task", "%s %s %s: left standing, %s", task->id, task->ops->type, task->subject,
		 user_task_state_name(task->state));
	task_table_persist(table, task);
	list_remove(&task->node);
	table->live_count--;
	json_decref(task->result);
	task->ops->release(task);
}

bool task_table_park(struct task_table *table)
{
	struct err err = { 0 };

	list_for_each (node, &table->live) {
		struct user_task *task = list_entry(node, struct user_task, node);

		if (!task->ops->park) {
			if (user_task_do(task, TASK_CANCEL, &err))
				log_debug("daemon", "%s: %s", task->id, err.cause);
		} else if (task_is_stored(table, task) && task->ops->park(task)) {
			leave_standing(table, task);
		}
	}
	return table->live_count == 0;
}

/* ---- admission ---- */

void task_table_pump(struct task_table *table)
{
	if (table->pump_posted || table->closed)
		return;
	table->pump_posted = true;
	loop_post(table->loop, &table->pump);
}

static void pump_priority(struct task_table *table, struct admission *admission,
			  enum task_priority priority)
{
	char waiting_for[DS_NAME_BYTES + 16];

	list_for_each (node, &table->live) {
		struct user_task *task = list_entry(node, struct user_task, node);

		if (task->state != USER_TASK_QUEUED || task->priority != priority)
			continue;
		/* Its number must never be another's: its move goes by it on the datastores. */
		if (!task_is_stored(table, task))
			continue;
		if (admission_try(admission, &task->claim, waiting_for)) {
			user_task_move(task, USER_TASK_RUNNING);
			task->ops->start(task);
		} else if (strcmp(task->waiting_for, waiting_for) != 0) {
			snprintf(task->waiting_for, sizeof(task->waiting_for), "%s", waiting_for);
			user_task_changed(task);
		}
	}
}

static void task_table_pumped(struct task *task)
{
	struct task_table *table = container_of(task, struct task_table, pump);
	struct admission admission;

	table->pump_posted = false;
	if (table->closed || table->waiting)
		return;
	admission_init(&admission, table->host_budget, table->datastore_budget, table->user);
	list_for_each (node, &table->live) {
		struct user_task *running = list_entry(node, struct user_task, node);

		if (running->state != USER_TASK_QUEUED)
			admission_add(&admission, &running->claim);
	}
	for (int priority = TASK_PRIORITY_HIGH; priority >= TASK_PRIORITY_LOW; priority--)
		pump_priority(table, &admission, (enum task_priority)priority);
}

/* ---- changes ---- */

void task_table_stamp(struct task_table *table, struct user_task *task)
{
	task->stamp = ++table->last_stamp;
	list_for_each (node, &table->followers) {
		struct task_follower *follower = list_entry(node, struct task_follower, node);

		if (follower->number == 0 || follower->number == task->number)
			follower->woken(follower);
	}
}

static void count_failure(struct task_table *table, enum err_id id)
{
	for (unsigned i = 0; i < table->failure_kinds; i++)
		if (err_at(i) == id)
			table->failures[i]++;
}

static void forget_recent(struct task_table *table)
{
	while (table->recent_count > USER_TASKS_RECENT) {
		struct user_task *oldest =
			list_entry(list_first(&table->recent), struct user_task, node);

		if (!task_is_stored(table, oldest))
			return;
		list_remove(&oldest->node);
		table->recent_count--;
		json_decref(oldest->result);
		oldest->ops->release(oldest);
	}
}

void task_table_task_moved(struct task_table *table, struct user_task *task)
{
	task_table_persist(table, task);
	if (!user_task_state_ended(task->state))
		return;
	if (task->state == USER_TASK_FAILED)
		count_failure(table, task->error.id);
	list_remove(&task->node);
	table->live_count--;
	list_append(&table->recent, &task->node);
	table->recent_count++;
	forget_recent(table);
	task_table_pump(table);
}

uint64_t task_table_failures(const struct task_table *table, enum err_id id)
{
	for (unsigned i = 0; i < table->failure_kinds; i++)
		if (err_at(i) == id)
			return table->failures[i];
	return 0;
}

/* ---- lookup ---- */

struct user_task *task_table_next(struct task_table *table, struct user_task *task)
{
	struct list *next = task ? task->node.next : table->live.next;

	if (next == &table->live)
		next = table->recent.next;
	if (next == &table->recent)
		return NULL;
	return list_entry(next, struct user_task, node);
}

struct user_task *task_table_find(struct task_table *table, const char *id)
{
	for (struct user_task *task = task_table_next(table, NULL); task;
	     task = task_table_next(table, task))
		if (strcmp(task->id, id) == 0)
			return task;
	return NULL;
}

uint32_t task_table_live_count(const struct task_table *table)
{
	return table->live_count;
}

uint32_t task_table_count(const struct task_table *table, const char *type,
			  enum user_task_state state)
{
	uint32_t count = 0;

	for (struct user_task *task = task_table_next((struct task_table *)table, NULL); task;
	     task = task_table_next((struct task_table *)table, task))
		count += task->state == state && strcmp(task->ops->type, type) == 0;
	return count;
}

/* ---- followers ---- */

void task_table_follow(struct task_table *table, struct task_follower *follower)
{
	list_append(&table->followers, &follower->node);
}

void task_table_unfollow(struct task_follower *follower)
{
	list_remove(&follower->node);
}

struct user_task *task_table_next_changed(struct task_table *table,
					  struct task_follower *follower)
{
	struct user_task *oldest = NULL;

	for (struct user_task *task = task_table_next(table, NULL); task;
	     task = task_table_next(table, task)) {
		if (task->stamp <= follower->seen_stamp ||
		    (follower->number && follower->number != task->number))
			continue;
		if (!oldest || task->stamp < oldest->stamp)
			oldest = task;
	}
	if (oldest)
		follower->seen_stamp = oldest->stamp;
	return oldest;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* api_tasks.c - the API's tasks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"

#define LIST_DEFAULT 200
#define LIST_MAX 1000
#define VERB_WAIT_NS (2 * NS_PER_S)

/* ---- one task of the store ---- */

struct lookup {
	struct api_call *call;
	void (*found)(struct api_call *call, json_t *task);     /* takes task */
	char id[USER_TASK_ID_BYTES];
};

static void lookup_answered(const json_t *rows, const struct err *err, void *user)
{
	struct lookup *lookup = user;
	const char *text = json_string_value(json_array_get(json_array_get(rows, 0), 0));
	struct err unknown = { 0 };

	if (err->id != ERR_NONE) {
		api_fail(lookup->call, err);
	} else if (!text) {
		err_set(&unknown, ERR_TASK_UNKNOWN, 0, "there is no task '%s'", lookup->id);
		api_fail(lookup->call, &unknown);
	} else {
		lookup->found(lookup->call, json_loads(text, 0, NULL));
	}
	free(lookup);
}

/* A task that is not in memory: found() runs, or the call is refused. */
static void lookup_start(struct api_call *call,
			 void (*found)(struct api_call *call, json_t *task))
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	struct store_value value = { 0 };
	struct err err = { 0 };
	uint64_t number;

	if (!user_task_id_parse(api_param(call), &number)) {
		err_set(&err, ERR_TASK_UNKNOWN, 0, "there is no task '%.64s'", api_param(call));
	} else if (!lookup) {
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
	} else {
		value = STORE_INT(number);
		lookup->call = call;
		lookup->found = found;
		memcpy(lookup->id, api_param(call), strlen(api_param(call)) + 1);
		if (!store_query(api_daemon(call)->store, "SELECT json FROM task WHERE number = ?1",
				 &value, 1, lookup_answered, lookup, &err))
			return;
	}
	free(lookup);
	api_fail(call, &err);
}

static void answer_task(struct api_call *call, json_t *task)
{
	api_answer(call, 200, task);
}

void api_task_show(struct api_call *call)
{
	struct user_task *task = task_table_find(api_daemon(call)->tasks, api_param(call));

	if (task)
		api_answer(call, 200, user_task_json(task));
	else
		lookup_start(call, answer_task);
}

/* ---- list ---- */

struct list_query {
	struct api_call *call;
	json_t *live;
};

/* The ended ones of the store, then the live ones: each oldest first. */
static void list_answered(const json_t *rows, const struct err *err, void *user)
{
	struct list_query *query = user;
	json_t *list, *row;

	if (err->id != ERR_NONE) {
		json_decref(query->live);
		api_fail(query->call, err);
		free(query);
		return;
	}
	list = json_array();
	for (size_t i = json_array_size(rows); list && i-- > 0;) {
		row = json_loads(json_string_value(json_array_get(json_array_get(rows, i), 0)), 0,
				 NULL);
		if (row)
			json_array_append_new(list, row);
	}
	json_array_extend(list, query->live);
	json_decref(query->live);
	api_answer(query->call, 200, json_pack("{s:o}", "tasks", list));
	free(query);
}

/* Those that have not ended. */
static json_t *list_live(struct task_table *table)
{
	json_t *list = json_array();

	for (struct user_task *task = task_table_next(table, NULL); task && list;
	     task = task_table_next(table, task)) {
		json_t *object;

		if (user_task_state_ended(task->state))
			continue;
		object = user_task_json(task);
		if (!object || json_array_append_new(list, object)) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

void api_task_list(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	const char *limit_text = api_query(call, "limit");
	long limit = limit_text ? strtol(limit_text, NULL, 10) : LIST_DEFAULT;
	json_t *live = list_live(daemon->tasks);
	struct store_value value;
	struct list_query *query;
	struct err err = { 0 };

	if (!live || !api_query_flag(call, "all")) {
		api_answer(call, 200, live ? json_pack("{s:o}", "tasks", live) : NULL);
		return;
	}
	if (limit < 1 || limit > LIST_MAX) {
		json_decref(live);
		err_set(&err, ERR_BAD_FIELD, 0, "'limit' must be from 1 to %d", LIST_MAX);
		api_fail(call, &err);
		return;
	}
	query = calloc(1, sizeof(*query));
	value = STORE_INT(limit);
	if (query) {
		*query = (struct list_query){ .call = call, .live = live };
		/* Ended ones; the store's worker has been given their last form before this. */
		if (!store_query(daemon->store,
				 "SELECT json FROM task WHERE state IN "
				 "('completed', 'failed', 'cancelled') "
				 "ORDER BY number DESC LIMIT ?1",
				 &value, 1, list_answered, query, &err))
			return;
	} else {
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
	}
	free(query);
	json_decref(live);
	api_fail(call, &err);
}

/* ---- verbs ---- */

static void refuse_ended(struct api_call *call, json_t *task)
{
	struct err err = { 0 };

	err_set(&err, ERR_TASK_ENDED, 0, "%s is %s already", api_param(call),
		json_string_value(json_object_get(task, "state")));
	json_decref(task);
	api_fail(call, &err);
}

/*
 * A verb takes effect on another loop.  The answer waits until the task shows it, so that who
 * asks next sees it too; where a store hangs, not longer than VERB_WAIT.
 */
struct verb_call {
	struct api_call *call;
	struct task_follower follower;
	struct timer timer;
	enum user_task_state before;
};

/* NULL: the daemon stops, and has left it to the next. */
static struct user_task *verb_task(const struct verb_call *verb)
{
	return task_table_find(api_daemon(verb->call)->tasks, api_param(verb->call));
}

static void verb_answer(struct verb_call *verb)
{
	struct user_task *task = verb_task(verb);
	struct err err;

	task_table_unfollow(&verb->follower);
	timer_stop(&verb->timer);
	if (task) {
		api_answer(verb->call, 200, user_task_json(task));
	} else {
		err_set(&err, ERR_SHUTTING_DOWN, 0, "the daemon stops: %s is the next one's",
			api_param(verb->call));
		api_fail(verb->call, &err);
	}
	free(verb);
}

static void verb_woken(struct task_follower *follower)
{
	struct verb_call *verb = container_of(follower, struct verb_call, follower);
	const struct user_task *task = verb_task(verb);

	if (!task || task->state != verb->before)
		verb_answer(verb);
}

static void verb_waited(struct timer *timer)
{
	verb_answer(container_of(timer, struct verb_call, timer));
}

static void verb_accepted(struct api_call *call, struct user_task *task,
			  enum user_task_state before)
{
	struct daemon *daemon = api_daemon(call);
	struct verb_call *verb = task->state == before ? calloc(1, sizeof(*verb)) : NULL;

	if (!verb) {
		api_answer(call, 200, user_task_json(task));
		return;
	}
	verb->call = call;
	verb->before = before;
	verb->follower.woken = verb_woken;
	verb->follower.number = task->number;
	list_init(&verb->follower.node);
	task_table_follow(daemon->tasks, &verb->follower);
	timer_init(&verb->timer, daemon->loop, verb_waited);
	timer_start(&verb->timer, VERB_WAIT_NS);
}

static void task_verb(struct api_call *call, enum user_task_verb verb)
{
	struct user_task *task = task_table_find(api_daemon(call)->tasks, api_param(call));
	enum user_task_state before = task ? task->state : USER_TASK_QUEUED;
	struct err err = { 0 };

	if (judge_nothing(api_body(call), &err)) {
		api_fail(call, &err);
	} else if (!task) {
		lookup_start(call, refuse_ended);
	} else if (user_task_do(task, verb, &err)) {
		api_fail(call, &err);
	} else {
		verb_accepted(call, task, before);
	}
}

void api_task_pause(struct api_call *call)
{
	task_verb(call, TASK_PAUSE);
}

void api_task_resume(struct api_call *call)
{
	task_verb(call, TASK_RESUME);
}

void api_task_cancel(struct api_call *call)
{
	task_verb(call, TASK_CANCEL);
}

void api_task_complete(struct api_call *call)
{
	task_verb(call, TASK_COMPLETE);
}

void api_task_set(struct api_call *call)
{
	struct user_task *task = task_table_find(api_daemon(call)->tasks, api_param(call));
	struct task_set_request request;
	struct err err = { 0 };

	if (judge_task_set(api_body(call), &request, &err)) {
		api_fail(call, &err);
	} else if (!task) {
		lookup_start(call, refuse_ended);
	} else if (user_task_set(task, &request, &err)) {
		api_fail(call, &err);
	} else {
		api_answer(call, 200, user_task_json(task));
	}
}

/* ---- watch ---- */

struct watch_stream {
	struct api_stream base;
	struct task_follower follower;
	struct task_table *table;
	json_t *only;                   /* a task of the store: told once */
	bool over;
};

static json_t *watch_next(struct api_stream *base, const char **name)
{
	struct watch_stream *stream = container_of(base, struct watch_stream, base);
	struct user_task *task;
	json_t *only = stream->only;

	*name = "task";
	if (only) {
		stream->only = NULL;
		stream->over = true;
		return only;
	}
	if (stream->over)
		return NULL;
	task = task_table_next_changed(stream->table, &stream->follower);
	if (!task)
		return NULL;
	if (stream->follower.number && user_task_state_ended(task->state))
		stream->over = true;
	return user_task_json(task);
}

static bool watch_ended(struct api_stream *base)
{
	return container_of(base, struct watch_stream, base)->over;
}

static void watch_release(struct api_stream *base)
{
	struct watch_stream *stream = container_of(base, struct watch_stream, base);

	task_table_unfollow(&stream->follower);
	json_decref(stream->only);
	free(stream);
}

static void watch_woken(struct task_follower *follower)
{
	api_stream_wake(&container_of(follower, struct watch_stream, follower)->base);
}

static void stream_start(struct api_call *call, uint64_t number, json_t *only)
{
	struct watch_stream *stream = calloc(1, sizeof(*stream));
	struct task_table *table = api_daemon(call)->tasks;

	if (!stream) {
		json_decref(only);
		api_answer(call, 200, NULL);
		return;
	}
	stream->base.next = watch_next;
	stream->base.ended = watch_ended;
	stream->base.release = watch_release;
	stream->table = table;
	stream->only = only;
	stream->follower.woken = watch_woken;
	stream->follower.number = number;
	list_init(&stream->follower.node);
	task_table_follow(table, &stream->follower);
	api_answer_stream(call, &stream->base);
}

static void watch_stored(struct api_call *call, json_t *task)
{
	if (task)
		stream_start(call, 0, task);
	else
		api_answer(call, 200, NULL);
}

void api_task_watch(struct api_call *call)
{
	struct user_task *task = task_table_find(api_daemon(call)->tasks, api_param(call));

	if (task)
		stream_start(call, task->number, NULL);
	else
		lookup_start(call, watch_stored);
}

void api_task_watch_all(struct api_call *call)
{
	stream_start(call, 0, NULL);
}

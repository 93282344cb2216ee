/* SPDX-License-Identifier: Apache-2.0 */
/* user_task.c - one task: its states, its verbs, its JSON.  The table is in task_table.c. */
#include "tools/blkmirrord/user_task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/task_table_private.h"
#include "tools/common/wall.h"

/* ---- states ---- */

static const char *const state_names[USER_TASK_STATE_COUNT] = {
	"queued", "running", "held", "paused", "completed", "failed", "cancelled",
};

/* Row: from.  Column: to, in the order of the enum.  An ended task stays as it is. */
static const bool may_move[USER_TASK_STATE_COUNT][USER_TASK_STATE_COUNT] = {
	/*                         Q  R  H  P  C  F  X */
	[USER_TASK_QUEUED]    = { 0, 1, 0, 0, 0, 1, 1 },
	[USER_TASK_RUNNING]   = { 0, 0, 1, 1, 1, 1, 1 },
	[USER_TASK_HELD]      = { 0, 1, 0, 1, 1, 1, 1 },
	[USER_TASK_PAUSED]    = { 0, 1, 1, 0, 1, 1, 1 },
	[USER_TASK_COMPLETED] = { 0, 0, 0, 0, 0, 0, 0 },
	[USER_TASK_FAILED]    = { 0, 0, 0, 0, 0, 0, 0 },
	[USER_TASK_CANCELLED] = { 0, 0, 0, 0, 0, 0, 0 },
};

const char *user_task_state_name(enum user_task_state state)
{
	CHECK((unsigned)state < USER_TASK_STATE_COUNT);
	return state_names[state];
}

bool user_task_state_parse(const char *name, enum user_task_state *out)
{
	for (int state = 0; state < USER_TASK_STATE_COUNT; state++) {
		if (strcmp(name, state_names[state]) != 0)
			continue;
		*out = (enum user_task_state)state;
		return true;
	}
	return false;
}

bool user_task_state_ended(enum user_task_state state)
{
	return state == USER_TASK_COMPLETED || state == USER_TASK_FAILED ||
	       state == USER_TASK_CANCELLED;
}

bool user_task_may_move(enum user_task_state from, enum user_task_state to)
{
	CHECK((unsigned)from < USER_TASK_STATE_COUNT);
	CHECK((unsigned)to < USER_TASK_STATE_COUNT);
	return may_move[from][to];
}

bool user_task_id_parse(const char *id, uint64_t *number)
{
	unsigned long long value;
	char *end;

	if (id[0] != 't' || id[1] < '1' || id[1] > '9' || strlen(id) > 19)
		return false;
	value = strtoull(id + 1, &end, 10);
	if (*end)
		return false;
	*number = value;
	return true;
}

/* ---- moves ---- */

static void log_move(const struct user_task *task)
{
	const char *id = task->id;
	const char *state = user_task_state_name(task->state);

	if (task->state == USER_TASK_FAILED)
		log_error("task", "%s %s %s: failed: %s (%s)", id, task->ops->type, task->subject,
			  task->error.cause, err_name(task->error.id));
	else
		log_info("task", "%s %s %s: %s", id, task->ops->type, task->subject, state);
}

static json_t *event_data(const struct user_task *task)
{
	return json_pack("{s:s, s:s, s:o, s:s, s:s?, s:o?}", "id", task->id, "type",
			 task->ops->type, "subject", json_edge_text(task->subject), "state",
			 user_task_state_name(task->state), "phase", task->phase, "error",
			 task->error.id != ERR_NONE ? json_edge_err_object(&task->error) : NULL);
}

void user_task_move(struct user_task *task, enum user_task_state state)
{
	if (task->state == state)
		return;
	CHECK(user_task_may_move(task->state, state));
	task->state = state;
	if (state == USER_TASK_RUNNING && task->started_ms == 0)
		task->started_ms = wall_now_ms();
	if (user_task_state_ended(state))
		task->finished_ms = wall_now_ms();
	task->waiting_for[0] = '\0';
	log_move(task);
	events_emit(task->table->events, "task_state", event_data(task));
	user_task_changed(task);
	task_table_task_moved(task->table, task);
}

void user_task_changed(struct user_task *task)
{
	task_table_stamp(task->table, task);
}

void user_task_persist(struct user_task *task)
{
	task_table_persist(task->table, task);
}

void user_task_set_phase(struct user_task *task, const char *phase)
{
	if (task->phase == phase || (phase && task->phase && strcmp(phase, task->phase) == 0))
		return;
	task->phase = phase;
	events_emit(task->table->events, "task_phase", event_data(task));
	user_task_changed(task);
	task_table_persist(task->table, task);
}

void user_task_fail(struct user_task *task, const struct err *error)
{
	CHECK(error->id != ERR_NONE);
	task->error = *error;
	user_task_move(task, USER_TASK_FAILED);
}

/* ---- verbs ---- */

static int (*verb_function(const struct user_task *task, enum user_task_verb verb))(
	struct user_task *task, struct err *err)
{
	switch (verb) {
	case TASK_PAUSE:
		return task->ops->pause;
	case TASK_RESUME:
		return task->ops->resume;
	case TASK_CANCEL:
		return task->ops->cancel;
	default:
		return task->ops->complete;
	}
}

static const char *const verb_names[] = { "pause", "resume", "cancel", "complete" };

static bool verb_fits(enum user_task_state state, enum user_task_verb verb)
{
	switch (verb) {
	case TASK_PAUSE:
		return state == USER_TASK_RUNNING || state == USER_TASK_HELD;
	case TASK_RESUME:
		return state == USER_TASK_PAUSED;
	case TASK_COMPLETE:
		return state == USER_TASK_HELD || state == USER_TASK_RUNNING;
	default:
		return true;
	}
}

int user_task_do(struct user_task *task, enum user_task_verb verb, struct err *err)
{
	int (*function)(struct user_task *, struct err *) = verb_function(task, verb);

	if (user_task_state_ended(task->state))
		return err_set(err, ERR_TASK_ENDED, -EALREADY, "%s is %s already", task->id,
			       user_task_state_name(task->state));
	if (!verb_fits(task->state, verb))
		return err_set(err, ERR_TASK_STATE, -EBUSY, "cannot %s %s: it is %s",
			       verb_names[verb], task->id, user_task_state_name(task->state));
	if (task->state == USER_TASK_QUEUED) {
		/* Only cancel fits, and nothing has begun. */
		if (task->ops->dropped)
			task->ops->dropped(task);
		err_set(&task->error, ERR_TASK_CANCELLED, 0, "cancelled before it started");
		user_task_move(task, USER_TASK_CANCELLED);
		return 0;
	}
	if (!function)
		return err_set(err, ERR_NOT_SUPPORTED, -EOPNOTSUPP, "a task of type %s has no '%s'",
			       task->ops->type, verb_names[verb]);
	return function(task, err);
}

int user_task_set(struct user_task *task, const struct task_set_request *request, struct err *err)
{
	bool needs_kind = request->bandwidth_given || request->max_stun_given ||
			  request->mode_given || request->latency_budget_given;
	int rc;

	if (user_task_state_ended(task->state))
		return err_set(err, ERR_TASK_ENDED, -EALREADY, "%s is %s already", task->id,
			       user_task_state_name(task->state));
	if (needs_kind && !task->ops->set)
		return err_set(err, ERR_NOT_SUPPORTED, -EOPNOTSUPP,
			       "a task of type %s has neither bandwidth, stun nor mode",
			       task->ops->type);
	rc = needs_kind ? task->ops->set(task, request, err) : 0;
	if (rc)
		return rc;
	if (request->weight_given)
		task->weight = (uint32_t)request->weight;
	if (request->priority_given)
		task->priority = (enum task_priority)request->priority_choice;
	user_task_changed(task);
	task_table_persist(task->table, task);
	if (request->priority_given)
		task_table_pump(task->table);
	return 0;
}

/* ---- JSON ---- */

static json_t *wall_json(int64_t wall_ms)
{
	char text[WALL_TEXT_BYTES];

	if (wall_ms == 0)
		return json_null();
	wall_format(wall_ms, text);
	return json_string(text);
}

static json_t *fixed_parts(void)
{
	return json_pack(
		"{s:{s:i,s:i,s:i,s:i,s:i}, s:[], s:n, s:[], s:[], s:n,"
		" s:{s:i,s:i,s:i,s:i,s:i,s:i}, s:{s:n},"
		" s:{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:n}}",
		"progress", "total_bytes", 0, "done_bytes", 0, "remaining_bytes", 0,
		"rate_bytes_per_s", 0, "eta_s", 0, "disks", "parent", "children", "faults",
		"degraded", "guest", "iops", 0, "p50_us", 0, "p99_us", 0, "max_us", 0,
		"iops_before", 0, "p99_before_us", 0, "switchover", "stun_us", "memory", "rounds", 0,
		"sent_bytes", 0, "wire_bytes", 0, "zero_pages", 0, "unchanged_pages", 0,
		"dirty_bytes_per_s", 0, "throttle_percent", 0, "blackout_us");
}

json_t *user_task_json(const struct user_task *task)
{
	json_t *object = json_pack(
		"{s:s, s:s, s:o, s:s, s:s?, s:s?, s:s, s:i, s:o, s:o, s:o}", "id", task->id, "type",
		task->ops->type, "subject", json_edge_text(task->subject), "state",
		user_task_state_name(task->state), "phase", task->phase, "waiting_for",
		task->waiting_for[0] ? task->waiting_for : NULL, "priority",
		priority_choices[task->priority], "weight", (int)task->weight, "created",
		wall_json(task->created_ms), "started", wall_json(task->started_ms), "finished",
		wall_json(task->finished_ms));
	json_t *fixed = fixed_parts();
	json_t *error = task->error.id != ERR_NONE ? json_edge_err_object(&task->error)
						   : json_null();

	if (!object || !fixed || !error || json_object_update_missing(object, fixed) ||
	    json_object_set(object, "error", error) ||
	    (task->result && json_object_set(object, "result", task->result)) ||
	    (task->ops->describe && !task->ops->describe(task, object))) {
		json_decref(object);
		object = NULL;
	}
	json_decref(fixed);
	json_decref(error);
	return object;
}

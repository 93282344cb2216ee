/* SPDX-License-Identifier: Apache-2.0 */
/*
 * user_task.h - a task as the user knows it: "t12", its state, its verbs, its history.
 * (struct task is the loop's.)
 *
 *     QUEUED -> RUNNING <-> HELD, PAUSED      any of these -> COMPLETED, FAILED, CANCELLED
 *
 * The table admits queued tasks by budget (admission.h), tells followers of every change,
 * and keeps the history in the store.  What a task does is its kind's (user_task_ops).
 *
 * Ids are monotonic over restarts.  A task that is found unfinished at start goes on under its
 * id where its kind can (ops->request(), task_table_restore()); else it was interrupted: it is
 * FAILED with ERR_TASK_INTERRUPTED; what its move left is settled by recovering.h.
 *
 * Bounds: USER_TASKS_LIVE_MAX live tasks; the last USER_TASKS_RECENT ended ones stay in
 * memory for those who watch, older ones are in the store, pruned to a number.
 *
 * Threading: main loop.
 */
#ifndef BM_USER_TASK_H
#define BM_USER_TASK_H

#include <jansson.h>

#include "tools/blkmirrord/admission.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/events.h"
#include "tools/blkmirrord/store.h"

#define USER_TASKS_LIVE_MAX 1024u
#define USER_TASKS_RECENT 64u
#define USER_TASK_ID_BYTES 24

enum user_task_state {
	USER_TASK_QUEUED, USER_TASK_RUNNING, USER_TASK_HELD, USER_TASK_PAUSED,
	USER_TASK_COMPLETED, USER_TASK_FAILED, USER_TASK_CANCELLED,
	USER_TASK_STATE_COUNT,
};
const char *user_task_state_name(enum user_task_state state);
bool user_task_state_ended(enum user_task_state state);
/* False: no such name. */
bool user_task_state_parse(const char *name, enum user_task_state *out);
/* May a task go from one state to the other?  Total over all pairs. */
bool user_task_may_move(enum user_task_state from, enum user_task_state to);

enum task_priority { TASK_PRIORITY_LOW, TASK_PRIORITY_NORMAL, TASK_PRIORITY_HIGH };

struct user_task;
struct task_table;

/* What a kind of task does.  The verbs but start() may be NULL: refused for this kind. */
struct user_task_ops {
	const char *type;               /* "relocate", "import" ... */
	/* Begin; reports by user_task_move() and user_task_fail(), at once or later. */
	void (*start)(struct user_task *task);
	/* Cancelled before it started: let go what was held for it.  May be NULL. */
	void (*dropped)(struct user_task *task);
	/* 0, or -errno with *err; the outcome shows in a later move. */
	int (*pause)(struct user_task *task, struct err *err);
	int (*resume)(struct user_task *task, struct err *err);
	int (*cancel)(struct user_task *task, struct err *err);
	int (*complete)(struct user_task *task, struct err *err);
	int (*set)(struct user_task *task, const struct task_set_request *request, struct err *err);
	/* Fill in "progress", "disks" and so on; false: out of memory. */
	bool (*describe)(const struct user_task *task, json_t *object);
	/*
	 * What was asked, to be restored from after a restart; kept in the store while the task
	 * lives.  NULL: out of memory.  May be missing: interrupted by a restart.
	 */
	json_t *(*request)(const struct user_task *task);
	/*
	 * The daemon stops: leave it so that the next one restores it.  Asked again and again; true:
	 * nothing is under way any more.  May be missing: cancelled.
	 */
	bool (*park)(struct user_task *task);
	/* The task has left the table: free it. */
	void (*release)(struct user_task *task);
};

struct user_task {
	const struct user_task_ops *ops;
	char subject[DS_NAME_BYTES + DS_PATH_BYTES];
	enum task_priority priority;
	uint32_t weight;
	struct admission_claim claim;

	/* Set by the kind while it runs. */
	const char *phase;              /* a literal, or NULL */
	json_t *result;                 /* of a kind that answers something (verify); owned */

	/* The table's. */
	struct task_table *table;
	uint64_t number;
	char id[USER_TASK_ID_BYTES];
	enum user_task_state state;
	char waiting_for[DS_NAME_BYTES + 16];
	int64_t created_ms, started_ms, finished_ms;    /* wall clock; 0: not yet */
	struct err error;
	uint64_t stamp;                 /* of its last change */
	struct list node;

	/*
	 * Set by who has added it, and not later: its number is durable; or (err) it could not be
	 * made so, and the task has failed.  Runs once, later.  May be NULL.
	 */
	void (*stored)(struct user_task *task, const struct err *err, void *user);
	void *stored_user;
};

struct task_table_options {
	struct loop *loop;
	struct store *store;            /* NULL in tests: no history */
	struct events *events;
	uint32_t host_budget;
	uint32_t (*datastore_budget)(const char *name, void *user);
	void *user;
	uint32_t kept;
};

/* Reads the store: blocks, at start.  Interrupted tasks of before are failed here, or set aside. */
MUST_CHECK int task_table_new(const struct task_table_options *options, struct task_table **out,
			      struct err *err);
/* No task may be live.  NULL is harmless. */
void task_table_free(struct task_table *table);
/* On reload. */
void task_table_set_host_budget(struct task_table *table, uint32_t host_budget);
/* From now on nothing starts (the daemon stops). */
void task_table_close_admission(struct task_table *table);

/*
 * Give a prepared task (ops, subject, priority, claim set) its id and queue it; it may start
 * once its id is durable, never from inside.  Takes it on success.  ERR_TASK_QUEUE_FULL, or
 * what store_exec() says.
 */
MUST_CHECK int task_table_add(struct task_table *table, struct user_task *task, struct err *err);

/* ---- over a restart ---- */

/*
 * Unfinished tasks of before that have a request: an array of {"number","state","type","task"
 * (as last stored), "request"}.  Gives it, once.  Each is to be restored or interrupted.
 */
json_t *task_table_take_unfinished(struct task_table *table);
/*
 * Give a prepared task its number and state of before; takes it.  ops, subject, priority, claim as
 * for task_table_add().  Queued ones do not start before task_table_open_admission().
 */
void task_table_restore(struct task_table *table, struct user_task *task, const json_t *unfinished,
			enum user_task_state state);
/* It cannot be restored: FAILED, in the store. */
MUST_CHECK int task_table_interrupt(struct task_table *table, const json_t *unfinished,
				    const struct err *why, struct err *err);
/* The daemon has its disks again: queued tasks may start. */
void task_table_open_admission(struct task_table *table);
/*
 * The daemon stops: what can be restored is left standing, the rest is cancelled.  False: not
 * yet, ask again.
 */
bool task_table_park(struct task_table *table);

struct user_task *task_table_find(struct task_table *table, const char *id);
/* Walk: live ones first, by number, then the recent; NULL gives the first. */
struct user_task *task_table_next(struct task_table *table, struct user_task *task);
uint32_t task_table_live_count(const struct task_table *table);
uint32_t task_table_count(const struct task_table *table, const char *type,
			  enum user_task_state state);

/* "t12" -> 12; false for anything else. */
bool user_task_id_parse(const char *id, uint64_t *number);

/* As INTERFACE describes a task; NULL: out of memory. */
json_t *user_task_json(const struct user_task *task);

/* For kinds: the state, or only numbers, have changed. */
void user_task_move(struct user_task *task, enum user_task_state state);
void user_task_changed(struct user_task *task);
/* Its request has changed: to be stored. */
void user_task_persist(struct user_task *task);
void user_task_set_phase(struct user_task *task, const char *phase);
/* Ends it in FAILED with that error. */
void user_task_fail(struct user_task *task, const struct err *error);

/* For operators: judged by state, then handed to the kind. */
enum user_task_verb { TASK_PAUSE, TASK_RESUME, TASK_CANCEL, TASK_COMPLETE };
MUST_CHECK int user_task_do(struct user_task *task, enum user_task_verb verb, struct err *err);
MUST_CHECK int user_task_set(struct user_task *task, const struct task_set_request *request,
			     struct err *err);

/* ---- followers ---- */

struct task_follower {
	void (*woken)(struct task_follower *follower);
	uint64_t number;                /* one task's, or 0: all */
	uint64_t seen_stamp;
	struct list node;
};
void task_table_follow(struct task_table *table, struct task_follower *follower);
void task_table_unfollow(struct task_follower *follower);
/* The least recently changed task that the follower has not seen in its present form, or NULL. */
struct user_task *task_table_next_changed(struct task_table *table,
					  struct task_follower *follower);

/* Failures by reason since the start, for the metrics; walks err_at(). */
uint64_t task_table_failures(const struct task_table *table, enum err_id id);

#endif

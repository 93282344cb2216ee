/* SPDX-License-Identifier: Apache-2.0 */
/* task_table_private.h - what user_task.c and task_table.c share, and nobody else uses. */
#ifndef BM_TASK_TABLE_PRIVATE_H
#define BM_TASK_TABLE_PRIVATE_H

#include "tools/blkmirrord/user_task.h"

struct task_table {
	struct loop *loop;
	struct store *store;
	struct events *events;
	uint32_t host_budget, kept;
	uint32_t (*datastore_budget)(const char *name, void *user);
	void *user;
	bool closed;
	bool waiting;                   /* restored ones wait for the daemon's disks */
	json_t *unfinished;             /* task_table_take_unfinished() */
	uint64_t last_number;
	uint64_t stored_number;         /* tasks up to here are durable; the others may not start */
	uint64_t last_stamp;
	struct list live;               /* by number */
	struct list recent;             /* ended, oldest first */
	uint32_t live_count, recent_count;
	struct list followers;
	struct task pump;               /* admission runs from here, never inside a verb */
	bool pump_posted;
	uint64_t *failures;             /* by index of err_at() */
	unsigned failure_kinds;
};

void task_table_stamp(struct task_table *table, struct user_task *task);
void task_table_task_moved(struct task_table *table, struct user_task *task);
void task_table_persist(struct task_table *table, struct user_task *task);
/* Look at the queue again, from a posted task. */
void task_table_pump(struct task_table *table);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_restore.h - relocations of a daemon before go on as the tasks that they were.
 *
 *   found at start                          becomes
 *   queued, or in check or reserve with     queued again: nothing was copied
 *   no record
 *   a record RESERVED with journals         resumed (vmotion/relocate_resume.c); paused stays paused
 *   the same, its source away               paused, with the reason; tried again when a datastore
 *                                           comes up, and by 'task resume'
 *   a record COMMITTED                      finished by recovery; completed
 *   rolled back by recovery, or no record   failed: interrupted
 *
 * Order: tasks are restored before the datastores are open; then recovery finds the records and
 * asks for each RESERVED one whether its task will go on with it.
 *
 * Threading: main loop.
 */
#ifndef BM_TASK_RESTORE_H
#define BM_TASK_RESTORE_H

#include "tools/blkmirrord/daemon.h"
#include "vmotion/move_record.h"
#include "vmotion/relocate_recover.h"

/* After the inventory is loaded, before the loop runs. */
MUST_CHECK int tasks_restore(struct daemon *daemon, struct err *err);

/* Recovery's questions and news (relocate_recover.h). */
bool task_restore_resume(const struct move_record_info *move, struct daemon *daemon);
void task_restore_ended(const struct move_record_info *move, enum recover_side side,
			struct daemon *daemon);
/* The inventory's: a datastore has been tried, for whom waits for it. */
void task_restore_tried(struct ds_entry *entry, void *daemon);
/* Recovery has looked through all records. */
void task_restore_looked(struct daemon *daemon);

#endif

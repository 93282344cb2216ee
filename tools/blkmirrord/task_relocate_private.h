/* SPDX-License-Identifier: Apache-2.0 */
/* task_relocate_private.h - a relocation as a task, and as one that is restored. */
#ifndef BM_TASK_RELOCATE_PRIVATE_H
#define BM_TASK_RELOCATE_PRIVATE_H

#include "tools/blkmirrord/task_kinds.h"

struct relocate_task {
	struct user_task base;
	struct daemon *daemon;
	struct disk_relocate_request request;   /* its strings are not used here */
	struct relocate_place *places;          /* one per disk; held from queued to ended */
	bool holding;                           /* them */
	uint32_t place_count;                   /* 0: of a machine, only its VMX moves */
	struct vm_entry *vm;                    /* whose move it is; or NULL: of a disk */
	bool storing;                           /* the plan; nothing else yet */
	bool settling;                          /* the disks have moved; the VMX is being told */
	enum user_task_state outcome;           /* when that is done */
	struct relocation *relocation;          /* while it runs */
	struct relocate_status *status;         /* while it runs */
	json_t *faults;
	json_t *described;                      /* as last stored, until it goes on; or once ended */

	/* One of a daemon before (task_restore.c). */
	bool waits;                     /* RUNNING, HELD or PAUSED, and its move not found yet */
	bool roll_back;                 /* it is not gone on with */
	bool start_paused;              /* as it was */
	bool paused_for_source;         /* by nobody's word: goes on as soon as it can */
	bool told_resumed;
	bool resume_wanted;             /* when its targets' datastores have been tried */
	struct attachment *attaching[MOVER_DISKS_MAX];  /* taken for the move, not answered yet */
};

static inline struct relocate_task *relocate_task_of(const struct user_task *task)
{
	return container_of(task, struct relocate_task, base);
}

extern const struct user_task_ops relocate_ops;

/* The relocation has told something. */
void relocate_changed(struct relocation *relocation, void *user);
int relocate_switched(struct relocation *relocation, void *user);
/* Begin (again) with nothing of before.  0, or -errno with *err and the task is as it was. */
MUST_CHECK int relocate_begin(struct relocate_task *relocate, struct err *err);
/* The least of what is asked and what the datastores allow. */
uint64_t relocate_bandwidth(uint64_t asked, const struct relocate_place *places,
			    uint32_t place_count);
/* What it asks of the budgets. */
void relocate_claim(struct relocate_task *relocate);
/* It holds no datastore any more. */
void relocate_let_go(struct relocate_task *relocate);
/*
 * A machine's task whose disks are where they belong: the rest (vms_move.h), and then it ends.
 * The relocation is gone, and nothing is held.
 */
void relocate_settle(struct relocate_task *relocate, enum user_task_state outcome);
/* Attachments that a resumed move took and did not come to are the inventory's again. */
void relocate_give_back(struct relocate_task *relocate, const struct err *why);
/* The move of a machine has ended with its disks where they were. */
void relocate_drop_move(struct relocate_task *relocate);
/* The stored form of the request.  NULL: out of memory. */
json_t *relocate_request_json(const struct user_task *task);

/* task_restore.c: it could not be gone on with, and nothing was touched. */
void relocate_not_resumed(struct relocate_task *relocate, const struct err *why);
/* The verbs of a task that waits for its move. */
int relocate_waiting_resume(struct relocate_task *relocate, struct err *err);
int relocate_waiting_cancel(struct relocate_task *relocate, struct err *err);
/* Its target's datastore has been tried, and somebody waits for that. */
void relocate_go_on_if_wanted(struct relocate_task *relocate);
/* Tell, once, what a resumed move begins with. */
void relocate_tell_resumed(struct relocate_task *relocate);

#endif

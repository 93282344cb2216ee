/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vms_move.h - what a relocation means to a machine: its VMX, its small files, its registration.
 *
 * The disks' own move (vmotion/relocate.h) has its record, which is the commit point for all of
 * them (R-J4).  Around it, in this order:
 *
 *   step                                                      a crash after it; the next daemon
 *   1 plan       row in the store: what is to go where        finds no record: drops the row; or
 *                                                             goes on with the disks
 *   2 disks      the record says COMMITTED: all are targets   recovery marks the row as 3 does, before
 *                                                             the record goes
 *   3 switched   attachments, then the row: SWITCHED          does 4
 *   4 rewrite    the VMX where it lies names the targets      does 4 again: it changes nothing
 *   5 copy       small files, memory image, then the VMX, to  does 4 and 5 again: what is there is
 *                the configuration's new datastore            ours, by its bytes or the uuid
 *   6 settle     machine's place and row SETTLED, at once     does 7
 *   7 clear      the old VMX, files and image deleted, each   does 7 again: by contents, never by
 *                only while it holds what was copied          name alone (R-J5)
 *   8 forget     the row
 *
 * So there is always one VMX that is registered and names the disks that count; only
 * between 3 and 4 it is behind, and then a start does 4 first.  Where 5 or 6 fails the
 * configuration stays: the machine starts from where it was, with its disks where they are.
 *
 * From the task's first moment to the last the machine is not unregistered, and not started when it
 * is off.  Stop and console stay possible throughout; suspend and resume until step 3.
 *
 * Threading: main loop.
 */
#ifndef BM_VMS_MOVE_H
#define BM_VMS_MOVE_H

#include <jansson.h>

#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/user_task.h"
#include "vmotion/vm_folder.h"

enum vm_move_state { VM_MOVE_PLANNED, VM_MOVE_SWITCHED, VM_MOVE_SETTLED };

struct vm_move {
	char task[USER_TASK_ID_BYTES];  /* "" until it has one */
	enum vm_move_state state;
	bool stored;                    /* the row is there */
	bool owed;                      /* 4 is to be done by the next start; no task will */
	bool keep_source;
	char config_from[DS_NAME_BYTES], config_to[DS_NAME_BYTES];      /* the same: it stays */
	uint32_t disk_count;            /* of those that move; may be 0 */
	struct vm_move_disk *disks;
};

/* NULL: out of memory, or (read) not what vm_move_json() has made.  Gives. */
json_t *vm_move_json(const struct vm_move *move);
struct vm_move *vm_move_read(const json_t *json);
void vm_move_free(struct vm_move *move);

/*
 * What the request comes to, with the VMX as it is: judged, nothing is changed.  planned() gets the
 * plan (gives; to vms_move_take() or vm_move_free()) and warnings, or NULL and *err: ERR_BUSY,
 * ERR_VM_MOVING, ERR_BAD_FIELD (no such drive), ERR_MOVE_SAME, ERR_DS_UNKNOWN, ERR_DISK_EXISTS (a
 * VMX is there), ERR_NOT_SUPPORTED, or what is wrong with the VMX.  The request's strings are
 * borrowed until then.
 */
void vms_move_plan(struct vm_entry *entry, const struct vm_relocate_request *request,
		   void (*planned)(struct vm_entry *entry, struct vm_move *move,
				   const struct vm_findings *warnings, const struct err *err,
				   void *user),
		   void *user);

/* The machine is about to be moved: takes the plan.  ERR_VM_MOVING. */
MUST_CHECK int vms_move_take(struct vm_entry *entry, struct vm_move *move, struct err *err);
/* 1; stored() later.  0, or -errno with *err and it does not run. */
MUST_CHECK int vms_move_store(struct vm_entry *entry, const char *task_id,
			      void (*stored)(int rc, const struct err *err, void *user),
			      void *user, struct err *err);
/* 3.  Blocks for one write.  0, or -errno: the record must stay. */
MUST_CHECK int vms_move_switched(struct vm_entry *entry);
/* The same for a move that recovery has found committed, by its record's id. */
MUST_CHECK int vms_move_committed(struct vms *vms, const char *move_id);
/*
 * 4 to 8.  done(): NULL; or *err: 4 failed, and is done when the machine is started; or the
 * configuration had to stay.  The move is over for the machine, either way.
 */
void vms_move_settle(struct vm_entry *entry, void (*done)(const struct err *err, void *user),
		     void *user);
/* It will not be, or has been undone: nothing but the row is to be forgotten. */
void vms_move_drop(struct vm_entry *entry);
/* The machine is free for something else now: go on with 4 to 8, if that waits. */
void vms_move_poke(struct vm_entry *entry);
/* The daemon stops: what has not begun is the next one's.  True: nothing is under way. */
bool vms_move_park(struct vm_entry *entry);
/* The machine whose move is that task's; NULL: none. */
struct vm_entry *vms_move_find(struct vms *vms, const char *task_id);
/* Recovery has looked: moves of no task that is alive.  Harmless when repeated. */
void vms_move_sweep(struct vms *vms, bool (*is_alive)(const char *task_id, void *user),
		    void *user);

/* For vms: is this verb to be refused?  0 or ERR_VM_MOVING. */
enum vms_verb { VMS_START, VMS_RESUME, VMS_SUSPEND, VMS_UNREGISTER };
MUST_CHECK int vms_move_judge(const struct vm_entry *entry, enum vms_verb verb, struct err *err);
/* [worker] 4, where it is owed.  Nothing else may change entry->move meanwhile. */
MUST_CHECK int vms_move_rewrite_run(struct datastore *datastore, const struct vm_entry *entry,
				    struct err *err);
/* Its disks stay attached, whatever it does. */
bool vms_move_holds(const struct vm_entry *entry);
/* Before the loop runs: the rows. */
MUST_CHECK int vms_move_load(struct vms *vms, struct err *err);

#endif

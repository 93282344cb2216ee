/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_kinds.h - the kinds of tasks: what POST makes of a judged request.
 *
 * Each function prepares a task and queues it.  0 and *out (the table's), or -errno with *err
 * and nothing has changed.
 */
#ifndef BM_TASK_KINDS_H
#define BM_TASK_KINDS_H

#include "tools/blkmirrord/daemon.h"
#include "tools/blkmirrord/vms_move.h"

/* Units of admission.h, as on vSphere. */
#define RELOCATE_HOST_UNITS 4u
#define RELOCATE_DATASTORE_UNITS 16u
#define BULK_HOST_UNITS 2u
#define BULK_DATASTORE_UNITS 8u

/* Source and target of one disk's relocation, found in the inventory. */
struct relocate_place {
	struct ds_entry *source, *target;
	char source_path[DS_PATH_BYTES], target_path[DS_PATH_BYTES];
	char name[16];                  /* the machine's: "scsi0:0"; or "" */
	enum provision provision;
	struct disk *disk;              /* attached now, or NULL */
};
/* ERR_DS_UNKNOWN, ERR_DS_UNREACHABLE, ERR_DISK_UNKNOWN (an id), ERR_DISK_NOT_ATTACHED. */
MUST_CHECK int relocate_find_place(struct daemon *daemon,
				   const struct disk_relocate_request *request,
				   struct relocate_place *out, struct err *err);
/* The same for a disk of a machine's move. */
MUST_CHECK int relocate_find_move(struct daemon *daemon, const struct vm_move_disk *disk,
				  struct relocate_place *out, struct err *err);
/* The relocate_spec of a request; disk_specs, one per place, are filled and pointed to; all borrow. */
void relocate_fill_spec(struct daemon *daemon, const struct disk_relocate_request *request,
			const struct relocate_place *places, uint32_t place_count,
			struct relocate_disk_spec *disk_specs, struct relocate_spec *spec);
/* Hold, or let go, the datastores of places. */
void relocate_hold(const struct relocate_place *places, uint32_t place_count);
void relocate_unhold(const struct relocate_place *places, uint32_t place_count);

MUST_CHECK int task_relocate_add(struct daemon *daemon,
				 const struct disk_relocate_request *request,
				 struct user_task **out, struct err *err);
/* Takes move on success: it is the machine's from then on. */
MUST_CHECK int task_vm_relocate_add(struct daemon *daemon, struct vm_entry *vm,
				    struct vm_move *move,
				    const struct disk_relocate_request *request,
				    struct user_task **out, struct err *err);
MUST_CHECK int task_import_add(struct daemon *daemon, const struct disk_copy_request *request,
			       struct user_task **out, struct err *err);
MUST_CHECK int task_export_add(struct daemon *daemon, const struct disk_copy_request *request,
			       struct user_task **out, struct err *err);
MUST_CHECK int task_verify_add(struct daemon *daemon, const struct disk_verify_request *request,
			       struct user_task **out, struct err *err);

#endif

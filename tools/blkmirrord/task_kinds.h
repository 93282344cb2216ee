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

/* Units of admission.h, as on vSphere. */
#define RELOCATE_HOST_UNITS 4u
#define RELOCATE_DATASTORE_UNITS 16u
#define BULK_HOST_UNITS 2u
#define BULK_DATASTORE_UNITS 8u

/* Source and target of a relocation, found in the inventory. */
struct relocate_place {
	struct ds_entry *source, *target;
	char source_path[DS_PATH_BYTES], target_path[DS_PATH_BYTES];
	struct disk *disk;              /* attached now, or NULL */
};
/* ERR_DS_UNKNOWN, ERR_DS_UNREACHABLE, ERR_DISK_UNKNOWN (an id), ERR_DISK_NOT_ATTACHED. */
MUST_CHECK int relocate_find_place(struct daemon *daemon,
				   const struct disk_relocate_request *request,
				   struct relocate_place *out, struct err *err);
/* The relocate_spec of a request; *disk_spec is filled and pointed to; both borrow. */
void relocate_fill_spec(struct daemon *daemon, const struct disk_relocate_request *request,
			const struct relocate_place *place, struct relocate_disk_spec *disk_spec,
			struct relocate_spec *spec);

MUST_CHECK int task_relocate_add(struct daemon *daemon,
				 const struct disk_relocate_request *request,
				 struct user_task **out, struct err *err);
MUST_CHECK int task_import_add(struct daemon *daemon, const struct disk_copy_request *request,
			       struct user_task **out, struct err *err);
MUST_CHECK int task_export_add(struct daemon *daemon, const struct disk_copy_request *request,
			       struct user_task **out, struct err *err);
MUST_CHECK int task_verify_add(struct daemon *daemon, const struct disk_verify_request *request,
			       struct user_task **out, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* vms_private.h - what the files of vms share. */
#ifndef BM_VMS_PRIVATE_H
#define BM_VMS_PRIVATE_H

#include "tools/blkmirrord/ds_job.h"
#include "tools/blkmirrord/vms.h"
#include "tools/blkmirrord/vms_move.h"
#include "vmotion/vm_prepare.h"

struct release_waiter {
	void (*released)(struct release_waiter *waiter);
	struct list node;
};

struct vms {
	struct vms_options options;
	struct vm_host host;
	struct vm_setup setup;
	struct worker *worker;
	struct list entries;
	uint32_t count;
	uint64_t last_number;
	uint32_t jobs;                  /* hooks and statements on their way */
	bool stopping;
	struct timer adopt_timer;
};

/* One operation on a machine, from the API's question to its answer. */
struct vm_op {
	struct ds_job base;
	struct vms *vms;
	struct vm_entry *entry;         /* NULL: none yet (register, create) */
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
	struct vmx *vmx;
	struct vm_config *config;
	struct vm_findings findings;
	struct err err;
	vms_done *done;
	void *user;
	void (*then)(struct vm_op *op); /* on the main loop, after the job */

	/* start */
	bool only_resume;
	int image_fd;
	uint32_t drive;                 /* the next to be attached */
	struct ds_entry *ds_entry;      /* held while that one is */
	struct qemu_place places[VM_DRIVES_MAX];
	char sockets[VM_DRIVES_MAX][DISK_SOCKET_BYTES];
	char disk_ids[VM_DRIVES_MAX][DISK_ID_BYTES];
	struct release_waiter waiter;   /* answers when its disks are let go */
	/* create */
	struct vms_create create;
	char *words[6];                 /* copies of its strings; owned */
};

/* vms.c */
struct vm_op *vm_op_new(struct vms *vms, struct vm_entry *entry, vms_done *done, void *user);
/* Answers and frees. */
void vm_op_end(struct vm_op *op, const struct err *err);
/* Run work() on the datastore's worker, then then(); ends the op when it cannot or fails. */
void vm_op_run(struct vm_op *op, void (*work)(struct ds_job *job),
	       void (*then)(struct vm_op *op));
/* [worker] Read and judge the VMX. */
int vm_op_load(struct vm_op *op);
struct vm_entry *vm_entry_new(struct vms *vms, const char *id);
void vm_entry_free(struct vm_entry *entry);

/* vms_disks.c */
void vm_op_attach(struct vm_op *op, void (*then)(struct vm_op *op));
/* Detach all of its disks; then() runs when none is left. */
void vm_entry_release(struct vm_entry *entry, struct release_waiter *waiter);

/* vms_move.c: the row is gone, or will be. */
void vm_move_over(struct vm_entry *entry);

/* vms_hooks.c */
extern const struct vm_hooks vms_hooks;
/* [worker] "web01/web01.vmx" -> "web01/web01.blkmirror-vmss" */
void vm_image_path(const struct vm_entry *entry, char out[DS_PATH_BYTES]);
int vm_image_forget(struct datastore *datastore, const char *vmx_path, struct err *err);

#endif

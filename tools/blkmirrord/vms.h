/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vms.h - the machines that are registered, over restarts.
 *
 * A machine's disks are attached when it starts (ids VM-BUSn-m, sockets in RUN-DIR/vms/VM), stay so
 * while it is suspended, and are detached when it is off.  The VMX is read anew at each start.
 *
 * One operation at a time on a machine (but a stop may be forced): others are refused, ERR_BUSY.
 *
 * Threading: main loop.
 */
#ifndef BM_VMS_H
#define BM_VMS_H

#include "tools/blkmirrord/inventory.h"
#include "tools/blkmirrord/vm_host.h"
#include "vmotion/vm.h"

#define VMS_MAX 1024u
#define VMS_CREATE_DISKS 8

struct vms;
struct vm_move;
struct vm_settle;

struct vm_entry {
	char id[VM_ID_BYTES];           /* "vm1" */
	char name[VM_NAME_BYTES];
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
	struct vm *vm;
	struct err error;               /* why it ended, or is not what it should be */
	struct list node;

	struct vms *vms;                /* private from here */
	struct vm_record record;        /* as stored */
	bool adopted;                   /* the record has been looked at */
	struct vm_op *op;               /* the operation under way */
	int image_fd;                   /* of a suspend: to be made durable */
	char image_path[DS_PATH_BYTES];
	bool releasing;                 /* its disks are being detached */
	struct vm_move *move;           /* being relocated (vms_move.h); or NULL */
	struct vm_settle *settle;       /* its end, wanted or under way */
	struct list release_waiters;
};

struct vms_options {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct inventory *inventory;
	struct disk_service *disks;
	const struct daemon_config *config;
};

/* Reads the store and asks QEMU: blocks, before the loop runs and before disks are attached. */
MUST_CHECK int vms_new(const struct vms_options *options, struct vms **out, struct err *err);
/* Running machines go on.  NULL is harmless. */
void vms_free(struct vms *vms);
/* Look for the QEMUs of before: once the disks have been tried.  Harmless when repeated. */
void vms_adopt(struct vms *vms);
/* Begin nothing new. */
void vms_stop(struct vms *vms);
bool vms_is_busy(const struct vms *vms);

/* By id, or by a name that only one has.  ERR_VM_UNKNOWN, ERR_VM_EXISTS (several). */
struct vm_entry *vms_find(struct vms *vms, const char *text, struct err *err);
struct vm_entry *vms_next(struct vms *vms, struct vm_entry *entry);
/* The machine that has attached the disk of that id and is not off; NULL: none. */
struct vm_entry *vms_owner(struct vms *vms, const char *disk_id);
/* The attachments in which its disks are. */
struct inventory *vms_inventory(const struct vms *vms);
/* "off" ... */
const char *vms_state_name(const struct vm_entry *entry);
void vms_console_path(const struct vm_entry *entry, char out[108]);
void vms_log_path(const struct vm_entry *entry, char out[PATH_MAX]);

/*
 * err NULL: done.  config and findings (may be NULL) of the VMX, borrowed.  entry is NULL after
 * vms_read() and vms_unregister(), and where there never was one.
 */
typedef void vms_done(struct vm_entry *entry, const struct vm_config *config,
		      const struct vm_findings *findings, const struct err *err, void *user);

void vms_register(struct vms *vms, const char *datastore, const char *path, vms_done *done,
		  void *user);
void vms_unregister(struct vm_entry *entry, vms_done *done, void *user);
/* Read the VMX and judge it, for show. */
void vms_read(struct vm_entry *entry, vms_done *done, void *user);
void vms_start(struct vm_entry *entry, bool only_resume, vms_done *done, void *user);
void vms_suspend(struct vm_entry *entry, vms_done *done, void *user);
/* force on a suspended machine throws its image away. */
void vms_halt(struct vm_entry *entry, bool force, uint64_t timeout_ns, vms_done *done,
	      void *user);

struct vms_create {
	const char *name, *datastore;
	uint64_t memory_bytes;
	uint32_t cpu_count;
	uint64_t disk_bytes[VMS_CREATE_DISKS];
	uint32_t disk_count;
	const char *network;            /* or NULL */
	const char *controller;         /* scsi0.virtualDev; NULL: virtio */
	const char *kernel, *initrd, *append;   /* or NULL */
};
/* NAME/NAME.vmx with disks NAME/NAME.vmdk, NAME/NAME_1.vmdk ...; registers it. */
void vms_create(struct vms *vms, const struct vms_create *create, vms_done *done, void *user);

#endif

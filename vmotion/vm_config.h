/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_config.h - what a VMX file means: the documented subset, judged once, with types.
 *
 * docs/VMX.md tells of every key whether it is used, kept or refused.  Reading goes on after a
 * fault, so that an admin sees all of them at once: errors refuse the machine, warnings say
 * what is ignored or may surprise the guest.
 *
 * A file's name in a VMX is relative to the machine's folder, or "[datastore] path", or
 * /vmfs/volumes/DATASTORE/path; it never leaves its datastore (ERR_DS_PATH_ESCAPE).
 *
 * Pure; any thread.
 */
#ifndef BM_VMOTION_VM_CONFIG_H
#define BM_VMOTION_VM_CONFIG_H

#include <sched.h>

#include "blkmirror/base/uuid.h"
#include "datastores/datastore.h"
#include "datastores/ds_path.h"
#include "vmotion/vmx.h"

#define VM_NAME_BYTES 256
#define VM_NETWORK_BYTES 128
#define VM_MACHINE_BYTES 64
#define VM_APPEND_BYTES 2048
#define VM_DRIVES_MAX 64
#define VM_NICS_MAX 10
#define VM_SCSI_CONTROLLERS 4
#define VM_MEMORY_MAX_MIB (4u << 20)
#define VM_CPUS_MAX 240         /* of the pinned machine type */
#define VM_FINDINGS_MAX 64

/* ---- what a check finds ---- */

struct vm_finding {
	bool refuses;                   /* an error; else a warning */
	struct err err;
};

struct vm_findings {
	struct vm_finding items[VM_FINDINGS_MAX];
	uint32_t count;
	uint32_t error_count;           /* also of those that found no room */
};

/* Add one; its text is made as by err_set(). */
void vm_findings_add(struct vm_findings *findings, bool refuses, enum err_id id,
		     const char *format, ...) PRINTF_LIKE(4, 5);
void vm_findings_take(struct vm_findings *findings, bool refuses, const struct err *err);
/* The first error, or NULL. */
const struct err *vm_findings_first_error(const struct vm_findings *findings);

/* ---- the machine ---- */

enum vm_firmware { VM_FIRMWARE_BIOS, VM_FIRMWARE_EFI };

enum vm_bus { VM_BUS_SCSI, VM_BUS_SATA, VM_BUS_IDE, VM_BUS_NVME, VM_BUS_FLOPPY };

/* scsiN.virtualDev; the last three are not VMware's. */
enum vm_scsi_model {
	VM_SCSI_NONE,
	VM_SCSI_PVSCSI,
	VM_SCSI_LSILOGIC,
	VM_SCSI_LSISAS,
	VM_SCSI_VIRTIO,
	VM_SCSI_LSI53C895A,
	VM_SCSI_MEGASAS,
};
const char *vm_scsi_model_name(enum vm_scsi_model model);

enum vm_media { VM_MEDIA_DISK, VM_MEDIA_CDROM, VM_MEDIA_FLOPPY };

struct vm_drive {
	enum vm_bus bus;
	uint8_t controller, unit;
	enum vm_media media;
	char name[16];                  /* "scsi0:0", "floppy0": as in the VMX */
	bool has_file;                  /* false: an empty CD-ROM or floppy drive */
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
};

enum vm_nic_model {
	VM_NIC_E1000,
	VM_NIC_E1000E,
	VM_NIC_VMXNET3,
	VM_NIC_PCNET,
	VM_NIC_VIRTIO,
};

struct vm_nic {
	uint8_t number;
	enum vm_nic_model model;
	bool connected;
	bool has_mac;                   /* false: vm_config_complete() makes one */
	uint8_t mac[6];
	char network[VM_NETWORK_BYTES];
};

struct vm_config {
	char name[VM_NAME_BYTES];
	char home_datastore[DS_NAME_BYTES];     /* where the VMX lies */
	char home_path[DS_PATH_BYTES];
	struct uuid uuid;               /* null: vm_config_complete() makes one */
	uint32_t memory_mib;
	uint32_t cpu_count, cores_per_socket;
	enum vm_firmware firmware;
	char guest_os[64];              /* VMware's word for it, or "" */
	char machine[VM_MACHINE_BYTES]; /* pinned type of machine, or "" */
	bool has_affinity;
	cpu_set_t affinity;
	bool usb, display;
	enum vm_scsi_model scsi[VM_SCSI_CONTROLLERS];
	struct vm_drive drives[VM_DRIVES_MAX];
	uint32_t drive_count;
	struct vm_nic nics[VM_NICS_MAX];
	uint32_t nic_count;
	/* Booted directly instead of from a disk; paths of this host.  "": not. */
	char kernel[DS_PATH_BYTES], initrd[DS_PATH_BYTES];
	char append[VM_APPEND_BYTES];
	/* A memory image that blkmirror wrote, in the machine's folder; "": not suspended. */
	char suspend_path[DS_PATH_BYTES];
};

/*
 * Read a VMX that lies at datastore:path.  0, -EINVAL when findings hold an error, -ENOMEM.
 * *out (gives, free() it) only with 0; findings (zeroed by the caller) always.
 */
MUST_CHECK int vm_config_read(const struct vmx *vmx, const char *datastore, const char *path,
			      struct vm_config **out, struct vm_findings *findings);

/*
 * Write into the VMX what must stay the same from the first start on and is not there yet:
 * uuid.bios, network addresses, and the type of machine.  *changed: it was edited, and must be
 * written before the machine starts.
 */
MUST_CHECK int vm_config_complete(struct vm_config *config, struct vmx *vmx, const char *machine,
				  bool *changed, struct err *err);

/* The folder of home_path, "" at the root of the datastore. */
void vm_config_folder(const struct vm_config *config, char folder[DS_PATH_BYTES]);

/* A file's name as it stands in a VMX at home_datastore:home_path, into datastore and path. */
MUST_CHECK int vm_file_parse(const char *text, const char *home_datastore, const char *home_path,
			     char datastore[DS_NAME_BYTES], char path[DS_PATH_BYTES],
			     struct err *err);
/* The opposite: relative where it lies in the machine's folder, else "[datastore] path". */
void vm_file_format(const char *datastore, const char *path, const char *home_datastore,
		    const char *home_path, char text[DS_NAME_BYTES + DS_PATH_BYTES + 4]);

#endif

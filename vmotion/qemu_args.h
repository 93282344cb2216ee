/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_args.h - from a machine's configuration to QEMU's command line.
 *
 * Pure: what the host has (struct qemu_host) and where the disks are served (struct qemu_place)
 * come in, words come out.  Devices sit at fixed PCI addresses, so that the guest finds them
 * there after a disk was added, a suspend or a move:
 *
 *   slot 1  IDE, floppies (of the board)   4..d  ethernet0..9
 *        2  VGA                            10..17  scsi0..3, two slots each
 *        3  USB                            18..1b  sata0..3       1c..1f  nvme0..3
 *
 * QEMU opens nothing itself but the disks' sockets: its monitor, the serial port and its log, taps and
 * kernels are descriptors that it inherits.  It listens on no port and makes no process.
 */
#ifndef BM_VMOTION_QEMU_ARGS_H
#define BM_VMOTION_QEMU_ARGS_H

#include "vmotion/vm_config.h"

#define QEMU_ARGS_MAX 512
#define QEMU_NETWORKS_MAX 64

enum qemu_network_kind { QEMU_NETWORK_NONE, QEMU_NETWORK_USER, QEMU_NETWORK_BRIDGE };

struct qemu_network {
	char name[VM_NETWORK_BYTES];    /* as the VMX files call it */
	enum qemu_network_kind kind;
	char bridge[16];                /* an interface of the host */
};

/* What there is to run machines with; borrowed strings. */
struct qemu_host {
	const char *binary;             /* absolute */
	const char *accel;              /* "kvm" or "tcg" */
	const char *cpu;                /* QEMU's -cpu, or NULL: host with kvm, max with tcg */
	const char *machine;            /* the newest versioned type, "pc-i440fx-7.2" */
	const char *const *machines;    /* all, NULL-terminated */
	bool sandbox;
	const char *efi_code;           /* OVMF's code, or NULL */
	const char *const *kernel_roots;        /* NULL-terminated; NULL: no direct boot */
	const struct qemu_network *networks;
	uint32_t network_count;
	uint32_t reconnect_s;           /* how long a disk's server may be away */
};

/* Where the disk of config->drives[i] is served. */
struct qemu_place {
	const char *socket_path;        /* NULL: the drive is empty */
	const char *export_name;        /* NBD */
	bool vhost_user;
};

/* Numbers of descriptors in QEMU; -1: none. */
struct qemu_fds {
	int qmp, serial, serial_log;
	int kernel, initrd;
	int efi_vars;
	int taps[VM_NICS_MAX];
};

struct qemu_run {
	const char *id;                 /* the machine's: "vm1" */
	const struct qemu_place *places;        /* one per drive */
	struct qemu_fds fds;
	bool incoming;                  /* a suspended state is to be read in */
};

struct qemu_args {
	char *words[QEMU_ARGS_MAX + 1]; /* NULL-terminated; owned */
	uint32_t count;
};

/* 0, or -ENOMEM, -E2BIG with *err.  Release in any case. */
MUST_CHECK int qemu_args_make(const struct vm_config *config, const struct qemu_host *host,
			      const struct qemu_run *run, struct qemu_args *out, struct err *err);
void qemu_args_release(struct qemu_args *args);

/* What this host lacks for the machine: networks, firmware, the type of machine, kernels. */
void qemu_check(const struct vm_config *config, const struct qemu_host *host,
		struct vm_findings *findings);

/* The entry of the map; NULL: none. */
const struct qemu_network *qemu_network_find(const struct qemu_host *host, const char *name);

/* "bridge:br0", "user", "none".  0, or -EINVAL with ERR_BAD_CONFIG. */
MUST_CHECK int qemu_network_parse(const char *name, const char *text, struct qemu_network *out,
				  struct err *err);

#endif

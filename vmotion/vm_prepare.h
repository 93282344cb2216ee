/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_prepare.h - what a QEMU inherits: sockets, logs, taps, kernels, EFI variables, as descriptors.
 *
 * All [worker]: it opens files and may wait for the network's lock in the kernel.
 */
#ifndef BM_VMOTION_VM_PREPARE_H
#define BM_VMOTION_VM_PREPARE_H

#include "vmotion/vm.h"

/* Slots of fds: the process has them as QEMU_FD_FIRST + slot. */
enum vm_fd {
	VM_FD_QMP,
	VM_FD_SERIAL,
	VM_FD_SERIAL_LOG,
	VM_FD_KERNEL,
	VM_FD_INITRD,
	VM_FD_EFI_VARS,
	VM_FD_TAP,
	VM_FD_COUNT = VM_FD_TAP + VM_NICS_MAX,
};
_Static_assert(VM_FD_COUNT <= QEMU_FDS_MAX, "all descriptors find room");

struct vm_prepared {
	int fds[VM_FD_COUNT];           /* -1: none */
	int log_fd;
	uint64_t log_at;                /* bytes of earlier runs in it */
};

/* 0, or -errno with *err (ERR_VM_START, ERR_VM_NETWORK, ERR_VM_KERNEL, ERR_VM_FIRMWARE). */
MUST_CHECK int vm_prepare(const struct vm_setup *setup, const char *id,
			  const struct vm_config *config, struct vm_prepared *out,
			  struct err *err);
/* [any] Closes all. */
void vm_prepared_release(struct vm_prepared *prepared);
/* [any] Their numbers in the process. */
struct qemu_fds vm_prepared_numbers(const struct vm_prepared *prepared);

/* The folder of a machine's disk sockets, which QEMU's group may enter. */
MUST_CHECK int vm_prepare_run_dir(const struct vm_setup *setup, const char *id, struct err *err);

/* The last lines of its qemu.log behind log_at, in one; "" when there are none. */
void vm_log_tail(const struct vm_setup *setup, const char *id, uint64_t log_at, char *out,
		 size_t out_bytes);

#endif

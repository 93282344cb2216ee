/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_host.h - what this host runs machines with: asked of QEMU once, at start.
 *
 * Blocks: before the loop runs.  Without a QEMU the daemon serves disks all the same, and
 * machines are refused with the reason.
 */
#ifndef BM_VM_HOST_H
#define BM_VM_HOST_H

#include "tools/blkmirrord/config.h"
#include "vmotion/vm.h"

#define VM_HOST_MACHINES_MAX 256

struct vm_host {
	struct qemu_host qemu;
	char *text;                     /* what the machine names point into; owned */
	const char *machines[VM_HOST_MACHINES_MAX + 1];
	bool drop;
	uid_t uid;
	gid_t gid;
	bool has_group;                 /* one more, for /dev/kvm */
	gid_t group;
	struct err problem;             /* ERR_NONE: machines can be run */
};

void vm_host_probe(struct vm_host *host, const struct vm_settings *settings);
void vm_host_release(struct vm_host *host);

#endif

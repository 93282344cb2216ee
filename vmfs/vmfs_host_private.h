/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_host_private.h - between a host's slot and its locks. */
#ifndef BM_VMFS_HOST_PRIVATE_H
#define BM_VMFS_HOST_PRIVATE_H

#include <stdatomic.h>

#include "vmfs/vmfs_host.h"

struct vmfs_host {
	struct vmfs_lv *lv, *beat;
	struct vmfs_host_options options;
	uint32_t slot;
	uint64_t generation;
	_Atomic uint64_t until_us;      /* R-F1: no request may be sent from then on */
	_Atomic bool lost;
	uint8_t last[VMFS_HB_BYTES];    /* our slot as we wrote it; the renewing thread's */
};

uint64_t vmfs_host_now_us(const struct vmfs_host *host);
/* -EUCLEAN: it is no slot. */
int vmfs_host_read_slot(struct vmfs_lv *lv, uint32_t slot, uint8_t bytes[VMFS_HB_BYTES],
			struct vmfs_heartbeat *out);

#endif

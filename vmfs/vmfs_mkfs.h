/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_mkfs.h - make a VMFS5 volume of one or more devices.
 *
 *     LV block   0..3   unused, file-system descriptor, heartbeats       (.vh.sf)
 *                4      header, first clusters and descriptors of .fdc.sf
 *                5      root
 *                6..    .fbb.sf, .pbc.sf, .sbc.sf, .pb2.sf, .sdd.sf, the rest of .fdc.sf
 *
 * Blocks of 1 MiB, sub-blocks of 8 KiB.  How many descriptors, sub-blocks and pointer blocks
 * there are follows the volume's size; they do not grow later.  Each device takes part with
 * its whole units of 256 MiB behind the first 17 MiB.
 *
 * What stands on the devices is destroyed: first of all their old headers, so that a crash on
 * the way leaves nothing that looks like a volume; the new headers are written last.
 *
 * Units, errors and threading: as vmfs.h.
 */
#ifndef BM_VMFS_MKFS_H
#define BM_VMFS_MKFS_H

#include "vmfs/vmfs.h"

#define VMFS_MKFS_DEVICE_MIN (VMFS_DATA_OFFSET + VMFS_PE_BYTES)

struct vmfs_mkfs_options {
	const char *label;              /* at most VMFS_LABEL_MAX bytes; NULL: none */
	uint64_t file_count;            /* descriptors; 0: by the volume's size */
	bool overwrite;                 /* although a device holds a VMFS volume */
	bool reads_zero;                /* the devices are fresh: what is not written is zero */
	uint32_t now_s;                 /* 0: the system's clock */
};

/* Borrows the ios, in the order in which the volume is to use them. */
MUST_CHECK int vmfs_mkfs(struct vmfs_io *const *ios, unsigned count,
			 const struct vmfs_mkfs_options *options, struct err *err);

#endif

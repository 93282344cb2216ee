/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_lv.h - the logical volume: the data areas of one or more devices, end to end.
 *
 *     device 0: | 1 MiB unused | header, tables | 17 MiB: PE 0 | PE 1 | ... | tail < 256 MiB |
 *     device 1: | 1 MiB unused | header, tables | 17 MiB: PE 0 | ...
 *     volume:                                   | PE 0 | PE 1 | ... | PE n | ...
 *
 * Every offset in the file system is an offset in this volume.  Devices may be given in any
 * order; all of them must be there.
 *
 * The extents of every known volume lie in order on their device, and other readers rely on
 * it without looking.  We look: a table that says otherwise is refused, not misread.
 *
 * A range that crosses from one device to the next is split.
 *
 * Units:     bytes.  Ranges must lie in the volume (CHECKed; vmfs_lv_holds() judges).
 * Errors:    0 or -errno.
 * Ownership: vmfs_lv_open() borrows the ios; they must outlive the volume.
 * Threading: as vmfs_io.h.
 */
#ifndef BM_VMFS_LV_H
#define BM_VMFS_LV_H

#include "vmfs/vmfs_format.h"
#include "vmfs/vmfs_io.h"

#define VMFS_EXTENTS_MAX 32u

struct vmfs_extent {
	struct vmfs_io *io;
	struct vmfs_lvm_header header;
	struct vmfs_lvm_volume volume;
	uint64_t start_bytes;           /* where its data stand in the logical volume */
	uint64_t len_bytes;
	uint64_t data_offset_bytes;     /* where they begin on the device */
};

struct vmfs_lv {
	struct vmfs_extent extents[VMFS_EXTENTS_MAX];   /* in order */
	unsigned extent_count;
	uint64_t size_bytes;
	uint32_t major;                 /* 3, 5 or 6 */
	uint32_t block_bytes;           /* the largest of the devices' */
	bool read_only;                 /* one of the devices is */
	bool exclusive;                 /* all of the devices are */
	bool dirty;                     /* written since the last flush */
};

/* Judges all headers.  0, or -errno with *err; *out is then undefined. */
MUST_CHECK int vmfs_lv_open(struct vmfs_lv *out, struct vmfs_io *const *ios, unsigned count,
			    struct err *err);

bool vmfs_lv_holds(const struct vmfs_lv *lv, uint64_t offset_bytes, uint64_t len_bytes);

MUST_CHECK int vmfs_lv_read(struct vmfs_lv *lv, uint64_t offset_bytes, void *bytes,
			    size_t len_bytes);
MUST_CHECK int vmfs_lv_write(struct vmfs_lv *lv, uint64_t offset_bytes, const void *bytes,
			     size_t len_bytes);
MUST_CHECK int vmfs_lv_zero(struct vmfs_lv *lv, uint64_t offset_bytes, uint64_t len_bytes);

/* All that was written is durable.  Free when nothing was since the last time. */
MUST_CHECK int vmfs_lv_barrier(struct vmfs_lv *lv);

/* One block, on one device. */
MUST_CHECK int vmfs_lv_compare_write(struct vmfs_lv *lv, uint64_t offset_bytes,
				     const void *expected, const void *replacement,
				     size_t len_bytes);

/*
 * Where a place of the volume is: the extent's index, the offset on its device, and how many
 * bytes follow there.  The place must lie in the volume.
 */
void vmfs_lv_locate(const struct vmfs_lv *lv, uint64_t offset_bytes, unsigned *extent_out,
		    uint64_t *device_offset_out, uint64_t *len_out);

#endif

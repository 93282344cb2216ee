/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmdk.h - the VMDK descriptor: a small text file that names a disk's data file.
 *
 *   # Disk DescriptorFile                    <- what it is
 *   version=1
 *   CID=fffffffe                             header: key=value
 *   parentCID=ffffffff
 *   createType="vmfs"
 *
 *   # Extent description
 *   RW 8388608 VMFS "web01-flat.vmdk"        512-byte sectors, kind, data file
 *
 *   # The Disk Data Base
 *   #DDB
 *   ddb.adapterType = "lsilogic"             key = "value"
 *   ddb.blkmirror.uuid = "..."               ours (disk_record.h)
 *
 * What is supported: one RW extent of kind FLAT (at offset 0) or VMFS whose data lie in one
 * plain file of the same folder.  Everything else is refused precisely.  The text is kept as
 * it was read (but for zeroes at its end, which QEMU leaves there) and edited in place, so
 * lines that mean nothing to us survive a rewrite, in order, with their line ends.
 *
 * Pure; any thread.  A descriptor may come from anywhere: it is bounded (VMDK_TEXT_BYTES),
 * control characters are refused, keys that decide something may stand there only once.
 */
#ifndef BM_VMDK_H
#define BM_VMDK_H

#include "datastores/disk_record.h"
#include "datastores/ds_path.h"

#define VMDK_TEXT_BYTES 20480
#define VMDK_SECTOR_BYTES 512
#define VMDK_SUFFIX ".vmdk"
#define VMDK_FLAT_SUFFIX "-flat.vmdk"

struct vmdk {
	uint64_t size_bytes;
	char data_name[DS_FILE_NAME_BYTES];     /* a plain name, in the descriptor's folder */
	bool thin;                              /* ddb.thinProvisioned = "1" */
	struct disk_record record;

	char text[VMDK_TEXT_BYTES];             /* the descriptor as it stands */
	size_t text_len;
	/* Private: the size number of the extent line in text. */
	size_t sectors_at, sectors_len;
};

/*
 * Take bytes apart.  name is for messages.  0, or -EINVAL with
 *   ERR_DISK_BAD_FORMAT       a sparse or other kind of VMDK; several extents
 *   ERR_DISK_CHAIN            a snapshot's delta: parentCID is not ffffffff
 *   ERR_DISK_BAD_SIZE         out of bounds
 *   ERR_DISK_BAD_DESCRIPTOR   all other faults
 */
MUST_CHECK int vmdk_parse(const char *bytes, size_t len, const char *name, struct vmdk *out,
			  struct err *err);

struct vmdk_spec {
	uint64_t size_bytes;            /* a multiple of VMDK_SECTOR_BYTES */
	const char *data_name;
	const struct disk_record *record;       /* with provision */
	uint32_t cid;
};

/* Write a new descriptor, in the manner of ESX (createType="vmfs"). */
MUST_CHECK int vmdk_format(const struct vmdk_spec *spec, struct vmdk *out, struct err *err);

/*
 * Change the text.  -EFBIG with ERR_DISK_BAD_DESCRIPTOR where it would grow beyond VMDK_TEXT_BYTES;
 * *vmdk is unchanged then.
 */
MUST_CHECK int vmdk_set_record(struct vmdk *vmdk, const struct disk_record *record,
			       struct err *err);
MUST_CHECK int vmdk_set_size(struct vmdk *vmdk, uint64_t size_bytes, struct err *err);

/* The value of a key, without its quotes; false where there is none or it does not fit. */
bool vmdk_get(const struct vmdk *vmdk, const char *key, char *value, size_t value_bytes);

#endif

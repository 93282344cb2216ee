/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_dir5.c - directories of VMFS3 and VMFS5: an array of records, in no order. */
#include <errno.h>
#include <string.h>

#include "vmfs/vmfs_private.h"

/* A cursor is the number of the next record. */
int vmfs_dir5_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out)
{
	uint8_t bytes[VMFS_DIRENT5_BYTES];
	struct vmfs_dirent5 record;
	int rc;

	if (dir->fd.length % VMFS_DIRENT5_BYTES)
		return vmfs_damaged(dir->fs, "folder %#x is %llu bytes long, no whole records",
				    dir->address, (unsigned long long)dir->fd.length);
	for (; *cursor < dir->fd.length / VMFS_DIRENT5_BYTES; (*cursor)++) {
		rc = vmfs_dir_read(dir, *cursor * VMFS_DIRENT5_BYTES, bytes, sizeof(bytes));
		if (rc)
			return rc;
		vmfs_dirent5_decode(bytes, &record);
		if (record.fd == 0)
			continue;       /* void: see U3 in vmfs.h */
		*out = (struct vmfs_entry){
			.type = (enum vmfs_fd_type)record.type,
			.address = record.fd,
			.generation = record.generation,
			.cursor = *cursor,
		};
		/* A name may fill its field; out->name is longer and stays ended. */
		memcpy(out->name, record.name, sizeof(record.name));
		(*cursor)++;
		return vmfs_dir_judge_entry(dir, out);
	}
	return -ENODATA;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_read.c - the data of a file, as they are. */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

int vmfs_file_read(struct vmfs_node *node, uint64_t offset, uint8_t *bytes, size_t len)
{
	while (len > 0) {
		struct vmfs_run run;
		int rc = vmfs_map_find(node, offset, len, &run);

		if (rc)
			return rc;
		if (run.kind == VMFS_RUN_RESIDENT)
			memcpy(bytes, node->raw + node->fs->geometry->fd_data_offset + offset,
			       (size_t)run.len_bytes);
		else if (run.kind == VMFS_RUN_DATA)
			rc = vmfs_volume_read_any(node->fs, run.volume_offset_bytes, bytes,
						  (size_t)run.len_bytes);
		else
			memset(bytes, 0, (size_t)run.len_bytes);
		if (rc)
			return rc;
		bytes += run.len_bytes;
		offset += run.len_bytes;
		len -= (size_t)run.len_bytes;
	}
	return 0;
}

int vmfs_read(struct vmfs_node *node, uint64_t offset_bytes, void *bytes, size_t len_bytes,
	      size_t *got_out, struct err *err)
{
	struct vmfs *fs = node->fs;
	size_t got = 0;
	int rc;

	vmfs_begin(fs);
	if (offset_bytes < node->fd.length)
		got = (size_t)MIN(len_bytes, node->fd.length - offset_bytes);
	rc = vmfs_file_read(node, offset_bytes, bytes, got);
	if (!rc)
		*got_out = got;
	return vmfs_answer(fs, rc, err);
}

int vmfs_readlink(struct vmfs_node *node, char target[VMFS_LINK_MAX], struct err *err)
{
	struct vmfs *fs = node->fs;
	uint64_t len = node->fd.length;
	int rc;

	vmfs_begin(fs);
	if (node->fd.type != VMFS_TYPE_SYMLINK)
		return vmfs_answer(fs, vmfs_fail(fs, ERR_VMFS_KIND, -EINVAL,
						 "it is no symbolic link"), err);
	if (len == 0 || len >= VMFS_LINK_MAX)
		return vmfs_answer(fs, vmfs_damaged(fs, "symbolic link %#x is %llu bytes long",
						    node->address, (unsigned long long)len), err);
	rc = vmfs_file_read(node, 0, (uint8_t *)target, (size_t)len);
	if (!rc && memchr(target, 0, (size_t)len))
		rc = vmfs_damaged(fs, "symbolic link %#x holds a NUL", node->address);
	if (!rc)
		target[len] = '\0';
	return vmfs_answer(fs, rc, err);
}

int vmfs_run_at(struct vmfs_node *node, uint64_t offset_bytes, uint64_t len_bytes,
		struct vmfs_run *out, struct err *err)
{
	struct vmfs *fs = node->fs;

	CHECK(len_bytes > 0);
	vmfs_begin(fs);
	if (offset_bytes >= node->fd.length)
		return -ENODATA;
	return vmfs_answer(fs, vmfs_map_find(node, offset_bytes,
					     MIN(len_bytes, node->fd.length - offset_bytes), out),
			   err);
}

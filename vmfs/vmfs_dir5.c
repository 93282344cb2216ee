/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_dir5.c - directories of VMFS3 and VMFS5: an array of records, in no order. */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_le.h"
#include "vmfs/vmfs_private.h"

/* A cursor is the number of the next record. */
int vmfs_dir5_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out)
{
	uint8_t bytes[VMFS_DIRENT5_BYTES];
	struct vmfs_dirent5 record;
	int rc;

	if (dir->fd.length % VMFS_DIRENT5_BYTES || dir->fd.length > VMFS_DIR_BYTES_MAX)
		return vmfs_damaged(dir->fs, "folder %#x is %llu bytes long, no whole records",
				    dir->address, (unsigned long long)dir->fd.length);
	for (; *cursor < dir->fd.length / VMFS_DIRENT5_BYTES; (*cursor)++) {
		rc = vmfs_dir_read(dir, *cursor * VMFS_DIRENT5_BYTES, bytes, sizeof(bytes));
		if (rc)
			return rc;
		vmfs_dirent5_decode(bytes, &record);
		if (record.fd == 0)
			continue;       /* void */
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

/* ---- changes ---- */

static void encode(const struct vmfs_entry *entry, uint8_t bytes[VMFS_DIRENT5_BYTES])
{
	struct vmfs_dirent5 record = {
		.type = entry->type,
		.fd = entry->address,
		.generation = entry->generation,
	};

	memset(bytes, 0, VMFS_DIRENT5_BYTES);
	memcpy(record.name, entry->name, strnlen(entry->name, sizeof(record.name)));
	vmfs_dirent5_encode(&record, bytes);
}

int vmfs_dir5_append(struct vmfs_node *dir, const struct vmfs_entry *entry)
{
	uint8_t bytes[VMFS_DIRENT5_BYTES];

	if (dir->fd.length + sizeof(bytes) > VMFS_DIR_BYTES_MAX)
		return vmfs_fail(dir->fs, ERR_VMFS_LIMIT, -EFBIG, "the folder is full");
	encode(entry, bytes);
	return vmfs_file_write(dir, dir->fd.length, bytes, sizeof(bytes));
}

static int remove_step(struct vmfs_node *dir, const struct vmfs_entry *entry)
{
	uint64_t last = dir->fd.length - VMFS_DIRENT5_BYTES;
	uint64_t at = entry->cursor * VMFS_DIRENT5_BYTES;
	uint8_t record[VMFS_DIRENT5_BYTES];
	int rc = 0;

	CHECK(at <= last);
	if (at != last) {
		rc = vmfs_dir_read(dir, last, record, sizeof(record));
		if (!rc)
			rc = vmfs_file_write(dir, at, record, sizeof(record));
	}
	if (rc)
		return rc;
	vmfs_dir_forget(dir->fs);
	/* A block that holds no record any more goes: other checkers call it lost. */
	if (div_round_up(last, dir->fd.block_bytes) < div_round_up(dir->fd.length, dir->fd.block_bytes))
		return vmfs_file_truncate(dir, last);
	dir->fd.length = last;
	dir->fd.mtime = vmfs_now_s(dir->fs);
	return vmfs_node_store(dir);
}

/* The last record takes the place of the one that goes. */
int vmfs_dir5_remove(struct vmfs_node *dir, const struct vmfs_entry *entry)
{
	vmfs_txn_begin(dir->fs);
	return vmfs_txn_end(dir->fs, remove_step(dir, entry));
}

#define RECORD_FD_OFFSET 4u

int vmfs_dir5_point(struct vmfs_node *dir, const struct vmfs_entry *at, uint32_t address,
		    uint32_t generation)
{
	uint64_t offset = at->cursor * VMFS_DIRENT5_BYTES + RECORD_FD_OFFSET;
	uint8_t bytes[8];

	le32_put(bytes, address);
	le32_put(bytes + 4, generation);
	return vmfs_file_write(dir, offset, bytes, sizeof(bytes));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_dir6.c - directories of VMFS6, for reading: a header with "." and "..", then blocks
 * that hold entries, hash chains or the map that says what each block holds.
 *
 * The map is followed instead of the hash: blocks that it calls unwritten may hold anything.
 * A cursor counts: 0 and 1 are "." and "..", then 16 numbers for each block.
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_le.h"
#include "vmfs/vmfs_private.h"

#define DOTS 2u
#define SLOTS_MAX 16u                   /* numbers for a block; 14 slots fit */
#define SLOTS_FIT ((VMFS_DIR6_BLOCK_BYTES - VMFS_DIR6_SLOTS_OFFSET) / VMFS_DIRENT6_BYTES)
#define MAP_COVERS (2u * VMFS_DIR6_BLOCK_BYTES - 2u * VMFS_DIR6_SLOTS_OFFSET)
#define NIBBLE_KIND 3u
#define NIBBLE_UNWRITTEN 8u

static int entry_at(struct vmfs_node *dir, uint64_t offset, uint64_t cursor,
		    struct vmfs_entry *out)
{
	uint8_t bytes[VMFS_DIRENT6_BYTES];
	struct vmfs_dirent6 record;
	int rc = vmfs_dir_read(dir, offset, bytes, sizeof(bytes));

	if (rc)
		return rc;
	vmfs_dirent6_decode(bytes, &record);
	*out = (struct vmfs_entry){
		.type = (enum vmfs_fd_type)record.type,
		.address = record.fd,
		.generation = record.generation,
		.cursor = cursor,
	};
	memcpy(out->name, record.name, sizeof(out->name) - 1);
	return 0;
}

static int judge_header(struct vmfs_node *dir, uint8_t *bytes, struct vmfs_dir6_header *header)
{
	int rc;

	if (dir->fd.length < VMFS_DIR6_HEADER_BYTES || dir->fd.length > VMFS_DIR_BYTES_MAX ||
	    dir->fd.length % VMFS_DIR6_BLOCK_BYTES)
		return vmfs_damaged(dir->fs, "folder %#x is %llu bytes long", dir->address,
				    (unsigned long long)dir->fd.length);
	rc = vmfs_dir_read(dir, 0, bytes, VMFS_SECTOR_BYTES * 2);
	if (rc)
		return rc;
	vmfs_dir6_header_decode(bytes, header);
	if ((header->version != VMFS_DIR6_VERSION && header->version != VMFS_DIR6_VERSION_ALT) ||
	    header->map_block_count > VMFS_DIR6_MAPS)
		return vmfs_damaged(dir->fs, "folder %#x has no valid header", dir->address);
	return 0;
}

/* What the map says of a block; NIBBLE_UNWRITTEN where no map covers it. */
static int nibble_of(struct vmfs_node *dir, const uint8_t *header_bytes,
		     const struct vmfs_dir6_header *header, uint64_t block, unsigned *out)
{
	uint64_t map = block / MAP_COVERS, in_map = block % MAP_COVERS, at;
	uint8_t byte;
	int rc;

	*out = NIBBLE_UNWRITTEN;
	if (map >= header->map_block_count)
		return 0;
	at = VMFS_DIR6_HEADER_BYTES +
	     (uint64_t)le32_get(header_bytes + VMFS_DIR6_MAPS_OFFSET + map * 4) *
		     VMFS_DIR6_BLOCK_BYTES;
	if (!range_fits(at, VMFS_DIR6_BLOCK_BYTES, dir->fd.length))
		return vmfs_damaged(dir->fs, "folder %#x has a map outside of it", dir->address);
	rc = vmfs_dir_read(dir, at + VMFS_DIR6_SLOTS_OFFSET + in_map / 2, &byte, 1);
	if (!rc)
		*out = in_map % 2 ? byte & 15 : byte >> 4;      /* the high one first */
	return rc;
}

/* The first entry of a block from `slot` on; -ENOENT: none. */
static int next_in_block(struct vmfs_node *dir, uint64_t block, uint64_t slot,
			 struct vmfs_entry *out)
{
	uint64_t at = VMFS_DIR6_HEADER_BYTES + block * VMFS_DIR6_BLOCK_BYTES;
	uint8_t bytes[VMFS_DIR6_SLOTS_OFFSET];
	struct vmfs_dir6_block head;
	int rc = vmfs_dir_read(dir, at, bytes, sizeof(bytes));

	if (rc)
		return rc;
	vmfs_dir6_block_decode(bytes, &head);
	if (head.kind != VMFS_DIR6_KIND_DIRENT || head.slot_count > SLOTS_FIT)
		return vmfs_damaged(dir->fs, "folder %#x: block %llu is not what its map says",
				    dir->address, (unsigned long long)block);
	for (; slot < head.slot_count; slot++) {
		if (head.bitmap[slot / 8] >> slot % 8 & 1)
			continue;
		rc = entry_at(dir, at + VMFS_DIR6_SLOTS_OFFSET + slot * VMFS_DIRENT6_BYTES,
			      DOTS + block * SLOTS_MAX + slot, out);
		if (rc || out->address != 0)
			return rc;
	}
	return -ENOENT;
}

static int next_entry(struct vmfs_node *dir, uint64_t cursor, struct vmfs_entry *out)
{
	uint8_t bytes[VMFS_SECTOR_BYTES * 2];
	struct vmfs_dir6_header header;
	unsigned nibble;
	int rc = judge_header(dir, bytes, &header);

	if (rc)
		return rc;
	if (cursor < DOTS)
		return entry_at(dir, cursor ? VMFS_DIR6_DOTDOT_OFFSET : VMFS_DIR6_DOT_OFFSET, cursor,
				out);
	cursor -= DOTS;
	for (uint64_t block = cursor / SLOTS_MAX, slot = cursor % SLOTS_MAX;
	     block < (dir->fd.length - VMFS_DIR6_HEADER_BYTES) / VMFS_DIR6_BLOCK_BYTES;
	     block++, slot = 0) {
		rc = nibble_of(dir, bytes, &header, block, &nibble);
		if (rc)
			return rc;
		if (nibble & NIBBLE_UNWRITTEN || (nibble & NIBBLE_KIND) != VMFS_DIR6_KIND_DIRENT)
			continue;
		rc = next_in_block(dir, block, slot, out);
		if (rc != -ENOENT)
			return rc;
	}
	return -ENODATA;
}

int vmfs_dir6_next(struct vmfs_node *dir, uint64_t *cursor, struct vmfs_entry *out)
{
	int rc = next_entry(dir, *cursor, out);

	if (rc)
		return rc;
	*cursor = out->cursor + 1;
	return vmfs_dir_judge_entry(dir, out);
}

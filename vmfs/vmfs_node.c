/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_node.c - descriptors in memory, one node for each that is referenced.
 *
 * A node holds the descriptor's bytes as they are on disk and the decoded fields beside them;
 * storing encodes the fields into the bytes, so what we do not know is preserved.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_le.h"
#include "vmfs/vmfs_private.h"

#define MODE_TYPE_MASK 0170000u
#define MODE_DIR 0040000u

/* ---- judging ---- */

static bool type_is_known(uint32_t type)
{
	return type >= VMFS_TYPE_DIR && type <= VMFS_TYPE_RDM;
}

static bool zla_is_known(const struct vmfs_node *node)
{
	return node->fd.type == VMFS_TYPE_RDM || vmfs_map_reach(node->fs, node->fd.zla) > 0;
}

/* Pointer arrays count in units that belong to their kind; all below relies on it. */
static bool block_bytes_fit(const struct vmfs_node *node)
{
	const struct vmfs *fs = node->fs;

	switch (node->fd.zla) {
	case VMFS_ZLA_SB:
		return node->fd.block_bytes == fs->info.sub_block_bytes;
	case VMFS_ZLA_RESIDENT:
		return true;
	default:
		return node->fd.block_bytes == fs->info.file_block_bytes;
	}
}

static bool length_fits(const struct vmfs_node *node)
{
	uint64_t reach_bytes;

	if (node->fd.zla == VMFS_ZLA_RESIDENT)
		return node->fd.length <= node->fs->geometry->resident_max;
	return !u64_mul(vmfs_map_reach(node->fs, node->fd.zla), node->fd.block_bytes,
			&reach_bytes) || node->fd.length <= reach_bytes;
}

int vmfs_node_judge(struct vmfs_node *node, const struct vmfs_lock *lock)
{
	struct vmfs *fs = node->fs;
	const struct vmfs_fd *fd = &node->fd;

	if (lock->type != VMFS_LOCK_FD || lock->volume_offset != node->volume_offset)
		return vmfs_damaged(fs, "descriptor %#x has no valid lock block", node->address);
	if (fd->address != node->address)
		return vmfs_damaged(fs, "descriptor %#x calls itself %#x", node->address, fd->address);
	if (fd->link_count == 0)
		return -ENOENT;
	if (!type_is_known(fd->type))
		return vmfs_damaged(fs, "descriptor %#x has type %u", node->address, fd->type);
	if (fd->type == VMFS_TYPE_RDM)
		return 0;
	if (!zla_is_known(node))
		return vmfs_damaged(fs, "descriptor %#x has pointers of kind %u", node->address,
				    fd->zla);
	if (!block_bytes_fit(node))
		return vmfs_damaged(fs, "descriptor %#x counts in blocks of %llu bytes", node->address,
				    (unsigned long long)fd->block_bytes);
	if (!length_fits(node))
		return vmfs_damaged(fs, "descriptor %#x is %llu bytes long, beyond its pointers' reach",
				    node->address, (unsigned long long)fd->length);
	return 0;
}

bool vmfs_node_is_dir(const struct vmfs_node *node)
{
	return node->fd.type == VMFS_TYPE_DIR ||
	       (node->fd.type == VMFS_TYPE_SYSTEM && (node->fd.mode & MODE_TYPE_MASK) == MODE_DIR);
}

/* ---- loading and storing ---- */

/*
 * Whose pointers are needed to read whose: a node is mapped through resource files of lower
 * rank only, so that following a hostile volume's pointers ends.
 */
static unsigned rank_of(uint32_t address)
{
	struct vmfs_addr addr;

	vmfs_addr_decode(&(struct vmfs_addr_format){ 0 }, address, &addr);
	if (addr.cluster != 0)
		return 4;
	switch (addr.item) {
	case VMFS_FD_PBC:
	case VMFS_FD_PB2:
		return 1;
	case VMFS_FD_SBC:
		return 2;
	case VMFS_FD_FBB:
	case VMFS_FD_FDC:
		return 3;
	default:
		return 4;
	}
}

int vmfs_node_load(struct vmfs *fs, uint32_t address, uint64_t volume_offset,
		   struct vmfs_node *out)
{
	const struct vmfs_geometry *geometry = fs->geometry;
	struct vmfs_lock lock;
	int rc;

	out->fs = fs;
	out->address = address;
	out->volume_offset = volume_offset;
	out->rank = rank_of(address);
	rc = vmfs_volume_read(fs, volume_offset, out->raw, geometry->fd_bytes);
	if (rc)
		return rc;
	memcpy(out->stored, out->raw, sizeof(out->stored));
	vmfs_lock_decode(out->raw, &lock);
	vmfs_fd_decode(out->raw + geometry->lock_bytes, &out->fd);
	return vmfs_node_judge(out, &lock);
}

/*
 * The lock block is not ours to write here.  Only sectors that differ are written: mostly it is
 * one, and needs no journal.
 */
int vmfs_node_store(struct vmfs_node *node)
{
	const struct vmfs_geometry *geometry = node->fs->geometry;

	vmfs_fd_encode(&node->fd, node->raw + geometry->lock_bytes);
	for (uint32_t at = geometry->lock_bytes; at < geometry->fd_bytes; at += VMFS_SECTOR_BYTES) {
		int rc;

		if (memcmp(node->raw + at, node->stored + at, VMFS_SECTOR_BYTES) == 0)
			continue;
		rc = vmfs_volume_write(node->fs, node->volume_offset + at, node->raw + at,
				       VMFS_SECTOR_BYTES);
		if (rc)
			return rc;
		memcpy(node->stored + at, node->raw + at, VMFS_SECTOR_BYTES);
	}
	return 0;
}

uint64_t vmfs_table_word(const struct vmfs *fs, const uint8_t *table, uint64_t index)
{
	return fs->addr.wide ? le64_get(table + index * 8) : le32_get(table + index * 4);
}

void vmfs_table_set_word(const struct vmfs *fs, uint8_t *table, uint64_t index, uint64_t word)
{
	if (fs->addr.wide)
		le64_put(table + index * 8, word);
	else
		le32_put(table + index * 4, (uint32_t)word);
}

uint64_t vmfs_node_pointer(const struct vmfs_node *node, uint32_t index)
{
	CHECK(index < node->fs->geometry->pointer_count);
	return vmfs_table_word(node->fs, node->raw + node->fs->geometry->pointer_offset, index);
}

void vmfs_node_set_pointer(struct vmfs_node *node, uint32_t index, uint64_t word)
{
	CHECK(index < node->fs->geometry->pointer_count);
	vmfs_table_set_word(node->fs, node->raw + node->fs->geometry->pointer_offset, index, word);
}

/* ---- where a descriptor is ---- */

/* The system's own stand in the first block of .fdc.sf, whose place is known without a map. */
static bool system_place(const struct vmfs *fs, const struct vmfs_addr *addr, uint64_t *out)
{
	const struct vmfs_geometry *geometry = fs->geometry;
	uint64_t block = fs->info.file_block_bytes;
	uint64_t base = MAX(UINT64_C(1), geometry->hb_end / block) * block;
	uint64_t inside = fs->info.fdc_group_offset +
			  (uint64_t)fs->info.fdc_clusters_per_group * geometry->cluster_header_bytes +
			  (uint64_t)addr->item * geometry->fd_bytes;

	if (addr->cluster != 0 || addr->item >= VMFS_FD_SYSTEM_COUNT ||
	    inside + geometry->fd_bytes > block)
		return false;
	*out = base + inside;
	return true;
}

int vmfs_node_place(struct vmfs *fs, uint32_t address, uint64_t *out)
{
	struct vmfs_res *fdc = &fs->res[VMFS_RES_FDC];
	struct vmfs_addr addr;
	uint64_t room;
	int rc;

	vmfs_addr_decode(&fs->addr, address, &addr);
	if (addr.type != VMFS_ADDR_FD || addr.other)
		return vmfs_damaged(fs, "%#x is no descriptor's address", address);
	if (system_place(fs, &addr, out))
		return 0;
	if (!fdc->node)
		return vmfs_damaged(fs, "descriptor %#x is not in the first block of .fdc.sf", address);
	rc = vmfs_res_locate(fdc, addr.cluster, addr.item, out, &room);
	if (!rc && room < fs->geometry->fd_bytes)
		rc = vmfs_damaged(fs, "descriptor %#x spans blocks", address);
	return rc;
}

/* ---- references ---- */

int vmfs_node_find(struct vmfs *fs, uint32_t address, struct vmfs_node **out)
{
	struct vmfs_node *node;
	uint64_t place;
	int rc;

	list_for_each(at, &fs->nodes) {
		node = list_entry(at, struct vmfs_node, link);
		if (node->address == address) {
			*out = vmfs_node_ref(node);
			return 0;
		}
	}
	rc = vmfs_node_place(fs, address, &place);
	if (rc)
		return rc;
	node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	rc = vmfs_node_load(fs, address, place, node);
	if (rc) {
		free(node);
		return rc;
	}
	node->refs = 1;
	list_prepend(&fs->nodes, &node->link);
	*out = node;
	return 0;
}

int vmfs_node_get(struct vmfs *fs, uint32_t address, struct vmfs_node **out, struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, vmfs_node_find(fs, address, out), err);
}

struct vmfs_node *vmfs_node_ref(struct vmfs_node *node)
{
	node->refs++;
	return node;
}

int vmfs_node_put(struct vmfs_node *node, struct err *err)
{
	struct vmfs *fs;

	if (!node)
		return 0;
	fs = node->fs;
	vmfs_begin(fs);
	return vmfs_answer(fs, vmfs_node_drop(node), err);
}

void vmfs_node_stat(const struct vmfs_node *node, struct vmfs_stat *out)
{
	const struct vmfs_fd *fd = &node->fd;

	*out = (struct vmfs_stat){
		.address = fd->address,
		.generation = fd->generation,
		.type = (enum vmfs_fd_type)fd->type,
		.is_directory = vmfs_node_is_dir(node),
		.mode = fd->mode & 07777,
		.links = fd->link_count,
		.uid = fd->uid,
		.gid = fd->gid,
		.length_bytes = fd->length,
		.block_bytes = fd->block_bytes,
		.block_count = fd->block_count,
		.to_be_zeroed_count = fd->tbz_count,
		.mtime = fd->mtime,
		.ctime = fd->ctime,
		.atime = fd->atime,
		.zla = fd->zla,
	};
	if (!u64_mul(fd->block_count, fd->block_bytes, &out->allocated_bytes))
		out->allocated_bytes = UINT64_MAX;
}

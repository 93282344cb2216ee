/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_repair_blocks.c - descriptors that are ones, and bitmaps that agree with them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_repair_private.h"

#define VH_MODE 0400u
#define SDD_MODE 040700u

/* ---- locks ---- */

static void fresh_lock(uint8_t *bytes, enum vmfs_lock_type type, uint64_t place)
{
	struct vmfs_lock lock = { .type = type, .volume_offset = place, .token = 1, .mtime = 1 };

	memset(bytes, 0, VMFS_LOCK_BYTES);
	vmfs_lock_encode(&lock, bytes);
}

/* When a volume is open for repair no host uses it: whoever held a lock is gone. */
static bool free_lock(struct repair *repair, uint8_t *bytes, const char *what, uint32_t number)
{
	struct vmfs_lock lock;

	vmfs_lock_decode(bytes, &lock);
	if (lock.mode == VMFS_LOCK_MODE_FREE)
		return false;
	repair_mended(repair, "%s %#x: a lock of a host that is gone was freed", what, number);
	lock.mode = VMFS_LOCK_MODE_FREE;
	lock.holder_count = 0;
	memset(lock.owner, 0, sizeof(lock.owner));
	vmfs_lock_encode(&lock, bytes);
	return true;
}

/* ---- descriptors ---- */

/* The two that can be made anew; their contents are known, or can be made. */
static bool make_system(struct vmfs_node *node, uint64_t index)
{
	struct vmfs *fs = node->fs;
	uint64_t block = fs->info.file_block_bytes;
	uint64_t count = index == VMFS_FD_VH ? repair_header_blocks(fs) : 0;

	if ((index != VMFS_FD_VH && index != VMFS_FD_SDD) || !fsck_system_name(fs, index))
		return false;
	node->fd = (struct vmfs_fd){
		.address = node->address, .generation = 1, .type = VMFS_TYPE_SYSTEM,
		.link_count = index == VMFS_FD_SDD ? 2 : 1, .length = count * block,
		.block_bytes = block, .block_count = count, .new_since_epoch = (uint32_t)count,
		.mtime = vmfs_now_s(fs), .ctime = vmfs_now_s(fs), .atime = vmfs_now_s(fs),
		.mode = index == VMFS_FD_SDD ? SDD_MODE : VH_MODE, .zla = VMFS_ZLA_FB,
		.affinity_fd = node->address, .tbz_shift = (uint8_t)__builtin_ctzll(block),
		.block_shift = (uint8_t)__builtin_ctzll(block),
	};
	memset(node->raw + fs->geometry->lock_bytes, 0, fs->geometry->fd_bytes -
							fs->geometry->lock_bytes);
	for (uint32_t i = 0; i < count; i++) {
		struct vmfs_addr addr = { .type = VMFS_ADDR_FB, .block = i };

		vmfs_node_set_pointer(node, i, vmfs_addr_encode(&fs->addr, &addr));
	}
	return true;
}

/*
 * What is wrong in one place only is put right.  A lock block and an address that are both
 * wrong are another descriptor's, written here by mistake.
 */
static bool mend_fields(struct vmfs_node *node, struct vmfs_lock *lock)
{
	struct vmfs *fs = node->fs;
	struct vmfs_fd *fd = &node->fd;
	bool lock_is_right = lock->type == VMFS_LOCK_FD && lock->volume_offset == node->volume_offset;
	uint64_t unit, reach, length;

	if (!lock_is_right && fd->address != node->address)
		return false;
	if (!lock_is_right)
		fresh_lock(node->raw, VMFS_LOCK_FD, node->volume_offset);
	vmfs_lock_decode(node->raw, lock);
	fd->address = node->address;
	reach = vmfs_map_reach(fs, fd->zla);
	if (fd->type == VMFS_TYPE_RDM || reach == 0)
		return vmfs_node_judge(node, lock) == 0;
	unit = fd->zla == VMFS_ZLA_SB || fd->zla == VMFS_ZLA_RESIDENT ? fs->info.sub_block_bytes :
									fs->info.file_block_bytes;
	if (fd->zla != VMFS_ZLA_RESIDENT)
		fd->block_bytes = unit;
	if (!u64_mul(reach, unit, &length))
		length = UINT64_MAX;
	if (fd->zla == VMFS_ZLA_RESIDENT)
		length = fs->geometry->resident_max;
	fd->length = MIN(fd->length, length);
	return vmfs_node_judge(node, lock) == 0;
}

/* -ENOENT: it is a free one now. */
static int mend_descriptor(struct repair *repair, uint64_t index, uint64_t place)
{
	struct vmfs *fs = repair->fs;
	const struct vmfs_geometry *geometry = fs->geometry;
	CLEANUP_FREE struct vmfs_node *node = calloc(1, sizeof(*node));
	struct vmfs_lock lock;
	bool kept;
	int rc;

	if (!node)
		return -ENOMEM;
	node->fs = fs;
	node->address = fsck_address_of(fs, index);
	node->volume_offset = place;
	rc = vmfs_volume_read(fs, place, node->raw, geometry->fd_bytes);
	if (rc)
		return rc;
	vmfs_lock_decode(node->raw, &lock);
	vmfs_fd_decode(node->raw + geometry->lock_bytes, &node->fd);
	kept = mend_fields(node, &lock);
	if (!kept) {
		fresh_lock(node->raw, VMFS_LOCK_FD, place);
		kept = make_system(node, index);
	}
	err_clear(&fs->err);
	if (kept) {
		vmfs_fd_encode(&node->fd, node->raw + geometry->lock_bytes);
		repair_mended(repair, "descriptor %#x was put right", node->address);
	} else {
		memset(node->raw + geometry->lock_bytes, 0, geometry->fd_bytes - geometry->lock_bytes);
		repair_mended(repair, "descriptor %#x was none and is free now", node->address);
	}
	rc = vmfs_volume_write(fs, place, node->raw, geometry->fd_bytes);
	return rc || kept ? rc : -ENOENT;
}

/* .vh.sf has the volume's first blocks, and nothing else: our journal is there. */
static bool maps_header(const struct vmfs_node *node)
{
	uint64_t count = repair_header_blocks(node->fs);

	if (node->fd.zla != VMFS_ZLA_FB || node->fd.block_count != count || node->fd.tbz_count)
		return false;
	for (uint32_t i = 0; i < node->fs->geometry->pointer_count; i++) {
		struct vmfs_addr addr = { .type = i < count ? VMFS_ADDR_FB : VMFS_ADDR_NONE,
					  .block = i < count ? i : 0 };

		if (vmfs_node_pointer(node, i) != vmfs_addr_encode(&node->fs->addr, &addr))
			return false;
	}
	return true;
}

static int mend_header_file(struct repair *repair, struct vmfs_node *node)
{
	if (maps_header(node))
		return 0;
	repair_mended(repair, "descriptor %#x maps the volume's header again", node->address);
	make_system(node, VMFS_FD_VH);
	return vmfs_node_store(node);
}

static int see_node(struct repair *repair, struct vmfs_node *node, uint64_t index)
{
	int rc = index == VMFS_FD_VH ? mend_header_file(repair, node) : 0;

	if (rc)
		return rc;
	repair->fds[index] = (struct fsck_fd){
		.generation = node->fd.generation,
		.link_count = node->fd.link_count,
		.type = (uint8_t)node->fd.type,
		.is_dir = vmfs_node_is_dir(node),
	};
	fsck_set(repair->marks[VMFS_RES_FDC], index);
	if (free_lock(repair, node->raw, "descriptor", node->address))
		rc = vmfs_volume_write(repair->fs, node->volume_offset, node->raw, VMFS_LOCK_BYTES);
	return rc ? rc : repair_pointers(repair, node, index);
}

static int see_descriptor(struct repair *repair, uint64_t index)
{
	struct vmfs *fs = repair->fs;
	struct vmfs_res *fdc = &fs->res[VMFS_RES_FDC];
	uint32_t address = fsck_address_of(fs, index);
	struct vmfs_node *node;
	uint64_t place, room;
	int rc = vmfs_res_locate(fdc, (uint32_t)(index / fdc->header.per_cluster),
				 (uint32_t)(index % fdc->header.per_cluster), &place, &room);

	if (!rc && room < fs->geometry->fd_bytes)
		rc = vmfs_damaged(fs, "descriptor %#x spans blocks", address);
	if (rc)
		return rc;
	rc = vmfs_node_find(fs, address, &node);
	if (rc == -EUCLEAN || (rc == -ENOENT && fsck_system_name(fs, index))) {
		err_clear(&fs->err);
		/* What stands in a free descriptor may be anything. */
		if (!fsck_bit(repair->allocated, index) && !fsck_system_name(fs, index))
			return 0;
		rc = mend_descriptor(repair, index, place);
		if (!rc)
			rc = vmfs_node_find(fs, address, &node);
	}
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = see_node(repair, node, index);
	repair_drop(node);
	return rc;
}

/* The bitmaps as they are say which descriptors are meant to be something. */
static int read_allocated(struct repair *repair)
{
	struct vmfs_res *fdc = &repair->fs->res[VMFS_RES_FDC];

	for (uint32_t i = 0; i < fdc->cluster_count; i++) {
		struct vmfs_cluster cluster;
		int rc = vmfs_cluster_read(fdc, i, &cluster);

		/* One that is none tells nothing: what is a descriptor there is seen all the same. */
		if (rc == -EUCLEAN) {
			err_clear(&repair->fs->err);
			continue;
		}
		if (rc)
			return rc;
		for (uint32_t item = 0; item < cluster.fields.item_count; item++)
			if (!vmfs_cluster_is_free(&cluster, item))
				fsck_set(repair->allocated,
					 (uint64_t)i * fdc->header.per_cluster + item);
	}
	return 0;
}

int repair_descriptors(struct repair *repair)
{
	int rc = read_allocated(repair);

	for (uint64_t i = 0; i < repair->fs->res[VMFS_RES_FDC].item_count && !rc; i++)
		rc = see_descriptor(repair, i);
	return rc;
}

/* ---- clusters ---- */

static uint32_t newest_generation(const struct repair *repair, const struct vmfs_cluster *cluster)
{
	uint64_t first = (uint64_t)cluster->number * cluster->res->header.per_cluster;
	uint32_t newest = cluster->fields.last_generation;

	for (uint32_t i = 0; i < cluster->fields.item_count; i++)
		newest = MAX(newest, repair->fds[first + i].generation);
	return newest;
}

/* What the cluster should say, into its fields. */
static void fill_cluster(const struct repair *repair, struct vmfs_cluster *cluster)
{
	struct vmfs_cluster5 *fields = &cluster->fields;
	const struct vmfs_res *res = cluster->res;
	uint64_t first = (uint64_t)cluster->number * res->header.per_cluster;

	fields->number = cluster->number;
	fields->item_count = (uint32_t)MIN(res->header.per_cluster, res->item_count - first);
	fields->free_count = 0;
	fields->first_free = 0;
	memset(fields->bitmap, 0, sizeof(fields->bitmap));
	for (uint32_t item = fields->item_count; item-- > 0;) {
		if (fsck_bit(repair->marks[res->kind], first + item))
			continue;
		fields->bitmap[item / 8] |= (uint8_t)(1 << item % 8);
		fields->first_free = item;
		fields->free_count++;
	}
	if (res->kind == VMFS_RES_FDC)
		fields->last_generation = newest_generation(repair, cluster);
}

static int see_cluster(struct repair *repair, struct vmfs_res *res, uint32_t number)
{
	struct vmfs *fs = repair->fs;
	uint32_t header_bytes = fs->geometry->cluster_header_bytes;
	struct vmfs_cluster cluster = { 0 };
	uint8_t before[VMFS_CLUSTER_HEADER_MAX];
	int rc = vmfs_cluster_read(res, number, &cluster);

	if (rc == -EUCLEAN && cluster.volume_offset &&
	    cluster.volume_offset % fs->info.file_block_bytes + header_bytes <=
		    fs->info.file_block_bytes) {
		err_clear(&fs->err);
		rc = vmfs_volume_read(fs, cluster.volume_offset, cluster.raw, header_bytes);
		memcpy(before, cluster.raw, header_bytes);
		if (cluster.lock.type != vmfs_res_lock_type(res->kind) ||
		    cluster.lock.volume_offset != cluster.volume_offset)
			fresh_lock(cluster.raw, vmfs_res_lock_type(res->kind), cluster.volume_offset);
	} else {
		memcpy(before, cluster.raw, header_bytes);
	}
	if (rc)
		return rc;
	free_lock(repair, cluster.raw, vmfs_res_name(res->kind), number);
	fill_cluster(repair, &cluster);
	vmfs_cluster5_encode(&cluster.fields, cluster.raw + VMFS_CLUSTER5_OFFSET);
	if (memcmp(before, cluster.raw, header_bytes) == 0)
		return 0;
	repair_mended(repair, "cluster %u of %s was written anew", number, vmfs_res_name(res->kind));
	return vmfs_volume_write(fs, cluster.volume_offset, cluster.raw, header_bytes);
}

int repair_clusters(struct repair *repair)
{
	for (unsigned kind = 0; kind < VMFS_RES_COUNT; kind++) {
		struct vmfs_res *res = &repair->fs->res[kind];

		for (uint32_t i = 0; res->node && i < res->cluster_count; i++) {
			int rc = see_cluster(repair, res, i);

			if (rc)
				return rc;
		}
		if (res->full)
			memset(res->full, 0, res->cluster_count / 8 + 1);
	}
	return 0;
}

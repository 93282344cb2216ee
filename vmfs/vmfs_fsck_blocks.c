/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_fsck_blocks.c - clusters, descriptors, pointers, and bitmaps against them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_fsck_private.h"
#include "vmfs/vmfs_lock.h"

/* ---- clusters ---- */

static void see_cluster(struct fsck *fsck, struct vmfs_res *res, const struct vmfs_cluster *cluster)
{
	uint64_t first = (uint64_t)cluster->number * res->header.per_cluster;
	uint32_t count = 0;

	for (uint32_t item = 0; item < VMFS_CLUSTER5_BITMAP_BYTES * 8; item++) {
		bool is_free = vmfs_cluster_is_free(cluster, item);

		if (item >= cluster->fields.item_count) {
			if (is_free) {
				fsck_found(fsck, VMFS_FOUND_CLUSTER,
					   "cluster %u of %s has free items beyond its %u",
					   cluster->number, vmfs_res_name(res->kind),
					   cluster->fields.item_count);
				break;
			}
			continue;
		}
		count += is_free;
		if (!is_free)
			fsck_set(fsck->allocated[res->kind], first + item);
	}
	if (count != cluster->fields.free_count)
		fsck_found(fsck, VMFS_FOUND_CLUSTER, "cluster %u of %s counts %u free items, and has %u",
			   cluster->number, vmfs_res_name(res->kind), cluster->fields.free_count, count);
}

static int see_lock(struct fsck *fsck, const uint8_t *bytes, const char *what, uint32_t number)
{
	struct vmfs_lock lock;
	struct err err;
	bool stale = false;
	int rc;

	vmfs_lock_decode(bytes, &lock);
	if (lock.mode == VMFS_LOCK_MODE_FREE)
		return 0;
	rc = fsck_take(fsck, VMFS_FOUND_LOCK, vmfs_lock_is_stale(fsck->fs, &lock, &stale, &err));
	if (!rc && stale)
		fsck_found(fsck, VMFS_FOUND_LOCK, "%s %#x is locked by a host that is gone", what,
			   number);
	return rc;
}

int fsck_clusters(struct fsck *fsck)
{
	for (unsigned kind = 0; kind < VMFS_RES_COUNT; kind++) {
		struct vmfs_res *res = &fsck->fs->res[kind];

		for (uint32_t i = 0; res->node && i < res->cluster_count; i++) {
			struct vmfs_cluster cluster;
			int rc = vmfs_cluster_read(res, i, &cluster);

			if (!rc) {
				see_cluster(fsck, res, &cluster);
				rc = see_lock(fsck, cluster.raw, vmfs_res_name(res->kind), i);
			}
			rc = fsck_take(fsck, VMFS_FOUND_CLUSTER, rc);
			if (rc)
				return rc;
		}
	}
	return 0;
}

/* ---- pointers ---- */

static const enum vmfs_res_kind res_of_type[] = {
	[VMFS_ADDR_FB] = VMFS_RES_FBB, [VMFS_ADDR_SB] = VMFS_RES_SBC, [VMFS_ADDR_PB] = VMFS_RES_PBC,
	[VMFS_ADDR_FD] = VMFS_RES_FDC, [VMFS_ADDR_PB2] = VMFS_RES_PB2,
};

/* False: it names nothing, or it is used already: do not follow it. */
static bool use_word(struct fsck *fsck, const struct vmfs_node *node, uint64_t word)
{
	struct vmfs *fs = fsck->fs;
	struct vmfs_addr addr;
	struct vmfs_res *res;
	uint64_t index;

	vmfs_addr_decode(&fs->addr, word, &addr);
	res = addr.type < ARRAY_COUNT(res_of_type) ? &fs->res[res_of_type[addr.type]] : NULL;
	index = addr.type == VMFS_ADDR_FB ? addr.block :
		res ? (uint64_t)addr.cluster * res->header.per_cluster + addr.item : 0;
	if (!res || addr.type == VMFS_ADDR_NONE || index >= res->item_count ||
	    (addr.type != VMFS_ADDR_FB && addr.item >= res->header.per_cluster)) {
		fsck_found(fsck, VMFS_FOUND_POINTER, "descriptor %#x points at %#llx, which is nothing",
			   node->address, (unsigned long long)word);
		return false;
	}
	if (!fsck_bit(fsck->allocated[res->kind], index))
		fsck_found(fsck, VMFS_FOUND_NOT_ALLOCATED,
			   "descriptor %#x uses item %llu of %s, which is free", node->address,
			   (unsigned long long)index, vmfs_res_name(res->kind));
	if (fsck_bit(fsck->used[res->kind], index)) {
		fsck_found(fsck, VMFS_FOUND_SHARED,
			   "descriptor %#x uses item %llu of %s, which is in use already",
			   node->address, (unsigned long long)index, vmfs_res_name(res->kind));
		return false;
	}
	fsck_set(fsck->used[res->kind], index);
	return true;
}

struct tally {
	uint64_t blocks, tbz;
};

/* The words for the data of a file. */
static void see_leaf(struct fsck *fsck, struct vmfs_node *node, const uint8_t *table, uint32_t count,
		     struct tally *tally)
{
	enum vmfs_addr_type wanted = node->fd.zla == VMFS_ZLA_SB ? VMFS_ADDR_SB : VMFS_ADDR_FB;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = vmfs_table_word(fsck->fs, table, i);
		struct vmfs_addr addr;

		if (word == 0)
			continue;
		vmfs_addr_decode(&fsck->fs->addr, word, &addr);
		if (addr.type != wanted) {
			fsck_found(fsck, VMFS_FOUND_POINTER,
				   "descriptor %#x points at %#llx, which is not of its kind",
				   node->address, (unsigned long long)word);
			continue;
		}
		use_word(fsck, node, word);
		tally->blocks++;
		tally->tbz += addr.type == VMFS_ADDR_FB && addr.tbz;
	}
}

/*
 * A table whose item was in use already is not followed: so a hostile volume is walked in a
 * time that is bounded by the number of its pointer blocks.
 */
static int see_table(struct fsck *fsck, struct vmfs_node *node, uint64_t word, unsigned depth,
		     struct tally *tally)
{
	struct vmfs *fs = fsck->fs;
	uint8_t table[VMFS_WINDOW_WORDS * 4], *cached;
	uint64_t place;
	int rc;

	if (!use_word(fsck, node, word))
		return 0;
	rc = vmfs_table_get(node, word, &cached, &place);
	if (rc)
		return fsck_take(fsck, VMFS_FOUND_POINTER, rc);
	memcpy(table, cached, sizeof(table));
	if (depth == 1) {
		see_leaf(fsck, node, table, VMFS_WINDOW_WORDS, tally);
		return 0;
	}
	for (uint32_t i = 0; i < VMFS_WINDOW_WORDS && !rc; i++)
		if (vmfs_table_word(fs, table, i))
			rc = see_table(fsck, node, vmfs_table_word(fs, table, i), depth - 1, tally);
	return rc;
}

static int see_pointers(struct fsck *fsck, struct vmfs_node *node)
{
	const struct vmfs_geometry *geometry = fsck->fs->geometry;
	unsigned depth = vmfs_map_depth(node->fd.zla);
	struct tally tally = { 0 };
	int rc = 0;

	if (node->fd.type == VMFS_TYPE_RDM || node->fd.zla == VMFS_ZLA_RESIDENT)
		return 0;
	if (depth == 0)
		see_leaf(fsck, node, node->raw + geometry->pointer_offset, geometry->pointer_count,
			 &tally);
	for (uint32_t i = 0; i < geometry->pointer_count && depth > 0 && !rc; i++)
		if (vmfs_node_pointer(node, i))
			rc = see_table(fsck, node, vmfs_node_pointer(node, i), depth, &tally);
	if (rc)
		return rc;
	if (tally.blocks != node->fd.block_count || tally.tbz != node->fd.tbz_count)
		fsck_found(fsck, VMFS_FOUND_COUNTS,
			   "descriptor %#x counts %llu blocks, %u to be zeroed, and has %llu and %llu",
			   node->address, (unsigned long long)node->fd.block_count, node->fd.tbz_count,
			   (unsigned long long)tally.blocks, (unsigned long long)tally.tbz);
	return 0;
}

/* ---- descriptors ---- */

static void note(struct fsck *fsck, const struct vmfs_node *node, uint64_t index)
{
	fsck->fds[index] = (struct fsck_fd){
		.generation = node->fd.generation,
		.link_count = node->fd.link_count,
		.type = (uint8_t)node->fd.type,
		.is_dir = vmfs_node_is_dir(node),
	};
}

static int see_descriptor(struct fsck *fsck, struct vmfs_node *node, uint64_t index)
{
	bool allocated = fsck_bit(fsck->allocated[VMFS_RES_FDC], index);
	struct vmfs_res *fdc = &fsck->fs->res[VMFS_RES_FDC];
	uint32_t cluster = (uint32_t)(index / fdc->header.per_cluster);
	uint32_t item = (uint32_t)(index % fdc->header.per_cluster);
	uint64_t place, room;
	int rc = vmfs_res_locate(fdc, cluster, item, &place, &room);

	if (!rc)
		rc = vmfs_node_load(fsck->fs, vmfs_fd_address(cluster, item), place, node);
	if (rc == -ENOENT) {
		if (allocated)
			fsck_found(fsck, VMFS_FOUND_LOST, "descriptor %#x is allocated, and empty",
				   vmfs_fd_address(cluster, item));
		return 0;
	}
	/* What stands in a free descriptor may be anything. */
	if (rc == -EUCLEAN && !allocated) {
		err_clear(&fsck->fs->err);
		return 0;
	}
	if (rc)
		return fsck_take(fsck, VMFS_FOUND_DESCRIPTOR, rc);
	if (!allocated)
		fsck_found(fsck, VMFS_FOUND_NOT_ALLOCATED, "descriptor %#x is in use, and free",
			   node->address);
	fsck_set(fsck->used[VMFS_RES_FDC], index);
	note(fsck, node, index);
	rc = see_lock(fsck, node->raw, "descriptor", node->address);
	return rc ? rc : see_pointers(fsck, node);
}

int fsck_descriptors(struct fsck *fsck)
{
	struct vmfs_node *node = calloc(1, sizeof(*node));
	int rc = node ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < fsck->fs->res[VMFS_RES_FDC].item_count && !rc; i++)
		rc = see_descriptor(fsck, node, i);
	free(node);
	return rc;
}

/* ---- bitmaps ---- */

int fsck_bitmaps(struct fsck *fsck)
{
	static const enum vmfs_res_kind kinds[] = { VMFS_RES_FBB, VMFS_RES_SBC, VMFS_RES_PBC,
						    VMFS_RES_PB2 };

	for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++) {
		const struct vmfs_res *res = &fsck->fs->res[kinds[k]];
		const uint8_t *allocated = fsck->allocated[kinds[k]], *used = fsck->used[kinds[k]];

		for (uint64_t i = 0; i < res->item_count; i++) {
			uint64_t first = i;

			while (i < res->item_count && fsck_bit(allocated, i) && !fsck_bit(used, i))
				i++;
			if (i > first)
				fsck_found(fsck, VMFS_FOUND_LOST,
					   "items %llu to %llu of %s are allocated, and nobody's",
					   (unsigned long long)first, (unsigned long long)i - 1,
					   vmfs_res_name(kinds[k]));
		}
	}
	return 0;
}

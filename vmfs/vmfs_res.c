/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_res.c - resource files: which items there are and where they stand.
 *
 *     header | group 0: cluster headers ... items of all its clusters | group 1: ...
 *
 * The header's numbers are judged once, when the volume is opened, and every place computed
 * from them later lies inside the file or is refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define GROUP_OFFSET_MAX (1u << 20)
#define CLUSTERS_PER_GROUP_MAX 1024u
#define CLUSTERS_MAX (1u << 22)         /* what an address can name */
#define DESCRIPTORS_MAX (1u << 20)      /* ESXi makes 130,690 at most */

static const struct {
	const char *name;
	enum vmfs_system_fd fd;
	enum vmfs_lock_type lock;
	enum vmfs_addr_type addr;
} kinds[VMFS_RES_COUNT] = {
	[VMFS_RES_FBB] = { ".fbb.sf", VMFS_FD_FBB, VMFS_LOCK_FBB, VMFS_ADDR_FB },
	[VMFS_RES_FDC] = { ".fdc.sf", VMFS_FD_FDC, VMFS_LOCK_FDC, VMFS_ADDR_FD },
	[VMFS_RES_PBC] = { ".pbc.sf", VMFS_FD_PBC, VMFS_LOCK_PBC, VMFS_ADDR_PB },
	[VMFS_RES_SBC] = { ".sbc.sf", VMFS_FD_SBC, VMFS_LOCK_SBC, VMFS_ADDR_SB },
	[VMFS_RES_PB2] = { ".pb2.sf", VMFS_FD_PB2, VMFS_LOCK_PB2, VMFS_ADDR_PB2 },
};

const char *vmfs_res_name(enum vmfs_res_kind kind)
{
	return kinds[kind].name;
}

enum vmfs_lock_type vmfs_res_lock_type(enum vmfs_res_kind kind)
{
	return kinds[kind].lock;
}

/* ---- judging the header ---- */

static uint32_t item_bytes_wanted(const struct vmfs *fs, enum vmfs_res_kind kind)
{
	switch (kind) {
	case VMFS_RES_FDC:
		return fs->geometry->fd_bytes;
	case VMFS_RES_SBC:
		return fs->info.sub_block_bytes;
	case VMFS_RES_PBC:
	case VMFS_RES_PB2:
		return fs->geometry->pointer_block_bytes;
	default:
		return 0;
	}
}

static uint32_t per_cluster_max(const struct vmfs_res *res)
{
	struct vmfs_addr addr = { .type = kinds[res->kind].addr };

	if (res->kind == VMFS_RES_FBB || res->fs->addr.wide)
		return VMFS_CLUSTER5_BITMAP_BYTES * 8;
	for (addr.item = 0; vmfs_addr_fits(&res->fs->addr, &addr); addr.item++)
		;
	return MIN(addr.item, VMFS_CLUSTER5_BITMAP_BYTES * 8);
}

static bool shape_is_sound(const struct vmfs_res *res)
{
	const struct vmfs_res_header *header = &res->header;
	uint64_t group = (uint64_t)header->clusters_per_group *
			 (res->fs->geometry->cluster_header_bytes +
			  (uint64_t)header->per_cluster * header->item_bytes);

	return header->per_cluster > 0 && header->per_cluster <= per_cluster_max(res) &&
	       header->clusters_per_group > 0 &&
	       header->clusters_per_group <= CLUSTERS_PER_GROUP_MAX &&
	       header->group_offset >= VMFS_SECTOR_BYTES &&
	       header->group_offset <= GROUP_OFFSET_MAX &&
	       header->group_offset % VMFS_SECTOR_BYTES == 0 &&
	       header->item_bytes == item_bytes_wanted(res->fs, res->kind) &&
	       header->group_bytes == group;
}

/* No more items than the file has room for, so that every place lies inside it. */
static bool count_is_sound(const struct vmfs_res *res)
{
	uint64_t clusters = div_round_up(res->item_count, res->header.per_cluster);
	uint64_t last, at;

	/* Whoever keeps something for each item (fsck) is bounded by the volume's real size. */
	if (clusters > CLUSTERS_MAX ||
	    res->item_count * res->header.item_bytes > res->fs->lv.size_bytes)
		return false;
	if (res->kind == VMFS_RES_FDC && (clusters > VMFS_FD_CLUSTERS_MAX ||
					  res->item_count > DESCRIPTORS_MAX))
		return false;
	if (res->kind == VMFS_RES_FBB)
		return res->item_count <= res->fs->file_block_count;
	if (res->item_count == 0)
		return true;
	last = res->item_count - 1;
	return vmfs_res_item_offset(res, (uint32_t)(last / res->header.per_cluster),
				    (uint32_t)(last % res->header.per_cluster), &at) == 0 &&
	       range_fits(at, res->header.item_bytes, res->node->fd.length);
}

static int judge(struct vmfs_res *res)
{
	struct vmfs *fs = res->fs;
	const char *name = kinds[res->kind].name;

	/* VMFS6's bitmap of blocks has two levels; only its numbers of blocks are looked at. */
	if (fs->addr.wide && res->kind == VMFS_RES_FBB)
		return 0;
	res->item_count = vmfs_res_item_count(&res->header);
	/* VMFS6 keeps its pointer blocks elsewhere and this file empty. */
	if (res->item_count == 0 && res->header.per_cluster == 0 && res->kind != VMFS_RES_FBB &&
	    res->kind != VMFS_RES_FDC)
		return 0;
	if (!shape_is_sound(res))
		return vmfs_damaged(fs, "the header of %s contradicts itself", name);
	res->cluster_count = (uint32_t)MIN(div_round_up(res->item_count, res->header.per_cluster),
					   UINT64_C(0xffffffff));
	if (!count_is_sound(res)) {
		res->cluster_count = 0;
		return vmfs_damaged(fs, "%s is said to hold %llu items, more than it can", name,
				    (unsigned long long)res->item_count);
	}
	res->full = calloc(1, res->cluster_count / 8 + 1);
	return res->full ? 0 : -ENOMEM;
}

int vmfs_res_open(struct vmfs *fs, enum vmfs_res_kind kind)
{
	struct vmfs_res *res = &fs->res[kind];
	uint8_t bytes[VMFS_RES_HEADER_BYTES];
	int rc;

	res->fs = fs;
	res->kind = kind;
	if (kind == VMFS_RES_PB2 && fs->geometry->version == 3)
		return 0;
	rc = vmfs_node_find(fs, vmfs_fd_address(0, kinds[kind].fd), &res->node);
	if (rc == -ENOENT)
		rc = vmfs_damaged(fs, "%s is missing", kinds[kind].name);
	if (rc)
		return rc;
	if (res->node->fd.type != VMFS_TYPE_SYSTEM || res->node->fd.zla == VMFS_ZLA_RESIDENT)
		return vmfs_damaged(fs, "%s is no system file", kinds[kind].name);
	if (res->node->fd.length < sizeof(bytes))
		return vmfs_damaged(fs, "%s has no header", kinds[kind].name);
	rc = vmfs_file_read(res->node, 0, bytes, sizeof(bytes));
	if (rc)
		return rc;
	vmfs_res_header_decode(bytes, &res->header);
	return judge(res);
}

void vmfs_res_close(struct vmfs_res *res)
{
	if (res->node)
		(void)vmfs_node_drop(res->node);        /* never unlinked: writes nothing */
	free(res->full);
}

/* ---- places ---- */

uint64_t vmfs_res_header_offset(const struct vmfs_res *res, uint32_t cluster)
{
	const struct vmfs_res_header *header = &res->header;

	return header->group_offset +
	       (uint64_t)(cluster / header->clusters_per_group) * header->group_bytes +
	       (uint64_t)(cluster % header->clusters_per_group) *
		       res->fs->geometry->cluster_header_bytes;
}

int vmfs_res_item_offset(const struct vmfs_res *res, uint32_t cluster, uint32_t item,
			 uint64_t *out)
{
	const struct vmfs_res_header *header = &res->header;
	uint64_t in_group;

	if (header->per_cluster == 0 || item >= header->per_cluster ||
	    (uint64_t)cluster * header->per_cluster + item >= res->item_count)
		return vmfs_damaged(res->fs, "%s has no item %u in a cluster %u",
				    kinds[res->kind].name, item, cluster);
	in_group = (uint64_t)(cluster % header->clusters_per_group) * header->per_cluster + item;
	*out = header->group_offset +
	       (uint64_t)(cluster / header->clusters_per_group) * header->group_bytes +
	       (uint64_t)header->clusters_per_group * res->fs->geometry->cluster_header_bytes +
	       in_group * header->item_bytes;
	return 0;
}

/* A stretch of the resource file as it lies in the volume. */
static int locate(struct vmfs_res *res, uint64_t offset, uint64_t len, uint64_t *offset_out,
		  uint64_t *len_out)
{
	struct vmfs_run run;
	int rc;

	if (!range_fits(offset, len, res->node->fd.length))
		return vmfs_damaged(res->fs, "%s ends before an item that it should hold",
				    kinds[res->kind].name);
	rc = vmfs_map_find(res->node, offset, len, &run);
	if (rc)
		return rc;
	if (run.kind != VMFS_RUN_DATA)
		return vmfs_damaged(res->fs, "%s has a hole", kinds[res->kind].name);
	*offset_out = run.volume_offset_bytes;
	*len_out = run.len_bytes;
	return 0;
}

int vmfs_res_locate(struct vmfs_res *res, uint32_t cluster, uint32_t item, uint64_t *offset_out,
		    uint64_t *len_out)
{
	uint64_t at;
	int rc = vmfs_res_item_offset(res, cluster, item, &at);

	return rc ? rc : locate(res, at, res->header.item_bytes, offset_out, len_out);
}

/* ---- clusters, VMFS3 and VMFS5 ---- */

bool vmfs_cluster_is_free(const struct vmfs_cluster *cluster, uint32_t item)
{
	return cluster->fields.bitmap[item / 8] >> item % 8 & 1;
}

static uint32_t items_in(const struct vmfs_res *res, uint32_t number)
{
	uint64_t left = res->item_count - (uint64_t)number * res->header.per_cluster;

	return (uint32_t)MIN(left, res->header.per_cluster);
}

static int judge_cluster(const struct vmfs_cluster *cluster)
{
	struct vmfs_res *res = cluster->res;
	const char *name = kinds[res->kind].name;

	if (cluster->lock.type != kinds[res->kind].lock ||
	    cluster->lock.volume_offset != cluster->volume_offset)
		return vmfs_damaged(res->fs, "cluster %u of %s has no valid lock block",
				    cluster->number, name);
	if (cluster->fields.number != cluster->number ||
	    cluster->fields.item_count != items_in(res, cluster->number))
		return vmfs_damaged(res->fs, "cluster %u of %s says that it is cluster %u of %u items",
				    cluster->number, name, cluster->fields.number,
				    cluster->fields.item_count);
	return 0;
}

int vmfs_cluster_read(struct vmfs_res *res, uint32_t number, struct vmfs_cluster *out)
{
	uint32_t header_bytes = res->fs->geometry->cluster_header_bytes;
	uint64_t room;
	int rc;

	CHECK(!res->fs->addr.wide);
	CHECK(number < res->cluster_count);
	out->res = res;
	out->number = number;
	rc = locate(res, vmfs_res_header_offset(res, number), header_bytes, &out->volume_offset, &room);
	if (!rc && room < header_bytes)
		rc = vmfs_damaged(res->fs, "cluster %u of %s spans blocks", number,
				  kinds[res->kind].name);
	if (!rc)
		rc = vmfs_volume_read(res->fs, out->volume_offset, out->raw, header_bytes);
	if (rc)
		return rc;
	vmfs_lock_decode(out->raw, &out->lock);
	vmfs_cluster5_decode(out->raw + VMFS_CLUSTER5_OFFSET, &out->fields);
	return judge_cluster(out);
}

/* ---- counting ---- */

static uint64_t header_free_count(const struct vmfs *fs, const uint8_t *raw)
{
	struct vmfs_cluster5 narrow;
	struct vmfs_cluster6 wide;

	if (fs->addr.wide) {
		vmfs_cluster6_decode(raw + fs->geometry->lock_bytes, &wide);
		return wide.magic == VMFS_CLUSTER6_MAGIC ? wide.free_count : 0;
	}
	vmfs_cluster5_decode(raw + VMFS_CLUSTER5_OFFSET, &narrow);
	return narrow.free_count;
}

/* The headers of a group stand side by side: one read for all of them. */
int vmfs_res_free_count(struct vmfs_res *res, uint64_t *out)
{
	uint32_t header_bytes = res->fs->geometry->cluster_header_bytes;
	uint32_t per_group = res->header.clusters_per_group;
	CLEANUP_FREE uint8_t *headers = NULL;
	uint64_t count = 0;

	*out = 0;
	if (!res->node || res->cluster_count == 0)
		return 0;
	headers = malloc((size_t)per_group * header_bytes);
	if (!headers)
		return -ENOMEM;
	for (uint32_t first = 0; first < res->cluster_count; first += per_group) {
		uint32_t clusters = MIN(per_group, res->cluster_count - first);
		int rc = vmfs_file_read(res->node, vmfs_res_header_offset(res, first), headers,
					(size_t)clusters * header_bytes);

		if (rc)
			return rc;
		for (uint32_t i = 0; i < clusters; i++)
			count += MIN(header_free_count(res->fs, headers + (size_t)i * header_bytes),
				     items_in(res, first + i));
	}
	*out = count;
	return 0;
}

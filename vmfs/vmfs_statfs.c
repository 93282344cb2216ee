/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_statfs.c - how much room there is. */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_private.h"

#define FBB6_SMALL_HEADER_OFFSET 0x1000u        /* the header of the bitmap of small blocks */
#define FBB6_CLUSTERS_PER_GROUP_MAX 1024u
#define FBB6_PER_CLUSTER_MAX 1024u

/*
 * VMFS6: .fbb.sf has clusters of large blocks, whose items are the clusters of small blocks.
 * That a cluster's free count is what it says is sure; which large blocks are free as a whole
 * is not known [?], so this counts the free small blocks of the clusters that exist.
 */
static int free_small_blocks6(struct vmfs *fs, uint64_t *out)
{
	const struct vmfs_res *fbb = &fs->res[VMFS_RES_FBB];
	const struct vmfs_res_header *large = &fbb->header;
	uint64_t clusters = div_round_up(fs->file_block_count, VMFS_SMALL_PER_LARGE);
	uint64_t per_group = (uint64_t)large->clusters_per_group * large->per_cluster;
	uint8_t raw[VMFS_CLUSTER_HEADER_MAX];
	struct vmfs_cluster6 cluster;

	*out = 0;
	if (large->clusters_per_group == 0 || large->per_cluster == 0 ||
	    large->clusters_per_group > FBB6_CLUSTERS_PER_GROUP_MAX ||
	    large->per_cluster > FBB6_PER_CLUSTER_MAX || large->item_bytes != sizeof(raw))
		return vmfs_damaged(fs, "the header of .fbb.sf contradicts itself");
	for (uint64_t i = 0; i < clusters; i++) {
		uint64_t at = large->group_offset + i / per_group * large->group_bytes +
			      (uint64_t)large->clusters_per_group * sizeof(raw) +
			      i % per_group * sizeof(raw);
		int rc;

		if (!range_fits(at, sizeof(raw), fbb->node->fd.length))
			return vmfs_damaged(fs, ".fbb.sf is too short");
		rc = vmfs_file_read(fbb->node, at, raw, sizeof(raw));
		if (rc)
			return rc;
		vmfs_cluster6_decode(raw + fs->geometry->lock_bytes, &cluster);
		if (cluster.magic == VMFS_CLUSTER6_MAGIC)
			*out += MIN(cluster.free_count, VMFS_SMALL_PER_LARGE);
	}
	return 0;
}

static int count(struct vmfs *fs, struct vmfs_space *out)
{
	uint64_t free_blocks;
	int rc = fs->addr.wide ? free_small_blocks6(fs, &free_blocks) :
				 vmfs_res_free_count(&fs->res[VMFS_RES_FBB], &free_blocks);

	if (rc)
		return rc;
	*out = (struct vmfs_space){
		.total_bytes = fs->file_block_count * fs->info.file_block_bytes,
		.free_bytes = free_blocks * fs->info.file_block_bytes,
		.files_total = fs->res[VMFS_RES_FDC].item_count,
		.sub_blocks_total = fs->res[VMFS_RES_SBC].item_count,
		.pointer_blocks_total = fs->res[VMFS_RES_PBC].item_count,
	};
	rc = vmfs_res_free_count(&fs->res[VMFS_RES_FDC], &out->files_free);
	if (!rc)
		rc = vmfs_res_free_count(&fs->res[VMFS_RES_SBC], &out->sub_blocks_free);
	if (!rc)
		rc = vmfs_res_free_count(&fs->res[VMFS_RES_PBC], &out->pointer_blocks_free);
	return rc;
}

int vmfs_statfs(struct vmfs *fs, struct vmfs_space *out, struct err *err)
{
	vmfs_begin(fs);
	return vmfs_answer(fs, count(fs, out), err);
}

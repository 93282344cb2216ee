/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_free.c - the end of a node: its last reference, and what a file without a name held.
 *
 * A file may hold more than one transaction gives back, so it is done in steps; until the last
 * one it stands in the journal's list of orphans, and a crash only interrupts it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmfs/vmfs_private.h"

static int give_contents(struct vmfs_node *node)
{
	if (node->fd.zla == VMFS_ZLA_RESIDENT || node->fd.type == VMFS_TYPE_RDM ||
	    !vmfs_node_has_pointers(node))
		return 0;
	return vmfs_file_drop(node, 0, vmfs_map_reach(node->fs, node->fd.zla), 0);
}

int vmfs_node_free(struct vmfs_node *node)
{
	struct vmfs *fs = node->fs;
	int rc = vmfs_may_write(fs);

	CHECK(node->fd.link_count == 0);
	if (!rc)
		rc = give_contents(node);
	if (rc)
		return rc;
	vmfs_txn_begin(fs);
	rc = vmfs_give_fd(fs, node->address);
	if (!rc)
		rc = vmfs_orphan_remove(fs, node->address);
	return vmfs_txn_end(fs, rc);
}

int vmfs_node_drop(struct vmfs_node *node)
{
	struct vmfs *fs = node->fs;
	int rc = 0;

	CHECK(node->refs > 0);
	if (--node->refs > 0)
		return 0;
	if (node->unlinked)
		rc = vmfs_node_free(node);
	if (fs->window->dir == node)
		vmfs_dir_forget(fs);
	list_remove(&node->link);
	free(node);
	return rc;
}

static int judge_taken(struct vmfs *fs, uint32_t address)
{
	struct vmfs_res *fdc = &fs->res[VMFS_RES_FDC];
	struct vmfs_cluster cluster;
	struct vmfs_addr addr;
	int rc;

	vmfs_addr_decode(&fs->addr, address, &addr);
	if (addr.type != VMFS_ADDR_FD || addr.cluster >= fdc->cluster_count ||
	    addr.item >= fdc->header.per_cluster)
		return -EEXIST;
	rc = vmfs_cluster_read(fdc, addr.cluster, &cluster);
	if (rc)
		return rc;
	return vmfs_cluster_is_free(&cluster, addr.item) ? -EEXIST : 0;
}

/* Is it what an orphan is: taken, of a known kind, and without a link?  -EEXIST: it is not. */
static int load_orphan(struct vmfs *fs, uint32_t address, struct vmfs_node *node)
{
	struct vmfs_lock lock;
	uint64_t place;
	int rc = judge_taken(fs, address);

	if (!rc)
		rc = vmfs_node_place(fs, address, &place);
	if (!rc)
		rc = vmfs_node_load(fs, address, place, node);
	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	vmfs_lock_decode(node->raw, &lock);
	node->fd.link_count = 1;
	rc = vmfs_node_judge(node, &lock);
	node->fd.link_count = 0;
	return rc;
}

static int forget_orphan(struct vmfs *fs, uint32_t address)
{
	err_clear(&fs->err);
	vmfs_txn_begin(fs);
	return vmfs_txn_end(fs, vmfs_orphan_remove(fs, address));
}

int vmfs_node_give_orphan(struct vmfs *fs, uint32_t address)
{
	struct vmfs_node *node = calloc(1, sizeof(*node));
	int rc = node ? load_orphan(fs, address, node) : -ENOMEM;

	/* Damaged, or in use again: fsck's business. */
	if (rc == -EUCLEAN || rc == -EEXIST) {
		free(node);
		return forget_orphan(fs, address);
	}
	if (rc) {
		free(node);
		return rc;
	}
	node->refs = 1;
	node->unlinked = true;
	list_prepend(&fs->nodes, &node->link);
	rc = vmfs_node_drop(node);
	return rc == -EUCLEAN ? forget_orphan(fs, address) : rc;
}

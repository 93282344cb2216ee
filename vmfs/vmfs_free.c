/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_free.c - the end of a node: its last reference, and what a file without a name held.
 *
 * The descriptor says link count 0 durably before anything is given back; its pointers stay as
 * they are, as ESXi leaves them: nobody follows them any more.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmfs/vmfs_private.h"

/* All words of one window, and its tables. */
static int give_window(struct vmfs_window *window)
{
	uint64_t tables[1] = { window->leaf_word };
	int rc = vmfs_give_words(window->node->fs, window->words, window->count);

	return rc || window->depth == 0 ? rc : vmfs_give_words(window->node->fs, tables, 1);
}

/* The span of a hole that one missing pointer of the descriptor leaves. */
static uint64_t top_span(const struct vmfs_node *node)
{
	uint64_t per = vmfs_words_per_table(node->fs), span = 1;

	for (unsigned depth = vmfs_map_depth(node->fd.zla); depth > 0; depth--)
		span *= per;
	return span;
}

static int give_under(struct vmfs_node *node, uint32_t top)
{
	uint64_t span = top_span(node), block = top * span;
	uint64_t upper[1] = { vmfs_node_pointer(node, top) };
	struct vmfs_window window;

	if (!upper[0])
		return 0;
	while (block < (top + 1) * span) {
		struct vmfs_leaf leaf;
		int rc = vmfs_map_leaf(node, block, &leaf);

		if (!rc && !leaf.table) {
			block += leaf.count;
			continue;
		}
		if (!rc)
			rc = vmfs_window_load(node, block, &window);
		if (!rc)
			rc = give_window(&window);
		if (rc)
			return rc;
		block = window.first_block + window.count;
	}
	return vmfs_map_depth(node->fd.zla) == 2 ? vmfs_give_words(node->fs, upper, 1) : 0;
}

static int give_contents(struct vmfs_node *node)
{
	struct vmfs_window window;
	int rc = 0;

	if (node->fd.zla == VMFS_ZLA_RESIDENT || node->fd.type == VMFS_TYPE_RDM)
		return 0;
	if (vmfs_map_depth(node->fd.zla) == 0) {
		rc = vmfs_window_load(node, 0, &window);
		return rc ? rc : give_window(&window);
	}
	for (uint32_t top = 0; top < node->fs->geometry->pointer_count && !rc; top++)
		rc = give_under(node, top);
	return rc;
}

int vmfs_node_free(struct vmfs_node *node)
{
	struct vmfs *fs = node->fs;
	int rc = vmfs_may_write(fs);

	CHECK(node->fd.link_count == 0);
	if (!rc)
		rc = vmfs_barrier(fs);  /* VO3 */
	if (!rc)
		rc = give_contents(node);
	return rc ? rc : vmfs_give_fd(fs, node->address);
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

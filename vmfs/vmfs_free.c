/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "vmfs/vmfs_private.h"

int vmfs_node_drop(struct vmfs_node *node)
{
	CHECK(node->refs > 0);
	if (--node->refs > 0)
		return 0;
	if (node->fs->window->dir == node)
		vmfs_dir_forget(node->fs);
	list_remove(&node->link);
	free(node);
	return 0;
}

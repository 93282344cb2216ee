/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_repair_private.h - what the passes of a repair share.
 *
 * A repair finds out for itself what the descriptors use and the folders name, and makes the rest
 * agree; the check before and after it is another judge.  The order of passes:
 *
 *   system       the resource files must be whole and apart from each other, else nothing is done
 *   descriptors  what is none becomes a free one; pointers to nothing become holes
 *   clusters     bitmaps as the descriptors want them: from here on items can be taken
 *   shared       the second user of an item gets a copy of its own
 *   tree         entries that name nothing go; what has no name gets one in "lost+found"
 *   links        link counts as the entries want them
 */
#ifndef BM_VMFS_REPAIR_PRIVATE_H
#define BM_VMFS_REPAIR_PRIVATE_H

#include "vmfs/vmfs_fsck_private.h"

struct repair {
	struct vmfs *fs;
	void (*mended)(const char *text, void *user);
	void *user;
	uint64_t mended_count;
	uint8_t *allocated;             /* descriptors, as the bitmaps had it */
	uint8_t *marks[VMFS_RES_COUNT]; /* items claimed in this pass */
	uint8_t *shares;                /* descriptors that point at what another one has */
	struct fsck_fd *fds;
};

/* Tell of a change, before or after it is made. */
void repair_mended(struct repair *repair, const char *format, ...) PRINTF_LIKE(2, 3);

/* File blocks at the start of the volume, .vh.sf's, whatever it says. */
static inline uint64_t repair_header_blocks(const struct vmfs *fs)
{
	return fs->geometry->hb_end / fs->info.file_block_bytes;
}

int repair_system(struct repair *repair);               /* vmfs_repair_pointers.c */
int repair_pointers(struct repair *repair, struct vmfs_node *node, uint64_t index);
int repair_shared(struct repair *repair);
int repair_descriptors(struct repair *repair);          /* vmfs_repair_blocks.c */
int repair_clusters(struct repair *repair);
int repair_tree(struct repair *repair);                 /* vmfs_repair_tree.c */
int repair_links(struct repair *repair);

/* A node's descriptor and pointers are for this pass alone: drop it without a further thought. */
static inline void repair_drop(struct vmfs_node *node)
{
	(void)vmfs_node_drop(node);     /* never unlinked: writes nothing */
}

#endif

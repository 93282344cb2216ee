/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_fsck_private.h - what the passes of the check share. */
#ifndef BM_VMFS_FSCK_PRIVATE_H
#define BM_VMFS_FSCK_PRIVATE_H

#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_private.h"

struct fsck_fd {
	uint32_t generation;
	uint32_t link_count;            /* as the descriptor tells it */
	uint32_t names;                 /* entries found that name it, "." and ".." aside */
	uint32_t inner;                 /* repair: folders without a name that name it */
	uint8_t type;                   /* 0: not to be used */
	bool is_dir, visited;
};

struct fsck {
	struct vmfs *fs;
	void (*report)(const struct vmfs_finding *finding, void *user);
	void *user;
	struct vmfs_fsck_result result;
	uint8_t *allocated[VMFS_RES_COUNT];     /* bit per item, from the bitmaps */
	uint8_t *used[VMFS_RES_COUNT];          /* from the descriptors */
	struct fsck_fd *fds;
};

void fsck_found(struct fsck *fsck, enum vmfs_finding_kind kind, const char *format, ...)
	PRINTF_LIKE(3, 4);
/*
 * What an inner function answered: damage is a finding (with its own sentence) and the check
 * goes on, 0; everything else ends the check.
 */
int fsck_take(struct fsck *fsck, enum vmfs_finding_kind kind, int rc);

static inline bool fsck_bit(const uint8_t *bits, uint64_t index)
{
	return bits[index / 8] >> index % 8 & 1;
}

static inline void fsck_set(uint8_t *bits, uint64_t index)
{
	bits[index / 8] |= (uint8_t)(1 << index % 8);
}

/* Which descriptor an address names; false: none that there is. */
bool fsck_index_of(const struct vmfs *fs, uint32_t address, uint64_t *out);
uint32_t fsck_address_of(const struct vmfs *fs, uint64_t index);
/* "." ".fbb.sf" ...: the name in the root of the system's own descriptors; NULL: it is a user's. */
const char *fsck_system_name(const struct vmfs *fs, uint64_t index);
/* May an entry of that folder have this name, for what it names? */
bool fsck_name_fits(const struct vmfs *fs, bool in_root, const char *name, uint64_t index);

int fsck_clusters(struct fsck *fsck);           /* vmfs_fsck_blocks.c */
int fsck_descriptors(struct fsck *fsck);
int fsck_bitmaps(struct fsck *fsck);
int fsck_tree(struct fsck *fsck);               /* vmfs_fsck_tree.c */
int fsck_links(struct fsck *fsck);

#endif

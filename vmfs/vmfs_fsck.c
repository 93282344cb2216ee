/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_fsck.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmfs/vmfs_fsck_private.h"
#include "vmfs/vmfs_lock.h"

const char *vmfs_finding_name(enum vmfs_finding_kind kind)
{
	static const char *const names[VMFS_FOUND_KINDS] = {
		[VMFS_FOUND_CLUSTER] = "bad clusters",
		[VMFS_FOUND_DESCRIPTOR] = "bad descriptors",
		[VMFS_FOUND_POINTER] = "bad pointers",
		[VMFS_FOUND_SHARED] = "shared blocks",
		[VMFS_FOUND_NOT_ALLOCATED] = "used but free",
		[VMFS_FOUND_LOST] = "lost",
		[VMFS_FOUND_ORPHAN] = "orphans",
		[VMFS_FOUND_DANGLING] = "dangling names",
		[VMFS_FOUND_ENTRY] = "bad entries",
		[VMFS_FOUND_DOTS] = "bad dots",
		[VMFS_FOUND_LINKS] = "wrong link counts",
		[VMFS_FOUND_COUNTS] = "wrong block counts",
		[VMFS_FOUND_HEARTBEAT] = "bad heartbeats",
		[VMFS_FOUND_LOCK] = "stale locks",
	};

	return names[kind];
}

void fsck_found(struct fsck *fsck, enum vmfs_finding_kind kind, const char *format, ...)
{
	struct vmfs_finding finding = { .kind = kind };
	va_list args;

	fsck->result.found[kind]++;
	fsck->result.total++;
	if (!fsck->report)
		return;
	va_start(args, format);
	vsnprintf(finding.text, sizeof(finding.text), format, args);
	va_end(args);
	fsck->report(&finding, fsck->user);
}

int fsck_take(struct fsck *fsck, enum vmfs_finding_kind kind, int rc)
{
	if (rc != -EUCLEAN)
		return rc;
	fsck_found(fsck, kind, "%.190s", fsck->fs->err.cause);
	err_clear(&fsck->fs->err);
	return 0;
}

static int allocate(struct fsck *fsck)
{
	for (unsigned i = 0; i < VMFS_RES_COUNT; i++) {
		size_t bytes = fsck->fs->res[i].item_count / 8 + 1;

		fsck->allocated[i] = calloc(1, bytes);
		fsck->used[i] = calloc(1, bytes);
		if (!fsck->allocated[i] || !fsck->used[i])
			return -ENOMEM;
	}
	fsck->fds = calloc(fsck->fs->res[VMFS_RES_FDC].item_count + 1, sizeof(fsck->fds[0]));
	return fsck->fds ? 0 : -ENOMEM;
}

static void release(struct fsck *fsck)
{
	for (unsigned i = 0; i < VMFS_RES_COUNT; i++) {
		free(fsck->allocated[i]);
		free(fsck->used[i]);
	}
	free(fsck->fds);
}

/* A host's journal is a file block that belongs to no file. */
static void see_slot(uint32_t index UNUSED, const struct vmfs_heartbeat *slot, void *user)
{
	struct fsck *fsck = user;
	struct vmfs *fs = fsck->fs;
	uint64_t block = slot->journal_offset / fs->info.file_block_bytes;

	fsck->result.hosts++;
	if (slot->journal_offset && block < fs->res[VMFS_RES_FBB].item_count)
		fsck_set(fsck->used[VMFS_RES_FBB], block);
}

static int heartbeats(struct fsck *fsck)
{
	struct vmfs_heartbeat slot;
	uint32_t count = vmfs_heartbeat_count(fsck->fs);
	struct err err;

	for (uint32_t i = 0; i < count; i++) {
		int rc = vmfs_heartbeat_read(fsck->fs, i, &slot, &err);

		if (!rc && slot.state != VMFS_HB_FREE)
			see_slot(i, &slot, fsck);
		rc = fsck_take(fsck, VMFS_FOUND_HEARTBEAT, rc);
		if (rc)
			return rc;
	}
	return 0;
}

static int check(struct fsck *fsck)
{
	int rc = allocate(fsck);

	if (!rc)
		rc = heartbeats(fsck);
	if (!rc)
		rc = fsck_clusters(fsck);
	if (!rc)
		rc = fsck_descriptors(fsck);
	if (!rc)
		rc = fsck_tree(fsck);
	if (!rc)
		rc = fsck_links(fsck);
	return rc ? rc : fsck_bitmaps(fsck);
}

int vmfs_fsck(struct vmfs *fs, void (*report)(const struct vmfs_finding *finding, void *user),
	      void *user, struct vmfs_fsck_result *result_out, struct err *err)
{
	struct fsck fsck = { .fs = fs, .report = report, .user = user };
	int rc;

	vmfs_begin(fs);
	if (fs->addr.wide)
		return vmfs_answer(fs, vmfs_fail(fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
						 "VMFS6 volumes cannot be checked"), err);
	rc = check(&fsck);
	release(&fsck);
	if (!rc)
		*result_out = fsck.result;
	return vmfs_answer(fs, rc, err);
}

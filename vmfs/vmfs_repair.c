/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_repair.c - a repair from its first check to its last. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmfs/vmfs_repair_private.h"

void repair_mended(struct repair *repair, const char *format, ...)
{
	char text[200];
	va_list args;

	repair->mended_count++;
	if (!repair->mended)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	repair->mended(text, repair->user);
}

static int allocate(struct repair *repair)
{
	const struct vmfs_res *res = repair->fs->res;
	size_t fd_bits = res[VMFS_RES_FDC].item_count / 8 + 1;

	for (unsigned i = 0; i < VMFS_RES_COUNT; i++) {
		repair->marks[i] = calloc(1, res[i].item_count / 8 + 1);
		if (!repair->marks[i])
			return -ENOMEM;
	}
	repair->allocated = calloc(1, fd_bits);
	repair->shares = calloc(1, fd_bits);
	repair->fds = calloc(res[VMFS_RES_FDC].item_count + 1, sizeof(repair->fds[0]));
	return repair->allocated && repair->shares && repair->fds ? 0 : -ENOMEM;
}

static void release(struct repair *repair)
{
	for (unsigned i = 0; i < VMFS_RES_COUNT; i++)
		free(repair->marks[i]);
	free(repair->allocated);
	free(repair->shares);
	free(repair->fds);
}

/* What the opening has done for us already. */
static int tell_of_slots(struct repair *repair)
{
	struct vmfs *fs = repair->fs;

	if (fs->slots_mended)
		repair_mended(repair, "heartbeats that contradicted themselves were freed: %u",
			      fs->slots_mended);
	if (fs->slots_freed)
		repair_mended(repair, "heartbeats that stood still were freed: %u", fs->slots_freed);
	if (fs->journals_dropped)
		repair_mended(repair, "journals of another kind that were not carried out: %u",
			      fs->journals_dropped);
	fs->slots_mended = fs->slots_freed = fs->journals_dropped = 0;
	return 0;
}

static int run(struct repair *repair)
{
	static int (*const passes[])(struct repair *repair) = {
		repair_system, tell_of_slots, repair_descriptors, repair_clusters, repair_shared,
		repair_tree, repair_links,
	};
	int rc = allocate(repair);

	for (unsigned i = 0; i < ARRAY_COUNT(passes) && !rc; i++) {
		rc = passes[i](repair);
		vmfs_table_forget_all(repair->fs);
		vmfs_dir_forget(repair->fs);
	}
	release(repair);
	return rc ? rc : vmfs_barrier(repair->fs);
}

int vmfs_repair(struct vmfs *fs, const struct vmfs_repair_calls *calls, void *user,
		struct vmfs_repair_result *out, struct err *err)
{
	struct repair repair = { .fs = fs, .mended = calls->mended, .user = user };
	int rc;

	*out = (struct vmfs_repair_result){ 0 };
	vmfs_begin(fs);
	rc = vmfs_may_write(fs);
	if (rc)
		return vmfs_answer(fs, rc, err);
	rc = vmfs_fsck(fs, calls->found, user, &out->before, err);
	if (rc)
		return rc;
	out->after = out->before;
	if (out->before.total == 0) {
		rc = tell_of_slots(&repair);
	} else {
		vmfs_begin(fs);
		rc = vmfs_answer(fs, run(&repair), err);
		out->mended = repair.mended_count;
		if (rc)
			return rc;
		rc = vmfs_fsck(fs, calls->left, user, &out->after, err);
	}
	out->mended = repair.mended_count;
	return rc;
}

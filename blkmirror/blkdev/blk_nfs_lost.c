/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nfs_lost.c - a connection of the device is lost, or the lease has lapsed: all are closed, the
 * calls that were under way wait as unsettled, nothing is sent, and a recovery begins
 * (nfs_recovery.h).  When it has ended they are sent again (source), or fail (target).
 */
#include <errno.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_nfs_private.h"

void blk_nfs_drop_links(struct blk_nfs *nfs)
{
	for (unsigned i = 0; i < nfs->links->count; i++) {
		watch_stop(&nfs->connections[i].watch);
		nfs_link_close(nfs->connections[i].link);
	}
}

void blk_nfs_tell(struct blk_nfs *nfs, bool connected)
{
	if (nfs->told)
		nfs->told(nfs->user, connected);
}

static void blk_nfs_die(struct blk_nfs *nfs, const char *why)
{
	struct list *node;

	nfs->dead = true;
	nfs->dev.lost = true;
	blk_nfs_drop_links(nfs);
	while ((node = list_pop(&nfs->unsettled))) {
		list_entry(node, struct call, node)->result = -EIO;
		list_append(&nfs->answered, node);
	}
	if (!list_is_empty(&nfs->answered) || !list_is_empty(&nfs->waiting))
		loop_at_turn_end(nfs->dev.loop, &nfs->settle_hook);
	log_warn("nfs", "%s: %s", nfs->links->name, why);
}

static bool has_unsettled_writes(const struct blk_nfs *nfs)
{
	list_for_each (node, &nfs->unsettled) {
		const struct blk_req *req = list_entry(node, struct call, node)->req;

		if (req && blk_op_writes(req->op))
			return true;
	}
	return false;
}

/* What was under way: sent again, behind the barrier, or told to have failed, now that it has. */
static void unsettled_resume(struct blk_nfs *nfs)
{
	struct list unsettled, *node;

	list_init(&unsettled);
	list_splice(&unsettled, &nfs->unsettled);
	while ((node = list_pop(&unsettled))) {
		struct call *call = list_entry(node, struct call, node);

		call->unsettled = false;
		if (nfs->role == BLK_NFS_SOURCE) {
			call->done_bytes = 0;
			nfs_call_start(call);
		} else {
			call->result = -EIO;
			list_append(&nfs->answered, &call->node);
		}
	}
}

static void blk_nfs_recovered(void *user, struct nfs_recovered *result)
{
	struct blk_nfs *nfs = user;

	nfs->recovery = NULL;
	nfs->must_recover = false;
	blk_nfs_tell(nfs, true);
	if (result->rc) {
		blk_nfs_die(nfs, result->rc == -ESTALE ? "the file is gone"
						       : "the lock is lost to another host");
		blk_nfs_settle(nfs);
		return;
	}
	for (unsigned i = 0; i < nfs->links->count; i++) {
		nfs->links->links[i] = result->links[i];
		result->links[i] = (struct nfs_link){ .fd = -1, .dead = true };
	}
	/* M14: a target learns from its next flush that writes were lost. */
	if (nfs->role == BLK_NFS_SOURCE || !nfs->has_verifier) {
		nfs->has_verifier = result->has_verifier;
		memcpy(nfs->verifier, result->verifier, sizeof(nfs->verifier));
	} else if (result->has_verifier) {
		nfs_verifier_note(nfs, result->verifier);
	}
	if (blk_nfs_watch_all(nfs)) {
		blk_nfs_die(nfs, "out of memory");
		blk_nfs_settle(nfs);
		return;
	}
	log_info("nfs", "%s: connected again", nfs->links->name);
	unsettled_resume(nfs);
	if (nfs->role == BLK_NFS_TARGET)
		blk_nfs_fail_waiting(nfs);
	blk_nfs_settle(nfs);
}

void blk_nfs_lose(struct blk_nfs *nfs)
{
	struct nfs_recovery_spec spec = {
		.port = nfs->links->port,
		.file = nfs->links->file,
		.write_bytes = nfs->links->limits.write_bytes,
		.link_count = nfs->links->count,
		.read_only = nfs->dev.limits.read_only,
		.has_verifier = nfs->has_verifier,
		.lost_at_ns = dial_clock_ns(),
		.name = nfs->links->name,
	};
	struct list answered, *node;

	if (nfs->role == BLK_NFS_PLAIN) {
		blk_nfs_die(nfs, "connection lost");
		return;
	}
	nfs->must_recover = true;
	blk_nfs_drop_links(nfs);
	list_init(&answered);
	list_splice(&answered, &nfs->answered);
	while ((node = list_pop(&answered)))
		nfs_call_settle(nfs, list_entry(node, struct call, node));
	memcpy(spec.host, nfs->links->host, sizeof(spec.host));
	memcpy(spec.verifier, nfs->verifier, sizeof(spec.verifier));
	spec.needs_barrier = has_unsettled_writes(nfs);
	if (spec.needs_barrier && nfs->unsettled_until_ns)
		*nfs->unsettled_until_ns = fence_clock_ns() + NFS_QUARANTINE_WIRE_NS +
					   NFS_QUARANTINE_SERVER_NS;
	/* They are committed when the recovery has ended. */
	list_for_each (kept, &nfs->kept)
		nfs->kept_bytes -= list_entry(kept, struct nfs_kept, node)->len_bytes;
	nfs->done_bytes = 0;
	log_warn("nfs", "%s: connection lost", nfs->links->name);
	blk_nfs_tell(nfs, false);
	if (nfs_recovery_start(nfs->dev.loop, &spec, nfs->fence, &nfs->kept, blk_nfs_recovered, nfs,
			       &nfs->recovery)) {
		blk_nfs_tell(nfs, true);
		blk_nfs_die(nfs, "no thread to connect again");
	}
	if (!list_is_empty(&nfs->over))
		loop_at_turn_end(nfs->dev.loop, &nfs->settle_hook);
}

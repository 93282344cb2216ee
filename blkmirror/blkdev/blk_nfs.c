/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nfs.c - the device: requests become calls, at most CALLS at a time.
 *
 *   submit -> waiting -> send (a call per piece) -> libnfs -> answered -> settle -> done
 *
 * Requests take turns, one call each, so that one of a terabyte does not keep a guest's 4 KiB
 * waiting.  libnfs answers from inside its service call: its callbacks copy what was read and
 * note the answer; settle() carries on from there, so done() never runs inside submit.
 *
 * A lost connection: all of them are closed, the calls that were under way wait as unsettled,
 * nothing is sent, and a recovery (nfs_recovery.h) begins.  When it has ended they are sent again
 * (source) or fail (target).
 *
 * The write verifier: each answer to an UNSTABLE write names the server's life that has it.  All
 * writes since the last good COMMIT must name one and the same, and COMMIT must name it too.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nfs_private.h"

#define BEST_TRANSFER_BYTES (1u << 20)
#define BLOCK_BYTES 512u
#define PHYSICAL_BYTES 4096u
/* M14: what a source keeps until a COMMIT, and from when on one is sent without being asked. */
#define KEPT_BYTES_MAX (UINT64_C(32) << 20)
#define COMMIT_BYTES (UINT64_C(8) << 20)

_Static_assert(BLK_NFS_CONNECTIONS_MAX <= NFS_LINKS_MAX, "a recovery can make them all");

/* One call of the request; there is an idle one. */
static void request_send_one(struct blk_nfs *nfs, struct blk_req *req)
{
	struct call *call = list_entry(list_pop(&nfs->idle), struct call, node);
	struct progress *progress = progress_of(req);
	uint32_t most_bytes = req->op == BLK_READ ? nfs->links->limits.read_bytes
						  : nfs->links->limits.write_bytes;

	call->req = req;
	call->offset_bytes = progress->next_bytes;
	call->len_bytes = (uint32_t)MIN(progress->end_bytes - progress->next_bytes, most_bytes);
	call->done_bytes = 0;
	call->kept = NULL;
	progress->next_bytes += call->len_bytes;
	progress->commit = false;
	progress->in_flight++;
	nfs_call_start(call);
}

static void blk_nfs_follow_events(struct blk_nfs *nfs)
{
	for (unsigned i = 0; i < nfs->links->count && !nfs->dead; i++) {
		int events = nfs_link_events(nfs->connections[i].link);

		watch_set_events(&nfs->connections[i].watch,
				 (events & POLLIN ? WATCH_READ : 0) |
				 (events & POLLOUT ? WATCH_WRITE : 0));
	}
}

/* M14: memory for what a server may lose is bounded. */
static bool may_keep(const struct blk_nfs *nfs, const struct blk_req *req)
{
	return nfs->role != BLK_NFS_SOURCE || !blk_op_writes(req->op) ||
	       nfs->kept_bytes + nfs->links->limits.write_bytes <= KEPT_BYTES_MAX;
}

static void commit_unasked(struct blk_nfs *nfs)
{
	if (nfs->committing || nfs->done_bytes < COMMIT_BYTES)
		return;
	nfs->committing = true;
	nfs->own_commit = (struct call){ .nfs = nfs };
	list_init(&nfs->own_commit.node);
	nfs_call_start(&nfs->own_commit);
}

static bool blk_nfs_may_send(const struct blk_nfs *nfs)
{
	return !nfs->dead && !nfs->recovery && !nfs->must_recover;
}

/* Sends what may be sent, one call of each request in turn. */
static void blk_nfs_pump(struct blk_nfs *nfs)
{
	if (blk_nfs_may_send(nfs) && !list_is_empty(&nfs->waiting) && !fence_is_open(nfs->fence))
		blk_nfs_lose(nfs);      /* R-F1 */
	if (blk_nfs_may_send(nfs))
		commit_unasked(nfs);
	while (blk_nfs_may_send(nfs) && !list_is_empty(&nfs->waiting) &&
	       !list_is_empty(&nfs->idle)) {
		struct blk_req *req = list_entry(nfs->waiting.next, struct blk_req, node);

		if (!may_keep(nfs, req))
			break;          /* until the COMMIT that is under way */
		list_remove(&req->node);
		request_send_one(nfs, req);
		if (has_more_to_send(req))
			list_append(&nfs->waiting, &req->node);
	}
	if (blk_nfs_may_send(nfs))
		blk_nfs_follow_events(nfs);
}

/* ---- settling ---- */

static void request_maybe_over(struct blk_nfs *nfs, struct blk_req *req)
{
	if (!progress_of(req)->in_flight && !has_more_to_send(req))
		list_append(&nfs->over, &req->node);
}

/* SOURCE: what was written is kept until it is committed; what was refused is not. */
static void kept_settle(struct blk_nfs *nfs, struct call *call)
{
	struct nfs_kept *kept = call->kept;

	call->kept = NULL;
	if (!kept)
		return;
	if (call->result) {
		nfs->kept_bytes -= kept->len_bytes;
		free(kept);
		return;
	}
	kept->epoch = nfs->epoch;
	nfs->done_bytes += kept->len_bytes;
	list_append(&nfs->kept, &kept->node);
}

void nfs_call_settle(struct blk_nfs *nfs, struct call *call)
{
	struct blk_req *req = call->req;
	struct progress *progress;

	if (call->unsettled && !nfs->dead) {
		list_append(&nfs->unsettled, &call->node);
		return;
	}
	if (call->unsettled)
		call->result = -EIO;
	if (!req) {
		nfs->committing = false;
		return;
	}
	progress = progress_of(req);
	if (!call->result && call->done_bytes < call->len_bytes) {
		if (blk_nfs_may_send(nfs) && fence_is_open(nfs->fence)) {
			nfs_call_start(call);       /* a short answer: the rest */
			return;
		}
		if (!nfs->dead && nfs->role != BLK_NFS_PLAIN) {
			nfs_call_must_recover(call);
			list_append(&nfs->unsettled, &call->node);
			return;
		}
		call->result = -EIO;
	}
	kept_settle(nfs, call);
	list_append(&nfs->idle, &call->node);
	progress->in_flight--;
	if (call->result && !progress->error) {
		progress->error = call->result;
		list_remove(&req->node);        /* nothing more is sent of it */
	}
	request_maybe_over(nfs, req);
}

void blk_nfs_fail_waiting(struct blk_nfs *nfs)
{
	struct list *node;

	while ((node = list_pop(&nfs->waiting))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		if (!progress_of(req)->error)
			progress_of(req)->error = -EIO;
		request_maybe_over(nfs, req);
	}
}

void blk_nfs_settle(struct blk_nfs *nfs)
{
	struct list answered, over, *node;

	list_init(&answered);
	list_splice(&answered, &nfs->answered);
	while ((node = list_pop(&answered)))
		nfs_call_settle(nfs, list_entry(node, struct call, node));
	if (nfs->must_recover && !nfs->recovery && !nfs->dead)
		blk_nfs_lose(nfs);
	if (nfs->dead)
		blk_nfs_fail_waiting(nfs);
	list_init(&over);
	list_splice(&over, &nfs->over);
	blk_nfs_pump(nfs);
	while ((node = list_pop(&over))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		/* The owner may close the device from the last one: touch it no more. */
		blk_complete(req, progress_of(req)->error);
	}
}

static void blk_nfs_settle_late(struct turn_hook *hook)
{
	blk_nfs_settle(container_of(hook, struct blk_nfs, settle_hook));
}

/* ---- the device ---- */

static void connection_ready(struct watch *watch, unsigned events)
{
	struct connection *connection = container_of(watch, struct connection, watch);
	struct blk_nfs *nfs = connection->nfs;
	int served = (events & WATCH_READ ? POLLIN : 0) | (events & WATCH_WRITE ? POLLOUT : 0) |
		     (events & WATCH_HANGUP ? POLLHUP : 0);

	/* R-F1: what was queued in time must not be sent too late. */
	if ((events & WATCH_WRITE && !fence_is_open(nfs->fence)) ||
	    nfs_link_service(connection->link, served))
		nfs->must_recover = true;
	blk_nfs_settle(nfs);
}

static void blk_nfs_submit(struct blk_dev *dev, struct blk_req *req)
{
	struct blk_nfs *nfs = container_of(dev, struct blk_nfs, dev);
	struct progress *progress = progress_of(req);

	if (nfs->dead) {
		blk_complete_later(req, -EIO);
		return;
	}
	if (req->op == BLK_DISCARD) {
		blk_complete_later(req, 0);     /* only a hint */
		return;
	}
	if (req->op == BLK_EXTENTS) {
		req->extents->runs[0] = (struct blk_extent){ req->len_bytes, BLK_EXTENT_DATA };
		req->extents->count = 1;
		blk_complete_later(req, 0);
		return;
	}
	*progress = (struct progress){ .next_bytes = req->offset_bytes,
				       .end_bytes = req->offset_bytes + req->len_bytes,
				       .connection = nfs->turn++ % nfs->links->count };
	if (req->op == BLK_FLUSH) {
		progress->next_bytes = progress->end_bytes = 0;
		progress->commit = true;
		progress->losses_told = nfs->losses_told;
	}
	list_append(&nfs->waiting, &req->node);
	blk_nfs_pump(nfs);
}

static void blk_nfs_close(struct blk_dev *dev)
{
	struct blk_nfs *nfs = container_of(dev, struct blk_nfs, dev);

	turn_hook_cancel(&nfs->settle_hook);
	if (nfs->recovery) {
		nfs_recovery_cancel(nfs->recovery);
		blk_nfs_tell(nfs, true);        /* it waits no more */
	}
	blk_nfs_drop_links(nfs);        /* a COMMIT of our own may be under way */
	turn_hook_cancel(&nfs->settle_hook);
	blk_nfs_links_free(nfs->links);
	nfs_kept_free_all(&nfs->kept);
	fence_put(nfs->fence);
	free(nfs->bounce);
	free(nfs);
}

static const struct blk_ops blk_nfs_ops = {
	.name = "nfs",
	.submit = blk_nfs_submit,
	.close = blk_nfs_close,
};

static struct blk_nfs *blk_nfs_alloc(struct loop *loop, struct blk_nfs_links *links,
				     uint64_t size_bytes, const struct blk_nfs_options *options)
{
	const struct blk_limits limits = {
		.block_bytes = BLOCK_BYTES,
		.physical_bytes = PHYSICAL_BYTES,
		.memory_align_bytes = 1,
		.best_transfer_bytes = MIN(MIN(links->limits.read_bytes, links->limits.write_bytes),
					   BEST_TRANSFER_BYTES),
		.best_depth = CALLS,
		.reads_zero = options->reads_zero,
		.read_only = options->read_only,
	};
	struct blk_nfs *nfs = calloc(1, sizeof(*nfs));

	if (!nfs)
		return NULL;
	nfs->bounce = malloc(links->limits.write_bytes);
	if (!nfs->bounce) {
		free(nfs);
		return NULL;
	}
	nfs->fence = options->fence ? fence_get(options->fence) : fence_new();
	if (!nfs->fence) {
		free(nfs->bounce);
		free(nfs);
		return NULL;
	}
	if (!options->fence)
		fence_renew(nfs->fence, UINT64_MAX);
	blk_dev_init(&nfs->dev, &blk_nfs_ops, loop, size_bytes, &limits);
	nfs->role = options->role;
	nfs->told = options->told;
	nfs->user = options->user;
	nfs->unsettled_until_ns = options->unsettled_until_ns;
	list_init(&nfs->kept);
	list_init(&nfs->unsettled);
	nfs->links = links;
	nfs->stable = options->stable;
	turn_hook_init(&nfs->settle_hook, blk_nfs_settle_late);
	list_init(&nfs->waiting);
	list_init(&nfs->over);
	list_init(&nfs->idle);
	list_init(&nfs->answered);
	for (size_t i = 0; i < CALLS; i++) {
		nfs->calls[i].nfs = nfs;
		list_append(&nfs->idle, &nfs->calls[i].node);
	}
	return nfs;
}

int blk_nfs_watch_all(struct blk_nfs *nfs)
{
	int rc = 0;

	for (unsigned i = 0; i < nfs->links->count && !rc; i++) {
		struct connection *connection = &nfs->connections[i];

		connection->nfs = nfs;
		connection->link = &nfs->links->links[i];
		rc = watch_start(&connection->watch, nfs->dev.loop, connection->link->fd,
				 WATCH_READ, connection_ready);
	}
	return rc;
}

int blk_nfs_new(struct loop *loop, struct blk_nfs_links *links, uint64_t size_bytes,
		const struct blk_nfs_options *options, struct blk_dev **out, struct err *err)
{
	struct blk_nfs *nfs = blk_nfs_alloc(loop, links, size_bytes, options);
	int rc;

	CHECK(!options->stable || options->role == BLK_NFS_PLAIN);
	if (!nfs)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot use %s", links->name);
	rc = blk_nfs_watch_all(nfs);
	if (rc) {
		for (unsigned i = 0; i < links->count; i++)
			watch_stop(&nfs->connections[i].watch);
		fence_put(nfs->fence);
		free(nfs->bounce);
		free(nfs);
		return err_set(err, ERR_NFS_UNREACHABLE, rc, "cannot wait for %s: %s",
			       links->name, err_strerror(rc));
	}
	if (options->name)
		snprintf(links->name, sizeof(links->name), "%s", options->name);
	*out = &nfs->dev;
	return 0;
}

void blk_nfs_promote(struct blk_dev *dev)
{
	struct blk_nfs *nfs = container_of(dev, struct blk_nfs, dev);

	CHECK(blk_dev_is_nfs(dev));
	/* What was written as a target was flushed by the switch-over. */
	if (nfs->role == BLK_NFS_TARGET)
		nfs->role = BLK_NFS_SOURCE;
}

bool blk_dev_is_nfs(const struct blk_dev *dev)
{
	return dev->ops == &blk_nfs_ops;
}

bool blk_nfs_is_dead(const struct blk_dev *dev)
{
	CHECK(dev->ops == &blk_nfs_ops);
	return container_of(dev, struct blk_nfs, dev)->dead;
}

/* ---- the blocking half ---- */

int blk_nfs_connect(struct nfs_session *session, const struct nfs_handle *file, unsigned count,
		    uint64_t timeout_ns, struct blk_nfs_links **out, struct err *err)
{
	const struct nfs_place *place = nfs_session_place(session);
	uint64_t deadline_ns = dial_clock_ns() + timeout_ns;
	struct blk_nfs_links *links = calloc(1, sizeof(*links));

	CHECK(count >= 1 && count <= BLK_NFS_CONNECTIONS_MAX);
	if (!links)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	memcpy(links->host, place->host, sizeof(links->host));
	links->port = nfs_session_port(session);
	links->file = *file;
	links->limits = *nfs_session_limits(session);
	nfs_show(place->host, nfs_session_port(session), links->name);
	while (links->count < count) {
		int rc = nfs_link_open(place->host, nfs_session_port(session), deadline_ns,
				       &links->links[links->count], err);

		if (rc) {
			blk_nfs_links_free(links);
			return rc;
		}
		links->count++;
	}
	*out = links;
	return 0;
}

void blk_nfs_links_free(struct blk_nfs_links *links)
{
	if (!links)
		return;
	for (unsigned i = 0; i < links->count; i++)
		nfs_link_close(&links->links[i]);
	free(links);
}

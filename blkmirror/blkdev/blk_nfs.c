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
#include "blkmirror/blkdev/blk_nfs.h"
#include "blkmirror/blkdev/nfs_private.h"

#define CALLS 32u
#define BEST_TRANSFER_BYTES (1u << 20)
#define BLOCK_BYTES 512u
#define PHYSICAL_BYTES 4096u

struct blk_nfs_links {
	unsigned count;
	struct nfs_handle file;
	struct nfs_limits limits;
	char name[NFS_SHOWN_BYTES];
	struct nfs_link links[BLK_NFS_CONNECTIONS_MAX];
};

/* How far a request is; in blk_req.private_bytes. */
struct progress {
	uint64_t next_bytes, end_bytes; /* what has not been sent yet */
	uint32_t in_flight;             /* calls */
	uint32_t connection;            /* all its calls go here */
	int error;                      /* the first one; nothing more is sent after it */
	uint64_t losses_told;           /* FLUSH: as it was when this one was submitted */
	bool commit;                    /* FLUSH: to be sent */
};

_Static_assert(sizeof(struct progress) <= BLK_REQ_PRIVATE_BYTES, "fits the request");

struct call {
	struct list node;               /* idle or answered */
	struct blk_nfs *nfs;
	struct blk_req *req;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	uint32_t done_bytes;            /* of it: servers may do less than was asked */
	int result;
};

struct connection {
	struct blk_nfs *nfs;
	struct nfs_link *link;
	struct watch watch;
};

struct blk_nfs {
	struct blk_dev dev;
	struct blk_nfs_links *links;
	struct connection connections[BLK_NFS_CONNECTIONS_MAX];
	struct turn_hook settle_hook;
	struct list waiting;            /* blk_req.node: has something to send */
	struct list over;               /* blk_req.node: to be completed by settle */
	struct list idle, answered;     /* call.node */
	struct call calls[CALLS];
	uint8_t *bounce;                /* write_bytes: one write's data; libnfs copies */
	uint32_t turn;                  /* the next request's connection */
	bool stable, dead, sending;

	/* M14 */
	bool has_verifier;
	writeverf3 verifier;            /* of the UNSTABLE writes that no COMMIT has covered */
	uint64_t losses;                /* how often such writes were found to be lost */
	uint64_t losses_told;           /* of these, told by a flush that failed */
};

static struct progress *progress_of(struct blk_req *req)
{
	return (struct progress *)(void *)req->private_bytes;
}

static bool has_more_to_send(struct blk_req *req)
{
	const struct progress *progress = progress_of(req);

	return !progress->error && (progress->next_bytes < progress->end_bytes || progress->commit);
}

/* Copies between the request's memory at offset_bytes (of the device) and `bytes`. */
static void request_copy(const struct blk_req *req, uint64_t offset_bytes, uint8_t *bytes,
			 uint64_t len_bytes)
{
	uint64_t skip_bytes = offset_bytes - req->offset_bytes;

	for (uint32_t i = 0; i < req->iov_count && len_bytes; i++) {
		uint64_t piece_bytes = req->iov[i].iov_len, part_bytes;
		uint8_t *memory = req->iov[i].iov_base;

		if (skip_bytes >= piece_bytes) {
			skip_bytes -= piece_bytes;
			continue;
		}
		part_bytes = MIN(piece_bytes - skip_bytes, len_bytes);
		if (req->op == BLK_READ)
			memcpy(memory + skip_bytes, bytes, part_bytes);
		else
			memcpy(bytes, memory + skip_bytes, part_bytes);
		bytes += part_bytes;
		len_bytes -= part_bytes;
		skip_bytes = 0;
	}
}

/* ---- answers, from inside libnfs ---- */

/* The status begins every answer.  false: the call is over with an error. */
static bool call_came_back(struct call *call, int status, const void *data)
{
	struct blk_nfs *nfs = call->nfs;

	call->result = status == RPC_STATUS_SUCCESS ? nfs_status_rc(*(const nfsstat3 *)data) : -EIO;
	list_append(&nfs->answered, &call->node);
	if (nfs->sending)
		loop_at_turn_end(nfs->dev.loop, &nfs->settle_hook);
	return call->result == 0;
}

static void read_answered(struct rpc_context *rpc, int status, void *data, void *user)
{
	const READ3resok *answer;
	struct call *call = user;
	uint32_t left_bytes = call->len_bytes - call->done_bytes;

	(void)rpc;
	if (!call_came_back(call, status, data))
		return;
	answer = &((const READ3res *)data)->READ3res_u.resok;
	if (answer->data.data_len == 0 || answer->data.data_len > left_bytes) {
		/* A file that has become shorter, or nonsense: nothing that may pass for data. */
		call->result = -EIO;
		return;
	}
	request_copy(call->req, call->offset_bytes + call->done_bytes,
		     (uint8_t *)answer->data.data_val, answer->data.data_len);
	call->done_bytes += answer->data.data_len;
}

/* M14: is this answer from the same life of the server as all that is not committed yet? */
static void verifier_note(struct blk_nfs *nfs, const writeverf3 verifier)
{
	if (!nfs->has_verifier) {
		memcpy(nfs->verifier, verifier, sizeof(nfs->verifier));
		nfs->has_verifier = true;
	} else if (memcmp(nfs->verifier, verifier, sizeof(nfs->verifier)) != 0) {
		nfs->losses++;
		memcpy(nfs->verifier, verifier, sizeof(nfs->verifier));
	}
}

static void write_answered(struct rpc_context *rpc, int status, void *data, void *user)
{
	const WRITE3resok *answer;
	struct call *call = user;

	(void)rpc;
	if (!call_came_back(call, status, data))
		return;
	answer = &((const WRITE3res *)data)->WRITE3res_u.resok;
	if (answer->count == 0 || answer->count > call->len_bytes - call->done_bytes) {
		call->result = -EIO;
		return;
	}
	call->done_bytes += answer->count;
	if (answer->committed == UNSTABLE && (call->nfs->stable || call->req->flags & BLK_FUA))
		call->result = -EIO;    /* it promises less than was asked */
	else if (answer->committed == UNSTABLE)
		verifier_note(call->nfs, answer->verf);
}

/*
 * A flush that was under way when the loss was found fails too, whichever of them is answered
 * first: it may cover what is lost.
 */
static void commit_answered(struct rpc_context *rpc, int status, void *data, void *user)
{
	const COMMIT3resok *answer;
	struct call *call = user;
	struct blk_nfs *nfs = call->nfs;

	(void)rpc;
	if (!call_came_back(call, status, data)) {
		/* A server tells a failed write-back once: a later success means nothing (R9). */
		nfs->losses++;
	} else {
		answer = &((const COMMIT3res *)data)->COMMIT3res_u.resok;
		if (nfs->has_verifier)
			verifier_note(nfs, answer->verf);
		if (nfs->losses == progress_of(call->req)->losses_told)
			return;
		log_warn("nfs", "%s: the server lost writes that it had not committed",
			 nfs->links->name);
		call->result = -EIO;
	}
	nfs->losses_told = nfs->losses;
}

/* ---- W5: sending ---- */

static int send_write(struct call *call, struct rpc_context *rpc)
{
	struct blk_nfs *nfs = call->nfs;
	struct blk_req *req = call->req;
	uint32_t left_bytes = call->len_bytes - call->done_bytes;
	bool stable = nfs->stable || req->flags & BLK_FUA;
	WRITE3args args = { .file = nfs_fh3_of(&nfs->links->file),
			    .offset = call->offset_bytes + call->done_bytes, .count = left_bytes,
			    .stable = stable ? FILE_SYNC : UNSTABLE };

	if (req->op == BLK_WRITE)
		request_copy(req, args.offset, nfs->bounce, left_bytes);
	else
		memset(nfs->bounce, 0, left_bytes);
	args.data.data_len = left_bytes;
	args.data.data_val = (char *)nfs->bounce;
	return rpc_nfs3_write_async(rpc, write_answered, &args, call);
}

static int call_send(struct call *call)
{
	struct blk_nfs *nfs = call->nfs;
	struct rpc_context *rpc = nfs->links->links[progress_of(call->req)->connection].rpc;
	READ3args read_args = { nfs_fh3_of(&nfs->links->file),
				call->offset_bytes + call->done_bytes,
				call->len_bytes - call->done_bytes };
	COMMIT3args commit_args = { .file = nfs_fh3_of(&nfs->links->file) };

	switch (call->req->op) {
	case BLK_READ:
		return rpc_nfs3_read_async(rpc, read_answered, &read_args, call);
	case BLK_FLUSH:
		return rpc_nfs3_commit_async(rpc, commit_answered, &commit_args, call);
	default:
		CHECK(call->req->op == BLK_WRITE || call->req->op == BLK_WRITE_ZEROES);
		return send_write(call, rpc);
	}
}

/* The call, or the rest of it. */
static void call_start(struct call *call)
{
	struct blk_nfs *nfs = call->nfs;

	nfs->sending = true;
	if (call_send(call) < 0) {      /* no memory: libnfs will not answer */
		call->result = -ENOMEM;
		list_append(&nfs->answered, &call->node);
		loop_at_turn_end(nfs->dev.loop, &nfs->settle_hook);
	}
	nfs->sending = false;
}

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
	progress->next_bytes += call->len_bytes;
	progress->commit = false;
	progress->in_flight++;
	call_start(call);
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

/* Sends what may be sent, one call of each request in turn. */
static void blk_nfs_pump(struct blk_nfs *nfs)
{
	while (!nfs->dead && !list_is_empty(&nfs->waiting) && !list_is_empty(&nfs->idle)) {
		struct blk_req *req = list_entry(list_pop(&nfs->waiting), struct blk_req, node);

		request_send_one(nfs, req);
		if (has_more_to_send(req))
			list_append(&nfs->waiting, &req->node);
	}
	blk_nfs_follow_events(nfs);
}

/* ---- settling ---- */

static void request_maybe_over(struct blk_nfs *nfs, struct blk_req *req)
{
	if (!progress_of(req)->in_flight && !has_more_to_send(req))
		list_append(&nfs->over, &req->node);
}

static void call_settle(struct blk_nfs *nfs, struct call *call)
{
	struct blk_req *req = call->req;
	struct progress *progress = progress_of(req);

	if (!call->result && call->done_bytes < call->len_bytes) {
		if (nfs->dead) {
			call->result = -EIO;
		} else {
			call_start(call);       /* a short answer: the rest */
			return;
		}
	}
	list_append(&nfs->idle, &call->node);
	progress->in_flight--;
	if (call->result && !progress->error) {
		progress->error = call->result;
		list_remove(&req->node);        /* nothing more is sent of it */
	}
	request_maybe_over(nfs, req);
}

static void blk_nfs_fail_waiting(struct blk_nfs *nfs)
{
	struct list *node;

	while ((node = list_pop(&nfs->waiting))) {
		struct blk_req *req = list_entry(node, struct blk_req, node);

		if (!progress_of(req)->error)
			progress_of(req)->error = -EIO;
		request_maybe_over(nfs, req);
	}
}

static void blk_nfs_settle(struct blk_nfs *nfs)
{
	struct list answered, over, *node;

	list_init(&answered);
	list_splice(&answered, &nfs->answered);
	while ((node = list_pop(&answered)))
		call_settle(nfs, list_entry(node, struct call, node));
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

/* R2: all connections go, so that no call of the device can be answered any more. */
static void blk_nfs_die(struct blk_nfs *nfs)
{
	nfs->dead = true;
	for (unsigned i = 0; i < nfs->links->count; i++) {
		watch_stop(&nfs->connections[i].watch);
		nfs_link_close(nfs->connections[i].link);
	}
	log_warn("nfs", "%s: connection lost", nfs->links->name);
}

static void connection_ready(struct watch *watch, unsigned events)
{
	struct connection *connection = container_of(watch, struct connection, watch);
	struct blk_nfs *nfs = connection->nfs;
	int served = (events & WATCH_READ ? POLLIN : 0) | (events & WATCH_WRITE ? POLLOUT : 0) |
		     (events & WATCH_HANGUP ? POLLHUP : 0);

	if (nfs_link_service(connection->link, served))
		blk_nfs_die(nfs);
	blk_nfs_settle(nfs);
}

/* ---- the device ---- */

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
	for (unsigned i = 0; i < nfs->links->count; i++)
		watch_stop(&nfs->connections[i].watch);
	blk_nfs_links_free(nfs->links);
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
	blk_dev_init(&nfs->dev, &blk_nfs_ops, loop, size_bytes, &limits);
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

int blk_nfs_new(struct loop *loop, struct blk_nfs_links *links, uint64_t size_bytes,
		const struct blk_nfs_options *options, struct blk_dev **out, struct err *err)
{
	struct blk_nfs *nfs = blk_nfs_alloc(loop, links, size_bytes, options);
	int rc = 0;

	if (!nfs)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot use %s", links->name);
	for (unsigned i = 0; i < links->count && !rc; i++) {
		struct connection *connection = &nfs->connections[i];

		connection->nfs = nfs;
		connection->link = &links->links[i];
		rc = watch_start(&connection->watch, loop, connection->link->fd, WATCH_READ,
				 connection_ready);
	}
	if (rc) {
		for (unsigned i = 0; i < links->count; i++)
			watch_stop(&nfs->connections[i].watch);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* blk_nfs_call.c - one call of a request: sent, answered, and what that says of the server. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nfs_private.h"

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
	call->unsettled = status != RPC_STATUS_SUCCESS && nfs->role != BLK_NFS_PLAIN;
	if (status != RPC_STATUS_SUCCESS)
		nfs->must_recover = true;
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

/* M14: true when this answer is from another life of the server than what is not committed yet. */
bool nfs_verifier_note(struct blk_nfs *nfs, const writeverf3 verifier)
{
	bool lost = nfs->has_verifier &&
		    memcmp(nfs->verifier, verifier, sizeof(nfs->verifier)) != 0;

	nfs->losses += lost;
	/* A source's stays the old one: what is not committed was given to that life. */
	if (!lost || nfs->role != BLK_NFS_SOURCE)
		memcpy(nfs->verifier, verifier, sizeof(nfs->verifier));
	nfs->has_verifier = true;
	return lost;
}

/* A source's data were, or may be, lost: they are written again, then this call is sent again. */
void nfs_call_must_recover(struct call *call)
{
	call->unsettled = true;
	call->nfs->must_recover = true;
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
	else if (answer->committed == UNSTABLE && nfs_verifier_note(call->nfs, answer->verf) &&
		 call->nfs->role == BLK_NFS_SOURCE)
		nfs_call_must_recover(call);
}

/* SOURCE: what was done before this COMMIT was sent is safe. */
static void kept_let_go(struct blk_nfs *nfs, uint64_t epoch)
{
	struct list *node = nfs->kept.next;

	while (node != &nfs->kept) {
		struct nfs_kept *kept = list_entry(node, struct nfs_kept, node);

		node = node->next;
		if (kept->epoch > epoch)
			continue;
		nfs->kept_bytes -= kept->len_bytes;
		nfs->done_bytes -= kept->len_bytes;
		list_remove(&kept->node);
		free(kept);
	}
}

static void source_commit_answered(struct call *call, const COMMIT3resok *answer)
{
	/* R9: after a failed one a later success means nothing.  All is written again. */
	if (!answer || nfs_verifier_note(call->nfs, answer->verf))
		nfs_call_must_recover(call);
	else
		kept_let_go(call->nfs, call->epoch);
}

/*
 * A flush that was under way when the loss was found fails too, whichever of them is answered
 * first: it may cover what is lost.
 */
static void target_commit_answered(struct call *call, const COMMIT3resok *answer)
{
	struct blk_nfs *nfs = call->nfs;

	if (!answer) {
		/* A server tells a failed write-back once: a later success means nothing (R9). */
		nfs->losses++;
	} else {
		if (nfs->has_verifier)
			nfs_verifier_note(nfs, answer->verf);
		if (nfs->losses == progress_of(call->req)->losses_told)
			return;
		log_warn("nfs", "%s: the server lost writes that it had not committed",
			 nfs->links->name);
		call->result = -EIO;
	}
	nfs->losses_told = nfs->losses;
}

static void commit_answered(struct rpc_context *rpc, int status, void *data, void *user)
{
	const COMMIT3resok *answer = NULL;
	struct call *call = user;

	(void)rpc;
	if (call_came_back(call, status, data))
		answer = &((const COMMIT3res *)data)->COMMIT3res_u.resok;
	else if (call->unsettled)
		return;
	if (call->nfs->role == BLK_NFS_SOURCE)
		source_commit_answered(call, answer);
	else
		target_commit_answered(call, answer);
}

/* ---- W5: sending ---- */

/* SOURCE: the data as they are sent, once; a guest may change its memory meanwhile. */
static bool kept_take(struct call *call)
{
	bool zeroes = call->req->op == BLK_WRITE_ZEROES;
	struct nfs_kept *kept;

	if (call->nfs->role != BLK_NFS_SOURCE || call->kept)
		return true;
	kept = malloc(sizeof(*kept) + (zeroes ? 0 : call->len_bytes));
	if (!kept)
		return false;
	*kept = (struct nfs_kept){ .offset_bytes = call->offset_bytes, .zeroes = zeroes,
				   .len_bytes = call->len_bytes };
	if (!zeroes)
		request_copy(call->req, call->offset_bytes, kept->bytes, call->len_bytes);
	call->kept = kept;
	call->nfs->kept_bytes += call->len_bytes;
	return true;
}

static int send_write(struct call *call, struct rpc_context *rpc)
{
	struct blk_nfs *nfs = call->nfs;
	struct blk_req *req = call->req;
	uint32_t left_bytes = call->len_bytes - call->done_bytes;
	bool stable = nfs->stable || req->flags & BLK_FUA;
	uint8_t *bytes = nfs->bounce;
	WRITE3args args = { .file = nfs_fh3_of(&nfs->links->file),
			    .offset = call->offset_bytes + call->done_bytes, .count = left_bytes,
			    .stable = stable ? FILE_SYNC : UNSTABLE };

	if (!kept_take(call))
		return -ENOMEM;
	if (req->op == BLK_WRITE_ZEROES)
		memset(bytes, 0, left_bytes);
	else if (call->kept)
		bytes = call->kept->bytes + call->done_bytes;
	else
		request_copy(req, args.offset, bytes, left_bytes);
	args.data.data_len = left_bytes;
	args.data.data_val = (char *)bytes;
	return rpc_nfs3_write_async(rpc, write_answered, &args, call);
}

static int call_send(struct call *call)
{
	struct blk_nfs *nfs = call->nfs;
	uint32_t connection = call->req ? progress_of(call->req)->connection : 0;
	struct rpc_context *rpc = nfs->links->links[connection].rpc;
	READ3args read_args = { nfs_fh3_of(&nfs->links->file),
				call->offset_bytes + call->done_bytes,
				call->len_bytes - call->done_bytes };
	COMMIT3args commit_args = { .file = nfs_fh3_of(&nfs->links->file) };

	switch (call->req ? call->req->op : BLK_FLUSH) {
	case BLK_READ:
		return rpc_nfs3_read_async(rpc, read_answered, &read_args, call);
	case BLK_FLUSH:
		call->epoch = nfs->epoch++;
		return rpc_nfs3_commit_async(rpc, commit_answered, &commit_args, call);
	default:
		CHECK(call->req->op == BLK_WRITE || call->req->op == BLK_WRITE_ZEROES);
		return send_write(call, rpc);
	}
}

void nfs_call_start(struct call *call)
{
	struct blk_nfs *nfs = call->nfs;

	nfs->sending = true;
	call->unsettled = false;
	call->result = 0;
	if (call_send(call) < 0) {      /* no memory: libnfs will not answer */
		call->result = -ENOMEM;
		list_append(&nfs->answered, &call->node);
		loop_at_turn_end(nfs->dev.loop, &nfs->settle_hook);
	}
	nfs->sending = false;
}

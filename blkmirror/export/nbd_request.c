/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_request.c - a client's request: decoded, judged, given to the device.
 *
 * nbd_request_judge() is the edge: behind it a request keeps to the rules of blkdev.h.
 */
#include "blkmirror/base/overflow.h"
#include "blkmirror/export/nbd_private.h"

/* From this payload size on, the header behind it is read with little else (see rx_want_bytes). */
#define LARGE_PAYLOAD_BYTES (64u << 10)
#define RX_BEHIND_LARGE_BYTES 4096u

/* ---- objects ---- */

static struct nbd_request *request_take(struct nbd_conn *conn)
{
	struct nbd_request *request = conn->free_requests;

	if (request) {
		conn->free_requests = request->next;
	} else {
		if (conn->fresh_requests == conn->server->max_requests)
			return NULL;
		request = &conn->requests[conn->fresh_requests++];
		request->conn = conn;
	}
	conn->used_requests++;
	request->buf = NULL;
	request->payload.iov_len = 0;
	request->received_bytes = 0;
	request->refused = NBD_OK;
	return request;
}

void nbd_request_release(struct nbd_request *request)
{
	struct nbd_conn *conn = request->conn;

	if (request->buf) {
		conn->data_bytes -= request->buf->capacity_bytes;
		buf_put(request->buf);
	}
	CHECK(conn->used_requests > 0);
	conn->used_requests--;
	request->next = conn->free_requests;
	conn->free_requests = request;
}

/* False: not now; conn->wait says what for. */
static bool request_take_buf(struct nbd_request *request, uint64_t bytes)
{
	struct nbd_conn *conn = request->conn;

	if (conn->data_bytes && conn->data_bytes + bytes > NBD_CONN_DATA_BYTES_MAX)
		return nbd_conn_wait(conn, NBD_WAIT_ANSWERED);
	request->buf = buf_get(conn->server->pool, bytes);
	if (!request->buf)
		return nbd_conn_wait(conn, NBD_WAIT_POOL);
	conn->data_bytes += request->buf->capacity_bytes;
	return true;
}

/* ---- W1: the edge ---- */

static const uint16_t allowed_flags[] = {
	[NBD_CMD_READ] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF,
	[NBD_CMD_WRITE] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_DISC] = 0,             /* never judged */
	[NBD_CMD_FLUSH] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_TRIM] = NBD_CMD_FLAG_FUA,
	[NBD_CMD_CACHE] = 0,            /* not offered */
	[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
	[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE,
};

static bool cmd_writes(uint16_t type)
{
	return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

/* Is the command one of ours, with flags that this client may use? */
static enum nbd_error judge_command(const struct nbd_conn *conn, const struct nbd_call *call)
{
	const struct nbd_server *server = conn->server;

	if (call->type >= ARRAY_COUNT(allowed_flags) || call->type == NBD_CMD_CACHE)
		return NBD_EINVAL;
	if (cmd_writes(call->type) && server->read_only)
		return NBD_EPERM;
	if (call->type == NBD_CMD_TRIM && !server->dev->limits.can_unmap)
		return NBD_EINVAL;
	if (call->type == NBD_CMD_BLOCK_STATUS && !conn->allocation)
		return NBD_EINVAL;
	if (call->flags & ~allowed_flags[call->type])
		return NBD_EINVAL;
	if ((call->flags & NBD_CMD_FLAG_DF) && !conn->structured)
		return NBD_EINVAL;
	/* How fast zeroes are is the store's secret: never promised, so never claimed. */
	if (call->flags & NBD_CMD_FLAG_FAST_ZERO)
		return NBD_ENOTSUP;
	return NBD_OK;
}

static enum nbd_error judge_range(const struct nbd_conn *conn, const struct nbd_call *call)
{
	const struct blk_dev *dev = conn->server->dev;

	if (call->type == NBD_CMD_READ && call->len_bytes > BLK_MAX_TRANSFER_BYTES)
		return call->flags & NBD_CMD_FLAG_DF ? NBD_EOVERFLOW : NBD_EINVAL;
	if (call->type == NBD_CMD_WRITE && call->len_bytes > BLK_MAX_TRANSFER_BYTES)
		return NBD_EINVAL;
	if (!range_fits(call->offset_bytes, call->len_bytes, dev->size_bytes))
		return call->type == NBD_CMD_WRITE || call->type == NBD_CMD_WRITE_ZEROES ?
			NBD_ENOSPC : NBD_EINVAL;
	if (call->len_bytes == 0)
		return NBD_EINVAL;
	if ((call->offset_bytes | call->len_bytes) & (dev->limits.block_bytes - 1))
		return NBD_EINVAL;
	return NBD_OK;
}

enum nbd_error nbd_request_judge(const struct nbd_conn *conn, const struct nbd_call *call)
{
	enum nbd_error error = judge_command(conn, call);

	/* A flush has no range; whatever stands there, the client wants its data safe. */
	if (error || call->type == NBD_CMD_FLUSH)
		return error;
	return judge_range(conn, call);
}

/* ---- to the device and back ---- */

static struct nbd_status *status_of(struct nbd_request *request)
{
	return (struct nbd_status *)request->buf->bytes;
}

static uint32_t status_flags(enum blk_extent_status status)
{
	switch (status) {
	case BLK_EXTENT_HOLE:
		return NBD_STATE_HOLE | NBD_STATE_ZERO;
	case BLK_EXTENT_ZERO:
		return NBD_STATE_ZERO;
	case BLK_EXTENT_DATA:
		break;
	}
	return 0;
}

/* Runs to wire extents: neighbours of one status joined, nothing beyond what was asked. */
static void status_encode(struct nbd_request *request)
{
	struct nbd_status *status = status_of(request);
	uint64_t left_bytes = request->call.len_bytes;
	uint32_t count = 0, last_len = 0, last_flags = 0;

	for (uint32_t i = 0; i < status->extents.count && left_bytes; i++) {
		const struct blk_extent *run = &status->runs[i];
		uint32_t len = (uint32_t)MIN(run->len_bytes, left_bytes);
		uint32_t flags = status_flags(run->status);

		if (count && flags == last_flags) {
			last_len += len;        /* their sum is at most len_bytes */
		} else {
			last_len = len;
			last_flags = flags;
			count++;
		}
		status->wire.extents[count - 1] = (struct nbd_wire_extent){
			.len_bytes = be32_of(last_len), .flags = be32_of(flags) };
		left_bytes -= len;
	}
	if (request->call.flags & NBD_CMD_FLAG_REQ_ONE)
		count = 1;
	status->wire.context = be32_of(NBD_CONTEXT_ALLOCATION);
	request->payload = (struct iovec){
		.iov_base = &status->wire,
		.iov_len = sizeof(status->wire.context) + count * sizeof(struct nbd_wire_extent) };
}

static void request_done(struct blk_req *blk)
{
	struct nbd_request *request = container_of(blk, struct nbd_request, blk);
	struct nbd_conn *conn = request->conn;
	enum nbd_error error = nbd_error_of(blk->result);

	CHECK(conn->in_flight > 0);
	conn->in_flight--;
	if (conn->state == NBD_DEAD) {
		nbd_request_release(request);
		nbd_conn_settle(conn);
		return;
	}
	if (!error && request->call.type == NBD_CMD_READ)
		request->payload = request->data;
	if (!error && request->call.type == NBD_CMD_BLOCK_STATUS)
		status_encode(request);
	nbd_reply_queue(request, error);
	nbd_conn_settle(conn);
}

static void prepare_status(struct nbd_request *request)
{
	struct nbd_status *status = status_of(request);

	_Static_assert(offsetof(struct nbd_status, wire) % 4 == 0, "no gap before the extents");
	status->extents = (struct blk_extents){ .runs = status->runs,
						.capacity = NBD_STATUS_RUNS_MAX };
	request->blk.extents = &status->extents;
}

static unsigned blk_flags_of(const struct nbd_call *call)
{
	unsigned flags = 0;

	if (cmd_writes(call->type) && (call->flags & NBD_CMD_FLAG_FUA))
		flags |= BLK_FUA;
	if (call->type == NBD_CMD_WRITE)
		flags |= BLK_STABLE;    /* the buffer is ours alone */
	/* R8: a trim is zeroes that may give space back. */
	if (call->type == NBD_CMD_TRIM ||
	    (call->type == NBD_CMD_WRITE_ZEROES && !(call->flags & NBD_CMD_FLAG_NO_HOLE)))
		flags |= BLK_MAY_UNMAP;
	return flags;
}

static void request_submit(struct nbd_request *request)
{
	static const enum blk_op ops[] = {
		[NBD_CMD_READ] = BLK_READ,
		[NBD_CMD_WRITE] = BLK_WRITE,
		[NBD_CMD_FLUSH] = BLK_FLUSH,
		[NBD_CMD_TRIM] = BLK_WRITE_ZEROES,
		[NBD_CMD_WRITE_ZEROES] = BLK_WRITE_ZEROES,
		[NBD_CMD_BLOCK_STATUS] = BLK_EXTENTS,
	};
	struct nbd_conn *conn = request->conn;
	const struct nbd_call *call = &request->call;
	struct blk_req *blk = &request->blk;
	bool ranged = call->type != NBD_CMD_FLUSH;

	blk->op = ops[call->type];
	blk->flags = blk_flags_of(call);
	blk->offset_bytes = ranged ? call->offset_bytes : 0;
	blk->len_bytes = ranged ? call->len_bytes : 0;
	blk->iov = &request->data;
	blk->iov_count = 1;
	blk->data = blk->op == BLK_WRITE ? request->buf : NULL;
	blk->extents = NULL;
	blk->done = request_done;
	if (blk->op == BLK_EXTENTS)
		prepare_status(request);
	conn->in_flight++;
	blk_submit(conn->server->dev, blk);
}

/* ---- receiving ---- */

static uint64_t buf_bytes_of(const struct nbd_call *call)
{
	switch (call->type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return call->len_bytes;
	case NBD_CMD_BLOCK_STATUS:
		return sizeof(struct nbd_status);
	default:
		return 0;
	}
}

/* Copy what has come of the payload already; the rest is read into the buffer directly. */
static void take_received_payload(struct nbd_conn *conn, struct nbd_request *request)
{
	uint32_t received = MIN(conn->rx_tail - conn->rx_head,
				request->call.len_bytes - request->received_bytes);
	const void *bytes;

	if (received == 0)
		return;
	bytes = conn->rx->bytes + conn->rx_head;
	memcpy(request->buf->bytes + request->received_bytes, bytes, received);
	request->received_bytes += received;
	nbd_rx_consume(conn, received);
}

struct iovec nbd_request_missing(const struct nbd_request *request)
{
	return (struct iovec){ .iov_base = request->buf->bytes + request->received_bytes,
			       .iov_len = request->call.len_bytes - request->received_bytes };
}

bool nbd_request_payload(struct nbd_conn *conn)
{
	struct nbd_request *request = conn->incoming;

	take_received_payload(conn, request);
	if (request->received_bytes < request->call.len_bytes)
		return nbd_conn_wait(conn, NBD_WAIT_BYTES);
	conn->incoming = NULL;
	request_submit(request);
	return true;
}

void nbd_request_drained(struct nbd_conn *conn)
{
	struct nbd_request *request = conn->incoming;

	conn->incoming = NULL;
	nbd_reply_queue(request, request->refused);
}

static void request_refuse(struct nbd_request *request, enum nbd_error error)
{
	struct nbd_conn *conn = request->conn;

	/* A client that is still sending does not expect the answer yet. */
	if (request->call.type == NBD_CMD_WRITE && request->call.len_bytes) {
		request->refused = error;
		conn->incoming = request;
		conn->drain_bytes = request->call.len_bytes;
		return;
	}
	nbd_reply_queue(request, error);
}

static void request_begin(struct nbd_request *request)
{
	struct nbd_conn *conn = request->conn;
	const struct nbd_call *call = &request->call;

	if (request->buf)
		request->data = (struct iovec){ .iov_base = request->buf->bytes,
						.iov_len = call->len_bytes };
	if (call->type == NBD_CMD_WRITE) {
		conn->rx_want_bytes = call->len_bytes >= LARGE_PAYLOAD_BYTES ?
			RX_BEHIND_LARGE_BYTES : NBD_RX_BYTES;
		conn->incoming = request;
		return;
	}
	request_submit(request);
}

bool nbd_request_next(struct nbd_conn *conn)
{
	const struct nbd_wire_request *wire = nbd_rx_peek(conn, sizeof(*wire));
	struct nbd_request *request;
	enum nbd_error error;
	uint64_t bytes;

	if (!wire)
		return false;
	if (be32_get(wire->magic) != NBD_REQUEST_MAGIC) {
		nbd_conn_violation(conn, "bad request magic");
		return false;
	}
	if (be16_get(wire->type) == NBD_CMD_DISC) {
		nbd_conn_finish(conn);
		return false;
	}
	request = request_take(conn);
	if (!request)
		return nbd_conn_wait(conn, NBD_WAIT_ANSWERED);
	request->call = (struct nbd_call){
		.cookie = be64_get(wire->cookie),
		.offset_bytes = be64_get(wire->offset_bytes),
		.len_bytes = be32_get(wire->len_bytes),
		.type = be16_get(wire->type),
		.flags = be16_get(wire->flags),
	};
	error = nbd_request_judge(conn, &request->call);
	bytes = error ? 0 : buf_bytes_of(&request->call);
	if (bytes && !request_take_buf(request, bytes)) {
		nbd_request_release(request);   /* the header stays in rx */
		return false;
	}
	nbd_rx_consume(conn, sizeof(*wire));
	conn->requests_served++;
	if (error)
		request_refuse(request, error);
	else
		request_begin(request);
	return true;
}

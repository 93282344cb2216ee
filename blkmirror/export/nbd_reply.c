/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_reply.c - answers: encoded when the device is done, sent together once per turn.
 *
 * Read data leaves from the buffer that the device filled.  What the socket does not
 * take stays queued, and the requests with it: a client that does not read its replies
 * runs out of requests and is read from no more.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "blkmirror/export/nbd_private.h"

#define SEND_IOV_MAX 256

/* ---- encoding ---- */

enum nbd_error nbd_error_of(int rc)
{
	switch (-rc) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

static struct nbd_chunk chunk_of(const struct nbd_request *request, enum nbd_chunk_type type,
				 size_t len_bytes)
{
	return (struct nbd_chunk){
		.magic = be32_of(NBD_CHUNK_MAGIC),
		.flags = be16_of(NBD_CHUNK_FLAG_DONE),  /* each answer is one chunk, so DF is kept */
		.type = be16_of((uint16_t)type),
		.cookie = be64_of(request->call.cookie),
		.len_bytes = be32_of((uint32_t)len_bytes),
	};
}

static void encode_simple(struct nbd_request *request, enum nbd_error error)
{
	request->reply.simple = (struct nbd_simple_reply){
		.magic = be32_of(NBD_SIMPLE_REPLY_MAGIC),
		.error = be32_of(error),
		.cookie = be64_of(request->call.cookie),
	};
	request->reply_bytes = sizeof(request->reply.simple);
}

static void encode_error_chunk(struct nbd_request *request, enum nbd_error error)
{
	/* Only what reached the device failed at an offset. */
	bool at_offset = request->buf && request->call.type == NBD_CMD_READ;
	uint32_t bytes = at_offset ? sizeof(struct nbd_chunk_error) :
		offsetof(struct nbd_chunk_error, offset_bytes);

	request->reply.error = (struct nbd_chunk_error){
		.chunk = chunk_of(request, at_offset ? NBD_CHUNK_ERROR_OFFSET : NBD_CHUNK_ERROR,
				  bytes - sizeof(struct nbd_chunk)),
		.error = be32_of(error),
		.text_len = be16_of(0),
		.offset_bytes = be64_of(request->call.offset_bytes),
	};
	request->reply_bytes = bytes;
}

static void encode_data_chunk(struct nbd_request *request)
{
	request->reply.data = (struct nbd_chunk_data){
		.chunk = chunk_of(request, NBD_CHUNK_OFFSET_DATA,
				  sizeof(be64) + request->payload.iov_len),
		.offset_bytes = be64_of(request->call.offset_bytes),
	};
	request->reply_bytes = sizeof(request->reply.data);
}

static void encode_status_chunk(struct nbd_request *request)
{
	request->reply.chunk = chunk_of(request, NBD_CHUNK_BLOCK_STATUS, request->payload.iov_len);
	request->reply_bytes = sizeof(request->reply.chunk);
}

static void encode(struct nbd_request *request, enum nbd_error error)
{
	uint16_t type = request->call.type;
	bool must_chunk = request->conn->structured &&
		(type == NBD_CMD_READ || type == NBD_CMD_BLOCK_STATUS);

	if (!must_chunk)
		encode_simple(request, error);
	else if (error)
		encode_error_chunk(request, error);
	else if (type == NBD_CMD_READ)
		encode_data_chunk(request);
	else
		encode_status_chunk(request);
}

/* W7: the client gets its answer, with those of this turn of the loop. */
void nbd_reply_queue(struct nbd_request *request, enum nbd_error error)
{
	struct nbd_conn *conn = request->conn;

	encode(request, error);
	request->next = NULL;
	*conn->replies_tail = request;
	conn->replies_tail = &request->next;
	loop_at_turn_end(conn->server->loop, &conn->turn_end);
}

/* ---- the queue ---- */

static struct nbd_request *replies_pop(struct nbd_conn *conn)
{
	struct nbd_request *request = conn->replies;

	conn->replies = request->next;
	if (!conn->replies)
		conn->replies_tail = &conn->replies;
	conn->reply_sent_bytes = 0;
	return request;
}

bool nbd_reply_is_pending(const struct nbd_conn *conn)
{
	return conn->replies || (conn->handshake && conn->handshake->out_tail);
}

void nbd_reply_drop_all(struct nbd_conn *conn)
{
	while (conn->replies)
		nbd_request_release(replies_pop(conn));
}

/* `sent` more bytes of the queue have left. */
static void replies_advance(struct nbd_conn *conn, uint64_t sent_bytes)
{
	while (sent_bytes) {
		const struct nbd_request *first = conn->replies;
		uint64_t left_bytes = first->reply_bytes + first->payload.iov_len -
				      conn->reply_sent_bytes;

		if (sent_bytes < left_bytes) {
			conn->reply_sent_bytes += sent_bytes;
			return;
		}
		sent_bytes -= left_bytes;
		nbd_request_release(replies_pop(conn));
	}
}

/* Append `part` without its first *skip_bytes; counts them down. */
static size_t gather_part(struct iovec *out, struct iovec part, uint64_t *skip_bytes)
{
	uint64_t skip = MIN(*skip_bytes, part.iov_len);

	*skip_bytes -= skip;
	if (skip == part.iov_len)
		return 0;
	out->iov_base = (uint8_t *)part.iov_base + skip;
	out->iov_len = part.iov_len - skip;
	return 1;
}

static size_t gather(const struct nbd_conn *conn, struct iovec *iov, uint64_t *total_bytes)
{
	uint64_t skip_bytes = conn->reply_sent_bytes;
	size_t count = 0;

	for (struct nbd_request *request = conn->replies; request && count + 2 <= SEND_IOV_MAX;
	     request = request->next) {
		struct iovec header = { .iov_base = &request->reply,
					.iov_len = request->reply_bytes };

		count += gather_part(&iov[count], header, &skip_bytes);
		count += gather_part(&iov[count], request->payload, &skip_bytes);
		*total_bytes += header.iov_len + request->payload.iov_len;
	}
	*total_bytes -= conn->reply_sent_bytes;
	return count;
}

/* ---- sending ---- */

/* True: all of it is out, go on.  False: the socket is full, or the client is gone. */
static bool send_all(struct nbd_conn *conn, struct iovec *iov, size_t count, uint64_t total_bytes,
		     uint64_t *sent_bytes)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t sent;

	*sent_bytes = 0;
	do {
		sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0) {
		if (errno == EAGAIN)
			watch_set_events(&conn->watch, conn->watch.events | WATCH_WRITE);
		else
			nbd_conn_lost(conn, -errno);
		return false;
	}
	*sent_bytes = (uint64_t)sent;
	if (*sent_bytes == total_bytes)
		return true;
	watch_set_events(&conn->watch, conn->watch.events | WATCH_WRITE);
	return false;
}

/* The handshake's own output goes first; its memory goes with its last byte. */
static bool send_handshake(struct nbd_conn *conn)
{
	struct nbd_handshake *handshake = conn->handshake;
	struct iovec iov = { .iov_base = handshake->out + handshake->out_head,
			     .iov_len = handshake->out_tail - handshake->out_head };
	uint64_t sent_bytes;

	if (iov.iov_len) {
		bool all = send_all(conn, &iov, 1, iov.iov_len, &sent_bytes);

		if (conn->state == NBD_DEAD)
			return false;
		handshake->out_head += (uint32_t)sent_bytes;
		if (!all)
			return false;
	}
	handshake->out_head = handshake->out_tail = 0;
	if (conn->state != NBD_HANDSHAKE) {
		free(handshake);
		conn->handshake = NULL;
	}
	return true;
}

void nbd_reply_send(struct nbd_conn *conn)
{
	struct iovec iov[SEND_IOV_MAX];
	uint64_t total_bytes, sent_bytes;
	size_t count;
	bool all = true;

	if (conn->handshake && !send_handshake(conn))
		return;
	while (all && conn->replies) {
		total_bytes = 0;
		count = gather(conn, iov, &total_bytes);
		all = send_all(conn, iov, count, total_bytes, &sent_bytes);
		if (conn->state == NBD_DEAD)
			return;
		replies_advance(conn, sent_bytes);
	}
}

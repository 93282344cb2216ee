/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_request.c - a guest's request: decoded, judged, given to the device, answered.
 *
 * request_judge() is the edge: behind it a request keeps to the rules of blkdev.h.  What a guest
 * may ask and does not get is an error of the request; what cannot even be answered (no
 * header, nowhere to put a status) breaks its queue.
 *
 * Data stay where the guest has them.  No write carries BLK_STABLE: the guest can change them while
 * they are in flight, and whoever needs them still (the mirror, R10) copies them.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/export/vhost_private.h"

/* Our own, among virtio's: the request has been submitted. */
#define STATUS_LATER 0xff

/* ---- objects ---- */

struct vhost_request *vhost_request_take(struct vhost_conn *conn)
{
	struct list *node = list_pop(&conn->free_requests);
	struct vhost_request *request;

	if (node)
		return list_entry(node, struct vhost_request, node);
	if (conn->request_count == conn->server->max_requests)
		return NULL;
	request = malloc(sizeof(*request));
	if (!request)
		return NULL;
	memset(request, 0, offsetof(struct vhost_request, chain));
	list_init(&request->node);
	conn->request_count++;
	return request;
}

void vhost_request_release(struct vhost_request *request)
{
	struct vhost_conn *conn = request->queue->conn;
	struct list *starving;

	vhost_memory_put(request->memory);
	request->memory = NULL;
	/* Last in, first out: the warmest is used next. */
	list_prepend(&conn->free_requests, &request->node);
	starving = list_pop(&conn->starving);
	if (starving)
		vhost_queue_serve_later(list_entry(starving, struct vhost_queue, starving_node));
}

/* ---- a chain as two streams of bytes ---- */

struct span {
	struct iovec *pieces;
	uint32_t count;
	uint64_t bytes;
};

static struct span span_of(struct iovec *pieces, uint32_t count)
{
	struct span span = { .pieces = pieces, .count = count };

	for (uint32_t i = 0; i < count; i++)
		span.bytes += pieces[i].iov_len;
	return span;
}

/* Cut the first bytes off, into `to`.  There are that many. */
static void span_read(struct span *span, void *to, size_t bytes)
{
	uint8_t *at = to;

	span->bytes -= bytes;
	while (bytes) {
		struct iovec *piece = span->pieces;
		size_t part = MIN(bytes, piece->iov_len);

		memcpy(at, piece->iov_base, part);
		at += part;
		bytes -= part;
		piece->iov_base = (uint8_t *)piece->iov_base + part;
		piece->iov_len -= part;
		if (piece->iov_len == 0) {
			span->pieces++;
			span->count--;
		}
	}
	/* What was copied is what is judged, whatever the guest does now. */
	__asm__ volatile("" ::: "memory");
}

/* Cut the last byte off: where it is.  There is one. */
static uint8_t *span_cut_last(struct span *span)
{
	struct iovec *last = &span->pieces[span->count - 1];

	span->bytes--;
	last->iov_len--;
	if (last->iov_len == 0)
		span->count--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

/* The first bytes of the span become these; as many as fit. */
static void span_write(const struct span *span, const void *from, size_t bytes)
{
	const uint8_t *at = from;

	for (uint32_t i = 0; i < span->count && bytes; i++) {
		size_t part = MIN(bytes, span->pieces[i].iov_len);

		memcpy(span->pieces[i].iov_base, at, part);
		at += part;
		bytes -= part;
	}
}

/* ---- W7: the guest is answered ---- */

static uint8_t status_of(int rc)
{
	if (rc == 0)
		return VIRTIO_BLK_S_OK;
	return rc == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

/* R-E4: the data have landed, the status stands there; then they are marked, then it is told. */
static void request_answer(struct vhost_request *request, uint8_t status)
{
	struct vhost_queue *queue = request->queue;
	struct vhost_conn *conn = queue->conn;

	*request->status = status;
	for (uint32_t i = 0; i < request->landing_count; i++)
		vhost_log_mark(conn, request->memory, request->landing[i].iov_base,
			       request->landing[i].iov_len);
	vhost_log_mark(conn, request->memory, request->status, 1);
	vhost_ring_give(&queue->ring, request->chain.head, request->written_bytes);
	conn->requests_served++;
	vhost_queue_answered(queue, request->is_replay);
	vhost_request_release(request);
}

static void request_done(struct blk_req *blk)
{
	struct vhost_request *request = container_of(blk, struct vhost_request, blk);
	struct vhost_queue *queue = request->queue;
	struct vhost_conn *conn = queue->conn;

	CHECK(queue->in_flight > 0);
	CHECK(conn->in_flight > 0);
	queue->in_flight--;
	conn->in_flight--;
	/* Without a front end the rings are not ours to write: it is carried out again later. */
	if (conn->state == VHOST_DEAD)
		vhost_request_release(request);
	else
		request_answer(request, status_of(blk->result));
	vhost_conn_settle(conn);
}

/* ---- W1: the edge ---- */

/* The range in bytes; false: not one of this disk's. */
static bool range_judge(const struct blk_dev *dev, uint64_t sector, uint64_t len_bytes,
			uint64_t *offset_bytes)
{
	uint64_t mask = dev->limits.block_bytes - 1;

	if (!u64_mul(sector, VHOST_SECTOR_BYTES, offset_bytes))
		return false;
	return len_bytes && range_fits(*offset_bytes, len_bytes, dev->size_bytes) &&
	       ((*offset_bytes | len_bytes) & mask) == 0;
}

static bool is_write_through(const struct vhost_conn *conn)
{
	return !vhost_has(conn, VIRTIO_BLK_F_FLUSH);
}

static uint8_t judge_transfer(struct vhost_request *request, enum blk_op op, uint64_t sector,
			      const struct span *data)
{
	struct vhost_conn *conn = request->queue->conn;
	struct blk_req *blk = &request->blk;

	if (data->bytes > BLK_MAX_TRANSFER_BYTES || data->count > BLK_MAX_IOV ||
	    data->bytes % VHOST_SECTOR_BYTES ||
	    !range_judge(conn->server->dev, sector, data->bytes, &blk->offset_bytes))
		return VIRTIO_BLK_S_IOERR;
	blk->op = op;
	blk->len_bytes = data->bytes;
	blk->iov = data->pieces;
	blk->iov_count = data->count;
	/* A guest that cannot flush counts on what it was told. */
	if (op == BLK_WRITE && is_write_through(conn))
		blk->flags |= BLK_FUA;
	if (op == BLK_READ) {
		request->landing = data->pieces;
		request->landing_count = data->count;
		request->written_bytes += (uint32_t)data->bytes;
	}
	return STATUS_LATER;
}

static uint8_t judge_zeroes(struct vhost_request *request, bool is_discard, struct span *data)
{
	struct vhost_conn *conn = request->queue->conn;
	struct virtio_blk_discard_write_zeroes wire;
	struct blk_req *blk = &request->blk;
	uint32_t flags;

	if (data->bytes != sizeof(wire))
		return VIRTIO_BLK_S_IOERR;
	span_read(data, &wire, sizeof(wire));
	flags = le32toh(wire.flags);
	if (flags & ~(is_discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return VIRTIO_BLK_S_UNSUPP;
	blk->len_bytes = (uint64_t)le32toh(wire.num_sectors) * VHOST_SECTOR_BYTES;
	if (blk->len_bytes > VHOST_ZERO_BYTES_MAX ||
	    !range_judge(conn->server->dev, le64toh(wire.sector), blk->len_bytes,
			 &blk->offset_bytes))
		return VIRTIO_BLK_S_IOERR;
	blk->op = BLK_WRITE_ZEROES;
	/* R8: a discard is zeroes that may give space back. */
	if (is_discard || flags)
		blk->flags |= BLK_MAY_UNMAP;
	if (is_write_through(conn))
		blk->flags |= BLK_FUA;
	return STATUS_LATER;
}

static uint8_t answer_id(struct vhost_request *request, const struct span *data)
{
	char id[VIRTIO_BLK_ID_BYTES] = { 0 };
	uint32_t len_bytes = (uint32_t)MIN(data->bytes, sizeof(id));

	if (len_bytes == 0)
		return VIRTIO_BLK_S_IOERR;
	memcpy(id, request->queue->conn->server->name,
	       strnlen(request->queue->conn->server->name, sizeof(id)));
	span_write(data, id, len_bytes);
	request->landing = data->pieces;
	request->landing_count = data->count;
	request->written_bytes += len_bytes;
	return VIRTIO_BLK_S_OK;
}

/* STATUS_LATER: blk is to be submitted; else the answer. */
static uint8_t request_judge(struct vhost_request *request, const struct virtio_blk_outhdr *header,
			     struct span *readable, struct span *writable)
{
	bool read_only = request->queue->conn->server->read_only;
	uint64_t sector = le64toh(header->sector);
	uint32_t type = le32toh(header->type);

	switch (type) {
	case VIRTIO_BLK_T_IN:
		return judge_transfer(request, BLK_READ, sector, writable);
	case VIRTIO_BLK_T_OUT:
		return read_only ? VIRTIO_BLK_S_IOERR :
				   judge_transfer(request, BLK_WRITE, sector, readable);
	case VIRTIO_BLK_T_FLUSH:
		request->blk.op = BLK_FLUSH;
		return STATUS_LATER;
	case VIRTIO_BLK_T_GET_ID:
		return answer_id(request, writable);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return read_only ? VIRTIO_BLK_S_IOERR :
				   judge_zeroes(request, type == VIRTIO_BLK_T_DISCARD, readable);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* ---- to the device ---- */

static void request_submit(struct vhost_request *request)
{
	struct vhost_queue *queue = request->queue;

	request->blk.done = request_done;
	queue->in_flight++;
	queue->conn->in_flight++;
	blk_submit(queue->conn->server->dev, &request->blk);
}

static void request_reset(struct vhost_request *request)
{
	struct blk_req *blk = &request->blk;

	blk->flags = 0;
	blk->offset_bytes = blk->len_bytes = 0;
	blk->iov = NULL;
	blk->iov_count = 0;
	blk->data = NULL;
	blk->extents = NULL;
	request->landing_count = 0;
	request->written_bytes = 1;
}

const char *vhost_request_begin(struct vhost_request *request)
{
	struct vhost_chain *chain = &request->chain;
	struct span readable = span_of(chain->pieces, chain->readable_count);
	struct span writable = span_of(chain->pieces + chain->readable_count,
				       chain->count - chain->readable_count);
	struct virtio_blk_outhdr header;
	uint8_t status;

	if (readable.bytes < sizeof(header))
		return "a request without a header";
	if (writable.bytes == 0)
		return "a request with no room for its status";
	span_read(&readable, &header, sizeof(header));
	request_reset(request);
	request->status = span_cut_last(&writable);
	request->memory = vhost_memory_ref(request->queue->memory);
	status = request_judge(request, &header, &readable, &writable);
	if (status == STATUS_LATER)
		request_submit(request);
	else
		request_answer(request, status);
	return NULL;
}

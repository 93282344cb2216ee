/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_private.h - what the rooms of the NBD export share.
 *
 *	nbd_server.c      the cap on connections, closing (listening: listener.h)
 *	nbd_connection.c  one client: receiving, waiting, dying
 *	nbd_handshake.c   options, until GO or EXPORT_NAME
 *	nbd_request.c     a request: decoded, judged, submitted
 *	nbd_reply.c       its answer: encoded, gathered, sent
 *
 * A request's path:
 *
 *	socket -> rx -> nbd_request_next() -> blk_submit() ... done() -> replies -> socket
 *	                 |  WRITE: payload -> counted buf        one sendmsg per turn
 *	                 '- refused: payload drained, then the error is queued
 *
 * Life: a connection is freed only by nbd_conn_settle(), which is the last thing that
 * each entry from the loop or the device does (socket ready, turn's end, timer, buffer
 * waiter, done()).  Anything deeper only changes the state.
 *
 * Bounds, per connection: max_requests request objects, NBD_CONN_DATA_BYTES_MAX of data
 * buffers (requests in flight and replies not yet sent together), one receive buffer,
 * which an idle connection gives back.  Receive buffers are not the pool's: what waits
 * for a data buffer may hold one, and the largest data buffer may need the whole pool.  When one is reached the connection stops reading
 * (nbd_wait) and goes on when what it waits for has come.
 */
#ifndef BM_NBD_PRIVATE_H
#define BM_NBD_PRIVATE_H

#include "blkmirror/export/complaints.h"
#include "blkmirror/export/listener.h"
#include "blkmirror/export/nbd_proto.h"
#include "blkmirror/export/nbd_server.h"

#define NBD_RX_BYTES (64u << 10)
#define NBD_CONN_DATA_BYTES_MAX (2 * BLK_MAX_TRANSFER_BYTES)
#define NBD_NAME_BYTES_MAX 255u
#define NBD_STATUS_RUNS_MAX 512u
#define NBD_CONTEXT_ALLOCATION 1u       /* our id of base:allocation */

enum nbd_conn_state {
	NBD_HANDSHAKE,
	NBD_TRANSMISSION,
	NBD_CLOSING,            /* nothing more is read; what is in flight is answered */
	NBD_DEAD,               /* the socket is closed; waits for the device to give requests back */
};

enum nbd_wait {
	NBD_WAIT_BYTES,         /* for the client */
	NBD_WAIT_ANSWERED,      /* until a reply has left: too many requests or bytes are held */
	NBD_WAIT_POOL,          /* until the buffer pool has room */
};

struct nbd_conn;

struct nbd_rx {
	struct nbd_rx *next;            /* among the server's spare ones */
	uint8_t bytes[NBD_RX_BYTES];
};

/* A client's request in host order. */
struct nbd_call {
	uint64_t cookie;
	uint64_t offset_bytes;
	uint32_t len_bytes;
	uint16_t type;          /* enum nbd_cmd, once judged */
	uint16_t flags;         /* enum nbd_cmd_flags */
};

/* One request, from its header to the last byte of its reply. */
struct nbd_request {
	struct blk_req blk;
	struct nbd_conn *conn;
	struct nbd_request *next;       /* on the free list or among the replies */
	struct nbd_call call;
	struct buf *buf;                /* data, or the work area of BLOCK_STATUS; one reference */
	struct iovec data;              /* what blk.iov points to */
	uint32_t received_bytes;        /* of a WRITE's payload */
	enum nbd_error refused;         /* while its payload is drained */
	struct iovec payload;           /* what follows the reply's header; iov_len 0: nothing */
	uint32_t reply_bytes;
	union {
		struct nbd_simple_reply simple;
		struct nbd_chunk chunk;
		struct nbd_chunk_data data;
		struct nbd_chunk_error error;
	} reply;
};

/* What only the handshake needs; freed with its last byte sent. */
struct nbd_handshake {
	bool got_flags;
	bool no_zeroes;
	uint32_t out_head, out_tail;
	uint8_t out[4096];
};

struct nbd_conn {
	struct nbd_server *server;
	struct list node;               /* in the server's list */
	uint64_t number;                /* for the log */
	enum nbd_conn_state state;
	struct watch watch;
	int fd;                         /* -1 once dead */
	struct timer timer;             /* the handshake's deadline; a dying client's */
	struct turn_hook turn_end;      /* sends */

	struct nbd_rx *rx;              /* received, not yet digested: [rx_head, rx_tail) */
	uint32_t rx_head, rx_tail;
	uint32_t rx_want_bytes;         /* how much to read beyond a payload */
	enum nbd_wait wait;
	struct buf_waiter pool_waiter;

	struct nbd_handshake *handshake;        /* NULL when over */
	bool structured;                /* structured replies negotiated */
	bool allocation;                /* base:allocation chosen */

	struct nbd_request *requests;   /* max_requests of them; NULL before transmission */
	struct nbd_request *free_requests;
	uint32_t fresh_requests;        /* those beyond have never been touched */
	uint32_t used_requests;
	uint32_t in_flight;             /* in the device */
	uint64_t data_bytes;            /* capacity of the buffers that requests hold */

	struct nbd_request *incoming;   /* its payload is coming (or being drained) */
	uint64_t drain_bytes;           /* to throw away */

	struct nbd_request *replies, **replies_tail;
	uint64_t reply_sent_bytes;      /* of the first */
	uint64_t requests_served;
};

struct nbd_server {
	struct loop *loop;
	struct blk_dev *dev;
	struct buf_pool *pool;
	char name[NBD_NAME_BYTES_MAX + 1];
	bool read_only;
	uint32_t max_connections;
	uint32_t max_requests;
	uint64_t handshake_timeout_ns;

	struct listener listener;
	struct list connections;
	uint32_t connection_count;
	uint64_t accepted;
	struct nbd_rx *spare_rx;        /* a few, so that a busy client's costs no allocation */
	uint32_t spare_rx_count;

	struct complaints complaints;

	bool closing;
	void (*closed)(void *user);
	void *closed_user;
	struct task closed_task;
};

/* ---- nbd_server.c ---- */

/* Say what a client did wrong, at most a few times per window. */
void nbd_server_complain(struct nbd_server *server, const char *format, ...) PRINTF_LIKE(2, 3);

/* NULL: out of memory. */
struct nbd_rx *nbd_server_take_rx(struct nbd_server *server);
/* NULL is harmless. */
void nbd_server_give_rx(struct nbd_server *server, struct nbd_rx *rx);

/* A connection has been unlinked. */
void nbd_server_conn_gone(struct nbd_server *server);

uint16_t nbd_server_flags(const struct nbd_server *server, bool structured);

/* ---- nbd_connection.c ---- */

/* Takes fd, whatever comes of it. */
MUST_CHECK int nbd_conn_start(struct nbd_server *server, int fd);

/* Stop reading, answer what is in flight, then close.  Harmless when already closing. */
void nbd_conn_finish(struct nbd_conn *conn);

/* The client broke the protocol: log, count, close at once. */
void nbd_conn_violation(struct nbd_conn *conn, const char *reason);

/* The socket failed or ended with rc. */
void nbd_conn_lost(struct nbd_conn *conn, int rc);

/* The last thing an entry does: `conn` may be gone afterwards. */
void nbd_conn_settle(struct nbd_conn *conn);

/* The handshake is over: make room for requests.  False: out of memory, closed. */
bool nbd_conn_begin_transmission(struct nbd_conn *conn);

/* Go on digesting and reading after a wait. */
void nbd_conn_resume(struct nbd_conn *conn);

/* Wait for `wait` with the step undone; returns false, as the step does. */
bool nbd_conn_wait(struct nbd_conn *conn, enum nbd_wait wait);

/* `bytes` (at most a few KiB) received and in one piece; NULL when there are fewer: then waits. */
const void *nbd_rx_peek(struct nbd_conn *conn, uint32_t bytes);
void nbd_rx_consume(struct nbd_conn *conn, uint32_t bytes);

static inline bool nbd_conn_reads(const struct nbd_conn *conn)
{
	return conn->state == NBD_HANDSHAKE || conn->state == NBD_TRANSMISSION;
}

/* ---- steps: digest one thing of rx; false when the state or `wait` says why not ---- */

bool nbd_handshake_step(struct nbd_conn *conn);
bool nbd_request_next(struct nbd_conn *conn);
bool nbd_request_payload(struct nbd_conn *conn);

void nbd_handshake_greet(struct nbd_conn *conn);

/* ---- nbd_request.c ---- */

/* The edge: is this within the protocol's and the device's rules? */
enum nbd_error nbd_request_judge(const struct nbd_conn *conn, const struct nbd_call *call);

/* The refused payload has been thrown away. */
void nbd_request_drained(struct nbd_conn *conn);

/* Give the object and its buffer back. */
void nbd_request_release(struct nbd_request *request);

/* The payload that `incoming` still misses. */
struct iovec nbd_request_missing(const struct nbd_request *request);

/* ---- nbd_reply.c ---- */

enum nbd_error nbd_error_of(int rc);

/* Encode and queue the answer; sent at the turn's end. */
void nbd_reply_queue(struct nbd_request *request, enum nbd_error error);

/* Send what can be sent; may release requests, may lose the connection. */
void nbd_reply_send(struct nbd_conn *conn);

bool nbd_reply_is_pending(const struct nbd_conn *conn);

/* Release what nobody will read. */
void nbd_reply_drop_all(struct nbd_conn *conn);

/* ---- block status ---- */

/* The work area of one BLOCK_STATUS, in the request's buffer. */
struct nbd_status {
	struct blk_extents extents;
	struct blk_extent runs[NBD_STATUS_RUNS_MAX];
	struct {
		be32 context;
		struct nbd_wire_extent extents[NBD_STATUS_RUNS_MAX];
	} wire;
};

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_connection.c - one client: receiving, waiting, dying.
 *
 * What is received is digested at once, step by step, until bytes are missing or a bound
 * is reached; then conn->wait says what for.  While it waits for anything but bytes the
 * socket is not read; its watch is only turned off when it fires in vain, so that a short
 * wait costs no system call.  The same holds for WATCH_WRITE.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/nbd_private.h"

/* A client that floods its socket gives way to others after so many reads. */
#define RECEIVES_PER_WAKE 8
/* How long a connection that ends waits for its client to take the last replies. */
#define LINGER_NS (2 * NS_PER_S)
/* Room for a large reply in one piece; the kernel cuts it down to its own limit. */
#define UNIX_SEND_BUFFER_BYTES (1 << 20)

/* ---- what is received ---- */

bool nbd_conn_wait(struct nbd_conn *conn, enum nbd_wait wait)
{
	conn->wait = wait;
	if (wait == NBD_WAIT_POOL && !list_is_linked(&conn->pool_waiter.node))
		buf_wait(conn->server->pool, &conn->pool_waiter);
	return false;
}

const void *nbd_rx_peek(struct nbd_conn *conn, uint32_t bytes)
{
	if (conn->rx_tail - conn->rx_head < bytes) {
		(void)nbd_conn_wait(conn, NBD_WAIT_BYTES);
		return NULL;
	}
	return conn->rx->bytes + conn->rx_head;
}

void nbd_rx_consume(struct nbd_conn *conn, uint32_t bytes)
{
	CHECK(bytes <= conn->rx_tail - conn->rx_head);
	conn->rx_head += bytes;
	if (conn->rx_head == conn->rx_tail)
		conn->rx_head = conn->rx_tail = 0;
}

static void rx_release(struct nbd_conn *conn)
{
	nbd_server_give_rx(conn->server, conn->rx);
	conn->rx = NULL;
	conn->rx_head = conn->rx_tail = 0;
}

/* What is left is less than an option: move it to the front, to be completed there. */
static void rx_compact(struct nbd_conn *conn)
{
	if (conn->rx_head == 0)
		return;
	memmove(conn->rx->bytes, conn->rx->bytes + conn->rx_head, conn->rx_tail - conn->rx_head);
	conn->rx_tail -= conn->rx_head;
	conn->rx_head = 0;
}

static bool step_drain(struct nbd_conn *conn)
{
	uint32_t bytes = (uint32_t)MIN(conn->drain_bytes, conn->rx_tail - conn->rx_head);

	nbd_rx_consume(conn, bytes);
	conn->drain_bytes -= bytes;
	if (conn->drain_bytes)
		return nbd_conn_wait(conn, NBD_WAIT_BYTES);
	if (conn->incoming)
		nbd_request_drained(conn);
	return true;
}

static bool conn_step(struct nbd_conn *conn)
{
	if (conn->drain_bytes)
		return step_drain(conn);
	if (conn->incoming)
		return nbd_request_payload(conn);
	if (conn->state == NBD_HANDSHAKE)
		return nbd_handshake_step(conn);
	return nbd_request_next(conn);
}

static void conn_digest(struct nbd_conn *conn)
{
	bool more = true;

	while (more && nbd_conn_reads(conn))
		more = conn_step(conn);
}

void nbd_conn_resume(struct nbd_conn *conn)
{
	if (!nbd_conn_reads(conn))
		return;
	buf_wait_cancel(&conn->pool_waiter);
	conn->wait = NBD_WAIT_BYTES;
	conn_digest(conn);
	if (nbd_conn_reads(conn) && conn->wait == NBD_WAIT_BYTES)
		watch_set_events(&conn->watch, conn->watch.events | WATCH_READ);
}

/* ---- receiving ---- */

/* Where the next bytes go: the payload that is coming, then rx.  0: out of memory. */
static int receive_into(struct nbd_conn *conn, struct iovec *iov, size_t *want_bytes)
{
	uint32_t rx_bytes = conn->drain_bytes ? NBD_RX_BYTES : conn->rx_want_bytes;
	int count = 0;

	if (!conn->rx)
		conn->rx = nbd_server_take_rx(conn->server);
	if (!conn->rx)
		return 0;
	rx_compact(conn);
	if (conn->incoming && !conn->drain_bytes)
		iov[count++] = nbd_request_missing(conn->incoming);
	iov[count].iov_base = conn->rx->bytes + conn->rx_tail;
	iov[count++].iov_len = MIN(NBD_RX_BYTES - conn->rx_tail, rx_bytes);
	*want_bytes = iov[0].iov_len + (count == 2 ? iov[1].iov_len : 0);
	return count;
}

static void receive_account(struct nbd_conn *conn, size_t bytes)
{
	if (conn->incoming && !conn->drain_bytes) {
		struct nbd_request *request = conn->incoming;
		uint32_t payload = (uint32_t)MIN(bytes, request->call.len_bytes -
						 request->received_bytes);

		request->received_bytes += payload;
		bytes -= payload;
	}
	conn->rx_tail += (uint32_t)bytes;
}

/* True: as much as was asked for came, there may be more. */
static bool conn_receive(struct nbd_conn *conn)
{
	struct iovec iov[2];
	size_t want_bytes;
	ssize_t bytes;
	int count = receive_into(conn, iov, &want_bytes);

	if (count == 0) {
		nbd_conn_lost(conn, -ENOMEM);
		return false;
	}
	bytes = readv(conn->fd, iov, count);
	if (bytes < 0) {
		if (errno != EAGAIN && errno != EINTR)
			nbd_conn_lost(conn, -errno);
		return false;
	}
	if (bytes == 0) {
		nbd_conn_finish(conn);  /* half a message dies with it, what is in flight is done */
		return false;
	}
	receive_account(conn, (size_t)bytes);
	conn_digest(conn);
	return (size_t)bytes == want_bytes;
}

static void conn_readable(struct nbd_conn *conn)
{
	for (int i = 0; i < RECEIVES_PER_WAKE; i++)
		if (!conn_receive(conn) || !nbd_conn_reads(conn) || conn->wait != NBD_WAIT_BYTES)
			break;
}

/* ---- sending ---- */

static void conn_send(struct nbd_conn *conn)
{
	nbd_reply_send(conn);
	if (conn->state != NBD_DEAD && conn->wait == NBD_WAIT_ANSWERED)
		nbd_conn_resume(conn);
}

/* ---- entries from the loop ---- */

static void conn_ready(struct watch *watch, unsigned events)
{
	struct nbd_conn *conn = container_of(watch, struct nbd_conn, watch);

	if (events & WATCH_HANGUP)
		nbd_conn_lost(conn, -ECONNRESET);
	if ((events & WATCH_WRITE) && conn->state != NBD_DEAD) {
		if (nbd_reply_is_pending(conn))
			conn_send(conn);
		else
			watch_set_events(watch, watch->events & ~(unsigned)WATCH_WRITE);
	}
	if ((events & WATCH_READ) && conn->state != NBD_DEAD) {
		if (nbd_conn_reads(conn) && conn->wait == NBD_WAIT_BYTES)
			conn_readable(conn);
		else
			watch_set_events(watch, watch->events & ~(unsigned)WATCH_READ);
	}
	nbd_conn_settle(conn);
}

static void conn_turn_end(struct turn_hook *hook)
{
	struct nbd_conn *conn = container_of(hook, struct nbd_conn, turn_end);

	conn_send(conn);
	nbd_conn_settle(conn);
}

static void conn_pool_has_room(struct buf_waiter *waiter)
{
	struct nbd_conn *conn = container_of(waiter, struct nbd_conn, pool_waiter);

	nbd_conn_resume(conn);
	nbd_conn_settle(conn);
}

static void conn_timed_out(struct timer *timer)
{
	struct nbd_conn *conn = container_of(timer, struct nbd_conn, timer);

	if (conn->state == NBD_HANDSHAKE)
		nbd_conn_violation(conn, "handshake not finished in time");
	else
		nbd_conn_lost(conn, -ETIMEDOUT);
	nbd_conn_settle(conn);
}

/* ---- the end ---- */

static void conn_die(struct nbd_conn *conn)
{
	conn->state = NBD_DEAD;
	watch_stop(&conn->watch);
	close(conn->fd);
	conn->fd = -1;
	timer_stop(&conn->timer);
	turn_hook_cancel(&conn->turn_end);
	buf_wait_cancel(&conn->pool_waiter);
	nbd_reply_drop_all(conn);
	if (conn->incoming)
		nbd_request_release(conn->incoming);
	conn->incoming = NULL;
	conn->drain_bytes = 0;
	free(conn->handshake);
	conn->handshake = NULL;
}

void nbd_conn_violation(struct nbd_conn *conn, const char *reason)
{
	if (conn->state == NBD_DEAD)
		return;
	nbd_server_complain(conn->server, "client %llu dropped: %s",
			    (unsigned long long)conn->number, reason);
	conn_die(conn);
}

void nbd_conn_lost(struct nbd_conn *conn, int rc)
{
	if (conn->state == NBD_DEAD)
		return;
	log_debug("nbd", "%s: client %llu lost after %llu requests, %u in flight: %s",
		  conn->server->name, (unsigned long long)conn->number,
		  (unsigned long long)conn->requests_served, conn->in_flight, err_strerror(rc));
	conn_die(conn);
}

void nbd_conn_finish(struct nbd_conn *conn)
{
	if (!nbd_conn_reads(conn))
		return;
	conn->state = NBD_CLOSING;
	timer_stop(&conn->timer);
	buf_wait_cancel(&conn->pool_waiter);
	watch_set_events(&conn->watch, conn->watch.events & ~(unsigned)WATCH_READ);
	if (conn->incoming)
		nbd_request_release(conn->incoming);
	conn->incoming = NULL;
	loop_at_turn_end(conn->server->loop, &conn->turn_end);
}

static void conn_free(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	CHECK(conn->used_requests == 0);
	CHECK(conn->data_bytes == 0);
	list_remove(&conn->node);
	free(conn->requests);
	free(conn);
	nbd_server_conn_gone(server);
}

static void settle_closing(struct nbd_conn *conn)
{
	if (conn->in_flight)
		return;
	if (nbd_reply_is_pending(conn)) {
		if (!conn->timer.started)
			timer_start(&conn->timer, LINGER_NS);
		return;
	}
	log_debug("nbd", "%s: client %llu disconnected after %llu requests", conn->server->name,
		  (unsigned long long)conn->number, (unsigned long long)conn->requests_served);
	conn_die(conn);
}

void nbd_conn_settle(struct nbd_conn *conn)
{
	if (conn->state == NBD_CLOSING)
		settle_closing(conn);
	if (conn->rx && (conn->rx_head == conn->rx_tail || !nbd_conn_reads(conn)))
		rx_release(conn);
	if (conn->state == NBD_DEAD && conn->in_flight == 0)
		conn_free(conn);
}

/* ---- the beginning ---- */

bool nbd_conn_begin_transmission(struct nbd_conn *conn)
{
	conn->requests = calloc(conn->server->max_requests, sizeof(*conn->requests));
	if (!conn->requests) {
		nbd_conn_lost(conn, -ENOMEM);
		return false;
	}
	timer_stop(&conn->timer);
	conn->state = NBD_TRANSMISSION;
	return true;
}

/* Best effort: a socket that refuses is served all the same. */
static void socket_tune(int fd)
{
	int domain = AF_UNSPEC, on = 1, bytes = UNIX_SEND_BUFFER_BYTES;
	socklen_t len = sizeof(domain);

	(void)getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain == AF_UNIX)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	else
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void conn_init(struct nbd_conn *conn, struct nbd_server *server, int fd)
{
	conn->server = server;
	conn->number = ++server->accepted;
	conn->state = NBD_HANDSHAKE;
	conn->fd = fd;
	conn->rx_want_bytes = NBD_RX_BYTES;
	conn->replies_tail = &conn->replies;
	conn->pool_waiter.ready = conn_pool_has_room;
	list_init(&conn->pool_waiter.node);
	timer_init(&conn->timer, server->loop, conn_timed_out);
	turn_hook_init(&conn->turn_end, conn_turn_end);
}

int nbd_conn_start(struct nbd_server *server, int fd)
{
	struct nbd_conn *conn = calloc(1, sizeof(*conn));
	int rc = -ENOMEM;

	if (!conn)
		goto close_fd;
	conn->handshake = calloc(1, sizeof(*conn->handshake));
	if (!conn->handshake)
		goto free_conn;
	conn_init(conn, server, fd);
	rc = watch_start(&conn->watch, server->loop, fd, WATCH_READ, conn_ready);
	if (rc)
		goto free_handshake;
	socket_tune(fd);
	list_append(&server->connections, &conn->node);
	server->connection_count++;
	timer_start(&conn->timer, server->handshake_timeout_ns);
	nbd_handshake_greet(conn);
	log_debug("nbd", "%s: client %llu connected", server->name,
		  (unsigned long long)conn->number);
	return 0;

free_handshake:
	free(conn->handshake);
free_conn:
	free(conn);
close_fd:
	close(fd);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_connection.c - the front end's socket: messages in, answers out; dying.
 *
 * A message is read in two steps, header and payload, so that nothing is taken of the next
 * one: descriptors belong to the message with whose bytes they come.  While a ring drains no
 * message is read.  Answers are small and asked for one by one: a front end that does not
 * take them has broken the protocol.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/vhost_private.h"

/* A front end that floods its socket gives way to others after so many messages. */
#define MESSAGES_PER_WAKE 32
#define HEADER_BYTES ((uint32_t)sizeof(struct vhost_wire_header))

static void conn_die(struct vhost_conn *conn);
static void conn_lost(struct vhost_conn *conn);

/* ---- messages ---- */

static void message_clear(struct vhost_conn *conn)
{
	for (uint32_t i = 0; i < conn->in.fd_count; i++)
		if (conn->in.fds[i] >= 0)
			close(conn->in.fds[i]);
	conn->in.fd_count = 0;
	conn->received_bytes = 0;
	memset(&conn->in.payload, 0, sizeof(conn->in.payload));
}

static void send_message(struct vhost_conn *conn, const struct vhost_wire_header *header,
			 const void *payload, int fd)
{
	struct iovec iov[2] = {
		{ .iov_base = (void *)header, .iov_len = sizeof(*header) },
		{ .iov_base = (void *)payload, .iov_len = header->size_bytes },
	};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr out = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t sent;

	if (fd >= 0) {
		struct cmsghdr *cmsg = &control.align;

		out.msg_control = &control;
		out.msg_controllen = sizeof(control);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	do {
		sent = sendmsg(conn->fd, &out, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent != (ssize_t)(sizeof(*header) + header->size_bytes))
		conn->fault = "it does not take our answers";
}

static void send_answer(struct vhost_conn *conn, uint32_t request, const void *payload,
			uint32_t size_bytes, int fd)
{
	struct vhost_wire_header header = { .request = request,
					    .flags = VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY,
					    .size_bytes = size_bytes };

	send_message(conn, &header, payload, fd);
}

static void acknowledge(struct vhost_conn *conn, uint64_t failed)
{
	const struct vhost_wire_header *header = &conn->in.header;

	if (vhost_has_protocol(conn, VHOST_USER_PROTOCOL_F_REPLY_ACK) &&
	    header->flags & VHOST_USER_FLAG_NEED_REPLY)
		send_answer(conn, header->request, &failed, sizeof(failed), -1);
}

void vhost_conn_drained(struct vhost_conn *conn)
{
	struct vhost_queue *queue = conn->draining;
	struct vhost_wire_vring_state wire = { .index = queue->index };

	conn->draining = NULL;
	if (conn->state == VHOST_OPEN)
		timer_stop(&conn->drain_timer);
	vhost_queue_stop(queue);
	wire.value = queue->place.next_avail;
	send_answer(conn, VHOST_USER_GET_VRING_BASE, &wire, sizeof(wire), -1);
	if (conn->state == VHOST_OPEN)
		watch_set_events(&conn->watch, WATCH_READ);
}

static void message_complete(struct vhost_conn *conn)
{
	struct vhost_message *message = &conn->in;
	uint32_t request = message->header.request;

	switch (vhost_message_run(conn, message)) {
	case VHOST_DONE:
		acknowledge(conn, 0);
		break;
	case VHOST_ANSWER:
		send_answer(conn, request, &message->payload, message->header.size_bytes,
			    request == VHOST_USER_GET_INFLIGHT_FD ? message->fds[0] : -1);
		break;
	case VHOST_LATER:
		/* The front end waits with its big lock held. */
		if (conn->draining) {
			timer_start(&conn->drain_timer, conn->server->drain_timeout_ns);
			watch_set_events(&conn->watch, WATCH_HANGUP);
		}
		break;
	case VHOST_REFUSED:
		vhost_conn_violation(conn, conn->reason);
		return;
	}
	message_clear(conn);
}

/* ---- receiving ---- */

/* Descriptors that came with some bytes.  False: more than a message can have. */
static bool take_descriptors(struct vhost_conn *conn, struct msghdr *in)
{
	bool fit = !(in->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(in); cmsg; cmsg = CMSG_NXTHDR(in, cmsg)) {
		size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
			if (conn->in.fd_count < VHOST_USER_FDS_MAX) {
				conn->in.fds[conn->in.fd_count++] = fd;
			} else {
				close(fd);
				fit = false;
			}
		}
	}
	return fit;
}

/* Up to `until_bytes` of the message.  False: not all of it has come, or the connection is over. */
static bool receive(struct vhost_conn *conn, uint32_t until_bytes)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
	} control;
	uint32_t at = conn->received_bytes;
	uint8_t *to = at < HEADER_BYTES ? (uint8_t *)&conn->in.header + at :
					  (uint8_t *)&conn->in.payload + (at - HEADER_BYTES);
	struct iovec iov = { .iov_base = to, .iov_len = until_bytes - at };
	struct msghdr in = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control) };
	ssize_t got;

	if (at == until_bytes)
		return true;
	got = recvmsg(conn->fd, &in, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (got < 0) {
		if (errno != EAGAIN && errno != EINTR)
			conn->fault = "its socket failed";
		return false;
	}
	if (got == 0) {
		conn_lost(conn);
		return false;
	}
	if (!take_descriptors(conn, &in)) {
		vhost_conn_violation(conn, "more descriptors than a message can have");
		return false;
	}
	conn->received_bytes += (uint32_t)got;
	return conn->received_bytes == until_bytes;
}

/* True: a whole message was there, and there may be more. */
static bool conn_step(struct vhost_conn *conn)
{
	const char *reason;

	if (conn->received_bytes < HEADER_BYTES) {
		if (!receive(conn, HEADER_BYTES))
			return false;
		reason = vhost_header_judge(conn, &conn->in.header);
		if (reason) {
			vhost_conn_violation(conn, reason);
			return false;
		}
	}
	if (!receive(conn, HEADER_BYTES + conn->in.header.size_bytes))
		return false;
	message_complete(conn);
	return conn->state == VHOST_OPEN && !conn->draining && !conn->fault;
}

/* ---- entries from the loop ---- */

static void conn_ready(struct watch *watch, unsigned events)
{
	struct vhost_conn *conn = container_of(watch, struct vhost_conn, watch);

	if (events & WATCH_HANGUP)
		conn_lost(conn);
	for (int i = 0; i < MESSAGES_PER_WAKE; i++)
		if (conn->state != VHOST_OPEN || conn->draining || !conn_step(conn))
			break;
	vhost_conn_settle(conn);
}

static void conn_turn_end(struct turn_hook *hook)
{
	struct vhost_conn *conn = container_of(hook, struct vhost_conn, turn_end);

	vhost_queues_publish(conn);
	vhost_conn_settle(conn);
}

/*
 * A request hangs, and with it QEMU: it gets its lock back, the guest goes on without the
 * disk and finds it again when the device has given the request back.
 */
static void conn_drain_timed_out(struct timer *timer)
{
	struct vhost_conn *conn = container_of(timer, struct vhost_conn, drain_timer);

	log_warn("vhost", "%s: front end dropped: %s, and the device keeps %u requests too long",
		 conn->server->name, conn->draining ? "a ring has to stop" : "the export ends",
		 conn->in_flight);
	conn_die(conn);
	vhost_conn_settle(conn);
}

/* ---- the end ---- */

static void conn_die(struct vhost_conn *conn)
{
	conn->state = VHOST_DEAD;
	watch_stop(&conn->watch);
	close(conn->fd);
	conn->fd = -1;
	timer_stop(&conn->drain_timer);
	turn_hook_cancel(&conn->turn_end);
	conn->draining = NULL;
	message_clear(conn);
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i])
			vhost_queue_halt(conn->queues[i]);
	if (conn->log_fd >= 0)
		close(conn->log_fd);
	if (conn->backend_fd >= 0)
		close(conn->backend_fd);
	conn->log_fd = conn->backend_fd = -1;
}

void vhost_conn_violation(struct vhost_conn *conn, const char *reason)
{
	if (conn->state == VHOST_DEAD)
		return;
	vhost_server_complain(conn->server, "front end dropped: %s", reason);
	conn_die(conn);
}

/* From now on the rings are not ours to write: the front end may go on without us. */
static void conn_lost(struct vhost_conn *conn)
{
	if (conn->state == VHOST_DEAD)
		return;
	log_debug("vhost", "%s: front end gone after %llu requests, %u in flight",
		  conn->server->name, (unsigned long long)conn->requests_served, conn->in_flight);
	conn_die(conn);
}

void vhost_conn_finish(struct vhost_conn *conn)
{
	if (conn->state != VHOST_OPEN)
		return;
	conn->state = VHOST_CLOSING;
	watch_set_events(&conn->watch, WATCH_HANGUP);
	/* Its messages are not answered any more, so it must not wait for ever either. */
	if (!conn->drain_timer.started)
		timer_start(&conn->drain_timer, conn->server->drain_timeout_ns);
}

void vhost_conn_probe(struct vhost_conn *conn)
{
	char byte;

	if (conn->state == VHOST_OPEN &&
	    recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		conn_lost(conn);
	vhost_conn_settle(conn);
}

static void conn_free(struct vhost_conn *conn)
{
	struct vhost_blk_server *server = conn->server;
	struct list *node;

	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		vhost_queue_free(conn->queues[i]);
	while ((node = list_pop(&conn->free_requests))) {
		free(list_entry(node, struct vhost_request, node));
		conn->request_count--;
	}
	CHECK(conn->request_count == 0);
	vhost_memory_put(conn->memory);
	vhost_map_put(conn->log);
	vhost_map_put(conn->inflight);
	free(conn);
	vhost_server_conn_gone(server);
}

static bool memory_is_torn(const struct vhost_conn *conn)
{
	return vhost_memory_is_torn(conn->memory) ||
	       (conn->log && vhost_map_is_torn(conn->log)) ||
	       (conn->inflight && vhost_map_is_torn(conn->inflight));
}

void vhost_conn_settle(struct vhost_conn *conn)
{
	if (conn->state != VHOST_DEAD && memory_is_torn(conn))
		conn->fault = "memory that it shared was cut off";
	if (conn->draining && conn->draining->in_flight == 0)
		vhost_conn_drained(conn);
	if (conn->state == VHOST_CLOSING && conn->in_flight == 0) {
		vhost_queues_publish(conn);
		conn_lost(conn);
	}
	if (conn->fault)
		vhost_conn_violation(conn, conn->fault);
	if (conn->state == VHOST_DEAD && conn->in_flight == 0)
		conn_free(conn);
}

/* ---- the channel to the front end ---- */

int vhost_conn_tell(struct vhost_conn *conn, uint32_t request)
{
	struct vhost_wire_header header = { .request = request, .flags = VHOST_USER_VERSION };
	ssize_t sent;

	if (conn->backend_fd < 0)
		return -ENOTCONN;
	do {
		sent = send(conn->backend_fd, &header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	return sent == sizeof(header) ? 0 : -EAGAIN;
}

/* ---- the beginning ---- */

static void conn_init(struct vhost_conn *conn, struct vhost_blk_server *server, int fd)
{
	conn->server = server;
	conn->state = VHOST_OPEN;
	conn->fd = fd;
	conn->log_fd = conn->backend_fd = -1;
	turn_hook_init(&conn->turn_end, conn_turn_end);
	timer_init(&conn->drain_timer, server->loop, conn_drain_timed_out);
	list_init(&conn->unpublished);
	list_init(&conn->starving);
	list_init(&conn->free_requests);
}

/* With one request object from the start, whoever starves is woken by its return. */
static int conn_reserve(struct vhost_conn *conn)
{
	struct vhost_request *request;

	conn->memory = vhost_memory_new();
	if (!conn->memory)
		return -ENOMEM;
	request = vhost_request_take(conn);
	if (!request) {
		vhost_memory_put(conn->memory);
		return -ENOMEM;
	}
	list_append(&conn->free_requests, &request->node);
	return 0;
}

int vhost_conn_start(struct vhost_blk_server *server, int fd)
{
	struct vhost_conn *conn = calloc(1, sizeof(*conn));
	int rc = -ENOMEM;

	if (!conn)
		goto close_fd;
	conn_init(conn, server, fd);
	rc = conn_reserve(conn);
	if (rc)
		goto free_conn;
	rc = watch_start(&conn->watch, server->loop, fd, WATCH_READ, conn_ready);
	if (rc)
		goto release_reserve;
	server->conn = conn;
	log_debug("vhost", "%s: front end %llu connected", server->name,
		  (unsigned long long)server->accepted);
	return 0;

release_reserve:
	free(list_entry(list_pop(&conn->free_requests), struct vhost_request, node));
	vhost_memory_put(conn->memory);
free_conn:
	free(conn);
close_fd:
	close(fd);
	return rc;
}

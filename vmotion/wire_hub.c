/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/wire_hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/wire_link_private.h"

#define ACCEPTS_PER_WAKE 16
#define ACCEPT_PAUSE_NS NS_PER_S        /* when there are no descriptors left */

struct wire_hub {
	struct wire_hub_options options;
	struct list links, pending;
	uint32_t link_count, pending_count;
	uint64_t refused_count, quiet_count, logged_ns;
};

/* A connection that has not become anything yet. */
struct pending {
	struct wire_hub *hub;
	struct wire_conn *conn;
	struct list node;
};

static void refused(struct wire_hub *hub, const struct err *err)
{
	uint64_t now_ns = loop_now_ns(hub->options.env->loop);

	hub->refused_count++;
	if (hub->logged_ns && now_ns - hub->logged_ns < NS_PER_S) {
		hub->quiet_count++;
		return;
	}
	log_warn("wire", "refused: %s (%s)%s", err->cause, err_name(err->id),
		 hub->quiet_count ? ", and others before" : "");
	hub->quiet_count = 0;
	hub->logged_ns = now_ns;
}

static void pending_free(struct pending *pending)
{
	list_remove(&pending->node);
	pending->hub->pending_count--;
	free(pending);
}

static void pending_dead(struct wire_conn *conn, const struct err *err)
{
	struct pending *pending = wire_conn_owner(conn);

	if (err->id != ERR_NONE)
		refused(pending->hub, err);
	pending_free(pending);
}

/* ---- hello ---- */

static void refuse(struct pending *pending, const struct err *err)
{
	refused(pending->hub, err);
	wire_conn_refuse(pending->conn, err);   /* it stays pending until that is told */
}

static struct wire_link *find_session(struct wire_hub *hub, const uint8_t session[WIRE_SECRET_BYTES])
{
	list_for_each(node, &hub->links) {
		struct wire_link *link = list_entry(node, struct wire_link, node);

		if (wire_secret_equal(link->session, session))
			return link;
	}
	return NULL;
}

static void hello_data(struct pending *pending, const struct wire_hello *hello)
{
	struct wire_link *link = find_session(pending->hub, hello->session);
	struct wire_conn *conn = pending->conn;
	struct err err;

	if (link && channel_accept(link, conn, hello)) {
		pending_free(pending);
		return;
	}
	err_set(&err, ERR_WIRE_PROTOCOL, 0, "%s asks for a channel that is not awaited",
		wire_conn_pipe(conn)->peer);
	refuse(pending, &err);
}

static void random_bytes(void *bytes, size_t count)
{
	CHECK(getrandom(bytes, count, 0) == (ssize_t)count);
}

static void make_link(struct pending *pending, const struct wire_hello *hello, bool plain_data)
{
	struct wire_hub *hub = pending->hub;
	struct wire_link *link = link_alloc(hub->options.env);
	struct wire_conn *conn = pending->conn;
	struct err err;

	if (!link || !hub->options.accepted(hub->options.user, link, wire_conn_pipe(conn)->peer_key)) {
		if (link)
			wire_link_free(link);
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
		refuse(pending, &err);
		return;
	}
	CHECK(link->ops);
	pending_free(pending);
	link->hub = hub;
	link->plain_wanted = plain_data;
	random_bytes(link->session, sizeof(link->session));
	random_bytes(&link->seed, sizeof(link->seed));
	list_append(&hub->links, &link->node);
	hub->link_count++;
	link_accept_control(link, conn, hello);
}

static void hello_control(struct pending *pending, const struct wire_hello *hello)
{
	struct wire_hub *hub = pending->hub;
	const struct wire_pipe *pipe = wire_conn_pipe(pending->conn);
	bool plain_data = false;
	struct err err;

	if (!pipe->encrypted || !pipe->peer_key[0]) {
		err_set(&err, ERR_HOST_KEY, 0, "%s speaks without encryption and proves no key",
			pipe->peer);
		refuse(pending, &err);
	} else if (hub->link_count >= WIRE_LINKS_MAX) {
		err_set(&err, ERR_BUSY, 0, "this host has %u links already", WIRE_LINKS_MAX);
		refuse(pending, &err);
	} else if (!hub->options.judge(hub->options.user, pipe->peer_key, hello, &plain_data,
				       &err)) {
		refuse(pending, &err);
	} else {
		make_link(pending, hello, plain_data);
	}
}

static void pending_hello(struct wire_conn *conn, const struct wire_hello *hello)
{
	struct pending *pending = wire_conn_owner(conn);

	if (hello->role == WIRE_CONTROL)
		hello_control(pending, hello);
	else
		hello_data(pending, hello);
}

static const struct wire_conn_ops pending_ops = { .hello = pending_hello, .dead = pending_dead };

/* ---- arriving ---- */

static void drop_oldest(struct wire_hub *hub)
{
	struct pending *oldest = list_entry(list_first(&hub->pending), struct pending, node);
	struct err err;

	err_set(&err, ERR_BUSY, 0, "%s was dropped: too many connections say nothing",
		wire_conn_pipe(oldest->conn)->peer);
	refused(hub, &err);
	wire_conn_close(oldest->conn);
	pending_free(oldest);
}

void wire_hub_take(struct wire_hub *hub, struct wire_pipe *pipe)
{
	struct pending *pending = calloc(1, sizeof(*pending));

	if (!pending) {
		pipe->ops->close(pipe, true);
		return;
	}
	if (hub->pending_count >= WIRE_PENDING_MAX)
		drop_oldest(hub);
	pending->hub = hub;
	pending->conn = wire_conn_accepted(hub->options.env, pipe, &pending_ops, pending);
	if (!pending->conn) {
		free(pending);
		return;
	}
	list_append(&hub->pending, &pending->node);
	hub->pending_count++;
}

void hub_forget_link(struct wire_link *link)
{
	list_remove(&link->node);
	link->hub->link_count--;
	link->hub = NULL;
}

/* ---- life ---- */

struct wire_hub *wire_hub_new(const struct wire_hub_options *options)
{
	struct wire_hub *hub = calloc(1, sizeof(*hub));

	if (!hub)
		return NULL;
	hub->options = *options;
	list_init(&hub->links);
	list_init(&hub->pending);
	return hub;
}

void wire_hub_free(struct wire_hub *hub)
{
	if (!hub)
		return;
	CHECK(list_is_empty(&hub->links));
	list_for_each(node, &hub->pending) {
		struct pending *pending = list_entry(node, struct pending, node);

		wire_conn_close(pending->conn);
		pending_free(pending);
	}
	free(hub);
}

uint32_t wire_hub_link_count(const struct wire_hub *hub)
{
	return hub->link_count;
}

uint64_t wire_hub_refused_count(const struct wire_hub *hub)
{
	return hub->refused_count;
}

/* ---- the listening socket ---- */

struct wire_listener {
	struct wire_hub *hub;
	const struct wire_identity *identity;
	struct wire_keys *keys;
	struct watch watch;
	struct timer again;
	int fd;
};

static void take_fd(struct wire_listener *listener, int fd)
{
	struct wire_pipe *pipe;
	int rc = wire_socket_accepted(listener->hub->options.env->loop, listener->identity, fd,
				      listener->keys, &pipe);

	if (rc)
		log_warn("wire", "a connection was dropped: %s", err_strerror(rc));
	else
		wire_hub_take(listener->hub, pipe);
}

static void listener_ready(struct watch *watch, unsigned events)
{
	struct wire_listener *listener = container_of(watch, struct wire_listener, watch);

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_WAKE; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take_fd(listener, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_warn("wire", "cannot accept a connection: %s", err_strerror(-errno));
			watch_set_events(&listener->watch, 0);
			timer_start(&listener->again, ACCEPT_PAUSE_NS);
			return;
		}
		if (errno == EAGAIN || errno == EINVAL || errno == EBADF)
			return;
	}
}

static void listener_again(struct timer *timer)
{
	struct wire_listener *listener = container_of(timer, struct wire_listener, again);

	watch_set_events(&listener->watch, WATCH_READ);
}

int wire_listener_new(struct wire_hub *hub, int fd, const struct wire_identity *identity,
		      struct wire_keys *keys, struct wire_listener **out)
{
	struct wire_listener *listener = calloc(1, sizeof(*listener));
	int rc = -ENOMEM;

	if (!listener)
		goto close_fd;
	listener->hub = hub;
	listener->identity = identity;
	listener->keys = keys;
	listener->fd = fd;
	timer_init(&listener->again, hub->options.env->loop, listener_again);
	rc = watch_start(&listener->watch, hub->options.env->loop, fd, WATCH_READ, listener_ready);
	if (rc)
		goto close_fd;
	*out = listener;
	return 0;

close_fd:
	free(listener);
	close(fd);
	return rc;
}

void wire_listener_free(struct wire_listener *listener)
{
	if (!listener)
		return;
	timer_stop(&listener->again);
	watch_stop(&listener->watch);
	close(listener->fd);
	free(listener);
}

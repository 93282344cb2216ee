/* SPDX-License-Identifier: Apache-2.0 */
/* nbd_server.c - the cap on connections, closing. */
#include "blkmirror/export/nbd_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/nbd_private.h"

#define DEFAULT_MAX_CONNECTIONS 16u
#define DEFAULT_MAX_REQUESTS 128u
#define MAX_REQUESTS_MAX 4096u
#define DEFAULT_HANDSHAKE_TIMEOUT_NS (10 * NS_PER_S)
#define SPARE_RX_MAX 4u
/* NBD's own limit on a minimum block size. */
#define NBD_BLOCK_BYTES_MAX (64u << 10)

/* ---- the log ---- */

void nbd_server_complain(struct nbd_server *server, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complaints_add(&server->complaints, loop_now_ns(server->loop), format, args);
	va_end(args);
}

/* ---- what is served ---- */

uint16_t nbd_server_flags(const struct nbd_server *server, bool structured)
{
	/* Multi-conn holds: all connections submit to one device, so a flush covers them all. */
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN;

	if (server->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	/* Without it a guest's fstrim would write zeroes over all its free space. */
	if (server->dev->limits.can_unmap)
		flags |= NBD_FLAG_SEND_TRIM;
	if (structured)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

uint32_t nbd_server_connections(const struct nbd_server *server)
{
	return server->connection_count;
}

uint64_t nbd_server_protocol_errors(const struct nbd_server *server)
{
	return server->complaints.count;
}

/* ---- receive buffers ---- */

struct nbd_rx *nbd_server_take_rx(struct nbd_server *server)
{
	struct nbd_rx *rx = server->spare_rx;

	if (!rx)
		return malloc(sizeof(*rx));
	server->spare_rx = rx->next;
	server->spare_rx_count--;
	return rx;
}

void nbd_server_give_rx(struct nbd_server *server, struct nbd_rx *rx)
{
	if (!rx || server->spare_rx_count >= SPARE_RX_MAX) {
		free(rx);
		return;
	}
	rx->next = server->spare_rx;
	server->spare_rx = rx;
	server->spare_rx_count++;
}

/* ---- accepting ---- */

static void server_accepted(struct listener *listener, int fd)
{
	struct nbd_server *server = container_of(listener, struct nbd_server, listener);
	int rc;

	if (server->connection_count >= server->max_connections) {
		nbd_server_complain(server, "client refused: %u are connected",
				    server->connection_count);
		close(fd);
		return;
	}
	rc = nbd_conn_start(server, fd);
	if (rc)
		log_warn("nbd", "%s: client not served: %s", server->name, err_strerror(rc));
}

/* ---- closing ---- */

static void server_closed(struct task *task)
{
	struct nbd_server *server = container_of(task, struct nbd_server, closed_task);
	void (*closed)(void *user) = server->closed;
	void *user = server->closed_user;

	while (server->spare_rx_count)
		free(nbd_server_take_rx(server));
	free(server);
	closed(user);
}

void nbd_server_conn_gone(struct nbd_server *server)
{
	CHECK(server->connection_count > 0);
	server->connection_count--;
	if (server->closing && server->connection_count == 0)
		loop_post(server->loop, &server->closed_task);
}

void nbd_server_close(struct nbd_server *server, int *listen_fd_out, void (*closed)(void *user),
		      void *user)
{
	uint32_t left = server->connection_count;

	LOOP_CHECK(server->loop);
	CHECK(!server->closing);
	CHECK(closed);
	server->closing = true;
	server->closed = closed;
	server->closed_user = user;
	listener_stop(&server->listener, listen_fd_out);
	list_for_each(node, &server->connections) {
		struct nbd_conn *conn = list_entry(node, struct nbd_conn, node);

		nbd_conn_finish(conn);
		nbd_conn_settle(conn);
	}
	/* With a connection left, the last one posts it. */
	if (left == 0)
		loop_post(server->loop, &server->closed_task);
}

/* ---- life ---- */

static int options_judge(const struct blk_dev *dev, const struct nbd_server_options *options,
			 struct err *err)
{
	if (!options->export_name || !*options->export_name ||
	    strlen(options->export_name) > NBD_NAME_BYTES_MAX)
		return err_set(err, ERR_BAD_NAME, -EINVAL,
			       "cannot export: a name has 1 to %u bytes", NBD_NAME_BYTES_MAX);
	if (options->max_requests > MAX_REQUESTS_MAX)
		return err_set(err, ERR_USAGE, -EINVAL,
			       "cannot export '%s': at most %u requests per connection",
			       options->export_name, MAX_REQUESTS_MAX);
	if (dev->limits.block_bytes > NBD_BLOCK_BYTES_MAX)
		return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
			       "cannot export '%s': NBD has no blocks of %u bytes",
			       options->export_name, dev->limits.block_bytes);
	return 0;
}

static void server_init(struct nbd_server *server, const struct nbd_server_options *options)
{
	snprintf(server->name, sizeof(server->name), "%s", options->export_name);
	server->read_only = options->read_only || server->dev->limits.read_only;
	server->max_connections = options->max_connections ? options->max_connections :
							     DEFAULT_MAX_CONNECTIONS;
	server->max_requests = options->max_requests ? options->max_requests :
						       DEFAULT_MAX_REQUESTS;
	server->handshake_timeout_ns = options->handshake_timeout_ns ?
		options->handshake_timeout_ns : DEFAULT_HANDSHAKE_TIMEOUT_NS;
	list_init(&server->connections);
	server->listener = (struct listener){ .loop = server->loop, .room = "nbd",
					       .name = server->name, .accepted = server_accepted };
	server->closed_task.run = server_closed;
	server->complaints = (struct complaints){
		.window_ns = loop_now_ns(server->loop), .level = LOG_LEVEL_INFO,
		.room = "nbd", .name = server->name,
	};
}

int nbd_server_new(struct loop *loop, int listen_fd, struct blk_dev *dev, struct buf_pool *pool,
		   const struct nbd_server_options *options, struct nbd_server **out,
		   struct err *err)
{
	struct nbd_server *server;
	int rc;

	LOOP_CHECK(loop);
	CHECK(dev->loop == loop);
	rc = options_judge(dev, options, err);
	if (rc)
		return rc;
	server = calloc(1, sizeof(*server));
	if (!server)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot export '%s': out of memory",
			       options->export_name);
	server->loop = loop;
	server->dev = dev;
	server->pool = pool;
	server_init(server, options);
	rc = listener_start(&server->listener, listen_fd, err);
	if (rc) {
		free(server);
		return rc;
	}
	*out = server;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_blk_server.c - one front end at a time, closing. */
#include "blkmirror/export/vhost_blk_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/vhost_private.h"

#define DEFAULT_MAX_QUEUES 64u
#define DEFAULT_MAX_REQUESTS 256u
#define MAX_REQUESTS_MAX 4096u
#define DEFAULT_DRAIN_TIMEOUT_NS (10 * NS_PER_S)

/* ---- the log ---- */

void vhost_server_complain(struct vhost_blk_server *server, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complaints_add(&server->complaints, loop_now_ns(server->loop), format, args);
	va_end(args);
}

uint32_t vhost_blk_server_connections(const struct vhost_blk_server *server)
{
	return server->conn && server->conn->state != VHOST_DEAD;
}

uint64_t vhost_blk_server_protocol_errors(const struct vhost_blk_server *server)
{
	return server->complaints.count;
}

void vhost_blk_server_resized(struct vhost_blk_server *server)
{
	struct vhost_conn *conn = server->conn;
	int rc;

	LOOP_CHECK(server->loop);
	if (!conn || conn->state != VHOST_OPEN || conn->backend_fd < 0)
		return;                 /* who comes later, or knows no such message, asks */
	rc = vhost_conn_tell(conn, VHOST_USER_BACKEND_CONFIG_CHANGE);
	if (rc == 0)
		return;
	vhost_conn_violation(conn, "it does not listen to its back end");
	vhost_conn_settle(conn);
}

/* ---- accepting ---- */

static void server_accepted(struct listener *listener, int fd)
{
	struct vhost_blk_server *server = container_of(listener, struct vhost_blk_server, listener);
	int rc;

	server->accepted++;
	/* It may have come back before we have seen it go. */
	if (server->conn)
		vhost_conn_probe(server->conn);
	if (server->conn) {
		/* R3: also while the device still has requests of the last one. */
		vhost_server_complain(server, vhost_blk_server_connections(server) ?
				      "front end refused: another one is connected" :
				      "front end refused: requests of the last one are in flight");
		close(fd);
		return;
	}
	rc = vhost_conn_start(server, fd);
	if (rc)
		log_warn("vhost", "%s: front end not served: %s", server->name, err_strerror(rc));
}

/* ---- closing ---- */

static void server_closed(struct task *task)
{
	struct vhost_blk_server *server = container_of(task, struct vhost_blk_server, closed_task);
	void (*closed)(void *user) = server->closed;
	void *user = server->closed_user;

	free(server);
	closed(user);
}

void vhost_server_conn_gone(struct vhost_blk_server *server)
{
	server->conn = NULL;
	if (server->closing)
		loop_post(server->loop, &server->closed_task);
}

void vhost_blk_server_close(struct vhost_blk_server *server, int *listen_fd_out,
			    void (*closed)(void *user), void *user)
{
	LOOP_CHECK(server->loop);
	CHECK(!server->closing);
	CHECK(closed);
	server->closing = true;
	server->closed = closed;
	server->closed_user = user;
	listener_stop(&server->listener, listen_fd_out);
	if (!server->conn) {
		loop_post(server->loop, &server->closed_task);
		return;
	}
	vhost_conn_finish(server->conn);
	vhost_conn_settle(server->conn);
}

/* ---- life ---- */

static int options_judge(const struct blk_dev *dev, const struct vhost_blk_options *options,
			 struct err *err)
{
	if (!options->name || !*options->name || strlen(options->name) > VHOST_NAME_BYTES_MAX)
		return err_set(err, ERR_BAD_NAME, -EINVAL,
			       "cannot export: a name has 1 to %u bytes", VHOST_NAME_BYTES_MAX);
	if (options->max_queues > VHOST_QUEUES_MAX)
		return err_set(err, ERR_USAGE, -EINVAL, "cannot export '%s': at most %u queues",
			       options->name, VHOST_QUEUES_MAX);
	if (options->max_requests > MAX_REQUESTS_MAX)
		return err_set(err, ERR_USAGE, -EINVAL, "cannot export '%s': at most %u requests",
			       options->name, MAX_REQUESTS_MAX);
	/* A sector is virtio's unit; a smaller block of the device is no trouble. */
	if (dev->size_bytes % VHOST_SECTOR_BYTES)
		return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
			       "cannot export '%s': its size is no multiple of %u bytes",
			       options->name, VHOST_SECTOR_BYTES);
	return 0;
}

static void server_init(struct vhost_blk_server *server, const struct vhost_blk_options *options)
{
	snprintf(server->name, sizeof(server->name), "%s", options->name);
	server->read_only = options->read_only || server->dev->limits.read_only;
	server->max_queues = options->max_queues ? options->max_queues : DEFAULT_MAX_QUEUES;
	server->max_requests = options->max_requests ? options->max_requests :
						       DEFAULT_MAX_REQUESTS;
	server->drain_timeout_ns = options->drain_timeout_ns ? options->drain_timeout_ns :
							       DEFAULT_DRAIN_TIMEOUT_NS;
	server->poll_ns = options->poll_ns;
	server->listener = (struct listener){ .loop = server->loop, .room = "vhost",
					       .name = server->name, .accepted = server_accepted };
	server->closed_task.run = server_closed;
	server->complaints = (struct complaints){
		.window_ns = loop_now_ns(server->loop), .level = LOG_LEVEL_WARN,
		.room = "vhost", .name = server->name,
	};
}

int vhost_blk_server_new(struct loop *loop, int listen_fd, struct blk_dev *dev,
			 const struct vhost_blk_options *options, struct vhost_blk_server **out,
			 struct err *err)
{
	struct vhost_blk_server *server;
	int rc;

	LOOP_CHECK(loop);
	CHECK(dev->loop == loop);
	rc = options_judge(dev, options, err);
	if (rc)
		return rc;
	server = calloc(1, sizeof(*server));
	if (!server)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot export '%s': out of memory",
			       options->name);
	server->loop = loop;
	server->dev = dev;
	server_init(server, options);
	rc = listener_start(&server->listener, listen_fd, err);
	if (rc) {
		free(server);
		return rc;
	}
	*out = server;
	return 0;
}

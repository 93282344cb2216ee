/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_server.c - connections, bodies, answers.  Streams are in api_stream.c, the listening
 * sockets in api_listen.c.
 *
 *   1. libmicrohttpd calls handle_request() with the head: a call is made and routed.
 *   2. ... with pieces of the body: gathered, bounded.
 *   3. ... at the end of the body: judged and dispatched to the route's handler.
 *   4. The handler answers.  Answered inside 3: queued at once.  Later: the connection was
 *      suspended and is resumed, libmicrohttpd calls again, and the answer is queued.
 */
#include "tools/blkmirrord/api_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/api_call.h"

#define REQUEST_TIMEOUT_S 30u
#define DISCARD_MAX_BYTES (UINT64_C(1) << 20)
#define STREAM_BEAT_NS (10 * NS_PER_S)

/* ---- driving libmicrohttpd ---- */

static void server_run(struct api_server *server)
{
	MHD_UNSIGNED_LONG_LONG timeout_ms;

	CHECK(!server->running);
	server->running = true;
	server->resumed = false;
	MHD_run(server->mhd);
	server->running = false;
	if (server->resumed)
		timer_start(&server->timer, 0);
	else if (MHD_get_timeout(server->mhd, &timeout_ms) == MHD_YES)
		timer_start(&server->timer, timeout_ms * NS_PER_MS);
	else
		timer_stop(&server->timer);
}

/* libmicrohttpd looks at resumed connections in MHD_run() only: nothing wakes it for them. */
void api_connection_resume(struct api_call *call)
{
	MHD_resume_connection(call->connection);
	call->server->resumed = true;
	if (!call->server->running)
		timer_start(&call->server->timer, 0);
}

static void server_ready(struct watch *watch, unsigned events)
{
	(void)events;
	server_run(container_of(watch, struct api_server, watch));
}

static void server_timer_fired(struct timer *timer)
{
	server_run(container_of(timer, struct api_server, timer));
}

static void server_beat(struct timer *timer)
{
	struct api_server *server = container_of(timer, struct api_server, beat);

	api_streams_beat(server);
	timer_start(&server->beat, STREAM_BEAT_NS);
}

/* ---- calls ---- */

static struct api_call *call_new(struct api_server *server, struct MHD_Connection *connection,
				 const char *url, const char *method)
{
	struct api_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->server = server;
	call->connection = connection;
	snprintf(call->path, sizeof(call->path), "%s", url);
	snprintf(call->method, sizeof(call->method), "%s", method);
	list_init(&call->waiter.node);
	server->call_count++;
	return call;
}

static void call_free(struct api_call *call)
{
	call->server->call_count--;
	idempotency_forget_waiter(&call->waiter);
	json_decref(call->body);
	json_decref(call->answer);
	free(call->answer_text);
	free(call->text);
	free(call);
}

static void call_completed(void *user, struct MHD_Connection *connection, void **context,
			   enum MHD_RequestTerminationCode code)
{
	struct api_call *call = *context;

	(void)user;
	(void)connection;
	(void)code;
	*context = NULL;
	if (call)
		call_free(call);
}

struct daemon *api_daemon(const struct api_call *call)
{
	return call->server->daemon;
}

const json_t *api_body(const struct api_call *call)
{
	return call->body;
}

const char *api_param(const struct api_call *call)
{
	return call->param;
}

const char *api_query(const struct api_call *call, const char *key)
{
	return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, key);
}

bool api_query_flag(const struct api_call *call, const char *key)
{
	const char *value = api_query(call, key);

	return value && (strcmp(value, "1") == 0 || strcmp(value, "true") == 0 ||
			 strcmp(value, "yes") == 0);
}

/* ---- answers ---- */

static void add_allow(struct api_call *call, struct MHD_Response *response)
{
	char allow[64] = "";
	size_t used = 0;
	const struct route *route;

	for (unsigned i = 0; (route = route_at(i)); i++) {
		char param[API_PARAM_BYTES];
		bool known;

		if (route_find(route->method, call->path, param, sizeof(param), &known) != route)
			continue;
		if (used < sizeof(allow))
			used += (size_t)snprintf(allow + used, sizeof(allow) - used, "%s%s",
						 used ? ", " : "", route->method);
	}
	MHD_add_response_header(response, "Allow", allow);
}

static enum MHD_Result call_queue(struct api_call *call)
{
	struct MHD_Response *response;
	enum MHD_Result queued;
	char *text = call->answer_text;
	const char *type = call->content_type ? call->content_type : "application/json";

	if (call->stream)
		return api_stream_queue(call);
	call->answer_text = NULL;
	if (!text && call->answer)
		text = json_dumps(call->answer, JSON_COMPACT);
	if (!text)
		return MHD_NO; /* out of memory: the client sees the connection close */
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (call->status == 405)
		add_allow(call, response);
	queued = MHD_queue_response(call->connection, (unsigned)call->status, response);
	MHD_destroy_response(response);
	return queued;
}

/* The call has its answer: send it now, or wake the connection that sleeps for it. */
static void call_answered(struct api_call *call)
{
	CHECK(!call->answered);
	call->answered = true;
	if (call->idempotency) {
		struct idempotency_entry *entry = call->idempotency;

		call->idempotency = NULL;
		idempotency_finish(call->server->idempotency, entry, call->status, call->answer);
	}
	if (call->suspended) {
		call->suspended = false;
		api_connection_resume(call);
	}
}

void api_answer(struct api_call *call, int status, json_t *body)
{
	struct err err;

	if (!body) {
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
		body = json_edge_error(&err);
		status = err_http_status(ERR_NO_MEMORY);
	}
	call->status = status;
	call->answer = body;
	call_answered(call);
}

void api_fail(struct api_call *call, const struct err *err)
{
	CHECK(err->id != ERR_NONE);
	if (call->route && call->route->changes)
		log_info("api", "%s %s refused: %s (%s)", call->method, call->path, err->cause,
			 err_name(err->id));
	api_answer(call, err_http_status(err->id), json_edge_error(err));
}

void api_answer_text(struct api_call *call, const char *content_type, char *text)
{
	struct err err;

	if (!text) {
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
		api_fail(call, &err);
		return;
	}
	call->status = 200;
	call->content_type = content_type;
	call->answer_text = text;
	call_answered(call);
}

void api_answer_stream(struct api_call *call, struct api_stream *stream)
{
	stream->call = call;
	list_append(&call->server->streams, &stream->node);
	call->stream = stream;
	call->status = 200;
	call_answered(call);
}

/* ---- requests ---- */

static void log_change(const struct api_call *call)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred who = { .pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1 };
	socklen_t who_bytes = sizeof(who);

	if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &who, &who_bytes) == 0)
		log_info("api", "%s %s by uid %u, pid %d", call->method, call->path, who.uid,
			 who.pid);
	else
		log_warn("api", "%s %s by an unknown peer", call->method, call->path);
}

static void repeat_answered(struct idempotency_waiter *waiter, int status, json_t *body)
{
	struct api_call *call = container_of(waiter, struct api_call, waiter);

	api_answer(call, status, json_incref(body));
}

/* True: go on.  False: it is (or will be) answered as a repeat or refused. */
static bool call_is_new(struct api_call *call, struct err *err)
{
	const char *key = MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND,
						      "Idempotency-Key");
	XXH64_hash_t hash;

	if (!key || !call->route->changes)
		return true;
	hash = XXH3_64bits_withSeed(call->path, strlen(call->path), (XXH64_hash_t)call->method[0]);
	hash = XXH3_64bits_withSeed(call->text ? call->text : "", call->text_bytes, hash);
	call->waiter.answered = repeat_answered;
	if (idempotency_begin(call->server->idempotency, key, hash, &call->waiter,
			      &call->idempotency, err))
		return false;
	return call->idempotency != NULL;
}

static void call_dispatch(struct api_call *call)
{
	struct err err = { 0 };

	if (call->too_large) {
		err_set(&err, ERR_TOO_LARGE, 0, "the body is larger than %u bytes",
			JSON_EDGE_BODY_MAX_BYTES);
	} else if (call->server->quiesced && call->route->changes) {
		err_set(&err, ERR_SHUTTING_DOWN, 0, "the daemon is stopping");
	} else if (json_edge_parse(call->text, call->text_bytes, &call->body, &err) == 0 &&
		   call_is_new(call, &err)) {
		if (call->route->changes)
			log_change(call);
		call->route->handle(call);
	}
	if (err.id != ERR_NONE)
		api_fail(call, &err);
}

/* Route by the head alone; false: refused, and answered. */
static bool call_route(struct api_call *call)
{
	struct err err = { 0 };
	const char *length = MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND,
							 "Content-Length");
	bool path_known;

	call->route = route_find(call->method, call->path, call->param, sizeof(call->param),
				 &path_known);
	if (call->route && call->server->metrics_only && !call->route->public)
		err_set(&err, ERR_NOT_ALLOWED, 0, "'%.128s' is served on the UNIX socket only",
			call->path);
	else if (!call->route && path_known)
		err_set(&err, ERR_BAD_METHOD, 0, "'%.128s' does not take %s", call->path,
			call->method);
	else if (!call->route)
		err_set(&err, ERR_NO_ROUTE, 0, "there is no '%.128s'", call->path);
	else if (length && strtoull(length, NULL, 10) > JSON_EDGE_BODY_MAX_BYTES)
		err_set(&err, ERR_TOO_LARGE, 0, "the body is larger than %u bytes",
			JSON_EDGE_BODY_MAX_BYTES);
	if (err.id == ERR_NONE)
		return true;
	api_fail(call, &err);
	return false;
}

static enum MHD_Result call_gather(struct api_call *call, const char *data, size_t data_bytes)
{
	if (call->answered)
		return MHD_YES;
	if (!call->text)
		call->text = malloc(JSON_EDGE_BODY_MAX_BYTES);
	if (!call->text)
		return MHD_NO;
	if (call->too_large || data_bytes > JSON_EDGE_BODY_MAX_BYTES - call->text_bytes) {
		call->too_large = true;
		call->discarded_bytes += data_bytes;
		return call->discarded_bytes > DISCARD_MAX_BYTES ? MHD_NO : MHD_YES;
	}
	memcpy(call->text + call->text_bytes, data, data_bytes);
	call->text_bytes += data_bytes;
	return MHD_YES;
}

static enum MHD_Result handle_request(void *user, struct MHD_Connection *connection,
				      const char *url, const char *method, const char *version,
				      const char *data, size_t *data_bytes, void **context)
{
	struct api_server *server = user;
	struct api_call *call = *context;

	(void)version;
	if (!call) {
		call = call_new(server, connection, url, method);
		if (!call)
			return MHD_NO;
		*context = call;
		return call_route(call) ? MHD_YES : call_queue(call);
	}
	if (*data_bytes) {
		enum MHD_Result gathered = call_gather(call, data, *data_bytes);

		*data_bytes = 0;
		return gathered;
	}
	if (!call->dispatched) {
		call->dispatched = true;
		call_dispatch(call);
	}
	if (call->answered)
		return call_queue(call);
	call->suspended = true;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

/* ---- the server ---- */

static void mhd_log(void *user, const char *format, va_list args) PRINTF_LIKE(2, 0);
static void mhd_log(void *user, const char *format, va_list args)
{
	char text[512];

	(void)user;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_debug("api", "%s", text);
}

static int start_mhd(struct api_server *server, const struct api_options *options, struct err *err)
{
	const union MHD_DaemonInfo *info;

	server->mhd = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		handle_request, server, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, options->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
		API_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, REQUEST_TIMEOUT_S,
		MHD_OPTION_NOTIFY_COMPLETED, call_completed, server, MHD_OPTION_END);
	if (!server->mhd)
		return err_set(err, ERR_INTERNAL, -EIO, "cannot start the HTTP server");
	info = MHD_get_daemon_info(server->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	CHECK(info);
	return watch_start(&server->watch, server->loop, info->epoll_fd, WATCH_READ, server_ready);
}

int api_server_new(const struct api_options *options, struct api_server **out, struct err *err)
{
	struct api_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	server->loop = options->loop;
	server->daemon = options->daemon;
	server->metrics_only = options->metrics_only;
	list_init(&server->streams);
	timer_init(&server->timer, server->loop, server_timer_fired);
	timer_init(&server->beat, server->loop, server_beat);
	server->idempotency = idempotency_new();
	if (!server->idempotency) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_server;
	}
	rc = start_mhd(server, options, err);
	if (rc)
		goto free_idempotency;
	timer_start(&server->beat, STREAM_BEAT_NS);
	*out = server;
	return 0;

free_idempotency:
	idempotency_free(server->idempotency);
free_server:
	free(server);
	return rc;
}

void api_server_quiesce(struct api_server *server)
{
	MHD_socket fd;

	if (server->quiesced)
		return;
	server->quiesced = true;
	fd = MHD_quiesce_daemon(server->mhd);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	api_streams_close(server);
}

uint32_t api_server_calls(const struct api_server *server)
{
	return server->call_count;
}

void api_server_free(struct api_server *server)
{
	if (!server)
		return;
	CHECK(server->call_count == 0);
	timer_stop(&server->timer);
	timer_stop(&server->beat);
	watch_stop(&server->watch);
	MHD_stop_daemon(server->mhd);
	idempotency_free(server->idempotency);
	free(server);
}

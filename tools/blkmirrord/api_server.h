/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_server.h - HTTP/1.1 on the UNIX socket (and, when asked, metrics on TCP).
 *
 * libmicrohttpd does the protocol; its epoll descriptor is watched on the main loop, so
 * there is no other thread.  A handler answers its call exactly once, at once or later:
 * until then the connection sleeps.
 *
 * Bounds: API_CONNECTIONS_MAX connections, bodies of JSON_EDGE_BODY_MAX_BYTES, 30 s to send
 * a request.  Everything a client sends is hostile until judged (json_edge.h).
 *
 * Threading: main loop.
 */
#ifndef BM_API_SERVER_H
#define BM_API_SERVER_H

#include <jansson.h>
#include <sys/types.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

#define API_CONNECTIONS_MAX 256u
#define API_PARAM_BYTES 256

struct api_server;
struct api_call;
struct daemon;
struct route;

struct api_options {
	struct loop *loop;
	struct daemon *daemon;          /* handed to the handlers */
	int listen_fd;                  /* listening; taken */
	bool metrics_only;              /* TCP: nothing that changes or tells much */
};

MUST_CHECK int api_server_new(const struct api_options *options, struct api_server **out,
			      struct err *err);

/* Stop accepting, end the streams; calls under way are still answered. */
void api_server_quiesce(struct api_server *server);
/* Calls that have not been answered and sent yet. */
uint32_t api_server_calls(const struct api_server *server);
/* Answers what is open with ERR_SHUTTING_DOWN and closes.  NULL is harmless. */
void api_server_free(struct api_server *server);

/* Bind RUN-DIR/api.sock, 0660, group when it exists.  0 and the descriptor, or *err. */
MUST_CHECK int api_listen_unix(const char *path, const char *group, int *fd_out, struct err *err);
/* "127.0.0.1:9105" */
MUST_CHECK int api_listen_tcp(const char *address, int *fd_out, struct err *err);

/* ---- for handlers ---- */

struct daemon *api_daemon(const struct api_call *call);
const json_t *api_body(const struct api_call *call);           /* an object; borrowed */
const char *api_param(const struct api_call *call);            /* what stood for {id} or {name} */
const char *api_query(const struct api_call *call, const char *key);    /* NULL: not given */
bool api_query_flag(const struct api_call *call, const char *key);      /* 1, true, yes */

/* Exactly one of these, once.  api_answer takes body (NULL: out of memory). */
void api_answer(struct api_call *call, int status, json_t *body);
void api_fail(struct api_call *call, const struct err *err);
/* Takes text (malloc'd). */
void api_answer_text(struct api_call *call, const char *content_type, char *text);

/* ---- server-sent events ---- */

struct api_stream {
	/* The next event: its name (a literal) and data (new reference), or NULL: nothing now. */
	json_t *(*next)(struct api_stream *stream, const char **name);
	/* Nothing will come any more (asked only when next() gave NULL). */
	bool (*ended)(struct api_stream *stream);
	void (*release)(struct api_stream *stream);

	struct api_call *call;          /* private from here */
	struct list node;
	char *text;
	size_t text_bytes, sent_bytes;
	bool sleeping, beat, closing;
};

/* Answers the call by a stream; takes stream. */
void api_answer_stream(struct api_call *call, struct api_stream *stream);
/* next() has something to tell. */
void api_stream_wake(struct api_stream *stream);

#endif

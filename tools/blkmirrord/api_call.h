/* SPDX-License-Identifier: Apache-2.0 */
/* api_call.h - the inside of a call, for api_server.c and api_stream.c only. */
#ifndef BM_API_CALL_H
#define BM_API_CALL_H

#include <microhttpd.h>

#include "tools/blkmirrord/api_server.h"
#include "tools/blkmirrord/idempotency.h"
#include "tools/blkmirrord/route.h"
#include "tools/common/json_edge.h"

struct api_server {
	struct loop *loop;
	struct daemon *daemon;
	struct MHD_Daemon *mhd;
	struct watch watch;             /* of its epoll descriptor */
	struct timer timer;             /* its own time-outs */
	struct timer beat;              /* keeps streams alive, and finds the dead ones */
	struct idempotency *idempotency;
	struct list streams;
	uint32_t call_count;
	bool metrics_only, quiesced;
	bool running, resumed;          /* inside MHD_run(); a connection was resumed */
};

struct api_call {
	struct api_server *server;
	struct MHD_Connection *connection;
	const struct route *route;
	char method[16];
	char path[1024];
	char param[API_PARAM_BYTES];
	char *text;                     /* the body as it comes */
	size_t text_bytes;
	uint64_t discarded_bytes;
	json_t *body;
	bool too_large, dispatched, suspended, answered;
	int status;
	json_t *answer;
	char *answer_text;
	const char *content_type;
	struct api_stream *stream;
	struct idempotency_entry *idempotency;  /* to be finished with the answer */
	struct idempotency_waiter waiter;       /* when it repeats another call */
};

void api_connection_resume(struct api_call *call);
enum MHD_Result api_stream_queue(struct api_call *call);
void api_streams_beat(struct api_server *server);
void api_streams_close(struct api_server *server);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_stream.c - server-sent events: the connection sleeps until there is something to tell.
 *
 * Nothing queues per client: a stream asks its source for the next event when the client has
 * taken the last one, so a slow client costs one event of memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_call.h"

#define STREAM_TIMEOUT_S 60u

/* "event: NAME\ndata: {...}\n\n"; JSON has no line breaks of its own when compact. */
static char *frame(const char *name, json_t *data)
{
	char *text = json_dumps(data, JSON_COMPACT);
	char *out = NULL;

	if (text && asprintf(&out, "event: %s\ndata: %s\n\n", name, text) < 0)
		out = NULL;
	free(text);
	return out;
}

/* Have something in stream->text: 1, nothing now: 0, never again: -1. */
static int stream_fill(struct api_stream *stream)
{
	const char *name = "";
	json_t *data;

	if (stream->text)
		return 1;
	data = stream->next(stream, &name);
	if (data) {
		stream->text = frame(name, data);
		json_decref(data);
		if (!stream->text)
			return -1;
	} else if (stream->closing || stream->ended(stream)) {
		return -1;
	} else if (stream->beat) {
		stream->text = strdup(": still here\n\n");
	}
	stream->beat = false;
	if (!stream->text)
		return 0;
	stream->text_bytes = strlen(stream->text);
	stream->sent_bytes = 0;
	return 1;
}

static ssize_t stream_read(void *user, uint64_t position, char *out, size_t out_bytes)
{
	struct api_stream *stream = user;
	size_t left;
	int filled = stream_fill(stream);

	(void)position;
	if (filled < 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (filled == 0) {
		stream->sleeping = true;
		MHD_suspend_connection(stream->call->connection);
		return 0;
	}
	left = stream->text_bytes - stream->sent_bytes;
	if (left > out_bytes)
		left = out_bytes;
	memcpy(out, stream->text + stream->sent_bytes, left);
	stream->sent_bytes += left;
	if (stream->sent_bytes == stream->text_bytes) {
		free(stream->text);
		stream->text = NULL;
	}
	return (ssize_t)left;
}

static void stream_free(void *user)
{
	struct api_stream *stream = user;

	list_remove(&stream->node);
	free(stream->text);
	stream->release(stream);
}

enum MHD_Result api_stream_queue(struct api_call *call)
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, 4096, stream_read, call->stream, stream_free);
	enum MHD_Result queued;

	if (!response) {
		stream_free(call->stream);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", "text/event-stream");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_set_connection_option(call->connection, MHD_CONNECTION_OPTION_TIMEOUT,
				  STREAM_TIMEOUT_S);
	queued = MHD_queue_response(call->connection, (unsigned)call->status, response);
	MHD_destroy_response(response);
	return queued;
}

void api_stream_wake(struct api_stream *stream)
{
	if (!stream->sleeping)
		return;
	stream->sleeping = false;
	api_connection_resume(stream->call);
}

void api_streams_beat(struct api_server *server)
{
	list_for_each (node, &server->streams) {
		struct api_stream *stream = list_entry(node, struct api_stream, node);

		stream->beat = true;
		api_stream_wake(stream);
	}
}

void api_streams_close(struct api_server *server)
{
	list_for_each (node, &server->streams) {
		struct api_stream *stream = list_entry(node, struct api_stream, node);

		stream->closing = true;
		api_stream_wake(stream);
	}
}

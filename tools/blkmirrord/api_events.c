/* SPDX-License-Identifier: Apache-2.0 */
/* api_events.c - the API's events: what is stored as a list, what comes as a stream. */
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/daemon.h"

#define LIST_DEFAULT 100
#define LIST_MAX 1000

struct event_stream {
	struct api_stream base;
	struct event_follower follower;
	struct events *events;
};

static json_t *stream_next(struct api_stream *base, const char **name)
{
	struct event_stream *stream = container_of(base, struct event_stream, base);
	json_t *event = events_next(stream->events, &stream->follower);

	*name = "event";
	return json_incref(event);
}

static bool stream_ended(struct api_stream *base)
{
	(void)base;
	return false;
}

static void stream_release(struct api_stream *base)
{
	struct event_stream *stream = container_of(base, struct event_stream, base);

	events_unfollow(&stream->follower);
	free(stream);
}

static void stream_woken(struct event_follower *follower)
{
	api_stream_wake(&container_of(follower, struct event_stream, follower)->base);
}

static void events_stream(struct api_call *call, uint64_t after)
{
	struct event_stream *stream = calloc(1, sizeof(*stream));
	struct events *events = api_daemon(call)->events;

	if (!stream) {
		api_answer(call, 200, NULL);
		return;
	}
	stream->base.next = stream_next;
	stream->base.ended = stream_ended;
	stream->base.release = stream_release;
	stream->events = events;
	stream->follower.woken = stream_woken;
	stream->follower.next_number = after + 1;
	list_init(&stream->follower.node);
	events_follow(events, &stream->follower);
	api_answer_stream(call, &stream->base);
}

static void list_answered(const json_t *rows, const struct err *err, void *user)
{
	struct api_call *call = user;
	json_t *list;

	if (err->id != ERR_NONE) {
		api_fail(call, err);
		return;
	}
	list = json_array();
	for (size_t i = json_array_size(rows); list && i-- > 0;) {
		json_t *event = json_loads(
			json_string_value(json_array_get(json_array_get(rows, i), 0)), 0, NULL);

		if (event)
			json_array_append_new(list, event);
	}
	api_answer(call, 200, json_pack("{s:o}", "events", list));
}

/* ?follow=1[&after=N]: a stream; without: the last ?limit= of the store, oldest first. */
void api_events(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	const char *after = api_query(call, "after");
	const char *limit_text = api_query(call, "limit");
	long limit = limit_text ? strtol(limit_text, NULL, 10) : LIST_DEFAULT;
	struct store_value value = STORE_INT(limit);
	struct err err = { 0 };

	if (api_query_flag(call, "follow")) {
		events_stream(call, after ? strtoull(after, NULL, 10)
					  : events_last_number(daemon->events));
		return;
	}
	if (limit < 1 || limit > LIST_MAX)
		err_set(&err, ERR_BAD_FIELD, 0, "'limit' must be from 1 to %d", LIST_MAX);
	else if (!store_query(daemon->store,
			      "SELECT json FROM event ORDER BY number DESC LIMIT ?1", &value, 1,
			      list_answered, call, &err))
		return;
	api_fail(call, &err);
}

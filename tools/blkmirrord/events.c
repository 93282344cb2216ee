/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/events.h"

#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/log.h"
#include "tools/common/wall.h"

struct events {
	struct store *store;
	uint32_t kept;
	uint64_t last_number;           /* 0: none yet */
	json_t *ring[EVENTS_RING];      /* number % EVENTS_RING */
	struct list followers;
};

static int events_load_number(struct events *events, struct err *err)
{
	json_t *rows;
	int rc = store_load(events->store, "SELECT coalesce(max(number), 0) FROM event", &rows, err);

	if (rc)
		return rc;
	events->last_number =
		(uint64_t)json_integer_value(json_array_get(json_array_get(rows, 0), 0));
	json_decref(rows);
	return 0;
}

int events_new(struct store *store, uint32_t kept, struct events **out, struct err *err)
{
	struct events *events = calloc(1, sizeof(*events));
	int rc = 0;

	if (!events)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	events->store = store;
	events->kept = kept;
	list_init(&events->followers);
	if (store)
		rc = events_load_number(events, err);
	if (rc)
		free(events);
	else
		*out = events;
	return rc;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	CHECK(list_is_empty(&events->followers));
	for (uint32_t i = 0; i < EVENTS_RING; i++)
		json_decref(events->ring[i]);
	free(events);
}

/* An event that cannot be kept is still told to those who follow now. */
static void events_store(struct events *events, json_t *event)
{
	char *text = json_dumps(event, JSON_COMPACT);
	struct store_value values[2] = { STORE_INT(events->last_number), STORE_TEXT(text) };
	struct err err = { 0 };

	if (!events->store || !text)
		goto out;
	if (store_exec(events->store, "INSERT INTO event VALUES(?1, ?2)", values, 2, NULL, NULL,
		       &err)) {
		log_warn("events", "event %llu is not kept: %s",
			 (unsigned long long)events->last_number, err.cause);
		goto out;
	}
	if (events->last_number % 256 == 0) {
		values[0] = STORE_INT((int64_t)events->last_number - (int64_t)events->kept);
		if (store_exec(events->store, "DELETE FROM event WHERE number <= ?1", values, 1,
			       NULL, NULL, &err))
			log_warn("events", "cannot prune: %s", err.cause);
	}
out:
	free(text);
}

void events_emit(struct events *events, const char *name, json_t *data)
{
	char time[WALL_TEXT_BYTES];
	json_t *event;

	wall_format(wall_now_ms(), time);
	event = json_pack("{s:I, s:s, s:s, s:o?}", "number", (json_int_t)(events->last_number + 1),
			  "time", time, "event", name, "data", data);
	if (!event) {
		log_warn("events", "out of memory: '%s' is not told", name);
		return;
	}
	events->last_number++;
	json_decref(events->ring[events->last_number % EVENTS_RING]);
	events->ring[events->last_number % EVENTS_RING] = event;
	events_store(events, event);
	list_for_each (node, &events->followers) {
		struct event_follower *follower = list_entry(node, struct event_follower, node);

		follower->woken(follower);
	}
}

void events_follow(struct events *events, struct event_follower *follower)
{
	list_append(&events->followers, &follower->node);
}

void events_unfollow(struct event_follower *follower)
{
	list_remove(&follower->node);
}

json_t *events_next(struct events *events, struct event_follower *follower)
{
	json_t *event = NULL;

	if (events->last_number >= EVENTS_RING &&
	    follower->next_number <= events->last_number - EVENTS_RING)
		follower->next_number = events->last_number - EVENTS_RING + 1;
	/* Numbers from before this start are in the store only. */
	while (!event && follower->next_number <= events->last_number)
		event = events->ring[follower->next_number++ % EVENTS_RING];
	return event;
}

uint64_t events_last_number(const struct events *events)
{
	return events->last_number;
}

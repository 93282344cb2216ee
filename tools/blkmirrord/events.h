/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - what happened, in order, for people and programs that follow.
 *
 * An event: {"number":7,"time":"...","event":"task_state","data":{...}}.  The last
 * EVENTS_RING are in memory for followers; a bounded number is kept in the store.  A slow
 * follower loses the oldest (it sees the gap in the numbers), never the daemon its memory.
 *
 * Threading: main loop.
 */
#ifndef BM_EVENTS_H
#define BM_EVENTS_H

#include <jansson.h>

#include "blkmirror/base/list.h"
#include "tools/blkmirrord/store.h"

#define EVENTS_RING 1024u

struct events;

struct event_follower {
	void (*woken)(struct event_follower *follower); /* something new; from events_emit() */
	uint64_t next_number;           /* the first event it has not seen */
	struct list node;               /* list_init() before first use */
};

/* store may be NULL (tests).  Continues the numbers of the store.  Blocks: at start. */
MUST_CHECK int events_new(struct store *store, uint32_t kept, struct events **out,
			  struct err *err);
void events_free(struct events *events);

/* Takes data (NULL: out of memory; the event goes without). */
void events_emit(struct events *events, const char *name, json_t *data);

void events_follow(struct events *events, struct event_follower *follower);
void events_unfollow(struct event_follower *follower);

/* The follower's next event (borrowed), or NULL when it has seen all. */
json_t *events_next(struct events *events, struct event_follower *follower);

uint64_t events_last_number(const struct events *events);

#endif

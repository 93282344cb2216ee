/* SPDX-License-Identifier: Apache-2.0 */
/* wire_link_private.h - the inside of a link, for wire_link.c, wire_channel.c and wire_hub.c. */
#ifndef BM_WIRE_LINK_PRIVATE_H
#define BM_WIRE_LINK_PRIVATE_H

#include "vmotion/wire_link.h"

enum channel_state {
	CHANNEL_CLOSED,
	CHANNEL_ASKED,                  /* dialled: open was told */
	CHANNEL_DIALLING,               /* dialled: its connection is on its way */
	CHANNEL_AWAITED,                /* accepted: a secret was given for it */
	CHANNEL_UP,
	CHANNEL_LOST,                   /* accepted: its connection is gone, close is to come */
	CHANNEL_DRAINING,               /* dialled: close was told */
};

struct wire_channel {
	struct wire_link *link;
	unsigned number;
	enum channel_state state;
	uint32_t epoch;                 /* of its last opening */
	uint8_t token[WIRE_SECRET_BYTES];
	struct wire_conn *conn;
	uint64_t received;              /* of a connection that is gone */
	unsigned attempts;              /* addresses tried in this epoch */
};

struct wire_link {
	struct wire_env *env;
	struct wire_dialler *dialler;   /* NULL: accepted */
	struct wire_hub *hub;           /* NULL: dialled */
	struct list node;               /* in the hub */
	const struct wire_link_ops *ops;
	void *user;
	struct wire_conn *control;
	bool up, dead, plain_wanted, plain_data, bye;
	unsigned address;               /* by which control goes */
	uint8_t session[WIRE_SECRET_BYTES];
	uint64_t seed;
	struct uuid peer;
	char software[32];
	uint32_t version;
	char peer_key[WIRE_KEY_BYTES], peer_address[WIRE_PEER_BYTES];
	uint64_t ping_sent_ns, round_trip_ns, ping_stamp;
	void (*pong)(struct wire_link *link);
	struct err err;                 /* of the last address that failed */
	struct wire_channel channels[WIRE_CHANNELS_MAX];
	struct task start, release;
};

struct wire_link *link_alloc(struct wire_env *env);
/* The end of a link by the peer's or the network's doing; down() runs. */
void link_down(struct wire_link *link, const struct err *err);
void link_violation(struct wire_link *link, const char *what);
/* One of the link's own messages; a queue that is full of them ends the link. */
void link_tell(struct wire_link *link, const char *type, json_t *message);

/* For the hub: an accepted control connection; and a data connection that shows a secret. */
void link_accept_control(struct wire_link *link, struct wire_conn *conn,
			 const struct wire_hello *hello);
bool channel_accept(struct wire_link *link, struct wire_conn *conn, const struct wire_hello *hello);

/* The link's own messages about channels.  False: not one of these. */
bool channel_message(struct wire_link *link, const struct wire_line *line);
void channels_close(struct wire_link *link);

void hub_forget_link(struct wire_link *link);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_link.h - two daemons linked: one control connection and up to WIRE_CHANNELS_MAX channels,
 * each on a data connection of its own, spread over the peer's addresses.
 *
 *   dialled     asks: channels are opened and closed by this side only
 *   accepted    comes from a hub (wire_hub.h); data flow both ways on either
 *
 * A channel delivers frames in the order of sending, none twice, none left out: within one
 * epoch, that is one connection.  When that is lost, what was under way is lost with it.  The
 * channel is then drained (R-C4): the two sides tell each other over the control connection how
 * far they got, only then is channel_down() called, with the number of the last frame that the
 * peer has delivered, and only then may it be opened again, in the next epoch.  Nothing of an
 * old epoch can arrive after that: its connection is closed, and a frame carries its epoch.
 * Channels have no order among themselves, nor against control messages.
 *
 * The secret that a data connection shows is told over the control connection, for one channel
 * and epoch, and works once.  So a data connection may go without encryption, where both sides
 * chose it: who is at its other end is known all the same, though not what happens on the way.
 *
 * What a frame says is within the bounds of wire_format.h.  Whether the object exists and has
 * such an offset its receiver judges, in place() or in frame(), before it uses either: place()
 * gives NULL for what it does not know.
 *
 * The control connection is all that holds a link together: when it is lost, so is the link.
 *
 * States of a channel, by what happens:
 *
 *              open()   opened   up     lost   lost told  close told  closed told
 *   CLOSED     ASKED                                                              (dialled)
 *   ASKED               DIALLING               DRAINING               
 *   DIALLING                     UP     DRAINING  DRAINING
 *   UP                                  DRAINING  DRAINING
 *   DRAINING                                                          CLOSED
 *   CLOSED     AWAITED  (open told)                                               (accepted)
 *   AWAITED                      UP                       CLOSED
 *   UP                                  LOST              CLOSED
 *   LOST                                                  CLOSED
 *
 * Anything else is a peer that breaks the protocol, and ends the link.
 *
 * Callbacks run from the loop, and each may free the link.  Threading: one loop.
 */
#ifndef BM_WIRE_LINK_H
#define BM_WIRE_LINK_H

#include "vmotion/wire_conn.h"

struct wire_link;

struct wire_link_ops {
	/* Control is up, the peer has proved its key.  Dialled links only. */
	void (*up)(struct wire_link *link);
	/* A message of the user's (not one of the link's own types).  Borrowed. */
	void (*message)(struct wire_link *link, const struct wire_line *line);
	void (*channel_up)(struct wire_link *link, unsigned channel);
	/* As wire_conn.h's place and frame. */
	uint8_t *(*place)(struct wire_link *link, const struct wire_frame *frame);
	void (*frame)(struct wire_link *link, const struct wire_frame *frame,
		      const uint8_t *payload);
	/* After a send gave -EAGAIN: there is room; channel WIRE_CONTROL_ROOM: on control. */
	void (*writable)(struct wire_link *link, unsigned channel);
	/* Drained: the peer has delivered our frames up to `delivered` and no more, ever. */
	void (*channel_down)(struct wire_link *link, unsigned channel, uint64_t delivered);
	/* The last call.  The owner frees the link, now or later.  ERR_NONE: the peer said bye. */
	void (*down)(struct wire_link *link, const struct err *err);
};

#define WIRE_CONTROL_ROOM WIRE_CHANNELS_MAX

/* How to reach the peer: a socket, or the simulation. */
struct wire_dialler {
	/* 0 and *out, or -errno with *err.  plain: without encryption, for data. */
	int (*dial)(struct wire_dialler *dialler, unsigned address, bool plain,
		    struct wire_pipe **out, struct err *err);
	unsigned address_count;         /* at least 1 */
};

struct wire_link_options {
	struct wire_env *env;
	struct wire_dialler *dialler;   /* must outlive the link */
	const struct wire_link_ops *ops;
	void *user;
	bool plain_data;                /* our choice; both must make it */
};

/* Begin to connect.  0 and *out, or -errno with *err. */
MUST_CHECK int wire_link_new(const struct wire_link_options *options, struct wire_link **out,
			     struct err *err);

/* Says bye when it can, closes everything.  No callback runs any more.  NULL is harmless. */
void wire_link_free(struct wire_link *link);

void *wire_link_user(const struct wire_link *link);
/* For who gets an accepted link. */
void wire_link_adopt(struct wire_link *link, const struct wire_link_ops *ops, void *user);

/* Dialled links: the channel must be closed.  0, -ENOTCONN, -EAGAIN (control is full). */
MUST_CHECK int wire_link_open_channel(struct wire_link *link, unsigned channel);
/* Dialled links: what is queued or under way may be dropped; channel_down() follows. */
void wire_link_close_channel(struct wire_link *link, unsigned channel);
bool wire_link_channel_is_up(const struct wire_link *link, unsigned channel);

/* 0; -EAGAIN: full, writable() follows; -ENOTCONN: it is not up. */
MUST_CHECK int wire_link_send(struct wire_link *link, const char *type, const json_t *message);
/* Sets the frame's channel, epoch and sequence: the latter is what channel_down() counts in. */
MUST_CHECK int wire_link_send_frame(struct wire_link *link, unsigned channel,
				    struct wire_frame *frame, const void *payload);

/* Stop and go on receiving a channel's frames: the peer feels it. */
void wire_link_pause_channel(struct wire_link *link, unsigned channel);
void wire_link_resume_channel(struct wire_link *link, unsigned channel);

struct wire_link_status {
	bool up;
	struct uuid peer;               /* as it calls itself */
	char software[32];
	uint32_t version;               /* that both speak */
	char peer_key[WIRE_KEY_BYTES], address[WIRE_PEER_BYTES];
	uint64_t round_trip_ns;         /* of the last ping; 0: none yet */
	uint64_t bytes_in, bytes_out;   /* control and living channels */
	uint32_t channels_up;
	bool plain_data;
};
void wire_link_status(const struct wire_link *link, struct wire_link_status *out);

/* Measure the round trip now.  0, -ENOTCONN, -EAGAIN; pong() once, unless the link goes down. */
MUST_CHECK int wire_link_ping(struct wire_link *link, void (*pong)(struct wire_link *link));

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_hub.h - where other hosts' connections arrive and become links and channels.
 *
 * A control connection must be encrypted and show a key that keys->known() knows; it becomes a
 * link, given to accepted().  A data connection must show the secret of an awaited channel.
 * Everything else is refused with a reason where there is somebody to tell, logged (a line a
 * second at most, and how many more there were), and harms nothing.
 *
 * Bounds: WIRE_PENDING_MAX connections that have not said hello (the oldest gives way),
 * WIRE_LINKS_MAX links.
 *
 * Threading: one loop.
 */
#ifndef BM_WIRE_HUB_H
#define BM_WIRE_HUB_H

#include "vmotion/wire_link.h"
#include "vmotion/wire_socket.h"

#define WIRE_PENDING_MAX 64u
#define WIRE_LINKS_MAX 64u

struct wire_hub;

struct wire_hub_options {
	struct wire_env *env;
	/*
	 * May the owner of that key link with us?  True, and *plain_data when the operator chose
	 * that for it; or false with *err.
	 */
	bool (*judge)(void *user, const char *peer_key, const struct wire_hello *hello,
		      bool *plain_data, struct err *err);
	/* The link of one that may: adopt it (wire_link_adopt).  False: no memory for it. */
	bool (*accepted)(void *user, struct wire_link *link, const char *peer_key);
	void *user;
};

struct wire_hub *wire_hub_new(const struct wire_hub_options *options);

/* Ends what has not become a link; the links are their owners', and must be freed before. */
void wire_hub_free(struct wire_hub *hub);

/* Takes the pipe of a connection that has just been accepted. */
void wire_hub_take(struct wire_hub *hub, struct wire_pipe *pipe);

uint32_t wire_hub_link_count(const struct wire_hub *hub);
/* Connections that were refused or dropped before they became anything. */
uint64_t wire_hub_refused_count(const struct wire_hub *hub);

/* ---- a listening socket that feeds a hub ---- */

struct wire_listener;

/* Takes fd (listening, non-blocking).  keys and identity must outlive it.  0 or -errno. */
MUST_CHECK int wire_listener_new(struct wire_hub *hub, int fd,
				 const struct wire_identity *identity, struct wire_keys *keys,
				 struct wire_listener **out);
/* NULL is harmless. */
void wire_listener_free(struct wire_listener *listener);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_socket.h - pipes on TCP sockets, with TLS 1.3 or, by explicit choice, without.
 *
 * A dialled pipe accepts one key, the pinned one.  An accepted pipe asks known() whose key it is,
 * and looks at the first byte to see whether TLS is spoken at all: what comes unencrypted has an
 * empty peer_key, and its owner decides what little it may do.
 *
 * Threading: the loop's.
 */
#ifndef BM_WIRE_SOCKET_H
#define BM_WIRE_SOCKET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "vmotion/wire_identity.h"
#include "vmotion/wire_pipe.h"

struct wire_address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
};

/* "192.0.2.7:7701" or "[2001:db8::7]:7701", numbers only: no name is looked up.  0 or -EINVAL. */
MUST_CHECK int wire_address_parse(const char *text, struct wire_address *out);
char *wire_address_format(const struct wire_address *address, char text[WIRE_PEER_BYTES]);
socklen_t wire_address_bytes(const struct wire_address *address);

/*
 * Begin to connect.  pin: the fingerprint that the other side must prove (copied); NULL: plain
 * text.  0 and *out, or -errno with *err.
 */
MUST_CHECK int wire_socket_dial(struct loop *loop, const struct wire_identity *identity,
				const struct wire_address *address, const char *pin,
				struct wire_pipe **out, struct err *err);

/* Whose keys an accepted pipe takes. */
struct wire_keys {
	bool (*known)(struct wire_keys *keys, const char *fingerprint);
};

/* Takes fd, also on failure.  keys must outlive the pipe.  0 or -errno. */
MUST_CHECK int wire_socket_accepted(struct loop *loop, const struct wire_identity *identity,
				    int fd, struct wire_keys *keys, struct wire_pipe **out);

#endif

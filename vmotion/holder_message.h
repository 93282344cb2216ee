/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holder_message.h - what the daemon and the process that holds its sockets say to each other.
 *
 * A SOCK_SEQPACKET UNIX socket at RUN-DIR/holder.sock (0600, the same user on both ends).  One
 * packet is one message of 128 bytes, in this host's own byte order: both ends are
 * this host.  The daemon asks, the process answers:
 *
 *   STORE name + 1 descriptor   -> DONE      held from now on; replaces one of that name
 *   TAKE                        -> HELD name + 1 descriptor, for each; then DONE, count of them
 *   REMOVE name                 -> DONE      result -ENOENT when there was none
 *   RELEASE                     -> DONE      everything is closed, the process ends; -EBUSY while
 *                                            another connection is open
 *
 * What is taken stays held.  Old and new versions of the two programs meet during an upgrade:
 * a version that the other end does not know is refused.
 */
#ifndef BM_VMOTION_HOLDER_MESSAGE_H
#define BM_VMOTION_HOLDER_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

#define HOLDER_MAGIC 0x424d5348u
#define HOLDER_VERSION 1u
#define HOLDER_NAME_BYTES 112
#define HOLDER_SOCKET_NAME "holder.sock"

enum holder_message_type {
	HOLDER_STORE = 1,
	HOLDER_TAKE,
	HOLDER_REMOVE,
	HOLDER_RELEASE,
	HOLDER_HELD,
	HOLDER_DONE,
};

struct holder_message {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	int32_t result;                 /* DONE: 0 or -errno */
	uint32_t count;                 /* DONE after TAKE: how many were HELD */
	char name[HOLDER_NAME_BYTES];   /* STORE, REMOVE, HELD; terminated */
};
_Static_assert(sizeof(struct holder_message) == 128, "wire format");
_Static_assert(offsetof(struct holder_message, type) == 6, "wire format");
_Static_assert(offsetof(struct holder_message, name) == 16, "wire format");

void holder_message_init(struct holder_message *message, enum holder_message_type type,
			 const char *name);

/* Is a name 1 to HOLDER_NAME_BYTES - 1 of [A-Za-z0-9._-]? */
bool holder_name_is_valid(const char *name, size_t bytes);

/*
 * Is what came from the other end a message?  0 and *out; -EBADMSG, and nothing of it may be
 * used; -EPROTONOSUPPORT: of another version.
 */
MUST_CHECK int holder_message_judge(const void *bytes, size_t length, struct holder_message *out);

/* It answers from memory: an end that takes longer to answer or to read is stopped or gone. */
#define HOLDER_LIMIT_MS 5000

/*
 * One packet and at most one descriptor (-1: none); blocks for HOLDER_LIMIT_MS at most, whether
 * the socket does or not.  0, or -errno: -EPIPE at the other end's end, -ETIMEDOUT, as judge
 * says.  recv gives *fd; more descriptors than one are -EBADMSG, and closed.
 */
MUST_CHECK int holder_message_send(int socket, const struct holder_message *message, int fd);
MUST_CHECK int holder_message_recv(int socket, struct holder_message *out, int *fd);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial.h - a connected TCP socket by a deadline, for every kind of network store.
 *
 * The clients' libraries could connect by themselves, but would look names up without
 * a deadline and leave the socket as it is.  R3 wants a socket that drops what is queued
 * however it ends: SO_LINGER{1,0} for close and kill, TCP_USER_TIMEOUT for a link that is cut
 * and a process that is frozen, and keep-alive for a peer that vanishes while nothing is sent.
 *
 * Blocks, where nothing else is said: call it on a worker.  Deadlines are of dial_clock_ns().
 */
#ifndef BM_DIAL_H
#define BM_DIAL_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define DIAL_HOST_MAX 255

struct dial_address {
	char host[DIAL_HOST_MAX + 1];   /* a name or an address, IPv6 without brackets */
	uint16_t port;
	bool reserved_port;             /* ours is to be below 1024, where we may */
	const char *shown;              /* for messages: where */
	enum err_id err_id;             /* what a failure is called */
};

/*
 * All stream addresses of the host and the port: 0 and *found (gives: freeaddrinfo()), or -errno
 * with *err.  For clients whose library connects by itself.
 */
MUST_CHECK int dial_look_up(const struct dial_address *address, uint64_t deadline_ns,
			    struct addrinfo **found, struct err *err);

/* What R3 asks of a socket that another has made.  Does not block.  0 or -errno. */
MUST_CHECK int dial_tcp_options(int fd);

/* A connected, non-blocking socket (gives), or -errno with address->err_id. */
MUST_CHECK int dial_tcp(const struct dial_address *address, uint64_t deadline_ns, int *fd_out,
			struct err *err);

/* The clock of deadlines here: on a worker no loop's clock is at hand. */
uint64_t dial_clock_ns(void);

/* Milliseconds for poll() until then, rounded up; 0 when it has passed. */
int dial_poll_timeout_ms(uint64_t deadline_ns);

#endif

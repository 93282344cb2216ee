/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_dial.h - what every client of a store's server needs to connect to it.
 *
 * For the blocking half of a client, on a worker: nothing here belongs on a loop but
 * net_tcp_options(), which does not block.  Deadlines are of net_clock_ns().
 */
#ifndef BM_NET_DIAL_H
#define BM_NET_DIAL_H

#include <netdb.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define NET_HOST_MAX 255

/* Where to; borrowed. */
struct net_place {
	const char *host;               /* at most NET_HOST_MAX; IPv6 without brackets */
	const char *port;               /* decimal */
	const char *shown;              /* for messages */
	enum err_id err_id;             /* of what fails here */
};

/* The clock of the loop, where no loop is at hand. */
uint64_t net_clock_ns(void);

/* Milliseconds for poll() until then, rounded up; 0 when it has passed. */
int net_poll_timeout_ms(uint64_t deadline_ns);

/* All stream addresses: 0 and *found (gives: freeaddrinfo()), or -errno with *err. */
MUST_CHECK int net_look_up(const struct net_place *place, uint64_t deadline_ns,
			   struct addrinfo **found, struct err *err);

/*
 * R3: close, kill and a cut link all drop what is queued, so that nothing old lands later; a
 * peer that vanished is found within seconds.  0 or -errno.
 */
MUST_CHECK int net_tcp_options(int fd);

#endif

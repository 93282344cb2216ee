/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener.h - the listening socket of an export: whoever connects is handed over.
 *
 * Takes a few connections a turn, and rests for a moment when descriptors or memory are used
 * up: no event tells when there are some again, and the clients wait in the socket's backlog.
 *
 * Threading: one loop.
 */
#ifndef BM_LISTENER_H
#define BM_LISTENER_H

#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

struct listener {
	/* The caller's to fill in: */
	struct loop *loop;
	const char *room;               /* for the log: "nbd", "vhost"; borrowed */
	const char *name;               /* of the export; borrowed */
	void (*accepted)(struct listener *listener, int fd);    /* takes fd, non-blocking */
	/* The listener's own: */
	int fd;
	struct watch watch;
	struct timer again;
};

/*
 * Takes listen_fd on success: a listening stream socket, which is made non-blocking.  0, or
 * -errno with ERR_EXPORT_SOCKET.
 */
MUST_CHECK int listener_start(struct listener *listener, int listen_fd, struct err *err);

/* Gives the socket back, still listening, where fd_out is not NULL, else closes it. */
void listener_stop(struct listener *listener, int *fd_out);

#endif

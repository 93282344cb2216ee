/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holder_serve.h - the process that holds the exports' sockets while the daemon is away.
 *
 * It is the daemon's own program in another mode, in a session of its own, and does nothing but
 * keep descriptors.  It ends by itself
 *   - when no daemon is connected and it holds nothing,
 *   - when no daemon has been connected for the linger time,
 *   - when RUN-DIR or RUN-DIR/holder.sock is removed or moved away,
 *   - when it is told to (RELEASE, SIGTERM).
 *
 * Who may talk to it: the same user, by SO_PEERCRED.  What it says is judged all the same.
 */
#ifndef BM_VMOTION_HOLDER_SERVE_H
#define BM_VMOTION_HOLDER_SERVE_H

#include "vmotion/holder_message.h"
#include "vmotion/socket_holder.h"

#define HOLDER_SOCKETS_MAX SOCKET_HOLDER_MAX
#define HOLDER_CONNECTIONS_MAX 8u
/* argv[1] of the process; argv[2] is RUN-DIR, argv[3] the linger time in seconds. */
#define HOLDER_MODE "--hold-sockets"
#define HOLDER_LISTEN_FD 3

/* ---- what is held ---- */

struct holder_table {
	struct held_row {
		char name[HOLDER_NAME_BYTES];
		int fd;
	} *rows;                        /* HOLDER_SOCKETS_MAX of them, the first `count` used */
	uint32_t count;
};

MUST_CHECK int holder_table_init(struct holder_table *table);
/* Closes all. */
void holder_table_release(struct holder_table *table);

/*
 * What STORE, REMOVE and RELEASE do, and the count for TAKE; `others`: connections beside the
 * asking one.  Takes fd (-1: none came).  *answer is the DONE to send.  0, or -EBADMSG: who
 * says such things is cut off.
 */
MUST_CHECK int holder_table_do(struct holder_table *table, const struct holder_message *message,
			       int fd, uint32_t others, struct holder_message *answer);

/* ---- the process ---- */

/* Is this process to be one?  (Then nothing else of the daemon may run.) */
bool holder_is_asked(int argc, char **argv);

/* The whole of its life, begun by leaving its parent; gives the exit status. */
int holder_main(char **argv);

#endif

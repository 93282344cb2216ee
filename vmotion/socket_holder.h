/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_holder.h - a place that holds the exports' listening sockets while the daemon is away.
 *
 * A client that lost its connection tries again at once, and then after ever longer pauses.  If
 * the listening socket lives on, the first try gets into its backlog and waits there for the
 * next daemon: the stall is the outage.  If not, the pauses come on top, and several outages
 * within them add up to errors in the guest.
 *
 *   SYSTEMD   the service manager's file-descriptor store (FDSTORE=1, LISTEN_FDS)
 *   PROCESS   a process of our own (holder_serve.h), made when the first socket is kept
 *   NONE      nobody: a restarted daemon makes its sockets anew
 *
 * Whatever the kind, what an earlier life of the daemon left with systemd or with the process
 * is taken back and then kept where the kind says; what does not fit any more is let go.
 *
 * A socket is kept under the name disk-DEV-INO-ID: the disk's id, and the device and inode
 * of the file that it was bound to.  As long as the socket lives that inode cannot be used
 * again, so a path that leads to it leads to this socket and to no other.
 *
 * Threading: open, close and event_fd on the main loop, with nothing of the others running;
 * the rest [worker]: on one worker, it may block for seconds where the holder hangs.
 */
#ifndef BM_VMOTION_SOCKET_HOLDER_H
#define BM_VMOTION_SOCKET_HOLDER_H

#include "vmotion/disk_socket.h"

#define SOCKET_HOLDER_MAX 4096u         /* sockets */
#define SOCKET_LINGER_MAX_S 86400u

enum socket_holder_kind {
	SOCKET_HOLDER_AUTO,             /* SYSTEMD where it says that it stores, else PROCESS */
	SOCKET_HOLDER_SYSTEMD,
	SOCKET_HOLDER_PROCESS,
	SOCKET_HOLDER_NONE,
};
bool socket_holder_kind_parse(const char *text, enum socket_holder_kind *out);
const char *socket_holder_kind_name(enum socket_holder_kind kind);

struct socket_holder;

struct socket_holder_options {
	enum socket_holder_kind kind;
	const char *run_dir;            /* the process listens at RUN-DIR/holder.sock; copied */
	uint32_t linger_s;              /* how long the process waits for a daemon to come */
};

/*
 * Take back what is held.  Blocks for a moment: before the loop runs.  0, or -errno with
 * ERR_BAD_CONFIG (SYSTEMD, and nobody to notify) or ERR_NO_MEMORY.  A holder that does not
 * answer is logged: the sockets that it holds may stand in the way of new ones.
 */
MUST_CHECK int socket_holder_open(const struct socket_holder_options *options,
				  struct socket_holder **out, struct err *err);
/* What is held stays held.  NULL is harmless. */
void socket_holder_close(struct socket_holder *holder);

/* Sockets taken back or kept. */
uint32_t socket_holder_count(const struct socket_holder *holder);

/*
 * [worker] The disk's socket, when one is held that listens and that is the one at the path;
 * *out gets a descriptor of its own.  One that does not fit is let go.
 */
bool socket_holder_take(struct socket_holder *holder, const char *id, const char *path,
			struct disk_socket *out);

/*
 * [worker] Have it held from now on, instead of an earlier one of that id.  sock->fd is borrowed.
 * False: nobody holds it (NONE, or a failure, which is logged); it works all the same.
 */
bool socket_holder_keep(struct socket_holder *holder, const char *id,
			const struct disk_socket *sock);

/* [worker] Let it go, if there is one of that id; *gone (may be NULL) says what it was bound to. */
bool socket_holder_forget(struct socket_holder *holder, const char *id, struct disk_socket *gone);

/* [worker] Let go what was taken back and belongs to no disk any more. */
void socket_holder_sweep(struct socket_holder *holder,
			 bool (*wanted)(const char *id, const void *user), const void *user);

/*
 * Hangs up when the holder is lost; -1 when there is none that can be watched (yet).  It stays
 * open until socket_holder_again().
 */
int socket_holder_event_fd(const struct socket_holder *holder);
/* [worker] The holder is lost: make another, and have it hold everything. */
MUST_CHECK int socket_holder_again(struct socket_holder *holder, struct err *err);

/*
 * End the holder process of a run directory: what it holds is closed.  0 (none there
 * included), or ERR_SOCKET_HOLDER: a daemon uses it.  Blocks.
 */
MUST_CHECK int socket_holder_release(const char *run_dir, struct err *err);

#endif

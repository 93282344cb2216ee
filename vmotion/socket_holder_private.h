/* SPDX-License-Identifier: Apache-2.0 */
/* socket_holder_private.h - what a place that holds sockets implements. */
#ifndef BM_VMOTION_SOCKET_HOLDER_PRIVATE_H
#define BM_VMOTION_SOCKET_HOLDER_PRIVATE_H

#include <limits.h>

#include "vmotion/holder_message.h"
#include "vmotion/socket_holder.h"

struct held_socket {
	struct list node;
	char name[HOLDER_NAME_BYTES];
	char id[DISK_ID_BYTES];         /* "": the name is none of ours */
	dev_t dev;
	ino_t ino;
	int fd;                         /* our own */
	bool stored;                    /* the place has it */
	bool taken;                     /* or kept: it belongs to a disk */
};

struct holder_place_ops {
	/* fd is borrowed.  0, or -errno with ERR_SOCKET_HOLDER. */
	int (*store)(struct socket_holder *holder, const char *name, int fd, struct err *err);
	int (*remove)(struct socket_holder *holder, const char *name, struct err *err);
};

struct socket_holder {
	const struct holder_place_ops *ops;     /* NULL: NONE */
	enum socket_holder_kind kind;           /* never AUTO */
	char run_dir[PATH_MAX];
	uint32_t linger_s;
	_Atomic int process_fd;         /* connection to the process, or -1 */
	struct list sockets;
	uint32_t count;
};

extern const struct holder_place_ops holder_systemd_ops, holder_process_ops;

/* One that was held; takes fd.  stored: by the place of this holder's kind. */
MUST_CHECK int socket_holder_adopt(struct socket_holder *holder, const char *name, int fd,
				   bool stored, struct err *err);

/* Adopt LISTEN_FDS. */
MUST_CHECK int holder_systemd_take(struct socket_holder *holder, struct err *err);

/* Connect to a process that runs; no process: 0, and process_fd stays -1. */
MUST_CHECK int holder_process_connect(struct socket_holder *holder, struct err *err);
/* The same, and adopt what it holds. */
MUST_CHECK int holder_process_take(struct socket_holder *holder, struct err *err);
/* Have it closed all and end; the connection is closed. */
MUST_CHECK int holder_process_end(struct socket_holder *holder, struct err *err);
/* Drop the connection, if there is one. */
void holder_process_drop(struct socket_holder *holder);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_socket.h - the listening UNIX socket of an export: made, replaced, removed safely.
 *
 * A socket left by a dead daemon is replaced; a live one, or anything that is no socket, is
 * refused.  The new one is bound under another name, given its mode, set listening and only
 * then renamed into place, so that a client that finds the path can always connect.  A lock
 * on the directory keeps two daemons from judging the same dead socket at once.
 */
#ifndef BM_VMOTION_DISK_SOCKET_H
#define BM_VMOTION_DISK_SOCKET_H

#include <sys/types.h>

#include "vmotion/disk.h"

struct disk_socket {
	int fd;                         /* listening, non-blocking; the caller's to close or give */
	char path[DISK_SOCKET_BYTES];
	dev_t dev;                      /* of the socket's file: remove only what is ours */
	ino_t ino;
};

/* [any] Absolute, names a file, fits into sun_path: 0, or -EINVAL with ERR_EXPORT_SOCKET. */
MUST_CHECK int disk_socket_judge_path(const char *path, struct err *err);

/* [worker] Mode 0660; makes missing directories (0750).  0, or -errno with ERR_EXPORT_SOCKET. */
MUST_CHECK int disk_socket_listen(const char *path, struct disk_socket *out, struct err *err);

/* [worker] Removes the file if it still is this socket. */
void disk_socket_unlink(const struct disk_socket *sock);

/* [any] nbd+unix:///ID?socket=PATH with what must be percent-encoded. */
void disk_socket_uri(const char *id, const char *path, char out[DISK_URI_BYTES]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_dir.h - the directory that makes this daemon the one it is.
 *
 * STATE-DIR/lock is locked for the daemon's life: one daemon per directory.  STATE-DIR/host-uuid
 * holds the host's random identity, made at the first start (R-F5): not the machine's, since
 * several daemons on one machine must not take each other's locks for their own.
 */
#ifndef BM_STATE_DIR_H
#define BM_STATE_DIR_H

#include <stdint.h>

#include "blkmirror/base/err.h"

/*
 * Make it when missing (0700), lock it, read or make the identity.  0 and the lock's descriptor
 * (gives; closing unlocks), or -errno with *err, ERR_STATE_DIR.  Blocks.
 *
 * A killed daemon keeps the lock, like its disks' locks, until the kernel has done its last
 * request (R-J7): the next one waits, at most wait_ms, and not beyond a SIGTERM or SIGINT that
 * is pending (-EINTR).  Uses SIGALRM meanwhile: before other threads and handlers.
 */
MUST_CHECK int state_dir_open(const char *path, unsigned wait_ms, int *lock_fd,
			      uint8_t host_uuid[16], struct err *err);

/* mkdir -p with that mode for the last part. */
MUST_CHECK int make_dir(const char *path, unsigned mode, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.h - talking to a running QEMU through its monitor socket: JSON, one message a line.
 *
 *   QEMU:  {"QMP": {...}}                                      greeting
 *   we:    {"execute": "qmp_capabilities", "id": 1}
 *   QEMU:  {"return": {}, "id": 1}                             now it is ready
 *   we:    {"execute": "query-status", "id": 2}
 *   QEMU:  {"event": "STOP", ...}                              at any time between
 *   QEMU:  {"return": {"status": "paused", ...}, "id": 2}
 *
 * Commands may be given before it is ready; they go out in order.  Each has a deadline: a QEMU
 * that hangs holds nobody.  An answer that comes too late is dropped.
 *
 * What QEMU sends is bounded (QMP_LINE_MAX_BYTES a message, QMP_CALLS_MAX commands without an
 * answer) and judged: a message that is none ends the connection.
 *
 * Threading: main loop.  Callbacks never run from inside a call, and may do anything, qmp_free()
 * included.
 */
#ifndef BM_VMOTION_QMP_H
#define BM_VMOTION_QMP_H

#include <jansson.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

#define QMP_LINE_MAX_BYTES (1u << 20)
#define QMP_CALLS_MAX 64u

struct qmp;

struct qmp_options {
	struct loop *loop;
	/* All may be NULL.  data is an object, borrowed. */
	void (*ready)(void *user);
	void (*event)(const char *name, const json_t *data, void *user);
	/* The connection has ended, once; the commands under way have failed before. */
	void (*closed)(const struct err *err, void *user);
	void *user;
	uint64_t ready_timeout_ns;      /* for the greeting and the capabilities; 0: 10 s */
};

/*
 * Over a connected stream socket (takes fd, also on failure; makes it non-blocking).
 * 0 and *out (gives), or -errno with *err (ERR_NO_MEMORY, ERR_VM_QMP).
 */
MUST_CHECK int qmp_new(int fd, const struct qmp_options *options, struct qmp **out,
		       struct err *err);

/* Connect to a UNIX socket first; does not block.  ERR_VM_QMP: nobody listens there. */
MUST_CHECK int qmp_connect(const char *path, const struct qmp_options *options, struct qmp **out,
			   struct err *err);

/* Hangs up; nothing of it is called any more, commands under way included.  NULL is harmless. */
void qmp_free(struct qmp *qmp);

bool qmp_is_ready(const struct qmp *qmp);

/* The process that listens at the other end; 0: not known. */
pid_t qmp_peer_pid(const struct qmp *qmp);

/*
 * result is what QEMU returned (borrowed) and err NULL; or result NULL and err says why:
 * ERR_VM_QMP_REFUSED with QEMU's words, ERR_VM_QMP_LATE, ERR_VM_QMP (the connection),
 * ERR_NO_MEMORY.  Runs once, unless qmp_free() comes first.
 */
typedef void qmp_done(const json_t *result, const struct err *err, void *user);

/*
 * name must stay valid (a literal); arguments (may be NULL) are taken.  done may be NULL.
 * fd >= 0 goes along (getfd, add-fd) and is taken, that is closed.
 */
void qmp_command_fd(struct qmp *qmp, const char *name, json_t *arguments, int fd,
		    uint64_t timeout_ns, qmp_done *done, void *user);

static inline void qmp_command(struct qmp *qmp, const char *name, json_t *arguments,
			       uint64_t timeout_ns, qmp_done *done, void *user)
{
	qmp_command_fd(qmp, name, arguments, -1, timeout_ns, done, user);
}

#endif

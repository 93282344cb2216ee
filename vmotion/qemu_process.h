/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_process.h - a QEMU process that outlives the daemon, and is known again afterwards.
 *
 * It gets a session of its own, only the descriptors that it is given, and no rights: user and
 * group are changed before it is executed (QEMU's own -runas does not go with a sandbox that
 * denies it).  A process is known by pid, start time and boot: never by pid alone.
 *
 * Threading: main loop; nothing here waits.
 */
#ifndef BM_VMOTION_QEMU_PROCESS_H
#define BM_VMOTION_QEMU_PROCESS_H

#include <sched.h>
#include <sys/types.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/uuid.h"

#define QEMU_FDS_MAX 24
#define QEMU_FD_FIRST 10        /* in the process: QEMU_FD_FIRST + i for fds[i] */

struct qemu_spawn {
	char *const *argv;
	const int *fds;                 /* borrowed: inherited as QEMU_FD_FIRST + i; -1: none */
	uint32_t fd_count;
	int log_fd;                     /* borrowed: its stdout and stderr */
	bool drop;                      /* become uid and gid, with no other group but that below */
	uid_t uid;
	gid_t gid;
	bool has_group;
	gid_t group;
	const cpu_set_t *affinity;      /* NULL: as the daemon's */
};

struct qemu_identity {
	pid_t pid;                      /* 0: none */
	uint64_t start_ticks;           /* field 22 of /proc/PID/stat */
	char boot_id[UUID_TEXT_BYTES];
};

/*
 * Start it.  *exec_fd (gives): readable when exec has gone well (end of file) or not (then
 * qemu_spawn_outcome() says why).  *pidfd (gives): readable when the process has ended.
 * 0, or -errno with ERR_VM_START.
 */
MUST_CHECK int qemu_spawn(const struct qemu_spawn *spawn, struct qemu_identity *identity,
			  int *pidfd, int *exec_fd, struct err *err);

/* Once exec_fd is readable.  0, or -errno with ERR_VM_START. */
MUST_CHECK int qemu_spawn_outcome(int exec_fd, const char *binary, struct err *err);

/* The process that this was: its pidfd, or -ESRCH when it has ended. */
MUST_CHECK int qemu_process_open(const struct qemu_identity *identity, int *pidfd);
/* Who has that pid now; -ESRCH. */
MUST_CHECK int qemu_process_identify(pid_t pid, struct qemu_identity *out);

/* Harmless when it has ended. */
void qemu_process_kill(int pidfd);

/*
 * Once pidfd is readable: how it ended, as words ("exited with 1", "was killed by signal 9
 * (Killed)").  *clean: exit status 0.  Reaps a child.  Of an earlier daemon's process it may be
 * too late to learn it ("ended; how is not known").
 */
void qemu_process_end(int pidfd, const struct qemu_identity *identity, char *text,
		      size_t text_bytes, bool *clean);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/qemu_process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

/* Out of the way of what the process is given. */
#define FD_ASIDE 128

/* The kernel's, since 6.15; Debian 12's headers do not have it. */
struct pidfd_exit_info {
	uint64_t mask;
	uint64_t cgroup_id;
	uint32_t ids[11];
	int32_t exit_code;              /* as waitpid() has it */
};
_Static_assert(sizeof(struct pidfd_exit_info) == 64, "PIDFD_INFO_SIZE_VER0");
#define PIDFD_EXIT_INFO _IOWR(0xff, 11, struct pidfd_exit_info)
#define PIDFD_HAS_EXIT (UINT64_C(1) << 3)

enum child_step { STEP_SESSION, STEP_FDS, STEP_AFFINITY, STEP_USER, STEP_EXEC };

struct child_failure {
	int step;
	int error;
};

/* ---- the child: only what may be done between fork and exec in a program with threads ---- */

static void child_fail(int report_fd, enum child_step step)
{
	struct child_failure failure = { step, errno };
	ssize_t put = write(report_fd, &failure, sizeof(failure));

	_exit(put == sizeof(failure) ? 127 : 126);
}

static bool child_fds(const struct qemu_spawn *spawn, int *report_fd)
{
	int aside[QEMU_FDS_MAX], null_fd, log_fd;

	*report_fd = fcntl(*report_fd, F_DUPFD_CLOEXEC, FD_ASIDE);
	log_fd = fcntl(spawn->log_fd, F_DUPFD_CLOEXEC, FD_ASIDE);
	if (*report_fd < 0 || log_fd < 0)
		return false;
	for (uint32_t i = 0; i < spawn->fd_count; i++) {
		aside[i] = spawn->fds[i] < 0 ? -1
					     : fcntl(spawn->fds[i], F_DUPFD_CLOEXEC, FD_ASIDE);
		if (spawn->fds[i] >= 0 && aside[i] < 0)
			return false;
	}
	null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
		return false;
	for (uint32_t i = 0; i < spawn->fd_count; i++)
		if (aside[i] >= 0 && dup2(aside[i], QEMU_FD_FIRST + (int)i) < 0)
			return false;
	/* Whatever the daemon has open besides, with or without CLOEXEC, is not QEMU's. */
	if (close_range(3, QEMU_FD_FIRST - 1, CLOSE_RANGE_CLOEXEC))
		return false;
	return close_range(QEMU_FD_FIRST + spawn->fd_count, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
}

/* A raw call: glibc's would make the daemon's threads change theirs, in a child that has none. */
static bool child_user(const struct qemu_spawn *spawn)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return false;
	if (!spawn->drop)
		return true;
	return syscall(SYS_setgroups, spawn->has_group ? 1 : 0, &spawn->group) == 0 &&
	       syscall(SYS_setresgid, spawn->gid, spawn->gid, spawn->gid) == 0 &&
	       syscall(SYS_setresuid, spawn->uid, spawn->uid, spawn->uid) == 0;
}

static void child_signals(void)
{
	struct sigaction usual = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		sigaction(number, &usual, NULL);        /* KILL and STOP refuse, and stay so */
	/* A log that has reached its bound is no reason to die (vm_limit_files()). */
	usual.sa_handler = SIG_IGN;
	sigaction(SIGXFSZ, &usual, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_run(const struct qemu_spawn *spawn, int report_fd)
{
	child_signals();
	if (setsid() < 0)
		child_fail(report_fd, STEP_SESSION);
	if (!child_fds(spawn, &report_fd))
		child_fail(report_fd, STEP_FDS);
	if (spawn->affinity && sched_setaffinity(0, sizeof(*spawn->affinity), spawn->affinity))
		child_fail(report_fd, STEP_AFFINITY);
	if (!child_user(spawn))
		child_fail(report_fd, STEP_USER);
	execv(spawn->argv[0], spawn->argv);
	child_fail(report_fd, STEP_EXEC);
}

/* ---- the parent ---- */

static int boot_id_read(char out[UUID_TEXT_BYTES])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, out, UUID_TEXT_BYTES - 1);

	if (fd >= 0)
		close(fd);
	if (got != UUID_TEXT_BYTES - 1)
		return -EIO;
	out[UUID_TEXT_BYTES - 1] = '\0';
	return 0;
}

/* Of /proc/PID/stat, "PID (NAME) STATE ...", counted from 1 as proc(5) does. */
enum { FIELD_START = 22, FIELD_EXIT = 52 };

struct stat_line {
	char text[2048];
	const char *rest;               /* from STATE, the third field, on */
	char state;
};

static int stat_line_read(pid_t pid, struct stat_line *line)
{
	char path[64];
	const char *name_end;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ESRCH;
	got = read(fd, line->text, sizeof(line->text) - 1);
	close(fd);
	if (got <= 0)
		return -ESRCH;
	line->text[got] = '\0';
	/* The name may hold anything: its end is the last ')'. */
	name_end = strrchr(line->text, ')');
	if (!name_end || strlen(name_end) < 3)
		return -ESRCH;
	line->rest = name_end + 2;
	line->state = *line->rest;
	return 0;
}

static bool stat_line_field(const struct stat_line *line, int field, unsigned long long *out)
{
	const char *at = line->rest;

	for (int i = 3; at && i < field; i++) {
		at = strchr(at, ' ');
		at += at != NULL;
	}
	return at && sscanf(at, "%llu", out) == 1;
}

int qemu_process_identify(pid_t pid, struct qemu_identity *out)
{
	struct qemu_identity identity = { .pid = pid };
	unsigned long long ticks = 0;
	struct stat_line line;
	int rc = stat_line_read(pid, &line);

	if (!rc && !stat_line_field(&line, FIELD_START, &ticks))
		rc = -ESRCH;
	identity.start_ticks = ticks;
	if (!rc)
		rc = boot_id_read(identity.boot_id);
	if (!rc)
		*out = identity;
	return rc;
}

int qemu_process_open(const struct qemu_identity *identity, int *pidfd)
{
	struct qemu_identity now;
	int fd, rc;

	if (identity->pid <= 0)
		return -ESRCH;
	fd = pidfd_open(identity->pid, 0);
	if (fd < 0)
		return -ESRCH;
	/* Looked at after the descriptor holds it: from here the pid cannot become another's. */
	rc = qemu_process_identify(identity->pid, &now);
	if (!rc && (now.start_ticks != identity->start_ticks ||
		    strcmp(now.boot_id, identity->boot_id) != 0))
		rc = -ESRCH;
	if (rc) {
		close(fd);
		return -ESRCH;
	}
	*pidfd = fd;
	return 0;
}

static int spawn_failed(struct err *err, int rc, const char *what)
{
	return err_set(err, ERR_VM_START, rc, "cannot start QEMU: %s: %s", what, err_strerror(rc));
}

int qemu_spawn(const struct qemu_spawn *spawn, struct qemu_identity *identity, int *pidfd,
	       int *exec_fd, struct err *err)
{
	int report[2], fd, rc;
	pid_t pid;

	CHECK(spawn->fd_count <= QEMU_FDS_MAX);
	if (pipe2(report, O_CLOEXEC | O_NONBLOCK))
		return spawn_failed(err, -errno, "cannot make a pipe");
	pid = fork();
	if (pid == 0)
		child_run(spawn, report[1]);
	rc = pid < 0 ? -errno : 0;
	close(report[1]);
	if (rc) {
		close(report[0]);
		return spawn_failed(err, rc, "cannot fork");
	}
	/* A child that nobody has waited for keeps its pid. */
	fd = pidfd_open(pid, 0);
	rc = fd < 0 ? -errno : qemu_process_identify(pid, identity);
	if (rc) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (fd >= 0)
			close(fd);
		close(report[0]);
		return spawn_failed(err, rc, "cannot watch the process");
	}
	*pidfd = fd;
	*exec_fd = report[0];
	return 0;
}

int qemu_spawn_outcome(int exec_fd, const char *binary, struct err *err)
{
	static const char *const steps[] = {
		[STEP_SESSION] = "cannot make a session",
		[STEP_FDS] = "cannot pass its descriptors",
		[STEP_AFFINITY] = "the host has none of the processors in sched.cpu.affinity",
		[STEP_USER] = "cannot become the user that runs machines",
		[STEP_EXEC] = "cannot execute",
	};
	struct child_failure failure;
	ssize_t got = read(exec_fd, &failure, sizeof(failure));

	if (got == 0)
		return 0;
	if (got != sizeof(failure) || (unsigned)failure.step >= ARRAY_COUNT(steps))
		return err_set(err, ERR_VM_START, -EIO, "cannot tell whether '%.120s' was started",
			       binary);
	return err_set(err, ERR_VM_START, -failure.error, "cannot start '%.120s': %s: %s", binary,
		       steps[failure.step], err_strerror(failure.error));
}

void qemu_process_kill(int pidfd)
{
	if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
		log_warn("vm", "cannot kill QEMU: %s", err_strerror(-errno));
}

/* ---- its end ---- */

static void tell_status(int status, char *text, size_t text_bytes, bool *clean)
{
	*clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (WIFEXITED(status))
		snprintf(text, text_bytes, "exited with %d", WEXITSTATUS(status));
	else
		snprintf(text, text_bytes, "was killed by signal %d (%s)%s", WTERMSIG(status),
			 sigdescr_np(WTERMSIG(status)) ? sigdescr_np(WTERMSIG(status)) : "?",
			 WCOREDUMP(status) ? ", core dumped" : "");
}

/* Not our child, and nobody has reaped it yet: the kernel tells root how it ended. */
static bool zombie_status(const struct qemu_identity *identity, int *status)
{
	struct stat_line line;
	unsigned long long ticks, code;

	if (stat_line_read(identity->pid, &line) || line.state != 'Z' ||
	    !stat_line_field(&line, FIELD_START, &ticks) || ticks != identity->start_ticks ||
	    !stat_line_field(&line, FIELD_EXIT, &code))
		return false;
	*status = (int)code;
	return true;
}

void qemu_process_end(int pidfd, const struct qemu_identity *identity, char *text,
		      size_t text_bytes, bool *clean)
{
	struct pidfd_exit_info info = { .mask = PIDFD_HAS_EXIT };
	siginfo_t child = { 0 };
	int status;

	if (waitid(P_PIDFD, (id_t)pidfd, &child, WEXITED | WNOHANG) == 0 && child.si_pid) {
		status = child.si_code == CLD_EXITED ? child.si_status << 8
						     : child.si_status | (child.si_code == CLD_DUMPED ? 0x80 : 0);
		tell_status(status, text, text_bytes, clean);
	} else if (ioctl(pidfd, PIDFD_EXIT_INFO, &info) == 0 && (info.mask & PIDFD_HAS_EXIT)) {
		tell_status(info.exit_code, text, text_bytes, clean);
	} else if (zombie_status(identity, &status)) {
		tell_status(status, text, text_bytes, clean);
	} else {
		*clean = false;
		snprintf(text, text_bytes, "ended; how is not known");
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_inject.c - system calls in another process, through ptrace.
 *
 *   I1  PTRACE_SEIZE, PTRACE_INTERRUPT: the thread comes to a stop on its way back to user mode
 *   I2  keep its registers and signal mask; hold all signals, so that nothing gets in between
 *   I3  per call: registers for `syscall`, to its entry, to its exit
 *   I4  PTRACE_INTERRUPT again, which stops it before one instruction has run
 *   I5  put mask and registers back, detach
 *
 * I4 is what lets an interrupted call go on: the kernel looks for one to restart after such a
 * stop, and only there.  Registers that are put back at the exit of our own call would show
 * the program an internal error number in place of its answer.
 */
#include "vmotion/mem_inject.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__

#define VDSO_MAX_BYTES 65536u
#define USER_CS_64 0x33u
/* Stops that are none of ours (a SIGSTOP, an exec) before the one that is waited for. */
#define STRAY_STOPS_MAX 16u

struct mem_inject {
	pid_t pid;
	bool stopped_by_signal;         /* a SIGSTOP came meanwhile: it gets it back */
	struct user_regs_struct saved;
	uint64_t saved_mask;
	uint64_t syscall_at;
};

/* ---- where a `syscall` instruction is ---- */

static int find_vdso(pid_t pid, uint64_t *start, uint64_t *end)
{
	char path[64], line[512];
	FILE *maps;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "[vdso]") &&
			sscanf(line, "%" SCNx64 "-%" SCNx64, start, end) == 2;
	fclose(maps);
	return found ? 0 : -ENOENT;
}

/* The two bytes mean `syscall` wherever they stand, in the middle of another instruction too. */
static int find_syscall(pid_t pid, uint64_t *at)
{
	CLEANUP_FREE uint8_t *code = NULL;
	char path[64];
	CLEANUP_CLOSE int fd = -1;
	uint64_t start = 0, end = 0;
	ssize_t got;
	int rc = find_vdso(pid, &start, &end);

	if (rc)
		return rc;
	if (end <= start || end - start > VDSO_MAX_BYTES)
		return -ENOENT;
	code = malloc(end - start);
	if (!code)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = pread(fd, code, end - start, (off_t)start);
	for (ssize_t i = 0; i + 1 < got; i++)
		if (code[i] == 0x0f && code[i + 1] == 0x05) {
			*at = start + (uint64_t)i;
			return 0;
		}
	return got < 0 ? -errno : -ENOENT;
}

/* ---- stops ---- */

/* A wait status as ptrace composes it: the event above the signal. */
static int stop_event(int status)
{
	return status >> 16;
}

static int wait_stop(struct mem_inject *inject, int *status)
{
	while (waitpid(inject->pid, status, __WALL) < 0)
		if (errno != EINTR)
			return -ESRCH;
	return WIFSTOPPED(*status) ? 0 : -ESRCH;
}

/* Until the next stop at the entry or exit of a call.  Signals are held, but not SIGSTOP. */
static int run_to_call(struct mem_inject *inject)
{
	for (unsigned i = 0; i < STRAY_STOPS_MAX; i++) {
		int status, rc;

		if (ptrace(PTRACE_SYSCALL, inject->pid, NULL, NULL) < 0)
			return -errno;
		rc = wait_stop(inject, &status);
		if (rc)
			return rc;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			return 0;
		if (!stop_event(status) && WSTOPSIG(status) == SIGSTOP)
			inject->stopped_by_signal = true;
	}
	return -EBUSY;
}

/* I1, I4: to a stop of the kind from which calls are restarted. */
static int interrupt(struct mem_inject *inject, bool running)
{
	if (ptrace(PTRACE_INTERRUPT, inject->pid, NULL, NULL) < 0)
		return -errno;
	for (unsigned i = 0; i < STRAY_STOPS_MAX; i++) {
		int status, rc;

		if (!running && ptrace(PTRACE_CONT, inject->pid, NULL, NULL) < 0)
			return -errno;
		rc = wait_stop(inject, &status);
		if (rc)
			return rc;
		/*
		 * Another thread may take a SIGSTOP and stop the whole process.  At first that is a
		 * refusal; later it is a stop as good as ours, and lasts when we have let go.
		 */
		if (stop_event(status) == PTRACE_EVENT_STOP)
			return running && WSTOPSIG(status) != SIGTRAP ? -EBUSY : 0;
		if (!running && !stop_event(status) && WSTOPSIG(status) == SIGSTOP)
			inject->stopped_by_signal = true;
		/* A signal on its way in gets through: it is the program's own. */
		if (running && !stop_event(status) &&
		    ptrace(PTRACE_CONT, inject->pid, NULL, WSTOPSIG(status)) < 0)
			return -errno;
	}
	return -EBUSY;
}

static int set_registers(struct mem_inject *inject, struct user_regs_struct *registers)
{
	struct iovec iov = { .iov_base = registers, .iov_len = sizeof(*registers) };

	return ptrace(PTRACE_SETREGSET, inject->pid, NT_PRSTATUS, &iov) < 0 ? -errno : 0;
}

static int get_registers(struct mem_inject *inject, struct user_regs_struct *registers)
{
	struct iovec iov = { .iov_base = registers, .iov_len = sizeof(*registers) };

	if (ptrace(PTRACE_GETREGSET, inject->pid, NT_PRSTATUS, &iov) < 0)
		return -errno;
	return iov.iov_len == sizeof(*registers) ? 0 : -ENOTSUP;
}

/* I2 */
static int keep_state(struct mem_inject *inject)
{
	uint64_t all = UINT64_MAX;
	int rc = get_registers(inject, &inject->saved);

	if (rc)
		return rc;
	if (inject->saved.cs != USER_CS_64)
		return -ENOTSUP;
	if (ptrace(PTRACE_GETSIGMASK, inject->pid, sizeof(uint64_t), &inject->saved_mask) < 0 ||
	    ptrace(PTRACE_SETSIGMASK, inject->pid, sizeof(uint64_t), &all) < 0)
		return -errno;
	return 0;
}

/* ---- begin, call, end ---- */

static int refuse(pid_t pid, int rc, struct err *err)
{
	switch (rc) {
	case -EPERM:
	case -EACCES:
		/* ptrace says -EPERM for one that is traced already, too. */
		return err_set(err, ERR_MEM_PERMISSION, -EPERM,
			       "cannot attach to QEMU (process %d): %s", (int)pid,
			       err_strerror(rc));
	case -EBUSY:
		return err_set(err, ERR_MEM_TRACED, rc,
			       "QEMU (process %d) is traced or stopped by somebody else", (int)pid);
	case -ENOTSUP:
		return err_set(err, ERR_MEM_KERNEL, rc,
			       "QEMU (process %d) is no 64-bit program of this machine", (int)pid);
	default:
		return err_set(err, ERR_MEM_ATTACH, rc, "cannot attach to QEMU (process %d): %s",
			       (int)pid, err_strerror(rc));
	}
}

static bool is_traced(pid_t pid)
{
	char path[64], line[256];
	bool traced = false;
	FILE *status;
	int tracer;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	status = fopen(path, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "TracerPid: %d", &tracer) == 1)
			traced = tracer != 0;
	fclose(status);
	return traced;
}

int mem_inject_begin(pid_t pid, struct mem_inject **out, struct err *err)
{
	struct mem_inject *inject;
	int rc;

	if (is_traced(pid))
		return refuse(pid, -EBUSY, err);
	inject = calloc(1, sizeof(*inject));
	if (!inject)
		return refuse(pid, -ENOMEM, err);
	inject->pid = pid;
	rc = find_syscall(pid, &inject->syscall_at);
	if (rc)
		goto free_inject;
	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACESYSGOOD) < 0) {
		rc = -errno;
		goto free_inject;
	}
	rc = interrupt(inject, true);
	if (!rc)
		rc = keep_state(inject);
	if (rc)
		goto detach;
	*out = inject;
	return 0;

detach:
	(void)ptrace(PTRACE_DETACH, pid, NULL, NULL);
free_inject:
	free(inject);
	return refuse(pid, rc, err);
}

long mem_inject_syscall(struct mem_inject *inject, long number, const unsigned long args[6])
{
	struct user_regs_struct registers = inject->saved;
	int rc;

	registers.rip = inject->syscall_at;
	registers.orig_rax = (unsigned long)-1; /* nothing to restart before it */
	registers.rax = (unsigned long)number;
	registers.rdi = args[0];
	registers.rsi = args[1];
	registers.rdx = args[2];
	registers.r10 = args[3];
	registers.r8 = args[4];
	registers.r9 = args[5];
	rc = set_registers(inject, &registers);
	if (!rc)
		rc = run_to_call(inject);       /* its entry */
	if (!rc)
		rc = run_to_call(inject);       /* its exit */
	if (!rc)
		rc = get_registers(inject, &registers);
	return rc ? rc : (long)registers.rax;
}

int mem_inject_end(struct mem_inject *inject, struct err *err)
{
	pid_t pid = inject->pid;
	int rc = interrupt(inject, false);

	if (!rc && ptrace(PTRACE_SETSIGMASK, pid, sizeof(uint64_t), &inject->saved_mask) < 0)
		rc = -errno;
	if (!rc)
		rc = set_registers(inject, &inject->saved);
	if (ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0 && !rc)
		rc = -errno;
	if (inject->stopped_by_signal)
		(void)kill(pid, SIGSTOP);
	free(inject);
	return rc ? refuse(pid, rc, err) : 0;
}

#else

int mem_inject_begin(pid_t pid, struct mem_inject **out UNUSED, struct err *err)
{
	return err_set(err, ERR_MEM_KERNEL, -ENOTSUP,
		       "cannot attach to QEMU (process %d): not on this kind of processor", (int)pid);
}

long mem_inject_syscall(struct mem_inject *inject UNUSED, long number UNUSED,
			const unsigned long args[6] UNUSED)
{
	CHECK_NEVER("mem_inject_begin() has refused");
}

int mem_inject_end(struct mem_inject *inject UNUSED, struct err *err UNUSED)
{
	CHECK_NEVER("mem_inject_begin() has refused");
}

#endif

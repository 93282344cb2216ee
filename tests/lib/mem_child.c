/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mem_child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/check.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

#define ALIGNMENT (UINT64_C(2) << 20)

struct message {
	uint64_t order, a, b;
};

/* ---- the other process ---- */

static int make_memory(uint64_t len_bytes, uint64_t huge_bytes)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (huge_bytes)
		flags |= MFD_HUGETLB | (unsigned)__builtin_ctzll(huge_bytes) << MFD_HUGE_SHIFT;
	fd = memfd_create("memory-backend-memfd", flags);
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)len_bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int64_t wait_in_ppoll(int order_fd)
{
	struct pollfd poll_fd = { .fd = order_fd, .events = POLLIN };
	struct timespec limit = { .tv_sec = 600 };

	return ppoll(&poll_fd, 1, &limit, NULL) == 1 ? 0 : -errno;
}

static int64_t sleep_for(uint64_t ns)
{
	struct timespec span = {
		.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000),
	};

	return -clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
}

static int64_t blocked_signals(void)
{
	uint64_t bits = 0;
	sigset_t set;

	sigprocmask(SIG_BLOCK, NULL, &set);
	for (int i = 1; i < 64; i++)
		bits |= (uint64_t)sigismember(&set, i) << (i - 1);
	return (int64_t)bits;
}

static int64_t plug(uint64_t len_bytes)
{
	int fd = make_memory(len_bytes, 0);

	if (fd < 0)
		return -errno;
	return mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ?
	       -errno : 0;
}

static int64_t carry_out(const struct message *message, uint8_t *bytes, int fd, int order_fd)
{
	switch ((enum mem_child_order)message->order) {
	case MEM_CHILD_WRITE:
		bytes[message->a] = (uint8_t)message->b;
		return 0;
	case MEM_CHILD_READ_INTO: {
		int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		int64_t got = read(zero, bytes + message->a, message->b);

		close(zero);
		return got;
	}
	case MEM_CHILD_PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)message->a,
				 (off_t)message->b) ? -errno : 0;
	case MEM_CHILD_COLLAPSE:
		return madvise(bytes + message->a, message->b, MADV_COLLAPSE) ? -errno : 0;
	case MEM_CHILD_PLUG:
		return plug(message->a);
	case MEM_CHILD_POLL:
		return wait_in_ppoll(order_fd);
	case MEM_CHILD_SLEEP:
		return sleep_for(message->a);
	case MEM_CHILD_MASK:
		return blocked_signals();
	}
	return -EINVAL;
}

/* At a multiple of a huge page, as QEMU maps its guest's memory. */
static uint8_t *map_aligned(int fd, uint64_t len_bytes)
{
	uint64_t place = (uint64_t)(uintptr_t)mmap(NULL, len_bytes + ALIGNMENT, PROT_NONE,
						   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *bytes;

	if ((void *)(uintptr_t)place == MAP_FAILED)
		return NULL;
	place = (place + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	bytes = mmap((void *)(uintptr_t)place, len_bytes, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED, fd, 0);
	return bytes == MAP_FAILED ? NULL : bytes;
}

/* Takes a SIGSTOP while the main thread is held; blocks what can be blocked, as QEMU's do. */
static void *second_thread(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void start_second_thread(void)
{
	sigset_t all, before;
	pthread_t thread;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	if (pthread_create(&thread, NULL, second_thread, NULL))
		_exit(3);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void child_main(int order_fd, int answer_fd, int fd, uint64_t len_bytes)
{
	uint8_t *bytes = NULL;
	struct message message;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	start_second_thread();
	if (fd >= 0) {
		bytes = map_aligned(fd, len_bytes);
		if (!bytes)
			_exit(2);
	}
	while (read(order_fd, &message, sizeof(message)) == sizeof(message)) {
		int64_t answer = carry_out(&message, bytes, fd, order_fd);

		if (write(answer_fd, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

/* ---- here ---- */

bool mem_child_start(struct mem_child *child, uint64_t memory_bytes, uint64_t huge_bytes)
{
	int orders[2], answers[2];

	memset(child, 0, sizeof(*child));
	child->fd = -1;
	child->len_bytes = memory_bytes;
	if (memory_bytes) {
		child->fd = make_memory(memory_bytes, huge_bytes);
		if (child->fd < 0)
			return false;
	}
	CHECK(pipe2(orders, O_CLOEXEC) == 0);
	CHECK(pipe2(answers, O_CLOEXEC) == 0);
	child->pid = fork();
	CHECK(child->pid >= 0);
	if (child->pid == 0) {
		close(orders[1]);
		close(answers[0]);
		child_main(orders[0], answers[1], child->fd, memory_bytes);
	}
	close(orders[0]);
	close(answers[1]);
	child->order_fd = orders[1];
	child->answer_fd = answers[0];
	if (memory_bytes) {
		child->bytes = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, child->fd, 0);
		CHECK(child->bytes != MAP_FAILED);
	}
	/* Its mapping is there once it answers. */
	(void)mem_child_do(child, MEM_CHILD_MASK, 0, 0);
	return true;
}

void mem_child_end(struct mem_child *child)
{
	kill(child->pid, SIGKILL);
	while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(child->order_fd);
	close(child->answer_fd);
	if (child->bytes)
		munmap(child->bytes, child->len_bytes);
	if (child->fd >= 0)
		close(child->fd);
}

void mem_child_order(struct mem_child *child, enum mem_child_order order, uint64_t a, uint64_t b)
{
	struct message message = { .order = order, .a = a, .b = b };

	CHECK(write(child->order_fd, &message, sizeof(message)) == sizeof(message));
}

int64_t mem_child_answer(struct mem_child *child)
{
	int64_t answer;
	ssize_t got;

	do {
		got = read(child->answer_fd, &answer, sizeof(answer));
	} while (got < 0 && errno == EINTR);
	CHECK(got == sizeof(answer));
	return answer;
}

int64_t mem_child_do(struct mem_child *child, enum mem_child_order order, uint64_t a, uint64_t b)
{
	mem_child_order(child, order, a, b);
	return mem_child_answer(child);
}

static char *read_whole(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t len = 0;

	CHECK(file);
	if (getdelim(&text, &len, '\0', file) < 0) {
		free(text);
		text = strdup("");
	}
	fclose(file);
	CHECK(text);
	return text;
}

static void await_state(const char *path, const char *state)
{
	for (;;) {
		char *text = read_whole(path);
		bool there = strstr(text, state) != NULL;

		free(text);
		if (there)
			return;
		sched_yield();
	}
}

void mem_child_settle(const struct mem_child *child)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)child->pid);
	await_state(path, ") S ");
}

void mem_child_await_stop(const struct mem_child *child)
{
	char path[64], stat[400];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)child->pid);
	dir = opendir(path);
	CHECK(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != child->pid) {
			snprintf(stat, sizeof(stat), "%s/%s/stat", path, entry->d_name);
			await_state(stat, ") T ");
		}
	closedir(dir);
}

/* ---- the portrait ---- */

static void add_lines(FILE *out, const char *text, const char *const *keys)
{
	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\n");

		for (size_t i = 0; keys[i]; i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				fprintf(out, "%.*s\n", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static void add_file(FILE *out, pid_t pid, const char *name, const char *const *keys)
{
	char path[64], *text;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	text = read_whole(path);
	if (keys)
		add_lines(out, text, keys);
	else
		fputs(text, out);
	free(text);
}

static void add_fds(FILE *out, pid_t pid)
{
	char path[64], target[256];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	CHECK(dir);
	while ((entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target));

		if (len > 0)
			fprintf(out, "fd %s %.*s\n", entry->d_name, (int)len, target);
	}
	closedir(dir);
}

char *mem_child_portrait(const struct mem_child *child)
{
	static const char *const status[] = {
		"State:", "TracerPid:", "FDSize:", "Threads:", "SigPnd:", "ShdPnd:", "SigBlk:",
		"SigIgn:", "SigCgt:", "Seccomp:", NULL,
	};
	static const char *const smaps[] = { "VmFlags:", NULL };
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	CHECK(out);
	mem_child_settle(child);
	add_fds(out, child->pid);
	add_file(out, child->pid, "status", status);
	add_file(out, child->pid, "maps", NULL);
	add_file(out, child->pid, "smaps", smaps);
	add_file(out, child->pid, "syscall", NULL);
	fclose(out);
	return text;
}

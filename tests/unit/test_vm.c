/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm.c - the table of a machine's states, and its process: spawned with what it is given and
 * nothing else, known again, its end told.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmotion/vm.h"

/* ---- the table ---- */

/* From wherever it stands, the end of the process leads to a state without one. */
static void test_every_process_ends(void **state)
{
	(void)state;
	for (unsigned from = VM_OFF; from < VM_STATE_COUNT; from++) {
		enum vm_state ended = vm_next_state((enum vm_state)from, VM_EV_ENDED);

		assert_int_equal(ended, from == VM_SUSPENDED ? VM_SUSPENDED : VM_OFF);
	}
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned i = VM_OFF; i < VM_STATE_COUNT; i++) {
		enum vm_state parsed;

		assert_true(vm_state_parse(vm_state_name((enum vm_state)i), &parsed));
		assert_int_equal(parsed, i);
	}
	assert_false(vm_state_parse("undecided", &(enum vm_state){ 0 }));
	assert_false(vm_state_parse("", &(enum vm_state){ 0 }));
}

static void test_refusals(void **state)
{
	static const struct {
		enum vm_state state;
		enum vm_event event;
		bool allowed;
	} rows[] = {
		{ VM_OFF, VM_EV_START, true },		{ VM_SUSPENDED, VM_EV_START, false },
		{ VM_SUSPENDED, VM_EV_RESUME, true },	{ VM_OFF, VM_EV_RESUME, false },
		{ VM_RUNNING, VM_EV_START, false },	{ VM_RUNNING, VM_EV_SUSPEND, true },
		{ VM_LOST, VM_EV_SUSPEND, false },	{ VM_LOST, VM_EV_STOP, true },
		{ VM_SUSPENDING, VM_EV_STOP, false },	{ VM_RESUMING, VM_EV_STOP, false },
		{ VM_STOPPING, VM_EV_SUSPEND, false },	{ VM_STARTING, VM_EV_SUSPEND, false },
		{ VM_STARTING, VM_EV_SAVED, false },	{ VM_RUNNING, VM_EV_SAVED, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		assert_int_equal(vm_next_state(rows[i].state, rows[i].event) != VM_UNDECIDED,
				 rows[i].allowed);
}

/* ---- the process ---- */

struct child {
	struct qemu_identity identity;
	int pidfd, exec_fd, log_fd;
	char log[64];
};

static void wait_readable(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&poll_fd, 1, 20000), 1);
}

static int spawn(struct child *child, const char *script, const int *fds, uint32_t fd_count,
		 struct err *err)
{
	char shell[] = "/bin/sh", option[] = "-c", *text = strdup(script);
	char *argv[] = { shell, option, text, NULL };
	struct qemu_spawn spawn = { .argv = argv, .fds = fds, .fd_count = fd_count };
	int rc;

	strcpy(child->log, "/tmp/test_vm.XXXXXX");
	child->log_fd = mkostemp(child->log, O_CLOEXEC | O_APPEND);
	assert_true(child->log_fd >= 0);
	spawn.log_fd = child->log_fd;
	assert_int_equal(qemu_spawn(&spawn, &child->identity, &child->pidfd, &child->exec_fd, err),
			 0);
	wait_readable(child->exec_fd);
	rc = qemu_spawn_outcome(child->exec_fd, argv[0], err);
	free(text);
	return rc;
}

static void finish(struct child *child, char *text, bool *clean, char *log, size_t log_bytes)
{
	ssize_t got;

	wait_readable(child->pidfd);
	qemu_process_end(child->pidfd, &child->identity, text, 96, clean);
	got = pread(child->log_fd, log, log_bytes - 1, 0);
	assert_true(got >= 0);
	log[got] = '\0';
	close(child->pidfd);
	close(child->exec_fd);
	close(child->log_fd);
	unlink(child->log);
}

static void test_end_is_told(void **state)
{
	static const struct {
		const char *script, *says;
		bool clean;
	} rows[] = {
		{ "exit 0", "exited with 0", true },
		{ "echo why >&2; exit 3", "exited with 3", false },
		{ "kill -9 $$", "was killed by signal 9 (Killed)", false },
		{ "kill -TERM $$", "was killed by signal 15", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		char text[96], log[256];
		struct child child;
		bool clean;

		assert_int_equal(spawn(&child, rows[i].script, NULL, 0, NULL), 0);
		finish(&child, text, &clean, log, sizeof(log));
		assert_non_null(strstr(text, rows[i].says));
		assert_int_equal(clean, rows[i].clean);
		if (i == 1)
			assert_string_equal(log, "why\n");
	}
}

/* Descriptors: those given, at their numbers, and no other; whatever the daemon has open. */
static void test_only_what_it_is_given(void **state)
{
	/* Without O_CLOEXEC, as a careless library does. */
	int leaked = dup2(STDIN_FILENO, 50), leaked_low = open("/dev/zero", O_RDONLY);
	int given[3] = { open("/dev/null", O_RDONLY | O_CLOEXEC), -1,
			 open("/etc/hostname", O_RDONLY | O_CLOEXEC) };
	char text[96], log[512], want[128];
	struct child child;
	bool clean;

	(void)state;
	assert_int_equal(leaked, 50);
	assert_true(leaked_low >= 3);
	assert_int_equal(spawn(&child, "readlink /proc/$$/fd/12; cut -d' ' -f6 /proc/$$/stat; "
			       "echo $$; exec ls /proc/self/fd", given, 3, NULL), 0);
	finish(&child, text, &clean, log, sizeof(log));
	/* A session of its own; and 3 is the folder that ls reads. */
	snprintf(want, sizeof(want), "/etc/hostname\n%d\n%d\n0\n1\n10\n12\n2\n3\n",
		 (int)child.identity.pid, (int)child.identity.pid);
	assert_string_equal(log, want);
	close(leaked);
	close(leaked_low);
	close(given[0]);
	close(given[2]);
}

static void test_no_such_program(void **state)
{
	char program[] = "/nonexistent/qemu", *argv[] = { program, NULL };
	struct qemu_spawn spawn = { .argv = argv, .log_fd = STDERR_FILENO };
	struct qemu_identity identity;
	struct err err = { 0 };
	int pidfd, exec_fd;

	(void)state;
	assert_int_equal(qemu_spawn(&spawn, &identity, &pidfd, &exec_fd, &err), 0);
	wait_readable(exec_fd);
	assert_int_equal(qemu_spawn_outcome(exec_fd, program, &err), -ENOENT);
	assert_int_equal(err.id, ERR_VM_START);
	assert_non_null(strstr(err.cause, "cannot execute"));
	waitpid(identity.pid, NULL, 0);
	close(pidfd);
	close(exec_fd);
}

/* A pid alone is nobody: another start or another boot is another process. */
static void test_known_again(void **state)
{
	char text[96], log[64];
	struct qemu_identity other;
	struct child child;
	bool clean;
	int pidfd;

	(void)state;
	assert_int_equal(spawn(&child, "read line", NULL, 0, NULL), 0);
	wait_readable(child.pidfd); /* stdin is /dev/null: it ends, and stays a zombie */
	assert_int_equal(qemu_process_open(&child.identity, &pidfd), 0);
	close(pidfd);
	other = child.identity;
	other.start_ticks++;
	assert_int_equal(qemu_process_open(&other, &pidfd), -ESRCH);
	other = child.identity;
	other.boot_id[0] ^= 1;
	assert_int_equal(qemu_process_open(&other, &pidfd), -ESRCH);
	finish(&child, text, &clean, log, sizeof(log));
	assert_int_equal(qemu_process_open(&child.identity, &pidfd), -ESRCH);
	other = (struct qemu_identity){ 0 };
	assert_int_equal(qemu_process_open(&other, &pidfd), -ESRCH);
}

static void test_other_user(void **state)
{
	char shell[] = "/bin/sh", option[] = "-c", script[] = "id -u; id -g; id -G";
	char *argv[] = { shell, option, script, NULL }, text[96], log[256];
	struct child child = { .log = "/tmp/test_vm.XXXXXX" };
	struct qemu_spawn spawn = { .argv = argv, .drop = true, .uid = 65534, .gid = 65534 };
	bool clean;

	(void)state;
	if (geteuid() != 0)
		skip();
	child.log_fd = mkostemp(child.log, O_CLOEXEC | O_APPEND);
	spawn.log_fd = child.log_fd;
	assert_int_equal(qemu_spawn(&spawn, &child.identity, &child.pidfd, &child.exec_fd, NULL), 0);
	wait_readable(child.exec_fd);
	assert_int_equal(qemu_spawn_outcome(child.exec_fd, shell, NULL), 0);
	finish(&child, text, &clean, log, sizeof(log));
	assert_string_equal(log, "65534\n65534\n65534\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_process_ends), cmocka_unit_test(test_names),
		cmocka_unit_test(test_refusals),	   cmocka_unit_test(test_end_is_told),
		cmocka_unit_test(test_only_what_it_is_given),
		cmocka_unit_test(test_no_such_program),	   cmocka_unit_test(test_known_again),
		cmocka_unit_test(test_other_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/vm_host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROBE_BYTES 65536
#define PROBE_MS 20000
#define QEMU_USER "blkmirror-qemu"

/* Read all that it says, for at most PROBE_MS.  The length, or -errno. */
static ssize_t read_all(int fd, char *text, size_t text_bytes)
{
	struct timespec start, now;
	size_t len = 0;
	ssize_t got = 1;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (got > 0 && len + 1 < text_bytes) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		long left_ms;

		clock_gettime(CLOCK_MONOTONIC, &now);
		left_ms = PROBE_MS - (now.tv_sec - start.tv_sec) * 1000;
		if (left_ms <= 0 || poll(&poll_fd, 1, (int)left_ms) <= 0)
			return -ETIMEDOUT;
		got = read(fd, text + len, text_bytes - 1 - len);
		len += got > 0 ? (size_t)got : 0;
	}
	text[len] = '\0';
	return got < 0 ? -errno : (ssize_t)len;
}

static int ask_qemu(const char *binary, char *const *argv, char *text, size_t text_bytes)
{
	posix_spawn_file_actions_t actions;
	int pipe_fds[2], status, rc;
	ssize_t len;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
	rc = -posix_spawn(&pid, binary, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_fds[1]);
	if (rc) {
		close(pipe_fds[0]);
		return rc;
	}
	len = read_all(pipe_fds[0], text, text_bytes);
	close(pipe_fds[0]);
	if (len < 0)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return len < 0 ? (int)len : WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

/* "pc   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)" */
static void read_machines(struct vm_host *host)
{
	static const char alias[] = "(alias of ";
	unsigned count = 0;
	char *rest = host->text;

	for (char *line; (line = strsep(&rest, "\n")) && count < VM_HOST_MACHINES_MAX;) {
		char *space = strchr(line, ' '), *target;

		if (!space || strncmp(line, "Supported", 9) == 0)
			continue;
		*space = '\0';
		target = strstr(space + 1, alias);
		if (strcmp(line, "pc") == 0 && target) {
			host->qemu.machine = target + strlen(alias);
			target = strchr(target, ')');
			if (target)
				*target = '\0';
		} else {
			host->machines[count++] = line;
		}
	}
}

static int probe_machines(struct vm_host *host, const char *binary)
{
	static char option[] = "-machine", value[] = "help";
	char name[PATH_MAX], *argv[] = { name, option, value, NULL };
	int rc;

	snprintf(name, sizeof(name), "%s", binary);

	host->text = calloc(1, PROBE_BYTES);
	if (!host->text)
		return err_set(&host->problem, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = ask_qemu(binary, argv, host->text, PROBE_BYTES);
	if (rc)
		return err_set(&host->problem, ERR_VM_START, rc, "cannot use '%.160s': %s", binary,
			       err_strerror(rc));
	read_machines(host);
	if (!host->qemu.machine)
		return err_set(&host->problem, ERR_VM_START, -ENOENT,
			       "'%.160s' knows no machine of the type pc", binary);
	return 0;
}

/* That QEMU's user may open the device is all that can be told without a guest. */
static void choose_accel(struct vm_host *host, const struct vm_settings *settings)
{
	bool asked = strcmp(settings->accel, "kvm") == 0;
	struct stat st = { 0 };

	host->qemu.accel = "tcg";
	if (strcmp(settings->accel, "tcg") == 0 || (stat("/dev/kvm", &st) && !asked))
		return;
	if (host->drop && (st.st_mode & 0060) == 0060 && st.st_gid != 0) {
		host->has_group = true;
		host->group = st.st_gid;
	}
	if (asked || host->has_group || (st.st_mode & 0006) == 0006 ||
	    (!host->drop && access("/dev/kvm", R_OK | W_OK) == 0))
		host->qemu.accel = "kvm";
}

/* Root's QEMU becomes somebody who may do nothing. */
static int choose_user(struct vm_host *host, const struct vm_settings *settings)
{
	const char *name = settings->user[0] ? settings->user : QEMU_USER;
	const struct passwd *user;

	if (geteuid() != 0 && !settings->user[0])
		return 0;
	user = getpwnam(name);
	if (!user && !settings->user[0]) {
		log_warn("vm", "there is no user '" QEMU_USER "': QEMU runs as 'nobody'");
		user = getpwnam("nobody");
	}
	if (!user)
		return err_set(&host->problem, ERR_BAD_CONFIG, -ENOENT,
			       "there is no user '%.64s' to run QEMU as", name);
	host->drop = user->pw_uid != geteuid();
	host->uid = user->pw_uid;
	host->gid = user->pw_gid;
	return 0;
}

void vm_host_probe(struct vm_host *host, const struct vm_settings *settings)
{
	*host = (struct vm_host){ 0 };
	host->qemu = (struct qemu_host){
		.binary = settings->qemu,
		.cpu = settings->cpu[0] ? settings->cpu : NULL,
		.machines = host->machines,
		.sandbox = settings->sandbox,
		.efi_code = settings->efi_code[0] ? settings->efi_code : NULL,
		.kernel_roots = settings->kernel_root_count
					? (const char *const *)settings->kernel_roots
					: NULL,
		.networks = settings->networks,
		.network_count = settings->network_count,
		.reconnect_s = settings->reconnect_s,
	};
	if (choose_user(host, settings))
		log_warn("vm", "%s", host->problem.cause);
	choose_accel(host, settings);
	if (host->problem.id == ERR_NONE && !probe_machines(host, settings->qemu))
		log_info("vm", "machines run in %s as %s, with %s", settings->qemu,
			 host->qemu.machine, host->qemu.accel);
	else
		log_info("vm", "no machines can be run: %s", host->problem.cause);
}

void vm_host_release(struct vm_host *host)
{
	free(host->text);
	host->text = NULL;
}

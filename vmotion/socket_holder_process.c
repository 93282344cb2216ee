/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_holder_process.c - the daemon's side of the process that holds its sockets.
 *
 * The daemon binds RUN-DIR/holder.sock itself and hands the process a socket that listens
 * already, so it may connect at once and has to wait for nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/holder_serve.h"
#include "vmotion/socket_holder_private.h"

static int cannot(struct err *err, int rc, const char *what)
{
	return err_set(err, ERR_SOCKET_HOLDER, rc, "%s: %s", what, err_strerror(rc));
}

/* ---- its socket, through the directory: sun_path is short, RUN-DIR may be long ---- */

static int open_run_dir(const struct socket_holder *holder, struct err *err)
{
	int fd = open(holder->run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return cannot(err, -errno, "cannot open the run directory");
	return fd;
}

static struct sockaddr_un holder_address(int directory_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path),
		 "/proc/self/fd/%d/" HOLDER_SOCKET_NAME, directory_fd);
	return address;
}

/* The process at the other end must be this user's: it gets our descriptors. */
static int judge_peer(int fd)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
		return -errno;
	return peer.uid == geteuid() ? 0 : -EPERM;
}

/* *out: connected, or -1: no process is there. */
static int dial(int directory_fd, int *out, struct err *err)
{
	struct sockaddr_un address = holder_address(directory_fd);
	/* Not blocking: one that is stopped has a backlog that fills. */
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return cannot(err, -errno, "cannot make a socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		rc = -errno;
	else
		rc = judge_peer(fd);
	if (!rc) {
		*out = fd;
		return 0;
	}
	close(fd);
	*out = -1;
	if (rc == -ENOENT || rc == -ECONNREFUSED)
		return 0;
	return cannot(err, rc, "cannot ask the process that holds the disks' sockets");
}

/* A listening socket at RUN-DIR/holder.sock; a dead one that is there gives way. */
static int listen_there(int directory_fd, struct err *err)
{
	struct sockaddr_un address = holder_address(directory_fd);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return cannot(err, -errno, "cannot make a socket");
	if ((unlinkat(directory_fd, HOLDER_SOCKET_NAME, 0) && errno != ENOENT) ||
	    fchmod(fd, 0600) ||         /* what bind() gives the file: never wider */
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    fchmodat(directory_fd, HOLDER_SOCKET_NAME, 0600, 0) ||
	    listen(fd, HOLDER_CONNECTIONS_MAX)) {
		rc = cannot(err, -errno, "cannot listen on " HOLDER_SOCKET_NAME);
		close(fd);
		return rc;
	}
	return fd;
}

/* ---- starting it ---- */

static int prepare_spawn(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
			 int listen_fd)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	/* dup2() of a descriptor onto itself would leave it close-on-exec: from a copy aside. */
	return posix_spawn_file_actions_adddup2(actions, listen_fd, HOLDER_LISTEN_FD) ||
	       posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDWR, 0) ||
	       posix_spawn_file_actions_adddup2(actions, 0, 1) ||
	       posix_spawn_file_actions_adddup2(actions, 0, 2) ||
	       posix_spawn_file_actions_addclosefrom_np(actions, HOLDER_LISTEN_FD + 1) ||
	       posix_spawnattr_setsigmask(attributes, &none) ||
	       posix_spawnattr_setsigdefault(attributes, &all) ||
	       posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
							    POSIX_SPAWN_SETSIGDEF) ?
		-ENOMEM : 0;
}

static int spawn(const struct socket_holder *holder, int listen_fd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char name[] = "blkmirrord", mode[] = HOLDER_MODE, linger[16];
	char *argv[] = { name, mode, (char *)holder->run_dir, linger, NULL };
	pid_t pid;
	int status, rc;

	snprintf(linger, sizeof(linger), "%u", holder->linger_s);
	if (posix_spawn_file_actions_init(&actions))
		return -ENOMEM;
	rc = posix_spawnattr_init(&attributes) ? -ENOMEM : 0;
	if (rc)
		goto destroy_actions;
	rc = prepare_spawn(&actions, &attributes, listen_fd);
	if (!rc)
		rc = -posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, environ);
	/* What is spawned forks and ends at once: the holder is nobody's child. */
	if (!rc && (waitpid(pid, &status, 0) != pid || status != 0))
		rc = -ECHILD;
	posix_spawnattr_destroy(&attributes);
destroy_actions:
	posix_spawn_file_actions_destroy(&actions);
	return rc;
}

/* Connected first: it must not find itself alone and with nothing. */
static int start_process(struct socket_holder *holder, int directory_fd, struct err *err)
{
	int listen_fd = listen_there(directory_fd, err);
	int fd = -1, aside = -1;
	int rc;

	if (listen_fd < 0)
		return listen_fd;
	rc = dial(directory_fd, &fd, err);
	if (!rc && fd < 0)
		rc = cannot(err, -ECONNREFUSED, "cannot reach " HOLDER_SOCKET_NAME);
	if (rc)
		goto close_listen;
	aside = fcntl(listen_fd, F_DUPFD_CLOEXEC, HOLDER_LISTEN_FD + 1);
	rc = aside < 0 ? -errno : spawn(holder, aside);
	if (rc) {
		close(fd);
		cannot(err, rc, "cannot start the process that holds the disks' sockets");
	} else {
		holder->process_fd = fd;
		log_info("disk", "a process of its own holds the disks' sockets from now on");
	}
	if (aside >= 0)
		close(aside);
close_listen:
	close(listen_fd);
	return rc;
}

void holder_process_drop(struct socket_holder *holder)
{
	if (holder->process_fd >= 0)
		close(holder->process_fd);
	holder->process_fd = -1;
}

/* ---- asking it ---- */

/* It makes no sense or does not answer: never again, until socket_holder_again(). */
static int lost(struct socket_holder *holder, struct err *err, int rc)
{
	shutdown(holder->process_fd, SHUT_RDWR);
	return cannot(err, rc, "the process that holds the disks' sockets does not answer");
}

static int ask(struct socket_holder *holder, enum holder_message_type type, const char *name,
	       int fd, struct err *err)
{
	struct holder_message message;
	int extra = -1;
	int rc;

	holder_message_init(&message, type, name);
	rc = holder_message_send(holder->process_fd, &message, fd);
	if (!rc)
		rc = holder_message_recv(holder->process_fd, &message, &extra);
	if (!rc && (message.type != HOLDER_DONE || extra >= 0)) {
		if (extra >= 0)
			close(extra);
		rc = -EBADMSG;
	}
	if (rc)
		return lost(holder, err, rc);
	if (message.result > 0 || message.result < -4095)
		return lost(holder, err, -EBADMSG);
	return message.result ? cannot(err, message.result,
				       "the process that holds the disks' sockets refuses") : 0;
}

static int process_store(struct socket_holder *holder, const char *name, int fd, struct err *err)
{
	if (holder->process_fd < 0) {
		int directory_fd = open_run_dir(holder, err);
		int rc;

		if (directory_fd < 0)
			return directory_fd;
		rc = start_process(holder, directory_fd, err);
		close(directory_fd);
		if (rc)
			return rc;
	}
	return ask(holder, HOLDER_STORE, name, fd, err);
}

static int process_remove(struct socket_holder *holder, const char *name, struct err *err)
{
	if (holder->process_fd < 0)
		return 0;
	return ask(holder, HOLDER_REMOVE, name, -1, err);
}

const struct holder_place_ops holder_process_ops = { process_store, process_remove };

/* ---- taking back ---- */

static int take_all(struct socket_holder *holder, struct err *err)
{
	struct holder_message message;
	uint32_t count = 0;
	int rc, fd;

	holder_message_init(&message, HOLDER_TAKE, "");
	rc = holder_message_send(holder->process_fd, &message, -1);
	while (!rc) {
		rc = holder_message_recv(holder->process_fd, &message, &fd);
		if (rc)
			break;
		if (message.type == HOLDER_DONE && fd < 0)
			return message.count == count ? 0 : lost(holder, err, -EBADMSG);
		if (message.type != HOLDER_HELD || fd < 0 || count++ == HOLDER_SOCKETS_MAX) {
			if (fd >= 0)
				close(fd);
			rc = -EBADMSG;
		} else if (socket_holder_adopt(holder, message.name, fd,
					       holder->ops == &holder_process_ops, err)) {
			return -ENOMEM;
		}
	}
	return lost(holder, err, rc);
}

int holder_process_connect(struct socket_holder *holder, struct err *err)
{
	int directory_fd = open_run_dir(holder, err);
	int fd = -1;
	int rc;

	if (directory_fd < 0)
		return directory_fd;
	rc = dial(directory_fd, &fd, err);
	close(directory_fd);
	holder->process_fd = fd;
	return rc;
}

int holder_process_take(struct socket_holder *holder, struct err *err)
{
	int rc = -EPIPE;

	/* One that was just ending may have let us in: then there is none, or the next. */
	for (unsigned tries = 0; rc == -EPIPE && tries < 3; tries++) {
		holder_process_drop(holder);
		rc = holder_process_connect(holder, err);
		if (!rc && holder->process_fd >= 0)
			rc = take_all(holder, err);
	}
	if (rc)
		holder_process_drop(holder);
	return rc;
}

int holder_process_end(struct socket_holder *holder, struct err *err)
{
	int rc = holder->process_fd < 0 ? 0 : ask(holder, HOLDER_RELEASE, "", -1, err);

	holder_process_drop(holder);
	return rc;
}

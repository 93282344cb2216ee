/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holder_serve.c - see holder_serve.h.
 *
 * One thread, one poll().  It blocks nowhere else but in sending to a daemon that does not
 * read, and there for HOLDER_LIMIT_MS at most; then that connection is cut off.
 */
#include "vmotion/holder_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* For the daemon that has just started us to say so; not if it died over that. */
#define EMPTY_LINGER_MS 10000

/* ---- what is held ---- */

int holder_table_init(struct holder_table *table)
{
	table->count = 0;
	table->rows = calloc(HOLDER_SOCKETS_MAX, sizeof(*table->rows));
	return table->rows ? 0 : -ENOMEM;
}

void holder_table_release(struct holder_table *table)
{
	for (uint32_t i = 0; i < table->count; i++)
		close(table->rows[i].fd);
	table->count = 0;
	free(table->rows);
	table->rows = NULL;
}

static struct held_row *table_find(struct holder_table *table, const char *name)
{
	for (uint32_t i = 0; i < table->count; i++)
		if (strcmp(table->rows[i].name, name) == 0)
			return &table->rows[i];
	return NULL;
}

/* Nothing else is worth holding: a client could not get into its backlog. */
static bool is_listening(int fd)
{
	int listening = 0;
	socklen_t bytes = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) == 0 && listening;
}

static int table_store(struct holder_table *table, const char *name, int fd)
{
	struct held_row *row = table_find(table, name);

	if (!is_listening(fd))
		return -ENOTSOCK;
	if (row) {
		close(row->fd);
		row->fd = fd;
		return 0;
	}
	if (table->count == HOLDER_SOCKETS_MAX)
		return -ENOSPC;
	row = &table->rows[table->count++];
	memcpy(row->name, name, strlen(name) + 1);      /* judged: it fits */
	row->fd = fd;
	return 0;
}

static int table_remove(struct holder_table *table, const char *name)
{
	struct held_row *row = table_find(table, name);

	if (!row)
		return -ENOENT;
	close(row->fd);
	*row = table->rows[--table->count];
	return 0;
}

int holder_table_do(struct holder_table *table, const struct holder_message *message, int fd,
		    uint32_t others, struct holder_message *answer)
{
	bool stored = false;

	holder_message_init(answer, HOLDER_DONE, "");
	if ((message->type == HOLDER_STORE) != (fd >= 0))
		goto refuse;
	switch (message->type) {
	case HOLDER_STORE:
		answer->result = table_store(table, message->name, fd);
		stored = answer->result == 0;
		break;
	case HOLDER_TAKE:
		answer->count = table->count;
		break;
	case HOLDER_REMOVE:
		answer->result = table_remove(table, message->name);
		break;
	case HOLDER_RELEASE:
		answer->result = others ? -EBUSY : 0;
		break;
	default:
		goto refuse;
	}
	if (fd >= 0 && !stored)
		close(fd);
	return 0;

refuse:
	if (fd >= 0)
		close(fd);
	return -EBADMSG;
}

/* ---- the process ---- */

enum { POLL_LISTEN, POLL_DIRECTORY, POLL_SIGNAL, POLL_CONNECTIONS };

struct holding {
	struct holder_table table;
	const char *run_dir;
	char path[PATH_MAX];            /* of our socket's file, and which that is */
	dev_t dev;
	ino_t ino;
	uint64_t linger_ms, alone_since_ms;
	struct pollfd polls[POLL_CONNECTIONS + HOLDER_CONNECTIONS_MAX];
	uint32_t connections;
	bool ended;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void hang_up(struct holding *holding, uint32_t index)
{
	struct pollfd *polls = holding->polls + POLL_CONNECTIONS;

	close(polls[index].fd);
	polls[index] = polls[--holding->connections];
	holding->alone_since_ms = now_ms();
}

static int send_held(const struct holding *holding, int fd)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < holding->table.count; i++) {
		struct holder_message held;

		holder_message_init(&held, HOLDER_HELD, holding->table.rows[i].name);
		rc = holder_message_send(fd, &held, holding->table.rows[i].fd);
	}
	return rc;
}

static void answer_one(struct holding *holding, uint32_t index)
{
	int socket = holding->polls[POLL_CONNECTIONS + index].fd;
	struct holder_message message, answer;
	int fd = -1;
	int rc = holder_message_recv(socket, &message, &fd);

	if (!rc)
		rc = holder_table_do(&holding->table, &message, fd, holding->connections - 1,
				     &answer);
	if (!rc && message.type == HOLDER_TAKE)
		rc = send_held(holding, socket);
	if (!rc && message.type == HOLDER_RELEASE && answer.result == 0)
		holding->ended = true;
	if (!rc)
		rc = holder_message_send(socket, &answer, -1);
	if (rc)
		hang_up(holding, index);
}

static bool is_same_user(int fd)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
	       peer.uid == geteuid();
}

static void accept_one(struct holding *holding)
{
	int fd = accept4(HOLDER_LISTEN_FD, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return; /* it is gone again, or comes again when descriptors are free */
	if (holding->connections == HOLDER_CONNECTIONS_MAX || !is_same_user(fd)) {
		close(fd);
		return;
	}
	holding->polls[POLL_CONNECTIONS + holding->connections++] =
		(struct pollfd){ .fd = fd, .events = POLLIN };
}

/* Is our socket's file still there?  Without it no daemon finds us. */
static bool is_found(const struct holding *holding)
{
	struct stat found;

	return lstat(holding->path, &found) == 0 && found.st_dev == holding->dev &&
	       found.st_ino == holding->ino;
}

static void drain_directory(struct holding *holding)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	/* What happened does not matter, only how it looks now. */
	while (read(holding->polls[POLL_DIRECTORY].fd, events, sizeof(events)) > 0)
		;
	holding->ended |= !is_found(holding);
}

/* Until when to wait for a daemon; -1: one is here. */
static int patience_ms(const struct holding *holding)
{
	uint64_t waited_ms = now_ms() - holding->alone_since_ms;
	uint64_t limit_ms = holding->table.count ? holding->linger_ms : EMPTY_LINGER_MS;

	if (holding->connections)
		return -1;
	return waited_ms < limit_ms ? (int)(limit_ms - waited_ms) : 0;
}

static void turn(struct holding *holding)
{
	struct pollfd *polls = holding->polls;
	uint32_t connections = holding->connections;
	int ready = poll(polls, POLL_CONNECTIONS + connections, patience_ms(holding));

	if (ready == 0) {
		holding->ended = true;  /* nobody has come */
		return;
	}
	if (ready < 0) {
		holding->ended = errno != EINTR;
		return;
	}
	if (polls[POLL_SIGNAL].revents)
		holding->ended = true;
	if (polls[POLL_DIRECTORY].revents)
		drain_directory(holding);
	/* Backwards: one that hangs up is replaced by the last. */
	for (uint32_t i = connections; i-- > 0 && !holding->ended;)
		if (polls[POLL_CONNECTIONS + i].revents)
			answer_one(holding, i);
	if (polls[POLL_LISTEN].revents & POLLIN)
		accept_one(holding);
	if (!holding->connections && !holding->table.count)
		holding->ended = true;
}

/* ---- set-up ---- */

static int watch_directory(const struct holding *holding)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd >= 0 && inotify_add_watch(fd, holding->run_dir,
					 IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF |
						 IN_MOVE_SELF | IN_ONLYDIR) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int watch_end(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* then a STORE too many is refused */
	}
	prctl(PR_SET_NAME, "bm-holder");
}

static bool holding_begin(struct holding *holding, const char *run_dir, unsigned long linger_s)
{
	struct stat ours;

	*holding = (struct holding){ .run_dir = run_dir, .linger_ms = linger_s * 1000,
				     .alone_since_ms = now_ms() };
	if (snprintf(holding->path, sizeof(holding->path), "%s/" HOLDER_SOCKET_NAME, run_dir) >=
		    (int)sizeof(holding->path) ||
	    lstat(holding->path, &ours))
		return false;
	holding->dev = ours.st_dev;
	holding->ino = ours.st_ino;
	holding->polls[POLL_LISTEN] = (struct pollfd){ HOLDER_LISTEN_FD, POLLIN, 0 };
	holding->polls[POLL_DIRECTORY] = (struct pollfd){ watch_directory(holding), POLLIN, 0 };
	holding->polls[POLL_SIGNAL] = (struct pollfd){ watch_end(), POLLIN, 0 };
	/* Looked at after the watch is set: what happened before is seen here. */
	return holding->polls[POLL_DIRECTORY].fd >= 0 && holding->polls[POLL_SIGNAL].fd >= 0 &&
	       is_found(holding) && holder_table_init(&holding->table) == 0;
}

bool holder_is_asked(int argc, char **argv)
{
	return argc == 4 && strcmp(argv[1], HOLDER_MODE) == 0;
}

int holder_main(char **argv)
{
	static struct holding holding;
	char *end;
	unsigned long linger_s = strtoul(argv[3], &end, 10);
	int listening = 0;
	socklen_t bytes = sizeof(listening);
	pid_t pid;

	if (*end || linger_s > SOCKET_LINGER_MAX_S ||
	    getsockopt(HOLDER_LISTEN_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) ||
	    !listening)
		return 2;       /* nobody but the daemon starts it */
	pid = fork();
	if (pid)
		return pid < 0; /* nobody's child: a daemon that ends leaves no zombie of us */
	if (chdir("/"))
		return 1;
	raise_limits();
	if (!holding_begin(&holding, argv[2], linger_s))
		return 1;
	while (!holding.ended)
		turn(&holding);
	/* Nobody puts another in its place while we listen: what is ours here is ours. */
	if (is_found(&holding))
		unlink(holding.path);
	holder_table_release(&holding.table);
	return 0;
}

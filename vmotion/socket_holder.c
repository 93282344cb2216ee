/* SPDX-License-Identifier: Apache-2.0 */
/* socket_holder.c - what is held, whose it is, and whether it is what its disk needs. */
#include "vmotion/socket_holder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/socket_holder_private.h"

_Static_assert(sizeof("disk-ffffffffffffffff-ffffffffffffffff-") + DISK_ID_BYTES <=
		       HOLDER_NAME_BYTES, "names fit");

static const char *const kind_names[] = {
	[SOCKET_HOLDER_AUTO] = "auto",
	[SOCKET_HOLDER_SYSTEMD] = "systemd",
	[SOCKET_HOLDER_PROCESS] = "process",
	[SOCKET_HOLDER_NONE] = "none",
};

bool socket_holder_kind_parse(const char *text, enum socket_holder_kind *out)
{
	for (size_t i = 0; i < ARRAY_COUNT(kind_names); i++) {
		if (strcmp(text, kind_names[i]) == 0) {
			*out = (enum socket_holder_kind)i;
			return true;
		}
	}
	return false;
}

const char *socket_holder_kind_name(enum socket_holder_kind kind)
{
	CHECK(kind < ARRAY_COUNT(kind_names));
	return kind_names[kind];
}

/* ---- names ---- */

static void name_of(char out[HOLDER_NAME_BYTES], const char *id, const struct disk_socket *sock)
{
	int length = snprintf(out, HOLDER_NAME_BYTES, "disk-%llx-%llx-%s",
			      (unsigned long long)sock->dev, (unsigned long long)sock->ino, id);

	CHECK(length > 0 && length < HOLDER_NAME_BYTES);
}

/* Names come from outside: one that we would not have given is nobody's. */
static void name_read(struct held_socket *held)
{
	unsigned long long dev, ino;
	struct disk_socket sock = { 0 };
	char again[HOLDER_NAME_BYTES];
	int used = 0;

	if (sscanf(held->name, "disk-%16llx-%16llx-%n", &dev, &ino, &used) != 2 || !used ||
	    !ds_name_is_valid(held->name + used))
		return;
	sock.dev = (dev_t)dev;
	sock.ino = (ino_t)ino;
	name_of(again, held->name + used, &sock);
	if (strcmp(again, held->name) != 0)
		return;
	held->dev = sock.dev;
	held->ino = sock.ino;
	snprintf(held->id, sizeof(held->id), "%s", held->name + used);
}

/* ---- the table ---- */

static struct held_socket *find(const struct socket_holder *holder, const char *id)
{
	list_for_each(node, &holder->sockets) {
		struct held_socket *held = list_entry(node, struct held_socket, node);

		if (strcmp(held->id, id) == 0)
			return held;
	}
	return NULL;
}

static struct held_socket *add(struct socket_holder *holder, const char *name, int fd)
{
	struct held_socket *held = calloc(1, sizeof(*held));

	if (!held)
		return NULL;
	snprintf(held->name, sizeof(held->name), "%s", name);
	held->fd = fd;
	list_append(&holder->sockets, &held->node);
	holder->count++;
	return held;
}

static void drop(struct socket_holder *holder, struct held_socket *held)
{
	list_remove(&held->node);
	holder->count--;
	close(held->fd);
	free(held);
}

static void let_go(struct socket_holder *holder, struct held_socket *held)
{
	struct err err;

	if (held->stored && holder->ops->remove(holder, held->name, &err))
		log_warn("disk", "%s: its socket may still be held: %s", held->id, err.cause);
	drop(holder, held);
}

static bool store(struct socket_holder *holder, struct held_socket *held, struct err *err)
{
	held->stored = holder->ops && holder->ops->store(holder, held->name, held->fd, err) == 0;
	return held->stored;
}

int socket_holder_adopt(struct socket_holder *holder, const char *name, int fd, bool stored,
			struct err *err)
{
	struct held_socket *held;

	if (!holder_name_is_valid(name, HOLDER_NAME_BYTES) || holder->count == SOCKET_HOLDER_MAX) {
		log_warn("disk", "a descriptor that was passed to us is none of ours: closed");
		close(fd);
		return 0;
	}
	held = add(holder, name, fd);
	if (!held) {
		close(fd);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	held->stored = stored;
	name_read(held);
	return 0;
}

/* ---- opening ---- */

static enum socket_holder_kind choose(enum socket_holder_kind kind)
{
	const char *stores = getenv("FDSTORE");         /* systemd 254 and later */

	if (kind != SOCKET_HOLDER_AUTO)
		return kind;
	return getenv("NOTIFY_SOCKET") && stores && atoi(stores) > 0 ? SOCKET_HOLDER_SYSTEMD :
								       SOCKET_HOLDER_PROCESS;
}

/* What came from another place than the one that holds from now on. */
static void store_strangers(struct socket_holder *holder)
{
	struct err err = { 0 };

	list_for_each(node, &holder->sockets) {
		struct held_socket *held = list_entry(node, struct held_socket, node);

		if (holder->ops && !held->stored && !store(holder, held, &err)) {
			log_warn("disk", "%s does not outlive the daemon: %s", held->name, err.cause);
			return;         /* nor do the others */
		}
	}
}

/*
 * A place that does not answer keeps its sockets listening, and their disks cannot be served
 * at the same paths; all others can, so the daemon goes on.
 */
static int take_back(struct socket_holder *holder, struct err *err)
{
	int rc = holder_systemd_take(holder, err);

	if (!rc)
		rc = holder_process_take(holder, err);
	if (!rc && holder->ops != &holder_process_ops)
		rc = holder_process_end(holder, err);
	if (rc == -ENOMEM)
		return rc;
	if (rc)
		log_error("disk", "%s (%s)", err->cause, err_name(err->id));
	store_strangers(holder);
	if (holder->count)
		log_info("disk", "%u sockets are taken back", holder->count);
	return 0;
}

int socket_holder_open(const struct socket_holder_options *options, struct socket_holder **out,
		       struct err *err)
{
	static const struct holder_place_ops *const ops[] = {
		[SOCKET_HOLDER_SYSTEMD] = &holder_systemd_ops,
		[SOCKET_HOLDER_PROCESS] = &holder_process_ops,
		[SOCKET_HOLDER_NONE] = NULL,
	};
	struct socket_holder *holder;
	int rc;

	if (options->kind == SOCKET_HOLDER_SYSTEMD && !getenv("NOTIFY_SOCKET"))
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "systemd is to hold the disks' sockets, but it has not started us");
	holder = calloc(1, sizeof(*holder));
	if (!holder)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	holder->kind = choose(options->kind);
	holder->ops = ops[holder->kind];
	holder->linger_s = options->linger_s;
	holder->process_fd = -1;
	list_init(&holder->sockets);
	snprintf(holder->run_dir, sizeof(holder->run_dir), "%s", options->run_dir);
	rc = take_back(holder, err);
	if (rc)
		socket_holder_close(holder);
	else
		*out = holder;
	return rc;
}

void socket_holder_close(struct socket_holder *holder)
{
	if (!holder)
		return;
	list_for_each(node, &holder->sockets)
		drop(holder, list_entry(node, struct held_socket, node));
	holder_process_drop(holder);
	free(holder);
}

uint32_t socket_holder_count(const struct socket_holder *holder)
{
	return holder->count;
}

/* ---- a disk's ---- */

/* NULL: it is.  Else why not. */
static const char *judge(const struct held_socket *held, const char *path)
{
	int listening = 0, type = 0, domain = 0;
	socklen_t bytes = sizeof(int);
	struct stat found;

	if (getsockopt(held->fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) || domain != AF_UNIX ||
	    getsockopt(held->fd, SOL_SOCKET, SO_TYPE, &type, &bytes) || type != SOCK_STREAM ||
	    getsockopt(held->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) || !listening)
		return "it does not listen";
	if (lstat(path, &found))
		return "its file is gone";
	if (!S_ISSOCK(found.st_mode) || found.st_dev != held->dev || found.st_ino != held->ino)
		return "another file is in its place";
	return NULL;
}

bool socket_holder_take(struct socket_holder *holder, const char *id, const char *path,
			struct disk_socket *out)
{
	struct held_socket *held;
	int fd = -1;

	/* More than one where a daemon died between letting go of one and keeping another. */
	while (fd < 0 && (held = find(holder, id))) {
		const char *why = judge(held, path);

		fd = why ? -1 : fcntl(held->fd, F_DUPFD_CLOEXEC, 3);
		if (fd >= 0)
			break;
		log_warn("disk", "%s: the socket that was held for it is not taken back: %s", id,
			 why ? why : err_strerror(errno));
		let_go(holder, held);
	}
	if (fd < 0)
		return false;
	held->taken = true;
	out->fd = fd;
	out->dev = held->dev;
	out->ino = held->ino;
	if (out->path != path)
		snprintf(out->path, sizeof(out->path), "%s", path);
	return true;
}

bool socket_holder_keep(struct socket_holder *holder, const char *id,
			const struct disk_socket *sock)
{
	struct held_socket *held;
	char name[HOLDER_NAME_BYTES];
	struct err err = { 0 };
	int fd;

	while ((held = find(holder, id)))
		let_go(holder, held);
	if (!holder->ops)
		return false;
	name_of(name, id, sock);
	fd = fcntl(sock->fd, F_DUPFD_CLOEXEC, 3);
	held = fd < 0 ? NULL : add(holder, name, fd);
	if (!held) {
		log_warn("disk", "%s: its socket does not outlive the daemon: %s", id,
			 err_strerror(fd < 0 ? errno : ENOMEM));
		if (fd >= 0)
			close(fd);
		return false;
	}
	name_read(held);
	held->taken = true;
	if (store(holder, held, &err))
		return true;
	log_warn("disk", "%s: its socket does not outlive the daemon: %s (%s)", id, err.cause,
		 err_name(err.id));
	return false;           /* remembered all the same: socket_holder_again() may help */
}

bool socket_holder_forget(struct socket_holder *holder, const char *id, struct disk_socket *gone)
{
	struct held_socket *held;
	bool any = false;

	while ((held = find(holder, id))) {
		if (gone) {
			gone->dev = held->dev;
			gone->ino = held->ino;
		}
		let_go(holder, held);
		any = true;
	}
	return any;
}

void socket_holder_sweep(struct socket_holder *holder,
			 bool (*wanted)(const char *id, const void *user), const void *user)
{
	list_for_each(node, &holder->sockets) {
		struct held_socket *held = list_entry(node, struct held_socket, node);

		if (held->taken || (held->id[0] && wanted(held->id, user)))
			continue;
		log_info("disk", "'%s' was held and belongs to no disk: let go", held->name);
		let_go(holder, held);
	}
}

/* ---- a holder that is lost ---- */

int socket_holder_event_fd(const struct socket_holder *holder)
{
	return atomic_load(&holder->process_fd);
}

int socket_holder_again(struct socket_holder *holder, struct err *err)
{
	int rc = 0;

	holder_process_drop(holder);
	list_for_each(node, &holder->sockets) {
		struct held_socket *held = list_entry(node, struct held_socket, node);

		held->stored = false;
		if (!rc && !store(holder, held, err))
			rc = -EIO;
	}
	return rc;
}

int socket_holder_release(const char *run_dir, struct err *err)
{
	struct socket_holder holder = { .process_fd = -1 };
	int rc;

	list_init(&holder.sockets);
	snprintf(holder.run_dir, sizeof(holder.run_dir), "%s", run_dir);
	rc = holder_process_connect(&holder, err);
	return rc ? rc : holder_process_end(&holder, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd_dial.c - a connected socket by a deadline, name look-up included.
 *
 * libnbd could connect by itself, but would look names up without a deadline and
 * leave the socket as it is; R3 wants it to drop what is queued whenever it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/blkdev/blk_nbd_private.h"

/* ---- TCP ---- */

/* The outcome of a connect() under way: 0 or -errno. */
static int dial_await(int fd, uint64_t deadline_ns)
{
	struct pollfd poller = { .fd = fd, .events = POLLOUT };
	int rc, error = 0;
	socklen_t length = sizeof(error);

	do {
		rc = poll(&poller, 1, net_poll_timeout_ms(deadline_ns));
	} while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	if (rc == 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
		return -errno;
	return -error;
}

static int dial_one(const struct addrinfo *to, uint64_t deadline_ns, int *fd_out)
{
	int fd = socket(to->ai_family, to->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
			to->ai_protocol);
	int rc;

	if (fd < 0)
		return -errno;
	rc = net_tcp_options(fd);
	if (!rc && connect(fd, to->ai_addr, to->ai_addrlen))
		rc = errno == EINPROGRESS ? dial_await(fd, deadline_ns) : -errno;
	if (rc) {
		close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}

static int dial_tcp(const struct blk_nbd_address *address, uint64_t deadline_ns, int *fd_out,
			struct err *err)
{
	const struct net_place place = { address->host, address->port, address->shown,
					 ERR_NBD_CONNECT };
	struct addrinfo *found = NULL;
	unsigned left = 0;
	int rc = net_look_up(&place, deadline_ns, &found, err);

	if (rc)
		return rc;
	for (const struct addrinfo *to = found; to; to = to->ai_next)
		left++;
	rc = -EHOSTUNREACH;
	for (const struct addrinfo *to = found; to; to = to->ai_next, left--) {
		uint64_t now_ns = net_clock_ns();

		/* A silent address must leave time for those behind it. */
		if (now_ns >= deadline_ns) {
			rc = -ETIMEDOUT;
			break;
		}
		rc = dial_one(to, now_ns + (deadline_ns - now_ns) / left, fd_out);
		if (!rc)
			break;
	}
	freeaddrinfo(found);
	if (rc)
		return err_set(err, ERR_NBD_CONNECT, rc, "cannot connect to %s: %s", address->shown,
			       err_strerror(rc));
	return 0;
}

/* ---- UNIX ---- */

/* connect() to a full UNIX backlog blocks, for as long as SO_SNDTIMEO says. */
static int dial_connect_unix(int fd, const struct sockaddr_un *to, uint64_t deadline_ns)
{
	uint64_t now_ns = net_clock_ns();
	uint64_t left_us = deadline_ns > now_ns ? (deadline_ns - now_ns) / NS_PER_US : 0;
	struct timeval limit;

	left_us = MAX(left_us, UINT64_C(1000)); /* 0 would mean for ever */
	limit.tv_sec = (time_t)(left_us / 1000000);
	limit.tv_usec = (suseconds_t)(left_us % 1000000);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
		return -errno;
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	limit = (struct timeval){ 0 };
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
		return -errno;
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ? -errno : 0;
}

static int dial_unix(const struct blk_nbd_address *address, uint64_t deadline_ns, int *fd_out,
			 struct err *err)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return err_set(err, ERR_NBD_CONNECT, -errno, "cannot make a socket: %s",
			       err_strerror(errno));
	memcpy(to.sun_path, address->socket_path, sizeof(to.sun_path));
	rc = dial_connect_unix(fd, &to, deadline_ns);
	if (rc) {
		close(fd);
		return err_set(err, ERR_NBD_CONNECT, rc, "cannot connect to %s: %s", address->shown,
			       err_strerror(rc));
	}
	*fd_out = fd;
	return 0;
}

int blk_nbd_dial(const struct blk_nbd_address *address, uint64_t deadline_ns, int *fd_out,
		 struct err *err)
{
	return address->is_unix ? dial_unix(address, deadline_ns, fd_out, err)
				: dial_tcp(address, deadline_ns, fd_out, err);
}

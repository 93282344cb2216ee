/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd_dial.c - a connected socket by a deadline, name look-up included.
 *
 * libnbd could connect by itself, but would look names up without a deadline and
 * leave the socket as it is; R3 wants it to drop what is queued whenever it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/blkdev/blk_nbd_private.h"
#include "blkmirror/blkdev/dial.h"

/* connect() to a full UNIX backlog blocks, for as long as SO_SNDTIMEO says. */
static int dial_connect_unix(int fd, const struct sockaddr_un *to, uint64_t deadline_ns)
{
	uint64_t now_ns = dial_clock_ns();
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

static int dial_host(const struct blk_nbd_address *address, uint64_t deadline_ns, int *fd_out,
		     struct err *err)
{
	struct dial_address to = { .shown = address->shown, .err_id = ERR_NBD_CONNECT };

	snprintf(to.host, sizeof(to.host), "%s", address->host);
	to.port = (uint16_t)strtoul(address->port, NULL, 10);   /* judged with the URI */
	return dial_tcp(&to, deadline_ns, fd_out, err);
}

int blk_nbd_dial(const struct blk_nbd_address *address, uint64_t deadline_ns, int *fd_out,
		 struct err *err)
{
	return address->is_unix ? dial_unix(address, deadline_ns, fd_out, err)
				: dial_host(address, deadline_ns, fd_out, err);
}

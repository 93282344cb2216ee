/* SPDX-License-Identifier: Apache-2.0 */
/* api_listen.c - the sockets that the API listens on. */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/blkmirrord/api_server.h"
#include "tools/blkmirrord/config.h"

#define BACKLOG 64

/* The group that may use the socket; -1 when it does not exist. */
static gid_t socket_group(const char *name)
{
	char buffer[4096];
	struct group group, *found = NULL;

	if (getgrnam_r(name, &group, buffer, sizeof(buffer), &found) != 0 || !found)
		return (gid_t)-1;
	return group.gr_gid;
}

/* The state directory's lock says that no other daemon lives: a socket that is there is dead. */
static int bind_unix(int fd, const char *path, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t old_mask;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the socket's path '%s' is longer than %zu bytes", path,
			       sizeof(address.sun_path) - 1);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (unlink(path) && errno != ENOENT)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot remove '%s': %s", path,
			       err_strerror(-errno));
	old_mask = umask(0177); /* nobody else, not even between bind and chmod */
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	umask(old_mask);
	if (rc)
		return err_set(err, ERR_STATE_DIR, rc, "cannot bind '%s': %s", path,
			       err_strerror(rc));
	return 0;
}

int api_listen_unix(const char *path, const char *group, int *fd_out, struct err *err)
{
	gid_t gid = socket_group(group);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return err_set(err, ERR_INTERNAL, -errno, "cannot make a socket: %s",
			       err_strerror(-errno));
	rc = bind_unix(fd, path, err);
	if (rc)
		goto close_fd;
	if ((gid != (gid_t)-1 && chown(path, (uid_t)-1, gid)) || chmod(path, 0660) ||
	    listen(fd, BACKLOG)) {
		rc = err_set(err, ERR_STATE_DIR, -errno, "cannot listen on '%s': %s", path,
			     err_strerror(-errno));
		goto close_fd;
	}
	*fd_out = fd;
	return 0;

close_fd:
	close(fd);
	return rc;
}

int api_listen_tcp(const char *address, int *fd_out, struct err *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
	struct addrinfo *info = NULL;
	char host[CONFIG_ADDRESS_BYTES], port_text[8];
	uint16_t port;
	int fd = -1, one = 1, rc = -EINVAL;

	if (config_split_address(address, host, &port)) {
		snprintf(port_text, sizeof(port_text), "%u", port);
		rc = getaddrinfo(host, port_text, &hints, &info) ? -EINVAL : 0;
	}
	if (rc)
		return err_set(err, ERR_BAD_CONFIG, rc, "'%s' is no numeric ADDRESS:PORT", address);
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, BACKLOG)) {
		rc = err_set(err, ERR_BAD_CONFIG, -errno, "cannot listen on '%s': %s", address,
			     err_strerror(-errno));
		if (fd >= 0)
			close(fd);
	} else {
		*fd_out = fd;
	}
	freeaddrinfo(info);
	return rc;
}

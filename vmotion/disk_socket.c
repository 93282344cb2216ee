/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/disk_socket.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

_Static_assert(DISK_SOCKET_BYTES == sizeof(((struct sockaddr_un *)NULL)->sun_path), "sun_path");

#define TEMPORARY_NAME_BYTES 64

int disk_socket_judge_path(const char *path, struct err *err)
{
	size_t length = strlen(path);

	if (path[0] != '/')
		return err_set(err, ERR_EXPORT_SOCKET, -EINVAL,
			       "the socket path '%.100s' is not absolute", path);
	if (length >= DISK_SOCKET_BYTES)
		return err_set(err, ERR_EXPORT_SOCKET, -EINVAL,
			       "the socket path '%.100s...' has %zu bytes, and a UNIX socket's may "
			       "have %d", path, length, DISK_SOCKET_BYTES - 1);
	if (path[length - 1] == '/')
		return err_set(err, ERR_EXPORT_SOCKET, -EINVAL,
			       "the socket path '%s' names a directory", path);
	return 0;
}

/* ---- URI ---- */

static bool uri_keeps(char c)
{
	return isalnum((unsigned char)c) || strchr("/-._~", c);
}

void disk_socket_uri(const char *id, const char *path, char out[DISK_URI_BYTES])
{
	int used = snprintf(out, DISK_URI_BYTES, "nbd+unix:///%s?socket=", id);

	for (const char *c = path; *c; c++) {
		CHECK(used + 4 <= DISK_URI_BYTES);
		used += uri_keeps(*c) ? snprintf(out + used, 2, "%c", *c)
				      : snprintf(out + used, 4, "%%%02X", (unsigned char)*c);
	}
}

/* ---- making one ---- */

/* mkdir -p for the directories of `path`. */
static int make_parents(const char *path, char directory[DISK_SOCKET_BYTES], struct err *err)
{
	char *slash = strrchr(strcpy(directory, path), '/');

	slash[slash == directory] = '\0';
	for (char *c = directory + 1; *c; c++) {
		if (*c != '/')
			continue;
		*c = '\0';
		if (mkdir(directory, 0750) && errno != EEXIST)
			return err_set(err, ERR_EXPORT_SOCKET, -errno,
				       "cannot make the directory '%s': %s", directory,
				       err_strerror(errno));
		*c = '/';
	}
	if (mkdir(directory, 0750) && errno != EEXIST)
		return err_set(err, ERR_EXPORT_SOCKET, -errno, "cannot make the directory '%s': %s",
			       directory, err_strerror(errno));
	return 0;
}

static int open_directory(const char *directory, int *out, struct err *err)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_set(err, ERR_EXPORT_SOCKET, -errno, "cannot open the directory '%s': %s",
			       directory, err_strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int rc = -errno;

		close(fd);
		return err_set(err, ERR_EXPORT_SOCKET, rc,
			       "another program holds a lock on the directory '%s'", directory);
	}
	*out = fd;
	return 0;
}

/* Nobody, or a dead daemon's socket: 0.  A live socket or anything else: refused. */
static int judge_present(const char *path, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat found;
	int fd, rc;

	if (lstat(path, &found)) {
		if (errno == ENOENT)
			return 0;
		return err_set(err, ERR_EXPORT_SOCKET, -errno, "cannot look at '%s': %s", path,
			       err_strerror(errno));
	}
	if (!S_ISSOCK(found.st_mode))
		return err_set(err, ERR_EXPORT_SOCKET, -EEXIST,
			       "'%s' exists and is not a socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, ERR_EXPORT_SOCKET, -errno, "cannot make a socket: %s",
			       err_strerror(errno));
	memcpy(address.sun_path, path, strlen(path) + 1);
	rc = connect(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
	close(fd);
	if (rc == -ECONNREFUSED || rc == -ENOENT)
		return 0;
	/* -EAGAIN: its backlog is full, so somebody listens. */
	if (rc == 0 || rc == -EAGAIN)
		return err_set(err, ERR_EXPORT_SOCKET, -EADDRINUSE,
			       "another program serves the socket '%s'", path);
	return err_set(err, ERR_EXPORT_SOCKET, rc,
		       "cannot tell whether the socket '%s' is in use: %s", path, err_strerror(rc));
}

/* Bind and listen under a temporary name in the directory, whatever the directory's length. */
static int bind_temporary(int directory_fd, const char *name, struct disk_socket *sock)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat made;
	int rc;

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory_fd,
		 name);
	sock->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock->fd < 0)
		return -errno;
	if (unlinkat(directory_fd, name, 0) && errno != ENOENT)
		goto fail;
	if (bind(sock->fd, (struct sockaddr *)&address, sizeof(address)))
		goto fail;
	if (fchmodat(directory_fd, name, 0660, 0) || listen(sock->fd, SOMAXCONN) ||
	    fstatat(directory_fd, name, &made, AT_SYMLINK_NOFOLLOW)) {
		rc = -errno;
		unlinkat(directory_fd, name, 0);
		close(sock->fd);
		return rc;
	}
	sock->dev = made.st_dev;
	sock->ino = made.st_ino;
	return 0;

fail:
	rc = -errno;
	close(sock->fd);
	return rc;
}

static int listen_in(int directory_fd, const char *path, struct disk_socket *sock, struct err *err)
{
	char temporary[TEMPORARY_NAME_BYTES];
	int rc = judge_present(path, err);

	if (rc)
		return rc;
	snprintf(temporary, sizeof(temporary), ".blkmirror-%d", (int)getpid());
	rc = bind_temporary(directory_fd, temporary, sock);
	if (rc)
		return err_set(err, ERR_EXPORT_SOCKET, rc, "cannot listen on '%s': %s", path,
			       err_strerror(rc));
	if (renameat(directory_fd, temporary, directory_fd, strrchr(path, '/') + 1)) {
		rc = -errno;
		unlinkat(directory_fd, temporary, 0);
		close(sock->fd);
		return err_set(err, ERR_EXPORT_SOCKET, rc, "cannot put a socket at '%s': %s", path,
			       err_strerror(rc));
	}
	return 0;
}

int disk_socket_listen(const char *path, struct disk_socket *out, struct err *err)
{
	struct disk_socket sock = { .fd = -1 };
	char directory[DISK_SOCKET_BYTES];
	int directory_fd = -1;
	int rc = disk_socket_judge_path(path, err);

	if (rc)
		return rc;
	rc = make_parents(path, directory, err);
	if (rc)
		return rc;
	rc = open_directory(directory, &directory_fd, err);
	if (rc)
		return rc;
	rc = listen_in(directory_fd, path, &sock, err);
	close(directory_fd);            /* and the lock with it */
	if (rc)
		return rc;
	snprintf(sock.path, sizeof(sock.path), "%s", path);
	*out = sock;
	return 0;
}

void disk_socket_unlink(const struct disk_socket *sock)
{
	struct stat found;

	if (lstat(sock->path, &found))
		return;                 /* gone already */
	if (found.st_dev != sock->dev || found.st_ino != sock->ino)
		return;                 /* somebody else's by now */
	if (unlink(sock->path) && errno != ENOENT)
		log_warn("disk", "cannot remove the socket '%s': %s", sock->path,
			 err_strerror(errno));
}

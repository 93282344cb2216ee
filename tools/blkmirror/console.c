/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/console.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define LEAVE_KEY 0x1d          /* Ctrl-] */

static int console_connect(const char *path, int *out, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ERR_EXPORT_SOCKET, -ENAMETOOLONG, "the path '%.100s' is too long",
			       path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		*out = fd;
		return 0;
	}
	rc = -errno;
	if (fd >= 0)
		close(fd);
	err_set(err, rc == -EACCES ? ERR_NOT_ALLOWED : ERR_EXPORT_SOCKET, rc,
		"cannot reach the console '%.120s': %s", path, err_strerror(rc));
	if (rc != -EACCES)
		err_remedy(err, "'blkmirror vm show' tells whether the machine runs.");
	return rc;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t put = write(fd, bytes, len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		bytes += put;
		len -= (size_t)put;
	}
	return true;
}

/* From one side to the other; false: that side has ended, or the user leaves. */
static bool carry(int from_fd, int to_fd, bool watch_key)
{
	char bytes[4096];
	ssize_t got = read(from_fd, bytes, sizeof(bytes));
	char *leave;

	if (got < 0 && errno == EINTR)
		return true;
	if (got <= 0)
		return false;
	leave = watch_key ? memchr(bytes, LEAVE_KEY, (size_t)got) : NULL;
	return write_all(to_fd, bytes, leave ? (size_t)(leave - bytes) : (size_t)got) && !leave;
}

/* At the end of a piped input the guest's words are still shown, until it ends. */
static void console_carry(int fd, bool terminal)
{
	struct pollfd fds[2] = { { .fd = fd, .events = POLLIN },
				 { .fd = STDIN_FILENO, .events = POLLIN } };
	bool open = true;

	while (open) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
		if (fds[1].revents && !carry(STDIN_FILENO, fd, terminal)) {
			open = !terminal;
			fds[1].fd = -1;
			fds[1].revents = 0;
		}
		if (fds[0].revents && !carry(fd, STDOUT_FILENO, false))
			open = false;
	}
}

int console_run(const char *path, struct err *err)
{
	struct termios before, raw;
	bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;
	int fd = -1, rc = console_connect(path, &fd, err);

	if (rc)
		return rc;
	if (terminal) {
		fputs("Connected; Ctrl-] leaves.\n", stderr);
		raw = before;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	console_carry(fd, terminal);
	if (terminal) {
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
		fputs("\n", stderr);
	}
	close(fd);
	return 0;
}

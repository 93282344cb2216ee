/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/holder_message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union fd_control {
	struct cmsghdr header;          /* for its alignment */
	char bytes[CMSG_SPACE(sizeof(int))];
};

void holder_message_init(struct holder_message *message, enum holder_message_type type,
			 const char *name)
{
	*message = (struct holder_message){ .magic = HOLDER_MAGIC, .version = HOLDER_VERSION,
					    .type = (uint16_t)type };
	CHECK(strlen(name) < sizeof(message->name));
	memcpy(message->name, name, strlen(name));
}

static bool name_has(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

bool holder_name_is_valid(const char *name, size_t bytes)
{
	size_t length = strnlen(name, bytes);

	if (length == 0 || length >= bytes || length >= HOLDER_NAME_BYTES)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!name_has(name[i]))
			return false;
	return true;
}

static bool has_name(unsigned type)
{
	return type == HOLDER_STORE || type == HOLDER_REMOVE || type == HOLDER_HELD;
}

int holder_message_judge(const void *bytes, size_t length, struct holder_message *out)
{
	struct holder_message message;

	if (length != sizeof(message))
		return -EBADMSG;
	memcpy(&message, bytes, sizeof(message));
	if (message.magic != HOLDER_MAGIC)
		return -EBADMSG;
	if (message.version != HOLDER_VERSION)
		return -EPROTONOSUPPORT;
	if (message.type < HOLDER_STORE || message.type > HOLDER_DONE)
		return -EBADMSG;
	if (has_name(message.type) ? !holder_name_is_valid(message.name, sizeof(message.name))
				   : message.name[0] != '\0')
		return -EBADMSG;
	*out = message;
	return 0;
}

/* 0: try again. */
static int wait_for(int socket, short events)
{
	struct pollfd poll_fd = { .fd = socket, .events = events };
	int ready = poll(&poll_fd, 1, HOLDER_LIMIT_MS);

	if (ready > 0 || (ready < 0 && errno == EINTR))
		return 0;
	return ready ? -errno : -ETIMEDOUT;
}

int holder_message_send(int socket, const struct holder_message *message, int fd)
{
	struct iovec iov = { (void *)message, sizeof(*message) };
	union fd_control control = { 0 };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	int rc = 0;

	if (fd >= 0) {
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	/* A packet goes whole or not at all. */
	while (!rc && sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		rc = errno == EAGAIN || errno == EINTR ? wait_for(socket, POLLOUT) : -errno;
	return rc;
}

/* There is room for one descriptor: of more, the kernel gives us the first and says MSG_CTRUNC. */
static int received_fd(struct msghdr *header)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(header);
	int fd = -1;

	if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS &&
	    control->cmsg_len == CMSG_LEN(sizeof(fd)))
		memcpy(&fd, CMSG_DATA(control), sizeof(fd));
	return fd;
}

int holder_message_recv(int socket, struct holder_message *out, int *fd_out)
{
	char bytes[sizeof(struct holder_message) + 1];  /* one more: too long is seen */
	struct iovec iov = { bytes, sizeof(bytes) };
	union fd_control control;
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes) };
	ssize_t got = -1;
	int fd, rc = 0;

	while (!rc && (got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0)
		rc = errno == EAGAIN || errno == EINTR ? wait_for(socket, POLLIN) : -errno;
	if (rc)
		return rc == -ECONNRESET ? -EPIPE : rc;
	fd = received_fd(&header);
	if (got == 0 && fd < 0)
		return -EPIPE;
	rc = header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ?
		-EBADMSG : holder_message_judge(bytes, (size_t)got, out);
	if (rc) {
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/export/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

#define ACCEPTS_PER_WAKE 16
#define AGAIN_NS (100 * NS_PER_MS)

static bool error_is_the_clients(int error)
{
	return error == ECONNABORTED || error == EINTR || error == EPROTO || error == EPERM;
}

static void listener_rest(struct listener *listener, int error)
{
	log_warn(listener->room, "%s: cannot accept a client: %s", listener->name,
		 err_strerror(error));
	watch_set_events(&listener->watch, 0);
	timer_start(&listener->again, AGAIN_NS);
}

static void listener_ready(struct watch *watch, unsigned events)
{
	struct listener *listener = container_of(watch, struct listener, watch);

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_WAKE; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			listener->accepted(listener, fd);
		} else if (errno == EAGAIN) {
			return;
		} else if (!error_is_the_clients(errno)) {
			listener_rest(listener, errno);
			return;
		}
	}
}

static void listener_again(struct timer *timer)
{
	struct listener *listener = container_of(timer, struct listener, again);

	watch_set_events(&listener->watch, WATCH_READ);
}

int listener_start(struct listener *listener, int listen_fd, struct err *err)
{
	int flags = fcntl(listen_fd, F_GETFL);
	int rc;

	if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		rc = -errno;
		return err_set(err, ERR_EXPORT_SOCKET, rc, "cannot export '%s': %s",
			       listener->name, err_strerror(rc));
	}
	timer_init(&listener->again, listener->loop, listener_again);
	rc = watch_start(&listener->watch, listener->loop, listen_fd, WATCH_READ, listener_ready);
	if (rc)
		return err_set(err, ERR_EXPORT_SOCKET, rc, "cannot listen for '%s': %s",
			       listener->name, err_strerror(rc));
	listener->fd = listen_fd;
	return 0;
}

void listener_stop(struct listener *listener, int *fd_out)
{
	timer_stop(&listener->again);
	watch_stop(&listener->watch);
	if (fd_out)
		*fd_out = listener->fd;
	else
		close(listener->fd);
	listener->fd = -1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_holder_systemd.c - the service manager's file-descriptor store.
 *
 * It keeps a copy of what is stored and passes it to the next life of the service as LISTEN_FDS,
 * with names.  FDPOLL=0: it must not judge by itself that a socket is of no use any more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/socket_holder_private.h"

/* A service manager that is busy is waited for that long, on the worker. */
#define BARRIER_US (5 * 1000 * 1000)

static int judge_notified(struct err *err, int rc, const char *what)
{
	if (rc > 0)
		return 0;
	return err_set(err, ERR_SOCKET_HOLDER, rc ? rc : -ENOTCONN,
		       "the service manager does not %s a socket: %s", what,
		       rc ? err_strerror(rc) : "there is none to notify");
}

/*
 * The message must be read while this process lives, else systemd cannot tell whose it is: the
 * barrier waits for that.  A manager from before barriers drops it and we go on.
 */
static int systemd_store(struct socket_holder *holder, const char *name, int fd, struct err *err)
{
	char text[HOLDER_NAME_BYTES + 64];
	int rc;

	(void)holder;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	rc = judge_notified(err, sd_pid_notify_with_fds(0, 0, text, &fd, 1), "store");
	if (!rc)
		rc = judge_notified(err, sd_notify_barrier(0, BARRIER_US), "acknowledge");
	return rc;
}

static int systemd_remove(struct socket_holder *holder, const char *name, struct err *err)
{
	char text[HOLDER_NAME_BYTES + 64];

	(void)holder;
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return judge_notified(err, sd_notify(0, text), "let go");
}

const struct holder_place_ops holder_systemd_ops = { systemd_store, systemd_remove };

int holder_systemd_take(struct socket_holder *holder, struct err *err)
{
	char **names = NULL;
	int count = sd_listen_fds_with_names(1, &names);
	int rc = 0;

	if (count < 0)
		return err_set(err, ERR_SOCKET_HOLDER, count, "cannot take LISTEN_FDS: %s",
			       err_strerror(count));
	for (int i = 0; i < count; i++) {
		if (!rc)
			rc = socket_holder_adopt(holder, names[i], SD_LISTEN_FDS_START + i,
						 holder->ops == &holder_systemd_ops, err);
		else
			close(SD_LISTEN_FDS_START + i);
		free(names[i]);
	}
	free(names);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_link.c - libnfs's RPC machine on a socket that we have connected.
 *
 * The machine is given a descriptor and no address, so it has nothing to connect to by itself:
 * what is lost stays lost, and is ours to judge (R2, R3).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/blkdev/nfs_private.h"

void nfs_show(const char *host, uint16_t port, char *shown)
{
	snprintf(shown, NFS_SHOWN_BYTES, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
		 (unsigned)port);
}

int nfs_link_open(const char *host, uint16_t port, uint64_t deadline_ns, struct nfs_link *link,
		  struct err *err)
{
	char shown[NFS_SHOWN_BYTES];
	struct dial_address to = { .port = port, .reserved_port = true, .shown = shown,
				   .err_id = ERR_NFS_UNREACHABLE };
	int fd, rc;

	nfs_show(host, port, shown);
	snprintf(to.host, sizeof(to.host), "%s", host);
	rc = dial_tcp(&to, deadline_ns, &fd, err);
	if (rc)
		return rc;
	*link = (struct nfs_link){ .rpc = rpc_init_context(), .fd = fd };
	if (!link->rpc) {
		close(fd);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot talk to %s", shown);
	}
	rpc_set_fd(link->rpc, fd);
	/* It learns from a first POLLOUT that it is connected. */
	rc = nfs_link_service(link, POLLOUT);
	if (rc) {
		nfs_link_close(link);
		return err_set(err, ERR_NFS_UNREACHABLE, rc, "cannot talk to %s", shown);
	}
	return 0;
}

void nfs_link_close(struct nfs_link *link)
{
	if (!link->rpc)
		return;
	link->dead = true;
	/* Where the machine has let go of the descriptor, it has closed it. */
	rpc_destroy_context(link->rpc);
	*link = (struct nfs_link){ .fd = -1, .dead = true };
}

int nfs_link_service(struct nfs_link *link, int events)
{
	if (!link->dead && (rpc_service(link->rpc, events) < 0 ||
			    rpc_get_fd(link->rpc) != link->fd))
		link->dead = true;
	return link->dead ? -EIO : 0;
}

int nfs_link_events(struct nfs_link *link)
{
	return link->dead ? 0 : rpc_which_events(link->rpc);
}

int nfs_link_run(struct nfs_link *link, const bool *done, uint64_t deadline_ns)
{
	while (!*done) {
		struct pollfd poller = { .fd = link->fd, .events = (short)nfs_link_events(link) };
		int left_ms = dial_poll_timeout_ms(deadline_ns);
		int rc = left_ms ? poll(&poller, 1, left_ms) : 0;

		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0)
			return -errno;
		if (rc == 0)
			return -ETIMEDOUT;
		rc = nfs_link_service(link, poller.revents);
		if (rc && !*done)
			return rc;
	}
	return 0;
}

int nfs_status_rc(nfsstat3 status)
{
	switch (status) {
	case NFS3_OK:
		return 0;
	case NFS3ERR_PERM:
		return -EPERM;
	case NFS3ERR_NOENT:
		return -ENOENT;
	case NFS3ERR_ACCES:
		return -EACCES;
	case NFS3ERR_EXIST:
		return -EEXIST;
	case NFS3ERR_NOTDIR:
		return -ENOTDIR;
	case NFS3ERR_ISDIR:
		return -EISDIR;
	case NFS3ERR_INVAL:
		return -EINVAL;
	case NFS3ERR_FBIG:
		return -EFBIG;
	case NFS3ERR_NOSPC:
		return -ENOSPC;
	case NFS3ERR_ROFS:
		return -EROFS;
	case NFS3ERR_NAMETOOLONG:
		return -ENAMETOOLONG;
	case NFS3ERR_NOTEMPTY:
		return -ENOTEMPTY;
	case NFS3ERR_DQUOT:
		return -EDQUOT;
	case NFS3ERR_STALE:
	case NFS3ERR_BADHANDLE:
		return -ESTALE;
	case NFS3ERR_NOTSUPP:
		return -ENOTSUP;
	case NFS3ERR_JUKEBOX:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

/* ---- one blocking call ---- */

/* The library's words, cut, and without what could forge a line. */
static void call_why(struct nfs_call *call, const char *why)
{
	snprintf(call->why, sizeof(call->why), "%s", why ? why : "the connection was lost");
	for (char *c = call->why; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

static bool call_came_back(struct nfs_call *call, int status, const void *data)
{
	call->done = true;
	call->rc = 0;
	if (status == RPC_STATUS_SUCCESS)
		return true;
	call->rc = -EIO;
	call_why(call, status == RPC_STATUS_ERROR ? data : NULL);
	return false;
}

void nfs_call_answered(struct rpc_context *rpc, int status, void *data, void *user)
{
	struct nfs_call *call = user;

	(void)rpc;
	if (!call_came_back(call, status, data))
		return;
	call->rc = nfs_status_rc(*(const nfsstat3 *)data);
	if (!call->rc && call->take)
		call->take(call, data);
}

void nfs_call_answered_raw(struct rpc_context *rpc, int status, void *data, void *user)
{
	struct nfs_call *call = user;

	(void)rpc;
	if (call_came_back(call, status, data))
		call->take(call, data);
}

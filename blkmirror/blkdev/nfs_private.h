/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_private.h - one connection to an NFS server, under the session and under the device.
 *
 *   nfs_link.c      a socket of ours with libnfs's RPC machine on it
 *   nfs_mount.c     port mapper, mount, limits: how a session begins
 *   nfs_session.c   the session's calls
 *   blk_nfs.c       the device
 */
#ifndef BM_NFS_PRIVATE_H
#define BM_NFS_PRIVATE_H

#include <sys/time.h>
/* libnfs's headers need these first. */
#include <nfsc/libnfs.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>

#include "blkmirror/blkdev/dial.h"
#include "blkmirror/blkdev/nfs_session.h"

#define NFS_PORT_MAPPER 111
#define NFS_SHOWN_BYTES (NFS_HOST_BYTES + 16)
/* What we ask for at most in one request; libnfs refuses answers above 1 MiB. */
#define NFS_TRANSFER_BYTES_MAX (1u << 20)
#define NFS_TRANSFER_BYTES_MIN 4096u

struct nfs_link {
	struct rpc_context *rpc;
	int fd;                         /* libnfs closes it with the context */
	bool dead;
};

/* "host:port"; shown: NFS_SHOWN_BYTES. */
void nfs_show(const char *host, uint16_t port, char *shown);

MUST_CHECK int nfs_link_open(const char *host, uint16_t port, uint64_t deadline_ns,
			     struct nfs_link *link, struct err *err);
/*
 * Ends the connection.  What has not been answered is told so by its callback, from inside
 * this call; nothing sent on it is delivered any more once the socket is gone (R3).
 */
void nfs_link_close(struct nfs_link *link);

/* Serve poll()'s events (0: only let it send).  -EIO: it is dead, close it. */
MUST_CHECK int nfs_link_service(struct nfs_link *link, int events);

/* [worker] Serve until *done.  -ETIMEDOUT or -EIO: close it. */
MUST_CHECK int nfs_link_run(struct nfs_link *link, const bool *done, uint64_t deadline_ns);

/* What poll() is to wait for. */
int nfs_link_events(struct nfs_link *link);

/* A status of NFS version 3 as -errno; 0 for NFS3_OK. */
int nfs_status_rc(nfsstat3 status);

static inline nfs_fh3 nfs_fh3_of(const struct nfs_handle *handle)
{
	/* libnfs only reads it. */
	return (nfs_fh3){ .data = { handle->len, (char *)(uintptr_t)handle->bytes } };
}

/* A server's handle, judged: false when it is no handle. */
static inline bool nfs_handle_take(struct nfs_handle *out, const nfs_fh3 *fh)
{
	if (fh->data.data_len == 0 || fh->data.data_len > NFS_HANDLE_BYTES_MAX)
		return false;
	out->len = fh->data.data_len;
	__builtin_memcpy(out->bytes, fh->data.data_val, out->len);
	return true;
}

/* ---- one blocking call ---- */

struct nfs_call {
	bool done;
	int rc;
	void (*take)(struct nfs_call *call, const void *answer);        /* may be NULL */
	void *out;
	char why[128];                  /* libnfs's words where rc is -EIO of the RPC layer */
};

/* For answers that begin with their nfsstat3. */
void nfs_call_answered(struct rpc_context *rpc, int status, void *data, void *user);
/* For the others: take() judges all of it. */
void nfs_call_answered_raw(struct rpc_context *rpc, int status, void *data, void *user);

struct nfs_session {
	struct nfs_place place;
	uint16_t nfs_port;
	uint64_t timeout_ns;
	struct nfs_link link;           /* .rpc NULL: none */
	struct nfs_handle root;
	struct nfs_limits limits;
};

/* The session's connection, made where there is none. */
MUST_CHECK int nfs_session_link(struct nfs_session *session, struct rpc_context **out,
				struct err *err);
/* queued: what libnfs said when the call was given to it. */
MUST_CHECK int nfs_session_run(struct nfs_session *session, struct nfs_call *call, int queued);

/* Port mapper, MNT, FSINFO (nfs_mount.c). */
MUST_CHECK int nfs_mount_export(struct nfs_session *session, struct err *err);

#endif

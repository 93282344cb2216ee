/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_server.h - a disk's NBD export: our own server, on the disk's I/O loop.
 *
 * Protocol: the NBD project's proto.md.  Fixed newstyle, structured replies,
 * base:allocation block status, multi-conn, FUA, TRIM, WRITE_ZEROES (NO_HOLE),
 * DF, LIST, INFO, GO, EXPORT_NAME, ABORT.  FAST_ZERO cannot be kept (nobody knows how
 * fast a store zeroes), so it is not offered and answered with ENOTSUP.
 * Not offered: STARTTLS (UNIX socket only until TLS comes with TCP), old style.
 *
 * Data path: one read of a socket takes as many requests as have come; payloads
 * land in counted buffers (buf.h), are submitted without a copy and answered with
 * one writev per turn.  A client that does not read its replies is not read from;
 * memory per connection is bounded: it holds at most 64 MiB of the pool's buffers, and
 * one that stalls keeps them.  Everything a client sends is hostile until
 * checked: here a guest's request is judged, once (blkdev.h).
 *
 * TRIM is write-zeroes that may unmap (R8).  It is offered where the device can unmap;
 * elsewhere it would make a guest's fstrim write zeroes over all its free space.
 *
 * Threading: the server and its connections live on one loop.
 */
#ifndef BM_NBD_SERVER_H
#define BM_NBD_SERVER_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

struct nbd_server;

struct nbd_server_options {
	const char *export_name;        /* e.g. "d1"; the empty default name leads to it too; copied */
	bool read_only;
	uint32_t max_connections;       /* 0: 16 */
	uint32_t max_requests;          /* in flight per connection; 0: 128 */
	uint64_t handshake_timeout_ns;  /* 0: 10 s */
};

/*
 * Serve `dev` (a gate, mostly) on a listening UNIX or TCP socket.  Takes listen_fd on
 * success; borrows dev and pool.  0, or -errno with *err.
 */
MUST_CHECK int nbd_server_new(struct loop *loop, int listen_fd, struct blk_dev *dev,
			      struct buf_pool *pool, const struct nbd_server_options *options,
			      struct nbd_server **out, struct err *err);

/* Clients connected now. */
uint32_t nbd_server_connections(const struct nbd_server *server);

/* What clients did wrong, and connections refused for the cap, since the server was made. */
uint64_t nbd_server_protocol_errors(const struct nbd_server *server);

/*
 * Stop: accept nobody, let what is in flight complete and be answered, close the
 * connections, free the server, then call closed() from a posted task.  What a client has
 * sent but the device has not been given is not carried out.  A client that does not take
 * its last replies delays the end by two seconds; a device that hangs delays it as long.
 *
 * listen_fd_out: NULL closes the listening socket; else it stays open for a successor and
 * is given back there, at once (R-J7: clients that connect meanwhile wait in its backlog).
 */
void nbd_server_close(struct nbd_server *server, int *listen_fd_out,
		      void (*closed)(void *user), void *user);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_blk_server.h - a disk's vhost-user-blk export: our own back end, on the disk's I/O loop.
 *
 * QEMU (the front end) shares the guest's memory with us; the guest's driver puts requests into
 * rings there, and data move between guest memory and the store without passing through QEMU
 * or a socket.  Guest memory goes down to the device as it is: what the device needs
 * aligned, or stable (the mirror's two legs, R10), the device copies (blkdev.h).
 *
 * Protocol: vhost-user as QEMU's documentation has it; split rings of virtio 1.2 with event
 * index and indirect descriptors; several queues.  Requests: IN, OUT, FLUSH, GET_ID, WRITE_ZEROES,
 * and DISCARD where the device can unmap (R8: zeroes that may unmap).  Not offered: packed rings,
 * an IOMMU, post-copy, CONFIG_WCE (a back end that comes after a kill could not know what the
 * guest had chosen), and polling of rings without a kick.
 *
 * After a kill: the front end keeps the in-flight region and brings it to the next back end,
 * which carries out again, in order, what was taken and not told; nothing newer starts before
 * that has settled (R3).  Without the region (old front ends) such requests are lost: the log
 * says so.
 *
 * Live migration: with a dirty log every page that a request wrote is marked after the data
 * have landed, and what the rings got after it was written (R-E4).
 *
 * Stopping a ring (GET_VRING_BASE) drains it first (R-C6).  QEMU sits there with its big lock
 * held, and the guest with it, so the wait is bounded: after drain_timeout_ns the connection is
 * closed instead of answered.  The device still owns those requests; until it has given them
 * back no front end is served.
 *
 * Everything a front end or a driver does is hostile until checked.  A message that breaks the
 * protocol costs the connection; a ring that breaks the rules stops that queue until its next
 * start, both with a line in the log.  Memory that is cut off under us (vhost_map.h) costs the
 * connection.
 * Bounds: one front end, max_requests request objects of about 5 KiB, max_queues queues, 64 memory
 * regions, rings of 1024.
 *
 * Threading: the server and its front end live on one loop.
 */
#ifndef BM_VHOST_BLK_SERVER_H
#define BM_VHOST_BLK_SERVER_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

struct vhost_blk_server;

struct vhost_blk_options {
	const char *name;               /* for the log; its first 20 bytes are the serial; copied */
	bool read_only;
	uint32_t max_queues;            /* offered; 0: 64; at most 256 */
	uint32_t max_requests;          /* in flight, of all queues; 0: 256; at most 4096 */
	uint64_t drain_timeout_ns;      /* 0: 10 s */
	/*
	 * How long at most to look for the next request before waiting for a kick; 0: not at
	 * all.  Saves the guest an exit and us a wake-up per request, and costs up to one CPU
	 * while the guest works: the loop does not sleep meanwhile.  Adapts: grows while it pays,
	 * ends when it does not.
	 */
	uint64_t poll_ns;
};

/*
 * Serve `dev` (a gate, mostly) on a listening UNIX socket.  Takes listen_fd on success; borrows
 * dev.  0, or -errno with *err.
 */
MUST_CHECK int vhost_blk_server_new(struct loop *loop, int listen_fd, struct blk_dev *dev,
				    const struct vhost_blk_options *options,
				    struct vhost_blk_server **out, struct err *err);

/* Front ends connected now: 0 or 1. */
uint32_t vhost_blk_server_connections(const struct vhost_blk_server *server);

/* Broken messages and rings, and front ends refused, since the server was made. */
uint64_t vhost_blk_server_protocol_errors(const struct vhost_blk_server *server);

/* The device has another size now: tell the guest. */
void vhost_blk_server_resized(struct vhost_blk_server *server);

/*
 * Stop: accept nobody, take no new requests, let what is in flight complete and be told to the
 * guest, close the connection, free the server, then call closed() from a posted task.  A
 * device that hangs delays the end as long; its front end is let go after drain_timeout_ns.
 *
 * listen_fd_out: NULL closes the listening socket; else it stays open for a successor and is
 * given back there, at once.
 */
void vhost_blk_server_close(struct vhost_blk_server *server, int *listen_fd_out,
			    void (*closed)(void *user), void *user);

#endif

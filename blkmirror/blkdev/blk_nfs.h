/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nfs.h - a file on an NFS export, version 3, as a block device.
 *
 * Requests are cut to the server's limits and pipelined over one or several connections; all of
 * one request goes over one connection.  Version 3 knows neither holes nor unmapping:
 * all is data, and zeroes are written as zeroes.
 *
 * Writes are UNSTABLE: a server may lose them until a COMMIT, and says so by another write
 * verifier.  The device keeps no copy of what it wrote, so it is one for *targets* (M14): a
 * flush fails with -EIO when the server has restarted since the last good one, and whoever
 * mirrors to it holds all that was written meanwhile for dirty (R9).  With `stable`, for a disk
 * that is nobody's copy, each write is on stable storage before it is answered.
 *
 * A request's answer is its reply on its own connection.  A connection that dies takes the whole
 * device with it: all complete with -EIO, and it says so (blk_nfs_is_dead()).  A lost write may
 * still land (R2), so nothing is repeated, and the device never reconnects by itself.
 */
#ifndef BM_BLK_NFS_H
#define BM_BLK_NFS_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"
#include "blkmirror/blkdev/nfs_session.h"

#define BLK_NFS_CONNECTIONS_MAX 16u

struct blk_nfs_options {
	bool read_only;
	bool reads_zero;                /* the file was made by us, and only its size was set (R11) */
	bool stable;
	const char *name;               /* for messages; copied */
};

/* The connections to one file: the blocking half, made on a worker, of no loop yet. */
struct blk_nfs_links;

/* Dials `count` connections to the session's server.  0 and *out (gives), or -errno with *err. */
MUST_CHECK int blk_nfs_connect(struct nfs_session *session, const struct nfs_handle *file,
			       unsigned count, uint64_t timeout_ns, struct blk_nfs_links **out,
			       struct err *err);
/* For links that no device has taken.  NULL is harmless. */
void blk_nfs_links_free(struct blk_nfs_links *links);

/*
 * Make a device of the links; takes them on success.  Does not block.  size_bytes: a multiple
 * of 512, as large as the file.
 */
MUST_CHECK int blk_nfs_new(struct loop *loop, struct blk_nfs_links *links, uint64_t size_bytes,
			   const struct blk_nfs_options *options, struct blk_dev **out,
			   struct err *err);

bool blk_nfs_is_dead(const struct blk_dev *dev);

#endif

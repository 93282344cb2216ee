/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nfs.h - a file on an NFS export, version 3, as a block device.
 *
 * Requests are cut to the server's limits and pipelined over one or several connections; all of
 * one request goes over one connection.  Version 3 knows neither holes nor unmapping:
 * all is data, and zeroes are written as zeroes.
 *
 * Writes are UNSTABLE: a server may lose them until a COMMIT, and says so by another write
 * verifier.  What the device does about that, and about a lost connection, is its role:
 *
 * BLK_NFS_TARGET  of a mirror.  Nothing is kept (M14): a flush fails with -EIO when the server has
 *                 lost what it had not committed, and whoever mirrors to it holds all that was
 *                 written since the last good one for dirty (R9).  A lost connection is made
 *                 again; what was under way is answered, with -EIO, only when it can land no
 *                 more (R2), and is never sent again.
 * BLK_NFS_SOURCE  a guest's own disk.  What was written is kept until a COMMIT covers it, in bounded
 *                 memory, and written again when the server has lost it.  A lost connection is
 *                 made again and what was not answered is sent again, behind a barrier (R3);
 *                 the guest waits meanwhile.
 * BLK_NFS_PLAIN   for tools: a connection that dies takes the device with it (blk_dev.lost): all
 *                 complete with -EIO, and nothing is repeated.  A flush is as a target's.
 *                 With `stable` each write is on stable storage before it is answered.
 *
 * A lease's fence (fence.h) is asked at each sending (R-F1).  While it is closed the device waits as
 * for a lost connection; when it is lost, so is the device.
 */
#ifndef BM_BLK_NFS_H
#define BM_BLK_NFS_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"
#include "blkmirror/blkdev/fence.h"
#include "blkmirror/blkdev/nfs_session.h"

#define BLK_NFS_CONNECTIONS_MAX 16u

enum blk_nfs_role { BLK_NFS_PLAIN, BLK_NFS_TARGET, BLK_NFS_SOURCE };

struct blk_nfs_options {
	enum blk_nfs_role role;
	bool read_only;
	bool reads_zero;                /* the file was made by us, and only its size was set (R11) */
	bool stable;                    /* PLAIN only */
	const char *name;               /* for messages; copied */
	struct fence *fence;            /* the device takes a reference; NULL: none */
	/* [the loop] The connection is lost, or there again.  May be NULL. */
	void (*told)(void *user, bool connected);
	void *user;
	/*
	 * Until when (fence_clock_ns()) what was sent may still land though the device is closed;
	 * set when it is closed without an answer to a write.  Must outlive the device.  May be NULL.
	 */
	_Atomic uint64_t *unsettled_until_ns;
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

/* [the loop, no write in flight] A target that has become the guest's disk. */
void blk_nfs_promote(struct blk_dev *dev);

bool blk_dev_is_nfs(const struct blk_dev *dev);

/* A PLAIN one whose connection was lost, or any whose fence or file was. */
bool blk_nfs_is_dead(const struct blk_dev *dev);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd.h - any NBD server as a block device, through libnbd.
 *
 * So whatever qemu-nbd, nbdkit or another export offers (qcow2, VDDK, RBD ...) can
 * be a source or a target.  Commands go down asynchronously on the loop; libnbd's
 * descriptor is watched.  A request's answer is its reply on its own connection: a
 * connection that dies completes what was in flight with -EIO, and the device says
 * so (blk_nbd_is_dead()); a lost write may still land at the server (R2), so the
 * device never reconnects by itself.
 */
#ifndef BM_BLK_NBD_H
#define BM_BLK_NBD_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

struct blk_nbd_options {
	bool read_only;
	bool reads_zero;                /* only where the operator's word or a fresh export says so (R11) */
	const char *name;               /* for messages; copied; NULL: the URI without secrets */
};

/* A connected server: the blocking half, made on a worker, of no loop yet. */
struct blk_nbd_link;

/*
 * Connect and negotiate, at most timeout_ns.  uri: nbd://host[:port]/export or
 * nbd+unix:///export?socket=PATH.  Blocks: call it on a worker.
 * 0 and *out (gives), or -errno with *err (ERR_NBD_*).
 */
MUST_CHECK int blk_nbd_connect(const char *uri, bool read_only, uint64_t timeout_ns,
			       struct blk_nbd_link **out, struct err *err);
uint64_t blk_nbd_link_size_bytes(const struct blk_nbd_link *link);
bool blk_nbd_link_read_only(const struct blk_nbd_link *link);
/* For a link that no device has taken.  NULL is harmless. */
void blk_nbd_link_free(struct blk_nbd_link *link);

/* Make a device of a link; takes it on success.  Does not block. */
MUST_CHECK int blk_nbd_new(struct loop *loop, struct blk_nbd_link *link,
			   const struct blk_nbd_options *options, struct blk_dev **out,
			   struct err *err);

bool blk_nbd_is_dead(const struct blk_dev *dev);

#endif

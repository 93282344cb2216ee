/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd_private.h - the parts of the NBD client, from the URI to the command.
 *
 *   blk_nbd_uri.c      judges a URI: where to connect, and for which export
 *   blk_nbd_dial.c     makes a connected socket of it, by a deadline
 *   blk_nbd_link.c     negotiates on that socket and judges what the server says
 *   blk_nbd_extents.c  judges and translates one block status answer
 *   blk_nbd.c          the device
 */
#ifndef BM_BLK_NBD_PRIVATE_H
#define BM_BLK_NBD_PRIVATE_H

#include <libnbd.h>
#include <sys/un.h>

#include "blkmirror/blkdev/blk_nbd.h"
#include "blkmirror/blkdev/net_dial.h"

#define NBD_EXPORT_NAME_MAX 4096        /* the protocol's limit on strings */
#define NBD_HOST_MAX NET_HOST_MAX
#define NBD_BLOCK_BYTES_MAX 65536u      /* the protocol's limit on the minimum block size */

struct blk_nbd_address {
	bool is_unix;
	char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char host[NBD_HOST_MAX + 1];
	char port[6];
	char export_name[NBD_EXPORT_NAME_MAX + 1];
	char shown[NBD_HOST_MAX + 32];  /* for messages: where */
};

/* -EINVAL with ERR_DS_BAD_URL or ERR_DS_SECRET_IN_URL; never repeats the URI. */
MUST_CHECK int blk_nbd_address_parse(const char *uri, struct blk_nbd_address *out,
				     struct err *err);

/*
 * A connected, non-blocking socket, or -errno with ERR_NBD_CONNECT.  TCP sockets drop
 * what is queued when they are closed, killed or cut off (R3).  Blocks until deadline_ns
 * of net_clock_ns() at most.
 */
MUST_CHECK int blk_nbd_dial(const struct blk_nbd_address *address, uint64_t deadline_ns,
			    int *fd_out, struct err *err);

struct blk_nbd_link {
	struct nbd_handle *handle;
	int fd;                         /* a duplicate of ours: libnbd closes its own at will */
	bool is_tcp;
	bool read_only, can_flush, can_fua, can_zero, can_trim, has_extents;
	uint64_t size_bytes;
	uint32_t block_bytes, physical_bytes;
	uint64_t max_transfer_bytes;
	char name[sizeof(((struct blk_nbd_address *)0)->shown)];
};

/*
 * Translate one block status answer for [0, len_bytes) of a request: `entries` are
 * pairs of length and flags.  Blocks known only in part count as data.  -EIO: the
 * answer makes no sense.
 */
MUST_CHECK int blk_nbd_extents_translate(const uint32_t *entries, size_t entry_count,
					 uint64_t len_bytes, uint32_t block_bytes,
					 struct blk_extents *out);

#endif

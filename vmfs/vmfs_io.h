/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_io.h - what the metadata of a volume are read and written through.
 *
 * Synchronous on purpose.  Metadata operations are rare, long chains of dependent reads and
 * ordered writes; as straight code on a worker's thread they can be read and reasoned about,
 * and a store that hangs hangs only that worker.  The data of an open file need not
 * come this way: vmfs.h says how they are mapped to the block devices below.
 *
 * The sector is the unit of atomicity: a write of one block of block_bytes lands whole or not
 * at all; of a longer one each block by itself, in any order, until the next flush.
 *
 * vmfs_io_compare_write() is the primitive under on-disk locks: if the block at the offset
 * still holds `expected`, it becomes `replacement`, in one step as seen by everybody who shares
 * the store.  Each kind of store brings its own: COMPARE AND WRITE or a reservation around
 * read, check and write on iSCSI; the exclusive lock on the descriptor for a local file.
 *
 * For simulations every call is a point where another host may get its turn: an implementation
 * may switch there.
 *
 * Units:     bytes; offsets and lengths of reads are multiples of 512, of writes multiples of
 *            block_bytes, inside the device (CHECKed: callers judge what comes from disk).
 * Errors:    0 or -errno.  compare_write: -EAGAIN when the block holds something else.
 * Threading: one thread at a time.  Never a loop's thread: calls block.
 */
#ifndef BM_VMFS_IO_H
#define BM_VMFS_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

#define VMFS_SECTOR_BYTES 512u
#define VMFS_IO_BLOCK_MAX 4096u

struct vmfs_io;

struct vmfs_io_ops {
	const char *name;
	int (*read)(struct vmfs_io *io, uint64_t offset_bytes, uint8_t *bytes, size_t len_bytes);
	int (*write)(struct vmfs_io *io, uint64_t offset_bytes, const uint8_t *bytes,
		     size_t len_bytes);
	int (*flush)(struct vmfs_io *io);
	/* NULL: the store has no such primitive, and on-disk locks cannot be taken. */
	int (*compare_write)(struct vmfs_io *io, uint64_t offset_bytes, const uint8_t *expected,
			     const uint8_t *replacement, size_t len_bytes);
	void (*close)(struct vmfs_io *io);
};

struct vmfs_io {
	const struct vmfs_io_ops *ops;
	uint64_t size_bytes;
	uint32_t block_bytes;           /* 512 or 4096 */
	bool read_only;
	/* Nobody else can write here while it is open: an exclusive lock stands on it. */
	bool exclusive;
};

MUST_CHECK int vmfs_io_read(struct vmfs_io *io, uint64_t offset_bytes, void *bytes,
			    size_t len_bytes);
MUST_CHECK int vmfs_io_write(struct vmfs_io *io, uint64_t offset_bytes, const void *bytes,
			     size_t len_bytes);
/* All writes that have returned are durable. */
MUST_CHECK int vmfs_io_flush(struct vmfs_io *io);
/* len_bytes: one block.  -EAGAIN: it holds something else; -ENOTSUP: no such primitive. */
MUST_CHECK int vmfs_io_compare_write(struct vmfs_io *io, uint64_t offset_bytes,
				     const void *expected, const void *replacement,
				     size_t len_bytes);
/* NULL is harmless. */
void vmfs_io_close(struct vmfs_io *io);

/* ---- a file or block device of this host ---- */

struct vmfs_io_file_options {
	bool read_only;
	bool shared;                    /* other processes may have it open shared, too */
	bool create;                    /* a plain file that must not exist yet */
	uint64_t size_bytes;            /* with create */
};

/*
 * Opens with O_DIRECT where the file system has it (several hosts may share a device, so a
 * cached sector may be old), else buffered.  For writing it takes an exclusive lock (OFD and
 * flock alike are refused to others), for reading none: a volume in use by its host can be
 * looked at.  -EBUSY with *err: somebody holds it.  The alternative stores of one host are its
 * own business; other hosts do not see this lock, their heartbeats are looked at by the mount.
 *
 * Shared: the lock keeps only exclusive openers out.  compare_write takes an OFD lock on its sector
 * around read, check and write, and waits for whoever has it: a process that is frozen in there
 * keeps the others waiting until it is thawed or killed.  O_DIRECT or the page cache of one host
 * make it right; on a network file system it is not.
 */
MUST_CHECK int vmfs_io_file_open(const char *path, const struct vmfs_io_file_options *options,
				 struct vmfs_io **out, struct err *err);

/* ---- a block device on a loop ---- */

/*
 * Calls become requests to `dev`, sent to its loop and waited for: from any thread but the
 * loop's own, which must be running.  Borrows dev: close the io first.  It has no
 * compare_write and no lock: whoever puts a volume there sees to both.  NULL: out of memory.
 */
struct vmfs_io *vmfs_io_dev_new(struct blk_dev *dev);

#endif

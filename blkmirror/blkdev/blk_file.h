/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file.h - a file or a block device, through libaio and O_DIRECT.
 *
 * Requests are gathered over a loop turn and go down in one io_submit(); the
 * kernel's completions come back through an eventfd and are read from the ring.
 * Flush is IO_CMD_FDSYNC, FUA is RWF_DSYNC (both measured on ext4), so neither
 * needs a thread.  What the kernel only offers as blocking calls (fallocate,
 * SEEK_HOLE) runs on the device's own worker.  Where O_DIRECT is refused (tmpfs
 * of old, some FUSE) or memory is unaligned, it falls back and says so once.
 *
 * A submitted O_DIRECT write cannot be cancelled (io_cancel says EINVAL): it
 * completes when the kernel says so, however late, and never before (R2).
 *
 * R5: libaio's io_submit() itself blocks on a frozen or journal-bound file system.
 * With options.submit_thread nothing but messages runs on the loop: submission
 * happens on a thread of the device's own.  Every target is opened that way.
 *
 * Threading and errors: as blkdev.h.
 */
#ifndef BM_BLK_FILE_H
#define BM_BLK_FILE_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"

struct blk_file_options {
	bool read_only;
	bool submit_thread;             /* R5 */
	bool reads_zero;                /* the caller has just created it, or knows (R11) */
	uint32_t depth;                 /* requests in the kernel at once; 0: 256 */
	const char *name;               /* for messages; copied; NULL: "file" */
};

/*
 * Make a device of an open descriptor: a plain file or a block device, opened
 * O_RDWR|O_CLOEXEC (O_RDONLY when read_only), with O_DIRECT where that was possible.
 * Does not block: open, lock and stat happen before, on a worker.  Takes fd on success
 * (the lock on it lives as long as its last request, R-J7).
 *
 * 0, or -errno with *err: -EINVAL (neither file nor block device), -ENOMEM, -EAGAIN (the
 * system's aio-max-nr is used up).
 */
MUST_CHECK int blk_file_new(struct loop *loop, int fd, const struct blk_file_options *options,
			    struct blk_dev **out, struct err *err);

/*
 * Turn submission on a thread on or off, with nothing in flight: a target that has become
 * authoritative serves the guest without the hop.
 */
void blk_file_set_submit_thread(struct blk_dev *dev, bool on);

/* Is this one of ours? */
bool blk_dev_is_file(const struct blk_dev *dev);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_file.h - a file or a block device, through libaio and O_DIRECT.
 *
 * Requests are gathered over a loop turn and go down in one io_submit(); the
 * kernel's completions come back through an eventfd and are read from its ring.
 * Flush is IO_CMD_FDSYNC, FUA is RWF_DSYNC (both measured on ext4), so neither
 * needs a thread; where the kernel or the file system has neither, a thread syncs.
 * What the kernel only offers as blocking calls (fallocate, SEEK_HOLE) runs on the
 * device's own worker.  Memory that is not aligned goes through bounce buffers of the
 * device's own, 64 MiB at most.  Each such fall-back is logged once.
 *
 * A descriptor without O_DIRECT (or on which it cannot work: see blk_file_limits.c) is
 * served buffered, by four threads: libaio would block the loop there.
 *
 * A submitted O_DIRECT write cannot be cancelled (io_cancel says EINVAL): it
 * completes when the kernel says so, however late, and never before (R2).
 *
 * R5: libaio's io_submit() itself blocks on a frozen or journal-bound file system.
 * With options.submit_thread nothing but messages runs on the loop: submission
 * happens on a thread of the device's own.  Every target is opened that way.
 * Without it a zeroing in progress also makes io_submit() wait, on file systems that
 * lock the file for it.
 *
 * Extents: space that is allocated but was never written reads as zeroes and is told as a
 * hole, SEEK_HOLE knows no better; what lies behind the end of a file that somebody has
 * cut is told as data, so that reading it fails loudly.  A block device is all data.
 *
 * Closing never waits for the store: close(2) runs on a thread, for which blk_close() waits
 * 20 ms at most, ample unless the store is stuck.  After that the descriptor, and a lock on
 * it, live on until the store lets go.
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
	uint32_t depth;                 /* requests in the kernel at once, up to 4096; 0: 256 */
	const char *name;               /* for messages; copied; NULL: "file" */
};

/*
 * Make a device of an open descriptor: a plain file or a block device, opened
 * O_RDWR|O_CLOEXEC (O_RDONLY when read_only), with O_DIRECT where that was possible.
 * Does not block: open, lock and stat happen before, on a worker.  Takes fd on success
 * (the lock on it lives as long as its last request, R-J7).
 *
 * May turn O_DIRECT off on the descriptor.
 *
 * 0, or -errno with *err, and fd stays the caller's: -EINVAL (neither file nor block device,
 * or its size is no whole number of sectors), -ENOMEM, -EAGAIN (the system's aio-max-nr or
 * its threads are used up).
 */
MUST_CHECK int blk_file_new(struct loop *loop, int fd, const struct blk_file_options *options,
			    struct blk_dev **out, struct err *err);

/*
 * Turn submission on a thread on or off, with nothing in flight: a target that has become
 * authoritative serves the guest without the hop.  Turning off always succeeds; turning on
 * may fail with -EAGAIN or -ENOMEM, and then the device must not serve as a target (R5).
 * A buffered device has no submit thread and needs none: 0.
 */
MUST_CHECK int blk_file_set_submit_thread(struct blk_dev *dev, bool on);

/*
 * As blk_close(), without blocking the loop at all: guests of it may be waiting.  closed() runs
 * on the loop, never from inside, where blk_close() would return: the descriptor is closed and
 * a lock on it gone, or 20 ms have passed.  The loop must live until then.
 */
void blk_file_close_later(struct blk_dev *dev, void (*closed)(void *user), void *user);

/* Is this one of ours? */
bool blk_dev_is_file(const struct blk_dev *dev);

#endif

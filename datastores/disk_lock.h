/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_lock.h - one writer or many readers of a local file, QEMU included.
 *
 * OFD locks on the very descriptor that does the I/O (R-J7): they belong to the open file,
 * so they last until the last copy of the descriptor is closed and the last request in the
 * kernel is done, also when the process was killed; and two opens in one process exclude
 * each other like two processes.
 *
 * The bytes are those of QEMU's image locks, so that both sides see each other.  Byte 100+n
 * says "I use permission n", byte 200+n "nobody else may use permission n"; QEMU takes shared
 * locks on them and then asks whether anybody holds the counterpart.
 *
 *   n  permission         writer here        reader here
 *   0  consistent read    100 shared         100 shared
 *   1  write              101 exclusive      -
 *   1  write, refused     201 exclusive      201 shared
 *   3  resize, refused    203 exclusive      203 shared
 *   asked after locking:  103, 200           101, 103, 200
 *
 * The exclusive locks make it atomic among ourselves: byte 201 is taken first and decides.
 * A QEMU that shares everything (qemu-img -U) passes, because its user asked for that.
 */
#ifndef BM_DISK_LOCK_H
#define BM_DISK_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "blkmirror/base/err.h"

enum disk_lock_mode { DISK_LOCK_READ, DISK_LOCK_WRITE };

/*
 * [worker] Lock an open plain file (a writer's fd must be open for writing).
 *
 * wait_ms 0: at once.  Else try again until it is free, at most about that long: the holder
 * that is waited for is a killed process with requests in the kernel, and nothing tells when
 * the last is done, but F_OFD_SETLKW, which knows no limit and would hold the store's worker for
 * good.  So it asks in growing intervals, 5 ms to 200 ms.  A lock of this very process is
 * not waited for: who would release it queues behind us.
 *
 * 0, -EAGAIN with ERR_DISK_IN_USE (names the holder where /proc shows it), or
 * -errno with ERR_DS_IO.
 * On failure no lock is left.
 */
MUST_CHECK int disk_lock_take(int fd, enum disk_lock_mode mode, unsigned wait_ms, const char *path,
			      struct err *err);

/*
 * [worker] For what has just been closed: a lock of this very process is waited for, and one whose
 * holder nobody can see, about two seconds; not one of another process.  A device's descriptor is
 * closed on a thread of its own, which is not waited for long, and the kernel lets a lock go
 * with the last reference to the open file, which a completed request may have for a moment.
 */
MUST_CHECK int disk_lock_take_soon(int fd, enum disk_lock_mode mode, const char *path,
				   struct err *err);

void disk_lock_release(int fd);

struct disk_lock_holder {
	pid_t pid;
	char program[32];               /* "qemu-nbd" */
};

/*
 * [worker] Who holds one of these bytes, by /proc/PID/fdinfo: an OFD lock has no pid of its
 * own.  False when nobody can be seen (another user's process, another pid namespace, or
 * a process that is gone while its requests last).
 */
bool disk_lock_find_holder(int fd, struct disk_lock_holder *out);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_inject.h - let another process make a few system calls, and leave it as it was.
 *
 * One thread of it is stopped with ptrace, made to execute `syscall` at an instruction that is
 * there already (in its vDSO), and let go with every register and its signal mask as before.  The
 * system call that it may have been waiting in goes on: it is stopped again at the same kind of
 * place as at first, where the kernel itself restarts what was interrupted.
 *
 * Its other threads run on.  It all takes a fraction of a millisecond.  Nothing is written to
 * its memory.
 *
 * Threading: all calls for one struct on one thread (ptrace knows threads, not processes);
 * they block, for a worker.  x86-64 only; elsewhere begin() refuses.
 */
#ifndef BM_VMOTION_MEM_INJECT_H
#define BM_VMOTION_MEM_INJECT_H

#include <sys/types.h>

#include "blkmirror/base/err.h"

struct mem_inject;

/*
 * Stop the process's main thread.  0, or -errno with *err: -EPERM (not ours to trace), -EBUSY
 * (somebody traces it, or a signal has stopped it), -ESRCH, -ENOTSUP.  Nothing has changed then.
 */
MUST_CHECK int mem_inject_begin(pid_t pid, struct mem_inject **out, struct err *err);

/* What the call returned there, negative: -errno; or -ESRCH: the process is gone. */
long mem_inject_syscall(struct mem_inject *inject, long number, const unsigned long args[6]);

/* Let it go as it was; frees. 0, or -errno with *err: it is gone, or not as it was. */
MUST_CHECK int mem_inject_end(struct mem_inject *inject, struct err *err);

#endif

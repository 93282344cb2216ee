/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_attach.h - hold of a running, unmodified QEMU: its guest's RAM, and which of it is written.
 *
 *   A1  look: its blocks of RAM (mem_blocks.h), descriptors of them
 *   A2  try in our own process what the kernel can, before QEMU is touched
 *   A3  let QEMU make a userfaultfd (mem_inject.h), take it, let QEMU close its own
 *   A4  register the blocks for asynchronous write protection
 *
 * From then on a write to a protected page costs the guest one fault that the kernel settles by
 * itself, and PAGEMAP_SCAN tells from outside which pages those were and protects them again, in
 * one step.  Nobody waits for us: if this process dies, the kernel takes the protection off.
 *
 * What remains in QEMU afterwards: nothing.  Its descriptors, its mappings and its state are as
 * before.  (Between A3's stop and go a kill -9 of this process would leave QEMU's main thread in the
 * middle of our call; that is a quarter of a millisecond.)
 *
 * Threading: all calls but mem_tracker_mark_written() on one worker's thread; they block.
 */
#ifndef BM_VMOTION_MEM_ATTACH_H
#define BM_VMOTION_MEM_ATTACH_H

#include <sys/types.h>

#include "vmotion/mem_tracker.h"

struct mem_attach;

enum mem_tracker_kind {
	MEM_TRACKER_AUTO,               /* KERNEL; HASH where the kernel cannot, which is logged */
	MEM_TRACKER_KERNEL,
	MEM_TRACKER_HASH,
};

struct mem_attach_options {
	pid_t pid;
	uint64_t expected_bytes;        /* see mem_blocks_find() */
	enum mem_tracker_kind tracker;
};

/* 0 or -errno with *err; QEMU is as it was then. */
MUST_CHECK int mem_attach_new(const struct mem_attach_options *options, struct mem_attach **out,
			      struct err *err);
/* Detach.  NULL is harmless, and so is a QEMU that has ended. */
void mem_attach_free(struct mem_attach *attach);

/* Valid until mem_attach_free(). */
struct mem_space *mem_attach_space(struct mem_attach *attach);
struct mem_tracker *mem_attach_tracker(struct mem_attach *attach);

/*
 * Is its RAM still the same?  Memory that was plugged in meanwhile is not tracked, so this is
 * asked again when the guest is stopped.  0, or -ESTALE (or another -errno) with *err.
 */
MUST_CHECK int mem_attach_check_same(struct mem_attach *attach, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_blocks.h - where a running QEMU has its guest's RAM, and descriptors of it.
 *
 * RAM that can be tracked and read from outside lies in shared memory: memfds of QEMU's
 * memory-backend-memfd, or files of memory-backend-file,share=on on tmpfs or hugetlbfs.  They are
 * found in /proc/PID/maps; the kernel may show one as several mappings, which are joined again.
 *
 * Order: by the number of QEMU's descriptor, which is the order in which QEMU made them.  Two QEMUs
 * of the same command line agree in it; who has named backends checks it with QMP's gpa2hva and
 * mem_blocks_name().
 *
 * Threading: these read /proc and block, for a worker.
 */
#ifndef BM_VMOTION_MEM_BLOCKS_H
#define BM_VMOTION_MEM_BLOCKS_H

#include <sys/types.h>

#include "vmotion/mem_space.h"

#define MEM_PATH_BYTES 256u

struct mem_mapping {
	uint64_t start, end;            /* addresses in the process */
	uint64_t offset_bytes;          /* in its file */
	uint64_t device, inode;         /* of its file */
	bool is_shared, is_writable;
	bool is_memfd;                  /* one of QEMU's memory backends */
	bool is_file;                   /* named, and no memfd: tmpfs or hugetlbfs, perhaps */
	char path[MEM_PATH_BYTES];      /* as shown; its beginning, where it is longer */
};

/* One line of /proc/PID/maps.  False: it is not of that form. */
bool mem_mapping_parse(const char *line, struct mem_mapping *out);

/*
 * Fill an empty space with the RAM of process pid, through its pidfd; hva is set in each block.
 * expected_bytes: all of the guest's RAM, as QMP's query-memory-size-summary says; another sum is
 * refused, for then some of it is not shared.  0: not known.
 * 0 or -errno with *err; nothing has changed in QEMU, whatever comes.
 */
MUST_CHECK int mem_blocks_find(pid_t pid, int pidfd, uint64_t expected_bytes,
			       struct mem_space *out, struct err *err);

/* Name the block that QEMU has at this address.  False: there is none. */
bool mem_blocks_name(struct mem_space *space, uint64_t hva, const char *name);

#endif

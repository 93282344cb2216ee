/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_mem.h - a volume's device in memory, for tests: remembers every write, loses what was not
 * flushed, fails on demand.
 *
 * The memory is sparse: a device may be far larger than the machine.  vmfs_mem_mark() makes the
 * present contents the base that vmfs_mem_reset() goes back to.
 */
#ifndef BM_TESTS_VMFS_MEM_H
#define BM_TESTS_VMFS_MEM_H

#include "vmfs/vmfs_io.h"

/* One write, or a flush (len 0). */
struct vmfs_mem_event {
	uint64_t offset_bytes;
	size_t len_bytes;
	uint8_t *bytes;
	unsigned tag;                   /* mem->tag when it came */
};

struct vmfs_mem_page {
	uint64_t number;
	uint8_t *bytes;
};

struct vmfs_mem {
	struct vmfs_io io;
	uint8_t *bytes;
	uint8_t *saved_bits;            /* per page: its base contents are in `saved` */
	struct vmfs_mem_page *saved;
	size_t saved_count, saved_capacity;
	bool recording;
	unsigned tag;
	struct vmfs_mem_event *events;
	size_t event_count, event_capacity;
	uint64_t reads, writes, flushes;
	uint64_t fail_from;             /* the n-th write or flush from now fails, and all after; 0: none */
};

/* CHECKs that there is memory. */
struct vmfs_mem *vmfs_mem_new(uint64_t size_bytes);
/* Also vmfs_io_close(). */
void vmfs_mem_free(struct vmfs_mem *mem);

void vmfs_mem_mark(struct vmfs_mem *mem);
void vmfs_mem_reset(struct vmfs_mem *mem);
/* Forgets the events. */
void vmfs_mem_clear_events(struct vmfs_mem *mem);
/* Direct access, remembered for reset but not recorded. */
void vmfs_mem_poke(struct vmfs_mem *mem, uint64_t offset_bytes, const void *bytes, size_t len_bytes);

#endif

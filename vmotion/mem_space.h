/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_space.h - a guest's memory as the memory engine sees it: blocks, and pages numbered over all.
 *
 * A block is one piece of RAM behind one descriptor.  Pages of 4 KiB are numbered through; each
 * block begins at a multiple of a chunk, so that a chunk never holds pages of two blocks.  Both
 * ends of a migration have the same blocks in the same order, and so the same numbers:
 *
 *     block   ram0 (3 MiB)            ram1 (2 MiB)
 *     page    0 ... 511 | 512 ... 767 .... 1024 ... 1535
 *     chunk   0         | 1                2               768 to 1023 are no pages
 *
 * Reading never allocates (R-E3): a hole of the memory's file reads as zeroes through the
 * descriptor and stays a hole.  A read through a mapping would fill it, and a guest of 64 GiB that
 * uses 2 would grow to 64 on its host.
 *
 * Units: bytes; pages of MEM_PAGE_BYTES.  Threading: immutable once it is made; reads from any
 * thread; writes into a page by one thread at a time.
 */
#ifndef BM_VMOTION_MEM_SPACE_H
#define BM_VMOTION_MEM_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define MEM_PAGE_BYTES 4096u
#define MEM_CHUNK_PAGES 512u            /* 2 MiB: a huge page is one chunk's */
#define MEM_BLOCKS_MAX 64u
#define MEM_BLOCK_NAME_BYTES 64u
#define MEM_SPACE_BYTES_MAX (UINT64_C(1) << 46)

struct mem_block {
	char name[MEM_BLOCK_NAME_BYTES];
	uint64_t len_bytes;
	uint32_t backing_bytes;         /* of a page of its file: 4096, or a huge page's */
	uint64_t hva;                   /* where QEMU has it; 0: not in a process */
	int fd;                         /* owned by the space; -1: none (simulated) */
	uint64_t fd_offset_bytes;
	uint64_t first_page;            /* its number; set by mem_space_add() */
	uint8_t *bytes;                 /* mapped for writing, or NULL */
};

struct mem_space;

struct mem_space_ops {
	/* All of [offset, offset + len) as it is now.  0 or -errno. */
	int (*read)(const struct mem_block *block, uint64_t offset_bytes, void *into,
		    uint64_t len_bytes);
	/* The next range at or after from_bytes that may hold something else than zeroes. -ENXIO: none. */
	int (*next_data)(const struct mem_block *block, uint64_t from_bytes, uint64_t *start_bytes,
			 uint64_t *end_bytes);
	/* Make a range of a mapped block zeroes, giving back its memory where that is possible. */
	int (*empty)(const struct mem_block *block, uint64_t offset_bytes, uint64_t len_bytes);
};

struct mem_space {
	const struct mem_space_ops *ops;
	uint32_t count;
	struct mem_block blocks[MEM_BLOCKS_MAX];
	uint64_t page_count;            /* numbers, with the gaps between blocks */
	uint64_t len_bytes;             /* of all blocks */
};

/* Empty, over descriptors of shared memory. */
void mem_space_init(struct mem_space *space);
/* Unmaps and closes. */
void mem_space_release(struct mem_space *space);

/*
 * Append a block; takes block->fd on success.  Its length and offset are multiples of a page.
 * 0, -ENOSPC (too many blocks or bytes) or -EINVAL.
 */
MUST_CHECK int mem_space_add(struct mem_space *space, const struct mem_block *block);

/*
 * Map all blocks for writing: for the receiving end.  Their files must be sealed against
 * shrinking, so that no access can be cut off (SIGBUS).
 */
MUST_CHECK int mem_space_map(struct mem_space *space, struct err *err);

/* The block that has this page; NULL: there is no such page. */
const struct mem_block *mem_space_block_of(const struct mem_space *space, uint64_t page);

static inline uint64_t mem_block_offset(const struct mem_block *block, uint64_t page)
{
	return (page - block->first_page) * MEM_PAGE_BYTES;
}
static inline uint64_t mem_block_pages(const struct mem_block *block)
{
	return block->len_bytes / MEM_PAGE_BYTES;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_addr.h - block addresses: which resource a pointer names.
 *
 * A word of 32 bits (VMFS3, VMFS5; descriptors always) or 64 bits (VMFS6).  Its low three
 * bits are the type; 0 is a hole.  A file block is named by its number in the volume, the
 * others by cluster and item in their resource file.
 *
 * vmfs_addr_decode() tells what a word says and judges only its form; whether such a block
 * exists is for whom knows the volume.  Encoding what was decoded gives the same word, bits
 * that we do not know included (they are in `other`).
 */
#ifndef BM_VMFS_ADDR_H
#define BM_VMFS_ADDR_H

#include <stdbool.h>
#include <stdint.h>

enum vmfs_addr_type {
	VMFS_ADDR_NONE = 0,             /* a hole */
	VMFS_ADDR_FB = 1,               /* file block; VMFS6: small file block */
	VMFS_ADDR_SB = 2,               /* sub-block */
	VMFS_ADDR_PB = 3,               /* pointer block */
	VMFS_ADDR_FD = 4,               /* file descriptor */
	VMFS_ADDR_PB2 = 5,
	VMFS_ADDR_JB = 6,               /* journal block, VMFS6 [D] */
	VMFS_ADDR_LFB = 7,              /* large file block, VMFS6 */
};

#define VMFS_SMALL_PER_LARGE 512u       /* VMFS6: 1 MiB blocks in one of 512 MiB */

struct vmfs_addr {
	enum vmfs_addr_type type;
	uint64_t block;                 /* FB, LFB: number in units of itself */
	uint32_t cluster, item;         /* all others */
	bool tbz;                       /* allocated, but to be read as zeroes */
	bool cow;
	uint64_t other;                 /* bits of the word that nothing above holds */
};

/* How words are laid out in a volume. */
struct vmfs_addr_format {
	bool wide;                      /* VMFS6: 64 bits */
	bool dense_sub_blocks;          /* VMFS_CONFIG_DENSE_SBPC */
};

void vmfs_addr_decode(const struct vmfs_addr_format *format, uint64_t word, struct vmfs_addr *out);

/* The numbers must fit (vmfs_addr_fits()). */
uint64_t vmfs_addr_encode(const struct vmfs_addr_format *format, const struct vmfs_addr *addr);
bool vmfs_addr_fits(const struct vmfs_addr_format *format, const struct vmfs_addr *addr);

/* Descriptors, the same in all versions. */
#define VMFS_FD_ITEMS_MAX 1024u
#define VMFS_FD_CLUSTERS_MAX 65536u
uint32_t vmfs_fd_address(uint32_t cluster, uint32_t item);

/* Well-known descriptors, items of cluster 0. */
enum vmfs_system_fd {
	VMFS_FD_ROOT,
	VMFS_FD_FBB,
	VMFS_FD_FDC,
	VMFS_FD_PBC,
	VMFS_FD_SBC,
	VMFS_FD_VH,
	VMFS_FD_PB2,
	VMFS_FD_SDD,
	VMFS_FD_JBC,                    /* VMFS6 */
	VMFS_FD_SYSTEM_COUNT,
};

#endif

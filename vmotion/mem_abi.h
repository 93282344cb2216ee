/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_abi.h - what the kernel understands and the headers of some distributions do not have yet.
 *
 * Numbers and layouts are the kernel's stable interface (Linux 6.7 for PAGEMAP_SCAN and the
 * asynchronous write protection); what a running kernel lacks it refuses with -EINVAL or -ENOTTY.
 */
#ifndef BM_VMOTION_MEM_ABI_H
#define BM_VMOTION_MEM_ABI_H

#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* Under names of our own, so that newer headers do not clash. */
struct mem_page_region {
	uint64_t start, end;
	uint64_t categories;
};

struct mem_pagemap_scan {
	uint64_t size;                  /* of this struct */
	uint64_t flags;
	uint64_t start, end;
	uint64_t walk_end;              /* out: where the walk stopped */
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
_Static_assert(sizeof(struct mem_pagemap_scan) == 96, "the kernel's layout");
_Static_assert(sizeof(struct mem_page_region) == 24, "the kernel's layout");

#define MEM_PAGEMAP_SCAN _IOWR('f', 16, struct mem_pagemap_scan)
#define MEM_SCAN_WP_MATCHING 1u
#define MEM_SCAN_CHECK_WPASYNC 2u
#define MEM_PAGE_IS_WPALLOWED 1u /* in a range that is registered asynchronously */
#define MEM_PAGE_IS_WRITTEN 2u
#define MEM_PAGE_IS_PRESENT 8u

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/mem_abi.h"
#include "vmotion/mem_blocks.h"
#include "vmotion/mem_inject.h"

#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)
#define UFFD_FEATURES \
	((uint64_t)(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
		    UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC))
#define SCAN_REGIONS 1024u

struct mem_attach {
	struct mem_attach_options options;
	struct mem_space space;
	struct mem_tracker tracker;
	bool has_tracker;
	int pidfd;
	int uffd;                       /* -1: the hash tracker needs none */
	int pagemap_fd;
	uint32_t registered;            /* blocks, from the first on */
	struct mem_page_region regions[SCAN_REGIONS];
};

/* ---- A2: what the kernel can ---- */

static int enable_features(int uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURES };

	if (ioctl(uffd, UFFDIO_API, &api) < 0)
		return -errno;
	return (api.features & UFFD_FEATURES) == UFFD_FEATURES ? 0 : -EINVAL;
}

static int try_kernel(struct err *err)
{
	long uffd = syscall(SYS_userfaultfd, UFFD_FLAGS);
	int rc;

	if (uffd < 0)
		return err_set(err, ERR_MEM_KERNEL, -ENOTSUP, "the kernel has no userfaultfd: %s",
			       err_strerror(-errno));
	rc = enable_features((int)uffd);
	close((int)uffd);
	if (rc)
		return err_set(err, ERR_MEM_KERNEL, -ENOTSUP,
			       "the kernel cannot write-protect shared memory asynchronously: %s",
			       err_strerror(rc));
	return 0;
}

/* ---- A3: a userfaultfd of QEMU's ---- */

static int refuse_uffd(const struct mem_attach *attach, int rc, struct err *err)
{
	err_set(err, ERR_MEM_ATTACH, rc, "QEMU (process %d) cannot have a userfaultfd: %s",
		(int)attach->options.pid, err_strerror(rc));
	if (rc == -EPERM || rc == -ENOSYS)
		err_remedy(err, "QEMU's sandbox forbids it: start the machine without '-sandbox' or with one that lets userfaultfd pass, or use the hash tracker.");
	return rc;
}

/* Make, take, close there: QEMU's table of descriptors is as before. */
static int inject_uffd(struct mem_attach *attach, struct mem_inject *inject, struct err *err)
{
	const unsigned long make[6] = { UFFD_FLAGS };
	unsigned long away[6] = { 0 };
	long theirs = mem_inject_syscall(inject, SYS_userfaultfd, make), fd, closed;
	int rc = 0;

	if (theirs < 0)
		return refuse_uffd(attach, (int)theirs, err);
	fd = syscall(SYS_pidfd_getfd, attach->pidfd, (int)theirs, 0);
	if (fd < 0)
		rc = refuse_uffd(attach, -errno, err);
	away[0] = (unsigned long)theirs;
	closed = mem_inject_syscall(inject, SYS_close, away);
	if (closed < 0 && !rc)
		rc = refuse_uffd(attach, (int)closed, err);
	if (rc && fd >= 0)
		close((int)fd);
	if (!rc)
		attach->uffd = (int)fd;
	return rc;
}

static int get_uffd(struct mem_attach *attach, struct err *err)
{
	struct mem_inject *inject;
	struct err ending;
	int rc = mem_inject_begin(attach->options.pid, &inject, err), end_rc;

	if (rc)
		return rc;
	rc = inject_uffd(attach, inject, err);
	end_rc = mem_inject_end(inject, rc ? &ending : err);
	return rc ? rc : end_rc;
}

/* ---- A4: protect ---- */

static int register_block(struct mem_attach *attach, const struct mem_block *block, struct err *err)
{
	struct uffdio_register range = {
		.range = { .start = block->hva, .len = block->len_bytes },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int rc = 0;

	if (ioctl(attach->uffd, UFFDIO_REGISTER, &range) < 0)
		rc = -errno;
	if (rc == -EBUSY)
		return err_set(err, ERR_MEM_TRACED, rc,
			       "QEMU's memory block '%s' is tracked by somebody else already",
			       block->name);
	if (rc)
		return err_set(err, ERR_MEM_ATTACH, rc, "cannot track QEMU's memory block '%s': %s",
			       block->name, err_strerror(rc));
	attach->registered++;
	return 0;
}

static void unregister_blocks(struct mem_attach *attach)
{
	/* Fails where QEMU has ended; the close takes off whatever is left. */
	for (uint32_t i = 0; i < attach->registered; i++) {
		const struct mem_block *block = &attach->space.blocks[i];
		struct uffdio_range range = { .start = block->hva, .len = block->len_bytes };

		(void)ioctl(attach->uffd, UFFDIO_UNREGISTER, &range);
	}
	attach->registered = 0;
}

/* ---- the tracker ---- */

static void set_regions(struct mem_attach *attach, const struct mem_block *block, long count,
		       struct mem_map *dirty)
{
	for (long i = 0; i < count; i++) {
		const struct mem_page_region *region = &attach->regions[i];

		CHECK(region->start >= block->hva);
		CHECK(region->end <= block->hva + block->len_bytes);
		mem_map_set_range(dirty,
				  block->first_page + (region->start - block->hva) / MEM_PAGE_BYTES,
				  (region->end - region->start) / MEM_PAGE_BYTES);
	}
}

/* Set in `pages` what `query` (its flags and categories) finds in a block. */
static int scan_block(struct mem_attach *attach, const struct mem_block *block,
		      const struct mem_pagemap_scan *query, struct mem_map *pages)
{
	uint64_t at = block->hva, end = block->hva + block->len_bytes;

	while (at < end) {
		struct mem_pagemap_scan scan = *query;
		long count;

		scan.size = sizeof(scan);
		scan.start = at;
		scan.end = end;
		scan.vec = (uintptr_t)attach->regions;
		scan.vec_len = SCAN_REGIONS;
		count = ioctl(attach->pagemap_fd, MEM_PAGEMAP_SCAN, &scan);
		if (count < 0)
			return -errno;
		set_regions(attach, block, count, pages);
		if (scan.walk_end <= at)
			return -EIO;
		at = scan.walk_end;
	}
	return 0;
}

static bool is_registered(struct mem_attach *attach, uint64_t address)
{
	struct mem_page_region region;
	struct mem_pagemap_scan scan = {
		.size = sizeof(scan),
		.start = address, .end = address + MEM_PAGE_BYTES,
		.vec = (uintptr_t)&region, .vec_len = 1,
		.category_mask = MEM_PAGE_IS_WPALLOWED, .return_mask = MEM_PAGE_IS_WPALLOWED,
	};

	return ioctl(attach->pagemap_fd, MEM_PAGEMAP_SCAN, &scan) == 1;
}

/*
 * Memory that is gone has no written pages: of a QEMU that has ended, a scan tells success and
 * nothing.  So it is asked afterwards whether the block is still there and still ours.
 */
static bool is_still_tracked(struct mem_attach *attach, const struct mem_block *block)
{
	return is_registered(attach, block->hva) &&
	       is_registered(attach, block->hva + block->len_bytes - MEM_PAGE_BYTES);
}

static int scan_all(struct mem_attach *attach, const struct mem_pagemap_scan *query,
		    struct mem_map *pages, struct err *err)
{
	for (uint32_t i = 0; i < attach->space.count; i++) {
		const struct mem_block *block = &attach->space.blocks[i];
		int rc = scan_block(attach, block, query, pages);

		if (!rc && !is_still_tracked(attach, block))
			rc = -ESRCH;
		if (rc)
			return err_set(err, ERR_MEM_TRACK, rc,
				       "cannot tell what the guest wrote to memory block '%s': %s",
				       block->name, err_strerror(rc));
	}
	return 0;
}

static int kernel_harvest(struct mem_tracker *tracker, struct mem_map *dirty, struct err *err)
{
	static const struct mem_pagemap_scan query = {
		.flags = MEM_SCAN_WP_MATCHING | MEM_SCAN_CHECK_WPASYNC,
		.category_mask = MEM_PAGE_IS_WRITTEN, .return_mask = MEM_PAGE_IS_WRITTEN,
	};

	return scan_all(container_of(tracker, struct mem_attach, tracker), &query, dirty, err);
}

/*
 * Not told apart are holes from pages that were swapped out or that only we have touched: who
 * asks looks at the file for these few.
 */
static int kernel_absent(struct mem_tracker *tracker, struct mem_map *absent, struct err *err)
{
	static const struct mem_pagemap_scan query = {
		.category_inverted = MEM_PAGE_IS_PRESENT, .category_mask = MEM_PAGE_IS_PRESENT,
		.return_mask = MEM_PAGE_IS_PRESENT,
	};

	return scan_all(container_of(tracker, struct mem_attach, tracker), &query, absent, err);
}

static const struct mem_tracker_ops kernel_ops = {
	.name = "kernel",
	.harvest = kernel_harvest,
	.absent = kernel_absent,
};

static int start_kernel_tracker(struct mem_attach *attach, struct err *err)
{
	char path[64];
	int rc = get_uffd(attach, err);

	if (rc)
		return rc;
	rc = enable_features(attach->uffd);
	if (rc)
		return refuse_uffd(attach, rc, err);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)attach->options.pid);
	attach->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (attach->pagemap_fd < 0)
		return err_set(err, ERR_MEM_PERMISSION, -errno, "cannot open '%s': %s", path,
			       err_strerror(-errno));
	for (uint32_t i = 0; !rc && i < attach->space.count; i++)
		rc = register_block(attach, &attach->space.blocks[i], err);
	if (rc)
		return rc;
	rc = mem_tracker_init(&attach->tracker, &kernel_ops, &attach->space);
	if (rc)
		return err_set(err, ERR_NO_MEMORY, rc, "no memory to track a guest");
	attach->has_tracker = true;
	return 0;
}

static int start_hash_tracker(struct mem_attach *attach, struct err *err)
{
	int rc = mem_tracker_init_hash(&attach->tracker, &attach->space);

	if (rc)
		return err_set(err, ERR_NO_MEMORY, rc, "no memory to track a guest");
	attach->has_tracker = true;
	return 0;
}

static int start_tracker(struct mem_attach *attach, struct err *err)
{
	int rc;

	if (attach->options.tracker == MEM_TRACKER_HASH)
		return start_hash_tracker(attach, err);
	rc = try_kernel(err);
	if (!rc)
		return start_kernel_tracker(attach, err);
	if (attach->options.tracker == MEM_TRACKER_KERNEL)
		return rc;
	log_warn("memory", "QEMU (process %d) is tracked by hashes, which costs processor time in each round",
		 (int)attach->options.pid);
	return start_hash_tracker(attach, err);
}

/* ---- life ---- */

int mem_attach_new(const struct mem_attach_options *options, struct mem_attach **out,
		   struct err *err)
{
	struct mem_attach *attach = calloc(1, sizeof(*attach));
	long pidfd;
	int rc;

	if (!attach)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory to attach to QEMU");
	attach->options = *options;
	attach->uffd = -1;
	attach->pagemap_fd = -1;
	mem_space_init(&attach->space);
	pidfd = syscall(SYS_pidfd_open, options->pid, 0);
	attach->pidfd = (int)pidfd;
	if (pidfd < 0) {
		rc = err_set(err, ERR_MEM_ATTACH, -errno, "cannot attach to QEMU (process %d): %s",
			     (int)options->pid, err_strerror(-errno));
		goto free_attach;
	}
	rc = mem_blocks_find(options->pid, attach->pidfd, options->expected_bytes, &attach->space,
			     err);
	if (!rc)
		rc = start_tracker(attach, err);
	if (rc)
		goto free_attach;
	*out = attach;
	return 0;

free_attach:
	mem_attach_free(attach);
	return rc;
}

void mem_attach_free(struct mem_attach *attach)
{
	if (!attach)
		return;
	unregister_blocks(attach);
	if (attach->has_tracker)
		mem_tracker_release(&attach->tracker);
	if (attach->pagemap_fd >= 0)
		close(attach->pagemap_fd);
	if (attach->uffd >= 0)
		close(attach->uffd);
	if (attach->pidfd >= 0)
		close(attach->pidfd);
	mem_space_release(&attach->space);
	free(attach);
}

struct mem_space *mem_attach_space(struct mem_attach *attach)
{
	return &attach->space;
}

struct mem_tracker *mem_attach_tracker(struct mem_attach *attach)
{
	return &attach->tracker;
}

static bool same_block(const struct mem_block *a, const struct mem_block *b)
{
	struct stat a_stat, b_stat;

	return a->hva == b->hva && a->len_bytes == b->len_bytes &&
	       fstat(a->fd, &a_stat) == 0 && fstat(b->fd, &b_stat) == 0 &&
	       a_stat.st_dev == b_stat.st_dev && a_stat.st_ino == b_stat.st_ino;
}

int mem_attach_check_same(struct mem_attach *attach, struct err *err)
{
	CLEANUP_FREE struct mem_space *now = malloc(sizeof(*now));
	bool same;
	int rc;

	if (!now)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory to look at QEMU again");
	mem_space_init(now);
	rc = mem_blocks_find(attach->options.pid, attach->pidfd, 0, now, err);
	if (rc)
		return rc;
	same = now->count == attach->space.count;
	for (uint32_t i = 0; same && i < now->count; i++)
		same = same_block(&now->blocks[i], &attach->space.blocks[i]);
	mem_space_release(now);
	if (!same)
		return err_set(err, ERR_MEM_TRACK, -ESTALE,
			       "the RAM of QEMU (process %d) is not what it was when the migration began",
			       (int)attach->options.pid);
	return 0;
}

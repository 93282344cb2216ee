/* SPDX-License-Identifier: Apache-2.0 */
/*
 * provision.h - give a plain file its size and its space.
 *
 *   thin    ftruncate: no space until it is written
 *   thick   fallocate: all space is taken now, as unwritten extents that read as zeroes
 *           ("lazily zeroed"); where the file system has no fallocate, as eager (logged)
 *   eager   as thick, then zeroes are really written and flushed
 *
 * Sizes are multiples of 512 in [DS_DISK_SIZE_MIN, DS_DISK_SIZE_MAX].
 */
#ifndef BM_PROVISION_H
#define BM_PROVISION_H

#include "datastores/datastore.h"

#define PROVISION_CHUNK_BYTES (UINT64_C(4) << 20)

/* ERR_DISK_BAD_SIZE. */
MUST_CHECK int provision_check_size(uint64_t size_bytes, struct err *err);

/*
 * [worker] Grow fd (open for writing, without O_DIRECT) from old_bytes to new_bytes; what
 * lies below stays as it is.  provision is not SAME.  Durable when it returns.  On failure
 * the file has its old size again: -ENOSPC with ERR_DS_NO_SPACE, -EFBIG with
 * ERR_DISK_BAD_SIZE, else ERR_DS_IO.
 */
MUST_CHECK int provision_grow(int fd, uint64_t old_bytes, uint64_t new_bytes,
			      enum provision provision, const char *path, struct err *err);

/* What a file of these numbers must be, when nothing was noted. */
enum provision provision_guess(uint64_t size_bytes, uint64_t allocated_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sidecar.h - who a raw disk is, in a small text file beside it: NAME.blkmirror.
 *
 *   # blkmirror: identity of the raw disk beside it. Copy and move the two together.
 *   version=1
 *   uuid=...            the keys of disk_record.h, all of them, in order
 *   ...
 *   checksum=16 hex digits: XXH3-64 of every byte before this line
 *
 * A raw disk without a sidecar has no identity yet.  It gets one, durably, when it is first
 * opened for writing, before anything can be written: from then on the sidecar says "raw",
 * so that a guest which writes a qcow2 header into its first sector cannot make its disk
 * unusable (see disk_format.h).
 *
 * A damaged sidecar is refused, never replaced: it may have said "incoming".
 * Pure; any thread.
 */
#ifndef BM_SIDECAR_H
#define BM_SIDECAR_H

#include "datastores/disk_record.h"

#define SIDECAR_SUFFIX ".blkmirror"
#define SIDECAR_BYTES_MAX 1024

/* 0, or -EINVAL with ERR_DISK_BAD_DESCRIPTOR. */
MUST_CHECK int sidecar_parse(const char *bytes, size_t len, const char *name,
			     struct disk_record *out, struct err *err);

/* text: SIDECAR_BYTES_MAX.  The length. */
size_t sidecar_format(const struct disk_record *record, char *text);

#endif

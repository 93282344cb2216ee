/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_format.h - is this "raw" file really another image format?
 *
 * A qcow2 file named as a raw disk would be given to the guest with its metadata as data, and
 * ruined by the first write.  So a raw file whose first bytes (or, for fixed VHD, last
 * sector) say so is refused, with the way out: qemu-nbd.
 *
 * But a raw disk's bytes are the guest's, and a guest may write such bytes on purpose.  We
 * never *interpret* another format (the famous escape: a guest forges a qcow2 header
 * with a backing file of its choice), so it can gain nothing; it could only have its own disk
 * refused at the next attach.  A sidecar, written before the guest's first write (sidecar.h),
 * is our own word that the file is raw; where one exists the bytes are not asked.
 */
#ifndef BM_DISK_FORMAT_H
#define BM_DISK_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define DISK_FORMAT_HEAD_BYTES 512

/* "qcow2", "VHDX" ...; NULL: nothing known.  tail may be NULL. */
const char *disk_format_of_bytes(const uint8_t *head, size_t head_len, const uint8_t *tail,
				 size_t tail_len);

/* tail: the file's last 512 bytes, or NULL.  -EINVAL with ERR_DISK_BAD_FORMAT. */
MUST_CHECK int disk_format_check_raw(const uint8_t *head, size_t head_len, const uint8_t *tail,
				     const char *path, struct err *err);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_disk.h - a block device or a plain file, the same to the ledger.
 *
 * Every function but disk_open() returns 0 or -errno; a short transfer is -EIO.  All are
 * blocking and may run on any thread at once.  Offsets and lengths are whole 4 KiB blocks.
 */
#ifndef LEDGER_DISK_H
#define LEDGER_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct disk {
	int fd;
	bool is_block;
	uint64_t size_bytes;
};

/*
 * Open @path for O_DIRECT reading and writing.  A device (/dev/...) may take up to @wait_seconds
 * to appear: buses are probed in the background.
 * @size_bytes 0: its own size.  Returns false after saying why.
 */
bool disk_open(struct disk *disk, const char *path, uint64_t size_bytes, bool buffered,
	       unsigned wait_seconds);

int disk_read(const struct disk *disk, void *buf, uint64_t offset_bytes, uint64_t len_bytes);
int disk_write(const struct disk *disk, const void *buf, uint64_t offset_bytes,
	       uint64_t len_bytes);
int disk_zero(const struct disk *disk, uint64_t offset_bytes, uint64_t len_bytes);
int disk_discard(const struct disk *disk, uint64_t offset_bytes, uint64_t len_bytes);
int disk_flush(const struct disk *disk);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_io.h"

#include <errno.h>

#include "blkmirror/base/overflow.h"

int vmfs_io_read(struct vmfs_io *io, uint64_t offset_bytes, void *bytes, size_t len_bytes)
{
	CHECK(offset_bytes % VMFS_SECTOR_BYTES == 0);
	CHECK(len_bytes % VMFS_SECTOR_BYTES == 0);
	CHECK(range_fits(offset_bytes, len_bytes, io->size_bytes));
	if (len_bytes == 0)
		return 0;
	return io->ops->read(io, offset_bytes, bytes, len_bytes);
}

int vmfs_io_write(struct vmfs_io *io, uint64_t offset_bytes, const void *bytes, size_t len_bytes)
{
	CHECK(offset_bytes % io->block_bytes == 0);
	CHECK(len_bytes % io->block_bytes == 0);
	CHECK(range_fits(offset_bytes, len_bytes, io->size_bytes));
	if (io->read_only)
		return -EROFS;
	if (len_bytes == 0)
		return 0;
	return io->ops->write(io, offset_bytes, bytes, len_bytes);
}

int vmfs_io_flush(struct vmfs_io *io)
{
	return io->read_only ? 0 : io->ops->flush(io);
}

int vmfs_io_compare_write(struct vmfs_io *io, uint64_t offset_bytes, const void *expected,
			  const void *replacement, size_t len_bytes)
{
	CHECK(len_bytes >= io->block_bytes);
	CHECK(len_bytes <= VMFS_IO_BLOCK_MAX);
	CHECK(offset_bytes % len_bytes == 0);
	CHECK(range_fits(offset_bytes, len_bytes, io->size_bytes));
	if (io->read_only)
		return -EROFS;
	if (!io->ops->compare_write)
		return -ENOTSUP;
	return io->ops->compare_write(io, offset_bytes, expected, replacement, len_bytes);
}

void vmfs_io_close(struct vmfs_io *io)
{
	if (io)
		io->ops->close(io);
}

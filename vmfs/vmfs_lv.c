/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_lv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define TABLE5_OFFSET 0x80600u          /* of the PE table, from the device header */
#define TABLE6_OFFSET_AFTER_ALIGNMENT 0x81000u
#define MAPS_MAX 8u                     /* pairs of bitmap and table in one region [D] */
#define TABLE_CHUNK_BYTES (64u << 10)
#define ZERO_CHUNK_BYTES ((size_t)256 << 10)

/* ---- judging one device ---- */

static int not_one(const char *what, struct err *err)
{
	return err_set(err, ERR_VMFS_NOT_ONE, -EINVAL, "this is no VMFS volume: %s", what);
}

static int damaged(struct err *err, unsigned index, const char *what)
{
	return err_set(err, ERR_VMFS_DAMAGED, -EUCLEAN, "the volume header of device %u is damaged: %s",
		       index + 1, what);
}

static int read_failed(int rc, struct err *err)
{
	return err_set(err, ERR_VMFS_IO, rc, "cannot read the volume header: %s", err_strerror(rc));
}

/* VMFS6 moves what follows the header by its alignment. */
static uint64_t volume_descriptor_offset(const struct vmfs_lvm_header *header)
{
	return VMFS_LVM_OFFSET + (header->major == 6 ? header->md_alignment : VMFS_LVM_HEADER_BYTES);
}

static int judge_header(const struct vmfs_extent *extent, unsigned index, struct err *err)
{
	const struct vmfs_lvm_header *header = &extent->header;

	if (header->magic != VMFS_LVM_MAGIC)
		return not_one("its header is missing at 1 MiB", err);
	if (header->major != 3 && header->major != 5 && header->major != 6)
		return err_set(err, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
			       "the volume manager's version is %u; 3, 5 and 6 are known",
			       header->major);
	if (header->flags != 0)
		return err_set(err, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
			       "device %u carries flags that are not known (%#x)", index + 1,
			       header->flags);
	if (header->major == 6 &&
	    (header->md_alignment < VMFS_LVM_HEADER_BYTES || header->md_alignment > 65536 ||
	     !is_power_of_two(header->md_alignment)))
		return damaged(err, index, "its alignment");
	if (header->data_offset < VMFS_LVM_OFFSET || header->data_offset % VMFS_IO_BLOCK_MAX ||
	    header->data_offset > extent->io->size_bytes)
		return damaged(err, index, "where its data begin");
	return 0;
}

static int judge_volume(const struct vmfs_extent *extent, unsigned index, struct err *err)
{
	const struct vmfs_lvm_volume *volume = &extent->volume;
	uint64_t pe_count = volume->pe_count;

	/* Bounds first: nothing below may overflow. */
	if (volume->first_pe > UINT32_MAX || volume->last_pe > UINT32_MAX ||
	    volume->last_pe < volume->first_pe || pe_count == 0 ||
	    volume->last_pe - volume->first_pe + 1 != pe_count)
		return damaged(err, index, "its range of extents");
	if (!range_fits(extent->header.data_offset, pe_count * VMFS_PE_BYTES, extent->io->size_bytes))
		return err_set(err, ERR_VMFS_EXTENT, -EUCLEAN,
			       "device %u is smaller than its part of the volume: has it been cut?",
			       index + 1);
	if (volume->device_count == 0 || volume->device_count > VMFS_EXTENTS_MAX)
		return damaged(err, index, "its count of devices");
	return 0;
}

static int read_headers(struct vmfs_extent *extent, unsigned index, struct err *err)
{
	uint8_t bytes[VMFS_LVM_HEADER_BYTES];
	uint64_t at;
	int rc;

	if (!range_fits(VMFS_LVM_OFFSET, sizeof(bytes), extent->io->size_bytes))
		return not_one("it is too small", err);
	rc = vmfs_io_read(extent->io, VMFS_LVM_OFFSET, bytes, sizeof(bytes));
	if (rc)
		return read_failed(rc, err);
	vmfs_lvm_header_decode(bytes, &extent->header);
	rc = judge_header(extent, index, err);
	if (rc)
		return rc;
	at = volume_descriptor_offset(&extent->header);
	if (!range_fits(at, sizeof(bytes), extent->io->size_bytes))
		return not_one("it is too small", err);
	rc = vmfs_io_read(extent->io, at, bytes, sizeof(bytes));
	if (rc)
		return read_failed(rc, err);
	vmfs_lvm_volume_decode(bytes, &extent->volume);
	rc = judge_volume(extent, index, err);
	if (rc)
		return rc;
	extent->data_offset_bytes = extent->header.data_offset;
	extent->start_bytes = extent->volume.first_pe * VMFS_PE_BYTES;
	extent->len_bytes = (uint64_t)extent->volume.pe_count * VMFS_PE_BYTES;
	return 0;
}

/* ---- the table of physical extents ---- */

/* Is the part [logical, logical + length) of this device where it lies in order? */
static bool pe_in_order(const struct vmfs_extent *extent, const struct vmfs_pe_entry *entry,
			uint64_t expected_offset)
{
	return entry->used == 1 && entry->logical_offset >= extent->start_bytes &&
	       entry->logical_offset - extent->start_bytes == expected_offset &&
	       entry->physical_offset >= extent->data_offset_bytes &&
	       entry->physical_offset - extent->data_offset_bytes == expected_offset &&
	       entry->length % VMFS_PE_BYTES == 0 && entry->length != 0 &&
	       entry->length <= extent->len_bytes - expected_offset;
}

/*
 * Entries [first, first + count) of the table at `table`, which must go on from *covered.
 * A damaged or foreign table is refused: reading on would give one file's blocks for another's.
 */
static int judge_entries(const struct vmfs_extent *extent, unsigned index, uint64_t table,
			 uint64_t count, uint64_t *covered, struct err *err)
{
	CLEANUP_FREE uint8_t *chunk = malloc(TABLE_CHUNK_BYTES);
	const uint64_t per_chunk = TABLE_CHUNK_BYTES / VMFS_PE_ENTRY_BYTES;
	struct vmfs_pe_entry entry;

	if (!chunk)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for the volume's tables");
	for (uint64_t i = 0; i < count && *covered < extent->len_bytes; i++) {
		if (i % per_chunk == 0) {
			uint64_t at = table + i * VMFS_PE_ENTRY_BYTES;
			int rc;

			if (!range_fits(at, TABLE_CHUNK_BYTES, extent->data_offset_bytes))
				return damaged(err, index, "its table of extents is too long");
			rc = vmfs_io_read(extent->io, at, chunk, TABLE_CHUNK_BYTES);
			if (rc)
				return read_failed(rc, err);
		}
		vmfs_pe_entry_decode(chunk + i % per_chunk * VMFS_PE_ENTRY_BYTES, &entry);
		if (!pe_in_order(extent, &entry, *covered))
			return err_set(err, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				       "device %u: its extents are not in order, or their table is damaged",
				       index + 1);
		*covered += entry.length;
	}
	return 0;
}

/* Tables beyond the first repeat behind it, each with its bitmap before it [D]. */
static int judge_table(const struct vmfs_extent *extent, unsigned index, struct err *err)
{
	bool v6 = extent->header.major == 6;
	uint64_t bitmap_bytes = v6 ? VMFS_PE_BITMAP6_BYTES : VMFS_PE_BITMAP5_BYTES;
	uint64_t table = VMFS_LVM_OFFSET +
			 (v6 ? TABLE6_OFFSET_AFTER_ALIGNMENT + extent->header.md_alignment :
			       TABLE5_OFFSET);
	uint64_t stride = bitmap_bytes + (uint64_t)VMFS_PES_PER_MAP * VMFS_PE_ENTRY_BYTES;
	uint64_t left = extent->header.pe_count, covered = 0;

	if (left == 0 || left > extent->volume.pe_count)
		return damaged(err, index, "its count of extents");
	for (unsigned map = 0; left > 0 && covered < extent->len_bytes; map++) {
		uint64_t count = MIN(left, VMFS_PES_PER_MAP);
		int rc;

		if (map == MAPS_MAX)
			return err_set(err, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				       "device %u is larger than the 16 TiB that are known to work",
				       index + 1);
		rc = judge_entries(extent, index, table + map * stride, count, &covered, err);
		if (rc)
			return rc;
		left -= count;
	}
	if (covered != extent->len_bytes)
		return damaged(err, index, "its table of extents is incomplete");
	return 0;
}

/* ---- all devices together ---- */

static int by_start(const void *a, const void *b)
{
	const struct vmfs_extent *left = a, *right = b;

	return left->start_bytes < right->start_bytes ? -1 : left->start_bytes > right->start_bytes;
}

static int judge_together(struct vmfs_lv *lv, struct err *err)
{
	const struct vmfs_lvm_volume *first = &lv->extents[0].volume;
	char uuid[VMFS_UUID_TEXT_BYTES];
	uint64_t at = 0;

	for (unsigned i = 0; i < lv->extent_count; i++) {
		const struct vmfs_extent *extent = &lv->extents[i];

		if (memcmp(extent->volume.lv_uuid, first->lv_uuid, VMFS_UUID_BYTES) != 0 ||
		    extent->header.major != lv->extents[0].header.major)
			return err_set(err, ERR_VMFS_EXTENT, -EINVAL,
				       "the devices are parts of different volumes (%s is one)",
				       vmfs_uuid_format(first->lv_uuid, uuid));
		if (extent->volume.device_count != lv->extent_count)
			return err_set(err, ERR_VMFS_EXTENT, -EINVAL,
				       "the volume has %u devices, and %u are given",
				       extent->volume.device_count, lv->extent_count);
		if (extent->start_bytes != at)
			return err_set(err, ERR_VMFS_EXTENT, -EINVAL,
				       "a device of the volume is missing, or one is given twice");
		at += extent->len_bytes;
	}
	for (unsigned i = 0; i < lv->extent_count; i++)
		if (lv->extents[i].volume.logical_bytes != at)
			return damaged(err, i, "the volume's size");
	lv->size_bytes = at;
	return 0;
}

int vmfs_lv_open(struct vmfs_lv *out, struct vmfs_io *const *ios, unsigned count, struct err *err)
{
	int rc;

	CHECK(count > 0);
	if (count > VMFS_EXTENTS_MAX)
		return err_set(err, ERR_VMFS_EXTENT, -EINVAL, "a volume has at most %u devices",
			       VMFS_EXTENTS_MAX);
	*out = (struct vmfs_lv){ .extent_count = count, .exclusive = true };
	for (unsigned i = 0; i < count; i++) {
		out->extents[i].io = ios[i];
		rc = read_headers(&out->extents[i], i, err);
		if (!rc)
			rc = judge_table(&out->extents[i], i, err);
		if (rc)
			return rc;
		out->block_bytes = MAX(out->block_bytes, ios[i]->block_bytes);
		out->read_only |= ios[i]->read_only;
		out->exclusive &= ios[i]->exclusive;
	}
	qsort(out->extents, count, sizeof(out->extents[0]), by_start);
	rc = judge_together(out, err);
	if (rc)
		return rc;
	out->major = out->extents[0].header.major;
	/* What a host did before we came may sit in a cache: our first barrier must reach it. */
	out->dirty = true;
	return 0;
}

/* ---- I/O ---- */

bool vmfs_lv_holds(const struct vmfs_lv *lv, uint64_t offset_bytes, uint64_t len_bytes)
{
	return range_fits(offset_bytes, len_bytes, lv->size_bytes);
}

void vmfs_lv_locate(const struct vmfs_lv *lv, uint64_t offset_bytes, unsigned *extent_out,
		    uint64_t *device_offset_out, uint64_t *len_out)
{
	unsigned i = 0;

	CHECK(offset_bytes < lv->size_bytes);
	while (offset_bytes - lv->extents[i].start_bytes >= lv->extents[i].len_bytes)
		i++;
	*extent_out = i;
	*device_offset_out = lv->extents[i].data_offset_bytes + offset_bytes -
			     lv->extents[i].start_bytes;
	*len_out = lv->extents[i].len_bytes - (offset_bytes - lv->extents[i].start_bytes);
}

int vmfs_lv_read(struct vmfs_lv *lv, uint64_t offset_bytes, void *bytes, size_t len_bytes)
{
	CHECK(vmfs_lv_holds(lv, offset_bytes, len_bytes));
	while (len_bytes > 0) {
		uint64_t at, room;
		unsigned index;
		size_t part;
		int rc;

		vmfs_lv_locate(lv, offset_bytes, &index, &at, &room);
		part = (size_t)MIN(room, len_bytes);
		rc = vmfs_io_read(lv->extents[index].io, at, bytes, part);
		if (rc)
			return rc;
		bytes = (uint8_t *)bytes + part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

int vmfs_lv_write(struct vmfs_lv *lv, uint64_t offset_bytes, const void *bytes, size_t len_bytes)
{
	CHECK(vmfs_lv_holds(lv, offset_bytes, len_bytes));
	lv->dirty = true;
	while (len_bytes > 0) {
		uint64_t at, room;
		unsigned index;
		size_t part;
		int rc;

		vmfs_lv_locate(lv, offset_bytes, &index, &at, &room);
		part = (size_t)MIN(room, len_bytes);
		rc = vmfs_io_write(lv->extents[index].io, at, bytes, part);
		if (rc)
			return rc;
		bytes = (const uint8_t *)bytes + part;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

int vmfs_lv_zero(struct vmfs_lv *lv, uint64_t offset_bytes, uint64_t len_bytes)
{
	CLEANUP_FREE uint8_t *zeroes = calloc(1, (size_t)MIN(len_bytes, ZERO_CHUNK_BYTES) + 1);

	if (!zeroes)
		return -ENOMEM;
	while (len_bytes > 0) {
		size_t part = (size_t)MIN(len_bytes, ZERO_CHUNK_BYTES);
		int rc = vmfs_lv_write(lv, offset_bytes, zeroes, part);

		if (rc)
			return rc;
		offset_bytes += part;
		len_bytes -= part;
	}
	return 0;
}

int vmfs_lv_barrier(struct vmfs_lv *lv)
{
	if (!lv->dirty || lv->read_only)
		return 0;
	for (unsigned i = 0; i < lv->extent_count; i++) {
		int rc = vmfs_io_flush(lv->extents[i].io);

		if (rc)
			return rc;
	}
	lv->dirty = false;
	return 0;
}

int vmfs_lv_compare_write(struct vmfs_lv *lv, uint64_t offset_bytes, const void *expected,
			  const void *replacement, size_t len_bytes)
{
	uint64_t at, room;
	unsigned index;

	CHECK(vmfs_lv_holds(lv, offset_bytes, len_bytes));
	vmfs_lv_locate(lv, offset_bytes, &index, &at, &room);
	CHECK(room >= len_bytes);
	lv->dirty = true;
	return vmfs_io_compare_write(lv->extents[index].io, at, expected, replacement, len_bytes);
}

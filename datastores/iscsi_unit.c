/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define BLOCK_BYTES_MIN 512u
#define BLOCK_BYTES_MAX 4096u
#define PHYSICAL_BYTES_MAX 65536u
/* Where no limit is told: a target takes these in one go without falling asleep over them. */
#define WRITE_SAME_BYTES_DEFAULT (UINT64_C(32) << 20)
#define UNMAP_BYTES_MAX (UINT64_C(1) << 30)

/* Big-endian, and 0 for what lies beyond the answer's end. */
static uint64_t be_at(const uint8_t *bytes, size_t len, size_t at, unsigned count)
{
	uint64_t value = 0;

	if (at > len || len - at < count)
		return 0;
	for (unsigned i = 0; i < count; i++)
		value = value << 8 | bytes[at + i];
	return value;
}

void iscsi_unit_init(struct iscsi_unit *unit, uint32_t lun)
{
	*unit = (struct iscsi_unit){ .lun = lun };
}

static int nonsense(const struct iscsi_unit *unit, struct err *err, const char *what)
{
	return err_set(err, ERR_ISCSI_PROTOCOL, -EPROTO, "cannot use lun%u: %s", unit->lun, what);
}

int iscsi_unit_judge_inquiry(const struct iscsi_unit *unit, const uint8_t *bytes, size_t len,
			     struct err *err)
{
	if (len < 5)
		return nonsense(unit, err, "its INQUIRY data are cut short");
	if (bytes[0] >> 5)
		return err_set(err, ERR_ISCSI_NO_LUN, -ENXIO, "the target has no lun%u", unit->lun);
	if ((bytes[0] & 0x1f) != 0)
		return err_set(err, ERR_ISCSI_NO_LUN, -ENOTBLK,
			       "lun%u is no disk (SCSI device type %02x)", unit->lun,
			       bytes[0] & 0x1f);
	return 0;
}

int iscsi_unit_judge_capacity(struct iscsi_unit *unit, const uint8_t *bytes, size_t len,
			      struct err *err)
{
	uint64_t last = be_at(bytes, len, 0, 8), size_bytes;
	uint64_t block_bytes = be_at(bytes, len, 8, 4);
	unsigned exponent;

	if (len < 16)
		return nonsense(unit, err, "its READ CAPACITY data are cut short");
	if (!is_power_of_two(block_bytes) || block_bytes < BLOCK_BYTES_MIN ||
	    block_bytes > BLOCK_BYTES_MAX)
		return nonsense(unit, err, "its blocks are not of 512 to 4096 bytes");
	if (last == UINT64_MAX || !u64_mul(last + 1, block_bytes, &size_bytes) ||
	    size_bytes > INT64_MAX)
		return nonsense(unit, err, "its size is beyond all measure");
	unit->size_bytes = size_bytes;
	unit->block_bytes = (uint32_t)block_bytes;
	exponent = bytes[13] & 0x0f;
	unit->physical_bytes = (uint32_t)MIN(block_bytes << exponent, PHYSICAL_BYTES_MAX);
	unit->is_thin = bytes[14] & 0x80;
	unit->unmapped_is_zero = unit->is_thin && (bytes[14] & 0x40);
	unit->max_transfer_bytes = ISCSI_TRANSFER_BYTES_MAX;
	unit->max_write_same_bytes = WRITE_SAME_BYTES_DEFAULT;
	unit->unmap_align_bytes = block_bytes;
	return 0;
}

/* ---- VPD pages: a header of four bytes, its length in the last two ---- */

/* How much of the page there is; 0: it is another page, or none. */
static size_t page_len(const uint8_t *bytes, size_t len, uint8_t page)
{
	if (len < 4 || bytes[1] != page)
		return 0;
	return MIN(len, 4 + (size_t)be_at(bytes, len, 2, 2));
}

void iscsi_unit_judge_pages(struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	len = page_len(bytes, len, 0x00);
	for (size_t i = 4; i < len; i++)
		unit->has_pages[bytes[i]] = true;
}

/* Names that are shown and compared: NAA over EUI-64 over a vendor's own; larger is better. */
static unsigned designator_rank(const uint8_t *designator, size_t len)
{
	unsigned association = designator[1] >> 4 & 3, type = designator[1] & 0x0f;

	if (association != 0 || len == 0)       /* of the port, or of the target */
		return 0;
	switch (type) {
	case 3:
		/* All zero but for a counter is what targets say that know no name: tgt's. */
		return designator[4] >> 4 == 6 || designator[4] >> 4 == 5 ||
		       designator[4] >> 4 == 2 ? 4 : 2;
	case 2:
		return 3;
	case 1:
		return 1;
	default:
		return 0;
	}
}

static void designator_text(const uint8_t *designator, size_t len, char *id, size_t id_bytes)
{
	static const char *const prefixes[] = { "", "t10.", "eui.", "naa." };
	size_t used = (size_t)snprintf(id, id_bytes, "%s", prefixes[designator[1] & 0x03]);

	for (size_t i = 0; i < len && used + 3 <= id_bytes; i++)
		used += (size_t)snprintf(id + used, id_bytes - used, "%02x", designator[4 + i]);
}

void iscsi_unit_judge_identity(struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	unsigned best = 0;

	len = page_len(bytes, len, ISCSI_PAGE_IDENTITY);
	for (size_t at = 4; at + 4 <= len; at += 4u + bytes[at + 3]) {
		size_t name_bytes = bytes[at + 3];
		unsigned rank;

		if (name_bytes > len - at - 4)
			break;
		rank = designator_rank(bytes + at, name_bytes);
		if (rank > best && name_bytes * 2 + 5 <= sizeof(unit->id)) {
			best = rank;
			designator_text(bytes + at, name_bytes, unit->id, sizeof(unit->id));
		}
	}
}

/* A limit told in blocks: 0 means none. */
static uint64_t limit_bytes(const struct iscsi_unit *unit, uint64_t blocks, uint64_t most_bytes)
{
	uint64_t bytes = blocks * unit->block_bytes;    /* below 2^44 */

	return blocks ? MIN(bytes, most_bytes) : most_bytes;
}

void iscsi_unit_judge_limits(struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	uint64_t unmap_blocks, descriptors, granularity, alignment, same_blocks;

	CHECK(unit->block_bytes);
	len = page_len(bytes, len, ISCSI_PAGE_LIMITS);
	unit->max_transfer_bytes = limit_bytes(unit, be_at(bytes, len, 8, 4),
					       ISCSI_TRANSFER_BYTES_MAX);
	if (unit->max_transfer_bytes > unit->physical_bytes)
		unit->max_transfer_bytes = round_down(unit->max_transfer_bytes,
						      unit->physical_bytes);
	unmap_blocks = be_at(bytes, len, 20, 4);
	descriptors = be_at(bytes, len, 24, 4);
	unit->max_unmap_bytes = unmap_blocks && descriptors
		? limit_bytes(unit, unmap_blocks, UNMAP_BYTES_MAX) : 0;
	granularity = be_at(bytes, len, 28, 4);
	if (granularity)
		unit->unmap_align_bytes = granularity * unit->block_bytes;
	alignment = be_at(bytes, len, 32, 4);
	if (alignment & 0x80000000u)            /* UGAVALID */
		unit->unmap_start_bytes = (alignment & 0x7fffffffu) * unit->block_bytes %
					  unit->unmap_align_bytes;
	same_blocks = be_at(bytes, len, 36, 8);
	if (same_blocks)
		same_blocks = MIN(same_blocks, (uint64_t)UINT32_MAX);
	unit->max_write_same_bytes = limit_bytes(unit, same_blocks, WRITE_SAME_BYTES_DEFAULT);
}

void iscsi_unit_judge_provisioning(struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	uint8_t flags;

	len = page_len(bytes, len, ISCSI_PAGE_PROVISIONING);
	if (len < 6 || !unit->is_thin)
		return;
	flags = bytes[5];
	if (!(flags & 0x80))                    /* LBPU */
		unit->max_unmap_bytes = 0;
	/* R11: giving space back is zeroing only where the unit says so in both places. */
	unit->unmapped_is_zero = unit->unmapped_is_zero && ((flags >> 2 & 7) == 1);
	unit->can_write_same_unmap = (flags & 0x40) && unit->unmapped_is_zero;  /* LBPWS */
}

void iscsi_unit_judge_mode(struct iscsi_unit *unit, const uint8_t *bytes, size_t len)
{
	if (len < 4)
		return;
	unit->is_write_protected = bytes[2] & 0x80;
	unit->has_fua = bytes[2] & 0x10;        /* DPOFUA */
}

/* ---- lists ---- */

/* A unit's number in 8 bytes: peripheral or flat addressing, one level. */
static bool lun_number(const uint8_t *bytes, uint32_t *lun)
{
	for (unsigned i = 2; i < 8; i++)
		if (bytes[i])
			return false;
	if (bytes[0] == 0)
		*lun = bytes[1];
	else if (bytes[0] >> 6 == 1)
		*lun = (bytes[0] & 0x3fu) << 8 | bytes[1];
	else
		return false;
	return true;
}

size_t iscsi_unit_judge_luns(const uint8_t *bytes, size_t len, uint32_t luns[ISCSI_LUNS_MAX])
{
	uint64_t told_bytes = be_at(bytes, len, 0, 4);
	size_t count = 0;

	if (len < 8)
		return 0;
	len = (size_t)MIN((uint64_t)len, 8 + told_bytes);
	for (size_t at = 8; at + 8 <= len && count < ISCSI_LUNS_MAX; at += 8)
		count += lun_number(bytes + at, &luns[count]);
	return count;
}

static enum blk_extent_status extent_status(const struct iscsi_unit *unit, uint8_t status)
{
	if (!unit->unmapped_is_zero)
		return BLK_EXTENT_DATA;
	switch (status & 0x0f) {
	case 1:
		return BLK_EXTENT_HOLE;
	case 2:
		return BLK_EXTENT_ZERO;         /* anchored: no data, but room for them */
	default:
		return BLK_EXTENT_DATA;
	}
}

int iscsi_unit_judge_extents(const struct iscsi_unit *unit, const uint8_t *bytes, size_t len,
			     const struct blk_req *req)
{
	uint64_t next_bytes = req->offset_bytes, end_bytes = req->offset_bytes + req->len_bytes;
	struct blk_extents *out = req->extents;
	uint32_t count = 0;

	len = (size_t)MIN((uint64_t)len, 4 + be_at(bytes, len, 0, 4));
	for (size_t at = 8; at + 16 <= len && next_bytes < end_bytes; at += 16) {
		uint64_t first_bytes, run_bytes = be_at(bytes, len, at + 8, 4) * unit->block_bytes;
		enum blk_extent_status status = extent_status(unit, bytes[at + 12]);

		if (!u64_mul(be_at(bytes, len, at, 8), unit->block_bytes, &first_bytes) ||
		    first_bytes > next_bytes || run_bytes <= next_bytes - first_bytes)
			break;
		run_bytes = MIN(run_bytes - (next_bytes - first_bytes), end_bytes - next_bytes);
		if (count && out->runs[count - 1].status == status) {
			out->runs[count - 1].len_bytes += run_bytes;
		} else {
			if (count == out->capacity)
				break;
			out->runs[count++] = (struct blk_extent){ run_bytes, status };
		}
		next_bytes += run_bytes;
	}
	if (!count)
		return -EIO;
	out->count = count;
	return 0;
}

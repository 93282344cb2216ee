/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_journal.c - records on disk: written, carried out, settled; and the list of orphans.
 *
 *   area: sector 0   what is settled
 *         sector 1   orphans
 *         2 to 5     head of the record: places of its sectors
 *         6 on       the sectors
 */
#include "vmfs/vmfs_journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_journal_private.h"
#include "vmfs/vmfs_le.h"

#define SETTLED_MAGIC UINT64_C(0x316C74744A4D4276)      /* "vBMJttl1" */
#define ORPHANS_MAGIC UINT64_C(0x316870724A4D4276)
#define RECORD_MAGIC UINT64_C(0x316372634A4D4276)
#define ORPHANS_OFFSET VMFS_SECTOR_BYTES
#define RECORD_OFFSET (2 * VMFS_SECTOR_BYTES)
#define HEAD_BYTES (4 * VMFS_SECTOR_BYTES)
#define HEAD_PLACES 32u                 /* places begin here, 8 bytes each */
#define RECORD_BYTES (HEAD_BYTES + VMFS_JOURNAL_SECTORS_MAX * VMFS_SECTOR_BYTES)

/*
 * All three begin alike: magic, hash of what follows it, a number, a count.  The hash is keyed
 * by the volume, so that an older volume's record is none.
 */
enum { AT_MAGIC = 0, AT_HASH = 8, AT_NUMBER = 16, AT_COUNT = 24 };

_Static_assert(HEAD_PLACES + VMFS_JOURNAL_SECTORS_MAX * 8 <= HEAD_BYTES, "places fit the head");
_Static_assert(RECORD_OFFSET + RECORD_BYTES <= VMFS_JOURNAL_AREA_BYTES, "a record fits its area");
_Static_assert(32 + VMFS_JOURNAL_ORPHANS_MAX * 4 <= VMFS_SECTOR_BYTES, "orphans fit a sector");
_Static_assert(VMFS_JOURNAL_AREAS * VMFS_JOURNAL_AREA_BYTES <= VMFS_INFO_OFFSET, "areas fit");

static uint64_t area_offset(uint32_t area)
{
	return area * VMFS_JOURNAL_AREA_BYTES;
}

/* ---- seals ---- */

static uint64_t hash_of(const struct vmfs *fs, const uint8_t *bytes, size_t len)
{
	return XXH3_64bits_withSeed(bytes + AT_NUMBER, len - AT_NUMBER,
				    le64_get(fs->info.lv_uuid) ^ le64_get(fs->info.lv_uuid + 8));
}

static void seal(const struct vmfs *fs, uint8_t *bytes, size_t len, uint64_t magic)
{
	le64_put(bytes + AT_MAGIC, magic);
	le64_put(bytes + AT_HASH, hash_of(fs, bytes, len));
}

static bool is_sealed(const struct vmfs *fs, const uint8_t *bytes, size_t len, uint64_t magic)
{
	return le64_get(bytes + AT_MAGIC) == magic && le64_get(bytes + AT_HASH) == hash_of(fs, bytes, len);
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i])
			return false;
	return true;
}

/* ---- settling ---- */

bool vmfs_journal_is_live(const struct vmfs *fs, uint64_t offset, uint64_t len)
{
	const struct vmfs_journal *journal = &fs->journal;

	for (uint32_t i = 0; i < journal->live_count; i++)
		if (journal->live[i] >= offset && journal->live[i] - offset < len)
			return true;
	return false;
}

static int write_settled(struct vmfs *fs, uint32_t area, uint64_t sequence)
{
	uint8_t sector[VMFS_SECTOR_BYTES] = { 0 };
	int rc;

	le64_put(sector + AT_NUMBER, sequence);
	seal(fs, sector, sizeof(sector), SETTLED_MAGIC);
	rc = vmfs_volume_put(fs, area_offset(area), sector, sizeof(sector));
	return rc ? rc : vmfs_barrier(fs);
}

int vmfs_journal_settle(struct vmfs *fs)
{
	struct vmfs_journal *journal = &fs->journal;
	int rc;

	if (journal->live_count == 0)
		return 0;
	rc = vmfs_barrier(fs);
	if (!rc)
		rc = write_settled(fs, journal->area, journal->sequence);
	if (rc)
		return rc;
	journal->settled = journal->sequence;
	journal->live_count = 0;
	return 0;
}

int vmfs_journal_pass(struct vmfs *fs, uint64_t offset, uint64_t len)
{
	return vmfs_journal_is_live(fs, offset, len) ? vmfs_journal_settle(fs) : 0;    /* VJ3 */
}

/* ---- writing a record ---- */

int vmfs_journal_record(struct vmfs *fs)
{
	struct vmfs_journal *journal = &fs->journal;
	const struct vmfs_txn *txn = &fs->txn;
	size_t len = HEAD_BYTES + (size_t)txn->count * VMFS_SECTOR_BYTES;
	uint8_t *record = journal->record;
	int rc;

	CHECK(journal->ready && txn->count <= VMFS_JOURNAL_SECTORS_MAX);
	memset(record, 0, HEAD_BYTES);
	le64_put(record + AT_NUMBER, journal->sequence + 1);
	le64_put(record + AT_COUNT, txn->count);
	for (uint32_t i = 0; i < txn->count; i++)
		le64_put(record + HEAD_PLACES + i * 8, txn->offsets[i]);
	memcpy(record + HEAD_BYTES, txn->sectors, (size_t)txn->count * VMFS_SECTOR_BYTES);
	seal(fs, record, len, RECORD_MAGIC);
	rc = vmfs_volume_put(fs, area_offset(journal->area) + RECORD_OFFSET, record, len);
	if (rc)
		return rc;
	journal->sequence++;
	journal->live_count = txn->count;
	memcpy(journal->live, txn->offsets, txn->count * sizeof(txn->offsets[0]));
	return 0;
}

/* ---- reading areas ---- */

struct area {
	uint32_t number;
	uint64_t settled, sequence;
	uint32_t sector_count;          /* of a live record, 0: there is none */
	uint8_t *bytes;
};

static bool places_are_sound(const struct vmfs *fs, const uint8_t *record, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t place = le64_get(record + HEAD_PLACES + i * 8);
		bool orphans = place % VMFS_JOURNAL_AREA_BYTES == ORPHANS_OFFSET;

		if (place % VMFS_SECTOR_BYTES || !vmfs_lv_holds(&fs->lv, place, VMFS_SECTOR_BYTES) ||
		    (place < VMFS_INFO_OFFSET && !orphans))
			return false;
	}
	return true;
}

/* A record with a wrong hash was never finished, or is older than what is settled: none. */
static int judge_record(struct vmfs *fs, struct area *area)
{
	const uint8_t *record = area->bytes + RECORD_OFFSET;
	uint64_t count = le64_get(record + AT_COUNT);

	if (le64_get(record + AT_MAGIC) != RECORD_MAGIC || count == 0 ||
	    count > VMFS_JOURNAL_SECTORS_MAX ||
	    !is_sealed(fs, record, HEAD_BYTES + (size_t)count * VMFS_SECTOR_BYTES, RECORD_MAGIC))
		return 0;
	area->sequence = le64_get(record + AT_NUMBER);
	if (area->sequence <= area->settled)
		return 0;
	if (!places_are_sound(fs, record, count))
		return vmfs_damaged(fs, "the journal's area %u names places outside", area->number);
	area->sector_count = (uint32_t)count;
	return 0;
}

static int read_area(struct vmfs *fs, struct area *area)
{
	int rc = vmfs_volume_read(fs, area_offset(area->number), area->bytes, VMFS_JOURNAL_AREA_BYTES);

	area->settled = area->sequence = area->sector_count = 0;
	if (rc)
		return rc;
	if (is_sealed(fs, area->bytes, VMFS_SECTOR_BYTES, SETTLED_MAGIC))
		area->settled = area->sequence = le64_get(area->bytes + AT_NUMBER);
	else if (!is_zero(area->bytes, VMFS_SECTOR_BYTES) && !fs->read_only)
		return vmfs_fail(fs, ERR_VMFS_UNSUPPORTED, -ENOTSUP,
				 "something unknown stands where the journal would be");
	return judge_record(fs, area);
}

static int keep_record(struct vmfs *fs, const struct area *area)
{
	const uint8_t *record = area->bytes + RECORD_OFFSET;
	int rc = vmfs_txn_grow(&fs->txn, fs->txn.count + area->sector_count);

	for (uint32_t i = 0; i < area->sector_count && !rc; i++)
		rc = vmfs_txn_keep(&fs->txn, le64_get(record + HEAD_PLACES + i * 8),
				   record + HEAD_BYTES + (size_t)i * VMFS_SECTOR_BYTES);
	return rc;
}

static int carry_out(struct vmfs *fs, const struct area *area)
{
	const uint8_t *record = area->bytes + RECORD_OFFSET;
	int rc = 0;

	for (uint32_t i = 0; i < area->sector_count && !rc; i++)
		rc = vmfs_volume_put(fs, le64_get(record + HEAD_PLACES + i * 8),
				     record + HEAD_BYTES + (size_t)i * VMFS_SECTOR_BYTES,
				     VMFS_SECTOR_BYTES);
	if (!rc)
		rc = vmfs_barrier(fs);
	return rc ? rc : write_settled(fs, area->number, area->sequence);
}

static int see_area(struct vmfs *fs, struct area *area)
{
	int rc = read_area(fs, area);

	if (rc)
		return rc;
	if (area->sector_count)
		rc = fs->read_only ? keep_record(fs, area) : carry_out(fs, area);
	if (!rc && area->number == fs->journal.area)
		fs->journal.sequence = fs->journal.settled = area->sequence;
	return rc;
}

int vmfs_journal_open(struct vmfs *fs, uint32_t number)
{
	CLEANUP_FREE uint8_t *bytes = malloc(VMFS_JOURNAL_AREA_BYTES);
	struct area area = { .bytes = bytes };
	int rc = bytes ? 0 : -ENOMEM;

	CHECK(number < VMFS_JOURNAL_AREAS);
	if (fs->geometry->version != 5)
		return 0;
	fs->journal.area = fs->journal.orphan_area = number;
	for (uint32_t i = 0; i < VMFS_JOURNAL_AREAS && !rc; i++) {
		area.number = i;
		rc = see_area(fs, &area);
	}
	if (rc || fs->read_only)
		return rc;
	fs->journal.record = malloc(RECORD_BYTES);
	fs->journal.ready = fs->journal.record != NULL;
	return fs->journal.ready ? vmfs_txn_grow(&fs->txn, VMFS_JOURNAL_SECTORS_MAX) : -ENOMEM;
}

void vmfs_journal_free(struct vmfs *fs)
{
	free(fs->journal.record);
	free(fs->txn.offsets);
	free(fs->txn.sectors);
	free(fs->txn.gives);
}

/* ---- orphans ---- */

static int write_orphans(struct vmfs *fs)
{
	const struct vmfs_journal *journal = &fs->journal;
	uint8_t sector[VMFS_SECTOR_BYTES] = { 0 };

	CHECK(vmfs_txn_is_open(fs));
	le64_put(sector + AT_COUNT, journal->orphan_count);
	for (uint32_t i = 0; i < journal->orphan_count; i++)
		le32_put(sector + 32 + i * 4, journal->orphans[i]);
	seal(fs, sector, sizeof(sector), ORPHANS_MAGIC);
	return vmfs_volume_write(fs, area_offset(journal->orphan_area) + ORPHANS_OFFSET, sector,
				 sizeof(sector));
}

int vmfs_orphan_add(struct vmfs *fs, uint32_t address)
{
	struct vmfs_journal *journal = &fs->journal;

	if (journal->orphan_count == VMFS_JOURNAL_ORPHANS_MAX)
		return 0;
	journal->orphans[journal->orphan_count++] = address;
	return write_orphans(fs);
}

int vmfs_orphan_remove(struct vmfs *fs, uint32_t address)
{
	struct vmfs_journal *journal = &fs->journal;

	for (uint32_t i = 0; i < journal->orphan_count; i++)
		if (journal->orphans[i] == address) {
			journal->orphans[i] = journal->orphans[--journal->orphan_count];
			return write_orphans(fs);
		}
	return 0;
}

/* A list in its own area's form; false: there is none. */
static bool decode_orphans(const struct vmfs *fs, const uint8_t *sector, uint32_t *out,
			   uint32_t *count_out)
{
	uint64_t count = le64_get(sector + AT_COUNT);

	if (!is_sealed(fs, sector, VMFS_SECTOR_BYTES, ORPHANS_MAGIC) ||
	    count > VMFS_JOURNAL_ORPHANS_MAX)
		return false;
	for (uint32_t i = 0; i < count; i++)
		out[i] = le32_get(sector + 32 + i * 4);
	*count_out = (uint32_t)count;
	return true;
}

static int give_orphans_of(struct vmfs *fs, uint32_t area)
{
	uint32_t list[VMFS_JOURNAL_ORPHANS_MAX], count = 0, own = fs->journal.area;
	uint8_t sector[VMFS_SECTOR_BYTES];
	int rc = vmfs_volume_read(fs, area_offset(area) + ORPHANS_OFFSET, sector, sizeof(sector));

	if (rc || !decode_orphans(fs, sector, list, &count) || count == 0)
		return rc;
	fs->journal.orphan_count = count;
	memcpy(fs->journal.orphans, list, sizeof(list));
	for (uint32_t i = 0; i < count && !rc; i++) {
		/* Each giving back takes its own off this list; that of another area is rewritten. */
		fs->journal.orphan_area = area;
		rc = vmfs_node_give_orphan(fs, list[i]);
	}
	fs->journal.orphan_area = own;
	return rc;
}

int vmfs_journal_give_orphans(struct vmfs *fs)
{
	int rc = 0;

	for (uint32_t i = 0; i < VMFS_JOURNAL_AREAS && !rc; i++)
		rc = give_orphans_of(fs, i);
	return rc;
}

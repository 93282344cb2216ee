/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_journal.h - changes of several sectors as one: a redo journal of our own (VMFS5).
 *
 * A transaction gathers the metadata sectors that an operation writes; reading shows them.
 * vmfs_txn_end() makes them one change:
 *
 *   | barrier          what the sectors refer to is durable, and what the last record held
 *   record             the sectors and where they go, under a hash
 *   | barrier
 *   in place           the same sectors, flushed by whoever flushes next
 *
 * A change of one sector is atomic by itself and goes without a record.
 *
 * Where: the first 2 MiB of the logical volume, which belong to .vh.sf, are zero in every
 * volume that was seen, and are read by nobody; what ESXi may keep there some day is not known
 * [?], so a volume that has anything else there is not written to.  16 areas of 128 KiB, one for
 * each host that writes, the first for a host that is alone.
 *
 * Which records count: until the sectors in place are known to be durable the record is live.
 * Opening a volume carries out all live records, of whichever host; a volume that is opened for
 * reading only shows what they would have written.  Three rules make that safe:
 *   VJ1  a record is durable before any of its sectors is written in place
 *   VJ2  what the sectors refer to is durable before the record; so is what the record before
 *        held, whose place it takes
 *   VJ3  a sector of a live record is not written by anything but a newer record, nor does its
 *        lock leave this host, before the record is settled: or carrying it out would bring
 *        back the old
 *   VJ4  a record whose hash is right and that is not settled is carried out, no other
 *
 * A file that has lost its last name and is still open, or being given back, stands in the
 * area's list of orphans, in the same transaction; opening the volume gives it back (VJ5).
 */
#ifndef BM_VMFS_JOURNAL_H
#define BM_VMFS_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

struct vmfs;
struct vmfs_node;

#define VMFS_JOURNAL_AREAS 16u
#define VMFS_JOURNAL_AREA_BYTES UINT64_C(0x20000)
#define VMFS_JOURNAL_SECTORS_MAX 248u           /* of one record */
#define VMFS_JOURNAL_ORPHANS_MAX 112u

struct vmfs_txn {
	unsigned depth;
	bool overflow;
	uint32_t count, capacity;
	uint64_t *offsets;              /* of sectors in the volume */
	uint8_t *sectors;
	uint64_t *gives;                /* words to be given back at the end */
	size_t give_count, give_capacity;
};

struct vmfs_journal {
	uint32_t area;
	bool ready;                     /* records can be written */
	uint64_t sequence;              /* of the last record */
	uint64_t settled;               /* up to this one: durable in place */
	uint32_t live_count;
	uint64_t live[VMFS_JOURNAL_SECTORS_MAX];
	uint32_t orphan_area;           /* another one only while the volume is opened */
	uint32_t orphan_count;
	uint32_t orphans[VMFS_JOURNAL_ORPHANS_MAX];
	uint8_t *record;
};

/* Carries out what is live in all areas, or shows it (read-only); then `area` is ours. */
MUST_CHECK int vmfs_journal_open(struct vmfs *fs, uint32_t area);
/* Gives back the orphans of all areas; when the resource files are open. */
MUST_CHECK int vmfs_journal_give_orphans(struct vmfs *fs);
void vmfs_journal_free(struct vmfs *fs);

/* After it nothing is live: two flushes, when something was. */
MUST_CHECK int vmfs_journal_settle(struct vmfs *fs);
/* VJ3: settle if one of the sectors is live. */
MUST_CHECK int vmfs_journal_pass(struct vmfs *fs, uint64_t offset, uint64_t len);

/* They nest: the outermost pair counts. */
void vmfs_txn_begin(struct vmfs *fs);
/* Also after an error: what was gathered by then is a sound state.  rc, or what went wrong here. */
MUST_CHECK int vmfs_txn_end(struct vmfs *fs, int rc);
bool vmfs_txn_is_open(const struct vmfs *fs);
MUST_CHECK int vmfs_txn_write(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len);
/* What was gathered, over what was read. */
void vmfs_txn_patch(const struct vmfs *fs, uint64_t offset, uint8_t *bytes, size_t len);
/* The gathered sectors of a stretch that is written past the transaction. */
void vmfs_txn_take_over(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len);
/* Give the words back when the transaction ends: nothing in it may use their items anew. */
MUST_CHECK int vmfs_txn_give(struct vmfs *fs, const uint64_t *words, size_t count);

/* Inside a transaction.  When the list is full the file is lost space after a crash. */
MUST_CHECK int vmfs_orphan_add(struct vmfs *fs, uint32_t address);
MUST_CHECK int vmfs_orphan_remove(struct vmfs *fs, uint32_t address);

#endif

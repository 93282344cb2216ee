/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_format.h - the journal of one disk's move, on disk.
 *
 * Everything is a sealed sector of 512 bytes: what a disk writes whole or not at all.  A
 * power cut leaves each sector old or new; one whose seal is broken is damage, and all that
 * it spoke for counts as dirty.
 *
 *     sector  0      header, first copy            (8 sectors apart: 4 KiB blocks)
 *             8      header, second copy
 *            16..23  activity log, slot 0          up to 8 sectors of one sequence
 *            24..31  activity log, slot 1          the slots are written in turn
 *            32..    bitmap: JOURNAL_MAP_BITS regions a sector; bit set: the region is dirty
 *
 * A bitmap sector of zeroes has never been written: its regions are dirty.  So a new journal
 * says "all dirty" without a write.
 *
 * Numbers are little-endian.
 */
#ifndef BM_JOURNAL_FORMAT_H
#define BM_JOURNAL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define JOURNAL_SECTOR_BYTES 512u
#define JOURNAL_BLOCK_BYTES 4096u
#define JOURNAL_BLOCK_SECTORS (JOURNAL_BLOCK_BYTES / JOURNAL_SECTOR_BYTES)
#define JOURNAL_MAGIC 0x314a4d42u               /* "BMJ1" */
#define JOURNAL_VERSION 1u
#define JOURNAL_LOG_SECTOR 16u
#define JOURNAL_LOG_SLOTS 2u
#define JOURNAL_LOG_SLOT_SECTORS 8u
#define JOURNAL_MAP_SECTOR 32u
#define JOURNAL_PAYLOAD_BYTES 480u
#define JOURNAL_MAP_BITS (JOURNAL_PAYLOAD_BYTES * 8u)
#define JOURNAL_LOG_EXTENTS (JOURNAL_PAYLOAD_BYTES / 4u - 2u)   /* of one sector */

typedef struct { uint32_t raw; } le32;
typedef struct { uint64_t raw; } le64;

static inline le32 to_le32(uint32_t value)
{
	return (le32){ value };
}
static inline uint32_t from_le32(le32 value)
{
	return value.raw;
}
static inline le64 to_le64(uint64_t value)
{
	return (le64){ value };
}
static inline uint64_t from_le64(le64 value)
{
	return value.raw;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "add the swaps for a big-endian port");

enum journal_sector_kind { JOURNAL_HEADER = 1, JOURNAL_LOG = 2, JOURNAL_MAP = 3 };

struct journal_sector {
	le64 seal;                      /*   0  XXH3 of bytes 8..511, keyed by the journal's key */
	le32 magic;                     /*   8 */
	le32 kind;                      /*  12  enum journal_sector_kind */
	le64 sequence;                  /*  16  of the write; all sectors of a log slot share it */
	le64 index;                     /*  24  its own sector number: catches misdirected I/O */
	uint8_t payload[JOURNAL_PAYLOAD_BYTES];         /*  32 */
};
_Static_assert(sizeof(struct journal_sector) == JOURNAL_SECTOR_BYTES, "one sector");
_Static_assert(offsetof(struct journal_sector, payload) == 32, "format v1");

struct journal_header {
	le32 version;                   /*   0 */
	le32 region_bytes;              /*   4 */
	le64 size_bytes;                /*   8  of the disk */
	le32 extent_bytes;              /*  16  of the activity log */
	le32 log_extents_max;           /*  20 */
	uint8_t disk_uuid[16];          /*  24 */
	le64 generation;                /*  40  of the source when the move began */
	char journal_id[64];            /*  48 */
	le64 key;                       /* 112  random: seals of another journal do not fit */
	le32 align_bytes;               /* 120  the larger physical block of both legs */
	uint8_t zero[356];              /* 124 */
};
_Static_assert(sizeof(struct journal_header) == JOURNAL_PAYLOAD_BYTES, "fills the payload");
_Static_assert(offsetof(struct journal_header, key) == 112, "format v1");

struct journal_log {
	le32 count;                     /*   0  extents in this sector */
	le32 sectors;                   /*   4  of this slot that are in use (the same in each) */
	le32 extents[JOURNAL_LOG_EXTENTS];              /*   8 */
};
_Static_assert(sizeof(struct journal_log) == JOURNAL_PAYLOAD_BYTES, "fills the payload");

#endif

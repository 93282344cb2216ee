/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#define XXH3_64bits_withSeed_dispatch XXH3_64bits_withSeed
#endif

#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

static uint64_t sector_seal(const struct journal_sector *sector, uint64_t key)
{
	return XXH3_64bits_withSeed_dispatch((const uint8_t *)sector + sizeof(sector->seal),
					     sizeof(*sector) - sizeof(sector->seal), key);
}

void journal_seal(struct journal_sector *sector, uint64_t key, enum journal_sector_kind kind,
		  uint64_t sequence, uint64_t index)
{
	sector->magic = to_le32(JOURNAL_MAGIC);
	sector->kind = to_le32(kind);
	sector->sequence = to_le64(sequence);
	sector->index = to_le64(index);
	sector->seal = to_le64(sector_seal(sector, key));
}

static bool sector_is_blank(const struct journal_sector *sector)
{
	const uint8_t *bytes = (const uint8_t *)sector;

	return bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof(*sector) - 1) == 0;
}

int journal_unseal(const struct journal_sector *sector, uint64_t key,
		   enum journal_sector_kind kind, uint64_t index)
{
	if (sector_is_blank(sector))
		return -ENODATA;
	if (from_le64(sector->seal) != sector_seal(sector, key) ||
	    from_le32(sector->magic) != JOURNAL_MAGIC || from_le32(sector->kind) != kind ||
	    from_le64(sector->index) != index)
		return -EBADMSG;
	return 0;
}

uint64_t journal_map_sectors(uint64_t region_count)
{
	return div_round_up(region_count, JOURNAL_MAP_BITS);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_bitmap.h - one bit per region: "the target may differ here".
 *
 * Hierarchical: bit i of a level says that word i of the level below is not zero, so
 * finding the next dirty region costs one word per level, however empty the map is.
 *
 *     level 2   ....................1   one word for 2^18 regions
 *     level 1   ...1........  1.......  one word for 2^12 regions
 *     level 0   0101..0000    1100...   one bit a region
 *
 * Bytes go in and come out; regions stay inside.  A set rounds outward, a clear rounds
 * inward (the region that the disk's end cuts off counts as whole), so no rounding can
 * ever turn a region clean that is not.
 *
 * Threading: as its owner.  Nothing here allocates after dirty_bitmap_new().
 */
#ifndef BM_DIRTY_BITMAP_H
#define BM_DIRTY_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

struct dirty_bitmap;

/* All clean.  region_bytes is a power of two.  NULL: out of memory. */
struct dirty_bitmap *dirty_bitmap_new(uint64_t size_bytes, uint32_t region_bytes);
void dirty_bitmap_free(struct dirty_bitmap *bitmap);

uint32_t dirty_bitmap_region_bytes(const struct dirty_bitmap *bitmap);

/* Empty ranges are allowed and do nothing.  Ranges lie inside the disk. */
void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset_bytes, uint64_t len_bytes);
void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t offset_bytes, uint64_t len_bytes);
void dirty_bitmap_set_all(struct dirty_bitmap *bitmap);
void dirty_bitmap_clear_all(struct dirty_bitmap *bitmap);

/* Is the region that holds this byte dirty? */
bool dirty_bitmap_test(const struct dirty_bitmap *bitmap, uint64_t offset_bytes);

/* Does any region that the range touches have that state? */
bool dirty_bitmap_any_dirty(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes);
bool dirty_bitmap_any_clean(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes);

/*
 * The next run of dirty regions that begins at or after the region holding from_bytes, at most
 * max_bytes long (rounded down to regions, at least one).  The last region ends with the disk.
 * False: none.
 */
bool dirty_bitmap_find(const struct dirty_bitmap *bitmap, uint64_t from_bytes, uint64_t max_bytes,
		       uint64_t *offset_bytes, uint64_t *len_bytes);

/* Bytes of the disk that lie in dirty regions. */
uint64_t dirty_bitmap_bytes(const struct dirty_bitmap *bitmap);
static inline bool dirty_bitmap_is_clean(const struct dirty_bitmap *bitmap)
{
	return dirty_bitmap_bytes(bitmap) == 0;
}

/* Add every dirty region of `from` (same geometry) to `to`. */
void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from);

/* Remove from `to` every dirty region of `from`. */
void dirty_bitmap_subtract(struct dirty_bitmap *to, const struct dirty_bitmap *from);

/*
 * Whole words of bits, for keeping a bitmap on disk: 64 regions a word, the lowest region in
 * the lowest bit.  Bits past the last region read as 0 and are ignored.
 */
#define DIRTY_BITMAP_WORD_REGIONS 64u
uint64_t dirty_bitmap_region_count(const struct dirty_bitmap *bitmap);
void dirty_bitmap_export(const struct dirty_bitmap *bitmap, uint64_t first_word,
			 uint64_t word_count, uint64_t *words);
void dirty_bitmap_import(struct dirty_bitmap *bitmap, uint64_t first_word, uint64_t word_count,
			 const uint64_t *words);

/* Exchange the contents of two bitmaps of the same geometry. */
void dirty_bitmap_swap(struct dirty_bitmap *a, struct dirty_bitmap *b);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/dirty_bitmap.h"

#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

#define LEVELS_MAX 7                    /* 64^7 regions: more than 2^41 */
#define WORD_BITS 64u

struct dirty_bitmap {
	uint64_t size_bytes;
	uint32_t region_bytes;
	unsigned region_shift;
	unsigned level_count;
	uint64_t region_count;
	uint64_t dirty_count;
	uint64_t word_counts[LEVELS_MAX];
	uint64_t *levels[LEVELS_MAX];   /* levels[0]: the bits; all in one allocation */
};

/* ---- geometry ---- */

static uint64_t region_of(const struct dirty_bitmap *bitmap, uint64_t offset_bytes)
{
	return offset_bytes >> bitmap->region_shift;
}

/* The regions that a range touches: [first, end). */
static void regions_touched(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes, uint64_t *first, uint64_t *end)
{
	CHECK(range_fits(offset_bytes, len_bytes, bitmap->size_bytes));
	*first = region_of(bitmap, offset_bytes);
	*end = len_bytes ? region_of(bitmap, offset_bytes + len_bytes - 1) + 1 : *first;
}

/* The regions that a range covers whole: [first, end). */
static void regions_covered(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes, uint64_t *first, uint64_t *end)
{
	uint64_t end_bytes = offset_bytes + len_bytes;

	CHECK(range_fits(offset_bytes, len_bytes, bitmap->size_bytes));
	*first = region_of(bitmap, offset_bytes + bitmap->region_bytes - 1);
	*end = end_bytes == bitmap->size_bytes ? bitmap->region_count : region_of(bitmap, end_bytes);
	if (*end < *first)
		*end = *first;
}

uint32_t dirty_bitmap_region_bytes(const struct dirty_bitmap *bitmap)
{
	return bitmap->region_bytes;
}

/* ---- life ---- */

struct dirty_bitmap *dirty_bitmap_new(uint64_t size_bytes, uint32_t region_bytes)
{
	struct dirty_bitmap *bitmap = calloc(1, sizeof(*bitmap));
	uint64_t bits, total_words = 0;
	uint64_t *words;

	CHECK(size_bytes > 0);
	CHECK(is_power_of_two(region_bytes));
	if (!bitmap)
		return NULL;
	bitmap->size_bytes = size_bytes;
	bitmap->region_bytes = region_bytes;
	bitmap->region_shift = (unsigned)__builtin_ctz(region_bytes);
	bitmap->region_count = div_round_up(size_bytes, region_bytes);
	bits = bitmap->region_count;
	do {
		CHECK(bitmap->level_count < LEVELS_MAX);
		bits = div_round_up(bits, WORD_BITS);
		bitmap->word_counts[bitmap->level_count++] = bits;
		total_words += bits;
	} while (bits > 1);
	words = calloc(total_words, sizeof(*words));
	if (!words) {
		free(bitmap);
		return NULL;
	}
	for (unsigned level = 0; level < bitmap->level_count; level++) {
		bitmap->levels[level] = words;
		words += bitmap->word_counts[level];
	}
	return bitmap;
}

void dirty_bitmap_free(struct dirty_bitmap *bitmap)
{
	if (!bitmap)
		return;
	free(bitmap->levels[0]);
	free(bitmap);
}

/* ---- setting and clearing ---- */

/* Word `index` of `level` has become non-zero: tell the levels above. */
static void raise_summary(struct dirty_bitmap *bitmap, unsigned level, uint64_t index)
{
	while (++level < bitmap->level_count) {
		uint64_t *word = &bitmap->levels[level][index / WORD_BITS];
		uint64_t before = *word;

		*word |= UINT64_C(1) << (index % WORD_BITS);
		if (before)
			return;
		index /= WORD_BITS;
	}
}

/* Word `index` of `level` has become zero. */
static void lower_summary(struct dirty_bitmap *bitmap, unsigned level, uint64_t index)
{
	while (++level < bitmap->level_count) {
		uint64_t *word = &bitmap->levels[level][index / WORD_BITS];

		*word &= ~(UINT64_C(1) << (index % WORD_BITS));
		if (*word)
			return;
		index /= WORD_BITS;
	}
}

/* The bits of word `index` that lie in [first, end). */
static uint64_t word_mask(uint64_t index, uint64_t first, uint64_t end)
{
	uint64_t base = index * WORD_BITS;
	uint64_t mask = ~UINT64_C(0);

	if (first > base)
		mask &= ~UINT64_C(0) << (first - base);
	if (end < base + WORD_BITS)
		mask &= ~UINT64_C(0) >> (base + WORD_BITS - end);
	return mask;
}

void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t first, end;

	regions_touched(bitmap, offset_bytes, len_bytes, &first, &end);
	for (uint64_t index = first / WORD_BITS; index * WORD_BITS < end; index++) {
		uint64_t *word = &bitmap->levels[0][index];
		uint64_t before = *word;

		*word |= word_mask(index, first, end);
		bitmap->dirty_count += (uint64_t)__builtin_popcountll(*word ^ before);
		if (!before && *word)
			raise_summary(bitmap, 0, index);
	}
}

void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t offset_bytes, uint64_t len_bytes)
{
	uint64_t first, end;

	regions_covered(bitmap, offset_bytes, len_bytes, &first, &end);
	for (uint64_t index = first / WORD_BITS; index * WORD_BITS < end; index++) {
		uint64_t *word = &bitmap->levels[0][index];
		uint64_t before = *word;

		*word &= ~word_mask(index, first, end);
		bitmap->dirty_count -= (uint64_t)__builtin_popcountll(*word ^ before);
		if (before && !*word)
			lower_summary(bitmap, 0, index);
	}
}

void dirty_bitmap_set_all(struct dirty_bitmap *bitmap)
{
	dirty_bitmap_set(bitmap, 0, bitmap->size_bytes);
}

/* The first set bit at or after `bit` in one level; false: none. */
static bool level_find(const struct dirty_bitmap *bitmap, unsigned level, uint64_t bit,
		       uint64_t *out)
{
	uint64_t index = bit / WORD_BITS;
	uint64_t word;

	if (index >= bitmap->word_counts[level])
		return false;
	word = bitmap->levels[level][index] & (~UINT64_C(0) << (bit % WORD_BITS));
	if (!word) {
		if (level + 1 == bitmap->level_count)
			return false;
		/* Depth is bounded by level_count, not by input. */
		if (!level_find(bitmap, level + 1, index + 1, &index))
			return false;
		word = bitmap->levels[level][index];
	}
	*out = index * WORD_BITS + (uint64_t)__builtin_ctzll(word);
	return true;
}

/* A few bits of many: touching each word of a large map would cost milliseconds. */
static void clear_sparse(struct dirty_bitmap *bitmap)
{
	uint64_t region = 0;

	while (level_find(bitmap, 0, region, &region)) {
		uint64_t index = region / WORD_BITS;

		bitmap->levels[0][index] = 0;
		lower_summary(bitmap, 0, index);
		region = (index + 1) * WORD_BITS;
	}
	bitmap->dirty_count = 0;
}

void dirty_bitmap_clear_all(struct dirty_bitmap *bitmap)
{
	if (bitmap->dirty_count < bitmap->region_count / WORD_BITS) {
		clear_sparse(bitmap);
		return;
	}
	for (unsigned level = 0; level < bitmap->level_count; level++)
		memset(bitmap->levels[level], 0, bitmap->word_counts[level] * sizeof(uint64_t));
	bitmap->dirty_count = 0;
}

/* ---- asking ---- */

static bool region_is_dirty(const struct dirty_bitmap *bitmap, uint64_t region)
{
	return bitmap->levels[0][region / WORD_BITS] >> (region % WORD_BITS) & 1;
}

bool dirty_bitmap_test(const struct dirty_bitmap *bitmap, uint64_t offset_bytes)
{
	CHECK(offset_bytes < bitmap->size_bytes);
	return region_is_dirty(bitmap, region_of(bitmap, offset_bytes));
}

bool dirty_bitmap_any_dirty(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	uint64_t first, end;

	regions_touched(bitmap, offset_bytes, len_bytes, &first, &end);
	for (uint64_t index = first / WORD_BITS; index * WORD_BITS < end; index++)
		if (bitmap->levels[0][index] & word_mask(index, first, end))
			return true;
	return false;
}

bool dirty_bitmap_any_clean(const struct dirty_bitmap *bitmap, uint64_t offset_bytes,
			    uint64_t len_bytes)
{
	uint64_t first, end;

	regions_touched(bitmap, offset_bytes, len_bytes, &first, &end);
	for (uint64_t index = first / WORD_BITS; index * WORD_BITS < end; index++)
		if (~bitmap->levels[0][index] & word_mask(index, first, end))
			return true;
	return false;
}

/* The end of the dirty run that begins at `first`, at most `limit`. */
static uint64_t run_end(const struct dirty_bitmap *bitmap, uint64_t first, uint64_t limit)
{
	uint64_t index = first / WORD_BITS;
	uint64_t clean = ~bitmap->levels[0][index] & (~UINT64_C(0) << (first % WORD_BITS));

	while (!clean && (index + 1) * WORD_BITS < limit)
		clean = ~bitmap->levels[0][++index];
	if (!clean)
		return limit;
	return MIN(index * WORD_BITS + (uint64_t)__builtin_ctzll(clean), limit);
}

bool dirty_bitmap_find(const struct dirty_bitmap *bitmap, uint64_t from_bytes, uint64_t max_bytes,
		       uint64_t *offset_bytes, uint64_t *len_bytes)
{
	uint64_t max_regions = MAX(max_bytes >> bitmap->region_shift, 1);
	uint64_t first, end, end_bytes;

	if (from_bytes >= bitmap->size_bytes ||
	    !level_find(bitmap, 0, region_of(bitmap, from_bytes), &first))
		return false;
	end = run_end(bitmap, first, first + MIN(max_regions, bitmap->region_count - first));
	end_bytes = MIN(end << bitmap->region_shift, bitmap->size_bytes);
	*offset_bytes = first << bitmap->region_shift;
	*len_bytes = end_bytes - *offset_bytes;
	return true;
}

uint64_t dirty_bitmap_bytes(const struct dirty_bitmap *bitmap)
{
	uint64_t bytes = bitmap->dirty_count << bitmap->region_shift;

	if (bitmap->dirty_count && region_is_dirty(bitmap, bitmap->region_count - 1))
		bytes -= (bitmap->region_count << bitmap->region_shift) - bitmap->size_bytes;
	return bytes;
}

/* ---- two bitmaps ---- */

static void check_same_geometry(const struct dirty_bitmap *a, const struct dirty_bitmap *b)
{
	CHECK(a->size_bytes == b->size_bytes);
	CHECK(a->region_bytes == b->region_bytes);
}

void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from)
{
	uint64_t region = 0;

	check_same_geometry(to, from);
	while (level_find(from, 0, region, &region)) {
		uint64_t index = region / WORD_BITS;
		uint64_t *word = &to->levels[0][index];
		uint64_t before = *word;

		*word |= from->levels[0][index];
		to->dirty_count += (uint64_t)__builtin_popcountll(*word ^ before);
		if (!before)
			raise_summary(to, 0, index);
		region = (index + 1) * WORD_BITS;
	}
}

/* Give one word of bits a new value. */
static void set_word(struct dirty_bitmap *bitmap, uint64_t index, uint64_t value)
{
	uint64_t *word = &bitmap->levels[0][index];
	uint64_t before = *word;

	*word = value;
	bitmap->dirty_count += (uint64_t)__builtin_popcountll(value);
	bitmap->dirty_count -= (uint64_t)__builtin_popcountll(before);
	if (!before && value)
		raise_summary(bitmap, 0, index);
	else if (before && !value)
		lower_summary(bitmap, 0, index);
}

void dirty_bitmap_subtract(struct dirty_bitmap *to, const struct dirty_bitmap *from)
{
	uint64_t region = 0;

	check_same_geometry(to, from);
	while (level_find(from, 0, region, &region)) {
		uint64_t index = region / WORD_BITS;

		set_word(to, index, to->levels[0][index] & ~from->levels[0][index]);
		region = (index + 1) * WORD_BITS;
	}
}

uint64_t dirty_bitmap_region_count(const struct dirty_bitmap *bitmap)
{
	return bitmap->region_count;
}

void dirty_bitmap_export(const struct dirty_bitmap *bitmap, uint64_t first_word,
			 uint64_t word_count, uint64_t *words)
{
	for (uint64_t i = 0; i < word_count; i++)
		words[i] = first_word + i < bitmap->word_counts[0] ?
				   bitmap->levels[0][first_word + i] : 0;
}

void dirty_bitmap_import(struct dirty_bitmap *bitmap, uint64_t first_word, uint64_t word_count,
			 const uint64_t *words)
{
	for (uint64_t i = 0; i < word_count && first_word + i < bitmap->word_counts[0]; i++)
		set_word(bitmap, first_word + i,
			 words[i] & word_mask(first_word + i, 0, bitmap->region_count));
}

void dirty_bitmap_swap(struct dirty_bitmap *a, struct dirty_bitmap *b)
{
	struct dirty_bitmap swap = *a;

	check_same_geometry(a, b);
	*a = *b;
	*b = swap;
}

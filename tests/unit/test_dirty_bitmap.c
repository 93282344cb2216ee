/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the hierarchical bitmap answers as an array of bools does, at every size and border. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/base/dirty_bitmap.h"

#define REGION 4096u

struct shadow {
	struct dirty_bitmap *bitmap;
	bool *dirty;
	uint64_t regions, size_bytes;
};

static struct loop *loop;

static uint64_t dice(uint64_t bound)
{
	return loop_random_below(loop, bound);
}

static struct shadow shadow_new(uint64_t size_bytes)
{
	struct shadow shadow = { .bitmap = dirty_bitmap_new(size_bytes, REGION),
				 .regions = div_round_up(size_bytes, REGION),
				 .size_bytes = size_bytes };

	assert_non_null(shadow.bitmap);
	shadow.dirty = calloc(shadow.regions, sizeof(bool));
	assert_non_null(shadow.dirty);
	return shadow;
}

static void shadow_free(struct shadow *shadow)
{
	dirty_bitmap_free(shadow->bitmap);
	free(shadow->dirty);
}

/* A random range, often short, often at a border of words, sometimes empty. */
static void pick(const struct shadow *shadow, uint64_t *offset, uint64_t *len)
{
	uint64_t max = shadow->size_bytes;

	*offset = dice(max + 1);
	if (dice(2)) {
		*offset = round_down(*offset, 64 * REGION) + dice(3) * REGION;
		*offset = MIN(*offset, max);
	}
	max -= *offset;
	*len = dice(4) ? dice(MIN(max, 70 * (uint64_t)REGION) + 1) : dice(max + 1);
	if (dice(4) == 0)
		*len = shadow->size_bytes - *offset;    /* up to the tail */
}

static void shadow_set(struct shadow *shadow, uint64_t offset, uint64_t len)
{
	dirty_bitmap_set(shadow->bitmap, offset, len);
	for (uint64_t r = offset / REGION; len && r <= (offset + len - 1) / REGION; r++)
		shadow->dirty[r] = true;
}

static void shadow_clear(struct shadow *shadow, uint64_t offset, uint64_t len)
{
	dirty_bitmap_clear(shadow->bitmap, offset, len);
	for (uint64_t r = 0; r < shadow->regions; r++) {
		uint64_t start = r * REGION, end = MIN(start + REGION, shadow->size_bytes);

		if (len && start >= offset && end <= offset + len)
			shadow->dirty[r] = false;
	}
}

static uint64_t shadow_bytes(const struct shadow *shadow)
{
	uint64_t bytes = 0;

	for (uint64_t r = 0; r < shadow->regions; r++)
		if (shadow->dirty[r])
			bytes += MIN((uint64_t)REGION, shadow->size_bytes - r * REGION);
	return bytes;
}

static void check_find(const struct shadow *shadow, uint64_t from, uint64_t max)
{
	uint64_t offset = 99, len = 99;
	bool found = dirty_bitmap_find(shadow->bitmap, from, max, &offset, &len);
	uint64_t first = from / REGION, end;

	while (first < shadow->regions && !shadow->dirty[first])
		first++;
	if (from >= shadow->size_bytes || first >= shadow->regions) {
		assert_false(found);
		return;
	}
	assert_true(found);
	assert_int_equal(offset, first * REGION);
	end = first;
	while (end < shadow->regions && shadow->dirty[end] && end - first < MAX(max / REGION, 1))
		end++;
	assert_int_equal(len, MIN(end * REGION, shadow->size_bytes) - offset);
}

static void check_all(const struct shadow *shadow)
{
	uint64_t offset, len;
	bool any_dirty = false, any_clean = false;

	assert_int_equal(dirty_bitmap_bytes(shadow->bitmap), shadow_bytes(shadow));
	for (uint64_t r = 0; r < shadow->regions; r++)
		assert_int_equal(dirty_bitmap_test(shadow->bitmap, r * REGION), shadow->dirty[r]);
	for (int i = 0; i < 5; i++)
		check_find(shadow, dice(shadow->size_bytes + 2 * REGION), dice(200 * REGION));
	check_find(shadow, 0, UINT64_MAX);
	pick(shadow, &offset, &len);
	for (uint64_t r = offset / REGION; len && r <= (offset + len - 1) / REGION; r++) {
		any_dirty = any_dirty || shadow->dirty[r];
		any_clean = any_clean || !shadow->dirty[r];
	}
	assert_int_equal(dirty_bitmap_any_dirty(shadow->bitmap, offset, len), any_dirty);
	assert_int_equal(dirty_bitmap_any_clean(shadow->bitmap, offset, len), any_clean);
}

static const uint64_t region_counts[] = { 1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 8200 };

static void test_random_operations(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(region_counts); i++) {
		for (int tail = 0; tail < 2; tail++) {
			struct shadow shadow =
				shadow_new(region_counts[i] * REGION - (tail ? 512 : 0));

			for (int op = 0; op < 120; op++) {
				uint64_t offset, len;

				pick(&shadow, &offset, &len);
				switch (dice(12)) {
				case 0:
					dirty_bitmap_set_all(shadow.bitmap);
					memset(shadow.dirty, 1, shadow.regions);
					break;
				case 1:
					dirty_bitmap_clear_all(shadow.bitmap);
					memset(shadow.dirty, 0, shadow.regions);
					break;
				case 2: case 3: case 4: case 5:
					shadow_set(&shadow, offset, len);
					break;
				default:
					shadow_clear(&shadow, offset, len);
					break;
				}
				check_all(&shadow);
			}
			shadow_free(&shadow);
		}
	}
}

/* Sparse and full maps are wiped in different ways: nothing may be left at any level. */
static void test_clear_all_of_sparse_and_full_maps(void **unused)
{
	(void)unused;
	for (uint64_t count = 1; count < 8200; count = count * 3 + 1) {
		struct shadow shadow = shadow_new(8200 * REGION);

		for (uint64_t i = 0; i < count; i++)
			shadow_set(&shadow, i * 8200 / count * REGION, REGION);
		dirty_bitmap_clear_all(shadow.bitmap);
		memset(shadow.dirty, 0, shadow.regions);
		check_all(&shadow);
		shadow_set(&shadow, 4096 * (uint64_t)REGION, 1);
		check_all(&shadow);
		shadow_free(&shadow);
	}
}

static void test_merge_and_swap(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(region_counts); i++) {
		struct shadow a = shadow_new(region_counts[i] * REGION - 512);
		struct shadow b = shadow_new(region_counts[i] * REGION - 512);
		bool *swap;

		for (int op = 0; op < 20; op++) {
			uint64_t offset, len;

			pick(&a, &offset, &len);
			shadow_set(&a, offset, MIN(len, 3 * (uint64_t)REGION));
			pick(&b, &offset, &len);
			shadow_set(&b, offset, MIN(len, 3 * (uint64_t)REGION));
			dirty_bitmap_merge(a.bitmap, b.bitmap);
			for (uint64_t r = 0; r < a.regions; r++)
				a.dirty[r] = a.dirty[r] || b.dirty[r];
			check_all(&a);
			check_all(&b);
			pick(&a, &offset, &len);
			shadow_clear(&a, offset, len);
			dirty_bitmap_swap(a.bitmap, b.bitmap);
			swap = a.dirty;
			a.dirty = b.dirty;
			b.dirty = swap;
			check_all(&a);
			check_all(&b);
		}
		shadow_free(&a);
		shadow_free(&b);
	}
}

/* A set rounds outward, a clear inward; the short last region counts as whole. */
static void test_rounding(void **unused)
{
	struct dirty_bitmap *bitmap = dirty_bitmap_new(3 * REGION - 512, REGION);

	(void)unused;
	dirty_bitmap_set(bitmap, REGION - 1, 2);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 2 * REGION);
	dirty_bitmap_clear(bitmap, 1, 2 * REGION - 2);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 2 * REGION);
	dirty_bitmap_clear(bitmap, 0, 2 * REGION - 1);
	assert_int_equal(dirty_bitmap_bytes(bitmap), REGION);
	dirty_bitmap_set_all(bitmap);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 3 * REGION - 512);
	dirty_bitmap_clear(bitmap, 2 * REGION, REGION - 513);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 3 * REGION - 512);
	dirty_bitmap_clear(bitmap, 2 * REGION, REGION - 512);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 2 * REGION);
	dirty_bitmap_set(bitmap, 3 * REGION - 512, 0);
	dirty_bitmap_clear(bitmap, 0, 0);
	assert_int_equal(dirty_bitmap_bytes(bitmap), 2 * REGION);
	dirty_bitmap_free(bitmap);
	dirty_bitmap_free(NULL);
}

/* The largest disk in the smallest number of words touched: one bit at the end of 62 TiB. */
static void test_the_largest_disk(void **unused)
{
	const uint64_t size = UINT64_C(62) << 40;
	struct dirty_bitmap *bitmap = dirty_bitmap_new(size, 1u << 20);
	uint64_t offset, len;

	(void)unused;
	assert_non_null(bitmap);
	dirty_bitmap_set(bitmap, size - 1, 1);
	assert_true(dirty_bitmap_find(bitmap, 0, UINT64_MAX, &offset, &len));
	assert_int_equal(offset, size - (1u << 20));
	assert_int_equal(len, 1u << 20);
	dirty_bitmap_clear_all(bitmap);
	assert_true(dirty_bitmap_is_clean(bitmap));
	assert_false(dirty_bitmap_find(bitmap, 0, UINT64_MAX, &offset, &len));
	dirty_bitmap_free(bitmap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_operations),
		cmocka_unit_test(test_clear_all_of_sparse_and_full_maps),
		cmocka_unit_test(test_merge_and_swap),
		cmocka_unit_test(test_rounding),
		cmocka_unit_test(test_the_largest_disk),
	};
	int rc;

	loop = loop_sim_new(11);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return rc;
}

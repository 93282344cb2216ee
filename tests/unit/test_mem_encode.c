/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what was encoded comes out again, and what was not is refused before it does harm. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmotion/mem_batch.h"
#include "vmotion/mem_map.h"
#include "vmotion/mem_receive.h"

#define PAGES 300u      /* of the first block; the second has 40 */

static uint64_t random_state = 1;

static uint64_t chance(uint64_t bound)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (random_state >> 33) % bound;
}

static void noise(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)chance(256);
}

static void text(uint8_t *bytes, size_t len)
{
	static const char *const words[] = {
		"the ", "page ", "that ", "changes ", "is ", "sent ", "again, ", "until ", "nothing ",
		"does ", "any ", "more: ", "then ", "it ", "stops ",
	};
	const char *at = "";

	for (size_t i = 0; i < len; i++) {
		if (!*at)
			at = words[chance(ARRAY_COUNT(words))];
		bytes[i] = (uint8_t)*at++;
	}
}

/* ---- pages ---- */

static void test_zero_is_told_to_the_last_byte(void **unused)
{
	uint8_t page[MEM_PAGE_BYTES] = { 0 };

	(void)unused;
	assert_true(mem_page_is_zero(page));
	for (uint32_t at = 0; at < MEM_PAGE_BYTES; at++) {
		page[at] = 1;
		assert_false(mem_page_is_zero(page));
		page[at] = 0;
	}
}

static void test_noise_is_dense_and_text_is_not(void **unused)
{
	uint8_t page[MEM_PAGE_BYTES];

	(void)unused;
	for (int i = 0; i < 200; i++) {
		noise(page, sizeof(page));
		assert_true(mem_page_is_dense(page));
		text(page, sizeof(page));
		assert_false(mem_page_is_dense(page));
	}
}

static void test_deltas_lead_from_old_to_new(void **unused)
{
	uint8_t old[MEM_PAGE_BYTES], new[MEM_PAGE_BYTES], delta[MEM_DELTA_MAX_BYTES];
	uint32_t made = 0;

	(void)unused;
	for (int i = 0; i < 2000; i++) {
		uint32_t len;

		noise(old, sizeof(old));
		memcpy(new, old, sizeof(new));
		for (uint64_t k = chance(80); k > 0; k--)
			new[chance(MEM_PAGE_BYTES)] = (uint8_t)chance(256);
		if (chance(4) == 0)
			noise(new + chance(3000), chance(1000));
		len = mem_delta_make(old, new, delta);
		assert_true(len <= MEM_DELTA_MAX_BYTES);
		if (!len)
			continue;
		assert_int_equal(mem_delta_judge(delta, len), 0);
		mem_delta_apply(old, delta, len);
		assert_memory_equal(old, new, sizeof(old));
		made++;
	}
	assert_true(made > 1000);
	assert_int_equal(mem_delta_make(new, new, delta), 0);
}

static void test_bad_deltas_are_refused(void **unused)
{
	static const struct {
		uint8_t bytes[24];
		uint32_t len;
	} bad[] = {
		{ { 0 }, 0 },                                           /* empty */
		{ { 0, 0, 1 }, 3 },                                     /* half a head */
		{ { 0, 0, 0, 0 }, 4 },                                  /* an empty run */
		{ { 0, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8 }, 12 },         /* shorter than it says */
		{ { 0, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8 }, 12 },         /* begins behind the page */
		{ { 0xff, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8 }, 20 },
		{ { 0xff, 0xff, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8 }, 12 },
		{ { 0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, 13 },      /* something behind it */
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(mem_delta_judge(bad[i].bytes, bad[i].len), -EBADMSG);
}

/* ---- the map against a naive one ---- */

static void compare_finds(const struct mem_map *map, const bool *naive)
{
	uint64_t first = chance(map->page_count), end = first + chance(map->page_count - first + 1);
	uint64_t max = 1 + chance(100), run = 0, count = 0, at = first, run_end;
	bool found = mem_map_find(map, first, end, max, &run, &count);

	while (at < end && !naive[at])
		at++;
	assert_int_equal(found, at < end);
	if (!found)
		return;
	run_end = at;
	while (run_end < end && run_end < at + max && naive[run_end])
		run_end++;
	assert_int_equal(run, at);
	assert_int_equal(count, run_end - at);
}

static void test_map_against_a_naive_one(void **unused)
{
	enum { COUNT = 1000 };
	bool naive[COUNT] = { false };
	struct mem_map map, other;

	(void)unused;
	assert_int_equal(mem_map_init(&map, COUNT), 0);
	assert_int_equal(mem_map_init(&other, COUNT), 0);
	mem_map_set_range(&other, 0, COUNT);
	for (int i = 0; i < 5000; i++) {
		uint64_t first = chance(COUNT), len = chance(MIN(COUNT - first, 200) + 1), sum = 0;
		uint64_t what = chance(3);

		if (what == 0)
			mem_map_set_range(&map, first, len);
		else if (what == 1)
			mem_map_clear_range(&map, first, len);
		else
			mem_map_merge_range(&map, &other, first, len);
		for (uint64_t page = first; page < first + len; page++)
			naive[page] = what != 1;
		compare_finds(&map, naive);
		for (uint64_t page = 0; page < COUNT; page++)
			sum += naive[page];
		assert_int_equal(mem_map_count(&map), sum);
	}
	mem_map_release(&map);
	mem_map_release(&other);
}

/* ---- batches ---- */

static struct mem_space space;
static uint8_t *wire;

static int empty(const struct mem_block *block, uint64_t offset_bytes, uint64_t len_bytes)
{
	memset(block->bytes + offset_bytes, 0, len_bytes);
	return 0;
}

static const struct mem_space_ops ops = { .empty = empty };

static int set_up(void **state)
{
	uint64_t pages[2] = { PAGES, 40 };

	(void)state;
	mem_space_init(&space);
	space.ops = &ops;
	for (uint32_t i = 0; i < 2; i++) {
		struct mem_block block = {
			.len_bytes = pages[i] * MEM_PAGE_BYTES, .backing_bytes = MEM_PAGE_BYTES, .fd = -1,
		};

		block.bytes = calloc(pages[i], MEM_PAGE_BYTES);
		if (!block.bytes || mem_space_add(&space, &block))
			return -1;
	}
	wire = malloc(MEM_BATCH_MAX_BYTES);
	return wire ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < space.count; i++)
		free(space.blocks[i].bytes);
	free(wire);
	return 0;
}

static struct mem_receiver *receiver_of(uint32_t streams)
{
	struct mem_receiver_options options = { .stream_count = streams };
	struct mem_receiver *receiver;
	struct err err = { 0 };

	assert_int_equal(mem_receiver_new(&space, &options, &receiver, &err), 0);
	return receiver;
}

static void test_each_codec_brings_the_pages_back(void **unused)
{
	uint8_t *pages = calloc(MEM_BATCH_PAGES_MAX, MEM_PAGE_BYTES);

	(void)unused;
	for (enum mem_codec codec = 0; codec < MEM_CODEC_COUNT; codec++) {
		struct mem_receiver *receiver = receiver_of(1);
		struct mem_packer *packer = mem_packer_new(0);
		struct err err = { 0 };
		uint32_t len;

		mem_packer_begin(packer, 1);
		for (uint32_t i = 0; i < MEM_BATCH_PAGES_MAX; i++) {
			uint8_t *page = pages + i * MEM_PAGE_BYTES;

			if (i % 3)
				text(page, MEM_PAGE_BYTES);
			else
				noise(page, MEM_PAGE_BYTES);
			mem_packer_page(packer, i, page, i % 3 == 0);
		}
		assert_int_equal(mem_packer_room(packer), 0);
		len = mem_packer_seal(packer, MEM_BATCH_PAGES, codec, wire);
		assert_true(len <= MEM_BATCH_MAX_BYTES);
		if (codec != MEM_CODEC_NONE)
			assert_true(len < MEM_BATCH_PAGES_MAX * MEM_PAGE_BYTES * 2 / 3);
		assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), 0);
		assert_memory_equal(space.blocks[0].bytes, pages,
				    MEM_BATCH_PAGES_MAX * MEM_PAGE_BYTES);
		mem_packer_free(packer);
		mem_receiver_free(receiver);
	}
	free(pages);
}

/* Noise in the packed part: what does not get smaller goes as it is, within the bound. */
static void test_what_does_not_get_smaller_goes_as_it_is(void **unused)
{
	uint8_t page[MEM_PAGE_BYTES];

	(void)unused;
	for (enum mem_codec codec = 0; codec < MEM_CODEC_COUNT; codec++) {
		struct mem_packer *packer = mem_packer_new(0);
		uint32_t len;

		mem_packer_begin(packer, 1);
		for (uint32_t i = 0; i < MEM_BATCH_PAGES_MAX; i++) {
			noise(page, sizeof(page));
			mem_packer_page(packer, i, page, false);
		}
		len = mem_packer_seal(packer, MEM_BATCH_PAGES, codec, wire);
		assert_int_equal(wire[3], MEM_CODEC_NONE);
		assert_int_equal(len, MEM_BATCH_HEAD_BYTES + 8 + MEM_BATCH_PART_BYTES);
		mem_packer_free(packer);
	}
}

/* One page, noise, at `page`, as stream `stream` of round 1; its length. */
static uint32_t one_page(uint64_t page_number, uint32_t stream)
{
	struct mem_packer *packer = mem_packer_new(stream);
	uint8_t page[MEM_PAGE_BYTES];
	uint32_t len;

	noise(page, sizeof(page));
	mem_packer_begin(packer, 1);
	mem_packer_page(packer, page_number, page, true);
	len = mem_packer_seal(packer, MEM_BATCH_PAGES, MEM_CODEC_NONE, wire);
	mem_packer_free(packer);
	return len;
}

static void put(uint32_t at, uint64_t value, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i++)
		wire[at + i] = (uint8_t)(value >> (8 * i));
}

static void test_lies_are_refused_and_change_nothing(void **unused)
{
	static const struct {
		uint32_t at;
		uint64_t value;
		uint32_t bytes;
		const char *what;
	} lies[] = {
		{ 0, 2, 2, "another version" }, { 2, 0, 1, "no kind" }, { 2, 3, 1, "no such kind" },
		{ 2, 2, 1, "an end with contents" }, { 3, 3, 1, "no such codec" },
		{ 3, 1, 1, "a codec that saves nothing" }, { 4, 2, 4, "another round" },
		{ 4, 0, 4, "no round" }, { 8, 1, 4, "another stream" }, { 8, 77, 4, "no stream" },
		{ 12, 0, 4, "no entries" }, { 12, 257, 4, "too many entries" },
		{ 12, UINT32_MAX, 4, "very many entries" }, { 16, 0, 4, "nothing stored" },
		{ 16, 8192, 4, "more stored" }, { 16, UINT32_MAX, 4, "very much stored" },
		{ 16, UINT64_C(0xfffff000), 4, "a sum that wraps" },
		{ 20, 1, 4, "packed bytes that no entry has" }, { 24, 1, 4, "packed wire bytes" },
		{ 28, 1, 4, "not zero" }, { 32, 1, 8, "another number" },
		{ 40, PAGES, 5, "a page in a gap" }, { 40, 512, 5, "a page of another stream" },
		{ 40, 552, 5, "behind the last block" }, { 40, UINT64_C(0xffffffffff), 5, "far away" },
		{ 45, 0, 1, "no kind of entry" }, { 45, 5, 1, "no such entry" },
		{ 45, 3, 1, "packed, but stored" }, { 45, 4, 1, "delta, but stored" },
		{ 46, 0, 2, "no pages" }, { 46, 2, 2, "two pages" }, { 46, 65535, 2, "many pages" },
	};
	uint8_t *before = malloc(PAGES * MEM_PAGE_BYTES);

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(lies); i++) {
		struct mem_receiver *receiver = receiver_of(2);
		struct err err = { 0 };
		uint32_t len = one_page(299, 0);

		memcpy(before, space.blocks[0].bytes, PAGES * MEM_PAGE_BYTES);
		put(lies[i].at, lies[i].value, lies[i].bytes);
		if (mem_receiver_batch(receiver, 0, wire, len, &err) != -EBADMSG)
			fail_msg("taken: %s", lies[i].what);
		assert_int_equal(err.id, ERR_MEM_PROTOCOL);
		assert_memory_equal(before, space.blocks[0].bytes, PAGES * MEM_PAGE_BYTES);
		/* And nothing follows a lie. */
		len = one_page(299, 0);
		assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), -EBADMSG);
		mem_receiver_free(receiver);
	}
	free(before);
}

static void test_each_cut_and_each_surplus_is_refused(void **unused)
{
	uint32_t full = one_page(3, 0);

	(void)unused;
	for (uint32_t len = 0; len < full + 2; len++) {
		struct mem_receiver *receiver;
		struct err err = { 0 };

		if (len > 60 && len < full - 3)
			continue;
		receiver = receiver_of(1);
		assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err),
				 len == full ? 0 : -EBADMSG);
		mem_receiver_free(receiver);
	}
}

static void test_a_delta_on_something_else_is_refused(void **unused)
{
	struct mem_receiver *receiver = receiver_of(1);
	struct mem_packer *packer = mem_packer_new(0);
	const uint8_t delta[12] = { 0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8 };
	uint8_t page[MEM_PAGE_BYTES];
	struct err err = { 0 };
	uint32_t len;

	(void)unused;
	noise(page, sizeof(page));
	mem_packer_begin(packer, 1);
	mem_packer_page(packer, 5, page, true);
	len = mem_packer_seal(packer, MEM_BATCH_PAGES, MEM_CODEC_NONE, wire);
	assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), 0);
	mem_packer_begin(packer, 1);
	mem_packer_delta(packer, 5, delta, sizeof(delta), 12345);
	len = mem_packer_seal(packer, MEM_BATCH_PAGES, MEM_CODEC_NONE, wire);
	assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), -EBADMSG);
	mem_packer_free(packer);
	mem_receiver_free(receiver);
	/* On a page that nobody has sent. */
	receiver = receiver_of(1);
	packer = mem_packer_new(0);
	mem_packer_begin(packer, 1);
	mem_packer_delta(packer, 6, delta, sizeof(delta), 12345);
	len = mem_packer_seal(packer, MEM_BATCH_PAGES, MEM_CODEC_NONE, wire);
	assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), -EBADMSG);
	mem_packer_free(packer);
	mem_receiver_free(receiver);
}

/* A round has ended when all streams say so; closing asks for just that round. */
static void test_rounds_end_on_all_streams(void **unused)
{
	struct mem_receiver *receiver = receiver_of(3);
	struct mem_packer *packers[3];
	struct err err = { 0 };
	uint32_t len;

	(void)unused;
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(mem_receiver_rounds(receiver), 0);
		assert_int_equal(mem_receiver_close(receiver, 1, &err), -EBADMSG);
		packers[i] = mem_packer_new(i);
		mem_packer_begin(packers[i], 1);
		len = mem_packer_seal(packers[i], MEM_BATCH_END, MEM_CODEC_NONE, wire);
		assert_int_equal(mem_receiver_batch(receiver, i, wire, len, &err), 0);
	}
	assert_int_equal(mem_receiver_rounds(receiver), 1);
	assert_int_equal(mem_receiver_close(receiver, 2, &err), -EBADMSG);
	assert_int_equal(mem_receiver_close(receiver, 1, &err), 0);
	mem_packer_begin(packers[0], 2);
	len = mem_packer_seal(packers[0], MEM_BATCH_END, MEM_CODEC_NONE, wire);
	assert_int_equal(mem_receiver_batch(receiver, 0, wire, len, &err), -EBADMSG);
	for (uint32_t i = 0; i < 3; i++)
		mem_packer_free(packers[i]);
	mem_receiver_free(receiver);
}

static void test_pages_find_their_blocks(void **unused)
{
	(void)unused;
	assert_ptr_equal(mem_space_block_of(&space, 0), &space.blocks[0]);
	assert_ptr_equal(mem_space_block_of(&space, PAGES - 1), &space.blocks[0]);
	assert_null(mem_space_block_of(&space, PAGES));
	assert_null(mem_space_block_of(&space, 511));
	assert_ptr_equal(mem_space_block_of(&space, 512), &space.blocks[1]);
	assert_ptr_equal(mem_space_block_of(&space, 551), &space.blocks[1]);
	assert_null(mem_space_block_of(&space, 552));
	assert_null(mem_space_block_of(&space, UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zero_is_told_to_the_last_byte),
		cmocka_unit_test(test_noise_is_dense_and_text_is_not),
		cmocka_unit_test(test_deltas_lead_from_old_to_new),
		cmocka_unit_test(test_bad_deltas_are_refused),
		cmocka_unit_test(test_map_against_a_naive_one),
		cmocka_unit_test(test_each_codec_brings_the_pages_back),
		cmocka_unit_test(test_what_does_not_get_smaller_goes_as_it_is),
		cmocka_unit_test(test_lies_are_refused_and_change_nothing),
		cmocka_unit_test(test_each_cut_and_each_surplus_is_refused),
		cmocka_unit_test(test_a_delta_on_something_else_is_refused),
		cmocka_unit_test(test_rounds_end_on_all_streams),
		cmocka_unit_test(test_pages_find_their_blocks),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_map.h"

#include <errno.h>
#include <stdlib.h>

int mem_map_init(struct mem_map *map, uint64_t page_count)
{
	map->page_count = page_count;
	map->words = calloc(mem_map_word_count(map) + 1, sizeof(*map->words));
	return map->words ? 0 : -ENOMEM;
}

void mem_map_release(struct mem_map *map)
{
	free(map->words);
	map->words = NULL;
	map->page_count = 0;
}

/* The bits of one word that lie in [first, end); first lies in that word. */
static uint64_t word_mask(uint64_t first, uint64_t end)
{
	uint64_t low = first % MEM_MAP_WORD_PAGES;
	uint64_t word_end = first - low + MEM_MAP_WORD_PAGES;
	uint64_t mask = UINT64_MAX << low;

	if (end < word_end)
		mask &= UINT64_MAX >> (word_end - end);
	return mask;
}

static uint64_t next_word(uint64_t page)
{
	return page - page % MEM_MAP_WORD_PAGES + MEM_MAP_WORD_PAGES;
}

void mem_map_set_range(struct mem_map *map, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	CHECK(end <= map->page_count);
	for (uint64_t page = first; page < end; page = next_word(page))
		map->words[page / MEM_MAP_WORD_PAGES] |= word_mask(page, end);
}

void mem_map_clear_range(struct mem_map *map, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;

	CHECK(end <= map->page_count);
	for (uint64_t page = first; page < end; page = next_word(page))
		map->words[page / MEM_MAP_WORD_PAGES] &= ~word_mask(page, end);
}

void mem_map_merge_range(struct mem_map *to, const struct mem_map *from, uint64_t first,
			 uint64_t count)
{
	uint64_t end = first + count;

	CHECK(end <= to->page_count);
	CHECK(end <= from->page_count);
	for (uint64_t page = first; page < end; page = next_word(page))
		to->words[page / MEM_MAP_WORD_PAGES] |=
			from->words[page / MEM_MAP_WORD_PAGES] & word_mask(page, end);
}

uint64_t mem_map_count(const struct mem_map *map)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < mem_map_word_count(map); i++)
		count += (uint64_t)__builtin_popcountll(map->words[i]);
	return count;
}

/* The first page of [first, end) whose bit is `set`; end when there is none. */
static uint64_t find_bit(const struct mem_map *map, uint64_t first, uint64_t end, bool set)
{
	for (uint64_t page = first; page < end; page = next_word(page)) {
		uint64_t word = map->words[page / MEM_MAP_WORD_PAGES];

		word = (set ? word : ~word) & word_mask(page, end);
		if (word)
			return page - page % MEM_MAP_WORD_PAGES + (uint64_t)__builtin_ctzll(word);
	}
	return end;
}

bool mem_map_find(const struct mem_map *map, uint64_t first, uint64_t end, uint64_t max,
		  uint64_t *run_first, uint64_t *run_count)
{
	uint64_t at;

	CHECK(end <= map->page_count);
	CHECK(max > 0);
	at = find_bit(map, first, end, true);
	if (at >= end)
		return false;
	*run_first = at;
	*run_count = find_bit(map, at, MIN(end, at + max), false) - at;
	return true;
}

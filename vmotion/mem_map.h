/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_map.h - one bit per guest page, in words that several threads may share.
 *
 * Pages are numbered over all blocks (mem_space.h).  Words are looked at in order: a map of a
 * terabyte is 32 MiB, which the final round walks in a few milliseconds.
 *
 * Threading: the _atomic functions from any thread; of the others, two threads may work on one
 * map as long as they keep to different words.
 */
#ifndef BM_VMOTION_MEM_MAP_H
#define BM_VMOTION_MEM_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

#define MEM_MAP_WORD_PAGES 64u

struct mem_map {
	uint64_t *words;                /* owns */
	uint64_t page_count;
};

/* All clear.  0 or -ENOMEM. */
MUST_CHECK int mem_map_init(struct mem_map *map, uint64_t page_count);
void mem_map_release(struct mem_map *map);

static inline uint64_t mem_map_word_count(const struct mem_map *map)
{
	return map->page_count / MEM_MAP_WORD_PAGES + (map->page_count % MEM_MAP_WORD_PAGES != 0);
}

static inline bool mem_map_test(const struct mem_map *map, uint64_t page)
{
	return map->words[page / MEM_MAP_WORD_PAGES] >> (page % MEM_MAP_WORD_PAGES) & 1;
}

static inline void mem_map_set(struct mem_map *map, uint64_t page)
{
	map->words[page / MEM_MAP_WORD_PAGES] |= UINT64_C(1) << (page % MEM_MAP_WORD_PAGES);
}

static inline void mem_map_clear(struct mem_map *map, uint64_t page)
{
	map->words[page / MEM_MAP_WORD_PAGES] &= ~(UINT64_C(1) << (page % MEM_MAP_WORD_PAGES));
}

/* A full barrier: what was written before it is seen by whoever takes the bit. */
static inline void mem_map_set_atomic(struct mem_map *map, uint64_t page)
{
	__atomic_fetch_or(&map->words[page / MEM_MAP_WORD_PAGES],
			  UINT64_C(1) << (page % MEM_MAP_WORD_PAGES), __ATOMIC_SEQ_CST);
}

/* Take a word's bits away and return them. */
static inline uint64_t mem_map_take_word_atomic(struct mem_map *map, uint64_t word)
{
	return __atomic_exchange_n(&map->words[word], 0, __ATOMIC_SEQ_CST);
}

/* Pages [first, first + count). */
void mem_map_set_range(struct mem_map *map, uint64_t first, uint64_t count);
void mem_map_clear_range(struct mem_map *map, uint64_t first, uint64_t count);
/* Set in `to` what of [first, first + count) is set in `from`. */
void mem_map_merge_range(struct mem_map *to, const struct mem_map *from, uint64_t first,
			 uint64_t count);
uint64_t mem_map_count(const struct mem_map *map);

/*
 * The next run of set pages that begins in [first, end), not beyond end and at most max long.
 * False: none.
 */
bool mem_map_find(const struct mem_map *map, uint64_t first, uint64_t end, uint64_t max,
		  uint64_t *run_first, uint64_t *run_count);

#endif

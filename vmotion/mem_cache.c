/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmotion/mem_rounds_private.h"

int mem_cache_init(struct mem_cache *cache, uint64_t len_bytes)
{
	memset(cache, 0, sizeof(*cache));
	cache->slot_count = len_bytes / MEM_PAGE_BYTES;
	if (!cache->slot_count)
		return 0;
	cache->tags = calloc(cache->slot_count, sizeof(*cache->tags));
	cache->pages = malloc(cache->slot_count * MEM_PAGE_BYTES);
	if (cache->tags && cache->pages)
		return 0;
	mem_cache_release(cache);
	return -ENOMEM;
}

void mem_cache_release(struct mem_cache *cache)
{
	free(cache->tags);
	free(cache->pages);
	memset(cache, 0, sizeof(*cache));
}

/* Fibonacci hashing: a shard's pages lie in stripes, which a plain remainder would pile up. */
static uint64_t slot_of(const struct mem_cache *cache, uint64_t page)
{
	uint64_t mixed = page * UINT64_C(0x9E3779B97F4A7C15);

	return (uint64_t)((unsigned __int128)mixed * cache->slot_count >> 64);
}

const uint8_t *mem_cache_find(const struct mem_cache *cache, uint64_t page)
{
	uint64_t slot;

	if (!cache->slot_count)
		return NULL;
	slot = slot_of(cache, page);
	return cache->tags[slot] == page + 1 ? cache->pages + slot * MEM_PAGE_BYTES : NULL;
}

void mem_cache_keep(struct mem_cache *cache, uint64_t page, const uint8_t *bytes)
{
	uint64_t slot;

	if (!cache->slot_count)
		return;
	slot = slot_of(cache, page);
	cache->tags[slot] = page + 1;
	memcpy(cache->pages + slot * MEM_PAGE_BYTES, bytes, MEM_PAGE_BYTES);
}

void mem_cache_drop(struct mem_cache *cache, uint64_t page)
{
	if (mem_cache_find(cache, page))
		cache->tags[slot_of(cache, page)] = 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_store.h - what the copy found in each region, for the read-back verification.
 *
 * A region is unknown (compare it with the source), zero, or has an XXH3 hash of its bytes.
 * Memory: 8 bytes a region in chunks that come with their first hash; runs of zero cost
 * one pointer a chunk.  Beyond limit_bytes regions stay unknown: verification then reads
 * the source too, nothing is skipped.
 */
#ifndef BM_HASH_STORE_H
#define BM_HASH_STORE_H

#include <stdbool.h>
#include <stdint.h>

struct hash_store;

enum hash_kind { HASH_UNKNOWN, HASH_ZERO, HASH_VALUE };

/* NULL: out of memory. */
struct hash_store *hash_store_new(uint64_t region_count, uint64_t limit_bytes);
void hash_store_free(struct hash_store *store);

void hash_store_put(struct hash_store *store, uint64_t region, uint64_t hash);
void hash_store_put_zero(struct hash_store *store, uint64_t first_region, uint64_t region_count);
/* What was known of these regions is void. */
void hash_store_forget(struct hash_store *store, uint64_t first_region, uint64_t region_count);
enum hash_kind hash_store_get(const struct hash_store *store, uint64_t region, uint64_t *hash);

/* The hash that is stored: of a region's bytes, never one of the store's own marks. */
uint64_t hash_region(const void *bytes, uint64_t len_bytes);
bool bytes_are_zero(const void *bytes, uint64_t len_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_rounds_private.h - the sender's inside: one shard per stream.
 */
#ifndef BM_VMOTION_MEM_ROUNDS_PRIVATE_H
#define BM_VMOTION_MEM_ROUNDS_PRIVATE_H

#include <pthread.h>

#include "blkmirror/mirror/token_bucket.h"
#include "vmotion/mem_rounds.h"

#define MEM_RUN_PAGES 64u

struct mem_hash {
	uint64_t low, high;
};

/* What was last sent of pages that change often: direct-mapped, so a page has one place. */
struct mem_cache {
	uint64_t slot_count;
	uint64_t *tags;                 /* page + 1; 0: empty */
	uint8_t *pages;
};

struct mem_shard {
	struct mem_rounds *rounds;
	uint32_t index;
	pthread_t thread;
	bool has_thread;
	/* its own */
	uint64_t chunk;                 /* where in the sweep */
	uint64_t page;
	bool ended;                     /* this round */
	struct mem_packer *packer;
	struct mem_cache cache;
	struct mem_codec_facts codecs;
	enum mem_codec codec;
	struct {                        /* since the codec was last looked at */
		uint64_t begun_ns, waited_ns, wire_bytes;
		uint32_t batches;
	} window;
	struct mem_round_stats stats;
	uint8_t snapshot[MEM_RUN_PAGES * MEM_PAGE_BYTES];
	/* under rounds->lock */
	struct mem_buf *free_bufs;
	uint32_t free_count;
	uint32_t started_round;
	struct mem_buf *bufs;
};

struct mem_rounds {
	const struct mem_space *space;
	struct mem_tracker *tracker;
	struct mem_link *link;
	struct mem_rounds_options options;
	uint32_t round;                 /* the last one started; 0: none */
	uint32_t harvests;
	struct mem_map dirty;           /* left to send; words are a chunk's, and so a shard's own */
	struct mem_map filled;          /* what the other end has that is not zero */
	struct mem_map late;            /* for mem_rounds_check_quiet() */
	struct mem_map absent;          /* for a harvest: what may be a hole */
	struct mem_hash *hashes;        /* of what it has, where filled; mapped, touched as needed */
	pthread_mutex_t lock;
	pthread_cond_t changed;         /* buffers, tokens, rounds, acknowledgements, cancelled */
	/* under lock */
	struct token_bucket cap;
	bool capped;
	uint32_t wanted_round;          /* shards' threads work up to it */
	uint32_t running;               /* shards at work */
	uint32_t acknowledged;
	bool stopping;
	int error;                      /* the first; ends everything */
	struct mem_shard *shards[MEM_STREAMS_MAX];
};

/* mem_shard.c */
MUST_CHECK int mem_shard_new(struct mem_rounds *rounds, uint32_t index, struct mem_shard **out);
/* Its thread is joined.  NULL is harmless. */
void mem_shard_free(struct mem_shard *shard);
void mem_shard_begin(struct mem_shard *shard);
enum mem_step mem_shard_step(struct mem_shard *shard);

/* mem_cache.c */
MUST_CHECK int mem_cache_init(struct mem_cache *cache, uint64_t len_bytes);
void mem_cache_release(struct mem_cache *cache);
/* What was last sent of this page; NULL: not known. */
const uint8_t *mem_cache_find(const struct mem_cache *cache, uint64_t page);
void mem_cache_keep(struct mem_cache *cache, uint64_t page, const uint8_t *bytes);
void mem_cache_drop(struct mem_cache *cache, uint64_t page);

/* mem_rounds.c */
void mem_rounds_fail(struct mem_rounds *rounds, int error);
/* May a batch go out now?  If not, *wait_ns until one may. */
bool mem_rounds_may_send_locked(struct mem_rounds *rounds, uint64_t *wait_ns);

#endif

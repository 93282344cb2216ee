/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_shard.c - one stream's share of a round: every stream_count-th chunk, page by page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxh_x86dispatch.h>

#include <xxhash.h>

#include "blkmirror/base/overflow.h"
#include "vmotion/mem_rounds_private.h"

#define CODEC_REVIEW_BATCHES 16u

/* ---- life ---- */

static void buf_done(struct mem_buf *buf, int result);

static int new_bufs(struct mem_shard *shard)
{
	shard->bufs = calloc(MEM_STREAM_BUFS, sizeof(*shard->bufs));
	if (!shard->bufs)
		return -ENOMEM;
	for (uint32_t i = 0; i < MEM_STREAM_BUFS; i++) {
		struct mem_buf *buf = &shard->bufs[i];

		buf->stream = shard->index;
		buf->done = buf_done;
		buf->owner = shard;
		buf->next = shard->free_bufs;
		shard->free_bufs = buf;
	}
	shard->free_count = MEM_STREAM_BUFS;
	return 0;
}

int mem_shard_new(struct mem_rounds *rounds, uint32_t index, struct mem_shard **out)
{
	struct mem_shard *shard = calloc(1, sizeof(*shard));
	int rc = -ENOMEM;

	if (!shard)
		return rc;
	shard->rounds = rounds;
	shard->index = index;
	shard->ended = true;
	shard->codec = rounds->options.codec == MEM_CODEC_AUTO ? MEM_CODEC_LZ4 :
								 rounds->options.codec;
	mem_codec_facts_init(&shard->codecs);
	shard->packer = mem_packer_new(index);
	if (shard->packer)
		rc = mem_cache_init(&shard->cache,
				    rounds->options.cache_bytes / rounds->options.stream_count);
	if (!rc)
		rc = new_bufs(shard);
	if (rc) {
		mem_shard_free(shard);
		return rc;
	}
	*out = shard;
	return 0;
}

void mem_shard_free(struct mem_shard *shard)
{
	if (!shard)
		return;
	CHECK(!shard->has_thread);
	CHECK(shard->free_count == (shard->bufs ? MEM_STREAM_BUFS : 0));
	mem_packer_free(shard->packer);
	mem_cache_release(&shard->cache);
	free(shard->bufs);
	free(shard);
}

void mem_shard_begin(struct mem_shard *shard)
{
	shard->chunk = shard->index;
	shard->page = shard->chunk * MEM_CHUNK_PAGES;
	shard->ended = false;
	memset(&shard->window, 0, sizeof(shard->window));
	shard->window.begun_ns = shard->rounds->options.now_ns();
	mem_packer_begin(shard->packer, shard->rounds->round);
}

/* ---- the link ---- */

static void buf_done(struct mem_buf *buf, int result)
{
	struct mem_shard *shard = buf->owner;
	struct mem_rounds *rounds = shard->rounds;

	if (result)
		mem_rounds_fail(rounds, result);
	pthread_mutex_lock(&rounds->lock);
	buf->next = shard->free_bufs;
	shard->free_bufs = buf;
	shard->free_count++;
	pthread_cond_broadcast(&rounds->changed);
	pthread_mutex_unlock(&rounds->lock);
}

static struct mem_buf *take_buf(struct mem_shard *shard)
{
	struct mem_rounds *rounds = shard->rounds;
	struct mem_buf *buf = NULL;
	uint64_t wait_ns;

	pthread_mutex_lock(&rounds->lock);
	if (mem_rounds_may_send_locked(rounds, &wait_ns))
		buf = shard->free_bufs;
	if (buf) {
		shard->free_bufs = buf->next;
		shard->free_count--;
	}
	pthread_mutex_unlock(&rounds->lock);
	return buf;
}

/* P4: compress and hand over */
static void send_batch(struct mem_shard *shard, struct mem_buf *buf, enum mem_batch_kind kind)
{
	struct mem_rounds *rounds = shard->rounds;

	buf->len_bytes = mem_packer_seal(shard->packer, kind, shard->codec, buf->bytes);
	shard->stats.wire_bytes += buf->len_bytes;
	if (kind == MEM_BATCH_PAGES)
		shard->stats.batches[shard->codec]++;
	pthread_mutex_lock(&rounds->lock);
	if (rounds->capped)
		token_bucket_take(&rounds->cap, buf->len_bytes);
	pthread_mutex_unlock(&rounds->lock);
	mem_packer_begin(shard->packer, rounds->round);
	rounds->link->ops->send(rounds->link, buf);
}

/* ---- pages ---- */

static struct mem_hash hash_of(const struct mem_rounds *rounds, const uint8_t *bytes)
{
	XXH128_hash_t hash = XXH3_128bits_withSeed_dispatch(bytes, MEM_PAGE_BYTES,
							    rounds->options.hash_seed);

	return (struct mem_hash) { .low = hash.low64, .high = hash.high64 };
}

static void send_zero(struct mem_shard *shard, uint64_t page)
{
	struct mem_rounds *rounds = shard->rounds;

	if (!mem_map_test(&rounds->filled, page)) {
		shard->stats.unchanged_pages++;
		return;
	}
	mem_map_clear(&rounds->filled, page);
	mem_cache_drop(&shard->cache, page);
	mem_packer_zero(shard->packer, page);
	shard->stats.zero_pages++;
}

static bool send_delta(struct mem_shard *shard, uint64_t page, const uint8_t *bytes)
{
	const uint8_t *old = mem_cache_find(&shard->cache, page);
	uint8_t delta[MEM_DELTA_MAX_BYTES];
	uint32_t len;

	if (!old)
		return false;
	len = mem_delta_make(old, bytes, delta);
	if (!len)
		return false;
	mem_packer_delta(shard->packer, page, delta, len,
			 XXH3_64bits_dispatch(bytes, MEM_PAGE_BYTES));
	shard->stats.delta_pages++;
	return true;
}

/* P3: one snapshot, `bytes`; nothing here looks at the guest's page again (R-E2) */
static void send_page(struct mem_shard *shard, uint64_t page, const uint8_t *bytes)
{
	struct mem_rounds *rounds = shard->rounds;
	struct mem_hash hash;
	bool known = mem_map_test(&rounds->filled, page), dense;

	if (mem_page_is_zero(bytes)) {
		send_zero(shard, page);
		return;
	}
	hash = hash_of(rounds, bytes);
	if (known && hash.low == rounds->hashes[page].low && hash.high == rounds->hashes[page].high) {
		shard->stats.unchanged_pages++;
		return;
	}
	if (!known || !send_delta(shard, page, bytes)) {
		dense = mem_page_is_dense(bytes);
		mem_packer_page(shard->packer, page, bytes, dense);
		if (dense)
			shard->stats.stored_pages++;
		else
			shard->stats.packed_pages++;
	}
	/* Once sent is once: only what changes again is worth its place. */
	if (known)
		mem_cache_keep(&shard->cache, page, bytes);
	rounds->hashes[page] = hash;
	mem_map_set(&rounds->filled, page);
}

/* P2: the next run of this shard's dirty pages, at most max long */
static bool next_run(struct mem_shard *shard, uint64_t max, uint64_t *first, uint64_t *count)
{
	struct mem_rounds *rounds = shard->rounds;
	uint64_t page_count = rounds->dirty.page_count;

	while (shard->page < page_count) {
		uint64_t chunk_end = MIN((shard->chunk + 1) * MEM_CHUNK_PAGES, page_count);

		if (mem_map_find(&rounds->dirty, shard->page, chunk_end, max, first, count)) {
			shard->page = *first + *count;
			if (shard->page < chunk_end)
				return true;
			shard->chunk += rounds->options.stream_count;
			shard->page = shard->chunk * MEM_CHUNK_PAGES;
			return true;
		}
		shard->chunk += rounds->options.stream_count;
		shard->page = shard->chunk * MEM_CHUNK_PAGES;
	}
	return false;
}

/* Of what next_run() told: one read, then page by page. */
static int send_run(struct mem_shard *shard, uint64_t first, uint64_t count)
{
	struct mem_rounds *rounds = shard->rounds;
	const struct mem_block *block = mem_space_block_of(rounds->space, first);
	int rc;

	CHECK(block);
	mem_map_clear_range(&rounds->dirty, first, count);
	rc = rounds->space->ops->read(block, mem_block_offset(block, first), shard->snapshot,
				      count * MEM_PAGE_BYTES);
	if (rc)
		return rc;
	shard->stats.read_pages += count;
	for (uint64_t i = 0; i < count; i++)
		send_page(shard, first + i, shard->snapshot + i * MEM_PAGE_BYTES);
	return 0;
}

/* ---- a step ---- */

/* Per MiB on the wire: exact while the link makes us wait, else only the least that it does. */
static void review_link(struct mem_shard *shard, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - shard->window.begun_ns, per_mib;

	if (!shard->window.wire_bytes || !u64_mul(elapsed_ns, UINT64_C(1) << 20, &per_mib))
		return;
	per_mib /= shard->window.wire_bytes;
	if (shard->window.waited_ns > elapsed_ns / 8)
		shard->codecs.link_ns = per_mib;
	else
		shard->codecs.link_ns = MIN(shard->codecs.link_ns, per_mib);
}

static void review_codec(struct mem_shard *shard, uint64_t raw_bytes, uint64_t wire_bytes,
			 uint64_t encode_ns)
{
	uint64_t now_ns = shard->rounds->options.now_ns();

	if (shard->rounds->options.codec != MEM_CODEC_AUTO)
		return;
	mem_codec_facts_note(&shard->codecs, shard->codec, raw_bytes, wire_bytes, encode_ns);
	shard->window.wire_bytes += wire_bytes;
	if (++shard->window.batches < CODEC_REVIEW_BATCHES)
		return;
	review_link(shard, now_ns);
	shard->codec = mem_policy_codec(&shard->codecs, shard->codec);
	memset(&shard->window, 0, sizeof(shard->window));
	shard->window.begun_ns = now_ns;
}

/* Gather until a batch is full or nothing is left.  Negative: -errno. */
static int gather(struct mem_shard *shard)
{
	uint64_t first, count;
	uint32_t room;

	while ((room = mem_packer_room(shard->packer)) > 0) {
		int rc = mem_rounds_error(shard->rounds);

		if (rc)
			return rc;
		if (!next_run(shard, MIN(room, MEM_RUN_PAGES), &first, &count))
			return 0;
		rc = send_run(shard, first, count);
		if (rc)
			return rc;
	}
	return 0;
}

enum mem_step mem_shard_step(struct mem_shard *shard)
{
	struct mem_rounds *rounds = shard->rounds;
	struct mem_buf *buf;
	uint64_t begun_ns, raw_bytes, wire_bytes, encode_ns;
	int rc;

	if (shard->ended || mem_rounds_error(rounds))
		return MEM_STEP_DONE;
	buf = take_buf(shard);          /* room on the link comes before any reading */
	if (!buf)
		return MEM_STEP_NO_ROOM;
	begun_ns = rounds->options.now_ns();
	rc = gather(shard);
	if (rc) {
		mem_rounds_fail(rounds, rc);
		buf_done(buf, 0);
		return MEM_STEP_DONE;
	}
	if (mem_packer_is_empty(shard->packer)) {
		shard->ended = true;
		send_batch(shard, buf, MEM_BATCH_END);
		return MEM_STEP_DONE;
	}
	raw_bytes = mem_packer_raw_bytes(shard->packer);
	wire_bytes = shard->stats.wire_bytes;
	send_batch(shard, buf, MEM_BATCH_PAGES);
	encode_ns = rounds->options.now_ns() - begun_ns;
	shard->stats.encode_ns += encode_ns;
	review_codec(shard, raw_bytes, shard->stats.wire_bytes - wire_bytes, encode_ns);
	return MEM_STEP_MORE;
}

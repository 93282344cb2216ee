/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_rounds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <xxh_x86dispatch.h>

#include <xxhash.h>

#include "blkmirror/base/loop.h"
#include "vmotion/mem_rounds_private.h"

#define CAP_BURST_BYTES (2 * (uint64_t)MEM_BATCH_MAX_BYTES)

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- life ---- */

static void init_locks(struct mem_rounds *rounds)
{
	pthread_condattr_t attributes;

	pthread_mutex_init(&rounds->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&rounds->changed, &attributes);
	pthread_condattr_destroy(&attributes);
}

/* Untouched parts of it cost nothing: a hole has no hash. */
static int map_hashes(struct mem_rounds *rounds)
{
	void *hashes = mmap(NULL, rounds->space->page_count * sizeof(*rounds->hashes),
			    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);

	if (hashes == MAP_FAILED)
		return -ENOMEM;
	rounds->hashes = hashes;
	return 0;
}

static int allocate(struct mem_rounds *rounds)
{
	uint64_t page_count = rounds->space->page_count;
	int rc;

	rc = mem_map_init(&rounds->dirty, page_count);
	if (!rc)
		rc = mem_map_init(&rounds->filled, page_count);
	if (!rc)
		rc = mem_map_init(&rounds->late, page_count);
	if (!rc)
		rc = mem_map_init(&rounds->absent, page_count);
	if (!rc)
		rc = map_hashes(rounds);
	for (uint32_t i = 0; !rc && i < rounds->options.stream_count; i++)
		rc = mem_shard_new(rounds, i, &rounds->shards[i]);
	return rc;
}

int mem_rounds_new(const struct mem_space *space, struct mem_tracker *tracker,
		   struct mem_link *link, const struct mem_rounds_options *options,
		   struct mem_rounds **out, struct err *err)
{
	struct mem_rounds *rounds;
	int rc;

	CHECK(space->count > 0);
	CHECK(options->stream_count > 0);
	CHECK(options->stream_count <= MEM_STREAMS_MAX);
	CHECK(options->codec <= MEM_CODEC_AUTO);
	rounds = calloc(1, sizeof(*rounds));
	if (!rounds)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for a migration");
	rounds->space = space;
	rounds->tracker = tracker;
	rounds->link = link;
	rounds->options = *options;
	if (!rounds->options.now_ns)
		rounds->options.now_ns = monotonic_ns;
	init_locks(rounds);
	rc = allocate(rounds);
	if (rc) {
		mem_rounds_free(rounds);
		return err_set(err, ERR_NO_MEMORY, rc,
			       "no memory to track a guest of %" PRIu64 " MiB",
			       space->len_bytes >> 20);
	}
	mem_rounds_set_cap(rounds, options->cap_bytes_per_s);
	*out = rounds;
	return 0;
}

static void join_threads(struct mem_rounds *rounds)
{
	pthread_mutex_lock(&rounds->lock);
	rounds->stopping = true;
	pthread_cond_broadcast(&rounds->changed);
	pthread_mutex_unlock(&rounds->lock);
	for (uint32_t i = 0; i < rounds->options.stream_count; i++) {
		struct mem_shard *shard = rounds->shards[i];

		if (!shard || !shard->has_thread)
			continue;
		pthread_join(shard->thread, NULL);
		shard->has_thread = false;
	}
}

void mem_rounds_free(struct mem_rounds *rounds)
{
	if (!rounds)
		return;
	join_threads(rounds);
	for (uint32_t i = 0; i < rounds->options.stream_count; i++)
		mem_shard_free(rounds->shards[i]);
	if (rounds->hashes)
		munmap(rounds->hashes, rounds->space->page_count * sizeof(*rounds->hashes));
	mem_map_release(&rounds->absent);
	mem_map_release(&rounds->late);
	mem_map_release(&rounds->filled);
	mem_map_release(&rounds->dirty);
	pthread_cond_destroy(&rounds->changed);
	pthread_mutex_destroy(&rounds->lock);
	free(rounds);
}

/* ---- what others say meanwhile ---- */

void mem_rounds_fail(struct mem_rounds *rounds, int error)
{
	pthread_mutex_lock(&rounds->lock);
	if (!rounds->error)
		rounds->error = error;
	pthread_cond_broadcast(&rounds->changed);
	pthread_mutex_unlock(&rounds->lock);
}

int mem_rounds_error(struct mem_rounds *rounds)
{
	int error;

	pthread_mutex_lock(&rounds->lock);
	error = rounds->error;
	pthread_mutex_unlock(&rounds->lock);
	return error;
}

void mem_rounds_cancel(struct mem_rounds *rounds)
{
	mem_rounds_fail(rounds, -ECANCELED);
}

void mem_rounds_acknowledged(struct mem_rounds *rounds, uint32_t round)
{
	pthread_mutex_lock(&rounds->lock);
	rounds->acknowledged = MAX(rounds->acknowledged, round);
	pthread_cond_broadcast(&rounds->changed);
	pthread_mutex_unlock(&rounds->lock);
}

void mem_rounds_set_cap(struct mem_rounds *rounds, uint64_t cap_bytes_per_s)
{
	uint64_t now_ns = rounds->options.now_ns();

	pthread_mutex_lock(&rounds->lock);
	if (cap_bytes_per_s && rounds->capped)
		token_bucket_set_rate(&rounds->cap, cap_bytes_per_s, CAP_BURST_BYTES, now_ns);
	else if (cap_bytes_per_s)
		token_bucket_init(&rounds->cap, cap_bytes_per_s, CAP_BURST_BYTES, now_ns);
	rounds->capped = cap_bytes_per_s != 0;
	pthread_cond_broadcast(&rounds->changed);
	pthread_mutex_unlock(&rounds->lock);
}

bool mem_rounds_may_send_locked(struct mem_rounds *rounds, uint64_t *wait_ns)
{
	*wait_ns = 0;
	if (!rounds->capped || token_bucket_look(&rounds->cap, rounds->options.now_ns()) > 0)
		return true;
	*wait_ns = MAX(token_bucket_wait_ns(&rounds->cap), 1);
	return false;
}

/* Wait for any change, at most until deadline_ns.  False: it is past. */
static bool wait_changed_locked(struct mem_rounds *rounds, uint64_t deadline_ns)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};

	if (deadline_ns == UINT64_MAX)
		return pthread_cond_wait(&rounds->changed, &rounds->lock) == 0;
	return pthread_cond_timedwait(&rounds->changed, &rounds->lock, &until) != ETIMEDOUT;
}

/* ---- harvest ---- */

static int set_data(const struct mem_space *space, const struct mem_block *block,
		    struct mem_map *pages, struct err *err)
{
	uint64_t start = 0, end = 0;
	int rc;

	while ((rc = space->ops->next_data(block, end, &start, &end)) == 0)
		mem_map_set_range(pages, block->first_page + start / MEM_PAGE_BYTES,
				  (end - start) / MEM_PAGE_BYTES);
	if (rc == -ENXIO)
		return 0;
	return err_set(err, ERR_MEM_TRACK, rc, "cannot look for data in memory block '%s': %s",
		       block->name, err_strerror(rc));
}

/* What was never written needs not even be read: the other end begins with zeroes (R-E3). */
static int first_pages(struct mem_rounds *rounds, struct err *err)
{
	int rc = 0;

	mem_map_clear_range(&rounds->dirty, 0, rounds->dirty.page_count);
	for (uint32_t i = 0; !rc && i < rounds->space->count; i++)
		rc = set_data(rounds->space, &rounds->space->blocks[i], &rounds->dirty, err);
	return rc;
}

/* The last extent that was found: a long one is looked for once, not by each run in it. */
struct extent {
	const struct mem_block *block;
	uint64_t start_bytes, end_bytes;
};

static int data_from(const struct mem_rounds *rounds, const struct mem_block *block, uint64_t at,
		     struct extent *extent)
{
	int rc;

	if (extent->block == block && at >= extent->start_bytes && at < extent->end_bytes)
		return 0;
	rc = rounds->space->ops->next_data(block, at, &extent->start_bytes, &extent->end_bytes);
	extent->block = block;
	if (rc == -ENXIO)
		extent->start_bytes = extent->end_bytes = block->len_bytes;
	return rc == -ENXIO ? 0 : rc;
}

/* Of a run of pages that the other end has, those that are holes here. */
static int holes_of_run(const struct mem_rounds *rounds, struct extent *extent, uint64_t first,
			uint64_t count, struct mem_map *dirty)
{
	const struct mem_block *block = mem_space_block_of(rounds->space, first);
	uint64_t at = mem_block_offset(block, first), run_end = at + count * MEM_PAGE_BYTES;

	while (at < run_end) {
		int rc = data_from(rounds, block, at, extent);
		uint64_t hole_end = MIN(extent->start_bytes, run_end);

		if (rc)
			return rc;
		if (hole_end > at)
			mem_map_set_range(dirty, block->first_page + at / MEM_PAGE_BYTES,
					  (hole_end - at) / MEM_PAGE_BYTES);
		at = MAX(extent->end_bytes, hole_end);
	}
	return 0;
}

/*
 * Pages that the other end has and that are holes here: a balloon took them.  The kernel tells
 * that of most, but not of all (huge pages), and a page that came back as zeroes must not keep
 * over there what it was (R-E6).
 */
static int find_emptied(struct mem_rounds *rounds, struct mem_map *dirty, struct err *err)
{
	uint64_t page_count = rounds->filled.page_count, first = 0, count = 0;
	struct extent extent = { 0 };
	int rc;

	mem_map_clear_range(&rounds->absent, 0, page_count);
	rc = mem_tracker_absent(rounds->tracker, &rounds->absent, err);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < mem_map_word_count(&rounds->absent); i++)
		rounds->absent.words[i] &= rounds->filled.words[i];
	while (mem_map_find(&rounds->absent, first, page_count, MEM_CHUNK_PAGES, &first, &count)) {
		/* Not beyond the chunk, and so not beyond the block. */
		count = MIN(count, MEM_CHUNK_PAGES - first % MEM_CHUNK_PAGES);
		rc = holes_of_run(rounds, &extent, first, count, dirty);
		if (rc)
			return err_set(err, ERR_MEM_TRACK, rc,
				       "cannot look for holes in the guest's memory: %s",
				       err_strerror(rc));
		first += count;
	}
	return 0;
}

static int harvest_into(struct mem_rounds *rounds, struct mem_map *dirty, struct err *err)
{
	int rc = mem_tracker_harvest(rounds->tracker, dirty, err);

	return rc ? rc : find_emptied(rounds, dirty, err);
}

/* P1: before reading: what changes afterwards is told by the next one */
int mem_rounds_harvest(struct mem_rounds *rounds, struct err *err)
{
	int rc = harvest_into(rounds, &rounds->dirty, err);

	if (!rc && !rounds->harvests)
		rc = first_pages(rounds, err);
	if (!rc)
		rounds->harvests++;
	return rc;
}

uint64_t mem_rounds_left_bytes(const struct mem_rounds *rounds)
{
	return mem_map_count(&rounds->dirty) * MEM_PAGE_BYTES;
}

/* ---- rounds ---- */

void mem_rounds_start(struct mem_rounds *rounds)
{
	CHECK(rounds->harvests > 0);
	rounds->round++;
	for (uint32_t i = 0; i < rounds->options.stream_count; i++)
		mem_shard_begin(rounds->shards[i]);
}

enum mem_step mem_rounds_step(struct mem_rounds *rounds, uint32_t stream)
{
	CHECK(stream < rounds->options.stream_count);
	return mem_shard_step(rounds->shards[stream]);
}

/* Until there is a buffer and a token, or an end of it all. */
static void wait_for_room(struct mem_shard *shard)
{
	struct mem_rounds *rounds = shard->rounds;
	uint64_t begun_ns = rounds->options.now_ns(), waited_ns;

	pthread_mutex_lock(&rounds->lock);
	while (!rounds->error) {
		uint64_t wait_ns, deadline_ns = UINT64_MAX;

		if (mem_rounds_may_send_locked(rounds, &wait_ns)) {
			if (shard->free_bufs)
				break;
		} else {
			deadline_ns = monotonic_ns() + wait_ns;
		}
		wait_changed_locked(rounds, deadline_ns);
	}
	pthread_mutex_unlock(&rounds->lock);
	waited_ns = rounds->options.now_ns() - begun_ns;
	shard->stats.waited_ns += waited_ns;
	shard->window.waited_ns += waited_ns;
}

static void *shard_main(void *arg)
{
	struct mem_shard *shard = arg;
	struct mem_rounds *rounds = shard->rounds;
	enum mem_step step;

	pthread_mutex_lock(&rounds->lock);
	for (;;) {
		while (!rounds->stopping && shard->started_round == rounds->wanted_round)
			wait_changed_locked(rounds, UINT64_MAX);
		if (rounds->stopping)
			break;
		shard->started_round = rounds->wanted_round;
		pthread_mutex_unlock(&rounds->lock);
		while ((step = mem_shard_step(shard)) != MEM_STEP_DONE)
			if (step == MEM_STEP_NO_ROOM)
				wait_for_room(shard);
		pthread_mutex_lock(&rounds->lock);
		rounds->running--;
		pthread_cond_broadcast(&rounds->changed);
	}
	pthread_mutex_unlock(&rounds->lock);
	return NULL;
}

static int start_threads(struct mem_rounds *rounds)
{
	for (uint32_t i = 0; i < rounds->options.stream_count; i++) {
		struct mem_shard *shard = rounds->shards[i];
		int rc;

		if (shard->has_thread)
			continue;
		rc = pthread_create(&shard->thread, NULL, shard_main, shard);
		if (rc)
			return -rc;
		shard->has_thread = true;
		pthread_setname_np(shard->thread, "bm-memory");
	}
	return 0;
}

static int round_error(struct mem_rounds *rounds, int rc, struct err *err)
{
	if (rc == -ECANCELED)
		return err_set(err, ERR_TASK_CANCELLED, rc, "the migration was cancelled");
	return err_set(err, ERR_MEM_SEND, rc, "memory round %u failed: %s", rounds->round,
		       err_strerror(rc));
}

int mem_rounds_send(struct mem_rounds *rounds, struct err *err)
{
	int rc = start_threads(rounds);

	if (rc)
		return err_set(err, ERR_NO_MEMORY, rc, "cannot start a thread for memory: %s",
			       err_strerror(rc));
	mem_rounds_start(rounds);
	pthread_mutex_lock(&rounds->lock);
	rounds->running = rounds->options.stream_count;
	rounds->wanted_round = rounds->round;
	pthread_cond_broadcast(&rounds->changed);
	while (rounds->running)
		wait_changed_locked(rounds, UINT64_MAX);
	rc = rounds->error;
	pthread_mutex_unlock(&rounds->lock);
	return rc ? round_error(rounds, rc, err) : 0;
}

int mem_rounds_await(struct mem_rounds *rounds, uint64_t timeout_ns, struct err *err)
{
	uint64_t deadline_ns = monotonic_ns() + MIN(timeout_ns, UINT64_MAX / 4);
	bool in_time = true;
	int rc;

	pthread_mutex_lock(&rounds->lock);
	while (rounds->acknowledged < rounds->round && !rounds->error && in_time)
		in_time = wait_changed_locked(rounds, deadline_ns);
	rc = rounds->error;
	if (!rc && rounds->acknowledged < rounds->round)
		rc = -ETIMEDOUT;
	pthread_mutex_unlock(&rounds->lock);
	return rc ? round_error(rounds, rc, err) : 0;
}

/* ---- the proof ---- */

/* Does a page differ from what the other end has of it? */
static int differs(const struct mem_rounds *rounds, uint64_t page, bool *out)
{
	const struct mem_block *block = mem_space_block_of(rounds->space, page);
	uint8_t bytes[MEM_PAGE_BYTES];
	XXH128_hash_t hash;
	int rc;

	rc = rounds->space->ops->read(block, mem_block_offset(block, page), bytes, sizeof(bytes));
	if (rc)
		return rc;
	if (!mem_map_test(&rounds->filled, page)) {
		*out = !mem_page_is_zero(bytes);
		return 0;
	}
	hash = XXH3_128bits_withSeed_dispatch(bytes, sizeof(bytes), rounds->options.hash_seed);
	*out = hash.low64 != rounds->hashes[page].low || hash.high64 != rounds->hashes[page].high;
	return 0;
}

int mem_rounds_check_quiet(struct mem_rounds *rounds, struct err *err)
{
	uint64_t page_count = rounds->late.page_count, first = 0, count, changed = 0, example = 0;
	int rc;

	mem_map_clear_range(&rounds->late, 0, page_count);
	rc = harvest_into(rounds, &rounds->late, err);
	if (rc)
		return rc;
	for (; mem_map_find(&rounds->late, first, page_count, 1, &first, &count); first++) {
		bool other = false;

		rc = differs(rounds, first, &other);
		if (rc)
			return round_error(rounds, rc, err);
		if (!other)
			continue;
		example = first;
		changed++;
		mem_map_set(&rounds->dirty, first);
	}
	if (changed)            /* R-E1 */
		return err_set(err, ERR_MEM_LATE_WRITE, -ESTALE,
			       "%" PRIu64 " pages of the stopped guest changed after the last look, page %"
			       PRIu64 " among them", changed, example);
	return 0;
}

static void add_stats(struct mem_round_stats *sum, const struct mem_round_stats *part)
{
	sum->read_pages += part->read_pages;
	sum->unchanged_pages += part->unchanged_pages;
	sum->zero_pages += part->zero_pages;
	sum->delta_pages += part->delta_pages;
	sum->stored_pages += part->stored_pages;
	sum->packed_pages += part->packed_pages;
	sum->wire_bytes += part->wire_bytes;
	sum->encode_ns += part->encode_ns;
	sum->waited_ns += part->waited_ns;
	for (uint32_t i = 0; i < MEM_CODEC_COUNT; i++)
		sum->batches[i] += part->batches[i];
}

void mem_rounds_stats(const struct mem_rounds *rounds, struct mem_round_stats *out)
{
	memset(out, 0, sizeof(*out));
	out->rounds = rounds->round;
	for (uint32_t i = 0; i < rounds->options.stream_count; i++)
		add_stats(out, &rounds->shards[i]->stats);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/mem_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HVA_BASE UINT64_C(0x7f0000000000)
#define PATTERNS 4u

static struct mem_sim *sim_now;         /* the space's operations know blocks only */

uint64_t mem_sim_random(struct mem_sim *sim, uint64_t bound)
{
	/* splitmix64 */
	uint64_t z = sim->random += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return (z ^ z >> 31) % bound;
}

static uint64_t random_page(struct mem_sim *sim)
{
	uint64_t page;

	/* Half of the time of a few, so that some are written over and over. */
	do {
		page = mem_sim_random(sim, 2) ? mem_sim_random(sim, sim->source.page_count) :
			mem_sim_random(sim, MIN(sim->source.page_count, 6));
	} while (!mem_space_block_of(&sim->source, page));
	return page;
}

static uint8_t *page_bytes(struct mem_sim *sim, uint64_t page)
{
	return sim->source_bytes + page * MEM_PAGE_BYTES;
}

/* ---- what the guest does ---- */

static void fill(struct mem_sim *sim, uint8_t *bytes)
{
	uint64_t pattern = mem_sim_random(sim, PATTERNS + 1);

	if (pattern < PATTERNS) {
		memset(bytes, (int)pattern * 37, MEM_PAGE_BYTES);       /* 0 is the zero page */
		return;
	}
	for (uint32_t i = 0; i < MEM_PAGE_BYTES; i += 8) {
		uint64_t word = mem_sim_random(sim, UINT64_MAX);

		memcpy(bytes + i, &word, sizeof(word));
	}
}

static void touch(struct mem_sim *sim, uint64_t page)
{
	sim->present[page] = 1;
	sim->ever[page] = 1;
}

static void write_word(struct mem_sim *sim, uint8_t *bytes)
{
	uint64_t word = mem_sim_random(sim, 3), at = mem_sim_random(sim, MEM_PAGE_BYTES / 8);

	memcpy(bytes + at * 8, &word, sizeof(word));
}

static void guest_write(struct mem_sim *sim)
{
	uint64_t page = random_page(sim);

	touch(sim, page);
	if (mem_sim_random(sim, 3))
		write_word(sim, page_bytes(sim, page));
	else
		fill(sim, page_bytes(sim, page));
	sim->written[page] = 1;
}

/* The kernel does not always tell. */
static void balloon(struct mem_sim *sim)
{
	uint64_t page = random_page(sim);

	memset(page_bytes(sim, page), 0, MEM_PAGE_BYTES);
	sim->present[page] = 0;
	if (sim->ever[page] && mem_sim_random(sim, 2))
		sim->written[page] = 1;
}

static void mark(struct mem_sim *sim, uint32_t index)
{
	mem_tracker_mark_written(&sim->tracker, sim->pending[index].hva,
				 sim->pending[index].len_bytes);
	sim->pending[index] = sim->pending[--sim->pending_count];
}

/* Data of a disk land by our own hand: no page table sees it.  They may span two pages. */
static void own_write(struct mem_sim *sim)
{
	uint64_t page = random_page(sim);
	const struct mem_block *block = mem_space_block_of(&sim->source, page);
	uint64_t offset = mem_block_offset(block, page) + mem_sim_random(sim, MEM_PAGE_BYTES);
	uint64_t len = 1 + mem_sim_random(sim, MIN(2 * MEM_PAGE_BYTES, block->len_bytes - offset));

	if (sim->pending_count == MEM_SIM_PENDING)
		mark(sim, 0);
	for (uint64_t at = offset; at < offset + len; at++)
		block->bytes[at] = (uint8_t)mem_sim_random(sim, 3);
	for (uint64_t at = offset / MEM_PAGE_BYTES; at <= (offset + len - 1) / MEM_PAGE_BYTES; at++)
		touch(sim, block->first_page + at);
	sim->pending[sim->pending_count++] = (struct mem_sim_own_write) {
		.hva = block->hva + offset, .len_bytes = len,
	};
}

void mem_sim_act(struct mem_sim *sim)
{
	uint64_t what = mem_sim_random(sim, 16);

	sim->now_ns += mem_sim_random(sim, 100000);
	if (!sim->runs)
		return;
	if (what < 10)
		guest_write(sim);
	else if (what < 12)
		balloon(sim);
	else if (what < 14)
		own_write(sim);
	else if (sim->pending_count)
		mark(sim, (uint32_t)mem_sim_random(sim, sim->pending_count));
}

static void perhaps_act(struct mem_sim *sim)
{
	while (mem_sim_random(sim, 256) < sim->activity)
		mem_sim_act(sim);
}

void mem_sim_late_write(struct mem_sim *sim)
{
	uint64_t page = random_page(sim);
	uint8_t *bytes = page_bytes(sim, page);

	touch(sim, page);
	bytes[mem_sim_random(sim, MEM_PAGE_BYTES)]++;
	sim->written[page] = 1;
}

void mem_sim_stop(struct mem_sim *sim)
{
	sim->runs = false;
	while (sim->pending_count)
		mark(sim, 0);
}

/* ---- the space ---- */

/* The guest writes before, within and after the copy of each page. */
static int sim_read(const struct mem_block *block, uint64_t offset_bytes, void *into,
		    uint64_t len_bytes)
{
	struct mem_sim *sim = sim_now;

	for (uint64_t at = 0; at < len_bytes; at += MEM_PAGE_BYTES) {
		uint64_t page = block->first_page + (offset_bytes + at) / MEM_PAGE_BYTES;
		uint64_t half = mem_sim_random(sim, MEM_PAGE_BYTES);
		uint8_t *to = (uint8_t *)into + at;

		if (!sim->ever[page] && !sim->fault)
			sim->fault = "R-E3: a page is read that never held anything";
		perhaps_act(sim);
		memcpy(to, page_bytes(sim, page), half);
		perhaps_act(sim);
		memcpy(to + half, page_bytes(sim, page) + half, MEM_PAGE_BYTES - half);
	}
	perhaps_act(sim);
	return 0;
}

static int sim_next_data(const struct mem_block *block, uint64_t from_bytes, uint64_t *start_bytes,
			 uint64_t *end_bytes)
{
	const uint8_t *present = sim_now->present + block->first_page;
	uint64_t page = from_bytes / MEM_PAGE_BYTES, count = mem_block_pages(block);

	while (page < count && !present[page])
		page++;
	if (page >= count)
		return -ENXIO;
	*start_bytes = page * MEM_PAGE_BYTES;
	while (page < count && present[page])
		page++;
	*end_bytes = page * MEM_PAGE_BYTES;
	return 0;
}

static int sim_empty(const struct mem_block *block, uint64_t offset_bytes, uint64_t len_bytes)
{
	memset(block->bytes + offset_bytes, 0, len_bytes);
	return 0;
}

static const struct mem_space_ops sim_space_ops = {
	.read = sim_read,
	.next_data = sim_next_data,
	.empty = sim_empty,
};

/* Exact, and it arms again what it tells; what happens in between is told the next time. */
static int sim_harvest(struct mem_tracker *tracker, struct mem_map *dirty, struct err *err UNUSED)
{
	struct mem_sim *sim = container_of(tracker, struct mem_sim, tracker);

	for (uint64_t page = 0; page < sim->source.page_count; page++) {
		if (sim->written[page])
			mem_map_set(dirty, page);
		sim->written[page] = 0;
		if (page % 64 == 0)
			perhaps_act(sim);
	}
	return 0;
}

/* All holes, and sometimes more. */
static int sim_absent(struct mem_tracker *tracker, struct mem_map *absent, struct err *err UNUSED)
{
	struct mem_sim *sim = container_of(tracker, struct mem_sim, tracker);

	for (uint64_t page = 0; page < sim->source.page_count; page++)
		if (!sim->present[page] || !mem_sim_random(sim, 8))
			mem_map_set(absent, page);
	return 0;
}

static const struct mem_tracker_ops sim_tracker_ops = {
	.name = "simulated",
	.harvest = sim_harvest,
	.absent = sim_absent,
};

/* ---- the link ---- */

static void sim_send(struct mem_link *link, struct mem_buf *buf)
{
	struct mem_sim *sim = container_of(link, struct mem_sim, link);

	CHECK(sim->queue_count < MEM_SIM_QUEUE);
	sim->queue[sim->queue_count++] = buf;
}

static const struct mem_link_ops sim_link_ops = { .send = sim_send };

/* The oldest batch of the stream of a batch that chance names. */
static int deliver_one(struct mem_sim *sim, struct err *err)
{
	uint32_t index = (uint32_t)mem_sim_random(sim, sim->queue_count), oldest = 0;
	struct mem_buf *buf;
	int rc;

	while (sim->queue[oldest]->stream != sim->queue[index]->stream)
		oldest++;
	buf = sim->queue[oldest];
	memmove(&sim->queue[oldest], &sim->queue[oldest + 1],
		(sim->queue_count - oldest - 1) * sizeof(sim->queue[0]));
	sim->queue_count--;
	rc = mem_receiver_batch(sim->receiver, buf->stream, buf->bytes, buf->len_bytes, err);
	/* Whoever reads a buffer that was given back reads this. */
	memset(buf->bytes, 0xA5, buf->len_bytes);
	mem_buf_done(buf, rc);
	return rc;
}

static void round_done(void *user, uint32_t round)
{
	struct mem_sim *sim = user;

	mem_rounds_acknowledged(sim->rounds, round);
}

/* ---- rounds ---- */

int mem_sim_round(struct mem_sim *sim, struct err *err)
{
	uint32_t streams = sim->options.stream_count, left = streams;
	bool done[MEM_STREAMS_MAX] = { false };
	int rc = 0;

	sim_now = sim;
	rc = mem_rounds_harvest(sim->rounds, err);
	if (rc)
		return rc;
	perhaps_act(sim);
	mem_rounds_start(sim->rounds);
	while (left || sim->queue_count) {
		uint32_t stream = (uint32_t)mem_sim_random(sim, streams);

		if (sim->queue_count && (!left || !mem_sim_random(sim, 3)))
			rc = deliver_one(sim, err);
		else if (left && !done[stream] &&
			 mem_rounds_step(sim->rounds, stream) == MEM_STEP_DONE) {
			done[stream] = true;
			left--;
		}
		if (rc)
			return rc;
		perhaps_act(sim);
	}
	rc = mem_rounds_error(sim->rounds);
	return rc ? rc : mem_rounds_await(sim->rounds, 0, err);
}

uint64_t mem_sim_differences(const struct mem_sim *sim)
{
	uint64_t count = 0;

	for (uint64_t page = 0; page < sim->source.page_count; page++)
		if (memcmp(sim->source_bytes + page * MEM_PAGE_BYTES,
			   sim->target_bytes + page * MEM_PAGE_BYTES, MEM_PAGE_BYTES))
			count++;
	return count;
}

/* ---- life ---- */

static uint64_t sim_clock(void)
{
	return sim_now->now_ns;
}

static void lay_out(struct mem_sim *sim)
{
	uint32_t blocks = 1 + (uint32_t)mem_sim_random(sim, 3);

	mem_space_init(&sim->source);
	mem_space_init(&sim->target);
	sim->source.ops = &sim_space_ops;
	sim->target.ops = &sim_space_ops;
	for (uint32_t i = 0; i < blocks; i++) {
		/* One in eight is longer than a chunk. */
		uint64_t pages = 1 + mem_sim_random(sim, mem_sim_random(sim, 8) ? 60 : 700);
		struct mem_block block = {
			.len_bytes = pages * MEM_PAGE_BYTES, .backing_bytes = MEM_PAGE_BYTES,
			.hva = HVA_BASE + i * (UINT64_C(1) << 32), .fd = -1,
		};

		CHECK(mem_space_add(&sim->source, &block) == 0);
		CHECK(mem_space_add(&sim->target, &block) == 0);
	}
}

static uint8_t *allocate(uint64_t bytes)
{
	uint8_t *memory = calloc(bytes, 1);

	CHECK(memory);
	return memory;
}

static void give_memory(struct mem_sim *sim)
{
	uint64_t pages = sim->source.page_count;

	sim->source_bytes = allocate(pages * MEM_PAGE_BYTES);
	sim->target_bytes = allocate(pages * MEM_PAGE_BYTES);
	sim->present = allocate(pages);
	sim->ever = allocate(pages);
	sim->written = allocate(pages);
	for (uint32_t i = 0; i < sim->source.count; i++) {
		uint64_t first = sim->source.blocks[i].first_page;

		sim->source.blocks[i].bytes = sim->source_bytes + first * MEM_PAGE_BYTES;
		sim->target.blocks[i].bytes = sim->target_bytes + first * MEM_PAGE_BYTES;
		/* What the receiving QEMU's firmware left there must go. */
		sim->target.blocks[i].bytes[0] = (uint8_t)mem_sim_random(sim, 256);
	}
}

void mem_sim_init(struct mem_sim *sim, uint64_t seed)
{
	struct mem_receiver_options receiver = { .round_done = round_done, .user = sim };
	struct err err = { 0 };
	int rc;

	memset(sim, 0, sizeof(*sim));
	sim->random = seed;
	sim_now = sim;
	lay_out(sim);
	give_memory(sim);
	sim->runs = true;
	sim->activity = 16 + (uint32_t)mem_sim_random(sim, 150);
	sim->link.ops = &sim_link_ops;
	sim->options = (struct mem_rounds_options) {
		.stream_count = 1 + (uint32_t)mem_sim_random(sim, 4),
		.codec = (unsigned)mem_sim_random(sim, MEM_CODEC_AUTO + 1),
		.cache_bytes = mem_sim_random(sim, 3) * 16 * MEM_PAGE_BYTES,
		.hash_seed = seed, .now_ns = sim_clock,
	};
	receiver.stream_count = sim->options.stream_count;
	if (mem_sim_random(sim, 6))
		rc = mem_tracker_init(&sim->tracker, &sim_tracker_ops, &sim->source);
	else
		rc = mem_tracker_init_hash(&sim->tracker, &sim->source);
	CHECK(rc == 0);
	CHECK(mem_rounds_new(&sim->source, &sim->tracker, &sim->link, &sim->options, &sim->rounds,
			     &err) == 0);
	CHECK(mem_receiver_new(&sim->target, &receiver, &sim->receiver, &err) == 0);
	for (uint64_t i = mem_sim_random(sim, 60); i > 0; i--)
		mem_sim_act(sim);
}

void mem_sim_release(struct mem_sim *sim)
{
	mem_rounds_free(sim->rounds);
	mem_receiver_free(sim->receiver);
	mem_tracker_release(&sim->tracker);
	free(sim->source_bytes);
	free(sim->target_bytes);
	free(sim->present);
	free(sim->ever);
	free(sim->written);
}

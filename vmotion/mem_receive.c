/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_receive.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxh_x86dispatch.h>

#include <xxhash.h>

#include "vmotion/mem_map.h"

struct stream {
	struct mem_unpacker *unpacker;
	struct mem_batch_head head;     /* of the batch that is on its way in */
	bool in_batch;
	bool refused;
	uint64_t sequence;              /* expected next */
	uint32_t round;                 /* ended */
	bool in_round;                  /* pages of the next one have come */
	uint8_t table[MEM_BATCH_TABLE_MAX];
};

struct mem_receiver {
	const struct mem_space *space;
	struct mem_receiver_options options;
	struct mem_map filled;          /* words are a chunk's, and so a stream's own */
	bool closed;
	pthread_mutex_t lock;           /* of what follows */
	uint32_t rounds[MEM_STREAMS_MAX]; /* ended, by stream */
	uint32_t rounds_done;
	struct stream streams[];
};

/* ---- life ---- */

static int make_empty(const struct mem_space *space, struct err *err)
{
	for (uint32_t i = 0; i < space->count; i++) {
		const struct mem_block *block = &space->blocks[i];
		int rc;

		CHECK(block->bytes);
		rc = space->ops->empty(block, 0, block->len_bytes);
		if (rc)
			return err_set(err, ERR_MEM_RECEIVE, rc,
				       "cannot empty memory block '%s' of the receiving QEMU: %s",
				       block->name, err_strerror(rc));
	}
	return 0;
}

static int new_streams(struct mem_receiver *receiver)
{
	for (uint32_t i = 0; i < receiver->options.stream_count; i++) {
		receiver->streams[i].unpacker = mem_unpacker_new();
		if (!receiver->streams[i].unpacker)
			return -ENOMEM;
	}
	return mem_map_init(&receiver->filled, receiver->space->page_count);
}

int mem_receiver_new(const struct mem_space *space, const struct mem_receiver_options *options,
		     struct mem_receiver **out, struct err *err)
{
	struct mem_receiver *receiver;
	int rc;

	CHECK(options->stream_count > 0);
	CHECK(options->stream_count <= MEM_STREAMS_MAX);
	receiver = calloc(1, sizeof(*receiver) + options->stream_count * sizeof(struct stream));
	if (!receiver)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for %u streams",
			       options->stream_count);
	receiver->space = space;
	receiver->options = *options;
	pthread_mutex_init(&receiver->lock, NULL);
	rc = new_streams(receiver);
	if (rc)
		err_set(err, ERR_NO_MEMORY, rc, "no memory for %u streams", options->stream_count);
	else
		rc = make_empty(space, err);
	if (rc) {
		mem_receiver_free(receiver);
		return rc;
	}
	*out = receiver;
	return 0;
}

void mem_receiver_free(struct mem_receiver *receiver)
{
	if (!receiver)
		return;
	for (uint32_t i = 0; i < receiver->options.stream_count; i++)
		mem_unpacker_free(receiver->streams[i].unpacker);
	mem_map_release(&receiver->filled);
	pthread_mutex_destroy(&receiver->lock);
	free(receiver);
}

/* ---- entries ---- */

static uint8_t *place_of(const struct mem_receiver *receiver, uint64_t page)
{
	const struct mem_block *block = mem_space_block_of(receiver->space, page);

	return block->bytes + mem_block_offset(block, page);
}

/* Only what was filled: the rest is a hole, and stays one (R-E3). */
static int apply_zero(struct mem_receiver *receiver, const struct mem_entry *entry)
{
	const struct mem_block *block = mem_space_block_of(receiver->space, entry->page);
	uint64_t end = entry->page + entry->count, first = entry->page, count = 0;

	while (mem_map_find(&receiver->filled, first, end, UINT64_MAX / 2, &first, &count)) {
		int rc = receiver->space->ops->empty(block, mem_block_offset(block, first),
						     count * MEM_PAGE_BYTES);

		if (rc)
			return rc;
		mem_map_clear_range(&receiver->filled, first, count);
		first += count;
	}
	return 0;
}

/* The sender's idea of the page must be ours: a delta on anything else makes rubbish. */
static int apply_delta(struct mem_receiver *receiver, const struct mem_entry *entry,
		       const uint8_t *bytes)
{
	uint8_t *page = place_of(receiver, entry->page);
	uint64_t expected;

	if (!mem_map_test(&receiver->filled, entry->page))
		return -EBADMSG;
	memcpy(&expected, bytes, sizeof(expected));
	mem_delta_apply(page, bytes + MEM_DELTA_HASH_BYTES, entry->count - MEM_DELTA_HASH_BYTES);
	return XXH3_64bits_dispatch(page, MEM_PAGE_BYTES) == le64toh(expected) ? 0 : -EBADMSG;
}

static int apply_packed(struct mem_receiver *receiver, struct stream *stream, const uint8_t *bytes)
{
	int rc = 0;

	for (uint32_t i = 0; i < stream->head.entry_count && !rc; i++) {
		struct mem_entry entry = mem_batch_entry(stream->table, i);

		if (entry.kind == MEM_ENTRY_ZERO) {
			rc = apply_zero(receiver, &entry);
		} else if (entry.kind == MEM_ENTRY_PACKED) {
			memcpy(place_of(receiver, entry.page), bytes, entry.count * MEM_PAGE_BYTES);
			mem_map_set_range(&receiver->filled, entry.page, entry.count);
			bytes += entry.count * MEM_PAGE_BYTES;
		} else if (entry.kind == MEM_ENTRY_DELTA) {
			rc = apply_delta(receiver, &entry, bytes);
			bytes += entry.count;
		}
	}
	return rc;
}

static void plan_stored(struct mem_receiver *receiver, const struct stream *stream,
			struct mem_arrival *arrival)
{
	arrival->table_bytes = mem_batch_stored_at(&stream->head);
	arrival->packed_wire_bytes = stream->head.packed_wire_bytes;
	arrival->iov_count = 0;
	for (uint32_t i = 0; i < stream->head.entry_count; i++) {
		struct mem_entry entry = mem_batch_entry(stream->table, i);

		if (entry.kind != MEM_ENTRY_STORED)
			continue;
		mem_map_set_range(&receiver->filled, entry.page, entry.count);
		arrival->iov[arrival->iov_count++] = (struct iovec) {
			.iov_base = place_of(receiver, entry.page),
			.iov_len = entry.count * (size_t)MEM_PAGE_BYTES,
		};
	}
}

/* ---- batches ---- */

static int refuse(struct stream *stream, uint32_t index, const char *why, struct err *err)
{
	stream->refused = true;
	return err_set(err, ERR_MEM_PROTOCOL, -EBADMSG, "memory stream %u: %s", index, why);
}

static const char *judge_order(const struct mem_receiver *receiver, const struct stream *stream,
			       uint32_t index, const struct mem_batch_head *head)
{
	if (receiver->closed)
		return "a batch comes after the last round";
	if (stream->refused)
		return "a batch comes after one that was refused";
	if (head->stream != index)
		return "a batch of another stream";
	if (head->sequence != stream->sequence)
		return "a batch is lost, repeated or out of order";
	if (head->round != stream->round + 1)
		return "a batch of another round";
	return NULL;
}

/* P5: judge it whole; its stored pages go straight to their places */
int mem_receiver_begin(struct mem_receiver *receiver, uint32_t index, const uint8_t *bytes,
		       uint32_t len_bytes, uint32_t *need_bytes, struct mem_arrival *arrival,
		       struct err *err)
{
	struct stream *stream = &receiver->streams[index];
	struct mem_batch_head head;
	const char *why;
	int rc;

	CHECK(index < receiver->options.stream_count);
	CHECK(!stream->in_batch);
	rc = mem_batch_judge(bytes, len_bytes, receiver->space, receiver->options.stream_count,
			     &head, need_bytes);
	if (rc == -EAGAIN)
		return rc;
	if (rc)
		return refuse(stream, index, "a batch that breaks its format", err);
	why = judge_order(receiver, stream, index, &head);
	if (why)
		return refuse(stream, index, why, err);
	memcpy(stream->table, bytes, mem_batch_stored_at(&head));
	stream->head = head;
	stream->in_batch = true;
	plan_stored(receiver, stream, arrival);
	return 0;
}

static void end_round(struct mem_receiver *receiver, uint32_t index)
{
	uint32_t least = UINT32_MAX;
	bool all;

	pthread_mutex_lock(&receiver->lock);
	receiver->rounds[index]++;
	for (uint32_t i = 0; i < receiver->options.stream_count; i++)
		least = MIN(least, receiver->rounds[i]);
	all = least > receiver->rounds_done;
	receiver->rounds_done = least;
	pthread_mutex_unlock(&receiver->lock);
	if (all && receiver->options.round_done)
		receiver->options.round_done(receiver->options.user, least);
}

/* P6: unpack the rest into the guest's memory, or end the round */
int mem_receiver_finish(struct mem_receiver *receiver, uint32_t index, const uint8_t *packed,
			struct err *err)
{
	struct stream *stream = &receiver->streams[index];
	const uint8_t *bytes;
	int rc;

	CHECK(stream->in_batch);
	stream->in_batch = false;
	stream->sequence++;
	if (stream->head.kind == MEM_BATCH_END) {
		stream->round++;
		stream->in_round = false;
		end_round(receiver, index);
		return 0;
	}
	stream->in_round = true;
	rc = mem_unpacker_run(stream->unpacker, &stream->head, stream->table, packed, &bytes);
	if (rc)
		return refuse(stream, index, "a batch whose packed part is damaged", err);
	rc = apply_packed(receiver, stream, bytes);
	if (rc == -EBADMSG)
		return refuse(stream, index, "a delta against something else than was sent", err);
	if (rc) {
		stream->refused = true;
		return err_set(err, ERR_MEM_RECEIVE, rc, "cannot empty a range of memory: %s",
			       err_strerror(rc));
	}
	return 0;
}

int mem_receiver_batch(struct mem_receiver *receiver, uint32_t index, const uint8_t *bytes,
		       uint32_t len_bytes, struct err *err)
{
	struct stream *stream = &receiver->streams[index];
	struct mem_arrival arrival;
	uint32_t need = 0, at;
	struct mem_batch_head head;
	int rc;

	/* Its length first, so that one cut short changes nothing. */
	rc = mem_batch_judge(bytes, len_bytes, receiver->space, receiver->options.stream_count,
			     &head, &need);
	if (rc == -EAGAIN || (!rc && mem_batch_len(&head) != len_bytes))
		return refuse(stream, index, "a batch of another length than it says", err);
	rc = mem_receiver_begin(receiver, index, bytes, len_bytes, &need, &arrival, err);
	if (rc)
		return rc;
	at = arrival.table_bytes;
	for (uint32_t i = 0; i < arrival.iov_count; i++) {
		memcpy(arrival.iov[i].iov_base, bytes + at, arrival.iov[i].iov_len);
		at += (uint32_t)arrival.iov[i].iov_len;
	}
	return mem_receiver_finish(receiver, index, bytes + at, err);
}

uint32_t mem_receiver_rounds(struct mem_receiver *receiver)
{
	uint32_t rounds;

	pthread_mutex_lock(&receiver->lock);
	rounds = receiver->rounds_done;
	pthread_mutex_unlock(&receiver->lock);
	return rounds;
}

int mem_receiver_close(struct mem_receiver *receiver, uint32_t round, struct err *err)
{
	for (uint32_t i = 0; i < receiver->options.stream_count; i++) {
		const struct stream *stream = &receiver->streams[i];

		if (stream->refused || stream->in_batch || stream->in_round ||
		    stream->round != round)
			return err_set(err, ERR_MEM_PROTOCOL, -EBADMSG,
				       "memory stream %u has not ended with round %u", i, round);
	}
	receiver->closed = true;
	return 0;
}

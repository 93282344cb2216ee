/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_batch.h - pages on their way: the bytes that a link carries, made, judged and taken apart.
 *
 * A batch is the unit of one stream.  All numbers are little-endian:
 *
 *     offset  bytes
 *      0      2   version, 1
 *      2      1   kind: 1 pages, 2 end of a round on this stream
 *      3      1   codec of the packed part: 0 as it is, 1 LZ4, 2 Zstandard
 *      4      4   round
 *      8      4   stream
 *     12      4   entries (0 in an end)
 *     16      4   bytes of the stored part
 *     20      4   bytes of the packed part, unpacked
 *     24      4   bytes of the packed part as it follows
 *     28      4   0
 *     32      8   number of this batch on its stream, from 0 over all rounds
 *     40    8 each the entries, in the order in which they apply
 *      +          the stored part: pages that would not get smaller
 *      +          the packed part: pages and deltas, compressed as one piece
 *
 * An entry: bits 0 to 39 the page, 40 to 47 the kind, 48 to 63 a count.
 *
 *     1 zero     count pages become zeroes
 *     2 stored   count pages, taken from the stored part
 *     3 packed   count pages, taken from the packed part
 *     4 delta    count bytes of the packed part: XXH3 (64 bits) of the page as it becomes, then a
 *                delta (mem_encode.h) against what the stream has made of that page before
 *
 * Entries never leave the chunk (mem_space.h) of their first page, and a chunk belongs to the
 * stream number chunk mod streams.  So pages of one address never overtake each other, and no two
 * streams write to the same page.
 *
 * A batch from outside is judged whole, by mem_batch_judge(), before anything of it applies; what
 * it may cost is bounded by the constants below.
 */
#ifndef BM_VMOTION_MEM_BATCH_H
#define BM_VMOTION_MEM_BATCH_H

#include "vmotion/mem_encode.h"

#define MEM_BATCH_VERSION 1u
#define MEM_BATCH_HEAD_BYTES 40u
#define MEM_BATCH_ENTRIES_MAX 256u
#define MEM_BATCH_PAGES_MAX 128u        /* whose contents it carries */
#define MEM_BATCH_PART_BYTES (MEM_BATCH_PAGES_MAX * MEM_PAGE_BYTES)
#define MEM_BATCH_TABLE_MAX (MEM_BATCH_HEAD_BYTES + MEM_BATCH_ENTRIES_MAX * 8u)
/* The two parts share the bound on contents; a delta is shorter than a page. */
#define MEM_BATCH_MAX_BYTES (MEM_BATCH_TABLE_MAX + MEM_BATCH_PART_BYTES)
#define MEM_STREAMS_MAX 64u
#define MEM_DELTA_HASH_BYTES 8u

enum mem_batch_kind { MEM_BATCH_PAGES = 1, MEM_BATCH_END = 2 };
enum mem_codec { MEM_CODEC_NONE, MEM_CODEC_LZ4, MEM_CODEC_ZSTD, MEM_CODEC_COUNT };
enum mem_entry_kind { MEM_ENTRY_ZERO = 1, MEM_ENTRY_STORED, MEM_ENTRY_PACKED, MEM_ENTRY_DELTA };

struct mem_batch_head {
	uint8_t kind, codec;
	uint32_t round, stream, entry_count;
	uint32_t stored_bytes, packed_bytes, packed_wire_bytes;
	uint64_t sequence;
};

struct mem_entry {
	uint64_t page;
	enum mem_entry_kind kind;
	uint32_t count;
};

const char *mem_codec_name(enum mem_codec codec);

/* ---- making ---- */

struct mem_packer;      /* compression contexts and room to gather a batch; one per stream */

/* NULL: out of memory. */
struct mem_packer *mem_packer_new(uint32_t stream);
void mem_packer_free(struct mem_packer *packer);

/* Begin with nothing; drops what was gathered. */
void mem_packer_begin(struct mem_packer *packer, uint32_t round);
/* How many pages more there is room for, their entries and contents. */
uint32_t mem_packer_room(const struct mem_packer *packer);
bool mem_packer_is_empty(const struct mem_packer *packer);

/* Each copies what it is given (R-E2: that copy is what is sent). */
void mem_packer_zero(struct mem_packer *packer, uint64_t page);
void mem_packer_page(struct mem_packer *packer, uint64_t page, const uint8_t *bytes, bool dense);
void mem_packer_delta(struct mem_packer *packer, uint64_t page, const uint8_t *delta,
		      uint32_t len_bytes, uint64_t result_hash);

/* Of what was gathered: contents before packing. */
uint64_t mem_packer_raw_bytes(const struct mem_packer *packer);

/*
 * Write the batch to out[MEM_BATCH_MAX_BYTES]; its length.  What the codec cannot make smaller goes
 * as it is.  An end has no contents: begin, then seal.
 */
uint32_t mem_packer_seal(struct mem_packer *packer, enum mem_batch_kind kind, enum mem_codec codec,
			 uint8_t *out);

/* ---- taking apart ---- */

/*
 * Judge the head and the entries of a batch, its first len_bytes bytes: every count and sum, and
 * that the pages exist in the space and belong to a stream of stream_count.
 * 0 or -EBADMSG; -EAGAIN: more bytes than these are needed, *need_bytes in all.
 */
MUST_CHECK int mem_batch_judge(const uint8_t *bytes, uint32_t len_bytes,
			       const struct mem_space *space, uint32_t stream_count,
			       struct mem_batch_head *out, uint32_t *need_bytes);

/* Entry `index` of a judged batch. */
struct mem_entry mem_batch_entry(const uint8_t *bytes, uint32_t index);

/* How long a judged batch is in all, and where its parts begin. */
uint32_t mem_batch_len(const struct mem_batch_head *head);
uint32_t mem_batch_stored_at(const struct mem_batch_head *head);
uint32_t mem_batch_packed_at(const struct mem_batch_head *head);

struct mem_unpacker;    /* one per stream */
struct mem_unpacker *mem_unpacker_new(void);
void mem_unpacker_free(struct mem_unpacker *unpacker);

/*
 * Unpack the packed part (packed_wire_bytes at `packed`) and judge the deltas in it.  *out is the
 * unpacker's, or `packed` itself, until the next call.  0 or -EBADMSG.
 */
MUST_CHECK int mem_unpacker_run(struct mem_unpacker *unpacker, const struct mem_batch_head *head,
				const uint8_t *table, const uint8_t *packed, const uint8_t **out);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_open.c - making a journal, and reading what a crash left.
 *
 * What is read was written by us and torn by a crash, or damaged, or is somebody else's: it is
 * judged here, once.  In doubt a region is dirty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"

#define HEAD_BYTES (JOURNAL_MAP_SECTOR * JOURNAL_SECTOR_BYTES)
#define MAP_CHUNK_BYTES (JOURNAL_MAP_BATCH * JOURNAL_BLOCK_BYTES)
#define HEADER_COPIES 2u
#define HEADER_STRIDE JOURNAL_BLOCK_SECTORS

/* One opening: lives until opened() has run. */
struct opening {
	struct journal *journal;
	void (*opened)(struct journal *journal, int result, void *user);
	void *user;
	struct blk_req req;
	struct iovec iov;
	uint64_t map_at_bytes;          /* into the map */
	bool all_dirty;                 /* the log cannot be trusted */
	int result;
	struct task answer;
};

static void opening_answer(struct task *task)
{
	struct opening *opening = container_of(task, struct opening, answer);
	struct opening done = *opening;

	free(opening);
	if (done.result) {
		journal_free(done.journal);
		done.journal = NULL;
	}
	done.opened(done.journal, done.result, done.user);
}

static void opening_end(struct opening *opening, int result)
{
	opening->result = result;
	opening->answer.run = opening_answer;
	loop_post(opening->journal->loop, &opening->answer);
}

static void opening_submit(struct opening *opening, enum blk_op op, uint64_t offset_bytes,
			   uint64_t len_bytes, void (*done)(struct blk_req *req))
{
	struct journal *journal = opening->journal;

	opening->iov = (struct iovec){ .iov_base = journal->map_blocks, .iov_len = len_bytes };
	opening->req = (struct blk_req){
		.op = op, .flags = op == BLK_WRITE ? BLK_FUA | BLK_STABLE : 0,
		.offset_bytes = offset_bytes, .len_bytes = len_bytes,
		.done = done, .user = opening,
	};
	if (op != BLK_FLUSH) {
		opening->req.iov = &opening->iov;
		opening->req.iov_count = 1;
	}
	blk_submit(journal->dev, &opening->req);
}

static struct opening *opening_new(struct blk_dev *dev, const struct journal_identity *identity,
				   void (*opened)(struct journal *journal, int result, void *user),
				   void *user)
{
	struct opening *opening = calloc(1, sizeof(*opening));

	if (!opening)
		return NULL;
	opening->opened = opened;
	opening->user = user;
	opening->journal = journal_new(dev, identity);
	if (!opening->journal) {
		free(opening);
		return NULL;
	}
	return opening;
}

/* ---- making one ---- */

static void header_build(const struct journal *journal, uint8_t *head, uint64_t sector)
{
	const struct journal_identity *identity = &journal->identity;
	struct journal_sector *at = (struct journal_sector *)head + sector;
	struct journal_header *header = (struct journal_header *)at->payload;

	header->version = to_le32(JOURNAL_VERSION);
	header->region_bytes = to_le32(identity->region_bytes);
	header->size_bytes = to_le64(identity->size_bytes);
	header->extent_bytes = to_le32(identity->extent_bytes);
	header->log_extents_max = to_le32(journal->extent_max);
	memcpy(header->disk_uuid, identity->disk_uuid, sizeof(header->disk_uuid));
	header->generation = to_le64(identity->generation);
	memcpy(header->journal_id, identity->journal_id, sizeof(header->journal_id));
	header->key = to_le64(journal->key);
	header->align_bytes = to_le32(identity->align_bytes);
	/* The key is in the header, so its own seal cannot use it. */
	journal_seal(at, 0, JOURNAL_HEADER, 1, sector);
}

static void create_done(struct blk_req *req)
{
	opening_end(req->user, req->result);
}

void journal_create(struct blk_dev *dev,
		    const struct journal_identity *identity,
		    void (*opened)(struct journal *journal, int result, void *user), void *user)
{
	struct opening *opening = opening_new(dev, identity, opened, user);
	struct journal *journal;
	uint8_t *head;

	if (!opening) {
		opened(NULL, -ENOMEM, user);
		return;
	}
	journal = opening->journal;
	journal->key = loop_random(dev->loop);
	head = journal->map_blocks;
	memset(head, 0, HEAD_BYTES);
	for (uint64_t copy = 0; copy < HEADER_COPIES; copy++)
		header_build(journal, head, copy * HEADER_STRIDE);
	/* Both slots valid from the start: a damaged one can then be told from an unused one. */
	for (uint64_t slot = 0; slot < JOURNAL_LOG_SLOTS; slot++)
		journal_log_build(journal, slot, slot,
				  head + (JOURNAL_LOG_SECTOR + slot * JOURNAL_LOG_SLOT_SECTORS) *
						 JOURNAL_SECTOR_BYTES);
	journal->log_sequence = JOURNAL_LOG_SLOTS - 1;
	opening_submit(opening, BLK_WRITE, 0, HEAD_BYTES, create_done);
}

/* ---- reading the header ---- */

/* Is this the journal of that disk and move? */
static int header_judge(struct journal *journal, const struct journal_sector *sector,
			uint64_t index)
{
	const struct journal_header *header = (const struct journal_header *)sector->payload;
	const struct journal_identity *identity = &journal->identity;

	if (journal_unseal(sector, 0, JOURNAL_HEADER, index) ||
	    from_le32(header->version) != JOURNAL_VERSION)
		return -EBADMSG;
	if (memcmp(header->disk_uuid, identity->disk_uuid, sizeof(header->disk_uuid)) ||
	    memcmp(header->journal_id, identity->journal_id, sizeof(header->journal_id)) ||
	    from_le64(header->generation) != identity->generation ||
	    from_le64(header->size_bytes) != identity->size_bytes ||
	    from_le32(header->region_bytes) != identity->region_bytes ||
	    from_le32(header->extent_bytes) != identity->extent_bytes)
		return -ESTALE;
	journal->key = from_le64(header->key);
	return 0;
}

static int headers_judge(struct journal *journal, const uint8_t *head)
{
	const struct journal_sector *sectors = (const struct journal_sector *)head;
	int rc = -EBADMSG;

	for (uint64_t copy = 0; copy < HEADER_COPIES; copy++) {
		int this_rc = header_judge(journal, &sectors[copy * HEADER_STRIDE],
					   copy * HEADER_STRIDE);

		if (this_rc == 0)
			return 0;
		if (this_rc == -ESTALE)
			rc = -ESTALE;
		else
			journal->stats.damaged_sectors++;
	}
	return rc;
}

/* ---- whose journal is it? ---- */

struct peek {
	struct blk_req req;
	struct iovec iov;
	uint8_t *head;
	void (*found)(const struct journal_identity *identity, int result, void *user);
	void *user;
};

#define PEEK_REGION_MIN 512u
#define PEEK_REGION_MAX (64u << 20)

static bool is_power_in(uint32_t value, uint32_t min, uint32_t max)
{
	return value >= min && value <= max && (value & (value - 1)) == 0;
}

/* The seal is right; but what it seals is judged nevertheless, before anything is built on it. */
static bool header_is_sane(const struct journal_identity *identity, uint64_t device_bytes)
{
	return is_power_in(identity->region_bytes, PEEK_REGION_MIN, PEEK_REGION_MAX) &&
	       is_power_in(identity->extent_bytes, identity->region_bytes, 1u << 31) &&
	       identity->extent_bytes / identity->region_bytes <= 64 &&
	       (identity->align_bytes == 0 ||
		is_power_in(identity->align_bytes, PEEK_REGION_MIN, identity->region_bytes)) &&
	       identity->log_extents >= 1 &&
	       identity->log_extents <= JOURNAL_LOG_EXTENTS * JOURNAL_LOG_SLOT_SECTORS &&
	       identity->size_bytes >= 1 && identity->size_bytes <= UINT64_C(1) << 56 &&
	       memchr(identity->journal_id, '\0', sizeof(identity->journal_id)) &&
	       journal_device_bytes(identity) <= device_bytes;
}

static bool header_decode(const struct journal_sector *sector, uint64_t index,
			  uint64_t device_bytes, struct journal_identity *out)
{
	const struct journal_header *header = (const struct journal_header *)sector->payload;

	if (journal_unseal(sector, 0, JOURNAL_HEADER, index) ||
	    from_le32(header->version) != JOURNAL_VERSION)
		return false;
	*out = (struct journal_identity){
		.size_bytes = from_le64(header->size_bytes),
		.region_bytes = from_le32(header->region_bytes),
		.extent_bytes = from_le32(header->extent_bytes),
		.log_extents = from_le32(header->log_extents_max),
		.align_bytes = from_le32(header->align_bytes),
		.generation = from_le64(header->generation),
	};
	memcpy(out->disk_uuid, header->disk_uuid, sizeof(out->disk_uuid));
	memcpy(out->journal_id, header->journal_id, sizeof(out->journal_id));
	return header_is_sane(out, device_bytes);
}

static bool head_is_blank(const uint8_t *head)
{
	for (size_t i = 0; i < HEAD_BYTES; i++)
		if (head[i])
			return false;
	return true;
}

static void peek_read(struct blk_req *req)
{
	struct peek *peek = container_of(req, struct peek, req);
	struct peek done = *peek;
	struct journal_identity identity;
	bool sane = false;
	int rc = req->result;

	for (uint64_t copy = 0; !rc && !sane && copy < HEADER_COPIES; copy++)
		sane = header_decode((struct journal_sector *)done.head + copy * HEADER_STRIDE,
				     copy * HEADER_STRIDE, req->dev->size_bytes, &identity);
	if (!rc && !sane)
		rc = head_is_blank(done.head) ? -ENODATA : -EBADMSG;
	free(done.head);
	free(peek);
	done.found(rc ? NULL : &identity, rc, done.user);
}

void journal_peek(struct blk_dev *dev,
		  void (*found)(const struct journal_identity *identity, int result, void *user),
		  void *user)
{
	struct peek *peek = calloc(1, sizeof(*peek));

	if (dev->size_bytes < HEAD_BYTES) {
		free(peek);
		found(NULL, -EBADMSG, user);
		return;
	}
	if (peek)
		peek->head = aligned_alloc(JOURNAL_BLOCK_BYTES, HEAD_BYTES);
	if (!peek || !peek->head) {
		free(peek);
		found(NULL, -ENOMEM, user);
		return;
	}
	peek->found = found;
	peek->user = user;
	peek->iov = (struct iovec){ .iov_base = peek->head, .iov_len = HEAD_BYTES };
	peek->req = (struct blk_req){ .op = BLK_READ, .len_bytes = HEAD_BYTES, .iov = &peek->iov,
				      .iov_count = 1, .done = peek_read };
	blk_submit(dev, &peek->req);
}

/* ---- reading the log ---- */

/* The regions of an extent that may have been active: dirty. */
static void load_extent(struct journal *journal, uint64_t index)
{
	uint64_t start, len;

	if (!u64_mul(index, journal->identity.extent_bytes, &start) ||
	    start >= journal->identity.size_bytes)
		return;
	len = MIN((uint64_t)journal->identity.extent_bytes, journal->identity.size_bytes - start);
	dirty_bitmap_set(journal->persisted, start, len);
}

static void load_log_sector(struct journal *journal, const struct journal_sector *sector)
{
	const struct journal_log *log = (const struct journal_log *)sector->payload;
	uint32_t count = MIN(from_le32(log->count), (uint32_t)JOURNAL_LOG_EXTENTS);

	for (uint32_t i = 0; i < count; i++)
		load_extent(journal, from_le32(log->extents[i]));
}

/* The sequence of a slot that is whole; 0 with *whole false when it was torn. */
static uint64_t slot_sequence(struct opening *opening, const struct journal_sector *sectors,
			      uint64_t slot, bool *whole)
{
	struct journal *journal = opening->journal;
	uint64_t first = JOURNAL_LOG_SECTOR + slot * JOURNAL_LOG_SLOT_SECTORS;

	*whole = true;
	for (uint64_t i = 0; i < JOURNAL_LOG_SLOT_SECTORS; i++) {
		if (journal_unseal(&sectors[first + i], journal->key, JOURNAL_LOG, first + i)) {
			/* A sector is written whole or not at all: this is damage. */
			journal->stats.damaged_sectors++;
			opening->all_dirty = true;
			*whole = false;
		} else if (from_le64(sectors[first + i].sequence) !=
			   from_le64(sectors[first].sequence)) {
			*whole = false;
		}
	}
	return *whole ? from_le64(sectors[first].sequence) : 0;
}

/*
 * The newest whole slot is what was durable; sectors newer than it are of a write that the
 * crash tore, and count as well.  The next write goes to the torn slot, under a sequence that
 * neither has: torn again over the whole one, it would leave none.
 */
static void load_log(struct opening *opening)
{
	struct journal *journal = opening->journal;
	const struct journal_sector *sectors = (const struct journal_sector *)journal->map_blocks;
	uint64_t newest = 0;
	bool any_whole = false;

	for (uint64_t slot = 0; slot < JOURNAL_LOG_SLOTS; slot++) {
		bool whole;
		uint64_t sequence = slot_sequence(opening, sectors, slot, &whole);

		any_whole |= whole;
		newest = MAX(newest, sequence);
	}
	journal->log_sequence = newest;
	if (!any_whole)
		opening->all_dirty = true;
	if (opening->all_dirty)
		return;
	for (uint64_t i = JOURNAL_LOG_SECTOR; i < JOURNAL_MAP_SECTOR; i++) {
		uint64_t sequence = from_le64(sectors[i].sequence);

		if (sequence >= newest)
			load_log_sector(journal, &sectors[i]);
		journal->log_sequence = MAX(journal->log_sequence, sequence);
	}
	while ((journal->log_sequence + 1) % JOURNAL_LOG_SLOTS == newest % JOURNAL_LOG_SLOTS)
		journal->log_sequence++;
}

/* ---- reading the map ---- */

static void load_map_sector(struct journal *journal, const struct journal_sector *sector,
			    uint64_t map_sector)
{
	uint64_t words[JOURNAL_PAYLOAD_BYTES / sizeof(uint64_t)];
	int rc = journal_unseal(sector, journal->key, JOURNAL_MAP,
				JOURNAL_MAP_SECTOR + map_sector);

	if (rc == -EBADMSG)
		journal->stats.damaged_sectors++;
	if (rc)                         /* never written, or damaged: dirty, as it is */
		return;
	memcpy(words, sector->payload, sizeof(words));
	dirty_bitmap_import(journal->persisted, map_sector * ARRAY_COUNT(words),
			    ARRAY_COUNT(words), words);
	journal->map_sequence = MAX(journal->map_sequence, from_le64(sector->sequence));
}

static void load_next(struct opening *opening);

static void load_map_read(struct blk_req *req)
{
	struct opening *opening = req->user;
	struct journal *journal = opening->journal;
	const struct journal_sector *sectors = (const struct journal_sector *)journal->map_blocks;
	uint64_t first = opening->map_at_bytes / JOURNAL_SECTOR_BYTES;

	if (req->result) {
		opening_end(opening, req->result);
		return;
	}
	for (uint64_t i = 0; i < req->len_bytes / JOURNAL_SECTOR_BYTES; i++)
		load_map_sector(journal, &sectors[i], first + i);
	opening->map_at_bytes += req->len_bytes;
	load_next(opening);
}

static void load_log_read(struct blk_req *req);

/* The map first, chunk by chunk; then the log on top of it. */
static void load_next(struct opening *opening)
{
	struct journal *journal = opening->journal;
	uint64_t map_bytes = journal->map_block_count * JOURNAL_BLOCK_BYTES;
	uint64_t left = map_bytes - opening->map_at_bytes;

	if (left)
		opening_submit(opening, BLK_READ, HEAD_BYTES + opening->map_at_bytes,
			       MIN(left, (uint64_t)MAP_CHUNK_BYTES), load_map_read);
	else
		opening_submit(opening, BLK_READ, 0, HEAD_BYTES, load_log_read);
}

/*
 * What was in the log is dirty in the map from now on; the log begins empty, durably, before
 * the journal is used: the map goes first, as ever.
 */
static void load_written(struct journal *journal)
{
	uint64_t before = journal->stats.loaded_dirty_bytes;

	journal->stats.loaded_dirty_bytes = dirty_bitmap_bytes(journal->persisted);
	journal->stats.loaded_active_bytes = journal->stats.loaded_dirty_bytes - before;
	for (uint64_t block = 0; block < journal->map_block_count; block++)
		journal->map_dirty[block] = 1;
	journal->map_dirty_count = journal->map_block_count;
	journal->log_changed = journal->log_blocked = true;
}

static void load_log_read(struct blk_req *req)
{
	struct opening *opening = req->user;
	struct journal *journal = opening->journal;

	if (req->result) {
		opening_end(opening, req->result);
		return;
	}
	journal->stats.loaded_dirty_bytes = dirty_bitmap_bytes(journal->persisted);
	load_log(opening);
	if (opening->all_dirty)
		dirty_bitmap_set_all(journal->persisted);
	load_written(journal);
	if (journal->stats.damaged_sectors)
		log_warn("journal", "move '%s': %llu damaged sectors; what they spoke for is copied again",
			 journal->identity.journal_id,
			 (unsigned long long)journal->stats.damaged_sectors);
	opening_end(opening, 0);
	/* Written in the background: until it is, the old log on disk says the same or more. */
	journal_map_write(journal);
}

static void load_head_read(struct blk_req *req)
{
	struct opening *opening = req->user;
	struct journal *journal = opening->journal;
	int rc = req->result;

	if (!rc)
		rc = headers_judge(journal, journal->map_blocks);
	if (rc)
		opening_end(opening, rc);
	else
		load_next(opening);
}

/*
 * What a killed process had in flight may be read and yet not be durable: a power cut could
 * take it back while the other slot is being written, and neither would be whole.
 */
static void load_flushed(struct blk_req *req)
{
	struct opening *opening = req->user;

	if (req->result)
		opening_end(opening, req->result);
	else
		opening_submit(opening, BLK_READ, 0, HEAD_BYTES, load_head_read);
}

void journal_load(struct blk_dev *dev,
		  const struct journal_identity *identity,
		  void (*opened)(struct journal *journal, int result, void *user), void *user)
{
	struct opening *opening = opening_new(dev, identity, opened, user);

	if (!opening) {
		opened(NULL, -ENOMEM, user);
		return;
	}
	opening_submit(opening, BLK_FLUSH, 0, 0, load_flushed);
}

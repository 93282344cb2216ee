/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_nbd_extents.c - base:allocation as the copier needs it.
 *
 * The protocol's HOLE says where space is missing, ZERO what reads as zeroes; only
 * ZERO lets a copier leave the reading out.  A hole without ZERO reads as whatever
 * the server likes and is data.  Extents need not keep to our block size: a block
 * that is not of one status throughout counts as data.
 *
 *   entries  |--- hole 700 ---|------ data ------|   blocks of 512
 *   runs     |- hole -|- data --- data -- data --|
 */
#include <errno.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nbd_private.h"

#define STATE_HOLE 1u
#define STATE_ZERO 2u

struct translation {
	struct blk_extents *out;
	uint64_t filled_bytes;          /* a block's border; what lies before it is in `out` */
};

static enum blk_extent_status status_of(uint32_t flags)
{
	if (!(flags & STATE_ZERO))
		return BLK_EXTENT_DATA;
	return flags & STATE_HOLE ? BLK_EXTENT_HOLE : BLK_EXTENT_ZERO;
}

/* Everything up to end_bytes has this status; false when there is no room for it. */
static bool translation_fill(struct translation *t, uint64_t end_bytes,
			     enum blk_extent_status status)
{
	struct blk_extents *out = t->out;
	uint64_t len_bytes = end_bytes - t->filled_bytes;

	if (len_bytes == 0)
		return true;
	if (out->count && out->runs[out->count - 1].status == status) {
		out->runs[out->count - 1].len_bytes += len_bytes;
	} else {
		if (out->count == out->capacity)
			return false;
		out->runs[out->count++] = (struct blk_extent){ len_bytes, status };
	}
	t->filled_bytes = end_bytes;
	return true;
}

/* The next extent is [*at, end); false when there is no room for more. */
static bool translation_add(struct translation *t, uint64_t at_bytes, uint64_t end_bytes,
			    enum blk_extent_status status, uint32_t block_bytes)
{
	/* A block that the one before has begun: data, as soon as all of it is known. */
	if (at_bytes > t->filled_bytes) {
		uint64_t border_bytes = t->filled_bytes + block_bytes;

		if (end_bytes < border_bytes)
			return true;
		if (!translation_fill(t, border_bytes, BLK_EXTENT_DATA))
			return false;
	}
	end_bytes = MAX(t->filled_bytes, round_down(end_bytes, block_bytes));
	return translation_fill(t, end_bytes, status);
}

int blk_nbd_extents_translate(const uint32_t *entries, size_t entry_count, uint64_t len_bytes,
			  uint32_t block_bytes, struct blk_extents *out)
{
	struct translation t = { .out = out };
	uint64_t at_bytes = 0;

	out->count = 0;
	if (entry_count == 0 || entry_count % 2)
		return -EIO;
	for (size_t i = 0; i < entry_count && at_bytes < len_bytes; i += 2) {
		/* The last extent may go on beyond what was asked. */
		uint64_t end_bytes = MIN(at_bytes + entries[i], len_bytes);

		if (entries[i] == 0)
			return -EIO;
		if (!translation_add(&t, at_bytes, end_bytes, status_of(entries[i + 1]),
				     block_bytes))
			return 0;
		at_bytes = end_bytes;
	}
	/* The answer ends inside a block: data is what is always right. */
	if (at_bytes > t.filled_bytes)
		(void)translation_fill(&t, t.filled_bytes + block_bytes, BLK_EXTENT_DATA);
	return 0;
}

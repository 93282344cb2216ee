/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_txn.c - the sectors that one operation changes, gathered and made durable as one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "vmfs/vmfs_journal_private.h"

#define GIVES_MAX 4096u

void vmfs_txn_begin(struct vmfs *fs)
{
	fs->txn.depth++;
}

bool vmfs_txn_is_open(const struct vmfs *fs)
{
	return fs->txn.depth > 0;
}

static uint8_t *sector_of(const struct vmfs_txn *txn, uint64_t offset)
{
	for (uint32_t i = 0; i < txn->count; i++)
		if (txn->offsets[i] == offset)
			return txn->sectors + (size_t)i * VMFS_SECTOR_BYTES;
	return NULL;
}

int vmfs_txn_grow(struct vmfs_txn *txn, uint32_t capacity)
{
	uint64_t *offsets;
	uint8_t *sectors;

	if (capacity <= txn->capacity)
		return 0;
	offsets = realloc(txn->offsets, capacity * sizeof(offsets[0]));
	if (!offsets)
		return -ENOMEM;
	txn->offsets = offsets;
	sectors = realloc(txn->sectors, (size_t)capacity * VMFS_SECTOR_BYTES);
	if (!sectors)
		return -ENOMEM;
	txn->sectors = sectors;
	txn->capacity = capacity;
	return 0;
}

int vmfs_txn_keep(struct vmfs_txn *txn, uint64_t offset, const uint8_t *bytes)
{
	uint8_t *at = sector_of(txn, offset);

	if (!at) {
		if (txn->count == txn->capacity)
			return -E2BIG;
		txn->offsets[txn->count] = offset;
		at = txn->sectors + (size_t)txn->count++ * VMFS_SECTOR_BYTES;
	}
	memcpy(at, bytes, VMFS_SECTOR_BYTES);
	return 0;
}

int vmfs_txn_write(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len)
{
	CHECK(offset % VMFS_SECTOR_BYTES == 0 && len % VMFS_SECTOR_BYTES == 0);
	for (size_t at = 0; at < len; at += VMFS_SECTOR_BYTES)
		if (vmfs_txn_keep(&fs->txn, offset + at, bytes + at)) {
			/* Half of it must not become durable. */
			fs->txn.overflow = true;
			return vmfs_fail(fs, ERR_VMFS_LIMIT, -EFBIG,
					 "the change touches more sectors than the journal holds");
		}
	return 0;
}

void vmfs_txn_patch(const struct vmfs *fs, uint64_t offset, uint8_t *bytes, size_t len)
{
	const struct vmfs_txn *txn = &fs->txn;

	for (uint32_t i = 0; i < txn->count; i++)
		if (txn->offsets[i] >= offset && txn->offsets[i] - offset < len)
			memcpy(bytes + (txn->offsets[i] - offset),
			       txn->sectors + (size_t)i * VMFS_SECTOR_BYTES, VMFS_SECTOR_BYTES);
}

void vmfs_txn_take_over(struct vmfs *fs, uint64_t offset, const uint8_t *bytes, size_t len)
{
	struct vmfs_txn *txn = &fs->txn;

	for (uint32_t i = 0; i < txn->count; i++)
		if (txn->offsets[i] >= offset && txn->offsets[i] - offset < len)
			memcpy(txn->sectors + (size_t)i * VMFS_SECTOR_BYTES,
			       bytes + (txn->offsets[i] - offset), VMFS_SECTOR_BYTES);
}

/* ---- giving back ---- */

int vmfs_txn_give(struct vmfs *fs, const uint64_t *words, size_t count)
{
	struct vmfs_txn *txn = &fs->txn;

	if (count == 0)
		return 0;
	if (txn->give_count + count > txn->give_capacity) {
		size_t capacity = MAX(txn->give_count + count, txn->give_capacity * 2);
		uint64_t *gives = realloc(txn->gives, capacity * sizeof(gives[0]));

		CHECK(capacity <= 2 * GIVES_MAX);
		if (!gives)
			return -ENOMEM;
		txn->gives = gives;
		txn->give_capacity = capacity;
	}
	memcpy(txn->gives + txn->give_count, words, count * sizeof(words[0]));
	txn->give_count += count;
	return 0;
}

static int give_all(struct vmfs *fs)
{
	size_t count = fs->txn.give_count;

	fs->txn.give_count = 0;
	return count ? vmfs_give_now(fs, fs->txn.gives, count) : 0;
}

/* ---- the end ---- */

static int by_offset(const void *a, const void *b, void *user)
{
	const uint64_t *offsets = user;
	uint64_t left = offsets[*(const uint32_t *)a], right = offsets[*(const uint32_t *)b];

	return left < right ? -1 : left > right;
}

/* Sectors side by side in one write. */
static int write_in_place(struct vmfs *fs)
{
	struct vmfs_txn *txn = &fs->txn;
	uint32_t order[VMFS_JOURNAL_SECTORS_MAX];
	uint8_t run[16 * VMFS_SECTOR_BYTES];

	for (uint32_t i = 0; i < txn->count; i++)
		order[i] = i;
	qsort_r(order, txn->count, sizeof(order[0]), by_offset, txn->offsets);
	for (uint32_t i = 0; i < txn->count;) {
		uint64_t start = txn->offsets[order[i]];
		size_t len = 0;
		int rc;

		while (i < txn->count && len < sizeof(run) && txn->offsets[order[i]] == start + len) {
			memcpy(run + len, txn->sectors + (size_t)order[i++] * VMFS_SECTOR_BYTES,
			       VMFS_SECTOR_BYTES);
			len += VMFS_SECTOR_BYTES;
		}
		rc = vmfs_volume_put(fs, start, run, len);
		if (rc)
			return rc;
	}
	return 0;
}

static bool any_is_live(struct vmfs *fs)
{
	for (uint32_t i = 0; i < fs->txn.count; i++)
		if (vmfs_journal_is_live(fs, fs->txn.offsets[i], VMFS_SECTOR_BYTES))
			return true;
	return false;
}

static int commit(struct vmfs *fs)
{
	int rc = vmfs_barrier(fs);      /* VJ2 */

	if (!rc && (fs->txn.count > 1 || any_is_live(fs))) {
		rc = vmfs_journal_record(fs);
		if (!rc)
			rc = vmfs_barrier(fs);  /* VJ1 */
	}
	return rc ? rc : write_in_place(fs);
}

int vmfs_txn_end(struct vmfs *fs, int rc)
{
	struct vmfs_txn *txn = &fs->txn;
	int last = 0;

	CHECK(txn->depth > 0);
	if (txn->depth > 1) {
		txn->depth--;
		return rc;
	}
	if (!fs->failed)
		last = give_all(fs);
	txn->depth = 0;
	if (txn->overflow)
		fs->failed = true;      /* memory and disk differ */
	else if (txn->count && !fs->failed)
		last = commit(fs) ? -EIO : last;
	txn->count = 0;
	txn->give_count = 0;
	txn->overflow = false;
	return rc ? rc : last;
}

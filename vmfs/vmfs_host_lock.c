/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_host_lock.c - locks of objects: exclusive, read-only, multi-writer.
 *
 * A lock that is held exclusively names its holder in its own fields; in the other two modes a
 * list has all of them [D], and the fields name the first, which is our choice: how ESXi fills
 * them in was never seen.
 */
#include <errno.h>
#include <string.h>

#include "vmfs/vmfs_host_private.h"

struct locking {
	struct vmfs_host *host;
	uint64_t place;
	enum vmfs_lock_type type;
	uint8_t before[VMFS_LOCK_BYTES], after[VMFS_LOCK_BYTES];
	struct vmfs_lock lock;
	struct vmfs_lock_holder holders[VMFS_LOCK_HOLDERS];
	uint32_t count;
};

static void decode_holders(struct locking *locking)
{
	struct vmfs_lock *lock = &locking->lock;

	locking->count = 0;
	if (lock->mode == VMFS_LOCK_MODE_FREE)
		return;
	if (lock->mode == VMFS_LOCK_MODE_EXCLUSIVE) {
		locking->holders[0].heartbeat_offset = lock->heartbeat_offset;
		locking->holders[0].heartbeat_generation = lock->heartbeat_generation;
		memcpy(locking->holders[0].owner, lock->owner, VMFS_UUID_BYTES);
		locking->count = 1;
		return;
	}
	locking->count = MIN(lock->holder_count, VMFS_LOCK_HOLDERS);
	for (uint32_t i = 0; i < locking->count; i++)
		vmfs_lock_holder_decode(locking->before + VMFS_LOCK_HOLDERS_OFFSET +
						i * VMFS_LOCK_HOLDER_BYTES, &locking->holders[i]);
}

static int load(struct locking *locking)
{
	int rc = vmfs_lv_read(locking->host->lv, locking->place, locking->before,
			      sizeof(locking->before));

	if (rc)
		return rc;
	vmfs_lock_decode(locking->before, &locking->lock);
	if (locking->lock.type != locking->type || locking->lock.volume_offset != locking->place ||
	    locking->lock.mode > VMFS_LOCK_MODE_MULTI_WRITER ||
	    locking->lock.holder_count > VMFS_LOCK_HOLDERS)
		return -EUCLEAN;
	decode_holders(locking);
	return 0;
}

static void encode(struct locking *locking, uint32_t mode)
{
	struct vmfs_lock *lock = &locking->lock;
	bool many = mode > VMFS_LOCK_MODE_EXCLUSIVE;

	memcpy(locking->after, locking->before, sizeof(locking->after));
	lock->mode = locking->count ? mode : VMFS_LOCK_MODE_FREE;
	lock->holder_count = many ? locking->count : 0;
	if (locking->count) {
		lock->heartbeat_offset = locking->holders[0].heartbeat_offset;
		lock->heartbeat_generation = locking->holders[0].heartbeat_generation;
		memcpy(lock->owner, locking->holders[0].owner, VMFS_UUID_BYTES);
	} else {
		memset(lock->owner, 0, sizeof(lock->owner));
	}
	vmfs_lock_encode(lock, locking->after);
	memset(locking->after + VMFS_LOCK_HOLDERS_OFFSET, 0, VMFS_LOCK_HOLDERS * VMFS_LOCK_HOLDER_BYTES);
	for (uint32_t i = 0; i < locking->count && many; i++)
		vmfs_lock_holder_encode(&locking->holders[i], locking->after + VMFS_LOCK_HOLDERS_OFFSET +
								      i * VMFS_LOCK_HOLDER_BYTES);
}

/* From the bytes that were read; -EAGAIN: they are others now. */
static int store(struct locking *locking)
{
	struct vmfs_host *host = locking->host;

	if (!vmfs_host_may_write(host))
		return -ESTALE; /* R-F1 */
	return vmfs_lv_compare_write(host->lv, locking->place, locking->before, locking->after,
				     sizeof(locking->after));
}

/* ---- holders ---- */

static bool is_me(const struct vmfs_host *host, const struct vmfs_lock_holder *holder)
{
	return holder->heartbeat_generation == host->generation &&
	       holder->heartbeat_offset == VMFS_HB_OFFSET + (uint64_t)host->slot * VMFS_HB_BYTES &&
	       memcmp(holder->owner, host->options.uuid, VMFS_UUID_BYTES) == 0;
}

/* Its slot is free, or another's: it was released, or buried with its journal done (R-F6). */
static int judge_holder(struct vmfs_host *host, const struct vmfs_lock_holder *holder, bool *stale,
			uint32_t *slot_out)
{
	uint64_t from_start = holder->heartbeat_offset - VMFS_HB_OFFSET;
	uint8_t bytes[VMFS_HB_BYTES];
	struct vmfs_heartbeat slot;
	int rc;

	*stale = false;
	if (holder->heartbeat_offset < VMFS_HB_OFFSET || from_start % VMFS_HB_BYTES ||
	    from_start / VMFS_HB_BYTES >= 2048)
		return -EUCLEAN;
	*slot_out = (uint32_t)(from_start / VMFS_HB_BYTES);
	rc = vmfs_host_read_slot(host->lv, *slot_out, bytes, &slot);
	if (rc)
		return rc;
	*stale = slot.state == VMFS_HB_FREE || slot.generation != holder->heartbeat_generation ||
		 memcmp(slot.owner, holder->owner, VMFS_UUID_BYTES) != 0;
	return 0;
}

/* The count when there is none. */
static uint32_t my_place(const struct locking *locking)
{
	uint32_t i = 0;

	while (i < locking->count && !is_me(locking->host, &locking->holders[i]))
		i++;
	return i;
}

static void drop_holder(struct locking *locking, uint32_t index)
{
	locking->count--;
	memmove(&locking->holders[index], &locking->holders[index + 1],
		(locking->count - index) * sizeof(locking->holders[0]));
}

static int drop_stale(struct locking *locking, uint32_t *slot_out)
{
	for (uint32_t i = 0; i < locking->count;) {
		bool stale;
		int rc = judge_holder(locking->host, &locking->holders[i], &stale, slot_out);

		if (rc)
			return rc;
		if (stale)
			drop_holder(locking, i);
		else
			i++;
	}
	return 0;
}

static void add_me(struct locking *locking)
{
	struct vmfs_lock_holder *holder = &locking->holders[locking->count++];

	holder->heartbeat_offset = VMFS_HB_OFFSET + (uint64_t)locking->host->slot * VMFS_HB_BYTES;
	holder->heartbeat_generation = locking->host->generation;
	memcpy(holder->owner, locking->host->options.uuid, VMFS_UUID_BYTES);
}

/* ---- taking and releasing ---- */

static int take_once(struct locking *locking, enum vmfs_lock_mode mode, uint32_t *slot_out)
{
	int rc = load(locking);

	if (!rc)
		rc = drop_stale(locking, slot_out);
	if (rc)
		return rc;
	/* An answer of before may have been lost: it is taken already. */
	if (my_place(locking) < locking->count && locking->lock.mode == mode)
		return 0;
	if (locking->count && (mode == VMFS_LOCK_MODE_EXCLUSIVE || locking->lock.mode != mode ||
			       locking->count == VMFS_LOCK_HOLDERS))
		return -EBUSY;
	locking->lock.token++;
	add_me(locking);
	encode(locking, mode);
	return store(locking);
}

int vmfs_host_lock(struct vmfs_host *host, uint64_t place, enum vmfs_lock_type type,
		   enum vmfs_lock_mode mode, uint32_t *holder_out)
{
	struct locking locking = { .host = host, .place = place, .type = type };
	uint32_t slot = 0;
	int rc;

	CHECK(mode > VMFS_LOCK_MODE_FREE && mode <= VMFS_LOCK_MODE_MULTI_WRITER);
	/* Who is overtaken looks again; each time somebody got further. */
	do {
		rc = take_once(&locking, mode, &slot);
	} while (rc == -EAGAIN);
	if (rc == -EBUSY && holder_out)
		*holder_out = slot;
	return rc;
}

static int release_once(struct locking *locking)
{
	int rc = load(locking);

	if (rc)
		return rc;
	if (my_place(locking) == locking->count)
		return -ESTALE; /* another has put it aside */
	drop_holder(locking, my_place(locking));
	encode(locking, locking->lock.mode);
	return store(locking);
}

int vmfs_host_unlock(struct vmfs_host *host, uint64_t place, enum vmfs_lock_type type)
{
	struct locking locking = { .host = host, .place = place, .type = type };
	int rc;

	do {
		rc = release_once(&locking);
	} while (rc == -EAGAIN);
	return rc;
}

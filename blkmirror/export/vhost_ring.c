/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/export/vhost_ring.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

/* ---- what both sides write ---- */

static uint16_t load_16(const uint16_t *from)
{
	return le16toh(__atomic_load_n(from, __ATOMIC_RELAXED));
}

static void store_16(uint16_t *to, uint16_t value)
{
	__atomic_store_n(to, htole16(value), __ATOMIC_RELAXED);
}

/*
 * Between our store and our look at what the driver stored; it has one between its own.  The
 * older builtin, because TSan knows no fences (and nothing of the driver, in another process).
 */
static void full_barrier(void)
{
	__sync_synchronize();
}

/* Everything that the driver wrote before it moved the counter can be read. */
static uint16_t avail_index(const struct vhost_ring *ring)
{
	return le16toh(__atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE));
}

/* Behind the last element of each area, with the event index. */
static uint16_t *used_event(const struct vhost_ring *ring)
{
	return &ring->avail->ring[ring->size];
}

static uint16_t *avail_event(const struct vhost_ring *ring)
{
	return (uint16_t *)(void *)&ring->used->ring[ring->size];
}

/* Once, and whatever happens to the original afterwards. */
static struct vring_desc desc_copy(const void *from)
{
	struct vring_desc desc;

	memcpy(&desc, from, sizeof(desc));
	__asm__ volatile("" ::: "memory");
	return (struct vring_desc){ .addr = le64toh(desc.addr), .len = le32toh(desc.len),
				    .flags = le16toh(desc.flags), .next = le16toh(desc.next) };
}

/* ---- a chain ---- */

/* Where a walk is: in the ring's own table, or in an indirect one. */
struct walk {
	const uint8_t *table;
	uint32_t table_count;
	uint32_t left;                  /* steps that a chain without a loop may still make */
	uint32_t index;
	bool is_indirect;
};

static const char *walk_descend(const struct vhost_ring *ring, const struct vhost_memory *memory,
				const struct vring_desc *desc, struct walk *walk)
{
	struct iovec table;
	struct vhost_pieces pieces = { .list = &table, .max = 1 };

	if (!ring->indirect)
		return "an indirect descriptor that was not negotiated";
	if (walk->is_indirect)
		return "an indirect descriptor inside an indirect table";
	if (desc->flags & VRING_DESC_F_NEXT)
		return "an indirect descriptor that goes on";
	if (desc->len == 0 || desc->len % sizeof(struct vring_desc) ||
	    desc->len / sizeof(struct vring_desc) > VHOST_RING_SIZE_MAX)
		return "an indirect table of a length that cannot be";
	if (!vhost_memory_pieces(memory, desc->addr, desc->len, &pieces))
		return "an indirect table that is not in one memory region";
	walk->table = table.iov_base;
	walk->table_count = walk->left = desc->len / (uint32_t)sizeof(struct vring_desc);
	walk->index = 0;
	walk->is_indirect = true;
	return NULL;
}

static const char *walk_piece(const struct vhost_memory *memory, const struct vring_desc *desc,
			      struct vhost_chain *chain, bool *seen_writable)
{
	bool is_writable = desc->flags & VRING_DESC_F_WRITE;
	struct vhost_pieces pieces = { .list = chain->pieces, .count = chain->count,
				       .max = VHOST_CHAIN_PIECES_MAX };

	if (desc->len == 0)
		return "a descriptor of no length";
	if (*seen_writable && !is_writable)
		return "a readable descriptor behind a writable one";
	if (is_writable && !*seen_writable) {
		chain->readable_count = chain->count;
		*seen_writable = true;
	}
	pieces.join = *seen_writable ? chain->readable_count : 0;
	if (!vhost_memory_pieces(memory, desc->addr, desc->len, &pieces))
		return pieces.count == pieces.max ? "a chain of too many pieces" :
						    "a descriptor in no memory region";
	chain->count = pieces.count;
	return NULL;
}

/* NULL, or what is wrong with the chain. */
static const char *chain_read(const struct vhost_ring *ring, const struct vhost_memory *memory,
			      struct vhost_chain *chain)
{
	struct walk walk = { .table = (const uint8_t *)ring->desc, .table_count = ring->size,
			     .left = ring->size, .index = chain->head };
	bool seen_writable = false;
	const char *reason;

	chain->count = 0;
	for (;;) {
		struct vring_desc desc;

		if (walk.left-- == 0)
			return "a chain with a loop in it";
		if (walk.index >= walk.table_count)
			return "a descriptor outside of its table";
		desc = desc_copy(walk.table + walk.index * sizeof(struct vring_desc));
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			reason = walk_descend(ring, memory, &desc, &walk);
			if (reason)
				return reason;
			continue;
		}
		reason = walk_piece(memory, &desc, chain, &seen_writable);
		if (reason)
			return reason;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			break;
		walk.index = desc.next;
	}
	if (!seen_writable)
		chain->readable_count = chain->count;
	return NULL;
}

/* ---- the in-flight region ---- */

uint64_t vhost_inflight_queue_bytes(uint16_t queue_size)
{
	return round_up(sizeof(struct vhost_inflight_queue) +
			queue_size * sizeof(struct vhost_inflight_desc), VHOST_INFLIGHT_ALIGN);
}

/* A kill may come between any two stores: they must reach memory in the order of the program. */
#define STORE_ORDERED(place, value) __atomic_store_n(&(place), value, __ATOMIC_RELEASE)

static void inflight_took(struct vhost_ring *ring, uint16_t head)
{
	if (!ring->inflight)
		return;
	STORE_ORDERED(ring->inflight->descs[head].counter, ring->inflight_counter++);
	STORE_ORDERED(ring->inflight->descs[head].inflight, 1);
}

static void inflight_gave(struct vhost_ring *ring, uint16_t head)
{
	if (!ring->inflight)
		return;
	STORE_ORDERED(ring->inflight->descs[head].next, ring->inflight->last_batch_head);
	STORE_ORDERED(ring->inflight->last_batch_head, head);
}

static void inflight_published(struct vhost_ring *ring)
{
	if (!ring->inflight)
		return;
	for (uint16_t i = 0; i < ring->batch_count; i++)
		STORE_ORDERED(ring->inflight->descs[ring->batch[i]].inflight, 0);
	STORE_ORDERED(ring->inflight->used_idx, ring->published);
}

static void inflight_begin(struct vhost_inflight_queue *region, uint16_t size, uint16_t used_idx)
{
	memset(region->descs, 0, size * sizeof(region->descs[0]));
	region->features = 0;
	region->desc_count = size;
	region->last_batch_head = 0;
	region->used_idx = used_idx;
	STORE_ORDERED(region->version, VHOST_INFLIGHT_VERSION);
}

/* The last batch was told to the driver, and its entries may not say so yet. */
static void inflight_finish_batch(struct vhost_inflight_queue *region, uint16_t size,
				  uint16_t used_idx)
{
	uint16_t count = (uint16_t)(used_idx - region->used_idx);
	uint16_t head = region->last_batch_head;

	for (uint16_t i = 0; i < MIN(count, size) && head < size; i++) {
		region->descs[head].inflight = 0;
		head = region->descs[head].next;
	}
	region->used_idx = used_idx;
}

struct replay_entry {
	uint64_t counter;
	uint16_t head;
};

static int by_counter(const void *a, const void *b)
{
	const struct replay_entry *one = a, *other = b;

	return one->counter < other->counter ? -1 : one->counter > other->counter;
}

/* Which heads are to be carried out again, in the order in which they were taken. */
static int inflight_read(struct vhost_ring *ring, uint16_t *replay, uint32_t *replay_count)
{
	const struct vhost_inflight_queue *region = ring->inflight;
	struct replay_entry *entries = calloc(ring->size, sizeof(*entries));
	uint32_t count = 0;

	if (!entries)
		return -ENOMEM;
	for (uint16_t head = 0; head < ring->size; head++) {
		if (region->descs[head].inflight)
			entries[count++] = (struct replay_entry){
				.counter = region->descs[head].counter, .head = head };
	}
	qsort(entries, count, sizeof(*entries), by_counter);
	for (uint32_t i = 0; i < count; i++) {
		replay[i] = entries[i].head;
		ring->taken[entries[i].head] = 1;
		ring->inflight_counter = entries[i].counter + 1;
	}
	*replay_count = count;
	free(entries);
	return 0;
}

static int inflight_start(struct vhost_ring *ring, uint16_t *replay, uint32_t *replay_count,
			  const char **reason)
{
	struct vhost_inflight_queue *region = ring->inflight;
	int rc;

	if (region->version == 0) {
		inflight_begin(region, ring->size, ring->published);
		return 0;
	}
	if (region->version != VHOST_INFLIGHT_VERSION || region->desc_count != ring->size) {
		*reason = "an in-flight region of another kind or size";
		return -EINVAL;
	}
	if (region->used_idx != ring->published)
		inflight_finish_batch(region, ring->size, ring->published);
	rc = inflight_read(ring, replay, replay_count);
	if (rc)
		*reason = "out of memory";
	/* Taken is what was told and what was not: the front end may not know. */
	ring->next_avail = (uint16_t)(ring->published + *replay_count);
	return rc;
}

/* ---- life ---- */

bool vhost_ring_size_is_valid(uint32_t size)
{
	return size <= VHOST_RING_SIZE_MAX && is_power_of_two(size);
}

static bool is_aligned(const void *pointer, uintptr_t alignment)
{
	return ((uintptr_t)pointer & (alignment - 1)) == 0;
}

bool vhost_ring_move(struct vhost_ring *ring, const struct vhost_memory *memory,
		     const struct vhost_ring_place *place)
{
	uint64_t size = place->size;
	void *desc = vhost_memory_at_hva(memory, place->desc_hva, size * sizeof(*ring->desc));
	/* With the event index behind it, used or not. */
	void *avail = vhost_memory_at_hva(memory, place->avail_hva,
					  sizeof(*ring->avail) + (size + 1) * sizeof(uint16_t));
	void *used = vhost_memory_at_hva(memory, place->used_hva,
					 vhost_ring_used_bytes(place->size));

	if (!desc || !avail || !used || !is_aligned(desc, VRING_DESC_ALIGN_SIZE) ||
	    !is_aligned(avail, VRING_AVAIL_ALIGN_SIZE) || !is_aligned(used, VRING_USED_ALIGN_SIZE))
		return false;
	ring->desc = desc;
	ring->avail = avail;
	ring->used = used;
	return true;
}

int vhost_ring_start(struct vhost_ring *ring, const struct vhost_memory *memory,
		     const struct vhost_ring_place *place, uint16_t *replay,
		     uint32_t *replay_count, const char **reason)
{
	int rc = 0;

	CHECK(vhost_ring_size_is_valid(place->size));
	*replay_count = 0;
	*ring = (struct vhost_ring){ .size = place->size, .event_idx = place->event_idx,
				     .indirect = place->indirect,
				     .next_avail = place->next_avail,
				     .inflight = place->inflight };
	if (!vhost_ring_move(ring, memory, place)) {
		*reason = "a ring that is in no memory region, or not aligned";
		return -EINVAL;
	}
	ring->taken = calloc(ring->size, sizeof(*ring->taken));
	ring->batch = calloc(ring->size, sizeof(*ring->batch));
	if (!ring->taken || !ring->batch) {
		*reason = "out of memory";
		vhost_ring_release(ring);
		return -ENOMEM;
	}
	ring->published = ring->next_used = load_16(&ring->used->idx);
	if (ring->inflight)
		rc = inflight_start(ring, replay, replay_count, reason);
	if (rc)
		vhost_ring_release(ring);
	return rc;
}

void vhost_ring_release(struct vhost_ring *ring)
{
	free(ring->taken);
	free(ring->batch);
	*ring = (struct vhost_ring){ 0 };
}

/* ---- taking ---- */

bool vhost_ring_has_more(const struct vhost_ring *ring)
{
	return avail_index(ring) != ring->next_avail;
}

int vhost_ring_retake(struct vhost_ring *ring, const struct vhost_memory *memory, uint16_t head,
		      struct vhost_chain *chain, const char **reason)
{
	CHECK(head < ring->size);
	CHECK(ring->taken[head]);
	chain->head = head;
	*reason = chain_read(ring, memory, chain);
	return *reason ? -EPROTO : 0;
}

int vhost_ring_take(struct vhost_ring *ring, const struct vhost_memory *memory,
		    struct vhost_chain *chain, const char **reason)
{
	uint16_t ready = (uint16_t)(avail_index(ring) - ring->next_avail);
	uint16_t head;

	if (ready == 0)
		return 0;
	*reason = "more chains than the ring has room for";
	if (ready > ring->size)
		return -EPROTO;
	head = load_16(&ring->avail->ring[ring->next_avail & (ring->size - 1)]);
	*reason = "a head outside of the descriptor table";
	if (head >= ring->size)
		return -EPROTO;
	*reason = "a head that is in flight already";
	if (ring->taken[head])
		return -EPROTO;
	chain->head = head;
	*reason = chain_read(ring, memory, chain);
	if (*reason)
		return -EPROTO;
	inflight_took(ring, head);
	ring->taken[head] = 1;
	ring->next_avail++;
	return 1;
}

/* ---- giving back ---- */

void vhost_ring_give(struct vhost_ring *ring, uint16_t head, uint32_t written_bytes)
{
	struct vring_used_elem *element = &ring->used->ring[ring->next_used & (ring->size - 1)];

	CHECK(head < ring->size);
	CHECK(ring->taken[head]);
	CHECK(ring->batch_count < ring->size);
	element->id = htole32(head);
	element->len = htole32(written_bytes);
	inflight_gave(ring, head);
	ring->batch[ring->batch_count++] = head;
	ring->next_used++;
}

/* Has the driver asked to be told, between the old counter and the new one? */
static bool wants_notification(struct vhost_ring *ring, uint16_t old, uint16_t new)
{
	bool first = !ring->signalled;

	ring->signalled = true;
	if (!ring->event_idx)
		return !(load_16(&ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return first || vring_need_event(load_16(used_event(ring)), new, old);
}

bool vhost_ring_publish(struct vhost_ring *ring)
{
	uint16_t old = ring->published;

	if (ring->batch_count == 0)
		return false;
	__atomic_store_n(&ring->used->idx, htole16(ring->next_used), __ATOMIC_RELEASE);
	ring->published = ring->next_used;
	inflight_published(ring);
	for (uint16_t i = 0; i < ring->batch_count; i++)
		ring->taken[ring->batch[i]] = 0;
	ring->batch_count = 0;
	/* The counter before the look at what the driver asks; it does the reverse. */
	full_barrier();
	return wants_notification(ring, old, ring->published);
}

/* ---- kicks ---- */

bool vhost_ring_arm(struct vhost_ring *ring)
{
	if (ring->event_idx)
		store_16(avail_event(ring), ring->next_avail);
	else
		store_16(&ring->used->flags, 0);
	/* The wish before the look; the driver does the reverse. */
	full_barrier();
	return vhost_ring_has_more(ring);
}

void vhost_ring_disarm(struct vhost_ring *ring)
{
	/* With the event index no kick comes before the driver has passed the last wish again. */
	if (!ring->event_idx)
		store_16(&ring->used->flags, VRING_USED_F_NO_NOTIFY);
}

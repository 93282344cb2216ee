/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_ring.h - a split virtqueue, seen from the device: taking chains, giving them back.
 *
 * virtio 1.2, 2.7.  Three areas in guest memory:
 *
 *	desc    a table of pieces: address, length, flags, next
 *	avail   the driver's: heads of chains that are ready, behind a counter
 *	used    ours: heads that are done, behind a counter
 *
 *	              next_used        published         next_avail        avail idx
 *	used   ... ====|~~~~~~~~~~~~~~~~|.......          ====|------------|
 *	               done, not told yet                 taken  to be taken
 *	(published trails next_used; the driver sees the counters, never what is ours alone)
 *
 * The driver may write all of it at any time.  Each thing is read once, into memory of ours,
 * and judged there; a ring that breaks the rules is broken: vhost_ring_take() says why, and
 * who uses it stops.  A head that is in our hands already is refused, so that at most `size`
 * chains are taken at once.
 *
 * The in-flight region (vhost_proto.h), where there is one, is kept up to date at each step,
 * so that whoever comes after a kill knows what was taken and not told: vhost_ring_start()
 * reads it and gives the heads to be carried out again, in order.
 *
 * No I/O, no clock: a ring is a function of the memory that it is shown.
 *
 * Threading: vhost_map.h.
 */
#ifndef BM_VHOST_RING_H
#define BM_VHOST_RING_H

#include <linux/virtio_ring.h>

#include "blkmirror/export/vhost_memory.h"

#define VHOST_RING_SIZE_MAX 1024u
/* Pieces of one chain; blkdev.h's iovec, the request's header and its status. */
#define VHOST_CHAIN_PIECES_MAX 258u

struct vhost_ring {
	uint16_t size;                  /* power of two */
	bool event_idx;                 /* negotiated */
	bool indirect;
	struct vring_desc *desc;        /* in guest memory */
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t published;
	bool signalled;                 /* the driver has been told once since the start */

	uint8_t *taken;                 /* per head: in our hands */
	uint16_t *batch;                /* heads given back since the last publish */
	uint16_t batch_count;
	struct vhost_inflight_queue *inflight;  /* borrowed; NULL: none */
	uint64_t inflight_counter;
};

/* One request of the driver. */
struct vhost_chain {
	uint16_t head;
	uint32_t count;
	uint32_t readable_count;        /* pieces before this are read, the others written */
	struct iovec pieces[VHOST_CHAIN_PIECES_MAX];
};

struct vhost_ring_place {
	uint16_t size;
	uint16_t next_avail;            /* where it was stopped; an in-flight region knows better */
	uint64_t desc_hva, avail_hva, used_hva;
	bool event_idx, indirect;
	struct vhost_inflight_queue *inflight;  /* of at least size entries; NULL: none */
};

/* A size that a ring may have. */
bool vhost_ring_size_is_valid(uint32_t size);

/*
 * Begin to use a ring that lies in memory.  replay[0..*replay_count) are the heads that were
 * taken before and not told: vhost_ring_retake() each, in this order, before any other; room
 * for `size` of them.
 * 0, or -errno and *reason: -EINVAL, -ENOMEM.
 */
MUST_CHECK int vhost_ring_start(struct vhost_ring *ring, const struct vhost_memory *memory,
				const struct vhost_ring_place *place, uint16_t *replay,
				uint32_t *replay_count, const char **reason);

/* The memory table has changed: find the areas again.  False: they are in it no more. */
bool vhost_ring_move(struct vhost_ring *ring, const struct vhost_memory *memory,
		     const struct vhost_ring_place *place);

/* Forget all.  Harmless on one that is all zeroes. */
void vhost_ring_release(struct vhost_ring *ring);

/* Take the next chain.  1: taken; 0: there is none; -EPROTO: broken, *reason says how. */
MUST_CHECK int vhost_ring_take(struct vhost_ring *ring, const struct vhost_memory *memory,
			       struct vhost_chain *chain, const char **reason);
/* The chain of a head from the replay.  0 or -EPROTO. */
MUST_CHECK int vhost_ring_retake(struct vhost_ring *ring, const struct vhost_memory *memory,
				 uint16_t head, struct vhost_chain *chain, const char **reason);

/* Give a chain back, with so many bytes written to it.  Told to the driver at the next publish. */
void vhost_ring_give(struct vhost_ring *ring, uint16_t head, uint32_t written_bytes);
/* Tell the driver of all that was given back.  True: it wants a notification. */
MUST_CHECK bool vhost_ring_publish(struct vhost_ring *ring);

/*
 * Ask for a kick when there is more.  True: there is more already, take it first.
 * vhost_ring_disarm(): kicks would be in vain (polling).
 */
MUST_CHECK bool vhost_ring_arm(struct vhost_ring *ring);
void vhost_ring_disarm(struct vhost_ring *ring);

/* Is there something to take? */
bool vhost_ring_has_more(const struct vhost_ring *ring);

/* The used area, for the dirty log. */
static inline uint64_t vhost_ring_used_bytes(uint16_t size)
{
	return sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) + sizeof(uint16_t);
}

/* ---- the in-flight region ---- */

/* Of one queue with rings of this size. */
uint64_t vhost_inflight_queue_bytes(uint16_t queue_size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_receive.h - the receiving end: batches become a guest's memory.
 *
 * The memory is made empty first, so that what the source never had needs not be sent, and a page
 * that is told to be zero and was never filled stays the hole that it is (R-E3).
 *
 * Everything that comes is hostile until judged.  A batch that is refused has changed nothing,
 * but for one whose stored part was put straight in its place and whose packed part is bad then:
 * the guest has not run yet, and a receiver that has refused something refuses all that follows.
 *
 * A stream is refused when a batch is lost, repeated, out of order or of another stream, or when it
 * comes after mem_receiver_close().
 *
 * Threading: batches of one stream on one thread at a time, streams beside each other;
 * new, close and free with no stream at work.
 */
#ifndef BM_VMOTION_MEM_RECEIVE_H
#define BM_VMOTION_MEM_RECEIVE_H

#include <sys/uio.h>

#include "vmotion/mem_batch.h"

struct mem_receiver;

struct mem_receiver_options {
	uint32_t stream_count;
	/* All streams have ended this round; from the thread of the last of them.  May be NULL. */
	void (*round_done)(void *user, uint32_t round);
	void *user;
};

/* Where a batch's stored part goes, in order, and how much is left to come after it. */
struct mem_arrival {
	uint32_t table_bytes;           /* of the batch's begin: head and entries */
	uint32_t iov_count;
	struct iovec iov[MEM_BATCH_ENTRIES_MAX];
	uint32_t packed_wire_bytes;
};

/*
 * The space must be mapped (mem_space_map()); it is borrowed, and made empty.
 * 0 or -errno with *err.
 */
MUST_CHECK int mem_receiver_new(const struct mem_space *space,
				const struct mem_receiver_options *options,
				struct mem_receiver **out, struct err *err);
void mem_receiver_free(struct mem_receiver *receiver);

/*
 * Judge a batch's head and entries, its first bytes.  -EAGAIN: *need_bytes of it are needed;
 * 0: read the stored part into arrival->iov and the packed part, then call mem_receiver_finish().
 */
MUST_CHECK int mem_receiver_begin(struct mem_receiver *receiver, uint32_t stream,
				  const uint8_t *bytes, uint32_t len_bytes, uint32_t *need_bytes,
				  struct mem_arrival *arrival, struct err *err);
/* packed: arrival->packed_wire_bytes bytes. */
MUST_CHECK int mem_receiver_finish(struct mem_receiver *receiver, uint32_t stream,
				   const uint8_t *packed, struct err *err);

/* A whole batch that lies in memory. */
MUST_CHECK int mem_receiver_batch(struct mem_receiver *receiver, uint32_t stream,
				  const uint8_t *bytes, uint32_t len_bytes, struct err *err);

/* The last round that has ended on all streams.  From any thread. */
uint32_t mem_receiver_rounds(struct mem_receiver *receiver);

/*
 * Nothing may come any more.  0; -EBADMSG where some stream has not ended this round, has begun
 * another, or was refused.
 */
MUST_CHECK int mem_receiver_close(struct mem_receiver *receiver, uint32_t round, struct err *err);

#endif

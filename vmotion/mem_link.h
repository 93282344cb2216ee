/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_link.h - what the memory engine asks of the wire: carry batches, and say when there is room.
 *
 * Sending: a stream has MEM_STREAM_BUFS buffers and no more; that is the flow control.  The engine
 * fills one, hands it over with send(), and fills the next.  The link gives each back by
 * mem_buf_done() when its bytes need not be kept any longer, in any order, from any thread, also
 * from inside send().  A result other than 0 ends the round: the stream is lost.
 *
 * Batches of one stream arrive in the order of sending and each once, or the stream is lost: what
 * arrives out of order is refused (mem_receive.h).
 *
 * When the other end has applied a whole round on all streams it tells so (mem_receive.h), and the
 * link passes that on with mem_rounds_acknowledged().
 */
#ifndef BM_VMOTION_MEM_LINK_H
#define BM_VMOTION_MEM_LINK_H

#include "vmotion/mem_batch.h"

#define MEM_STREAM_BUFS 4u

struct mem_buf {
	uint32_t stream;
	uint32_t len_bytes;
	void (*done)(struct mem_buf *buf, int result); /* private to the engine from here */
	void *owner;
	struct mem_buf *next;
	uint8_t bytes[MEM_BATCH_MAX_BYTES];
};

struct mem_link;

struct mem_link_ops {
	/* Takes the buffer until mem_buf_done().  Never blocks.  On the stream's own thread. */
	void (*send)(struct mem_link *link, struct mem_buf *buf);
};

struct mem_link {
	const struct mem_link_ops *ops;
};

static inline void mem_buf_done(struct mem_buf *buf, int result)
{
	buf->done(buf, result);
}

#endif

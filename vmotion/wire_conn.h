/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_conn.h - one connection of the wire: hello, then lines or frames, until it is dead.
 *
 *   OPENING   our hello is on its way (dialled), or the other's is awaited (accepted)
 *   UP        lines (control) or frames (data) both ways
 *   CLOSING   what was queued goes out, then it is closed
 *   DEAD      closed; freed by the loop a moment later
 *
 * Sending never blocks: what does not fit the bounded queue is refused with -EAGAIN, and
 * writable() tells when half of it is free.  Receiving stops while the owner has paused it, and
 * while answers pile up: a peer that asks faster than it listens waits.
 *
 * A peer is dead when nothing has come for WIRE_SILENCE_NS; each side sends something at least
 * every WIRE_BEAT_NS.  A hello must be finished within WIRE_HELLO_NS.
 *
 * Each frame and line carries the next number of its connection: one that is missing, comes
 * twice or out of order ends the connection.
 *
 * Callbacks run from the loop; each may close the connection.  dead() is the last one.
 * Threading: one loop.
 */
#ifndef BM_WIRE_CONN_H
#define BM_WIRE_CONN_H

#include "vmotion/wire_format.h"
#include "vmotion/wire_pipe.h"

#define WIRE_BEAT_NS (2 * NS_PER_S)
#define WIRE_SILENCE_NS (10 * NS_PER_S)
#define WIRE_HELLO_NS (5 * NS_PER_S)
#define WIRE_CONTROL_QUEUE_BYTES (UINT32_C(256) << 10)
#define WIRE_DATA_QUEUE_BYTES (UINT32_C(4) << 20)

/* Who we are, and what is alive: shared by all connections of a loop. */
struct wire_env {
	struct loop *loop;
	struct uuid host;
	uint32_t live;                  /* connections and links that are not freed yet */
};

struct wire_conn;

struct wire_conn_ops {
	/* Accepted: answer at once, with wire_conn_welcome() or wire_conn_refuse(). */
	void (*hello)(struct wire_conn *conn, const struct wire_hello *hello);
	/* Dialled: it is up. */
	void (*welcome)(struct wire_conn *conn, const struct wire_welcome *welcome);
	void (*line)(struct wire_conn *conn, const struct wire_line *line);     /* borrowed */
	/* Where the payload shall go (wire_bytes of room); NULL function or answer: a buffer of ours. */
	uint8_t *(*place)(struct wire_conn *conn, const struct wire_frame *frame);
	/* Whole and undamaged.  The payload is borrowed. */
	void (*frame)(struct wire_conn *conn, const struct wire_frame *frame,
		      const uint8_t *payload);
	void (*writable)(struct wire_conn *conn);
	/* Every WIRE_BEAT_NS on a control connection that is up. */
	void (*beat)(struct wire_conn *conn);
	/* It is gone; err->id is ERR_NONE after an orderly end of our own. */
	void (*dead)(struct wire_conn *conn, const struct err *err);
};

/* NULL: out of memory; the pipe is closed then.  Takes the pipe. */
struct wire_conn *wire_conn_dialled(struct wire_env *env, struct wire_pipe *pipe,
				    const struct wire_hello *hello,
				    const struct wire_conn_ops *ops, void *owner);
struct wire_conn *wire_conn_accepted(struct wire_env *env, struct wire_pipe *pipe,
				     const struct wire_conn_ops *ops, void *owner);

/* From hello() only.  A data connection's frames carry seed, channel and epoch. */
void wire_conn_welcome(struct wire_conn *conn, const struct wire_welcome *welcome, uint64_t seed);
void wire_conn_refuse(struct wire_conn *conn, const struct err *why);

/* Hand it to another owner, e.g. from hello(). */
void wire_conn_adopt(struct wire_conn *conn, const struct wire_conn_ops *ops, void *owner);
void *wire_conn_owner(const struct wire_conn *conn);
const struct wire_pipe *wire_conn_pipe(const struct wire_conn *conn);

/* For a dialled data connection, before it is up. */
void wire_conn_set_seed(struct wire_conn *conn, uint64_t seed);

/* 0; -EAGAIN: the queue is full; -ENOTCONN; -EMSGSIZE, -EINVAL, -ENOMEM as wire_line_encode(). */
MUST_CHECK int wire_conn_send_line(struct wire_conn *conn, const char *type,
				   const json_t *message);
/* channel, epoch and sequence are set here.  0, -EAGAIN, -ENOTCONN. */
MUST_CHECK int wire_conn_send_frame(struct wire_conn *conn, struct wire_frame *frame,
				    const void *payload);

void wire_conn_pause(struct wire_conn *conn);
void wire_conn_resume(struct wire_conn *conn);

/* Frames (or lines) that the peer has sent and we have delivered; that we have queued. */
uint64_t wire_conn_received(const struct wire_conn *conn);
uint64_t wire_conn_sent(const struct wire_conn *conn);
/* Bytes that went each way, framing included, TLS not. */
uint64_t wire_conn_bytes_in(const struct wire_conn *conn);
uint64_t wire_conn_bytes_out(const struct wire_conn *conn);

/* Drop it now; dead() does not run.  NULL is harmless. */
void wire_conn_close(struct wire_conn *conn);
/* What is queued goes out first (at most WIRE_BEAT_NS); no callback but dead(). */
void wire_conn_finish(struct wire_conn *conn);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_pipe.h - a byte stream to a peer: a socket with TLS, or one of the simulation.
 *
 * The owner reads and writes until -EAGAIN, then says what it wants; the pipe calls ready() when
 * trying again makes sense (perhaps in vain).  A pipe that is still connecting or shaking hands
 * answers -EAGAIN.  After any other error it is only closed; pipe->err then says what happened,
 * when the pipe knows better than the number.
 *
 * ready() runs from the loop, never from inside a call on the pipe.
 * Threading: one loop.
 */
#ifndef BM_WIRE_PIPE_H
#define BM_WIRE_PIPE_H

#include <sys/types.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

#define WIRE_KEY_BYTES 51               /* "SHA256:" and 43 of base64, and a NUL */
#define WIRE_PEER_BYTES 64

struct wire_pipe;

struct wire_pipe_ops {
	/* > 0; 0: the peer has closed; -EAGAIN; else lost. */
	ssize_t (*read)(struct wire_pipe *pipe, void *bytes, size_t count);
	/* > 0; -EAGAIN; else lost. */
	ssize_t (*write)(struct wire_pipe *pipe, const void *bytes, size_t count);
	/* WATCH_READ, WATCH_WRITE: what ready() is to be called for. */
	void (*want)(struct wire_pipe *pipe, unsigned events);
	/* Frees it.  abort: drop what is under way (R3), else what was written still goes out. */
	void (*close)(struct wire_pipe *pipe, bool abort);
};

struct wire_pipe {
	const struct wire_pipe_ops *ops;
	void (*ready)(struct wire_pipe *pipe);  /* the owner's */
	void *owner;
	bool encrypted;
	char peer_key[WIRE_KEY_BYTES];  /* fingerprint that the peer has proved; "": none (yet) */
	char peer[WIRE_PEER_BYTES];     /* its address, for messages */
	struct err err;
};

#endif

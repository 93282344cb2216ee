/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_liar.h - an NBD server for one client that says what a test tells it to say.
 *
 * It speaks just enough of the handshake for libnbd; the commands that come are
 * counted and handed to the test, on the liar's own thread.
 */
#ifndef TESTS_NBD_LIAR_H
#define TESTS_NBD_LIAR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	LIAR_READ, LIAR_WRITE, LIAR_DISC, LIAR_FLUSH, LIAR_TRIM, LIAR_CACHE, LIAR_ZERO, LIAR_STATUS
};

enum {                                  /* transmission flags */
	LIAR_HAS_FLAGS = 1,
	LIAR_IS_READ_ONLY = 2,
	LIAR_CAN_FLUSH = 4,
	LIAR_CAN_FUA = 8,
	LIAR_CAN_TRIM = 32,
	LIAR_CAN_ZERO = 64,
};

struct liar_command {
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
};

struct liar {
	/* What it says; set before liar_start(). */
	uint64_t size_bytes;
	uint16_t flags;
	uint32_t block_min, block_preferred, block_max; /* all 0: not told */
	bool offers_extents;
	bool garbles_handshake;         /* sends noise instead of the magic */
	bool is_silent;                 /* accepts, and never says a word */
	/* Called for each command, payload already read.  False ends the connection. */
	bool (*on_command)(struct liar *liar, const struct liar_command *command);
	void *user;

	char uri[160];                  /* how to reach it */
	_Atomic unsigned commands;      /* seen */
	_Atomic int fd;                 /* of the connection; on_command may write to it */
	int listen_fd;
	char socket_path[108];
	pthread_t thread;
};

/* Listens on a UNIX socket below `dir`, or on TCP (dir NULL), and serves one client. */
void liar_start(struct liar *liar, const char *dir);

/* Ends the connection if it still stands, and the thread. */
void liar_stop(struct liar *liar);

/* A simple reply, data (may be NULL) behind it.  error: NBD's number. */
void liar_reply(struct liar *liar, uint64_t cookie, uint32_t error, const void *data, size_t bytes);

/* One block status chunk of pairs (length, flags), the last of its command. */
void liar_reply_status(struct liar *liar, uint64_t cookie, const uint32_t *entries, size_t count);

/* A structured reply that says "done" and nothing else. */
void liar_reply_none(struct liar *liar, uint64_t cookie);

#endif

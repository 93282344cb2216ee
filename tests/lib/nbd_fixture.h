/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_fixture.h - an NBD server over a device in memory, on a loop thread, for cmocka tests.
 *
 * Include after cmocka.h.  A test sets options and limits between fixture_new() and
 * fixture_start(), looks at the loop's side with look_at(), and ends with fixture_free(),
 * which also checks that no buffer has leaked.
 */
#ifndef BM_TESTS_NBD_FIXTURE_H
#define BM_TESTS_NBD_FIXTURE_H

#include <unistd.h>

#include "blkmirror/export/nbd_server.h"
#include "tests/lib/loop_thread.h"
#include "tests/lib/mem_dev.h"
#include "tests/lib/nbd_client.h"

#define DISK_BYTES (UINT64_C(192) << 20)
#define MAX_BYTES (32u << 20)
#define ok(call) assert_int_equal(call, 0)

struct fixture {
	char directory[64];
	char path[96];
	struct loop_thread *thread;
	struct buf_pool *pool;
	struct mem_dev *mem;
	struct nbd_server *server;      /* NULL once closed */
	struct nbd_server_options options;
	struct blk_limits limits;
	uint64_t pool_bytes;
	int listen_fd;
	int *keep_fd;                   /* what nbd_server_close() is given */
	struct latch closed;
};

struct fixture *fixture_new(void);
void fixture_start(struct fixture *fixture);
/* Both of them, with the usual options. */
struct fixture *fixture_usual(void);
/* Ask the server to close; fixture->closed tells when it has. */
void fixture_begin_close(struct fixture *fixture);
void fixture_close_server(struct fixture *fixture);
/* Closes the server first where that was not done. */
void fixture_free(struct fixture *fixture);

/* ---- clients ---- */

struct nbd_client connected(struct fixture *fixture);
/* Greeted with both flags. */
struct nbd_client greeted(struct fixture *fixture);
/* In transmission. */
struct nbd_client started(struct fixture *fixture, bool structured);

/* ---- the loop's side ---- */

struct look {
	struct fixture *fixture;
	uint64_t waiting, in_flight, pool_used, protocol_errors, ops[BLK_OP_COUNT];
	unsigned last_flags[BLK_OP_COUNT];
	uint32_t connections;
	uint32_t spare_rx;              /* receive buffers that no connection holds */
	bool last_had_data;
};

struct look look_at(struct fixture *fixture);

/* Until the condition on the look called `now` holds; fails the test when it never does. */
#define wait_until(fixture, now, condition)                                      \
	do {                                                                     \
		int tries = 4000;                                                \
		struct look now = look_at(fixture);                              \
		while (!(condition) && --tries) {                                \
			usleep(5000);                                            \
			now = look_at(fixture);                                  \
		}                                                                \
		assert_true(tries > 0);                                          \
	} while (0)

void device_hang(struct fixture *fixture, bool hung);
/* Every `op` fails with rc from now on; 0: none. */
void device_fail(struct fixture *fixture, enum blk_op op, int rc);

/* A pattern in which no two places near each other are alike. */
void fill(uint8_t *bytes, size_t len, unsigned seed);

#endif

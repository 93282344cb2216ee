/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_fixture.h - a vhost-user-blk server over a device in memory, on a loop thread, for
 * cmocka tests, with one fake front end.
 *
 * Include after cmocka.h.  A test sets options and limits between vfix_new() and vfix_start(),
 * and ends with vfix_free(), which waits for the server's end.
 */
#ifndef BM_TESTS_VHOST_FIXTURE_H
#define BM_TESTS_VHOST_FIXTURE_H

#include <unistd.h>

#include "blkmirror/export/vhost_blk_server.h"
#include "tests/lib/loop_thread.h"
#include "tests/lib/mem_dev.h"
#include "tests/lib/vhost_front.h"

#define VFIX_DISK_BYTES (UINT64_C(64) << 20)
#define VFIX_QUEUE_SIZE 64u

struct vfix {
	char directory[64];
	char path[96];
	struct loop_thread *thread;
	struct mem_dev *mem;
	struct vhost_blk_server *server;        /* NULL once closed */
	struct vhost_blk_options options;
	struct blk_limits limits;
	int listen_fd;
	int *keep_fd;                   /* what vhost_blk_server_close() is given */
	struct latch closed;
	struct front front;
};

struct vfix *vfix_new(void);
void vfix_start(struct vfix *fix);
/* Started, and the front end runs one queue. */
struct vfix *vfix_usual(void);
void vfix_begin_close(struct vfix *fix);
void vfix_close_server(struct vfix *fix);
void vfix_free(struct vfix *fix);

/* ---- the loop's side ---- */

struct vlook {
	struct vfix *fix;
	uint64_t in_flight, waiting, errors, ops[BLK_OP_COUNT];
	unsigned last_flags[BLK_OP_COUNT];
	uint32_t connections;
};

struct vlook vlook_at(struct vfix *fix);
void vfix_hang(struct vfix *fix, bool hung);
void vfix_fail(struct vfix *fix, enum blk_op op, int rc);

/* Until the condition on the look called `now` holds; fails the test when it never does. */
#define vfix_wait(fix, now, condition)                                           \
	do {                                                                     \
		int tries = 4000;                                                \
		struct vlook now = vlook_at(fix);                                \
		(void)now;                                                       \
		while (!(condition) && --tries) {                                \
			usleep(5000);                                            \
			now = vlook_at(fix);                                     \
		}                                                                \
		assert_true(tries > 0);                                          \
	} while (0)

#endif

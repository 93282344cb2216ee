/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whatever a server says, the NBD client judges it, says why, and never hangs;
 * and what it sends is what blkdev.h promises (FUA, no-hole, a bounded number at once).
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/blkdev/blk_nbd_private.h"
#include "tests/lib/nbd_liar.h"

#define LONG_NS (20 * NS_PER_S)
#define MIB (UINT64_C(1) << 20)

struct rig {
	char dir[64];
	struct loop *loop;
	struct liar liar;
	struct blk_dev *dev;
	unsigned done_count, wanted;
	struct timer timer;
};

static struct rig *current;

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	alarm(120);
	snprintf(rig->dir, sizeof(rig->dir), "/tmp/blk_nbd.XXXXXX");
	if (!mkdtemp(rig->dir))
		return -1;
	rig->loop = loop_new();
	rig->liar = (struct liar){ .size_bytes = MIB, .listen_fd = -1, .user = rig };
	*state = current = rig;
	return 0;
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;

	blk_close(rig->dev);
	if (rig->liar.listen_fd >= 0)
		liar_stop(&rig->liar);
	loop_free(rig->loop);
	rmdir(rig->dir);
	free(rig);
	return 0;
}

static int rig_connect(struct rig *rig, struct blk_nbd_link **link, struct err *err)
{
	if (rig->liar.listen_fd < 0)
		liar_start(&rig->liar, rig->dir);
	return blk_nbd_connect(rig->liar.uri, false, LONG_NS, link, err);
}

static void rig_open(struct rig *rig)
{
	const struct blk_nbd_options options = { .name = "liar" };
	struct blk_nbd_link *link;
	struct err err;

	if (rig_connect(rig, &link, &err))
		fail_msg("%s", err.cause);
	assert_int_equal(blk_nbd_new(rig->loop, link, &options, &rig->dev, &err), 0);
}

/* ---- what is said in the handshake ---- */

static void assert_refused(struct rig *rig, int rc, enum err_id id)
{
	struct blk_nbd_link *link = NULL;
	struct err err = { 0 };
	int got = rig_connect(rig, &link, &err);

	if (got != rc || err.id != id)
		fail_msg("%d %s: %s", got, err_name(err.id), err.cause);
	assert_null(link);
	assert_true(strlen(err.cause) > 0);
}

static void test_sizes(void **state)
{
	static const struct { uint64_t size_bytes; int rc; enum err_id id; } table[] = {
		{ 0, -EINVAL, ERR_DISK_BAD_SIZE },
		{ 1000, -EINVAL, ERR_DISK_BAD_SIZE },
		{ UINT64_C(1) << 63, 0, ERR_NONE },     /* which of the two, libnbd decides */
		{ UINT64_MAX, 0, ERR_NONE },
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		struct blk_nbd_link *link = NULL;
		struct err err = { 0 };

		rig->liar.size_bytes = table[i].size_bytes;
		if (table[i].rc) {
			assert_refused(rig, table[i].rc, table[i].id);
		} else {
			assert_true(rig_connect(rig, &link, &err) < 0);
			assert_true(err.id == ERR_NBD_PROTOCOL || err.id == ERR_NBD_CONNECT);
		}
		liar_stop(&rig->liar);
		rig->liar.listen_fd = -1;
	}
}

static void test_block_sizes(void **state)
{
	static const struct { uint32_t least, preferred, most; } table[] = {
		{ 512, 4096, 1 << 20 }, { 1, 4096, 1 << 20 },     { 4096, 65536, 65536 },
		{ 512, 512, 512 },      { 4096, 1 << 25, 1 << 25 }, { 65536, 65536, UINT32_MAX },
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		struct blk_nbd_link *link = NULL;
		struct err err = { 0 };

		rig->liar.block_min = table[i].least;
		rig->liar.block_preferred = table[i].preferred;
		rig->liar.block_max = table[i].most;
		if (rig_connect(rig, &link, &err))
			fail_msg("case %zu: %s", i, err.cause);
		assert_int_equal(link->block_bytes, MAX(table[i].least, 512u));
		assert_int_equal(link->physical_bytes, MIN(table[i].preferred, 65536u));
		assert_true(link->max_transfer_bytes <= table[i].most);
		assert_int_equal(link->max_transfer_bytes % link->block_bytes, 0);
		blk_nbd_link_free(link);
		liar_stop(&rig->liar);
		rig->liar.listen_fd = -1;
	}
}

/* Whether libnbd drops such values or we refuse them: no device must believe them. */
static void test_insane_block_sizes(void **state)
{
	static const uint32_t table[][3] = {
		{ 3, 4096, 65536 },      { 131072, 131072, 1 << 20 }, { 512, 3000, 65536 },
		{ 4096, 512, 65536 },    { 4096, 4096, 1000 },        { 0, 0, 5 },
		{ 1, 512, 256 },         { 1, 256, 300 },
		{ 1u << 31, 1u << 31, UINT32_MAX },
	};
	struct rig *rig = *state;

	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		struct blk_nbd_link *link = NULL;
		struct err err = { 0 };

		rig->liar.block_min = table[i][0];
		rig->liar.block_preferred = table[i][1];
		rig->liar.block_max = table[i][2];
		if (rig_connect(rig, &link, &err) == 0) {
			assert_in_range(link->block_bytes, 512, 65536);
			assert_in_range(link->physical_bytes, link->block_bytes, 65536);
			assert_in_range(link->max_transfer_bytes, link->block_bytes,
					BLK_MAX_TRANSFER_BYTES);
			blk_nbd_link_free(link);
		} else {
			assert_true(err.id == ERR_NBD_PROTOCOL || err.id == ERR_NBD_CONNECT);
		}
		liar_stop(&rig->liar);
		rig->liar.listen_fd = -1;
	}
}

static void test_noise_instead_of_magic(void **state)
{
	struct rig *rig = *state;

	rig->liar.garbles_handshake = true;
	assert_refused(rig, -EPROTO, ERR_NBD_PROTOCOL);
}

static void test_silent_server(void **state)
{
	struct rig *rig = *state;

	for (int tcp = 0; tcp < 2; tcp++) {
		struct blk_nbd_link *link = NULL;
		struct err err = { 0 };

		rig->liar.is_silent = true;
		liar_start(&rig->liar, tcp ? NULL : rig->dir);
		assert_int_equal(blk_nbd_connect(rig->liar.uri, false, 30 * NS_PER_MS, &link, &err),
				 -ETIMEDOUT);
		assert_int_equal(err.id, ERR_NBD_CONNECT);
		assert_null(link);
		liar_stop(&rig->liar);
		rig->liar.listen_fd = -1;
	}
}

/* Nobody accepts and the backlog is full: a UNIX connect() would wait for ever. */
static void test_full_backlog(void **state)
{
	struct rig *rig = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct blk_nbd_link *link = NULL;
	struct err err = { 0 };
	int listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int clients[2];
	char uri[160];

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/full.sock", rig->dir);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", address.sun_path);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listen_fd, 0), 0);
	for (int i = 0; i < 2; i++) {
		clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(clients[i], (struct sockaddr *)&address, sizeof(address)))
			assert_int_equal(errno, EAGAIN);
	}
	assert_int_equal(blk_nbd_connect(uri, false, 30 * NS_PER_MS, &link, &err), -ETIMEDOUT);
	assert_int_equal(err.id, ERR_NBD_CONNECT);
	for (int i = 0; i < 2; i++)
		close(clients[i]);
	close(listen_fd);
	unlink(address.sun_path);
}

static void test_nobody_there(void **state)
{
	struct rig *rig = *state;
	struct blk_nbd_link *link = NULL;
	struct err err = { 0 };
	char uri[160];

	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/none", rig->dir);
	assert_int_equal(blk_nbd_connect(uri, false, LONG_NS, &link, &err), -ENOENT);
	assert_int_equal(err.id, ERR_NBD_CONNECT);
	liar_start(&rig->liar, NULL);           /* a port that was somebody's a moment ago */
	snprintf(uri, sizeof(uri), "%s", rig->liar.uri);
	liar_stop(&rig->liar);
	rig->liar.listen_fd = -1;
	assert_int_equal(blk_nbd_connect(uri, false, LONG_NS, &link, &err), -ECONNREFUSED);
	assert_int_equal(err.id, ERR_NBD_CONNECT);
}

static void test_read_only(void **state)
{
	const struct blk_nbd_options writable = { 0 }, readable = { .read_only = true };
	struct rig *rig = *state;
	struct blk_nbd_link *link;
	struct err err = { 0 };

	rig->liar.flags = LIAR_IS_READ_ONLY;
	assert_refused(rig, -EROFS, ERR_NBD_READ_ONLY);
	liar_stop(&rig->liar);
	liar_start(&rig->liar, rig->dir);
	assert_int_equal(blk_nbd_connect(rig->liar.uri, true, LONG_NS, &link, &err), 0);
	assert_true(blk_nbd_link_read_only(link));
	assert_int_equal(blk_nbd_link_size_bytes(link), MIB);
	assert_int_equal(blk_nbd_new(rig->loop, link, &writable, &rig->dev, &err), -EROFS);
	assert_int_equal(err.id, ERR_NBD_READ_ONLY);
	assert_int_equal(blk_nbd_new(rig->loop, link, &readable, &rig->dev, &err), 0);
	assert_true(rig->dev->limits.read_only);
}

/* R3: what a TCP connection has queued is dropped when it ends in any way. */
static void test_tcp_socket_drops_what_is_queued(void **state)
{
	struct rig *rig = *state;
	struct blk_nbd_link *link;
	struct linger linger = { 0 };
	struct err err = { 0 };
	int value = 0;
	socklen_t length = sizeof(linger);

	liar_start(&rig->liar, NULL);
	assert_int_equal(rig_connect(rig, &link, &err), 0);
	assert_int_equal(getsockopt(link->fd, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
	assert_int_equal(linger.l_onoff, 1);
	assert_int_equal(linger.l_linger, 0);
	length = sizeof(value);
	assert_int_equal(getsockopt(link->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &length), 0);
	assert_in_range(value, 1, 4000);
	assert_int_equal(getsockopt(link->fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length), 0);
	assert_int_equal(value, 1);
	blk_nbd_link_free(link);
}

/* ---- what is said afterwards ---- */

struct guest_req {
	struct blk_req req;
	struct iovec iov;
	struct blk_extents extents;
	struct blk_extent runs[4];
	bool inside_submit, done;
};

static uint8_t memory[4 * MIB];

static void stop_when_done(struct blk_req *req)
{
	struct guest_req *guest = container_of(req, struct guest_req, req);

	assert_false(guest->inside_submit);
	assert_false(guest->done);
	guest->done = true;
	if (++current->done_count == current->wanted)
		loop_stop(current->loop);
}

static void guest_submit(struct rig *rig, struct guest_req *guest, enum blk_op op, unsigned flags,
			 uint64_t offset_bytes, uint64_t len_bytes)
{
	*guest = (struct guest_req){ .iov = { memory, len_bytes } };
	guest->extents = (struct blk_extents){ guest->runs, ARRAY_COUNT(guest->runs), 0 };
	guest->req = (struct blk_req){ .op = op, .flags = flags, .offset_bytes = offset_bytes,
				       .len_bytes = len_bytes, .iov = &guest->iov, .iov_count = 1,
				       .extents = &guest->extents, .done = stop_when_done };
	guest->inside_submit = true;
	blk_submit(rig->dev, &guest->req);
	guest->inside_submit = false;
}

static void rig_await(struct rig *rig, unsigned count)
{
	rig->wanted = count;
	if (rig->done_count < count)
		loop_run(rig->loop);
	assert_int_equal(rig->done_count, count);
	rig->done_count = 0;
}

static int guest_run(struct rig *rig, struct guest_req *guest, enum blk_op op, unsigned flags,
		     uint64_t offset_bytes, uint64_t len_bytes)
{
	guest_submit(rig, guest, op, flags, offset_bytes, len_bytes);
	rig_await(rig, 1);
	return guest->req.result;
}

/* Notes what came and answers it well. */
static struct liar_command seen[64];

static bool note_and_reply(struct liar *liar, const struct liar_command *command)
{
	static const uint8_t zeroes[MIB];
	const uint32_t entries[] = { command->length, 0 };

	seen[(liar->commands - 1) % 64] = *command;
	if (command->type == LIAR_STATUS)
		liar_reply_status(liar, command->cookie, entries, 2);
	else if (command->type == LIAR_READ)
		return false;                   /* structured replies only: not needed here */
	else
		liar_reply(liar, command->cookie, 0, zeroes, 0);
	return true;
}

static void test_fua_as_a_flag(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.flags = LIAR_CAN_FLUSH | LIAR_CAN_FUA | LIAR_CAN_ZERO;
	rig->liar.on_command = note_and_reply;
	rig_open(rig);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, BLK_FUA, 0, 4096), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 4096), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_FUA | BLK_MAY_UNMAP, 0, 4096),
			 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, 0, 0, 4096), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_equal(rig->liar.commands, 5);
	assert_int_equal(seen[0].type, LIAR_WRITE);
	assert_int_equal(seen[0].flags, LIBNBD_CMD_FLAG_FUA);
	assert_int_equal(seen[1].flags, 0);
	assert_int_equal(seen[2].type, LIAR_ZERO);
	assert_int_equal(seen[2].flags, LIBNBD_CMD_FLAG_FUA);
	assert_int_equal(seen[3].flags, LIBNBD_CMD_FLAG_NO_HOLE);
	assert_int_equal(seen[4].type, LIAR_FLUSH);
}

static void test_fua_by_a_flush(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.flags = LIAR_CAN_FLUSH;
	rig->liar.block_min = 512;
	rig->liar.block_preferred = 4096;
	rig->liar.block_max = 4096;
	rig->liar.on_command = note_and_reply;
	rig_open(rig);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, BLK_FUA, 0, 3 * 4096), 0);
	assert_int_equal(rig->liar.commands, 4);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(seen[i].type, LIAR_WRITE);
		assert_int_equal(seen[i].flags, 0);
		assert_int_equal(seen[i].offset, i * 4096);
		assert_int_equal(seen[i].length, 4096);
	}
	assert_int_equal(seen[3].type, LIAR_FLUSH);     /* once, behind the last of them */
	/* Zeroes for a server that has none: written, in bounded pieces, then flushed. */
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_FUA, 8192, 8192), 0);
	assert_int_equal(rig->liar.commands, 7);
	assert_int_equal(seen[4].type, LIAR_WRITE);
	assert_int_equal(seen[5].offset, 12288);
	assert_int_equal(seen[6].type, LIAR_FLUSH);
	assert_false(rig->dev->limits.can_unmap);
}

static void test_server_that_can_nothing(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.on_command = note_and_reply;
	rig_open(rig);
	assert_false(rig->dev->limits.has_extents);
	assert_int_equal(guest_run(rig, &guest, BLK_FLUSH, 0, 0, 0), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_DISCARD, 0, 0, MIB), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_EXTENTS, 0, 0, MIB), 0);
	assert_int_equal(guest.extents.count, 1);
	assert_int_equal(guest.runs[0].len_bytes, MIB);
	assert_int_equal(guest.runs[0].status, BLK_EXTENT_DATA);
	assert_int_equal(rig->liar.commands, 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, BLK_FUA, 0, 512), 0);
	assert_int_equal(rig->liar.commands, 1);
}

static bool refuse_all(struct liar *liar, const struct liar_command *command)
{
	liar_reply(liar, command->cookie, (uint32_t)(uintptr_t)liar->user, NULL, 0);
	return true;
}

static void test_errors_come_through(void **state)
{
	static const struct { uint32_t nbd; int rc; } table[] = {
		{ 1, -EPERM }, { 5, -EIO }, { 12, -ENOMEM }, { 22, -EINVAL }, { 28, -ENOSPC },
		{ 75, -EOVERFLOW }, { 95, -ENOTSUP }, { 108, -EIO }, { 999, -EINVAL },
	};
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.on_command = refuse_all;
	rig_open(rig);
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		rig->liar.user = (void *)(uintptr_t)table[i].nbd;
		assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 512), table[i].rc);
	}
	assert_false(blk_nbd_is_dead(rig->dev));
}

/* The first failing piece ends the request, and all its pieces are back before it is. */
static _Atomic unsigned fail_piece;

static bool fail_one_piece(struct liar *liar, const struct liar_command *command)
{
	liar_reply(liar, command->cookie, liar->commands == fail_piece ? 28 : 0, NULL, 0);
	return true;
}

static void test_a_failing_piece_fails_the_request(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.block_min = 512;
	rig->liar.block_preferred = 4096;
	rig->liar.block_max = 4096;
	rig->liar.on_command = fail_one_piece;
	rig->liar.size_bytes = 4 * MIB;
	rig_open(rig);
	for (unsigned nth = 1; nth <= 1024; nth += 93) {
		rig->liar.commands = 0;
		fail_piece = nth;
		assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 4 * MIB), -ENOSPC);
		assert_true(rig->liar.commands < nth + 64);
	}
	fail_piece = 0;
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 4 * MIB), 0);
}

/* ---- bounded, fair, dead ---- */

static bool never_reply(struct liar *liar, const struct liar_command *command)
{
	(void)command;
	(void)liar;
	return true;
}

static void look_at_commands(struct timer *timer)
{
	if (current->liar.commands < 32) {
		timer_start(timer, NS_PER_MS);
		return;
	}
	loop_stop(current->loop);
}

static void look_twice(struct timer *timer)
{
	if (current->wanted--)
		timer_start(timer, NS_PER_MS);
	else
		loop_stop(current->loop);
}

static void test_commands_are_bounded_and_die_together(void **state)
{
	static struct guest_req guests[100];
	struct rig *rig = *state;
	struct guest_req late;

	rig->liar.on_command = never_reply;
	rig_open(rig);
	for (unsigned i = 0; i < 100; i++)
		guest_submit(rig, &guests[i], i % 3 ? BLK_WRITE : BLK_READ, 0, i * 4096, 4096);
	timer_init(&rig->timer, rig->loop, look_at_commands);
	timer_start(&rig->timer, 0);
	loop_run(rig->loop);
	timer_init(&rig->timer, rig->loop, look_twice);
	rig->wanted = 20;                       /* a 33rd would have come by now */
	timer_start(&rig->timer, 0);
	loop_run(rig->loop);
	assert_int_equal(rig->liar.commands, 32);
	assert_int_equal(rig->done_count, 0);
	shutdown(rig->liar.fd, SHUT_RDWR);
	rig_await(rig, 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(guests[i].req.result, -EIO);
	assert_true(blk_nbd_is_dead(rig->dev));
	assert_int_equal(guest_run(rig, &late, BLK_WRITE, 0, 0, 512), -EIO);
	assert_int_equal(guest_run(rig, &late, BLK_FLUSH, 0, 0, 0), -EIO);
	assert_int_equal(guest_run(rig, &late, BLK_EXTENTS, 0, 0, MIB), -EIO);
	assert_int_equal(guest_run(rig, &late, BLK_DISCARD, 0, 0, 512), -EIO);
}

/* A request of a thousand commands must not keep a small one waiting for them all. */
static void test_requests_take_turns(void **state)
{
	struct rig *rig = *state;
	struct guest_req big, small;

	rig->liar.block_min = 512;
	rig->liar.block_preferred = 4096;
	rig->liar.block_max = 4096;
	rig->liar.size_bytes = 4 * MIB;
	rig->liar.on_command = note_and_reply;
	rig_open(rig);
	guest_submit(rig, &big, BLK_WRITE, 0, 0, 4 * MIB);
	guest_submit(rig, &small, BLK_WRITE, 0, 0, 512);
	rig_await(rig, 1);
	assert_true(small.done);
	assert_false(big.done);
	rig_await(rig, 1);
	assert_int_equal(big.req.result, 0);
	assert_int_equal(rig->liar.commands, 1025);
}

static bool hang_up(struct liar *liar, const struct liar_command *command)
{
	(void)liar;
	(void)command;
	return false;
}

static void test_hang_up_and_garbage(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.on_command = hang_up;
	rig_open(rig);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 512), -EIO);
	assert_true(blk_nbd_is_dead(rig->dev));
}

/* Thirty-two of its commands are under way and hundreds yet to come. */
static bool hang_up_at_the_40th(struct liar *liar, const struct liar_command *command)
{
	if (liar->commands < 20)
		liar_reply(liar, command->cookie, 0, NULL, 0);
	return liar->commands < 40;
}

static void test_a_long_request_dies_once(void **state)
{
	struct rig *rig = *state;
	struct guest_req big, small;

	rig->liar.block_min = 512;
	rig->liar.block_preferred = 4096;
	rig->liar.block_max = 4096;
	rig->liar.size_bytes = 4 * MIB;
	rig->liar.on_command = hang_up_at_the_40th;
	rig_open(rig);
	guest_submit(rig, &big, BLK_WRITE, 0, 0, 4 * MIB);
	guest_submit(rig, &small, BLK_FLUSH, 0, 0, 0);
	rig_await(rig, 2);
	assert_int_equal(big.req.result, -EIO);
	assert_int_equal(guest_run(rig, &small, BLK_WRITE, 0, 0, 512), -EIO);
}

/* The connection is gone, the loop does not know yet: the send fails inside submit. */
static void test_death_inside_submit(void **state)
{
	struct rig *rig = *state;
	struct guest_req guests[3];

	rig_open(rig);
	shutdown(rig->liar.fd, SHUT_RDWR);
	for (unsigned i = 0; i < 3; i++)
		guest_submit(rig, &guests[i], BLK_WRITE, 0, 0, 512);
	assert_int_equal(rig->done_count, 0);
	assert_true(blk_nbd_is_dead(rig->dev));
	rig_await(rig, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(guests[i].req.result, -EIO);
}

static bool wrong_cookie(struct liar *liar, const struct liar_command *command)
{
	liar_reply(liar, ~command->cookie, 0, NULL, 0);
	return true;
}

static void test_answer_to_nobody(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.on_command = wrong_cookie;
	rig_open(rig);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 512), -EIO);
	assert_true(blk_nbd_is_dead(rig->dev));
}

/* The owner may close the device from the last answer. */
static void close_from_done(struct blk_req *req)
{
	assert_int_equal(req->result, -EIO);
	blk_close(current->dev);
	current->dev = NULL;
	loop_stop(current->loop);
}

static void test_close_from_the_last_answer(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.on_command = hang_up;
	rig_open(rig);
	guest_submit(rig, &guest, BLK_WRITE, 0, 0, 512);
	guest.req.done = close_from_done;
	loop_run(rig->loop);
	assert_null(rig->dev);
}

/* ---- lies about extents ---- */

struct status_lie {
	const char *what;
	uint32_t entries[8];
	size_t count;                           /* 0: no chunk at all, only "done" */
	int rc;
	struct blk_extent runs[4];
	uint32_t run_count;
};

static const struct status_lie *lie;

static bool lie_about_extents(struct liar *liar, const struct liar_command *command)
{
	if (lie->count)
		liar_reply_status(liar, command->cookie, lie->entries, lie->count);
	else
		liar_reply_none(liar, command->cookie);
	return true;
}

static void test_extents(void **state)
{
	static const struct status_lie table[] = {
		{ "plain", { 4096, 0, 4096, 3, 4096, 2, 4096, 1 }, 8, 0,
		  { { 4096, BLK_EXTENT_DATA }, { 4096, BLK_EXTENT_HOLE }, { 4096, BLK_EXTENT_ZERO },
		    { 4096, BLK_EXTENT_DATA } }, 4 },
		{ "neighbours merge", { 4096, 3, 4096, 3, 4096, 0, 4096, 1 }, 8, 0,
		  { { 8192, BLK_EXTENT_HOLE }, { 8192, BLK_EXTENT_DATA } }, 2 },
		{ "beyond the end", { UINT32_MAX, 3 }, 2, 0, { { MIB, BLK_EXTENT_HOLE } }, 1 },
		{ "reserved bits", { 4096, 0xfffffffc, 4096, 0xffffffff }, 4, 0,
		  { { 4096, BLK_EXTENT_DATA }, { 4096, BLK_EXTENT_HOLE } }, 2 },
		{ "inside a block", { 700, 3, 836, 0, 512, 3 }, 6, 0,
		  { { 512, BLK_EXTENT_HOLE }, { 1024, BLK_EXTENT_DATA }, { 512, BLK_EXTENT_HOLE } },
		  3 },
		{ "zero length", { 0, 3, 4096, 3 }, 4, -EIO, { { 0, 0 } }, 0 },
		{ "zero length later", { 4096, 3, 0, 0 }, 4, -EIO, { { 0, 0 } }, 0 },
		{ "nothing", { 0 }, 0, -EIO, { { 0, 0 } }, 0 },
	};
	struct rig *rig = *state;
	struct guest_req guest;

	rig->liar.offers_extents = true;
	rig->liar.on_command = lie_about_extents;
	rig_open(rig);
	assert_true(rig->dev->limits.has_extents);
	for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
		int rc;

		lie = &table[i];
		rc = guest_run(rig, &guest, BLK_EXTENTS, 0, 0, MIB);
		if (rc != lie->rc)
			fail_msg("%s: %d", lie->what, rc);
		if (rc)
			continue;
		assert_int_equal(guest.extents.count, lie->run_count);
		for (uint32_t j = 0; j < lie->run_count; j++) {
			assert_int_equal(guest.runs[j].len_bytes, lie->runs[j].len_bytes);
			assert_int_equal(guest.runs[j].status, lie->runs[j].status);
		}
	}
	assert_false(blk_nbd_is_dead(rig->dev));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_sizes),
		CASE(test_block_sizes),
		CASE(test_insane_block_sizes),
		CASE(test_noise_instead_of_magic),
		CASE(test_silent_server),
		CASE(test_full_backlog),
		CASE(test_nobody_there),
		CASE(test_read_only),
		CASE(test_tcp_socket_drops_what_is_queued),
		CASE(test_fua_as_a_flag),
		CASE(test_fua_by_a_flush),
		CASE(test_server_that_can_nothing),
		CASE(test_errors_come_through),
		CASE(test_a_failing_piece_fails_the_request),
		CASE(test_commands_are_bounded_and_die_together),
		CASE(test_requests_take_turns),
		CASE(test_hang_up_and_garbage),
		CASE(test_a_long_request_dies_once),
		CASE(test_death_inside_submit),
		CASE(test_answer_to_nobody),
		CASE(test_close_from_the_last_answer),
		CASE(test_extents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

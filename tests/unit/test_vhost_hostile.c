/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: nothing that a front end sends or a driver writes into its rings makes the daemon crash,
 * hang, leak or touch what is not the guest's; each is answered by the end of the connection or of
 * the queue, with a reason, and whoever comes next is served.
 * Method: as test_vhost_requests.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "blkmirror/export/vhost_ring.h"
#include "tests/lib/vhost_fixture.h"

#define BIT(number) (UINT64_C(1) << (number))

static unsigned open_descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* ---- messages ---- */

struct bad_message {
	const char *what;
	uint32_t request, flags, size_bytes;
	uint64_t value;                 /* the payload's first eight bytes */
	enum { NO_FD, EVENT, MEMORY, PLAIN_FILE } fd;
	uint32_t fd_count;
};

#define V VHOST_USER_VERSION

static const struct bad_message bad_messages[] = {
	{ "version 0", VHOST_USER_GET_FEATURES, 0, 0, 0, NO_FD, 0 },
	{ "version 2", VHOST_USER_GET_FEATURES, 2, 0, 0, NO_FD, 0 },
	{ "a reply", VHOST_USER_GET_FEATURES, V | VHOST_USER_FLAG_REPLY, 0, 0, NO_FD, 0 },
	{ "unknown flags", VHOST_USER_GET_FEATURES, V | 16, 0, 0, NO_FD, 0 },
	{ "request 0", 0, V, 0, 0, NO_FD, 0 },
	{ "an unknown request", 1000000, V, 0, 0, NO_FD, 0 },
	{ "post-copy", 28, V, 0, 0, NO_FD, 0 },
	{ "the end of the table", VHOST_USER_REQUEST_END, V, 0, 0, NO_FD, 0 },
	{ "a huge payload", VHOST_USER_SET_FEATURES, V, UINT32_MAX, 0, NO_FD, 0 },
	{ "a payload where none goes", VHOST_USER_GET_FEATURES, V, 8, 0, NO_FD, 0 },
	{ "a short payload", VHOST_USER_SET_FEATURES, V, 4, 0, NO_FD, 0 },
	{ "a descriptor where none goes", VHOST_USER_GET_FEATURES, V, 0, 0, EVENT, 1 },
	{ "too many descriptors", VHOST_USER_GET_FEATURES, V, 0, 0, EVENT, 20 },
	{ "unknown features", VHOST_USER_SET_FEATURES, V, 8, BIT(34), NO_FD, 0 },
	{ "unknown protocol features", VHOST_USER_SET_PROTOCOL_FEATURES, V, 8, BIT(8), NO_FD, 0 },
	{ "a queue too far", VHOST_USER_SET_VRING_NUM, V, 8, 64 | BIT(35), NO_FD, 0 },
	{ "a ring's size of 3", VHOST_USER_SET_VRING_NUM, V, 8, UINT64_C(3) << 32, NO_FD, 0 },
	{ "a ring's size of 0", VHOST_USER_SET_VRING_NUM, V, 8, 0, NO_FD, 0 },
	{ "a ring's size of 2048", VHOST_USER_SET_VRING_NUM, V, 8, UINT64_C(2048) << 32, NO_FD, 0 },
	{ "a base of 65536", VHOST_USER_SET_VRING_BASE, V, 8, UINT64_C(65536) << 32, NO_FD, 0 },
	{ "enabled twice over", VHOST_USER_SET_VRING_ENABLE, V, 8, UINT64_C(2) << 32, NO_FD, 0 },
	{ "a start without a ring", VHOST_USER_SET_VRING_KICK, V, 8, 0, EVENT, 1 },
	{ "a kick that is a file", VHOST_USER_SET_VRING_KICK, V, 8, 0, PLAIN_FILE, 1 },
	{ "a call that is memory", VHOST_USER_SET_VRING_CALL, V, 8, 0, MEMORY, 1 },
	{ "a call that is missing", VHOST_USER_SET_VRING_CALL, V, 8, 0, NO_FD, 0 },
	{ "a call that is meant to be missing", VHOST_USER_SET_VRING_CALL, V, 8, 0x100, EVENT, 1 },
	{ "a kick that is meant to be missing", VHOST_USER_SET_VRING_KICK, V, 8, 0x100, NO_FD, 0 },
	{ "an index with more in it", VHOST_USER_SET_VRING_CALL, V, 8, 0x200, EVENT, 1 },
	{ "nine regions", VHOST_USER_SET_MEM_TABLE, V, 264, 9, MEMORY, 8 },
	{ "a region without its descriptor", VHOST_USER_SET_MEM_TABLE, V, 40, 1, NO_FD, 0 },
	{ "a table shorter than it says", VHOST_USER_SET_MEM_TABLE, V, 8, 1, MEMORY, 1 },
	{ "a region of no length", VHOST_USER_SET_MEM_TABLE, V, 40, 1, MEMORY, 1 },
	{ "a resize of the config", VHOST_USER_SET_CONFIG, V, 13, 0, NO_FD, 0 },
	{ "a config too far", VHOST_USER_GET_CONFIG, V, 12, 257, NO_FD, 0 },
	{ "a config longer than it comes", VHOST_USER_GET_CONFIG, V, 12, BIT(32), NO_FD, 0 },
	{ "a log without memory", VHOST_USER_SET_LOG_BASE, V, 16, 4096, EVENT, 1 },
	{ "a log in a file", VHOST_USER_SET_LOG_BASE, V, 16, 1, PLAIN_FILE, 1 },
	{ "a log of no length", VHOST_USER_SET_LOG_BASE, V, 16, 0, MEMORY, 1 },
	{ "a log longer than its memory", VHOST_USER_SET_LOG_BASE, V, 16, BIT(40), MEMORY, 1 },
	{ "who is told of the log is memory", VHOST_USER_SET_LOG_FD, V, 0, 0, MEMORY, 1 },
	{ "a channel that is no socket", VHOST_USER_SET_BACKEND_REQ_FD, V, 0, 0, EVENT, 1 },
	{ "an in-flight region of no queues", VHOST_USER_GET_INFLIGHT_FD, V, 24, 0, NO_FD, 0 },
	{ "an in-flight region too short", VHOST_USER_SET_INFLIGHT_FD, V, 24, 8, MEMORY, 1 },
	{ "a region removed that never was", VHOST_USER_REM_MEM_REG, V, 40, 0, NO_FD, 0 },
};

static int open_for(const struct bad_message *bad)
{
	int fd = -1;

	if (bad->fd == EVENT)
		fd = eventfd(0, EFD_CLOEXEC);
	if (bad->fd == MEMORY)
		fd = memfd_create("bad", MFD_CLOEXEC);
	if (bad->fd == MEMORY)
		assert_int_equal(ftruncate(fd, 65536), 0);
	if (bad->fd == PLAIN_FILE)
		fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	return fd;
}

static void send_bad(struct front *front, const struct bad_message *bad)
{
	uint8_t payload[512] = { 0 };
	int fds[32], fd = open_for(bad);

	for (uint32_t i = 0; i < bad->fd_count; i++)
		fds[i] = fd;
	memcpy(payload, &bad->value, sizeof(bad->value));
	/* What it says it sends and what it sends need not be one. */
	struct vhost_wire_header header = { bad->request, bad->flags, bad->size_bytes };
	struct iovec iov[2] = { { &header, sizeof(header) },
				{ payload, MIN(bad->size_bytes, sizeof(payload)) } };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control = { 0 };
	struct msghdr out = { .msg_iov = iov, .msg_iovlen = 2 };

	if (bad->fd_count) {
		out.msg_control = &control;
		out.msg_controllen = CMSG_SPACE(bad->fd_count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(bad->fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, bad->fd_count * sizeof(int));
	}
	assert_true(sendmsg(front->fd, &out, MSG_NOSIGNAL) > 0);
	if (fd >= 0)
		close(fd);
}

static void test_bad_messages(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	uint64_t protocol;
	unsigned before;

	(void)unused;
	vfix_start(fix);
	front_connect(front, fix->path);
	vfix_wait(fix, now, now.connections == 1);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	before = open_descriptors();
	for (size_t i = 0; i < ARRAY_COUNT(bad_messages); i++) {
		front_connect(front, fix->path);
		protocol = front_ask_u64(front, VHOST_USER_GET_PROTOCOL_FEATURES);
		protocol &= ~BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
		assert_true(front_tell_u64(front, VHOST_USER_SET_PROTOCOL_FEATURES, protocol));
		send_bad(front, &bad_messages[i]);
		if (!front_is_dropped(front))
			fail_msg("%s: was taken", bad_messages[i].what);
		front_disconnect(front);
		vfix_wait(fix, now, now.connections == 0);
	}
	assert_int_equal(vlook_at(fix).errors, ARRAY_COUNT(bad_messages));
	/* What came with them was closed. */
	assert_int_equal(open_descriptors(), before);
	front_usual(front, fix->path, 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	vfix_free(fix);
}

static void test_unnegotiated_messages(void **unused)
{
	static const uint32_t requests[] = { VHOST_USER_GET_QUEUE_NUM, VHOST_USER_GET_MAX_MEM_SLOTS,
					     VHOST_USER_RESET_DEVICE };
	struct vfix *fix = vfix_new();

	(void)unused;
	vfix_start(fix);
	for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
		front_connect(&fix->front, fix->path);
		assert_true(front_send(&fix->front, requests[i], V, NULL, 0, NULL, 0));
		assert_true(front_is_dropped(&fix->front));
	}
	vfix_free(fix);
}

/* A message byte by byte is a message; a part of one and the end is nothing. */
static void test_messages_in_pieces(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vhost_wire_header header = { VHOST_USER_SET_FEATURES, V, 8 };
	uint8_t bytes[20] = { 0 };

	(void)unused;
	vfix_start(fix);
	front_connect(front, fix->path);
	memcpy(bytes, &header, sizeof(header));
	for (size_t i = 0; i < sizeof(bytes); i++) {
		assert_int_equal(send(front->fd, bytes + i, 1, MSG_NOSIGNAL), 1);
		(void)vlook_at(fix);
	}
	(void)front_ask_u64(front, VHOST_USER_GET_FEATURES);
	assert_int_equal(send(front->fd, bytes, 15, MSG_NOSIGNAL), 15);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	assert_int_equal(vlook_at(fix).errors, 0);
	vfix_free(fix);
}

static void test_front_end_that_never_reads(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	vfix_start(fix);
	front_connect(front, fix->path);
	assert_int_equal(fcntl(front->fd, F_SETFL, O_NONBLOCK), 0);
	while (vlook_at(fix).connections)
		(void)front_send(front, VHOST_USER_GET_FEATURES, V, NULL, 0, NULL, 0);
	assert_int_equal(vlook_at(fix).errors, 1);
	vfix_free(fix);
}

static void test_running_ring_is_not_moved(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vhost_wire_vring_addr addr = { .desc_hva = FRONT_HVA,
					      .avail_hva = FRONT_HVA + 0x4002,
					      .used_hva = FRONT_HVA + 0x8000 };

	(void)unused;
	vfix_start(fix);
	front_usual(front, fix->path, 1);
	assert_false(front_tell_ring(front, VHOST_USER_SET_VRING_NUM, 0, 32));
	front_usual(front, fix->path, 1);
	assert_false(front_tell_ring(front, VHOST_USER_SET_VRING_BASE, 0, 3));
	front_usual(front, fix->path, 1);
	assert_false(front_tell(front, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	front_usual(front, fix->path, 1);
	assert_false(front_tell(front, VHOST_USER_SET_INFLIGHT_FD, &front->inflight,
				sizeof(front->inflight), front->inflight_fd));
	front_usual(front, fix->path, 1);
	assert_false(front_tell(front, VHOST_USER_RESET_DEVICE, NULL, 0, -1));
	front_usual(front, fix->path, 1);
	assert_true(front_stop_queue(front, 0) >= 0);
	assert_true(front_tell(front, VHOST_USER_RESET_DEVICE, NULL, 0, -1));
	vfix_free(fix);
}

/* Rings and regions where they cannot be. */
static void test_bad_places(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vhost_wire_one_region one = { .region = { .gpa = FRONT_MIDDLE - 4096,
							 .len_bytes = 8192, .hva = 1 << 20 } };
	static const uint64_t desc[] = { 0, FRONT_HVA + 8, FRONT_HVA + FRONT_MEMORY_BYTES - 16,
					 FRONT_HVA + FRONT_MIDDLE - 16, UINT64_MAX - 15 };
	uint64_t kick = 0;

	(void)unused;
	vfix_start(fix);
	for (size_t i = 0; i < ARRAY_COUNT(desc); i++) {
		struct vhost_wire_vring_addr addr = { .desc_hva = desc[i],
						      .avail_hva = FRONT_HVA + 0x4000,
						      .used_hva = FRONT_HVA + 0x8000 };

		front_connect(front, fix->path);
		front_negotiate(front, FRONT_FEATURES_ALL, 1);
		assert_true(front_tell_ring(front, VHOST_USER_SET_VRING_NUM, 0, 64));
		assert_true(front_tell(front, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1));
		assert_false(front_tell(front, VHOST_USER_SET_VRING_KICK, &kick, sizeof(kick),
					front->queues[0].kick_fd));
	}
	front_usual(front, fix->path, 1);
	assert_false(front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one),
				front->memory_fd));     /* overlaps two */
	front_usual(front, fix->path, 1);
	one.region.gpa = UINT64_MAX - 4096;
	assert_false(front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one),
				front->memory_fd));     /* wraps */
	front_usual(front, fix->path, 1);
	one.region.gpa = BIT(40);
	one.region.mmap_offset_bytes = FRONT_MEMORY_BYTES - 4096;
	assert_false(front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one),
				front->memory_fd));     /* beyond the descriptor's end */
	front_usual(front, fix->path, 1);
	one.region.mmap_offset_bytes = 0;
	for (uint32_t i = 2; i < 64; i++, one.region.gpa += 8192)
		assert_true(front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one),
				       front->memory_fd));
	assert_false(front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one),
				front->memory_fd));     /* the 65th */
	vfix_free(fix);
}

/* ---- rings ---- */

struct bad_ring {
	const char *what;
	void (*make)(struct front *front);
};

static void make_loop(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 16, VRING_DESC_F_NEXT, 1);
	front_desc(front, 0, 1, FRONT_DATA, 16, VRING_DESC_F_NEXT, 0);
}

static void make_next_outside(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 16, VRING_DESC_F_NEXT, VFIX_QUEUE_SIZE);
}

static void make_no_region(struct front *front)
{
	front_desc(front, 0, 0, FRONT_MEMORY_BYTES, 16, 0, 0);
}

static void make_beyond_region(struct front *front)
{
	front_desc(front, 0, 0, FRONT_MEMORY_BYTES - 8, 16, 0, 0);
}

static void make_wrap(struct front *front)
{
	front_desc(front, 0, 0, UINT64_MAX - 7, 16, 0, 0);
}

static void make_huge(struct front *front)
{
	front_desc(front, 0, 0, 0, UINT32_MAX, 0, 0);
}

static void make_empty(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 0, VRING_DESC_F_NEXT, 1);
	front_desc(front, 0, 1, FRONT_DATA, 1, VRING_DESC_F_WRITE, 0);
}

static void make_short_header(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 15, VRING_DESC_F_NEXT, 1);
	front_desc(front, 0, 1, FRONT_DATA, 512, VRING_DESC_F_WRITE, 0);
}

static void make_no_status(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 16, 0, 0);
}

static void make_only_writable(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 512, VRING_DESC_F_WRITE, 0);
}

static void make_readable_behind(struct front *front)
{
	front_desc(front, 0, 0, FRONT_DATA, 16, VRING_DESC_F_NEXT, 1);
	front_desc(front, 0, 1, FRONT_DATA, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	front_desc(front, 0, 2, FRONT_DATA, 16, 0, 0);
}

static void make_indirect(struct front *front, uint64_t gpa, uint32_t len, uint16_t flags)
{
	front_desc(front, 0, 0, gpa, len, VRING_DESC_F_INDIRECT | flags, 1);
}

static void make_indirect_odd(struct front *front)
{
	make_indirect(front, FRONT_DATA, 17, 0);
}

static void make_indirect_empty(struct front *front)
{
	make_indirect(front, FRONT_DATA, 0, 0);
}

static void make_indirect_next(struct front *front)
{
	make_indirect(front, FRONT_DATA, 16, VRING_DESC_F_NEXT);
}

static void make_indirect_huge(struct front *front)
{
	make_indirect(front, FRONT_DATA, UINT32_MAX & ~15u, 0);
}

static void make_indirect_outside(struct front *front)
{
	make_indirect(front, FRONT_MEMORY_BYTES - 16, 32, 0);
}

static void make_indirect_nested(struct front *front)
{
	struct vring_desc inner = { .addr = FRONT_DATA, .len = 16, .flags = VRING_DESC_F_INDIRECT };

	memcpy(front->memory + FRONT_DATA, &inner, sizeof(inner));
	make_indirect(front, FRONT_DATA, 16, 0);
}

static void make_indirect_loop(struct front *front)
{
	struct vring_desc inner = { .addr = FRONT_DATA, .len = 16, .flags = VRING_DESC_F_NEXT };

	memcpy(front->memory + FRONT_DATA, &inner, sizeof(inner));
	make_indirect(front, FRONT_DATA, 16, 0);
}

/* 300 pieces, none of which joins the one before. */
static void make_too_many(struct front *front)
{
	for (uint16_t i = 0; i < 300; i++) {
		struct vring_desc inner = { .addr = FRONT_DATA + (i & 1) * UINT64_C(8192),
					    .len = 16,
					    .flags = i < 299 ? VRING_DESC_F_NEXT : 0,
					    .next = (uint16_t)(i + 1) };

		memcpy(front->memory + FRONT_DATA + 65536 + i * sizeof(inner), &inner,
		       sizeof(inner));
	}
	make_indirect(front, FRONT_DATA + 65536, 300 * 16, 0);
}

static const struct bad_ring bad_rings[] = {
	{ "a loop", make_loop },
	{ "a next outside", make_next_outside },
	{ "in no region", make_no_region },
	{ "beyond a region", make_beyond_region },
	{ "around the end of all addresses", make_wrap },
	{ "a huge length", make_huge },
	{ "no length", make_empty },
	{ "a short header", make_short_header },
	{ "no status", make_no_status },
	{ "no header", make_only_writable },
	{ "readable behind writable", make_readable_behind },
	{ "an indirect table of an odd length", make_indirect_odd },
	{ "an indirect table of no length", make_indirect_empty },
	{ "an indirect descriptor that goes on", make_indirect_next },
	{ "a huge indirect table", make_indirect_huge },
	{ "an indirect table outside", make_indirect_outside },
	{ "an indirect table in one", make_indirect_nested },
	{ "a loop in an indirect table", make_indirect_loop },
	{ "too many pieces", make_too_many },
};

/* The queue is broken, the other one and the connection are not; a new start mends it. */
static void expect_broken(struct vfix *fix, const char *what, uint64_t errors)
{
	struct front *front = &fix->front;
	uint64_t count;
	int tries = 400;

	front_kick(front, 0);
	while (read(front->queues[0].err_fd, &count, sizeof(count)) < 0 && --tries)
		usleep(5000);
	if (!tries)
		fail_msg("%s: the queue goes on", what);
	assert_int_equal(vlook_at(fix).errors, errors);
	assert_int_equal(front_io(front, 1, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	assert_true(front_stop_queue(front, 0) >= 0);
	front->queues[0].next_avail = front->queues[0].base;
	front->queues[0].next_used = front->queues[0].used->idx;
	front->queues[0].avail->idx = front->queues[0].base;
}

static void test_bad_rings(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	vfix_start(fix);
	for (size_t i = 0; i < ARRAY_COUNT(bad_rings); i++) {
		front_usual(front, fix->path, 2);
		bad_rings[i].make(front);
		front_offer(front, 0, 0);
		expect_broken(fix, bad_rings[i].what, i + 1);
		assert_true(front_stop_queue(front, 1) >= 0);
		/* As a reset does: nothing is known of what was in flight. */
		front_disconnect(front);
		close(front->inflight_fd);
		front->inflight_fd = -1;
		front_usual(front, fix->path, 2);
		assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
		assert_true(front_stop_queue(front, 0) >= 0);
		assert_true(front_stop_queue(front, 1) >= 0);
	}
	vfix_free(fix);
}

static void test_bad_heads(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	vfix_start(fix);
	front_usual(front, fix->path, 2);
	front_offer(front, 0, VFIX_QUEUE_SIZE);
	expect_broken(fix, "a head outside", 1);
	assert_true(front_start_queue(front, 0));
	/* More than the ring has room for. */
	front->queues[0].avail->idx = (uint16_t)(front->queues[0].next_avail + VFIX_QUEUE_SIZE + 1);
	expect_broken(fix, "a counter too far", 2);
	assert_true(front_start_queue(front, 0));
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	front_offer(front, 0, 0);
	front_kick(front, 0);
	vfix_wait(fix, now, now.errors == 3);
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	vfix_free(fix);
}

static void test_indirect_not_negotiated(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	vfix_start(fix);
	front_connect(front, fix->path);
	front_negotiate(front, ~BIT(VIRTIO_RING_F_INDIRECT_DESC), 2);
	assert_true(front_start_queue(front, 0));
	assert_true(front_start_queue(front, 1));
	make_indirect(front, FRONT_DATA, 16, 0);
	front_offer(front, 0, 0);
	expect_broken(fix, "indirect", 1);
	vfix_free(fix);
}

/* A region that says anything at all is read within its bounds. */
static void test_bad_inflight_region(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vhost_inflight_queue *region;
	uint8_t *bytes;

	(void)unused;
	bytes = mmap(NULL, front->inflight.len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		     front->inflight_fd, 0);
	assert_true(bytes != MAP_FAILED);
	region = (void *)bytes;
	/* Another size. */
	region->desc_count = 63;
	front_connect(front, fix->path);
	front_negotiate(front, FRONT_FEATURES_ALL, 1);
	assert_false(front_start_queue(front, 0));
	/* All in flight, lists that lead outside and in circles. */
	for (uint32_t pattern = 0; pattern < 256; pattern += 15) {
		memset(bytes, (int)pattern, front->inflight.len_bytes);
		region->version = VHOST_INFLIGHT_VERSION;
		region->desc_count = VFIX_QUEUE_SIZE;
		memset(front->queues[0].desc, (int)pattern, VFIX_QUEUE_SIZE * 16);
		front_usual(front, fix->path, 1);
		(void)front_stop_queue(front, 0);
		front->queues[0].base = 0;
	}
	munmap(bytes, front->inflight.len_bytes);
	vfix_free(fix);
}

/* ---- memory that goes away ---- */

static void test_memory_is_cut_off(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;

	(void)unused;
	/* The rings stay, what lies behind them goes. */
	front_request(front, 0, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 4096);
	assert_int_equal(ftruncate(front->memory_fd, (off_t)FRONT_DATA), 0);
	front_kick(front, 0);
	assert_true(front_is_dropped(front));
	assert_int_equal(ftruncate(front->memory_fd, (off_t)FRONT_MEMORY_BYTES), 0);
	front_usual(front, fix->path, 1);
	assert_int_equal(ftruncate(front->memory_fd, 0), 0);
	front_kick(front, 0);
	assert_true(front_is_dropped(front));
	assert_true(vlook_at(fix).errors >= 2);
	assert_int_equal(ftruncate(front->memory_fd, (off_t)FRONT_MEMORY_BYTES), 0);
	front->inflight_fd = (close(front->inflight_fd), -1);
	front->queues[0].next_avail = front->queues[0].next_used = 0;
	front_usual(front, fix->path, 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	vfix_free(fix);
}

static void test_log_is_cut_off(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;

	(void)unused;
	front_log_start(front, FRONT_MEMORY_BYTES / 4096 / 8);
	assert_int_equal(ftruncate(front->log_fd, 0), 0);
	front_request(front, 0, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 4096);
	front_kick(front, 0);
	assert_true(front_is_dropped(front));
	vfix_free(fix);
}

static char fault_on_a_file_of_no_length(void)
{
	int fd = memfd_create("cut", MFD_CLOEXEC);
	volatile char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	return page[0];
}

/* What is nobody's shared map is still fatal. */
static void test_other_bus_errors_kill(void **unused)
{
	int status;
	pid_t pid;

	(void)unused;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int fd = memfd_create("whole", MFD_CLOEXEC);
		struct vhost_map *map;

		signal(SIGBUS, SIG_DFL);        /* the harness has its own */
		if (ftruncate(fd, 4096) || vhost_map_new(fd, 0, 4096, &map))
			_exit(1);
		if (ftruncate(fd, 0))
			_exit(1);
		map->bytes[100] = 1;            /* ours: goes on */
		if (!vhost_map_is_torn(map))
			_exit(1);
		_exit(fault_on_a_file_of_no_length());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_unnegotiated_messages),
		cmocka_unit_test(test_messages_in_pieces),
		cmocka_unit_test(test_front_end_that_never_reads),
		cmocka_unit_test(test_running_ring_is_not_moved),
		cmocka_unit_test(test_bad_places),
		cmocka_unit_test(test_bad_rings),
		cmocka_unit_test(test_bad_heads),
		cmocka_unit_test(test_indirect_not_negotiated),
		cmocka_unit_test(test_bad_inflight_region),
		cmocka_unit_test(test_memory_is_cut_off),
		cmocka_unit_test(test_log_is_cut_off),
		cmocka_unit_test(test_other_bus_errors_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

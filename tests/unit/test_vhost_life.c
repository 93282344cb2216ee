/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: rings that stop, front ends that go and come back, daemons that are killed and servers
 * that close lose no request, repeat none that was told, and wait for nobody without a bound.
 * Method: as test_vhost_requests.c; the device hangs on demand.  A killed daemon is played by a
 * front end that hangs up: the in-flight region is all that the next connection knows.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "blkmirror/export/vhost_ring.h"
#include "tests/lib/vhost_fixture.h"

/* ---- draining ---- */

static void test_stop_drains(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vhost_wire_vring_state wire = { 0 };
	struct front_message message;

	(void)unused;
	vfix_hang(fix, true);
	for (uint16_t slot = 0; slot < 4; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_OUT, slot, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 4);
	assert_true(front_send(front, VHOST_USER_GET_VRING_BASE, VHOST_USER_VERSION, &wire,
			       sizeof(wire), NULL, 0));
	/* The loop has looked at its descriptors in between. */
	(void)vlook_at(fix);
	(void)vlook_at(fix);
	/* Not taken any more, and not lost either. */
	front_request(front, 0, 5, VIRTIO_BLK_T_OUT, 5, FRONT_DATA, 512);
	front_kick(front, 0);
	usleep(20000);
	assert_int_equal(vlook_at(fix).waiting, 4);
	assert_false(front_has_used(front, 0));
	vfix_hang(fix, false);
	assert_true(front_receive(front, &message));
	assert_int_equal(message.header.request, VHOST_USER_GET_VRING_BASE);
	/* The answer comes after the guest has been told of all. */
	assert_int_equal(message.payload.vring_state.value, front->queues[0].used->idx);
	front->queues[0].base = (uint16_t)message.payload.vring_state.value;
	assert_int_equal(front->queues[0].base, 4);
	assert_true(front_start_queue(front, 0));
	vfix_wait(fix, now, now.ops[BLK_WRITE] == 5);
	vfix_free(fix);
}

static void test_stop_is_bounded(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vring_used_elem used;

	(void)unused;
	fix->options.drain_timeout_ns = 50 * NS_PER_MS;
	vfix_start(fix);
	front_usual(front, fix->path, 1);
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_OUT, 8, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	assert_int_equal(front_stop_queue(front, 0), -EPIPE);
	/* R3: while the device has a request of the last front end there is no next one. */
	front_connect(front, fix->path);
	assert_true(front_is_dropped(front));
	assert_false(front_has_used(front, 0));
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	assert_false(front_has_used(front, 0));         /* the rings were not ours any more */
	front_usual(front, fix->path, 1);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(front_status(front, 0, 0), 0);
	assert_int_equal(vlook_at(fix).ops[BLK_WRITE], 2);
	vfix_free(fix);
}

/* ---- coming back ---- */

static void test_front_end_that_vanishes(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	bool seen[3] = { 0 };

	(void)unused;
	vfix_hang(fix, true);
	for (uint16_t slot = 0; slot < 3; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_OUT, slot, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 3);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	front_usual(front, fix->path, 1);
	for (int i = 0; i < 3; i++) {
		assert_true(front_wait_used(front, 0, &used));
		assert_false(seen[used.id / 3]);
		seen[used.id / 3] = true;
	}
	vfix_wait(fix, now, now.ops[BLK_WRITE] == 6);
	/* And nothing of it a second time. */
	assert_int_equal(front_stop_queue(front, 0), 3);
	assert_false(front_has_used(front, 0));
	vfix_free(fix);
}

static struct vhost_inflight_queue *inflight_map(struct front *front)
{
	void *at = mmap(NULL, front->inflight.len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			front->inflight_fd, 0);

	assert_true(at != MAP_FAILED);
	return at;
}

/* In the order of taking, not of heads; nothing newer before they have settled (R3). */
static void test_replay_in_order_and_first(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	static const uint16_t slots[] = { 7, 2, 9, 0 };

	(void)unused;
	vfix_hang(fix, true);
	for (size_t i = 0; i < ARRAY_COUNT(slots); i++) {
		/* All to one place: the last taken must be the last written. */
		memset(front->memory + FRONT_DATA + i * 512, (int)i + 1, 512);
		front_request(front, 0, slots[i], VIRTIO_BLK_T_OUT, 3, FRONT_DATA + i * 512, 512);
	}
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 4);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	vfix_hang(fix, true);
	front_request(front, 0, 12, VIRTIO_BLK_T_FLUSH, 0, 0, 0);       /* newer, another kind */
	front_usual(front, fix->path, 1);
	vfix_wait(fix, now, now.waiting == 4);
	assert_int_equal(vlook_at(fix).ops[BLK_FLUSH], 0);
	vfix_hang(fix, false);
	for (size_t i = 0; i < ARRAY_COUNT(slots); i++) {
		assert_true(front_wait_used(front, 0, &used));
		assert_int_equal(used.id, slots[i] * 3);
	}
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 36);
	assert_int_equal(fix->mem->bytes[3 * 512], 4);
	vfix_free(fix);
}

/* R3 holds across queues too. */
static void test_replay_holds_other_queues(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vring_used_elem used;

	(void)unused;
	vfix_start(fix);
	front_usual(front, fix->path, 2);
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_OUT, 3, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	vfix_hang(fix, true);
	front_usual(front, fix->path, 2);
	front_request(front, 1, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_kick(front, 1);
	vfix_wait(fix, now, now.waiting == 1);
	usleep(20000);
	assert_int_equal(vlook_at(fix).ops[BLK_FLUSH], 0);
	vfix_hang(fix, false);
	assert_true(front_wait_used(front, 0, &used));
	assert_true(front_wait_used(front, 1, &used));
	vfix_free(fix);
}

/* Killed at each step between "the counter has moved" and "the region knows it". */
static void test_batch_that_was_told_is_not_repeated(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vhost_inflight_queue *region;
	struct vring_used_elem used;

	(void)unused;
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	vfix_hang(fix, true);
	for (uint16_t slot = 0; slot < 3; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_OUT, slot, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 3);
	region = inflight_map(front);
	assert_int_equal(region->descs[0].inflight, 1);
	assert_int_equal(region->descs[6].inflight, 1);
	front_disconnect(front);
	vfix_wait(fix, now, now.connections == 0);
	vfix_hang(fix, false);
	vfix_wait(fix, now, now.in_flight == 0);
	/* As it is after the third step for heads 6 and 3, told in one batch; 0 is still out. */
	front->queues[0].used->ring[1] = (struct vring_used_elem){ .id = 6, .len = 1 };
	front->queues[0].used->ring[2] = (struct vring_used_elem){ .id = 3, .len = 1 };
	region->descs[6].next = region->last_batch_head;
	region->descs[3].next = 6;
	region->last_batch_head = 3;
	region->descs[6].inflight = 0;          /* the clearing had begun */
	front->queues[0].used->idx = 3;
	front_usual(front, fix->path, 1);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 6);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 3);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 0);
	assert_int_equal(vlook_at(fix).ops[BLK_WRITE], 4);
	assert_int_equal(front_stop_queue(front, 0), 4);
	assert_int_equal(region->used_idx, 4);
	for (int i = 0; i < 9; i++)
		assert_int_equal(region->descs[i].inflight, 0);
	munmap(region, front->inflight.len_bytes);
	vfix_free(fix);
}

/* The guest is told at a start, in case the killed one had no time to. */
static void test_start_calls(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	uint64_t count;

	(void)unused;
	vfix_wait(fix, now, read(front->queues[0].call_fd, &count, sizeof(count)) == sizeof(count));
	vfix_free(fix);
}

static void test_one_front_end(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front other;

	(void)unused;
	front_init(&other, VFIX_QUEUE_SIZE);
	front_connect(&other, fix->path);
	assert_true(front_is_dropped(&other));
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	assert_int_equal(vlook_at(fix).errors, 1);
	/* One that comes the moment the last has gone is not refused. */
	for (int i = 0; i < 50; i++) {
		front_disconnect(&fix->front);
		front_connect(&fix->front, fix->path);
		(void)front_ask_u64(&fix->front, VHOST_USER_GET_FEATURES);
	}
	assert_int_equal(vlook_at(fix).errors, 1);
	front_release(&other);
	vfix_free(fix);
}

/* ---- closing ---- */

static void test_close_tells_what_is_in_flight(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	int kept = -1;

	(void)unused;
	fix->keep_fd = &kept;
	vfix_hang(fix, true);
	for (uint16_t slot = 0; slot < 3; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_OUT, slot, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 3);
	vfix_begin_close(fix);
	assert_true(kept >= 0);
	front_request(front, 0, 4, VIRTIO_BLK_T_OUT, 4, FRONT_DATA, 512);
	front_kick(front, 0);
	assert_false(latch_wait(&fix->closed, 20 * NS_PER_MS));
	vfix_hang(fix, false);
	assert_true(latch_wait(&fix->closed, 10 * NS_PER_S));
	for (int i = 0; i < 3; i++)
		assert_true(front_wait_used(front, 0, &used));
	assert_false(front_has_used(front, 0));
	assert_true(front_is_dropped(front));
	/* A successor on the same socket has the rest, and only that. */
	fix->listen_fd = kept;
	fix->keep_fd = NULL;
	vfix_start(fix);
	front_usual(front, fix->path, 1);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 12);
	assert_int_equal(vlook_at(fix).ops[BLK_WRITE], 4);
	vfix_free(fix);
}

/* Who waits for an answer of a server that ends is let go, whatever the device does. */
static void test_close_is_bounded_for_the_front_end(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	fix->options.drain_timeout_ns = 50 * NS_PER_MS;
	vfix_start(fix);
	front_usual(front, fix->path, 1);
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_OUT, 8, FRONT_DATA, 512);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	vfix_begin_close(fix);
	assert_int_equal(front_stop_queue(front, 0), -EPIPE);
	assert_false(latch_wait(&fix->closed, 20 * NS_PER_MS));
	vfix_hang(fix, false);
	assert_true(latch_wait(&fix->closed, 10 * NS_PER_S));
	assert_false(front_has_used(front, 0));
	vfix_free(fix);
}

static void test_close_without_a_front_end_and_with_a_dead_one(void **unused)
{
	struct vfix *fix = vfix_new();

	(void)unused;
	vfix_start(fix);
	vfix_free(fix);
	fix = vfix_usual();
	vfix_hang(fix, true);
	front_request(&fix->front, 0, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 512);
	front_kick(&fix->front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	front_disconnect(&fix->front);
	vfix_begin_close(fix);
	assert_false(latch_wait(&fix->closed, 20 * NS_PER_MS));
	vfix_hang(fix, false);
	assert_true(latch_wait(&fix->closed, 10 * NS_PER_S));
	vfix_free(fix);
}

struct refused {
	struct vfix *fix;
	struct vhost_blk_options options;
	struct err err;
	int rc;
};

static void refused_new_run(void *user)
{
	struct refused *refused = user;
	struct vhost_blk_server *server;

	refused->rc = vhost_blk_server_new(loop_thread_loop(refused->fix->thread), -1,
					   &refused->fix->mem->dev, &refused->options, &server,
					   &refused->err);
}

static void test_bad_options_are_refused(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct refused refused = { .fix = fix };

	(void)unused;
	refused.options.name = "";
	loop_thread_call(fix->thread, refused_new_run, &refused);
	assert_int_equal(refused.rc, -EINVAL);
	assert_int_equal(refused.err.id, ERR_BAD_NAME);
	refused.options.name = "d1";
	refused.options.max_queues = 257;
	loop_thread_call(fix->thread, refused_new_run, &refused);
	assert_int_equal(refused.err.id, ERR_USAGE);
	refused.options.max_queues = 0;
	refused.options.max_requests = 5000;
	loop_thread_call(fix->thread, refused_new_run, &refused);
	assert_int_equal(refused.err.id, ERR_USAGE);
	refused.options.max_requests = 0;
	loop_thread_call(fix->thread, refused_new_run, &refused);
	assert_int_equal(refused.rc, -EBADF);
	assert_int_equal(refused.err.id, ERR_EXPORT_SOCKET);
	vfix_free(fix);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stop_drains),
		cmocka_unit_test(test_stop_is_bounded),
		cmocka_unit_test(test_front_end_that_vanishes),
		cmocka_unit_test(test_replay_in_order_and_first),
		cmocka_unit_test(test_replay_holds_other_queues),
		cmocka_unit_test(test_batch_that_was_told_is_not_repeated),
		cmocka_unit_test(test_start_calls),
		cmocka_unit_test(test_one_front_end),
		cmocka_unit_test(test_close_tells_what_is_in_flight),
		cmocka_unit_test(test_close_is_bounded_for_the_front_end),
		cmocka_unit_test(test_close_without_a_front_end_and_with_a_dead_one),
		cmocka_unit_test(test_bad_options_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what a guest's driver puts into its rings is carried out, answered and marked as virtio
 * has it, whatever the layout, the number of queues and the depth.
 * Method: a real server on a loop thread over a device in memory; a front end that shares a
 * memfd and plays the driver in it.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tests/lib/vhost_fixture.h"

#define BIT(number) (UINT64_C(1) << (number))

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + seed);
}

/* ---- what it is ---- */

static struct virtio_blk_config config_of(struct front *front)
{
	struct vhost_wire_config wire = { .len_bytes = sizeof(struct virtio_blk_config) };
	uint32_t size = VHOST_WIRE_CONFIG_HEADER_BYTES + wire.len_bytes;
	struct front_message message;
	struct virtio_blk_config config;

	assert_true(front_send(front, VHOST_USER_GET_CONFIG, VHOST_USER_VERSION, &wire, size, NULL,
			       0));
	assert_true(front_receive(front, &message));
	assert_int_equal(message.header.size_bytes, size);
	memcpy(&config, message.payload.config.bytes, sizeof(config));
	return config;
}

static void test_what_is_offered(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct virtio_blk_config config = config_of(&fix->front);
	uint64_t wanted = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) |
			  BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_BLK_F_MQ) |
			  BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
			  BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VHOST_F_LOG_ALL_BIT);

	(void)unused;
	assert_int_equal(front_ask_u64(&fix->front, VHOST_USER_GET_FEATURES) & wanted, wanted);
	assert_int_equal(config.capacity, VFIX_DISK_BYTES / 512);
	assert_int_equal(config.blk_size, 512);
	assert_int_equal(config.physical_block_exp, 3);
	assert_int_equal(config.min_io_size, 8);
	assert_int_equal(config.num_queues, 64);
	assert_int_equal(config.max_discard_seg, 1);
	assert_int_equal(config.discard_sector_alignment, 8);
	assert_int_equal(config.write_zeroes_may_unmap, 1);
	assert_int_equal(front_ask_u64(&fix->front, VHOST_USER_GET_QUEUE_NUM), 64);
	assert_true(front_ask_u64(&fix->front, VHOST_USER_GET_MAX_MEM_SLOTS) >= 8);
	vfix_free(fix);
}

static void test_read_only_without_unmap(void **unused)
{
	struct vfix *fix = vfix_new();
	uint64_t features;

	(void)unused;
	fix->options.read_only = true;
	fix->limits.can_unmap = false;
	fix->limits.block_bytes = 4096;
	vfix_start(fix);
	front_usual(&fix->front, fix->path, 1);
	features = front_ask_u64(&fix->front, VHOST_USER_GET_FEATURES);
	assert_true(features & BIT(VIRTIO_BLK_F_RO));
	assert_false(features & BIT(VIRTIO_BLK_F_DISCARD));
	assert_int_equal(config_of(&fix->front).blk_size, 4096);
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 4096),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, FRONT_DATA, 16),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_IN, 8, FRONT_DATA, 4096),
			 VIRTIO_BLK_S_OK);
	/* Half a block. */
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_IN, 8, FRONT_DATA, 512),
			 VIRTIO_BLK_S_IOERR);
	vfix_free(fix);
}

/* ---- requests ---- */

static void test_write_read_flush(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	uint8_t *out = front->memory + FRONT_DATA, *in = out + (1 << 20);
	struct vlook look;

	(void)unused;
	fill(out, 8192, 3);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_OUT, 100, FRONT_DATA, 8192), 0);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 100, FRONT_DATA + (1 << 20), 8192), 0);
	assert_memory_equal(in, out, 8192);
	look = vlook_at(fix);
	assert_int_equal(look.ops[BLK_FLUSH], 1);
	/* The guest can change its data in flight: nobody may think otherwise. */
	assert_int_equal(look.last_flags[BLK_WRITE], 0);
	vfix_free(fix);
}

/* A guest that cannot flush is told only what is durable. */
static void test_write_through_without_flush(void **unused)
{
	struct vfix *fix = vfix_new();

	(void)unused;
	vfix_start(fix);
	front_connect(&fix->front, fix->path);
	front_negotiate(&fix->front, ~BIT(VIRTIO_BLK_F_FLUSH), 1);
	assert_true(front_start_queue(&fix->front, 0));
	assert_int_equal(front_io(&fix->front, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 512), 0);
	assert_int_equal(vlook_at(fix).last_flags[BLK_WRITE], BLK_FUA);
	vfix_free(fix);
}

static uint8_t zero(struct front *front, uint32_t type, uint64_t sector, uint32_t sectors,
		    uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = sector, .num_sectors = sectors,
							 .flags = flags };

	memcpy(front->memory + FRONT_DATA, &range, sizeof(range));
	return front_io(front, 0, type, 0, FRONT_DATA, sizeof(range));
}

/* R8 */
static void test_discard_and_zeroes(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	uint8_t *in = front->memory + FRONT_DATA + 65536;

	(void)unused;
	fill(in, 65536, 9);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA + 65536, 65536), 0);
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, 8, 8, 0), 0);
	assert_int_equal(vlook_at(fix).last_flags[BLK_WRITE_ZEROES], BLK_MAY_UNMAP);
	assert_int_equal(vlook_at(fix).ops[BLK_DISCARD], 0);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 8, FRONT_DATA + 65536, 4096), 0);
	for (int i = 0; i < 4096; i++)
		assert_int_equal(in[i], 0);
	assert_int_equal(zero(front, VIRTIO_BLK_T_WRITE_ZEROES, 16, 8, 0), 0);
	assert_int_equal(vlook_at(fix).last_flags[BLK_WRITE_ZEROES], 0);
	assert_int_equal(zero(front, VIRTIO_BLK_T_WRITE_ZEROES, 16, 8,
			      VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), 0);
	assert_int_equal(vlook_at(fix).last_flags[BLK_WRITE_ZEROES], BLK_MAY_UNMAP);
	/* What may not be asked. */
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, 8, 8, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(zero(front, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 2), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, 8, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, UINT64_MAX, 8, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, 8, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(zero(front, VIRTIO_BLK_T_DISCARD, VFIX_DISK_BYTES / 512, 8, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_DISCARD, 0, FRONT_DATA, 32),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(vlook_at(fix).ops[BLK_WRITE_ZEROES], 3);
	vfix_free(fix);
}

static void test_id(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vring_used_elem used;

	(void)unused;
	fix->options.name = "a-name-of-more-than-twenty-bytes";
	vfix_start(fix);
	front_usual(front, fix->path, 1);
	memset(front->memory + FRONT_DATA, '#', 64);
	front_request(front, 0, 0, VIRTIO_BLK_T_GET_ID, 0, FRONT_DATA, 20);
	front_kick(front, 0);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.len, 21);
	assert_memory_equal(front->memory + FRONT_DATA, "a-name-of-more-than-#", 21);
	vfix_free(fix);
}

static void test_errors(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	uint64_t end = VFIX_DISK_BYTES / 512;

	(void)unused;
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, end - 1, FRONT_DATA, 1024), 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, end, FRONT_DATA, 512), 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_OUT, UINT64_MAX, FRONT_DATA, 512), 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, FRONT_DATA, 512),
			 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 511), 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 0, 0, 0), 1);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_SCSI_CMD, 0, FRONT_DATA, 512), 2);
	assert_int_equal(front_io(front, 0, 0x12345678, 0, FRONT_DATA, 512), 2);
	vfix_fail(fix, BLK_READ, -EIO);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512), 1);
	vfix_fail(fix, BLK_READ, -ENOTSUP);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512), 2);
	vfix_fail(fix, BLK_READ, 0);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512), 0);
	assert_int_equal(vlook_at(fix).errors, 0);      /* requests failed, nobody broke a rule */
	vfix_free(fix);
}

/* ---- layouts ---- */

/* Header, data and status in pieces of odd lengths; the data lie across both memory regions. */
static void test_odd_pieces(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_OUT, .sector = 7 };
	struct vring_used_elem used;
	uint64_t data = FRONT_MIDDLE - 100;
	uint8_t expected[512];

	(void)unused;
	memcpy(front->memory + FRONT_DATA, &header, 5);
	memcpy(front->memory + FRONT_DATA + 1000, (uint8_t *)&header + 5, 11);
	fill(expected, sizeof(expected), 77);
	memcpy(front->memory + FRONT_DATA + 1011, expected, 1); /* in the same descriptor */
	memcpy(front->memory + data, expected + 1, 511);
	front_desc(front, 0, 9, FRONT_DATA, 5, VRING_DESC_F_NEXT, 3);
	front_desc(front, 0, 3, FRONT_DATA + 1000, 12, VRING_DESC_F_NEXT, 40);
	front_desc(front, 0, 40, data, 511, VRING_DESC_F_NEXT, 0);
	front_desc(front, 0, 0, FRONT_DATA + 5000, 1, VRING_DESC_F_WRITE, 0);
	front->memory[FRONT_DATA + 5000] = 0xee;
	front_offer(front, 0, 9);
	front_kick(front, 0);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 9);
	assert_int_equal(used.len, 1);
	assert_int_equal(front->memory[FRONT_DATA + 5000], 0);

	/* Read back, with data and status in one descriptor, through an indirect table. */
	header.type = VIRTIO_BLK_T_IN;
	memcpy(front->memory + FRONT_DATA, &header, sizeof(header));
	struct vring_desc table[2] = {
		{ .addr = FRONT_DATA, .len = 16, .flags = VRING_DESC_F_NEXT, .next = 1 },
		{ .addr = data, .len = 513, .flags = VRING_DESC_F_WRITE },
	};
	memset(front->memory + data, 0xee, 513);
	memcpy(front->memory + FRONT_DATA + 4099, table, sizeof(table));
	front_desc(front, 0, 11, FRONT_DATA + 4099, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	front_offer(front, 0, 11);
	front_kick(front, 0);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(used.id, 11);
	assert_int_equal(used.len, 513);
	assert_memory_equal(front->memory + data, expected, 512);
	assert_int_equal(front->memory[data + 512], 0);
	assert_int_equal(vlook_at(fix).errors, 0);
	vfix_free(fix);
}

/* Descriptors of the ring's own table, then the rest in an indirect one. */
static void test_chain_that_ends_indirect(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN };
	struct vring_desc table[2] = {
		{ .addr = FRONT_DATA + 4096, .len = 512,
		  .flags = VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, .next = 1 },
		{ .addr = FRONT_DATA + 64, .len = 1, .flags = VRING_DESC_F_WRITE },
	};
	struct vring_used_elem used;

	(void)unused;
	memcpy(front->memory + FRONT_DATA, &header, sizeof(header));
	memcpy(front->memory + FRONT_DATA + 1024, table, sizeof(table));
	front->memory[FRONT_DATA + 64] = 0xee;
	front_desc(front, 0, 0, FRONT_DATA, 16, VRING_DESC_F_NEXT, 1);
	front_desc(front, 0, 1, FRONT_DATA + 1024, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	front_offer(front, 0, 0);
	front_kick(front, 0);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(front->memory[FRONT_DATA + 64], 0);
	vfix_free(fix);
}

/* ---- depth, queues, notifications ---- */

/* As many as there are with one kick; the counter wraps around its 16 bits. */
static void test_batches_around_the_end(void **unused)
{
	enum { SLOTS = VFIX_QUEUE_SIZE / 3 };
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	uint32_t done = 0;

	(void)unused;
	while (done < 70000) {
		for (uint16_t slot = 0; slot < SLOTS; slot++)
			front_request(front, 0, slot, VIRTIO_BLK_T_OUT, slot * 8u,
				      FRONT_DATA + slot * 4096u, 4096);
		front_kick(front, 0);
		for (uint16_t slot = 0; slot < SLOTS; slot++, done++) {
			assert_true(front_wait_used(front, 0, &used));
			assert_int_equal(front_status(front, 0, (uint16_t)used.id), 0);
		}
	}
	assert_int_equal(vlook_at(fix).ops[BLK_WRITE], done);
	vfix_free(fix);
}

/* Without the event index the flags say who wants to be told. */
static void test_without_event_index(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	eventfd_t count;

	(void)unused;
	vfix_start(fix);
	front_connect(front, fix->path);
	front_negotiate(front, ~BIT(VIRTIO_RING_F_EVENT_IDX), 1);
	assert_true(front_start_queue(front, 0));
	for (uint16_t i = 0; i < 10; i++)
		assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	assert_int_equal(front->queues[0].used->flags & VRING_USED_F_NO_NOTIFY, 0);
	/* Does not want to hear of it. */
	front->queues[0].avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	(void)eventfd_read(front->queues[0].call_fd, &count);
	front_request(front, 0, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_kick(front, 0);
	vfix_wait(fix, now, now.ops[BLK_FLUSH] == 11 && front_has_used(front, 0));
	assert_int_equal(eventfd_read(front->queues[0].call_fd, &count), -1);
	assert_true(front_wait_used(front, 0, &used));
	vfix_free(fix);
}

/* With the event index one notification tells of a batch, and none of what nobody waits for. */
static void test_event_index_spares_notifications(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct front_queue *queue = &front->queues[0];
	eventfd_t count;

	(void)unused;
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0), 0);
	vfix_hang(fix, true);
	(void)eventfd_read(queue->call_fd, &count);
	for (uint16_t slot = 0; slot < 8; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 8);
	queue->avail->ring[queue->size] = (uint16_t)(queue->next_used + 20);    /* much later */
	vfix_hang(fix, false);
	vfix_wait(fix, now, queue->used->idx == (uint16_t)(queue->next_used + 8));
	assert_int_equal(eventfd_read(queue->call_fd, &count), -1);
	queue->next_used = (uint16_t)(queue->next_used + 8);
	/* And now for one in the middle of a batch. */
	queue->avail->ring[queue->size] = (uint16_t)(queue->next_used + 3);
	vfix_hang(fix, true);
	for (uint16_t slot = 0; slot < 8; slot++)
		front_request(front, 0, slot, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 8);
	vfix_hang(fix, false);
	vfix_wait(fix, now, queue->used->idx == (uint16_t)(queue->next_used + 8));
	vfix_wait(fix, now, eventfd_read(queue->call_fd, &count) == 0);
	vfix_free(fix);
}

static void test_more_than_the_bound_wait(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;
	struct vring_used_elem used;

	(void)unused;
	fix->options.max_requests = 5;
	vfix_start(fix);
	front_usual(front, fix->path, 2);
	vfix_hang(fix, true);
	for (uint32_t queue = 0; queue < 2; queue++) {
		for (uint16_t slot = 0; slot < 20; slot++)
			front_request(front, queue, slot, VIRTIO_BLK_T_IN, slot, FRONT_DATA, 512);
		front_kick(front, queue);
	}
	vfix_wait(fix, now, now.waiting == 5);
	vfix_hang(fix, false);
	for (uint32_t queue = 0; queue < 2; queue++)
		for (uint16_t slot = 0; slot < 20; slot++)
			assert_true(front_wait_used(front, queue, &used));
	assert_int_equal(vlook_at(fix).ops[BLK_READ], 40);
	vfix_free(fix);
}

static void test_four_queues(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	vfix_start(fix);
	front_usual(front, fix->path, 4);
	for (uint32_t round = 0; round < 50; round++) {
		for (uint32_t queue = 0; queue < 4; queue++) {
			fill(front->memory + FRONT_DATA, 4096, round * 4 + queue);
			assert_int_equal(front_io(front, queue, VIRTIO_BLK_T_OUT, 8 * queue,
						  FRONT_DATA, 4096), 0);
			assert_int_equal(front_io(front, 3 - queue, VIRTIO_BLK_T_IN, 8 * queue,
						  FRONT_DATA + 8192, 4096), 0);
			assert_memory_equal(front->memory + FRONT_DATA,
					    front->memory + FRONT_DATA + 8192, 4096);
		}
	}
	vfix_free(fix);
}

/* A queue that is not enabled takes nothing; once it is, what waited is taken without a kick. */
static void test_disabled_queue(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;

	(void)unused;
	assert_true(front_tell_ring(front, VHOST_USER_SET_VRING_ENABLE, 0, 0));
	front_request(front, 0, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_kick(front, 0);
	(void)front_ask_u64(front, VHOST_USER_GET_FEATURES);
	assert_int_equal(vlook_at(fix).ops[BLK_FLUSH], 0);
	assert_true(front_tell_ring(front, VHOST_USER_SET_VRING_ENABLE, 0, 1));
	assert_true(front_wait_used(front, 0, &used));
	vfix_free(fix);
}

/* Polling finds requests without kicks, and falls asleep without losing one. */
static void test_polling(void **unused)
{
	struct vfix *fix = vfix_new();
	struct front *front = &fix->front;

	(void)unused;
	fix->options.poll_ns = 200 * NS_PER_US;
	vfix_start(fix);
	front_usual(front, fix->path, 2);
	for (uint32_t round = 0; round < 2000; round++) {
		assert_int_equal(front_io(front, round & 1, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 4096),
				 0);
		if (round % 100 == 99)
			usleep(1000);           /* long enough for it to give up */
	}
	vfix_free(fix);
}

/* ---- the dirty log: R-E4 ---- */

static void test_log_marks_what_was_written(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	uint64_t read_gpa = FRONT_MIDDLE - 4096;

	(void)unused;
	front_log_start(front, FRONT_MEMORY_BYTES / 4096 / 8);
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_IN, 0, read_gpa, 12288);
	front_request(front, 0, 1, VIRTIO_BLK_T_OUT, 100, FRONT_DATA, 8192);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 2);
	/* Not before the data have landed. */
	assert_false(front_log_is_set(front, read_gpa));
	vfix_hang(fix, false);
	assert_true(front_wait_used(front, 0, &used));
	assert_true(front_wait_used(front, 0, &used));
	assert_true(front_log_is_set(front, read_gpa));
	assert_true(front_log_is_set(front, read_gpa + 4096));
	assert_true(front_log_is_set(front, read_gpa + 8192));
	assert_false(front_log_is_set(front, read_gpa - 4096));
	assert_false(front_log_is_set(front, read_gpa + 12288));
	assert_false(front_log_is_set(front, FRONT_DATA));      /* only read by us */
	assert_true(front_log_is_set(front, front_header_gpa(0, 0)));   /* the status */
	assert_int_equal(front_stop_queue(front, 0), 2);
	assert_true(front_log_is_set(front, 0x8000));           /* the used ring */
	vfix_free(fix);
}

static void test_log_that_is_too_short(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;

	(void)unused;
	front_log_start(front, 4);
	front_request(front, 0, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512);
	front_kick(front, 0);
	assert_true(front_is_dropped(front));
	assert_int_equal(vlook_at(fix).errors, 1);
	vfix_free(fix);
}

/* ---- other messages ---- */

static void resized_run(void *user)
{
	struct vfix *fix = user;

	fix->mem->dev.size_bytes /= 2;
	vhost_blk_server_resized(fix->server);
}

static void unsize_run(void *user)
{
	struct vfix *fix = user;

	fix->mem->dev.size_bytes *= 2;
}

static void test_resize_is_told(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vhost_wire_header header;
	int pair[2];

	(void)unused;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_true(front_tell(front, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, pair[1]));
	loop_thread_call(fix->thread, resized_run, fix);
	assert_int_equal(recv(pair[0], &header, sizeof(header), MSG_WAITALL), sizeof(header));
	assert_int_equal(header.request, VHOST_USER_BACKEND_CONFIG_CHANGE);
	assert_int_equal(header.flags, VHOST_USER_VERSION);
	assert_int_equal(header.size_bytes, 0);
	assert_int_equal(config_of(front).capacity, VFIX_DISK_BYTES / 1024);
	loop_thread_call(fix->thread, unsize_run, fix);
	close(pair[0]);
	close(pair[1]);
	vfix_free(fix);
}

/* The same memory told again, in one table, while a request is in flight. */
static void test_memory_changes_under_requests(void **unused)
{
	struct vfix *fix = vfix_usual();
	struct front *front = &fix->front;
	struct vring_used_elem used;
	uint64_t protocol = front->protocol_features;

	(void)unused;
	vfix_hang(fix, true);
	front_request(front, 0, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 4096);
	front_kick(front, 0);
	vfix_wait(fix, now, now.waiting == 1);
	memset(front->memory + FRONT_DATA, 0xee, 4096);
	front->protocol_features = 0;   /* as one table */
	assert_true(front_tell_memory(front));
	front->protocol_features = protocol;
	(void)front_ask_u64(front, VHOST_USER_GET_FEATURES);
	vfix_hang(fix, false);
	assert_true(front_wait_used(front, 0, &used));
	assert_int_equal(front_status(front, 0, 0), 0);
	assert_int_equal(front->memory[FRONT_DATA + 4095], 0);
	assert_int_equal(front_io(front, 0, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 4096), 0);
	vfix_free(fix);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_offered),
		cmocka_unit_test(test_read_only_without_unmap),
		cmocka_unit_test(test_write_read_flush),
		cmocka_unit_test(test_write_through_without_flush),
		cmocka_unit_test(test_discard_and_zeroes),
		cmocka_unit_test(test_id),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_odd_pieces),
		cmocka_unit_test(test_chain_that_ends_indirect),
		cmocka_unit_test(test_batches_around_the_end),
		cmocka_unit_test(test_without_event_index),
		cmocka_unit_test(test_event_index_spares_notifications),
		cmocka_unit_test(test_more_than_the_bound_wait),
		cmocka_unit_test(test_four_queues),
		cmocka_unit_test(test_disabled_queue),
		cmocka_unit_test(test_polling),
		cmocka_unit_test(test_log_marks_what_was_written),
		cmocka_unit_test(test_log_that_is_too_short),
		cmocka_unit_test(test_resize_is_told),
		cmocka_unit_test(test_memory_changes_under_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

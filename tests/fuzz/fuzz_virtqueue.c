/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_virtqueue.c - input: what a driver writes into its ring.
 *
 *	byte 0        bits: no event index, no indirect tables, the device fails, the front end
 *	              vanishes and comes back, the in-flight region is scribbled on meanwhile
 *	byte 1        how many heads are offered
 *	bytes 2..65   the heads
 *	then          8 descriptors of 16 bytes, for the table; the rest lies at FRONT_DATA: request
 *	              headers, indirect tables
 *
 * Addresses and lengths are bent into the guest's memory, mostly: what lies outside is refused
 * early and leads nowhere.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lib/vhost_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NO_EVENT_INDEX = 1, NO_INDIRECT = 2, FAILS = 4, COMES_BACK = 8, SCRIBBLES = 16 };
enum { HEADS = 64, DESCS = 8, FIXED = 2 + HEADS + DESCS * 16 };

static void bend(struct vring_desc *desc)
{
	if (desc->addr >> 56 != 0xff)
		desc->addr %= FRONT_MEMORY_BYTES;
	if (!(desc->len >> 31))
		desc->len &= 0xffff;
	if (!(desc->next >> 15))
		desc->next &= 63;
}

static void lay_out(struct front *front, const uint8_t *data, size_t size)
{
	struct vring_desc desc;
	size_t rest = size - FIXED;

	if (rest > 16384)
		rest = 16384;
	for (uint16_t i = 0; i < DESCS; i++) {
		memcpy(&desc, data + 2 + HEADS + i * 16, sizeof(desc));
		bend(&desc);
		front->queues[0].desc[i] = desc;
	}
	memcpy(front->memory + FRONT_DATA, data + FIXED, rest);
	for (uint8_t i = 0; i < data[1] % (HEADS + 1); i++)
		front_offer(front, 0, data[2 + i]);
}

static void scribble(const struct front *front, const uint8_t *data, size_t size)
{
	uint8_t *region = mmap(NULL, front->inflight.len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			       front->inflight_fd, 0);

	CHECK(region != MAP_FAILED);
	memcpy(region + 12, data, size < front->inflight.len_bytes - 12 ?
	       size : front->inflight.len_bytes - 12);
	munmap(region, front->inflight.len_bytes);
}

static bool begin(struct front *front, uint8_t options)
{
	uint64_t without = 0;

	if (options & NO_EVENT_INDEX)
		without |= UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
	if (options & NO_INDIRECT)
		without |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
	front_connect(front, vhost_fuzz_path());
	front_negotiate(front, ~without, 1);
	return front_start_queue(front, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct front *front = vhost_fuzz_front();
	uint16_t offered;

	if (size < FIXED)
		return 0;
	vhost_fuzz_device(data[0] & FAILS ? -EIO : 0);
	CHECK(begin(front, data[0]));
	lay_out(front, data, size);
	front_kick(front, 0);
	if (data[0] & COMES_BACK) {
		vhost_fuzz_hang_up();
		if (data[0] & SCRIBBLES)
			scribble(front, data + FIXED, size - FIXED);
		/* A region of another kind is refused; of ours, it is read within bounds. */
		if (begin(front, data[0]))
			CHECK(front_stop_queue(front, 0) >= 0);
		vhost_fuzz_settle();
		return 0;
	}
	/* Whatever it holds, it can be stopped, and no more was taken than was offered. */
	offered = front->queues[0].next_avail;
	CHECK(front_stop_queue(front, 0) >= 0);
	CHECK(front->queues[0].base <= offered);
	CHECK(front->queues[0].used->idx <= front->queues[0].base);
	vhost_fuzz_settle();
	return 0;
}

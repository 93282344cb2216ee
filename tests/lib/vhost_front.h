/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_front.h - a vhost-user front end with a guest's driver in it, for tests.
 *
 * Guest memory is a memfd of FRONT_MEMORY_BYTES, shown as two regions that meet in the middle.
 * Nothing here is careful: tests write whatever they want into it, rings included.  All calls
 * block, at most FRONT_PATIENCE_MS; those that say so return false or -errno, the others CHECK.
 *
 *	gpa 0        rings: 64 KiB a queue: desc, avail at +16 KiB, used at +32 KiB
 *	FRONT_HEADS  32 bytes per queue and head: a request's header, its status at +16
 *	FRONT_DATA   the test's
 */
#ifndef BM_TESTS_VHOST_FRONT_H
#define BM_TESTS_VHOST_FRONT_H

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>

#include "blkmirror/export/vhost_proto.h"
#include "blkmirror/base/check.h"

#define FRONT_MEMORY_BYTES (UINT64_C(16) << 20)
#define FRONT_MIDDLE (FRONT_MEMORY_BYTES / 2)
#define FRONT_HVA UINT64_C(0x7f5500000000)      /* what the regions are called; nothing is there */
#define FRONT_HEADS UINT64_C(0x80000)
#define FRONT_DATA (UINT64_C(1) << 20)
#define FRONT_QUEUES_MAX 4u
#define FRONT_PATIENCE_MS 10000

struct front_queue {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t size;
	uint16_t next_avail, next_used; /* the driver's */
	uint16_t base;                  /* what SET_VRING_BASE says */
	int kick_fd, call_fd, err_fd;
};

struct front {
	int fd;                         /* -1: not connected */
	int memory_fd;
	uint8_t *memory;
	uint64_t features;              /* acknowledged by front_negotiate() */
	uint64_t protocol_features;
	int inflight_fd;                /* -1: none; kept over connections, as QEMU does */
	struct vhost_wire_inflight inflight;
	int log_fd;
	uint8_t *log;
	uint64_t log_bytes;
	struct front_queue queues[FRONT_QUEUES_MAX];
};

struct front_message {
	struct vhost_wire_header header;
	union vhost_wire_payload payload;
	int fd;                         /* -1: none */
};

/* What a usual front end acknowledges of what is offered. */
#define FRONT_FEATURES_ALL UINT64_MAX

void front_init(struct front *front, uint16_t queue_size);
void front_release(struct front *front);

/* ---- the socket ---- */

void front_connect(struct front *front, const char *path);
void front_disconnect(struct front *front);
/* False: the socket takes it no more. */
bool front_send(struct front *front, uint32_t request, uint32_t flags, const void *payload,
		uint32_t size_bytes, const int *fds, uint32_t fd_count);
/* False: hung up. */
bool front_receive(struct front *front, struct front_message *message);
/* Is the connection gone (within the patience)?  Reads and drops what still comes. */
bool front_is_dropped(struct front *front);

/* Asks for an acknowledgement where that is negotiated.  False: refused. */
bool front_tell(struct front *front, uint32_t request, const void *payload, uint32_t size_bytes,
		int fd);
bool front_tell_u64(struct front *front, uint32_t request, uint64_t value);
bool front_tell_ring(struct front *front, uint32_t request, uint32_t index, uint32_t value);
uint64_t front_ask_u64(struct front *front, uint32_t request);

/* ---- set-up ---- */

/* Features (masked by what is offered), protocol features, memory, in-flight region. */
void front_negotiate(struct front *front, uint64_t features, uint16_t queue_count);
bool front_tell_memory(struct front *front);
/* Size, base, place, call, err, kick, enabled.  False: refused. */
bool front_start_queue(struct front *front, uint32_t index);
/* Drain: the base, or -EPIPE when it hung up. */
int front_stop_queue(struct front *front, uint32_t index);
/* connect, negotiate, start `queue_count` queues. */
void front_usual(struct front *front, const char *path, uint16_t queue_count);
/* A log of len_bytes and the feature; features are sent again. */
void front_log_start(struct front *front, uint64_t len_bytes);
bool front_log_is_set(const struct front *front, uint64_t gpa);

/* ---- the driver ---- */

void front_desc(struct front *front, uint32_t queue, uint16_t index, uint64_t gpa, uint32_t len,
		uint16_t flags, uint16_t next);
/* Make the head available, without a kick. */
void front_offer(struct front *front, uint32_t queue, uint16_t head);
void front_kick(struct front *front, uint32_t queue);
/* Wait for the next used element.  False: none came. */
bool front_wait_used(struct front *front, uint32_t queue, struct vring_used_elem *out);
/* Is there one now? */
bool front_has_used(const struct front *front, uint32_t queue);

static inline uint64_t front_header_gpa(uint32_t queue, uint16_t head)
{
	return FRONT_HEADS + (queue * UINT64_C(1024) + head) * 32;
}

/*
 * Descriptors 3 * slot and the two behind it become a request (header, data where data_bytes,
 * status), and are offered.  Returns the head.
 */
uint16_t front_request(struct front *front, uint32_t queue, uint16_t slot, uint32_t type,
		       uint64_t sector, uint64_t data_gpa, uint32_t data_bytes);
uint8_t front_status(const struct front *front, uint32_t queue, uint16_t head);
/* front_request(), kick, wait: its status; 0xee: no answer came. */
uint8_t front_io(struct front *front, uint32_t queue, uint32_t type, uint64_t sector,
		 uint64_t data_gpa, uint32_t data_bytes);

#endif

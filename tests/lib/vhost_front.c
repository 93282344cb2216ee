/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/vhost_front.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BIT(number) (UINT64_C(1) << (number))
#define RING_BYTES UINT64_C(0x10000)
#define AVAIL_OFFSET UINT64_C(0x4000)
#define USED_OFFSET UINT64_C(0x8000)

/* ---- life ---- */

static void queue_init(struct front *front, uint32_t index, uint16_t size)
{
	struct front_queue *queue = &front->queues[index];
	uint8_t *at = front->memory + index * RING_BYTES;

	*queue = (struct front_queue){
		.desc = (void *)at,
		.avail = (void *)(at + AVAIL_OFFSET),
		.used = (void *)(at + USED_OFFSET),
		.size = size,
		.kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
	};
	CHECK(queue->kick_fd >= 0);
	CHECK(queue->call_fd >= 0);
	CHECK(queue->err_fd >= 0);
}

void front_init(struct front *front, uint16_t queue_size)
{
	*front = (struct front){ .fd = -1, .inflight_fd = -1, .log_fd = -1 };
	front->memory_fd = memfd_create("guest", MFD_CLOEXEC);
	CHECK(front->memory_fd >= 0);
	CHECK(ftruncate(front->memory_fd, (off_t)FRONT_MEMORY_BYTES) == 0);
	front->memory = mmap(NULL, FRONT_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			     front->memory_fd, 0);
	CHECK(front->memory != MAP_FAILED);
	for (uint32_t i = 0; i < FRONT_QUEUES_MAX; i++)
		queue_init(front, i, queue_size);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void front_release(struct front *front)
{
	close_fd(&front->fd);
	close_fd(&front->memory_fd);
	close_fd(&front->inflight_fd);
	close_fd(&front->log_fd);
	if (front->log)
		munmap(front->log, front->log_bytes);
	munmap(front->memory, FRONT_MEMORY_BYTES);
	for (uint32_t i = 0; i < FRONT_QUEUES_MAX; i++) {
		close_fd(&front->queues[i].kick_fd);
		close_fd(&front->queues[i].call_fd);
		close_fd(&front->queues[i].err_fd);
	}
}

/* ---- the socket ---- */

void front_connect(struct front *front, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = FRONT_PATIENCE_MS / 1000 };

	close_fd(&front->fd);
	front->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(front->fd >= 0);
	CHECK(strlen(path) < sizeof(address.sun_path));
	strcpy(address.sun_path, path);
	CHECK(connect(front->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK(setsockopt(front->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
}

void front_disconnect(struct front *front)
{
	close_fd(&front->fd);
}

bool front_send(struct front *front, uint32_t request, uint32_t flags, const void *payload,
		uint32_t size_bytes, const int *fds, uint32_t fd_count)
{
	struct vhost_wire_header header = { .request = request, .flags = flags,
					    .size_bytes = size_bytes };
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)payload, size_bytes } };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = { 0 };
	struct msghdr out = { .msg_iov = iov, .msg_iovlen = payload ? 2 : 1 };

	if (fd_count) {
		out.msg_control = &control;
		out.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	return sendmsg(front->fd, &out, MSG_NOSIGNAL) >= 0;
}

bool front_receive(struct front *front, struct front_message *message)
{
	struct iovec iov = { &message->header, sizeof(message->header) };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr in = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control) };
	uint32_t got = 0;
	ssize_t bytes;

	message->fd = -1;
	do {
		bytes = recvmsg(front->fd, &in, MSG_WAITALL | MSG_CMSG_CLOEXEC);
	} while (bytes < 0 && errno == EINTR);  /* with a time-out set, nothing is restarted */
	if (bytes != sizeof(message->header))
		return false;
	if (CMSG_FIRSTHDR(&in))
		memcpy(&message->fd, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof(int));
	CHECK(message->header.size_bytes <= sizeof(message->payload));
	while (got < message->header.size_bytes) {
		bytes = recv(front->fd, (uint8_t *)&message->payload + got,
			     message->header.size_bytes - got, 0);
		if (bytes == 0 || (bytes < 0 && errno != EINTR))
			return false;
		got += bytes > 0 ? (uint32_t)bytes : 0;
	}
	return true;
}

bool front_is_dropped(struct front *front)
{
	uint8_t bytes[512];
	ssize_t got;

	do {
		got = recv(front->fd, bytes, sizeof(bytes), 0);
	} while (got > 0 || (got < 0 && errno == EINTR));
	return got == 0 || errno == ECONNRESET;
}

static bool acknowledged(struct front *front, uint32_t request)
{
	struct front_message message;

	if (!front_receive(front, &message))
		return false;
	CHECK(message.header.request == request);
	CHECK(message.header.flags == (VHOST_USER_VERSION | VHOST_USER_FLAG_REPLY));
	return message.payload.u64 == 0;
}

bool front_tell(struct front *front, uint32_t request, const void *payload, uint32_t size_bytes,
		int fd)
{
	bool ack = front->protocol_features & BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
	uint32_t flags = VHOST_USER_VERSION | (ack ? VHOST_USER_FLAG_NEED_REPLY : 0);

	if (!front_send(front, request, flags, payload, size_bytes, &fd, fd >= 0))
		return false;
	return !ack || acknowledged(front, request);
}

bool front_tell_u64(struct front *front, uint32_t request, uint64_t value)
{
	return front_tell(front, request, &value, sizeof(value), -1);
}

bool front_tell_ring(struct front *front, uint32_t request, uint32_t index, uint32_t value)
{
	struct vhost_wire_vring_state wire = { .index = index, .value = value };

	return front_tell(front, request, &wire, sizeof(wire), -1);
}

uint64_t front_ask_u64(struct front *front, uint32_t request)
{
	struct front_message message;

	CHECK(front_send(front, request, VHOST_USER_VERSION, NULL, 0, NULL, 0));
	CHECK(front_receive(front, &message));
	CHECK(message.header.request == request);
	CHECK(message.header.size_bytes == sizeof(uint64_t));
	return message.payload.u64;
}

/* ---- set-up ---- */

static struct vhost_wire_region region_of(uint64_t gpa, uint64_t len_bytes)
{
	return (struct vhost_wire_region){ .gpa = gpa, .len_bytes = len_bytes,
					   .hva = FRONT_HVA + gpa, .mmap_offset_bytes = gpa };
}

bool front_tell_memory(struct front *front)
{
	bool slots = front->protocol_features & BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
	struct vhost_wire_table table = { .count = 2 };
	int fds[2] = { front->memory_fd, front->memory_fd };

	table.regions[0] = region_of(0, FRONT_MIDDLE);
	table.regions[1] = region_of(FRONT_MIDDLE, FRONT_MEMORY_BYTES - FRONT_MIDDLE);
	for (uint32_t i = 0; slots && i < table.count; i++) {
		struct vhost_wire_one_region one = { .region = table.regions[i] };

		if (!front_tell(front, VHOST_USER_ADD_MEM_REG, &one, sizeof(one), fds[i]))
			return false;
	}
	if (slots)
		return true;
	return front_send(front, VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION, &table,
			  8 + 2 * sizeof(table.regions[0]), fds, 2);
}

static void share_inflight(struct front *front, uint16_t queue_count)
{
	struct front_message message;

	if (front->inflight_fd < 0) {
		front->inflight = (struct vhost_wire_inflight){
			.queue_count = queue_count, .queue_size = front->queues[0].size };
		CHECK(front_send(front, VHOST_USER_GET_INFLIGHT_FD, VHOST_USER_VERSION,
				 &front->inflight, sizeof(front->inflight), NULL, 0));
		CHECK(front_receive(front, &message));
		CHECK(message.fd >= 0);
		CHECK(message.header.size_bytes == sizeof(front->inflight));
		front->inflight = message.payload.inflight;
		front->inflight_fd = message.fd;
	}
	CHECK(front_tell(front, VHOST_USER_SET_INFLIGHT_FD, &front->inflight,
			 sizeof(front->inflight), front->inflight_fd));
}

void front_negotiate(struct front *front, uint64_t features, uint16_t queue_count)
{
	uint64_t protocol;

	front->protocol_features = 0;
	front->features = front_ask_u64(front, VHOST_USER_GET_FEATURES) & features;
	front->features &= ~BIT(VHOST_F_LOG_ALL_BIT);
	protocol = front_ask_u64(front, VHOST_USER_GET_PROTOCOL_FEATURES);
	CHECK(front_tell_u64(front, VHOST_USER_SET_PROTOCOL_FEATURES, protocol));
	front->protocol_features = protocol;
	CHECK(front_tell(front, VHOST_USER_SET_OWNER, NULL, 0, -1));
	CHECK(front_tell_u64(front, VHOST_USER_SET_FEATURES, front->features));
	CHECK(front_tell_memory(front));
	if (queue_count)
		share_inflight(front, queue_count);
}

static bool tell_event(struct front *front, uint32_t request, uint32_t index, int fd)
{
	uint64_t value = index;

	return front_tell(front, request, &value, sizeof(value), fd);
}

bool front_start_queue(struct front *front, uint32_t index)
{
	struct front_queue *queue = &front->queues[index];
	uint64_t at = FRONT_HVA + index * RING_BYTES;
	struct vhost_wire_vring_addr addr = { .index = index, .desc_hva = at,
					      .avail_hva = at + AVAIL_OFFSET,
					      .used_hva = at + USED_OFFSET };

	return front_tell_ring(front, VHOST_USER_SET_VRING_NUM, index, queue->size) &&
	       front_tell_ring(front, VHOST_USER_SET_VRING_BASE, index, queue->base) &&
	       front_tell(front, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1) &&
	       tell_event(front, VHOST_USER_SET_VRING_CALL, index, queue->call_fd) &&
	       tell_event(front, VHOST_USER_SET_VRING_ERR, index, queue->err_fd) &&
	       tell_event(front, VHOST_USER_SET_VRING_KICK, index, queue->kick_fd) &&
	       front_tell_ring(front, VHOST_USER_SET_VRING_ENABLE, index, 1);
}

int front_stop_queue(struct front *front, uint32_t index)
{
	struct vhost_wire_vring_state wire = { .index = index };
	struct front_message message;

	if (!front_send(front, VHOST_USER_GET_VRING_BASE, VHOST_USER_VERSION, &wire, sizeof(wire),
			NULL, 0) ||
	    !front_receive(front, &message))
		return -EPIPE;
	CHECK(message.header.request == VHOST_USER_GET_VRING_BASE);
	CHECK(message.payload.vring_state.index == index);
	front->queues[index].base = (uint16_t)message.payload.vring_state.value;
	return (int)message.payload.vring_state.value;
}

void front_usual(struct front *front, const char *path, uint16_t queue_count)
{
	front_connect(front, path);
	front_negotiate(front, FRONT_FEATURES_ALL, queue_count);
	for (uint32_t i = 0; i < queue_count; i++)
		CHECK(front_start_queue(front, i));
}

void front_log_start(struct front *front, uint64_t len_bytes)
{
	struct vhost_wire_log wire = { .len_bytes = len_bytes };
	struct front_message message;

	front->log_fd = memfd_create("log", MFD_CLOEXEC);
	CHECK(front->log_fd >= 0);
	CHECK(ftruncate(front->log_fd, (off_t)len_bytes) == 0);
	front->log_bytes = len_bytes;
	front->log = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, front->log_fd, 0);
	CHECK(front->log != MAP_FAILED);
	CHECK(front_send(front, VHOST_USER_SET_LOG_BASE, VHOST_USER_VERSION, &wire, sizeof(wire),
			 &front->log_fd, 1));
	CHECK(front_receive(front, &message));
	CHECK(message.header.request == VHOST_USER_SET_LOG_BASE);
	CHECK(front_tell_u64(front, VHOST_USER_SET_FEATURES,
			     front->features | BIT(VHOST_F_LOG_ALL_BIT)));
}

bool front_log_is_set(const struct front *front, uint64_t gpa)
{
	uint64_t page = gpa / 4096;

	return __atomic_load_n(&front->log[page / 8], __ATOMIC_SEQ_CST) >> (page % 8) & 1;
}

/* ---- the driver ---- */

void front_desc(struct front *front, uint32_t queue, uint16_t index, uint64_t gpa, uint32_t len,
		uint16_t flags, uint16_t next)
{
	front->queues[queue].desc[index] = (struct vring_desc){ .addr = gpa, .len = len,
								.flags = flags, .next = next };
}

void front_offer(struct front *front, uint32_t queue, uint16_t head)
{
	struct front_queue *q = &front->queues[queue];

	q->avail->ring[q->next_avail++ & (q->size - 1)] = head;
	__atomic_store_n(&q->avail->idx, q->next_avail, __ATOMIC_SEQ_CST);
}

void front_kick(struct front *front, uint32_t queue)
{
	CHECK(eventfd_write(front->queues[queue].kick_fd, 1) == 0);
}

bool front_has_used(const struct front *front, uint32_t queue)
{
	const struct front_queue *q = &front->queues[queue];

	return __atomic_load_n(&q->used->idx, __ATOMIC_SEQ_CST) != q->next_used;
}

bool front_wait_used(struct front *front, uint32_t queue, struct vring_used_elem *out)
{
	struct front_queue *q = &front->queues[queue];
	struct pollfd event = { .fd = q->call_fd, .events = POLLIN };
	uint16_t *used_event = &q->avail->ring[q->size];
	eventfd_t count;
	int rc;

	for (;;) {
		/* As a driver does: say what for, then look, then wait. */
		__atomic_store_n(used_event, q->next_used, __ATOMIC_SEQ_CST);
		if (front_has_used(front, queue))
			break;
		rc = poll(&event, 1, FRONT_PATIENCE_MS);
		if (rc == 0 || (rc < 0 && errno != EINTR))
			return false;
		(void)eventfd_read(q->call_fd, &count);
	}
	*out = q->used->ring[q->next_used++ & (q->size - 1)];
	return true;
}

uint16_t front_request(struct front *front, uint32_t queue, uint16_t slot, uint32_t type,
		       uint64_t sector, uint64_t data_gpa, uint32_t data_bytes)
{
	uint16_t head = (uint16_t)(slot * 3);
	uint64_t header_gpa = front_header_gpa(queue, head);
	struct virtio_blk_outhdr header = { .type = type, .sector = sector };
	bool lands = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint16_t last = (uint16_t)(head + 2);

	memcpy(front->memory + header_gpa, &header, sizeof(header));
	front->memory[header_gpa + 16] = 0xee;
	front_desc(front, queue, head, header_gpa, sizeof(header), VRING_DESC_F_NEXT,
		   data_bytes ? (uint16_t)(head + 1) : last);
	if (data_bytes)
		front_desc(front, queue, (uint16_t)(head + 1), data_gpa, data_bytes,
			   VRING_DESC_F_NEXT | (lands ? VRING_DESC_F_WRITE : 0), last);
	front_desc(front, queue, last, header_gpa + 16, 1, VRING_DESC_F_WRITE, 0);
	front_offer(front, queue, head);
	return head;
}

uint8_t front_status(const struct front *front, uint32_t queue, uint16_t head)
{
	return front->memory[front_header_gpa(queue, head) + 16];
}

uint8_t front_io(struct front *front, uint32_t queue, uint32_t type, uint64_t sector,
		 uint64_t data_gpa, uint32_t data_bytes)
{
	struct vring_used_elem used = { 0 };
	uint16_t head = front_request(front, queue, 0, type, sector, data_gpa, data_bytes);

	front_kick(front, queue);
	if (!front_wait_used(front, queue, &used))
		return 0xee;
	CHECK(used.id == head);
	return front_status(front, queue, head);
}

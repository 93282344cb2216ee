/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_vhost.c - input: messages of a front end, one after the other.
 *
 *	byte 0     which descriptors come with it: two bits each, up to three
 *	           0 none  1 an eventfd  2 guest memory  3 a small memfd
 *	byte 1     request
 *	byte 2     flags
 *	byte 3     how many bytes of payload follow; also what the header says, unless byte 2's
 *	           highest bit is set: then the header says four times as much
 */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/vhost_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 4, LIES = 0x80 };

static int small_memory(void)
{
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("small", MFD_CLOEXEC);
		CHECK(fd >= 0);
		CHECK(ftruncate(fd, 65536) == 0);
	}
	return fd;
}

static uint32_t descriptors(const struct front *front, uint8_t kinds, int *fds)
{
	uint32_t count = 0;

	for (; kinds; kinds >>= 2) {
		if ((kinds & 3) == 1)
			fds[count++] = front->queues[0].kick_fd;
		if ((kinds & 3) == 2)
			fds[count++] = front->memory_fd;
		if ((kinds & 3) == 3)
			fds[count++] = small_memory();
	}
	return count;
}

static bool send_raw(struct front *front, const uint8_t *head, const uint8_t *payload, size_t len)
{
	uint32_t told = (uint32_t)(head[2] & LIES ? len * 4 : len);
	int fds[4];
	uint32_t count = descriptors(front, head[0], fds);
	struct vhost_wire_header header = { .request = head[1], .flags = head[2] & ~(unsigned)LIES,
					    .size_bytes = told };
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)payload, len } };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control = { 0 };
	struct msghdr out = { .msg_iov = iov, .msg_iovlen = 2 };

	if (count) {
		out.msg_control = &control;
		out.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, count * sizeof(int));
	}
	return sendmsg(front->fd, &out, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct front *front = vhost_fuzz_front();
	bool more = true;

	/* A ring in order, for who finds the way there: one FLUSH. */
	(void)front_request(front, 0, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	front_connect(front, vhost_fuzz_path());
	while (more && size >= HEAD) {
		size_t len = data[3] < size - HEAD ? data[3] : size - HEAD;

		more = send_raw(front, data, data + HEAD, len);
		data += HEAD + len;
		size -= HEAD + len;
	}
	(void)shutdown(front->fd, SHUT_WR);
	(void)front_is_dropped(front);
	vhost_fuzz_settle();
	return 0;
}

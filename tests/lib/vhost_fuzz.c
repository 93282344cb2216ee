/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/vhost_fuzz.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/vhost_blk_server.h"
#include "tests/lib/loop_thread.h"
#include "tests/lib/mem_dev.h"

#define DISK_BYTES (UINT64_C(1) << 20)
/* What the rings and requests of a fuzzer lie in. */
#define DIRTY_BYTES (FRONT_DATA + (64u << 10))

static struct {
	struct loop_thread *thread;
	struct mem_dev *mem;
	struct vhost_blk_server *server;
	struct front front;
	char directory[64], path[96];
	int rc;
	uint32_t connections;
	uint64_t in_flight;
	uint64_t inputs;
} fuzz;

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK(listen(fd, 16) == 0);
	return fd;
}

static void start_run(void *user)
{
	struct loop *loop = loop_thread_loop(fuzz.thread);
	struct vhost_blk_options options = { .name = "d1", .max_requests = 16, .max_queues = 4 };

	(void)user;
	fuzz.mem = mem_dev_new(loop, DISK_BYTES, NULL);
	CHECK(fuzz.mem);
	CHECK(vhost_blk_server_new(loop, listen_on(fuzz.path), &fuzz.mem->dev, &options,
				   &fuzz.server, NULL) == 0);
}

static void fuzz_end(void)
{
	unlink(fuzz.path);
	rmdir(fuzz.directory);
}

static void fuzz_start(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	strcpy(fuzz.directory, "/tmp/fuzz-vhost-XXXXXX");
	CHECK(mkdtemp(fuzz.directory));
	snprintf(fuzz.path, sizeof(fuzz.path), "%s/s", fuzz.directory);
	atexit(fuzz_end);
	fuzz.thread = loop_thread_new();
	loop_thread_call(fuzz.thread, start_run, NULL);
	front_init(&fuzz.front, VHOST_FUZZ_QUEUE_SIZE);
}

static void front_forget(struct front *front)
{
	front_disconnect(front);
	if (front->inflight_fd >= 0)
		close(front->inflight_fd);
	front->inflight_fd = -1;
	memset(front->memory, 0, DIRTY_BYTES);
	for (uint32_t i = 0; i < FRONT_QUEUES_MAX; i++)
		front->queues[i].next_avail = front->queues[i].next_used =
			front->queues[i].base = 0;
}

struct front *vhost_fuzz_front(void)
{
	if (!fuzz.server)
		fuzz_start();
	front_forget(&fuzz.front);
	return &fuzz.front;
}

const char *vhost_fuzz_path(void)
{
	return fuzz.path;
}

static void device_run(void *user)
{
	(void)user;
	for (int op = 0; op < BLK_OP_COUNT; op++)
		fuzz.mem->fail_with[op] = fuzz.rc;
}

void vhost_fuzz_device(int rc)
{
	if (rc == fuzz.rc)
		return;
	fuzz.rc = rc;
	loop_thread_call(fuzz.thread, device_run, NULL);
}

static void look_run(void *user)
{
	(void)user;
	fuzz.connections = vhost_blk_server_connections(fuzz.server);
	fuzz.in_flight = fuzz.mem->dev.in_flight;
}

void vhost_fuzz_hang_up(void)
{
	front_disconnect(&fuzz.front);
	for (uint32_t turns = 0;; turns++) {
		CHECK(turns < 1000000);
		loop_thread_call(fuzz.thread, look_run, NULL);
		if (!fuzz.connections && !fuzz.in_flight)
			break;
		sched_yield();
	}
}

void vhost_fuzz_settle(void)
{
	vhost_fuzz_hang_up();
	/* Dear, and it finds little: now and then. */
	if (fuzz.inputs++ % 16)
		return;
	front_forget(&fuzz.front);
	vhost_fuzz_device(0);
	front_usual(&fuzz.front, fuzz.path, 1);
	CHECK(front_io(&fuzz.front, 0, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 512) == VIRTIO_BLK_S_OK);
	CHECK(front_stop_queue(&fuzz.front, 0) == 1);
	vhost_fuzz_hang_up();
}

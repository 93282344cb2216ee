/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd_fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/nbd_server.h"
#include "tests/lib/mem_dev.h"

#define DISK_BYTES (UINT64_C(1) << 20)
#define POOL_BYTES BUF_MAX_BYTES
/*
 * Far more than any input needs; a connection that is not gone by then never goes.  A task that
 * posts itself runs many times in a turn of the loop, and an input may come a byte a turn.
 */
#define RUNS_MAX 200000u
#define RUNS_MAX_PER_BYTE 1000u

struct driver {
	struct loop *loop;
	struct buf_pool *pool;
	struct mem_dev *mem;
	struct nbd_server *server;
	struct sockaddr_un address;     /* of the server: abstract, chosen by the kernel */
	socklen_t address_len;

	const struct nbd_fuzz_input *input;
	struct watch client;
	size_t sent;                    /* of prefix and bytes together */
	bool ended;                     /* the server has closed our socket */
	struct task turn;
	uint64_t runs;
};

static struct driver driver;

static void server_start(void)
{
	struct nbd_server_options options = { .export_name = "d1", .max_requests = 8 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0);
	CHECK(listen(fd, 4) == 0);
	driver.address_len = sizeof(driver.address);
	CHECK(getsockname(fd, (struct sockaddr *)&driver.address, &driver.address_len) == 0);
	log_set_level(LOG_LEVEL_ERROR);
	driver.loop = loop_new();
	CHECK(driver.loop);
	driver.pool = buf_pool_new(driver.loop, POOL_BYTES);
	driver.mem = mem_dev_new(driver.loop, DISK_BYTES, NULL);
	CHECK(driver.pool);
	CHECK(driver.mem);
	CHECK(nbd_server_new(driver.loop, fd, &driver.mem->dev, driver.pool, &options,
			     &driver.server, NULL) == 0);
}

/* What to send next, in a piece; 0 bytes: nothing is left. */
static size_t next_piece(const uint8_t **bytes)
{
	const struct nbd_fuzz_input *input = driver.input;
	size_t at;

	if (driver.sent < input->prefix_len) {
		*bytes = input->prefix + driver.sent;
		return input->prefix_len - driver.sent;
	}
	at = driver.sent - input->prefix_len;
	*bytes = input->bytes + at;
	if (input->piece_bytes)
		return MIN(input->piece_bytes, input->len - at);
	return input->len - at;
}

static void client_send(void)
{
	const uint8_t *bytes;
	size_t len = next_piece(&bytes);
	ssize_t sent;

	if (len == 0) {
		(void)shutdown(driver.client.fd, SHUT_WR);      /* may be closed already */
		watch_set_events(&driver.client, WATCH_READ);
		return;
	}
	sent = send(driver.client.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0)
		driver.sent += (size_t)sent;
	else if (errno != EAGAIN)
		watch_set_events(&driver.client, WATCH_READ);   /* the rest nobody takes */
}

static void client_ready(struct watch *watch, unsigned events)
{
	uint8_t bytes[65536];
	ssize_t got;

	if (events & WATCH_WRITE)
		client_send();
	got = recv(watch->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (got == 0 || (got < 0 && errno != EAGAIN)) {
		watch_stop(watch);
		driver.ended = true;
	}
}

/* Runs again and again until the server has forgotten the client. */
static void turn_run(struct task *task)
{
	CHECK(++driver.runs < RUNS_MAX + RUNS_MAX_PER_BYTE * driver.input->len);
	if (driver.ended && nbd_server_connections(driver.server) == 0)
		loop_stop(driver.loop);
	else
		loop_post(driver.loop, task);
}

static void drive(const struct nbd_fuzz_input *input)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(connect(fd, (struct sockaddr *)&driver.address, driver.address_len) == 0);
	driver.input = input;
	driver.sent = 0;
	driver.ended = false;
	driver.runs = 0;
	driver.turn.run = turn_run;
	driver.mem->fail_with[BLK_READ] = driver.mem->fail_with[BLK_WRITE] = input->device_rc;
	driver.mem->fail_with[BLK_EXTENTS] = driver.mem->fail_with[BLK_FLUSH] = input->device_rc;
	CHECK(watch_start(&driver.client, driver.loop, fd, WATCH_READ | WATCH_WRITE,
			  client_ready) == 0);
	loop_post(driver.loop, &driver.turn);
	loop_run(driver.loop);
	close(fd);
	CHECK(driver.mem->dev.in_flight == 0);
	CHECK(buf_pool_used_bytes(driver.pool) == 0);
}

/* Greeted, GO, one flush, goodbye. */
static const uint8_t good_client[] =
	"\0\0\0\3"
	"IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0"
	"\x25\x60\x95\x13\0\0\0\3\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0"
	"\x25\x60\x95\x13\0\0\0\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0";

void nbd_fuzz_run(const struct nbd_fuzz_input *input)
{
	struct nbd_fuzz_input good = { .bytes = good_client, .len = sizeof(good_client) };
	uint64_t flushes;

	if (!driver.server)
		server_start();
	drive(input);
	flushes = driver.mem->ops[BLK_FLUSH];
	drive(&good);
	CHECK(driver.mem->ops[BLK_FLUSH] == flushes + 1);
}

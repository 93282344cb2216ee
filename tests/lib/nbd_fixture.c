/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/export/nbd_private.h"
#include "tests/lib/nbd_fixture.h"

/* ---- the server under test ---- */

static void on_closed(void *user)
{
	struct fixture *fixture = user;

	fixture->server = NULL;
	latch_raise(&fixture->closed);
}

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	ok(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	ok(listen(fd, 16));
	return fd;
}

static void start_server(void *user)
{
	struct fixture *fixture = user;
	struct loop *loop = loop_thread_loop(fixture->thread);
	struct err err = { 0 };

	if (!fixture->pool) {
		fixture->pool = buf_pool_new(loop, fixture->pool_bytes);
		fixture->mem = mem_dev_new(loop, DISK_BYTES, &fixture->limits);
		CHECK(fixture->pool);
		CHECK(fixture->mem);
	}
	fixture->closed = (struct latch)LATCH_INIT;
	CHECK(nbd_server_new(loop, fixture->listen_fd, &fixture->mem->dev, fixture->pool,
			     &fixture->options, &fixture->server, &err) == 0);
}

static void begin_close(void *user)
{
	struct fixture *fixture = user;

	if (fixture->server)
		nbd_server_close(fixture->server, fixture->keep_fd, on_closed, fixture);
}

static void free_device(void *user)
{
	struct fixture *fixture = user;

	CHECK(buf_pool_used_bytes(fixture->pool) == 0);         /* nothing leaks from the pool */
	blk_close(&fixture->mem->dev);
	buf_pool_free(fixture->pool);
}

struct fixture *fixture_new(void)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	strcpy(fixture->directory, "/tmp/test-nbd-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->path, sizeof(fixture->path), "%s/s", fixture->directory);
	fixture->options.export_name = "d1";
	fixture->limits = mem_dev_limits();
	fixture->pool_bytes = UINT64_C(256) << 20;
	fixture->thread = loop_thread_new();
	fixture->listen_fd = listen_on(fixture->path);
	return fixture;
}

void fixture_start(struct fixture *fixture)
{
	loop_thread_call(fixture->thread, start_server, fixture);
}

struct fixture *fixture_usual(void)
{
	struct fixture *fixture = fixture_new();

	fixture_start(fixture);
	return fixture;
}

void fixture_begin_close(struct fixture *fixture)
{
	loop_thread_call(fixture->thread, begin_close, fixture);
}

void fixture_close_server(struct fixture *fixture)
{
	fixture_begin_close(fixture);
	assert_true(latch_wait(&fixture->closed, 20 * NS_PER_S));
}

void fixture_free(struct fixture *fixture)
{
	fixture_close_server(fixture);
	loop_thread_call(fixture->thread, free_device, fixture);
	loop_thread_free(fixture->thread);
	unlink(fixture->path);
	rmdir(fixture->directory);
	free(fixture);
}

struct nbd_client connected(struct fixture *fixture)
{
	struct nbd_client client;

	ok(nbd_client_connect(&client, fixture->path));
	return client;
}

struct nbd_client greeted(struct fixture *fixture)
{
	struct nbd_client client = connected(fixture);

	ok(nbd_client_greet(&client, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
	return client;
}

struct nbd_client started(struct fixture *fixture, bool structured)
{
	struct nbd_client client = connected(fixture);

	ok(nbd_client_start(&client, "d1", structured));
	return client;
}

/* ---- looking at the loop's side ---- */

static void look_run(void *user)
{
	struct look *look = user;
	struct fixture *fixture = look->fixture;

	look->waiting = fixture->mem->waiting_count;
	look->in_flight = fixture->mem->dev.in_flight;
	look->pool_used = buf_pool_used_bytes(fixture->pool);
	memcpy(look->ops, fixture->mem->ops, sizeof(look->ops));
	memcpy(look->last_flags, fixture->mem->last_flags, sizeof(look->last_flags));
	look->last_had_data = fixture->mem->last_had_data;
	if (fixture->server) {
		look->connections = nbd_server_connections(fixture->server);
		look->spare_rx = fixture->server->spare_rx_count;
		look->protocol_errors = nbd_server_protocol_errors(fixture->server);
	}
}

struct look look_at(struct fixture *fixture)
{
	struct look look = { .fixture = fixture };

	loop_thread_call(fixture->thread, look_run, &look);
	return look;
}

static void hang_run(void *user)
{
	mem_dev_hang(((struct fixture *)user)->mem, true);
}

static void unhang_run(void *user)
{
	mem_dev_hang(((struct fixture *)user)->mem, false);
}

void device_hang(struct fixture *fixture, bool hung)
{
	loop_thread_call(fixture->thread, hung ? hang_run : unhang_run, fixture);
}

struct fail {
	struct fixture *fixture;
	enum blk_op op;
	int rc;
};

static void fail_run(void *user)
{
	struct fail *fail = user;

	fail->fixture->mem->fail_with[fail->op] = fail->rc;
}

void device_fail(struct fixture *fixture, enum blk_op op, int rc)
{
	struct fail fail = { fixture, op, rc };

	loop_thread_call(fixture->thread, fail_run, &fail);
}

void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(seed + i * 7 + (i >> 9));
}

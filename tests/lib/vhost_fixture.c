/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "tests/lib/vhost_fixture.h"

static void on_closed(void *user)
{
	struct vfix *fix = user;

	fix->server = NULL;
	latch_raise(&fix->closed);
}

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static void start_server(void *user)
{
	struct vfix *fix = user;
	struct loop *loop = loop_thread_loop(fix->thread);
	struct err err = { 0 };

	if (!fix->mem)
		fix->mem = mem_dev_new(loop, VFIX_DISK_BYTES, &fix->limits);
	CHECK(fix->mem);
	fix->closed = (struct latch)LATCH_INIT;
	CHECK(vhost_blk_server_new(loop, fix->listen_fd, &fix->mem->dev, &fix->options,
				   &fix->server, &err) == 0);
}

static void begin_close(void *user)
{
	struct vfix *fix = user;

	if (fix->server)
		vhost_blk_server_close(fix->server, fix->keep_fd, on_closed, fix);
}

static void free_device(void *user)
{
	struct vfix *fix = user;

	blk_close(&fix->mem->dev);
}

struct vfix *vfix_new(void)
{
	struct vfix *fix = calloc(1, sizeof(*fix));

	assert_non_null(fix);
	strcpy(fix->directory, "/tmp/test-vhost-XXXXXX");
	assert_non_null(mkdtemp(fix->directory));
	snprintf(fix->path, sizeof(fix->path), "%s/s", fix->directory);
	fix->options.name = "d1";
	fix->limits = mem_dev_limits();
	fix->thread = loop_thread_new();
	fix->listen_fd = listen_on(fix->path);
	front_init(&fix->front, VFIX_QUEUE_SIZE);
	return fix;
}

void vfix_start(struct vfix *fix)
{
	loop_thread_call(fix->thread, start_server, fix);
}

struct vfix *vfix_usual(void)
{
	struct vfix *fix = vfix_new();

	vfix_start(fix);
	front_usual(&fix->front, fix->path, 1);
	return fix;
}

void vfix_begin_close(struct vfix *fix)
{
	loop_thread_call(fix->thread, begin_close, fix);
}

void vfix_close_server(struct vfix *fix)
{
	vfix_begin_close(fix);
	assert_true(latch_wait(&fix->closed, 20 * NS_PER_S));
}

void vfix_free(struct vfix *fix)
{
	vfix_close_server(fix);
	loop_thread_call(fix->thread, free_device, fix);
	loop_thread_free(fix->thread);
	front_release(&fix->front);
	unlink(fix->path);
	rmdir(fix->directory);
	free(fix);
}

/* ---- the loop's side ---- */

static void look_run(void *user)
{
	struct vlook *look = user;
	const struct mem_dev *mem = look->fix->mem;

	look->in_flight = mem->dev.in_flight;
	look->waiting = mem->waiting_count;
	memcpy(look->ops, mem->ops, sizeof(look->ops));
	memcpy(look->last_flags, mem->last_flags, sizeof(look->last_flags));
	if (!look->fix->server)
		return;
	look->errors = vhost_blk_server_protocol_errors(look->fix->server);
	look->connections = vhost_blk_server_connections(look->fix->server);
}

struct vlook vlook_at(struct vfix *fix)
{
	struct vlook look = { .fix = fix };

	loop_thread_call(fix->thread, look_run, &look);
	return look;
}

struct change {
	struct vfix *fix;
	bool hung;
	enum blk_op op;
	int rc;
};

static void hang_run(void *user)
{
	struct change *change = user;

	mem_dev_hang(change->fix->mem, change->hung);
}

void vfix_hang(struct vfix *fix, bool hung)
{
	struct change change = { .fix = fix, .hung = hung };

	loop_thread_call(fix->thread, hang_run, &change);
}

static void fail_run(void *user)
{
	struct change *change = user;

	change->fix->mem->fail_with[change->op] = change->rc;
}

void vfix_fail(struct vfix *fix, enum blk_op op, int rc)
{
	struct change change = { .fix = fix, .op = op, .rc = rc };

	loop_thread_call(fix->thread, fail_run, &change);
}

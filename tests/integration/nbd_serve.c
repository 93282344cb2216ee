/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_serve SOCKET SIZE_BYTES - serve that much zeroed memory by nbd_server on a UNIX socket.
 *
 * The export is called "mem".  Prints "ready" when clients may come; SIGTERM or SIGINT
 * closes the server as a daemon would, and the exit status is 0 when that went well.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/export/nbd_server.h"
#include "tests/lib/mem_dev.h"

#define POOL_BYTES (UINT64_C(256) << 20)

struct program {
	struct loop *loop;
	struct nbd_server *server;
	struct watch signals;
};

static void closed(void *user)
{
	struct program *program = user;

	loop_stop(program->loop);
}

static void signalled(struct watch *watch, unsigned events)
{
	struct program *program = container_of(watch, struct program, signals);

	(void)events;
	watch_stop(watch);
	nbd_server_close(program->server, NULL, closed, program);
}

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK(strlen(path) < sizeof(address.sun_path));
	strcpy(address.sun_path, path);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK(listen(fd, 16) == 0);
	return fd;
}

static int signals_watch(struct program *program)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	CHECK(fd >= 0);
	CHECK(watch_start(&program->signals, program->loop, fd, WATCH_READ, signalled) == 0);
	return fd;
}

int main(int argc, char **argv)
{
	struct nbd_server_options options = { .export_name = "mem" };
	struct program program = { 0 };
	struct buf_pool *pool;
	struct mem_dev *mem;
	struct err err;
	int signal_fd;

	if (argc != 3) {
		fprintf(stderr, "usage: nbd_serve SOCKET SIZE_BYTES\n");
		return 2;
	}
	program.loop = loop_new();
	CHECK(program.loop);
	pool = buf_pool_new(program.loop, POOL_BYTES);
	mem = mem_dev_new(program.loop, strtoull(argv[2], NULL, 10), NULL);
	CHECK(pool);
	CHECK(mem);
	if (nbd_server_new(program.loop, listen_on(argv[1]), &mem->dev, pool, &options,
			   &program.server, &err)) {
		fprintf(stderr, "nbd_serve: %s\n", err.cause);
		return 1;
	}
	signal_fd = signals_watch(&program);
	puts("ready");
	fflush(stdout);
	loop_run(program.loop);
	blk_close(&mem->dev);
	buf_pool_free(pool);
	close(signal_fd);
	loop_free(program.loop);
	unlink(argv[1]);
	return 0;
}

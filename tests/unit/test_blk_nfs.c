/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a server that does less than it was asked, forgets, lies or goes away never makes the
 * device say that data are there which are not (M14, R2, R9).
 *
 * The server is a thread that speaks just enough RPC, on a file in memory.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nfs.h"
#include "blkmirror/blkdev/nfs_private.h"
#include "tests/lib/io_wait.h"

#define FILE_BYTES (4u << 20)
#define LIMIT_BYTES (64u << 10)
#define CONNECTIONS 3u

enum { PROC_READ = 6, PROC_WRITE = 7, PROC_COMMIT = 21 };

struct server {
	int listener;
	uint16_t port;
	pthread_t threads[CONNECTIONS];
	pthread_mutex_t lock;
	uint8_t *file;
	atomic_uint life;               /* the write verifier */
	atomic_uint most_bytes;         /* it does no more than this at once */
	atomic_uint commit_status, write_status;
	atomic_uint commits, unstable, stable;
	atomic_bool says_unstable;      /* whatever was asked */
	atomic_bool reads_too_much, reads_nothing, hangs_up;
};

static bool read_all(int fd, void *bytes, size_t len)
{
	return recv(fd, bytes, len, MSG_WAITALL) == (ssize_t)len;
}

static uint32_t word(const uint8_t **at)
{
	uint32_t value;

	memcpy(&value, *at, 4);
	*at += 4;
	return ntohl(value);
}

static uint64_t long_word(const uint8_t **at)
{
	uint64_t high = word(at);

	return high << 32 | word(at);
}

static uint8_t *put(uint8_t *to, uint32_t value)
{
	value = htonl(value);
	memcpy(to, &value, 4);
	return to + 4;
}

static uint8_t *put_verifier(uint8_t *to, const struct server *server)
{
	return put(put(to, 0x4d3134), server->life);
}

static uint8_t *answer_read(struct server *server, const uint8_t *args, uint8_t *to)
{
	uint64_t offset = long_word(&args);
	uint32_t asked = word(&args), count = MIN(asked, server->most_bytes);

	if (server->reads_nothing)
		count = 0;
	to = put(put(to, 0), 0);
	if (server->reads_too_much)
		count = LIMIT_BYTES + 4;
	to = put(put(put(to, count), count == 0), count);
	memcpy(to, server->file + offset, count);
	return to + round_up(count, 4);
}

static uint8_t *answer_write(struct server *server, const uint8_t *args, uint8_t *to)
{
	uint64_t offset = long_word(&args);
	uint32_t asked = word(&args);
	uint32_t stable = word(&args);
	uint32_t count = MIN(asked, server->most_bytes);

	if (server->write_status)
		return put(put(put(to, server->write_status), 0), 0);
	*(stable ? &server->stable : &server->unstable) += 1;
	(void)word(&args);
	memcpy(server->file + offset, args, count);
	to = put(put(put(to, 0), 0), 0);
	to = put(put(to, count), server->says_unstable ? 0 : stable);
	return put_verifier(to, server);
}

static uint8_t *answer_commit(struct server *server, uint8_t *to)
{
	server->commits++;
	to = put(put(put(to, server->commit_status), 0), 0);
	return server->commit_status ? to : put_verifier(to, server);
}

/* One call; false: the connection is over. */
static bool serve_one(struct server *server, int fd, uint8_t *in, uint8_t *out)
{
	uint32_t mark, xid, proc, len;
	const uint8_t *at = in;
	uint8_t *to = out + 4;

	if (!read_all(fd, &mark, 4))
		return false;
	len = ntohl(mark) & 0x7fffffff;
	if (!read_all(fd, in, len) || server->hangs_up)
		return false;
	xid = word(&at);
	at += 16;                       /* CALL, RPC version, program, version */
	proc = word(&at);
	for (int i = 0; i < 2; i++) {   /* credentials, verifier */
		(void)word(&at);
		len = word(&at);
		at += round_up(len, 4);
	}
	len = word(&at);                /* the file handle */
	at += round_up(len, 4);
	to = put(put(put(put(put(put(to, xid), 1), 0), 0), 0), 0);
	pthread_mutex_lock(&server->lock);
	if (proc == PROC_READ)
		to = answer_read(server, at, to);
	else if (proc == PROC_WRITE)
		to = answer_write(server, at, to);
	else
		to = answer_commit(server, to);
	pthread_mutex_unlock(&server->lock);
	put(out, (uint32_t)(to - out - 4) | 0x80000000);
	return send(fd, out, (size_t)(to - out), MSG_NOSIGNAL) == to - out;
}

static void *server_main(void *user)
{
	struct server *server = user;
	uint8_t *in = malloc(LIMIT_BYTES * 2), *out = malloc(LIMIT_BYTES * 2);
	int fd = accept(server->listener, NULL, NULL);

	while (fd >= 0 && serve_one(server, fd, in, out))
		;
	if (fd >= 0)
		close(fd);
	free(in);
	free(out);
	return NULL;
}

struct rig {
	struct server server;
	struct loop *loop;
	struct io_wait wait;
	struct blk_dev *dev;
};

static struct rig *rig_new(bool stable)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct server *server = &rig->server;
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct blk_nfs_options options = { .name = "test", .reads_zero = true, .stable = stable };
	struct nfs_session session = { .place = { .host = "127.0.0.1" },
				       .limits = { LIMIT_BYTES, LIMIT_BYTES, UINT64_MAX } };
	const struct nfs_handle file = { 4, "file" };
	struct blk_nfs_links *links;
	socklen_t len = sizeof(at);

	server->file = calloc(1, FILE_BYTES + LIMIT_BYTES + 4);
	server->most_bytes = UINT32_MAX;
	pthread_mutex_init(&server->lock, NULL);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server->listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(server->listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(server->listener, 8), 0);
	assert_int_equal(getsockname(server->listener, (struct sockaddr *)&at, &len), 0);
	session.nfs_port = ntohs(at.sin_port);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		assert_int_equal(pthread_create(&server->threads[i], NULL, server_main, server), 0);
	rig->loop = loop_new();
	io_wait_init(&rig->wait, rig->loop);
	assert_int_equal(blk_nfs_connect(&session, &file, CONNECTIONS, 5 * NS_PER_S, &links, NULL),
			 0);
	assert_int_equal(blk_nfs_new(rig->loop, links, FILE_BYTES, &options, &rig->dev, NULL), 0);
	return rig;
}

static void rig_free(struct rig *rig)
{
	blk_close(rig->dev);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		pthread_join(rig->server.threads[i], NULL);
	close(rig->server.listener);
	io_wait_pass(&rig->wait, NS_PER_MS);
	loop_free(rig->loop);
	pthread_mutex_destroy(&rig->server.lock);
	free(rig->server.file);
	free(rig);
}

static int rig_io(struct rig *rig, enum blk_op op, uint64_t offset, void *bytes, uint64_t len,
		  unsigned flags)
{
	/* In pieces that fit nothing. */
	struct iovec iov[3] = { { bytes, MIN(len, 700) } };
	struct io_op io = { .req = { .op = op, .flags = flags, .offset_bytes = offset,
				     .len_bytes = len, .iov = iov, .iov_count = 3 } };

	if (bytes && len > 700) {
		iov[1] = (struct iovec){ (uint8_t *)bytes + 700, MIN(len - 700, 70001) };
		iov[2].iov_base = (uint8_t *)iov[1].iov_base + iov[1].iov_len;
		iov[2].iov_len = len - 700 - iov[1].iov_len;
	}
	if (!bytes)
		io.req.iov_count = 0;
	return io_do(&rig->wait, rig->dev, &io);
}

static int rig_flush(struct rig *rig)
{
	return rig_io(rig, BLK_FLUSH, 0, NULL, 0, 0);
}

static uint8_t *pattern(size_t len)
{
	uint8_t *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 31 + i / 509 + 1);
	return bytes;
}

static void test_data(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(FILE_BYTES), *again = calloc(1, FILE_BYTES);

	(void)state;
	for (unsigned most = LIMIT_BYTES; most > 5000; most = most / 2 - 3) {
		rig->server.most_bytes = most;  /* short answers: the rest is asked for */
		memset(rig->server.file, 0, FILE_BYTES);
		memset(again, 0, FILE_BYTES);
		assert_int_equal(rig_io(rig, BLK_WRITE, 1024, bytes + 1024, 3000320, 0), 0);
		assert_memory_equal(rig->server.file + 1024, bytes + 1024, 3000320);
		assert_int_equal(rig->server.file[1023] | rig->server.file[1024 + 3000320], 0);
		assert_int_equal(rig_io(rig, BLK_READ, 1024, again, 3000320, 0), 0);
		assert_memory_equal(again, bytes + 1024, 3000320);
	}
	rig->server.most_bytes = UINT32_MAX;
	assert_int_equal(rig_io(rig, BLK_WRITE_ZEROES, 512, NULL, 1 << 20, BLK_MAY_UNMAP), 0);
	memset(again, 0, 1 << 20);
	assert_memory_equal(rig->server.file + 512, again, 1 << 20);
	assert_int_equal(rig->server.file[512 + (1 << 20)], bytes[512 + (1 << 20)]);
	/* R9: a first flush reaches the server. */
	assert_int_equal(rig->server.commits, 0);
	assert_int_equal(rig_flush(rig), 0);
	assert_int_equal(rig->server.commits, 1);
	rig_free(rig);
	free(bytes);
	free(again);
}

static void test_stable(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(512);

	(void)state;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(rig->server.stable, 0);
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, BLK_FUA), 0);
	assert_int_equal(rig->server.stable, 1);
	rig->server.says_unstable = true;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, BLK_FUA), -EIO);
	rig_free(rig);
	rig = rig_new(true);
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(rig->server.unstable, 0);
	rig->server.says_unstable = true;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EIO);
	rig_free(rig);
	free(bytes);
}

/* M14: found by a COMMIT, found by a later write; told once, then trusted again. */
static void test_verifier(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(512);

	(void)state;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	assert_int_equal(rig_flush(rig), -EIO);
	assert_int_equal(rig_flush(rig), 0);
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	assert_int_equal(rig_flush(rig), 0);
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	/* The write itself is fine, and the COMMIT will name the same life as this one. */
	assert_int_equal(rig_io(rig, BLK_WRITE, 512, bytes, 512, 0), 0);
	assert_int_equal(rig_flush(rig), -EIO);
	assert_int_equal(rig_flush(rig), 0);
	assert_false(blk_nfs_is_dead(rig->dev));
	rig_free(rig);
	free(bytes);
}

static void test_flushes_at_once(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(512);
	struct io_op flushes[4];

	(void)state;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.life++;
	for (unsigned i = 0; i < ARRAY_COUNT(flushes); i++) {
		flushes[i] = (struct io_op){ .req = { .op = BLK_FLUSH } };
		io_submit_op(&rig->wait, rig->dev, &flushes[i]);
	}
	assert_true(io_wait_for(&rig->wait, ARRAY_COUNT(flushes)));
	for (unsigned i = 0; i < ARRAY_COUNT(flushes); i++)
		assert_int_equal(flushes[i].req.result, -EIO);
	assert_int_equal(rig_flush(rig), 0);
	rig_free(rig);
	free(bytes);
}

static void test_refusals(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(512);

	(void)state;
	rig->server.write_status = NFS3ERR_NOSPC;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), -ENOSPC);
	rig->server.write_status = NFS3ERR_ROFS;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EROFS);
	rig->server.write_status = 0;
	rig->server.commit_status = NFS3ERR_IO;
	assert_int_equal(rig_flush(rig), -EIO);
	rig->server.commit_status = 0;
	assert_int_equal(rig_flush(rig), 0);
	/* A server that does nothing at all would be asked for ever. */
	rig->server.most_bytes = 0;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), -EIO);
	rig->server.most_bytes = UINT32_MAX;
	rig->server.reads_nothing = true;
	assert_int_equal(rig_io(rig, BLK_READ, 0, bytes, 512, 0), -EIO);
	rig->server.reads_nothing = false;
	rig->server.reads_too_much = true;
	assert_int_equal(rig_io(rig, BLK_READ, 0, bytes, 512, 0), -EIO);
	rig_free(rig);
	free(bytes);
}

/* R2: all that was under way fails, what comes after too, and nothing is sent again. */
static void test_lost(void **state)
{
	struct rig *rig = rig_new(false);
	uint8_t *bytes = pattern(64 << 10);
	struct iovec iov = { bytes, 64 << 10 };
	struct io_op writes[40];

	(void)state;
	assert_int_equal(rig_io(rig, BLK_WRITE, 0, bytes, 512, 0), 0);
	rig->server.hangs_up = true;
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++) {
		writes[i] = (struct io_op){ .req = { .op = BLK_WRITE, .offset_bytes = i * 65536,
						     .len_bytes = 65536, .iov = &iov,
						     .iov_count = 1 } };
		io_submit_op(&rig->wait, rig->dev, &writes[i]);
	}
	assert_true(io_wait_for(&rig->wait, ARRAY_COUNT(writes)));
	for (unsigned i = 0; i < ARRAY_COUNT(writes); i++)
		assert_int_equal(writes[i].req.result, -EIO);
	assert_true(blk_nfs_is_dead(rig->dev));
	assert_int_equal(rig_flush(rig), -EIO);
	assert_int_equal(rig->server.unstable, 1);
	rig_free(rig);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),     cmocka_unit_test(test_stable),
		cmocka_unit_test(test_verifier), cmocka_unit_test(test_flushes_at_once),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

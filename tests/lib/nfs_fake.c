/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/nfs_private.h"
#include "tests/lib/nfs_fake.h"

enum { PROC_READ = 6, PROC_WRITE = 7, PROC_COMMIT = 21 };

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
	if (stable)
		memcpy(server->safe + offset, args, count);
	to = put(put(put(to, 0), 0), 0);
	to = put(put(to, count), server->says_unstable ? 0 : stable);
	return put_verifier(to, server);
}

static uint8_t *answer_commit(struct server *server, uint8_t *to)
{
	server->commits++;
	if (!server->commit_status)
		memcpy(server->safe, server->file, FILE_BYTES);
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
	if (server->swallows && proc == PROC_WRITE)
		return false;
	put(out, (uint32_t)(to - out - 4) | 0x80000000);
	return send(fd, out, (size_t)(to - out), MSG_NOSIGNAL) == to - out;
}

/* Whoever comes, until the listener is shut down. */
static void *server_main(void *user)
{
	struct server *server = user;
	uint8_t *in = malloc(LIMIT_BYTES * 2), *out = malloc(LIMIT_BYTES * 2);

	while (!server->stopping) {
		int fd = accept(server->listener, NULL, NULL);

		while (fd >= 0 && serve_one(server, fd, in, out))
			;
		if (fd >= 0)
			close(fd);
	}
	free(in);
	free(out);
	return NULL;
}

void fake_restart(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	memcpy(server->file, server->safe, FILE_BYTES);
	server->life++;
	pthread_mutex_unlock(&server->lock);
}

struct nfs_fake *fake_new(enum blk_nfs_role role, bool stable, struct fence *fence)
{
	struct nfs_fake *rig = calloc(1, sizeof(*rig));
	struct server *server = &rig->server;
	struct sockaddr_in at = { .sin_family = AF_INET };
	struct blk_nfs_options options = { .name = "test", .reads_zero = true, .stable = stable,
					   .role = role, .fence = fence };
	struct nfs_session session = { .place = { .host = "127.0.0.1" },
				       .limits = { LIMIT_BYTES, LIMIT_BYTES, UINT64_MAX } };
	const struct nfs_handle file = { 4, "file" };
	struct blk_nfs_links *links;
	socklen_t len = sizeof(at);

	server->file = calloc(1, FILE_BYTES + LIMIT_BYTES + 4);
	server->safe = calloc(1, FILE_BYTES + LIMIT_BYTES + 4);
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

void fake_free(struct nfs_fake *rig)
{
	blk_close(rig->dev);
	rig->server.stopping = true;
	shutdown(rig->server.listener, SHUT_RDWR);
	for (unsigned i = 0; i < CONNECTIONS; i++)
		pthread_join(rig->server.threads[i], NULL);
	close(rig->server.listener);
	io_wait_pass(&rig->wait, NS_PER_MS);
	loop_free(rig->loop);
	pthread_mutex_destroy(&rig->server.lock);
	free(rig->server.file);
	free(rig->server.safe);
	free(rig);
}

int fake_io(struct nfs_fake *rig, enum blk_op op, uint64_t offset, void *bytes, uint64_t len,
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

int fake_flush(struct nfs_fake *rig)
{
	return fake_io(rig, BLK_FLUSH, 0, NULL, 0, 0);
}

uint8_t *pattern(size_t len)
{
	uint8_t *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 31 + i / 509 + 1);
	return bytes;
}

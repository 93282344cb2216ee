/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd_liar.h"

#include <arpa/inet.h>
#include <endian.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/check.h"

enum { OPT_GO = 7, OPT_STRUCTURED_REPLY = 8, OPT_SET_META_CONTEXT = 10 };
enum { REP_ACK = 1, REP_INFO = 3, REP_META_CONTEXT = 4 };
#define REP_ERR_UNSUP 0x80000001u
#define OPTION_BYTES_MAX 65536u

static bool read_all(int fd, void *bytes, size_t count)
{
	while (count) {
		ssize_t got = recv(fd, bytes, count, 0);

		if (got <= 0)
			return false;
		bytes = (char *)bytes + got;
		count -= (size_t)got;
	}
	return true;
}

/* A client that hangs up is not the liar's trouble. */
static void write_all(int fd, const void *bytes, size_t count)
{
	while (count) {
		ssize_t put = send(fd, bytes, count, MSG_NOSIGNAL);

		if (put <= 0)
			return;
		bytes = (const char *)bytes + put;
		count -= (size_t)put;
	}
}

static size_t put16(uint8_t *at, uint16_t value)
{
	value = htobe16(value);
	memcpy(at, &value, 2);
	return 2;
}

static size_t put32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, 4);
	return 4;
}

static size_t put64(uint8_t *at, uint64_t value)
{
	value = htobe64(value);
	memcpy(at, &value, 8);
	return 8;
}

static void option_reply(struct liar *liar, uint32_t option, uint32_t type, const void *data,
			 uint32_t bytes)
{
	uint8_t header[20];
	size_t used = put64(header, UINT64_C(0x3e889045565a9));

	used += put32(header + used, option);
	used += put32(header + used, type);
	used += put32(header + used, bytes);
	write_all(liar->fd, header, used);
	write_all(liar->fd, data, bytes);
}

static void answer_go(struct liar *liar)
{
	uint8_t info[16];
	size_t used = put16(info, 0);

	used += put64(info + used, liar->size_bytes);
	used += put16(info + used, liar->flags | LIAR_HAS_FLAGS);
	option_reply(liar, OPT_GO, REP_INFO, info, (uint32_t)used);
	if (liar->block_min || liar->block_preferred || liar->block_max) {
		used = put16(info, 3);
		used += put32(info + used, liar->block_min);
		used += put32(info + used, liar->block_preferred);
		used += put32(info + used, liar->block_max);
		option_reply(liar, OPT_GO, REP_INFO, info, (uint32_t)used);
	}
	option_reply(liar, OPT_GO, REP_ACK, NULL, 0);
}

static void answer_meta_context(struct liar *liar)
{
	static const char context[] = "base:allocation";
	uint8_t data[4 + sizeof(context)];
	size_t used = put32(data, 1);

	memcpy(data + used, context, sizeof(context) - 1);
	used += sizeof(context) - 1;
	if (liar->offers_extents)
		option_reply(liar, OPT_SET_META_CONTEXT, REP_META_CONTEXT, data, (uint32_t)used);
	option_reply(liar, OPT_SET_META_CONTEXT, REP_ACK, NULL, 0);
}

static bool answer_option(struct liar *liar, bool *ready)
{
	static uint8_t data[OPTION_BYTES_MAX];
	struct { uint64_t magic; uint32_t option, length; } header;

	if (!read_all(liar->fd, &header, sizeof(header)))
		return false;
	header.option = be32toh(header.option);
	header.length = be32toh(header.length);
	CHECK(header.length <= sizeof(data));
	if (!read_all(liar->fd, data, header.length))
		return false;
	if (header.option == OPT_GO) {
		answer_go(liar);
		*ready = true;
	} else if (header.option == OPT_STRUCTURED_REPLY) {
		option_reply(liar, header.option, REP_ACK, NULL, 0);
	} else if (header.option == OPT_SET_META_CONTEXT) {
		answer_meta_context(liar);
	} else {
		option_reply(liar, header.option, REP_ERR_UNSUP, NULL, 0);
	}
	return true;
}

static bool handshake(struct liar *liar)
{
	uint8_t hello[18];
	uint32_t client_flags;
	bool ready = false;
	size_t used = put64(hello, liar->garbles_handshake ? 1 : UINT64_C(0x4e42444d41474943));

	used += put64(hello + used, UINT64_C(0x49484156454f5054));
	used += put16(hello + used, 3);         /* fixed newstyle, no zeroes */
	write_all(liar->fd, hello, used);
	if (!read_all(liar->fd, &client_flags, sizeof(client_flags)))
		return false;
	while (!ready)
		if (!answer_option(liar, &ready))
			return false;
	return true;
}

static void serve_commands(struct liar *liar)
{
	static uint8_t payload[1u << 20];
	struct liar_command command;
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie, offset;
		uint32_t length;
	} header;

	while (read_all(liar->fd, &header, sizeof(header))) {
		command = (struct liar_command){ be16toh(header.flags), be16toh(header.type),
						 header.cookie, be64toh(header.offset),
						 be32toh(header.length) };
		if (command.type == LIAR_DISC)
			return;
		CHECK(command.type != LIAR_WRITE || command.length <= sizeof(payload));
		if (command.type == LIAR_WRITE && !read_all(liar->fd, payload, command.length))
			return;
		liar->commands++;
		if (liar->on_command && !liar->on_command(liar, &command))
			return;
	}
}

static void *liar_main(void *arg)
{
	struct liar *liar = arg;
	int fd = accept(liar->listen_fd, NULL, NULL);
	uint8_t byte;

	if (fd < 0)
		return NULL;            /* liar_stop() before anybody came */
	liar->fd = fd;
	if (liar->is_silent)
		while (read_all(liar->fd, &byte, 1))
			continue;
	else if (handshake(liar))
		serve_commands(liar);
	shutdown(liar->fd, SHUT_RDWR);
	return NULL;
}

static void listen_unix(struct liar *liar, const char *dir)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(liar->socket_path, sizeof(liar->socket_path), "%s/liar.sock", dir);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", liar->socket_path);
	snprintf(liar->uri, sizeof(liar->uri), "nbd+unix:///x?socket=%s", liar->socket_path);
	liar->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(liar->listen_fd, (struct sockaddr *)&address, sizeof(address)) == 0);
}

static void listen_tcp(struct liar *liar)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	liar->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(liar->listen_fd, (struct sockaddr *)&address, length) == 0);
	CHECK(getsockname(liar->listen_fd, (struct sockaddr *)&address, &length) == 0);
	snprintf(liar->uri, sizeof(liar->uri), "nbd://127.0.0.1:%u/x", ntohs(address.sin_port));
}

void liar_start(struct liar *liar, const char *dir)
{
	liar->fd = -1;
	liar->commands = 0;
	liar->socket_path[0] = 0;
	if (dir)
		listen_unix(liar, dir);
	else
		listen_tcp(liar);
	CHECK(listen(liar->listen_fd, 4) == 0);
	CHECK(pthread_create(&liar->thread, NULL, liar_main, liar) == 0);
}

void liar_stop(struct liar *liar)
{
	shutdown(liar->listen_fd, SHUT_RDWR);
	if (liar->fd >= 0)
		shutdown(liar->fd, SHUT_RDWR);
	pthread_join(liar->thread, NULL);
	close(liar->listen_fd);
	if (liar->fd >= 0)
		close(liar->fd);
	if (liar->socket_path[0])
		unlink(liar->socket_path);
}

void liar_reply(struct liar *liar, uint64_t cookie, uint32_t error, const void *data, size_t bytes)
{
	uint8_t header[16];

	put32(header, 0x67446698);
	put32(header + 4, error);
	memcpy(header + 8, &cookie, 8);
	write_all(liar->fd, header, sizeof(header));
	write_all(liar->fd, data, bytes);
}

static void structured_header(struct liar *liar, uint64_t cookie, uint16_t type, uint32_t bytes)
{
	uint8_t header[20];

	put32(header, 0x668e33ef);
	put16(header + 4, 1);           /* done */
	put16(header + 6, type);
	memcpy(header + 8, &cookie, 8);
	put32(header + 16, bytes);
	write_all(liar->fd, header, sizeof(header));
}

void liar_reply_status(struct liar *liar, uint64_t cookie, const uint32_t *entries, size_t count)
{
	uint8_t word[4];

	structured_header(liar, cookie, 5, (uint32_t)(4 + 4 * count));
	put32(word, 1);
	write_all(liar->fd, word, 4);
	for (size_t i = 0; i < count; i++) {
		put32(word, entries[i]);
		write_all(liar->fd, word, 4);
	}
}

void liar_reply_none(struct liar *liar, uint64_t cookie)
{
	structured_header(liar, cookie, 0, 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/nbd_client.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- bytes ---- */

int nbd_client_adopt(struct nbd_client *client, int fd)
{
	struct timeval timeout = { .tv_sec = NBD_CLIENT_TIMEOUT_S };

	*client = (struct nbd_client){ .fd = fd };
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)))
		return -errno;
	return 0;
}

int nbd_client_connect(struct nbd_client *client, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return nbd_client_adopt(client, fd);
}

void nbd_client_close(struct nbd_client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
}

static int rc_of_errno(void)
{
	if (errno == EAGAIN)
		return -ETIMEDOUT;
	return errno == EPIPE ? -ECONNRESET : -errno;
}

int nbd_client_send(struct nbd_client *client, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len) {
		size_t piece = client->piece_bytes ? MIN(client->piece_bytes, len) : len;
		ssize_t sent = send(client->fd, at, piece, MSG_NOSIGNAL);

		if (sent < 0)
			return rc_of_errno();
		at += sent;
		len -= (size_t)sent;
	}
	return 0;
}

int nbd_client_receive(struct nbd_client *client, void *bytes, size_t len)
{
	uint8_t *at = bytes;

	while (len) {
		ssize_t got = recv(client->fd, at, len, 0);

		if (got < 0)
			return rc_of_errno();
		if (got == 0)
			return -ECONNRESET;
		at += got;
		len -= (size_t)got;
	}
	return 0;
}

int nbd_client_expect_end(struct nbd_client *client)
{
	char byte;
	int rc = nbd_client_receive(client, &byte, 1);

	if (rc == 0)
		return -EPROTO;
	return rc == -ECONNRESET ? 0 : rc;
}

/* ---- handshake ---- */

int nbd_client_greet(struct nbd_client *client, uint32_t flags)
{
	struct nbd_greeting greeting;
	be32 wire = be32_of(flags);
	int rc = nbd_client_receive(client, &greeting, sizeof(greeting));

	if (rc)
		return rc;
	if (be64_get(greeting.magic) != NBD_MAGIC ||
	    be64_get(greeting.option_magic) != NBD_OPTION_MAGIC)
		return -EPROTO;
	return nbd_client_send(client, &wire, sizeof(wire));
}

int nbd_client_option(struct nbd_client *client, uint32_t option, const void *data, uint32_t len)
{
	struct nbd_option wire = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(option),
				   .len = be32_of(len) };
	int rc = nbd_client_send(client, &wire, sizeof(wire));

	return rc || !len ? rc : nbd_client_send(client, data, len);
}

int nbd_client_reply(struct nbd_client *client, struct nbd_client_reply *reply)
{
	struct nbd_option_reply wire;
	int rc = nbd_client_receive(client, &wire, sizeof(wire));

	if (rc)
		return rc;
	reply->option = be32_get(wire.option);
	reply->type = be32_get(wire.type);
	reply->len = be32_get(wire.len);
	if (be64_get(wire.magic) != NBD_OPTION_REPLY_MAGIC || reply->len > sizeof(reply->data))
		return -EPROTO;
	return nbd_client_receive(client, reply->data, reply->len);
}

static size_t put_u32(uint8_t *out, uint32_t value)
{
	be32 wire = be32_of(value);

	memcpy(out, &wire, sizeof(wire));
	return sizeof(wire);
}

static size_t put_u16(uint8_t *out, uint16_t value)
{
	be16 wire = be16_of(value);

	memcpy(out, &wire, sizeof(wire));
	return sizeof(wire);
}

static size_t put_string(uint8_t *out, const char *text)
{
	size_t len = strlen(text);

	put_u32(out, (uint32_t)len);
	memcpy(out + 4, text, len);
	return 4 + len;
}

int nbd_client_go(struct nbd_client *client, uint32_t option, const char *name)
{
	struct nbd_client_reply reply;
	uint8_t data[512];
	size_t len = put_string(data, name);
	int rc;

	len += put_u16(data + len, 3);
	for (uint16_t info = NBD_INFO_NAME; info <= NBD_INFO_BLOCK_SIZE; info++)
		len += put_u16(data + len, info);
	rc = nbd_client_option(client, option, data, (uint32_t)len);
	while (!rc) {
		struct nbd_info_export info;

		rc = nbd_client_reply(client, &reply);
		if (rc || reply.type == NBD_REP_ACK)
			break;
		if (reply.type != NBD_REP_INFO)
			return -EPROTO;
		memcpy(&info, reply.data, sizeof(info));
		if (be16_get(info.type) != NBD_INFO_EXPORT)
			continue;
		client->size_bytes = be64_get(info.size_bytes);
		client->flags = be16_get(info.flags);
	}
	return rc;
}

int nbd_client_contexts(struct nbd_client *client, uint32_t option, const char *name,
			const char *query)
{
	uint8_t data[512];
	size_t len = put_string(data, name);

	len += put_u32(data + len, query ? 1 : 0);
	if (query)
		len += put_string(data + len, query);
	return nbd_client_option(client, option, data, (uint32_t)len);
}

static int start_structured(struct nbd_client *client, const char *name)
{
	struct nbd_client_reply reply;
	int rc = nbd_client_option(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);

	if (!rc)
		rc = nbd_client_reply(client, &reply);
	if (!rc && reply.type != NBD_REP_ACK)
		rc = -EPROTO;
	if (!rc)
		rc = nbd_client_contexts(client, NBD_OPT_SET_META_CONTEXT, name, "base:allocation");
	if (!rc)
		rc = nbd_client_reply(client, &reply);
	if (!rc && reply.type != NBD_REP_META_CONTEXT)
		rc = -EPROTO;
	if (!rc)
		rc = nbd_client_reply(client, &reply);
	client->structured = !rc;
	return rc;
}

int nbd_client_start(struct nbd_client *client, const char *name, bool structured)
{
	int rc = nbd_client_greet(client, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);

	if (!rc && structured)
		rc = start_structured(client, name);
	return rc ? rc : nbd_client_go(client, NBD_OPT_GO, name);
}

/* ---- transmission ---- */

int nbd_client_request(struct nbd_client *client, uint16_t type, uint16_t flags, uint64_t cookie,
		       uint64_t offset_bytes, uint32_t len_bytes)
{
	struct nbd_wire_request wire = {
		.magic = be32_of(NBD_REQUEST_MAGIC),
		.flags = be16_of(flags),
		.type = be16_of(type),
		.cookie = be64_of(cookie),
		.offset_bytes = be64_of(offset_bytes),
		.len_bytes = be32_of(len_bytes),
	};

	return nbd_client_send(client, &wire, sizeof(wire));
}

static int answer_data(struct nbd_client *client, struct nbd_client_answer *answer, void *data,
		       uint32_t data_bytes)
{
	be64 offset;
	int rc = nbd_client_receive(client, &offset, sizeof(offset));

	if (rc)
		return rc;
	answer->offset_bytes = be64_get(offset);
	if (answer->len < sizeof(offset) || answer->len - sizeof(offset) > data_bytes)
		return -EPROTO;
	return nbd_client_receive(client, data, answer->len - sizeof(offset));
}

static int answer_error(struct nbd_client *client, struct nbd_client_answer *answer)
{
	uint8_t payload[64];
	struct nbd_chunk_error error = { 0 };
	int rc;

	if (answer->len > sizeof(payload))
		return -EPROTO;
	rc = nbd_client_receive(client, payload, answer->len);
	if (rc)
		return rc;
	memcpy((uint8_t *)&error + sizeof(error.chunk), payload,
	       MIN(answer->len, sizeof(error) - sizeof(error.chunk)));
	answer->error = be32_get(error.error);
	answer->offset_bytes = be64_get(error.offset_bytes);
	return 0;
}

static int answer_status(struct nbd_client *client, struct nbd_client_answer *answer)
{
	be32 context;
	int rc = nbd_client_receive(client, &context, sizeof(context));

	if (rc)
		return rc;
	if (answer->len < sizeof(context) || (answer->len - sizeof(context)) % 8 ||
	    answer->len - sizeof(context) > sizeof(answer->extents))
		return -EPROTO;
	answer->extent_count = (answer->len - 4) / 8;
	return nbd_client_receive(client, answer->extents, answer->len - sizeof(context));
}

static int answer_chunk(struct nbd_client *client, struct nbd_client_answer *answer, void *data,
			uint32_t data_bytes)
{
	struct nbd_chunk wire = { .magic = be32_of(NBD_CHUNK_MAGIC) };
	int rc = nbd_client_receive(client, (uint8_t *)&wire + sizeof(be32),
				    sizeof(wire) - sizeof(be32));

	if (rc)
		return rc;
	answer->chunk = true;
	answer->flags = be16_get(wire.flags);
	answer->type = be16_get(wire.type);
	answer->cookie = be64_get(wire.cookie);
	answer->len = be32_get(wire.len_bytes);
	switch (answer->type) {
	case NBD_CHUNK_OFFSET_DATA:
		return answer_data(client, answer, data, data_bytes);
	case NBD_CHUNK_BLOCK_STATUS:
		return answer_status(client, answer);
	case NBD_CHUNK_ERROR:
	case NBD_CHUNK_ERROR_OFFSET:
		return answer_error(client, answer);
	default:
		return answer->len ? -EPROTO : 0;
	}
}

int nbd_client_answer(struct nbd_client *client, struct nbd_client_answer *answer, void *data,
		      uint32_t data_bytes)
{
	struct nbd_simple_reply wire;
	int rc = nbd_client_receive(client, &wire.magic, sizeof(wire.magic));

	memset(answer, 0, sizeof(*answer));
	if (rc)
		return rc;
	if (be32_get(wire.magic) == NBD_CHUNK_MAGIC)
		return answer_chunk(client, answer, data, data_bytes);
	if (be32_get(wire.magic) != NBD_SIMPLE_REPLY_MAGIC)
		return -EPROTO;
	rc = nbd_client_receive(client, (uint8_t *)&wire + sizeof(be32),
				sizeof(wire) - sizeof(be32));
	if (rc)
		return rc;
	answer->error = be32_get(wire.error);
	answer->cookie = be64_get(wire.cookie);
	if (answer->error || !data_bytes)
		return 0;
	return nbd_client_receive(client, data, data_bytes);
}

#define COOKIE UINT64_C(0x626d2d746573742e)

static int one_answer(struct nbd_client *client, void *data, uint32_t len_bytes)
{
	struct nbd_client_answer answer;
	int rc = nbd_client_answer(client, &answer, data, len_bytes);

	if (rc)
		return rc;
	return answer.cookie == COOKIE ? (int)answer.error : -EPROTO;
}

int nbd_client_read(struct nbd_client *client, uint64_t offset_bytes, void *data,
		    uint32_t len_bytes)
{
	int rc = nbd_client_request(client, NBD_CMD_READ, 0, COOKIE, offset_bytes, len_bytes);

	return rc ? rc : one_answer(client, data, len_bytes);
}

int nbd_client_write(struct nbd_client *client, uint64_t offset_bytes, const void *data,
		     uint32_t len_bytes, uint16_t flags)
{
	int rc = nbd_client_request(client, NBD_CMD_WRITE, flags, COOKIE, offset_bytes, len_bytes);

	if (!rc)
		rc = nbd_client_send(client, data, len_bytes);
	return rc ? rc : one_answer(client, NULL, 0);
}

int nbd_client_simple(struct nbd_client *client, uint16_t type, uint16_t flags,
		      uint64_t offset_bytes, uint32_t len_bytes)
{
	int rc = nbd_client_request(client, type, flags, COOKIE, offset_bytes, len_bytes);

	return rc ? rc : one_answer(client, NULL, 0);
}

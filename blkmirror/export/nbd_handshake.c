/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_handshake.c - fixed newstyle negotiation, one option at a time.
 *
 * An option is handled only when all of it has been received (it is small, or refused)
 * and the replies to earlier ones leave room for its own, so the memory used does not
 * depend on what the client sends.
 */
#include <stdio.h>

#include "blkmirror/export/nbd_private.h"

/* Larger than any option with a sane name; what is longer is read and refused. */
#define OPTION_BYTES_MAX 4096u
/* What is longer still is not worth reading. */
#define OPTION_DRAIN_BYTES_MAX (1u << 20)
/* All replies to one option together. */
#define OPTION_REPLY_BYTES_MAX 1024u

#define CONTEXT_ALLOCATION "base:allocation"
#define CONTEXT_NAMESPACE "base:"

/* One option as it was received; cut from the front while it is parsed. */
struct option {
	uint32_t id;
	const uint8_t *bytes;
	uint32_t len;
};

/* ---- sending ---- */

static void out_put(struct nbd_conn *conn, const void *bytes, size_t len)
{
	struct nbd_handshake *handshake = conn->handshake;

	CHECK(len <= sizeof(handshake->out) - handshake->out_tail);
	memcpy(handshake->out + handshake->out_tail, bytes, len);
	handshake->out_tail += (uint32_t)len;
	loop_at_turn_end(conn->server->loop, &conn->turn_end);
}

static bool out_has_room(const struct nbd_handshake *handshake)
{
	return sizeof(handshake->out) - handshake->out_tail >= OPTION_REPLY_BYTES_MAX;
}

/* `head` and `tail` together are the reply's data; either may be empty. */
static void reply_put(struct nbd_conn *conn, uint32_t option, uint32_t type,
		      struct iovec head, struct iovec tail)
{
	struct nbd_option_reply reply = {
		.magic = be64_of(NBD_OPTION_REPLY_MAGIC),
		.option = be32_of(option),
		.type = be32_of(type),
		.len = be32_of((uint32_t)(head.iov_len + tail.iov_len)),
	};

	out_put(conn, &reply, sizeof(reply));
	if (head.iov_len)
		out_put(conn, head.iov_base, head.iov_len);
	if (tail.iov_len)
		out_put(conn, tail.iov_base, tail.iov_len);
}

static const struct iovec nothing;

static struct iovec text_of(const char *text)
{
	return (struct iovec){ .iov_base = (char *)text, .iov_len = strlen(text) };
}

static void reply_ack(struct nbd_conn *conn, uint32_t option)
{
	reply_put(conn, option, NBD_REP_ACK, nothing, nothing);
}

static void reply_error(struct nbd_conn *conn, uint32_t option, uint32_t type, const char *text)
{
	reply_put(conn, option, type, text_of(text), nothing);
}

void nbd_handshake_greet(struct nbd_conn *conn)
{
	struct nbd_greeting greeting = {
		.magic = be64_of(NBD_MAGIC),
		.option_magic = be64_of(NBD_OPTION_MAGIC),
		.flags = be16_of(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};

	out_put(conn, &greeting, sizeof(greeting));
}

/* ---- parsing ---- */

static bool take_u16(struct option *option, uint16_t *out)
{
	be16 wire;

	if (option->len < sizeof(wire))
		return false;
	memcpy(&wire, option->bytes, sizeof(wire));
	*out = be16_get(wire);
	option->bytes += sizeof(wire);
	option->len -= (uint32_t)sizeof(wire);
	return true;
}

static bool take_u32(struct option *option, uint32_t *out)
{
	be32 wire;

	if (option->len < sizeof(wire))
		return false;
	memcpy(&wire, option->bytes, sizeof(wire));
	*out = be32_get(wire);
	option->bytes += sizeof(wire);
	option->len -= (uint32_t)sizeof(wire);
	return true;
}

/* A length, then that many bytes. */
static bool take_string(struct option *option, struct iovec *out)
{
	uint32_t len;

	if (!take_u32(option, &len) || len > option->len)
		return false;
	*out = (struct iovec){ .iov_base = (uint8_t *)option->bytes, .iov_len = len };
	option->bytes += len;
	option->len -= len;
	return true;
}

static bool is_text(struct iovec bytes, const char *text)
{
	return bytes.iov_len == strlen(text) && memcmp(bytes.iov_base, text, bytes.iov_len) == 0;
}

/* The default export is ours too. */
static bool is_our_name(const struct nbd_conn *conn, struct iovec name)
{
	return name.iov_len == 0 || is_text(name, conn->server->name);
}

/* ---- LIST ---- */

static void option_list(struct nbd_conn *conn, const struct option *option)
{
	struct iovec name = text_of(conn->server->name);
	be32 len = be32_of((uint32_t)name.iov_len);

	if (option->len) {
		reply_error(conn, option->id, NBD_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	reply_put(conn, option->id, NBD_REP_SERVER,
		  (struct iovec){ .iov_base = &len, .iov_len = sizeof(len) }, name);
	reply_ack(conn, option->id);
}

/* ---- INFO and GO ---- */

static void info_export(struct nbd_conn *conn, uint32_t option)
{
	const struct nbd_server *server = conn->server;
	struct nbd_info_export info = {
		.type = be16_of(NBD_INFO_EXPORT),
		.size_bytes = be64_of(server->dev->size_bytes),
		.flags = be16_of(nbd_server_flags(server, conn->structured)),
	};

	reply_put(conn, option, NBD_REP_INFO,
		  (struct iovec){ .iov_base = &info, .iov_len = sizeof(info) }, nothing);
}

static void info_block_size(struct nbd_conn *conn, uint32_t option)
{
	const struct blk_limits *limits = &conn->server->dev->limits;
	uint32_t preferred = MIN(MAX(limits->physical_bytes, 4096u),
				 (uint32_t)BLK_MAX_TRANSFER_BYTES);
	struct nbd_info_block_size info = {
		.type = be16_of(NBD_INFO_BLOCK_SIZE),
		.minimum_bytes = be32_of(limits->block_bytes),
		.preferred_bytes = be32_of(preferred),
		.maximum_bytes = be32_of((uint32_t)BLK_MAX_TRANSFER_BYTES),
	};

	reply_put(conn, option, NBD_REP_INFO,
		  (struct iovec){ .iov_base = &info, .iov_len = sizeof(info) }, nothing);
}

static void info_text(struct nbd_conn *conn, uint32_t option, enum nbd_info info, const char *text)
{
	be16 type = be16_of((uint16_t)info);

	reply_put(conn, option, NBD_REP_INFO,
		  (struct iovec){ .iov_base = &type, .iov_len = sizeof(type) }, text_of(text));
}

static void info_replies(struct nbd_conn *conn, uint32_t option, unsigned wanted)
{
	char description[NBD_NAME_BYTES_MAX + 32];

	info_export(conn, option);
	if (wanted & (1u << NBD_INFO_NAME))
		info_text(conn, option, NBD_INFO_NAME, conn->server->name);
	if (wanted & (1u << NBD_INFO_DESCRIPTION)) {
		snprintf(description, sizeof(description), "blkmirror disk %s",
			 conn->server->name);
		info_text(conn, option, NBD_INFO_DESCRIPTION, description);
	}
	/* Told unasked too: a client that ignores it is refused what is unaligned. */
	info_block_size(conn, option);
}

/* False: malformed. */
static bool parse_info(struct option *option, struct iovec *name, unsigned *wanted)
{
	uint16_t count, info;

	*wanted = 0;
	if (!take_string(option, name) || !take_u16(option, &count))
		return false;
	for (uint16_t i = 0; i < count; i++) {
		if (!take_u16(option, &info))
			return false;
		if (info <= NBD_INFO_BLOCK_SIZE)        /* what is unknown is ignored */
			*wanted |= 1u << info;
	}
	return option->len == 0;
}

static void option_info_or_go(struct nbd_conn *conn, struct option *option)
{
	struct iovec name;
	unsigned wanted;

	if (!parse_info(option, &name, &wanted)) {
		reply_error(conn, option->id, NBD_REP_ERR_INVALID, "malformed option");
		return;
	}
	if (!is_our_name(conn, name)) {
		reply_error(conn, option->id, NBD_REP_ERR_UNKNOWN, "no such export");
		return;
	}
	info_replies(conn, option->id, wanted);
	reply_ack(conn, option->id);
	if (option->id == NBD_OPT_GO)
		(void)nbd_conn_begin_transmission(conn);
}

/* ---- EXPORT_NAME: the old way in; it has no way to say no ---- */

static void option_export_name(struct nbd_conn *conn, const struct option *option)
{
	struct iovec name = { .iov_base = (uint8_t *)option->bytes, .iov_len = option->len };
	struct nbd_export_reply reply = {
		.size_bytes = be64_of(conn->server->dev->size_bytes),
		.flags = be16_of(nbd_server_flags(conn->server, conn->structured)),
	};

	if (!is_our_name(conn, name)) {
		nbd_conn_violation(conn, "asks for an export that does not exist");
		return;
	}
	out_put(conn, &reply, conn->handshake->no_zeroes ?
			offsetof(struct nbd_export_reply, zeroes) : sizeof(reply));
	(void)nbd_conn_begin_transmission(conn);
}

/* ---- meta contexts ---- */

/* False: malformed.  *chosen: does a query mean base:allocation? */
static bool parse_contexts(struct option *option, struct iovec *name, bool *chosen)
{
	bool list = option->id == NBD_OPT_LIST_META_CONTEXT;
	struct iovec query;
	uint32_t count;

	if (!take_string(option, name) || !take_u32(option, &count))
		return false;
	*chosen = list && count == 0;           /* list all */
	for (uint32_t i = 0; i < count; i++) {  /* bounded: each takes four bytes or fails */
		if (!take_string(option, &query))
			return false;
		if (is_text(query, CONTEXT_ALLOCATION) ||
		    (list && is_text(query, CONTEXT_NAMESPACE)))
			*chosen = true;
	}
	return option->len == 0;
}

static void option_contexts(struct nbd_conn *conn, struct option *option)
{
	bool set = option->id == NBD_OPT_SET_META_CONTEXT;
	be32 id = be32_of(set ? NBD_CONTEXT_ALLOCATION : 0);
	struct iovec name;
	bool chosen;

	if (set)
		conn->allocation = false;       /* a new choice, even a failed one, ends the old */
	if (!conn->structured) {
		reply_error(conn, option->id, NBD_REP_ERR_INVALID,
			    "structured replies come first");
		return;
	}
	if (!parse_contexts(option, &name, &chosen)) {
		reply_error(conn, option->id, NBD_REP_ERR_INVALID, "malformed option");
		return;
	}
	if (!is_our_name(conn, name)) {
		reply_error(conn, option->id, NBD_REP_ERR_UNKNOWN, "no such export");
		return;
	}
	if (chosen)
		reply_put(conn, option->id, NBD_REP_META_CONTEXT,
			  (struct iovec){ .iov_base = &id, .iov_len = sizeof(id) },
			  text_of(CONTEXT_ALLOCATION));
	if (set)
		conn->allocation = chosen;
	reply_ack(conn, option->id);
}

/* ---- the rest ---- */

static void option_structured(struct nbd_conn *conn, const struct option *option)
{
	if (option->len) {
		reply_error(conn, option->id, NBD_REP_ERR_INVALID,
			    "STRUCTURED_REPLY takes no data");
		return;
	}
	conn->structured = true;
	reply_ack(conn, option->id);
}

static void option_handle(struct nbd_conn *conn, struct option *option)
{
	switch (option->id) {
	case NBD_OPT_EXPORT_NAME:
		option_export_name(conn, option);
		break;
	case NBD_OPT_ABORT:
		reply_ack(conn, option->id);
		nbd_conn_finish(conn);
		break;
	case NBD_OPT_LIST:
		option_list(conn, option);
		break;
	case NBD_OPT_STARTTLS:
		reply_error(conn, option->id, NBD_REP_ERR_POLICY, "TLS is not offered here");
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		option_info_or_go(conn, option);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		option_structured(conn, option);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		option_contexts(conn, option);
		break;
	default:
		reply_error(conn, option->id, NBD_REP_ERR_UNSUP, "unknown option");
	}
}

static bool option_too_big(struct nbd_conn *conn, uint32_t id, uint32_t len)
{
	if (id == NBD_OPT_EXPORT_NAME || len > OPTION_DRAIN_BYTES_MAX) {
		nbd_conn_violation(conn, "option beyond any sane size");
		return false;
	}
	if (id == NBD_OPT_SET_META_CONTEXT)
		conn->allocation = false;
	nbd_rx_consume(conn, sizeof(struct nbd_option));
	conn->drain_bytes = len;
	reply_error(conn, id, NBD_REP_ERR_TOO_BIG, "option too big");
	return true;
}

static bool handshake_option(struct nbd_conn *conn)
{
	const struct nbd_option *wire = nbd_rx_peek(conn, sizeof(*wire));
	struct option option;

	if (!wire)
		return false;
	if (be64_get(wire->magic) != NBD_OPTION_MAGIC) {
		nbd_conn_violation(conn, "bad option magic");
		return false;
	}
	option.id = be32_get(wire->option);
	option.len = be32_get(wire->len);
	if (option.len > OPTION_BYTES_MAX)
		return option_too_big(conn, option.id, option.len);
	wire = nbd_rx_peek(conn, (uint32_t)sizeof(*wire) + option.len);
	if (!wire)
		return false;
	option.bytes = (const uint8_t *)(wire + 1);
	/* Consumed first: the bytes stay where they are until more is received. */
	nbd_rx_consume(conn, (uint32_t)sizeof(*wire) + option.len);
	option_handle(conn, &option);
	return true;
}

static bool handshake_flags(struct nbd_conn *conn)
{
	const be32 *wire = nbd_rx_peek(conn, sizeof(*wire));
	uint32_t flags;

	if (!wire)
		return false;
	flags = be32_get(*wire);
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
		nbd_conn_violation(conn, "unknown client flags");
		return false;
	}
	nbd_rx_consume(conn, sizeof(*wire));
	conn->handshake->got_flags = true;
	conn->handshake->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	return true;
}

bool nbd_handshake_step(struct nbd_conn *conn)
{
	if (!out_has_room(conn->handshake))
		return nbd_conn_wait(conn, NBD_WAIT_ANSWERED);
	return conn->handshake->got_flags ? handshake_option(conn) : handshake_flags(conn);
}

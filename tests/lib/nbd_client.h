/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_client.h - a small blocking NBD client for tests, byte for byte.
 *
 * It does what it is told, right or wrong: a test decides about every field.  Every call
 * returns 0 or -errno; -ECONNRESET when the server has closed, -ETIMEDOUT when nothing
 * came for NBD_CLIENT_TIMEOUT_S.
 */
#ifndef BM_TESTS_NBD_CLIENT_H
#define BM_TESTS_NBD_CLIENT_H

#include <stdbool.h>

#include "blkmirror/base/check.h"
#include "blkmirror/export/nbd_proto.h"

#define NBD_CLIENT_TIMEOUT_S 20

struct nbd_client {
	int fd;
	bool structured;
	uint64_t size_bytes;            /* what the server said in GO or EXPORT_NAME */
	uint16_t flags;
	size_t piece_bytes;             /* send in pieces of so many bytes; 0: at once */
};

/* One reply to an option. */
struct nbd_client_reply {
	uint32_t option;
	uint32_t type;
	uint32_t len;
	uint8_t data[4096];
};

/* One simple reply, or one chunk. */
struct nbd_client_answer {
	bool chunk;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint32_t error;                 /* NBD's; of error chunks too */
	uint32_t len;                   /* of a chunk's payload (what precedes data included) */
	uint64_t offset_bytes;          /* of OFFSET_DATA and ERROR_OFFSET */
	uint32_t extent_count;          /* of BLOCK_STATUS */
	struct nbd_wire_extent extents[512];
};

MUST_CHECK int nbd_client_connect(struct nbd_client *client, const char *path);
/* Takes a connected socket. */
MUST_CHECK int nbd_client_adopt(struct nbd_client *client, int fd);
void nbd_client_close(struct nbd_client *client);

MUST_CHECK int nbd_client_send(struct nbd_client *client, const void *bytes, size_t len);
MUST_CHECK int nbd_client_receive(struct nbd_client *client, void *bytes, size_t len);
/* 0 when the server closes without another byte; -EPROTO when a byte comes. */
MUST_CHECK int nbd_client_expect_end(struct nbd_client *client);

/* ---- handshake ---- */

/* Read the greeting, answer with client flags. */
MUST_CHECK int nbd_client_greet(struct nbd_client *client, uint32_t flags);
MUST_CHECK int nbd_client_option(struct nbd_client *client, uint32_t option, const void *data,
				 uint32_t len);
MUST_CHECK int nbd_client_reply(struct nbd_client *client, struct nbd_client_reply *reply);
/* INFO or GO with all infos wanted; reads replies up to the ACK; -EPROTO when refused. */
MUST_CHECK int nbd_client_go(struct nbd_client *client, uint32_t option, const char *name);
/* LIST or SET_META_CONTEXT with one query (NULL: none); sent only. */
MUST_CHECK int nbd_client_contexts(struct nbd_client *client, uint32_t option, const char *name,
				   const char *query);
/* Connected -> transmission: what a modern client does. */
MUST_CHECK int nbd_client_start(struct nbd_client *client, const char *name, bool structured);

/* ---- transmission ---- */

MUST_CHECK int nbd_client_request(struct nbd_client *client, uint16_t type, uint16_t flags,
				  uint64_t cookie, uint64_t offset_bytes, uint32_t len_bytes);
/* data (room for data_bytes) takes what a read answers. */
MUST_CHECK int nbd_client_answer(struct nbd_client *client, struct nbd_client_answer *answer,
				 void *data, uint32_t data_bytes);
/* One request, one answer; 0, NBD's error number (positive), or -errno. */
MUST_CHECK int nbd_client_read(struct nbd_client *client, uint64_t offset_bytes, void *data,
			       uint32_t len_bytes);
MUST_CHECK int nbd_client_write(struct nbd_client *client, uint64_t offset_bytes, const void *data,
				uint32_t len_bytes, uint16_t flags);
/* FLUSH, TRIM, WRITE_ZEROES and what has no data. */
MUST_CHECK int nbd_client_simple(struct nbd_client *client, uint16_t type, uint16_t flags,
				 uint64_t offset_bytes, uint32_t len_bytes);

#endif

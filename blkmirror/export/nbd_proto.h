/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_proto.h - the NBD protocol on the wire: numbers and fixed layouts.
 *
 * Everything on the wire is big-endian.  be16, be32 and be64 are one-member structs
 * of bytes, so that a forgotten swap does not compile and no layout has padding or
 * an alignment of its own: a wire struct may be read at any address.
 *
 * A session, client to the right:
 *
 *	nbd_greeting                  ->
 *	                              <-  be32 client flags
 *	                              <-  nbd_option + data      (repeated)
 *	nbd_option_reply + data       ->                         (one or more for each)
 *	... until GO is acknowledged, or EXPORT_NAME answered by nbd_export_reply ...
 *	                              <-  nbd_wire_request [+ payload of a WRITE]
 *	nbd_simple_reply [+ data], or nbd_chunk + its payload   ->
 */
#ifndef BM_NBD_PROTO_H
#define BM_NBD_PROTO_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t bytes[2];
} be16;

typedef struct {
	uint8_t bytes[4];
} be32;

typedef struct {
	uint8_t bytes[8];
} be64;

static inline be16 be16_of(uint16_t value)
{
	be16 wire;

	value = htobe16(value);
	memcpy(wire.bytes, &value, sizeof(value));
	return wire;
}

static inline be32 be32_of(uint32_t value)
{
	be32 wire;

	value = htobe32(value);
	memcpy(wire.bytes, &value, sizeof(value));
	return wire;
}

static inline be64 be64_of(uint64_t value)
{
	be64 wire;

	value = htobe64(value);
	memcpy(wire.bytes, &value, sizeof(value));
	return wire;
}

static inline uint16_t be16_get(be16 wire)
{
	uint16_t value;

	memcpy(&value, wire.bytes, sizeof(value));
	return be16toh(value);
}

static inline uint32_t be32_get(be32 wire)
{
	uint32_t value;

	memcpy(&value, wire.bytes, sizeof(value));
	return be32toh(value);
}

static inline uint64_t be64_get(be64 wire)
{
	uint64_t value;

	memcpy(&value, wire.bytes, sizeof(value));
	return be64toh(value);
}

/* ---- handshake ---- */

#define NBD_MAGIC UINT64_C(0x4e42444d41474943)          /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)   /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

enum { NBD_FLAG_FIXED_NEWSTYLE = 1, NBD_FLAG_NO_ZEROES = 2 };   /* both directions */

struct nbd_greeting {
	be64 magic;
	be64 option_magic;
	be16 flags;
};
_Static_assert(sizeof(struct nbd_greeting) == 18, "greeting");

enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

struct nbd_option {
	be64 magic;
	be32 option;
	be32 len;
};
_Static_assert(sizeof(struct nbd_option) == 16, "option");

#define NBD_REP_ERROR(number) ((UINT32_C(1) << 31) + (number))
#define NBD_REP_ACK UINT32_C(1)
#define NBD_REP_SERVER UINT32_C(2)
#define NBD_REP_INFO UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR_UNSUP NBD_REP_ERROR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERROR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERROR(3)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERROR(6)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERROR(9)

struct nbd_option_reply {
	be64 magic;
	be32 option;
	be32 type;
	be32 len;
};
_Static_assert(sizeof(struct nbd_option_reply) == 20, "option reply");

enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

struct nbd_info_export {
	be16 type;
	be64 size_bytes;
	be16 flags;
};
_Static_assert(sizeof(struct nbd_info_export) == 12, "info export");

struct nbd_info_block_size {
	be16 type;
	be32 minimum_bytes;
	be32 preferred_bytes;
	be32 maximum_bytes;
};
_Static_assert(sizeof(struct nbd_info_block_size) == 14, "info block size");

/* The answer to EXPORT_NAME; the zeroes are left out under NO_ZEROES. */
#define NBD_EXPORT_REPLY_ZEROES 124
struct nbd_export_reply {
	be64 size_bytes;
	be16 flags;
	uint8_t zeroes[NBD_EXPORT_REPLY_ZEROES];
};
_Static_assert(sizeof(struct nbd_export_reply) == 134, "export reply");

/* ---- transmission ---- */

enum nbd_transmission_flags {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
};

#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC UINT32_C(0x668e33ef)

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_cmd_flags {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

struct nbd_wire_request {
	be32 magic;
	be16 flags;
	be16 type;
	be64 cookie;
	be64 offset_bytes;
	be32 len_bytes;
};
_Static_assert(sizeof(struct nbd_wire_request) == 28, "request");
_Static_assert(offsetof(struct nbd_wire_request, offset_bytes) == 16, "request");

struct nbd_simple_reply {
	be32 magic;
	be32 error;
	be64 cookie;
};
_Static_assert(sizeof(struct nbd_simple_reply) == 16, "simple reply");

enum { NBD_CHUNK_FLAG_DONE = 1 };
enum nbd_chunk_type {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_OFFSET_DATA = 1,
	NBD_CHUNK_OFFSET_HOLE = 2,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
	NBD_CHUNK_ERROR_OFFSET = 0x8002,
};

struct nbd_chunk {
	be32 magic;
	be16 flags;
	be16 type;
	be64 cookie;
	be32 len_bytes;
};
_Static_assert(sizeof(struct nbd_chunk) == 20, "chunk");

struct nbd_chunk_data {
	struct nbd_chunk chunk;
	be64 offset_bytes;
};
_Static_assert(sizeof(struct nbd_chunk_data) == 28, "data chunk");

/* An error chunk without a text; ERROR ends before offset_bytes. */
struct nbd_chunk_error {
	struct nbd_chunk chunk;
	be32 error;
	be16 text_len;
	be64 offset_bytes;
};
_Static_assert(sizeof(struct nbd_chunk_error) == 34, "error chunk");
_Static_assert(offsetof(struct nbd_chunk_error, offset_bytes) == 26, "error chunk");

struct nbd_wire_extent {
	be32 len_bytes;
	be32 flags;
};
_Static_assert(sizeof(struct nbd_wire_extent) == 8, "extent");

enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };        /* base:allocation */

enum nbd_error {
	NBD_OK = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* wire_format.c - data frames.  Lines of JSON are in wire_message.c. */
#include "vmotion/wire_format.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#define XXH3_64bits_withSeed_dispatch XXH3_64bits_withSeed
#endif

enum {
	AT_MAGIC = 0,
	AT_TYPE = 4,
	AT_FLAGS = 5,
	AT_CHANNEL = 6,
	AT_EPOCH = 8,
	AT_OBJECT = 12,
	AT_SEQUENCE = 16,
	AT_OFFSET = 24,
	AT_LENGTH = 32,
	AT_WIRE = 36,
	AT_PAYLOAD_HASH = 40,
	AT_RESERVED = 48,
	AT_HEADER_HASH = 56,
};
_Static_assert(AT_HEADER_HASH + sizeof(uint64_t) == WIRE_FRAME_BYTES, "format v1");

/* ---- numbers as they stand on the wire ---- */

static void put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* ---- what each type may say ---- */

enum payload_rule {
	PAYLOAD_NONE,                   /* wire 0 */
	PAYLOAD_WHOLE,                  /* wire == length, not 0 */
	PAYLOAD_SMALLER,                /* 0 < wire < length */
	PAYLOAD_FREE,                   /* 0 < wire, any length */
	PAYLOAD_ANY,                    /* wire may be 0 too */
};

static const struct {
	const char *name;
	enum payload_rule payload;
	bool needs_length;              /* length 0 says nothing */
	bool bare;                      /* object, offset, length are 0 */
} rules[WIRE_FRAME_TYPE_COUNT] = {
	[WIRE_FRAME_NONE] = { "none", PAYLOAD_NONE, false, false },
	[WIRE_FRAME_IDLE] = { "idle", PAYLOAD_NONE, false, true },
	[WIRE_FRAME_RAW] = { "raw", PAYLOAD_WHOLE, true, false },
	[WIRE_FRAME_ZERO] = { "zero", PAYLOAD_NONE, true, false },
	[WIRE_FRAME_DELTA] = { "delta", PAYLOAD_FREE, true, false },
	[WIRE_FRAME_LZ4] = { "lz4", PAYLOAD_SMALLER, true, false },
	[WIRE_FRAME_ZSTD] = { "zstd", PAYLOAD_SMALLER, true, false },
	[WIRE_FRAME_BATCH] = { "batch", PAYLOAD_FREE, true, false },
	[WIRE_FRAME_STATE] = { "state", PAYLOAD_WHOLE, true, false },
	[WIRE_FRAME_END] = { "end", PAYLOAD_NONE, false, false },
	[WIRE_FRAME_REPLY] = { "reply", PAYLOAD_ANY, false, false },
};

const char *wire_frame_type_name(enum wire_frame_type type)
{
	return (unsigned)type < WIRE_FRAME_TYPE_COUNT ? rules[type].name : "unknown";
}

static bool payload_fits(const struct wire_frame *frame)
{
	switch (rules[frame->type].payload) {
	case PAYLOAD_NONE:
		return frame->wire_bytes == 0;
	case PAYLOAD_WHOLE:
		return frame->wire_bytes == frame->length_bytes;
	case PAYLOAD_SMALLER:
		return frame->wire_bytes > 0 && frame->wire_bytes < frame->length_bytes;
	case PAYLOAD_FREE:
		return frame->wire_bytes > 0;
	case PAYLOAD_ANY:
		return true;
	}
	return false;
}

/* Everything but damage; both sides of the wire hold to it. */
static bool frame_is_allowed(const struct wire_frame *frame)
{
	if (frame->type <= WIRE_FRAME_NONE || frame->type >= WIRE_FRAME_TYPE_COUNT)
		return false;
	if (frame->channel >= WIRE_CHANNELS_MAX || frame->epoch == 0 || frame->sequence == 0)
		return false;
	if (frame->wire_bytes > WIRE_PAYLOAD_MAX_BYTES || !payload_fits(frame))
		return false;
	if (rules[frame->type].needs_length && frame->length_bytes == 0)
		return false;
	if (rules[frame->type].bare &&
	    (frame->flags || frame->object || frame->offset_bytes || frame->length_bytes))
		return false;
	return frame->offset_bytes <= WIRE_OBJECT_MAX_BYTES - frame->length_bytes;
}

/* ---- encode and decode ---- */

uint64_t wire_hash(const void *bytes, size_t count, uint64_t seed)
{
	return XXH3_64bits_withSeed_dispatch(count ? bytes : "", count, seed);
}

void wire_frame_encode(const struct wire_frame *frame, const void *payload, uint64_t seed,
		       uint8_t header[WIRE_FRAME_BYTES])
{
	CHECK(frame_is_allowed(frame));
	memset(header, 0, WIRE_FRAME_BYTES);
	put32(header + AT_MAGIC, WIRE_FRAME_MAGIC);
	header[AT_TYPE] = (uint8_t)frame->type;
	header[AT_FLAGS] = frame->flags;
	put16(header + AT_CHANNEL, frame->channel);
	put32(header + AT_EPOCH, frame->epoch);
	put32(header + AT_OBJECT, frame->object);
	put64(header + AT_SEQUENCE, frame->sequence);
	put64(header + AT_OFFSET, frame->offset_bytes);
	put32(header + AT_LENGTH, frame->length_bytes);
	put32(header + AT_WIRE, frame->wire_bytes);
	put64(header + AT_PAYLOAD_HASH, wire_hash(payload, frame->wire_bytes, seed));
	put64(header + AT_HEADER_HASH, wire_hash(header, AT_HEADER_HASH, seed));
}

int wire_frame_decode(const uint8_t header[WIRE_FRAME_BYTES], uint64_t seed, struct wire_frame *out)
{
	struct wire_frame frame;

	if (get32(header + AT_MAGIC) != WIRE_FRAME_MAGIC)
		return -EBADMSG;
	if (get64(header + AT_HEADER_HASH) != wire_hash(header, AT_HEADER_HASH, seed))
		return -EBADMSG;
	if (get64(header + AT_RESERVED) != 0)
		return -EPROTO;
	frame = (struct wire_frame){
		.type = (enum wire_frame_type)header[AT_TYPE],
		.flags = header[AT_FLAGS],
		.channel = get16(header + AT_CHANNEL),
		.epoch = get32(header + AT_EPOCH),
		.object = get32(header + AT_OBJECT),
		.sequence = get64(header + AT_SEQUENCE),
		.offset_bytes = get64(header + AT_OFFSET),
		.length_bytes = get32(header + AT_LENGTH),
		.wire_bytes = get32(header + AT_WIRE),
		.payload_hash = get64(header + AT_PAYLOAD_HASH),
	};
	if (!frame_is_allowed(&frame))
		return -EPROTO;
	*out = frame;
	return 0;
}

int wire_payload_check(const struct wire_frame *frame, const void *payload, uint64_t seed)
{
	return wire_hash(payload, frame->wire_bytes, seed) == frame->payload_hash ? 0 : -EBADMSG;
}

bool wire_secret_equal(const uint8_t a[WIRE_SECRET_BYTES], const uint8_t b[WIRE_SECRET_BYTES])
{
	unsigned differ = 0;

	for (unsigned i = 0; i < WIRE_SECRET_BYTES; i++)
		differ |= a[i] ^ b[i];
	return differ == 0;
}

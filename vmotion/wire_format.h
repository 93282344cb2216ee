/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_format.h - what two daemons say to each other, as bytes: blkmirror-wire(7).
 *
 * Pure: no I/O, no clock, no state but what is passed in.  Everything a peer sends is hostile
 * until one of these functions has judged it; what they give is within the bounds below, and
 * nothing is allocated whose size a peer chose beyond them.
 *
 * A connection begins with one line of JSON from each side, the hello.  Then
 *
 *   the control connection carries lines:   {"seq":7,"type":"ping", ...}\n
 *   a data connection carries frames:       header (64 bytes), payload (wire_bytes of it)
 *
 *      0        4     5     6      8        12       16            24
 *      +--------+-----+-----+------+--------+--------+-------------+
 *      | magic  |type |flags|chann.| epoch  | object |  sequence   |
 *      +--------+-----+-----+------+--------+--------+-------------+
 *      | offset_bytes       | length |  wire  | payload hash        |
 *      +--------------------+--------+--------+----------+----------+
 *      | reserved (0)       | header hash     |   24 .. 32 .. 36 .. 40 .. 48 .. 56 .. 64
 *      +--------------------+-----------------+
 *
 * Numbers are little-endian.  Both hashes are XXH3-64 with the session's seed, so that a frame
 * of another session does not fit.  They find damage and mistakes; who sends is TLS's business.
 *
 * Errors: 0 or -errno; -EBADMSG: damaged, -EPROTO: not what the protocol allows, -EMSGSIZE: too
 * large, -EPROTONOSUPPORT: another version.
 * Threading: stateless, any thread.
 */
#ifndef BM_WIRE_FORMAT_H
#define BM_WIRE_FORMAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/uuid.h"

#define WIRE_VERSION 1u                 /* the newest we speak */
#define WIRE_VERSION_OLDEST 1u          /* and the oldest */

#define WIRE_HELLO_MAX_BYTES 4096u      /* its line, without the newline */
#define WIRE_LINE_MAX_BYTES 65536u      /* a control line, without the newline */
#define WIRE_LINE_DEPTH_MAX 16u         /* of nested objects and arrays */
#define WIRE_TYPE_MAX_BYTES 32u         /* a control message's type: a-z, 0-9, _ */
#define WIRE_CHANNELS_MAX 32u
#define WIRE_PAYLOAD_MAX_BYTES (UINT32_C(1) << 20)
#define WIRE_OBJECT_MAX_BYTES (UINT64_C(1) << 62)       /* no offset + length goes beyond */
#define WIRE_SECRET_BYTES 16u
#define WIRE_SECRET_TEXT_BYTES 33u      /* as lower-case hexadecimal digits, and a NUL */

/* ---- data frames ---- */

#define WIRE_FRAME_BYTES 64u
#define WIRE_FRAME_MAGIC UINT32_C(0x57464d42)   /* "BMFW" as bytes */

enum wire_frame_type {
	WIRE_FRAME_NONE = 0,            /* never sent */
	WIRE_FRAME_IDLE,                /* keep-alive: every field but sequence 0, not delivered */
	WIRE_FRAME_RAW,                 /* payload: the object's bytes; wire == length */
	WIRE_FRAME_ZERO,                /* length bytes are zero; no payload */
	WIRE_FRAME_DELTA,               /* payload: a delta against what the receiver has */
	WIRE_FRAME_LZ4,                 /* payload: compressed; wire < length */
	WIRE_FRAME_ZSTD,
	WIRE_FRAME_BATCH,               /* payload: several pieces in the engine's own encoding */
	WIRE_FRAME_STATE,               /* payload: a piece of a stream (device state); wire == length */
	WIRE_FRAME_END,                 /* marker: everything before it on this channel was sent */
	WIRE_FRAME_REPLY,               /* answer of the receiver; payload optional */
	WIRE_FRAME_TYPE_COUNT
};

struct wire_frame {
	enum wire_frame_type type;
	uint8_t flags;                  /* the engine's: a round, an encoding; not judged here */
	uint16_t channel;               /* below WIRE_CHANNELS_MAX */
	uint32_t epoch;                 /* of the channel's connection, from 1 */
	uint32_t object;                /* a block of RAM, a disk: agreed by control messages */
	uint64_t sequence;              /* per channel and epoch and direction, from 1, without gaps */
	uint64_t offset_bytes;          /* in the object */
	uint32_t length_bytes;          /* of the object that the frame is about */
	uint32_t wire_bytes;            /* of payload that follow the header */
	uint64_t payload_hash;          /* set by wire_frame_encode(); judged by wire_payload_check() */
};

/*
 * Write the header of a frame whose payload (frame->wire_bytes, may be NULL when 0) lies ready.
 * The frame must be one that wire_frame_decode() takes: CHECKed, it is our own.
 */
void wire_frame_encode(const struct wire_frame *frame, const void *payload, uint64_t seed,
		       uint8_t header[WIRE_FRAME_BYTES]);

/* Judge a header: 0 and *out, or -EBADMSG (damaged, or of another session), -EPROTO (not allowed). */
MUST_CHECK int wire_frame_decode(const uint8_t header[WIRE_FRAME_BYTES], uint64_t seed,
				 struct wire_frame *out);

/* Is the payload the one that was sent?  0 or -EBADMSG. */
MUST_CHECK int wire_payload_check(const struct wire_frame *frame, const void *payload,
				  uint64_t seed);

/* The hash of both: XXH3-64 of bytes (NULL when 0) with the session's seed. */
uint64_t wire_hash(const void *bytes, size_t count, uint64_t seed);

const char *wire_frame_type_name(enum wire_frame_type type);

/* ---- control lines ---- */

/*
 * The line of a message, newline included (gives: free()), its "seq" and "type" set.  message is
 * borrowed and left as it is; NULL: no other members.  -EMSGSIZE: beyond the bound; -EINVAL: type
 * is no type; -ENOMEM.
 */
MUST_CHECK int wire_line_encode(uint64_t sequence, const char *type, const json_t *message,
				char **line, size_t *line_bytes);

struct wire_line {
	uint64_t sequence;
	char type[WIRE_TYPE_MAX_BYTES + 1];
	json_t *message;                /* the whole object; owned */
};

/* Judge a line (without its newline).  0 and *out (release with json_decref(out->message)). */
MUST_CHECK int wire_line_decode(const char *text, size_t text_bytes, struct wire_line *out);

/*
 * Members of a message, judged: 0, or -EPROTO when it is missing, of another type or beyond max.
 * The text is borrowed from the message.
 */
MUST_CHECK int wire_get_uint(const json_t *message, const char *key, uint64_t max, uint64_t *out);
MUST_CHECK int wire_get_text(const json_t *message, const char *key, size_t max_bytes,
			     const char **out);
MUST_CHECK int wire_get_secret(const json_t *message, const char *key,
			       uint8_t out[WIRE_SECRET_BYTES]);

/* ---- hello ---- */

enum wire_role { WIRE_CONTROL = 1, WIRE_DATA };

/* What the one who dialled says first. */
struct wire_hello {
	uint32_t version, oldest;
	enum wire_role role;
	struct uuid host;               /* claimed; the key proves it, not this */
	char software[32];              /* "0.1.0" */
	/* a data connection: which it is, and the secret that was given for it, once */
	uint8_t session[WIRE_SECRET_BYTES];
	uint32_t channel, epoch;
	uint8_t token[WIRE_SECRET_BYTES];
};

/* What the other answers: welcome, or why not. */
struct wire_welcome {
	uint32_t version, oldest;
	struct uuid host;
	char software[32];
	uint8_t session[WIRE_SECRET_BYTES];     /* control only */
	uint64_t seed;                          /* control only */
	bool plain_data;                        /* data connections go without encryption */
	bool refused;
	struct err why;                         /* when refused; a known id or ERR_HOST_REFUSED */
};

/* Lines with newline, into text.  Return their length. */
size_t wire_hello_encode(const struct wire_hello *hello, char text[WIRE_HELLO_MAX_BYTES + 2]);
size_t wire_welcome_encode(const struct wire_welcome *welcome,
			   char text[WIRE_HELLO_MAX_BYTES + 2]);

/* Lines without newline.  A hello of a version that we do not speak: -EPROTONOSUPPORT, *out has both. */
MUST_CHECK int wire_hello_decode(const char *text, size_t text_bytes, struct wire_hello *out);
MUST_CHECK int wire_welcome_decode(const char *text, size_t text_bytes, struct wire_welcome *out);

/* The newest version both sides speak; 0: none. */
uint32_t wire_version_agree(uint32_t their_newest, uint32_t their_oldest);

char *wire_secret_format(const uint8_t secret[WIRE_SECRET_BYTES],
			 char text[WIRE_SECRET_TEXT_BYTES]);
/* In constant time. */
bool wire_secret_equal(const uint8_t a[WIRE_SECRET_BYTES], const uint8_t b[WIRE_SECRET_BYTES]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire_format.c - frames, lines and hellos: round trips, bounds, every flipped bit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmotion/wire_format.h"

#define SEED UINT64_C(0x0123456789abcdef)

static const struct wire_frame good = {
	.type = WIRE_FRAME_RAW, .flags = 3, .channel = 5, .epoch = 2, .object = 7, .sequence = 9,
	.offset_bytes = UINT64_C(0x123456789000), .length_bytes = 16, .wire_bytes = 16,
};
static const char payload[16] = "sixteen bytes ok";

static int encode_decode(struct wire_frame frame, const void *bytes, struct wire_frame *out)
{
	uint8_t header[WIRE_FRAME_BYTES];

	wire_frame_encode(&frame, bytes, SEED, header);
	return wire_frame_decode(header, SEED, out);
}

static void test_frame_round_trip(void **unused)
{
	struct wire_frame out;

	(void)unused;
	assert_int_equal(encode_decode(good, payload, &out), 0);
	assert_int_equal(out.type, good.type);
	assert_int_equal(out.flags, good.flags);
	assert_int_equal(out.channel, good.channel);
	assert_int_equal(out.epoch, good.epoch);
	assert_int_equal(out.object, good.object);
	assert_true(out.sequence == good.sequence);
	assert_true(out.offset_bytes == good.offset_bytes);
	assert_int_equal(out.length_bytes, 16);
	assert_int_equal(out.wire_bytes, 16);
	assert_int_equal(wire_payload_check(&out, payload, SEED), 0);
	assert_int_equal(wire_payload_check(&out, payload, SEED + 1), -EBADMSG);
	assert_int_equal(wire_payload_check(&out, "sixteen bytes OK", SEED), -EBADMSG);
}

/* The bytes of a frame as another implementation would write them: the format does not drift. */
static void test_frame_layout(void **unused)
{
	static const uint8_t begin[48 - 8] = {
		'B', 'M', 'F', 'W', 2, 3, 5, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
		0x00, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0,
	};
	uint8_t header[WIRE_FRAME_BYTES];

	(void)unused;
	wire_frame_encode(&good, payload, SEED, header);
	assert_memory_equal(header, begin, sizeof(begin));
}

static void test_frame_damage(void **unused)
{
	uint8_t header[WIRE_FRAME_BYTES];
	struct wire_frame out;

	(void)unused;
	wire_frame_encode(&good, payload, SEED, header);
	assert_int_equal(wire_frame_decode(header, SEED + 1, &out), -EBADMSG);
	for (unsigned bit = 0; bit < 8 * WIRE_FRAME_BYTES; bit++) {
		header[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(wire_frame_decode(header, SEED, &out), -EBADMSG);
		header[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(wire_frame_decode(header, SEED, &out), 0);
}

/* A peer that seals what it should not say. */
static int decode_sealed(struct wire_frame frame)
{
	/* The header is built by hand, as wire_frame_encode() refuses to. */
	uint8_t header[WIRE_FRAME_BYTES];
	struct wire_frame model = good, out;
	uint64_t seal;

	wire_frame_encode(&model, payload, SEED, header);
	header[4] = (uint8_t)frame.type;
	memcpy(header + 6, &frame.channel, 2);
	memcpy(header + 8, &frame.epoch, 4);
	memcpy(header + 16, &frame.sequence, 8);
	memcpy(header + 24, &frame.offset_bytes, 8);
	memcpy(header + 32, &frame.length_bytes, 4);
	memcpy(header + 36, &frame.wire_bytes, 4);
	seal = wire_hash(header, 56, SEED);
	memcpy(header + 56, &seal, 8);
	return wire_frame_decode(header, SEED, &out);
}

static void test_frame_bounds(void **unused)
{
	struct wire_frame frame;

	(void)unused;
	assert_int_equal(decode_sealed(good), 0);
	frame = good, frame.type = WIRE_FRAME_NONE;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.type = WIRE_FRAME_TYPE_COUNT;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.channel = WIRE_CHANNELS_MAX;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.epoch = 0;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.sequence = 0;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.wire_bytes = frame.length_bytes = WIRE_PAYLOAD_MAX_BYTES + 1;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.wire_bytes = 15;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.wire_bytes = frame.length_bytes = 0;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.offset_bytes = WIRE_OBJECT_MAX_BYTES - 15;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.offset_bytes = UINT64_MAX;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.type = WIRE_FRAME_ZERO;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame.wire_bytes = 0, frame.length_bytes = UINT32_MAX;
	assert_int_equal(decode_sealed(frame), 0);
	frame = good, frame.type = WIRE_FRAME_LZ4;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame.length_bytes = 17;
	assert_int_equal(decode_sealed(frame), 0);
	frame = good, frame.type = WIRE_FRAME_IDLE;
	assert_int_equal(decode_sealed(frame), -EPROTO);
	frame = good, frame.type = WIRE_FRAME_END;
	assert_int_equal(decode_sealed(frame), -EPROTO);
}

/* ---- lines ---- */

static void test_line_round_trip(void **unused)
{
	json_t *message = json_pack("{s:i, s:s}", "round", 3, "text", "a\nb");
	struct wire_line out;
	uint64_t number;
	const char *text;
	char *line;
	size_t bytes;

	(void)unused;
	assert_int_equal(wire_line_encode(17, "round_end", message, &line, &bytes), 0);
	assert_null(json_object_get(message, "seq"));
	assert_int_equal(line[bytes - 1], '\n');
	assert_null(memchr(line, '\n', bytes - 1));
	assert_int_equal(wire_line_decode(line, bytes - 1, &out), 0);
	assert_true(out.sequence == 17);
	assert_string_equal(out.type, "round_end");
	assert_int_equal(wire_get_uint(out.message, "round", 3, &number), 0);
	assert_int_equal(wire_get_uint(out.message, "round", 2, &number), -EPROTO);
	assert_int_equal(wire_get_uint(out.message, "text", 2, &number), -EPROTO);
	assert_int_equal(wire_get_uint(out.message, "none", 2, &number), -EPROTO);
	assert_int_equal(wire_get_text(out.message, "text", 3, &text), 0);
	assert_int_equal(wire_get_text(out.message, "text", 2, &text), -EPROTO);
	json_decref(out.message);
	json_decref(message);
	free(line);
	assert_int_equal(wire_line_encode(1, "Bad", NULL, &line, &bytes), -EINVAL);
	assert_int_equal(wire_line_encode(1, "", NULL, &line, &bytes), -EINVAL);
}

static void test_line_too_long(void **unused)
{
	char *filler = malloc(WIRE_LINE_MAX_BYTES + 1), *line;
	struct wire_line out;
	json_t *message;
	size_t bytes;

	(void)unused;
	memset(filler, 'x', WIRE_LINE_MAX_BYTES);
	filler[WIRE_LINE_MAX_BYTES] = '\0';
	message = json_pack("{s:s}", "text", filler);
	assert_int_equal(wire_line_encode(1, "a", message, &line, &bytes), -EMSGSIZE);
	assert_int_equal(wire_line_decode(filler, WIRE_LINE_MAX_BYTES + 1, &out), -EMSGSIZE);
	json_decref(message);
	free(filler);
}

static void test_line_refused(void **unused)
{
	static const char *const bad[] = {
		"", "{", "[]", "7", "{\"seq\":1}", "{\"type\":\"a\"}", "{\"seq\":0,\"type\":\"a\"}",
		"{\"seq\":-1,\"type\":\"a\"}", "{\"seq\":1.5,\"type\":\"a\"}",
		"{\"seq\":1,\"type\":\"A\"}", "{\"seq\":1,\"type\":\"\"}", "{\"seq\":1,\"type\":7}",
		"{\"seq\":1,\"seq\":2,\"type\":\"a\"}", "{\"seq\":1,\"type\":\"a\"} x",
		"{\"seq\":1,\"type\":\"a\",\"b\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}",
		"{\"seq\":1,\"type\":\"a\",\"b\":\"\xff\"}",
		"{\"seq\":1,\"type\":\"abcdefghijklmnopqrstuvwxyzabcdefg\"}",
	};
	struct wire_line out;

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(wire_line_decode(bad[i], strlen(bad[i]), &out), -EPROTO);
}

/* ---- hello ---- */

static const struct wire_hello hello = {
	.version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST, .role = WIRE_DATA,
	.host = { { 1, 2, 3 } }, .software = "0.1.0", .session = { 4, 5 }, .channel = 6, .epoch = 7,
	.token = { 8, 9 },
};

static void test_hello(void **unused)
{
	char text[WIRE_HELLO_MAX_BYTES + 2];
	struct wire_hello out, control = hello;
	size_t bytes = wire_hello_encode(&hello, text);

	(void)unused;
	assert_int_equal(text[bytes - 1], '\n');
	assert_int_equal(wire_hello_decode(text, bytes - 1, &out), 0);
	assert_memory_equal(&out, &hello, sizeof(out));
	control.role = WIRE_CONTROL;
	bytes = wire_hello_encode(&control, text);
	assert_int_equal(wire_hello_decode(text, bytes - 1, &out), 0);
	assert_int_equal(out.role, WIRE_CONTROL);
	assert_int_equal(out.epoch, 0);
}

static int hello_decode_text(const char *text)
{
	struct wire_hello out;

	return wire_hello_decode(text, strlen(text), &out);
}

static void test_hello_refused(void **unused)
{
#define IDENTITY "\"host\":\"01020300-0000-0000-0000-000000000000\",\"software\":\"x\""
	(void)unused;
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":1," IDENTITY
					   ",\"role\":\"control\"}"), 0);
	/* A newer one that still speaks ours is welcome; one that does not is told so. */
	assert_int_equal(hello_decode_text("{\"blkmirror\":9,\"oldest\":1," IDENTITY
					   ",\"role\":\"control\"}"), 0);
	assert_int_equal(hello_decode_text("{\"blkmirror\":9,\"oldest\":2}"), -EPROTONOSUPPORT);
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":2," IDENTITY
					   ",\"role\":\"control\"}"), -EPROTO);
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":0," IDENTITY
					   ",\"role\":\"control\"}"), -EPROTO);
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":1," IDENTITY
					   ",\"role\":\"king\"}"), -EPROTO);
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":1," IDENTITY
					   ",\"role\":\"data\"}"), -EPROTO);
	assert_int_equal(hello_decode_text("{\"blkmirror\":1,\"oldest\":1,\"host\":\"me\"}"),
			 -EPROTO);
	assert_int_equal(hello_decode_text("GET / HTTP/1.1"), -EPROTO);
	assert_int_equal(wire_version_agree(0, 0), 0);
	assert_int_equal(wire_version_agree(WIRE_VERSION + 4, WIRE_VERSION + 1), 0);
	assert_int_equal(wire_version_agree(WIRE_VERSION + 4, 1), WIRE_VERSION);
}

static void test_welcome(void **unused)
{
	struct wire_welcome welcome = { .version = 1, .oldest = 1, .host = { { 3 } },
					.software = "0.1.0", .session = { 7 },
					.seed = UINT64_C(0xfedcba9876543210), .plain_data = true };
	char text[WIRE_HELLO_MAX_BYTES + 2];
	struct wire_welcome out;
	size_t bytes = wire_welcome_encode(&welcome, text);

	(void)unused;
	assert_int_equal(wire_welcome_decode(text, bytes - 1, &out), 0);
	assert_memory_equal(out.session, welcome.session, sizeof(out.session));
	assert_true(out.seed == welcome.seed);
	assert_true(out.plain_data);
	assert_false(out.refused);
	welcome.refused = true;
	err_set(&welcome.why, ERR_HOST_REFUSED, 0, "not today");
	bytes = wire_welcome_encode(&welcome, text);
	assert_int_equal(wire_welcome_decode(text, bytes - 1, &out), 0);
	assert_true(out.refused);
	assert_int_equal(out.why.id, ERR_HOST_REFUSED);
	assert_string_equal(out.why.cause, "not today");
	err_set(&welcome.why, ERR_HOST_REFUSED, 0, "a\033[2Jb\x7f" "c\302\233d");
	bytes = wire_welcome_encode(&welcome, text);
	assert_int_equal(wire_welcome_decode(text, bytes - 1, &out), 0);
	assert_string_equal(out.why.cause, "a?[2Jb?c??d");
	/* The worst that a sentence can become in JSON still fits the line. */
	memset(welcome.why.cause, 1, sizeof(welcome.why.cause) - 1);
	bytes = wire_welcome_encode(&welcome, text);
	assert_int_equal(wire_welcome_decode(text, bytes - 1, &out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_round_trip), cmocka_unit_test(test_frame_layout),
		cmocka_unit_test(test_frame_damage), cmocka_unit_test(test_frame_bounds),
		cmocka_unit_test(test_line_round_trip), cmocka_unit_test(test_line_too_long),
		cmocka_unit_test(test_line_refused), cmocka_unit_test(test_hello),
		cmocka_unit_test(test_hello_refused), cmocka_unit_test(test_welcome),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

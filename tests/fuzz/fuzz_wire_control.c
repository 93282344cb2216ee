/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_wire_control.c - lines of a peer: refused, or read the same after being written again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmotion/wire_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_line(const char *text, size_t size)
{
	struct wire_line line, again;
	size_t bytes;
	char *out;

	if (wire_line_decode(text, size, &line))
		return;
	/* What is escaped may be longer than it came. */
	if (wire_line_encode(line.sequence, line.type, line.message, &out, &bytes) == 0) {
		CHECK(wire_line_decode(out, bytes - 1, &again) == 0);
		CHECK(again.sequence == line.sequence);
		CHECK(strcmp(again.type, line.type) == 0);
		CHECK(json_equal(again.message, line.message));
		json_decref(again.message);
		free(out);
	}
	json_decref(line.message);
}

static void try_hello(const char *text, size_t size)
{
	char out[WIRE_HELLO_MAX_BYTES + 2];
	struct wire_hello hello, again;

	if (wire_hello_decode(text, size, &hello))
		return;
	CHECK(wire_version_agree(hello.version, hello.oldest) != 0);
	CHECK(wire_hello_decode(out, wire_hello_encode(&hello, out) - 1, &again) == 0);
	CHECK(again.role == hello.role);
	CHECK(again.channel == hello.channel);
	CHECK(again.epoch == hello.epoch);
}

static void try_welcome(const char *text, size_t size)
{
	char out[WIRE_HELLO_MAX_BYTES + 2];
	struct wire_welcome welcome, again;

	if (wire_welcome_decode(text, size, &welcome))
		return;
	CHECK(wire_welcome_decode(out, wire_welcome_encode(&welcome, out) - 1, &again) == 0);
	CHECK(again.refused == welcome.refused);
	CHECK(again.seed == welcome.seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_line((const char *)data, size);
	try_hello((const char *)data, size);
	try_welcome((const char *)data, size);
	return 0;
}

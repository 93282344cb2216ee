/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_wire_frame.c - frames of a peer that knows the seed: refused, or within every bound.
 *
 * The input is a header and its payload; the header's hash is set right, else nothing would pass.
 */
#include <stdint.h>
#include <string.h>

#include "vmotion/wire_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[WIRE_FRAME_BYTES] = { 0 }, again[WIRE_FRAME_BYTES];
	struct wire_frame frame;
	uint64_t seal;

	if (size < sizeof(header))
		return 0;
	memcpy(header, data, sizeof(header));
	(void)!wire_frame_decode(header, 1, &frame);
	seal = wire_hash(header, WIRE_FRAME_BYTES - sizeof(seal), 1);
	memcpy(header + WIRE_FRAME_BYTES - sizeof(seal), &seal, sizeof(seal));
	if (wire_frame_decode(header, 1, &frame))
		return 0;
	CHECK(frame.channel < WIRE_CHANNELS_MAX);
	CHECK(frame.wire_bytes <= WIRE_PAYLOAD_MAX_BYTES);
	CHECK(frame.offset_bytes + frame.length_bytes <= WIRE_OBJECT_MAX_BYTES);
	if (frame.wire_bytes > size - sizeof(header) ||
	    wire_payload_check(&frame, data + sizeof(header), 1))
		return 0;
	wire_frame_encode(&frame, data + sizeof(header), 1, again);
	CHECK(memcmp(header, again, sizeof(header)) == 0);
	return 0;
}

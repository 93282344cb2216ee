/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_nbd_requests.c - input: a byte of options, how many bytes to send per turn (in units
 * of 7: headers are cut everywhere), then requests, behind a handshake that is in order.
 */
#include <errno.h>

#include "tests/lib/nbd_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define GO "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0"

static const uint8_t plain[] = "\0\0\0\3" GO;
static const uint8_t structured[] =
	"\0\0\0\3"
	"IHAVEOPT\0\0\0\x8\0\0\0\0"
	"IHAVEOPT\0\0\0\xa\0\0\0\x1b\0\0\0\0\0\0\0\1\0\0\0\xf" "base:allocation"
	GO;

enum { OPTION_STRUCTURED = 1, OPTION_DEVICE_FAILS = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_fuzz_input input = { 0 };

	if (size < 2)
		return 0;
	input.prefix = data[0] & OPTION_STRUCTURED ? structured : plain;
	input.prefix_len = (data[0] & OPTION_STRUCTURED ? sizeof(structured) : sizeof(plain)) - 1;
	input.device_rc = data[0] & OPTION_DEVICE_FAILS ? -EIO : 0;
	input.piece_bytes = data[1] * (size_t)7;
	input.bytes = data + 2;
	input.len = size - 2;
	nbd_fuzz_run(&input);
	return 0;
}

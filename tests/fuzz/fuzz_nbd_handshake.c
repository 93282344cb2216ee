/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_nbd_handshake.c - input: how many bytes to send per turn, then a client's whole stream. */
#include "tests/lib/nbd_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_fuzz_input input = { 0 };

	if (size < 1)
		return 0;
	input.piece_bytes = data[0];
	input.bytes = data + 1;
	input.len = size - 1;
	nbd_fuzz_run(&input);
	return 0;
}

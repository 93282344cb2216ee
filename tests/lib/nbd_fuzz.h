/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_fuzz.h - one hostile client per input, against a server on a real loop.
 *
 * Loop, device and server are made once per process.  The client sends what it is told,
 * reads whatever comes, and half-closes when it has sent everything; the run ends when the
 * server has let go of it.  Then nothing may be in flight, held or leaked (CHECKed), and a
 * well-behaved client must still be served.
 */
#ifndef BM_TESTS_NBD_FUZZ_H
#define BM_TESTS_NBD_FUZZ_H

#include <stddef.h>
#include <stdint.h>

struct nbd_fuzz_input {
	const uint8_t *prefix;          /* sent at once, before the rest */
	size_t prefix_len;
	const uint8_t *bytes;
	size_t len;
	size_t piece_bytes;             /* sent per turn; 0: as much as goes */
	int device_rc;                  /* what the device answers: 0, or -errno */
};

void nbd_fuzz_run(const struct nbd_fuzz_input *input);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_fuzz.h - a vhost-user-blk server for fuzzers: made once, asked again and again.
 *
 * The server runs on a loop thread over a device in memory; the fuzzer is its front end.  After
 * each input vhost_fuzz_settle() waits until the server has forgotten it and CHECKs that nothing
 * is left, and that a front end in order is served.
 */
#ifndef BM_TESTS_VHOST_FUZZ_H
#define BM_TESTS_VHOST_FUZZ_H

#include "tests/lib/vhost_front.h"

#define VHOST_FUZZ_QUEUE_SIZE 64u

/* The front end, not connected; rings and data are zeroes. */
struct front *vhost_fuzz_front(void);
/* Where the server listens. */
const char *vhost_fuzz_path(void);
/* From now on the device fails with rc; 0: it does not. */
void vhost_fuzz_device(int rc);
/* The front end hangs up; returns when the server has forgotten it. */
void vhost_fuzz_hang_up(void);
/* The same at the end of an input, with the checks. */
void vhost_fuzz_settle(void);

#endif

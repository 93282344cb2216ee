/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uuid.h - random identities (RFC 4122, version 4) of disks, tasks and hosts.
 *
 * Threading: stateless, any thread.
 */
#ifndef BM_BASE_UUID_H
#define BM_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

#define UUID_BYTES 16
#define UUID_TEXT_BYTES 37              /* 36 characters and a NUL */

struct uuid {
	uint8_t bytes[UUID_BYTES];
};

/* A new one, from the kernel's random numbers. */
struct uuid uuid_random(void);

/* "f81d4fae-7dec-41d0-a765-00a0c91e6bf6"; returns text. */
char *uuid_format(const struct uuid *uuid, char text[UUID_TEXT_BYTES]);

/* Exactly 36 characters, either case, any version.  -EINVAL leaves *out alone. */
MUST_CHECK int uuid_parse(const char *text, struct uuid *out);

bool uuid_equal(const struct uuid *a, const struct uuid *b);

/* All zeroes: nobody's. */
bool uuid_is_null(const struct uuid *uuid);

#endif

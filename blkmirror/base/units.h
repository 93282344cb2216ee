/* SPDX-License-Identifier: Apache-2.0 */
/*
 * units.h - sizes, rates and times as people write and read them.
 *
 * Sizes:  a number and a unit, "4GiB", "1.5T", "500MB", "512B", one space between
 *         them allowed.  K M G T and KiB MiB GiB TiB are powers of 1024, KB MB GB TB
 *         powers of 1000.  A unit is required: "100" could mean anything.
 * Rates:  a size followed by "/s": "200MiB/s".  Zero is refused (it would be a copy
 *         that never ends); "none" is the caller's.
 * Times:  "us", "ms", "s", "min", "h": "100ms", "5s", "2min".
 *
 * Fractions are exact (no floating point) and rounded down to a whole byte or
 * nanosecond; at most 18 digits follow the point.  Refused with ERR_BAD_UNIT and
 * -EINVAL: no unit, an unknown one, a sign, an exponent, anything left over; with
 * -ERANGE: what does not fit below 2^63.  *out is left alone on an error.
 *
 * Threading: stateless, any thread; no locale.
 */
#ifndef BM_BASE_UNITS_H
#define BM_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

MUST_CHECK int units_parse_size(const char *text, uint64_t *bytes_out, struct err *err);
MUST_CHECK int units_parse_rate(const char *text, uint64_t *bytes_per_s_out, struct err *err);
MUST_CHECK int units_parse_time(const char *text, uint64_t *ns_out, struct err *err);

/* Long enough for any of the texts below. */
#define FORMAT_BYTES 32

/* All return `text`.  "0 B", "512 B", "1.50 GiB", "16.00 EiB". */
char *format_bytes(char text[FORMAT_BYTES], uint64_t bytes);
/* "1.50 GiB/s". */
char *format_rate(char text[FORMAT_BYTES], uint64_t bytes_per_s);
/* "350 us", "12 ms", "5.2 s", "1m 23s", "2h 5m", "3d 4h": two parts at most, rounded down. */
char *format_duration(char text[FORMAT_BYTES], uint64_t ns);

#endif

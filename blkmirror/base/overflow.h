/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overflow.h - arithmetic on sizes that came from outside, and rounding.
 *
 * The add/mul helpers return false on overflow and leave *out alone.
 * The rounding helpers take power-of-two alignments; round_up saturates nowhere,
 * so bound its input first (offsets here are below 2^63).
 */
#ifndef BM_BASE_OVERFLOW_H
#define BM_BASE_OVERFLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

static inline bool u64_add(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*out = sum;
	return true;
}

static inline bool u64_mul(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t product;

	if (__builtin_mul_overflow(a, b, &product))
		return false;
	*out = product;
	return true;
}

/* Is [offset, offset + len) inside [0, size)?  Safe for any input. */
static inline bool range_fits(uint64_t offset, uint64_t len, uint64_t size)
{
	return offset <= size && len <= size - offset;
}

static inline bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static inline uint64_t round_down(uint64_t value, uint64_t alignment)
{
	return value & ~(alignment - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t div_round_up(uint64_t value, uint64_t divisor)
{
	return value / divisor + (value % divisor != 0);
}

#endif

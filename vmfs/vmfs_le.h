/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_le.h - little-endian numbers at any address of a byte array.
 *
 * VMFS packs its structures, so many fields are unaligned: no struct is ever laid over
 * disk bytes, each field is read and written here, whatever the host's byte order is.
 */
#ifndef BM_VMFS_LE_H
#define BM_VMFS_LE_H

#include <stdint.h>

static inline uint8_t le8_get(const uint8_t *at)
{
	return at[0];
}

static inline uint16_t le16_get(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t le32_get(const uint8_t *at)
{
	return le16_get(at) | (uint32_t)le16_get(at + 2) << 16;
}

static inline uint64_t le64_get(const uint8_t *at)
{
	return le32_get(at) | (uint64_t)le32_get(at + 4) << 32;
}

static inline void le8_put(uint8_t *at, uint8_t value)
{
	at[0] = value;
}

static inline void le16_put(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static inline void le32_put(uint8_t *at, uint32_t value)
{
	le16_put(at, (uint16_t)value);
	le16_put(at + 2, (uint16_t)(value >> 16));
}

static inline void le64_put(uint8_t *at, uint64_t value)
{
	le32_put(at, (uint32_t)value);
	le32_put(at + 4, (uint32_t)(value >> 32));
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "vmfs/vmfs_format.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/check.h"
#include "vmfs/vmfs_le.h"

/* ---- decoders and encoders, from the lists of fields ---- */

#define DECODE_NUMBER(bits, name, offset) out->name = le##bits##_get(bytes + (offset));
#define DECODE_BYTES(count, name, offset) memcpy(out->name, bytes + (offset), count);
#define ENCODE_NUMBER(bits, name, offset) le##bits##_put(bytes + (offset), in->name);
#define ENCODE_BYTES(count, name, offset) memcpy(bytes + (offset), in->name, count);

#define VMFS_DEFINE(structure, fields, size)                                                       \
	void structure##_decode(const uint8_t *bytes, struct structure *out)                       \
	{                                                                                          \
		fields(DECODE_NUMBER, DECODE_BYTES)                                                \
	}                                                                                          \
	void structure##_encode(const struct structure *in, uint8_t *bytes)                        \
	{                                                                                          \
		fields(ENCODE_NUMBER, ENCODE_BYTES)                                                \
	}
VMFS_STRUCTURES(VMFS_DEFINE)

/* Every field lies inside its structure. */
#define CHECK_NUMBER(bits, name, offset) _Static_assert((offset) + (bits) / 8 <= LIMIT, #name);
#define CHECK_BYTES(count, name, offset) _Static_assert((offset) + (count) <= LIMIT, #name);
#define LIMIT VMFS_LVM_HEADER_BYTES
VMFS_LVM_HEADER_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_LVM_VOLUME_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_INFO_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_HEARTBEAT_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_LOCK_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_RES_HEADER_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_CLUSTER5_FIELDS(CHECK_NUMBER, CHECK_BYTES)
VMFS_FD_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_PE_ENTRY_BYTES
VMFS_PE_ENTRY_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_LOCK_HOLDER_BYTES
VMFS_LOCK_HOLDER_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_CLUSTER6_BYTES
VMFS_CLUSTER6_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_DIRENT5_BYTES
VMFS_DIRENT5_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_DIRENT6_BYTES
VMFS_DIRENT6_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_DIR6_MAPS_OFFSET
VMFS_DIR6_HEADER_FIELDS(CHECK_NUMBER, CHECK_BYTES)
#undef LIMIT
#define LIMIT VMFS_DIR6_SLOTS_OFFSET
VMFS_DIR6_BLOCK_FIELDS(CHECK_NUMBER, CHECK_BYTES)
_Static_assert(VMFS_LOCK_HOLDERS_OFFSET + VMFS_LOCK_HOLDERS * VMFS_LOCK_HOLDER_BYTES == 0x144,
	       "holders end where the next known field of a lock may begin");
_Static_assert(VMFS_DIR6_DOTDOT_OFFSET - VMFS_DIR6_DOT_OFFSET == VMFS_DIRENT6_BYTES, "adjacent");

/* ---- identities ---- */

char *vmfs_uuid_format(const uint8_t uuid[VMFS_UUID_BYTES], char text[VMFS_UUID_TEXT_BYTES])
{
	snprintf(text, VMFS_UUID_TEXT_BYTES, "%08x-%08x-%04x-%02x%02x%02x%02x%02x%02x",
		 le32_get(uuid), le32_get(uuid + 4), le16_get(uuid + 8), uuid[10], uuid[11],
		 uuid[12], uuid[13], uuid[14], uuid[15]);
	return text;
}

/* ---- the hash of names in VMFS6 directories ---- */

#define HASH_KEY_WORDS 32u
#define HASH_PAD UINT64_C(0x739A75C28E61B017)
#define HASH_PAD_END 127u

/* Three words are mixed into three others: the 64-bit mix of a public-domain hash (lookup8). */
static void hash_mix(uint64_t w[3])
{
	static const struct { uint8_t bits; bool left; } step[12] = {
		{ 43, false }, { 9, true }, { 8, false }, { 38, false }, { 23, true }, { 5, false },
		{ 35, false }, { 49, true }, { 11, false }, { 12, false }, { 18, true }, { 22, false },
	};

	for (unsigned i = 0; i < ARRAY_COUNT(step); i++) {
		uint64_t *a = &w[i % 3], *b = &w[(i + 1) % 3], *c = &w[(i + 2) % 3];

		*a -= *b;
		*a -= *c;
		*a ^= step[i].left ? *c << step[i].bits : *c >> step[i].bits;
	}
}

uint64_t vmfs_dir6_hash(const char *name, size_t len)
{
	uint8_t key[HASH_KEY_WORDS * 8] = { 0 };
	uint64_t w[3] = { 42, 42, UINT64_C(0x9E3779B97F4A7C13) };
	unsigned i;

	CHECK(len < sizeof(key));
	memcpy(key, name, len);
	for (size_t at = (len + 8) & ~(size_t)7; at < HASH_PAD_END; at += 8)
		le64_put(key + at, HASH_PAD);
	for (i = 0; i + 3 <= HASH_KEY_WORDS; i += 3) {
		for (unsigned k = 0; k < 3; k++)
			w[k] += le64_get(key + (i + k) * 8);
		hash_mix(w);
	}
	w[2] += HASH_KEY_WORDS;
	w[0] += le64_get(key + 30 * 8);
	w[1] += le64_get(key + 31 * 8);
	hash_mix(w);
	return w[2];
}

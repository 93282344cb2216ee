/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/iscsi_key.h"

#include <errno.h>
#include <string.h>

#include "blkmirror/base/overflow.h"

static uint64_t be_at(const uint8_t *bytes, size_t at, unsigned count)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < count; i++)
		value = value << 8 | bytes[at + i];
	return value;
}

uint64_t iscsi_key_first(const uint8_t host_uuid[16])
{
	uint32_t host = 0;

	/* Random but for the version and variant bits: fold all of it. */
	for (size_t i = 0; i < 16; i += 4)
		host ^= (uint32_t)be_at(host_uuid, i, 4);
	return (uint64_t)(host ? host : 1) << 32;
}

uint64_t iscsi_key_next(uint64_t key)
{
	return (key & ~(uint64_t)UINT32_MAX) | (uint32_t)(key + 1);
}

bool iscsi_key_same_host(uint64_t a, uint64_t b)
{
	return a >> 32 == b >> 32;
}

int iscsi_keys_parse(const uint8_t *bytes, size_t len, struct iscsi_keys *out)
{
	uint64_t keys_bytes;

	if (len < 8)
		return -EPROTO;
	keys_bytes = be_at(bytes, 4, 4);
	if (keys_bytes % 8)
		return -EPROTO;
	if (keys_bytes / 8 > ISCSI_KEYS_MAX)
		return -E2BIG;
	if (keys_bytes > len - 8)
		return -EPROTO;
	out->generation = (uint32_t)be_at(bytes, 0, 4);
	out->count = (size_t)(keys_bytes / 8);
	for (size_t i = 0; i < out->count; i++)
		out->keys[i] = be_at(bytes, 8 + 8 * i, 8);
	return 0;
}

bool iscsi_keys_has(const struct iscsi_keys *keys, uint64_t key)
{
	for (size_t i = 0; i < keys->count; i++)
		if (keys->keys[i] == key)
			return true;
	return false;
}

int iscsi_reservation_parse(const uint8_t *bytes, size_t len, struct iscsi_reservation *out)
{
	uint64_t told_bytes;

	if (len < 8)
		return -EPROTO;
	told_bytes = be_at(bytes, 4, 4);
	if (told_bytes == 0) {
		*out = (struct iscsi_reservation){ 0 };
		return 0;
	}
	if (told_bytes < 16 || len < 24)
		return -EPROTO;
	*out = (struct iscsi_reservation){
		.held = true,
		.key = be_at(bytes, 8, 8),
		.scope = bytes[21] >> 4,
		.type = bytes[21] & 0x0f,
	};
	return 0;
}

bool iscsi_key_watch_see(struct iscsi_key_watch *watch, uint64_t key, uint64_t sent_ns,
			 uint64_t answered_ns, uint64_t lease_ns)
{
	CHECK(sent_ns <= answered_ns);
	if (!watch->watching || watch->key != key) {
		*watch = (struct iscsi_key_watch){ key, answered_ns, true };
		return false;
	}
	return sent_ns > watch->first_seen_ns && sent_ns - watch->first_seen_ns >= lease_ns;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define UUID_TEXT_LENGTH (UUID_TEXT_BYTES - 1)

static bool is_dash_place(unsigned place)
{
	return place == 8 || place == 13 || place == 18 || place == 23;
}

struct uuid uuid_random(void)
{
	struct uuid uuid;

	/* Up to 256 bytes come whole and uninterrupted once the kernel's pool is seeded. */
	CHECK(getrandom(uuid.bytes, sizeof(uuid.bytes), 0) == sizeof(uuid.bytes));
	uuid.bytes[6] = (uint8_t)((uuid.bytes[6] & 0x0f) | 0x40);       /* version 4 */
	uuid.bytes[8] = (uint8_t)((uuid.bytes[8] & 0x3f) | 0x80);       /* the RFC's variant */
	return uuid;
}

char *uuid_format(const struct uuid *uuid, char text[UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	unsigned place = 0;

	for (unsigned i = 0; i < UUID_BYTES; i++) {
		if (is_dash_place(place))
			text[place++] = '-';
		text[place++] = digits[uuid->bytes[i] >> 4];
		text[place++] = digits[uuid->bytes[i] & 15];
	}
	text[place] = 0;
	return text;
}

/* -1 for anything but a hexadecimal digit; no locale. */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_parse(const char *text, struct uuid *out)
{
	struct uuid uuid;
	unsigned place = 0;

	if (strnlen(text, UUID_TEXT_BYTES) != UUID_TEXT_LENGTH)
		return -EINVAL;
	for (unsigned i = 0; i < UUID_BYTES; i++) {
		int high, low;

		if (is_dash_place(place) && text[place++] != '-')
			return -EINVAL;
		high = hex_value(text[place++]);
		low = hex_value(text[place++]);
		if (high < 0 || low < 0)
			return -EINVAL;
		uuid.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*out = uuid;
	return 0;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->bytes, b->bytes, UUID_BYTES) == 0;
}

bool uuid_is_null(const struct uuid *uuid)
{
	static const struct uuid none;

	return uuid_equal(uuid, &none);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vmx_value.c - values between the file's encoding with |XX and plain UTF-8. */
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "datastores/ds_path.h"
#include "vmotion/vmx_private.h"

/* windows-1252 from 0x80 to 0x9f; 0: no character. */
static const uint16_t windows_1252[32] = {
	0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
	0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,      0x017d, 0,
	0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
	0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178,
};

enum vmx_encoding vmx_encoding_of(const char *name)
{
	static const struct {
		const char *name;
		enum vmx_encoding encoding;
	} known[] = {
		{ "UTF-8", VMX_UTF8 },
		{ "UTF8", VMX_UTF8 },
		{ "US-ASCII", VMX_ASCII },
		{ "ASCII", VMX_ASCII },
		{ "ISO-8859-1", VMX_LATIN1 },
		{ "windows-1252", VMX_WINDOWS_1252 },
		{ "cp1252", VMX_WINDOWS_1252 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(known); i++)
		if (strcasecmp(known[i].name, name) == 0)
			return known[i].encoding;
	return VMX_OTHER;
}

/* ---- one character ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What a byte above 127 stands for; 0: nothing. */
static unsigned byte_to_char(enum vmx_encoding encoding, unsigned char byte)
{
	if (encoding == VMX_WINDOWS_1252 && byte < 0xa0)
		return windows_1252[byte - 0x80];
	return encoding == VMX_WINDOWS_1252 || encoding == VMX_LATIN1 ? byte : 0;
}

static int char_to_byte(enum vmx_encoding encoding, unsigned character)
{
	for (int byte = 0x80; byte <= 0xff; byte++)
		if (byte_to_char(encoding, (unsigned char)byte) == character)
			return byte;
	return -1;
}

/* Characters of those encodings take at most three bytes. */
static size_t utf8_put(unsigned character, char out[3])
{
	if (character < 0x800) {
		out[0] = (char)(0xc0 | character >> 6);
		out[1] = (char)(0x80 | (character & 0x3f));
		return 2;
	}
	out[0] = (char)(0xe0 | character >> 12);
	out[1] = (char)(0x80 | (character >> 6 & 0x3f));
	out[2] = (char)(0x80 | (character & 0x3f));
	return 3;
}

/* One character of at most three bytes from valid UTF-8; 0: a longer one. */
static unsigned utf8_take(const char **at)
{
	const unsigned char *c = (const unsigned char *)*at;

	if (c[0] >= 0xf0)
		return 0;
	*at += c[0] >= 0xe0 ? 3 : 2;
	return c[0] >= 0xe0 ? (c[0] & 0xfu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu)
			    : (c[0] & 0x1fu) << 6 | (c[1] & 0x3fu);
}

/* ---- decoding ---- */

/* The byte at raw[*at], a |XX resolved; moves *at behind it.  A | before anything else is itself. */
static char next_byte(const char *raw, size_t raw_len, size_t *at)
{
	char c = raw[(*at)++];

	if (c == '|' && raw_len - *at >= 2 && hex_digit(raw[*at]) >= 0 &&
	    hex_digit(raw[*at + 1]) >= 0) {
		c = (char)(hex_digit(raw[*at]) << 4 | hex_digit(raw[*at + 1]));
		*at += 2;
	}
	return c;
}

/* Control characters (|0A in an annotation) are the reader's to judge. */
static bool is_utf8(const char *text, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t run = 0;

		while (at < len && ((unsigned char)text[at] < 0x20 || text[at] == 0x7f))
			at++;
		while (at + run < len && (unsigned char)text[at + run] >= 0x20 &&
		       text[at + run] != 0x7f)
			run++;
		if (!ds_text_is_clean(text + at, run))
			return false;
		at += run;
	}
	return true;
}

const char *vmx_value_decode(enum vmx_encoding encoding, const char *raw, size_t raw_len,
			     char *value, size_t value_bytes)
{
	size_t len = 0;

	for (size_t at = 0; at < raw_len;) {
		char c = next_byte(raw, raw_len, &at);
		char utf8[3] = { c };
		size_t count = 1;

		if (c == '\0')
			return "holds a zero byte";
		if ((unsigned char)c >= 0x80 && encoding != VMX_UTF8) {
			unsigned character = byte_to_char(encoding, (unsigned char)c);

			if (!character)
				return "holds bytes that the file's .encoding does not explain";
			count = utf8_put(character, utf8);
		}
		if (len + count >= value_bytes)
			return "is too long";
		memcpy(value + len, utf8, count);
		len += count;
	}
	if (encoding == VMX_UTF8 && !is_utf8(value, len))
		return "is no UTF-8 text, as the file's .encoding has it";
	value[len] = '\0';
	return NULL;
}

/* ---- encoding ---- */

static bool must_be_escaped(unsigned char c)
{
	return c < 0x20 || c == 0x7f || c == '"' || c == '|' || c == '#';
}

const char *vmx_value_encode(enum vmx_encoding encoding, const char *value, char *encoded)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *at = value;

	if (strlen(value) >= VMX_VALUE_BYTES)
		return "is too long";
	if (!is_utf8(value, strlen(value)))
		return "is no UTF-8 text";
	while (*at) {
		unsigned char c = (unsigned char)*at;

		if (must_be_escaped(c)) {
			*encoded++ = '|';
			*encoded++ = digits[c >> 4];
			*encoded++ = digits[c & 15];
			at++;
		} else if (c < 0x80 || encoding == VMX_UTF8) {
			*encoded++ = *at++;
		} else {
			unsigned character = utf8_take(&at);
			int byte = character ? char_to_byte(encoding, character) : -1;

			if (byte < 0)
				return "has characters that the file's .encoding does not have";
			*encoded++ = (char)byte;
		}
	}
	*encoded = '\0';
	return NULL;
}

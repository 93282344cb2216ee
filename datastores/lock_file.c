/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/lock_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define GENERATION_DIGITS 16u
#define CHECKSUM_LINE_BYTES (9 + 16 + 1)        /* "checksum=" digits newline */

static const char head[] = "blkmirror-lock 1\n";

/* ---- names ---- */

int lock_name_format(const char *data_name, uint64_t generation, char *name)
{
	int len;

	if (generation == 0 || generation > LOCK_GENERATION_MAX)
		return -EINVAL;
	len = snprintf(name, DS_FILE_NAME_BYTES, ".%s" LOCK_FILE_INFIX "%016" PRIx64, data_name,
		       generation);
	return len < DS_FILE_NAME_BYTES ? 0 : -ENAMETOOLONG;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint64_t lock_name_generation(const char *name, const char *data_name)
{
	size_t data_len = strlen(data_name), infix_len = sizeof(LOCK_FILE_INFIX) - 1;
	uint64_t generation = 0;

	if (strlen(name) != 1 + data_len + infix_len + GENERATION_DIGITS || name[0] != '.' ||
	    memcmp(name + 1, data_name, data_len) != 0 ||
	    memcmp(name + 1 + data_len, LOCK_FILE_INFIX, infix_len) != 0)
		return 0;
	name += 1 + data_len + infix_len;
	for (size_t i = 0; i < GENERATION_DIGITS; i++) {
		int digit = hex_digit(name[i]);

		if (digit < 0)
			return 0;
		generation = generation << 4 | (unsigned)digit;
	}
	return generation <= LOCK_GENERATION_MAX ? generation : 0;
}

/* ---- records ---- */

static bool is_host_char(char c)
{
	return c > ' ' && c < 0x7f;
}

void lock_record_format(const struct lock_record *record, char *bytes)
{
	char owner[UUID_TEXT_BYTES], host[LOCK_HOST_BYTES];
	size_t host_len = 0;
	int len;

	for (size_t i = 0; i < sizeof(host) - 1 && record->host[i]; i++)
		if (is_host_char(record->host[i]))
			host[host_len++] = record->host[i];
	host[host_len] = 0;
	memset(bytes, ' ', LOCK_RECORD_BYTES);
	len = snprintf(bytes, LOCK_RECORD_BYTES,
		       "%sowner=%s\nhost=%s\nstamp=%" PRIu64 "\nlease_ms=%" PRIu32 "\nstate=%s\n",
		       head, uuid_format(&record->owner, owner), host, record->stamp,
		       record->lease_ms, record->released ? "released" : "held");
	CHECK(len > 0 && (size_t)len + CHECKSUM_LINE_BYTES < LOCK_RECORD_BYTES);
	len += snprintf(bytes + len, LOCK_RECORD_BYTES - (size_t)len, "checksum=%016" PRIx64 "\n",
			(uint64_t)XXH3_64bits(bytes, (size_t)len));
	bytes[len] = ' ';               /* snprintf()'s NUL */
	bytes[LOCK_RECORD_BYTES - 1] = '\n';
}

/* The value of the line "key=..." at *at, moving it to the next line; NULL: not that line. */
static const char *take_value(char **at, const char *key)
{
	size_t key_len = strlen(key);
	char *line = *at, *end = strchr(line, '\n');

	if (!end || strncmp(line, key, key_len) != 0 || line[key_len] != '=')
		return NULL;
	*end = 0;
	*at = end + 1;
	return line + key_len + 1;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (!text || !*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (digit > 9 || value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*out = value;
	return true;
}

static int parse_fields(char *at, struct lock_record *out)
{
	const char *owner = take_value(&at, "owner");
	const char *host = owner ? take_value(&at, "host") : NULL;
	const char *stamp = host ? take_value(&at, "stamp") : NULL;
	const char *lease = stamp ? take_value(&at, "lease_ms") : NULL;
	const char *state = lease ? take_value(&at, "state") : NULL;
	uint64_t lease_ms;

	if (!state || uuid_parse(owner, &out->owner) || strlen(host) >= LOCK_HOST_BYTES ||
	    !parse_number(stamp, UINT64_MAX, &out->stamp) ||
	    !parse_number(lease, UINT32_MAX, &lease_ms))
		return -EINVAL;
	for (const char *c = host; *c; c++)
		if (!is_host_char(*c))
			return -EINVAL;
	strcpy(out->host, host);
	out->lease_ms = (uint32_t)lease_ms;
	out->released = strcmp(state, "released") == 0;
	return out->released || strcmp(state, "held") == 0 ? 0 : -EINVAL;
}

int lock_record_parse(const char *bytes, size_t len, struct lock_record *out)
{
	char text[LOCK_RECORD_BYTES + 1], line[CHECKSUM_LINE_BYTES + 1];
	char *checksum;

	if (len != LOCK_RECORD_BYTES || memcmp(bytes, head, sizeof(head) - 1) != 0 ||
	    memchr(bytes, 0, len))
		return -EINVAL;
	memcpy(text, bytes, len);
	text[len] = 0;
	checksum = strstr(text, "\nchecksum=");
	if (!checksum)
		return -EINVAL;
	checksum++;
	snprintf(line, sizeof(line), "checksum=%016" PRIx64 "\n",
		 (uint64_t)XXH3_64bits(text, (size_t)(checksum - text)));
	if (strncmp(checksum, line, CHECKSUM_LINE_BYTES) != 0)
		return -EINVAL;
	*checksum = 0;
	return parse_fields(text + sizeof(head) - 1, out);
}

uint64_t lock_record_stamp(uint64_t generation, const char *bytes, size_t len)
{
	return XXH3_64bits_withSeed(bytes, len, generation);
}

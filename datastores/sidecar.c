/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/sidecar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const char head[] = "# blkmirror: identity of the raw disk beside it. Copy and move the two "
			   "together.\nversion=1\n";

/* The text up to its checksum line; the same function on both ways, so they cannot differ. */
static size_t format_body(const struct disk_record *record, char *text)
{
	size_t len = sizeof(head) - 1;

	memcpy(text, head, len);
	for (unsigned i = 0; i < RECORD_KEY_COUNT; i++) {
		char value[DISK_RECORD_VALUE_BYTES];

		disk_record_value(record, (enum disk_record_key)i, value);
		len += (size_t)snprintf(text + len, SIDECAR_BYTES_MAX - len, "%s=%s\n",
					disk_record_key_name((enum disk_record_key)i), value);
		CHECK(len < SIDECAR_BYTES_MAX - 32);
	}
	return len;
}

size_t sidecar_format(const struct disk_record *record, char *text)
{
	size_t len = format_body(record, text);

	return len + (size_t)snprintf(text + len, SIDECAR_BYTES_MAX - len,
				      "checksum=%016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, len));
}

static int bad(struct err *err, const char *name, const char *why)
{
	err_set(err, ERR_DISK_BAD_DESCRIPTOR, -EINVAL, "the identity file '%.120s' %s", name, why);
	err_remedy(err, "Restore it from a backup; remove it only when no relocation was under way.");
	return -EINVAL;
}

/* One "key=value" line at *at into its place. */
static int parse_line(const char **at, const char *end, struct disk_record *out)
{
	char line[DISK_RECORD_VALUE_BYTES + 16];
	const char *newline = memchr(*at, '\n', (size_t)(end - *at));
	size_t len = newline ? (size_t)(newline - *at) : 0;
	char *value;

	if (!newline || len >= sizeof(line) || memchr(*at, 0, len))
		return -EINVAL;
	memcpy(line, *at, len);
	line[len] = 0;
	*at = newline + 1;
	value = strchr(line, '=');
	if (!value || strlen(value + 1) >= DISK_RECORD_VALUE_BYTES)
		return -EINVAL;
	*value++ = 0;
	for (unsigned i = 0; i < RECORD_KEY_COUNT; i++)
		if (strcmp(line, disk_record_key_name((enum disk_record_key)i)) == 0)
			return disk_record_put(out, (enum disk_record_key)i, value);
	return 0;       /* of a later version of the same format */
}

int sidecar_parse(const char *bytes, size_t len, const char *name, struct disk_record *out,
		  struct err *err)
{
	/* "checksum=" 16 digits newline */
	const size_t tail_len = 9 + 16 + 1;
	char tail[32];
	const char *at, *end;

	if (len > SIDECAR_BYTES_MAX || len < sizeof(head) - 1 + tail_len ||
	    memcmp(bytes, head, sizeof(head) - 1) != 0)
		return bad(err, name, "is not one of this version");
	end = bytes + len - tail_len;
	snprintf(tail, sizeof(tail), "checksum=%016" PRIx64 "\n",
		 (uint64_t)XXH3_64bits(bytes, len - tail_len));
	if (memcmp(end, tail, tail_len) != 0)
		return bad(err, name, "is damaged: its checksum does not match");
	disk_record_init(out);
	for (at = bytes + sizeof(head) - 1; at < end;)
		if (parse_line(&at, end, out))
			return bad(err, name, "has a line that makes no sense");
	if (disk_record_finish(out) || !out->assigned)
		return bad(err, name, "does not tell the disk's uuid, generation and role");
	return 0;
}

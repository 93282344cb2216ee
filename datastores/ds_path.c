/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/ds_path.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "datastores/datastore.h"

/* ---- text ---- */

/* Bytes of the UTF-8 sequence at text, 0 when it is none. */
static size_t utf8_len(const uint8_t *text, size_t left)
{
	static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len;
	uint32_t rune;

	if (text[0] < 0x80)
		return 1;
	len = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	if (text[0] < 0xc2 || text[0] > 0xf4 || len > left)
		return 0;
	rune = text[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		rune = rune << 6 | (text[i] & 0x3fu);
	}
	if (rune < least[len] || rune > 0x10ffff || (rune >= 0xd800 && rune <= 0xdfff))
		return 0;
	return len;
}

bool ds_text_is_clean(const char *text, size_t len)
{
	const uint8_t *bytes = (const uint8_t *)text;
	size_t step;

	for (size_t i = 0; i < len; i += step) {
		if (bytes[i] < 0x20 || bytes[i] == 0x7f)
			return false;
		step = utf8_len(bytes + i, len - i);
		if (step == 0)
			return false;
	}
	return true;
}

bool ds_path_has_suffix(const char *text, const char *suffix)
{
	size_t len = strlen(text), suffix_len = strlen(suffix);

	return len > suffix_len && strcasecmp(text + len - suffix_len, suffix) == 0;
}

/* ---- paths ---- */

/* Why a part is refused; NULL when it is fine. */
static const char *part_fault(const char *part, size_t len)
{
	if (len == 0)
		return "has an empty part";
	if (part[0] == '.' && (len == 1 || (len == 2 && part[1] == '.')))
		return "has a '.' or '..' in it";
	if (len > DS_PATH_PART_BYTES_MAX)
		return "has a part that is too long";
	if (!ds_text_is_clean(part, len))
		return "has a control character in it, or is not UTF-8";
	if (len > strlen(DS_TMP_SUFFIX) &&
	    strncasecmp(part + len - strlen(DS_TMP_SUFFIX), DS_TMP_SUFFIX,
			strlen(DS_TMP_SUFFIX)) == 0)
		return "ends in '" DS_TMP_SUFFIX "', which is kept for unfinished files";
	return NULL;
}

bool ds_path_part_is_valid(const char *part)
{
	return !strchr(part, '/') && !part_fault(part, strlen(part));
}

static const char *path_fault(const char *path)
{
	unsigned depth = 0;

	if (path[0] == '/')
		return "is absolute";
	for (const char *part = path;;) {
		size_t len = strcspn(part, "/");
		const char *fault = part_fault(part, len);

		if (fault)
			return fault;
		if (++depth > DS_PATH_DEPTH_MAX)
			return "is too deep";
		if (part[len] == 0)
			return NULL;
		part += len + 1;
	}
}

int ds_path_check(const char *path, bool root_ok, struct err *err)
{
	const char *fault;

	if (strnlen(path, DS_PATH_BYTES) == DS_PATH_BYTES)
		return err_set(err, ERR_DS_PATH_ESCAPE, -EINVAL,
			       "the path '%.64s...' is longer than %d bytes", path,
			       DS_PATH_BYTES - 1);
	if (path[0] == 0 && root_ok)
		return 0;
	fault = path[0] == 0 ? "is empty" : path_fault(path);
	if (fault)
		return err_set(err, ERR_DS_PATH_ESCAPE, -EINVAL, "the path '%.160s' %s", path,
			       fault);
	return 0;
}

const char *ds_path_last(const char *path, size_t *parent_len)
{
	const char *slash = strrchr(path, '/');

	*parent_len = slash ? (size_t)(slash - path) : 0;
	return slash ? slash + 1 : path;
}

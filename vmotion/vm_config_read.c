/* SPDX-License-Identifier: Apache-2.0 */
/* vm_config_read.c - one key of a VMX at a time, the names of files, and the list of findings. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vmotion/vm_config_private.h"

#define VMFS_PREFIX "/vmfs/volumes/"

/* ---- findings ---- */

void vm_findings_take(struct vm_findings *findings, bool refuses, const struct err *err)
{
	findings->error_count += refuses;
	if (findings->count == VM_FINDINGS_MAX)
		return; /* the list is for reading; an error still counts */
	findings->items[findings->count].refuses = refuses;
	findings->items[findings->count].err = *err;
	findings->count++;
}

void vm_findings_add(struct vm_findings *findings, bool refuses, enum err_id id,
		     const char *format, ...)
{
	char text[ERR_TEXT_BYTES];
	struct err err;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	err_set(&err, id, 0, "%s", text);
	vm_findings_take(findings, refuses, &err);
}

const struct err *vm_findings_first_error(const struct vm_findings *findings)
{
	for (uint32_t i = 0; i < findings->count; i++)
		if (findings->items[i].refuses)
			return &findings->items[i].err;
	return NULL;
}

/* ---- values ---- */

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

bool vm_read_text(struct vm_reader *reader, const char *key, char *out, size_t out_bytes)
{
	char value[VMX_VALUE_BYTES];
	struct err err = { 0 };
	int rc = vmx_get(reader->vmx, key, value, MIN(sizeof(value), out_bytes), &err);

	if (rc == -ENOENT)
		return false;
	if (!rc && has_control(value))
		rc = err_set(&err, ERR_VMX_BAD_VALUE, -EINVAL,
			     "'%.80s' must be one line of text", key);
	if (rc) {
		vm_findings_take(reader->findings, true, &err);
		return false;
	}
	if (value[0] == '\0')
		return false;
	strcpy(out, value);     /* it fits: vmx_get() was given that bound */
	return true;
}

static bool is_one_of(const char *value, const char *const *words)
{
	for (; *words; words++)
		if (strcasecmp(value, *words) == 0)
			return true;
	return false;
}

bool vm_read_flag(struct vm_reader *reader, const char *key, bool otherwise)
{
	static const char *const yes[] = { "TRUE", "1", "yes", "T", "Y", "on", NULL };
	static const char *const no[] = { "FALSE", "0", "no", "F", "N", "off", NULL };
	char value[64];

	if (!vm_read_text(reader, key, value, sizeof(value)))
		return otherwise;
	if (is_one_of(value, yes))
		return true;
	if (!is_one_of(value, no))
		vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
				"'%.80s' must be TRUE or FALSE, not '%s'", key, value);
	return false;
}

uint32_t vm_read_number(struct vm_reader *reader, const char *key, uint32_t min, uint32_t max,
			uint32_t otherwise)
{
	char value[64], *end;
	unsigned long number;

	if (!vm_read_text(reader, key, value, sizeof(value)))
		return otherwise;
	errno = 0;
	number = strtoul(value, &end, 10);
	if (isdigit((unsigned char)value[0]) && !errno && *end == '\0' && number >= min &&
	    number <= max)
		return (uint32_t)number;
	vm_findings_add(reader->findings, true, ERR_VMX_BAD_VALUE,
			"'%.80s' must be a number from %u to %u, not '%s'", key, min, max, value);
	return otherwise;
}

/* ---- names of files ---- */

static int bad_file(struct err *err, const char *text, const char *why)
{
	return err_set(err, ERR_VMX_BAD_VALUE, -EINVAL, "the file '%.140s' %s", text, why);
}

/* The datastore's name, `len` bytes at `name`, and what follows it. */
static int parse_placed(const char *text, const char *name, size_t len, const char *rest,
			char datastore[DS_NAME_BYTES], char path[DS_PATH_BYTES], struct err *err)
{
	char parsed[DS_NAME_BYTES];
	int rc;

	if (len >= DS_NAME_BYTES)
		return bad_file(err, text, "names a datastore that cannot exist here");
	memcpy(parsed, name, len);
	parsed[len] = '\0';
	if (!ds_name_is_valid(parsed))
		return bad_file(err, text, "names a datastore that cannot exist here");
	rc = ds_path_check(rest, false, err);
	if (rc)
		return rc;
	memcpy(datastore, parsed, sizeof(parsed));
	snprintf(path, DS_PATH_BYTES, "%s", rest);
	return 0;
}

static int parse_relative(const char *text, const char *home_datastore, const char *home_path,
			  char datastore[DS_NAME_BYTES], char path[DS_PATH_BYTES],
			  struct err *err)
{
	char joined[2 * DS_PATH_BYTES];
	size_t parent_len;
	int rc;

	if (text[0] == '.' && text[1] == '/')
		text += 2;
	/* By itself first: a '..' must not hide behind the machine's folder. */
	rc = ds_path_check(text, false, err);
	if (rc)
		return rc;
	ds_path_last(home_path, &parent_len);
	snprintf(joined, sizeof(joined), "%.*s%s%s", (int)parent_len, home_path,
		 parent_len ? "/" : "", text);
	rc = ds_path_check(joined, false, err);
	if (rc)
		return rc;
	snprintf(datastore, DS_NAME_BYTES, "%s", home_datastore);
	memcpy(path, joined, strlen(joined) + 1);
	return 0;
}

int vm_file_parse(const char *text, const char *home_datastore, const char *home_path,
		  char datastore[DS_NAME_BYTES], char path[DS_PATH_BYTES], struct err *err)
{
	const char *name, *end;

	if (text[0] == '[') {
		name = text + 1;
		end = strchr(name, ']');
		if (!end)
			return bad_file(err, text, "has no ']'");
		return parse_placed(text, name, (size_t)(end - name),
				    end + 1 + strspn(end + 1, " "), datastore, path, err);
	}
	if (strncmp(text, VMFS_PREFIX, strlen(VMFS_PREFIX)) == 0) {
		name = text + strlen(VMFS_PREFIX);
		end = strchr(name, '/');
		if (!end)
			return bad_file(err, text, "is a datastore, no file on it");
		return parse_placed(text, name, (size_t)(end - name), end + 1, datastore, path,
				    err);
	}
	if (text[0] == '/' || strchr(text, '\\'))
		return bad_file(err, text, "lies on some host, not on a datastore");
	return parse_relative(text, home_datastore, home_path, datastore, path, err);
}

void vm_file_format(const char *datastore, const char *path, const char *home_datastore,
		    const char *home_path, char text[DS_NAME_BYTES + DS_PATH_BYTES + 4])
{
	size_t parent_len, home_len;
	const char *last = ds_path_last(path, &parent_len);

	ds_path_last(home_path, &home_len);
	if (strcmp(datastore, home_datastore) == 0 && parent_len == home_len &&
	    memcmp(path, home_path, home_len) == 0)
		snprintf(text, DS_PATH_BYTES, "%s", last);
	else
		snprintf(text, DS_NAME_BYTES + DS_PATH_BYTES + 4, "[%s] %s", datastore, path);
}

void vm_config_folder(const struct vm_config *config, char folder[DS_PATH_BYTES])
{
	size_t parent_len;

	ds_path_last(config->home_path, &parent_len);
	snprintf(folder, DS_PATH_BYTES, "%.*s", (int)parent_len, config->home_path);
}

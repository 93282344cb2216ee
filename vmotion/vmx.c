/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmx.c - one pass over the lines finds the entries; an edit splices the kept text and passes
 * over it again, so that the index is never patched.  Values are in vmx_value.c.
 */
#include "vmotion/vmx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vmotion/vmx_private.h"

struct entry {
	struct vmx_piece line;          /* with its end */
	struct vmx_piece key;
	struct vmx_piece value;         /* without quotes */
	bool quoted;
};

struct vmx {
	char *text;
	size_t text_len;
	size_t start;                   /* behind a byte order mark: of the file as it was read */
	struct entry *entries;
	unsigned entry_count, entry_room;
	enum vmx_encoding encoding;
	char name[256];
};

/* ---- one line ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static size_t skip_blanks(const char *text, size_t at, size_t end)
{
	while (at < end && is_blank(text[at]))
		at++;
	return at;
}

static size_t trim_end(const char *text, size_t from, size_t end)
{
	while (end > from && is_blank(text[end - 1]))
		end--;
	return end;
}

/* What may stand in a key: no blanks, quotes or control characters. */
static bool is_key_char(char c)
{
	return (unsigned char)c > ' ' && c != '=' && c != '"' && c != '#' && c != 0x7f;
}

/* Nothing but blanks and a comment. */
static bool is_empty_from(const char *text, size_t at, size_t end)
{
	at = skip_blanks(text, at, end);
	return at == end || text[at] == '#';
}

/* The value from `at` on; NULL, or why it is none. */
static const char *parse_value(const char *text, size_t at, size_t end, struct entry *entry)
{
	const char *quote, *hash;

	at = skip_blanks(text, at, end);
	entry->quoted = at < end && text[at] == '"';
	if (!entry->quoted) {
		hash = memchr(text + at, '#', end - at);
		entry->value.at = at;
		entry->value.len = trim_end(text, at, hash ? (size_t)(hash - text) : end) - at;
		return memchr(text + at, '"', entry->value.len) ? "has a stray quote" : NULL;
	}
	entry->value.at = ++at;
	quote = memchr(text + at, '"', end - at);
	if (!quote)
		return "has no closing quote";
	entry->value.len = (size_t)(quote - text) - at;
	return is_empty_from(text, (size_t)(quote - text) + 1, end) ? NULL
								    : "goes on after its value";
}

/* NULL and *is_entry, or what is wrong with the line. */
static const char *parse_line(const char *text, struct vmx_piece line, struct entry *entry,
			      bool *is_entry)
{
	size_t end = line.at + line.len;
	size_t at = skip_blanks(text, line.at, end);

	*is_entry = false;
	if (at == end || text[at] == '#')
		return NULL;
	entry->key.at = at;
	while (at < end && is_key_char(text[at]))
		at++;
	entry->key.len = at - entry->key.at;
	at = skip_blanks(text, at, end);
	if (entry->key.len == 0 || at == end || text[at] != '=')
		return "is not 'key = \"value\"'";
	if (entry->key.len >= VMX_KEY_BYTES)
		return "has a key that is too long";
	*is_entry = true;
	return parse_value(text, at + 1, end, entry);
}

/* ---- all lines ---- */

static struct entry *entry_add(struct vmx *vmx)
{
	unsigned room = vmx->entry_room ? vmx->entry_room * 2 : 128;
	struct entry *grown;

	if (vmx->entry_count < vmx->entry_room)
		return &vmx->entries[vmx->entry_count++];
	grown = realloc(vmx->entries, room * sizeof(*grown));
	if (!grown)
		return NULL;
	vmx->entries = grown;
	vmx->entry_room = room;
	return &vmx->entries[vmx->entry_count++];
}

static int index_line(struct vmx *vmx, struct vmx_piece line, size_t end_len, unsigned number,
		      struct err *err)
{
	struct entry entry, *added;
	bool is_entry;
	const char *fault = parse_line(vmx->text, line, &entry, &is_entry);

	if (fault)
		return err_set(err, ERR_VMX_SYNTAX, -EINVAL, "'%.120s': line %u %s", vmx->name,
			       number, fault);
	if (!is_entry)
		return 0;
	if (vmx->entry_count == VMX_ENTRIES_MAX)
		return err_set(err, ERR_VMX_LIMIT, -EFBIG, "'%.120s' has more than %u settings",
			       vmx->name, VMX_ENTRIES_MAX);
	added = entry_add(vmx);
	if (!added)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	entry.line = line;
	entry.line.len += end_len;
	*added = entry;
	return 0;
}

static void find_encoding(struct vmx *vmx)
{
	char name[64];

	vmx->encoding = VMX_UTF8;
	if (vmx_get(vmx, ".encoding", name, sizeof(name), NULL) == 0)
		vmx->encoding = vmx_encoding_of(name);
}

static int index_text(struct vmx *vmx, struct err *err)
{
	unsigned number = 0;
	int rc = 0;

	vmx->entry_count = 0;
	for (size_t at = vmx->start; !rc && at < vmx->text_len;) {
		const char *newline = memchr(vmx->text + at, '\n', vmx->text_len - at);
		size_t end = newline ? (size_t)(newline - vmx->text) : vmx->text_len;

		rc = index_line(vmx, (struct vmx_piece){ at, end - at }, newline != NULL, ++number,
				err);
		at = end + (newline != NULL);
	}
	if (!rc)
		find_encoding(vmx);
	return rc;
}

static int check_text(const char *bytes, size_t len, const char *name, struct err *err)
{
	if (len > VMX_TEXT_MAX_BYTES)
		return err_set(err, ERR_VMX_LIMIT, -EFBIG, "'%.120s' has more than %u bytes", name,
			       VMX_TEXT_MAX_BYTES);
	if (len && memchr(bytes, '\0', len))
		return err_set(err, ERR_VMX_SYNTAX, -EINVAL,
			       "'%.120s' holds zero bytes: it is no VMX file", name);
	return 0;
}

int vmx_parse(const char *bytes, size_t len, const char *name, struct vmx **out, struct err *err)
{
	struct vmx *vmx;
	int rc = check_text(bytes, len, name, err);

	if (rc)
		return rc;
	vmx = calloc(1, sizeof(*vmx));
	if (!vmx)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(vmx->name, sizeof(vmx->name), "%s", name);
	vmx->text = malloc(len + 1);
	if (!vmx->text) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_vmx;
	}
	if (len)
		memcpy(vmx->text, bytes, len);
	vmx->text[len] = '\0';
	vmx->text_len = len;
	vmx->start = len >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	rc = index_text(vmx, err);
	if (rc)
		goto free_vmx;
	*out = vmx;
	return 0;

free_vmx:
	vmx_free(vmx);
	return rc;
}

int vmx_new(const char *name, struct vmx **out, struct err *err)
{
	static const char start[] = ".encoding = \"UTF-8\"\n";

	return vmx_parse(start, sizeof(start) - 1, name, out, err);
}

void vmx_free(struct vmx *vmx)
{
	if (!vmx)
		return;
	free(vmx->entries);
	free(vmx->text);
	free(vmx);
}

const char *vmx_text(const struct vmx *vmx, size_t *len)
{
	*len = vmx->text_len;
	return vmx->text;
}

const char *vmx_name(const struct vmx *vmx)
{
	return vmx->name;
}

/* ---- finding ---- */

static bool entry_is(const struct vmx *vmx, const struct entry *entry, const char *key)
{
	return strlen(key) == entry->key.len &&
	       strncasecmp(vmx->text + entry->key.at, key, entry->key.len) == 0;
}

static unsigned find_from(const struct vmx *vmx, const char *key, unsigned from)
{
	while (from < vmx->entry_count && !entry_is(vmx, &vmx->entries[from], key))
		from++;
	return from;
}

/* 0 and *out (NULL: not there), or -EINVAL: it stands there twice. */
static int find_one(const struct vmx *vmx, const char *key, const struct entry **out,
		    struct err *err)
{
	unsigned first = find_from(vmx, key, 0);

	*out = NULL;
	if (first == vmx->entry_count)
		return 0;
	if (find_from(vmx, key, first + 1) < vmx->entry_count)
		return err_set(err, ERR_VMX_DUPLICATE, -EINVAL,
			       "'%.120s' has more than one line for '%.80s'", vmx->name, key);
	*out = &vmx->entries[first];
	return 0;
}

bool vmx_has(const struct vmx *vmx, const char *key)
{
	return find_from(vmx, key, 0) < vmx->entry_count;
}

int vmx_get(const struct vmx *vmx, const char *key, char *value, size_t value_bytes,
	    struct err *err)
{
	const struct entry *entry;
	const char *fault;
	int rc = find_one(vmx, key, &entry, err);

	if (rc)
		return rc;
	if (!entry)
		return -ENOENT;
	fault = vmx_value_decode(vmx->encoding, vmx->text + entry->value.at, entry->value.len,
				 value, value_bytes);
	if (fault)
		return err_set(err, ERR_VMX_BAD_VALUE, -EINVAL, "'%.120s': the value of '%.80s' %s",
			       vmx->name, key, fault);
	return 0;
}

bool vmx_key_at(const struct vmx *vmx, unsigned index, char *key)
{
	const struct entry *entry;

	if (index >= vmx->entry_count)
		return false;
	entry = &vmx->entries[index];
	memcpy(key, vmx->text + entry->key.at, entry->key.len);
	key[entry->key.len] = '\0';
	return true;
}

/* ---- edits ---- */

/* Put bytes in the place of a piece, on a copy; the copy must pass as the file did. */
static int splice(struct vmx *vmx, struct vmx_piece piece, const char *bytes, size_t len,
		  struct err *err)
{
	size_t behind_at = piece.at + piece.len;
	size_t text_len = vmx->text_len - piece.len + len;
	struct vmx edited = { .text_len = text_len, .start = vmx->start };
	int rc;

	if (text_len > VMX_TEXT_MAX_BYTES)
		return err_set(err, ERR_VMX_LIMIT, -EFBIG, "'%.120s' would get more than %u bytes",
			       vmx->name, VMX_TEXT_MAX_BYTES);
	memcpy(edited.name, vmx->name, sizeof(edited.name));
	edited.text = malloc(text_len + 1);
	if (!edited.text)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	memcpy(edited.text, vmx->text, piece.at);
	memcpy(edited.text + piece.at, bytes, len);
	memcpy(edited.text + piece.at + len, vmx->text + behind_at, vmx->text_len - behind_at);
	edited.text[text_len] = '\0';
	rc = index_text(&edited, err);
	if (rc) {
		free(edited.entries);
		free(edited.text);
		return rc;
	}
	free(vmx->entries);
	free(vmx->text);
	*vmx = edited;
	return 0;
}

static bool key_is_writable(const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < len; i++)
		if (!is_key_char(key[i]) || (unsigned char)key[i] >= 0x80)
			return false;
	return len > 0 && len < VMX_KEY_BYTES;
}

/* As the last line that has an end does it. */
static const char *line_end(const struct vmx *vmx)
{
	const char *newline = memrchr(vmx->text, '\n', vmx->text_len);

	return newline && newline > vmx->text && newline[-1] == '\r' ? "\r\n" : "\n";
}

static int append(struct vmx *vmx, const char *key, const char *encoded, struct err *err)
{
	char line[VMX_KEY_BYTES + VMX_ENCODED_BYTES + 16];
	const char *end = line_end(vmx);
	bool open = vmx->text_len && vmx->text[vmx->text_len - 1] != '\n';
	int len = snprintf(line, sizeof(line), "%s%s = \"%s\"%s", open ? end : "", key, encoded,
			   end);

	return splice(vmx, (struct vmx_piece){ vmx->text_len, 0 }, line, (size_t)len, err);
}

int vmx_set(struct vmx *vmx, const char *key, const char *value, struct err *err)
{
	char encoded[VMX_ENCODED_BYTES + 2];
	const struct entry *entry;
	const char *fault;
	size_t len;
	int rc;

	if (!key_is_writable(key))
		return err_set(err, ERR_VMX_BAD_VALUE, -EINVAL, "'%.80s' cannot be a key", key);
	rc = find_one(vmx, key, &entry, err);
	if (rc)
		return rc;
	fault = vmx_value_encode(vmx->encoding, value, encoded + 1);
	if (fault)
		return err_set(err, ERR_VMX_BAD_VALUE, -EINVAL, "the value for '%.80s' %s", key,
			       fault);
	if (!entry)
		return append(vmx, key, encoded + 1, err);
	len = strlen(encoded + 1);
	if (entry->quoted)
		return splice(vmx, entry->value, encoded + 1, len, err);
	encoded[0] = '"';
	memcpy(encoded + 1 + len, "\"", 2);
	return splice(vmx, entry->value, encoded, len + 2, err);
}

unsigned vmx_remove(struct vmx *vmx, const char *key)
{
	unsigned removed = 0;
	size_t kept_len = 0, from = 0;

	for (unsigned i = 0; i < vmx->entry_count; i++) {
		struct vmx_piece line = vmx->entries[i].line;

		if (!entry_is(vmx, &vmx->entries[i], key))
			continue;
		memmove(vmx->text + kept_len, vmx->text + from, line.at - from);
		kept_len += line.at - from;
		from = line.at + line.len;
		removed++;
	}
	if (!removed)
		return 0;
	memmove(vmx->text + kept_len, vmx->text + from, vmx->text_len - from);
	vmx->text_len = kept_len + vmx->text_len - from;
	vmx->text[vmx->text_len] = '\0';
	/* Fewer of the lines that have passed before, in the room they had. */
	CHECK(index_text(vmx, NULL) == 0);
	return removed;
}

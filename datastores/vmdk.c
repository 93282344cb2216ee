/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmdk.c - one pass over the lines tells what the descriptor says; edits are splices of the
 * kept text, done on a copy and judged by the same pass again.
 */
#include "datastores/vmdk.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RECORD_PREFIX "ddb.blkmirror."

/* ---- lines ---- */

/* A piece of the descriptor's text, by position: it survives a copy of the struct. */
struct piece {
	size_t at;
	size_t len;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct piece trimmed(const char *text, struct piece piece)
{
	while (piece.len && is_blank(text[piece.at])) {
		piece.at++;
		piece.len--;
	}
	while (piece.len && is_blank(text[piece.at + piece.len - 1]))
		piece.len--;
	return piece;
}

/* The line at *at without its end; moves *at behind it.  False at the end of the text. */
static bool next_line(const char *text, size_t text_len, size_t *at, struct piece *line)
{
	const char *end;

	if (*at >= text_len)
		return false;
	end = memchr(text + *at, '\n', text_len - *at);
	line->at = *at;
	line->len = (end ? (size_t)(end - text) : text_len) - *at;
	*at += line->len + (end != NULL);
	return true;
}

static bool piece_is(const char *text, struct piece piece, const char *word)
{
	return piece.len == strlen(word) && strncasecmp(text + piece.at, word, piece.len) == 0;
}

/* The word at the front; *rest keeps what follows, trimmed. */
static struct piece take_word(const char *text, struct piece *rest)
{
	struct piece word = { rest->at, 0 };

	while (word.len < rest->len && !is_blank(text[word.at + word.len]))
		word.len++;
	rest->at += word.len;
	rest->len -= word.len;
	*rest = trimmed(text, *rest);
	return word;
}

/* "key = value" or "key = "value"" into its halves, value without quotes. */
static bool split_key(const char *text, struct piece line, struct piece *key, struct piece *value)
{
	const char *equals = memchr(text + line.at, '=', line.len);
	size_t key_len;

	if (!equals || text[line.at] == '#')
		return false;
	key_len = (size_t)(equals - text) - line.at;
	*key = trimmed(text, (struct piece){ line.at, key_len });
	*value = trimmed(text, (struct piece){ line.at + key_len + 1, line.len - key_len - 1 });
	if (value->len >= 2 && text[value->at] == '"' && text[value->at + value->len - 1] == '"') {
		value->at++;
		value->len -= 2;
	}
	return key->len > 0;
}

/* ---- parsing ---- */

struct parse {
	struct vmdk *out;
	const char *name;
	struct err *err;
	bool has_version, has_parent, has_type, has_thin;
	unsigned extent_count;
};

static int bad(struct parse *parse, const char *why)
{
	return err_set(parse->err, ERR_DISK_BAD_DESCRIPTOR, -EINVAL, "the descriptor '%.120s' %s",
		       parse->name, why);
}

static int bad_format(struct parse *parse, const char *why)
{
	return err_set(parse->err, ERR_DISK_BAD_FORMAT, -EINVAL, "'%.120s' %s", parse->name, why);
}

/* A decimal number; 18 digits cannot overflow. */
static bool number_of(const char *text, struct piece piece, uint64_t *out)
{
	uint64_t value = 0;

	if (piece.len == 0 || piece.len > 18)
		return false;
	for (size_t i = 0; i < piece.len; i++) {
		char c = text[piece.at + i];

		if (!isdigit((unsigned char)c))
			return false;
		value = value * 10 + (uint64_t)(c - '0');
	}
	*out = value;
	return true;
}

static int parse_sectors(struct parse *parse, struct piece word)
{
	struct vmdk *out = parse->out;
	uint64_t sectors;

	if (!number_of(out->text, word, &sectors))
		return bad(parse, "has an extent whose size is no number");
	if (sectors < DS_DISK_SIZE_MIN / VMDK_SECTOR_BYTES ||
	    sectors > DS_DISK_SIZE_MAX / VMDK_SECTOR_BYTES)
		return err_set(parse->err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "the disk '%.120s' has %" PRIu64 " sectors, which is out of bounds",
			       parse->name, sectors);
	out->size_bytes = sectors * VMDK_SECTOR_BYTES;
	out->sectors_at = word.at;
	out->sectors_len = word.len;
	return 0;
}

/* "name" [offset] */
static int parse_data_file(struct parse *parse, struct piece rest, bool offset_needed)
{
	struct vmdk *out = parse->out;
	const char *text = out->text, *quote;
	struct piece name;
	uint64_t offset = 0;

	if (rest.len < 3 || text[rest.at] != '"')
		return bad(parse, "has an extent without a quoted file name");
	quote = memchr(text + rest.at + 1, '"', rest.len - 1);
	if (!quote)
		return bad(parse, "has an extent whose file name has no closing quote");
	name = (struct piece){ rest.at + 1, (size_t)(quote - text) - rest.at - 1 };
	rest = trimmed(text, (struct piece){ name.at + name.len + 1, rest.len - name.len - 2 });
	if (name.len == 0 || name.len >= sizeof(out->data_name))
		return bad(parse, "has an extent whose file name is too long or empty");
	memcpy(out->data_name, text + name.at, name.len);
	out->data_name[name.len] = 0;
	if (!ds_path_part_is_valid(out->data_name) || strcasecmp(out->data_name, parse->name) == 0)
		return bad(parse, "names a data file that is no plain file name in its own folder");
	if (rest.len == 0 && !offset_needed)
		return 0;
	if (!number_of(text, rest, &offset))
		return bad(parse, "has an extent line that ends in something unknown");
	if (offset != 0)
		return bad_format(parse, "has its data not at the beginning of the data file");
	return 0;
}

/* access sectors kind "name" [offset] */
static int parse_extent(struct parse *parse, struct piece line)
{
	const char *text = parse->out->text;
	struct piece rest = line, access = take_word(text, &rest), kind;
	int rc;

	if (parse->extent_count++)
		return bad_format(parse, "is split into several extents, which are not supported");
	if (!piece_is(text, access, "RW"))
		return bad_format(parse, "has an extent that is not writable (RDONLY or NOACCESS)");
	rc = parse_sectors(parse, take_word(text, &rest));
	if (rc)
		return rc;
	kind = take_word(text, &rest);
	if (piece_is(text, kind, "SPARSE") || piece_is(text, kind, "VMFSSPARSE") ||
	    piece_is(text, kind, "SESPARSE"))
		return bad_format(parse, "is a sparse VMDK; only flat ones can be used in place");
	if (piece_is(text, kind, "VMFS"))
		return parse_data_file(parse, rest, false);
	if (piece_is(text, kind, "FLAT"))
		return parse_data_file(parse, rest, true);
	return bad_format(parse, "has an extent of a kind other than FLAT and VMFS");
}

static int parse_record(struct parse *parse, struct piece key, struct piece value)
{
	const char *text = parse->out->text;
	char copy[DISK_RECORD_VALUE_BYTES];
	int rc;

	key.at += strlen(RECORD_PREFIX);
	key.len -= strlen(RECORD_PREFIX);
	for (unsigned i = 0; i < RECORD_KEY_COUNT; i++) {
		if (!piece_is(text, key, disk_record_key_name((enum disk_record_key)i)))
			continue;
		if (value.len >= sizeof(copy))
			return bad(parse, "has a ddb.blkmirror value that is too long");
		memcpy(copy, text + value.at, value.len);
		copy[value.len] = 0;
		rc = disk_record_put(&parse->out->record, (enum disk_record_key)i, copy);
		if (rc == -EEXIST)
			return bad(parse, "has a ddb.blkmirror key twice");
		return rc ? bad(parse, "has a ddb.blkmirror value that makes no sense") : 0;
	}
	return 0;       /* of a later version: kept */
}

static int parse_type(struct parse *parse, struct piece value)
{
	static const char *const known[] = { "vmfs", "monolithicFlat", "twoGbMaxExtentFlat",
					     "vmfsPreallocated", "vmfsEagerZeroedThick",
					     "vmfsThin" };

	for (size_t i = 0; i < ARRAY_COUNT(known); i++)
		if (piece_is(parse->out->text, value, known[i]))
			return 0;
	return bad_format(parse, "has a createType that is not flat; only flat VMDKs can be used"
				 " in place");
}

static int parse_once(struct parse *parse, bool *seen)
{
	if (*seen)
		return bad(parse, "has a key twice that may stand there only once");
	*seen = true;
	return 0;
}

static int parse_key(struct parse *parse, struct piece key, struct piece value)
{
	const char *text = parse->out->text;
	uint64_t version;
	int rc;

	if (key.len > strlen(RECORD_PREFIX) &&
	    strncasecmp(text + key.at, RECORD_PREFIX, strlen(RECORD_PREFIX)) == 0)
		return parse_record(parse, key, value);
	if (piece_is(text, key, "version")) {
		rc = parse_once(parse, &parse->has_version);
		if (!rc && (!number_of(text, value, &version) || version < 1 || version > 4))
			return bad(parse, "is of a version other than 1 to 4");
		return rc;
	}
	if (piece_is(text, key, "parentCID")) {
		rc = parse_once(parse, &parse->has_parent);
		if (!rc && !piece_is(text, value, "ffffffff"))
			return err_set(parse->err, ERR_DISK_CHAIN, -EINVAL,
				       "'%.120s' is a snapshot's part of a disk: it has a parent",
				       parse->name);
		return rc;
	}
	if (piece_is(text, key, "parentFileNameHint"))
		return err_set(parse->err, ERR_DISK_CHAIN, -EINVAL,
			       "'%.120s' is a snapshot's part of a disk: it names a parent",
			       parse->name);
	if (piece_is(text, key, "createType")) {
		rc = parse_once(parse, &parse->has_type);
		return rc ? rc : parse_type(parse, value);
	}
	if (piece_is(text, key, "ddb.thinProvisioned")) {
		parse->out->thin = piece_is(text, value, "1");
		return parse_once(parse, &parse->has_thin);
	}
	return 0;
}

static bool is_extent(const char *text, struct piece line)
{
	struct piece rest = line, word = take_word(text, &rest);

	return piece_is(text, word, "RW") || piece_is(text, word, "RDONLY") ||
	       piece_is(text, word, "NOACCESS");
}

static int parse_lines(struct parse *parse)
{
	const char *text = parse->out->text;
	struct piece line, key, value;
	bool signed_off = false;
	size_t at = 0;
	int rc = 0;

	while (!rc && next_line(text, parse->out->text_len, &at, &line)) {
		line = trimmed(text, line);
		if (line.len == 0)
			continue;
		if (!signed_off) {
			if (line.len < 21 || strncasecmp(text + line.at, "# Disk DescriptorFile", 21))
				return bad(parse, "does not begin with '# Disk DescriptorFile'");
			signed_off = true;
		} else if (is_extent(text, line)) {
			rc = parse_extent(parse, line);
		} else if (split_key(text, line, &key, &value)) {
			rc = parse_key(parse, key, value);
		}
	}
	return !rc && !signed_off ? bad(parse, "is empty") : rc;
}

/* Containers whose first bytes tell them apart from a text. */
static int parse_magic(struct parse *parse)
{
	const struct vmdk *out = parse->out;

	if (out->text_len >= 4 && (memcmp(out->text, "KDMV", 4) == 0 ||
				   memcmp(out->text, "COWD", 4) == 0))
		return bad_format(parse, "is a sparse VMDK; only flat ones can be used in place");
	for (size_t i = 0; i < out->text_len; i++) {
		unsigned char c = (unsigned char)out->text[i];

		if ((c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
			return bad(parse, "is no text: it has control characters in it");
	}
	return 0;
}

int vmdk_parse(const char *bytes, size_t len, const char *name, struct vmdk *out, struct err *err)
{
	struct parse parse = { .out = out, .name = name, .err = err };
	int rc;

	if (len > VMDK_TEXT_BYTES) {
		parse.out = NULL;
		return memcmp(bytes, "KDMV", 4) == 0 || memcmp(bytes, "COWD", 4) == 0
			       ? bad_format(&parse, "is a sparse VMDK; only flat ones can be used"
						    " in place")
			       : bad(&parse, "is larger than 20 KiB");
	}
	/* QEMU fills a descriptor that it has updated with zeroes up to a round length. */
	while (len && bytes[len - 1] == 0)
		len--;
	memset(out, 0, sizeof(*out));
	memcpy(out->text, bytes, len);
	out->text_len = len;
	disk_record_init(&out->record);
	rc = parse_magic(&parse);
	if (!rc)
		rc = parse_lines(&parse);
	if (rc)
		return rc;
	if (!parse.has_version || !parse.has_type || !parse.has_parent)
		return bad(&parse, "lacks its version, its createType or its parentCID");
	if (parse.extent_count == 0)
		return bad(&parse, "names no extent");
	if (disk_record_finish(&out->record))
		return bad(&parse, "has ddb.blkmirror keys that do not fit together");
	if (out->record.provision == PROVISION_SAME && out->thin)
		out->record.provision = PROVISION_THIN;
	return 0;
}

bool vmdk_get(const struct vmdk *vmdk, const char *wanted, char *out, size_t out_bytes)
{
	struct piece line, key, value;
	size_t at = 0;

	while (next_line(vmdk->text, vmdk->text_len, &at, &line)) {
		line = trimmed(vmdk->text, line);
		if (line.len == 0 || is_extent(vmdk->text, line) ||
		    !split_key(vmdk->text, line, &key, &value) ||
		    !piece_is(vmdk->text, key, wanted))
			continue;
		if (value.len >= out_bytes)
			return false;
		memcpy(out, vmdk->text + value.at, value.len);
		out[value.len] = 0;
		return true;
	}
	return false;
}

/* ---- editing ---- */

/* Replace a piece of the text.  False where it would not fit. */
static bool splice(struct vmdk *vmdk, struct piece old, const char *fresh)
{
	size_t fresh_len = strlen(fresh), tail = vmdk->text_len - old.at - old.len;

	if (vmdk->text_len - old.len + fresh_len > VMDK_TEXT_BYTES)
		return false;
	memmove(vmdk->text + old.at + fresh_len, vmdk->text + old.at + old.len, tail);
	memcpy(vmdk->text + old.at, fresh, fresh_len);
	vmdk->text_len += fresh_len - old.len;
	return true;
}

static bool find_key(const struct vmdk *vmdk, const char *wanted, struct piece *whole)
{
	struct piece line, key, value;
	size_t at = 0;

	while (next_line(vmdk->text, vmdk->text_len, &at, &line)) {
		*whole = trimmed(vmdk->text, line);
		if (whole->len && !is_extent(vmdk->text, *whole) &&
		    split_key(vmdk->text, *whole, &key, &value) &&
		    piece_is(vmdk->text, key, wanted))
			return true;
	}
	return false;
}

/* In place where the key stands; else as a new last line, with the text's own line end. */
static bool set_key(struct vmdk *vmdk, const char *key, const char *value)
{
	bool crlf = memmem(vmdk->text, vmdk->text_len, "\r\n", 2) != NULL;
	const char *end = crlf ? "\r\n" : "\n";
	struct piece whole;
	char line[160];

	snprintf(line, sizeof(line), "%s = \"%s\"", key, value);
	if (find_key(vmdk, key, &whole))
		return splice(vmdk, whole, line);
	whole = (struct piece){ vmdk->text_len, 0 };
	if (vmdk->text_len && vmdk->text[vmdk->text_len - 1] != '\n') {
		if (!splice(vmdk, whole, end))
			return false;
		whole.at = vmdk->text_len;
	}
	snprintf(line, sizeof(line), "%s = \"%s\"%s", key, value, end);
	return splice(vmdk, whole, line);
}

static bool set_record(struct vmdk *vmdk, const struct disk_record *record)
{
	for (unsigned i = 0; i < RECORD_KEY_COUNT; i++) {
		char key[64], value[DISK_RECORD_VALUE_BYTES];

		snprintf(key, sizeof(key), RECORD_PREFIX "%s",
			 disk_record_key_name((enum disk_record_key)i));
		disk_record_value(record, (enum disk_record_key)i, value);
		if (!set_key(vmdk, key, value))
			return false;
	}
	return true;
}

/* Judge what was written as if it had been read: what we write, we can read. */
static int edited(struct vmdk *vmdk, const struct vmdk *work, bool fits, struct err *err)
{
	struct vmdk *again;
	int rc;

	if (!fits)
		return err_set(err, ERR_DISK_BAD_DESCRIPTOR, -EFBIG,
			       "the descriptor of '%.120s' would grow beyond 20 KiB",
			       vmdk->data_name);
	again = malloc(sizeof(*again));
	if (!again)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = vmdk_parse(work->text, work->text_len, "(edited)", again, err);
	if (!rc)
		*vmdk = *again;
	free(again);
	return rc;
}

static struct vmdk *copy_of(const struct vmdk *vmdk)
{
	struct vmdk *copy = malloc(sizeof(*copy));

	if (copy)
		*copy = *vmdk;
	return copy;
}

int vmdk_set_record(struct vmdk *vmdk, const struct disk_record *record, struct err *err)
{
	CLEANUP_FREE struct vmdk *work = copy_of(vmdk);

	if (!work)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	return edited(vmdk, work, set_record(work, record), err);
}

int vmdk_set_size(struct vmdk *vmdk, uint64_t size_bytes, struct err *err)
{
	CLEANUP_FREE struct vmdk *work = copy_of(vmdk);
	char sectors[24];

	CHECK(size_bytes % VMDK_SECTOR_BYTES == 0);
	if (!work)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(sectors, sizeof(sectors), "%" PRIu64, size_bytes / VMDK_SECTOR_BYTES);
	return edited(vmdk, work,
		      splice(work, (struct piece){ work->sectors_at, work->sectors_len }, sectors),
		      err);
}

/* ---- a new one ---- */

/* The geometry that VMware gives a disk on an LSI adapter; beyond what fits it is only a form. */
static uint64_t cylinders_of(uint64_t size_bytes)
{
	uint64_t cylinders = size_bytes / VMDK_SECTOR_BYTES / (255 * 63);

	return cylinders ? cylinders : 1;
}

/* "60 00 C2 9x ...": VMware's own form, and its own prefix for generated ones. */
static void ddb_uuid(const uint8_t uuid[16], char text[48])
{
	static const uint8_t prefix[3] = { 0x60, 0x00, 0xc2 };
	char *at = text;

	for (unsigned i = 0; i < 16; i++)
		at += snprintf(at, 4, "%02X%s", i < 3 ? prefix[i] : uuid[i],
			       i == 7 ? "-" : i == 15 ? "" : " ");
}

int vmdk_format(const struct vmdk_spec *spec, struct vmdk *out, struct err *err)
{
	CLEANUP_FREE struct vmdk *work = calloc(1, sizeof(*work));
	char uuid[48];
	int len;

	CHECK(spec->size_bytes % VMDK_SECTOR_BYTES == 0);
	if (!work)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	ddb_uuid(spec->record->identity.uuid, uuid);
	len = snprintf(work->text, sizeof(work->text),
		       "# Disk DescriptorFile\n"
		       "version=1\n"
		       "encoding=\"UTF-8\"\n"
		       "CID=%08" PRIx32 "\n"
		       "parentCID=ffffffff\n"
		       "createType=\"vmfs\"\n"
		       "\n"
		       "# Extent description\n"
		       "RW %" PRIu64 " VMFS \"%s\"\n"
		       "\n"
		       "# The Disk Data Base\n"
		       "#DDB\n"
		       "\n"
		       "ddb.adapterType = \"lsilogic\"\n"
		       "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
		       "ddb.geometry.heads = \"255\"\n"
		       "ddb.geometry.sectors = \"63\"\n"
		       "%s"
		       "ddb.uuid = \"%s\"\n"
		       "ddb.virtualHWVersion = \"13\"\n",
		       spec->cid, spec->size_bytes / VMDK_SECTOR_BYTES, spec->data_name,
		       cylinders_of(spec->size_bytes),
		       spec->record->provision == PROVISION_THIN ? "ddb.thinProvisioned = \"1\"\n"
								 : "",
		       uuid);
	CHECK(len > 0 && (size_t)len < sizeof(work->text));
	work->text_len = (size_t)len;
	return edited(out, work, set_record(work, spec->record), err);
}

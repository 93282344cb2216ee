/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/ds_url.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "datastores/ds_path.h"

static const char *const kind_names[DS_URL_KIND_COUNT] = {
	[DS_URL_DIR] = "dir",       [DS_URL_VMFS] = "vmfs",   [DS_URL_VMFS_ISCSI] = "vmfs+iscsi",
	[DS_URL_NFS] = "nfs",       [DS_URL_ISCSI] = "iscsi", [DS_URL_NBD] = "nbd",
	[DS_URL_NBD_UNIX] = "nbd+unix",
};

const char *ds_url_kind_name(enum ds_url_kind kind)
{
	CHECK(kind < DS_URL_KIND_COUNT);
	return kind_names[kind];
}

/* A piece of the URL as it was written: not decoded, not terminated. */
struct span {
	const char *at;
	size_t len;
};

static bool span_is(struct span span, const char *text)
{
	return span.len == strlen(text) && memcmp(span.at, text, span.len) == 0;
}

/* Up to the first byte of `stops`; *rest begins with that byte. */
static struct span span_until(struct span *rest, const char *stops)
{
	struct span head = { rest->at, 0 };

	while (head.len < rest->len && !strchr(stops, head.at[head.len]))
		head.len++;
	rest->at += head.len;
	rest->len -= head.len;
	return head;
}

static bool span_skip(struct span *span, char c)
{
	if (span->len == 0 || span->at[0] != c)
		return false;
	span->at++;
	span->len--;
	return true;
}

/* The URL is never quoted whole: what was meant as a secret may stand anywhere in it. */
static int bad_url(struct err *err, const char *why)
{
	return err_set(err, ERR_DS_BAD_URL, -EINVAL, "the URL %s", why);
}

static int secret_in_url(struct err *err)
{
	return err_set(err, ERR_DS_SECRET_IN_URL, -EINVAL,
		       "the URL carries a user name or a secret, and URLs are shown and logged");
}

/* ---- pieces ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decode into out->text, which always has room: decoding never lengthens. */
static int url_decode(struct ds_url *out, struct span in, const char **decoded, struct err *err)
{
	char *start = out->text + out->text_used, *end = start;

	CHECK(in.len < sizeof(out->text) - out->text_used);
	for (size_t i = 0; i < in.len; i++) {
		int high, low;

		if (in.at[i] != '%') {
			*end++ = in.at[i];
			continue;
		}
		high = i + 1 < in.len ? hex_digit(in.at[i + 1]) : -1;
		low = i + 2 < in.len ? hex_digit(in.at[i + 2]) : -1;
		if (high < 0 || low < 0)
			return bad_url(err, "has a '%' that two hex digits do not follow");
		*end++ = (char)(high << 4 | low);
		i += 2;
	}
	if (!ds_text_is_clean(start, (size_t)(end - start)))
		return bad_url(err, "has a control character in it, or is not UTF-8");
	*end++ = 0;
	out->text_used += (size_t)(end - start);
	*decoded = start;
	return 0;
}

static int url_absolute_path(const char *path, struct err *err)
{
	if (path[0] != '/')
		return bad_url(err, "needs an absolute path");
	for (const char *part = path + 1; *part;) {
		size_t len = strcspn(part, "/");

		if (part[0] == '.' && (len == 1 || (len == 2 && part[1] == '.')))
			return bad_url(err, "has a '.' or '..' in its path");
		part += len + (part[len] == '/');
	}
	return 0;
}

/* Decimal digits only, no sign, no spaces. */
static bool span_number(struct span span, uint64_t max, uint64_t *out)
{
	uint64_t value = 0;

	if (span.len == 0 || span.len > 10)
		return false;
	for (size_t i = 0; i < span.len; i++) {
		if (!isdigit((unsigned char)span.at[i]))
			return false;
		value = value * 10 + (uint64_t)(span.at[i] - '0');
	}
	if (value > max)
		return false;
	*out = value;
	return true;
}

static int url_port(struct span text, uint16_t *out, struct err *err)
{
	uint64_t port;

	if (!span_number(text, UINT16_MAX, &port) || port == 0)
		return bad_url(err, "has a port that is no number from 1 to 65535");
	*out = (uint16_t)port;
	return 0;
}

static bool is_host_char(char c, bool v6)
{
	if (v6)
		return isxdigit((unsigned char)c) || c == ':' || c == '.';
	return isalnum((unsigned char)c) || c == '.' || c == '-' || c == '_';
}

/* host, host:port, [v6], [v6]:port */
static int url_authority(struct span text, struct ds_url *out, struct err *err)
{
	bool v6 = span_skip(&text, '[');
	struct span host = span_until(&text, v6 ? "]" : ":");

	if (v6 && !span_skip(&text, ']'))
		return bad_url(err, "has a '[' without its ']'");
	if (host.len == 0 || host.len >= sizeof(out->host))
		return bad_url(err, "needs a host");
	if (host.at[0] == '-')
		return bad_url(err, "has a host that begins with '-'");
	for (size_t i = 0; i < host.len; i++)
		if (!is_host_char(host.at[i], v6))
			return bad_url(err, "has a character in its host that no host has");
	memcpy(out->host, host.at, host.len);
	out->host[host.len] = 0;
	if (text.len == 0)
		return 0;
	if (!span_skip(&text, ':'))
		return bad_url(err, "has something after its host that is no port");
	return url_port(text, &out->port, err);
}

/* ---- iSCSI ---- */

static bool is_iqn_char(char c)
{
	return isalnum((unsigned char)c) || c == '.' || c == '-' || c == ':' || c == '_';
}

static int url_iqn(struct span text, struct ds_url *out, struct err *err)
{
	bool known = text.len > 4 && (strncasecmp(text.at, "iqn.", 4) == 0 ||
				      strncasecmp(text.at, "eui.", 4) == 0 ||
				      strncasecmp(text.at, "naa.", 4) == 0);

	if (!known || text.len >= sizeof(out->iqn))
		return bad_url(err, "needs the target's name (iqn. ..., eui. ... or naa. ...)");
	for (size_t i = 0; i < text.len; i++)
		if (!is_iqn_char(text.at[i]))
			return bad_url(err, "has a character in its target name that none has");
	memcpy(out->iqn, text.at, text.len);
	out->iqn[text.len] = 0;
	return 0;
}

static int url_iscsi_path(struct span path, struct ds_url *out, struct err *err)
{
	struct span iqn;
	uint64_t lun;
	int rc;

	if (!span_skip(&path, '/'))
		return bad_url(err, "needs the target's name after the host");
	iqn = span_until(&path, "/");
	rc = url_iqn(iqn, out, err);
	if (rc)
		return rc;
	if (out->kind == DS_URL_ISCSI)
		return path.len ? bad_url(err, "goes on after the target's name: each LUN is a disk"
					       " of the datastore (lun1, lun2 ...)") : 0;
	if (!span_skip(&path, '/') || !span_number(path, 16383, &lun))
		return bad_url(err, "needs a LUN from 0 to 16383 after the target's name");
	out->lun = (uint32_t)lun;
	return 0;
}

/* ---- the query ---- */

static bool is_secret_key(struct span key)
{
	static const char *const words[] = { "user", "pass", "secret", "token", "chap", "psk",
					     "key",  "cred", "auth" };

	for (size_t i = 0; i < ARRAY_COUNT(words); i++)
		for (size_t at = 0; at + strlen(words[i]) <= key.len; at++)
			if (strncasecmp(key.at + at, words[i], strlen(words[i])) == 0)
				return true;
	return false;
}

static int url_nfs_option(struct span key, struct span value, struct ds_url *out, struct err *err)
{
	uint64_t number;

	if (span_is(key, "nfsport") && !out->nfs_port)
		return url_port(value, &out->nfs_port, err);
	if (span_is(key, "mountport") && !out->mount_port)
		return url_port(value, &out->mount_port, err);
	if (span_is(key, "version") && !out->nfs_version) {
		if (!span_number(value, 4, &number) || number < 3)
			return bad_url(err, "asks for an NFS version other than 3 and 4");
		out->nfs_version = (uint32_t)number;
		return 0;
	}
	if (span_is(key, "nconnect") && !out->nconnect) {
		if (!span_number(value, 16, &number) || number == 0)
			return bad_url(err, "has an nconnect that is no number from 1 to 16");
		out->nconnect = (uint32_t)number;
		return 0;
	}
	return bad_url(err, "has an option that nfs:// does not know, or has one twice");
}

static int url_extent(struct span value, struct ds_url *out, struct err *err)
{
	const char **extent = &out->extents[out->extent_count];
	int rc;

	if (out->extent_count == DS_URL_EXTENT_MAX)
		return bad_url(err, "names more than 32 extents");
	rc = url_decode(out, value, extent, err);
	if (rc)
		return rc;
	out->extent_count++;
	return url_absolute_path(*extent, err);
}

static int url_option(struct span key, struct span value, struct ds_url *out, struct err *err)
{
	if (is_secret_key(key))
		return secret_in_url(err);
	if (out->kind == DS_URL_NFS)
		return url_nfs_option(key, value, out, err);
	if (out->kind == DS_URL_VMFS && span_is(key, "extent"))
		return url_extent(value, out, err);
	if (out->kind == DS_URL_NBD_UNIX && span_is(key, "socket") && !out->socket)
		return url_decode(out, value, &out->socket, err);
	return bad_url(err, "has an option that its kind does not know, or has one twice");
}

static int url_query(struct span query, struct ds_url *out, struct err *err)
{
	while (query.len) {
		struct span value = span_until(&query, "&");
		struct span key = span_until(&value, "=");
		int rc;

		if (!span_skip(&value, '='))
			return is_secret_key(key) ? secret_in_url(err)
						  : bad_url(err, "has an option without '='");
		rc = url_option(key, value, out, err);
		if (rc)
			return rc;
		if (span_skip(&query, '&') && query.len == 0)
			return bad_url(err, "ends in '&'");
	}
	return 0;
}

/* ---- the whole ---- */

static int url_kind(struct span *rest, struct ds_url *out, struct err *err)
{
	struct span scheme = span_until(rest, ":");

	if (rest->len < 3 || memcmp(rest->at, "://", 3) != 0)
		return bad_url(err, "has no '://'");
	rest->at += 3;
	rest->len -= 3;
	for (unsigned kind = 0; kind < DS_URL_KIND_COUNT; kind++) {
		if (span_is(scheme, kind_names[kind])) {
			out->kind = (enum ds_url_kind)kind;
			return 0;
		}
	}
	return bad_url(err, "is of no kind that is known: dir, nfs, iscsi, vmfs, vmfs+iscsi,"
			    " nbd or nbd+unix");
}

static bool kind_has_host(enum ds_url_kind kind)
{
	return kind == DS_URL_VMFS_ISCSI || kind == DS_URL_NFS || kind == DS_URL_ISCSI ||
	       kind == DS_URL_NBD;
}

static int url_path(struct span path, struct ds_url *out, struct err *err)
{
	if (out->kind == DS_URL_ISCSI || out->kind == DS_URL_VMFS_ISCSI)
		return url_iscsi_path(path, out, err);
	if (out->kind == DS_URL_NBD || out->kind == DS_URL_NBD_UNIX) {
		if (path.len && !span_skip(&path, '/'))
			return bad_url(err, "needs a '/' before the export's name");
		return url_decode(out, path, &out->path, err);
	}
	int rc = url_decode(out, path, &out->path, err);

	return rc ? rc : url_absolute_path(out->path, err);
}

/* sun_path, with its end. */
#define UNIX_PATH_BYTES 108

static int url_complete(const struct ds_url *out, struct err *err)
{
	if (out->kind != DS_URL_NBD_UNIX)
		return 0;
	if (!out->socket || out->socket[0] != '/')
		return bad_url(err, "needs ?socket= with an absolute path");
	if (strlen(out->socket) >= UNIX_PATH_BYTES)
		return bad_url(err, "names a socket path longer than 107 bytes");
	return 0;
}

int ds_url_parse(const char *text, struct ds_url *out, struct err *err)
{
	struct span rest = { text, strnlen(text, DS_URL_BYTES) }, authority, path;
	int rc;

	memset(out, 0, sizeof(*out));
	out->path = "";
	if (rest.len == DS_URL_BYTES)
		return bad_url(err, "is too long");
	rc = url_kind(&rest, out, err);
	if (rc)
		return rc;
	authority = span_until(&rest, "/?#");
	if (memchr(authority.at, '@', authority.len))
		return secret_in_url(err);
	if (kind_has_host(out->kind))
		rc = url_authority(authority, out, err);
	else if (authority.len)
		rc = bad_url(err, "names a host where none belongs: the path begins at the third '/'");
	if (rc)
		return rc;
	path = span_until(&rest, "?#");
	rc = url_path(path, out, err);
	if (rc)
		return rc;
	if (span_skip(&rest, '?')) {
		struct span query = span_until(&rest, "#");

		rc = url_query(query, out, err);
		if (rc)
			return rc;
	}
	if (rest.len)
		return bad_url(err, "has a '#': write %23 where it is meant");
	return url_complete(out, err);
}

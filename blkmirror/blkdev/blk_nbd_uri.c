/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/blkdev/blk_nbd_private.h"

#define URI_MAX 8192
#define NBD_DEFAULT_PORT "10809"

static const char tcp_scheme[] = "nbd://";
static const char unix_scheme[] = "nbd+unix://";

/* The three parts behind the scheme; none is terminated. */
struct uri_parts {
	const char *authority, *path, *query;   /* path begins at its '/', query behind its '?' */
	size_t authority_length, path_length, query_length;
	bool has_query;
};

static int uri_refuse(struct err *err, const char *why)
{
	return err_set(err, ERR_DS_BAD_URL, -EINVAL, "cannot use the NBD URL: %s", why);
}

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

/* Resolve %XX.  False: too long, a bad escape, or a character no name should have. */
static bool uri_decode(const char *text, size_t length, char *out, size_t out_bytes)
{
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		int value = (unsigned char)text[i];

		if (text[i] == '%') {
			int high = i + 2 < length ? hex_value(text[i + 1]) : -1;
			int low = i + 2 < length ? hex_value(text[i + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			value = high << 4 | low;
			i += 2;
		}
		if (value < 0x20 || value == 0x7f || used + 1 >= out_bytes)
			return false;
		out[used++] = (char)value;
	}
	out[used] = 0;
	return true;
}

static void uri_split(const char *rest, struct uri_parts *parts)
{
	*parts = (struct uri_parts){ .authority = rest };
	parts->authority_length = strcspn(rest, "/?");
	parts->path = rest + parts->authority_length;
	parts->path_length = strcspn(parts->path, "?");
	parts->query = parts->path + parts->path_length;
	if (*parts->query == '?') {
		parts->has_query = true;
		parts->query++;
	}
	parts->query_length = strlen(parts->query);
}

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '-' || c == '_';
}

/* The length of the host in `text`, *host set to where it begins; -1: not a host. */
static int uri_host(const char *text, size_t length, const char **host, size_t *behind)
{
	size_t count = 0;

	*host = text;
	if (length && *text == '[') {
		*host = text + 1;
		while (1 + count < length && text[1 + count] != ']')
			count++;
		if (1 + count == length || count == 0)
			return -1;
		for (size_t i = 0; i < count; i++)      /* an address, with a scope perhaps */
			if (!is_host_char((*host)[i]) && (*host)[i] != ':' && (*host)[i] != '%')
				return -1;
		*behind = count + 2;
		return (int)count;
	}
	while (count < length && is_host_char(text[count]))
		count++;
	*behind = count;
	return (int)count;
}

static bool uri_port(const char *text, size_t length, char port[6])
{
	unsigned value = 0;

	if (length == 0 || length > 5)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	if (value == 0 || value > 65535)
		return false;
	snprintf(port, 6, "%u", value);
	return true;
}

static int uri_parse_tcp(const struct uri_parts *parts, struct blk_nbd_address *out,
			 struct err *err)
{
	const char *host;
	size_t behind;
	int length = uri_host(parts->authority, parts->authority_length, &host, &behind);

	if (length < 0 || length > NBD_HOST_MAX)
		return uri_refuse(err, "its host is not a name or an address");
	if (parts->has_query)
		return uri_refuse(err, "it takes no parameters");
	snprintf(out->host, sizeof(out->host), "%.*s", length, length ? host : "");
	if (length == 0)
		snprintf(out->host, sizeof(out->host), "localhost");
	snprintf(out->port, sizeof(out->port), NBD_DEFAULT_PORT);
	if (behind < parts->authority_length &&
	    (parts->authority[behind] != ':' ||
	     !uri_port(parts->authority + behind + 1, parts->authority_length - behind - 1,
		       out->port)))
		return uri_refuse(err, "its port is not a number from 1 to 65535");
	snprintf(out->shown, sizeof(out->shown),
		 strchr(out->host, ':') ? "nbd://[%s]:%s" : "nbd://%s:%s", out->host, out->port);
	return 0;
}

static int uri_parse_unix(const struct uri_parts *parts, struct blk_nbd_address *out,
			  struct err *err)
{
	static const char key[] = "socket=";
	const size_t key_length = sizeof(key) - 1;

	out->is_unix = true;
	if (parts->authority_length)
		return uri_refuse(err, "a UNIX socket has no host: nbd+unix:///export?socket=PATH");
	if (parts->query_length < key_length || strncmp(parts->query, key, key_length) != 0 ||
	    memchr(parts->query, '&', parts->query_length))
		return uri_refuse(err, "it must have the one parameter socket=PATH");
	if (!uri_decode(parts->query + key_length, parts->query_length - key_length,
			out->socket_path, sizeof(out->socket_path)) ||
	    out->socket_path[0] != '/')
		return uri_refuse(err, "its socket is no absolute path of at most 107 characters");
	snprintf(out->shown, sizeof(out->shown), "nbd+unix:%s", out->socket_path);
	return 0;
}

int blk_nbd_address_parse(const char *uri, struct blk_nbd_address *out, struct err *err)
{
	struct blk_nbd_address *address;
	struct uri_parts parts;
	bool is_unix = strncmp(uri, unix_scheme, sizeof(unix_scheme) - 1) == 0;
	int rc;

	if (!is_unix && strncmp(uri, tcp_scheme, sizeof(tcp_scheme) - 1) != 0)
		return uri_refuse(err, "it begins neither with nbd:// nor with nbd+unix://");
	if (strnlen(uri, URI_MAX + 1) > URI_MAX)
		return uri_refuse(err, "it is too long");
	uri_split(uri + (is_unix ? sizeof(unix_scheme) : sizeof(tcp_scheme)) - 1, &parts);
	if (memchr(parts.authority, '@', parts.authority_length))
		return err_set(err, ERR_DS_SECRET_IN_URL, -EINVAL,
			       "cannot use the NBD URL: it carries a user or a password");
	if (strchr(uri, '#'))
		return uri_refuse(err, "it has a fragment");
	address = calloc(1, sizeof(*address));
	if (!address)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot open an NBD export");
	rc = is_unix ? uri_parse_unix(&parts, address, err) : uri_parse_tcp(&parts, address, err);
	if (!rc && parts.path_length &&
	    !uri_decode(parts.path + 1, parts.path_length - 1, address->export_name,
			sizeof(address->export_name)))
		rc = uri_refuse(err, "its export is not a name of at most 4096 characters");
	if (!rc)
		*out = *address;
	free(address);
	return rc;
}

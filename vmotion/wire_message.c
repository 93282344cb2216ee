/* SPDX-License-Identifier: Apache-2.0 */
/* wire_message.c - lines of JSON: control messages and the hello. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmotion/wire_format.h"

/* ---- text that becomes JSON ---- */

/* jansson recurses with the depth of what it reads: bound it before. */
static bool depth_is_bounded(const char *text, size_t text_bytes)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < text_bytes; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > WIRE_LINE_DEPTH_MAX)
				return false;
		} else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

static int object_decode(const char *text, size_t text_bytes, size_t max_bytes, json_t **out)
{
	json_t *object;

	if (text_bytes > max_bytes)
		return -EMSGSIZE;
	if (!depth_is_bounded(text, text_bytes))
		return -EPROTO;
	object = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		return -EPROTO;
	}
	*out = object;
	return 0;
}

int wire_get_uint(const json_t *message, const char *key, uint64_t max, uint64_t *out)
{
	const json_t *value = json_object_get(message, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return -EPROTO;
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

int wire_get_text(const json_t *message, const char *key, size_t max_bytes, const char **out)
{
	const json_t *value = json_object_get(message, key);

	if (!json_is_string(value) || json_string_length(value) > max_bytes ||
	    strlen(json_string_value(value)) != json_string_length(value))
		return -EPROTO;
	*out = json_string_value(value);
	return 0;
}

/* A peer's words are shown to people: nothing in them may steer a terminal. */
static void make_harmless(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		if (*c < ' ' || *c == 0x7f)
			*c = '?';
		else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)   /* the same in UTF-8 */
			c[0] = c[1] = '?';
	}
}

/* ---- secrets ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_decode(const char *text, uint8_t *out, size_t bytes)
{
	if (strlen(text) != 2 * bytes)
		return -EPROTO;
	for (size_t i = 0; i < bytes; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EPROTO;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

char *wire_secret_format(const uint8_t secret[WIRE_SECRET_BYTES],
			 char text[WIRE_SECRET_TEXT_BYTES])
{
	for (unsigned i = 0; i < WIRE_SECRET_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", secret[i]);
	return text;
}

int wire_get_secret(const json_t *message, const char *key, uint8_t out[WIRE_SECRET_BYTES])
{
	uint8_t bytes[WIRE_SECRET_BYTES];
	const char *text;
	int rc = wire_get_text(message, key, 2 * WIRE_SECRET_BYTES, &text);

	if (!rc)
		rc = hex_decode(text, bytes, sizeof(bytes));
	if (!rc)
		memcpy(out, bytes, sizeof(bytes));
	return rc;
}

/* ---- control lines ---- */

static bool type_is_valid(const char *type)
{
	size_t len = strlen(type);

	return len > 0 && len <= WIRE_TYPE_MAX_BYTES &&
	       strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

int wire_line_encode(uint64_t sequence, const char *type, const json_t *message, char **line,
		     size_t *line_bytes)
{
	json_t *whole;
	char *text;
	size_t len;

	if (!type_is_valid(type))
		return -EINVAL;
	whole = message ? json_copy((json_t *)message) : json_object();
	if (!whole || json_object_set_new(whole, "seq", json_integer((json_int_t)sequence)) ||
	    json_object_set_new(whole, "type", json_string(type))) {
		json_decref(whole);
		return -ENOMEM;
	}
	text = json_dumps(whole, JSON_COMPACT);
	json_decref(whole);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	if (len > WIRE_LINE_MAX_BYTES) {
		free(text);
		return -EMSGSIZE;
	}
	text[len++] = '\n';             /* in the place of the NUL: a line, not a string */
	*line = text;
	*line_bytes = len;
	return 0;
}

int wire_line_decode(const char *text, size_t text_bytes, struct wire_line *out)
{
	uint64_t sequence;
	const char *type;
	json_t *message;
	int rc = object_decode(text, text_bytes, WIRE_LINE_MAX_BYTES, &message);

	if (rc)
		return rc;
	rc = wire_get_uint(message, "seq", INT64_MAX, &sequence);
	if (!rc)
		rc = wire_get_text(message, "type", WIRE_TYPE_MAX_BYTES, &type);
	if (!rc && (sequence == 0 || !type_is_valid(type)))
		rc = -EPROTO;
	if (rc) {
		json_decref(message);
		return rc;
	}
	out->sequence = sequence;
	out->message = message;
	snprintf(out->type, sizeof(out->type), "%s", type);
	return 0;
}

/* ---- hello ---- */

static const char *const role_names[] = { [WIRE_CONTROL] = "control", [WIRE_DATA] = "data" };

uint32_t wire_version_agree(uint32_t their_newest, uint32_t their_oldest)
{
	uint32_t version = MIN(their_newest, WIRE_VERSION);

	return version >= their_oldest && version >= WIRE_VERSION_OLDEST ? version : 0;
}

static size_t object_line(json_t *object, char text[WIRE_HELLO_MAX_BYTES + 2])
{
	size_t len;

	CHECK(object);
	len = json_dumpb(object, text, WIRE_HELLO_MAX_BYTES, JSON_COMPACT);
	CHECK(len > 0);
	CHECK(len <= WIRE_HELLO_MAX_BYTES);
	json_decref(object);
	text[len++] = '\n';
	text[len] = '\0';
	return len;
}

static void set_text(json_t *object, const char *key, const char *text)
{
	CHECK(json_object_set_new(object, key, json_string(text)) == 0);
}

static void set_secret(json_t *object, const char *key, const uint8_t secret[WIRE_SECRET_BYTES])
{
	char text[WIRE_SECRET_TEXT_BYTES];

	set_text(object, key, wire_secret_format(secret, text));
}

static json_t *identity_json(uint32_t version, uint32_t oldest, const struct uuid *host,
			     const char *software)
{
	char uuid[UUID_TEXT_BYTES];

	return json_pack("{s:I, s:I, s:s, s:s}", "blkmirror", (json_int_t)version, "oldest",
			 (json_int_t)oldest, "host", uuid_format(host, uuid), "software", software);
}

size_t wire_hello_encode(const struct wire_hello *hello, char text[WIRE_HELLO_MAX_BYTES + 2])
{
	json_t *object =
		identity_json(hello->version, hello->oldest, &hello->host, hello->software);

	CHECK(object);
	set_text(object, "role", role_names[hello->role]);
	if (hello->role == WIRE_DATA) {
		set_secret(object, "session", hello->session);
		CHECK(json_object_set_new(object, "channel", json_integer(hello->channel)) == 0);
		CHECK(json_object_set_new(object, "epoch", json_integer(hello->epoch)) == 0);
		set_secret(object, "token", hello->token);
	}
	return object_line(object, text);
}

/* What both hellos begin with.  The version is judged first: another one may differ in the rest. */
static int identity_decode(const json_t *object, uint32_t *version, uint32_t *oldest,
			   struct uuid *host, char *software, size_t software_bytes)
{
	uint64_t newest, least;
	const char *text;

	if (wire_get_uint(object, "blkmirror", UINT32_MAX, &newest) ||
	    wire_get_uint(object, "oldest", UINT32_MAX, &least) || least == 0 || least > newest)
		return -EPROTO;
	*version = (uint32_t)newest;
	*oldest = (uint32_t)least;
	if (!wire_version_agree(*version, *oldest))
		return -EPROTONOSUPPORT;
	if (wire_get_text(object, "host", UUID_TEXT_BYTES - 1, &text) || uuid_parse(text, host))
		return -EPROTO;
	if (wire_get_text(object, "software", software_bytes - 1, &text))
		return -EPROTO;
	snprintf(software, software_bytes, "%s", text);
	make_harmless(software);
	return 0;
}

static int data_decode(const json_t *object, struct wire_hello *out)
{
	uint64_t channel, epoch;

	if (wire_get_secret(object, "session", out->session) ||
	    wire_get_uint(object, "channel", WIRE_CHANNELS_MAX - 1, &channel) ||
	    wire_get_uint(object, "epoch", UINT32_MAX, &epoch) || epoch == 0 ||
	    wire_get_secret(object, "token", out->token))
		return -EPROTO;
	out->channel = (uint32_t)channel;
	out->epoch = (uint32_t)epoch;
	return 0;
}

int wire_hello_decode(const char *text, size_t text_bytes, struct wire_hello *out)
{
	json_t *object;
	const char *role;
	int rc = object_decode(text, text_bytes, WIRE_HELLO_MAX_BYTES, &object);

	if (rc)
		return rc;
	*out = (struct wire_hello){ 0 };
	rc = identity_decode(object, &out->version, &out->oldest, &out->host, out->software,
			     sizeof(out->software));
	if (!rc)
		rc = wire_get_text(object, "role", 16, &role);
	if (!rc && strcmp(role, role_names[WIRE_CONTROL]) == 0)
		out->role = WIRE_CONTROL;
	else if (!rc && strcmp(role, role_names[WIRE_DATA]) == 0)
		out->role = WIRE_DATA;
	else if (!rc)
		rc = -EPROTO;
	if (!rc && out->role == WIRE_DATA)
		rc = data_decode(object, out);
	json_decref(object);
	return rc;
}

size_t wire_welcome_encode(const struct wire_welcome *welcome,
			   char text[WIRE_HELLO_MAX_BYTES + 2])
{
	json_t *object =
		identity_json(welcome->version, welcome->oldest, &welcome->host, welcome->software);

	CHECK(object);
	if (welcome->refused) {
		json_t *why = json_pack("{s:s, s:s}", "id", err_name(welcome->why.id), "cause",
					welcome->why.cause);

		/* A cause with half a character of a cut name in it is no UTF-8. */
		if (!why)
			why = json_pack("{s:s, s:s}", "id", err_name(welcome->why.id), "cause",
					"refused");
		CHECK(json_object_set_new(object, "error", why) == 0);
	} else {
		char seed[17];

		set_secret(object, "session", welcome->session);
		snprintf(seed, sizeof(seed), "%016llx", (unsigned long long)welcome->seed);
		set_text(object, "seed", seed);
		CHECK(json_object_set_new(object, "plain_data",
					  json_boolean(welcome->plain_data)) == 0);
	}
	return object_line(object, text);
}

static int refusal_decode(const json_t *error, struct wire_welcome *out)
{
	const char *id, *cause;
	enum err_id known;

	if (wire_get_text(error, "id", 16, &id) ||
	    wire_get_text(error, "cause", ERR_TEXT_BYTES - 1, &cause))
		return -EPROTO;
	known = err_from_name(id);
	out->refused = true;
	err_set(&out->why, known != ERR_NONE ? known : ERR_HOST_REFUSED, 0, "%s", cause);
	make_harmless(out->why.cause);
	return 0;
}

static int seed_decode(const json_t *object, uint64_t *seed)
{
	uint8_t bytes[sizeof(*seed)];
	const char *text;

	if (wire_get_text(object, "seed", 16, &text) || hex_decode(text, bytes, sizeof(bytes)))
		return -EPROTO;
	*seed = 0;
	for (size_t i = 0; i < sizeof(bytes); i++)
		*seed = *seed << 8 | bytes[i];
	return 0;
}

int wire_welcome_decode(const char *text, size_t text_bytes, struct wire_welcome *out)
{
	const json_t *error, *plain;
	json_t *object;
	int rc = object_decode(text, text_bytes, WIRE_HELLO_MAX_BYTES, &object);

	if (rc)
		return rc;
	*out = (struct wire_welcome){ 0 };
	rc = identity_decode(object, &out->version, &out->oldest, &out->host, out->software,
			     sizeof(out->software));
	error = json_object_get(object, "error");
	plain = json_object_get(object, "plain_data");
	if (!rc && error) {
		rc = refusal_decode(error, out);
	} else if (!rc) {
		rc = wire_get_secret(object, "session", out->session);
		if (!rc)
			rc = seed_decode(object, &out->seed);
		if (!rc && !json_is_boolean(plain))
			rc = -EPROTO;
		out->plain_data = json_is_true(plain);
	}
	json_decref(object);
	return rc;
}

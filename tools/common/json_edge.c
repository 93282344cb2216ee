/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/common/json_edge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/units.h"
#include "datastores/datastore.h"

/* ---- parsing ---- */

/*
 * jansson bounds its own recursion (JSON_PARSER_MAX_DEPTH, 2048); ours is tighter, and is
 * counted on the text before anything is allocated.
 */
static bool depth_is_bounded(const char *text, size_t text_bytes)
{
	unsigned depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < text_bytes; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > JSON_EDGE_DEPTH_MAX)
				return false;
		} else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

int json_edge_parse(const char *text, size_t text_bytes, json_t **out, struct err *err)
{
	json_error_t error;
	json_t *body;

	if (text_bytes > JSON_EDGE_BODY_MAX_BYTES)
		return err_set(err, ERR_TOO_LARGE, -E2BIG, "the body is larger than %u bytes",
			       JSON_EDGE_BODY_MAX_BYTES);
	if (text_bytes == 0) {
		body = json_object();
		if (!body)
			return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		*out = body;
		return 0;
	}
	if (!depth_is_bounded(text, text_bytes))
		return err_set(err, ERR_BAD_JSON, -EINVAL, "the JSON is nested deeper than %d",
			       JSON_EDGE_DEPTH_MAX);
	body = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &error);
	if (!body)
		return err_set(err, ERR_BAD_JSON, -EINVAL, "cannot parse the JSON: %s (line %d)",
			       error.text, error.line);
	if (!json_is_object(body)) {
		json_decref(body);
		return err_set(err, ERR_BAD_JSON, -EINVAL, "the JSON is not an object");
	}
	*out = body;
	return 0;
}

/* ---- one field ---- */

static const char *type_wanted(enum json_field_type type)
{
	switch (type) {
	case JSON_FIELD_BOOL:
		return "true or false";
	case JSON_FIELD_UINT:
		return "a whole number";
	case JSON_FIELD_SIZE:
		return "a size with its unit, such as \"4GiB\"";
	case JSON_FIELD_RATE:
		return "a rate with its unit, such as \"200MiB/s\", or \"none\"";
	case JSON_FIELD_TIME:
		return "a time with its unit, such as \"100ms\"";
	default:
		return "a string";
	}
}

static int judge_text(const struct json_field *field, const json_t *value, const char **out,
		      struct err *err)
{
	const char *text = json_string_value(value);
	size_t text_bytes = json_string_length(value);

	if (text_bytes == 0 || text_bytes > JSON_EDGE_TEXT_MAX_BYTES)
		return err_set(err, ERR_BAD_FIELD, -EINVAL,
			       "'%s' must have 1 to %u bytes, not %zu", field->name,
			       JSON_EDGE_TEXT_MAX_BYTES, text_bytes);
	for (size_t i = 0; i < text_bytes; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return err_set(err, ERR_BAD_FIELD, -EINVAL,
				       "'%s' contains a control character", field->name);
	if (field->type == JSON_FIELD_NAME && !ds_name_is_valid(text))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%s' is no name for '%s'", text,
			       field->name);
	if (field->type == JSON_FIELD_FILE &&
	    (text[0] != '/' || strstr(text, "/../") || text_bytes < 2 ||
	     (text_bytes >= 3 && strcmp(text + text_bytes - 3, "/..") == 0)))
		return err_set(err, ERR_BAD_FIELD, -EINVAL,
			       "'%s' must be an absolute path without '..'", field->name);
	*out = text;
	return 0;
}

static int judge_unit(const struct json_field *field, const char *text, uint64_t *out,
		      struct err *err)
{
	struct err why = { 0 };
	int rc;

	if (field->type == JSON_FIELD_SIZE)
		rc = units_parse_size(text, out, &why);
	else if (field->type == JSON_FIELD_TIME)
		rc = units_parse_time(text, out, &why);
	else if (strcmp(text, "none") == 0)
		rc = 0, *out = UINT64_MAX;
	else
		rc = units_parse_rate(text, out, &why);
	if (rc)
		return err_set(err, ERR_BAD_UNIT, -EINVAL, "'%s': %s", field->name, why.cause);
	return 0;
}

static int judge_bounds(const struct json_field *field, uint64_t value, struct err *err)
{
	bool unlimited = field->type == JSON_FIELD_RATE && value == UINT64_MAX;

	if (value >= field->min && (unlimited || field->max == 0 || value <= field->max))
		return 0;
	return err_set(err, ERR_BAD_FIELD, -EINVAL, "'%s' is out of range", field->name);
}

static int judge_choice(const struct json_field *field, const char *text, unsigned *out,
			struct err *err)
{
	char list[128] = "";
	size_t used = 0;

	for (unsigned i = 0; field->choices[i]; i++) {
		if (strcmp(field->choices[i], text) == 0) {
			*out = i;
			return 0;
		}
		if (used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
						 i ? ", " : "", field->choices[i]);
	}
	return err_set(err, ERR_BAD_FIELD, -EINVAL, "'%s' must be one of %s, not '%.64s'",
		       field->name, list, text);
}

static bool type_fits(enum json_field_type type, const json_t *value)
{
	if (type == JSON_FIELD_BOOL)
		return json_is_boolean(value);
	if (type == JSON_FIELD_UINT)
		return json_is_integer(value) && json_integer_value(value) >= 0;
	return json_is_string(value);
}

static int judge_field(const struct json_field *field, const json_t *value, char *out,
		       struct err *err)
{
	uint64_t number = 0;
	int rc;

	if (!type_fits(field->type, value)) {
		bool bare = json_is_number(value) && field->type >= JSON_FIELD_SIZE &&
			    field->type <= JSON_FIELD_TIME;

		return err_set(err, bare ? ERR_BAD_UNIT : ERR_BAD_FIELD, -EINVAL,
			       "'%s' must be %s", field->name, type_wanted(field->type));
	}
	switch (field->type) {
	case JSON_FIELD_BOOL:
		*(bool *)(out + field->offset) = json_is_true(value);
		return 0;
	case JSON_FIELD_CHOICE:
		return judge_choice(field, json_string_value(value),
				    (unsigned *)(out + field->offset), err);
	case JSON_FIELD_TEXT:
	case JSON_FIELD_NAME:
	case JSON_FIELD_FILE:
		return judge_text(field, value, (const char **)(out + field->offset), err);
	case JSON_FIELD_UINT:
		number = (uint64_t)json_integer_value(value);
		break;
	default:
		rc = judge_unit(field, json_string_value(value), &number, err);
		if (rc)
			return rc;
	}
	rc = judge_bounds(field, number, err);
	if (!rc)
		*(uint64_t *)(out + field->offset) = number;
	return rc;
}

/* ---- one body ---- */

static const struct json_field *shape_find(const struct json_shape *shape, const char *name)
{
	for (uint32_t i = 0; i < shape->field_count; i++)
		if (strcmp(shape->fields[i].name, name) == 0)
			return &shape->fields[i];
	return NULL;
}

static int judge_unknown(const json_t *body, const struct json_shape *shape, struct err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)body, key, value) {
		if (!shape_find(shape, key))
			return err_set(err, ERR_BAD_FIELD, -EINVAL, "unknown field '%.64s'", key);
	}
	return 0;
}

int json_edge_judge(const json_t *body, const struct json_shape *shape, void *out,
		    struct err *err)
{
	int rc;

	if (!json_is_object(body))
		return err_set(err, ERR_BAD_JSON, -EINVAL, "the JSON is not an object");
	rc = judge_unknown(body, shape, err);
	for (uint32_t i = 0; !rc && i < shape->field_count; i++) {
		const struct json_field *field = &shape->fields[i];
		const json_t *value = json_object_get(body, field->name);

		if (!value && field->required)
			return err_set(err, ERR_BAD_FIELD, -EINVAL, "field '%s' is missing",
				       field->name);
		if (!value)
			continue;
		rc = judge_field(field, value, out, err);
		if (!rc && field->given_offset)
			*(bool *)((char *)out + field->given_offset) = true;
	}
	return rc;
}

/* ---- errors and text ---- */

json_t *json_edge_text(const char *text)
{
	json_t *value = json_string(text);
	size_t text_bytes = strlen(text);
	char *copy;

	if (value)
		return value;
	copy = malloc(text_bytes + 1);
	if (!copy)
		return NULL;
	for (size_t i = 0; i <= text_bytes; i++)
		copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	value = json_string(copy);
	free(copy);
	return value;
}

json_t *json_edge_err_object(const struct err *err)
{
	return json_pack("{s:s, s:o, s:o}", "id", err_name(err->id), "cause",
			 json_edge_text(err->cause), "remedy", json_edge_text(err->remedy));
}

json_t *json_edge_error(const struct err *err)
{
	return json_pack("{s:o}", "error", json_edge_err_object(err));
}

void json_edge_err_read(const json_t *object, struct err *out)
{
	const char *id = json_string_value(json_object_get(object, "id"));
	const char *cause = json_string_value(json_object_get(object, "cause"));
	const char *remedy = json_string_value(json_object_get(object, "remedy"));

	memset(out, 0, sizeof(*out));
	out->id = id ? err_from_name(id) : ERR_NONE;
	if (out->id == ERR_NONE)
		out->id = ERR_INTERNAL;
	snprintf(out->cause, sizeof(out->cause), "%s", cause ? cause : "");
	snprintf(out->remedy, sizeof(out->remedy), "%s", remedy ? remedy : "");
}

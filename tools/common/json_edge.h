/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_edge.h - the one place where JSON from outside is judged.
 *
 * A request type is a C struct and a table of its fields.  json_edge_judge() checks a
 * body against the table: unknown fields, missing fields, wrong types, sizes without a
 * unit and bad names are refused with an id, the field's name and a remedy, and nothing
 * is changed.  It never acts, so a fuzzer can feed it anything.
 *
 * Strings in the filled struct borrow from the body: keep the body while they are used.
 */
#ifndef BM_JSON_EDGE_H
#define BM_JSON_EDGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define JSON_EDGE_BODY_MAX_BYTES 65536u
#define JSON_EDGE_TEXT_MAX_BYTES 4096u
#define JSON_EDGE_DEPTH_MAX 16

enum json_field_type {
	JSON_FIELD_TEXT,        /* const char *: 1 to JSON_EDGE_TEXT_MAX_BYTES, no control characters */
	JSON_FIELD_NAME,        /* const char *: [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
	JSON_FIELD_FILE,        /* const char *: an absolute path without '..' */
	JSON_FIELD_BOOL,        /* bool */
	JSON_FIELD_UINT,        /* uint64_t: an integer in [min, max] */
	JSON_FIELD_SIZE,        /* uint64_t bytes: "4GiB" */
	JSON_FIELD_RATE,        /* uint64_t bytes/s: "200MiB/s" or "none" (UINT64_MAX) */
	JSON_FIELD_TIME,        /* uint64_t ns: "100ms" */
	JSON_FIELD_CHOICE,      /* unsigned: the index in choices */
};

struct json_field {
	const char *name;
	enum json_field_type type;
	bool required;
	size_t offset;                  /* of the value in the request struct */
	size_t given_offset;            /* of a bool that says "it was given"; 0: none */
	uint64_t min, max;              /* UINT, SIZE, RATE, TIME; max 0: no bound */
	const char *const *choices;     /* CHOICE: NULL-terminated */
};

struct json_shape {
	const char *name;               /* the schema's name in openapi.json: "DiskCreate" */
	const struct json_field *fields;
	uint32_t field_count;
};

/*
 * Parse one JSON object: at most JSON_EDGE_BODY_MAX_BYTES, JSON_EDGE_DEPTH_MAX deep, no key
 * twice, nothing behind it.  0 and *out (gives a reference), or -errno with *err
 * (ERR_BAD_JSON, ERR_TOO_LARGE).  An empty body is an empty object.
 */
MUST_CHECK int json_edge_parse(const char *text, size_t text_bytes, json_t **out, struct err *err);

/*
 * Check body against shape and fill *out (zeroed by the caller, defaults set).  0, or -EINVAL
 * with *err: ERR_BAD_JSON (not an object), ERR_BAD_FIELD, ERR_BAD_UNIT, ERR_BAD_NAME.
 * On failure *out may be half filled; nothing may be done with it.
 */
MUST_CHECK int json_edge_judge(const json_t *body, const struct json_shape *shape, void *out,
			       struct err *err);

/* {"error":{"id","cause","remedy"}}; NULL: out of memory. */
json_t *json_edge_error(const struct err *err);
/* The inner object only. */
json_t *json_edge_err_object(const struct err *err);
/* Read such an inner object back (a peer's or a stored one); missing parts stay "". */
void json_edge_err_read(const json_t *object, struct err *out);

/* A JSON string of any bytes: what is not UTF-8 becomes '?'.  Never fails but for memory. */
json_t *json_edge_text(const char *text);

#endif

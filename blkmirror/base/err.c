/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/err.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
	enum err_id id;
	int http_status;
	const char *name;
	const char *remedy;
};

static const struct err_row rows[] = {
#define ERR_ROW(symbol, number, http_status, remedy) { symbol, http_status, "BM-" #number, remedy },
	ERR_CATALOGUE(ERR_ROW)
#undef ERR_ROW
};

static const struct err_row *err_find(enum err_id id)
{
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (rows[i].id == id)
			return &rows[i];
	return NULL;
}

int err_set(struct err *err, enum err_id id, int rc, const char *format, ...)
{
	va_list args;

	if (!err)
		return rc;
	err->id = id;
	va_start(args, format);
	vsnprintf(err->cause, sizeof(err->cause), format, args);
	va_end(args);
	snprintf(err->remedy, sizeof(err->remedy), "%s", err_default_remedy(id));
	return rc;
}

void err_remedy(struct err *err, const char *format, ...)
{
	va_list args;

	if (!err)
		return;
	va_start(args, format);
	vsnprintf(err->remedy, sizeof(err->remedy), format, args);
	va_end(args);
}

void err_clear(struct err *err)
{
	if (err)
		memset(err, 0, sizeof(*err));
}

const char *err_name(enum err_id id)
{
	const struct err_row *row = err_find(id);

	return row ? row->name : "BM-1000";
}

enum err_id err_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].id;
	return ERR_NONE;
}

int err_http_status(enum err_id id)
{
	const struct err_row *row = err_find(id);

	return row ? row->http_status : 500;
}

const char *err_default_remedy(enum err_id id)
{
	const struct err_row *row = err_find(id);

	return row ? row->remedy : "";
}

enum err_id err_at(unsigned index)
{
	return index < ARRAY_COUNT(rows) ? rows[index].id : ERR_NONE;
}

const char *err_strerror(int rc)
{
	const char *text = rc == INT_MIN ? NULL : strerrordesc_np(rc < 0 ? -rc : rc);

	return text ? text : "unknown error";
}

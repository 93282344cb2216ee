/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - an error as a tired admin reads it: id, cause, remedy.
 *
 * Functions return 0 or -errno.  Those that a human configures also take a
 * struct err (may be NULL) and fill it on failure.  A function either returns
 * an error or logs it, never both.
 */
#ifndef BM_BASE_ERR_H
#define BM_BASE_ERR_H

#include "blkmirror/base/check.h"
#include "blkmirror/base/err_ids.h"

enum err_id {
	ERR_NONE = 0,
#define ERR_ROW(symbol, number, http_status, remedy) symbol = number,
	ERR_CATALOGUE(ERR_ROW)
#undef ERR_ROW
};

#define ERR_TEXT_BYTES 256

struct err {
	enum err_id id;                 /* ERR_NONE: no error */
	char cause[ERR_TEXT_BYTES];     /* one sentence, Git's manner: cannot open '%s': ... */
	char remedy[ERR_TEXT_BYTES];    /* what to do now */
};

/* Fill *err (may be NULL) and return rc, so that 'return err_set(...)' reads well. */
int err_set(struct err *err, enum err_id id, int rc, const char *format, ...) PRINTF_LIKE(4, 5);

/* Replace the catalogue's remedy by a more exact one. */
void err_remedy(struct err *err, const char *format, ...) PRINTF_LIKE(2, 3);

void err_clear(struct err *err);

/* "BM-1203"; a static string.  Any value is accepted. */
const char *err_name(enum err_id id);

/* The id whose name is "BM-1203"; ERR_NONE when there is none. */
enum err_id err_from_name(const char *name);

/* The HTTP status that fits; 500 for what is unknown. */
int err_http_status(enum err_id id);

/* The catalogue's remedy; "" for what is unknown. */
const char *err_default_remedy(enum err_id id);

/* Walk the catalogue: returns the index-th id, ERR_NONE past the end. */
enum err_id err_at(unsigned index);

/* "No space left on device" for -ENOSPC; thread-safe, never NULL. */
const char *err_strerror(int rc);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - the daemon's own memory: one SQLite file in the state directory.
 *
 * It holds tasks, events, datastores and attachments.  It decides nothing about data: which
 * copy of a disk is authoritative stands in the journal of its move and in its marks.
 *
 * After store_open() every statement runs on the store's own worker, one at a time and in
 * the order of submission, so the main loop never waits for a disk.  A statement is durable
 * when its done() runs (WAL, synchronous=FULL).
 *
 * Bounds: at most STORE_PENDING_MAX statements wait; beyond that store_exec() refuses.
 * A query gives at most STORE_ROWS_MAX rows.
 *
 * Threading: main loop.  Errors: 0 or -errno, *err ERR_STATE_DIR.
 */
#ifndef BM_STORE_H
#define BM_STORE_H

#include <jansson.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/loop.h"

#define STORE_PENDING_MAX 4096u
#define STORE_ROWS_MAX 1000u
#define STORE_VALUES_MAX 8u
#define STORE_SCHEMA_VERSION 2

struct store;

struct store_value {
	const char *text;               /* copied; NULL: number (or SQL NULL when is_null) */
	int64_t number;
	bool is_null;
};
#define STORE_TEXT(value) ((struct store_value){ .text = (value), .is_null = (value) == NULL })
#define STORE_INT(value) ((struct store_value){ .number = (int64_t)(value) })

/* Open or make the file; checks its schema version.  Blocks: before the loop runs. */
MUST_CHECK int store_open(struct loop *loop, const char *path, struct store **out,
			  struct err *err);

/* No statement may be pending.  NULL is harmless. */
void store_close(struct store *store);
uint64_t store_pending(const struct store *store);

/*
 * Run one statement.  sql must stay valid (a literal); values are copied.  done (may be NULL:
 * a failure is logged then) runs once, later.  0, or -EBUSY, -ENOMEM with *err; then done
 * does not run.
 */
MUST_CHECK int store_exec(struct store *store, const char *sql, const struct store_value *values,
			  uint32_t value_count,
			  void (*done)(int rc, const struct err *err, void *user), void *user,
			  struct err *err);

/* The same for rows: an array of arrays of strings, integers and nulls; borrowed in answered(). */
MUST_CHECK int store_query(struct store *store, const char *sql,
			   const struct store_value *values, uint32_t value_count,
			   void (*answered)(const json_t *rows, const struct err *err, void *user),
			   void *user, struct err *err);

/*
 * One statement, durable when it returns.  Blocks for one write: only where somebody must not go
 * on before it stands (relocate.h's switched()).
 */
MUST_CHECK int store_exec_now(struct store *store, const char *sql,
			      const struct store_value *values, uint32_t value_count,
			      struct err *err);

/* As store_query() at once; blocks: before the loop runs only.  *rows gives a reference. */
MUST_CHECK int store_load(struct store *store, const char *sql, json_t **rows, struct err *err);

#endif

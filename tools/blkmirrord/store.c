/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/store.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/worker.h"

struct store {
	sqlite3 *db;                    /* the worker's, once the loop runs */
	struct worker *worker;
	char path[512];
};

struct store_job {
	struct job job;
	struct store *store;
	const char *sql;
	struct store_value values[STORE_VALUES_MAX];
	char *texts[STORE_VALUES_MAX];  /* owned copies */
	uint32_t value_count;
	void (*done)(int rc, const struct err *err, void *user);
	void (*answered)(const json_t *rows, const struct err *err, void *user);
	void *user;
	json_t *rows;
	int rc;
	struct err err;
};

static const char schema_sql[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
	"CREATE TABLE task(number INTEGER PRIMARY KEY, state TEXT NOT NULL, type TEXT NOT NULL,"
	"  json TEXT NOT NULL) STRICT;"
	"CREATE INDEX task_state ON task(state);"
	"CREATE TABLE event(number INTEGER PRIMARY KEY, json TEXT NOT NULL) STRICT;"
	"CREATE TABLE datastore(name TEXT PRIMARY KEY, url TEXT NOT NULL, secret_file TEXT,"
	"  bandwidth INTEGER, budget INTEGER, lease_ns INTEGER) STRICT;"
	"CREATE TABLE attachment(id TEXT PRIMARY KEY, datastore TEXT NOT NULL, path TEXT NOT NULL,"
	"  export TEXT NOT NULL, socket TEXT NOT NULL, read_only INTEGER NOT NULL,"
	"  disk_group TEXT NOT NULL DEFAULT '') STRICT;"
	"INSERT INTO meta VALUES('schema', 2);";

/* What makes the next version of the one before; the first is of version 1. */
static const char *const upgrades[] = {
	"ALTER TABLE attachment ADD COLUMN disk_group TEXT NOT NULL DEFAULT '';"
	"UPDATE meta SET value = 2 WHERE key = 'schema';",
};

static int store_fail(struct store *store, struct err *err, const char *what)
{
	int code = sqlite3_extended_errcode(store->db);

	return err_set(err, ERR_STATE_DIR, code == SQLITE_NOMEM ? -ENOMEM : -EIO,
		       "cannot %s '%s': %s", what, store->path, sqlite3_errmsg(store->db));
}

/* ---- one statement, on whichever thread may use the database now ---- */

static int bind_values(sqlite3_stmt *stmt, const struct store_value *values, uint32_t count)
{
	int rc = SQLITE_OK;

	for (uint32_t i = 0; i < count && rc == SQLITE_OK; i++) {
		int at = (int)i + 1;

		if (values[i].is_null)
			rc = sqlite3_bind_null(stmt, at);
		else if (values[i].text)
			rc = sqlite3_bind_text(stmt, at, values[i].text, -1, SQLITE_STATIC);
		else
			rc = sqlite3_bind_int64(stmt, at, values[i].number);
	}
	return rc;
}

static json_t *row_read(sqlite3_stmt *stmt)
{
	json_t *row = json_array();

	for (int i = 0; row && i < sqlite3_column_count(stmt); i++) {
		json_t *cell;

		switch (sqlite3_column_type(stmt, i)) {
		case SQLITE_INTEGER:
			cell = json_integer(sqlite3_column_int64(stmt, i));
			break;
		case SQLITE_NULL:
			cell = json_null();
			break;
		default:
			cell = json_string((const char *)sqlite3_column_text(stmt, i));
		}
		if (!cell || json_array_append_new(row, cell)) {
			json_decref(row);
			return NULL;
		}
	}
	return row;
}

static int run_statement(struct store *store, const char *sql, const struct store_value *values,
			 uint32_t value_count, json_t *rows, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(store->db, sql, -1, &stmt, NULL);

	if (rc == SQLITE_OK)
		rc = bind_values(stmt, values, value_count);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	while (rc == SQLITE_ROW && rows && json_array_size(rows) < STORE_ROWS_MAX) {
		json_t *row = row_read(stmt);

		if (!row || json_array_append_new(rows, row)) {
			sqlite3_finalize(stmt);
			return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		}
		rc = sqlite3_step(stmt);
	}
	if (rc != SQLITE_DONE && rc != SQLITE_ROW && rc != SQLITE_OK) {
		int failed = store_fail(store, err, "use");

		sqlite3_finalize(stmt);
		return failed;
	}
	sqlite3_finalize(stmt);
	return 0;
}

/* ---- opening ---- */

static int run_script(struct store *store, const char *sql, struct err *err)
{
	if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return store_fail(store, err, "prepare");
	return 0;
}

/* In one transaction: a crash leaves the old version, or the new one. */
static int upgrade(struct store *store, json_int_t version, struct err *err)
{
	int rc = run_script(store, "BEGIN IMMEDIATE", err);

	for (; !rc && version < STORE_SCHEMA_VERSION; version++)
		rc = run_script(store, upgrades[version - 1], err);
	return rc ? rc : run_script(store, "COMMIT", err);
}

static int check_schema(struct store *store, struct err *err)
{
	json_t *rows = NULL;
	json_int_t version;
	int rc;

	rc = store_load(store, "SELECT count(*) FROM sqlite_master WHERE name = 'meta'", &rows, err);
	if (rc)
		return rc;
	version = json_integer_value(json_array_get(json_array_get(rows, 0), 0));
	json_decref(rows);
	if (version == 0) {
		rc = run_script(store, "BEGIN IMMEDIATE", err);
		if (!rc)
			rc = run_script(store, schema_sql, err);
		return rc ? rc : run_script(store, "COMMIT", err);
	}
	rc = store_load(store, "SELECT value FROM meta WHERE key = 'schema'", &rows, err);
	if (rc)
		return rc;
	version = json_integer_value(json_array_get(json_array_get(rows, 0), 0));
	json_decref(rows);
	if (version == STORE_SCHEMA_VERSION)
		return 0;
	if (version >= 1 && version < STORE_SCHEMA_VERSION)
		return upgrade(store, version, err);
	rc = err_set(err, ERR_STATE_DIR, -EPROTONOSUPPORT,
		     "'%s' has schema version %lld, this daemon knows %d", store->path,
		     (long long)version, STORE_SCHEMA_VERSION);
	err_remedy(err, "Start the version of blkmirrord that wrote it, or a newer one.");
	return rc;
}

static int open_database(struct store *store, struct err *err)
{
	int rc = sqlite3_open_v2(store->path, &store->db,
				 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
				 NULL);

	if (rc != SQLITE_OK)
		return store->db ? store_fail(store, err, "open")
				 : err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	sqlite3_busy_timeout(store->db, 2000);
	rc = run_script(store,
			"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
			err);
	return rc ? rc : check_schema(store, err);
}

int store_open(struct loop *loop, const char *path, struct store **out, struct err *err)
{
	struct store *store = calloc(1, sizeof(*store));
	int rc;

	if (!store)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	snprintf(store->path, sizeof(store->path), "%s", path);
	rc = open_database(store, err);
	if (rc)
		goto close_database;
	store->worker = worker_new(loop, "store");
	if (!store->worker) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto close_database;
	}
	*out = store;
	return 0;

close_database:
	sqlite3_close(store->db);
	free(store);
	return rc;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	worker_free(store->worker);
	CHECK(sqlite3_close(store->db) == SQLITE_OK);
	free(store);
}

uint64_t store_pending(const struct store *store)
{
	return worker_pending(store->worker);
}

/* ---- statements on the worker ---- */

static void store_job_free(struct store_job *job)
{
	for (uint32_t i = 0; i < job->value_count; i++)
		free(job->texts[i]);
	json_decref(job->rows);
	free(job);
}

static void store_job_run(struct job *base)
{
	struct store_job *job = container_of(base, struct store_job, job);

	job->rc = run_statement(job->store, job->sql, job->values, job->value_count, job->rows,
				&job->err);
}

static void store_job_done(struct job *base)
{
	struct store_job *job = container_of(base, struct store_job, job);

	if (job->answered)
		job->answered(job->rows, &job->err, job->user);
	else if (job->done)
		job->done(job->rc, &job->err, job->user);
	else if (job->rc)
		log_error("store", "%s", job->err.cause);
	store_job_free(job);
}

static int store_job_new(struct store *store, const char *sql, const struct store_value *values,
			 uint32_t value_count, struct store_job **out)
{
	struct store_job *job = calloc(1, sizeof(*job));

	CHECK(value_count <= STORE_VALUES_MAX);
	if (!job)
		return -ENOMEM;
	job->store = store;
	job->sql = sql;
	job->job.run = store_job_run;
	job->job.done = store_job_done;
	for (uint32_t i = 0; i < value_count; i++) {
		job->values[i] = values[i];
		job->value_count = i + 1;
		if (!values[i].text)
			continue;
		job->texts[i] = strdup(values[i].text);
		if (!job->texts[i]) {
			store_job_free(job);
			return -ENOMEM;
		}
		job->values[i].text = job->texts[i];
	}
	*out = job;
	return 0;
}

static int store_submit(struct store *store, const char *sql, const struct store_value *values,
			uint32_t value_count, struct store_job **out, struct err *err)
{
	if (store_pending(store) >= STORE_PENDING_MAX)
		return err_set(err, ERR_BUSY, -EBUSY, "too many changes wait for '%s'",
			       store->path);
	if (store_job_new(store, sql, values, value_count, out))
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	return 0;
}

int store_exec(struct store *store, const char *sql, const struct store_value *values,
	       uint32_t value_count, void (*done)(int rc, const struct err *err, void *user),
	       void *user, struct err *err)
{
	struct store_job *job;
	int rc = store_submit(store, sql, values, value_count, &job, err);

	if (rc)
		return rc;
	job->done = done;
	job->user = user;
	worker_submit(store->worker, &job->job);
	return 0;
}

int store_query(struct store *store, const char *sql, const struct store_value *values,
		uint32_t value_count,
		void (*answered)(const json_t *rows, const struct err *err, void *user), void *user,
		struct err *err)
{
	struct store_job *job;
	int rc = store_submit(store, sql, values, value_count, &job, err);

	if (rc)
		return rc;
	job->answered = answered;
	job->user = user;
	job->rows = json_array();
	if (!job->rows) {
		store_job_free(job);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	}
	worker_submit(store->worker, &job->job);
	return 0;
}

int store_load(struct store *store, const char *sql, json_t **rows, struct err *err)
{
	json_t *array = json_array();
	int rc;

	if (!array)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = run_statement(store, sql, NULL, 0, array, err);
	if (rc)
		json_decref(array);
	else
		*rows = array;
	return rc;
}

int store_exec_now(struct store *store, const char *sql, const struct store_value *values,
		   uint32_t value_count, struct err *err)
{
	return run_statement(store, sql, values, value_count, NULL, err);
}

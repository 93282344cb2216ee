/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the daemon's settings are judged where they are read, and a mistake names its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/blkmirrord/config.h"

static int set(const char *section, const char *key, const char *value, enum err_id *id)
{
	struct daemon_config config;
	struct err err = { 0 };
	int rc;

	config_init(&config);
	rc = config_set(&config, section, key, value, &err);
	config_release(&config);
	*id = err.id;
	return rc;
}

static void test_values(void **unused)
{
	static const struct {
		const char *section, *key, *value;
		bool good;
	} rows[] = {
		{ "daemon", "state_dir", "/x", true },      { "daemon", "state_dir", "x", false },
		{ "daemon", "state_dir", "", false },       { "daemon", "run_dir", "/r", true },
		{ "daemon", "io_threads", "1", true },      { "daemon", "io_threads", "0", false },
		{ "daemon", "io_threads", "257", false },   { "daemon", "io_threads", "-1", false },
		{ "daemon", "io_threads", "2x", false },    { "daemon", "log_level", "debug", true },
		{ "daemon", "log_level", "loud", false },   { "daemon", "http", "127.0.0.1:80", true },
		{ "daemon", "http", "127.0.0.1", false },   { "daemon", "http", "[::1]:80", true },
		{ "daemon", "http", "::1:80", false },      { "daemon", "http", "h:65536", false },
		{ "daemon", "http", ":80", false },         { "daemon", "http", "h:-1", false },
		{ "daemon", "nope", "1", false },           { "limits", "host_budget", "8", true },
		{ "limits", "host_budget", "3", false },    { "limits", "tasks_kept", "100", true },
		{ "limits", "tasks_kept", "99", false },    { "what", "state_dir", "/x", false },
		{ "daemon", "socket_holder", "none", true },
		{ "daemon", "socket_holder", "init", false },
		{ "daemon", "socket_linger", "60", true },
		{ "daemon", "socket_linger", "0", false },
		{ "daemon", "socket_linger", "86401", false },
		{ "daemon", "allowed_roots", "/a:/b", true }, { "daemon", "allowed_roots", "a", false },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		enum err_id id;
		int rc = set(rows[i].section, rows[i].key, rows[i].value, &id);

		if ((rc == 0) != rows[i].good)
			fail_msg("%s = %s", rows[i].key, rows[i].value);
		assert_int_equal(id, rc ? ERR_BAD_CONFIG : ERR_NONE);
	}
}

static void test_roots(void **unused)
{
	struct daemon_config config;

	(void)unused;
	config_init(&config);
	assert_true(config_allows_path(&config, "/anything"));
	assert_int_equal(config_set(&config, "daemon", "allowed_roots", "/srv/vm/:/data", NULL), 0);
	assert_true(config_allows_path(&config, "/srv/vm"));
	assert_true(config_allows_path(&config, "/srv/vm/a"));
	assert_false(config_allows_path(&config, "/srv/vm2/a"));
	assert_false(config_allows_path(&config, "/srv"));
	assert_true(config_allows_path(&config, "/data/x"));
	config_release(&config);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void test_files(void **unused)
{
	char dir[] = "/tmp/test-config-XXXXXX", path[128], extra[160], sub[128];
	struct daemon_config config;
	struct err err = { 0 };

	(void)unused;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/main.conf", dir);
	snprintf(sub, sizeof(sub), "%s/conf.d", dir);
	snprintf(extra, sizeof(extra), "%s/10-x.conf", sub);
	assert_int_equal(mkdir(sub, 0700), 0);
	config_init(&config);
	snprintf(config.file, sizeof(config.file), "%s", path);
	config.file_named = true;
	assert_true(config_read_files(&config, &err) < 0);      /* a named file must exist */
	assert_int_equal(err.id, ERR_BAD_CONFIG);
	put(path, "[daemon]\nlog_level = warn\nio_threads = 3\n");
	put(extra, "[daemon]\nio_threads = 5\n");
	assert_int_equal(config_read_files(&config, &err), 0);
	assert_int_equal(config.log_level, LOG_LEVEL_WARN);
	assert_int_equal(config.io_threads, 5);                 /* conf.d overrules */
	put(extra, "[daemon]\n\nio_threads = many\n");
	assert_true(config_read_files(&config, &err) < 0);
	assert_non_null(strstr(err.cause, "10-x.conf:3: "));
	assert_non_null(strstr(err.cause, "many"));
	unlink(extra);
	unlink(path);
	rmdir(sub);
	rmdir(dir);
	config_release(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_roots),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

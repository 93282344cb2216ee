/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the command line is judged before a daemon is asked, and progress fits its terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tools/blkmirror/cli.h"
#include "tools/blkmirror/progress.h"
#include "tools/blkmirror/table.h"
#include "tools/blkmirror/wait.h"

static const struct command *find(const char *noun, const char *verb)
{
	const struct command *command;

	for (unsigned i = 0; (command = command_at(i)); i++)
		if (strcmp(command->noun, noun) == 0 && strcmp(command->verb, verb) == 0)
			return command;
	fail_msg("no %s %s", noun, verb);
	return NULL;
}

static enum err_id parse(const char *noun, const char *verb, const char *words,
			 struct cli_args *args, bool *help)
{
	char copy[256], *argv[16], *rest = copy, *word;
	struct err err = { 0 };
	int argc = 0;

	strcpy(copy, words);
	while ((word = strsep(&rest, " ")))
		if (*word)
			argv[argc++] = word;
	argv[argc] = NULL;
	if (cli_args_parse(find(noun, verb), argc, argv, args, help, &err))
		assert_int_not_equal(err.id, ERR_NONE);
	return err.id;
}

static void test_args(void **unused)
{
	static const struct {
		const char *noun, *verb, *words;
		enum err_id id;
	} rows[] = {
		{ "disk", "create", "a:b --size 4GiB", ERR_NONE },
		{ "disk", "create", "--size=4GiB a:b", ERR_NONE },
		{ "disk", "create", "a:b --size 4", ERR_BAD_UNIT },
		{ "disk", "create", "a:b --size", ERR_USAGE },
		{ "disk", "create", "--size 4GiB", ERR_USAGE },
		{ "disk", "create", "a:b c --size 4GiB", ERR_USAGE },
		{ "disk", "create", "a:b --sise 4GiB", ERR_USAGE },
		{ "disk", "create", "a:b --siz 4GiB", ERR_USAGE },
		{ "disk", "relocate", "d1 --to b --hold=1", ERR_USAGE },
		{ "disk", "relocate", "d1 --to b --bandwidth 100MiB", ERR_BAD_UNIT },
		{ "disk", "relocate", "d1 --to b --bandwidth none", ERR_NONE },
		{ "disk", "relocate", "d1 --to b --weight 1x", ERR_USAGE },
		{ "disk", "relocate", "d1 --to b --weight -1", ERR_USAGE },
		{ "task", "wait", "t1 --timeout 5", ERR_BAD_UNIT },
		{ "task", "wait", "t1 --timeout 5s", ERR_NONE },
		{ "task", "show", "-- --odd", ERR_NONE },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct cli_args args;
		bool help;
		enum err_id id = parse(rows[i].noun, rows[i].verb, rows[i].words, &args, &help);

		if (id != rows[i].id)
			fail_msg("%s: %s", rows[i].words, err_name(id));
		json_decref(args.options);
	}
}

static void test_arg_values(void **unused)
{
	struct cli_args args;
	bool help;

	(void)unused;
	assert_int_equal(parse("disk", "relocate", "d1 --to b --keep-source --weight 7", &args, &help),
			 ERR_NONE);
	assert_string_equal(args.words[0], "d1");
	assert_string_equal(cli_text(&args, "to"), "b");
	assert_true(cli_flag(&args, "keep_source"));
	assert_false(cli_flag(&args, "hold"));
	assert_int_equal(json_integer_value(json_object_get(args.options, "weight")), 7);
	json_decref(args.options);
	assert_int_equal(parse("datastore", "add", "a u --secret-file s", &args, &help), ERR_NONE);
	assert_int_equal(cli_text(&args, "secret_file")[0], '/');        /* the daemon is elsewhere */
	json_decref(args.options);
	assert_int_equal(parse("disk", "list", "--help", &args, &help), ERR_NONE);
	assert_true(help);
	json_decref(args.options);
}

/* ---- progress ---- */

static json_t *busy_task(void)
{
	return json_loads(
		"{\"id\":\"t12\",\"type\":\"relocate\",\"state\":\"running\",\"phase\":\"copy\","
		"\"waiting_for\":null,\"progress\":{\"total_bytes\":10737418240,"
		"\"done_bytes\":5368709120,\"rate_bytes_per_s\":104857600,\"eta_s\":51},"
		"\"disks\":[{\"copied_bytes\":1048576,\"zero_bytes\":2097152,\"hole_bytes\":0,"
		"\"mirrored_bytes\":4096,\"recopied_bytes\":0}],"
		"\"guest\":{\"iops\":2000,\"p99_us\":1300,\"iops_before\":2100,"
		"\"p99_before_us\":900}}",
		0, NULL);
}

static void test_progress_fits_every_width(void **unused)
{
	json_t *task = busy_task();
	struct progress_text text;

	(void)unused;
	assert_non_null(task);
	for (int width = 20; width <= 300; width++) {
		progress_render(task, width, &text);
		assert_int_equal(text.count, 3);
		for (int i = 0; i < text.count; i++)
			if (text_width(text.lines[i]) > width)
				fail_msg("%d columns: %s", width, text.lines[i]);
	}
	progress_render(task, 100, &text);
	assert_non_null(strstr(text.lines[0], "t12 copy"));
	assert_non_null(strstr(text.lines[0], " 50%"));
	assert_non_null(strstr(text.lines[0], "#."));
	assert_non_null(strstr(text.lines[0], "100.00 MiB/s"));
	assert_non_null(strstr(text.lines[0], "ETA 51"));
	assert_non_null(strstr(text.lines[1], "copied 1.00 MiB"));
	assert_non_null(strstr(text.lines[2], "guest 2000 IOPS (before: 2100)"));
	json_decref(task);
}

/* Once it has ended nobody wants the speed of the last second. */
static void test_progress_ended(void **unused)
{
	json_t *task = json_loads(
		"{\"id\":\"t12\",\"state\":\"completed\",\"started\":\"2026-02-28T23:59:58.500Z\","
		"\"finished\":\"2026-03-01T00:00:08.500Z\",\"progress\":{\"total_bytes\":1,"
		"\"done_bytes\":1,\"rate_bytes_per_s\":7},"
		"\"disks\":[{\"copied_bytes\":1048576000}]}",
		0, NULL);
	struct progress_text text;
	char line[PROGRESS_LINE_BYTES];

	(void)unused;
	assert_non_null(task);
	progress_render(task, 100, &text);
	progress_plain(task, line);
	assert_non_null(strstr(text.lines[0], "in 10.0 s, 100.00 MiB/s"));
	assert_non_null(strstr(line, "in 10.0 s, 100.00 MiB/s"));
	json_object_set_new(task, "finished", json_string("2026-03-01T00:00:08.500"));
	progress_plain(task, line);
	assert_non_null(strstr(line, "7 B/s"));
	json_decref(task);
}

static void test_progress_odd_tasks(void **unused)
{
	static const char *const odd[] = {
		"{}",
		"{\"id\":\"t1\",\"state\":\"queued\",\"waiting_for\":\"host budget\"}",
		"{\"id\":1,\"progress\":[],\"disks\":{},\"guest\":7}",
		"{\"state\":\"running\",\"progress\":{\"total_bytes\":1,\"done_bytes\":9}}",
	};
	struct progress_text text;
	char line[PROGRESS_LINE_BYTES];

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
		json_t *task = json_loads(odd[i], 0, NULL);

		progress_render(task, 60, &text);
		progress_plain(task, line);
		assert_true(text.count >= 1);
		if (i == 1)
			assert_non_null(strstr(text.lines[0], "waiting for host budget"));
		if (i == 3)
			assert_non_null(strstr(text.lines[0], "100%"));
		json_decref(task);
	}
}

static void test_exit_codes(void **unused)
{
	static const struct {
		const char *task;
		int code;
	} rows[] = {
		{ "{\"state\":\"completed\"}", EXIT_DONE },
		{ "{\"state\":\"completed\",\"result\":{\"identical\":true}}", EXIT_DONE },
		{ "{\"state\":\"completed\",\"result\":{\"identical\":false}}", EXIT_FAILED },
		{ "{\"state\":\"failed\",\"phase\":\"copy\",\"faults\":[]}", EXIT_FAILED },
		{ "{\"state\":\"failed\",\"phase\":\"check\",\"faults\":[{}]}", EXIT_REFUSED },
		{ "{\"state\":\"running\"}", EXIT_WAIT_OVER },
		{ "{\"state\":\"queued\"}", EXIT_WAIT_OVER },
		{ "{\"state\":\"held\"}", EXIT_NOT_DONE },
		{ "{\"state\":\"paused\"}", EXIT_NOT_DONE },
		{ "{\"state\":\"cancelled\"}", EXIT_NOT_DONE },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		json_t *task = json_loads(rows[i].task, 0, NULL);

		assert_int_equal(task_exit_code(task), rows[i].code);
		json_decref(task);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_args),
		cmocka_unit_test(test_arg_values),
		cmocka_unit_test(test_progress_fits_every_width),
		cmocka_unit_test(test_progress_ended),
		cmocka_unit_test(test_progress_odd_tasks),
		cmocka_unit_test(test_exit_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

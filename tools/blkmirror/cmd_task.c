/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/units.h"
#include "tools/blkmirror/client.h"
#include "tools/blkmirror/progress.h"
#include "tools/blkmirror/table.h"
#include "tools/blkmirror/wait.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static void task_path(const char *id, const char *verb, char *out, size_t out_bytes)
{
	char escaped[128];

	client_escape(id, escaped, sizeof(escaped));
	for (char *c = escaped; *c; c++)
		if (*c == '/')
			*c = ':';
	snprintf(out, out_bytes, "/v1/tasks/%s%s", escaped, verb);
}

/* ---- list, show ---- */

static void print_list(const struct cli *cli, const json_t *answer)
{
	static const char *const headings[] = { "ID",    "TYPE", "SUBJECT", "STATE",
						"PHASE", "DONE", "CREATED", NULL };
	struct table *table = table_new(headings);
	json_t *task;
	size_t i;

	json_array_foreach (json_object_get(answer, "tasks"), i, task) {
		const json_t *progress = json_object_get(task, "progress");
		json_int_t total = json_integer_value(json_object_get(progress, "total_bytes"));
		json_int_t done = json_integer_value(json_object_get(progress, "done_bytes"));

		table_cell(table, "%s", text(task, "id"));
		table_cell(table, "%s", text(task, "type"));
		table_cell(table, "%s", text(task, "subject"));
		table_cell(table, "%s", text(task, "state"));
		table_cell(table, "%s", text(task, "phase"));
		table_cell(table, "%d%%", total > 0 ? (int)((double)done / (double)total * 100) : 0);
		table_cell(table, "%s", text(task, "created"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
}

static int run_list(const struct cli *cli, const struct cli_args *args)
{
	const char *path = cli_flag(args, "all") ? "/v1/tasks?all=1" : "/v1/tasks";
	int exit_code;
	json_t *answer = client_call(cli, "GET", path, NULL, &exit_code);

	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print_list(cli, answer);
	json_decref(answer);
	return exit_code;
}

static void print_task(const struct cli *cli, const json_t *task)
{
	const json_t *error = json_object_get(task, "error");
	struct progress_text lines;
	json_t *disk;
	size_t i;

	progress_render(task, cli->terminal ? cli->width : 200, &lines);
	printf("%s\t%s %s\t%s\n", text(task, "id"), text(task, "type"), text(task, "subject"),
	       text(task, "state"));
	for (int line = 0; line < lines.count; line++)
		puts(lines.lines[line]);
	json_array_foreach (json_object_get(task, "disks"), i, disk)
		printf("  %s: %s -> %s, authoritative: %s\n", text(disk, "disk"),
		       text(disk, "source"), text(disk, "target"), text(disk, "authoritative"));
	if (json_is_object(error))
		printf("  %s (%s)\n  %s\n", text(error, "cause"), text(error, "id"),
		       text(error, "remedy"));
}

static int print_answer(const struct cli *cli, json_t *task, int exit_code)
{
	if (task && cli->json)
		cli_print_json(task);
	else if (task)
		print_task(cli, task);
	json_decref(task);
	return exit_code;
}

static int run_show(const struct cli *cli, const struct cli_args *args)
{
	char path[256];
	json_t *task;
	int exit_code;

	task_path(args->words[0], "", path, sizeof(path));
	task = client_call(cli, "GET", path, NULL, &exit_code);
	return print_answer(cli, task, exit_code);
}

/* ---- watch, wait ---- */

struct watching {
	const struct cli *cli;
	struct progress progress;
};

static bool watched(const json_t *task, void *user)
{
	struct watching *watching = user;
	char line[PROGRESS_LINE_BYTES];

	if (watching->cli->json) {
		cli_print_json(task);
	} else {
		progress_plain(task, line);
		puts(line);
	}
	fflush(stdout);
	return true;
}

static bool watched_one(const json_t *task, void *user)
{
	struct watching *watching = user;

	if (watching->cli->json)
		return watched(task, user);
	progress_draw(&watching->progress, task);
	return true;
}

static int run_watch(const struct cli *cli, const struct cli_args *args)
{
	struct watching watching = { .cli = cli, .progress.cli = cli };
	struct err err = { 0 };
	char path[256];
	enum stream_end end;

	if (args->count)
		task_path(args->words[0], "/watch", path, sizeof(path));
	else
		snprintf(path, sizeof(path), "/v1/tasks/watch");
	end = client_stream(cli, path, 0, args->count ? watched_one : watched, &watching, &err);
	progress_end(&watching.progress);
	if (end != STREAM_LOST)
		return EXIT_DONE;
	cli_error(cli, &err);
	return err.id == ERR_NO_DAEMON ? EXIT_NO_DAEMON : EXIT_FAILED;
}

static int run_wait(const struct cli *cli, const struct cli_args *args)
{
	const char *timeout = cli_text(args, "timeout");
	uint64_t timeout_ns = 0;
	struct err err = { 0 };
	json_t *task = NULL;
	int exit_code;

	/* Judged with the other options already. */
	if (timeout && units_parse_time(timeout, &timeout_ns, &err))
		return cli_error(cli, &err);
	if (timeout && timeout_ns < NS_PER_MS)
		timeout_ns = NS_PER_MS;
	exit_code = wait_for_task(cli, args->words[0], timeout_ns / NS_PER_MS, &task);
	if (task && cli->json)
		cli_print_json(task);
	json_decref(task);
	return exit_code;
}

/* ---- verbs ---- */

static int run_verb(const struct cli *cli, const struct cli_args *args, const char *verb)
{
	json_t *body = json_object();
	char path[256];
	json_t *task;
	int exit_code;

	task_path(args->words[0], verb, path, sizeof(path));
	task = client_call(cli, "POST", path, body, &exit_code);
	json_decref(body);
	if (task && cli->json)
		cli_print_json(task);
	json_decref(task);
	return exit_code;
}

static int run_cancel(const struct cli *cli, const struct cli_args *args)
{
	return run_verb(cli, args, "/cancel");
}

static int run_pause(const struct cli *cli, const struct cli_args *args)
{
	return run_verb(cli, args, "/pause");
}

static int run_resume(const struct cli *cli, const struct cli_args *args)
{
	return run_verb(cli, args, "/resume");
}

static int run_complete(const struct cli *cli, const struct cli_args *args)
{
	return run_verb(cli, args, "/complete");
}

static int run_set(const struct cli *cli, const struct cli_args *args)
{
	char path[256];
	json_t *task;
	int exit_code;

	task_path(args->words[0], "", path, sizeof(path));
	task = client_call(cli, "PATCH", path, args->options, &exit_code);
	return print_answer(cli, task, exit_code);
}

static const struct cli_option list_options[] = {
	{ "--all", NULL, CLI_FLAG, "ended tasks too" },
	{ 0 },
};
static const struct cli_option wait_options[] = {
	{ "--timeout", "TIME", CLI_TIME, "give up waiting (exit code 4); the task goes on" },
	{ 0 },
};
static const struct cli_option set_options[] = {
	{ "--bandwidth", "RATE", CLI_RATE, "cap of copied and mirrored bytes, or none" },
	{ "--weight", "N", CLI_NUMBER, "share among moves, 1 to 1000" },
	{ "--priority", "P", CLI_TEXT, "low, normal or high" },
	{ "--max-stun", "TIME", CLI_TIME, "longest hold of guest I/O at the switch-over" },
	{ "--latency-budget", "TIME", CLI_TIME, "what mirroring may add to a guest's write; 0s: no budget" },
	{ "--mode", "MODE", CLI_TEXT, "sync or async" },
	{ 0 },
};

// clang-format off
const struct command task_commands[] = {
	{ "task", "list", "", 0, 0, "tasks that have not ended", list_options, run_list },
	{ "task", "show", "ID", 1, 1, "one task", NULL, run_show },
	{ "task", "watch", "[ID]", 0, 1, "follow one task, or all", NULL, run_watch },
	{ "task", "wait", "ID", 1, 1, "wait until it has ended", wait_options, run_wait },
	{ "task", "cancel", "ID", 1, 1, "back to the source; the unfinished target is removed", NULL, run_cancel },
	{ "task", "pause", "ID", 1, 1, "no target I/O at all; guest writes are noted", NULL, run_pause },
	{ "task", "resume", "ID", 1, 1, "go on after a pause", NULL, run_resume },
	{ "task", "complete", "ID", 1, 1, "lift the hold: switch over", NULL, run_complete },
	{ "task", "set", "ID", 1, 1, "change a task that runs", set_options, run_set },
	{ 0 },
};
// clang-format on

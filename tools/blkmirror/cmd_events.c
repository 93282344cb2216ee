/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_events.c - 'events' and 'recover'. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirror/client.h"
#include "tools/blkmirror/table.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

/* ---- events ---- */

static bool print_event(const json_t *event, void *user)
{
	const struct cli *cli = user;
	char *data;

	if (cli->json) {
		cli_print_json(event);
	} else {
		data = json_dumps(json_object_get(event, "data"), JSON_COMPACT);
		printf("%s\t%s\t%s\n", text(event, "time"), text(event, "event"), data ? data : "");
		free(data);
	}
	fflush(stdout);
	return true;
}

static int follow(const struct cli *cli)
{
	struct err err = { 0 };
	enum stream_end end =
		client_stream(cli, "/v1/events?follow=1", 0, print_event, (void *)cli, &err);

	if (end != STREAM_LOST)
		return EXIT_DONE;
	cli_error(cli, &err);
	return err.id == ERR_NO_DAEMON ? EXIT_NO_DAEMON : EXIT_FAILED;
}

static int run_events(const struct cli *cli, const struct cli_args *args)
{
	json_t *answer, *event;
	int exit_code;
	size_t i;

	if (cli_flag(args, "follow"))
		return follow(cli);
	answer = client_call(cli, "GET", "/v1/events", NULL, &exit_code);
	if (answer && cli->json)
		cli_print_json(answer);
	else
		json_array_foreach (json_object_get(answer, "events"), i, event)
			print_event(event, (void *)cli);
	json_decref(answer);
	return exit_code;
}

static const struct cli_option event_options[] = {
	{ "--follow", NULL, CLI_FLAG, "go on with each event as it happens" },
	{ 0 },
};

const struct command event_commands[] = {
	{ "events", "", "", 0, 0, "what happened", event_options, run_events },
	{ 0 },
};

/* ---- recover ---- */

static void print_recover(const struct cli *cli, const json_t *answer)
{
	static const char *const headings[] = { "ID", "SOURCE", "TARGET", "AUTHORITATIVE", "WHY",
						NULL };
	struct table *table = table_new(headings);
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(answer, "recover"), i, row) {
		const json_t *disk = json_array_get(json_object_get(row, "disks"), 0);

		table_cell(table, "%s", text(row, "id"));
		table_cell(table, "%s", text(disk, "source"));
		table_cell(table, "%s", text(disk, "target"));
		table_cell(table, "%s", text(row, "authoritative"));
		table_cell(table, "%s", text(json_object_get(row, "why"), "cause"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
}

static int recover_list(const struct cli *cli)
{
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/recover", NULL, &exit_code);

	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print_recover(cli, answer);
	json_decref(answer);
	return exit_code;
}

static int run_recover(const struct cli *cli, const struct cli_args *args)
{
	char path[256] = "/v1/recover/";
	json_t *answer;
	int exit_code;

	if (strcmp(args->words[0], "list") == 0)
		return recover_list(cli);
	client_escape(args->words[0], path + strlen(path), sizeof(path) - strlen(path));
	answer = client_call(cli, "POST", path, args->options, &exit_code);
	if (answer && cli->json)
		cli_print_json(answer);
	json_decref(answer);
	return exit_code;
}

static const struct cli_option recover_options[] = {
	{ "--keep", "SIDE", CLI_TEXT, "source or target: your word on which copy counts" },
	{ "--run-here", NULL, CLI_FLAG, "run the machine here" },
	{ "--other-side-is-dead", NULL, CLI_FLAG, "your word that it runs nowhere else" },
	{ 0 },
};

const struct command recover_commands[] = {
	{ "recover", "", "list|ID", 1, 1, "what was interrupted, and your word on it",
	  recover_options, run_recover },
	{ 0 },
};

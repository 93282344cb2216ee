/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/units.h"
#include "tools/blkmirror/client.h"
#include "tools/blkmirror/table.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static void bytes_cell(struct table *table, const json_t *object, const char *key)
{
	char formatted[FORMAT_BYTES];

	table_cell(table, "%s",
		   format_bytes(formatted,
				(uint64_t)json_integer_value(json_object_get(object, key))));
}

static int print_answer(const struct cli *cli, json_t *answer, int exit_code,
			void (*print)(const struct cli *cli, const json_t *answer))
{
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print(cli, answer);
	json_decref(answer);
	return exit_code;
}

static void print_rows(const struct cli *cli, const json_t *list)
{
	static const char *const headings[] = { "NAME",     "KIND", "STATE", "CAPACITY",
						"FREE",     "URL",  NULL };
	struct table *table = table_new(headings);
	json_t *row;
	size_t i;

	json_array_foreach (list, i, row) {
		table_cell(table, "%s", text(row, "name"));
		table_cell(table, "%s", text(row, "kind"));
		table_cell(table, "%s", text(row, "state"));
		bytes_cell(table, row, "capacity_bytes");
		bytes_cell(table, row, "free_bytes");
		table_cell(table, "%s", text(row, "url"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
}

static void print_list(const struct cli *cli, const json_t *answer)
{
	print_rows(cli, json_object_get(answer, "datastores"));
}

static void print_one(const struct cli *cli, const json_t *answer)
{
	const json_t *error = json_object_get(answer, "error");
	json_t *list = json_pack("[O]", answer);

	print_rows(cli, list);
	json_decref(list);
	if (json_is_object(error))
		fprintf(stderr, "%s: %s\n%s\n", text(error, "id"), text(error, "cause"),
			text(error, "remedy"));
}

static void print_nothing(const struct cli *cli, const json_t *answer)
{
	(void)cli;
	(void)answer;
}

static int run_list(const struct cli *cli, const struct cli_args *args)
{
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/datastores", NULL, &exit_code);

	(void)args;
	return print_answer(cli, answer, exit_code, print_list);
}

static int run_add(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:s, s:s}", "name", args->words[0], "url", args->words[1]);
	json_t *answer;
	int exit_code;

	cli_move(args, "secret_file", body, "secret_file");
	answer = client_call(cli, "POST", "/v1/datastores", body, &exit_code);
	json_decref(body);
	return print_answer(cli, answer, exit_code, print_one);
}

/* Name a datastore in a path; what is no name is for the daemon to refuse. */
static void ds_path(const char *name, const char *rest, char *out, size_t out_bytes)
{
	char escaped[256];

	client_escape(name, escaped, sizeof(escaped));
	for (char *c = escaped; *c; c++)
		if (*c == '/')
			*c = ':';
	snprintf(out, out_bytes, "/v1/datastores/%s%s", escaped, rest);
}

static int run_show(const struct cli *cli, const struct cli_args *args)
{
	char path[512];
	json_t *answer;
	int exit_code;

	ds_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, print_one);
}

static int run_set(const struct cli *cli, const struct cli_args *args)
{
	char path[512];
	json_t *answer;
	int exit_code;

	ds_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "PATCH", path, args->options, &exit_code);
	return print_answer(cli, answer, exit_code, print_one);
}

static int run_remove(const struct cli *cli, const struct cli_args *args)
{
	char path[512];
	json_t *answer;
	int exit_code;

	ds_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "DELETE", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, print_nothing);
}

static void print_files(const struct cli *cli, const json_t *answer)
{
	static const char *const headings[] = { "NAME", "KIND", "SIZE", "ALLOCATED", "MODIFIED",
						NULL };
	struct table *table = table_new(headings);
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(answer, "files"), i, row) {
		table_cell(table, "%s", text(row, "name"));
		table_cell(table, "%s", text(row, "kind"));
		bytes_cell(table, row, "size_bytes");
		bytes_cell(table, row, "allocated_bytes");
		table_cell(table, "%s", text(row, "modified"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
	if (json_is_true(json_object_get(answer, "truncated")))
		fputs("There are more files than are listed.\n", stderr);
}

static int run_files(const struct cli *cli, const struct cli_args *args)
{
	char name[256], path[4096], dir[3500] = "";
	const char *colon = strchr(args->words[0], ':');
	size_t len = colon ? (size_t)(colon - args->words[0]) : strlen(args->words[0]);
	json_t *answer;
	int exit_code;

	snprintf(name, sizeof(name), "%.*s", (int)len, args->words[0]);
	if (colon)
		client_escape(colon + 1, dir, sizeof(dir));
	ds_path(name, "/files?dir=", path, sizeof(path));
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "%s", dir);
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, print_files);
}

static const struct cli_option add_options[] = {
	{ "--secret-file", "FILE", CLI_FILE, "user= and password= lines, read by the daemon" },
	{ 0 },
};
static const struct cli_option set_options[] = {
	{ "--bandwidth", "RATE", CLI_RATE, "cap of each move from or to it, or none" },
	{ "--budget", "UNITS", CLI_NUMBER, "moves at once: a relocation takes 16 on each side" },
	{ "--lease", "TIME", CLI_TIME, "how long a lock outlives its silent owner" },
	{ 0 },
};

// clang-format off
const struct command datastore_commands[] = {
	{ "datastore", "add", "NAME URL", 2, 2, "name a place that holds disks, and open it", add_options, run_add },
	{ "datastore", "list", "", 0, 0, "all datastores, their state and space", NULL, run_list },
	{ "datastore", "show", "NAME", 1, 1, "one datastore, its space asked now", NULL, run_show },
	{ "datastore", "set", "NAME", 1, 1, "change its bandwidth, budget or lease", set_options, run_set },
	{ "datastore", "remove", "NAME", 1, 1, "forget it; what lies there stays", NULL, run_remove },
	{ "datastore", "files", "NAME[:DIR]", 1, 1, "what lies in a folder of it", NULL, run_files },
	{ 0 },
};
// clang-format on

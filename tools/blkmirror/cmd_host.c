/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "tools/blkmirror/client.h"
#include "tools/blkmirror/table.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static int print_answer(const struct cli *cli, json_t *answer, int exit_code,
			void (*print)(const struct cli *cli, const json_t *answer))
{
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer && print)
		print(cli, answer);
	json_decref(answer);
	return exit_code;
}

/* "A:1,B:2" as `host add` takes it. */
static const char *addresses(const json_t *host, char *out, size_t out_bytes)
{
	const json_t *list = json_object_get(host, "addresses");
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < json_array_size(list) && used < out_bytes; i++)
		used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? "," : "",
					 json_string_value(json_array_get(list, i)));
	return out;
}

static void print_list(const struct cli *cli, const json_t *answer)
{
	static const char *const headings[] = { "NAME", "ADDRESSES", "FINGERPRINT", "DATA", NULL };
	struct table *table = table_new(headings);
	char joined[600];
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(answer, "hosts"), i, row) {
		table_cell(table, "%s", text(row, "name"));
		table_cell(table, "%s", addresses(row, joined, sizeof(joined)));
		table_cell(table, "%s", text(row, "fingerprint"));
		table_cell(table, "%s",
			   json_is_true(json_object_get(row, "plain_data")) ? "plain" : "tls");
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
}

static void print_one(const struct cli *cli, const json_t *answer)
{
	json_t *list = json_pack("{s:[O]}", "hosts", answer);

	print_list(cli, list);
	json_decref(list);
}

static void print_shown(const struct cli *cli, const json_t *answer)
{
	const json_t *error = json_object_get(answer, "error");

	print_one(cli, answer);
	if (json_is_true(json_object_get(answer, "reachable")))
		printf("reachable at %s, version %s, round trip %lld us\n", text(answer, "address"),
		       text(answer, "version"),
		       (long long)json_integer_value(json_object_get(answer, "round_trip_us")));
	else
		fprintf(stderr, "not reachable\n%s: %s\n%s\n", text(error, "id"),
			text(error, "cause"), text(error, "remedy"));
}

static int run_list(const struct cli *cli, const struct cli_args *args)
{
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/hosts", NULL, &exit_code);

	(void)args;
	return print_answer(cli, answer, exit_code, print_list);
}

static int run_add(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:s, s:s}", "name", args->words[0], "addresses", args->words[1]);
	json_t *answer;
	int exit_code;

	cli_move(args, "fingerprint", body, "fingerprint");
	cli_move(args, "plain_data", body, "plain_data");
	answer = client_call(cli, "POST", "/v1/hosts", body, &exit_code);
	json_decref(body);
	return print_answer(cli, answer, exit_code, print_one);
}

/* ---- this host ---- */

static void print_this(const struct cli *cli, const json_t *this_host)
{
	(void)cli;
	printf("uuid %s\nfingerprint %s\nversion %s\nlisten %s\n", text(this_host, "uuid"),
	       text(this_host, "fingerprint"), text(this_host, "version"),
	       text(this_host, "listen"));
}

static void print_fingerprint(const struct cli *cli, const json_t *this_host)
{
	(void)cli;
	puts(text(this_host, "fingerprint"));
}

static int show_this(const struct cli *cli,
		     void (*print)(const struct cli *cli, const json_t *answer))
{
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/hosts", NULL, &exit_code);
	json_t *this_host = json_incref(json_object_get(answer, "this_host"));

	json_decref(answer);
	return print_answer(cli, this_host, exit_code, print);
}

static int run_fingerprint(const struct cli *cli, const struct cli_args *args)
{
	(void)args;
	return show_this(cli, print_fingerprint);
}

static void host_path(const char *name, char *out, size_t out_bytes)
{
	char escaped[256];

	client_escape(name, escaped, sizeof(escaped));
	for (char *c = escaped; *c; c++)
		if (*c == '/')
			*c = ':';
	snprintf(out, out_bytes, "/v1/hosts/%s", escaped);
}

static int run_show(const struct cli *cli, const struct cli_args *args)
{
	char path[512];
	json_t *answer;
	int exit_code;

	if (args->count == 0)
		return show_this(cli, print_this);
	host_path(args->words[0], path, sizeof(path));
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	if (answer && exit_code == EXIT_DONE && !json_is_true(json_object_get(answer, "reachable")))
		exit_code = EXIT_FAILED;
	return print_answer(cli, answer, exit_code, print_shown);
}

static int run_remove(const struct cli *cli, const struct cli_args *args)
{
	char path[512];
	json_t *answer;
	int exit_code;

	host_path(args->words[0], path, sizeof(path));
	answer = client_call(cli, "DELETE", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, NULL);
}

static const struct cli_option add_options[] = {
	{ "--fingerprint", "F", CLI_TEXT, "of its key, as 'host fingerprint' prints it there" },
	{ "--plain-data", NULL, CLI_FLAG, "no encryption of data, if it chooses the same: trusted links only" },
	{ 0 },
};

// clang-format off
const struct command host_commands[] = {
	{ "host", "list", "", 0, 0, "the hosts that this one knows", NULL, run_list },
	{ "host", "show", "[NAME]", 0, 1, "this host; or another, asked now whether it is there", NULL, run_show },
	{ "host", "add", "NAME ADDR:PORT[,...]", 2, 2, "know a host by its key, and where it is", add_options, run_add },
	{ "host", "remove", "NAME", 1, 1, "know it no more; its links end", NULL, run_remove },
	{ "host", "fingerprint", "", 0, 0, "of this host's key, to give to other hosts", NULL, run_fingerprint },
	{ 0 },
};
// clang-format on

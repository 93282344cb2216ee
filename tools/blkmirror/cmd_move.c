/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/cmd_move.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/units.h"
#include "tools/blkmirror/client.h"
#include "tools/blkmirror/wait.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

/* Takes body. */
static int start_task(const struct cli *cli, const struct cli_args *args, const char *path,
		      json_t *body)
{
	int exit_code;
	json_t *task = client_call(cli, "POST", path, body, &exit_code);

	json_decref(body);
	return task ? task_started(cli, args, task) : exit_code;
}

static json_t *file_json(const char *file)
{
	char cwd[PATH_MAX];

	if (file[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return json_string(file);
	return json_sprintf("%s/%s", cwd, file);
}

int move_run_import(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:o, s:s}", "file", file_json(args->words[0]), "disk",
				 args->words[1]);

	cli_move(args, "provision", body, "provision");
	return start_task(cli, args, "/v1/disks/import", body);
}

int move_run_export(const struct cli *cli, const struct cli_args *args)
{
	return start_task(cli, args, "/v1/disks/export",
			  json_pack("{s:s, s:o}", "disk", args->words[0], "file",
				    file_json(args->words[1])));
}

/* ---- verify ---- */

int move_run_verify(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:s, s:s}", "disk", args->words[0], "other", args->words[1]);
	json_t *task, *last = NULL, *result;
	int exit_code;

	if (cli_flag(args, "no_wait"))
		return start_task(cli, args, "/v1/disks/verify", body);
	task = client_call(cli, "POST", "/v1/disks/verify", body, &exit_code);
	json_decref(body);
	if (!task)
		return exit_code;
	exit_code = wait_for_task(cli, text(task, "id"), 0, &last);
	result = json_object_get(last, "result");
	if (cli->json && last)
		cli_print_json(json_is_object(result) ? result : last);
	else if (json_is_true(json_object_get(result, "identical")))
		printf("identical\t%s\n", text(result, "hash"));
	else if (json_is_object(result))
		printf("different\t%lld bytes differ\n",
		       (long long)json_integer_value(json_object_get(result, "differing_bytes")));
	json_decref(last);
	json_decref(task);
	return exit_code;
}

/* ---- relocate ---- */

static void print_errors(const char *label, const json_t *errors)
{
	json_t *error;
	size_t i;

	json_array_foreach (errors, i, error)
		printf("%s\t%s\t%s\n\t%s\n", label, text(error, "id"), text(error, "cause"),
		       text(error, "remedy"));
}

static int print_check(const struct cli *cli, json_t *check)
{
	const json_t *estimate = json_object_get(check, "estimate");
	bool ok = json_is_true(json_object_get(check, "ok"));
	char bytes[FORMAT_BYTES];

	if (cli->json) {
		cli_print_json(check);
	} else {
		print_errors("error", json_object_get(check, "errors"));
		print_errors("warning", json_object_get(check, "warnings"));
		if (ok)
			printf("ok\t%s to copy, about %lld s\n",
			       format_bytes(bytes, (uint64_t)json_integer_value(
							   json_object_get(estimate, "bytes"))),
			       (long long)json_integer_value(json_object_get(estimate, "seconds")));
	}
	json_decref(check);
	return ok ? EXIT_DONE : EXIT_REFUSED;
}

/* Takes body. */
static json_t *relocate_body(const struct cli_args *args, json_t *body)
{
	static const char *const same[] = { "to",       "provision",   "mode",        "bandwidth",
					    "max_stun", "target_timeout", "latency_budget", "keep_source", "hold",
					    "check",    "priority",    "weight" };

	for (size_t i = 0; i < ARRAY_COUNT(same); i++)
		cli_move(args, same[i], body, same[i]);
	if (cli_flag(args, "no_verify"))
		json_object_set_new(body, "verify", json_false());
	if (cli_flag(args, "delete_source"))
		json_object_set_new(body, "keep_source", json_false());
	return body;
}

/* Takes body. */
static int relocate(const struct cli *cli, const struct cli_args *args, const char *path,
		    json_t *body)
{
	int exit_code;
	json_t *check;

	body = relocate_body(args, body);
	if (!cli_flag(args, "check"))
		return start_task(cli, args, path, body);
	check = client_call(cli, "POST", path, body, &exit_code);
	json_decref(body);
	return check ? print_check(cli, check) : exit_code;
}

static int judge_relocate(const struct cli *cli, const struct cli_args *args, bool has_target,
			  const char *what)
{
	struct err err = { 0 };

	if (!has_target)
		err_set(&err, ERR_USAGE, 0, "%s", what);
	else if (cli_flag(args, "keep_source") && cli_flag(args, "delete_source"))
		err_set(&err, ERR_USAGE, 0, "--keep-source and --delete-source exclude each other");
	if (err.id != ERR_NONE) {
		cli_error(cli, &err);
		return EXIT_USAGE;
	}
	return EXIT_DONE;
}

int move_run_relocate(const struct cli *cli, const struct cli_args *args)
{
	int exit_code = judge_relocate(cli, args, cli_text(args, "to"),
				       "'disk relocate' needs --to");

	return exit_code ? exit_code
			 : relocate(cli, args, "/v1/disks/relocate",
				    json_pack("{s:s}", "disk", args->words[0]));
}

int move_run_vm_relocate(const struct cli *cli, const struct cli_args *args)
{
	char path[2048], escaped[1024];
	json_t *body;
	int exit_code = judge_relocate(cli, args,
				       cli_text(args, "to") || cli_text(args, "disk") ||
					       cli_text(args, "config_to"),
				       "'vm relocate' needs --to, --disk or --config-to");

	if (exit_code)
		return exit_code;
	body = json_object();
	cli_move(args, "disk", body, "disks");
	cli_move(args, "config_to", body, "config_to");
	snprintf(path, sizeof(path), "/v1/vms/%s/relocate",
		 client_escape(args->words[0], escaped, sizeof(escaped)));
	return relocate(cli, args, path, body);
}

/* What a move of one disk and of a machine have in common. */
// clang-format off
#define RELOCATE_OPTIONS \
	{ "--provision", "P", CLI_TEXT, "same (default), thin, thick or eager" }, \
	{ "--mode", "MODE", CLI_TEXT, "sync (default) or async, for long links" }, \
	{ "--bandwidth", "RATE", CLI_RATE, "cap of copied and mirrored bytes, or none" }, \
	{ "--max-stun", "TIME", CLI_TIME, "longest hold of guest I/O at the switch-over (100ms)" }, \
	{ "--target-timeout", "TIME", CLI_TIME, "how long a mirrored write waits for the target (3s)" }, \
	{ "--latency-budget", "TIME", CLI_TIME, "what mirroring may add to a guest's write, on average (none)" }, \
	{ "--keep-source", NULL, CLI_FLAG, "keep the old copy, marked retired" }, \
	{ "--delete-source", NULL, CLI_FLAG, "delete it once verified (default)" }, \
	{ "--no-verify", NULL, CLI_FLAG, "do not read the target back; keeps the source" }, \
	{ "--hold", NULL, CLI_FLAG, "stay in sync until 'task complete'" }, \
	{ "--priority", "P", CLI_TEXT, "low, normal (default) or high" }, \
	{ "--weight", "N", CLI_NUMBER, "share among moves, 1 to 1000 (100)" }, \
	{ "--check", NULL, CLI_FLAG, "only say what would be refused" }, \
	{ "--no-wait", NULL, CLI_FLAG, "print the task and return" }, \
	{ 0 },

const struct cli_option move_relocate_options[] = {
	{ "--to", "DS[:PATH]", CLI_TEXT, "where to; without PATH the same path" },
	RELOCATE_OPTIONS
};

const struct cli_option move_vm_relocate_options[] = {
	{ "--to", "DS", CLI_TEXT, "where to, for all that nothing else is said of" },
	{ "--disk", "KEY=DS[:PATH]", CLI_LIST, "one disk: scsi0:0=DS; may be given again" },
	{ "--config-to", "DS", CLI_TEXT, "the VMX and the small files beside it" },
	RELOCATE_OPTIONS
};
// clang-format on

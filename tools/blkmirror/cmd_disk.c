/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_disk.c - disks that are made, served, shown and deleted; moves are in cmd_move.c. */
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/units.h"
#include "tools/blkmirror/client.h"
#include "tools/blkmirror/cmd_move.h"
#include "tools/blkmirror/table.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static char *bytes_of(char out[FORMAT_BYTES], const json_t *object, const char *key)
{
	return format_bytes(out, (uint64_t)json_integer_value(json_object_get(object, key)));
}

/* POST words[0] as "disk" with the options given, and print the answer by print. */
static int disk_post(const struct cli *cli, const struct cli_args *args, const char *path,
		     const char *first_field,
		     void (*print)(const struct cli *cli, const json_t *answer))
{
	json_t *body = json_pack("{s:s, s:O}", first_field, args->words[0], "options",
				 args->options);
	json_t *answer;
	int exit_code;

	json_object_del(body, "options");
	json_object_update(body, args->options);
	answer = client_call(cli, "POST", path, body, &exit_code);
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer && print)
		print(cli, answer);
	json_decref(answer);
	json_decref(body);
	return exit_code;
}

/* ---- list, show ---- */

static void print_list(const struct cli *cli, const json_t *answer)
{
	static const char *const headings[] = { "ID",   "DISK",    "SIZE", "STATE",
						"EXPORT", "CLIENTS", "URI",  NULL };
	struct table *table = table_new(headings);
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(answer, "disks"), i, row) {
		char size[FORMAT_BYTES];
		bool moving = json_is_true(json_object_get(row, "moving"));

		table_cell(table, "%s", text(row, "id"));
		table_cell(table, "%s", text(row, "disk"));
		table_cell(table, "%s", bytes_of(size, row, "size_bytes"));
		table_cell(table, "%s", moving ? "moving" : text(row, "state"));
		table_cell(table, "%s", text(row, "export"));
		table_cell(table, "%lld",
			   (long long)json_integer_value(json_object_get(row, "clients")));
		table_cell(table, "%s", text(row, "uri")[0] ? text(row, "uri") : text(row, "socket"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
}

static int run_list(const struct cli *cli, const struct cli_args *args)
{
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/disks", NULL, &exit_code);

	(void)args;
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print_list(cli, answer);
	json_decref(answer);
	return exit_code;
}

static void print_disk(const struct cli *cli, const json_t *disk)
{
	const json_t *identity = json_object_get(disk, "identity");
	const json_t *authority = json_object_get(disk, "authoritative");
	const json_t *attached = json_object_get(disk, "attached");
	char size[FORMAT_BYTES], allocated[FORMAT_BYTES];

	(void)cli;
	printf("disk\t%s\nsize\t%s\nallocated\t%s\nprovision\t%s\nformat\t%s\n",
	       text(disk, "disk"), bytes_of(size, disk, "size_bytes"),
	       bytes_of(allocated, disk, "allocated_bytes"), text(disk, "provision"),
	       text(disk, "format"));
	if (json_is_object(identity))
		printf("role\t%s\nuuid\t%s\ngeneration\t%lld\n", text(identity, "role"),
		       text(identity, "uuid"),
		       (long long)json_integer_value(json_object_get(identity, "generation")));
	if (json_is_object(authority))
		printf("authoritative\t%s: %s\n",
		       json_is_true(json_object_get(authority, "this_copy")) ? "this copy"
									     : "not this copy",
		       text(authority, "why"));
	if (json_is_object(attached))
		printf("attached\t%s\nuri\t%s\n", text(attached, "id"), text(attached, "uri"));
}

static int run_show(const struct cli *cli, const struct cli_args *args)
{
	char path[4096] = "/v1/disks/show?disk=";
	json_t *answer;
	int exit_code;

	client_escape(args->words[0], path + strlen(path), sizeof(path) - strlen(path));
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print_disk(cli, answer);
	json_decref(answer);
	return exit_code;
}

/* ---- attach, detach ---- */

static void print_attached(const struct cli *cli, const json_t *answer)
{
	const char *uri = text(answer, "uri");

	(void)cli;
	printf("%s\t%s\n", text(answer, "id"), uri[0] ? uri : text(answer, "socket"));
}

static int run_attach(const struct cli *cli, const struct cli_args *args)
{
	return disk_post(cli, args, "/v1/disks/attach", "disk", print_attached);
}

static int run_detach(const struct cli *cli, const struct cli_args *args)
{
	return disk_post(cli, args, "/v1/disks/detach", "id", NULL);
}

/* ---- the rest ---- */

static int run_create(const struct cli *cli, const struct cli_args *args)
{
	struct err err;

	if (!cli_text(args, "size")) {
		err_set(&err, ERR_USAGE, 0, "'disk create' needs --size");
		cli_error(cli, &err);
		return EXIT_USAGE;
	}
	return disk_post(cli, args, "/v1/disks", "disk", NULL);
}

static int run_resize(const struct cli *cli, const struct cli_args *args)
{
	struct err err;

	if (!cli_text(args, "size")) {
		err_set(&err, ERR_USAGE, 0, "'disk resize' needs --size");
		cli_error(cli, &err);
		return EXIT_USAGE;
	}
	return disk_post(cli, args, "/v1/disks/resize", "disk", NULL);
}

static int run_delete(const struct cli *cli, const struct cli_args *args)
{
	return disk_post(cli, args, "/v1/disks/delete", "disk", NULL);
}

static int run_unlock(const struct cli *cli, const struct cli_args *args)
{
	return disk_post(cli, args, "/v1/disks/unlock", "disk", NULL);
}

static int run_fork(const struct cli *cli, const struct cli_args *args)
{
	return disk_post(cli, args, "/v1/disks/fork", "disk", NULL);
}

static const struct cli_option create_options[] = {
	{ "--size", "SIZE", CLI_SIZE, "with its unit: 40GiB, 500MB" },
	{ "--provision", "P", CLI_TEXT, "thin (default), thick or eager" },
	{ 0 },
};
static const struct cli_option resize_options[] = {
	{ "--size", "SIZE", CLI_SIZE, "the new size; a disk can only grow" },
	{ 0 },
};
static const struct cli_option attach_options[] = {
	{ "--export", "KIND", CLI_TEXT, "nbd (default) or vhost-user" },
	{ "--socket", "PATH", CLI_FILE, "where to listen (RUN-DIR/disks/ID.sock)" },
	{ "--id", "NAME", CLI_TEXT, "its id (d1, d2 ...)" },
	{ "--read-only", NULL, CLI_FLAG, "refuse writes" },
	{ 0 },
};
static const struct cli_option force_options[] = {
	{ "--force", NULL, CLI_FLAG, "even though somebody may use it" },
	{ 0 },
};
static const struct cli_option import_options[] = {
	{ "--provision", "P", CLI_TEXT, "thin (default), thick or eager" },
	{ "--no-wait", NULL, CLI_FLAG, "print the task and return" },
	{ 0 },
};
static const struct cli_option wait_options[] = {
	{ "--no-wait", NULL, CLI_FLAG, "print the task and return" },
	{ 0 },
};

// clang-format off
const struct command disk_commands[] = {
	{ "disk", "create", "DS:PATH", 1, 1, "make an empty disk", create_options, run_create },
	{ "disk", "import", "FILE DS:PATH", 2, 2, "copy a local raw file into a new disk", import_options, move_run_import },
	{ "disk", "export", "DS:PATH FILE", 2, 2, "copy a disk into a new local raw file", wait_options, move_run_export },
	{ "disk", "attach", "DS:PATH", 1, 1, "serve a disk; prints its id and what to give to QEMU", attach_options, run_attach },
	{ "disk", "detach", "ID", 1, 1, "stop serving it", force_options, run_detach },
	{ "disk", "list", "", 0, 0, "attached disks", NULL, run_list },
	{ "disk", "show", "DS:PATH|ID", 1, 1, "what it is, and which copy counts and why", NULL, run_show },
	{ "disk", "resize", "DS:PATH", 1, 1, "grow a disk that is not attached", resize_options, run_resize },
	{ "disk", "delete", "DS:PATH", 1, 1, "delete a disk", NULL, run_delete },
	{ "disk", "relocate", "DS:PATH|ID", 1, 1, "move a disk to another datastore, under its guest", move_relocate_options, move_run_relocate },
	{ "disk", "verify", "DS:PATH DS:PATH", 2, 2, "compare two disks; exit code 1 when they differ", wait_options, move_run_verify },
	{ "disk", "unlock", "DS:PATH", 1, 1, "break a dead host's lock (needs --force)", force_options, run_unlock },
	{ "disk", "fork", "DS:PATH", 1, 1, "make a retired copy a disk of its own", NULL, run_fork },
	{ 0 },
};
// clang-format on

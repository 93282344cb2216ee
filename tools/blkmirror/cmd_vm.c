/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_vm.c - machines; the console is in console.c. */
#include <stdio.h>
#include <string.h>

#include "tools/blkmirror/client.h"
#include "tools/blkmirror/cmd_move.h"
#include "tools/blkmirror/console.h"
#include "tools/blkmirror/table.h"

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "-";
}

static void vm_path(const char *name, const char *verb, char *out, size_t out_bytes)
{
	char escaped[1024];

	snprintf(out, out_bytes, "/v1/vms/%s%s", client_escape(name, escaped, sizeof(escaped)),
		 verb);
}

/* What is ignored and matters goes to stderr: it is for the reader, not for a script. */
static void print_findings(const json_t *answer, const char *kind)
{
	json_t *finding;
	size_t i;

	json_array_foreach (json_object_get(answer, kind), i, finding)
		fprintf(stderr, "%.*s: %s (%s)\n  %s\n", (int)strlen(kind) - 1, kind,
			text(finding, "cause"), text(finding, "id"), text(finding, "remedy"));
}

static int print_answer(const struct cli *cli, json_t *answer, int exit_code,
			void (*print)(const json_t *answer))
{
	if (answer && cli->json)
		cli_print_json(answer);
	else if (answer)
		print(answer);
	json_decref(answer);
	return exit_code;
}

static void print_state(const json_t *answer)
{
	printf("%s\t%s\t%s\n", text(answer, "id"), text(answer, "name"), text(answer, "state"));
	print_findings(answer, "warnings");
}

static void print_nothing(const json_t *answer)
{
	(void)answer;
}

/* ---- list, show ---- */

static int run_list(const struct cli *cli, const struct cli_args *args)
{
	static const char *const headings[] = { "ID", "NAME", "STATE", "PAUSED", "DISKS", "VMX",
						NULL };
	int exit_code;
	json_t *answer = client_call(cli, "GET", "/v1/vms", NULL, &exit_code), *row;
	struct table *table;
	size_t i;

	(void)args;
	if (!answer || cli->json)
		return print_answer(cli, answer, exit_code, print_nothing);
	table = table_new(headings);
	json_array_foreach (json_object_get(answer, "vms"), i, row) {
		table_cell(table, "%s", text(row, "id"));
		table_cell(table, "%s", text(row, "name"));
		table_cell(table, "%s", text(row, "state"));
		table_cell(table, "%s", text(row, "paused"));
		table_cell(table, "%zu", json_array_size(json_object_get(row, "disks")));
		table_cell(table, "%s", text(row, "vmx"));
		table_row(table);
	}
	table_print(table, cli);
	table_free(table);
	json_decref(answer);
	return exit_code;
}

static void print_config(const json_t *config)
{
	json_t *row;
	size_t i;

	if (!json_is_object(config))
		return;
	printf("memory\t%lld MiB\ncpus\t%lld\nfirmware\t%s\nmachine\t%s\nuuid\t%s\n",
	       (long long)json_integer_value(json_object_get(config, "memory_mib")),
	       (long long)json_integer_value(json_object_get(config, "cpus")),
	       text(config, "firmware"), text(config, "machine"), text(config, "uuid"));
	json_array_foreach (json_object_get(config, "drives"), i, row)
		printf("%s\t%s\t%s\t%s\n", text(row, "drive"), text(row, "media"),
		       text(row, "controller"), text(row, "file"));
	json_array_foreach (json_object_get(config, "networks"), i, row)
		printf("ethernet%lld\t%s\t%s\n",
		       (long long)json_integer_value(json_object_get(row, "ethernet")),
		       text(row, "mac"), text(row, "network"));
}

static void print_vm(const json_t *vm)
{
	const json_t *error = json_object_get(vm, "error");

	printf("id\t%s\nname\t%s\nstate\t%s\nvmx\t%s\n", text(vm, "id"), text(vm, "name"),
	       text(vm, "state"), text(vm, "vmx"));
	if (json_is_string(json_object_get(vm, "paused")))
		printf("paused\t%s\n", text(vm, "paused"));
	if (json_is_integer(json_object_get(vm, "pid")))
		printf("pid\t%lld\nconsole\t%s\n",
		       (long long)json_integer_value(json_object_get(vm, "pid")),
		       text(vm, "console"));
	printf("log\t%s\n", text(vm, "log"));
	if (json_is_string(json_object_get(vm, "task")))
		printf("relocated by\t%s\n", text(vm, "task"));
	if (json_is_object(error))
		printf("error\t%s (%s)\n", text(error, "cause"), text(error, "id"));
	print_config(json_object_get(vm, "config"));
	print_findings(vm, "errors");
	print_findings(vm, "warnings");
}

static int run_show(const struct cli *cli, const struct cli_args *args)
{
	char path[2048];
	int exit_code;
	json_t *answer;

	vm_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, print_vm);
}

/* ---- register, create, unregister ---- */

static int run_register(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:s}", "vmx", args->words[0]);
	int exit_code;
	json_t *answer = client_call(cli, "POST", "/v1/vms", body, &exit_code);

	json_decref(body);
	return print_answer(cli, answer, exit_code, print_state);
}

static int run_create(const struct cli *cli, const struct cli_args *args)
{
	json_t *body = json_pack("{s:s}", "name", args->words[0]), *answer;
	struct err err;
	int exit_code;

	if (!cli_text(args, "datastore") || !cli_text(args, "memory")) {
		json_decref(body);
		err_set(&err, ERR_USAGE, 0, "'vm create' needs --datastore and --memory");
		cli_error(cli, &err);
		return EXIT_USAGE;
	}
	json_object_update(body, args->options);
	json_object_del(body, "disk");
	cli_move(args, "disk", body, "disks");
	answer = client_call(cli, "POST", "/v1/vms/create", body, &exit_code);
	json_decref(body);
	return print_answer(cli, answer, exit_code, print_state);
}

static int run_unregister(const struct cli *cli, const struct cli_args *args)
{
	char path[2048];
	int exit_code;
	json_t *answer;

	vm_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "DELETE", path, NULL, &exit_code);
	return print_answer(cli, answer, exit_code, print_nothing);
}

/* ---- verbs ---- */

static int post(const struct cli *cli, const struct cli_args *args, const char *verb)
{
	char path[2048];
	int exit_code;
	json_t *answer;

	vm_path(args->words[0], verb, path, sizeof(path));
	answer = client_call(cli, "POST", path, args->options, &exit_code);
	return print_answer(cli, answer, exit_code, print_state);
}

static int run_start(const struct cli *cli, const struct cli_args *args)
{
	return post(cli, args, "/start");
}

static int run_stop(const struct cli *cli, const struct cli_args *args)
{
	return post(cli, args, "/stop");
}

static int run_suspend(const struct cli *cli, const struct cli_args *args)
{
	return post(cli, args, "/suspend");
}

static int run_resume(const struct cli *cli, const struct cli_args *args)
{
	return post(cli, args, "/resume");
}

static int run_console(const struct cli *cli, const struct cli_args *args)
{
	char path[2048];
	struct err err = { 0 };
	int exit_code;
	json_t *answer;

	vm_path(args->words[0], "", path, sizeof(path));
	answer = client_call(cli, "GET", path, NULL, &exit_code);
	if (!answer)
		return exit_code;
	if (!json_is_string(json_object_get(answer, "console")))
		err_set(&err, ERR_VM_STATE, 0, "the machine '%.100s' is %s: it has no console",
			text(answer, "name"), text(answer, "state"));
	else if (!console_run(text(answer, "console"), &err))
		exit_code = EXIT_DONE;
	if (err.id != ERR_NONE)
		exit_code = cli_error(cli, &err);
	json_decref(answer);
	return exit_code;
}

static const struct cli_option create_options[] = {
	{ "--datastore", "DS", CLI_TEXT, "where it and its disks lie" },
	{ "--memory", "SIZE", CLI_SIZE, "with its unit: 4GiB" },
	{ "--cpus", "N", CLI_NUMBER, "processors (1)" },
	{ "--disk", "SIZE[,SIZE]", CLI_TEXT, "a thin disk of each size: 20GiB,500MiB" },
	{ "--controller", "KIND", CLI_TEXT, "virtio (default), pvscsi, lsilogic or lsisas1068" },
	{ "--network", "NAME", CLI_TEXT, "one of the daemon's [networks]" },
	{ "--kernel", "FILE", CLI_FILE, "boot this kernel instead of a disk" },
	{ "--initrd", "FILE", CLI_FILE, "with this initial RAM disk" },
	{ "--append", "TEXT", CLI_TEXT, "and this command line" },
	{ 0 },
};
static const struct cli_option stop_options[] = {
	{ "--force", NULL, CLI_FLAG, "at once, without the guest; a suspended one loses its memory" },
	{ "--timeout", "TIME", CLI_TIME, "how long the guest may take to power off (60s)" },
	{ 0 },
};

// clang-format off
const struct command vm_commands[] = {
	{ "vm", "register", "DS:PATH.vmx", 1, 1, "make a machine known by its VMX file", NULL, run_register },
	{ "vm", "create", "NAME", 1, 1, "make a machine and its disks", create_options, run_create },
	{ "vm", "unregister", "VM", 1, 1, "forget it; its files stay", NULL, run_unregister },
	{ "vm", "list", "", 0, 0, "all machines", NULL, run_list },
	{ "vm", "show", "VM", 1, 1, "what it is, what it does, and what its VMX asks for in vain", NULL, run_show },
	{ "vm", "start", "VM", 1, 1, "start it, or resume it when it is suspended", NULL, run_start },
	{ "vm", "stop", "VM", 1, 1, "power it off through ACPI", stop_options, run_stop },
	{ "vm", "suspend", "VM", 1, 1, "write its memory to a file in its folder", NULL, run_suspend },
	{ "vm", "resume", "VM", 1, 1, "go on where it was", NULL, run_resume },
	{ "vm", "relocate", "VM", 1, 1, "move its VMX, small files and disks to other datastores, under its guest", move_vm_relocate_options, move_run_vm_relocate },
	{ "vm", "console", "VM", 1, 1, "its serial port; Ctrl-] leaves", NULL, run_console },
	{ 0 },
};
// clang-format on

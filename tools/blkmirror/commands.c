/* SPDX-License-Identifier: Apache-2.0 */
/* commands.c - blkmirror's command line: global options, then NOUN VERB. */
#include "tools/blkmirror/commands.h"

#include <curl/curl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/common/json_edge.h"

static const struct command *const nouns[] = { datastore_commands, disk_commands, vm_commands, host_commands,
					       task_commands, event_commands, recover_commands };

const struct command *command_at(unsigned index)
{
	for (size_t n = 0; n < ARRAY_COUNT(nouns); n++)
		for (const struct command *command = nouns[n]; command->noun; command++)
			if (index-- == 0)
				return command;
	return NULL;
}

/* ---- output ---- */

int cli_error(const struct cli *cli, const struct err *err)
{
	if (cli->json) {
		json_t *object = json_edge_error(err);

		cli_print_json(object);
		json_decref(object);
	} else {
		fprintf(stderr, "blkmirror: %s\n%s\n%s\n", err->cause, err_name(err->id),
			err->remedy);
	}
	return EXIT_FAILED;
}

void cli_print_json(const json_t *value)
{
	char *text = json_dumps(value, JSON_COMPACT);

	if (text)
		puts(text);
	free(text);
}

/* ---- help ---- */

static void help_all(void)
{
	const struct command *command;

	puts("Usage: blkmirror [--socket PATH] [--json] NOUN VERB [OPTION]...\n"
	     "Move virtual disks of running machines between datastores.\n");
	for (unsigned i = 0; (command = command_at(i)); i++)
		printf("  %-9s %-8s %-18s %s\n", command->noun, command->verb, command->words,
		       command->help);
	puts("\n"
	     "  --socket PATH  the daemon's socket (BLKMIRROR_SOCKET, /run/blkmirror/api.sock)\n"
	     "  --json         print JSON: one document, or one per line for watch and events\n"
	     "  --help         this text; after NOUN or VERB, theirs\n"
	     "  --version      print the version\n"
	     "\n"
	     "Sizes and rates need a unit: K M G T and KiB ... are powers of 1024, KB ... of 1000;\n"
	     "rates end in /s, times in ms, s or min.  Exit codes: 0 done, 1 failed, 2 usage,\n"
	     "3 refused by the check, 4 wait timed out, 5 no daemon, 6 paused, held or cancelled.");
}

static void help_noun(const char *noun)
{
	const struct command *command;

	printf("Usage: blkmirror %s VERB [OPTION]...\n\n", noun);
	for (unsigned i = 0; (command = command_at(i)); i++)
		if (strcmp(command->noun, noun) == 0)
			printf("  %-9s %-18s %s\n", command->verb, command->words, command->help);
}

static void help_command(const struct command *command)
{
	printf("Usage: blkmirror %s%s%s%s%s%s\n%s\n", command->noun, command->verb[0] ? " " : "",
	       command->verb, command->words[0] ? " " : "", command->words,
	       command->options ? " [OPTION]..." : "", command->help);
	if (command->options)
		putchar('\n');
	for (const struct cli_option *option = command->options; option && option->name; option++) {
		char left[48];

		snprintf(left, sizeof(left), "%s%s%s", option->name, option->argument ? " " : "",
			 option->argument ? option->argument : "");
		printf("  %-24s %s\n", left, option->help);
	}
}

/* ---- finding and running ---- */

static int usage(const struct cli *cli, const char *what, const char *word)
{
	struct err err;

	err_set(&err, ERR_USAGE, 0, "%s: '%s'", what, word);
	err_remedy(&err, "'blkmirror --help' lists what there is.");
	cli_error(cli, &err);
	return EXIT_USAGE;
}

static bool noun_exists(const char *noun)
{
	const struct command *command;

	for (unsigned i = 0; (command = command_at(i)); i++)
		if (strcmp(command->noun, noun) == 0)
			return true;
	return false;
}

static int run_command(const struct cli *cli, const struct command *command, int argc, char **argv)
{
	struct cli_args args;
	struct err err = { 0 };
	bool help;
	int exit_code = EXIT_DONE;

	if (cli_args_parse(command, argc, argv, &args, &help, &err)) {
		cli_error(cli, &err);
		exit_code = EXIT_USAGE;
	} else if (help) {
		help_command(command);
	} else {
		exit_code = command->run(cli, &args);
	}
	json_decref(args.options);
	return exit_code;
}

static int run_noun(const struct cli *cli, int argc, char **argv)
{
	const struct command *command;
	const char *verb = argc > 1 ? argv[1] : "--help";

	if (!noun_exists(argv[0]))
		return usage(cli, "there is no such noun", argv[0]);
	for (unsigned i = 0; (command = command_at(i)); i++) {
		if (strcmp(command->noun, argv[0]) != 0)
			continue;
		if (command->verb[0] == '\0')
			return run_command(cli, command, argc - 1, argv + 1);
		if (strcmp(command->verb, verb) == 0)
			return run_command(cli, command, argc - 2, argv + 2);
	}
	if (strcmp(verb, "--help") != 0)
		return usage(cli, "there is no such verb", verb);
	help_noun(argv[0]);
	return argc > 1 ? EXIT_DONE : EXIT_USAGE;
}

static void cli_init(struct cli *cli)
{
	const char *socket_path = getenv("BLKMIRROR_SOCKET");
	const char *no_colour = getenv("NO_COLOR");
	struct winsize size;

	*cli = (struct cli){ .socket_path = socket_path && socket_path[0]
						    ? socket_path
						    : "/run/blkmirror/api.sock" };
	cli->terminal = isatty(STDOUT_FILENO) == 1;
	cli->colour = cli->terminal && !(no_colour && no_colour[0]);
	cli->width = 80;
	if (cli->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		cli->width = size.ws_col;
}

/* Global options stand before the noun; --json may stand anywhere before "--". */
static int global_options(struct cli *cli, int *argc, char **argv)
{
	int kept = 1, i = 1;

	for (; i < *argc; i++) {
		if (strcmp(argv[i], "--") == 0)
			break;
		if (strcmp(argv[i], "--json") == 0) {
			cli->json = true;
		} else if (kept == 1 && strcmp(argv[i], "--socket") == 0) {
			if (++i == *argc)
				return usage(cli, "the option needs a value", "--socket");
			cli->socket_path = argv[i];
		} else if (kept == 1 && strncmp(argv[i], "--socket=", 9) == 0) {
			cli->socket_path = argv[i] + 9;
		} else {
			argv[kept++] = argv[i];
		}
	}
	while (i < *argc)
		argv[kept++] = argv[i++];
	*argc = kept;
	argv[kept] = NULL;
	return EXIT_DONE;
}

int cli_main(int argc, char **argv)
{
	struct cli cli;
	int exit_code;

	setlocale(LC_CTYPE, "");
	cli_init(&cli);
	exit_code = global_options(&cli, &argc, argv);
	if (exit_code)
		return exit_code;
	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		puts("blkmirror " BM_VERSION);
		return EXIT_DONE;
	}
	if (argc < 2 || strcmp(argv[1], "--help") == 0) {
		help_all();
		return argc < 2 ? EXIT_USAGE : EXIT_DONE;
	}
	if (argv[1][0] == '-')
		return usage(&cli, "there is no such option", argv[1]);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	exit_code = run_noun(&cli, argc - 1, argv + 1);
	curl_global_cleanup();
	return exit_code;
}

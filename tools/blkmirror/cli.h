/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h - what every command of blkmirror shares: its exit codes, options, and output.
 */
#ifndef BM_CLI_H
#define BM_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_REFUSED = 3,               /* by the check */
	EXIT_WAIT_OVER = 4,             /* the task goes on */
	EXIT_NO_DAEMON = 5,
	EXIT_NOT_DONE = 6,              /* the task is paused, held or cancelled */
};

struct cli {
	const char *socket_path;
	bool json;
	bool colour;                    /* stdout is a terminal and NO_COLOR is not set */
	bool terminal;                  /* stdout is a terminal */
	int width;                      /* of the terminal */
};

enum cli_option_type { CLI_FLAG, CLI_TEXT, CLI_NUMBER, CLI_SIZE, CLI_RATE, CLI_TIME, CLI_FILE,
		       CLI_LIST };      /* may be given again: joined by commas */

struct cli_option {
	const char *name;               /* "--size" */
	const char *argument;           /* "N"; NULL for a flag */
	enum cli_option_type type;
	const char *help;
};

struct cli_args {
	int count;
	const char *words[4];           /* the positional ones */
	json_t *options;                /* by name without dashes, '-' as '_'; owned */
};

struct command {
	const char *noun, *verb;
	const char *words;              /* "DS:PATH [NAME]", for the help */
	int min_words, max_words;
	const char *help;               /* one line */
	const struct cli_option *options;       /* ends with a NULL name */
	int (*run)(const struct cli *cli, const struct cli_args *args);
};

/* Walk all commands in the order of the help; NULL past the end. */
const struct command *command_at(unsigned index);

/*
 * Parse what follows "NOUN VERB".  0; or -EINVAL with *err (ERR_USAGE, ERR_BAD_UNIT).
 * *help: --help was asked.  args->options is owned by the caller also on failure.
 */
MUST_CHECK int cli_args_parse(const struct command *command, int argc, char **argv,
			      struct cli_args *args, bool *help, struct err *err);
bool cli_flag(const struct cli_args *args, const char *name);
const char *cli_text(const struct cli_args *args, const char *name);    /* NULL: not given */
/* Move an option into a request's body under a field's name, when it was given. */
void cli_move(const struct cli_args *args, const char *name, json_t *body, const char *field);

/* Print an error in three lines (or as JSON on stdout); returns EXIT_FAILED. */
int cli_error(const struct cli *cli, const struct err *err);
/* One JSON document on stdout, on one line. */
void cli_print_json(const json_t *value);

/* Commands by noun; each array ends with a NULL noun. */
extern const struct command datastore_commands[];
extern const struct command disk_commands[];
extern const struct command host_commands[];
extern const struct command vm_commands[];
extern const struct command task_commands[];
extern const struct command event_commands[];
extern const struct command recover_commands[];

#endif

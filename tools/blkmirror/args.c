/* SPDX-License-Identifier: Apache-2.0 */
/* args.c - the words and options behind NOUN VERB; judged here as far as no daemon is needed. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/units.h"
#include "tools/blkmirror/cli.h"

static const struct cli_option *find_option(const struct command *command, const char *word,
					    size_t len)
{
	for (const struct cli_option *option = command->options; option && option->name; option++)
		if (strlen(option->name) == len && strncmp(option->name, word, len) == 0)
			return option;
	return NULL;
}

static void option_key(const struct cli_option *option, char out[64])
{
	snprintf(out, 64, "%s", option->name + 2);
	for (char *c = out; *c; c++)
		if (*c == '-')
			*c = '_';
}

static int check_value(const struct cli_option *option, const char *value, struct err *err)
{
	struct err why = { 0 };
	uint64_t number;
	char *end;
	int rc = 0;

	switch (option->type) {
	case CLI_SIZE:
		rc = units_parse_size(value, &number, &why);
		break;
	case CLI_RATE:
		rc = strcmp(value, "none") == 0 ? 0 : units_parse_rate(value, &number, &why);
		break;
	case CLI_TIME:
		rc = units_parse_time(value, &number, &why);
		break;
	case CLI_NUMBER:
		errno = 0;
		strtoull(value, &end, 10);
		if (errno || *value < '0' || *value > '9' || *end)
			return err_set(err, ERR_USAGE, -EINVAL, "%s must be a number, not '%s'",
				       option->name, value);
		break;
	default:
		if (value[0] == '\0')
			return err_set(err, ERR_USAGE, -EINVAL, "%s is empty", option->name);
	}
	if (rc)
		return err_set(err, ERR_BAD_UNIT, -EINVAL, "%s: %s", option->name, why.cause);
	return 0;
}

/* The daemon does not share our working directory. */
static json_t *absolute_path(const char *value)
{
	char cwd[PATH_MAX], path[2 * PATH_MAX];

	if (value[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return json_string(value);
	snprintf(path, sizeof(path), "%s/%s", cwd, value);
	return json_string(path);
}

static json_t *value_json(const struct cli_option *option, const char *value,
			  const struct cli_args *args, const char *key)
{
	const char *before = json_string_value(json_object_get(args->options, key));

	if (option->type == CLI_LIST && before)
		return json_sprintf("%s,%s", before, value);
	if (option->type == CLI_NUMBER)
		return json_integer((json_int_t)strtoull(value, NULL, 10));
	if (option->type == CLI_FILE)
		return absolute_path(value);
	return json_string(value);
}

/* "--name", "--name VALUE" or "--name=VALUE"; *taken counts the words used. */
static int parse_option(const struct command *command, char **argv, struct cli_args *args,
			int *taken, struct err *err)
{
	const char *equals = strchr(argv[0], '=');
	size_t len = equals ? (size_t)(equals - argv[0]) : strlen(argv[0]);
	const struct cli_option *option = find_option(command, argv[0], len);
	const char *value = equals ? equals + 1 : argv[1];
	char key[64];
	int rc;

	if (!option)
		return err_set(err, ERR_USAGE, -EINVAL, "'%s %s' has no option '%.*s'",
			       command->noun, command->verb, (int)len, argv[0]);
	option_key(option, key);
	*taken = 1;
	if (option->type == CLI_FLAG) {
		if (equals)
			return err_set(err, ERR_USAGE, -EINVAL, "%s takes no value", option->name);
		json_object_set_new(args->options, key, json_true());
		return 0;
	}
	if (!value)
		return err_set(err, ERR_USAGE, -EINVAL, "%s needs a value", option->name);
	*taken = equals ? 1 : 2;
	rc = check_value(option, value, err);
	if (!rc && json_object_set_new(args->options, key, value_json(option, value, args, key)))
		return err_set(err, ERR_USAGE, -EINVAL, "the value of %s is no UTF-8 text",
			       option->name);
	return rc;
}

int cli_args_parse(const struct command *command, int argc, char **argv, struct cli_args *args,
		   bool *help, struct err *err)
{
	bool only_words = false;
	int rc, taken;

	*args = (struct cli_args){ .options = json_object() };
	*help = false;
	for (int i = 0; i < argc; i += taken) {
		taken = 1;
		if (!only_words && strcmp(argv[i], "--") == 0) {
			only_words = true;
		} else if (!only_words && strcmp(argv[i], "--help") == 0) {
			*help = true;
			return 0;
		} else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
			rc = parse_option(command, argv + i, args, &taken, err);
			if (rc)
				return rc;
		} else if (args->count == command->max_words) {
			return err_set(err, ERR_USAGE, -EINVAL, "unexpected argument '%s'", argv[i]);
		} else {
			args->words[args->count++] = argv[i];
		}
	}
	if (args->count < command->min_words)
		return err_set(err, ERR_USAGE, -EINVAL, "'%s %s' needs: %s", command->noun,
			       command->verb, command->words);
	return 0;
}

bool cli_flag(const struct cli_args *args, const char *name)
{
	return json_is_true(json_object_get(args->options, name));
}

const char *cli_text(const struct cli_args *args, const char *name)
{
	return json_string_value(json_object_get(args->options, name));
}

void cli_move(const struct cli_args *args, const char *name, json_t *body, const char *field)
{
	json_t *value = json_object_get(args->options, name);

	if (value)
		json_object_set(body, field, value);
}

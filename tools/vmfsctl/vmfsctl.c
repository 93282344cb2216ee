/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vmfsctl/vmfsctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct ctl_verb *const tables[] = { ctl_look_verbs, ctl_change_verbs,
						 ctl_volume_verbs };

static const struct ctl_verb *verb_at(unsigned index)
{
	for (unsigned t = 0; t < ARRAY_COUNT(tables); t++)
		for (const struct ctl_verb *verb = tables[t]; verb->name; verb++)
			if (index-- == 0)
				return verb;
	return NULL;
}

/* ---- output ---- */

int ctl_error(const struct err *err)
{
	fflush(stdout);
	fprintf(stderr, "vmfsctl: %s\n%s\n%s\n", err->cause, err_name(err->id), err->remedy);
	return CTL_FAILED;
}

static int PRINTF_LIKE(1, 2) usage_error(const char *format, ...)
{
	struct err err = { 0 };
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	err_set(&err, ERR_USAGE, -EINVAL, "%s", text);
	err_remedy(&err, "See vmfsctl --help.");
	ctl_error(&err);
	return CTL_USAGE;
}

char *ctl_mode_text(const struct vmfs_stat *stat, char text[11])
{
	static const char letters[] = "rwxrwxrwx";

	text[0] = stat->is_directory ? 'd' : stat->type == VMFS_TYPE_SYMLINK ? 'l' : '-';
	for (unsigned i = 0; i < 9; i++)
		text[1 + i] = stat->mode >> (8 - i) & 1 ? letters[i] : '-';
	if (stat->mode & 01000)
		text[9] = stat->mode & 1 ? 't' : 'T';
	text[10] = '\0';
	return text;
}

const char *ctl_type_name(const struct vmfs_stat *stat)
{
	switch (stat->type) {
	case VMFS_TYPE_DIR:
		return "folder";
	case VMFS_TYPE_FILE:
		return "file";
	case VMFS_TYPE_SYMLINK:
		return "symbolic link";
	case VMFS_TYPE_SYSTEM:
		return stat->is_directory ? "system folder" : "system file";
	case VMFS_TYPE_RDM:
		return "raw device map";
	}
	return "unknown";
}

char *ctl_time_text(uint32_t time_s, char text[32])
{
	time_t when = time_s;
	struct tm parts;

	gmtime_r(&when, &parts);
	strftime(text, 32, "%Y-%m-%d %H:%M:%S", &parts);
	return text;
}

/* ---- the volume's devices ---- */

static int add_device(struct ctl_volume *volume, const char *path, bool read_only)
{
	struct vmfs_io_file_options options = { .read_only = read_only };
	struct err err = { 0 };

	if (volume->io_count == ARRAY_COUNT(volume->ios)) {
		err_set(&err, ERR_VMFS_EXTENT, -EINVAL, "a volume has at most 32 devices");
		return ctl_error(&err);
	}
	if (vmfs_io_file_open(path, &options, &volume->ios[volume->io_count], &err))
		return ctl_error(&err);
	volume->io_count++;
	return 0;
}

/* vmfs:///path?extent=/other&extent=/third */
static int add_url(struct ctl_volume *volume, const char *url, bool read_only)
{
	char text[4096], *query, *part, *saved = NULL;
	struct err err = { 0 };

	if (strlen(url) >= sizeof(text) || strncmp(url, "vmfs:///", 8) != 0) {
		err_set(&err, ERR_DS_BAD_URL, -EINVAL, "'%.120s' names no volume of this host", url);
		err_remedy(&err, "Write vmfs:///path?extent=/other, or just the path.");
		return ctl_error(&err);
	}
	strcpy(text, url + 7);
	query = strchr(text, '?');
	if (query)
		*query++ = '\0';
	if (add_device(volume, text, read_only))
		return CTL_FAILED;
	for (part = query ? strtok_r(query, "&", &saved) : NULL; part;
	     part = strtok_r(NULL, "&", &saved)) {
		if (strncmp(part, "extent=", 7) != 0) {
			err_set(&err, ERR_DS_BAD_URL, -EINVAL, "'%.120s' in the URL is not known", part);
			return ctl_error(&err);
		}
		if (add_device(volume, part + 7, read_only))
			return CTL_FAILED;
	}
	return 0;
}

int ctl_open_devices(const struct ctl_args *args, bool read_only, struct ctl_volume *out)
{
	int code;

	*out = (struct ctl_volume){ 0 };
	if (strncmp(args->words[0], "vmfs:", 5) == 0)
		code = add_url(out, args->words[0], read_only);
	else
		code = add_device(out, args->words[0], read_only);
	for (unsigned i = 0; i < args->extent_count && !code; i++)
		code = add_device(out, args->extents[i], read_only);
	return code ? ctl_release(out, code) : 0;
}

int ctl_open_with(const struct ctl_args *args, const struct vmfs_options *options,
		  struct ctl_volume *out)
{
	struct err err = { 0 };
	int code = ctl_open_devices(args, options->read_only, out);

	if (code)
		return code;
	if (vmfs_open(out->ios, out->io_count, options, &out->fs, &err))
		return ctl_release(out, ctl_error(&err));
	return 0;
}

int ctl_open(const struct ctl_args *args, bool read_only, struct ctl_volume *out)
{
	const struct vmfs_options options = { .read_only = read_only };

	return ctl_open_with(args, &options, out);
}

int ctl_release(struct ctl_volume *volume, int exit_code)
{
	struct err err = { 0 };

	if (vmfs_close(volume->fs, &err))
		exit_code = ctl_error(&err);
	for (unsigned i = 0; i < volume->io_count; i++)
		vmfs_io_close(volume->ios[i]);
	*volume = (struct ctl_volume){ 0 };
	return exit_code;
}

/* ---- the command line ---- */

static void help_verb(const struct ctl_verb *verb)
{
	printf("Usage: vmfsctl %s%s%s %s\n%s\n", verb->name, verb->options[0] ? " " : "",
	       verb->options, verb->words, verb->what);
}

static void help_all(void)
{
	const struct ctl_verb *verb;

	puts("Usage: vmfsctl VERB [OPTION]... VOLUME [WORD]...\n"
	     "Look into VMFS volumes and change them.\n\n"
	     "VOLUME is a device, an image of a partition, or vmfs:///path?extent=/other.\n"
	     "--extent PATH names a further device of the volume, for every verb.\n");
	for (unsigned i = 0; (verb = verb_at(i)); i++)
		printf("  %-9s %-34s %s\n", verb->name, verb->words, verb->what);
}

/* Does the verb take it?  Its list says "[-l] [--label TEXT]". */
static bool takes(const struct ctl_verb *verb, const char *option)
{
	const char *at = strstr(verb->options, option);

	return at && strchr(" ]", at[strlen(option)]);
}

static const char **value_of(struct ctl_args *args, const char *option)
{
	if (strcmp(option, "--label") == 0)
		return &args->label;
	if (strcmp(option, "--version") == 0)
		return &args->version;
	if (strcmp(option, "--size") == 0)
		return &args->size;
	if (strcmp(option, "--files") == 0)
		return &args->files;
	if (strcmp(option, "--extent") == 0 && args->extent_count < CTL_WORDS_MAX)
		return &args->extents[args->extent_count++];
	return NULL;
}

static bool *flag_of(struct ctl_args *args, const char *option)
{
	if (strcmp(option, "-l") == 0)
		return &args->long_form;
	if (strcmp(option, "-r") == 0)
		return &args->recursive;
	if (strcmp(option, "--repair") == 0)
		return &args->repair;
	return strcmp(option, "--force") == 0 ? &args->force : NULL;
}

/* 0, or an exit code; *taken counts the words used. */
static int parse_option(const struct ctl_verb *verb, char **argv, struct ctl_args *args, int *taken)
{
	const char **value;
	bool *flag;

	if (!takes(verb, argv[0]) && strcmp(argv[0], "--extent") != 0)
		return usage_error("unknown option '%.100s'", argv[0]);
	flag = flag_of(args, argv[0]);
	*taken = flag ? 1 : 2;
	if (flag) {
		*flag = true;
		return 0;
	}
	if (!argv[1])
		return usage_error("%.100s needs a value", argv[0]);
	value = value_of(args, argv[0]);
	if (!value)
		return usage_error("too many of %.100s", argv[0]);
	*value = argv[1];
	return 0;
}

static int parse(const struct ctl_verb *verb, int argc, char **argv, struct ctl_args *args)
{
	bool only_words = false;
	int taken, code;

	for (int i = 0; i < argc; i += taken) {
		taken = 1;
		if (!only_words && strcmp(argv[i], "--") == 0) {
			only_words = true;
		} else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
			code = parse_option(verb, argv + i, args, &taken);
			if (code)
				return code;
		} else if (args->count == verb->max_words) {
			return usage_error("unexpected argument '%.100s'", argv[i]);
		} else {
			args->words[args->count++] = argv[i];
		}
	}
	if (args->count < verb->min_words)
		return usage_error("missing: %.100s", verb->words);
	return 0;
}

static const struct ctl_verb *find_verb(const char *name)
{
	const struct ctl_verb *verb;

	for (unsigned i = 0; (verb = verb_at(i)); i++)
		if (strcmp(verb->name, name) == 0)
			return verb;
	return NULL;
}

int ctl_main(int argc, char **argv)
{
	struct ctl_args args = { 0 };
	const struct ctl_verb *verb;
	int code;

	if (argc < 2 || strcmp(argv[1], "--help") == 0) {
		help_all();
		return argc < 2 ? CTL_USAGE : CTL_DONE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("vmfsctl " BM_VERSION);
		return CTL_DONE;
	}
	verb = find_verb(argv[1]);
	if (!verb)
		return usage_error("there is no verb '%.100s'", argv[1]);
	for (int i = 2; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0) {
			help_verb(verb);
			return CTL_DONE;
		}
	code = parse(verb, argc - 2, argv + 2, &args);
	if (code)
		return code;
	code = verb->run(&args);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "vmfsctl: cannot write the output: %s\n", err_strerror(-errno));
		return CTL_FAILED;
	}
	return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - blkmirrord's command line. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/daemon.h"
#include "vmotion/holder_serve.h"

static const char help_text[] =
	"Usage: blkmirrord [OPTION]...\n"
	"Serve virtual disks to running machines and move them between datastores.\n"
	"\n"
	"  --config FILE         read FILE and FILE's conf.d/*.conf (" CONFIG_DEFAULT_FILE ")\n"
	"  --state-dir DIR       keep identity, inventory and history there (/var/lib/blkmirror)\n"
	"  --run-dir DIR         put api.sock and the disks' sockets there (/run/blkmirror)\n"
	"  --listen ADDR:PORT    listen for other hosts, which must be known by key\n"
	"  --http ADDR:PORT      serve metrics over HTTP there\n"
	"  --socket-holder KIND  who keeps the disks' sockets over a restart: systemd, process,\n"
	"                        none (auto)\n"
	"  --socket-linger N     how many seconds a process keeps them without a daemon (300)\n"
	"  --release             close the sockets that a process keeps for --run-dir, and end it\n"
	"  --io-threads N        threads for disks (one per two CPUs)\n"
	"  --log-level LEVEL     error, warn, info or debug (info)\n"
	"  --help                this text\n"
	"  --version             print the version\n"
	"\n"
	"Runs in the foreground and logs to stderr.  SIGTERM stops it in order, SIGHUP makes it\n"
	"read its configuration again.  See blkmirrord(8).\n";

enum { OPTION_CONFIG = 1, OPTION_SETTING, OPTION_RELEASE, OPTION_HELP, OPTION_VERSION };

/* Options that are settings of [daemon], by the key they set. */
static const struct option options[] = {
	{ "config", required_argument, NULL, OPTION_CONFIG },
	{ "state-dir", required_argument, NULL, OPTION_SETTING },
	{ "run-dir", required_argument, NULL, OPTION_SETTING },
	{ "listen", required_argument, NULL, OPTION_SETTING },
	{ "http", required_argument, NULL, OPTION_SETTING },
	{ "socket-holder", required_argument, NULL, OPTION_SETTING },
	{ "socket-linger", required_argument, NULL, OPTION_SETTING },
	{ "release", no_argument, NULL, OPTION_RELEASE },
	{ "io-threads", required_argument, NULL, OPTION_SETTING },
	{ "log-level", required_argument, NULL, OPTION_SETTING },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ "version", no_argument, NULL, OPTION_VERSION },
	{ 0 },
};

static int saved_argc;
static char **saved_argv;
static bool release_asked;

static void make_absolute(char *out, size_t out_bytes, const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)) ||
	    snprintf(out, out_bytes, "%s/%s", cwd, path) >= (int)out_bytes)
		snprintf(out, out_bytes, "%s", path);
}

static int apply_setting(struct daemon_config *config, const char *name, const char *value,
			 struct err *err)
{
	char key[32], absolute[PATH_MAX + NAME_MAX];

	snprintf(key, sizeof(key), "%s", name);
	for (char *c = key; *c; c++)
		if (*c == '-')
			*c = '_';
	if (strstr(key, "_dir")) {
		make_absolute(absolute, sizeof(absolute), value);
		value = absolute;
	}
	return config_set(config, "daemon", key, value, err);
}

/* One pass for --config, the files, then a pass for what overrules them. */
static int read_config(struct daemon_config *config, struct err *err)
{
	int option, index, rc;

	optind = 1;
	while ((option = getopt_long(saved_argc, saved_argv, "", options, &index)) != -1) {
		if (option != OPTION_CONFIG)
			continue;
		make_absolute(config->file, sizeof(config->file), optarg);
		config->file_named = true;
	}
	rc = config_read_files(config, err);
	optind = 1;
	while (!rc && (option = getopt_long(saved_argc, saved_argv, "", options, &index)) != -1)
		if (option == OPTION_SETTING)
			rc = apply_setting(config, options[index].name, optarg, err);
	return rc;
}

/* 0: go on; else *status is the exit status. */
static bool answered_at_once(int *status)
{
	int option;

	while ((option = getopt_long(saved_argc, saved_argv, "", options, NULL)) != -1) {
		if (option == OPTION_HELP) {
			fputs(help_text, stdout);
			*status = 0;
			return true;
		}
		if (option == OPTION_VERSION) {
			puts("blkmirrord " BM_VERSION);
			*status = 0;
			return true;
		}
		release_asked |= option == OPTION_RELEASE;
		if (option == '?') {
			fputs("Try 'blkmirrord --help'.\n", stderr);
			*status = 2;
			return true;
		}
	}
	if (optind == saved_argc)
		return false;
	fprintf(stderr, "blkmirrord: unexpected argument '%s'\nTry 'blkmirrord --help'.\n",
		saved_argv[optind]);
	*status = 2;
	return true;
}

/* The loops' clock, before there is a loop. */
static uint64_t process_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int fail(const struct err *err)
{
	fprintf(stderr, "blkmirrord: %s\n%s\n%s\n", err->cause, err_name(err->id), err->remedy);
	return 1;
}

int main(int argc, char **argv)
{
	static struct daemon daemon;
	struct err err = { 0 };
	int status;

	if (holder_is_asked(argc, argv))
		return holder_main(argv);
	daemon.begun_ns = process_now_ns();
	saved_argc = argc;
	saved_argv = argv;
	if (answered_at_once(&status))
		return status;
	config_init(&daemon.config);
	daemon.reread = read_config;
	if (read_config(&daemon.config, &err))
		return fail(&err);
	log_set_level(daemon.config.log_level);
	if (release_asked)
		return socket_holder_release(daemon.config.run_dir, &err) ? fail(&err) : 0;
	if (daemon_block_signals()) {
		err_set(&err, ERR_INTERNAL, 0, "cannot block signals");
		return fail(&err);
	}
	/* What a failed start has built ends with the process. */
	if (daemon_start(&daemon, &err))
		return fail(&err);
	daemon_run(&daemon);
	if (!daemon_finish(&daemon))
		_exit(1);
	config_release(&daemon.config);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfsctl.h - look into VMFS volumes and change them, without a daemon.
 *
 * Exit codes: 0 done; 1 failed (cause, id and remedy on stderr); 2 usage; 3 fsck has found
 * something.
 */
#ifndef BM_VMFSCTL_H
#define BM_VMFSCTL_H

#include "vmfs/vmfs.h"

enum { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_FOUND = 3 };

#define CTL_WORDS_MAX 34u               /* a volume of 32 devices, and two more words */

struct ctl_args {
	const char *words[CTL_WORDS_MAX];
	unsigned count;
	const char *extents[CTL_WORDS_MAX];
	unsigned extent_count;
	bool long_form;                 /* -l */
	bool recursive;                 /* -r */
	bool force;                     /* --force */
	bool repair;                    /* --repair */
	const char *label, *version, *size, *files;
};

/* A volume that a command has open. */
struct ctl_volume {
	struct vmfs_io *ios[32];
	unsigned io_count;
	struct vmfs *fs;
};

struct ctl_verb {
	const char *name;
	const char *words;              /* as help shows them */
	const char *options;            /* letters and names that it takes, as "-l --label" */
	const char *what;
	unsigned min_words, max_words;
	int (*run)(const struct ctl_args *args);
};

int ctl_main(int argc, char **argv);

/* Prints the error; returns CTL_FAILED. */
int ctl_error(const struct err *err);

/*
 * Open words[0] (a path, or vmfs:///path?extent=/other) and all --extent devices; 0 or
 * CTL_FAILED, and then the error has been printed.  ctl_release() closes whatever is open
 * and says so when that fails.
 */
MUST_CHECK int ctl_open_devices(const struct ctl_args *args, bool read_only,
				struct ctl_volume *out);
MUST_CHECK int ctl_open(const struct ctl_args *args, bool read_only, struct ctl_volume *out);
MUST_CHECK int ctl_open_with(const struct ctl_args *args, const struct vmfs_options *options,
			     struct ctl_volume *out);
int ctl_release(struct ctl_volume *volume, int exit_code);

/* "d" or "-" ..., and the nine permission letters. */
char *ctl_mode_text(const struct vmfs_stat *stat, char text[11]);
const char *ctl_type_name(const struct vmfs_stat *stat);
/* "2021-08-11 07:35:49", UTC. */
char *ctl_time_text(uint32_t time_s, char text[32]);

extern const struct ctl_verb ctl_look_verbs[], ctl_change_verbs[], ctl_volume_verbs[];

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - a task that is waited for, drawn as it goes.
 *
 * On a terminal: a few lines, redrawn in place by one write (no flicker), never wider than
 * the terminal.  Elsewhere: a plain line at each change of phase and every ten seconds.
 */
#ifndef BM_PROGRESS_H
#define BM_PROGRESS_H

#include "tools/blkmirror/cli.h"

#define PROGRESS_LINES_MAX 3
#define PROGRESS_LINE_BYTES 512

struct progress_text {
	int count;
	char lines[PROGRESS_LINES_MAX][PROGRESS_LINE_BYTES];
};

/* Pure: a task's JSON as lines of at most width columns (20 or more), without colour. */
void progress_render(const json_t *task, int width, struct progress_text *out);
/* Pure: one line for a log. */
void progress_plain(const json_t *task, char out[PROGRESS_LINE_BYTES]);

struct progress {
	const struct cli *cli;
	int drawn_lines;
	char phase[32], state[32];
	int64_t said_ms;
};

/* Draw, unless the output is JSON. */
void progress_draw(struct progress *progress, const json_t *task);
/* Leave what is drawn and go on below it. */
void progress_end(struct progress *progress);

#endif

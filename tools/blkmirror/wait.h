/* SPDX-License-Identifier: Apache-2.0 */
/* wait.h - waiting for a task: progress, Ctrl-C, and the exit code of its end. */
#ifndef BM_WAIT_H
#define BM_WAIT_H

#include "tools/blkmirror/cli.h"

/*
 * Show a queued task until it has ended, or is held or paused; prints its end.  timeout_ms 0: none.
 * Ctrl-C leaves the task running and says how to cancel it.  *last (may be NULL) gives its last
 * form, or NULL.
 */
int wait_for_task(const struct cli *cli, const char *id, uint64_t timeout_ms, json_t **last);

/* What a verb does with the task that POST gave (taken): wait, or with --no-wait print it. */
int task_started(const struct cli *cli, const struct cli_args *args, json_t *task);

/* The exit code that fits a task's state. */
int task_exit_code(const json_t *task);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/wait.h"

#include <stdio.h>
#include <string.h>

#include "tools/blkmirror/client.h"
#include "tools/blkmirror/progress.h"
#include "tools/common/json_edge.h"

struct waiting {
	struct progress progress;
	json_t *task;
};

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static bool is_live(const json_t *task)
{
	const char *state = text(task, "state");

	return strcmp(state, "running") == 0 || strcmp(state, "queued") == 0;
}

int task_exit_code(const json_t *task)
{
	const char *state = text(task, "state");

	if (strcmp(state, "completed") == 0) {
		json_t *identical = json_object_get(json_object_get(task, "result"), "identical");

		return json_is_false(identical) ? EXIT_FAILED : EXIT_DONE;
	}
	if (strcmp(state, "failed") == 0)
		return json_array_size(json_object_get(task, "faults")) &&
				       strcmp(text(task, "phase"), "check") == 0
			       ? EXIT_REFUSED
			       : EXIT_FAILED;
	return is_live(task) ? EXIT_WAIT_OVER : EXIT_NOT_DONE;
}

static bool told(const json_t *task, void *user)
{
	struct waiting *waiting = user;

	json_decref(waiting->task);
	waiting->task = json_incref((json_t *)task);
	progress_draw(&waiting->progress, task);
	return is_live(task);
}

/* What a person reads at the end; progress has said the rest. */
static void print_end(const struct cli *cli, const json_t *task)
{
	const json_t *error = json_object_get(task, "error");
	struct err err;

	if (json_is_object(error)) {
		json_edge_err_read(error, &err);
		cli_error(cli, &err);
	}
	if (strcmp(text(task, "state"), "held") == 0)
		fprintf(stderr, "%s is in sync and held: 'blkmirror task complete %s' switches over.\n",
			text(task, "id"), text(task, "id"));
	if (strcmp(text(task, "state"), "paused") == 0)
		fprintf(stderr, "%s is paused: 'blkmirror task resume %s' goes on.\n",
			text(task, "id"), text(task, "id"));
}

int wait_for_task(const struct cli *cli, const char *id, uint64_t timeout_ms, json_t **last)
{
	struct waiting waiting = { .progress.cli = cli };
	struct err err = { 0 };
	char path[128];
	enum stream_end end;
	int exit_code;

	snprintf(path, sizeof(path), "/v1/tasks/%.64s/watch", id);
	end = client_stream(cli, path, timeout_ms, told, &waiting, &err);
	progress_end(&waiting.progress);
	if (waiting.task && !is_live(waiting.task)) {
		if (!cli->json)
			print_end(cli, waiting.task);
		exit_code = task_exit_code(waiting.task);
	} else if (end == STREAM_INTERRUPTED || end == STREAM_TIMED_OUT) {
		fprintf(stderr, "%s goes on; 'blkmirror task cancel %s' cancels it.\n", id, id);
		exit_code = EXIT_WAIT_OVER;
	} else {
		if (err.id == ERR_NONE)
			err_set(&err, ERR_NO_DAEMON, 0, "the daemon ended the connection");
		exit_code = cli_error(cli, &err);
		exit_code = err.id == ERR_NO_DAEMON ? EXIT_NO_DAEMON : exit_code;
	}
	if (last)
		*last = waiting.task;
	else
		json_decref(waiting.task);
	return exit_code;
}

int task_started(const struct cli *cli, const struct cli_args *args, json_t *task)
{
	json_t *last = NULL;
	int exit_code;

	if (cli_flag(args, "no_wait")) {
		if (cli->json)
			cli_print_json(task);
		else
			printf("%s\n", text(task, "id"));
		json_decref(task);
		return EXIT_DONE;
	}
	exit_code = wait_for_task(cli, text(task, "id"), 0, &last);
	if (cli->json && last)
		cli_print_json(last);
	json_decref(last);
	json_decref(task);
	return exit_code;
}

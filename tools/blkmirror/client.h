/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - talking to the daemon: HTTP over its UNIX socket, through libcurl.
 *
 * Answers are bounded (CLIENT_ANSWER_MAX_BYTES).  SIGINT ends a stream, nothing else.
 */
#ifndef BM_CLIENT_H
#define BM_CLIENT_H

#include "tools/blkmirror/cli.h"

#define CLIENT_ANSWER_MAX_BYTES (64u << 20)

/*
 * One request.  body may be NULL (borrowed).  Returns the HTTP status and *answer (gives; may be
 * NULL), or -errno with *err: ERR_NO_DAEMON, ERR_BAD_JSON.
 */
MUST_CHECK int client_request(const struct cli *cli, const char *method, const char *path,
			      const json_t *body, json_t **answer, struct err *err);

/*
 * The common way: the answer when it is 2xx, else prints the error and gives NULL with the exit
 * code in *exit_code (a relocation refused by its check: EXIT_REFUSED).
 */
json_t *client_call(const struct cli *cli, const char *method, const char *path,
		    const json_t *body, int *exit_code);

enum stream_end { STREAM_ENDED, STREAM_STOPPED, STREAM_INTERRUPTED, STREAM_TIMED_OUT, STREAM_LOST };

/*
 * Follow server-sent events: told() runs for each (data borrowed) until it returns false, the
 * daemon ends it, the user interrupts, or timeout_ms (0: none) passes.  *err is filled for
 * STREAM_LOST, and when the daemon refused.
 */
enum stream_end client_stream(const struct cli *cli, const char *path, uint64_t timeout_ms,
			      bool (*told)(const json_t *data, void *user), void *user,
			      struct err *err);

/* Text for a query: percent-encoded.  Returns out. */
char *client_escape(const char *text, char *out, size_t out_bytes);

#endif

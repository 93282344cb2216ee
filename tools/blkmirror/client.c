/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/common/json_edge.h"

struct gathered {
	char *text;
	size_t bytes;
	bool too_large;
};

struct stream {
	CURL *curl;
	struct gathered line;           /* up to the next line break */
	struct gathered refusal;        /* the body of an answer that is no stream */
	bool (*told)(const json_t *data, void *user);
	void *user;
	bool stopped;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

/* ---- gathering ---- */

static bool gather(struct gathered *gathered, const char *data, size_t bytes)
{
	char *text;

	if (bytes > CLIENT_ANSWER_MAX_BYTES - gathered->bytes) {
		gathered->too_large = true;
		return false;
	}
	text = realloc(gathered->text, gathered->bytes + bytes + 1);
	if (!text)
		return false;
	memcpy(text + gathered->bytes, data, bytes);
	gathered->text = text;
	gathered->bytes += bytes;
	text[gathered->bytes] = '\0';
	return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
	return gather(user, data, size * count) ? size * count : 0;
}

/* ---- one request ---- */

static CURL *client_curl(const struct cli *cli, const char *path)
{
	CURL *curl = curl_easy_init();
	char url[4096];

	if (!curl)
		return NULL;
	snprintf(url, sizeof(url), "http://blkmirror%s", path);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, cli->socket_path);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	return curl;
}

static int no_daemon(const struct cli *cli, CURLcode code, struct err *err)
{
	return err_set(err, ERR_NO_DAEMON, -ECONNREFUSED, "no daemon answers at '%.120s': %s",
		       cli->socket_path, curl_easy_strerror(code));
}

static CURLcode perform(CURL *curl, const char *method, const char *body_text,
			struct gathered *out, long *status)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	CURLcode code;

	headers = curl_slist_append(headers, "Expect:");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	if (body_text)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body_text);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
	curl_slist_free_all(headers);
	return code;
}

int client_request(const struct cli *cli, const char *method, const char *path,
		   const json_t *body, json_t **answer, struct err *err)
{
	CURL *curl = client_curl(cli, path);
	char *body_text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct gathered gathered = { 0 };
	long status = 0;
	CURLcode code;
	int rc;

	*answer = NULL;
	if (!curl || (body && !body_text)) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto out;
	}
	code = perform(curl, method, body_text, &gathered, &status);
	if (code != CURLE_OK) {
		rc = no_daemon(cli, code, err);
		goto out;
	}
	*answer = json_loads(gathered.text ? gathered.text : "", 0, NULL);
	rc = *answer ? (int)status
		     : err_set(err, ERR_BAD_JSON, -EBADMSG, "the daemon's answer is no JSON");
out:
	free(gathered.text);
	free(body_text);
	curl_easy_cleanup(curl);
	return rc;
}

json_t *client_call(const struct cli *cli, const char *method, const char *path,
		    const json_t *body, int *exit_code)
{
	json_t *answer = NULL;
	struct err err = { 0 };
	int status = client_request(cli, method, path, body, &answer, &err);

	if (status >= 200 && status < 300) {
		*exit_code = EXIT_DONE;
		return answer;
	}
	if (status < 0) {
		cli_error(cli, &err);
		*exit_code = err.id == ERR_NO_DAEMON ? EXIT_NO_DAEMON : EXIT_FAILED;
		return NULL;
	}
	*exit_code = json_object_get(answer, "check") ? EXIT_REFUSED : EXIT_FAILED;
	json_edge_err_read(json_object_get(answer, "error"), &err);
	if (cli->json)
		cli_print_json(answer);
	else
		cli_error(cli, &err);
	json_decref(answer);
	return NULL;
}

/* ---- streams ---- */

static void stream_line(struct stream *stream, const char *line)
{
	json_t *data;

	if (strncmp(line, "data: ", 6) != 0)
		return;
	data = json_loads(line + 6, 0, NULL);
	if (data && !stream->stopped && !stream->told(data, stream->user))
		stream->stopped = true;
	json_decref(data);
}

static size_t on_stream(char *data, size_t size, size_t count, void *user)
{
	struct stream *stream = user;
	size_t bytes = size * count, at = 0;
	long status = 0;

	curl_easy_getinfo(stream->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200)
		return gather(&stream->refusal, data, bytes) ? bytes : 0;
	while (at < bytes && !stream->stopped) {
		char *end = memchr(data + at, '\n', bytes - at);
		size_t len = end ? (size_t)(end - data) - at : bytes - at;

		if (!gather(&stream->line, data + at, len))
			return 0;
		if (end) {
			stream_line(stream, stream->line.text);
			stream->line.bytes = 0;
			len++;
		}
		at += len;
	}
	return stream->stopped ? 0 : bytes;
}

static int on_tick(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)user;
	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return interrupted != 0;
}

static enum stream_end stream_verdict(const struct cli *cli, struct stream *stream, CURLcode code,
				      struct err *err)
{
	json_t *answer;

	if (stream->stopped)
		return STREAM_STOPPED;
	if (interrupted)
		return STREAM_INTERRUPTED;
	if (stream->refusal.text) {
		answer = json_loads(stream->refusal.text, 0, NULL);
		json_edge_err_read(json_object_get(answer, "error"), err);
		json_decref(answer);
		return STREAM_LOST;
	}
	if (code == CURLE_OK)
		return STREAM_ENDED;
	if (code == CURLE_OPERATION_TIMEDOUT)
		return STREAM_TIMED_OUT;
	no_daemon(cli, code, err);
	return STREAM_LOST;
}

enum stream_end client_stream(const struct cli *cli, const char *path, uint64_t timeout_ms,
			      bool (*told)(const json_t *data, void *user), void *user,
			      struct err *err)
{
	struct stream stream = { .told = told, .user = user };
	struct sigaction action = { .sa_handler = on_interrupt }, before;
	enum stream_end end;
	CURLcode code;

	stream.curl = client_curl(cli, path);
	if (!stream.curl) {
		err_set(err, ERR_NO_MEMORY, 0, "out of memory");
		return STREAM_LOST;
	}
	interrupted = 0;
	sigaction(SIGINT, &action, &before);
	curl_easy_setopt(stream.curl, CURLOPT_WRITEFUNCTION, on_stream);
	curl_easy_setopt(stream.curl, CURLOPT_WRITEDATA, &stream);
	curl_easy_setopt(stream.curl, CURLOPT_XFERINFOFUNCTION, on_tick);
	curl_easy_setopt(stream.curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(stream.curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	code = curl_easy_perform(stream.curl);
	sigaction(SIGINT, &before, NULL);
	end = stream_verdict(cli, &stream, code, err);
	free(stream.line.text);
	free(stream.refusal.text);
	curl_easy_cleanup(stream.curl);
	return end;
}

char *client_escape(const char *text, char *out, size_t out_bytes)
{
	size_t used = 0;

	for (; *text && used + 4 < out_bytes; text++) {
		if (isalnum((unsigned char)*text) || strchr("-._~/:", *text))
			out[used++] = *text;
		else
			used += (size_t)snprintf(out + used, 4, "%%%02X", (unsigned char)*text);
	}
	out[used] = '\0';
	return out;
}

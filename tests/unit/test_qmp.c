/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_qmp.c - the monitor's client against a peer that the test plays: order, answers by id,
 * deadlines, descriptors, bounds, and a peer that lies.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmotion/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": []}}\r\n"
#define TIMEOUT_NS (20 * NS_PER_S)

struct rig {
	struct loop *loop;
	struct qmp *qmp;
	int peer;
	struct timer limit;
	bool limit_passed;
	unsigned ready, closed, events, answers, failures;
	char last_event[64];
	json_int_t last_number;         /* of an event's or answer's "n" */
	struct err closed_err, failure;
	bool free_in_event, free_in_closed, command_in_answer;
};

static void limit_fired(struct timer *timer)
{
	struct rig *rig = container_of(timer, struct rig, limit);

	rig->limit_passed = true;
	loop_stop(rig->loop);
}

static void turn_over(struct rig *rig)
{
	loop_stop(rig->loop);
}

static void on_ready(void *user)
{
	struct rig *rig = user;

	rig->ready++;
	turn_over(rig);
}

static void on_event(const char *name, const json_t *data, void *user)
{
	struct rig *rig = user;

	rig->events++;
	snprintf(rig->last_event, sizeof(rig->last_event), "%s", name);
	rig->last_number = json_integer_value(json_object_get(data, "n"));
	if (rig->free_in_event) {
		qmp_free(rig->qmp);
		rig->qmp = NULL;
	}
	turn_over(rig);
}

static void on_closed(const struct err *err, void *user)
{
	struct rig *rig = user;

	rig->closed++;
	rig->closed_err = *err;
	if (rig->free_in_closed) {
		qmp_free(rig->qmp);
		rig->qmp = NULL;
	}
	turn_over(rig);
}

static void on_answer(const json_t *result, const struct err *err, void *user)
{
	struct rig *rig = user;

	if (result) {
		rig->answers++;
		rig->last_number = json_integer_value(json_object_get(result, "n"));
	} else {
		rig->failures++;
		rig->failure = *err;
	}
	if (rig->command_in_answer) {
		rig->command_in_answer = false;
		qmp_command(rig->qmp, "again", NULL, TIMEOUT_NS, on_answer, rig);
	}
	turn_over(rig);
}

static void rig_open(struct rig *rig, uint64_t ready_timeout_ns)
{
	struct qmp_options options = { .ready = on_ready, .event = on_event, .closed = on_closed,
				       .user = rig, .ready_timeout_ns = ready_timeout_ns };
	int pair[2];

	*rig = (struct rig){ .loop = loop_new() };
	assert_non_null(rig->loop);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	options.loop = rig->loop;
	rig->peer = pair[1];
	assert_int_equal(qmp_new(pair[0], &options, &rig->qmp, NULL), 0);
	timer_init(&rig->limit, rig->loop, limit_fired);
}

static void rig_release(struct rig *rig)
{
	qmp_free(rig->qmp);
	timer_stop(&rig->limit);
	close(rig->peer);
	loop_free(rig->loop);
}

/* Until a callback has run; the limit only keeps a failing test from hanging. */
static void run(struct rig *rig)
{
	timer_start(&rig->limit, TIMEOUT_NS);
	loop_run(rig->loop);
	timer_stop(&rig->limit);
	assert_false(rig->limit_passed);
}

static void say(struct rig *rig, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(send(rig->peer, text, len, MSG_NOSIGNAL), len);
}

/* The next line that the client has sent, as JSON. */
static json_t *hear(struct rig *rig)
{
	char line[4096];
	size_t len = 0;
	json_t *message;

	do
		assert_int_equal(recv(rig->peer, line + len, 1, 0), 1);
	while (line[len++] != '\n' && len < sizeof(line));
	message = json_loadb(line, len, 0, NULL);
	assert_non_null(message);
	return message;
}

static json_int_t hear_command(struct rig *rig, const char *name)
{
	json_t *message = hear(rig);
	json_int_t id = json_integer_value(json_object_get(message, "id"));

	assert_string_equal(json_string_value(json_object_get(message, "execute")), name);
	json_decref(message);
	return id;
}

/* One turn of what is ready now; nothing need come of it. */
static void let_it_send(struct rig *rig)
{
	timer_start(&rig->limit, 0);
	loop_run(rig->loop);
	rig->limit_passed = false;
}

static void say_answer(struct rig *rig, json_int_t id, int number)
{
	char text[128];

	snprintf(text, sizeof(text), "{\"return\": {\"n\": %d}, \"id\": %lld}\r\n", number,
		 (long long)id);
	say(rig, text);
}

static void negotiate(struct rig *rig)
{
	char text[64];

	say(rig, GREETING);
	let_it_send(rig);
	let_it_send(rig);
	snprintf(text, sizeof(text), "{\"return\": {}, \"id\": %lld}\r\n",
		 (long long)hear_command(rig, "qmp_capabilities"));
	assert_false(qmp_is_ready(rig->qmp));
	say(rig, text);
	run(rig);
	assert_int_equal(rig->ready, 1);
	assert_true(qmp_is_ready(rig->qmp));
}

/* ---- the way it should go ---- */

static void test_commands_wait_until_ready(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	assert_int_equal(qmp_peer_pid(rig.qmp), getpid());
	qmp_command(rig.qmp, "first", json_pack("{s:i}", "x", 1), TIMEOUT_NS, on_answer, &rig);
	qmp_command(rig.qmp, "second", NULL, TIMEOUT_NS, on_answer, &rig);
	negotiate(&rig);
	let_it_send(&rig);
	json_t *first = hear(&rig);
	json_int_t second = hear_command(&rig, "second");

	assert_string_equal(json_string_value(json_object_get(first, "execute")), "first");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(first, "arguments"),
							     "x")), 1);
	/* Answers may come in any order. */
	say_answer(&rig, second, 2);
	run(&rig);
	assert_int_equal(rig.last_number, 2);
	say_answer(&rig, json_integer_value(json_object_get(first, "id")), 1);
	run(&rig);
	assert_int_equal(rig.last_number, 1);
	assert_int_equal(rig.answers, 2);
	json_decref(first);
	rig_release(&rig);
}

static void test_events_and_pieces(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	say(&rig, "{\"event\": \"ST");
	let_it_send(&rig);
	assert_int_equal(rig.events, 0);
	say(&rig, "OP\", \"data\": {\"n\": 7}, \"timestamp\": {}}\r\n{\"event\": \"RESUME\"}\n");
	run(&rig);
	while (rig.events < 2)
		run(&rig);
	assert_string_equal(rig.last_event, "RESUME");
	assert_int_equal(rig.closed, 0);
	rig_release(&rig);
}

/* More lines than one turn takes: all of them come. */
static void test_many_lines(void **state)
{
	static const char line[] = "{\"event\": \"E\", \"data\": {\"n\": 1}}\n";
	char text[500 * sizeof(line)] = "";
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	for (int i = 0; i < 500; i++)
		memcpy(text + (size_t)i * (sizeof(line) - 1), line, sizeof(line));
	say(&rig, text);
	while (rig.events < 500)
		run(&rig);
	rig_release(&rig);
}

static void test_refused_command(void **state)
{
	struct rig rig;
	char text[256];

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	qmp_command(rig.qmp, "bad", NULL, TIMEOUT_NS, on_answer, &rig);
	let_it_send(&rig);
	snprintf(text, sizeof(text),
		 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, "
		 "\"id\": %lld}\n", (long long)hear_command(&rig, "bad"));
	say(&rig, text);
	run(&rig);
	assert_int_equal(rig.failures, 1);
	assert_int_equal(rig.failure.id, ERR_VM_QMP_REFUSED);
	assert_non_null(strstr(rig.failure.cause, "no such thing"));
	assert_int_equal(rig.closed, 0);
	rig_release(&rig);
}

static void test_descriptor_goes_along(void **state)
{
	struct rig rig;
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec vec = { &byte, 1 };
	struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct stat sent, got;
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), received;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	assert_int_equal(fstat(fd, &sent), 0);
	qmp_command_fd(rig.qmp, "getfd", NULL, fd, TIMEOUT_NS, on_answer, &rig);
	let_it_send(&rig);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken */
	assert_int_equal(recvmsg(rig.peer, &message, 0), 1);
	assert_non_null(CMSG_FIRSTHDR(&message));
	memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	assert_int_equal(fstat(received, &got), 0);
	assert_true(sent.st_rdev == got.st_rdev);
	close(received);
	rig_release(&rig);
}

/* ---- deadlines ---- */

static void test_late_answer_is_dropped(void **state)
{
	struct rig rig;
	json_int_t id;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	qmp_command(rig.qmp, "slow", NULL, NS_PER_MS, on_answer, &rig);
	while (!rig.failures)
		run(&rig);
	assert_int_equal(rig.failure.id, ERR_VM_QMP_LATE);
	id = hear_command(&rig, "slow");
	say_answer(&rig, id, 9);
	say(&rig, "{\"event\": \"AFTER\"}\n");
	while (!rig.events)
		run(&rig);
	assert_int_equal(rig.answers, 0);
	assert_int_equal(rig.failures, 1);
	assert_int_equal(rig.closed, 0);
	rig_release(&rig);
}

static void test_no_greeting(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, NS_PER_MS);
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	while (!rig.closed)
		run(&rig);
	assert_int_equal(rig.closed_err.id, ERR_VM_QMP_LATE);
	assert_int_equal(rig.failures, 1); /* told before closed() */
	rig_release(&rig);
}

/* ---- the end of the connection ---- */

static void test_hang_up_fails_all(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	for (unsigned i = 0; i < 3; i++)
		qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	let_it_send(&rig);
	shutdown(rig.peer, SHUT_RDWR);
	while (!rig.closed)
		run(&rig);
	assert_int_equal(rig.failures, 3);
	assert_int_equal(rig.failure.id, ERR_VM_QMP);
	/* Afterwards too, and never from inside. */
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	assert_int_equal(rig.failures, 3);
	run(&rig);
	assert_int_equal(rig.failures, 4);
	assert_int_equal(rig.closed, 1);
	rig_release(&rig);
}

static void test_free_from_inside(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	rig.free_in_event = true;
	say(&rig, "{\"event\": \"A\"}\n{\"event\": \"B\"}\n{\"nonsense\": 1}\n");
	run(&rig);
	let_it_send(&rig);
	assert_int_equal(rig.events, 1);
	assert_int_equal(rig.failures + rig.answers + rig.closed, 0);
	rig_release(&rig);

	rig_open(&rig, 0);
	negotiate(&rig);
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	rig.free_in_closed = true;
	shutdown(rig.peer, SHUT_RDWR);
	while (!rig.closed)
		run(&rig);
	rig_release(&rig);
}

static void test_command_from_inside_an_answer(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	rig.command_in_answer = true;
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	let_it_send(&rig);
	say_answer(&rig, hear_command(&rig, "x"), 1);
	run(&rig);
	let_it_send(&rig);
	say_answer(&rig, hear_command(&rig, "again"), 2);
	run(&rig);
	assert_int_equal(rig.answers, 2);
	rig_release(&rig);
}

/* ---- a peer that is no QEMU ---- */

static void test_lies_end_the_connection(void **state)
{
	static const char *const before_ready[] = { "{\"return\": {}}\n", "x\n", "[]\n",
						    "{\"QMP\": 1}\n", "{\"event\": \"X\"}\n" };
	static const char *const afterwards[] = { "x\n", "[]\n", "{\n", "{}\n", "\"QMP\"\n",
						  "{\"return\": {}, \"id\": 77}\n",
						  "{\"return\": {}}\n",
						  "{\"error\": 5, \"id\": \"1\"}\n",
						  "{\"event\": 4}\n",
						  "{\"event\": \"A\", \"event\": \"B\"}\n" };

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(before_ready) + ARRAY_COUNT(afterwards); i++) {
		bool early = i < ARRAY_COUNT(before_ready);
		struct rig rig;

		rig_open(&rig, 0);
		if (!early)
			negotiate(&rig);
		say(&rig, early ? before_ready[i] : afterwards[i - ARRAY_COUNT(before_ready)]);
		while (!rig.closed)
			run(&rig);
		assert_int_equal(rig.closed_err.id, ERR_VM_QMP);
		assert_non_null(strstr(rig.closed_err.cause, "monitor sent"));
		rig_release(&rig);
	}
}

static void test_endless_line_is_cut(void **state)
{
	char *text = malloc(65537);
	struct rig rig;
	size_t sent = 0;

	(void)state;
	assert_non_null(text);
	memset(text, ' ', 65536);
	text[65536] = '\0';
	rig_open(&rig, 0);
	negotiate(&rig);
	for (unsigned i = 0; i < 100000 && !rig.closed; i++) {
		ssize_t put = send(rig.peer, text, 65536, MSG_DONTWAIT | MSG_NOSIGNAL);

		sent += put > 0 ? (size_t)put : 0;
		let_it_send(&rig);
	}
	assert_int_equal(rig.closed, 1);
	assert_non_null(strstr(rig.closed_err.cause, "too long"));
	assert_true(sent >= QMP_LINE_MAX_BYTES);
	assert_true(sent < 4 * (size_t)QMP_LINE_MAX_BYTES);
	rig_release(&rig);
	free(text);
}

static void test_unanswered_calls_are_bounded(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, 0);
	negotiate(&rig);
	for (unsigned i = 0; i < QMP_CALLS_MAX; i++)
		qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	let_it_send(&rig);
	assert_int_equal(rig.failures, 0);
	qmp_command(rig.qmp, "x", NULL, TIMEOUT_NS, on_answer, &rig);
	while (!rig.failures)
		run(&rig);
	assert_int_equal(rig.failure.id, ERR_VM_QMP);
	assert_int_equal(rig.closed, 0);
	rig_release(&rig);
}

static void test_connect_nowhere(void **state)
{
	struct loop *loop = loop_new();
	struct qmp_options options = { .loop = loop };
	struct qmp *qmp = NULL;
	struct err err = { 0 };

	(void)state;
	assert_true(qmp_connect("/nonexistent/qmp.sock", &options, &qmp, &err) < 0);
	assert_int_equal(err.id, ERR_VM_QMP);
	assert_null(qmp);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands_wait_until_ready),
		cmocka_unit_test(test_events_and_pieces),
		cmocka_unit_test(test_many_lines),
		cmocka_unit_test(test_refused_command),
		cmocka_unit_test(test_descriptor_goes_along),
		cmocka_unit_test(test_late_answer_is_dropped),
		cmocka_unit_test(test_no_greeting),
		cmocka_unit_test(test_hang_up_fails_all),
		cmocka_unit_test(test_free_from_inside),
		cmocka_unit_test(test_command_from_inside_an_answer),
		cmocka_unit_test(test_lies_end_the_connection),
		cmocka_unit_test(test_endless_line_is_cut),
		cmocka_unit_test(test_unanswered_calls_are_bounded),
		cmocka_unit_test(test_connect_nowhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

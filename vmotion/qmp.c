/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.c - a call is on one of three lists:
 *
 *   queued    not sent yet, or in part; the first one is being sent
 *   sent      waits for its answer; done is NULL when its deadline has passed
 *   refused   failed before it was queued; its task tells so
 *
 * Callbacks run with `busy` raised: a qmp_free() from inside only marks, and the outermost
 * frame frees.
 */
#include "vmotion/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

#define READ_BYTES 65536u
#define LINES_PER_WAKE 64u
#define READY_TIMEOUT_NS (10 * NS_PER_S)

enum qmp_state { QMP_GREETING, QMP_NEGOTIATING, QMP_READY, QMP_CLOSED };

struct qmp {
	struct qmp_options options;
	enum qmp_state state;
	int fd;
	struct watch watch;
	struct timer ready_timer;
	struct task again;              /* lines are left in the buffer */
	struct list queued, sent, refused;
	uint32_t call_count;            /* queued and sent */
	uint64_t last_id;
	char *in;
	size_t in_len, in_room;
	size_t scanned;                 /* bytes of in known to hold no line end */
	pid_t peer_pid;
	unsigned busy;
	bool freed;
};

struct qmp_call {
	struct qmp *qmp;
	struct list node;
	uint64_t id;
	const char *name;
	char *text;
	size_t text_len, sent_len;
	int fd;
	struct timer deadline;
	struct task refusal;
	struct err err;
	qmp_done *done;
	void *user;
};

/* ---- the end of calls and of the connection ---- */

static void call_free(struct qmp_call *call)
{
	list_remove(&call->node);
	timer_stop(&call->deadline);
	loop_unpost(call->qmp->options.loop, &call->refusal);
	if (call->fd >= 0)
		close(call->fd);
	free(call->text);
	free(call);
}

static void calls_free(struct list *calls)
{
	list_for_each (node, calls)
		call_free(list_entry(node, struct qmp_call, node));
}

static void qmp_destroy(struct qmp *qmp)
{
	calls_free(&qmp->queued);
	calls_free(&qmp->sent);
	calls_free(&qmp->refused);
	timer_stop(&qmp->ready_timer);
	loop_unpost(qmp->options.loop, &qmp->again);
	watch_stop(&qmp->watch);
	if (qmp->fd >= 0)
		close(qmp->fd);
	free(qmp->in);
	free(qmp);
}

void qmp_free(struct qmp *qmp)
{
	if (!qmp)
		return;
	LOOP_CHECK(qmp->options.loop);
	CHECK(!qmp->freed);
	qmp->freed = true;
	if (!qmp->busy)
		qmp_destroy(qmp);
}

static void qmp_enter(struct qmp *qmp)
{
	qmp->busy++;
}

static void qmp_leave(struct qmp *qmp)
{
	if (--qmp->busy == 0 && qmp->freed)
		qmp_destroy(qmp);
}

/* Tell its owner; the call is no more. */
static void call_end(struct qmp_call *call, const json_t *result, const struct err *err)
{
	struct qmp *qmp = call->qmp;
	qmp_done *done = call->done;
	void *user = call->user;

	call_free(call);
	if (done && !qmp->freed)
		done(result, err, user);
}

static void calls_fail(struct qmp *qmp, struct list *calls, const struct err *err)
{
	struct list *node;

	while ((node = list_first(calls))) {
		qmp->call_count--;
		call_end(list_entry(node, struct qmp_call, node), NULL, err);
	}
}

static void qmp_close(struct qmp *qmp, const struct err *err)
{
	if (qmp->state == QMP_CLOSED || qmp->freed)
		return;
	qmp_enter(qmp);
	qmp->state = QMP_CLOSED;
	timer_stop(&qmp->ready_timer);
	loop_unpost(qmp->options.loop, &qmp->again);
	watch_stop(&qmp->watch);
	close(qmp->fd);
	qmp->fd = -1;
	calls_fail(qmp, &qmp->sent, err);
	calls_fail(qmp, &qmp->queued, err);
	if (qmp->options.closed && !qmp->freed)
		qmp->options.closed(err, qmp->options.user);
	qmp_leave(qmp);
}

static void qmp_protocol_error(struct qmp *qmp, const char *what)
{
	struct err err;

	err_set(&err, ERR_VM_QMP, -EPROTO, "QEMU's monitor sent %s", what);
	qmp_close(qmp, &err);
}

/* ---- what comes in ---- */

static struct qmp_call *find_sent(struct qmp *qmp, const json_t *id)
{
	list_for_each (node, &qmp->sent) {
		struct qmp_call *call = list_entry(node, struct qmp_call, node);

		if (json_is_integer(id) && (uint64_t)json_integer_value(id) == call->id)
			return call;
	}
	return NULL;
}

static void take_answer(struct qmp *qmp, const json_t *message)
{
	struct qmp_call *call = find_sent(qmp, json_object_get(message, "id"));
	const json_t *error = json_object_get(message, "error");
	const char *words = json_string_value(json_object_get(error, "desc"));
	struct err err;

	if (!call) {
		qmp_protocol_error(qmp, "an answer to what nobody asked");
		return;
	}
	qmp->call_count--;
	if (!error) {
		call_end(call, json_object_get(message, "return"), NULL);
		return;
	}
	err_set(&err, ERR_VM_QMP_REFUSED, -EIO, "QEMU refused '%s': %.160s", call->name,
		words ? words : "it gave no reason");
	call_end(call, NULL, &err);
}

static void capabilities_done(const json_t *result, const struct err *err, void *user)
{
	struct qmp *qmp = user;

	if (!result) {
		if (qmp->state != QMP_CLOSED)
			qmp_close(qmp, err);
		return;
	}
	qmp->state = QMP_READY;
	timer_stop(&qmp->ready_timer);
	if (!list_is_empty(&qmp->queued))
		watch_set_events(&qmp->watch, WATCH_READ | WATCH_WRITE);
	if (qmp->options.ready)
		qmp->options.ready(qmp->options.user);
}

static struct qmp_call *call_new(struct qmp *qmp, const char *name, const json_t *arguments,
				 uint64_t timeout_ns, qmp_done *done, void *user);

static void negotiate(struct qmp *qmp)
{
	struct qmp_call *call = call_new(qmp, "qmp_capabilities", NULL, READY_TIMEOUT_NS,
					 capabilities_done, qmp);
	struct err err;

	if (!call) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		qmp_close(qmp, &err);
		return;
	}
	qmp->state = QMP_NEGOTIATING;
	qmp->call_count++;
	list_prepend(&qmp->queued, &call->node);
	watch_set_events(&qmp->watch, WATCH_READ | WATCH_WRITE);
}

static void take_message(struct qmp *qmp, const json_t *message)
{
	const json_t *event = json_object_get(message, "event");
	const json_t *data = json_object_get(message, "data");
	json_t *none;

	if (qmp->state == QMP_GREETING) {
		if (json_is_object(json_object_get(message, "QMP")))
			negotiate(qmp);
		else
			qmp_protocol_error(qmp, "no greeting");
	} else if (json_is_string(event)) {
		none = json_is_object(data) ? NULL : json_object();
		if (qmp->options.event)
			qmp->options.event(json_string_value(event), none ? none : data,
					   qmp->options.user);
		json_decref(none);
	} else if (json_object_get(message, "return") || json_object_get(message, "error")) {
		take_answer(qmp, message);
	} else {
		qmp_protocol_error(qmp, "a message of an unknown kind");
	}
}

static void take_line(struct qmp *qmp, const char *line, size_t len)
{
	json_t *message;

	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (len == 0)
		return;
	message = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(message))
		take_message(qmp, message);
	else
		qmp_protocol_error(qmp, "what is no JSON object");
	json_decref(message);
}

static bool is_over(const struct qmp *qmp)
{
	return qmp->freed || qmp->state == QMP_CLOSED;
}

/* Bounded: the rest waits for another turn, so that a chatty QEMU holds nobody up. */
static void take_lines(struct qmp *qmp)
{
	size_t taken = 0;

	for (unsigned i = 0; i < LINES_PER_WAKE && !is_over(qmp); i++) {
		size_t from = MAX(qmp->scanned, taken);
		char *end = memchr(qmp->in + from, '\n', qmp->in_len - from);

		if (!end) {
			qmp->scanned = qmp->in_len;
			break;
		}
		take_line(qmp, qmp->in + taken, (size_t)(end - qmp->in) - taken);
		taken = (size_t)(end - qmp->in) + 1;
		qmp->scanned = taken;
	}
	if (is_over(qmp))
		return;
	memmove(qmp->in, qmp->in + taken, qmp->in_len - taken);
	qmp->in_len -= taken;
	qmp->scanned -= taken;
	if (qmp->scanned < qmp->in_len && !qmp->again.queued)
		loop_post(qmp->options.loop, &qmp->again);
}

static void take_more(struct task *task)
{
	struct qmp *qmp = container_of(task, struct qmp, again);

	qmp_enter(qmp);
	take_lines(qmp);
	qmp_leave(qmp);
}

static bool make_room(struct qmp *qmp)
{
	size_t room = MIN(qmp->in_len + READ_BYTES, (size_t)QMP_LINE_MAX_BYTES);
	char *grown;

	if (room <= qmp->in_room)
		return qmp->in_len < qmp->in_room;
	grown = realloc(qmp->in, room);
	if (!grown)
		return false;
	qmp->in = grown;
	qmp->in_room = room;
	return true;
}

static void qmp_receive(struct qmp *qmp)
{
	struct err err;
	ssize_t got;

	if (qmp->again.queued)
		return; /* first what is here */
	if (!make_room(qmp)) {
		qmp_protocol_error(qmp, "a message that is too long");
		return;
	}
	got = recv(qmp->fd, qmp->in + qmp->in_len, qmp->in_room - qmp->in_len, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		err_set(&err, ERR_VM_QMP, got ? -errno : -EPIPE, "QEMU's monitor hung up%s%s",
			got ? ": " : "", got ? err_strerror(-errno) : "");
		qmp_close(qmp, &err);
		return;
	}
	qmp->in_len += (size_t)got;
	take_lines(qmp);
}

/* ---- what goes out ---- */

static ssize_t call_send(struct qmp *qmp, struct qmp_call *call)
{
	struct iovec vec = { call->text + call->sent_len, call->text_len - call->sent_len };
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr message = { .msg_iov = &vec, .msg_iovlen = 1 };

	if (call->fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &call->fd, sizeof(int));
	}
	return sendmsg(qmp->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The call at the front; before it is ready only the capabilities may go. */
static struct qmp_call *next_to_send(struct qmp *qmp)
{
	struct list *first = list_first(&qmp->queued);
	struct qmp_call *call = first ? list_entry(first, struct qmp_call, node) : NULL;

	if (qmp->state == QMP_READY)
		return call;
	return qmp->state == QMP_NEGOTIATING && call && call->done == capabilities_done ? call
											 : NULL;
}

static void qmp_transmit(struct qmp *qmp)
{
	struct qmp_call *call;
	struct err err;

	while ((call = next_to_send(qmp))) {
		ssize_t put = call_send(qmp, call);

		if (put < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (put < 0) {
			err_set(&err, ERR_VM_QMP, -errno, "cannot send to QEMU's monitor: %s",
				err_strerror(-errno));
			qmp_close(qmp, &err);
			return;
		}
		if (call->fd >= 0) {
			close(call->fd);
			call->fd = -1;
		}
		call->sent_len += (size_t)put;
		if (call->sent_len < call->text_len)
			return;
		list_remove(&call->node);
		list_append(&qmp->sent, &call->node);
	}
	watch_set_events(&qmp->watch, WATCH_READ);
}

static void qmp_watched(struct watch *watch, unsigned events)
{
	struct qmp *qmp = container_of(watch, struct qmp, watch);

	qmp_enter(qmp);
	if (events & WATCH_WRITE)
		qmp_transmit(qmp);
	if (!is_over(qmp) && (events & (WATCH_READ | WATCH_HANGUP)))
		qmp_receive(qmp);
	qmp_leave(qmp);
}

/* ---- commands ---- */

/* Its owner hears now; the answer, should it come, is recognised and dropped. */
static void call_late(struct timer *timer)
{
	struct qmp_call *call = container_of(timer, struct qmp_call, deadline);
	struct qmp *qmp = call->qmp;
	qmp_done *done = call->done;
	struct err err;

	err_set(&err, ERR_VM_QMP_LATE, -ETIMEDOUT, "QEMU did not answer '%s' in time", call->name);
	call->done = NULL;
	qmp_enter(qmp);
	if (done)
		done(NULL, &err, call->user);
	qmp_leave(qmp);
}

static void call_refused(struct task *task)
{
	struct qmp_call *call = container_of(task, struct qmp_call, refusal);
	struct qmp *qmp = call->qmp;
	struct err err = call->err;

	qmp_enter(qmp);
	call_end(call, NULL, &err);
	qmp_leave(qmp);
}

static char *call_text(const char *name, const json_t *arguments, uint64_t id)
{
	json_t *object = json_pack("{s:s, s:I, s:O*}", "execute", name, "id", (json_int_t)id,
				   "arguments", arguments);
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	char *line = text ? realloc(text, len + 2) : NULL;

	json_decref(object);
	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + len, "\n", 2);
	return line;
}

static struct qmp_call *call_new(struct qmp *qmp, const char *name, const json_t *arguments,
				 uint64_t timeout_ns, qmp_done *done, void *user)
{
	struct qmp_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->id = ++qmp->last_id;
	call->text = call_text(name, arguments, call->id);
	if (!call->text) {
		free(call);
		return NULL;
	}
	call->qmp = qmp;
	call->name = name;
	call->text_len = strlen(call->text);
	call->fd = -1;
	call->done = done;
	call->user = user;
	call->refusal.run = call_refused;
	list_init(&call->node);
	timer_init(&call->deadline, qmp->options.loop, call_late);
	timer_start(&call->deadline, timeout_ns);
	return call;
}

static void call_refuse(struct qmp *qmp, struct qmp_call *call, const char *why)
{
	err_set(&call->err, ERR_VM_QMP, -ENOTCONN, "cannot ask QEMU for '%s': %s", call->name, why);
	timer_stop(&call->deadline);
	list_append(&qmp->refused, &call->node);
	loop_post(qmp->options.loop, &call->refusal);
}

void qmp_command_fd(struct qmp *qmp, const char *name, json_t *arguments, int fd,
		    uint64_t timeout_ns, qmp_done *done, void *user)
{
	struct qmp_call *call = call_new(qmp, name, arguments, timeout_ns, done, user);
	struct err err;

	LOOP_CHECK(qmp->options.loop);
	CHECK(!qmp->freed);
	json_decref(arguments);
	if (!call) {
		if (fd >= 0)
			close(fd);
		/* No memory even to remember the call: the one case from inside. */
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		if (done)
			done(NULL, &err, user);
		return;
	}
	call->fd = fd;
	if (qmp->state == QMP_CLOSED) {
		call_refuse(qmp, call, "the connection has ended");
	} else if (qmp->call_count >= QMP_CALLS_MAX) {
		call_refuse(qmp, call, "too many questions wait for an answer");
	} else {
		qmp->call_count++;
		list_append(&qmp->queued, &call->node);
		if (qmp->state == QMP_READY)
			watch_set_events(&qmp->watch, WATCH_READ | WATCH_WRITE);
	}
}

/* ---- opening ---- */

static void ready_late(struct timer *timer)
{
	struct qmp *qmp = container_of(timer, struct qmp, ready_timer);
	struct err err;

	err_set(&err, ERR_VM_QMP_LATE, -ETIMEDOUT, "QEMU's monitor did not greet in time");
	qmp_close(qmp, &err);
}

static pid_t peer_pid_of(int fd)
{
	struct ucred credentials;
	socklen_t len = sizeof(credentials);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len) ? 0 : credentials.pid;
}

int qmp_new(int fd, const struct qmp_options *options, struct qmp **out, struct err *err)
{
	struct qmp *qmp = calloc(1, sizeof(*qmp));
	int rc;

	LOOP_CHECK(options->loop);
	if (!qmp) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto close_fd;
	}
	qmp->options = *options;
	qmp->fd = fd;
	qmp->peer_pid = peer_pid_of(fd);
	qmp->again.run = take_more;
	list_init(&qmp->queued);
	list_init(&qmp->sent);
	list_init(&qmp->refused);
	timer_init(&qmp->ready_timer, options->loop, ready_late);
	rc = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : 0;
	if (!rc)
		rc = watch_start(&qmp->watch, options->loop, fd, WATCH_READ, qmp_watched);
	if (rc) {
		err_set(err, ERR_VM_QMP, rc, "cannot watch QEMU's monitor: %s", err_strerror(rc));
		goto free_qmp;
	}
	timer_start(&qmp->ready_timer,
		    options->ready_timeout_ns ? options->ready_timeout_ns : READY_TIMEOUT_NS);
	*out = qmp;
	return 0;

free_qmp:
	free(qmp);
close_fd:
	close(fd);
	return rc;
}

int qmp_connect(const char *path, const struct qmp_options *options, struct qmp **out,
		struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ERR_VM_QMP, -ENAMETOOLONG, "the socket path '%.100s' is too long",
			       path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, ERR_VM_QMP, -errno, "cannot make a socket: %s",
			       err_strerror(-errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		rc = -errno;
		close(fd);
		return err_set(err, ERR_VM_QMP, rc, "cannot reach QEMU's monitor '%.100s': %s",
			       path, err_strerror(rc));
	}
	return qmp_new(fd, options, out, err);
}

bool qmp_is_ready(const struct qmp *qmp)
{
	return qmp->state == QMP_READY;
}

pid_t qmp_peer_pid(const struct qmp *qmp)
{
	return qmp->peer_pid;
}

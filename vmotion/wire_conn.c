/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/wire_conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RX_BYTES (UINT32_C(128) << 10)
/* One that floods gives way to others after so many reads. */
#define READS_PER_TURN 16
_Static_assert(RX_BYTES > WIRE_LINE_MAX_BYTES + 1, "a line fits");
_Static_assert(WIRE_CONTROL_QUEUE_BYTES >= 2 * (WIRE_LINE_MAX_BYTES + 1), "two lines fit");
_Static_assert(WIRE_DATA_QUEUE_BYTES >= 2 * (WIRE_PAYLOAD_MAX_BYTES + WIRE_FRAME_BYTES),
	       "two frames fit");

enum conn_state { CONN_OPENING, CONN_UP, CONN_CLOSING, CONN_DEAD };

struct wire_conn {
	struct wire_env *env;
	struct wire_pipe *pipe;
	const struct wire_conn_ops *ops;
	void *owner;
	enum conn_state state;
	enum wire_role role;
	bool dialled, paused, room_wanted;

	uint8_t *rx;
	uint32_t rx_head, rx_tail;
	/* a frame whose payload is coming */
	bool frame_open;
	struct wire_frame frame;
	uint8_t *payload;               /* where it goes */
	uint32_t payload_got;
	uint8_t *buffer;                /* ours, WIRE_PAYLOAD_MAX_BYTES; made when first needed */

	uint8_t *tx;                    /* a ring; a power of two */
	uint32_t tx_capacity;
	uint64_t tx_head, tx_tail;      /* ever growing */

	uint64_t seed;
	uint16_t channel;
	uint32_t epoch;
	uint64_t in_sequence, out_sequence;
	uint64_t bytes_in, bytes_out;
	uint64_t last_in_ns, last_out_ns;
	struct err why;                 /* CLOSING for that reason */

	struct timer timer;
	struct turn_hook flush;
	struct task more;               /* bytes may be left that no ready() will tell of */
	struct task release;
};

static void conn_pump(struct wire_conn *conn);

/* ---- the end ---- */

static void conn_release(struct task *task)
{
	struct wire_conn *conn = container_of(task, struct wire_conn, release);

	conn->env->live--;
	free(conn->rx);
	free(conn->tx);
	free(conn->buffer);
	free(conn);
}

static void conn_end(struct wire_conn *conn, bool abort)
{
	CHECK(conn->state != CONN_DEAD);
	conn->state = CONN_DEAD;
	timer_stop(&conn->timer);
	turn_hook_cancel(&conn->flush);
	loop_unpost(conn->env->loop, &conn->more);
	conn->pipe->ops->close(conn->pipe, abort);
	conn->pipe = NULL;
	loop_post(conn->env->loop, &conn->release);
}

/* The peer or the network ended it. */
static void conn_die(struct wire_conn *conn, const struct err *err)
{
	struct err copy = *err;

	if (conn->state == CONN_DEAD)
		return;
	conn_end(conn, true);
	conn->ops->dead(conn, &copy);
}

static void conn_violation(struct wire_conn *conn, const char *what)
{
	struct err err;

	if (conn->state == CONN_DEAD)
		return;
	err_set(&err, ERR_WIRE_PROTOCOL, 0, "%s broke the protocol: %s", conn->pipe->peer, what);
	conn_die(conn, &err);
}

static void conn_lost(struct wire_conn *conn, int rc)
{
	struct err err;

	if (conn->state == CONN_DEAD)
		return;
	err = conn->pipe->err;
	if (err.id == ERR_NONE)
		err_set(&err, conn->state == CONN_OPENING ? ERR_HOST_UNREACHABLE : ERR_WIRE_LOST, 0,
			"the connection with %s is lost: %s", conn->pipe->peer,
			rc ? err_strerror(rc) : "closed by the other side");
	conn_die(conn, &err);
}

void wire_conn_close(struct wire_conn *conn)
{
	if (conn && conn->state != CONN_DEAD)
		conn_end(conn, true);
}

/* ---- sending ---- */

static uint32_t tx_used(const struct wire_conn *conn)
{
	return (uint32_t)(conn->tx_tail - conn->tx_head);
}

static void tx_put(struct wire_conn *conn, const void *bytes, uint32_t count)
{
	uint32_t at = (uint32_t)(conn->tx_tail & (conn->tx_capacity - 1));
	uint32_t first = MIN(count, conn->tx_capacity - at);

	CHECK(count <= conn->tx_capacity - tx_used(conn));
	if (count == 0)
		return;
	memcpy(conn->tx + at, bytes, first);
	memcpy(conn->tx, (const uint8_t *)bytes + first, count - first);
	conn->tx_tail += count;
	loop_at_turn_end(conn->env->loop, &conn->flush);
}

/* Answers that nobody reads stop the questions. */
static bool conn_reads(const struct wire_conn *conn)
{
	if (conn->state == CONN_OPENING)
		return true;
	if (conn->state != CONN_UP || conn->paused)
		return false;
	return conn->role == WIRE_DATA || tx_used(conn) <= conn->tx_capacity / 2;
}

static void conn_want(struct wire_conn *conn)
{
	unsigned events = 0;

	if (conn->state == CONN_DEAD)
		return;
	if (conn_reads(conn))
		events |= WATCH_READ;
	if (tx_used(conn))
		events |= WATCH_WRITE;
	conn->pipe->ops->want(conn->pipe, events);
}

/* False: it is lost. */
static bool conn_send(struct wire_conn *conn)
{
	while (tx_used(conn)) {
		uint32_t at = (uint32_t)(conn->tx_head & (conn->tx_capacity - 1));
		ssize_t sent = conn->pipe->ops->write(conn->pipe, conn->tx + at,
						      MIN(tx_used(conn), conn->tx_capacity - at));

		if (sent == -EAGAIN)
			return true;
		if (sent <= 0) {
			conn_lost(conn, (int)sent);
			return false;
		}
		conn->tx_head += (uint64_t)sent;
		conn->bytes_out += (uint64_t)sent;
		conn->last_out_ns = loop_now_ns(conn->env->loop);
	}
	return true;
}

static void conn_flushed(struct wire_conn *conn)
{
	if (conn->state == CONN_CLOSING && !tx_used(conn)) {
		conn_end(conn, false);
		conn->ops->dead(conn, &conn->why);
		return;
	}
	if (conn->state == CONN_UP && conn->room_wanted && tx_used(conn) <= conn->tx_capacity / 2) {
		conn->room_wanted = false;
		if (conn->ops->writable)
			conn->ops->writable(conn);
	}
}

static void conn_flush(struct turn_hook *hook)
{
	struct wire_conn *conn = container_of(hook, struct wire_conn, flush);
	bool read_before = conn_reads(conn);

	if (!conn_send(conn))
		return;
	conn_flushed(conn);
	if (conn->state == CONN_DEAD)
		return;
	if (!read_before && conn_reads(conn) && !conn->more.queued)
		loop_post(conn->env->loop, &conn->more);
	conn_want(conn);
}

int wire_conn_send_line(struct wire_conn *conn, const char *type, const json_t *message)
{
	size_t bytes;
	char *line;
	int rc;

	CHECK(conn->role == WIRE_CONTROL);
	if (conn->state != CONN_UP)
		return -ENOTCONN;
	rc = wire_line_encode(conn->out_sequence + 1, type, message, &line, &bytes);
	if (rc)
		return rc;
	if (bytes > conn->tx_capacity - tx_used(conn)) {
		conn->room_wanted = true;
		free(line);
		return -EAGAIN;
	}
	conn->out_sequence++;
	tx_put(conn, line, (uint32_t)bytes);
	free(line);
	return 0;
}

int wire_conn_send_frame(struct wire_conn *conn, struct wire_frame *frame, const void *payload)
{
	uint8_t header[WIRE_FRAME_BYTES];

	CHECK(conn->role == WIRE_DATA);
	if (conn->state != CONN_UP)
		return -ENOTCONN;
	if (WIRE_FRAME_BYTES + frame->wire_bytes > conn->tx_capacity - tx_used(conn)) {
		conn->room_wanted = true;
		return -EAGAIN;
	}
	frame->channel = conn->channel;
	frame->epoch = conn->epoch;
	frame->sequence = ++conn->out_sequence;
	wire_frame_encode(frame, payload, conn->seed, header);
	tx_put(conn, header, sizeof(header));
	tx_put(conn, payload, frame->wire_bytes);
	return 0;
}

/* ---- what was received: digested piece by piece; false: bytes are missing, or it ended ---- */

static uint32_t rx_used(const struct wire_conn *conn)
{
	return conn->rx_tail - conn->rx_head;
}

/* The next line, without its newline, in the buffer; NULL: not whole yet, or too long. */
static const char *take_line(struct wire_conn *conn, uint32_t max_bytes, uint32_t *bytes)
{
	const char *begin = (const char *)conn->rx + conn->rx_head;
	const char *end = memchr(begin, '\n', rx_used(conn));

	if ((end ? (uint32_t)(end - begin) : rx_used(conn)) > max_bytes) {
		conn_violation(conn, "a line beyond the bound");
		return NULL;
	}
	if (!end)
		return NULL;
	*bytes = (uint32_t)(end - begin);
	conn->rx_head += *bytes + 1;
	return begin;
}

static void conn_is_up(struct wire_conn *conn)
{
	conn->state = CONN_UP;
	conn->last_in_ns = conn->last_out_ns = loop_now_ns(conn->env->loop);
	timer_start(&conn->timer, WIRE_BEAT_NS);
}

static void version_refused(struct wire_conn *conn, uint32_t version, uint32_t oldest)
{
	struct err err;

	err_set(&err, ERR_WIRE_VERSION, 0,
		"%s speaks versions %u to %u of the wire, this host %u to %u", conn->pipe->peer,
		oldest, version, WIRE_VERSION_OLDEST, WIRE_VERSION);
	if (conn->dialled) {
		conn_die(conn, &err);
	} else {
		conn->why = err;
		wire_conn_refuse(conn, &err);
	}
}

static bool digest_hello(struct wire_conn *conn, const char *text, uint32_t bytes)
{
	struct wire_hello hello;
	int rc = wire_hello_decode(text, bytes, &hello);

	if (rc == -EPROTONOSUPPORT) {
		version_refused(conn, hello.version, hello.oldest);
		return false;
	}
	if (rc) {
		conn_violation(conn, "no hello");
		return false;
	}
	conn->role = hello.role;
	conn->channel = (uint16_t)hello.channel;
	conn->epoch = hello.epoch;
	conn->ops->hello(conn, &hello);
	return conn->state == CONN_UP;
}

static bool digest_welcome(struct wire_conn *conn, const char *text, uint32_t bytes)
{
	struct wire_welcome welcome;
	int rc = wire_welcome_decode(text, bytes, &welcome);

	if (rc == -EPROTONOSUPPORT) {
		version_refused(conn, welcome.version, welcome.oldest);
		return false;
	}
	if (rc) {
		conn_violation(conn, "no answer to the hello");
		return false;
	}
	if (welcome.refused) {
		conn_die(conn, &welcome.why);
		return false;
	}
	conn_is_up(conn);
	conn->ops->welcome(conn, &welcome);
	return conn->state == CONN_UP;
}

static bool digest_opening(struct wire_conn *conn)
{
	uint32_t bytes;
	const char *text = take_line(conn, WIRE_HELLO_MAX_BYTES, &bytes);

	if (!text)
		return false;
	return conn->dialled ? digest_welcome(conn, text, bytes) : digest_hello(conn, text, bytes);
}

static bool digest_line(struct wire_conn *conn)
{
	struct wire_line line;
	uint32_t bytes;
	const char *text = take_line(conn, WIRE_LINE_MAX_BYTES, &bytes);

	if (!text)
		return false;
	if (wire_line_decode(text, bytes, &line)) {
		conn_violation(conn, "a line that is no message");
		return false;
	}
	if (line.sequence != conn->in_sequence + 1) {
		json_decref(line.message);
		conn_violation(conn, "a message out of its turn");
		return false;
	}
	conn->in_sequence++;
	conn->ops->line(conn, &line);
	json_decref(line.message);
	return conn->state == CONN_UP;
}

static bool begin_frame(struct wire_conn *conn)
{
	if (rx_used(conn) < WIRE_FRAME_BYTES)
		return false;
	if (wire_frame_decode(conn->rx + conn->rx_head, conn->seed, &conn->frame)) {
		conn_violation(conn, "a frame that is damaged or not allowed");
		return false;
	}
	if (conn->frame.channel != conn->channel || conn->frame.epoch != conn->epoch ||
	    conn->frame.sequence != conn->in_sequence + 1) {
		conn_violation(conn, "a frame out of its turn");
		return false;
	}
	conn->rx_head += WIRE_FRAME_BYTES;
	conn->payload = NULL;
	conn->payload_got = 0;
	if (conn->frame.wire_bytes && conn->ops->place)
		conn->payload = conn->ops->place(conn, &conn->frame);
	if (conn->state != CONN_UP)
		return false;
	if (conn->frame.wire_bytes && !conn->payload) {
		if (!conn->buffer)
			conn->buffer = malloc(WIRE_PAYLOAD_MAX_BYTES);
		conn->payload = conn->buffer;
		if (!conn->buffer) {
			conn_lost(conn, -ENOMEM);
			return false;
		}
	}
	conn->frame_open = true;
	return true;
}

static bool digest_frame(struct wire_conn *conn)
{
	uint32_t count;

	if (!conn->frame_open && !begin_frame(conn))
		return false;
	count = MIN(rx_used(conn), conn->frame.wire_bytes - conn->payload_got);
	if (count)
		memcpy(conn->payload + conn->payload_got, conn->rx + conn->rx_head, count);
	conn->payload_got += count;
	conn->rx_head += count;
	if (conn->payload_got < conn->frame.wire_bytes)
		return false;
	if (wire_payload_check(&conn->frame, conn->payload, conn->seed)) {
		conn_violation(conn, "a payload that is damaged");
		return false;
	}
	conn->frame_open = false;
	conn->in_sequence++;
	if (conn->frame.type != WIRE_FRAME_IDLE)
		conn->ops->frame(conn, &conn->frame, conn->payload);
	return conn->state == CONN_UP;
}

static bool conn_step(struct wire_conn *conn)
{
	if (conn->state == CONN_OPENING)
		return digest_opening(conn);
	return conn->role == WIRE_CONTROL ? digest_line(conn) : digest_frame(conn);
}

/* ---- receiving ---- */

/* Large payloads go where they belong without a stop. */
static bool reads_payload(const struct wire_conn *conn)
{
	return conn->frame_open && conn->state == CONN_UP && rx_used(conn) == 0;
}

/* What to do next: 0: nothing more for now; 1: bytes came. */
static int conn_receive(struct wire_conn *conn)
{
	uint8_t *into;
	size_t room;
	ssize_t got;

	if (reads_payload(conn)) {
		into = conn->payload + conn->payload_got;
		room = conn->frame.wire_bytes - conn->payload_got;
	} else {
		memmove(conn->rx, conn->rx + conn->rx_head, rx_used(conn));
		conn->rx_tail -= conn->rx_head;
		conn->rx_head = 0;
		into = conn->rx + conn->rx_tail;
		room = RX_BYTES - conn->rx_tail;
	}
	got = conn->pipe->ops->read(conn->pipe, into, room);
	if (got == -EAGAIN)
		return 0;
	if (got <= 0) {
		conn_lost(conn, (int)got);
		return 0;
	}
	if (reads_payload(conn))
		conn->payload_got += (uint32_t)got;
	else
		conn->rx_tail += (uint32_t)got;
	conn->bytes_in += (uint64_t)got;
	conn->last_in_ns = loop_now_ns(conn->env->loop);
	return 1;
}

static void conn_pump(struct wire_conn *conn)
{
	int turns = READS_PER_TURN;

	while (conn_reads(conn)) {
		while (conn_reads(conn) && conn_step(conn))
			continue;
		if (!conn_reads(conn))
			break;
		if (turns-- == 0) {
			if (!conn->more.queued)
				loop_post(conn->env->loop, &conn->more);
			break;
		}
		if (!conn_receive(conn))
			break;
	}
	conn_want(conn);
}

static void conn_more(struct task *task)
{
	conn_pump(container_of(task, struct wire_conn, more));
}

/* Writing first: an answer makes room for the next question. */
static void conn_ready(struct wire_pipe *pipe)
{
	struct wire_conn *conn = pipe->owner;

	if (!conn_send(conn))
		return;
	conn_flushed(conn);
	if (conn->state != CONN_DEAD)
		conn_pump(conn);
}

void wire_conn_pause(struct wire_conn *conn)
{
	conn->paused = true;
	conn_want(conn);
}

void wire_conn_resume(struct wire_conn *conn)
{
	if (!conn->paused)
		return;
	conn->paused = false;
	conn->last_in_ns = loop_now_ns(conn->env->loop);
	if (conn->state == CONN_UP && !conn->more.queued)
		loop_post(conn->env->loop, &conn->more);
}

/* ---- time ---- */

static void conn_beat(struct wire_conn *conn)
{
	struct wire_frame idle = { .type = WIRE_FRAME_IDLE };
	uint64_t now_ns = loop_now_ns(conn->env->loop);
	struct err err;

	/* Only one who listens can say that nothing is to be heard. */
	if (!conn_reads(conn))
		conn->last_in_ns = now_ns;
	if (now_ns - conn->last_in_ns >= WIRE_SILENCE_NS) {
		err_set(&err, ERR_WIRE_LOST, 0, "nothing was heard of %s for %u s",
			conn->pipe->peer, (unsigned)(WIRE_SILENCE_NS / NS_PER_S));
		conn_die(conn, &err);
		return;
	}
	timer_start(&conn->timer, WIRE_BEAT_NS);
	if (conn->role == WIRE_CONTROL) {
		if (conn->ops->beat)
			conn->ops->beat(conn);
	} else if (!tx_used(conn) && now_ns - conn->last_out_ns >= WIRE_BEAT_NS / 2) {
		CHECK(wire_conn_send_frame(conn, &idle, NULL) == 0);
	}
}

static void conn_timer_fired(struct timer *timer)
{
	struct wire_conn *conn = container_of(timer, struct wire_conn, timer);
	struct err err = conn->why;

	if (conn->state == CONN_UP) {
		conn_beat(conn);
		return;
	}
	if (conn->state == CONN_OPENING)
		err_set(&err, ERR_HOST_UNREACHABLE, 0, "%s does not answer in time",
			conn->pipe->peer);
	conn_die(conn, &err);
}

/* ---- the beginning ---- */

static struct wire_conn *conn_new(struct wire_env *env, struct wire_pipe *pipe,
				  const struct wire_conn_ops *ops, void *owner)
{
	struct wire_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		goto close_pipe;
	conn->rx = malloc(RX_BYTES);
	if (!conn->rx)
		goto free_conn;
	conn->env = env;
	conn->pipe = pipe;
	conn->ops = ops;
	conn->owner = owner;
	conn->more.run = conn_more;
	conn->release.run = conn_release;
	timer_init(&conn->timer, env->loop, conn_timer_fired);
	turn_hook_init(&conn->flush, conn_flush);
	pipe->ready = conn_ready;
	pipe->owner = conn;
	env->live++;
	timer_start(&conn->timer, WIRE_HELLO_NS);
	return conn;

free_conn:
	free(conn);
close_pipe:
	pipe->ops->close(pipe, true);
	return NULL;
}

/* The queue is as large as its role needs; until an accepted one has told its role, a hello's. */
static bool conn_make_queue(struct wire_conn *conn, uint32_t bytes)
{
	uint8_t *tx = malloc(bytes);

	if (!tx)
		return false;
	CHECK(!tx_used(conn));
	free(conn->tx);
	conn->tx = tx;
	conn->tx_capacity = bytes;
	conn->tx_head = conn->tx_tail = 0;
	return true;
}

static uint32_t queue_bytes(const struct wire_conn *conn)
{
	return conn->role == WIRE_DATA ? WIRE_DATA_QUEUE_BYTES : WIRE_CONTROL_QUEUE_BYTES;
}

struct wire_conn *wire_conn_dialled(struct wire_env *env, struct wire_pipe *pipe,
				    const struct wire_hello *hello,
				    const struct wire_conn_ops *ops, void *owner)
{
	char text[WIRE_HELLO_MAX_BYTES + 2];
	struct wire_conn *conn = conn_new(env, pipe, ops, owner);

	if (!conn)
		return NULL;
	conn->dialled = true;
	conn->role = hello->role;
	conn->channel = (uint16_t)hello->channel;
	conn->epoch = hello->epoch;
	if (!conn_make_queue(conn, queue_bytes(conn))) {
		wire_conn_close(conn);
		return NULL;
	}
	tx_put(conn, text, (uint32_t)wire_hello_encode(hello, text));
	conn_want(conn);
	return conn;
}

struct wire_conn *wire_conn_accepted(struct wire_env *env, struct wire_pipe *pipe,
				     const struct wire_conn_ops *ops, void *owner)
{
	struct wire_conn *conn = conn_new(env, pipe, ops, owner);

	if (!conn)
		return NULL;
	if (!conn_make_queue(conn, 2 * WIRE_HELLO_MAX_BYTES)) {
		wire_conn_close(conn);
		return NULL;
	}
	conn_want(conn);
	return conn;
}

static void put_welcome(struct wire_conn *conn, const struct wire_welcome *welcome)
{
	char text[WIRE_HELLO_MAX_BYTES + 2];

	tx_put(conn, text, (uint32_t)wire_welcome_encode(welcome, text));
}

void wire_conn_welcome(struct wire_conn *conn, const struct wire_welcome *welcome, uint64_t seed)
{
	CHECK(conn->state == CONN_OPENING);
	CHECK(!conn->dialled);
	if (!conn_make_queue(conn, queue_bytes(conn))) {
		conn_lost(conn, -ENOMEM);
		return;
	}
	conn->seed = seed;
	conn_is_up(conn);
	put_welcome(conn, welcome);
}

void wire_conn_refuse(struct wire_conn *conn, const struct err *why)
{
	struct wire_welcome welcome = { .version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST,
					.host = conn->env->host, .software = BM_VERSION,
					.refused = true, .why = *why };

	CHECK(conn->state == CONN_OPENING);
	put_welcome(conn, &welcome);
	wire_conn_finish(conn);
}

void wire_conn_finish(struct wire_conn *conn)
{
	if (conn->state == CONN_DEAD || conn->state == CONN_CLOSING)
		return;
	conn->state = CONN_CLOSING;
	timer_start(&conn->timer, WIRE_BEAT_NS);
	loop_at_turn_end(conn->env->loop, &conn->flush);
}

/* ---- small ones ---- */

void wire_conn_adopt(struct wire_conn *conn, const struct wire_conn_ops *ops, void *owner)
{
	conn->ops = ops;
	conn->owner = owner;
}

void *wire_conn_owner(const struct wire_conn *conn)
{
	return conn->owner;
}

const struct wire_pipe *wire_conn_pipe(const struct wire_conn *conn)
{
	return conn->pipe;
}

void wire_conn_set_seed(struct wire_conn *conn, uint64_t seed)
{
	conn->seed = seed;
}

uint64_t wire_conn_received(const struct wire_conn *conn)
{
	return conn->in_sequence;
}

uint64_t wire_conn_sent(const struct wire_conn *conn)
{
	return conn->out_sequence;
}

uint64_t wire_conn_bytes_in(const struct wire_conn *conn)
{
	return conn->bytes_in;
}

uint64_t wire_conn_bytes_out(const struct wire_conn *conn)
{
	return conn->bytes_out;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire_link.c - links over real sockets and TLS: keys, plain data, and hostile peers. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/base/log.h"
#include "vmotion/wire_hub.h"

#define LIMIT_NS (20 * NS_PER_S)
#define FRAMES 200u
#define PAYLOAD 50000u

struct rig {
	struct loop *loop;
	char dir[2][64];
	struct wire_identity *identity[2];      /* 0 dials, 1 accepts */
	struct wire_env env;
	struct wire_keys keys;
	const char *known_key;          /* that the accepting side takes */
	const char *pin;
	struct wire_hub *hub;
	struct wire_listener *listener;
	struct wire_address address[2];
	struct wire_dialler dialler;
	struct wire_link *link, *accepted;
	bool plain_here, plain_there;
	struct timer limit;
	/* what happened */
	bool up, ponged, timed_out;
	unsigned channel_ups, down_count, frames, channel_downs;
	uint64_t delivered;
	struct err down;
	uint32_t to_send;
	uint8_t *place;
	bool (*enough)(struct rig *rig);
};

static struct rig *rig;

/* ---- running ---- */

static void look(void)
{
	if (rig->enough && rig->enough(rig))
		loop_stop(rig->loop);
}

static void limit_fired(struct timer *timer)
{
	(void)timer;
	rig->timed_out = true;
	loop_stop(rig->loop);
}

static void run_until(bool (*enough)(struct rig *rig))
{
	rig->enough = enough;
	rig->timed_out = false;
	if (enough(rig))
		return;
	timer_start(&rig->limit, LIMIT_NS);
	loop_run(rig->loop);
	timer_stop(&rig->limit);
	assert_false(rig->timed_out);
}

/* ---- the two sides ---- */

static void send_some(void)
{
	static uint8_t payload[PAYLOAD];

	while (rig->to_send) {
		struct wire_frame frame = { .type = WIRE_FRAME_RAW, .length_bytes = PAYLOAD,
					    .wire_bytes = PAYLOAD, .offset_bytes = rig->to_send };

		memset(payload, (int)rig->to_send, sizeof(payload));
		if (wire_link_send_frame(rig->link, rig->to_send % 2, &frame, payload))
			return;
		rig->to_send--;
	}
}

static void on_up(struct wire_link *link)
{
	(void)link;
	rig->up = true;
	look();
}

static void on_channel_up(struct wire_link *link, unsigned channel)
{
	(void)channel;
	rig->channel_ups += link == rig->link ? 1 : 0;
	look();
}

static uint8_t *on_place(struct wire_link *link, const struct wire_frame *frame)
{
	(void)link;
	/* One place: two channels at once would write over each other. */
	return frame->channel == 0 && frame->offset_bytes % 3 == 0 ? rig->place : NULL;
}

static void on_frame(struct wire_link *link, const struct wire_frame *frame, const uint8_t *payload)
{
	(void)link;
	assert_int_equal(frame->wire_bytes, PAYLOAD);
	if (frame->channel == 0 && frame->offset_bytes % 3 == 0)
		assert_ptr_equal(payload, rig->place);
	assert_int_equal(payload[0], (uint8_t)frame->offset_bytes);
	assert_int_equal(payload[PAYLOAD - 1], (uint8_t)frame->offset_bytes);
	rig->frames++;
	look();
}

static void on_writable(struct wire_link *link, unsigned channel)
{
	(void)channel;
	if (link == rig->link)
		send_some();
}

static void on_channel_down(struct wire_link *link, unsigned channel, uint64_t delivered)
{
	(void)channel;
	if (link == rig->link) {
		rig->channel_downs++;
		rig->delivered = delivered;
	}
	look();
}

static void on_down(struct wire_link *link, const struct err *err)
{
	if (link == rig->link) {
		rig->link = NULL;
		rig->down = *err;
		rig->down_count++;
	} else {
		rig->accepted = NULL;
	}
	wire_link_free(link);
	look();
}

static const struct wire_link_ops ops = {
	.up = on_up, .channel_up = on_channel_up, .place = on_place, .frame = on_frame,
	.writable = on_writable, .channel_down = on_channel_down, .down = on_down,
};

static bool judge(void *user, const char *peer_key, const struct wire_hello *hello,
		  bool *plain_data, struct err *err)
{
	(void)user;
	(void)hello;
	(void)err;
	assert_string_equal(peer_key, rig->identity[0]->fingerprint);
	*plain_data = rig->plain_there;
	return true;
}

static bool accepted(void *user, struct wire_link *link, const char *peer_key)
{
	(void)user;
	rig->accepted = link;
	wire_link_adopt(link, &ops, NULL);
	return strcmp(peer_key, rig->identity[0]->fingerprint) == 0;
}

static bool known(struct wire_keys *keys, const char *fingerprint)
{
	(void)keys;
	return strcmp(fingerprint, rig->known_key) == 0;
}

static int dial(struct wire_dialler *dialler, unsigned address, bool plain, struct wire_pipe **out,
		struct err *err)
{
	(void)dialler;
	return wire_socket_dial(rig->loop, rig->identity[0], &rig->address[address],
				plain ? NULL : rig->pin, out, err);
}

static int listen_somewhere(struct wire_address *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*address);

	assert_true(fd >= 0);
	assert_int_equal(wire_address_parse("127.0.0.1:1", address), 0);
	address->v4.sin_port = 0;
	assert_int_equal(bind(fd, &address->any, wire_address_bytes(address)), 0);
	assert_int_equal(listen(fd, 128), 0);
	assert_int_equal(getsockname(fd, &address->any, &len), 0);
	return fd;
}

static int setup(void **unused)
{
	struct wire_hub_options hub = { .judge = judge, .accepted = accepted };

	(void)unused;
	rig = calloc(1, sizeof(*rig));
	assert_non_null(rig);
	rig->loop = loop_new();
	assert_non_null(rig->loop);
	for (int i = 0; i < 2; i++) {
		snprintf(rig->dir[i], sizeof(rig->dir[i]), "/tmp/bmwire.XXXXXX");
		assert_non_null(mkdtemp(rig->dir[i]));
		assert_int_equal(wire_identity_open(rig->dir[i], &rig->identity[i], NULL), 0);
	}
	rig->env.loop = rig->loop;
	rig->keys.known = known;
	rig->known_key = rig->identity[0]->fingerprint;
	rig->pin = rig->identity[1]->fingerprint;
	rig->place = malloc(PAYLOAD);
	hub.env = &rig->env;
	rig->hub = wire_hub_new(&hub);
	assert_non_null(rig->hub);
	assert_int_equal(wire_listener_new(rig->hub, listen_somewhere(&rig->address[0]),
					   rig->identity[1], &rig->keys, &rig->listener), 0);
	rig->address[1] = rig->address[0];
	rig->dialler.dial = dial;
	rig->dialler.address_count = 2;
	timer_init(&rig->limit, rig->loop, limit_fired);
	return 0;
}

static bool nothing_lives(struct rig *now)
{
	return now->env.live == 0;
}

static void poll_again(struct timer *timer)
{
	look();
	timer_start(timer, NS_PER_MS);
}

/* What is let go of is freed by the loop a moment later. */
static void run_polling(bool (*enough)(struct rig *rig))
{
	struct timer poll;

	timer_init(&poll, rig->loop, poll_again);
	timer_start(&poll, 0);
	run_until(enough);
	timer_stop(&poll);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **unused)
{
	(void)unused;
	wire_link_free(rig->link);
	wire_link_free(rig->accepted);
	wire_listener_free(rig->listener);
	wire_hub_free(rig->hub);
	run_polling(nothing_lives);
	for (int i = 0; i < 2; i++) {
		wire_identity_free(rig->identity[i]);
		nftw(rig->dir[i], remove_one, 4, FTW_DEPTH | FTW_PHYS);
	}
	loop_free(rig->loop);
	free(rig->place);
	free(rig);
	return 0;
}

static void start_link(void)
{
	struct wire_link_options options = { .env = &rig->env, .dialler = &rig->dialler,
					     .ops = &ops, .plain_data = rig->plain_here };

	assert_int_equal(wire_link_new(&options, &rig->link, NULL), 0);
}

/* ---- links ---- */

static bool is_up(struct rig *now)
{
	return now->up;
}

static bool is_down(struct rig *now)
{
	return now->down_count > 0;
}

static bool two_channels(struct rig *now)
{
	return now->channel_ups == 2 && now->accepted &&
	       wire_link_channel_is_up(now->accepted, 0) &&
	       wire_link_channel_is_up(now->accepted, 1);
}

static bool all_frames(struct rig *now)
{
	return now->frames == FRAMES;
}

static bool has_ponged(struct rig *now)
{
	return now->ponged;
}

static void on_pong(struct wire_link *link)
{
	(void)link;
	rig->ponged = true;
	look();
}

static void open_two(void)
{
	start_link();
	run_until(is_up);
	assert_int_equal(wire_link_open_channel(rig->link, 0), 0);
	assert_int_equal(wire_link_open_channel(rig->link, 1), 0);
	run_polling(two_channels);
}

static void move_frames(void)
{
	struct wire_link_status status;

	open_two();
	rig->to_send = FRAMES;
	send_some();
	run_until(all_frames);
	assert_int_equal(wire_link_ping(rig->link, on_pong), 0);
	run_until(has_ponged);
	wire_link_status(rig->link, &status);
	assert_true(status.up);
	assert_true(status.round_trip_ns > 0);
	assert_int_equal(status.channels_up, 2);
	assert_string_equal(status.peer_key, rig->identity[1]->fingerprint);
	assert_int_equal(status.plain_data, rig->plain_here && rig->plain_there);
	wire_link_status(rig->accepted, &status);
	assert_string_equal(status.peer_key, rig->identity[0]->fingerprint);
	assert_true(status.bytes_in > (uint64_t)FRAMES * PAYLOAD);
}

static void test_link(void **unused)
{
	(void)unused;
	move_frames();
}

static void test_plain_data(void **unused)
{
	(void)unused;
	rig->plain_here = rig->plain_there = true;
	move_frames();
}

/* Encryption goes only when both sides say so. */
static void test_plain_by_one_side(void **unused)
{
	(void)unused;
	rig->plain_here = true;
	move_frames();
}

static bool one_drained(struct rig *now)
{
	return now->channel_downs == 1;
}

static void test_channel_again(void **unused)
{
	(void)unused;
	open_two();
	wire_link_close_channel(rig->link, 0);
	run_until(one_drained);
	assert_int_equal(wire_link_open_channel(rig->link, 0), 0);
	rig->channel_ups--;
	run_polling(two_channels);
}

static bool peer_is_gone(struct rig *now)
{
	return !now->accepted;
}

static void test_bye(void **unused)
{
	(void)unused;
	start_link();
	run_until(is_up);
	wire_link_free(rig->link);
	rig->link = NULL;
	run_until(peer_is_gone);
}

/* ---- keys ---- */

static void test_wrong_key_there(void **unused)
{
	(void)unused;
	rig->pin = rig->identity[0]->fingerprint;
	start_link();
	run_until(is_down);
	assert_false(rig->up);
	assert_int_equal(rig->down.id, ERR_HOST_KEY);
	assert_non_null(strstr(rig->down.cause, rig->identity[1]->fingerprint));
}

static void test_stranger_here(void **unused)
{
	(void)unused;
	rig->known_key = rig->identity[1]->fingerprint;
	start_link();
	run_until(is_down);
	assert_false(rig->up);
	assert_int_equal(rig->down.id, ERR_HOST_REFUSED);
	assert_null(rig->accepted);
}

static void test_nobody_listens(void **unused)
{
	struct wire_address gone;

	(void)unused;
	close(listen_somewhere(&gone));
	rig->address[0] = rig->address[1] = gone;
	start_link();
	run_until(is_down);
	assert_int_equal(rig->down.id, ERR_HOST_UNREACHABLE);
}

/* The first address answers nobody: the second does. */
static void test_second_address(void **unused)
{
	struct wire_address gone;

	(void)unused;
	close(listen_somewhere(&gone));
	rig->address[0] = gone;
	move_frames();
}

static void test_key_file(void **unused)
{
	struct wire_identity *again = NULL;
	struct err err = { 0 };
	char path[100];
	struct stat st;
	int fd;

	(void)unused;
	snprintf(path, sizeof(path), "%s/host-key.pem", rig->dir[0]);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(wire_fingerprint_is_valid(rig->identity[0]->fingerprint));
	assert_int_equal(wire_identity_open(rig->dir[0], &again, &err), 0);
	assert_string_equal(again->fingerprint, rig->identity[0]->fingerprint);
	wire_identity_free(again);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(wire_identity_open(rig->dir[0], &again, &err), -EPERM);
	assert_int_equal(err.id, ERR_HOST_KEY_FILE);
	assert_int_equal(chmod(path, 0600), 0);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "no key", 6), 6);
	close(fd);
	assert_int_equal(wire_identity_open(rig->dir[0], &again, &err), -EBADMSG);
	assert_false(wire_fingerprint_is_valid("SHA256:short"));
	assert_false(wire_fingerprint_is_valid(
		"SHA256:0000000000000000000000000000000000000000 00"));
}

static void test_addresses(void **unused)
{
	static const char *const bad[] = { "", "host:1", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0",
					   "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:1x", "::1:7",
					   "[::1]", "[::1]7", "[1.2.3.4]:7", "1.2.3:7", ":7" };
	struct wire_address address;
	char text[WIRE_PEER_BYTES];

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(wire_address_parse(bad[i], &address), -EINVAL);
	assert_int_equal(wire_address_parse("192.0.2.7:7701", &address), 0);
	assert_string_equal(wire_address_format(&address, text), "192.0.2.7:7701");
	assert_int_equal(wire_address_parse("[2001:db8::7]:7701", &address), 0);
	assert_string_equal(wire_address_format(&address, text), "[2001:db8::7]:7701");
}

/* ---- hostile peers: bytes of our own on a socket, TLS where it says so ---- */

struct stranger {
	struct wire_pipe *pipe;
	char heard[WIRE_HELLO_MAX_BYTES + 2];
	size_t heard_bytes;
	const uint8_t *bytes;
	size_t count, sent;
	bool over;
};

static struct stranger stranger;

static void stranger_ready(struct wire_pipe *pipe)
{
	ssize_t got;

	while (stranger.sent < stranger.count) {
		got = pipe->ops->write(pipe, stranger.bytes + stranger.sent,
				       stranger.count - stranger.sent);
		if (got == -EAGAIN)
			break;
		if (got < 0) {
			stranger.over = true;
			break;
		}
		stranger.sent += (size_t)got;
	}
	while (!stranger.over && stranger.heard_bytes < sizeof(stranger.heard) - 1) {
		got = pipe->ops->read(pipe, stranger.heard + stranger.heard_bytes,
				      sizeof(stranger.heard) - 1 - stranger.heard_bytes);
		if (got == -EAGAIN)
			break;
		if (got <= 0)
			stranger.over = true;
		else
			stranger.heard_bytes += (size_t)got;
	}
	pipe->ops->want(pipe, stranger.over ? 0 : WATCH_READ | (stranger.sent < stranger.count
									? WATCH_WRITE : 0));
	look();
}

static bool stranger_is_out(struct rig *now)
{
	(void)now;
	return stranger.over;
}

static void stranger_says(bool tls, const void *bytes, size_t count)
{
	uint64_t refused_before = wire_hub_refused_count(rig->hub);

	stranger = (struct stranger){ .bytes = bytes, .count = count };
	assert_int_equal(wire_socket_dial(rig->loop, rig->identity[0], &rig->address[0],
					  tls ? rig->pin : NULL, &stranger.pipe, NULL), 0);
	stranger.pipe->ready = stranger_ready;
	stranger.pipe->ops->want(stranger.pipe, WATCH_READ | WATCH_WRITE);
	run_until(stranger_is_out);
	assert_null(rig->accepted);
	stranger.pipe->ops->close(stranger.pipe, true);
	assert_true(wire_hub_refused_count(rig->hub) > refused_before);
}

#define IDENTITY "\"host\":\"01020300-0000-0000-0000-000000000000\",\"software\":\"x\""
#define SECRET "\"00000000000000000000000000000000\""

static void test_hostile_hellos(void **unused)
{
	static const char plain[] = "{\"blkmirror\":1,\"oldest\":1," IDENTITY
				    ",\"role\":\"control\"}\n";
	static const char old[] = "{\"blkmirror\":90,\"oldest\":80," IDENTITY
				  ",\"role\":\"control\"}\n";
	static const char data[] = "{\"blkmirror\":1,\"oldest\":1," IDENTITY
				   ",\"role\":\"data\",\"session\":" SECRET
				   ",\"channel\":0,\"epoch\":1,\"token\":" SECRET "}\n";
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	static uint8_t noise[100000];

	(void)unused;
	stranger_says(false, plain, sizeof(plain) - 1);
	assert_non_null(strstr(stranger.heard, "BM-1805"));
	stranger_says(true, old, sizeof(old) - 1);
	assert_non_null(strstr(stranger.heard, "BM-1809"));
	stranger_says(true, data, sizeof(data) - 1);
	assert_non_null(strstr(stranger.heard, "BM-1810"));
	stranger_says(false, data, sizeof(data) - 1);
	stranger_says(true, http, sizeof(http) - 1);
	stranger_says(false, http, sizeof(http) - 1);
	srandom(7);
	for (int round = 0; round < 8; round++) {
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)random();
		noise[0] = round % 2 ? 0x16 : noise[0];
		stranger_says(round % 4 >= 2, noise, sizeof(noise));
	}
	/* And after all that it works for who may. */
	move_frames();
}

/* Many that say nothing: the oldest gives way, and a good one gets in. */
static void test_silent_crowd(void **unused)
{
	int fds[WIRE_PENDING_MAX + 20];

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fds[i], &rig->address[0].any,
					 wire_address_bytes(&rig->address[0])), 0);
	}
	start_link();
	run_until(is_up);
	assert_true(wire_hub_refused_count(rig->hub) >= 20);
	for (size_t i = 0; i < ARRAY_COUNT(fds); i++)
		close(fds[i]);
}

/* One that is known and misbehaves on its control connection: its link ends, nothing else does. */
static void known_one_says(const char *lines)
{
	char text[8192];

	snprintf(text, sizeof(text),
		 "{\"blkmirror\":1,\"oldest\":1," IDENTITY ",\"role\":\"control\"}\n%s", lines);
	stranger = (struct stranger){ .bytes = (const uint8_t *)text, .count = strlen(text) };
	assert_int_equal(wire_socket_dial(rig->loop, rig->identity[0], &rig->address[0], rig->pin,
					  &stranger.pipe, NULL), 0);
	stranger.pipe->ready = stranger_ready;
	stranger.pipe->ops->want(stranger.pipe, WATCH_READ | WATCH_WRITE);
	run_until(stranger_is_out);
	stranger.pipe->ops->close(stranger.pipe, true);
	run_polling(peer_is_gone);
}

static void test_hostile_messages(void **unused)
{
	static const char *const lines[] = {
		"{\"seq\":2,\"type\":\"ping\",\"stamp\":1}\n",
		"{\"seq\":1,\"type\":\"ping\",\"stamp\":1}\n{\"seq\":1,\"type\":\"ping\",\"stamp\":1}\n",
		"{\"seq\":1,\"type\":\"ping\"}\n",
		"{\"seq\":1,\"type\":\"pong\",\"stamp\":1}\n",
		"{\"seq\":1,\"type\":\"open\",\"channel\":32,\"epoch\":1}\n",
		"{\"seq\":1,\"type\":\"open\",\"channel\":1,\"epoch\":0}\n",
		"{\"seq\":1,\"type\":\"open\",\"channel\":1,\"epoch\":1}\n"
		"{\"seq\":2,\"type\":\"open\",\"channel\":1,\"epoch\":2}\n",
		"{\"seq\":1,\"type\":\"close\",\"channel\":1,\"epoch\":1,\"received\":0}\n",
		"{\"seq\":1,\"type\":\"closed\",\"channel\":1,\"epoch\":1,\"received\":0}\n",
		"{\"seq\":1,\"type\":\"opened\",\"channel\":1,\"epoch\":1,\"token\":" SECRET "}\n",
		"{\"seq\":1,\"type\":\"lost\",\"channel\":1,\"epoch\":1}\n",
		"nonsense\n",
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
		known_one_says(lines[i]);
	move_frames();
}

/* ---- a known one that misbehaves on a channel ---- */

static char answer[2][80];              /* session and seed, then token */

static void take_text(const char *from, const char *key, char *out, size_t bytes)
{
	char pattern[32];
	const char *at;

	snprintf(pattern, sizeof(pattern), "\"%s\":\"", key);
	at = strstr(from, pattern);
	assert_non_null(at);
	at += strlen(pattern);
	snprintf(out, bytes, "%.*s", (int)strcspn(at, "\""), at);
}

static bool has_token(struct rig *now)
{
	(void)now;
	return strstr(stranger.heard, "\"token\"") != NULL;
}

static bool channel_is_lost(struct rig *now)
{
	return now->accepted && !wire_link_channel_is_up(now->accepted, 0) && now->channel_ups == 9;
}

/* Its control connection stays open meanwhile; frames[] with the sequences given. */
static void channel_says(const uint64_t *sequences, size_t count, bool damage)
{
	static const char opening[] = "{\"blkmirror\":1,\"oldest\":1," IDENTITY
				      ",\"role\":\"control\"}\n"
				      "{\"seq\":1,\"type\":\"open\",\"channel\":0,\"epoch\":1}\n";
	static uint8_t out[WIRE_HELLO_MAX_BYTES + 8 * (WIRE_FRAME_BYTES + PAYLOAD)];
	static uint8_t payload[PAYLOAD];
	struct stranger control;
	char seed[20];
	size_t used;

	stranger = (struct stranger){ .bytes = (const uint8_t *)opening, .count = sizeof(opening) - 1 };
	assert_int_equal(wire_socket_dial(rig->loop, rig->identity[0], &rig->address[0], rig->pin,
					  &stranger.pipe, NULL), 0);
	stranger.pipe->ready = stranger_ready;
	stranger.pipe->ops->want(stranger.pipe, WATCH_READ | WATCH_WRITE);
	run_until(has_token);
	stranger.pipe->ops->want(stranger.pipe, 0);
	take_text(stranger.heard, "session", answer[0], sizeof(answer[0]));
	take_text(stranger.heard, "seed", seed, sizeof(seed));
	take_text(stranger.heard, "token", answer[1], sizeof(answer[1]));
	control = stranger;
	used = (size_t)snprintf((char *)out, sizeof(out),
				"{\"blkmirror\":1,\"oldest\":1," IDENTITY
				",\"role\":\"data\",\"session\":\"%s\",\"channel\":0,\"epoch\":1,"
				"\"token\":\"%s\"}\n", answer[0], answer[1]);
	for (size_t i = 0; i < count; i++) {
		struct wire_frame frame = { .type = WIRE_FRAME_RAW, .epoch = 1, .length_bytes = PAYLOAD,
					    .wire_bytes = PAYLOAD, .sequence = sequences[i] };

		wire_frame_encode(&frame, payload, strtoull(seed, NULL, 16), out + used);
		used += WIRE_FRAME_BYTES;
		memcpy(out + used, payload, PAYLOAD);
		used += PAYLOAD;
	}
	if (damage)
		out[used - 1] ^= 1;
	stranger = (struct stranger){ .bytes = out, .count = used };
	assert_int_equal(wire_socket_dial(rig->loop, rig->identity[0], &rig->address[0], rig->pin,
					  &stranger.pipe, NULL), 0);
	stranger.pipe->ready = stranger_ready;
	stranger.pipe->ops->want(stranger.pipe, WATCH_READ | WATCH_WRITE);
	rig->channel_ups = 9;
	run_until(stranger_is_out);
	assert_true(channel_is_lost(rig));
	/* The secret worked once. */
	stranger.pipe->ops->close(stranger.pipe, true);
	stranger = (struct stranger){ .bytes = out, .count = used };
	assert_int_equal(wire_socket_dial(rig->loop, rig->identity[0], &rig->address[0], rig->pin,
					  &stranger.pipe, NULL), 0);
	stranger.pipe->ready = stranger_ready;
	stranger.pipe->ops->want(stranger.pipe, WATCH_READ | WATCH_WRITE);
	run_until(stranger_is_out);
	stranger.pipe->ops->close(stranger.pipe, true);
	control.pipe->ops->close(control.pipe, true);
	run_polling(peer_is_gone);
}

static void test_hostile_frames(void **unused)
{
	static const uint64_t twice[] = { 1, 1 }, gap[] = { 1, 3 }, late[] = { 2 }, good[] = { 1, 2 };

	(void)unused;
	channel_says(twice, 2, false);
	assert_int_equal(rig->frames, 1);
	channel_says(gap, 2, false);
	assert_int_equal(rig->frames, 2);
	channel_says(late, 1, false);
	assert_int_equal(rig->frames, 2);
	channel_says(good, 2, true);
	assert_int_equal(rig->frames, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_link), TEST(test_plain_data), TEST(test_plain_by_one_side),
		TEST(test_channel_again), TEST(test_bye), TEST(test_wrong_key_there),
		TEST(test_stranger_here), TEST(test_nobody_listens), TEST(test_second_address),
		TEST(test_key_file), TEST(test_addresses), TEST(test_hostile_hellos),
		TEST(test_silent_crowd), TEST(test_hostile_messages),
		TEST(test_hostile_frames),
	};

	signal(SIGPIPE, SIG_IGN);
	log_set_level(LOG_LEVEL_NONE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

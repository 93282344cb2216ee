/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: streams cut anywhere, deep pipelines, clients that stall or vanish and a server that
 * closes lose nothing, leak nothing and hurt nobody else.
 * Method: a real server on a loop thread over a device in memory; a blocking client that
 * writes every byte itself.
 * The device hangs on demand.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/nbd_fixture.h"

/* ---- streams ---- */

static void test_one_byte_at_a_time(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = connected(fixture);
	uint8_t out[2048], in[2048];

	(void)unused;
	client.piece_bytes = 1;
	fill(out, sizeof(out), 5);
	ok(nbd_client_start(&client, "d1", true));
	for (int i = 0; i < 3; i++) {
		ok(nbd_client_write(&client, 512, out, sizeof(out), 0));
		ok(nbd_client_read(&client, 512, in, sizeof(in)));
		assert_memory_equal(in, out, sizeof(in));
		assert_int_equal(nbd_client_write(&client, 3, out, 1000, 0), NBD_EINVAL);
	}
	nbd_client_close(&client);
	fixture_free(fixture);
}

/* Every way to cut a burst of header + payload + header into two sends. */
static void test_every_cut(void **unused)
{
	enum { PAYLOAD = 512, BURST = 28 + PAYLOAD + 28 };
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, false);
	struct nbd_client_answer answer;
	uint8_t burst[BURST], in[PAYLOAD];
	struct nbd_wire_request wire = { .magic = be32_of(NBD_REQUEST_MAGIC),
					 .type = be16_of(NBD_CMD_WRITE), .cookie = be64_of(1),
					 .len_bytes = be32_of(PAYLOAD) };

	(void)unused;
	memcpy(burst, &wire, 28);
	wire.type = be16_of(NBD_CMD_FLUSH);
	wire.cookie = be64_of(2);
	memcpy(burst + 28 + PAYLOAD, &wire, 28);
	for (size_t cut = 1; cut < BURST; cut++) {
		fill(burst + 28, PAYLOAD, (unsigned)cut);
		ok(nbd_client_send(&client, burst, cut));
		(void)look_at(fixture);         /* the loop has had a turn */
		ok(nbd_client_send(&client, burst + cut, BURST - cut));
		for (int i = 0; i < 2; i++) {
			ok(nbd_client_answer(&client, &answer, NULL, 0));
			assert_int_equal(answer.error, 0);
		}
		ok(nbd_client_read(&client, 0, in, PAYLOAD));
		assert_memory_equal(in, burst + 28, PAYLOAD);
	}
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void check_pipelining(struct fixture *fixture, bool structured, unsigned depth)
{
	struct nbd_client client = started(fixture, structured);
	struct nbd_client_answer answer;
	uint8_t block[4096], in[4096];
	bool *seen = calloc(depth, sizeof(*seen));

	assert_non_null(seen);
	for (unsigned i = 0; i < depth; i++) {
		fill(block, sizeof(block), i);
		ok(nbd_client_request(&client, NBD_CMD_WRITE, 0, i, i * UINT64_C(4096), 4096));
		ok(nbd_client_send(&client, block, sizeof(block)));
	}
	for (unsigned i = 0; i < depth; i++) {
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.error, 0);
		assert_true(answer.cookie < depth);
		assert_false(seen[answer.cookie]);
		seen[answer.cookie] = true;
	}
	for (unsigned i = 0; i < depth; i++)
		ok(nbd_client_request(&client, NBD_CMD_READ, 0, i, i * UINT64_C(4096), 4096));
	for (unsigned i = 0; i < depth; i++) {
		ok(nbd_client_answer(&client, &answer, in, sizeof(in)));
		assert_int_equal(answer.error, 0);
		fill(block, sizeof(block), (unsigned)answer.cookie);
		assert_memory_equal(in, block, sizeof(in));
	}
	free(seen);
	nbd_client_close(&client);
}

static void test_pipelining(void **unused)
{
	struct fixture *fixture = fixture_usual();

	(void)unused;
	check_pipelining(fixture, false, 128);
	check_pipelining(fixture, true, 128);
	fixture_free(fixture);
}

/* More requests than objects: the rest waits in the socket, nothing is lost. */
static void test_requests_beyond_the_bound_wait(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client client;
	struct nbd_client_answer answer;

	(void)unused;
	fixture->options.max_requests = 4;
	fixture_start(fixture);
	client = started(fixture, false);
	device_hang(fixture, true);
	for (uint64_t i = 0; i < 20; i++)
		ok(nbd_client_request(&client, NBD_CMD_FLUSH, 0, i, 0, 0));
	wait_until(fixture, now, now.waiting == 4);
	device_hang(fixture, false);
	for (uint64_t i = 0; i < 20; i++) {
		ok(nbd_client_answer(&client, &answer, NULL, 0));
		assert_int_equal(answer.error, 0);
	}
	assert_int_equal(look_at(fixture).ops[BLK_FLUSH], 20);
	nbd_client_close(&client);
	fixture->options.max_requests = 0;
	fixture_free(fixture);
}

/* A pool smaller than what the client asks for at once: buffers are waited for, all is served. */
static void test_pool_exhausted(void **unused)
{
	struct fixture *fixture = fixture_new();
	struct nbd_client client, other;
	struct nbd_client_answer answer;
	uint8_t *data = malloc(8 << 20), block[4096];

	(void)unused;
	assert_non_null(data);
	fixture->pool_bytes = BUF_MAX_BYTES;
	fixture_start(fixture);
	client = started(fixture, true);
	other = started(fixture, true);
	for (uint64_t i = 0; i < 12; i++)
		ok(nbd_client_request(&client, NBD_CMD_READ, 0, i, i << 23, 8 << 20));
	for (uint64_t i = 0; i < 12; i++) {
		ok(nbd_client_answer(&client, &answer, data, 8 << 20));
		assert_int_equal(answer.error, 0);
	}
	/* One payload may need the whole pool: nothing else may be held while it waits. */
	free(data);
	data = malloc(MAX_BYTES);
	assert_non_null(data);
	fill(data, MAX_BYTES, 1);
	for (int i = 0; i < 3; i++)
		ok(nbd_client_write(&client, 0, data, MAX_BYTES, 0));
	ok(nbd_client_read(&other, 4096, block, sizeof(block)));
	assert_memory_equal(block, data + 4096, sizeof(block));
	free(data);
	nbd_client_close(&client);
	nbd_client_close(&other);
	fixture_free(fixture);
}

/* A client that never reads holds no more than its bound, and others are served meanwhile. */
static void test_client_that_never_reads(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client deaf = started(fixture, true), other = started(fixture, true);
	struct nbd_client_answer answer;
	uint8_t *data = malloc(4 << 20), block[4096];
	struct look look;

	(void)unused;
	assert_non_null(data);
	for (uint64_t i = 0; i < 100; i++)
		ok(nbd_client_request(&deaf, NBD_CMD_READ, 0, i, 0, 4 << 20));
	wait_until(fixture, now, now.ops[BLK_READ] >= 16 && now.in_flight == 0);
	for (int i = 0; i < 50; i++)
		ok(nbd_client_read(&other, 0, block, sizeof(block)));
	look = look_at(fixture);
	assert_true(look.pool_used <= (UINT64_C(65) << 20));
	assert_true(look.ops[BLK_READ] < 100);
	for (uint64_t i = 0; i < 100; i++) {    /* it wakes up: everything comes */
		ok(nbd_client_answer(&deaf, &answer, data, 4 << 20));
		assert_int_equal(answer.error, 0);
	}
	free(data);
	nbd_client_close(&deaf);
	nbd_client_close(&other);
	fixture_free(fixture);
}

/* An idle client holds no buffer. */
static void test_idle_holds_nothing(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	uint8_t block[4096];

	(void)unused;
	ok(nbd_client_read(&client, 0, block, sizeof(block)));
	wait_until(fixture, now, now.pool_used == 0 && now.spare_rx == 1);
	nbd_client_close(&client);
	fixture_free(fixture);
}

/* ---- going away ---- */

static void test_disc_answers_what_is_in_flight(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	struct nbd_client_answer answer;

	(void)unused;
	device_hang(fixture, true);
	ok(nbd_client_request(&client, NBD_CMD_FLUSH, 0, 1, 0, 0));
	ok(nbd_client_request(&client, NBD_CMD_DISC, 0, 2, 0, 0));
	ok(nbd_client_request(&client, NBD_CMD_FLUSH, 0, 3, 0, 0));     /* after the farewell */
	wait_until(fixture, now, now.waiting == 1);
	device_hang(fixture, false);
	ok(nbd_client_answer(&client, &answer, NULL, 0));
	assert_int_equal(answer.cookie, 1);
	/* What was left unread may make the kernel say reset instead of end. */
	ok(nbd_client_expect_end(&client));
	assert_int_equal(look_at(fixture).ops[BLK_FLUSH], 1);
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_vanishing_mid_message(void **unused)
{
	struct fixture *fixture = fixture_usual();
	uint8_t bytes[1 << 16] = { 0 };
	struct look look;

	(void)unused;
	for (int where = 0; where < 4; where++) {
		struct nbd_client client = started(fixture, true);

		if (where == 0)                 /* mid-header */
			ok(nbd_client_send(&client, bytes, 10));
		if (where >= 1)
			ok(nbd_client_request(&client, NBD_CMD_WRITE, 0, 1,
					      where == 3 ? DISK_BYTES : 0, 1 << 20));
		if (where >= 2)                 /* mid-payload; 3: of a refused one */
			ok(nbd_client_send(&client, bytes, sizeof(bytes)));
		nbd_client_close(&client);
		wait_until(fixture, now, now.connections == 0);
	}
	look = look_at(fixture);
	assert_int_equal(look.pool_used, 0);
	assert_int_equal(look.ops[BLK_WRITE], 0);       /* half a payload is no write */
	fixture_free(fixture);
}

/* The client dies, its requests do not: they complete at the device, then all is freed. */
static void test_vanishing_with_requests_in_flight(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client client = started(fixture, true);
	uint8_t block[4096];

	(void)unused;
	fill(block, sizeof(block), 9);
	device_hang(fixture, true);
	ok(nbd_client_request(&client, NBD_CMD_WRITE, 0, 1, 0, 4096));
	ok(nbd_client_send(&client, block, sizeof(block)));
	ok(nbd_client_request(&client, NBD_CMD_READ, 0, 2, 0, 4096));
	wait_until(fixture, now, now.waiting == 2);
	/* A broken frame kills the connection at once, with both in flight. */
	ok(nbd_client_send(&client, block, 28));
	ok(nbd_client_expect_end(&client));
	nbd_client_close(&client);
	assert_int_equal(look_at(fixture).connections, 1);      /* waits for the device */
	device_hang(fixture, false);
	wait_until(fixture, now, now.connections == 0);
	client = started(fixture, true);
	ok(nbd_client_read(&client, 0, block, sizeof(block)));
	{
		uint8_t expected[4096];

		fill(expected, sizeof(expected), 9);
		assert_memory_equal(block, expected, sizeof(block));
	}
	nbd_client_close(&client);
	fixture_free(fixture);
}

static void test_close_while_busy(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client busy = started(fixture, true), half = started(fixture, true);
	struct nbd_client greeting = connected(fixture);
	struct nbd_client_answer answer;
	uint8_t block[4096];

	(void)unused;
	fill(block, sizeof(block), 4);
	device_hang(fixture, true);
	ok(nbd_client_request(&busy, NBD_CMD_WRITE, 0, 1, 0, 4096));
	ok(nbd_client_send(&busy, block, sizeof(block)));
	ok(nbd_client_request(&half, NBD_CMD_WRITE, 0, 2, 8192, 8192));
	ok(nbd_client_send(&half, block, sizeof(block)));       /* half of it */
	wait_until(fixture, now, now.waiting == 1);
	fixture_begin_close(fixture);
	ok(nbd_client_expect_end(&half));
	assert_false(latch_wait(&fixture->closed, 20 * NS_PER_MS));     /* one is in flight */
	device_hang(fixture, false);
	ok(nbd_client_answer(&busy, &answer, NULL, 0));         /* and is answered */
	assert_int_equal(answer.error, 0);
	ok(nbd_client_expect_end(&busy));
	assert_true(latch_wait(&fixture->closed, 20 * NS_PER_S));
	assert_int_equal(look_at(fixture).ops[BLK_WRITE], 1);
	nbd_client_close(&busy);
	nbd_client_close(&half);
	nbd_client_close(&greeting);
	fixture_free(fixture);
}

/* Replies that nobody takes must not keep a closing server for ever. */
static void test_close_with_a_deaf_client(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client deaf = started(fixture, true);

	(void)unused;
	for (uint64_t i = 0; i < 4; i++)
		ok(nbd_client_request(&deaf, NBD_CMD_READ, 0, i, 0, 8 << 20));
	wait_until(fixture, now, now.ops[BLK_READ] == 4 && now.in_flight == 0);
	fixture_free(fixture);
	nbd_client_close(&deaf);
}

/* R-J7: a successor takes over the listening socket; who connects meanwhile is not refused. */
static void test_close_keeps_listening(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client old = started(fixture, true), new;
	int kept_fd = -1;

	(void)unused;
	fixture->keep_fd = &kept_fd;
	fixture_close_server(fixture);
	ok(nbd_client_expect_end(&old));
	nbd_client_close(&old);
	assert_int_equal(kept_fd, fixture->listen_fd);
	fixture->keep_fd = NULL;
	new = connected(fixture);
	fixture->listen_fd = kept_fd;
	fixture_start(fixture);
	ok(nbd_client_start(&new, "d1", true));
	ok(nbd_client_simple(&new, NBD_CMD_FLUSH, 0, 0, 0));
	nbd_client_close(&new);
	fixture_free(fixture);
}

static void test_two_connections_one_disk(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct nbd_client first = started(fixture, true), second = started(fixture, false);
	uint8_t out[4096], in[4096];

	(void)unused;
	assert_true(first.flags & NBD_FLAG_CAN_MULTI_CONN);
	for (unsigned i = 0; i < 20; i++) {
		fill(out, sizeof(out), i);
		ok(nbd_client_write(&first, i * UINT64_C(4096), out, sizeof(out), 0));
		/* Multi-conn: a flush on one covers what another was told is written. */
		ok(nbd_client_simple(&second, NBD_CMD_FLUSH, 0, 0, 0));
		assert_int_equal(look_at(fixture).ops[BLK_FLUSH], i + 1);
		ok(nbd_client_read(&second, i * UINT64_C(4096), in, sizeof(in)));
		assert_memory_equal(in, out, sizeof(in));
	}
	nbd_client_close(&first);
	nbd_client_close(&second);
	fixture_free(fixture);
}

/* ---- what an operator may get wrong ---- */

struct refused_new {
	struct fixture *fixture;
	struct nbd_server_options options;
	struct err err;
	int rc;
};

static void refused_new_run(void *user)
{
	struct refused_new *refused = user;
	struct fixture *fixture = refused->fixture;
	struct nbd_server *server = NULL;

	refused->rc = nbd_server_new(loop_thread_loop(fixture->thread), fixture->listen_fd,
				     &fixture->mem->dev, fixture->pool, &refused->options, &server,
				     &refused->err);
	CHECK(!server);
}

static void test_bad_options_are_refused(void **unused)
{
	struct fixture *fixture = fixture_usual();
	struct refused_new refused = { .fixture = fixture };
	char long_name[300];

	(void)unused;
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	loop_thread_call(fixture->thread, refused_new_run, &refused);
	assert_int_equal(refused.rc, -EINVAL);
	assert_int_equal(refused.err.id, ERR_BAD_NAME);
	refused.options.export_name = long_name;
	loop_thread_call(fixture->thread, refused_new_run, &refused);
	assert_int_equal(refused.err.id, ERR_BAD_NAME);
	refused.options.export_name = "d1";
	refused.options.max_requests = 100000;
	loop_thread_call(fixture->thread, refused_new_run, &refused);
	assert_int_equal(refused.err.id, ERR_USAGE);
	fixture_free(fixture);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_byte_at_a_time),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_pipelining),
		cmocka_unit_test(test_requests_beyond_the_bound_wait),
		cmocka_unit_test(test_pool_exhausted),
		cmocka_unit_test(test_client_that_never_reads),
		cmocka_unit_test(test_idle_holds_nothing),
		cmocka_unit_test(test_disc_answers_what_is_in_flight),
		cmocka_unit_test(test_vanishing_mid_message),
		cmocka_unit_test(test_vanishing_with_requests_in_flight),
		cmocka_unit_test(test_close_while_busy),
		cmocka_unit_test(test_close_with_a_deaf_client),
		cmocka_unit_test(test_close_keeps_listening),
		cmocka_unit_test(test_two_connections_one_disk),
		cmocka_unit_test(test_bad_options_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: rounds with their threads over real shared memory: everything arrives, holes stay holes
 * on both sides (R-E3), and every way to end is an end.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/base/loop.h"
#include "tests/lib/mem_child.h"
#include "vmotion/mem_attach.h"
#include "vmotion/mem_receive.h"
#include "vmotion/mem_rounds.h"

#define MIB (UINT64_C(1) << 20)
#define PAGE ((uint64_t)MEM_PAGE_BYTES)
#define STREAMS 3u
#define AWAIT_NS (30 * NS_PER_S)

enum link_mode { LINK_INLINE, LINK_THREAD, LINK_STUCK, LINK_BROKEN };

struct rig {
	struct mem_space source, target;
	uint8_t *bytes;                 /* of the source, for the guest */
	struct mem_tracker tracker;
	struct mem_link link;
	enum link_mode mode;
	struct mem_rounds *rounds;
	struct mem_receiver *receiver;
	struct mem_rounds_options options;
	/* of the link's thread */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct mem_buf *queue[STREAMS * MEM_STREAM_BUFS];
	uint32_t queue_count;
	bool ends;
	uint64_t sent_bytes;
};

/* ---- links ---- */

static void deliver(struct rig *rig, struct mem_buf *buf)
{
	struct err err = { 0 };
	int rc = mem_receiver_batch(rig->receiver, buf->stream, buf->bytes, buf->len_bytes, &err);

	mem_buf_done(buf, rc);
}

static void link_send(struct mem_link *link, struct mem_buf *buf)
{
	struct rig *rig = container_of(link, struct rig, link);

	__atomic_fetch_add(&rig->sent_bytes, buf->len_bytes, __ATOMIC_RELAXED);
	switch (rig->mode) {
	case LINK_INLINE:
		deliver(rig, buf);
		break;
	case LINK_BROKEN:
		mem_buf_done(buf, -EPIPE);
		break;
	default:
		pthread_mutex_lock(&rig->lock);
		rig->queue[rig->queue_count++] = buf;
		pthread_cond_broadcast(&rig->changed);
		pthread_mutex_unlock(&rig->lock);
	}
}

static const struct mem_link_ops link_ops = { .send = link_send };

static void *link_main(void *arg)
{
	struct rig *rig = arg;

	pthread_mutex_lock(&rig->lock);
	for (;;) {
		struct mem_buf *buf;

		while (!rig->ends && !rig->queue_count)
			pthread_cond_wait(&rig->changed, &rig->lock);
		if (!rig->queue_count)
			break;
		buf = rig->queue[0];
		memmove(rig->queue, rig->queue + 1, --rig->queue_count * sizeof(buf));
		pthread_mutex_unlock(&rig->lock);
		deliver(rig, buf);
		pthread_mutex_lock(&rig->lock);
	}
	pthread_mutex_unlock(&rig->lock);
	return NULL;
}

static void round_done(void *user, uint32_t round)
{
	struct rig *rig = user;

	mem_rounds_acknowledged(rig->rounds, round);
}

/* ---- life ---- */

static int new_memory(struct mem_space *space, uint64_t len_bytes)
{
	struct mem_block block = { .len_bytes = len_bytes, .backing_bytes = MEM_PAGE_BYTES };

	block.fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(block.fd >= 0);
	assert_int_equal(ftruncate(block.fd, (off_t)len_bytes), 0);
	assert_int_equal(fcntl(block.fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
	assert_int_equal(mem_space_add(space, &block), 0);
	return block.fd;
}

/* The spaces and the tracker are there; rounds, receiver and link come here. */
static void connect_rig(struct rig *rig, enum link_mode mode)
{
	struct mem_receiver_options receiver = {
		.stream_count = rig->options.stream_count, .round_done = round_done, .user = rig,
	};
	struct err err = { 0 };

	rig->mode = mode;
	rig->link.ops = &link_ops;
	pthread_mutex_init(&rig->lock, NULL);
	pthread_cond_init(&rig->changed, NULL);
	assert_int_equal(mem_rounds_new(&rig->source, &rig->tracker, &rig->link, &rig->options,
					&rig->rounds, &err), 0);
	assert_int_equal(mem_space_map(&rig->target, &err), 0);
	assert_int_equal(mem_receiver_new(&rig->target, &receiver, &rig->receiver, &err), 0);
	if (mode == LINK_THREAD)
		assert_int_equal(pthread_create(&rig->thread, NULL, link_main, rig), 0);
}

static void set_up(struct rig *rig, enum link_mode mode, uint64_t len_bytes)
{
	int fd;

	memset(rig, 0, sizeof(*rig));
	rig->options = (struct mem_rounds_options) {
		.stream_count = STREAMS, .codec = MEM_CODEC_AUTO, .cache_bytes = MIB, .hash_seed = 7,
	};
	mem_space_init(&rig->source);
	mem_space_init(&rig->target);
	fd = new_memory(&rig->source, len_bytes);
	new_memory(&rig->target, len_bytes);
	rig->bytes = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(rig->bytes != MAP_FAILED);
	assert_int_equal(mem_tracker_init_hash(&rig->tracker, &rig->source), 0);
	connect_rig(rig, mode);
}

static void tear_down(struct rig *rig)
{
	if (rig->mode == LINK_THREAD) {
		pthread_mutex_lock(&rig->lock);
		rig->ends = true;
		pthread_cond_broadcast(&rig->changed);
		pthread_mutex_unlock(&rig->lock);
		pthread_join(rig->thread, NULL);
	}
	mem_rounds_free(rig->rounds);
	mem_receiver_free(rig->receiver);
	mem_tracker_release(&rig->tracker);
	munmap(rig->bytes, rig->source.len_bytes);
	mem_space_release(&rig->source);
	mem_space_release(&rig->target);
	pthread_cond_destroy(&rig->changed);
	pthread_mutex_destroy(&rig->lock);
}

static void send_round(struct rig *rig)
{
	struct err err = { 0 };

	if (mem_rounds_harvest(rig->rounds, &err) || mem_rounds_send(rig->rounds, &err) ||
	    mem_rounds_await(rig->rounds, AWAIT_NS, &err))
		fail_msg("%s", err.cause);
}

static uint64_t allocated(const struct mem_space *space)
{
	struct stat stat;

	assert_int_equal(fstat(space->blocks[0].fd, &stat), 0);
	return (uint64_t)stat.st_blocks * 512;
}

/* Read through descriptors: the holes of both stay. */
static void assert_equal_memories(const struct rig *rig)
{
	uint8_t *a = malloc(MIB), *b = malloc(MIB);

	for (uint64_t at = 0; at < rig->source.len_bytes; at += MIB) {
		assert_int_equal(pread(rig->source.blocks[0].fd, a, MIB, (off_t)at), MIB);
		assert_int_equal(pread(rig->target.blocks[0].fd, b, MIB, (off_t)at), MIB);
		assert_memory_equal(a, b, MIB);
	}
	free(a);
	free(b);
}

static void noise(uint8_t *bytes, uint64_t len, uint64_t seed)
{
	for (uint64_t i = 0; i < len; i += 8) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(bytes + i, &seed, 8);
	}
}

/* ---- tests ---- */

static void test_holes_are_never_filled(void **unused)
{
	uint64_t before;
	struct rig rig;

	(void)unused;
	set_up(&rig, LINK_THREAD, 64 * MIB);
	for (uint64_t page = 0; page < 1000; page += 3)
		noise(rig.bytes + page * 7 * PAGE, PAGE, page);
	memset(rig.bytes + 60 * MIB, 0, 3 * MIB);       /* there, but zeroes */
	before = allocated(&rig.source);
	for (int i = 0; i < 3; i++) {
		send_round(&rig);
		assert_int_equal(allocated(&rig.source), before);       /* R-E3 */
		assert_int_equal(allocated(&rig.target), before - 3 * MIB);
		rig.bytes[0]++;
	}
	send_round(&rig);
	assert_equal_memories(&rig);
	assert_int_equal(allocated(&rig.target), before - 3 * MIB);
	tear_down(&rig);
}

/* What a balloon takes away is given back over there, and reads as zeroes. */
static void test_emptied_pages_are_given_back(void **unused)
{
	struct rig rig;

	(void)unused;
	set_up(&rig, LINK_INLINE, 16 * MIB);
	noise(rig.bytes, 8 * MIB, 1);
	send_round(&rig);
	assert_int_equal(fallocate(rig.source.blocks[0].fd, FALLOC_FL_PUNCH_HOLE |
				   FALLOC_FL_KEEP_SIZE, MIB, 3 * MIB), 0);
	send_round(&rig);
	assert_equal_memories(&rig);
	assert_int_equal(allocated(&rig.target), 5 * MIB);
	assert_int_equal(allocated(&rig.source), 5 * MIB);      /* R-E3 */
	tear_down(&rig);
}

/* What the receiving QEMU had in its memory is gone, also where the source has a hole. */
static void test_what_was_there_goes(void **unused)
{
	struct mem_receiver_options options = { .stream_count = 1 };
	struct mem_receiver *receiver;
	struct mem_space space;
	struct err err = { 0 };

	(void)unused;
	mem_space_init(&space);
	new_memory(&space, 4 * MIB);
	assert_int_equal(mem_space_map(&space, &err), 0);
	noise(space.blocks[0].bytes, MIB, 3);
	assert_int_equal(mem_receiver_new(&space, &options, &receiver, &err), 0);
	assert_int_equal(allocated(&space), 0);
	assert_true(mem_page_is_zero(space.blocks[0].bytes));
	mem_receiver_free(receiver);
	mem_space_release(&space);
}

static void test_memory_that_can_be_cut_is_not_received_into(void **unused)
{
	struct mem_block block = { .len_bytes = MIB, .backing_bytes = MEM_PAGE_BYTES };
	struct mem_space space;
	struct err err = { 0 };

	(void)unused;
	mem_space_init(&space);
	block.fd = memfd_create("unsealed", MFD_CLOEXEC);
	assert_int_equal(ftruncate(block.fd, MIB), 0);
	assert_int_equal(mem_space_add(&space, &block), 0);
	assert_true(mem_space_map(&space, &err) < 0);
	assert_int_equal(err.id, ERR_MEM_NOT_SHARED);
	mem_space_release(&space);
}

struct writer {
	struct rig *rig;
	bool stop;
	uint64_t writes;
};

/* Plain stores, as a guest makes them; the sender reads through its descriptor. */
static void *writer_main(void *arg)
{
	struct writer *writer = arg;
	uint64_t seed = 99;

	while (!__atomic_load_n(&writer->stop, __ATOMIC_ACQUIRE)) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(writer->rig->bytes + (seed >> 20) % (writer->rig->source.len_bytes / 8) * 8,
		       &seed, 8);
		writer->writes++;
	}
	return NULL;
}

static void run_writer(enum link_mode mode)
{
	struct mem_round_stats stats;
	struct writer writer;
	struct err err = { 0 };
	struct rig rig;
	pthread_t thread;

	set_up(&rig, mode, 16 * MIB);
	noise(rig.bytes, 4 * MIB, 5);
	memset(rig.bytes + 4 * MIB, 'x', 4 * MIB);
	writer = (struct writer) { .rig = &rig };
	assert_int_equal(pthread_create(&thread, NULL, writer_main, &writer), 0);
	for (int i = 0; i < 6; i++)
		send_round(&rig);
	__atomic_store_n(&writer.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	send_round(&rig);
	assert_equal_memories(&rig);
	assert_int_equal(mem_rounds_check_quiet(rig.rounds, &err), 0);
	mem_rounds_stats(rig.rounds, &stats);
	assert_int_equal(stats.rounds, 7);
	assert_int_equal(stats.wire_bytes, rig.sent_bytes);
	assert_true(stats.read_pages >= 7 * 2048);
	rig.bytes[5]++;
	assert_int_equal(mem_rounds_check_quiet(rig.rounds, &err), -ESTALE);    /* R-E1 */
	assert_int_equal(err.id, ERR_MEM_LATE_WRITE);
	assert_int_equal(mem_receiver_close(rig.receiver, 7, &err), 0);
	tear_down(&rig);
}

static void test_a_writer_beside_all_rounds(void **unused)
{
	(void)unused;
	run_writer(LINK_THREAD);
	run_writer(LINK_INLINE);
}

/* ---- ends ---- */

static void test_a_broken_link_ends_the_round(void **unused)
{
	struct err err = { 0 };
	struct rig rig;

	(void)unused;
	set_up(&rig, LINK_BROKEN, 16 * MIB);
	noise(rig.bytes, 8 * MIB, 1);
	assert_int_equal(mem_rounds_harvest(rig.rounds, &err), 0);
	assert_int_equal(mem_rounds_send(rig.rounds, &err), -EPIPE);
	assert_int_equal(err.id, ERR_MEM_SEND);
	assert_int_equal(mem_rounds_await(rig.rounds, AWAIT_NS, &err), -EPIPE);
	tear_down(&rig);
}

static void *cancel_main(void *arg)
{
	struct rig *rig = arg;

	/* Once the link holds all there is, every stream waits. */
	pthread_mutex_lock(&rig->lock);
	while (rig->queue_count < STREAMS * MEM_STREAM_BUFS)
		pthread_cond_wait(&rig->changed, &rig->lock);
	pthread_mutex_unlock(&rig->lock);
	mem_rounds_cancel(rig->rounds);
	return NULL;
}

static void test_a_stuck_link_holds_its_bound_and_can_be_cancelled(void **unused)
{
	struct err err = { 0 };
	struct rig rig;
	pthread_t thread;

	(void)unused;
	set_up(&rig, LINK_STUCK, 32 * MIB);
	noise(rig.bytes, 32 * MIB, 1);
	assert_int_equal(pthread_create(&thread, NULL, cancel_main, &rig), 0);
	assert_int_equal(mem_rounds_harvest(rig.rounds, &err), 0);
	assert_int_equal(mem_rounds_send(rig.rounds, &err), -ECANCELED);
	assert_int_equal(err.id, ERR_TASK_CANCELLED);
	pthread_join(thread, NULL);
	assert_int_equal(rig.queue_count, STREAMS * MEM_STREAM_BUFS);
	while (rig.queue_count)
		mem_buf_done(rig.queue[--rig.queue_count], -ECANCELED);
	tear_down(&rig);
}

static void test_an_answer_that_does_not_come_is_not_waited_for_for_ever(void **unused)
{
	struct err err = { 0 };
	struct rig rig;

	(void)unused;
	set_up(&rig, LINK_STUCK, MIB);
	assert_int_equal(mem_rounds_harvest(rig.rounds, &err), 0);
	assert_int_equal(mem_rounds_send(rig.rounds, &err), 0);
	assert_int_equal(mem_rounds_await(rig.rounds, NS_PER_MS, &err), -ETIMEDOUT);
	assert_int_equal(err.id, ERR_MEM_SEND);
	while (rig.queue_count)
		mem_buf_done(rig.queue[--rig.queue_count], 0);
	tear_down(&rig);
}

/* ---- the cap, by a clock of its own: each look is a ms later ---- */

static uint64_t fake_ns;

static uint64_t fake_clock(void)
{
	return __atomic_add_fetch(&fake_ns, NS_PER_MS, __ATOMIC_RELAXED);
}

static void test_the_cap_is_kept(void **unused)
{
	const uint64_t rate = 500 * MIB;
	uint64_t begun_ns, allowed;
	struct err err = { 0 };
	struct rig rig;

	(void)unused;
	set_up(&rig, LINK_INLINE, 32 * MIB);
	mem_rounds_free(rig.rounds);
	rig.options.now_ns = fake_clock;
	rig.options.cap_bytes_per_s = rate;
	begun_ns = __atomic_load_n(&fake_ns, __ATOMIC_RELAXED);
	assert_int_equal(mem_rounds_new(&rig.source, &rig.tracker, &rig.link, &rig.options,
					&rig.rounds, &err), 0);
	noise(rig.bytes, 32 * MIB, 1);
	send_round(&rig);
	/* A burst at first, and each stream may be a batch in debt. */
	allowed = (fake_ns - begun_ns) / NS_PER_MS * (rate / 1000) +
		  (2 + STREAMS) * MEM_BATCH_MAX_BYTES;
	assert_true(rig.sent_bytes >= 32 * MIB);
	assert_true(rig.sent_bytes <= allowed);
	assert_equal_memories(&rig);
	tear_down(&rig);
}

/* ---- a process that is tracked by the kernel ---- */

static void test_a_tracked_process_arrives(void **unused)
{
	struct mem_attach_options options = { .tracker = MEM_TRACKER_KERNEL };
	struct mem_round_stats stats, before;
	struct mem_attach *attach;
	struct mem_child child;
	struct err err = { 0 };
	struct rig rig;

	(void)unused;
	assert_true(mem_child_start(&child, 32 * MIB, 0));
	options.pid = child.pid;
	noise(child.bytes, 20 * MIB, 3);
	(void)mem_child_do(&child, MEM_CHILD_COLLAPSE, 0, 16 * MIB);
	if (mem_attach_new(&options, &attach, &err)) {
		mem_child_end(&child);
		assert_true(err.id == ERR_MEM_KERNEL || err.id == ERR_MEM_PERMISSION);
		skip();
	}
	set_up(&rig, LINK_THREAD, 32 * MIB);
	mem_rounds_free(rig.rounds);
	assert_int_equal(mem_rounds_new(mem_attach_space(attach), mem_attach_tracker(attach),
					&rig.link, &rig.options, &rig.rounds, &err), 0);
	send_round(&rig);
	mem_rounds_stats(rig.rounds, &before);
	for (uint64_t i = 0; i < 40; i++)
		mem_child_do(&child, MEM_CHILD_WRITE, i * 131 * PAGE, i);
	mem_child_do(&child, MEM_CHILD_PUNCH, 4 * MIB, 2 * MIB);        /* a huge page's balloon */
	mem_child_do(&child, MEM_CHILD_PUNCH, 17 * MIB, 3 * PAGE);
	send_round(&rig);
	mem_rounds_stats(rig.rounds, &stats);
	/* Huge pages are told whole; what had not changed was not sent. */
	assert_true(stats.stored_pages + stats.packed_pages + stats.delta_pages -
		    before.stored_pages - before.packed_pages - before.delta_pages <= 40);
	assert_int_equal(mem_rounds_check_quiet(rig.rounds, &err), 0);
	for (uint64_t at = 0; at < 32 * MIB; at += PAGE)
		assert_memory_equal(child.bytes + at, rig.target.blocks[0].bytes + at, PAGE);
	mem_child_do(&child, MEM_CHILD_WRITE, 30 * MIB, 1);
	assert_int_equal(mem_rounds_check_quiet(rig.rounds, &err), -ESTALE);
	tear_down(&rig);
	mem_attach_free(attach);
	mem_child_end(&child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_holes_are_never_filled),
		cmocka_unit_test(test_emptied_pages_are_given_back),
		cmocka_unit_test(test_what_was_there_goes),
		cmocka_unit_test(test_memory_that_can_be_cut_is_not_received_into),
		cmocka_unit_test(test_a_writer_beside_all_rounds),
		cmocka_unit_test(test_a_broken_link_ends_the_round),
		cmocka_unit_test(test_a_stuck_link_holds_its_bound_and_can_be_cancelled),
		cmocka_unit_test(test_an_answer_that_does_not_come_is_not_waited_for_for_ever),
		cmocka_unit_test(test_the_cap_is_kept),
		cmocka_unit_test(test_a_tracked_process_arrives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

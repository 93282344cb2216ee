/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: against real servers (qemu-nbd, nbdkit) the NBD client reads what was written,
 * tells holes from data, and loses nothing it should not when a server dies.
 * Method: random requests, many at once, against a copy in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "blkmirror/blkdev/blk_nbd.h"

#define LONG_NS (30 * NS_PER_S)
#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (8 * MIB)
#define ARGS_MAX 32

struct rig {
	char dir[64];
	char path[96], socket[96];
	pid_t server;                   /* 0: none */
	struct loop *loop;
	struct blk_dev *dev;
	uint64_t done_count, wanted;
};

static struct rig *current;

/* ---- servers: each gets a socket that listens already, so nobody waits for it to be up ---- */

static bool have_program(const char *name)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", name);
	return system(command) == 0;
}

static int run_program(const char *const *args)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execvp(args[0], (char *const *)(uintptr_t)args);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/* Socket activation: the socket is descriptor 3. */
static void become_server(int listen_fd, const char *const *args)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_PID", pid, 1);
	unsetenv("LISTEN_FDNAMES");
	if (listen_fd == 3)
		fcntl(listen_fd, F_SETFD, 0);
	else
		dup2(listen_fd, 3);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(args[0], (char *const *)(uintptr_t)args);
	_exit(127);
}

static void server_stop(struct rig *rig)
{
	int status;

	if (!rig->server)
		return;
	kill(rig->server, SIGKILL);
	waitpid(rig->server, &status, 0);
	rig->server = 0;
	unlink(rig->socket);
}

/* Runs args (NULL-terminated); skips the test where the program is missing. */
static void server_start(struct rig *rig, const char *const *args)
{
	int listen_fd;

	if (!have_program(args[0])) {
		print_message("%s is not installed\n", args[0]);
		skip();
	}
	listen_fd = listen_at(rig->socket);
	rig->server = fork();
	if (rig->server == 0)
		become_server(listen_fd, args);
	close(listen_fd);
	assert_true(rig->server > 0);
}

static void start_nbdkit(struct rig *rig, const char *const *more)
{
	const char *args[ARGS_MAX] = { "nbdkit" };
	size_t count = 1;

	for (; *more; more++)
		args[count++] = *more;
	server_start(rig, args);
}
#define START_NBDKIT(rig, ...) start_nbdkit(rig, (const char *const[]){ __VA_ARGS__, NULL })

static void start_qemu_nbd(struct rig *rig, const char *format, bool read_only)
{
	const char *args[ARGS_MAX] = { "qemu-nbd", "--persistent", "--discard=unmap", "-f", format,
				       rig->path, read_only ? "-r" : NULL };

	server_start(rig, args);
}

static void make_image(struct rig *rig, const char *format, const char *size)
{
	if (!have_program("qemu-img")) {
		print_message("qemu-img is not installed\n");
		skip();
	}
	assert_int_equal(run_program((const char *const[]){ "qemu-img", "create", "-q", "-f",
							    format, rig->path, size, NULL }), 0);
}

/* ---- the rig ---- */

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	alarm(300);
	snprintf(rig->dir, sizeof(rig->dir), "/tmp/blk_nbd.XXXXXX");
	if (!mkdtemp(rig->dir))
		return -1;
	snprintf(rig->path, sizeof(rig->path), "%s/disk", rig->dir);
	snprintf(rig->socket, sizeof(rig->socket), "%s/nbd.sock", rig->dir);
	rig->loop = loop_new();
	*state = current = rig;
	return 0;
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;

	blk_close(rig->dev);
	server_stop(rig);
	loop_free(rig->loop);
	unlink(rig->path);
	unlink(rig->socket);
	rmdir(rig->dir);
	free(rig);
	return 0;
}

static int rig_connect(struct rig *rig, bool read_only, struct blk_nbd_link **link, struct err *err)
{
	char uri[160];

	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", rig->socket);
	return blk_nbd_connect(uri, read_only, LONG_NS, link, err);
}

static void rig_open(struct rig *rig)
{
	const struct blk_nbd_options options = { 0 };
	struct blk_nbd_link *link;
	struct err err = { 0 };

	if (rig_connect(rig, false, &link, &err) ||
	    blk_nbd_new(rig->loop, link, &options, &rig->dev, &err))
		fail_msg("%s", err.cause);
	assert_int_equal(rig->dev->size_bytes, blk_nbd_link_size_bytes(link));
}

struct guest_req {
	struct blk_req req;
	struct iovec iov[BLK_MAX_IOV];
	struct blk_extents extents;
	struct blk_extent runs[16];
	uint8_t *bytes;
	bool inside_submit, busy;
	void (*check)(struct guest_req *guest);
	uint64_t from_bytes;            /* of its part of the disk */
};

static void guest_done(struct blk_req *req)
{
	struct guest_req *guest = container_of(req, struct guest_req, req);

	assert_false(guest->inside_submit);
	assert_true(guest->busy);
	guest->busy = false;
	if (guest->check)
		guest->check(guest);
	if (++current->done_count == current->wanted)
		loop_stop(current->loop);
}

static void guest_submit(struct rig *rig, struct guest_req *guest)
{
	guest->req.done = guest_done;
	guest->busy = guest->inside_submit = true;
	blk_submit(rig->dev, &guest->req);
	guest->inside_submit = false;
}

static void rig_await(struct rig *rig, uint64_t count)
{
	rig->wanted = count;
	if (rig->done_count < count)
		loop_run(rig->loop);
	assert_int_equal(rig->done_count, count);
	rig->done_count = 0;
}

static int guest_run(struct rig *rig, struct guest_req *guest, enum blk_op op, unsigned flags,
		     uint64_t offset_bytes, uint64_t len_bytes)
{
	guest->check = NULL;
	guest->iov[0] = (struct iovec){ guest->bytes, len_bytes };
	guest->extents = (struct blk_extents){ guest->runs, ARRAY_COUNT(guest->runs), 0 };
	guest->req = (struct blk_req){ .op = op, .flags = flags, .offset_bytes = offset_bytes,
				       .len_bytes = len_bytes, .iov = guest->iov, .iov_count = 1,
				       .extents = &guest->extents };
	guest_submit(rig, guest);
	rig_await(rig, 1);
	return guest->req.result;
}

/* ---- random requests against a shadow ---- */

#define GUESTS 16
#define PART_BYTES (DISK_BYTES / GUESTS)
#define OPERATIONS 3000

static uint8_t shadow[DISK_BYTES];
static uint8_t pattern;

static uint64_t random_blocks(struct rig *rig, uint64_t most_bytes)
{
	uint64_t block_bytes = rig->dev->limits.block_bytes;
	uint64_t most = most_bytes / block_bytes;

	/* Small ones often, the largest now and then. */
	if (loop_random_below(rig->loop, 4))
		most = MIN(most, UINT64_C(8));
	return (1 + loop_random_below(rig->loop, most)) * block_bytes;
}

/* Cut [bytes, bytes + len) into pieces: one, some long, or many of any odd length. */
static void random_iov(struct rig *rig, struct guest_req *guest, uint64_t len_bytes)
{
	const uint64_t choices_bytes[] = { len_bytes, 65536, 700 };
	uint64_t most_bytes = choices_bytes[loop_random_below(rig->loop, 3)];
	uint64_t at_bytes = 0;
	uint32_t count = 0;

	while (at_bytes < len_bytes) {
		uint64_t piece_bytes = MIN(1 + loop_random_below(rig->loop, most_bytes),
					   len_bytes - at_bytes);

		if (count == BLK_MAX_IOV - 2 || most_bytes == len_bytes)
			piece_bytes = len_bytes - at_bytes;
		guest->iov[count++] = (struct iovec){ guest->bytes + at_bytes, piece_bytes };
		at_bytes += piece_bytes;
		if (count == 1 && most_bytes == 700)    /* an empty piece does no harm */
			guest->iov[count++] = (struct iovec){ guest->bytes, 0 };
	}
	guest->req.iov = guest->iov;
	guest->req.iov_count = count;
}

static void check_read(struct guest_req *guest)
{
	assert_int_equal(guest->req.result, 0);
	assert_memory_equal(guest->bytes, shadow + guest->req.offset_bytes, guest->req.len_bytes);
}

static void check_written(struct guest_req *guest)
{
	assert_int_equal(guest->req.result, 0);
}

/* Whatever is told to be zero is; runs follow each other inside the request. */
static void check_extents(struct guest_req *guest)
{
	uint64_t at = guest->req.offset_bytes;

	assert_int_equal(guest->req.result, 0);
	assert_in_range(guest->extents.count, 1, guest->extents.capacity);
	for (uint32_t i = 0; i < guest->extents.count; i++) {
		uint64_t end = at + guest->runs[i].len_bytes;

		assert_true(end > at);
		assert_true(end <= guest->req.offset_bytes + guest->req.len_bytes);
		for (; at < end; at++)
			if (guest->runs[i].status != BLK_EXTENT_DATA)
				assert_int_equal(shadow[at], 0);
	}
}

static void guest_next(struct rig *rig, struct guest_req *guest)
{
	static const enum blk_op ops[] = { BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_WRITE,
					   BLK_WRITE_ZEROES, BLK_FLUSH, BLK_EXTENTS };
	enum blk_op op = ops[loop_random_below(rig->loop, ARRAY_COUNT(ops))];
	uint64_t len_bytes = random_blocks(rig, PART_BYTES);
	uint64_t start_bytes = loop_random_below(rig->loop, PART_BYTES - len_bytes + 1);
	uint8_t *shadowed;

	start_bytes = guest->from_bytes + start_bytes / rig->dev->limits.block_bytes *
						 rig->dev->limits.block_bytes;
	shadowed = shadow + start_bytes;
	guest->req = (struct blk_req){ .op = op, .offset_bytes = start_bytes,
				       .len_bytes = len_bytes };
	guest->check = check_written;
	if (loop_random_below(rig->loop, 4) == 0 && (op == BLK_WRITE || op == BLK_WRITE_ZEROES))
		guest->req.flags |= BLK_FUA;
	if (op == BLK_READ) {
		memset(guest->bytes, 0xee, len_bytes);
		random_iov(rig, guest, len_bytes);
		guest->check = check_read;
	} else if (op == BLK_WRITE) {
		for (uint64_t i = 0; i < len_bytes; i++)
			guest->bytes[i] = (uint8_t)(pattern + i / 512 + i % 7);
		pattern += 41;
		memcpy(shadowed, guest->bytes, len_bytes);
		random_iov(rig, guest, len_bytes);
	} else if (op == BLK_WRITE_ZEROES) {
		memset(shadowed, 0, len_bytes);
		if (loop_random_below(rig->loop, 2))
			guest->req.flags |= BLK_MAY_UNMAP;
	} else if (op == BLK_EXTENTS) {
		guest->extents = (struct blk_extents){
			guest->runs, 1 + (uint32_t)loop_random_below(rig->loop, 16), 0 };
		guest->req.extents = &guest->extents;
		guest->check = check_extents;
	}
	guest_submit(rig, guest);
}

static struct guest_req guests[GUESTS];

static void guests_init(void)
{
	for (unsigned i = 0; i < GUESTS; i++) {
		guests[i] = (struct guest_req){ .from_bytes = i * PART_BYTES };
		guests[i].bytes = malloc(PART_BYTES);
	}
}

static void guests_free(void)
{
	for (unsigned i = 0; i < GUESTS; i++)
		free(guests[i].bytes);
}

/* Each guest keeps to its own part: nothing overlaps, everything else is concurrent. */
static void assert_shadowed(struct rig *rig)
{
	struct guest_req whole = { 0 };

	memset(shadow, 0, sizeof(shadow));
	guests_init();
	for (unsigned round = 0; round < OPERATIONS / GUESTS; round++) {
		for (unsigned i = 0; i < GUESTS; i++)
			guest_next(rig, &guests[i]);
		rig_await(rig, GUESTS);
	}
	guests_free();
	whole.bytes = malloc(DISK_BYTES);
	assert_int_equal(guest_run(rig, &whole, BLK_READ, 0, 0, DISK_BYTES), 0);
	assert_memory_equal(whole.bytes, shadow, DISK_BYTES);
	free(whole.bytes);
}

static void test_qemu_raw(void **state)
{
	struct rig *rig = *state;

	make_image(rig, "raw", "8M");
	start_qemu_nbd(rig, "raw", false);
	rig_open(rig);
	assert_true(rig->dev->limits.has_extents);
	assert_true(rig->dev->limits.can_unmap);
	assert_shadowed(rig);
}

static void test_qemu_qcow2(void **state)
{
	struct rig *rig = *state;

	make_image(rig, "qcow2", "8M");
	start_qemu_nbd(rig, "qcow2", false);
	rig_open(rig);
	assert_shadowed(rig);
}

static void test_nbdkit_memory(void **state)
{
	struct rig *rig = *state;

	START_NBDKIT(rig, "memory", "8M");
	rig_open(rig);
	assert_int_equal(rig->dev->limits.block_bytes, 512);
	assert_shadowed(rig);
}

/* A server that refuses everything beyond its limits, instead of splitting by itself. */
static void test_nbdkit_strict_block_sizes(void **state)
{
	struct rig *rig = *state;

	START_NBDKIT(rig, "--filter=blocksize-policy", "memory", "8M", "blocksize-minimum=4096",
		     "blocksize-preferred=16384", "blocksize-maximum=65536",
		     "blocksize-error-policy=error");
	rig_open(rig);
	assert_int_equal(rig->dev->limits.block_bytes, 4096);
	assert_int_equal(rig->dev->limits.physical_bytes, 16384);
	assert_int_equal(rig->dev->limits.best_transfer_bytes, 65536);
	assert_shadowed(rig);
}

static void test_nbdkit_without_the_extras(void **state)
{
	struct rig *rig = *state;

	START_NBDKIT(rig, "--filter=nozero", "--filter=noextents", "--filter=fua", "memory", "8M");
	rig_open(rig);
	assert_false(rig->dev->limits.can_unmap);
	assert_shadowed(rig);
}

/* Answers that come late and out of order, and a send buffer that fills up. */
static void test_nbdkit_slow(void **state)
{
	struct rig *rig = *state;

	START_NBDKIT(rig, "-t", "8", "--filter=delay", "memory", "8M", "rdelay=2ms", "wdelay=1ms");
	rig_open(rig);
	assert_shadowed(rig);
}

/* ---- extents and space ---- */

static void test_sparse_qcow2(void **state)
{
	/* qemu counts zeroes that keep their clusters as holes, too. */
	static const struct blk_extent wanted[] = {
		{ 1 * MIB, BLK_EXTENT_HOLE },
		{ 64 << 10, BLK_EXTENT_DATA },
		{ 7 * MIB - (64 << 10), BLK_EXTENT_HOLE },
	};
	struct rig *rig = *state;
	struct guest_req guest = { .bytes = malloc(MIB) };
	uint64_t at = 0, run_end = 0;
	unsigned index = 0;

	make_image(rig, "qcow2", "8M");
	start_qemu_nbd(rig, "qcow2", false);
	rig_open(rig);
	memset(guest.bytes, 7, MIB);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, MIB, 64 << 10), 0);
	/* Zeroes that keep their space: clusters first, then no-hole zeroes over them. */
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 4 * MIB, 128 << 10), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, 0, 4 * MIB, 128 << 10), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 6 * MIB, 128 << 10), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_MAY_UNMAP, 6 * MIB,
				   128 << 10), 0);
	while (at < DISK_BYTES) {               /* answers may stop early: ask on */
		assert_int_equal(guest_run(rig, &guest, BLK_EXTENTS, 0, at, DISK_BYTES - at), 0);
		for (uint32_t i = 0; i < guest.extents.count; i++) {
			run_end = at + guest.runs[i].len_bytes;
			while (at < run_end) {
				uint64_t index_end = 0;

				for (unsigned j = 0; j <= index; j++)
					index_end += wanted[j].len_bytes;
				if (guest.runs[i].status != wanted[index].status)
					fail_msg("%u at %llu", guest.runs[i].status,
						 (unsigned long long)at);
				at = MIN(run_end, index_end);
				index += at == index_end;
			}
		}
	}
	assert_int_equal(index, ARRAY_COUNT(wanted));
	free(guest.bytes);
}

static uint64_t file_space_bytes(const struct rig *rig)
{
	struct stat stat_buf;

	assert_int_equal(stat(rig->path, &stat_buf), 0);
	return (uint64_t)stat_buf.st_blocks * 512;
}

static void test_zeroes_give_space_back_only_if_they_may(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest = { .bytes = malloc(4 * MIB) };

	make_image(rig, "raw", "8M");
	start_qemu_nbd(rig, "raw", false);
	rig_open(rig);
	memset(guest.bytes, 7, 4 * MIB);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, BLK_FUA, 0, 4 * MIB), 0);
	assert_true(file_space_bytes(rig) >= 4 * MIB);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_FUA, 0, 4 * MIB), 0);
	assert_true(file_space_bytes(rig) >= 4 * MIB);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_FUA | BLK_MAY_UNMAP, 0,
				   4 * MIB), 0);
	assert_true(file_space_bytes(rig) < MIB);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, BLK_FUA, 0, 4 * MIB), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_DISCARD, 0, 0, 4 * MIB), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_FLUSH, 0, 0, 0), 0);
	assert_true(file_space_bytes(rig) < MIB);
	free(guest.bytes);
}

/* Longer than the 32 bits of a command's length. */
static void test_zeroes_and_extents_of_a_large_disk(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest = { .bytes = malloc(4096) };
	const uint64_t size_bytes = UINT64_C(62) << 40;

	START_NBDKIT(rig, "memory", "62T");
	rig_open(rig);
	assert_int_equal(rig->dev->size_bytes, size_bytes);
	memset(guest.bytes, 7, 4096);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, size_bytes - 4096, 4096), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, UINT64_C(5) << 30, 4096), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE_ZEROES, BLK_MAY_UNMAP, 0,
				   UINT64_C(20) << 30), 0);
	assert_int_equal(guest_run(rig, &guest, BLK_READ, 0, UINT64_C(5) << 30, 4096), 0);
	assert_int_equal(guest.bytes[0], 0);
	assert_int_equal(guest_run(rig, &guest, BLK_READ, 0, size_bytes - 4096, 4096), 0);
	assert_int_equal(guest.bytes[4095], 7);
	assert_int_equal(guest_run(rig, &guest, BLK_EXTENTS, 0, 0, size_bytes), 0);
	assert_int_equal(guest.runs[0].status, BLK_EXTENT_HOLE);
	free(guest.bytes);
}

/* ---- errors ---- */

static void test_server_killed_in_flight(void **state)
{
	static struct guest_req many[80];
	struct rig *rig = *state;
	struct guest_req late = { .bytes = malloc(4096) };

	START_NBDKIT(rig, "--filter=delay", "memory", "8M", "rdelay=100", "wdelay=100",
		     "delay-zero=100");
	rig_open(rig);
	for (unsigned i = 0; i < ARRAY_COUNT(many); i++) {
		struct guest_req *guest = &many[i];

		guest->bytes = late.bytes;      /* nobody will read it */
		guest->iov[0] = (struct iovec){ guest->bytes, 4096 };
		guest->req = (struct blk_req){
			.op = (enum blk_op[]){ BLK_READ, BLK_WRITE, BLK_WRITE_ZEROES }[i % 3],
			.offset_bytes = i * 4096u, .len_bytes = 4096, .iov = guest->iov,
			.iov_count = 1 };
		guest_submit(rig, guest);
	}
	kill(rig->server, SIGKILL);
	rig_await(rig, ARRAY_COUNT(many));
	for (unsigned i = 0; i < ARRAY_COUNT(many); i++)
		assert_int_equal(many[i].req.result, -EIO);
	assert_true(blk_nbd_is_dead(rig->dev));
	assert_int_equal(guest_run(rig, &late, BLK_WRITE, 0, 0, 512), -EIO);
	assert_int_equal(guest_run(rig, &late, BLK_FLUSH, 0, 0, 0), -EIO);
	free(late.bytes);
}

static void ask_again(struct timer *timer)
{
	if (blk_nbd_is_dead(current->dev))
		loop_stop(current->loop);
	else
		timer_start(timer, NS_PER_MS);
}

/* Nothing in flight: the loss is noticed all the same. */
static void test_server_killed_when_idle(void **state)
{
	struct rig *rig = *state;
	struct timer timer;

	START_NBDKIT(rig, "memory", "8M");
	rig_open(rig);
	assert_false(blk_nbd_is_dead(rig->dev));
	kill(rig->server, SIGKILL);
	timer_init(&timer, rig->loop, ask_again);
	timer_start(&timer, 0);
	loop_run(rig->loop);
	assert_true(blk_nbd_is_dead(rig->dev));
}

static void test_server_errors(void **state)
{
	struct rig *rig = *state;
	struct guest_req guest = { .bytes = malloc(MIB) };

	START_NBDKIT(rig, "--filter=error", "memory", "8M", "error-pwrite=ENOSPC",
		     "error-pwrite-rate=100%", "error-pread=EIO", "error-pread-rate=100%");
	rig_open(rig);
	assert_int_equal(guest_run(rig, &guest, BLK_WRITE, 0, 0, 4096), -ENOSPC);
	assert_int_equal(guest_run(rig, &guest, BLK_READ, 0, 0, 4096), -EIO);
	assert_int_equal(guest_run(rig, &guest, BLK_FLUSH, 0, 0, 0), 0);
	assert_false(blk_nbd_is_dead(rig->dev));
	free(guest.bytes);
}

static void test_read_only(void **state)
{
	const struct blk_nbd_options options = { .read_only = true, .name = "x" };
	struct rig *rig = *state;
	struct blk_nbd_link *link = NULL;
	struct guest_req guest = { .bytes = malloc(4096) };
	struct err err = { 0 };

	make_image(rig, "raw", "8M");
	start_qemu_nbd(rig, "raw", true);
	assert_int_equal(rig_connect(rig, false, &link, &err), -EROFS);
	assert_int_equal(err.id, ERR_NBD_READ_ONLY);
	assert_null(link);
	assert_int_equal(rig_connect(rig, true, &link, &err), 0);
	assert_true(blk_nbd_link_read_only(link));
	assert_int_equal(blk_nbd_new(rig->loop, link, &options, &rig->dev, &err), 0);
	assert_true(rig->dev->limits.read_only);
	assert_int_equal(guest_run(rig, &guest, BLK_READ, 0, 0, 4096), 0);
	free(guest.bytes);
}

static void test_no_such_export(void **state)
{
	struct rig *rig = *state;
	struct blk_nbd_link *link = NULL;
	struct err err = { 0 };
	char uri[160];

	make_image(rig, "raw", "8M");
	start_qemu_nbd(rig, "raw", false);
	snprintf(uri, sizeof(uri), "nbd+unix:///other?socket=%s", rig->socket);
	assert_true(blk_nbd_connect(uri, false, LONG_NS, &link, &err) < 0);
	assert_int_equal(err.id, ERR_NBD_CONNECT);
	assert_null(link);
	assert_int_equal(rig_connect(rig, false, &link, &err), 0);      /* the server lives on */
	blk_nbd_link_free(link);
}

static void test_odd_size(void **state)
{
	struct rig *rig = *state;
	struct blk_nbd_link *link = NULL;
	struct err err = { 0 };

	START_NBDKIT(rig, "memory", "1000001");
	assert_int_equal(rig_connect(rig, false, &link, &err), -EINVAL);
	assert_int_equal(err.id, ERR_DISK_BAD_SIZE);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_qemu_raw),
		CASE(test_qemu_qcow2),
		CASE(test_nbdkit_memory),
		CASE(test_nbdkit_strict_block_sizes),
		CASE(test_nbdkit_without_the_extras),
		CASE(test_nbdkit_slow),
		CASE(test_sparse_qcow2),
		CASE(test_zeroes_give_space_back_only_if_they_may),
		CASE(test_zeroes_and_extents_of_a_large_disk),
		CASE(test_server_killed_in_flight),
		CASE(test_server_killed_when_idle),
		CASE(test_server_errors),
		CASE(test_read_only),
		CASE(test_no_such_export),
		CASE(test_odd_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

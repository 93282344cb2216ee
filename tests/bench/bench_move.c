/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_move SOCKET FILE [SPIN_US] - one disk behind our NBD export, moved when told to.
 *
 * What the daemon does with one attached disk, without the daemon: blk_file, gate, NBD
 * server and mover on one loop, the target on its submit thread, a durable switch record.
 * The export is called "d1".  The benchmarks talk to it by lines on stdin:
 *
 *     move TARGET     make TARGET anew, move there, and hold when in sync
 *     complete        lift the hold
 *     quit            end
 *
 * and read one JSON document a line from stdout, at "ready" (clients may come), "started",
 * "synced", "done" (the disk is TARGET now), "closed" (and its old source is) and "failed".
 * ns is the monotonic clock.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/blkdev/blk_file.h"
#include "blkmirror/base/worker.h"
#include "blkmirror/export/nbd_server.h"
#include "blkmirror/mirror/mover.h"

#define POOL_BYTES (UINT64_C(64) << 20)         /* the daemon's share for an I/O thread */
#define RECORD_BYTES 4096

struct bench {
	struct loop *loop;
	struct buf_pool *pool;
	struct nbd_server *server;
	struct gate *gate;
	struct blk_dev *disk;
	struct blk_dev *target;         /* NULL: no move; at last the old source, being closed */
	struct mover *mover;
	struct io_snapshot felt;        /* by the guest until the move began, or the bench */
	uint64_t alone_p99_ns;
	enum mover_state told;
	bool quitting;

	struct watch commands;
	char line[4096];
	size_t line_bytes;

	struct worker *worker;          /* writes the switch record */
	struct job record;
	int record_fd;
	int record_result;
};

/* ---- saying ---- */

static void say(struct bench *bench, const char *event, const char *format, ...)
	PRINTF_LIKE(3, 4);

static void say(struct bench *bench, const char *event, const char *format, ...)
{
	va_list args;

	printf("{\"event\":\"%s\",\"ns\":%" PRIu64, event, loop_now_ns(bench->loop));
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	puts("}");
	fflush(stdout);
}

static void die(const char *what, int rc)
{
	fprintf(stderr, "bench_move: %s: %s\n", what, strerror(-rc));
	exit(1);
}

/* ---- devices ---- */

static struct blk_dev *open_disk(struct bench *bench, const char *path, uint64_t new_size_bytes)
{
	struct blk_file_options options = {
		.submit_thread = new_size_bytes != 0, .reads_zero = new_size_bytes != 0,
		.name = path,
	};
	int flags = O_RDWR | O_CLOEXEC | O_DIRECT | (new_size_bytes ? O_CREAT | O_TRUNC : 0);
	int fd = open(path, flags, 0600);
	struct blk_dev *dev;
	struct err err;

	if (fd < 0)
		die(path, -errno);
	if (new_size_bytes && ftruncate(fd, (off_t)new_size_bytes) != 0)
		die(path, -errno);
	if (blk_file_new(bench->loop, fd, &options, &dev, &err)) {
		fprintf(stderr, "bench_move: %s\n", err.cause);
		exit(1);
	}
	return dev;
}

/* ---- a move ---- */

/* As the daemon's record: in place, of a file that has been there in full. */
static int record_put(struct bench *bench)
{
	static char record[RECORD_BYTES] __attribute__((aligned(RECORD_BYTES))) = "record";

	return pwrite(bench->record_fd, record, sizeof(record), 0) == sizeof(record) ? 0 : -EIO;
}

static void record_write(struct job *job)
{
	struct bench *bench = container_of(job, struct bench, record);

	bench->record_result = record_put(bench);
}

static void record_written(struct job *job)
{
	struct bench *bench = container_of(job, struct bench, record);

	mover_committed(bench->mover, bench->record_result);
}

static void move_commit(struct mover *mover, void *user)
{
	struct bench *bench = user;

	(void)mover;
	worker_submit(bench->worker, &bench->record);
}

static void bench_end(struct bench *bench)
{
	nbd_server_close(bench->server, NULL, (void (*)(void *))loop_stop, bench->loop);
}

static void old_closed(void *user)
{
	struct bench *bench = user;

	bench->target = NULL;
	say(bench, "closed", "%s", "");
	if (bench->quitting)
		bench_end(bench);
}

/* The disk is authoritative now: it serves the guest without the hop to its thread. */
static void disk_drained(struct gate *gate, void *user)
{
	struct bench *bench = user;

	if (blk_file_set_submit_thread(bench->disk, false) != 0)
		die("submit thread", -EIO);
	gate_release(gate);
	blk_file_close_later(bench->target, old_closed, bench);
}

static void move_freed(void *user)
{
	struct bench *bench = user;
	struct blk_dev *old = bench->disk;

	bench->mover = NULL;
	bench->disk = bench->target;
	bench->target = old;            /* until it is closed */
	gate_hold(bench->gate);
	gate_drain(bench->gate, disk_drained, bench);
}

/*
 * The 99th percentile at the gate since the last call: beside what the guest says, it tells how
 * much was spent in the devices, and how much on the way to them and back.
 */
static uint64_t gate_p99_ns(struct bench *bench)
{
	struct io_snapshot now, since;

	io_stats_snapshot(gate_stats(bench->gate), &now);
	since = now;
	io_snapshot_subtract(&since, &bench->felt);
	bench->felt = now;
	return io_snapshot_ops(&since) ? io_snapshot_quantile_ns(&since, 990) : 0;
}

static void move_say(struct bench *bench, const char *event)
{
	struct mover_stats *stats = calloc(1, sizeof(*stats));

	CHECK(stats);
	mover_stats(bench->mover, stats);
	say(bench, event, ",\"stun_ns\":%" PRIu64 ",\"tries\":%u,\"copied_bytes\":%" PRIu64
	    ",\"recopied_bytes\":%" PRIu64 ",\"mirrored_bytes\":%" PRIu64 ",\"cause\":\"%s\"",
	    stats->stun_ns, stats->switchover_tries, stats->disks[0].copied_bytes,
	    stats->disks[0].recopied_bytes, stats->disks[0].mirrored_bytes,
	    stats->error.id == ERR_NONE ? "" : stats->error.cause);
	free(stats);
}

static void move_changed(struct mover *mover, void *user)
{
	struct bench *bench = user;
	enum mover_state state = mover_state(mover);

	if (state == bench->told)
		return;
	bench->told = state;
	if (state == MOVER_HOLD) {
		say(bench, "gate", ",\"alone_p99_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64,
		    bench->alone_p99_ns, gate_p99_ns(bench));
		move_say(bench, "synced");
	}
	if (state == MOVER_FAILED || state == MOVER_PAUSED) {
		move_say(bench, "failed");
		exit(1);
	}
	if (state != MOVER_DONE)
		return;
	move_say(bench, "done");
	mover_free(mover, move_freed, bench);
}

static void command_move(struct bench *bench, const char *path)
{
	const struct mover_options options = {
		.bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED, .hold = true,
	};
	const struct mover_ops ops = { .changed = move_changed, .commit = move_commit };
	struct mover_disk disk = { .gate = bench->gate, .source = bench->disk, .name = "d1" };
	struct err err;

	if (bench->mover || bench->target)
		die("a move is under way", -EBUSY);
	bench->target = open_disk(bench, path, bench->disk->size_bytes);
	disk.target = bench->target;
	bench->told = MOVER_COPY;
	bench->alone_p99_ns = gate_p99_ns(bench);
	if (mover_new(bench->loop, bench->pool, &disk, 1, &options, &ops, bench, &bench->mover,
		      &err)) {
		fprintf(stderr, "bench_move: %s\n", err.cause);
		exit(1);
	}
	say(bench, "started", "%s", "");
	mover_start(bench->mover);
}

/* ---- commands ---- */

static void command(struct bench *bench, char *line)
{
	struct err err;

	if (strncmp(line, "move ", 5) == 0)
		command_move(bench, line + 5);
	else if (strcmp(line, "complete") == 0 && bench->mover &&
		 mover_complete(bench->mover, &err) == 0)
		return;
	else if (strcmp(line, "quit") == 0 && (bench->mover || bench->target))
		bench->quitting = true; /* once the old source is closed */
	else if (strcmp(line, "quit") == 0)
		bench_end(bench);
	else
		die(line, -EINVAL);
}

static void commands_ready(struct watch *watch, unsigned events)
{
	struct bench *bench = container_of(watch, struct bench, commands);
	ssize_t bytes = read(STDIN_FILENO, bench->line + bench->line_bytes,
			     sizeof(bench->line) - 1 - bench->line_bytes);
	char *end;

	(void)events;
	if (bytes <= 0)
		exit(1);                /* whoever started us is gone */
	bench->line_bytes += (size_t)bytes;
	bench->line[bench->line_bytes] = '\0';
	while ((end = strchr(bench->line, '\n'))) {
		*end = '\0';
		command(bench, bench->line);
		bench->line_bytes -= (size_t)(end + 1 - bench->line);
		memmove(bench->line, end + 1, bench->line_bytes + 1);
	}
}

/* ---- start ---- */

static int listen_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die(path, -ENAMETOOLONG);
	strcpy(address.sun_path, path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 16) != 0)
		die(path, -errno);
	return fd;
}

static int open_record(const char *disk_path)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s.record", disk_path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT | O_DSYNC, 0600);
	if (fd < 0)
		die(path, -errno);
	return fd;
}

static void bench_begin(struct bench *bench, char **argv)
{
	const struct nbd_server_options options = { .export_name = "d1" };
	struct err err;

	bench->loop = loop_new();
	bench->pool = bench->loop ? buf_pool_new(bench->loop, POOL_BYTES) : NULL;
	bench->worker = bench->loop ? worker_new(bench->loop, "bench-record") : NULL;
	CHECK(bench->pool);
	CHECK(bench->worker);
	bench->record = (struct job){ .run = record_write, .done = record_written };
	bench->record_fd = open_record(argv[2]);
	if (record_put(bench) || fsync(bench->record_fd))
		die("the record", -EIO);
	bench->disk = open_disk(bench, argv[2], 0);
	bench->gate = gate_new(bench->loop, bench->disk, bench->disk->size_bytes);
	CHECK(bench->gate);
	if (nbd_server_new(bench->loop, listen_on(argv[1]), gate_as_dev(bench->gate), bench->pool,
			   &options, &bench->server, &err)) {
		fprintf(stderr, "bench_move: %s\n", err.cause);
		exit(1);
	}
	if (watch_start(&bench->commands, bench->loop, STDIN_FILENO, WATCH_READ, commands_ready))
		die("stdin", -EINVAL);
}

int main(int argc, char **argv)
{
	struct bench bench = { 0 };

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: bench_move SOCKET FILE [SPIN_US]\n");
		return 2;
	}
	bench_begin(&bench, argv);
	if (argc == 4)
		loop_set_spin_ns(bench.loop, strtoull(argv[3], NULL, 10) * NS_PER_US);
	say(&bench, "ready", "%s", "");
	loop_run(bench.loop);
	watch_stop(&bench.commands);
	gate_free(bench.gate);
	blk_close(bench.disk);
	worker_free(bench.worker);
	buf_pool_free(bench.pool);
	close(bench.record_fd);
	loop_free(bench.loop);
	unlink(argv[1]);
	return 0;
}

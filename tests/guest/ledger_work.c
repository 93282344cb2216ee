/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger_work.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ledger_disk.h"
#include "ledger_stats.h"

enum {
	THREADS_MAX = 64,
	RANGE_BLOCKS_MAX = 64,       /* 256 KiB */
	RECENT_COUNT = 1024,
	HOT_BLOCKS = 4096,           /* 16 MiB that get a quarter of the requests */
	TICK_NS = 1000000,
	VERIFY_BLOCKS = 256,         /* 1 MiB a read */
	MISMATCH_LINES_MAX = 1000,   /* then they are only counted */
	DEVICE_WAIT_SECONDS = 30,
	CATCH_UP_NS = 10000000,      /* a stall is not made up for beyond this */
};

#define NO_MAYBE UINT32_MAX

struct range {
	uint64_t lba;
	uint64_t count;              /* 0: none */
};

struct worker {
	struct work *work;
	pthread_t thread;
	struct range claim;          /* under the lock; nobody else touches these blocks */
	uint64_t random;
	uint8_t *buf;
};

struct work {
	struct work_options options;
	struct disk disk;
	uint64_t block_count;
	uint32_t *sequences;         /* the book: what a read must find... */
	uint32_t *maybes;            /* ...or may find; NO_MAYBE - owned by who claims the block */

	pthread_mutex_t lock;
	pthread_cond_t changed;      /* held or stopping */
	struct stats stats;          /* from here on under the lock */
	uint64_t started_ns;
	uint64_t next_slot_ns;
	uint32_t next_sequence;
	uint64_t write_count;
	uint64_t mismatch_count;
	struct range recent[RECENT_COUNT];
	unsigned recent_next;
	uint64_t verify_next;
	struct ledger_digest digest;
	bool held, stopping, discards, ticking;
	unsigned parked_count;
	unsigned running_count;
	pthread_t tick_thread;
	struct worker workers[THREADS_MAX];
};

/* ---- opening ---- */

static uint32_t *book_column(uint64_t count, uint32_t value)
{
	/* Anonymous memory: a big disk costs only what is touched. */
	uint32_t *column = mmap(NULL, count * sizeof(*column), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (column == MAP_FAILED)
		return NULL;
	if (value)
		for (uint64_t i = 0; i < count; i++)
			column[i] = value;
	return column;
}

static bool work_make_book(struct work *work)
{
	uint64_t filled = work->options.filled_bytes / LEDGER_BLOCK_BYTES;

	work->sequences = book_column(work->block_count, 0);
	work->maybes = book_column(work->block_count, NO_MAYBE);
	if (!work->sequences || !work->maybes) {
		ledger_say("ERROR not enough memory for a book of %" PRIu64 " blocks",
			   work->block_count);
		return false;
	}
	for (uint64_t lba = 0; lba < filled; lba++)
		work->sequences[lba] = LEDGER_SEQ_FILL;
	return true;
}

static bool work_sizes_fit(const struct work *work)
{
	uint64_t least = (uint64_t)work->options.thread_count * RANGE_BLOCKS_MAX * 4;

	if (work->block_count < least) {
		ledger_say("ERROR the disk has %" PRIu64 " blocks, %u workers need %" PRIu64,
			   work->block_count, work->options.thread_count, least);
		return false;
	}
	if (work->options.filled_bytes > work->block_count * LEDGER_BLOCK_BYTES) {
		ledger_say("ERROR --filled is larger than the disk");
		return false;
	}
	return true;
}

struct work *work_open(const struct work_options *options)
{
	struct work *work = calloc(1, sizeof(*work));
	pthread_condattr_t monotonic;

	if (!work) {
		ledger_say("ERROR not enough memory");
		return NULL;
	}
	work->options = *options;
	work->discards = true;
	work->next_sequence = LEDGER_SEQ_FIRST;
	pthread_mutex_init(&work->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&work->changed, &monotonic);
	if (!disk_open(&work->disk, options->path, options->size_bytes, options->buffered,
		       DEVICE_WAIT_SECONDS))
		goto free_work;
	work->block_count = work->disk.size_bytes / LEDGER_BLOCK_BYTES;
	if (work_sizes_fit(work) && work_make_book(work))
		return work;
	close(work->disk.fd);
free_work:
	free(work);
	return NULL;
}

uint64_t work_block_count(const struct work *work)
{
	return work->block_count;
}

void work_free(struct work *work)
{
	if (!work)
		return;
	for (unsigned i = 0; i < THREADS_MAX; i++)
		free(work->workers[i].buf);
	munmap(work->sequences, work->block_count * sizeof(*work->sequences));
	munmap(work->maybes, work->block_count * sizeof(*work->maybes));
	close(work->disk.fd);
	free(work);
}

/* ---- choosing what to do ---- */

static uint64_t worker_random(struct worker *worker, uint64_t below)
{
	worker->random += UINT64_C(0x9e3779b97f4a7c15);
	return ledger_mix64(worker->random) % below;
}

static enum stats_op worker_choose_op(struct worker *worker)
{
	const struct work_options *options = &worker->work->options;
	uint64_t dice = worker_random(worker, 1000);

	if (dice < options->trim_permille)
		return STATS_ZERO;
	if (dice < 2 * options->trim_permille)
		return worker->work->discards ? STATS_DISCARD : STATS_ZERO;
	return worker_random(worker, 100) < options->read_percent ? STATS_READ : STATS_WRITE;
}

/* 4 KiB is half of all, 256 KiB the rarest; about 20 KiB in the mean, and odd sizes between. */
static uint64_t worker_choose_count(struct worker *worker)
{
	uint64_t most = 1;

	while (most < RANGE_BLOCKS_MAX && worker_random(worker, 2))
		most *= 2;
	return most - worker_random(worker, (most + 1) / 2);
}

static bool range_is_free(const struct work *work, const struct range *range)
{
	for (unsigned i = 0; i < work->options.thread_count; i++) {
		const struct range *claim = &work->workers[i].claim;

		if (claim->count && range->lba < claim->lba + claim->count &&
		    claim->lba < range->lba + range->count)
			return false;
	}
	return true;
}

static struct range worker_choose_range(struct worker *worker, enum stats_op op)
{
	struct work *work = worker->work;
	struct range range = { .count = worker_choose_count(worker) };
	uint64_t span = work->block_count - range.count + 1;
	uint64_t hot = span < HOT_BLOCKS ? span : HOT_BLOCKS;

	/* Half of the reads look again at something that was written lately. */
	if (op == STATS_READ && worker_random(worker, 2)) {
		const struct range *recent = &work->recent[worker_random(worker, RECENT_COUNT)];

		if (recent->count)
			return *recent;
	}
	if (worker_random(worker, 4))
		range.lba = worker_random(worker, span);
	else /* in the middle of the disk: hot regions collide with a copier */
		range.lba = (span - hot) / 2 + worker_random(worker, hot);
	return range;
}

/* The disk has room for four times what all workers can claim, so this ends soon. */
static void worker_claim_locked(struct worker *worker, enum stats_op op)
{
	struct work *work = worker->work;
	struct range range;

	do
		range = worker_choose_range(worker, op);
	while (!range_is_free(work, &range));
	worker->claim = range;
	if (op == STATS_WRITE)
		work->recent[work->recent_next++ % RECENT_COUNT] = range;
}

/* ---- judging what was read ---- */

static void work_mismatch(struct work *work, const char *when, uint64_t lba,
			  const struct ledger_finding *found)
{
	uint32_t maybe = work->maybes[lba];
	char or_text[32] = "";
	bool say;

	pthread_mutex_lock(&work->lock);
	work->stats.error_count++;
	say = work->mismatch_count++ < MISMATCH_LINES_MAX;
	pthread_mutex_unlock(&work->lock);
	if (!say)
		return;
	if (maybe != NO_MAYBE)
		snprintf(or_text, sizeof(or_text), " or=%" PRIu32, maybe);
	ledger_say("MISMATCH when=%s lba=%" PRIu64 " expected=%" PRIu32 "%s found=%s sequence=%"
		   PRIu64 " of_lba=%" PRIu64, when, lba, work->sequences[lba], or_text,
		   ledger_kind_name(found->kind), found->sequence, found->lba);
}

/* Hold one block against the book; what was open between two answers is settled by it. */
static void work_judge(struct work *work, const char *when, uint64_t lba,
		       const struct ledger_finding *found)
{
	bool sane = found->kind == LEDGER_SOUND || found->kind == LEDGER_ZERO;
	bool maybe = work->maybes[lba] != NO_MAYBE && found->sequence == work->maybes[lba];

	if (!sane || (found->sequence != work->sequences[lba] && !maybe)) {
		work_mismatch(work, when, lba, found);
		return;
	}
	work->sequences[lba] = (uint32_t)found->sequence;
	work->maybes[lba] = NO_MAYBE;
}

static void work_judge_range(struct work *work, const char *when, const struct range *range,
			     const uint8_t *buf, struct ledger_digest *digest)
{
	for (uint64_t i = 0; i < range->count; i++) {
		struct ledger_finding found = ledger_block_judge(
			buf + i * LEDGER_BLOCK_BYTES, work->options.run, range->lba + i);

		work_judge(work, when, range->lba + i, &found);
		if (digest)
			ledger_digest_fold(digest, &found);
	}
}

/* ---- one request ---- */

static int worker_request(struct worker *worker, enum stats_op op)
{
	const struct disk *disk = &worker->work->disk;
	uint64_t offset_bytes = worker->claim.lba * LEDGER_BLOCK_BYTES;
	uint64_t len_bytes = worker->claim.count * LEDGER_BLOCK_BYTES;

	switch (op) {
	case STATS_READ: return disk_read(disk, worker->buf, offset_bytes, len_bytes);
	case STATS_WRITE: return disk_write(disk, worker->buf, offset_bytes, len_bytes);
	case STATS_ZERO: return disk_zero(disk, offset_bytes, len_bytes);
	case STATS_DISCARD: return disk_discard(disk, offset_bytes, len_bytes);
	default: return disk_flush(disk);
	}
}

static const char *const op_names[STATS_OP_COUNT] = {
	[STATS_READ] = "read",       [STATS_WRITE] = "write", [STATS_ZERO] = "zero",
	[STATS_DISCARD] = "discard", [STATS_FLUSH] = "flush",
};

/* Run the request and take its time.  A discard that the device does not know is no error. */
static int worker_timed_request(struct worker *worker, enum stats_op op)
{
	struct work *work = worker->work;
	uint64_t started_ns;
	bool no_discard;
	int rc;

	pthread_mutex_lock(&work->lock);
	started_ns = stats_now_ns();
	stats_started(&work->stats, started_ns);
	pthread_mutex_unlock(&work->lock);
	rc = worker_request(worker, op);
	no_discard = op == STATS_DISCARD && rc == -EOPNOTSUPP;
	pthread_mutex_lock(&work->lock);
	stats_finished(&work->stats, op, started_ns, stats_now_ns());
	if (no_discard)
		work->discards = false;
	else if (rc)
		work->stats.error_count++;
	pthread_mutex_unlock(&work->lock);
	if (rc && !no_discard)
		ledger_say("IOERROR op=%s lba=%" PRIu64 " blocks=%" PRIu64 " error=%s",
			   op_names[op], worker->claim.lba, worker->claim.count, strerror(-rc));
	return rc;
}

static void worker_read(struct worker *worker)
{
	if (!worker_timed_request(worker, STATS_READ))
		work_judge_range(worker->work, "read", &worker->claim, worker->buf, NULL);
}

/*
 * The book says the new sequence once it is acknowledged; after a failure it may be either.
 * (A second failure on the same block forgets the first: the run has failed by then anyway.)
 */
static void worker_enter(struct worker *worker, uint32_t sequence, bool certain)
{
	struct work *work = worker->work;

	for (uint64_t i = 0; i < worker->claim.count; i++) {
		uint64_t lba = worker->claim.lba + i;

		if (certain)
			work->sequences[lba] = sequence;
		work->maybes[lba] = certain ? NO_MAYBE : sequence;
	}
}

static void worker_write(struct worker *worker, uint32_t sequence, bool flush)
{
	struct work *work = worker->work;
	struct timespec now;
	int rc;

	clock_gettime(CLOCK_REALTIME, &now);
	for (uint64_t i = 0; i < worker->claim.count; i++)
		ledger_block_make(worker->buf + i * LEDGER_BLOCK_BYTES, work->options.run,
				  worker->claim.lba + i, sequence,
				  (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	rc = worker_timed_request(worker, STATS_WRITE);
	worker_enter(worker, sequence, !rc);
	if (flush)
		(void)worker_timed_request(worker, STATS_FLUSH); /* it reports its own failure */
}

/* A discarded block may read old or zero, but must then stay so: read it back at once. */
static void worker_trim(struct worker *worker, enum stats_op op)
{
	int rc = worker_timed_request(worker, op);

	worker_enter(worker, LEDGER_SEQ_ZERO, op == STATS_ZERO && !rc);
	if (op == STATS_DISCARD)
		worker_read(worker);
}

/* ---- the worker's life ---- */

/* The next place in the schedule; after a stall the schedule starts again from now. */
static uint64_t work_take_slot_locked(struct work *work)
{
	uint64_t now_ns = stats_now_ns();
	uint64_t slot_ns = work->next_slot_ns;

	if (!work->options.rate)
		return 0;
	if (slot_ns + CATCH_UP_NS < now_ns)
		slot_ns = now_ns;
	work->next_slot_ns = slot_ns + 1000000000u / work->options.rate;
	return slot_ns;
}

static void work_sleep_until_locked(struct work *work, uint64_t slot_ns)
{
	struct timespec until = { .tv_sec = (time_t)(slot_ns / 1000000000u),
				  .tv_nsec = (long)(slot_ns % 1000000000u) };
	int rc = 0;

	while (slot_ns && !work->stopping && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&work->changed, &work->lock, &until);
}

static void work_say_if_held_locked(const struct work *work)
{
	if (work->held && work->parked_count == work->running_count)
		ledger_say("HELD");
}

static void work_park_locked(struct work *work)
{
	if (!work->held || work->stopping)
		return;
	work->parked_count++;
	work_say_if_held_locked(work);
	while (work->held && !work->stopping)
		pthread_cond_wait(&work->changed, &work->lock);
	work->parked_count--;
}

/* Wait for this worker's turn and claim a range.  false: the run is over. */
static bool worker_next(struct worker *worker, enum stats_op *op, uint32_t *sequence, bool *flush)
{
	struct work *work = worker->work;
	bool go_on;

	pthread_mutex_lock(&work->lock);
	worker->claim.count = 0;
	work_sleep_until_locked(work, work_take_slot_locked(work));
	work_park_locked(work);
	*op = worker_choose_op(worker);
	/* Sequence numbers end before they could repeat (at 2,000 a second: after 24 days). */
	go_on = !work->stopping && work->next_sequence < NO_MAYBE - THREADS_MAX;
	if (go_on)
		worker_claim_locked(worker, *op);
	if (go_on && *op == STATS_WRITE) {
		*sequence = work->next_sequence++;
		work->write_count++;
		*flush = work->options.flush_every &&
			 work->write_count % work->options.flush_every == 0;
	}
	pthread_mutex_unlock(&work->lock);
	return go_on;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct work *work = worker->work;
	enum stats_op op;
	uint32_t sequence = 0;
	bool flush = false;

	while (worker_next(worker, &op, &sequence, &flush)) {
		if (op == STATS_READ)
			worker_read(worker);
		else if (op == STATS_WRITE)
			worker_write(worker, sequence, flush);
		else
			worker_trim(worker, op);
	}
	pthread_mutex_lock(&work->lock);
	work->running_count--;
	work_say_if_held_locked(work);
	pthread_mutex_unlock(&work->lock);
	return NULL;
}

/* How late does a 1 ms sleep end?  That long the machine stood, whatever the disk did. */
static void *tick_main(void *arg)
{
	struct work *work = arg;
	struct sched_param first = { .sched_priority = 50 };
	uint64_t last_ns = stats_now_ns();
	bool stopping = false;

	/* Without the right to it the tick is only less sharp. */
	(void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	while (!stopping) {
		struct timespec tick = { .tv_nsec = TICK_NS };
		uint64_t now_ns;

		clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
		now_ns = stats_now_ns();
		stats_cpu_gap(&work->stats, now_ns - last_ns - TICK_NS);
		last_ns = now_ns;
		stopping = !__atomic_load_n(&work->ticking, __ATOMIC_ACQUIRE);
	}
	return NULL;
}

static bool worker_start(struct work *work, struct worker *worker, uint64_t seed)
{
	worker->work = work;
	worker->random = ledger_mix64(seed);
	worker->buf = aligned_alloc(LEDGER_BLOCK_BYTES, VERIFY_BLOCKS * LEDGER_BLOCK_BYTES);
	if (!worker->buf)
		return false;
	return !pthread_create(&worker->thread, NULL, worker_main, worker);
}

bool work_start(struct work *work)
{
	uint64_t now_ns = stats_now_ns();
	bool started;

	pthread_mutex_lock(&work->lock);
	stats_init(&work->stats, now_ns);
	work->started_ns = work->next_slot_ns = now_ns;
	work->ticking = true;
	started = !pthread_create(&work->tick_thread, NULL, tick_main, work);
	for (unsigned i = 0; started && i < work->options.thread_count; i++) {
		work->running_count++;
		started = worker_start(work, &work->workers[i], work->options.run + i);
	}
	pthread_mutex_unlock(&work->lock);
	if (!started)
		ledger_say("ERROR cannot start %u threads", work->options.thread_count);
	return started;
}

/* ---- the observer's commands ---- */

void work_hold(struct work *work)
{
	pthread_mutex_lock(&work->lock);
	work->held = true;
	work_say_if_held_locked(work);
	pthread_mutex_unlock(&work->lock);
}

void work_go(struct work *work)
{
	pthread_mutex_lock(&work->lock);
	work->held = false;
	pthread_cond_broadcast(&work->changed);
	pthread_mutex_unlock(&work->lock);
}

void work_report_second(struct work *work)
{
	char text[512];
	uint64_t now_ns;

	pthread_mutex_lock(&work->lock);
	now_ns = stats_now_ns();
	stats_close_window(&work->stats, &work->stats.second, now_ns, text, sizeof(text));
	pthread_mutex_unlock(&work->lock);
	ledger_say("t=%" PRIu64 " %s", (now_ns - work->started_ns + 500000000u) / 1000000000u,
		   text);
}

void work_report_phase(struct work *work, const char *phase)
{
	char text[512];
	uint64_t now_ns, started_ns;

	pthread_mutex_lock(&work->lock);
	now_ns = stats_now_ns();
	started_ns = work->stats.phase.started_ns;
	stats_close_window(&work->stats, &work->stats.phase, now_ns, text, sizeof(text));
	pthread_mutex_unlock(&work->lock);
	ledger_say("PHASE name=%s ms=%" PRIu64 " %s", phase, (now_ns - started_ns) / 1000000,
		   text);
}

void work_stop(struct work *work)
{
	int rc;

	pthread_mutex_lock(&work->lock);
	work->stopping = true;
	pthread_cond_broadcast(&work->changed);
	pthread_mutex_unlock(&work->lock);
	for (unsigned i = 0; i < work->options.thread_count; i++)
		pthread_join(work->workers[i].thread, NULL);
	__atomic_store_n(&work->ticking, false, __ATOMIC_RELEASE);
	pthread_join(work->tick_thread, NULL);
	rc = disk_flush(&work->disk);
	if (rc) {
		ledger_say("IOERROR op=flush lba=0 blocks=0 error=%s", strerror(-rc));
		work->stats.error_count++;
	}
}

/* ---- the final reading ---- */

static void worker_verify_range(struct worker *worker, const struct range *range,
				struct ledger_digest *digest)
{
	struct work *work = worker->work;
	int rc = disk_read(&work->disk, worker->buf, range->lba * LEDGER_BLOCK_BYTES,
			   range->count * LEDGER_BLOCK_BYTES);

	if (!rc) {
		work_judge_range(work, "final", range, worker->buf, digest);
		return;
	}
	ledger_say("IOERROR op=read lba=%" PRIu64 " blocks=%" PRIu64 " error=%s", range->lba,
		   range->count, strerror(-rc));
	pthread_mutex_lock(&work->lock);
	work->stats.error_count++;
	pthread_mutex_unlock(&work->lock);
}

static void *verify_main(void *arg)
{
	struct worker *worker = arg;
	struct work *work = worker->work;
	struct ledger_digest digest = { 0 };
	struct range range;

	for (;;) {
		pthread_mutex_lock(&work->lock);
		range.lba = work->verify_next;
		range.count = work->block_count - range.lba;
		if (range.count > VERIFY_BLOCKS)
			range.count = VERIFY_BLOCKS;
		work->verify_next += range.count;
		if (!range.count)
			ledger_digest_merge(&work->digest, &digest);
		pthread_mutex_unlock(&work->lock);
		if (!range.count)
			return NULL;
		worker_verify_range(worker, &range, &digest);
	}
}

struct work_result work_verify(struct work *work)
{
	struct worker *second = &work->workers[1];
	bool two = work->options.thread_count > 1 &&
		   !pthread_create(&second->thread, NULL, verify_main, second);

	/* Two readers: one waits for the disk while the other checks. */
	verify_main(&work->workers[0]);
	if (two)
		pthread_join(second->thread, NULL);
	if (work->mismatch_count > MISMATCH_LINES_MAX)
		ledger_say("MISMATCH and %" PRIu64 " more",
			   work->mismatch_count - MISMATCH_LINES_MAX);
	return (struct work_result) {
		.digest = work->digest,
		.block_count = work->block_count,
		.write_count = work->write_count,
		.error_count = work->stats.error_count,
	};
}

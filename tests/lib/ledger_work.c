/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_work.c - requests and where they are:
 *
 *   FREE -> WAITING -> SENT -> ANSWERED -> FREE
 *             ^          |        |
 *             +----------+        |      the connection was lost: once more
 *             +-------------------+      a trim is answered: read what it did
 */
#include "tests/lib/ledger_work.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/check.h"

#define HOT_SPOTS 8u
#define HOT_SPOT_SECTORS 2048u
#define TRIES_MAX 8u
#define ERRORS_OF_ONE_MAX 10u
#define MS UINT64_C(1000000)

enum op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_TRIM, OP_FLUSH, OP_KIND_COUNT };
enum op_state { STATE_FREE, STATE_WAITING, STATE_SENT, STATE_ANSWERED };

static const char *const op_names[] = { "read", "write", "zero", "trim", "flush" };

struct op {
	struct work *work;
	unsigned slot;
	enum op_kind kind;
	enum op_state state;
	struct link *link;
	uint64_t sector;
	uint32_t count;
	uint32_t sequence;
	uint32_t flags;                 /* libnbd's */
	bool reads_back;                /* a trim, answered */
	bool replayed, told_late;
	unsigned errors;
	int error;
	uint64_t begun_ns, sent_ns;
	uint8_t *bytes;
};

struct work {
	struct work_options options;
	struct ledger_book *book;
	uint64_t sectors;
	struct link links[WORK_LINKS_MAX];
	unsigned link_count;
	unsigned next_link;
	bool can_trim, can_zero, can_fua;
	struct op *ops;                 /* depth of them, and the verification's */
	unsigned op_count;
	uint64_t number;                /* of the next request */
	uint64_t fill_next;             /* sector */
	uint64_t fill_end;
	uint64_t next_start_ns;
	bool held;
	bool verifies, verify_ended;
	uint64_t verify_next;
	struct ledger_verdict verify_verdict;
	struct work_stats stats;
	uint64_t late_look_ns;
};

/* ---- sending ---- */

static int op_answered(void *user, int *error)
{
	struct op *op = user;

	CHECK(op->state == STATE_SENT);
	op->error = *error;
	op->state = STATE_ANSWERED;
	return 1;
}

static int64_t op_issue(struct op *op, struct nbd_handle *nbd)
{
	nbd_completion_callback done = { .callback = op_answered, .user_data = op };
	uint64_t offset = op->sector * LEDGER_SECTOR_BYTES;
	size_t bytes = (size_t)op->count * LEDGER_SECTOR_BYTES;

	if (op->reads_back)
		return nbd_aio_pread(nbd, op->bytes, bytes, offset, done, 0);
	switch (op->kind) {
	case OP_READ:
		return nbd_aio_pread(nbd, op->bytes, bytes, offset, done, 0);
	case OP_WRITE:
		return nbd_aio_pwrite(nbd, op->bytes, bytes, offset, done, op->flags);
	case OP_ZERO:
		return nbd_aio_zero(nbd, bytes, offset, done, op->flags);
	case OP_TRIM:
		return nbd_aio_trim(nbd, bytes, offset, done, op->flags);
	case OP_FLUSH:
		return nbd_aio_flush(nbd, done, 0);
	case OP_KIND_COUNT:
		break;
	}
	CHECK_NEVER("no such request");
}

static struct link *link_that_is_up(struct work *work)
{
	for (unsigned i = 0; i < work->link_count; i++) {
		struct link *link = &work->links[work->next_link++ % work->link_count];

		if (link->is_up)
			return link;
	}
	return NULL;
}

/* False: there is no connection now. */
static bool op_send(struct op *op)
{
	struct link *link;

	while ((link = link_that_is_up(op->work))) {
		op->link = link;
		op->state = STATE_SENT;
		op->sent_ns = link_now_ns();
		if (op_issue(op, link->nbd) != -1)
			return true;
		op->state = STATE_WAITING;
		op->link = NULL;
		/* libnbd refuses what breaks the protocol too: that would be ours. */
		CHECK(nbd_aio_is_dead(link->nbd) || nbd_aio_is_closed(link->nbd));
		link_drop(link);
	}
	return false;
}

/* ---- beginning ---- */

static void op_begin(struct op *op, enum op_kind kind, uint64_t sector, uint32_t count)
{
	static const enum ledger_change changes[] = {
		[OP_READ] = LEDGER_READS, [OP_WRITE] = LEDGER_WRITES, [OP_ZERO] = LEDGER_ZEROES,
		[OP_TRIM] = LEDGER_MAY_ZERO, [OP_FLUSH] = LEDGER_READS,
	};
	struct work *work = op->work;

	CHECK(op->state == STATE_FREE);
	op->kind = kind;
	op->state = STATE_WAITING;
	op->sector = sector;
	op->count = count;
	op->reads_back = op->replayed = op->told_late = false;
	op->errors = 0;
	op->flags = 0;
	op->link = NULL;
	op->begun_ns = link_now_ns();
	op->sequence = ledger_book_begin(work->book, op->slot, changes[kind], sector, count);
	for (uint32_t i = 0; kind == OP_WRITE && i < count; i++)
		ledger_sector_make(op->bytes + (size_t)i * LEDGER_SECTOR_BYTES,
				   ledger_book_run(work->book), sector + i, op->sequence);
}

static uint32_t choose_count(uint64_t random)
{
	/* Three of four are 512 B, 1 KiB ... 256 KiB, all as often; the rest is anything. */
	if (random % 4)
		return 1u << (random >> 8) % 10;
	return 1 + (uint32_t)(random >> 8) % WORK_REQUEST_SECTORS;
}

static uint64_t choose_sector(const struct work *work, uint64_t random, uint32_t count)
{
	uint64_t place = ledger_mix(random), sector;
	uint64_t last = work->sectors - count;

	if (random % 2 && last > HOT_SPOT_SECTORS) {
		uint64_t spot = ledger_mix(work->options.seed + (random >> 1) % HOT_SPOTS);

		sector = spot % (last - HOT_SPOT_SECTORS) + place % HOT_SPOT_SECTORS;
	} else {
		/* Mostly where there is something, so that a thin disk stays thin for a while. */
		sector = place % ((random & 12) && work->fill_end ? work->fill_end : work->sectors);
	}
	if (random & 16)
		sector &= ~UINT64_C(7);
	return MIN(sector, last);
}

static enum op_kind choose_kind(const struct work *work, uint64_t random)
{
	const struct work_options *options = &work->options;
	unsigned percent = (unsigned)(random % 100);

	if (percent < options->read_percent)
		return OP_READ;
	percent -= options->read_percent;
	if (percent < options->flush_percent)
		return OP_FLUSH;
	percent -= options->flush_percent;
	if (percent >= options->zero_percent)
		return OP_WRITE;
	if (percent % 2 && work->can_trim)
		return OP_TRIM;
	return work->can_zero ? OP_ZERO : OP_WRITE;
}

static bool may_lock(const struct work *work, uint64_t sector, uint32_t count)
{
	if (work->verifies && sector < work->verify_next + WORK_VERIFY_SECTORS &&
	    work->verify_next < sector + count)
		return false;   /* it would keep the verification waiting */
	return !ledger_book_is_locked(work->book, sector, count);
}

static uint32_t choose_flags(const struct work *work, enum op_kind kind, uint64_t random)
{
	uint32_t flags = 0;

	if (work->can_fua && kind != OP_READ && kind != OP_FLUSH &&
	    random % 100 < work->options.fua_percent)
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (kind == OP_ZERO && (random >> 16) % 2)
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	return flags;
}

static bool begin_fill(struct work *work, struct op *op)
{
	uint32_t count = (uint32_t)MIN(work->fill_end - work->fill_next, WORK_REQUEST_SECTORS);

	if (!may_lock(work, work->fill_next, count))
		return false;
	op_begin(op, OP_WRITE, work->fill_next, count);
	work->fill_next += count;
	return true;
}

/* False: whatever was thought of is under another request. */
static bool begin_next(struct work *work, struct op *op)
{
	if (work->fill_next < work->fill_end)
		return begin_fill(work, op);
	for (unsigned try = 0; try < TRIES_MAX; try++) {
		uint64_t random = ledger_mix(work->options.seed ^ ledger_mix(work->number++));
		enum op_kind kind = choose_kind(work, random);
		uint32_t count = kind == OP_FLUSH ? 0 : choose_count(ledger_mix(random));
		uint64_t sector;

		count = (uint32_t)MIN(count, work->sectors);
		sector = count ? choose_sector(work, ledger_mix(random + 1), count) : 0;
		if (count && !may_lock(work, sector, count))
			continue;
		op_begin(op, kind, sector, count);
		op->flags = choose_flags(work, kind, ledger_mix(random + 2));
		return true;
	}
	return false;
}

/* ---- the verification ---- */

static void begin_verify(struct work *work)
{
	struct op *op = &work->ops[work->op_count - 1];
	uint32_t count = (uint32_t)MIN(work->sectors - work->verify_next, WORK_VERIFY_SECTORS);

	if (!work->verifies || op->state != STATE_FREE ||
	    ledger_book_is_locked(work->book, work->verify_next, count))
		return;
	op_begin(op, OP_READ, work->verify_next, count);
}

static void verify_answered(struct work *work, struct op *op)
{
	ledger_book_check(work->book, op->sector, op->count, op->bytes, &work->verify_verdict);
	work->verify_next += op->count;
	work->verify_ended = work->verify_next == work->sectors;
	work->verifies = !work->verify_ended;
}

void work_verify(struct work *work)
{
	if (work->verifies)
		return;
	work->verifies = true;
	work->verify_ended = false;
	work->verify_next = 0;
	work->verify_verdict = (struct ledger_verdict){ 0 };
}

bool work_verified(struct work *work, struct ledger_verdict *out)
{
	if (!work->verify_ended)
		return false;
	work->verify_ended = false;
	*out = work->verify_verdict;
	return true;
}

/* ---- answers ---- */

static void op_count(struct work_stats *stats, enum op_kind kind)
{
	uint64_t *counters[] = {
		[OP_READ] = &stats->reads, [OP_WRITE] = &stats->writes, [OP_ZERO] = &stats->zeroes,
		[OP_TRIM] = &stats->trims, [OP_FLUSH] = &stats->flushes,
	};

	++*counters[kind];
}

static void op_line(const struct op *op, const char *what, uint64_t ns, const char *text)
{
	printf("%s op=%s%s sector=%" PRIu64 " count=%u sequence=%u flags=%u replayed=%d ms=%" PRIu64
	       "%s%s\n", what, op_names[op->kind], op->reads_back ? "+read" : "", op->sector,
	       op->count, op->sequence, op->flags, op->replayed, ns / MS, *text ? " " : "", text);
}

static void op_timed(struct op *op)
{
	struct work_stats *stats = &op->work->stats;
	uint64_t now_ns = link_now_ns(), took_ns = now_ns - op->begun_ns;

	stats->longest_ns = MAX(stats->longest_ns, took_ns);
	if (!op->replayed)
		stats->longest_served_ns = MAX(stats->longest_served_ns, now_ns - op->sent_ns);
	if (op->told_late)
		op_line(op, "ended", took_ns, "");
}

/* A guest would see an error: the run has failed, but the content must be known. */
static void op_failed(struct op *op)
{
	op->work->stats.errors++;
	op_line(op, "error", link_now_ns() - op->begun_ns, strerror(op->error));
	if (++op->errors > ERRORS_OF_ONE_MAX) {
		printf("gave up\n");
		exit(1);
	}
	op->state = STATE_WAITING;
}

static void op_ended(struct op *op)
{
	struct work *work = op->work;
	bool echoes = op->kind == OP_WRITE && op->replayed && op->sequence % 2 && !work->held;

	op_timed(op);
	op_count(&work->stats, op->kind);
	op->state = STATE_FREE;
	if (op->slot == work->op_count - 1)
		verify_answered(work, op);
	else if (op->kind == OP_READ)
		ledger_book_check(work->book, op->sector, op->count, op->bytes,
				  &work->stats.verdict);
	ledger_book_answered(work->book, op->slot, op->bytes);
	if (echoes)
		op_begin(op, OP_WRITE, op->sector, op->count);
}

static void op_take_answer(struct op *op)
{
	/* Lost with its connection, or refused by a server that is leaving. */
	if (op->error && (!op->link || op->error == ESHUTDOWN)) {
		op->state = STATE_WAITING;
		op->replayed = true;
		op->work->stats.replays++;
	} else if (op->error) {
		op_failed(op);
	} else if (op->kind == OP_TRIM && !op->reads_back) {
		op->reads_back = true;
		op->state = STATE_WAITING;
	} else {
		op_ended(op);
	}
}

static void take_answers(struct work *work)
{
	for (unsigned i = 0; i < work->op_count; i++)
		if (work->ops[i].state == STATE_ANSWERED)
			op_take_answer(&work->ops[i]);
}

/* ---- connections ---- */

/* Success that was told before the end counts; everything else is sent again. */
static void work_link_lost(struct link *link)
{
	struct work *work = container_of(link - link->index, struct work, links[0]);

	for (unsigned i = 0; i < work->op_count; i++) {
		struct op *op = &work->ops[i];

		if (op->link != link || op->state == STATE_FREE)
			continue;
		if (op->state == STATE_ANSWERED && !op->error)
			continue;
		op->link = NULL;
		if (op->state == STATE_SENT)
			op->error = ENOTCONN;
		if (op->state != STATE_WAITING)
			op->state = STATE_ANSWERED;
	}
}

void work_drop(struct work *work)
{
	struct link *link = link_that_is_up(work);

	if (link)
		link_drop(link);
}

/* ---- a turn ---- */

static bool send_waiting(struct work *work)
{
	for (unsigned i = 0; i < work->op_count; i++)
		if (work->ops[i].state == STATE_WAITING && !op_send(&work->ops[i]))
			return false;
	return true;
}

/* True: the rate allows one more now. */
static bool rate_allows(struct work *work, uint64_t now_ns)
{
	if (!work->options.rate || work->fill_next < work->fill_end)
		return true;
	if (work->next_start_ns > now_ns)
		return false;
	if (work->next_start_ns + 1000 * MS < now_ns)
		work->next_start_ns = now_ns;   /* an outage is not made up for */
	work->next_start_ns += 1000 * MS / work->options.rate;
	return true;
}

static void start_requests(struct work *work)
{
	uint64_t now_ns = link_now_ns();

	/* R3: nothing newer before what was lost has been sent again. */
	if (!send_waiting(work))
		return;
	begin_verify(work);
	for (unsigned i = 0; !work->held && i < work->op_count - 1; i++) {
		if (work->ops[i].state != STATE_FREE)
			continue;
		if (!rate_allows(work, now_ns) || !begin_next(work, &work->ops[i]))
			break;
	}
	(void)send_waiting(work);
}

static void tell_late(struct work *work)
{
	uint64_t now_ns = link_now_ns();

	if (now_ns < work->late_look_ns)
		return;
	work->late_look_ns = now_ns + 100 * MS;
	for (unsigned i = 0; i < work->op_count; i++) {
		struct op *op = &work->ops[i];

		if (op->state != STATE_SENT || op->told_late ||
		    now_ns - op->sent_ns < work->options.late_ns)
			continue;
		op->told_late = true;
		work->stats.late++;
		op_line(op, "late", now_ns - op->begun_ns, "");
	}
}

static int wait_ms(const struct work *work, uint64_t until_ns)
{
	uint64_t now_ns = link_now_ns();

	for (unsigned i = 0; i < work->link_count; i++)
		if (!work->links[i].nbd)
			until_ns = MIN(until_ns, work->links[i].retry_at_ns);
	until_ns = MIN(until_ns, work->late_look_ns);
	if (work->options.rate && !work->held)
		until_ns = MIN(until_ns, work->next_start_ns);
	return until_ns <= now_ns ? 0 : (int)((until_ns - now_ns + MS - 1) / MS);
}

void work_turn(struct work *work, uint64_t until_ns, int other_fd)
{
	struct pollfd polls[WORK_LINKS_MAX + 1];

	start_requests(work);
	for (unsigned i = 0; i < work->link_count; i++) {
		polls[i] = (struct pollfd){ 0 };
		polls[i].fd = link_fd(&work->links[i], &polls[i].events);
	}
	polls[work->link_count] = (struct pollfd){ .fd = other_fd, .events = POLLIN };
	if (poll(polls, work->link_count + 1, wait_ms(work, until_ns)) < 0)
		CHECK(errno == EINTR);
	else
		for (unsigned i = 0; i < work->link_count; i++)
			link_turn(&work->links[i], polls[i].revents);
	take_answers(work);
	tell_late(work);
}

/* ---- life ---- */

static struct nbd_handle *probe_connect(const char *uri)
{
	struct nbd_handle *nbd = nbd_create();

	if (nbd && nbd_connect_uri(nbd, uri) == 0)
		return nbd;
	fprintf(stderr, "%s\n", nbd_get_error());
	nbd_close(nbd);
	return NULL;
}

int work_probe(const char *uri, uint64_t *size_bytes)
{
	struct nbd_handle *nbd = probe_connect(uri);

	if (!nbd)
		return -1;
	*size_bytes = (uint64_t)nbd_get_size(nbd);
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	return 0;
}

static bool work_ask_abilities(struct work *work)
{
	struct nbd_handle *nbd = probe_connect(work->options.uri);

	if (!nbd)
		return false;
	work->can_trim = nbd_can_trim(nbd) == 1;
	work->can_zero = nbd_can_zero(nbd) == 1;
	work->can_fua = nbd_can_fua(nbd) == 1;
	if (nbd_can_multi_conn(nbd) != 1)
		work->link_count = 1;
	nbd_shutdown(nbd, 0);
	nbd_close(nbd);
	return true;
}

static bool work_make_ops(struct work *work)
{
	work->ops = calloc(work->op_count, sizeof(*work->ops));
	for (unsigned i = 0; work->ops && i < work->op_count; i++) {
		struct op *op = &work->ops[i];
		size_t sectors = i == work->op_count - 1 ? WORK_VERIFY_SECTORS
							 : WORK_REQUEST_SECTORS;

		op->work = work;
		op->slot = i;
		op->bytes = aligned_alloc(4096, sectors * LEDGER_SECTOR_BYTES);
		if (!op->bytes)
			return false;
	}
	return work->ops;
}

struct work *work_new(const struct work_options *options, struct ledger_book *book)
{
	struct work *work = calloc(1, sizeof(*work));

	CHECK(options->depth <= WORK_DEPTH_MAX);
	CHECK(options->connections >= 1 && options->connections <= WORK_LINKS_MAX);
	if (!work)
		return NULL;
	work->options = *options;
	work->book = book;
	work->sectors = ledger_book_sectors(book);
	work->fill_end = MIN(options->fill_bytes / LEDGER_SECTOR_BYTES, work->sectors);
	work->link_count = options->connections;
	work->op_count = options->depth + 1;
	work->next_start_ns = link_now_ns();
	if (!work_make_ops(work) || !work_ask_abilities(work)) {
		work_free(work);
		return NULL;
	}
	for (unsigned i = 0; i < work->link_count; i++) {
		work->links[i] = (struct link){ .uri = options->uri, .index = i,
						.lost = work_link_lost };
		link_dial(&work->links[i]);
	}
	return work;
}

void work_free(struct work *work)
{
	for (unsigned i = 0; i < work->link_count; i++)
		link_close(&work->links[i]);
	for (unsigned i = 0; work->ops && i < work->op_count; i++)
		free(work->ops[i].bytes);
	free(work->ops);
	free(work);
}

void work_hold(struct work *work, bool on)
{
	work->held = on;
}

bool work_is_idle(const struct work *work)
{
	for (unsigned i = 0; i < work->op_count; i++)
		if (work->ops[i].state != STATE_FREE)
			return false;
	return true;
}

bool work_is_filled(const struct work *work)
{
	return work->fill_next == work->fill_end;
}

const struct work_stats *work_stats(const struct work *work)
{
	return &work->stats;
}

uint64_t work_losses(const struct work *work)
{
	uint64_t losses = 0;

	for (unsigned i = 0; i < work->link_count; i++)
		losses += work->links[i].losses;
	return losses;
}

uint64_t work_longest_outage_ns(const struct work *work)
{
	uint64_t longest_ns = 0;

	for (unsigned i = 0; i < work->link_count; i++)
		longest_ns = MAX(longest_ns, work->links[i].longest_outage_ns);
	return longest_ns;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_client.c - a guest with a ledger of its acknowledged writes, on an NBD export.
 *
 * usage: ledger_client --ledger FILE [OPTION...] URI     works until told to stop
 *        ledger_client --ledger FILE --verify IMAGE|URI  holds a disk against the ledger, no more
 *
 *   --seed N            decides everything but time; printed
 *   --depth N           requests in flight (16; 0: idle, verifies when told)
 *   --connections N     (1)
 *   --rate N            requests a second (as they are answered)
 *   --reads P --zeroes P --flushes P    percent of the requests (30, 10, 1)
 *   --fua P             percent of the writes (5)
 *   --fill BYTES        of the beginning of the disk are written first
 *   --drop-every MS     tear a connection down, about so often
 *   --late MS           tell of requests that take longer (5000)
 *   --seconds N         stop after so long
 *
 * Commands on stdin, a line each, and their answers:
 *
 *   verify              verified sectors=N lost=N early=N damaged=N ms=N
 *   hold, go            held (nothing is in flight), going
 *   drop                dropped
 *   report              report reads=N ... and so on
 *   stop (or the end, without --seconds)
 *                       final ..., the same; exit status 0 when nothing was wrong
 *
 * Told unasked: filled bytes=N; error, mismatch, late and ended lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/check.h"
#include "tests/lib/ledger_work.h"

#define LINE_BYTES 256u
#define SETTLE_NS (UINT64_C(120) * 1000000000)
#define MS UINT64_C(1000000)

struct client {
	struct work *work;
	struct ledger_book *book;
	struct work_options options;
	const char *ledger;
	const char *verify;
	uint64_t drop_every_ms, seconds;
	uint64_t started_ns, next_drop_ns, verify_began_ns;
	uint64_t bad_sectors;           /* of all verifications */
	char line[LINE_BYTES];
	size_t line_bytes;
	bool told_filled, holding, stopping;
	int input;                      /* -1 once ended */
};

/* ---- telling ---- */

static void tell_verdict(const char *what, const struct ledger_verdict *verdict, uint64_t ns)
{
	printf("%s sectors=%" PRIu64 " lost=%" PRIu64 " early=%" PRIu64 " damaged=%" PRIu64
	       " ms=%" PRIu64 "\n", what, verdict->sectors, verdict->lost, verdict->early,
	       verdict->damaged, ns / MS);
}

static void tell_stats(const struct client *client, const char *what)
{
	const struct work_stats *stats = work_stats(client->work);

	printf("%s reads=%" PRIu64 " writes=%" PRIu64 " zeroes=%" PRIu64 " trims=%" PRIu64
	       " flushes=%" PRIu64 " replays=%" PRIu64 " losses=%" PRIu64 " errors=%" PRIu64
	       " late=%" PRIu64 " bad_reads=%" PRIu64 " bad_sectors=%" PRIu64 " longest_ms=%" PRIu64
	       " longest_served_ms=%" PRIu64 " longest_outage_ms=%" PRIu64 "\n", what, stats->reads,
	       stats->writes, stats->zeroes, stats->trims, stats->flushes, stats->replays,
	       work_losses(client->work), stats->errors, stats->late,
	       ledger_verdict_bad(&stats->verdict), client->bad_sectors, stats->longest_ns / MS,
	       stats->longest_served_ns / MS, work_longest_outage_ns(client->work) / MS);
}

/* ---- commands ---- */

static void client_command(struct client *client, const char *command)
{
	if (strcmp(command, "stop") == 0) {
		client->stopping = true;
	} else if (strcmp(command, "verify") == 0) {
		client->verify_began_ns = link_now_ns();
		work_verify(client->work);
	} else if (strcmp(command, "hold") == 0) {
		client->holding = true;
		work_hold(client->work, true);
	} else if (strcmp(command, "go") == 0) {
		client->holding = false;
		work_hold(client->work, false);
		printf("going\n");
	} else if (strcmp(command, "drop") == 0) {
		work_drop(client->work);
		printf("dropped\n");
	} else if (strcmp(command, "report") == 0) {
		tell_stats(client, "report");
	} else {
		printf("unknown command '%s'\n", command);
	}
}

static void client_read_input(struct client *client)
{
	ssize_t got = read(client->input, client->line + client->line_bytes,
			   LINE_BYTES - 1 - client->line_bytes);
	char *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {                 /* the end, or a line that is none */
		client->input = -1;
		client->stopping = !client->seconds;
		return;
	}
	client->line_bytes += (size_t)got;
	client->line[client->line_bytes] = '\0';
	while ((end = strchr(client->line, '\n'))) {
		*end = '\0';
		client_command(client, client->line);
		client->line_bytes -= (size_t)(end + 1 - client->line);
		memmove(client->line, end + 1, client->line_bytes + 1);
	}
}

/* ---- the run ---- */

static void client_after_turn(struct client *client)
{
	struct ledger_verdict verdict;
	uint64_t now_ns = link_now_ns();

	if (work_verified(client->work, &verdict)) {
		tell_verdict("verified", &verdict, now_ns - client->verify_began_ns);
		client->bad_sectors += ledger_verdict_bad(&verdict);
	}
	if (!client->told_filled && work_is_filled(client->work)) {
		client->told_filled = true;
		printf("filled bytes=%" PRIu64 "\n", client->options.fill_bytes);
	}
	if (client->holding && work_is_idle(client->work)) {
		client->holding = false;
		printf("held\n");
	}
	if (client->drop_every_ms && now_ns >= client->next_drop_ns) {
		uint64_t random = ledger_mix(client->options.seed ^ now_ns);

		if (client->next_drop_ns)
			work_drop(client->work);
		client->next_drop_ns = now_ns + random % (2 * client->drop_every_ms * MS);
	}
	if (client->seconds && now_ns - client->started_ns > client->seconds * 1000 * MS)
		client->stopping = true;
}

static int client_run(struct client *client)
{
	const struct work_stats *stats = work_stats(client->work);
	uint64_t give_up_ns;

	client->started_ns = link_now_ns();
	while (!client->stopping) {
		work_turn(client->work, link_now_ns() + 100 * MS, client->input);
		if (client->input >= 0)
			client_read_input(client);
		client_after_turn(client);
	}
	work_hold(client->work, true);
	give_up_ns = link_now_ns() + SETTLE_NS;
	while (!work_is_idle(client->work) && link_now_ns() < give_up_ns) {
		work_turn(client->work, link_now_ns() + 100 * MS, -1);
		client_after_turn(client);
	}
	if (!work_is_idle(client->work))
		printf("unanswered requests are left\n");
	tell_stats(client, "final");
	return work_is_idle(client->work) && !stats->errors &&
	       !ledger_verdict_bad(&stats->verdict) && !client->bad_sectors ? 0 : 1;
}

/* ---- holding a disk against the ledger alone ---- */

static int verify_image(struct client *client)
{
	static _Alignas(4096) uint8_t bytes[WORK_VERIFY_SECTORS * LEDGER_SECTOR_BYTES];
	uint64_t sectors = ledger_book_sectors(client->book), began_ns = link_now_ns();
	struct ledger_verdict verdict = { 0 };
	int fd = open(client->verify, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "cannot open '%s': %s\n", client->verify, strerror(errno));
		return 1;
	}
	for (uint64_t at = 0; at < sectors;) {
		uint32_t count = (uint32_t)MIN(sectors - at, WORK_VERIFY_SECTORS);
		size_t want = (size_t)count * LEDGER_SECTOR_BYTES;
		ssize_t got = pread(fd, bytes, want, (off_t)(at * LEDGER_SECTOR_BYTES));

		if (got != (ssize_t)want) {
			fprintf(stderr, "cannot read '%s' at %" PRIu64 ": %s\n", client->verify,
				at * LEDGER_SECTOR_BYTES, got < 0 ? strerror(errno) : "it ends");
			close(fd);
			return 1;
		}
		ledger_book_check(client->book, at, count, bytes, &verdict);
		at += count;
	}
	close(fd);
	tell_verdict("verified", &verdict, link_now_ns() - began_ns);
	return ledger_verdict_bad(&verdict) ? 1 : 0;
}

static int verify_uri(struct client *client)
{
	uint64_t began_ns = link_now_ns(), size_bytes, at = 0;
	struct ledger_verdict verdict = { 0 };
	struct nbd_handle *nbd = nbd_create();
	static uint8_t bytes[WORK_VERIFY_SECTORS * LEDGER_SECTOR_BYTES];
	uint64_t sectors = ledger_book_sectors(client->book);

	CHECK(nbd);
	if (nbd_connect_uri(nbd, client->verify) == -1)
		goto complain;
	size_bytes = (uint64_t)nbd_get_size(nbd);
	while (at < sectors && size_bytes >= sectors * LEDGER_SECTOR_BYTES) {
		uint32_t count = (uint32_t)MIN(sectors - at, WORK_VERIFY_SECTORS);

		if (nbd_pread(nbd, bytes, (size_t)count * LEDGER_SECTOR_BYTES,
			      at * LEDGER_SECTOR_BYTES, 0) == -1)
			goto complain;
		ledger_book_check(client->book, at, count, bytes, &verdict);
		at += count;
	}
	nbd_close(nbd);
	tell_verdict("verified", &verdict, link_now_ns() - began_ns);
	return verdict.sectors == sectors && !ledger_verdict_bad(&verdict) ? 0 : 1;

complain:
	fprintf(stderr, "%s\n", nbd_get_error());
	nbd_close(nbd);
	return 1;
}

static int client_verify(struct client *client)
{
	int rc;

	client->book = ledger_book_open(client->ledger);
	if (!client->book)
		return 1;
	rc = strncmp(client->verify, "nbd", 3) == 0 ? verify_uri(client) : verify_image(client);
	ledger_book_close(client->book);
	return rc;
}

static int client_work(struct client *client)
{
	uint64_t size_bytes;
	int rc = 1;

	if (work_probe(client->options.uri, &size_bytes))
		return 1;
	client->book = ledger_book_create(client->ledger, ledger_mix(client->options.seed),
					  size_bytes / LEDGER_SECTOR_BYTES);
	if (!client->book)
		return 1;
	if (size_bytes < WORK_REQUEST_SECTORS * LEDGER_SECTOR_BYTES)
		fprintf(stderr, "a disk of %" PRIu64 " bytes is too small\n", size_bytes);
	else
		client->work = work_new(&client->options, client->book);
	if (client->work) {
		printf("seed=%" PRIu64 " bytes=%" PRIu64 " depth=%u connections=%u\n",
		       client->options.seed, size_bytes, client->options.depth,
		       client->options.connections);
		rc = client_run(client);
		work_free(client->work);
	}
	ledger_book_close(client->book);
	return rc;
}

/* ---- options ---- */

static uint64_t number_of(const char *text, uint64_t max)
{
	char *end;
	unsigned long long number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || number > max) {
		fprintf(stderr, "'%s' is no number up to %" PRIu64 "\n", text, max);
		exit(2);
	}
	return number;
}

enum client_option {
	OPT_LEDGER = 1, OPT_VERIFY, OPT_SEED, OPT_DEPTH, OPT_CONNECTIONS, OPT_RATE, OPT_READS,
	OPT_ZEROES, OPT_FLUSHES, OPT_FUA, OPT_FILL, OPT_DROP, OPT_LATE, OPT_SECONDS,
};

static void client_option(struct client *client, int option, const char *value)
{
	struct work_options *work = &client->options;

	switch (option) {
	case OPT_LEDGER: client->ledger = value; break;
	case OPT_VERIFY: client->verify = value; break;
	case OPT_SEED: work->seed = number_of(value, UINT64_MAX); break;
	case OPT_DEPTH: work->depth = (unsigned)number_of(value, WORK_DEPTH_MAX); break;
	case OPT_CONNECTIONS:
		work->connections = (unsigned)number_of(value, WORK_LINKS_MAX);
		break;
	case OPT_RATE: work->rate = (unsigned)number_of(value, 10000000); break;
	case OPT_READS: work->read_percent = (unsigned)number_of(value, 100); break;
	case OPT_ZEROES: work->zero_percent = (unsigned)number_of(value, 100); break;
	case OPT_FLUSHES: work->flush_percent = (unsigned)number_of(value, 100); break;
	case OPT_FUA: work->fua_percent = (unsigned)number_of(value, 100); break;
	case OPT_FILL: work->fill_bytes = number_of(value, UINT64_MAX); break;
	case OPT_DROP: client->drop_every_ms = number_of(value, 1000000); break;
	case OPT_LATE: work->late_ns = number_of(value, 1000000000) * MS; break;
	case OPT_SECONDS: client->seconds = number_of(value, 1000000); break;
	default: exit(2);
	}
}

static void client_options(struct client *client, int argc, char **argv)
{
	static const struct option names[] = {
		{ "ledger", required_argument, NULL, OPT_LEDGER },
		{ "verify", required_argument, NULL, OPT_VERIFY },
		{ "seed", required_argument, NULL, OPT_SEED },
		{ "depth", required_argument, NULL, OPT_DEPTH },
		{ "connections", required_argument, NULL, OPT_CONNECTIONS },
		{ "rate", required_argument, NULL, OPT_RATE },
		{ "reads", required_argument, NULL, OPT_READS },
		{ "zeroes", required_argument, NULL, OPT_ZEROES },
		{ "flushes", required_argument, NULL, OPT_FLUSHES },
		{ "fua", required_argument, NULL, OPT_FUA },
		{ "fill", required_argument, NULL, OPT_FILL },
		{ "drop-every", required_argument, NULL, OPT_DROP },
		{ "late", required_argument, NULL, OPT_LATE },
		{ "seconds", required_argument, NULL, OPT_SECONDS },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
		client_option(client, option, optarg);
	if (!client->ledger || (!client->verify) != (argc - optind == 1) ||
	    client->options.connections == 0 ||
	    client->options.read_percent + client->options.flush_percent +
			    client->options.zero_percent > 100) {
		fprintf(stderr, "usage: ledger_client --ledger FILE [OPTION...] URI\n"
				"       ledger_client --ledger FILE --verify IMAGE|URI\n");
		exit(2);
	}
	client->options.uri = argv[optind];
}

int main(int argc, char **argv)
{
	static struct client client = {
		.options = { .connections = 1, .depth = 16, .read_percent = 30, .zero_percent = 10,
			     .flush_percent = 1, .fua_percent = 5, .late_ns = 5000 * MS,
			     .seed = 1 },
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	client_options(&client, argc, argv);
	if (client.verify)
		return client_verify(&client);
	if (fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) < 0)
		client.input = -1;
	return client_work(&client);
}

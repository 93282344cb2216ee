/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger - a guest that knows what its disk must hold.
 *
 *   ledger [options] DISK          work on DISK until told to stop, then check all of it
 *   ledger --verify [options] FILE check a disk image alone: every block says what it is
 *   ledger --fill [options]        write an initial disk content to stdout
 *
 * Runs in the test guest on a raw block device and on the host on a file.  It talks in lines
 * that begin with "LEDGER ", and reads commands, one per line, from stdin:
 *
 *   stop        finish: last answers, flush, read the whole disk, say FINAL, exit
 *   hold | go   park the workers between two requests (answered by HELD) | let them go on
 *   phase NAME  end the running phase: its figures are said under NAME, a new one begins
 *
 * Exit: 0 all is as it should be, 1 it is not, 2 usage or set-up.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "ledger_block.h"
#include "ledger_stats.h"
#include "ledger_work.h"

enum { EXIT_OK, EXIT_WRONG, EXIT_USAGE };
enum { COMMAND_BYTES_MAX = 64, STREAM_BLOCKS = 256 };

struct arguments {
	struct work_options work;
	enum { MODE_RUN, MODE_VERIFY, MODE_FILL } mode;
	uint64_t seconds;           /* 0: until told */
	const char *expect;         /* digest, or NULL */
};

void ledger_say(const char *format, ...)
{
	char line[768] = "LEDGER ";
	const size_t head = strlen(line);
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line + head, sizeof(line) - head - 1, format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len > sizeof(line) - head - 2)
		len = (int)(sizeof(line) - head - 2);
	line[head + (size_t)len] = '\n';
	/* In one piece, so that lines of threads and of the kernel stay whole. */
	if (write(STDOUT_FILENO, line, head + (size_t)len + 1) < 0)
		return; /* nobody is left to be told */
}

/* ---- the run ---- */

struct session {
	struct work *work;
	int signal_fd, timer_fd;
	bool stdin_open;
	bool stopped;
	uint64_t seconds_left;      /* UINT64_MAX: until told */
	char command[COMMAND_BYTES_MAX];
	size_t command_len;
};

static void session_command(struct session *session, const char *command)
{
	if (!strcmp(command, "stop"))
		session->stopped = true;
	else if (!strcmp(command, "hold"))
		work_hold(session->work);
	else if (!strcmp(command, "go"))
		work_go(session->work);
	else if (!strncmp(command, "phase ", 6))
		work_report_phase(session->work, command + 6);
	else if (*command)
		ledger_say("ERROR unknown command '%s'", command);
}

/* Collect bytes to lines; a line that is too long is cut, and then unknown. */
static void session_bytes(struct session *session, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len && !session->stopped; i++) {
		if (bytes[i] != '\n' && bytes[i] != '\r') {
			if (session->command_len < COMMAND_BYTES_MAX - 1)
				session->command[session->command_len++] = bytes[i];
			continue;
		}
		session->command[session->command_len] = '\0';
		session->command_len = 0;
		session_command(session, session->command);
	}
}

static void session_stdin(struct session *session)
{
	char bytes[256];
	ssize_t len = read(STDIN_FILENO, bytes, sizeof(bytes));

	if (len < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (len > 0) {
		session_bytes(session, bytes, (size_t)len);
		return;
	}
	/* Nobody can tell us to stop any more: then only a time limit keeps the run going. */
	session->stdin_open = false;
	if (session->seconds_left == UINT64_MAX)
		session->stopped = true;
}

static void session_second(struct session *session)
{
	uint64_t elapsed;

	if (read(session->timer_fd, &elapsed, sizeof(elapsed)) != (ssize_t)sizeof(elapsed))
		return;
	work_report_second(session->work);
	if (session->seconds_left == UINT64_MAX)
		return;
	session->seconds_left -= elapsed < session->seconds_left ? elapsed : session->seconds_left;
	session->stopped = session->stopped || !session->seconds_left;
}

static void session_loop(struct session *session)
{
	while (!session->stopped) {
		struct pollfd fds[3] = {
			{ .fd = session->timer_fd, .events = POLLIN },
			{ .fd = session->signal_fd, .events = POLLIN },
			{ .fd = session->stdin_open ? STDIN_FILENO : -1, .events = POLLIN },
		};

		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents)
			session_second(session);
		if (fds[1].revents)
			session->stopped = true;
		if (fds[2].revents)
			session_stdin(session);
	}
}

/* A console gives whole lines, echoes and translates; the observer wants the bytes. */
static void session_raw_console(void)
{
	struct termios termios;

	if (tcgetattr(STDIN_FILENO, &termios))
		return;
	cfmakeraw(&termios);
	tcsetattr(STDIN_FILENO, TCSANOW, &termios);
}

/* Before any thread is made: all of them inherit the blocked signals. */
static bool session_open_fds(struct session *session)
{
	struct itimerspec second = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	session->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	session->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	return session->signal_fd >= 0 && session->timer_fd >= 0 &&
	       !timerfd_settime(session->timer_fd, 0, &second, NULL);
}

static int say_final(const struct work_result *result)
{
	char digest[LEDGER_DIGEST_CHARS];

	ledger_digest_format(&result->digest, digest);
	ledger_say("FINAL %s blocks=%" PRIu64 " in_use=%" PRIu64 " writes=%" PRIu64
		   " errors=%" PRIu64 " digest=%s", result->error_count ? "FAILED" : "ok",
		   result->block_count, result->digest.block_count, result->write_count,
		   result->error_count, digest);
	return result->error_count ? EXIT_WRONG : EXIT_OK;
}

static int run(const struct arguments *arguments)
{
	struct session session = {
		.stdin_open = true,
		.seconds_left = arguments->seconds ? arguments->seconds : UINT64_MAX,
	};
	struct work_result result;

	session.work = work_open(&arguments->work);
	if (!session.work)
		return EXIT_USAGE;
	session_raw_console();
	if (!session_open_fds(&session)) {
		ledger_say("ERROR cannot make a timer: %s", strerror(errno));
		return EXIT_USAGE;
	}
	if (!work_start(session.work))
		return EXIT_USAGE;
	ledger_say("READY blocks=%" PRIu64 " rate=%u run=%" PRIu64,
		   work_block_count(session.work), arguments->work.rate, arguments->work.run);
	session_loop(&session);
	work_report_phase(session.work, "last");
	work_stop(session.work);
	ledger_say("STOPPED reading the whole disk");
	result = work_verify(session.work);
	work_free(session.work);
	return say_final(&result);
}

/* ---- a disk image on its own ---- */

struct verify_counts {
	struct ledger_digest digest;
	uint64_t block_count;
	uint64_t wrong_count;
};

static void verify_block(struct verify_counts *counts, const uint8_t *block, uint64_t run_id)
{
	uint64_t lba = counts->block_count++;
	struct ledger_finding found = ledger_block_judge(block, run_id, lba);

	ledger_digest_fold(&counts->digest, &found);
	if (found.kind == LEDGER_ZERO || found.kind == LEDGER_SOUND)
		return;
	if (counts->wrong_count++ < 1000)
		ledger_say("MISMATCH when=verify lba=%" PRIu64 " found=%s sequence=%" PRIu64
			   " of_lba=%" PRIu64 " of_run=%" PRIu64, lba,
			   ledger_kind_name(found.kind), found.sequence, found.lba, found.run);
}

static bool verify_stream(struct verify_counts *counts, FILE *file, uint64_t run_id)
{
	static _Alignas(8) uint8_t buf[STREAM_BLOCKS * LEDGER_BLOCK_BYTES];
	size_t len;

	while ((len = fread(buf, 1, sizeof(buf), file)) > 0) {
		/* A size that is no multiple of 4 KiB: the rest counts as a block of its own. */
		memset(buf + len, 0, -len % LEDGER_BLOCK_BYTES);
		for (size_t at = 0; at < len; at += LEDGER_BLOCK_BYTES)
			verify_block(counts, buf + at, run_id);
	}
	return !ferror(file);
}

static int verify(const struct arguments *arguments)
{
	struct verify_counts counts = { 0 };
	char digest[LEDGER_DIGEST_CHARS];
	FILE *file = fopen(arguments->work.path, "re");
	bool as_expected;

	if (!file || !verify_stream(&counts, file, arguments->work.run)) {
		ledger_say("ERROR cannot read '%s': %s", arguments->work.path, strerror(errno));
		if (file)
			fclose(file);
		return EXIT_USAGE;
	}
	fclose(file);
	ledger_digest_format(&counts.digest, digest);
	as_expected = !arguments->expect || !strcmp(arguments->expect, digest);
	ledger_say("VERIFY %s blocks=%" PRIu64 " in_use=%" PRIu64 " wrong=%" PRIu64
		   " digest=%s%s", as_expected && !counts.wrong_count ? "ok" : "FAILED",
		   counts.block_count, counts.digest.block_count, counts.wrong_count, digest,
		   as_expected ? "" : " (not the expected one)");
	return as_expected && !counts.wrong_count ? EXIT_OK : EXIT_WRONG;
}

static int fill(const struct arguments *arguments)
{
	static _Alignas(8) uint8_t block[LEDGER_BLOCK_BYTES];
	uint64_t count = arguments->work.filled_bytes / LEDGER_BLOCK_BYTES;
	bool written = true;

	for (uint64_t lba = 0; written && lba < count; lba++) {
		ledger_block_make(block, arguments->work.run, lba, LEDGER_SEQ_FILL, 0);
		written = fwrite(block, sizeof(block), 1, stdout) == 1;
	}
	if (written && !fflush(stdout))
		return EXIT_OK;
	fprintf(stderr, "ledger: cannot write: %s\n", strerror(errno));
	return EXIT_WRONG;
}

/* ---- the command line ---- */

static const char usage_text[] =
	"usage: ledger [options] DISK | --verify [--run N] [--expect DIGEST] FILE |\n"
	"       --fill --run N --filled SIZE >FILE\n"
	"  --run N            name of the run and seed of its choices (1)\n"
	"  --size SIZE        use this much of the disk (all of it)\n"
	"  --filled SIZE      so much of it holds the output of --fill (0)\n"
	"  --rate N           requests a second, 0: no limit (500)\n"
	"  --threads N        requests in flight (4, at most 64)\n"
	"  --reads PERCENT    (30)    --trims PERMILLE  discards, and as many zeroes (5)\n"
	"  --flush-every N    writes (64, 0: never)\n"
	"  --seconds N        stop after so long (when told)\n"
	"  --buffered         no O_DIRECT\n"
	"SIZE: a number with K, M, G or T (KiB, MiB... too)\n";

enum option_id {
	OPTION_RUN = 256, OPTION_SIZE, OPTION_FILLED, OPTION_RATE, OPTION_THREADS, OPTION_READS,
	OPTION_TRIMS, OPTION_FLUSH_EVERY, OPTION_SECONDS, OPTION_BUFFERED, OPTION_VERIFY,
	OPTION_EXPECT, OPTION_FILL,
};

static const struct option option_table[] = {
	{ "run", required_argument, NULL, OPTION_RUN },
	{ "size", required_argument, NULL, OPTION_SIZE },
	{ "filled", required_argument, NULL, OPTION_FILLED },
	{ "rate", required_argument, NULL, OPTION_RATE },
	{ "threads", required_argument, NULL, OPTION_THREADS },
	{ "reads", required_argument, NULL, OPTION_READS },
	{ "trims", required_argument, NULL, OPTION_TRIMS },
	{ "flush-every", required_argument, NULL, OPTION_FLUSH_EVERY },
	{ "seconds", required_argument, NULL, OPTION_SECONDS },
	{ "buffered", no_argument, NULL, OPTION_BUFFERED },
	{ "verify", no_argument, NULL, OPTION_VERIFY },
	{ "expect", required_argument, NULL, OPTION_EXPECT },
	{ "fill", no_argument, NULL, OPTION_FILL },
	{ 0 },
};

static bool parse_number(const char *text, uint64_t most, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !errno && !*end && *value <= most;
}

static bool parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	size_t digits = strspn(text, "0123456789");
	char number[21] = "";
	const char *unit;

	if (!digits || digits >= sizeof(number))
		return false;
	memcpy(number, text, digits);
	if (!parse_number(number, UINT64_MAX >> 41, bytes))
		return false;
	text += digits;
	if (!*text)
		return true;
	unit = strchr(units, *text);
	if (!unit || (text[1] && strcmp(text + 1, "iB")))
		return false;
	*bytes <<= 10 * (unit - units + 1);
	return true;
}

static bool parse_unsigned(const char *text, unsigned least, unsigned most, unsigned *value)
{
	uint64_t number;

	if (!parse_number(text, most, &number) || number < least)
		return false;
	*value = (unsigned)number;
	return true;
}

static bool parse_option(struct arguments *arguments, int option, const char *value)
{
	struct work_options *work = &arguments->work;

	switch (option) {
	case OPTION_RUN: return parse_number(value, UINT64_MAX, &work->run);
	case OPTION_SIZE: return parse_size(value, &work->size_bytes);
	case OPTION_FILLED: return parse_size(value, &work->filled_bytes);
	case OPTION_RATE: return parse_unsigned(value, 0, 1000000, &work->rate);
	case OPTION_THREADS: return parse_unsigned(value, 1, 64, &work->thread_count);
	case OPTION_READS: return parse_unsigned(value, 0, 100, &work->read_percent);
	case OPTION_TRIMS: return parse_unsigned(value, 0, 500, &work->trim_permille);
	case OPTION_FLUSH_EVERY: return parse_unsigned(value, 0, 1000000, &work->flush_every);
	case OPTION_SECONDS: return parse_number(value, 1000000, &arguments->seconds);
	case OPTION_BUFFERED: work->buffered = true; return true;
	case OPTION_VERIFY: arguments->mode = MODE_VERIFY; return true;
	case OPTION_EXPECT: arguments->expect = value; return true;
	case OPTION_FILL: arguments->mode = MODE_FILL; return true;
	default: return false;
	}
}

static bool parse(struct arguments *arguments, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", option_table, NULL)) != -1)
		if (!parse_option(arguments, option, optarg)) {
			if (option != '?')
				fprintf(stderr, "ledger: bad value '%s'\n", optarg);
			return false;
		}
	if (arguments->mode != MODE_FILL && optind == argc - 1)
		arguments->work.path = argv[optind++];
	else if (arguments->mode != MODE_FILL)
		return false;
	return optind == argc;
}

int main(int argc, char **argv)
{
	struct arguments arguments = {
		.work = { .run = 1, .rate = 500, .thread_count = 4, .read_percent = 30,
			  .trim_permille = 5, .flush_every = 64 },
	};

	if (!parse(&arguments, argc, argv)) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	switch (arguments.mode) {
	case MODE_VERIFY: return verify(&arguments);
	case MODE_FILL: return fill(&arguments);
	default: return run(&arguments);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/units.h"
#include "tools/blkmirror/table.h"
#include "tools/common/wall.h"

#define PLAIN_INTERVAL_MS 10000
#define BAR_MAX_COLUMNS 40
#define SPEED_BYTES (2 * FORMAT_BYTES + 8)

static uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/* ---- parts ---- */

static uint64_t disks_sum(const json_t *task, const char *key)
{
	uint64_t sum = number(json_object_get(task, "copy"), key);
	json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(task, "disks"), i, disk)
		sum += number(disk, key);
	return sum;
}

static unsigned percent_done(const json_t *task)
{
	const json_t *progress = json_object_get(task, "progress");
	uint64_t total = number(progress, "total_bytes"), done = number(progress, "done_bytes");

	if (total == 0)
		return strcmp(text(task, "state"), "completed") == 0 ? 100 : 0;
	return (unsigned)((double)MIN(done, total) / (double)total * 100);
}

/* How long it ran; 0: it runs still, or never did. */
static uint64_t duration_ms(const json_t *task)
{
	int64_t started, finished;

	if (!wall_parse(text(task, "started"), &started) ||
	    !wall_parse(text(task, "finished"), &finished))
		return 0;
	return finished > started ? (uint64_t)(finished - started) : 0;
}

/* The speed: now, while it runs; of what was copied over all its time, once it has ended. */
static void format_speed(const json_t *task, char out[SPEED_BYTES])
{
	const json_t *progress = json_object_get(task, "progress");
	uint64_t took_ms = duration_ms(task);
	char rate[FORMAT_BYTES], time[FORMAT_BYTES];

	if (took_ms)
		snprintf(out, SPEED_BYTES, "in %s, %s",
			 format_duration(time, took_ms * NS_PER_MS),
			 format_rate(rate, disks_sum(task, "copied_bytes") * 1000 / took_ms));
	else
		snprintf(out, SPEED_BYTES, "%s",
			 format_rate(rate, number(progress, "rate_bytes_per_s")));
}

static void draw_bar(char *out, int columns, unsigned percent)
{
	int filled = (int)((unsigned)columns * percent / 100);

	out[0] = '[';
	for (int i = 0; i < columns; i++)
		out[i + 1] = i < filled ? '#' : '.';
	out[columns + 1] = ']';
	out[columns + 2] = '\0';
}

/* Cut to width columns; the last one shows that something is missing. */
static void cut(char *line, int width)
{
	if ((int)strlen(line) <= width)
		return;
	line[width] = '\0';
	line[width - 1] = '>';
}

static void line_head(const json_t *task, int width, char *out)
{
	const json_t *progress = json_object_get(task, "progress");
	char done[FORMAT_BYTES], total[FORMAT_BYTES], speed[SPEED_BYTES], eta[FORMAT_BYTES];
	char bar[BAR_MAX_COLUMNS + 3] = "", left[96], right[224];
	int room;

	format_speed(task, speed);
	snprintf(left, sizeof(left), "%s %-10s", text(task, "id"),
		 strcmp(text(task, "state"), "running") == 0 && text(task, "phase")[0]
			 ? text(task, "phase")
			 : text(task, "state"));
	snprintf(right, sizeof(right), "%3u%%  %s of %s  %s", percent_done(task),
		 format_bytes(done, number(progress, "done_bytes")),
		 format_bytes(total, number(progress, "total_bytes")), speed);
	if (number(progress, "eta_s"))
		snprintf(right + strlen(right), sizeof(right) - strlen(right), "  ETA %s",
			 format_duration(eta, number(progress, "eta_s") * NS_PER_S));
	room = MIN(BAR_MAX_COLUMNS, width - (int)strlen(left) - (int)strlen(right) - 4);
	if (room >= 5)
		draw_bar(bar, room, percent_done(task));
	snprintf(out, PROGRESS_LINE_BYTES, "%s %s%s%s", left, bar, bar[0] ? " " : "", right);
	cut(out, width);
}

static void line_bytes(const json_t *task, int width, char *out)
{
	static const struct {
		const char *label, *key;
	} parts[] = { { "copied", "copied_bytes" }, { "zero", "zero_bytes" },
		      { "hole", "hole_bytes" }, { "mirrored", "mirrored_bytes" },
		      { "re-copied", "recopied_bytes" } };
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
		char bytes[FORMAT_BYTES];

		used += (size_t)snprintf(out + used, PROGRESS_LINE_BYTES - used, "  %s %s",
					 parts[i].label,
					 format_bytes(bytes, disks_sum(task, parts[i].key)));
	}
	cut(out, width);
}

static void line_guest(const json_t *task, int width, char *out)
{
	const json_t *guest = json_object_get(task, "guest");
	char now[FORMAT_BYTES], before[FORMAT_BYTES];

	snprintf(out, PROGRESS_LINE_BYTES,
		 "  guest %llu IOPS (before: %llu)  p99 %s (before: %s)",
		 (unsigned long long)number(guest, "iops"),
		 (unsigned long long)number(guest, "iops_before"),
		 format_duration(now, number(guest, "p99_us") * NS_PER_US),
		 format_duration(before, number(guest, "p99_before_us") * NS_PER_US));
	cut(out, width);
}

static bool guest_is_there(const json_t *task)
{
	const json_t *guest = json_object_get(task, "guest");

	return number(guest, "iops") || number(guest, "iops_before");
}

void progress_render(const json_t *task, int width, struct progress_text *out)
{
	const char *waiting_for = text(task, "waiting_for");

	width = MIN(MAX(width, 20), PROGRESS_LINE_BYTES - 1);
	out->count = 1;
	if (waiting_for[0]) {
		snprintf(out->lines[0], PROGRESS_LINE_BYTES, "%s queued: waiting for %s",
			 text(task, "id"), waiting_for);
		cut(out->lines[0], width);
		return;
	}
	line_head(task, width, out->lines[0]);
	if (json_array_size(json_object_get(task, "disks")) || json_object_get(task, "copy"))
		line_bytes(task, width, out->lines[out->count++]);
	if (guest_is_there(task))
		line_guest(task, width, out->lines[out->count++]);
}

void progress_plain(const json_t *task, char out[PROGRESS_LINE_BYTES])
{
	const json_t *progress = json_object_get(task, "progress");
	const char *waiting_for = text(task, "waiting_for");
	char done[FORMAT_BYTES], total[FORMAT_BYTES], speed[SPEED_BYTES];

	format_speed(task, speed);
	snprintf(out, PROGRESS_LINE_BYTES, "%s %s %s %s%s%s %u%% %s of %s %s", text(task, "id"),
		 text(task, "type"), text(task, "state"), text(task, "phase"),
		 waiting_for[0] ? " waiting for " : "", waiting_for, percent_done(task),
		 format_bytes(done, number(progress, "done_bytes")),
		 format_bytes(total, number(progress, "total_bytes")), speed);
}

/* ---- drawing ---- */

static void draw_terminal(struct progress *progress, const json_t *task)
{
	struct progress_text lines;
	char screen[PROGRESS_LINES_MAX * (PROGRESS_LINE_BYTES + 16) + 64];
	size_t used = 0;

	progress_render(task, progress->cli->width - 1, &lines);
	if (progress->drawn_lines > 0)
		used += (size_t)snprintf(screen, sizeof(screen), "\033[%dA", progress->drawn_lines);
	for (int i = 0; i < lines.count; i++)
		used += (size_t)snprintf(screen + used, sizeof(screen) - used, "\r%s\033[K\n",
					 lines.lines[i]);
	used += (size_t)snprintf(screen + used, sizeof(screen) - used, "\033[J");
	fflush(stdout);
	if (write(STDOUT_FILENO, screen, used) < 0)
		return; /* the terminal has gone; the task has not */
	progress->drawn_lines = lines.count;
}

void progress_draw(struct progress *progress, const json_t *task)
{
	int64_t now_ms = wall_now_ms();
	char line[PROGRESS_LINE_BYTES];

	if (progress->cli->json)
		return;
	if (progress->cli->terminal) {
		draw_terminal(progress, task);
		return;
	}
	if (strcmp(progress->phase, text(task, "phase")) == 0 &&
	    strcmp(progress->state, text(task, "state")) == 0 &&
	    now_ms - progress->said_ms < PLAIN_INTERVAL_MS)
		return;
	snprintf(progress->phase, sizeof(progress->phase), "%s", text(task, "phase"));
	snprintf(progress->state, sizeof(progress->state), "%s", text(task, "state"));
	progress->said_ms = now_ms;
	progress_plain(task, line);
	puts(line);
	fflush(stdout);
}

void progress_end(struct progress *progress)
{
	progress->drawn_lines = 0;
}

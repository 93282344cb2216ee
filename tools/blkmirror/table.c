/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirror/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct table {
	const char *const *headings;
	int column_count, row_count, cell_count;
	char (*cells)[TABLE_CELL_BYTES];
	int capacity;
};

static void no_memory(void)
{
	fputs("blkmirror: out of memory\n", stderr);
	exit(EXIT_FAILED);
}

struct table *table_new(const char *const *headings)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		no_memory();
	table->headings = headings;
	while (headings[table->column_count])
		table->column_count++;
	CHECK(table->column_count <= TABLE_COLUMNS_MAX);
	return table;
}

void table_cell(struct table *table, const char *format, ...)
{
	va_list args;

	if (table->cell_count == table->capacity) {
		table->capacity = table->capacity ? 2 * table->capacity : 64;
		table->cells = realloc(table->cells,
				       (size_t)table->capacity * sizeof(*table->cells));
		if (!table->cells)
			no_memory();
	}
	va_start(args, format);
	vsnprintf(table->cells[table->cell_count], TABLE_CELL_BYTES, format, args);
	va_end(args);
	/* A name from outside must not steer the terminal. */
	for (char *c = table->cells[table->cell_count]; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	table->cell_count++;
}

void table_row(struct table *table)
{
	table->row_count++;
	CHECK(table->cell_count == table->row_count * table->column_count);
}

int text_width(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

const char *table_colour(const char *word)
{
	static const struct {
		const char *word, *colour;
	} colours[] = {
		{ "up", "32" },      { "completed", "32" }, { "attached", "32" }, { "running", "36" },
		{ "held", "33" },    { "paused", "33" },    { "queued", "33" },   { "degraded", "33" },
		{ "waiting", "33" }, { "failed", "31" },    { "down", "31" },     { "cancelled", "35" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(colours); i++)
		if (strcmp(colours[i].word, word) == 0)
			return colours[i].colour;
	return NULL;
}

static void print_cell(const char *text, int width, const char *colour, bool last)
{
	if (colour)
		printf("\033[%sm", colour);
	fputs(text, stdout);
	if (colour)
		fputs("\033[0m", stdout);
	if (last)
		putchar('\n');
	else
		printf("%*s", width - text_width(text) + 2, "");
}

static void print_plain(const struct table *table)
{
	for (int i = 0; i < table->cell_count; i++)
		printf("%s%c", table->cells[i], (i + 1) % table->column_count ? '\t' : '\n');
}

void table_print(const struct table *table, const struct cli *cli)
{
	int widths[TABLE_COLUMNS_MAX];
	int columns = table->column_count;

	if (!cli->terminal) {
		print_plain(table);
		return;
	}
	for (int c = 0; c < columns; c++) {
		widths[c] = text_width(table->headings[c]);
		for (int r = 0; r < table->row_count; r++)
			widths[c] = MAX(widths[c], text_width(table->cells[r * columns + c]));
	}
	for (int c = 0; c < columns; c++)
		print_cell(table->headings[c], widths[c], cli->colour ? "1" : NULL,
			   c == columns - 1);
	for (int i = 0; i < table->cell_count; i++)
		print_cell(table->cells[i], widths[i % columns],
			   cli->colour ? table_colour(table->cells[i]) : NULL,
			   (i + 1) % columns == 0);
}

void table_free(struct table *table)
{
	free(table->cells);
	free(table);
}

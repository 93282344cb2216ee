/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - rows under headings: aligned and coloured on a terminal, else one line per row
 * with tabs between the cells and no headings, for cut and awk.
 */
#ifndef BM_TABLE_H
#define BM_TABLE_H

#include "tools/blkmirror/cli.h"

#define TABLE_COLUMNS_MAX 10
#define TABLE_CELL_BYTES 256

struct table;

/* headings: NULL-terminated.  Exits when out of memory. */
struct table *table_new(const char *const *headings);
void table_cell(struct table *table, const char *format, ...) PRINTF_LIKE(2, 3);
void table_row(struct table *table);    /* the row is complete */
void table_print(const struct table *table, const struct cli *cli);
void table_free(struct table *table);

/* The colour that fits a state ("32"), or NULL. */
const char *table_colour(const char *word);

/* Columns that a UTF-8 text takes (bytes that are no continuation). */
int text_width(const char *text);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wall.h - the time of day, for what people read.  Nothing is decided by it: deadlines
 * and intervals use the loop's monotonic clock.
 */
#ifndef BM_WALL_H
#define BM_WALL_H

#include <stdint.h>

#define WALL_TEXT_BYTES 32

/* Milliseconds since 1970, UTC. */
int64_t wall_now_ms(void);

/* "2026-11-22T10:00:00.123Z" */
void wall_format(int64_t wall_ms, char out[WALL_TEXT_BYTES]);
/* The way back, of what wall_format() has made; 0 for anything else. */
int64_t wall_parse(const char *text);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line per event on stderr, fit for journald.
 *
 * A line is "level subsystem: text"; under systemd (JOURNAL_STREAM is set) it
 * carries the "<N>" priority prefix instead of a time.  Control characters in
 * the text are replaced by '?', so nothing from outside can forge a line.
 * Thread-safe: one write() per line.  Never log a secret; never both log and
 * return the same error.
 */
#ifndef BM_BASE_LOG_H
#define BM_BASE_LOG_H

#include <stdbool.h>

#include "blkmirror/base/check.h"

enum log_level { LOG_LEVEL_NONE = -1, LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Default LOG_LEVEL_INFO.  Set before threads start, or on SIGHUP. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* "error", "warn", "info", "debug"; false for anything else. */
bool log_level_parse(const char *text, enum log_level *out);

void log_line(enum log_level level, const char *subsystem, const char *format, ...)
	PRINTF_LIKE(3, 4);

#define log_error(subsystem, ...) log_line(LOG_LEVEL_ERROR, subsystem, __VA_ARGS__)
#define log_warn(subsystem, ...) log_line(LOG_LEVEL_WARN, subsystem, __VA_ARGS__)
#define log_info(subsystem, ...) log_line(LOG_LEVEL_INFO, subsystem, __VA_ARGS__)
#define log_debug(subsystem, ...)                                                                  \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_line(LOG_LEVEL_DEBUG, subsystem, __VA_ARGS__);                         \
	} while (0)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * complaints.h - what clients do wrong is logged, but not as often as they like.
 *
 * All are counted; ten are shown in ten seconds, and how many were not, with the next after.
 *
 * Threading: one loop.
 */
#ifndef BM_COMPLAINTS_H
#define BM_COMPLAINTS_H

#include <stdarg.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop.h"

struct complaints {
	uint64_t count;                 /* all there ever were */
	uint64_t window_ns;             /* when it began */
	uint32_t in_window;
	enum log_level level;
	const char *room;               /* for the log: "nbd", "vhost"; borrowed */
	const char *name;               /* of the export; borrowed */
};

void complaints_add(struct complaints *complaints, uint64_t now_ns, const char *format,
		    va_list args) __attribute__((format(printf, 3, 0)));

#endif

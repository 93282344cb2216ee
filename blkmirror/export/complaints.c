/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/export/complaints.h"

#include <stdio.h>

#define WINDOW_NS (10 * NS_PER_S)
#define SHOWN_PER_WINDOW 10u

void complaints_add(struct complaints *complaints, uint64_t now_ns, const char *format,
		    va_list args)
{
	char text[256];

	complaints->count++;
	if (now_ns - complaints->window_ns >= WINDOW_NS) {
		if (complaints->in_window > SHOWN_PER_WINDOW)
			log_line(complaints->level, complaints->room,
				 "%s: %u more complaints not shown", complaints->name,
				 complaints->in_window - SHOWN_PER_WINDOW);
		complaints->window_ns = now_ns;
		complaints->in_window = 0;
	}
	if (complaints->in_window++ >= SHOWN_PER_WINDOW)
		return;
	vsnprintf(text, sizeof(text), format, args);
	log_line(complaints->level, complaints->room, "%s: %s", complaints->name, text);
}

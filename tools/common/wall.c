/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/common/wall.h"

#include <stdio.h>
#include <time.h>

int64_t wall_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void wall_format(int64_t wall_ms, char out[WALL_TEXT_BYTES])
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm tm;
	char stamp[24];

	gmtime_r(&seconds, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, WALL_TEXT_BYTES, "%.20s.%03dZ", stamp, (int)(wall_ms % 1000));
}

bool wall_parse(const char *text, int64_t *wall_ms)
{
	struct tm tm = { 0 };
	int millis, used = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &millis, &used) != 7 ||
	    used == 0 || text[used])
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*wall_ms = (int64_t)timegm(&tm) * 1000 + millis;
	return true;
}

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

int64_t wall_parse(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int ms, length = 0;

	if (!rest || sscanf(rest, ".%3dZ%n", &ms, &length) != 1 || rest[length] || ms < 0)
		return 0;
	return (int64_t)timegm(&tm) * 1000 + ms;
}

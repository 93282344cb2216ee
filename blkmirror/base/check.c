/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void check_failed(const char *condition, const char *file, int line, const char *function)
{
	fprintf(stderr, "CHECK failed: %s, at %s:%d in %s()\n", condition, file, line, function);
	fflush(stderr);
	abort();
}

void cleanup_free(void *pointer_to_pointer)
{
	free(*(void **)pointer_to_pointer);
}

void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

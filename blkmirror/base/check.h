/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - assertions that stay on in release builds, and compiler helpers.
 *
 * CHECK() is for programmer errors only.  Nothing an outsider can cause (a
 * guest, a peer, a datastore, a disk's contents, an operator) may reach one:
 * those are judged at one edge function per input and answered with an error.
 */
#ifndef BM_BASE_CHECK_H
#define BM_BASE_CHECK_H

#include <stddef.h>
#include <sys/param.h> /* MIN, MAX */

void check_failed(const char *condition, const char *file, int line, const char *function)
	__attribute__((noreturn, cold));

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (__builtin_expect(!(condition), 0))                                             \
			check_failed(#condition, __FILE__, __LINE__, __func__);                    \
	} while (0)

/* Here the program has already gone wrong; `why` says how. */
#define CHECK_NEVER(why) check_failed(why, __FILE__, __LINE__, __func__)

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_arg) \
	__attribute__((format(printf, format_index, first_arg)))
#define UNUSED __attribute__((unused))

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define container_of(pointer, type, member) \
	((type *)((char *)(pointer) - offsetof(type, member)))

/* Scope clean-up for leaf control-path functions; always initialise at declaration. */
void cleanup_free(void *pointer_to_pointer);
void cleanup_close(int *fd);
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close)))

#endif

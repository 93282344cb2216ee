/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_child.h - a process that looks like QEMU from outside: it has a memfd of a memory backend.
 *
 * It waits in read(2) for orders and carries them out one by one; each is answered with one
 * number. Its memory is seen from here through the same memfd. A second thread sleeps, with
 * all signals blocked that can be.
 */
#ifndef BM_TESTS_MEM_CHILD_H
#define BM_TESTS_MEM_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum mem_child_order {
	MEM_CHILD_WRITE,        /* a byte at offset a, value b */
	MEM_CHILD_READ_INTO,    /* read(2) b bytes of /dev/zero to offset a: the kernel writes */
	MEM_CHILD_PUNCH,        /* a hole at offset a, of b bytes, as a balloon does */
	MEM_CHILD_COLLAPSE,     /* madvise(MADV_COLLAPSE) at offset a, of b bytes; -errno */
	MEM_CHILD_PLUG,         /* another block, of a bytes */
	MEM_CHILD_POLL,         /* wait in ppoll(2) for the next order: its answer's errno, or 0 */
	MEM_CHILD_SLEEP,        /* clock_nanosleep a ns: its answer */
	MEM_CHILD_MASK,         /* its blocked signals */
};

struct mem_child {
	pid_t pid;
	int order_fd, answer_fd;
	int fd;                 /* its memory */
	uint8_t *bytes;         /* mapped here as well; touching a hole fills it */
	uint64_t len_bytes;
};

/* memory_bytes 0: it has none.  huge_bytes: of a hugetlbfs page, or 0.  False: not to be had. */
bool mem_child_start(struct mem_child *child, uint64_t memory_bytes, uint64_t huge_bytes);
void mem_child_end(struct mem_child *child);

/* Give an order without waiting; take its answer. */
void mem_child_order(struct mem_child *child, enum mem_child_order order, uint64_t a, uint64_t b);
int64_t mem_child_answer(struct mem_child *child);
int64_t mem_child_do(struct mem_child *child, enum mem_child_order order, uint64_t a, uint64_t b);

/* Sleep until its main thread waits in a system call. */
void mem_child_settle(const struct mem_child *child);

/* Sleep until its second thread has stopped: a SIGSTOP has been taken. */
void mem_child_await_stop(const struct mem_child *child);

/*
 * All that can be seen of it from outside: descriptors, mappings with their flags, tracer,
 * signal masks.  To be freed.
 */
char *mem_child_portrait(const struct mem_child *child);

#endif

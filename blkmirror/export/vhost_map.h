/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_map.h - memory that a front end shares with us and may cut off under our hands.
 *
 * Guest memory, the dirty log and the in-flight region are descriptors from outside.  Whoever
 * holds one may truncate it, and touching what is gone raises SIGBUS, which would end the
 * daemon and every other guest's disk with it.  A map survives that: the handler puts
 * zeroed memory of our own in the place of the whole map, marks it torn and lets the access
 * go on.  Who uses maps asks vhost_map_is_torn() afterwards and gives up the front end.
 *
 * Only shared memory is taken (memfd, tmpfs, hugetlbfs): a page of a file on a disk or behind
 * FUSE could make the I/O thread wait for ever.
 *
 * Threading: a map belongs to the thread that made it, and only that thread may touch its
 * bytes outside of system calls (those fail with -EFAULT on a torn map).
 */
#ifndef BM_VHOST_MAP_H
#define BM_VHOST_MAP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

struct vhost_map {
	uint8_t *bytes;                 /* what was asked for */
	uint64_t len_bytes;
	uint8_t *base;                  /* private from here: what is mapped around it */
	uint64_t base_bytes;
	uint32_t refs;
	volatile sig_atomic_t torn;
	struct vhost_map *next;         /* of this thread */
};

/*
 * Map [offset_bytes, offset_bytes + len_bytes) of fd, which stays the caller's; writable,
 * shared, one reference.  0, or -EINVAL (no shared memory, or not that much of it), -ENOMEM.
 */
MUST_CHECK int vhost_map_new(int fd, uint64_t offset_bytes, uint64_t len_bytes,
			     struct vhost_map **out);

struct vhost_map *vhost_map_ref(struct vhost_map *map);
/* NULL is harmless. */
void vhost_map_put(struct vhost_map *map);

static inline bool vhost_map_is_torn(const struct vhost_map *map)
{
	return map->torn;
}

/* Is it memory in the sense above?  Never blocks, whatever it is. */
bool vhost_fd_is_memory(int fd);
/* Is it an eventfd?  Reading or polling anything else might block. */
bool vhost_fd_is_event(int fd);

#endif

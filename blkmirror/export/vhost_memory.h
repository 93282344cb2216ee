/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_memory.h - a guest's memory as the front end has told it: regions, and addresses in them.
 *
 * Two kinds of address come from outside: guest physical ones (gpa) in descriptors, and the
 * front end's own (hva) for the rings.  Both are judged here and nowhere else.
 *
 * A table never changes once it is made: a new one takes its place, and requests in flight
 * keep the one they were read with, and its maps, until they are done.
 *
 * Threading: as vhost_map.h.
 */
#ifndef BM_VHOST_MEMORY_H
#define BM_VHOST_MEMORY_H

#include <sys/uio.h>

#include "blkmirror/export/vhost_map.h"
#include "blkmirror/export/vhost_proto.h"

#define VHOST_REGIONS_MAX 64u

struct vhost_region {
	uint64_t gpa;
	uint64_t len_bytes;
	uint64_t hva;
	struct vhost_map *map;
};

struct vhost_memory {
	uint32_t refs;
	uint32_t count;
	struct vhost_region regions[VHOST_REGIONS_MAX]; /* by gpa; no two overlap */
};

/* An empty one, one reference.  NULL: out of memory. */
struct vhost_memory *vhost_memory_new(void);
struct vhost_memory *vhost_memory_ref(struct vhost_memory *memory);
/* NULL is harmless. */
void vhost_memory_put(struct vhost_memory *memory);

/*
 * Add a region, mapped from fd (the caller's still), to a table that nobody else holds yet.
 * 0, or -EINVAL (overlaps, wraps, is not in fd), -ENOSPC (too many), -ENOMEM.
 */
MUST_CHECK int vhost_memory_add(struct vhost_memory *memory, const struct vhost_wire_region *wire,
				int fd);
/* A copy that shares the maps, without region `except` (UINT32_MAX: with all).  NULL: no memory. */
struct vhost_memory *vhost_memory_copy(const struct vhost_memory *memory, uint32_t except);
/* The region that is exactly this one; count when there is none. */
uint32_t vhost_memory_find(const struct vhost_memory *memory,
			   const struct vhost_wire_region *wire);

/* The bytes at a front end's address, all in one region; NULL where they are not. */
void *vhost_memory_at_hva(const struct vhost_memory *memory, uint64_t hva, uint64_t len_bytes);

struct vhost_pieces {
	struct iovec *list;             /* the caller's */
	uint32_t count, max;
	uint32_t join;                  /* from here on, pieces that follow each other become one */
};

/*
 * Append the bytes at a guest's address, one piece per region that they span.
 * False: part of them lies in no region, or there are more than max pieces.
 */
bool vhost_memory_pieces(const struct vhost_memory *memory, uint64_t gpa, uint64_t len_bytes,
			 struct vhost_pieces *pieces);

/* The way back: the guest's address of a byte of ours, and how much follows in its region. */
bool vhost_memory_gpa_of(const struct vhost_memory *memory, const void *byte, uint64_t *gpa,
			 uint64_t *left_bytes);

/* Has any of it been cut off? */
bool vhost_memory_is_torn(const struct vhost_memory *memory);

#endif

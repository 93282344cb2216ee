/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - read the target back and judge it, region by region.
 *
 * A set of regions waits to be verified: what the copy wrote, what guests' legs wrote since.
 * A verify window opens over clean regions that nothing touches; the target is read (its
 * holes by extents) and compared with the hash of the copy, or with the source where no
 * hash is valid.  A guest write breaks the window there: the region waits again.
 *
 * Before the switch a mismatch fails the move.  After it the last regions are compared with
 * the source, which nobody writes any more; those that the guest has written since leave
 * the set: they are its new data.
 *
 * Threading: the mirror's loop.
 */
#ifndef BM_VERIFY_H
#define BM_VERIFY_H

#include "blkmirror/mirror/hash_store.h"
#include "blkmirror/mirror/mirror.h"
#include "blkmirror/mirror/pacer.h"

struct verifier;

struct verify_hooks {
	/* Nothing waits and no job is left, or a way round has ended.  From a posted task. */
	void (*verified)(void *user);
	/* Stopped, and no job is left.  From a posted task. */
	void (*stopped)(void *user);
	/* The target does not hold what was written there. */
	void (*mismatch)(uint64_t offset_bytes, uint64_t len_bytes, void *user);
	/* A read failed; the region waits on.  The verifier goes on unless stopped. */
	void (*failed)(bool at_source, int error, uint64_t offset_bytes, void *user);
};

struct verify_stats {
	uint64_t verified_bytes;        /* judged, regions judged again counted again */
	uint64_t read_bytes;            /* of the target; its holes are judged without reading */
	uint64_t mismatches;
};

/* NULL: out of memory.  Borrows all it is given. */
struct verifier *verifier_new(struct mirror *mirror, struct buf_pool *pool, struct pacer *pacer,
			      struct hash_store *hashes, const struct verify_hooks *hooks,
			      void *user);
/* Stopped only. */
void verifier_free(struct verifier *verifier);

/* These regions wait to be verified. */
void verifier_add(struct verifier *verifier, uint64_t offset_bytes, uint64_t len_bytes);
/* After the switch: the guest's own data from now on. */
void verifier_drop(struct verifier *verifier, uint64_t offset_bytes, uint64_t len_bytes);
uint64_t verifier_waiting_bytes(const struct verifier *verifier);

/*
 * How often it has come round since it was started, having tried all that waited: what still
 * waits then is being written.
 */
uint64_t verifier_passes(const struct verifier *verifier);

void verifier_start(struct verifier *verifier);
void verifier_stop(struct verifier *verifier);
bool verifier_is_stopped(const struct verifier *verifier);
void verifier_kick(struct verifier *verifier);
/* When the oldest read of the target in flight was started; UINT64_MAX: none. */
uint64_t verifier_oldest_read_ns(const struct verifier *verifier);
void verifier_stats(const struct verifier *verifier, struct verify_stats *out);

#endif

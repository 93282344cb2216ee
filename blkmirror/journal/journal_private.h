/* SPDX-License-Identifier: Apache-2.0 */
/* journal_private.h - what the journal's rooms share. */
#ifndef BM_JOURNAL_PRIVATE_H
#define BM_JOURNAL_PRIVATE_H

#include "blkmirror/journal/journal.h"
#include "blkmirror/journal/journal_format.h"

#define JOURNAL_HASH_BUCKETS 256u
#define JOURNAL_MAP_BATCH 16u                   /* map blocks written at once */

enum extent_state {
	EXTENT_FREE,
	EXTENT_WANTED,          /* in memory only: in the next log write */
	EXTENT_WRITING,         /* in the log write under way */
	EXTENT_ACTIVE,          /* durable in the log: writes are admitted */
	EXTENT_LEAVING,         /* still durable; leaves once the map is durable, unless touched */
};

struct extent {
	struct list bucket_node;
	struct list lru_node;           /* all but FREE: least recently used first; FREE: free list */
	uint32_t index;                 /* offset / extent_bytes */
	enum extent_state state;
	uint64_t touched;               /* a bit per region: written since it was activated */
	bool fresh;                     /* just activated; whoever it is for has not asked again yet */
};

enum checkpoint_step { CHECKPOINT_IDLE, CHECKPOINT_FLUSHING, CHECKPOINT_MAPPING };

struct journal {
	struct blk_dev *dev;
	struct loop *loop;
	struct journal_identity identity;
	uint64_t key;
	uint64_t region_count;
	uint32_t regions_per_extent;
	uint64_t map_block_count;

	struct dirty_bitmap *persisted; /* as on disk, or about to be: see journal.h */
	struct dirty_bitmap *marking;   /* to be dirty on disk: in `persisted` once that is durable */
	struct dirty_bitmap *touched;   /* since the checkpoint began */
	struct dirty_bitmap *clearing;
	struct dirty_bitmap *dirty_then;        /* in memory, when the checkpoint began */

	struct extent *extents;
	uint32_t extent_max;
	uint32_t extent_used;
	struct list free_extents, lru;
	struct list buckets[JOURNAL_HASH_BUCKETS];
	struct list waiting;            /* journal_wait */
	struct task wake;

	uint64_t log_sequence;
	uint8_t *log_block;
	struct iovec log_iov;
	struct blk_req log_req;
	bool log_in_flight;
	bool log_changed;               /* the set differs from what is being or has been written */
	/*
	 * After a load: what the old log said is not in the map on disk yet, so the old log must
	 * stay as it is until it is.
	 */
	bool log_blocked;
	struct turn_hook log_hook;      /* one log write for all that one turn wants */

	uint8_t *map_dirty;             /* a byte per map block: to be written */
	uint64_t map_dirty_count;
	uint64_t map_cursor;
	uint8_t *map_blocks;            /* JOURNAL_MAP_BATCH blocks */
	struct iovec map_iovs[JOURNAL_MAP_BATCH];
	struct blk_req map_reqs[JOURNAL_MAP_BATCH];
	uint32_t map_in_flight;
	uint64_t map_sequence;

	enum checkpoint_step step;
	const struct journal_checkpoint_ops *ops;
	struct dirty_bitmap *ops_dirty;
	void *ops_user;

	void (*closed)(void *user);     /* journal_close() */
	void *closed_user;
	struct task close_task;

	struct journal_stats stats;
};

/* ---- journal_sector.c ---- */
/* The last step before a write.  Pairs with journal_unseal(). */
void journal_seal(struct journal_sector *sector, uint64_t key, enum journal_sector_kind kind,
		  uint64_t sequence, uint64_t index);
/* 0, -ENODATA: never written (all zero), -EBADMSG: damaged, or another's. */
int journal_unseal(const struct journal_sector *sector, uint64_t key,
		   enum journal_sector_kind kind, uint64_t index);
uint64_t journal_map_sectors(uint64_t region_count);

/* ---- journal_log.c ---- */
struct extent *journal_extent_find(struct journal *journal, uint32_t index);
void journal_log_look(struct journal *journal);
void journal_log_hook(struct turn_hook *hook);
void journal_wake_all(struct journal *journal);
void journal_extents_settle(struct journal *journal);
/* Build the log's block from the set in memory. */
void journal_log_build(struct journal *journal, uint64_t sequence, uint64_t slot, uint8_t *block);
/* The map is durable: what leaves the log may go. */
void journal_extents_leave(struct journal *journal);

/* ---- journal_map.c ---- */
/* The persisted bits of this range have changed in memory. */
void journal_map_changed(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes);
/* Write what has changed; journal_map_durable() follows when all of it is. */
void journal_map_write(struct journal *journal);
void journal_map_build(struct journal *journal, uint64_t map_block, uint8_t *block);

/* ---- journal_checkpoint.c ---- */
void journal_map_durable(struct journal *journal, int result);

/* ---- journal.c ---- */
/* In memory only: all dirty, nothing active.  NULL: out of memory. */
struct journal *journal_new(struct blk_dev *dev, const struct journal_identity *identity);
/* Something has settled: is it what journal_close() waits for? */
void journal_settled(struct journal *journal);
void journal_fail(struct journal *journal, int error);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal.h - what survives a crash of one disk's move: which regions may differ.
 *
 * Two things are kept on disk.  A bitmap, one bit a region: set means "may differ".  And an
 * activity log in DRBD's sense: the few 4 MiB extents that are being written now, all of
 * whose regions count as dirty after a crash.  So a write to a region whose bit is clear
 * costs one log write the first time its extent is touched, and nothing after that.
 *
 *   R-J1  A bit is cleared, and an extent leaves the log with clear bits, only after a flush
 *         of both legs that began after the last read or write that it covers.
 *   R-J2  No write to a region whose persisted bit is clear is submitted to either leg
 *         before its extent's record is durable: journal_admit().
 *
 *     persisted   dirty --- checkpoint: copied, both legs flushed, untouched since --> clear
 *                   ^                                                                   |
 *                   |  demoted: the bits of what was touched are set, no flush needed   |
 *                   +------------------- extent active <---- first write to it ---------+
 *                                             |
 *                                             +-- checkpoint: clean, flushed, untouched --> clear
 *
 * When the log is full the least recently used extents are demoted: their touched regions
 * are set dirty on disk, which is always right and needs neither a flush nor the target.
 *
 * The journal lives on a block device (a file of the state directory; a simulated disk in
 * tests) and writes sealed sectors with FUA (journal_format.h).
 *
 * Threading: one loop, the mirror's.
 */
#ifndef BM_JOURNAL_H
#define BM_JOURNAL_H

#include "blkmirror/base/err.h"
#include "blkmirror/blkdev/blkdev.h"
#include "blkmirror/base/dirty_bitmap.h"

#define JOURNAL_EXTENT_BYTES (4u << 20)
#define JOURNAL_EXTENTS_MAX 256u
#define JOURNAL_ID_BYTES 64

struct journal_identity {
	uint64_t size_bytes;
	uint32_t region_bytes;
	uint32_t extent_bytes;          /* 0: JOURNAL_EXTENT_BYTES; at least region_bytes, power of two */
	uint32_t log_extents;           /* 0: by size, see journal_extents_max() */
	/*
	 * The larger physical block of both legs (R10): kept for who resumes without its target
	 * at hand, and not compared.
	 */
	uint32_t align_bytes;
	uint8_t disk_uuid[16];
	uint64_t generation;
	char journal_id[JOURNAL_ID_BYTES];
};

struct journal;

/* How large the device must be. */
uint64_t journal_device_bytes(const struct journal_identity *identity);

/* At most 256 extents, at most 5 % of the disk, at least one. */
uint32_t journal_extents_max(const struct journal_identity *identity);

/*
 * Make a new journal: all dirty, nothing active.  opened() runs from a posted task with the
 * journal (gives), durable, or with -errno.  Borrows dev, which must read zeroes.
 */
void journal_create(struct blk_dev *dev,
		    const struct journal_identity *identity,
		    void (*opened)(struct journal *journal, int result, void *user), void *user);

/*
 * Read what a crash left.  The journal's bitmap then holds the persisted dirty regions and
 * those of every extent that may have been active.  identity: what is expected; another
 * disk's or move's journal is -ESTALE, one whose headers are both damaged -EBADMSG (R-J, J6).
 * Damaged sectors count as dirty; damaged_sectors tells how many there were.
 */
void journal_load(struct blk_dev *dev,
		  const struct journal_identity *identity,
		  void (*opened)(struct journal *journal, int result, void *user), void *user);

/*
 * Whose journal is it?  Reads the headers and answers with the identity that stands there
 * (borrowed until found() returns), or NULL and -errno: -ENODATA when both are blank (it was
 * never begun), -EBADMSG when both are damaged or ask for more than the device has.  The identity that is given is fit for journal_load().
 * found() runs later, save without memory or on a device too small for any journal.
 */
void journal_peek(struct blk_dev *dev,
		  void (*found)(const struct journal_identity *identity, int result, void *user),
		  void *user);

/* Nothing may be in flight: journal_is_idle().  NULL is harmless. */
void journal_free(struct journal *journal);
bool journal_is_idle(const struct journal *journal);
/*
 * Nobody asks it any more: closed() runs, from a posted task, when what it had in flight has
 * settled, and the journal is gone.  The device is the caller's to close then.
 */
void journal_close(struct journal *journal, void (*closed)(void *user), void *user);

/* ---- the guest's writes (R-J2) ---- */

struct journal_wait {
	void (*ready)(struct journal_wait *wait);       /* ask again */
	struct list node;                               /* list_init() before first use */
};

/*
 * May a write to the range be submitted?  True: yes, and its regions are noted as touched.
 * False: an extent must become active first; wait->ready() comes when it is worth asking
 * again.  A write that has been admitted is submitted in the same turn.
 */
bool journal_admit(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes,
		   struct journal_wait *wait);
void journal_wait_cancel(struct journal_wait *wait);
/* Who waits asks again, whatever has become durable: for a journal that is not asked any more. */
void journal_release_waiters(struct journal *journal);

/* Touched without a question: it was in flight when a checkpoint began, or dirties by itself. */
void journal_touch(struct journal *journal, uint64_t offset_bytes, uint64_t len_bytes);

/* ---- checkpoints (R-J1) ---- */

struct journal_checkpoint_ops {
	/* What differs in memory; borrowed until done(). */
	const struct dirty_bitmap *dirty;
	/* journal_touch() everything that is in flight or unsettled on either leg. */
	void (*touch_in_flight)(void *user);
	/* Flush both legs; answer with journal_flushed(). */
	void (*flush_both)(void *user);
	/* The checkpoint has ended: 0, or -errno (a flush or the journal failed; nothing cleared). */
	void (*done)(int result, void *user);
};

/* One at a time. */
void journal_checkpoint(struct journal *journal, const struct journal_checkpoint_ops *ops,
			void *user);
bool journal_in_checkpoint(const struct journal *journal);
void journal_flushed(struct journal *journal, int result);

/* ---- facts ---- */

struct journal_stats {
	uint64_t dirty_bytes;           /* persisted */
	uint64_t active_bytes;
	uint64_t loaded_dirty_bytes;    /* what journal_load() found, */
	uint64_t loaded_active_bytes;   /* and of it in active extents */
	uint64_t damaged_sectors;
	uint64_t log_writes, map_writes, demotions, checkpoints;
	int error;                      /* the first write that failed; it takes no more */
};
void journal_stats(const struct journal *journal, struct journal_stats *out);

/* As created or loaded, with the defaults filled in. */
const struct journal_identity *journal_identity(const struct journal *journal);

/* What a resumed move begins with: persisted dirty, or in an active extent.  The journal's own. */
const struct dirty_bitmap *journal_persisted(const struct journal *journal);

/* Does the journal count this region as dirty (persisted, or in an active extent)? */
bool journal_is_dirty(const struct journal *journal, uint64_t offset_bytes);

#endif

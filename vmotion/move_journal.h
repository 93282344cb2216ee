/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_journal.h - the files of a move's journals: STATE-DIR/moves/ID.N, one for each disk.
 *
 * What stands in them is blkmirror/journal/journal.h's; here they are made, opened, removed.
 * A journal means something only beside the record of its move (move_record.h):
 *
 *   made      after the record is durable, before a source is marked: a state directory that is
 *             full refuses the move while nothing has to be undone.  Full of zeroes, so that
 *             no later write of the journal can find the disk full; a blank journal is no
 *             journal (-EBADMSG): its move is rolled back, and nothing was copied.
 *   begun     when both ends are marked and their devices known; before the mover starts, so
 *             before a byte moves
 *   void      once the record says COMMITTED or ABORTED.  ABORTED comes before anything is
 *             undone and before a guest's write goes past the journal: a stale journal
 *             beside a record that says RESERVED would be believed.
 *   removed   after the record.  One whose record is gone is an orphan, and removed at start.
 *
 * A disk's journal is at most about 8 MiB, a few KiB for most.
 *
 * Threading: functions block ([worker], the record worker).
 */
#ifndef BM_VMOTION_MOVE_JOURNAL_H
#define BM_VMOTION_MOVE_JOURNAL_H

#include "vmotion/move_record.h"

/* Is this name in moves/ a journal's ("t1-0123456789abcdef.0")?  Then it is no record's. */
bool move_journal_is_name(const char *name);

/*
 * Make the file of `bytes` zeroes, mode 0600, durable with its directory entry.  0, or -errno
 * with ERR_JOURNAL_IO, and nothing is left.  An old one of the same name is replaced.
 */
MUST_CHECK int move_journal_make(const char *state_dir, const char *id, uint32_t index,
				 uint64_t bytes, struct err *err);

/*
 * Open for blk_file_new(), past the page cache where that is possible.  0 and *fd_out (gives), or
 * -errno with ERR_JOURNAL_DAMAGED (-ENOENT: there is none) or ERR_JOURNAL_IO.
 */
MUST_CHECK int move_journal_open(const char *state_dir, const char *id, uint32_t index,
				 int *fd_out, struct err *err);

/* Are all of them there?  Then a move that is RESERVED may be resumable. */
bool move_journals_exist(const char *state_dir, const char *id, uint32_t count);

/* Remove those of a move, durably.  Gone already: 0.  -errno with ERR_JOURNAL_IO. */
MUST_CHECK int move_journals_remove(const char *state_dir, const char *id, uint32_t count,
				    struct err *err);

/* Remove every journal without a record; *count says how many.  -errno with ERR_JOURNAL_IO. */
MUST_CHECK int move_journals_remove_orphans(const char *state_dir, uint32_t *count,
					    struct err *err);

#endif

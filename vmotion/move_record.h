/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_record.h - the record of one move: STATE-DIR/moves/ID, the switch-over's commit point.
 *
 * All disks of a move have one record (R-J4).  Its first sector says how far the move is and
 * is the only part that is ever rewritten; one sector is written whole or not at all.  What
 * disks the move is about follows in the body, written once and bound to the sector by its
 * checksum.  The file is made under a temporary name, written in full, synced and renamed,
 * so that a record that can be found is complete.
 *
 *   offset 0      512 B   the sector: state, sequence, checksum; the rest of the 4 KiB is zero
 *   offset 4096   2304 B for each disk: names, uuid, generations, sizes
 *
 * Format version 1, little-endian; offsets are asserted in move_record.c.  Which regions may
 * differ stands in the disks' journals beside it (move_journal.h).
 *
 * State and sequence: RESERVED is 1, each rewrite adds one.  The source is authoritative in
 * RESERVED and ABORTED, the target in COMMITTED.  A rewrite that fails has an unknown outcome
 * (R-J3): whoever asked for it may only go on after a later one has succeeded.
 *
 * Threading: functions block ([worker]); a record is used by one thread at a time.
 */
#ifndef BM_VMOTION_MOVE_RECORD_H
#define BM_VMOTION_MOVE_RECORD_H

#include "blkmirror/mirror/mover.h"
#include "datastores/datastore.h"

#define MOVE_ID_BYTES 40        /* as disk_identity.journal_id */

enum move_record_state {
	MOVE_RESERVED = 1,      /* the source is authoritative; the target may be incomplete */
	MOVE_COMMITTED = 2,     /* the target is authoritative */
	MOVE_ABORTED = 3,       /* the source is; overrules a commit whose outcome was unknown */
};
const char *move_record_state_name(enum move_record_state state);

enum move_record_flags {
	/* Verified and wanted: the retired source may be deleted. */
	MOVE_DELETE_SOURCE = 1,
	/*
	 * The daemon stopped in order: nothing was in flight to the targets (R2).  Taken back
	 * before the move goes on.
	 */
	MOVE_PARKED = 2,
};

struct move_record_disk {
	char source_datastore[DS_NAME_BYTES];
	char source_path[DS_PATH_BYTES];
	char target_datastore[DS_NAME_BYTES];
	char target_path[DS_PATH_BYTES];
	uint8_t uuid[16];               /* of the lineage; kept over the move */
	uint64_t source_generation;
	uint64_t target_generation;     /* source's + 1 */
	bool source_has_identity;       /* false: LUN, NBD: no mark is kept with the disk */
	bool target_has_identity;       /* as far as known before it was made */
};

struct move_record_info {
	char id[MOVE_ID_BYTES];         /* the file's name and the disks' journal_id */
	uint8_t host_uuid[16];
	enum move_record_state state;
	unsigned flags;                 /* enum move_record_flags */
	uint64_t sequence;
	uint32_t disk_count;            /* 1..MOVER_DISKS_MAX */
	struct move_record_disk *disks; /* the record's */
};

struct move_record;

/* A task's id made unique over hosts: TASK-0123456789abcdef.  Task: 1 to 20 of [A-Za-z0-9._-]. */
MUST_CHECK int move_record_make_id(const char *task_id, const uint8_t host_uuid[16],
				   char out[MOVE_ID_BYTES], struct err *err);

/*
 * Would move_record_create() be refused?  Changes nothing.  ERR_STATE_DIR, or ERR_DISK_MARKED
 * when a record of that id waits for recovery.
 */
MUST_CHECK int move_record_judge(const char *state_dir, const char *id, struct err *err);

/*
 * Make a record in state RESERVED, durable when it returns.  info->disks is copied; state and
 * sequence are not looked at.  0 and *out (gives), or -errno with ERR_STATE_DIR or ERR_JOURNAL_IO,
 * and then nothing is left.
 */
MUST_CHECK int move_record_create(const char *state_dir, const struct move_record_info *info,
				  struct move_record **out, struct err *err);

/*
 * Read one.  -ENOENT; -EBADMSG with ERR_JOURNAL_DAMAGED: the sector or the body is not what
 * was written.  With an intact body and a damaged sector *out is given nevertheless, in state 0:
 * the disks are known, what is authoritative is not.
 */
MUST_CHECK int move_record_load(const char *state_dir, const char *id, struct move_record **out,
				struct err *err);

const struct move_record_info *move_record_info(const struct move_record *record);

/* Rewrite the sector: durable when it returns 0; else its outcome is unknown (R-J3). */
MUST_CHECK int move_record_write(struct move_record *record, enum move_record_state state,
				 unsigned flags, struct err *err);

/* Remove the file, durably.  The struct stays the caller's to free. */
MUST_CHECK int move_record_remove(struct move_record *record, struct err *err);

/* Closes; the file stays.  NULL is harmless. */
void move_record_free(struct move_record *record);

/*
 * Remove what a crash has left of records that were being made: nothing was done yet.  On the
 * thread that makes records, of the only daemon on this state directory.
 */
void move_record_sweep(const char *state_dir);

/* The ids of all records there, sorted; at most `capacity`, *count says how many there are. */
MUST_CHECK int move_record_list(const char *state_dir, char (*ids)[MOVE_ID_BYTES],
				uint32_t capacity, uint32_t *count, struct err *err);

#endif

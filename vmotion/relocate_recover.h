/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_recover.h - what a dead daemon's relocations left, finished or rolled back.
 *
 * Each record under STATE-DIR/moves that no running relocation owns is judged against what
 * is found on the datastores:
 *
 *   record      proved when                                then
 *   RESERVED    every source is there, moving by us, and   gone on with, if somebody will:
 *               its journals are                           options.resume()
 *   RESERVED    every source is there, the same copy       sources LIVE, targets deleted by
 *   ABORTED     (uuid, generation), live or moving         identity if they are INCOMING by us
 *   COMMITTED   every target is there, the same copy       targets LIVE, sources RETIRED, and
 *               (uuid, generation + 1)                     deleted if the record allows it
 *   damaged     never
 *
 * Those that may be gone on with come first: their guests wait.  Before one of them is rolled back its
 * record says ABORTED, durably: a journal beside RESERVED would be believed by the next start,
 * and the guest writes past it from now on.  Journals without a record are removed.
 *
 * Disks without identity (LUNs, NBD exports) carry no marks: the record alone proves.  What is
 * proved is done, again and again if need be: every action looks at the role first and leaves
 * alone what is not this move's.  The record is removed last, when nothing is left to do;
 * otherwise the move stays listed with the reason.
 *
 * Run it before disks are attached: a source that is marked MOVING cannot be opened.  Run it
 * again when a datastore has come back.  It may run beside relocations.
 *
 * Threading: main loop; looking and marking happen on the datastores' workers.
 */
#ifndef BM_VMOTION_RELOCATE_RECOVER_H
#define BM_VMOTION_RELOCATE_RECOVER_H

#include "vmotion/disk.h"
#include "vmotion/move_record.h"

#define RECOVER_MOVES_MAX 256

enum recover_side { RECOVER_UNKNOWN, RECOVER_SOURCE, RECOVER_TARGET };
/* "unknown", "source", "target". */
const char *recover_side_name(enum recover_side side);

struct recovery;

struct recovery_options {
	const char *state_dir;
	/* NULL when there is no such datastore (now). */
	struct datastore *(*find_datastore)(const char *name, void *user);
	/*
	 * The disks of this move are their targets: make that durable in the inventory and
	 * return 0.  May come more than once for a move.  NULL: nobody keeps one.
	 */
	int (*switched)(const struct move_record_info *move, void *user);
	/*
	 * Its sources are there, marked by it, and it has journals: will somebody go on with it
	 * (relocate_resume())?  True: it is theirs, and left alone.  False: it is rolled back.
	 * NULL: nobody does.
	 */
	bool (*resume)(const struct move_record_info *move, void *user);
	/*
	 * The marks and the inventory say where its disks are: they can be attached.  Comes before
	 * anything of any move is deleted, which may take long.  NULL: nobody wants to know.
	 */
	void (*settled)(const struct move_record_info *move, enum recover_side side, void *user);
	/* It has been finished or rolled back.  NULL: nobody wants to know. */
	void (*ended)(const struct move_record_info *move, enum recover_side side, void *user);
	void *user;
};

struct recover_entry {                  /* of a move that waits */
	char id[MOVE_ID_BYTES];
	enum recover_side authoritative;
	struct err why;                 /* it could not be finished */
	bool resumable;                 /* it will be gone on with when its sources are there */
	uint32_t disk_count;
	const struct move_record_disk *disks;   /* until the next run, keep or free */
};

/* Borrows the service.  The strings are copied. */
MUST_CHECK int recovery_new(struct disk_service *service, const struct recovery_options *options,
			    struct recovery **out, struct err *err);
/* Not while it runs.  NULL is harmless. */
void recovery_free(struct recovery *recovery);

/*
 * Look through all records, finish what is proved.  err: NULL, or why the records could not
 * even be listed.  One run or keep at a time (recovery_is_busy()).
 */
void recovery_run(struct recovery *recovery,
		  void (*ran)(struct recovery *recovery, const struct err *err, void *user),
		  void *user);
bool recovery_is_busy(const struct recovery *recovery);

/* What the last run could not finish. */
uint32_t recovery_count(const struct recovery *recovery);
void recovery_entry(const struct recovery *recovery, uint32_t index, struct recover_entry *out);

/*
 * The operator's word for a move that waits.  Looks again first: what is proved by now is not
 * the operator's to decide otherwise (ERR_RECOVER_PROVED).  The copy that is kept must be
 * reachable; the other one is dealt with if it is, left alone if not.  Keeping the target never
 * deletes the source.  kept(): NULL, or ERR_RECOVER_UNKNOWN, ERR_RECOVER_PROVED,
 * ERR_JOURNAL_DAMAGED (the disks are not known), or why the copy cannot be kept.
 */
void recovery_keep(struct recovery *recovery, const char *id, enum recover_side keep,
		   void (*kept)(const struct err *err, void *user), void *user);

#endif

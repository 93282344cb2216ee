/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migrate_protocol.h - which of two hosts runs a machine: the commit protocol as two tables.
 *
 * Pure: an event goes in, the next state and a set of actions come out, carried out through
 * struct migrate_ops.  No I/O, no clock; the machine, its disks, the wire and the journal are the
 * caller's.  Everything may come late, twice or never, and either side may die anywhere.
 *
 * What decides is durable (R-C3).  The last durable record of each side counts:
 *
 *   source   -          the source owns the machine         recovery: ABORTED, it goes on here
 *            COMMITTED  the target may run it, nobody else  recovery: repeat GO until an answer
 *            ABORTED    the source owns it                  recovery: it goes on here
 *            REVERTED   the source owns it again, for the target has durably DECLINED
 *   target   RESERVED   it waits, asks, and never guesses
 *            STARTED    the target owns it                  recovery: goes on, or a cold start
 *            DECLINED   the target never runs it
 *
 *   source: NEW -> NAMING -> RESERVING -> COPYING -> PAUSED -> HANDING -> (READY|COMPLETED) ->
 *           COMMITTING -> COMMITTED -> DONE        until COMMITTING: -> ABORTING -> ABORTED
 *                         COMMITTED -> REVERTING -> REVERTED
 *   target: NEW -> RESERVING -> INCOMING -> LOADED -> READY -> TAKING -> STARTING -> RUNNING
 *           until GO: -> FAILED, -> GONE    after GO without a machine: -> DECLINING -> DECLINED
 *
 * A write that failed may be durable all the same: it is only overruled by a later record that
 * is (R-J3), and until one is, nobody goes on.
 *
 * Threading: the owner's loop.
 */
#ifndef BM_MIGRATE_PROTOCOL_H
#define BM_MIGRATE_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/check.h"

enum migrate_record {
	MIGRATE_NO_RECORD,
	MIGRATE_RESERVED, MIGRATE_STARTED, MIGRATE_DECLINED,    /* the target's */
	MIGRATE_COMMITTED, MIGRATE_ABORTED, MIGRATE_REVERTED,   /* the source's */
};

enum migrate_message {
	MIGRATE_SAY_RESERVE, MIGRATE_SAY_GO, MIGRATE_SAY_ABORT,         /* to the target */
	MIGRATE_SAY_RESERVED, MIGRATE_SAY_READY, MIGRATE_SAY_FAILED,    /* to the source */
	MIGRATE_SAY_STARTED, MIGRATE_SAY_DECLINED, MIGRATE_SAY_ASK,
};

enum migrate_source_state {
	SOURCE_UNDECIDED, SOURCE_NEW, SOURCE_NAMING, SOURCE_RESERVING, SOURCE_COPYING,
	SOURCE_PAUSED, SOURCE_HANDING, SOURCE_HANDING_READY, SOURCE_HANDING_COMPLETED,
	SOURCE_COMMITTING, SOURCE_COMMITTED, SOURCE_DONE, SOURCE_ABORTING, SOURCE_ABORTED,
	SOURCE_REVERTING, SOURCE_REVERTED, SOURCE_STATE_COUNT
};

enum migrate_target_state {
	TARGET_UNDECIDED, TARGET_NEW, TARGET_RESERVING, TARGET_INCOMING, TARGET_LOADED,
	TARGET_READY, TARGET_FAILED, TARGET_TAKING, TARGET_STARTING, TARGET_STARTING_GONE,
	TARGET_RUNNING, TARGET_DECLINING, TARGET_DECLINED, TARGET_GONE, TARGET_STATE_COUNT
};

enum migrate_event {
	/* from the operator or the task */
	MIGRATE_BEGIN, MIGRATE_CANCEL,
	MIGRATE_FORCE,                  /* "run here, the other side is dead": R-C9 */
	/* from the other side */
	MIGRATE_HEARD_RESERVE, MIGRATE_HEARD_GO, MIGRATE_HEARD_ABORT,
	MIGRATE_HEARD_RESERVED, MIGRATE_HEARD_READY, MIGRATE_HEARD_FAILED,
	MIGRATE_HEARD_STARTED, MIGRATE_HEARD_DECLINED, MIGRATE_HEARD_ASK,
	/* the link: LOST for good as far as this attempt goes; UP: one may speak again */
	MIGRATE_LINK_LOST, MIGRATE_LINK_UP,
	/* the journal's answer to the last write */
	MIGRATE_WRITTEN, MIGRATE_WRITE_FAILED,
	/* the disks' locks */
	MIGRATE_HEIR_NAMED, MIGRATE_LOCK_TAKEN, MIGRATE_LOCK_FAILED,
	/* the machine: vCPUs stopped and rings drained (pre-switchover) */
	MIGRATE_PAUSED,
	MIGRATE_DRAINED,                /* every stream's end marker was acknowledged: R-C4 */
	MIGRATE_COMPLETED,              /* the source's QEMU says so: R-C2 */
	MIGRATE_QEMU_FAILED,            /* the migration; QEMU has let the guest go on by itself */
	MIGRATE_QEMU_GONE,
	MIGRATE_STATE_LOADED,           /* the target's QEMU has everything */
	MIGRATE_DISKS_FLUSHED,          /* data connections closed and drained, disks flushed: R-C5 */
	MIGRATE_EVENT_COUNT
};

struct migrate_ops {
	void (*say)(void *user, enum migrate_message message);
	/* Answered by WRITTEN or WRITE_FAILED, one at a time. */
	void (*write)(void *user, enum migrate_record record);
	/* source: in the disks' locks (R-C7), durably; answered by HEIR_NAMED, or CANCEL */
	void (*name_heir)(void *user);
	void (*disown_heir)(void *user);
	void (*take_back)(void *user);
	void (*begin_copy)(void *user); /* disks, then memory, then PAUSED */
	void (*send_last)(void *user);  /* final scan, last pages, end markers */
	void (*hand_over)(void *user);  /* migrate-continue */
	void (*resume)(void *user);     /* as migrate_resume_how() says: it runs here */
	void (*release)(void *user);    /* the source's machine is the target's: let go of it */
	/* target */
	void (*spawn)(void *user, bool paused);         /* -S -incoming defer: R-C1 */
	void (*drain_disks)(void *user);
	void (*take_lock)(void *user);
	void (*run)(void *user, bool cold);     /* cont and announce; cold: its QEMU is gone */
	void (*discard)(void *user);    /* the waiting machine and what was copied */
	void (*alarm)(void *user, const char *what);
};

struct migrate_source {
	enum migrate_source_state state;
	const struct migrate_ops *ops;
	void *user;
};

struct migrate_target {
	enum migrate_target_state state;
	const struct migrate_ops *ops;
	void *user;
};

void migrate_source_init(struct migrate_source *source, const struct migrate_ops *ops, void *user);
void migrate_target_init(struct migrate_target *target, const struct migrate_ops *ops, void *user);

/* After a restart: from the last durable record.  Carries out what follows from it. */
void migrate_source_recover(struct migrate_source *source, enum migrate_record record);
void migrate_target_recover(struct migrate_target *target, enum migrate_record record,
			    bool qemu_lives);

void migrate_source_step(struct migrate_source *source, enum migrate_event event);
void migrate_target_step(struct migrate_target *target, enum migrate_event event);

/* Nothing is left to do or to answer for but repeated questions. */
bool migrate_source_has_ended(const struct migrate_source *source);
bool migrate_target_has_ended(const struct migrate_target *target);

/* For its test: one row at most for a state and an event, and no state that is none. */
bool migrate_tables_are_sound(void);

const char *migrate_source_state_name(enum migrate_source_state state);
const char *migrate_target_state_name(enum migrate_target_state state);

/* What query-migrate says, and what makes the guest run from there (R-C2). */
enum migrate_qemu_status {
	MIGRATE_QEMU_NONE, MIGRATE_QEMU_ACTIVE, MIGRATE_QEMU_PRE_SWITCHOVER, MIGRATE_QEMU_DEVICE,
	MIGRATE_QEMU_COMPLETED, MIGRATE_QEMU_FAILED_STATUS, MIGRATE_QEMU_CANCELLED,
	MIGRATE_QEMU_DEAD,
};
enum migrate_resume {
	MIGRATE_RESUME_NOTHING,         /* it runs already */
	MIGRATE_RESUME_CANCEL,          /* migrate_cancel: QEMU lets it go on by itself */
	MIGRATE_RESUME_CONT,            /* nothing else does, after `completed` */
	MIGRATE_RESUME_COLD,            /* the machine is gone: start it from its disks */
};
enum migrate_resume migrate_resume_how(enum migrate_qemu_status status);

/*
 * May the machine be paused, with its oldest disk request that old?  With one that sticks, QEMU
 * would sit in GET_VRING_BASE with its big lock for as long (R-C6).
 */
#define MIGRATE_REQUEST_AGE_MAX_NS UINT64_C(1000000000)
bool migrate_may_pause(uint64_t oldest_request_ns);

#endif

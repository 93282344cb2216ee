/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate.h - move the disks of one machine to other datastores, on the same host.
 *
 * A state machine on the main loop around a mover (blkmirror/mirror/mover.h) on the disks'
 * I/O loop: check -> reserve (space promised, target created and locked, both ends marked)
 * -> copy, mirror, verify, switch-over (the mover) -> cleanup (marks, source deleted by
 * identity or kept retired).  Attached disks move under their guest; a disk that is not
 * attached is attached without an export for the time of the move.
 *
 * Threading: main loop.
 */
#ifndef BM_VMOTION_RELOCATE_H
#define BM_VMOTION_RELOCATE_H

#include "blkmirror/mirror/mover.h"
#include "vmotion/disk.h"

struct relocation;

enum relocate_phase {
	RELOCATE_CHECK,
	RELOCATE_RESERVE,
	RELOCATE_COPY,
	RELOCATE_MIRROR,                /* in sync */
	RELOCATE_SWITCHOVER,
	RELOCATE_VERIFY,
	RELOCATE_CLEANUP,
	RELOCATE_PHASE_COUNT,
};
const char *relocate_phase_name(enum relocate_phase phase);

enum relocate_state {
	RELOCATE_RUNNING, RELOCATE_HELD, RELOCATE_PAUSED,
	RELOCATE_COMPLETED, RELOCATE_FAILED, RELOCATE_CANCELLED,
	RELOCATE_STATE_COUNT,
};
const char *relocate_state_name(enum relocate_state state);

struct relocate_disk_spec {
	const char *name;               /* the machine's: "scsi0:0"; NULL: its id or path */
	struct disk *disk;              /* attached; or NULL and the next two */
	struct datastore *source_datastore;
	const char *source_path;
	struct datastore *target_datastore;
	const char *target_path;        /* NULL: the same path as the source */
	enum provision provision;
};

struct relocate_spec {
	const struct relocate_disk_spec *disks;
	uint32_t disk_count;            /* 1..MOVER_DISKS_MAX */
	struct mover_options options;
	bool keep_source;
	const char *task_id;            /* at most 20 characters; see relocation_journal_id() */
	const char *state_dir;          /* STATE-DIR/moves/ holds the records */
	uint8_t host_uuid[16];
	/*
	 * The switch stands: every disk now is its target.  Who keeps an inventory makes that
	 * durable inside this call and returns 0; only then the record of the move, from which
	 * it could be redone, is removed.  NULL: nobody does.  user: relocate_start()'s.
	 */
	int (*switched)(struct relocation *relocation, void *user);
};

#define CHECK_REPORT_MAX 32

/*
 * The answer of a check: errors refuse, warnings may go on.  estimate_bytes: what will be
 * read from the sources.  estimate_seconds is careful, not clever: those bytes at 100 MiB/s (a
 * disk's or 1 GbE's rate; --bandwidth where that is less), twice when the target is read
 * back, and a second for the rest.
 */
struct check_report {
	struct err errors[CHECK_REPORT_MAX];
	struct err warnings[CHECK_REPORT_MAX];
	uint32_t error_count, warning_count;
	uint64_t estimate_bytes;
	uint64_t estimate_seconds;
};

/*
 * Predicts every refusal that a start would give; changes nothing.  checked() runs later,
 * never from inside, save when there is no memory even to remember the call.  The spec is
 * copied; its datastores are borrowed until checked().
 */
void relocate_check(struct disk_service *service, const struct relocate_spec *spec,
		    void (*checked)(const struct check_report *report, void *user), void *user);

struct relocate_disk_status {
	char name[DISK_ID_BYTES];
	char source[DS_NAME_BYTES + DS_PATH_BYTES];     /* "ds1:web01/web01.vmdk" */
	char target[DS_NAME_BYTES + DS_PATH_BYTES];
	bool target_authoritative;
	int verified;                   /* -1 not (yet), 0 mismatch, 1 verified */
	/* What the journal of a resumed move told: dirty, and in extents that may have been active. */
	uint64_t resumed_dirty_bytes, resumed_active_bytes;
	struct mover_disk_stats stats;
};

struct relocate_status {
	enum relocate_state state;
	enum relocate_phase phase;
	/* Over all phases (mover.h): done of total never falls, and is all of it at the end. */
	uint64_t total_bytes, done_bytes, remaining_bytes, rate_bytes_per_s, eta_s;
	bool degraded;
	struct err degraded_why;        /* degraded, paused by a fault, or left over */
	bool resumed;                   /* goes on from the journals of a daemon before */
	uint64_t stun_ns;               /* 0: not yet */
	struct err error;               /* FAILED */
	/* What the guest felt over all its disks: now (last second) and before the move. */
	uint64_t guest_iops, guest_p50_ns, guest_p99_ns, guest_max_ns;
	uint64_t guest_iops_before, guest_p99_before_ns;
	uint32_t disk_count;
	struct relocate_disk_status disks[MOVER_DISKS_MAX];
};

/*
 * Checks first, always; a refusal ends it in FAILED with relocation_refused().  changed() runs on
 * changes of state or phase, and 5 times a second while something moves; never from inside a
 * call, and it may free a relocation that has ended.  The spec is copied; datastores are
 * borrowed until relocate_uses() says no.
 *
 * 0, or -errno with *err when it cannot even begin: ERR_BAD_NAME (task_id), ERR_NO_MEMORY,
 * ERR_DISK_MOVING.
 */
MUST_CHECK int relocate_start(struct disk_service *service, const struct relocate_spec *spec,
			      void (*changed)(struct relocation *relocation, void *user),
			      void *user, struct relocation **out, struct err *err);
void relocation_status(const struct relocation *relocation, struct relocate_status *out);
/* Did the check refuse it?  Then the report is here. */
const struct check_report *relocation_refused(const struct relocation *relocation);
/* The id under which the disks are marked and the record is kept. */
const char *relocation_journal_id(const struct relocation *relocation);

/* The operator's verbs: asynchronous; the outcome shows in changed().  A refusal is immediate. */
MUST_CHECK int relocation_pause(struct relocation *relocation, struct err *err);
MUST_CHECK int relocation_resume(struct relocation *relocation, struct err *err);
MUST_CHECK int relocation_cancel(struct relocation *relocation, struct err *err);
MUST_CHECK int relocation_complete(struct relocation *relocation, struct err *err);
MUST_CHECK int relocation_set_bandwidth(struct relocation *relocation, uint64_t bytes_per_s,
					struct err *err);
MUST_CHECK int relocation_set_mode(struct relocation *relocation, enum mirror_mode mode,
				   struct err *err);
MUST_CHECK int relocation_set_max_stun(struct relocation *relocation, uint64_t max_stun_ns,
				       struct err *err);
/* 0: none. */
MUST_CHECK int relocation_set_latency_budget(struct relocation *relocation,
					     uint64_t latency_budget_ns, struct err *err);

/* ---- over the end of a daemon ---- */

struct relocate_resume_ops {
	/* NULL when there is no such datastore, or it is not open, now. */
	struct datastore *(*find_datastore)(const char *name, void *user);
	/*
	 * How the source is to be attached for its guest: fill id, export and so on (the strings
	 * stay until attached()).  False: nobody uses it, it is attached for the move alone.
	 */
	bool (*attach_spec)(const char *datastore, const char *path,
			    struct disk_attach_spec *out, void *user);
	/* What became of that: the disk, or NULL and *err.  Only after attach_spec() said true. */
	void (*attached)(const char *datastore, const char *path, struct disk *disk,
			 const struct err *err, void *user);
};

struct relocate_resume_spec {
	const char *journal_id;         /* the record's */
	const char *state_dir;
	uint8_t host_uuid[16];
	struct mover_options options;
	bool keep_source;
	bool paused;                    /* stay so until relocation_resume() */
	struct err paused_why;          /* then: what was told of it; ERR_NONE: the operator's word */
	struct relocate_resume_ops ops;
	int (*switched)(struct relocation *relocation, void *user);     /* as relocate_spec's */
};

/*
 * Go on with a relocation that a daemon before has left with a RESERVED record and journals
 * (relocate_resume.c).  Its sources are attached again and served as soon as its journals are
 * read, whatever becomes of its targets; while those cannot be had it is PAUSED, with the
 * reason, and relocation_resume() tries again.
 *
 * What cannot be proved is not gone on with: it ends in FAILED, undone to the source with its
 * guest served; or, where not even the sources can be attached, untouched as it was found
 * (relocation_not_resumed()).
 *
 * 0, or -errno with *err when it cannot even begin: ERR_NO_MEMORY, ERR_STATE_DIR.
 */
MUST_CHECK int relocate_resume(struct disk_service *service,
			       const struct relocate_resume_spec *spec,
			       void (*changed)(struct relocation *relocation, void *user),
			       void *user, struct relocation **out, struct err *err);
/* FAILED, and the record stands as it did: recovery, or another try, finds it. */
bool relocation_not_resumed(const struct relocation *relocation);

/*
 * The daemon stops: leave the move standing for the next one.  A last checkpoint, the exports
 * of its disks are closed, nothing is undone.  May be called again and again; refused by
 * nothing: a move that is being prepared is undone, one whose switch-over has begun falls back
 * first or finishes.  relocation_parked() once it has ended so; its state is what it was.
 */
void relocation_park(struct relocation *relocation);
bool relocation_parked(const struct relocation *relocation);
/* On its way there: its state and phase mean nothing any more. */
bool relocation_parking(const struct relocation *relocation);

/*
 * Only when it has ended (COMPLETED, FAILED, CANCELLED, or parked).  Where a store hangs, ended is what
 * the operator sees: late requests still have to settle before the devices can be closed
 * (R2), which goes on behind the scenes; the disks stay "moving" until then.
 */
void relocation_free(struct relocation *relocation);

/* Is it a source or target of a relocation, or of one's clean-up?  Then it must stay open. */
bool relocate_uses(const struct disk_service *service, const struct datastore *ds);
/* Do all relocations there are only wait for late requests of stores?  (True without any.) */
bool relocate_only_lingers(const struct disk_service *service);
/* Relocations, ended ones that still clean up included.  0: disk_service_free() may follow. */
uint32_t relocate_count(const struct disk_service *service);

#endif

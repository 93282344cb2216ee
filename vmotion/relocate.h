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
	struct mover_disk_stats stats;
};

struct relocate_status {
	enum relocate_state state;
	enum relocate_phase phase;
	/* Over all phases (mover.h): done of total never falls, and is all of it at the end. */
	uint64_t total_bytes, done_bytes, remaining_bytes, rate_bytes_per_s, eta_s;
	bool degraded;
	struct err degraded_why;        /* degraded, paused by a fault, or left over */
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

/*
 * Only when it has ended (COMPLETED, FAILED, CANCELLED).  Where a store hangs, ended is what
 * the operator sees: late requests still have to settle before the devices can be closed
 * (R2), which goes on behind the scenes; the disks stay "moving" until then.
 */
void relocation_free(struct relocation *relocation);

/* Is it a source or target of a relocation, or of one's clean-up?  Then it must stay open. */
bool relocate_uses(const struct disk_service *service, const struct datastore *ds);
/* Relocations, ended ones that still clean up included.  0: disk_service_free() may follow. */
uint32_t relocate_count(const struct disk_service *service);

#endif

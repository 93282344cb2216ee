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
	const char *name;               /* how the machine calls it: "scsi0:0"; NULL: its id or path */
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
	const char *task_id;            /* also the journal id */
	const char *state_dir;          /* STATE-DIR/moves/ holds the records */
	uint8_t host_uuid[16];
};

#define CHECK_REPORT_MAX 32

/* The answer of a check (INTERFACE.md): errors refuse, warnings may go on. */
struct check_report {
	struct err errors[CHECK_REPORT_MAX];
	struct err warnings[CHECK_REPORT_MAX];
	uint32_t error_count, warning_count;
	uint64_t estimate_bytes;
	uint64_t estimate_seconds;
};

/* Predicts every refusal that a start would give; changes nothing. */
void relocate_check(struct disk_service *service, const struct relocate_spec *spec,
		    void (*checked)(const struct check_report *report, void *user), void *user);

struct relocation;

struct relocate_disk_status {
	char name[DISK_ID_BYTES];
	char source[DS_NAME_BYTES + DS_PATH_BYTES];     /* "ds1:web01/web01.vmdk" */
	char target[DS_NAME_BYTES + DS_PATH_BYTES];
	bool target_authoritative;
	int verified;                   /* -1 not (yet), 0 mismatch, 1 verified */
	struct mover_disk_stats stats;
	struct io_snapshot *guest;      /* NULL; see relocation_guest() */
};

struct relocate_status {
	enum relocate_state state;
	enum relocate_phase phase;
	uint64_t total_bytes, done_bytes, remaining_bytes, rate_bytes_per_s, eta_s;
	bool degraded;
	struct err degraded_why;        /* when degraded, paused by a fault, or not converging */
	uint64_t stun_ns;               /* 0: not yet */
	struct err error;               /* FAILED */
	/* What the guest felt over all its disks: now (last second) and before the move. */
	uint64_t guest_iops, guest_p50_ns, guest_p99_ns, guest_max_ns;
	uint64_t guest_iops_before, guest_p99_before_ns;
	uint32_t disk_count;
	struct relocate_disk_status disks[MOVER_DISKS_MAX];
};

/*
 * Checks first, always; a refusal ends it at once in FAILED with refused() true.  changed() runs on
 * every change of state or phase, and about 5 times a second while something moves.
 * The spec is copied.
 */
MUST_CHECK int relocate_start(struct disk_service *service, const struct relocate_spec *spec,
			      void (*changed)(struct relocation *relocation, void *user), void *user,
			      struct relocation **out, struct err *err);
void relocation_status(const struct relocation *relocation, struct relocate_status *out);
/* Did the check refuse it?  Then the report is here. */
const struct check_report *relocation_refused(const struct relocation *relocation);

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

/* Only when it has ended (COMPLETED, FAILED, CANCELLED). */
void relocation_free(struct relocation *relocation);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* relocate_private.h - what the files of a relocation share. */
#ifndef BM_VMOTION_RELOCATE_PRIVATE_H
#define BM_VMOTION_RELOCATE_PRIVATE_H

#include <stdatomic.h>

#include "blkmirror/journal/journal.h"
#include "vmotion/disk_private.h"
#include "vmotion/move_journal.h"
#include "vmotion/move_record.h"
#include "vmotion/relocate.h"

/* ---- the plan: what is to move where, and what the check found out ---- */

enum move_disk_done {                   /* what must be undone, or finished */
	MOVE_SOURCE_MARKED = 1,
	MOVE_TARGET_CREATED = 2,
};

struct move_disk {
	char name[DISK_ID_BYTES];
	struct disk *disk;              /* NULL: not attached (yet) */
	bool attached;                  /* before the move; else it is attached for its time */
	struct datastore *source_datastore, *target_datastore;
	char source_name[DS_NAME_BYTES], target_name[DS_NAME_BYTES];    /* of the datastores */
	char source_path[DS_PATH_BYTES], target_path[DS_PATH_BYTES];
	enum provision provision;       /* PROVISION_SAME until the check has resolved it */

	/* Copied at the start, so that a check needs no disk that may be detached meanwhile. */
	struct disk_info info;          /* attached only */
	struct loop *io_loop;
	uint32_t block_bytes;           /* the guest's smallest request; 0: as the source says */

	/* The check's findings. */
	struct ds_disk_info source, target;
	bool source_known;
	bool target_present;            /* a remote export or LUN, to be overwritten */
	struct ds_space space;
	bool space_known;
	uint64_t need_bytes;

	/* The move's. */
	unsigned done;                  /* enum move_disk_done */
	uint64_t promised_bytes;        /* still reserved */
	struct disk_identity source_identity;   /* the marks, before the switch */
	struct disk_identity target_identity;
	struct ds_disk *target_opened;
	struct blk_dev *target_device;  /* the I/O loop's; of a resumed move a slot (slot.h) */
	struct ds_disk *old_opened;     /* the source's pair, after the swap */
	struct blk_dev *old_device;

	/* The journal (move_journal.h). */
	uint64_t journal_bytes;         /* of its file, when it is made */
	int journal_fd;                 /* opened and not yet a device; -1: none */
	struct blk_dev *journal_device; /* the I/O loop's, and the next */
	struct journal *journal;
	uint32_t align_bytes;           /* of both legs, when the move began */
	uint64_t resumed_dirty_bytes, resumed_active_bytes;     /* as loaded */
};

struct move_plan {
	struct disk_service *service;
	struct move_disk *disks;
	uint32_t disk_count;
	struct mover_options options;
	bool keep_source;
	char state_dir[DS_PATH_BYTES];
	char journal_id[MOVE_ID_BYTES];
	uint8_t host_uuid[16];
};

/* Copies and judges what can be judged at once; refusals go to *report.  0 or -ENOMEM. */
MUST_CHECK int move_plan_init(struct move_plan *plan, struct disk_service *service,
			      const struct relocate_spec *spec, struct check_report *report);
void move_plan_release(struct move_plan *plan);

/* ---- the check ---- */

struct move_check {
	struct move_plan *plan;
	struct check_report *report;
	uint32_t index;
	bool own;                       /* the disks are marked moving by ourselves */
	struct job job;
	struct task finish;
	void (*checked)(struct move_check *check);
};

/* Fills *report and the plan's findings; checked() runs later, never from inside. */
void move_check_start(struct move_check *check, struct move_plan *plan,
		      struct check_report *report, bool own,
		      void (*checked)(struct move_check *check));
/* The err to fill next (counted already); the last one is reused when there is no room. */
struct err *check_report_error(struct check_report *report);
struct err *check_report_warning(struct check_report *report);

/* ---- the states ---- */

enum relocate_stage {
	STAGE_UNDECIDED,                /* marks a hole in the table */
	STAGE_PREPARING,                /* check, space, record, marks, targets */
	STAGE_MOVING,
	STAGE_HELD,
	STAGE_PAUSED,
	STAGE_SWITCHING,
	STAGE_COMMITTING,               /* the record is being written (R-J3) */
	STAGE_COMMITTED,                /* target authoritative; marks and clean-up */
	STAGE_UNDOING,                  /* source authoritative; clean-up */
	STAGE_PARKING,                  /* left standing for the next daemon */
	STAGE_LINGERING,                /* ended for the operator; late requests have to settle */
	STAGE_ENDED,
	STAGE_COUNT,
};

enum relocate_event {
	EVENT_RUN, EVENT_HOLD, EVENT_PAUSE, EVENT_SWITCH, EVENT_COMMIT, EVENT_COMMITTED,
	EVENT_GIVE_UP, EVENT_PARK, EVENT_LINGER, EVENT_END,
	EVENT_COUNT,
};

enum relocate_verb {
	VERB_PAUSE, VERB_RESUME, VERB_CANCEL, VERB_COMPLETE, VERB_SET,
	VERB_COUNT,
};

enum relocate_stage relocate_next_stage(enum relocate_stage stage, enum relocate_event event);
/* ERR_NONE: allowed. */
enum err_id relocate_verb_refusal(enum relocate_stage stage, enum relocate_verb verb);
const char *relocate_stage_name(enum relocate_stage stage);

/* ---- a relocation ---- */

struct relocate_step {
	const char *name;
	/* Ends, then or later, with step_done() or step_failed(). */
	void (*begin)(struct relocation *relocation);
};

/* [worker] 0, or -errno with *err. */
typedef int disk_visit(struct relocation *relocation, struct move_disk *disk, struct err *err);
/* [I/O loop] */
typedef void mover_verb(struct mover *mover, const struct mover_options *options);

/* One blocking call per disk, in order, on the worker of its source's or target's datastore. */
struct disk_walk {
	struct job job;
	uint32_t index;
	bool on_target;
	bool go_on;                     /* after a failure, with the next disk */
	bool open_only;                 /* pass by what is not open */
	int rc;                         /* the first failure's */
	struct err err;
	disk_visit *visit;
};

/* Opening the targets of a resumed move, beside whatever else happens to it. */
struct target_fetch {
	struct job job;
	struct io_call call;
	uint32_t index;
	bool under_way;
	bool done;                      /* all targets are there */
	bool then_resume;               /* the mover, when they are */
	bool resuming;                  /* it has been told to; not seen yet */
	bool awaited;                   /* by a step */
	bool replaced;                  /* what is there is not what this move made */
	int rc;
	struct err err;                 /* why the last try has failed */
	struct datastore *datastore;    /* of the one being opened, */
	struct ds_disk *opened;         /* the one itself, */
	uint64_t promised_bytes;        /* and what is reserved for it */
	uint64_t since_ns;
};

/* What lives on the I/O loop. */
struct relocate_io {
	struct mover *mover;
	/* As of when it was sent for; the plan's, which the main loop may change, may be newer. */
	struct mover_options start_options;
	struct worker *commit_worker;
	struct job commit_job;
	struct timer commit_retry;
	int commit_rc;
	enum move_record_state commit_state;    /* what the job writes */
	bool abandoning;                /* for mover_abandoned(), not for the commit */
	_Atomic bool abandon_failed;    /* the last try; another follows */
	uint32_t journal_index;         /* whose journal is being opened or closed */
	void (*journals_done)(struct relocation *relocation);
	struct err commit_err;
	struct mover_stats last_stats;
	uint32_t closing;               /* old devices, plus one while they are gone through */
	_Atomic int mover_state;        /* enum mover_state; -1: no mover yet */
	_Atomic int commit_outcome;     /* enum commit_outcome */
	_Atomic uint64_t commit_began_ns;       /* 0: not under way */
	_Atomic bool notifying;
	struct task notify;             /* to the main loop */
};

enum commit_outcome { COMMIT_NONE, COMMIT_PENDING, COMMIT_UNKNOWN, COMMIT_DURABLE, COMMIT_ABORTED };

struct relocation {
	struct list node;               /* of the service */
	struct move_plan plan;
	struct move_check check;
	struct check_report report;
	bool refused;
	void (*changed)(struct relocation *relocation, void *user);
	int (*switched)(struct relocation *relocation, void *user);
	void *user;

	enum relocate_stage stage;
	enum relocate_phase phase;
	enum relocate_state outcome;    /* once it has ended */
	struct err error;               /* why it failed */
	struct err leftover;            /* what could not be cleaned up */
	bool cancel_wanted;             /* while preparing */
	bool orphaned;                  /* freed by its user, still cleaning up */
	bool mover_done;                /* it has said DONE */
	bool verified;                  /* everything, as asked */
	bool stage_is_undo;             /* for the I/O loop: close the targets with the mover */
	bool draining_verbs;
	bool keep_record;

	/* A move that goes on, of a daemon before (relocate_resume.c). */
	bool resuming;                  /* until its mover runs */
	bool resumed;
	bool not_resumed;               /* ended without having touched anything */
	bool was_parked;
	bool start_paused;
	struct err paused_why;
	bool hold_targets;              /* the targets may only be opened on the operator's word */
	struct relocate_resume_ops resume_ops;
	struct target_fetch fetch;
	struct timer abort_retry;

	/* The daemon stops (relocate_park.c). */
	bool park_wanted;
	bool parked;
	enum relocate_state parked_state;

	const struct relocate_step *program;
	uint32_t step;
	struct disk_walk walk;
	struct job job;                 /* a step's own, on the record worker */
	struct err job_err;
	int job_rc;
	struct io_call call;
	struct move_record *record;
	struct relocate_io io;
	bool mover_alive;               /* mover_stats() may be asked */
	struct mover_stats stats;       /* the last ones */

	struct timer ticker;            /* 5 Hz while something moves */
	uint32_t verbs_under_way;
	struct timer patience;          /* for late requests to settle */
	struct task changed_task;
	uint64_t guest_iops_before, guest_p99_before_ns;
};

#define RELOCATE_TICK_NS (NS_PER_S / 5)

/* relocate.c */
struct relocation *relocation_new(struct disk_service *service,
				  void (*changed)(struct relocation *relocation, void *user),
				  void *user);
/* It is one of the service's from now on; its plan is made. */
void relocation_begin(struct relocation *relocation, const struct relocate_step *program);
void relocation_event(struct relocation *relocation, enum relocate_event event);
void relocation_set_phase(struct relocation *relocation, enum relocate_phase phase);
void relocation_changed(struct relocation *relocation);
void relocation_run(struct relocation *relocation, const struct relocate_step *program);
void step_done(struct relocation *relocation);
/* While preparing: undoes everything.  In clean-up: noted as left over, and on. */
void step_failed(struct relocation *relocation, const struct err *err);
void relocation_fail(struct relocation *relocation, const struct err *err);
/* Something stays behind: the record is kept, so that a restart tries again. */
void relocation_left_over(struct relocation *relocation, const struct err *err);
void walk_disks(struct relocation *relocation, bool on_target, bool go_on, disk_visit *visit);
/* The same over the targets that are open, on their datastores' workers. */
void walk_open_targets(struct relocation *relocation, disk_visit *visit);
void relocation_job(struct relocation *relocation, void (*run)(struct job *job),
		    void (*done)(struct job *job));
void relocation_ended(struct relocation *relocation);

/* relocate_status.c */
void relocate_note_guests_before(struct relocation *relocation);

/* relocate_reserve.c: from the check's answer to a running mover. */
extern const struct relocate_step relocate_prepare_program[];
void relocate_release_promises(struct relocation *relocation);
void relocate_lower_promises(struct relocation *relocation);

/* relocate_journal.c: the journals, on the I/O loop. */
/* Create them, or load them; then done(), with job_rc and job_err. */
void relocate_journals_open(struct relocation *relocation,
			    void (*done)(struct relocation *relocation));
/* Close those that are open, devices included; then done(). */
void relocate_journals_close(struct relocation *relocation,
			     void (*done)(struct relocation *relocation));
/* [record worker] Make their files; open them; forget those that were opened in vain. */
MUST_CHECK int relocate_journal_files_make(struct relocation *relocation, struct err *err);
MUST_CHECK int relocate_journal_files_open(struct relocation *relocation, struct err *err);
void relocate_journal_files_close(struct relocation *relocation);

/* relocate_resume.c */
void relocate_resume_failed(struct relocation *relocation, const struct err *err);
/* Open the targets that are not there yet; then the mover goes on, if then_resume. */
void relocate_fetch_targets(struct relocation *relocation, bool then_resume);
/* A step: until no fetch is under way. */
void relocate_await_fetch(struct relocation *relocation);

/* relocate_park.c */
/* The mover is PAUSED, or could not be: go on parking. */
void relocate_park_noticed(struct relocation *relocation, enum mover_state state);

/* relocate_io.c: the mover, on its loop. */
void relocate_io_init(struct relocation *relocation);
void relocate_io_start_mover(struct relocation *relocation);
/* The same for a resumed move: over slots, and then the guests are let in. */
void relocate_io_resume_mover(struct relocation *relocation);
/* A step of a move that will not go on: the guests are let in without it. */
void relocate_io_open_gates(struct relocation *relocation);
/* Of the disks that are attached; NULL: none is. */
struct loop *relocate_any_loop(const struct relocation *relocation);
void relocate_io_free_mover(struct relocation *relocation);
void relocate_io_close_old(struct relocation *relocation);
/*
 * Apply to the mover, on its loop; nothing where there is none (yet: it starts with the options).
 * 0 or -ENOMEM.
 */
MUST_CHECK int relocate_io_verb(struct relocation *relocation, mover_verb *apply, struct err *err);
MUST_CHECK int relocation_io_resume(struct relocation *relocation, struct err *err);
/* A step: wait for verbs that are on their way. */
void relocate_io_drain_verbs(struct relocation *relocation);
/* On the main loop, when the I/O loop has told something. */
void relocate_io_noticed(struct relocation *relocation);

/* relocate_cleanup.c */
extern const struct relocate_step relocate_settle_program[];
extern const struct relocate_step relocate_undo_program[];
/* The ends of programs. */
void relocate_release_promises_step(struct relocation *relocation);
void relocate_release_disks(struct relocation *relocation);
void relocate_detach_next(struct relocation *relocation);
void relocate_mover_is_done(struct relocation *relocation);

/* relocate_mark.c: blocking, [worker]; used by clean-up and by recovery. */

/* Open for the move, mark, close.  -ENOTSUP of a store without marks counts as done. */
MUST_CHECK int move_mark_path(struct datastore *ds, const char *path, const char *journal_id,
			      const struct disk_identity *identity, struct err *err);
/*
 * Delete the target at that path if it still is this move's: role INCOMING with our journal id
 * and the same uuid and generation (R-J5).  Gone already: 0.  Anything else there: -ESTALE.
 */
MUST_CHECK int move_delete_incoming(struct datastore *ds, const char *path, const char *journal_id,
				    const struct disk_identity *identity, struct err *err);
/* The same for the retired source. */
MUST_CHECK int move_delete_retired(struct datastore *ds, const char *path,
				   const struct disk_identity *identity, struct err *err);

#endif

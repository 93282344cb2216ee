/* SPDX-License-Identifier: Apache-2.0 */
/* mover_private.h - what the mover's rooms share. */
#ifndef BM_MOVER_PRIVATE_H
#define BM_MOVER_PRIVATE_H

#include <pthread.h>

#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/copy_engine.h"
#include "blkmirror/mirror/mirror.h"
#include "blkmirror/mirror/mover.h"
#include "blkmirror/mirror/pacer.h"
#include "blkmirror/mirror/verify.h"

#define MOVER_NAME_BYTES 64
#define MOVER_FAULTS_MAX 8u                     /* rounds of target errors: pause */
#define MOVER_FAULT_REST_NS (50 * NS_PER_MS)    /* the copier's after the first; doubled each time */
#define MOVER_FAULT_FORGET_NS (10 * NS_PER_S)   /* one round of errors is forgotten in this time */
#define MOVER_HASH_BYTES (UINT64_C(32) << 20)   /* of all disks together */
#define MOVER_PUBLISH_NS (100 * NS_PER_MS)

enum switch_step {
	SWITCH_IDLE,
	SWITCH_PREFLUSH,        /* under running guests, so that the last flush is short */
	SWITCH_QUIET,           /* no job of ours in flight */
	SWITCH_DRAIN,           /* gates held: the stun runs */
	SWITCH_SETTLE,          /* buffered legs (async) land */
	SWITCH_FLUSH,
	SWITCH_COMMITTING,      /* the record has been issued (R-J3) */
};

enum breaker {
	BREAKER_CLOSED,
	BREAKER_OPEN,           /* no new target I/O */
	BREAKER_PROBING,        /* half open: the copier's only */
};

enum budget_state {
	BUDGET_MIRRORING,
	BUDGET_SHEDDING,        /* guests write to the source only, the copier follows */
	BUDGET_LAST_SYNC,       /* mirroring all the same, for a bounded time */
};

struct added_latency {
	uint64_t ops, sum_ns;
};

struct mover_budget {
	enum budget_state state;
	struct timer timer;             /* SHEDDING: the next try; LAST_SYNC: its end */
	struct added_latency newer, older;      /* totals when the present and the last window began */
	uint64_t newer_from_ns;
	uint64_t mean_ns;               /* added to a write, of late */
	uint64_t shed_mean_ns;          /* the same when shedding began */
	uint64_t try_at_ns, wait_ns;
	uint64_t stopped_at_ns;         /* when mirroring was last taken up for good */
	uint64_t sheds;
	uint64_t copied_at_ns, copied_bytes;
	double copy_rate;
};

/* One disk of the mover. */
struct mover_part {
	struct mover *mover;
	char name[MOVER_NAME_BYTES];
	struct gate *gate;
	struct mirror *mirror;
	struct copy_engine *engine;
	struct verifier *verifier;
	struct hash_store *hashes;
	struct journal *journal;
	bool resumed;
	uint64_t resumed_bytes;
	struct journal_checkpoint_ops checkpoint_ops;
	struct mirror_flush checkpoint_flush;   /* the target's leg of a checkpoint */
	struct blk_req checkpoint_req;          /* the source's */
	uint32_t checkpoint_pending;
	int checkpoint_result;
	struct mirror_flush flush;
	bool flushing;
	uint64_t flush_from_ns;
	bool probed;                    /* PROBING: its target has answered */
	uint64_t probe_from_writes;
	bool old_requests;      /* requests from before the gate's last change are still in flight */
};

struct mover {
	struct loop *loop;
	struct buf_pool *pool;
	struct mover_options options;
	struct mover_ops ops;
	void *user;
	enum mover_state state;
	struct pacer pacer;
	struct mover_part parts[MOVER_DISKS_MAX];
	uint32_t part_count;
	uint32_t first_served;          /* whose engine is told first when the pacer has room */

	struct task advance;            /* look at everything again */
	struct task changed;
	struct timer probe;
	struct timer publish;
	struct timer checkpoint;
	struct timer abandon;
	bool abandoning;                /* ops->abandon() has been asked */
	bool abandoned;                 /* and has been answered: nobody resumes this move */
	/* mover_checkpoint(); NULL: none is waited for. */
	void (*checkpointed)(int result, void *user);
	void *checkpointed_user;
	int checkpoint_result;
	struct task checkpoint_task;

	bool completing;                /* the hold is lifted */
	bool pausing;
	bool leaving;                   /* cancelled or failed, once the gates have drained */
	enum mover_state leave_to;
	struct err error;
	enum breaker breaker;           /* R13 */
	uint64_t open_from_ns;          /* not CLOSED since */
	uint64_t closed_at_ns;
	uint64_t backoff_ns;
	uint64_t probe_at_ns;           /* OPEN: not before; PROBING: by a flush from then on */
	uint64_t trips;
	struct mover_budget budget;
	uint32_t fault_count;
	uint64_t fault_at_ns;           /* when fault_count was last set */
	uint64_t fault_rest_until_ns;
	bool verify_started;
	uint64_t verify_total_bytes;
	uint64_t progress_bytes;        /* the most that has been told */

	enum switch_step step;
	uint32_t step_pending;          /* parts that this step waits for */
	bool step_failed;
	struct timer stun;              /* the bound */
	struct timer retry;
	uint64_t stun_from_ns;
	uint64_t switch_from_ns;        /* the first try */
	uint64_t stun_ns;
	uint64_t drained_ns, flushed_ns;        /* when, in this try */
	uint32_t tries;

	uint64_t rate_at_ns, rate_bytes, mirror_bytes;
	double rate, mirror_rate;
	uint64_t copy_total_bytes;

	pthread_mutex_t stats_lock;
	struct mover_stats stats;       /* under stats_lock */

	void (*freed)(void *user);
	void *freed_user;
	struct task free_task;
};

#define mover_for_each(part, mover) \
	for (struct mover_part *part = (mover)->parts; part < (mover)->parts + (mover)->part_count; part++)

/* ---- mover_state.c ---- */
bool mover_may_move(enum mover_state from, enum mover_state to);

/* ---- mover.c ---- */
void mover_set_state(struct mover *mover, enum mover_state state);
void mover_look(struct mover *mover);           /* post mover->advance */
void mover_tell(struct mover *mover);           /* post ops->changed() */
void mover_halt_jobs(struct mover *mover);
void mover_run_jobs(struct mover *mover);
bool mover_jobs_are_quiet(const struct mover *mover);
/* Fall back to the source for good: FAILED or CANCELLED. */
void mover_leave(struct mover *mover, enum mover_state to);
/* The second half: no journal counts any more. */
void mover_let_go(struct mover *mover);

/* ---- mover_part.c ---- */
int mover_part_init(struct mover_part *part, struct mover *mover, const struct mover_disk *disk,
		    struct err *err);
void mover_part_release(struct mover_part *part);
/* Lead the gate to `next`; part->old_requests until those of before are done. */
void mover_part_swap(struct mover_part *part, struct blk_dev *next);
bool mover_part_in_sync(const struct mover_part *part);

/* ---- mover_fault.c ---- */
/* A target could not be written or read, or is late (-ETIMEDOUT). */
void mover_target_trouble(struct mover_part *part, int error);
void mover_source_trouble(struct mover_part *part, int error, uint64_t offset_bytes);
void mover_mismatch(struct mover_part *part, uint64_t offset_bytes, uint64_t len_bytes);
void mover_pause_for(struct mover *mover);
/* At the end of a pause; mover->error says why. */
bool mover_target_is_in_doubt(struct mover *mover);
/* May this move be resumed on its targets?  0 or -EBUSY with *err. */
MUST_CHECK int mover_judge_targets(struct mover *mover, struct err *err);
/* Is a target write, flush or read of our own overdue, or does a buffered leg stand still? */
void mover_watch_targets(struct mover *mover);

/* ---- mover_breaker.c ---- */
/* Not OPEN: mover->error says why it opens. */
void mover_breaker_open(struct mover *mover);
/* A pause for a fault is over: ask the target before any guest does. */
void mover_breaker_ask(struct mover *mover);
void mover_breaker_look(struct mover *mover);
void mover_probe_fired(struct timer *timer);
/* Lead every mirror to the state that breaker, pause and budget want. */
void mover_apply_mirrors(struct mover *mover);

/* ---- mover_budget.c ---- */
bool mover_is_shedding(const struct mover *mover);
bool mover_nearly_in_sync(struct mover *mover);
/* Nearly in sync and verified: mirror again, for the last of it. */
void mover_budget_try(struct mover *mover);
void mover_budget_end_trial(struct mover *mover);
void mover_budget_fired(struct timer *timer);
void mover_watch_budget(struct mover *mover);

/* ---- mover_switch.c ---- */
void mover_switch_begin(struct mover *mover);
/* Something has settled, drained or been flushed: is the step done? */
void mover_switch_look(struct mover *mover);
/* Before the commit: let the guests go on against the source. */
void mover_switch_fall_back(struct mover *mover);
void mover_stun_fired(struct timer *timer);
void mover_retry_fired(struct timer *timer);

/* ---- mover_checkpoint.c ---- */
void mover_checkpoint_fired(struct timer *timer);
void mover_checkpoint_soon(struct mover *mover);
void mover_abandon_fired(struct timer *timer);
bool mover_in_checkpoint(const struct mover *mover);
/* True: asked, and mover_let_go() follows.  False: nothing to give up durably. */
bool mover_abandon(struct mover *mover);
void mover_checkpoint_told(struct task *task);
/* Has a journal failed?  Then the move ends, once it cannot be resumed any more. */
void mover_watch_journals(struct mover *mover);

/* ---- mover_stats.c ---- */
void mover_publish(struct mover *mover);
void mover_publish_fired(struct timer *timer);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_io.c - the half of a relocation that lives on the disks' I/O loop.
 *
 * The main loop sends errands (io_call) and is told by one coalesced notice when something
 * has changed.  The commit does not pass through the main loop: guest I/O is held meanwhile,
 * so it goes from the I/O loop to a thread of its own and back.
 */
#include <errno.h>
#include <stdlib.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file.h"
#include "blkmirror/blkdev/slot.h"
#include "vmotion/relocate_private.h"

#define COMMIT_RETRY_NS NS_PER_S

static struct relocation *relocation_of(struct io_call *call)
{
	return container_of(call, struct relocation, call);
}

/* All disks of a move are on one. */
struct loop *relocate_any_loop(const struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		if (relocation->plan.disks[i].disk)
			return disk_loop(relocation->plan.disks[i].disk);
	return NULL;
}

static void send_call(struct relocation *relocation, void (*run)(struct io_call *call),
		      void (*done)(struct io_call *call))
{
	io_call_send(&relocation->call, relocate_any_loop(relocation),
		     relocation->plan.service->main_loop, run, done);
}

/* ---- notices to the main loop ---- */

static void notice(struct relocation *relocation)
{
	if (!atomic_exchange(&relocation->io.notifying, true))
		loop_send(relocation->plan.service->main_loop, &relocation->io.notify);
}

static void notice_taken(struct task *task)
{
	struct relocation *relocation = container_of(task, struct relocation, io.notify);

	atomic_store(&relocation->io.notifying, false);
	relocate_io_noticed(relocation);
}

static void io_changed(struct mover *mover, void *user)
{
	struct relocation *relocation = user;

	atomic_store(&relocation->io.mover_state, (int)mover_state(mover));
	notice(relocation);
}

/* ---- the commit (R-J3) ---- */

static void commit_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, io.commit_job);

	relocation->io.commit_rc = move_record_write(relocation->record,
						     relocation->io.commit_state, 0,
						     &relocation->job_err);
}

static void commit_done(struct job *job);

static void commit_write(struct relocation *relocation, enum move_record_state state)
{
	relocation->io.commit_state = state;
	relocation->io.commit_job = (struct job){ .run = commit_run, .done = commit_done };
	worker_submit(relocation->io.commit_worker, &relocation->io.commit_job);
}

static void commit_settled(struct relocation *relocation, enum commit_outcome outcome)
{
	atomic_store(&relocation->io.commit_began_ns, 0);
	atomic_store(&relocation->io.commit_outcome, (int)outcome);
	notice(relocation);
}

/* Guest I/O is held and drained: the moment for it. */
static void promote_targets(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct blk_dev *device = relocation->plan.disks[i].target_device;

		if (blk_dev_is_slot(device))
			device = slot_inner(device);
		if (device->in_flight == 0)
			ds_disk_dev_promote(device);
	}
}

/*
 * R-J3: a write of the record that failed may be durable or not.  Nothing falls back or goes
 * on before a later record (ABORTED, of a higher sequence) is known to be durable; until
 * then guest I/O stays held, an alarm is up, and the write is tried again.
 */
static void commit_unknown(struct relocation *relocation)
{
	if (atomic_load(&relocation->io.commit_outcome) == COMMIT_PENDING)
		relocation->io.commit_err = relocation->job_err;        /* the first tells most */
	atomic_store(&relocation->io.commit_outcome, COMMIT_UNKNOWN);
	notice(relocation);
	log_error("relocate", "%s: guest I/O is held: %s", relocation->plan.journal_id,
		  relocation->job_err.cause);
	if (relocation->io.commit_state == MOVE_COMMITTED)
		commit_write(relocation, MOVE_ABORTED);
	else
		timer_start(&relocation->io.commit_retry, COMMIT_RETRY_NS);
}

/* The mover asks again where it failed. */
static void abandon_done(struct relocation *relocation)
{
	int rc = relocation->io.commit_rc;

	relocation->io.abandoning = false;
	if (rc)
		log_error("relocate", "%s: %s", relocation->plan.journal_id,
			  relocation->job_err.cause);
	atomic_store(&relocation->io.abandon_failed, rc != 0);
	notice(relocation);
	mover_abandoned(relocation->io.mover, rc);
}

static void commit_retry_fired(struct timer *timer)
{
	commit_write(container_of(timer, struct relocation, io.commit_retry), MOVE_ABORTED);
}

static void commit_done(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, io.commit_job);

	if (relocation->io.abandoning) {
		abandon_done(relocation);
	} else if (relocation->io.commit_rc) {
		commit_unknown(relocation);
	} else if (relocation->io.commit_state == MOVE_COMMITTED) {
		promote_targets(relocation);
		commit_settled(relocation, COMMIT_DURABLE);
		mover_committed(relocation->io.mover, 0);
	} else {
		commit_settled(relocation, COMMIT_ABORTED);
		mover_committed(relocation->io.mover, -ECANCELED);
		/* It would try again; a state directory that fails may not hold a guest twice. */
		if (mover_cancel(relocation->io.mover, NULL))
			log_error("relocate", "%s: the mover goes on after its commit was aborted",
				  relocation->plan.journal_id);
	}
}

/*
 * The move will fail or be cancelled: a journal beside a record that says RESERVED would be
 * resumed after a crash, so the record says ABORTED before a guest writes past the journal.
 */
static void io_abandon(struct mover *mover, void *user)
{
	struct relocation *relocation = user;

	(void)mover;
	relocation->io.abandoning = true;
	commit_write(relocation, MOVE_ABORTED);
}

static void io_commit(struct mover *mover, void *user)
{
	struct relocation *relocation = user;

	(void)mover;
	atomic_store(&relocation->io.commit_outcome, COMMIT_PENDING);
	atomic_store(&relocation->io.commit_began_ns,
		     loop_now_ns(disk_loop(relocation->plan.disks[0].disk)));
	commit_write(relocation, MOVE_COMMITTED);
}

/* ---- start ---- */

static const struct mover_ops io_ops = { .changed = io_changed, .commit = io_commit,
					 .abandon = io_abandon };

static int judge_device(const struct move_disk *disk, struct err *err)
{
	const struct blk_dev *gate = gate_as_dev(disk_gate(disk->disk));
	const struct blk_dev *target = disk->target_device;

	if (target->size_bytes < gate->size_bytes)
		return err_set(err, ERR_MOVE_TARGET_SMALL, -ENOSPC,
			       "the target of '%s' has %llu bytes, the disk %llu", disk->name,
			       (unsigned long long)target->size_bytes,
			       (unsigned long long)gate->size_bytes);
	if (target->limits.block_bytes > gate->limits.block_bytes)
		return err_set(err, ERR_MOVE_SECTOR, -EINVAL,
			       "the disk '%s' has sectors of %u bytes, its target of %u",
			       disk->name, gate->limits.block_bytes, target->limits.block_bytes);
	if (target->limits.read_only)
		return err_set(err, ERR_DS_READ_ONLY, -EROFS, "the target of '%s' is read-only",
			       disk->name);
	return 0;
}

static void close_targets(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];

		blk_close(disk->target_device);
		disk->target_device = NULL;
	}
}

static int make_devices(struct relocation *relocation, struct err *err)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		int rc = ds_disk_make_dev(disk->target_opened, disk_loop(disk->disk), true,
					  &disk->target_device, err);

		if (!rc)
			rc = judge_device(disk, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int make_mover(struct relocation *relocation)
{
	struct move_plan *plan = &relocation->plan;
	struct mover_disk movers[MOVER_DISKS_MAX];
	struct disk *first = plan->disks[0].disk;

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		struct move_disk *disk = &plan->disks[i];

		movers[i] = (struct mover_disk){ .gate = disk_gate(disk->disk),
						 .source = disk_device(disk->disk),
						 .target = disk->target_device,
						 .name = disk->name,
						 .journal = disk->journal,
						 .resumed = relocation->resuming };
	}
	timer_init(&relocation->io.commit_retry, disk_loop(first), commit_retry_fired);
	return mover_new(disk_loop(first), disk_pool(first), movers, plan->disk_count,
			 &relocation->io.start_options, &io_ops, relocation, &relocation->io.mover,
			 &relocation->job_err);
}

/* It has not become a mover: what was made for it is closed again. */
static void start_undone(struct relocation *relocation)
{
	close_targets(relocation);
	io_call_finish(&relocation->call);
}

static void start_undo(struct relocation *relocation)
{
	relocate_journals_close(relocation, start_undone);
}

static void start_with_journals(struct relocation *relocation)
{
	if (!relocation->job_rc)
		relocation->job_rc = make_mover(relocation);
	if (relocation->job_rc) {
		start_undo(relocation);
		return;
	}
	mover_start(relocation->io.mover);
	atomic_store(&relocation->io.mover_state, (int)mover_state(relocation->io.mover));
	io_call_finish(&relocation->call);
}

static void start_run(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	relocation->job_rc = make_devices(relocation, &relocation->job_err);
	if (relocation->job_rc)
		start_undo(relocation);
	else
		relocate_journals_open(relocation, start_with_journals);
}

/* ---- start of a move that goes on ---- */

/* The promises of the slot are those of the move's beginning: see slot.h. */
static int make_slots(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		const struct blk_dev *gate = gate_as_dev(disk_gate(disk->disk));
		uint32_t block_bytes = gate->limits.block_bytes;

		disk->target_device = slot_new(disk_loop(disk->disk), gate->size_bytes, block_bytes,
					       MAX(disk->align_bytes, block_bytes));
		if (!disk->target_device)
			return err_set(&relocation->job_err, ERR_NO_MEMORY, -ENOMEM,
				       "cannot go on with the relocation");
	}
	return 0;
}

/* The guests are let in only now: the mirror and the journals stand behind the gates (R-J2). */
static void open_gates(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		gate_release(disk_gate(relocation->plan.disks[i].disk));
}

static void resume_with_journals(struct relocation *relocation)
{
	if (!relocation->job_rc)
		relocation->job_rc = make_slots(relocation);
	if (!relocation->job_rc)
		relocation->job_rc = make_mover(relocation);
	if (relocation->job_rc) {
		start_undo(relocation);
		return;
	}
	mover_start_paused(relocation->io.mover,
			   relocation->start_paused ? &relocation->paused_why : NULL);
	atomic_store(&relocation->io.mover_state, (int)mover_state(relocation->io.mover));
	open_gates(relocation);
	io_call_finish(&relocation->call);
}

static void resume_run(struct io_call *call)
{
	relocate_journals_open(relocation_of(call), resume_with_journals);
}

/* R10: small writes are rounded out to the larger physical block. */
static void warn_of_physical(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		const struct move_disk *disk = &relocation->plan.disks[i];
		uint32_t source_bytes = disk_device(disk->disk)->limits.physical_bytes;
		uint32_t target_bytes = disk->target_device->limits.physical_bytes;

		if (target_bytes <= source_bytes)
			continue;
		err_set(check_report_warning(&relocation->report), ERR_MOVE_PHYSICAL, 0,
			"the target of '%s' has physical blocks of %u bytes, the source of %u",
			disk->name, target_bytes, source_bytes);
		log_warn("relocate", "%s: the target of '%s' has physical blocks of %u bytes, the "
			 "source of %u", relocation->plan.journal_id, disk->name, target_bytes,
			 source_bytes);
	}
}

static void apply_options(struct mover *mover, const struct mover_options *options)
{
	mover_set_bandwidth(mover, options->bandwidth_bytes_per_s);
	mover_set_max_stun(mover, options->max_stun_ns);
	mover_set_latency_budget(mover, options->latency_budget_ns);
	mover_set_mode(mover, options->mode);
}

/* What the operator has set while it was being made is not in it. */
static void catch_up_options(struct relocation *relocation)
{
	const struct mover_options *was = &relocation->io.start_options;
	const struct mover_options *is = &relocation->plan.options;
	struct err err;

	if (was->bandwidth_bytes_per_s == is->bandwidth_bytes_per_s && was->mode == is->mode &&
	    was->max_stun_ns == is->max_stun_ns &&
	    was->latency_budget_ns == is->latency_budget_ns)
		return;
	if (relocate_io_verb(relocation, apply_options, &err))
		log_error("relocate", "%s: what was set is not in effect: %s",
			  relocation->plan.journal_id, err.cause);
}

static void mover_is_alive(struct relocation *relocation)
{
	relocation->mover_alive = true;
	mover_stats(relocation->io.mover, &relocation->stats);
	timer_start(&relocation->ticker, RELOCATE_TICK_NS);
	catch_up_options(relocation);
	if (relocation->cancel_wanted)
		(void)!relocation_cancel(relocation, NULL);
}

static void started(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	if (relocation->job_rc) {
		step_failed(relocation, &relocation->job_err);
		return;
	}
	warn_of_physical(relocation);
	relocation_event(relocation, EVENT_RUN);
	mover_is_alive(relocation);
	relocate_io_noticed(relocation);
}

static void resumed(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	if (relocation->job_rc) {
		step_failed(relocation, &relocation->job_err);
		return;
	}
	relocation->resuming = false;
	relocation->resumed = true;
	if (!relocation->start_paused && !relocation->hold_targets)
		relocate_fetch_targets(relocation, true);
	relocation_event(relocation, relocation->fetch.under_way ? EVENT_RUN : EVENT_PAUSE);
	mover_is_alive(relocation);
	relocate_io_noticed(relocation);
}

static void start_mover(struct relocation *relocation, void (*run)(struct io_call *call),
			void (*done)(struct io_call *call))
{
	struct disk *disk = relocation->plan.disks[0].disk;

	relocation->io.start_options = relocation->plan.options;
	relocation->io.commit_worker = worker_new(disk_loop(disk), "commit");
	if (!relocation->io.commit_worker) {
		struct err err;

		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "cannot start the mover");
		step_failed(relocation, &err);
		return;
	}
	send_call(relocation, run, done);
}

void relocate_io_start_mover(struct relocation *relocation)
{
	start_mover(relocation, start_run, started);
}

void relocate_io_resume_mover(struct relocation *relocation)
{
	start_mover(relocation, resume_run, resumed);
}

void relocate_io_init(struct relocation *relocation)
{
	atomic_store(&relocation->io.mover_state, -1);
	atomic_store(&relocation->io.commit_outcome, COMMIT_NONE);
	relocation->io.notify.run = notice_taken;
}

/* ---- what the notices mean ---- */

static void follow_phase(struct relocation *relocation, enum mover_state state)
{
	static const int phases[MOVER_STATE_COUNT] = {
		[MOVER_COPY] = RELOCATE_COPY,         [MOVER_VERIFY] = RELOCATE_VERIFY,
		[MOVER_HOLD] = RELOCATE_MIRROR,       [MOVER_SWITCH] = RELOCATE_SWITCHOVER,
		[MOVER_COMMIT] = RELOCATE_SWITCHOVER, [MOVER_SWITCHED] = RELOCATE_VERIFY,
		[MOVER_DONE] = RELOCATE_CLEANUP,      [MOVER_PAUSED] = -1,
		[MOVER_FAILED] = RELOCATE_CLEANUP,    [MOVER_CANCELLED] = RELOCATE_CLEANUP,
	};

	if (phases[state] >= 0)
		relocation_set_phase(relocation, (enum relocate_phase)phases[state]);
}

static void follow_stage(struct relocation *relocation, enum mover_state state)
{
	static const enum relocate_event events[MOVER_STATE_COUNT] = {
		[MOVER_COPY] = EVENT_RUN,            [MOVER_VERIFY] = EVENT_RUN,
		[MOVER_HOLD] = EVENT_HOLD,           [MOVER_SWITCH] = EVENT_SWITCH,
		[MOVER_COMMIT] = EVENT_COMMIT,       [MOVER_SWITCHED] = EVENT_COMMITTED,
		[MOVER_DONE] = EVENT_COMMITTED,      [MOVER_PAUSED] = EVENT_PAUSE,
		[MOVER_FAILED] = EVENT_GIVE_UP,      [MOVER_CANCELLED] = EVENT_GIVE_UP,
	};

	/* Paused for us, not for the operator: while its targets are fetched it runs. */
	if (state != MOVER_PAUSED)
		relocation->fetch.resuming = false;
	if (state == MOVER_PAUSED &&
	    (relocation->fetch.resuming ||
	     (relocation->fetch.under_way && relocation->fetch.then_resume)))
		relocation_event(relocation, EVENT_RUN);
	else if (state != MOVER_PAUSED || !relocation->park_wanted)
		relocation_event(relocation, events[state]);
}

static void gave_up(struct relocation *relocation, enum mover_state state)
{
	bool aborted = atomic_load(&relocation->io.commit_outcome) == COMMIT_ABORTED;

	mover_stats(relocation->io.mover, &relocation->stats);
	relocation->outcome = state == MOVER_CANCELLED && !aborted ? RELOCATE_CANCELLED
								   : RELOCATE_FAILED;
	relocation->error = aborted ? relocation->io.commit_err : relocation->stats.error;
	relocation_run(relocation, relocate_undo_program);
}

void relocate_io_noticed(struct relocation *relocation)
{
	enum mover_state state = (enum mover_state)atomic_load(&relocation->io.mover_state);
	enum relocate_stage before = relocation->stage;

	if (!relocation->mover_alive)
		return;                 /* its start or its end is being dealt with */
	mover_stats(relocation->io.mover, &relocation->stats);  /* a state goes with its reason */
	follow_phase(relocation, state);
	if (atomic_load(&relocation->io.commit_outcome) == COMMIT_DURABLE) {
		CHECK(state != MOVER_FAILED);   /* there is no falling back (R-J3) */
		CHECK(state != MOVER_CANCELLED);
		relocation_event(relocation, EVENT_COMMITTED);
	} else {
		CHECK(state != MOVER_SWITCHED); /* without its commit */
		CHECK(state != MOVER_DONE);
		follow_stage(relocation, state);
	}
	relocation_changed(relocation);
	if (before != relocation->stage && relocation->stage == STAGE_UNDOING)
		gave_up(relocation, state);
	else if (before != relocation->stage && relocation->stage == STAGE_COMMITTED)
		relocation_run(relocation, relocate_settle_program);
	if (relocation->park_wanted)
		relocate_park_noticed(relocation, state);
	if (state == MOVER_DONE && !relocation->mover_done) {
		relocation->mover_done = true;
		relocate_mover_is_done(relocation);
	}
}

/* ---- without a mover ---- */

static void open_gates_run(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
		if (relocation->plan.disks[i].disk)
			gate_release(disk_gate(relocation->plan.disks[i].disk));
	io_call_finish(call);
}

static void opened_gates(struct io_call *call)
{
	step_done(relocation_of(call));
}

void relocate_io_open_gates(struct relocation *relocation)
{
	io_call_send(&relocation->call, relocate_any_loop(relocation),
		     relocation->plan.service->main_loop, open_gates_run, opened_gates);
}

/* ---- the end of the mover ---- */

/* The gate leads to the slot: from now on to what is in it. */
static void unslot_targets(struct relocation *relocation)
{
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct move_disk *disk = &relocation->plan.disks[i];
		struct blk_dev *slot = disk->target_device;

		if (!blk_dev_is_slot(slot))
			continue;
		disk->target_device = slot_take(slot);
		gate_set_next(disk_gate(disk->disk), disk->target_device);
		blk_close(slot);
	}
}

static void journals_closed(struct relocation *relocation)
{
	if (relocation->stage_is_undo)
		close_targets(relocation);
	else
		unslot_targets(relocation);
	io_call_finish(&relocation->call);
}

static void mover_freed(void *user)
{
	relocate_journals_close(user, journals_closed);
}

static void free_run(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);
	struct mover *mover = relocation->io.mover;

	relocation->io.mover = NULL;            /* a verb that comes late finds nothing */
	mover_stats(mover, &relocation->io.last_stats);
	mover_free(mover, mover_freed, relocation);
}

static void freed(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	timer_stop(&relocation->patience);
	relocation->stats = relocation->io.last_stats;
	worker_free(relocation->io.commit_worker);
	relocation->io.commit_worker = NULL;
	step_done(relocation);
}

void relocate_io_free_mover(struct relocation *relocation)
{
	if (!relocation->mover_alive) {
		worker_free(relocation->io.commit_worker);
		relocation->io.commit_worker = NULL;
		step_done(relocation);
		return;
	}
	relocation->mover_alive = false;
	relocation->stage_is_undo = relocation->stage != STAGE_COMMITTED;
	if (!relocation->patience.started)
		timer_start(&relocation->patience, relocation->plan.service->patience_ns);
	send_call(relocation, free_run, freed);
}

static void old_is_closed(void *user)
{
	struct relocation *relocation = user;

	if (--relocation->io.closing == 0)
		io_call_finish(&relocation->call);
}

/* The loop has guests, who have just been held for the switch-over: a file is closed aside. */
static void close_old_run(struct io_call *call)
{
	struct relocation *relocation = relocation_of(call);

	relocation->io.closing = 1;
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		struct blk_dev *old = relocation->plan.disks[i].old_device;

		relocation->plan.disks[i].old_device = NULL;
		if (!old || !blk_dev_is_file(old)) {
			blk_close(old);
			continue;
		}
		relocation->io.closing++;
		blk_file_close_later(old, old_is_closed, relocation);
	}
	old_is_closed(relocation);
}

static void closed_old(struct io_call *call)
{
	step_done(relocation_of(call));
}

void relocate_io_close_old(struct relocation *relocation)
{
	send_call(relocation, close_old_run, closed_old);
}

/* ---- verbs ---- */

struct verb_call {
	struct io_call call;
	struct relocation *relocation;
	struct mover_options options;
	mover_verb *apply;
	bool left_paused;               /* the mover, by this verb or before it */
};

static void verb_run(struct io_call *call)
{
	struct verb_call *verb = container_of(call, struct verb_call, call);

	struct mover *mover = verb->relocation->io.mover;

	if (mover) {
		verb->apply(mover, &verb->options);
		verb->left_paused = mover_state(mover) == MOVER_PAUSED;
	}
	io_call_finish(call);
}

static void verb_done(struct io_call *call)
{
	struct verb_call *verb = container_of(call, struct verb_call, call);
	struct relocation *relocation = verb->relocation;
	bool left_paused = verb->left_paused;

	free(verb);
	/* What was to resume it has been refused: nothing else would tell that it stays paused. */
	if (left_paused && relocation->fetch.resuming) {
		relocation->fetch.resuming = false;
		relocate_io_noticed(relocation);
	}
	relocation->verbs_under_way--;
	if (relocation->verbs_under_way == 0 && relocation->draining_verbs) {
		relocation->draining_verbs = false;
		step_done(relocation);
	}
}

int relocate_io_verb(struct relocation *relocation, mover_verb *apply, struct err *err)
{
	struct verb_call *verb;

	if (!relocation->mover_alive)
		return 0;
	verb = calloc(1, sizeof(*verb));
	if (!verb)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot pass it on to the mover");
	verb->relocation = relocation;
	verb->options = relocation->plan.options;
	verb->apply = apply;
	relocation->verbs_under_way++;
	io_call_send(&verb->call, disk_loop(relocation->plan.disks[0].disk),
		     relocation->plan.service->main_loop, verb_run, verb_done);
	return 0;
}

void relocate_io_drain_verbs(struct relocation *relocation)
{
	if (relocation->verbs_under_way)
		relocation->draining_verbs = true;
	else
		step_done(relocation);
}

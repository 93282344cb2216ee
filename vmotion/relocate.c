/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate.c - a relocation as a state machine on the main loop.
 *
 * The durable steps, in order, and what a crash right after each leaves.  At the next start
 * relocate_recover.c reads the record and finishes as told here; it can be cut short itself
 * and starts again with the same outcome.
 *
 *   1 record RESERVED           a record without marks: dropped.  The journals' files are made.
 *   2 sources MOVING            no host opens them; source authoritative: marked LIVE again.
 *   3 targets made, INCOMING    an incomplete copy nobody opens: deleted by identity, as 2.
 *     ... copy, mirror, verify: the journals keep what may differ; a crash is resumed.
 *   4 record COMMITTED          THE COMMIT POINT (R-J3, R-J4).  Until it is durable the source
 *                               is authoritative, from then on the target, whatever the marks
 *                               say.  Guest I/O is held over it.  Crash: 5, 6, 7 are redone.
 *   5 targets LIVE(g+1)         Before 6, so that a copy that any host may open exists as
 *                               early as possible; two never do: the sources are MOVING still.
 *   6 sources RETIRED(g)        even a host that never sees the record knows what they are.
 *   7 the owner's inventory     (switched()): redone from the record until it has succeeded.
 *   8 record may-delete         only when everything is verified and nobody wants the source;
 *                               a crash before it keeps the source, retired, for an operator.
 *   9 sources deleted           by uuid and generation and role (R-J5).
 *  10 record removed            the last: nothing refers to the move any more.  Its journals are
 *                               orphans then, and removed now or at the next start.
 *
 * On failure or cancel before 4 (or with a durable ABORTED in its place):
 *
 *   a sources LIVE              first, for it does not depend on a target that may be dead.
 *   b targets deleted           once their late requests have settled (R2), by identity.
 *   c record removed
 *
 * Before a, the record says ABORTED, durably, where a mover has run: its journals would be resumed
 * otherwise, and guests write past them from then on.
 *
 * A crash between 3 and 4 is resumed from the journals (relocate_resume.c, move_journal.h); where
 * that cannot be, it is rolled back as told.
 *
 * What a, b, 5, 6 or 7 cannot do is said in the task and keeps the record, so that the next
 * start tries again.
 */
#include "vmotion/relocate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/relocate_private.h"

/* ---- telling the owner ---- */

static void relocation_destroy(struct relocation *relocation)
{
	move_record_free(relocation->record);
	move_plan_release(&relocation->plan);
	free(relocation);
}

static void changed_run(struct task *task)
{
	struct relocation *relocation = container_of(task, struct relocation, changed_task);

	if (!relocation->orphaned)
		relocation->changed(relocation, relocation->user);      /* may free it */
	else if (relocation->stage == STAGE_ENDED)
		relocation_destroy(relocation);
}

void relocation_changed(struct relocation *relocation)
{
	if (!relocation->changed_task.queued)
		loop_post(relocation->plan.service->main_loop, &relocation->changed_task);
}

void relocation_event(struct relocation *relocation, enum relocate_event event)
{
	enum relocate_stage stage = relocate_next_stage(relocation->stage, event);

	if (stage == relocation->stage)
		return;
	log_info("relocate", "%s: %s -> %s", relocation->plan.journal_id,
		 relocate_stage_name(relocation->stage), relocate_stage_name(stage));
	relocation->stage = stage;
	relocation_changed(relocation);
}

void relocation_set_phase(struct relocation *relocation, enum relocate_phase phase)
{
	if (relocation->phase == phase)
		return;
	relocation->phase = phase;
	relocation_changed(relocation);
}

/* ---- programs of steps ---- */

static void step_begin(struct relocation *relocation)
{
	const struct relocate_step *step = &relocation->program[relocation->step];

	if (step->begin) {
		log_debug("relocate", "%s: %s", relocation->plan.journal_id, step->name);
		step->begin(relocation);
	}
}

void relocation_run(struct relocation *relocation, const struct relocate_step *program)
{
	relocation->program = program;
	relocation->step = 0;
	step_begin(relocation);
}

void step_done(struct relocation *relocation)
{
	/* One that goes on has something to undo only when it has its mover: started() looks again. */
	if (relocation->stage == STAGE_PREPARING && relocation->cancel_wanted &&
	    !relocation->resuming) {
		relocation->outcome = RELOCATE_CANCELLED;
		relocation_event(relocation, EVENT_GIVE_UP);
		relocation_run(relocation, relocate_undo_program);
		return;
	}
	relocation->step++;
	step_begin(relocation);
}

void relocation_left_over(struct relocation *relocation, const struct err *err)
{
	relocation->keep_record = true;
	log_warn("relocate", "%s: left over: %s", relocation->plan.journal_id, err->cause);
	if (relocation->leftover.id == ERR_NONE)
		err_set(&relocation->leftover, ERR_MOVE_LEFTOVER, 0, "%s", err->cause);
	relocation_changed(relocation);
}

void relocation_fail(struct relocation *relocation, const struct err *err)
{
	relocation->outcome = RELOCATE_FAILED;
	relocation->error = *err;
	relocation_event(relocation, EVENT_GIVE_UP);
	relocation_run(relocation, relocate_undo_program);
}

void step_failed(struct relocation *relocation, const struct err *err)
{
	if (relocation->stage == STAGE_PREPARING && relocation->resuming) {
		relocate_resume_failed(relocation, err);
		return;
	}
	if (relocation->stage == STAGE_PREPARING) {
		relocation_fail(relocation, err);
		return;
	}
	relocation_left_over(relocation, err);
	step_done(relocation);
}

void relocation_job(struct relocation *relocation, void (*run)(struct job *job),
		    void (*done)(struct job *job))
{
	relocation->job = (struct job){ .run = run, .done = done };
	worker_submit(relocation->plan.service->record_worker, &relocation->job);
}

/* ---- one blocking call per disk ---- */

static void walk_next(struct relocation *relocation);

static void walk_run(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, walk.job);
	struct disk_walk *walk = &relocation->walk;
	struct err err = { .id = ERR_NONE };
	int rc = walk->visit(relocation, &relocation->plan.disks[walk->index], &err);

	if (rc && !walk->rc) {
		walk->rc = rc;
		walk->err = err;
	}
}

static void walk_visited(struct job *job)
{
	struct relocation *relocation = container_of(job, struct relocation, walk.job);

	relocation->walk.index++;
	walk_next(relocation);
}

/* Of a move that was resumed: its target's store has not come back. */
static void walk_without(struct relocation *relocation, const char *name)
{
	struct disk_walk *walk = &relocation->walk;

	if (!walk->rc)
		walk->rc = err_set(&walk->err, ERR_DS_UNREACHABLE, -ENXIO,
				   "the datastore '%s' is not there now", name);
	walk->index++;
	walk_next(relocation);
}

static void walk_next(struct relocation *relocation)
{
	struct disk_walk *walk = &relocation->walk;
	struct move_disk *disk;
	struct datastore *ds;

	while (walk->open_only && walk->index < relocation->plan.disk_count &&
	       !relocation->plan.disks[walk->index].target_opened)
		walk->index++;
	disk = &relocation->plan.disks[walk->index];
	if (walk->index == relocation->plan.disk_count || (walk->rc && !walk->go_on)) {
		if (walk->rc)
			step_failed(relocation, &walk->err);
		else
			step_done(relocation);
		return;
	}
	ds = walk->on_target ? disk->target_datastore : disk->source_datastore;
	if (!ds) {
		walk_without(relocation, walk->on_target ? disk->target_name : disk->source_name);
		return;
	}
	walk->job = (struct job){ .run = walk_run, .done = walk_visited };
	worker_submit(datastore_worker(ds), &walk->job);
}

void walk_open_targets(struct relocation *relocation, disk_visit *visit)
{
	relocation->walk = (struct disk_walk){ .on_target = true, .go_on = true, .open_only = true,
					       .visit = visit };
	walk_next(relocation);
}

void walk_disks(struct relocation *relocation, bool on_target, bool go_on, disk_visit *visit)
{
	relocation->walk = (struct disk_walk){ .on_target = on_target, .go_on = go_on,
					       .visit = visit };
	walk_next(relocation);
}

/* ---- 5 Hz ---- */

static void ticker_fired(struct timer *timer)
{
	struct relocation *relocation = container_of(timer, struct relocation, ticker);

	if (relocation->mover_alive) {
		mover_stats(relocation->io.mover, &relocation->stats);
		relocate_lower_promises(relocation);
	}
	relocation_changed(relocation);
	timer_start(timer, RELOCATE_TICK_NS);
}

/* The mover waits for requests that a dead store holds: the operator need not (R2). */
static void patience_fired(struct timer *timer)
{
	struct relocation *relocation = container_of(timer, struct relocation, patience);

	err_set(&relocation->leftover, ERR_MOVE_LEFTOVER, -ETIMEDOUT,
		"requests to a store have not settled; what is left is cleaned up when they do");
	relocation_event(relocation, EVENT_LINGER);
	timer_stop(&relocation->ticker);
}

/* ---- life ---- */

void relocation_ended(struct relocation *relocation)
{
	static const struct err unknown = { .id = ERR_INTERNAL, .cause = "no reason was given" };

	if (relocation->outcome == RELOCATE_FAILED && relocation->error.id == ERR_NONE)
		relocation->error = unknown;
	timer_stop(&relocation->ticker);
	timer_stop(&relocation->patience);
	list_remove(&relocation->node);
	relocation_event(relocation, EVENT_END);
	log_info("relocate", "%s: %s%s%s", relocation->plan.journal_id,
		 relocate_state_name(relocation->outcome),
		 relocation->error.id ? ": " : "", relocation->error.cause);
	relocation_changed(relocation);
}

static int begin_moves(struct relocation *relocation, struct err *err)
{
	struct move_plan *plan = &relocation->plan;

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		int rc = 0;

		/* A disk that is named twice is the check's to refuse. */
		for (uint32_t j = 0; j < i && plan->disks[i].disk; j++)
			if (plan->disks[j].disk == plan->disks[i].disk)
				plan->disks[i].disk = NULL;
		if (plan->disks[i].disk)
			rc = disk_move_begin(plan->disks[i].disk, err);
		if (!rc)
			continue;
		while (i--)
			if (plan->disks[i].disk)
				disk_move_end(plan->disks[i].disk, NULL, NULL, NULL, NULL);
		return rc;
	}
	return 0;
}

struct relocation *relocation_new(struct disk_service *service,
				  void (*changed)(struct relocation *relocation, void *user),
				  void *user)
{
	struct relocation *relocation = calloc(1, sizeof(*relocation));

	if (!relocation)
		return NULL;
	relocation->changed = changed;
	relocation->user = user;
	relocation->changed_task.run = changed_run;
	relocation->stage = STAGE_PREPARING;
	list_init(&relocation->node);
	timer_init(&relocation->ticker, service->main_loop, ticker_fired);
	timer_init(&relocation->patience, service->main_loop, patience_fired);
	relocate_io_init(relocation);
	return relocation;
}

void relocation_begin(struct relocation *relocation, const struct relocate_step *program)
{
	list_append(&relocation->plan.service->relocations, &relocation->node);
	relocation_run(relocation, program);
}

int relocate_start(struct disk_service *service, const struct relocate_spec *spec,
		   void (*changed)(struct relocation *relocation, void *user), void *user,
		   struct relocation **out, struct err *err)
{
	struct relocation *relocation;
	char journal_id[MOVE_ID_BYTES];
	int rc;

	LOOP_CHECK(service->main_loop);
	rc = move_record_make_id(spec->task_id, spec->host_uuid, journal_id, err);
	if (rc)
		return rc;
	relocation = relocation_new(service, changed, user);
	if (!relocation || move_plan_init(&relocation->plan, service, spec, &relocation->report)) {
		free(relocation);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot begin the relocation");
	}
	rc = begin_moves(relocation, err);
	if (rc) {
		relocation_destroy(relocation);
		return rc;
	}
	relocation->switched = spec->switched;
	relocation->phase = RELOCATE_CHECK;
	relocate_note_guests_before(relocation);
	*out = relocation;
	relocation_begin(relocation, relocate_prepare_program);
	return 0;
}

void relocation_free(struct relocation *relocation)
{
	if (!relocation)
		return;
	CHECK(relocation->stage == STAGE_LINGERING || relocation->stage == STAGE_ENDED);
	CHECK(!relocation->orphaned);
	relocation->orphaned = true;
	if (relocation->stage == STAGE_ENDED && !relocation->changed_task.queued)
		relocation_destroy(relocation);
}

const struct check_report *relocation_refused(const struct relocation *relocation)
{
	return relocation->refused ? &relocation->report : NULL;
}

const char *relocation_journal_id(const struct relocation *relocation)
{
	return relocation->plan.journal_id;
}

bool relocate_uses(const struct disk_service *service, const struct datastore *ds)
{
	list_for_each(node, &service->relocations) {
		const struct relocation *relocation = list_entry(node, struct relocation, node);

		for (uint32_t i = 0; i < relocation->plan.disk_count; i++)
			if (relocation->plan.disks[i].source_datastore == ds ||
			    relocation->plan.disks[i].target_datastore == ds)
				return true;
	}
	return false;
}

bool relocate_only_lingers(const struct disk_service *service)
{
	list_for_each(node, &service->relocations)
		if (list_entry(node, struct relocation, node)->stage != STAGE_LINGERING)
			return false;
	return true;
}

uint32_t relocate_count(const struct disk_service *service)
{
	uint32_t count = 0;

	list_for_each(node, &service->relocations)
		count++;
	return count;
}

/* ---- the operator's verbs ---- */

static int verb_judge(const struct relocation *relocation, enum relocate_verb verb, struct err *err)
{
	enum err_id id = relocate_verb_refusal(relocation->stage, verb);

	LOOP_CHECK(relocation->plan.service->main_loop);
	if (id == ERR_NONE)
		return 0;
	return err_set(err, id, -EBUSY, "the relocation is %s",
		       relocate_stage_name(relocation->stage));
}

static void apply_pause(struct mover *mover, const struct mover_options *options)
{
	(void)options;
	if (mover_pause(mover, NULL))
		log_info("relocate", "too late to pause: the switch-over has begun");
}

int relocation_pause(struct relocation *relocation, struct err *err)
{
	int rc = verb_judge(relocation, VERB_PAUSE, err);

	if (rc)
		return rc;
	/* While its targets are fetched the mover is paused already: it stays so. */
	if (relocation->fetch.under_way && relocation->fetch.then_resume) {
		relocation->fetch.then_resume = false;
		relocation_event(relocation, EVENT_PAUSE);
		return 0;
	}
	relocation->fetch.resuming = false;
	return relocate_io_verb(relocation, apply_pause, err);
}

static void apply_resume(struct mover *mover, const struct mover_options *options)
{
	(void)options;
	if (mover_resume(mover, NULL))
		log_info("relocate", "nothing to resume: the mover is %s",
			 mover_state_name(mover_state(mover)));
}

int relocation_io_resume(struct relocation *relocation, struct err *err)
{
	return relocate_io_verb(relocation, apply_resume, err);
}

int relocation_resume(struct relocation *relocation, struct err *err)
{
	int rc = verb_judge(relocation, VERB_RESUME, err);

	if (rc)
		return rc;
	if (!relocation->resumed || relocation->fetch.done) {
		/* R2: it may not be used again, and so not resumed; the mover would say the same. */
		if (relocation->stats.error.id == ERR_MOVE_SUSPECT)
			return err_set(err, ERR_MOVE_SUSPECT, -EBUSY, "cannot resume: %s",
				       relocation->stats.error.cause);
		return relocation_io_resume(relocation, err);
	}
	if (relocation->fetch.under_way)
		relocation->fetch.then_resume = true;
	else
		relocate_fetch_targets(relocation, true);
	relocation_event(relocation, EVENT_RUN);
	return 0;
}

static void apply_cancel(struct mover *mover, const struct mover_options *options)
{
	(void)options;
	if (mover_cancel(mover, NULL))
		log_info("relocate", "too late to cancel: the mover is %s",
			 mover_state_name(mover_state(mover)));
}

int relocation_cancel(struct relocation *relocation, struct err *err)
{
	int rc = verb_judge(relocation, VERB_CANCEL, err);

	if (rc)
		return rc;
	if (relocation->stage == STAGE_PREPARING) {
		relocation->cancel_wanted = true;       /* after the present step */
		return 0;
	}
	return relocate_io_verb(relocation, apply_cancel, err);
}

static void apply_complete(struct mover *mover, const struct mover_options *options)
{
	(void)options;
	if (mover_complete(mover, NULL))
		log_info("relocate", "nothing to complete: the mover is %s",
			 mover_state_name(mover_state(mover)));
}

int relocation_complete(struct relocation *relocation, struct err *err)
{
	int rc = verb_judge(relocation, VERB_COMPLETE, err);

	/* HELD without having been asked: a switch-over that could not be made in time. */
	if (!rc && !relocation->plan.options.hold && relocation->stage != STAGE_HELD)
		rc = err_set(err, ERR_TASK_STATE, -EINVAL,
			     "the relocation was not told to hold: it completes by itself");
	return rc ? rc : relocate_io_verb(relocation, apply_complete, err);
}

static void apply_bandwidth(struct mover *mover, const struct mover_options *options)
{
	mover_set_bandwidth(mover, options->bandwidth_bytes_per_s);
}

int relocation_set_bandwidth(struct relocation *relocation, uint64_t bytes_per_s, struct err *err)
{
	int rc = verb_judge(relocation, VERB_SET, err);

	if (!rc && bytes_per_s == 0)
		rc = err_set(err, ERR_BAD_FIELD, -EINVAL, "a bandwidth of 0 would never finish");
	if (rc)
		return rc;
	relocation->plan.options.bandwidth_bytes_per_s = bytes_per_s;
	return relocate_io_verb(relocation, apply_bandwidth, err);
}

static void apply_mode(struct mover *mover, const struct mover_options *options)
{
	mover_set_mode(mover, options->mode);
}

int relocation_set_mode(struct relocation *relocation, enum mirror_mode mode, struct err *err)
{
	int rc = verb_judge(relocation, VERB_SET, err);

	if (rc)
		return rc;
	relocation->plan.options.mode = mode;
	return relocate_io_verb(relocation, apply_mode, err);
}

static void apply_max_stun(struct mover *mover, const struct mover_options *options)
{
	mover_set_max_stun(mover, options->max_stun_ns);
}

int relocation_set_max_stun(struct relocation *relocation, uint64_t max_stun_ns, struct err *err)
{
	int rc = verb_judge(relocation, VERB_SET, err);

	if (rc)
		return rc;
	relocation->plan.options.max_stun_ns = max_stun_ns;
	return relocate_io_verb(relocation, apply_max_stun, err);
}

static void apply_latency_budget(struct mover *mover, const struct mover_options *options)
{
	mover_set_latency_budget(mover, options->latency_budget_ns);
}

int relocation_set_latency_budget(struct relocation *relocation, uint64_t latency_budget_ns,
				  struct err *err)
{
	int rc = verb_judge(relocation, VERB_SET, err);

	if (rc)
		return rc;
	relocation->plan.options.latency_budget_ns = latency_budget_ns;
	return relocate_io_verb(relocation, apply_latency_budget, err);
}

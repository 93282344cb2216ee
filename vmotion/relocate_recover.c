/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_recover.c - one move after the other, one disk after the other, in passes:
 *
 *   LOOK_SOURCE, LOOK_TARGET    what is there (each on its datastore's worker)
 *   judged, planned             main loop; recover_judge.c
 *   VOID                        the journals of a move that is not gone on with: ABORTED first
 *   KEPT                        the authoritative copies are marked LIVE
 *   RETIRE                      the others, where they are sources, RETIRED
 *   inventory                   the owner notes where the disks are
 *   SETTLED                     the owner may serve them: the rest waits until every move is here
 *   DELETE                      targets of no use, or retired sources that may go
 *   RECORD                      the record is removed, if nothing has failed
 *
 * KEPT comes before RETIRE for the same reason as in relocate.c: a copy that may be opened
 * exists as early as possible, two never do.  What is deleted is nobody's concern and may take
 * seconds, in the way of whoever opens a disk on the same datastore: guests come first.
 */
#include "vmotion/relocate_recover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/relocate_private.h"
#include "vmotion/relocate_recover_private.h"

enum recover_pass {
	PASS_LOOK_SOURCE, PASS_LOOK_TARGET, PASS_VOID, PASS_KEPT, PASS_RETIRE, PASS_SETTLED,
	PASS_DELETE, PASS_RECORD,
};

struct recover_move {
	struct list node;
	char id[MOVE_ID_BYTES];
	struct move_record *record;     /* NULL: its disks are not known */
	const struct move_record_info *info;
	enum recover_side authoritative;
	struct err why;
	struct recover_looks *looks;
	struct recover_plan *plans;
	bool has_journals;              /* and may be resumable */
	bool settled;                   /* only what is left over has to go */
};

struct recovery {
	struct disk_service *service;
	char state_dir[DS_PATH_BYTES];
	struct recovery_options options;
	struct list moves;              /* of the last run */
	uint32_t count;

	/* What is under way. */
	bool busy;
	struct list todo;
	struct list settled;            /* until todo is empty */
	struct recover_move *move;
	enum recover_pass pass;
	uint32_t index;
	bool forced;
	enum recover_side keep;         /* the operator's; RECOVER_UNKNOWN: whatever is proved */
	struct job job;
	struct task task;
	struct err err;
	void (*ran)(struct recovery *recovery, const struct err *err, void *user);
	void (*kept)(const struct err *err, void *user);
	void *user;
	char (*ids)[MOVE_ID_BYTES];
};

static const char *const side_names[] = { "unknown", "source", "target" };

const char *recover_side_name(enum recover_side side)
{
	CHECK(side < ARRAY_COUNT(side_names));
	return side_names[side];
}

static void move_next(struct recovery *recovery);
static void pass_next(struct recovery *recovery);

/* ---- moves ---- */

static void move_free(struct recover_move *move)
{
	if (!move)
		return;
	move_record_free(move->record);
	free(move->looks);
	free(move->plans);
	free(move);
}

static void moves_free(struct list *moves)
{
	struct list *node;

	while ((node = list_pop(moves)))
		move_free(list_entry(node, struct recover_move, node));
}

/* On the record worker. */
static struct recover_move *move_load(const char *state_dir, const char *id)
{
	struct recover_move *move = calloc(1, sizeof(*move));

	if (!move)
		return NULL;
	list_init(&move->node);
	snprintf(move->id, sizeof(move->id), "%s", id);
	/* A damaged sector gives the record all the same, with an error. */
	if (move_record_load(state_dir, id, &move->record, &move->why) && !move->record)
		return move;
	move->info = move_record_info(move->record);
	move->has_journals = move->info->state == MOVE_RESERVED &&
			     move_journals_exist(state_dir, id, move->info->disk_count);
	move->looks = calloc(move->info->disk_count, sizeof(*move->looks));
	move->plans = calloc(move->info->disk_count, sizeof(*move->plans));
	if (!move->looks || !move->plans) {
		move_free(move);
		return NULL;
	}
	return move;
}

/* ---- the end of a run or a keep ---- */

static void recovery_end(struct recovery *recovery)
{
	struct err err = recovery->err;
	const struct err *result = err.id ? &err : NULL;

	recovery->busy = false;
	if (recovery->ran)
		recovery->ran(recovery, result, recovery->user);
	else
		recovery->kept(result, recovery->user);
}

/* The move is finished (why is clear), or stays listed. */
static void move_ended(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;

	recovery->move = NULL;
	if (move->why.id == ERR_NONE) {
		log_info("recover", "%s: done, the %s is authoritative", move->id,
			 recover_side_name(move->authoritative));
		if (recovery->options.ended)
			recovery->options.ended(move->info, move->authoritative,
						recovery->options.user);
		move_free(move);
	} else {
		log_warn("recover", "%s: waits, authoritative: %s: %s", move->id,
			 recover_side_name(move->authoritative), move->why.cause);
		list_append(&recovery->moves, &move->node);
		recovery->count++;
		if (recovery->kept)
			recovery->err = move->why;
	}
	move_next(recovery);
}

static void move_blame(struct recover_move *move, const struct err *err)
{
	if (move->why.id == ERR_NONE)
		move->why = *err;
}

/* ---- passes ---- */

static bool pass_is_on_source(const struct recovery *recovery)
{
	switch (recovery->pass) {
	case PASS_LOOK_SOURCE:
	case PASS_RETIRE:
		return true;
	case PASS_KEPT:
		return recovery->move->authoritative == RECOVER_SOURCE;
	case PASS_DELETE:
		return recovery->move->authoritative == RECOVER_TARGET;
	default:
		return false;
	}
}

static struct datastore *pass_datastore(const struct recovery *recovery)
{
	const struct move_record_disk *disk = &recovery->move->info->disks[recovery->index];

	return recovery->options.find_datastore(pass_is_on_source(recovery)
							? disk->source_datastore
							: disk->target_datastore,
						recovery->options.user);
}

static unsigned pass_actions(const struct recovery *recovery)
{
	unsigned actions = recovery->move->plans[recovery->index].actions;

	switch (recovery->pass) {
	case PASS_KEPT:
		return actions & (ACTION_SOURCE_LIVE | ACTION_TARGET_LIVE);
	case PASS_RETIRE:
		return actions & ACTION_SOURCE_RETIRE;
	case PASS_DELETE:
		return actions & (ACTION_TARGET_DELETE | ACTION_SOURCE_DELETE);
	default:
		return 0;
	}
}

struct pass_job {                       /* one call on a datastore's worker */
	struct job job;
	struct recovery *recovery;
	struct datastore *datastore;
	struct disk *attached;          /* we have it attached ourselves: its lock is ours */
	int rc;
	struct err err;
};

static int mark(const struct pass_job *pass, const char *path,
		const struct disk_identity *identity, struct err *err)
{
	int rc;

	if (!pass->attached)
		return move_mark_path(pass->datastore, path, pass->recovery->move->id, identity,
				      err);
	rc = ds_disk_mark(disk_opened(pass->attached), identity, err);
	return rc == -ENOTSUP ? 0 : rc;
}

/* Of a copy that was found; or of what is left of one, which may be another move's: let it be. */
static int deleted(const struct recover_look *look, int rc, struct err *err)
{
	if (rc != -ESTALE || look->rc == 0)
		return rc;
	err_clear(err);
	return 0;
}

static int act(const struct pass_job *pass, struct err *err)
{
	const struct recovery *recovery = pass->recovery;
	struct datastore *ds = pass->datastore;
	const struct recover_move *move = recovery->move;
	const struct move_record_disk *disk = &move->info->disks[recovery->index];
	const struct recover_looks *looks = &move->looks[recovery->index];
	struct disk_identity identity = { .generation = disk->source_generation };

	memcpy(identity.uuid, disk->uuid, sizeof(identity.uuid));
	switch (pass_actions(recovery)) {
	case ACTION_SOURCE_LIVE:
		identity.generation = move->plans[recovery->index].source_generation;
		identity.role = DISK_LIVE;
		return mark(pass, disk->source_path, &identity, err);
	case ACTION_SOURCE_RETIRE:
		identity.role = DISK_RETIRED;
		return mark(pass, disk->source_path, &identity, err);
	case ACTION_SOURCE_DELETE:
		return deleted(&looks->source,
			       move_delete_retired(ds, disk->source_path, &identity, err), err);
	case ACTION_TARGET_LIVE:
		identity.generation = disk->target_generation;
		identity.role = DISK_LIVE;
		return mark(pass, disk->target_path, &identity, err);
	case ACTION_TARGET_DELETE:
		identity.generation = disk->target_generation;
		return deleted(&looks->target,
			       move_delete_incoming(ds, disk->target_path, move->id, &identity, err),
			       err);
	default:
		return 0;
	}
}

static void pass_run(struct job *job)
{
	struct pass_job *pass = container_of(job, struct pass_job, job);
	const struct recovery *recovery = pass->recovery;
	const struct move_record_disk *disk = &recovery->move->info->disks[recovery->index];
	struct recover_looks *looks = &recovery->move->looks[recovery->index];

	if (recovery->pass == PASS_LOOK_SOURCE)
		looks->source.rc = ds_disk_stat(pass->datastore, disk->source_path,
						&looks->source.info, &looks->source.err);
	else if (recovery->pass == PASS_LOOK_TARGET)
		looks->target.rc = ds_disk_stat(pass->datastore, disk->target_path,
						&looks->target.info, &looks->target.err);
	else
		pass->rc = act(pass, &pass->err);
}

static void pass_done(struct job *job)
{
	struct pass_job *pass = container_of(job, struct pass_job, job);
	struct recovery *recovery = pass->recovery;

	if (pass->rc)
		move_blame(recovery->move, &pass->err);
	if (pass->attached)
		disk_move_end(pass->attached, NULL, NULL, NULL, NULL);
	free(pass);
	recovery->index++;
	pass_next(recovery);
}

static void pass_without_datastore(struct recovery *recovery)
{
	const struct move_record_disk *disk = &recovery->move->info->disks[recovery->index];
	struct recover_looks *looks = &recovery->move->looks[recovery->index];
	bool on_source = pass_is_on_source(recovery);
	struct recover_look look = { .rc = -ENXIO };

	err_set(&look.err, ERR_DS_UNKNOWN, -ENXIO, "there is no datastore '%s' now",
		on_source ? disk->source_datastore : disk->target_datastore);
	if (recovery->pass == PASS_LOOK_SOURCE)
		looks->source = look;
	else if (recovery->pass == PASS_LOOK_TARGET)
		looks->target = look;
	else
		move_blame(recovery->move, &look.err);
	recovery->index++;
}

/* ---- between the passes ---- */

static void record_removed(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);

	move_ended(recovery);
}

static void record_remove_run(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);
	struct err err;

	if (move_record_remove(recovery->move->record, &err) ||
	    move_journals_remove(recovery->state_dir, recovery->move->id,
				 recovery->move->info->disk_count, &err))
		move_blame(recovery->move, &err);
}

/* ---- moves that may be gone on with ---- */

/* What relocate_resume.c will want to find; it looks again when it has opened them. */
static bool sources_are_moving(const struct recover_move *move)
{
	for (uint32_t i = 0; i < move->info->disk_count; i++) {
		const struct recover_look *look = &move->looks[i].source;
		const struct disk_identity *identity = &look->info.identity;
		const struct move_record_disk *disk = &move->info->disks[i];

		if (look->rc || look->info.has_identity != disk->source_has_identity)
			return false;
		if (disk->source_has_identity &&
		    (memcmp(identity->uuid, disk->uuid, sizeof(disk->uuid)) != 0 ||
		     identity->generation != disk->source_generation ||
		     identity->role != DISK_MOVING || strcmp(identity->journal_id, move->id) != 0))
			return false;
	}
	return true;
}

/* True: it is somebody's from now on. */
static bool move_is_resumed(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;

	if (!move->has_journals || recovery->keep != RECOVER_UNKNOWN ||
	    !recovery->options.resume || !sources_are_moving(move) ||
	    !recovery->options.resume(move->info, recovery->options.user))
		return false;
	log_info("recover", "%s: gone on with", move->id);
	recovery->move = NULL;
	move_free(move);
	move_next(recovery);
	return true;
}

static void void_run(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);
	struct err err;

	if (move_record_write(recovery->move->record, MOVE_ABORTED, 0, &err))
		move_blame(recovery->move, &err);
}

static void voided(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);

	recovery->move->has_journals = false;
	if (recovery->move->why.id != ERR_NONE)
		move_ended(recovery);
	else
		pass_next(recovery);
}

static void move_plan_all(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;

	for (uint32_t i = 0; i < move->info->disk_count; i++) {
		struct err err;

		if (!recover_plan_disk(move->info, i, &move->looks[i], move->authoritative,
				       recovery->forced, &move->plans[i], &err))
			continue;
		move_blame(move, &err);
		if (recovery->forced)   /* nothing is done by halves on an operator's word */
			memset(move->plans, 0, move->info->disk_count * sizeof(*move->plans));
	}
}

/* False: the move ends here. */
static bool move_decide(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;
	struct err why = { .id = ERR_NONE };

	move->authoritative = recover_judge(move->info, move->looks, &why);
	recovery->forced = false;
	if (recovery->keep != RECOVER_UNKNOWN && move->authoritative == RECOVER_UNKNOWN) {
		recovery->forced = true;
		move->authoritative = recovery->keep;
	} else if (recovery->keep != RECOVER_UNKNOWN && move->authoritative != recovery->keep) {
		err_set(&why, ERR_RECOVER_PROVED, -EINVAL, "the %s is proved to be authoritative",
			recover_side_name(move->authoritative));
	}
	move->why = why;
	if (recovery->forced)
		err_clear(&move->why);
	if (move->why.id != ERR_NONE)
		return false;
	move_plan_all(recovery);
	/* What was looked at in vain is not touched; the rest of a proved move is. */
	return !recovery->forced || move->why.id == ERR_NONE;
}

static void move_note_inventory(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;
	struct err err;
	int rc;

	if (move->authoritative != RECOVER_TARGET || !recovery->options.switched)
		return;
	rc = recovery->options.switched(move->info, recovery->options.user);
	if (!rc)
		return;
	err_set(&err, ERR_MOVE_LEFTOVER, rc, "where the disks are now could not be noted: %s",
		err_strerror(rc));
	move_blame(move, &err);
}

/* Its disks may be served.  What is left over has to go, but after the other moves' disks, too. */
static void move_is_settled(struct recovery *recovery)
{
	struct recover_move *move = recovery->move;

	move->settled = true;
	if (move->why.id == ERR_NONE && recovery->options.settled)
		recovery->options.settled(move->info, move->authoritative, recovery->options.user);
	list_append(&recovery->settled, &move->node);
	move_next(recovery);
}

/* The pass is over for all disks: what comes next?  False: the move ends. */
static bool pass_advance(struct recovery *recovery)
{
	recovery->index = 0;
	switch (recovery->pass++) {
	case PASS_LOOK_TARGET:
		return move_decide(recovery);
	case PASS_RETIRE:
		move_note_inventory(recovery);
		/* No source is deleted then; a target that was never authoritative may go. */
		return recovery->move->authoritative == RECOVER_SOURCE ||
		       recovery->move->why.id == ERR_NONE;
	case PASS_DELETE:
		return recovery->move->why.id == ERR_NONE;      /* else the record stays */
	default:
		return true;
	}
}

/* A disk that is attached here is marked through its own opening, and cannot go meanwhile. */
static int pass_pin_attached(struct pass_job *pass, struct err *err)
{
	const struct recovery *recovery = pass->recovery;
	const struct move_record_disk *disk = &recovery->move->info->disks[recovery->index];
	int rc;

	pass->attached = disk_find_by_path(recovery->service, pass->datastore,
					   pass_is_on_source(recovery) ? disk->source_path
								       : disk->target_path);
	rc = pass->attached ? disk_move_begin(pass->attached, err) : 0;
	if (rc)
		pass->attached = NULL;
	return rc;
}

static bool pass_blamed(struct recovery *recovery, const struct err *err)
{
	move_blame(recovery->move, err);
	recovery->index++;
	return false;
}

/* False: nothing was begun for this disk; look at the next. */
static bool pass_begin_disk(struct recovery *recovery)
{
	struct err err;
	bool looks = recovery->pass == PASS_LOOK_SOURCE || recovery->pass == PASS_LOOK_TARGET;
	struct datastore *ds;
	struct pass_job *pass;

	if (!looks && !pass_actions(recovery)) {
		recovery->index++;
		return false;
	}
	ds = pass_datastore(recovery);
	if (!ds) {
		pass_without_datastore(recovery);
		return false;
	}
	pass = calloc(1, sizeof(*pass));
	if (!pass) {
		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "cannot recover the move");
		return pass_blamed(recovery, &err);
	}
	pass->recovery = recovery;
	pass->datastore = ds;
	if (!looks && pass_pin_attached(pass, &err)) {
		free(pass);
		return pass_blamed(recovery, &err);
	}
	pass->job = (struct job){ .run = pass_run, .done = pass_done };
	worker_submit(datastore_worker(ds), &pass->job);
	return true;
}

static void pass_next(struct recovery *recovery)
{
	while (recovery->pass != PASS_RECORD) {
		if (recovery->pass == PASS_VOID) {
			recovery->pass++;
			if (!recovery->move->has_journals)
				continue;
			recovery->job = (struct job){ .run = void_run, .done = voided };
			worker_submit(recovery->service->record_worker, &recovery->job);
			return;
		}
		if (recovery->pass == PASS_SETTLED) {
			move_is_settled(recovery);
			return;
		}
		if (recovery->pass == PASS_LOOK_TARGET && recovery->index == 0 &&
		    move_is_resumed(recovery))
			return;
		if (recovery->index == recovery->move->info->disk_count) {
			if (!pass_advance(recovery)) {
				move_ended(recovery);
				return;
			}
			continue;
		}
		if (pass_begin_disk(recovery))
			return;
	}
	recovery->job = (struct job){ .run = record_remove_run, .done = record_removed };
	worker_submit(recovery->service->record_worker, &recovery->job);
}

static void move_next(struct recovery *recovery)
{
	struct list *node = list_pop(&recovery->todo);

	if (!node)
		node = list_pop(&recovery->settled);
	if (!node) {
		recovery_end(recovery);
		return;
	}
	recovery->move = list_entry(node, struct recover_move, node);
	recovery->pass = recovery->move->settled ? PASS_DELETE : PASS_LOOK_SOURCE;
	recovery->index = 0;
	if (!recovery->move->info)
		move_ended(recovery);   /* its disks are not known */
	else
		pass_next(recovery);
}

/* ---- a run ---- */

static bool is_running(const struct recovery *recovery, const char *id)
{
	list_for_each(node, &recovery->service->relocations) {
		const struct relocation *relocation = list_entry(node, struct relocation, node);

		if (strcmp(relocation->plan.journal_id, id) == 0)
			return true;
	}
	return false;
}

static void load_all_run(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);
	uint32_t count = 0;

	move_record_sweep(recovery->state_dir);
	if (move_journals_remove_orphans(recovery->state_dir, &count, &recovery->err))
		return;
	if (move_record_list(recovery->state_dir, recovery->ids, RECOVER_MOVES_MAX, &count,
			     &recovery->err))
		return;
	if (count > RECOVER_MOVES_MAX)
		err_set(&recovery->err, ERR_TOO_LARGE, -E2BIG,
			"%u records of moves were found, of which %d are looked at", count,
			RECOVER_MOVES_MAX);
	for (uint32_t i = 0; i < MIN(count, RECOVER_MOVES_MAX); i++) {
		struct recover_move *move = move_load(recovery->state_dir, recovery->ids[i]);

		if (move && move->has_journals)
			list_prepend(&recovery->todo, &move->node);
		else if (move)
			list_append(&recovery->todo, &move->node);
		else
			err_set(&recovery->err, ERR_NO_MEMORY, -ENOMEM,
				"cannot recover the move %s", recovery->ids[i]);
	}
}

static void loaded_all(struct job *job)
{
	struct recovery *recovery = container_of(job, struct recovery, job);

	list_for_each(node, &recovery->todo) {
		struct recover_move *move = list_entry(node, struct recover_move, node);

		if (!is_running(recovery, move->id))
			continue;
		list_remove(&move->node);
		move_free(move);
	}
	move_next(recovery);
}

void recovery_run(struct recovery *recovery,
		  void (*ran)(struct recovery *recovery, const struct err *err, void *user),
		  void *user)
{
	LOOP_CHECK(recovery->service->main_loop);
	CHECK(!recovery->busy);
	recovery->busy = true;
	recovery->ran = ran;
	recovery->kept = NULL;
	recovery->user = user;
	recovery->keep = RECOVER_UNKNOWN;
	err_clear(&recovery->err);
	moves_free(&recovery->moves);
	recovery->count = 0;
	recovery->job = (struct job){ .run = load_all_run, .done = loaded_all };
	worker_submit(recovery->service->record_worker, &recovery->job);
}

bool recovery_is_busy(const struct recovery *recovery)
{
	return recovery->busy;
}

uint32_t recovery_count(const struct recovery *recovery)
{
	return recovery->count;
}

void recovery_entry(const struct recovery *recovery, uint32_t index, struct recover_entry *out)
{
	const struct recover_move *move = NULL;
	uint32_t i = 0;

	CHECK(index < recovery->count);
	list_for_each(node, &recovery->moves) {
		if (i++ == index)
			move = list_entry(node, struct recover_move, node);
	}
	*out = (struct recover_entry){ .authoritative = move->authoritative, .why = move->why,
				       .resumable = move->has_journals };
	snprintf(out->id, sizeof(out->id), "%s", move->id);
	if (move->info) {
		out->disk_count = move->info->disk_count;
		out->disks = move->info->disks;
	}
}

/* ---- the operator's word ---- */

static void keep_refused(struct task *task)
{
	recovery_end(container_of(task, struct recovery, task));
}

static struct recover_move *move_take(struct recovery *recovery, const char *id)
{
	list_for_each(node, &recovery->moves) {
		struct recover_move *move = list_entry(node, struct recover_move, node);

		if (strcmp(move->id, id) != 0)
			continue;
		list_remove(&move->node);
		recovery->count--;
		return move;
	}
	return NULL;
}

void recovery_keep(struct recovery *recovery, const char *id, enum recover_side keep,
		   void (*kept)(const struct err *err, void *user), void *user)
{
	struct recover_move *move;

	LOOP_CHECK(recovery->service->main_loop);
	CHECK(!recovery->busy);
	CHECK(keep == RECOVER_SOURCE || keep == RECOVER_TARGET);
	recovery->busy = true;
	recovery->ran = NULL;
	recovery->kept = kept;
	recovery->user = user;
	recovery->keep = keep;
	err_clear(&recovery->err);
	move = move_take(recovery, id);
	if (!move) {
		err_set(&recovery->err, ERR_RECOVER_UNKNOWN, -ENOENT,
			"no move '%.60s' waits for a word", id);
		recovery->task.run = keep_refused;
		loop_post(recovery->service->main_loop, &recovery->task);
		return;
	}
	move->settled = false;          /* looked at anew */
	list_append(&recovery->todo, &move->node);
	move_next(recovery);
}

/* ---- life ---- */

int recovery_new(struct disk_service *service, const struct recovery_options *options,
		 struct recovery **out, struct err *err)
{
	struct recovery *recovery;

	if (strlen(options->state_dir) >= sizeof(recovery->state_dir))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the state directory's name is too long");
	recovery = calloc(1, sizeof(*recovery));
	if (recovery)
		recovery->ids = calloc(RECOVER_MOVES_MAX, sizeof(*recovery->ids));
	if (!recovery || !recovery->ids) {
		free(recovery);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot look for interrupted moves");
	}
	recovery->service = service;
	recovery->options = *options;
	snprintf(recovery->state_dir, sizeof(recovery->state_dir), "%s", options->state_dir);
	recovery->options.state_dir = recovery->state_dir;
	list_init(&recovery->moves);
	list_init(&recovery->todo);
	list_init(&recovery->settled);
	*out = recovery;
	return 0;
}

void recovery_free(struct recovery *recovery)
{
	if (!recovery)
		return;
	CHECK(!recovery->busy);
	moves_free(&recovery->moves);
	free(recovery->ids);
	free(recovery);
}

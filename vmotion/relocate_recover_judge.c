/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "vmotion/relocate_recover_private.h"

static bool is_copy(const struct recover_look *look, const struct move_record_disk *disk,
		    uint64_t generation)
{
	return look->rc == 0 && look->info.has_identity &&
	       memcmp(look->info.identity.uuid, disk->uuid, sizeof(disk->uuid)) == 0 &&
	       look->info.identity.generation == generation;
}

static bool is_ours(const struct recover_look *look, const struct move_record_info *move,
		    enum disk_role role)
{
	return look->info.identity.role == role &&
	       strcmp(look->info.identity.journal_id, move->id) == 0;
}

/*
 * Gone, or there is only what an interrupted create or delete has left: names without data.
 * Whose it is, its deletion finds out.
 */
static bool is_gone(const struct recover_look *look)
{
	return look->err.id == ERR_DISK_UNKNOWN || look->rc == -ENOENT;
}

static void explain(const struct recover_look *look, const char *side, const char *ds,
		    const char *path, struct err *why)
{
	if (look->rc)
		*why = look->err;
	else
		err_set(why, ERR_DISK_MARKED, -ESTALE,
			"'%s:%.120s' is not the copy that the move's record knows as its %s", ds,
			path, side);
}

static bool source_is_proved(const struct move_record_disk *disk, const struct recover_look *look,
			     struct err *why)
{
	/* Live, or moving: by us, or meanwhile by a later move. */
	if (!disk->source_has_identity ||
	    (is_copy(look, disk, disk->source_generation) &&
	     (look->info.identity.role == DISK_LIVE || look->info.identity.role == DISK_MOVING)))
		return true;
	explain(look, "source", disk->source_datastore, disk->source_path, why);
	return false;
}

static bool target_is_proved(const struct move_record_info *move,
			     const struct move_record_disk *disk, const struct recover_look *look,
			     struct err *why)
{
	/* Incoming: by us.  Any other role: it has been taken into use since. */
	if (!disk->target_has_identity ||
	    (is_copy(look, disk, disk->target_generation) &&
	     (look->info.identity.role != DISK_INCOMING || is_ours(look, move, DISK_INCOMING))))
		return true;
	explain(look, "target", disk->target_datastore, disk->target_path, why);
	return false;
}

enum recover_side recover_judge(const struct move_record_info *move,
				const struct recover_looks *looks, struct err *why)
{
	if (move->state != MOVE_RESERVED && move->state != MOVE_COMMITTED &&
	    move->state != MOVE_ABORTED) {
		err_set(why, ERR_JOURNAL_DAMAGED, -EBADMSG,
			"the record does not tell which copy is authoritative");
		return RECOVER_UNKNOWN;
	}
	for (uint32_t i = 0; i < move->disk_count; i++) {
		const struct move_record_disk *disk = &move->disks[i];
		bool proved = move->state == MOVE_COMMITTED
				      ? target_is_proved(move, disk, &looks[i].target, why)
				      : source_is_proved(disk, &looks[i].source, why);

		if (!proved)
			return RECOVER_UNKNOWN;
	}
	return move->state == MOVE_COMMITTED ? RECOVER_TARGET : RECOVER_SOURCE;
}

/* ---- plans ---- */

/* The copy that is not kept is reachable, or gone, or the operator takes it as it is. */
static int judge_other(const struct recover_look *look, bool has_identity, bool forced,
		       struct err *err)
{
	if (look->rc == 0 || !has_identity || is_gone(look) || forced)
		return 0;
	*err = look->err;
	return look->rc;
}

static int plan_source(const struct move_record_info *move, const struct move_record_disk *disk,
		       const struct recover_looks *looks, bool forced, struct recover_plan *out,
		       struct err *err)
{
	const struct recover_look *source = &looks->source, *target = &looks->target;

	out->source_generation = disk->source_generation;
	if (forced && disk->source_has_identity) {
		if (!is_copy(source, disk, disk->source_generation)) {
			explain(source, "source", disk->source_datastore, disk->source_path, err);
			return source->rc ? source->rc : -ESTALE;
		}
		/* Above whatever the target may have been given: the highest generation holds. */
		if (move->state != MOVE_RESERVED)
			out->source_generation = disk->target_generation + 1;
		if (source->info.identity.role != DISK_LIVE ||
		    out->source_generation != disk->source_generation)
			out->actions |= ACTION_SOURCE_LIVE;
	} else if (is_copy(source, disk, disk->source_generation) &&
		   is_ours(source, move, DISK_MOVING)) {
		out->actions |= ACTION_SOURCE_LIVE;
	}
	if ((is_gone(target) && disk->target_has_identity) ||
	    (is_copy(target, disk, disk->target_generation) &&
	     is_ours(target, move, DISK_INCOMING)))
		out->actions |= ACTION_TARGET_DELETE;
	return 0;
}

static int plan_target(const struct move_record_info *move, const struct move_record_disk *disk,
		       const struct recover_looks *looks, bool forced, struct recover_plan *out,
		       struct err *err)
{
	const struct recover_look *source = &looks->source, *target = &looks->target;

	if (forced && disk->target_has_identity &&
	    !is_copy(target, disk, disk->target_generation)) {
		explain(target, "target", disk->target_datastore, disk->target_path, err);
		return target->rc ? target->rc : -ESTALE;
	}
	if (is_copy(target, disk, disk->target_generation) && is_ours(target, move, DISK_INCOMING))
		out->actions |= ACTION_TARGET_LIVE;
	if (is_gone(source) && disk->source_has_identity && !forced &&
	    move->flags & MOVE_DELETE_SOURCE)
		out->actions |= ACTION_SOURCE_DELETE;
	if (!is_copy(source, disk, disk->source_generation))
		return 0;
	if (is_ours(source, move, DISK_MOVING))
		out->actions |= ACTION_SOURCE_RETIRE;
	else if (source->info.identity.role != DISK_RETIRED)
		return 0;
	if (!forced && move->flags & MOVE_DELETE_SOURCE)
		out->actions |= ACTION_SOURCE_DELETE;
	return 0;
}

int recover_plan_disk(const struct move_record_info *move, uint32_t index,
		      const struct recover_looks *looks, enum recover_side keep, bool forced,
		      struct recover_plan *out, struct err *err)
{
	const struct move_record_disk *disk = &move->disks[index];
	int rc;

	CHECK(keep == RECOVER_SOURCE || keep == RECOVER_TARGET);
	*out = (struct recover_plan){ 0 };
	if (keep == RECOVER_SOURCE)
		rc = plan_source(move, disk, looks, forced, out, err);
	else
		rc = plan_target(move, disk, looks, forced, out, err);
	if (rc)
		return rc;
	if (keep == RECOVER_SOURCE)
		return judge_other(&looks->target, disk->target_has_identity, forced, err);
	return judge_other(&looks->source, disk->source_has_identity, forced, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* mover_part.c - one disk of a mover: its mirror, copy engine and verifier, and their hooks. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/mover_private.h"

#define REGION_MIN (64u << 10)
#define REGION_MAX (1u << 20)
#define REGIONS_WANTED (UINT64_C(1) << 20)

/* ---- hooks ---- */

static void part_trouble(int error, void *user)
{
	mover_target_trouble(user, error);
}

static void part_dirtied(void *user)
{
	struct mover_part *part = user;

	copy_engine_kick(part->engine);
}

static void part_settled(void *user)
{
	struct mover_part *part = user;

	copy_engine_kick(part->engine);
	verifier_kick(part->verifier);
	mover_look(part->mover);
}

static bool part_may_mirror(uint64_t bytes, void *user)
{
	struct mover_part *part = user;

	return pacer_may_mirror(&part->mover->pacer, bytes);
}

/* A guest request starts: the hashes of its regions are void, and what it writes is unverified. */
static void part_wrote(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	struct mover_part *part = user;
	uint32_t region_bytes = mirror_region_bytes(part->mirror);
	uint64_t first = offset_bytes / region_bytes;
	uint64_t last = (offset_bytes + len_bytes - 1) / region_bytes;

	if (!part->mover->options.verify)
		return;
	if (mirror_state(part->mirror) == MIRROR_SWITCHED) {
		verifier_drop(part->verifier, offset_bytes, len_bytes);
		return;
	}
	hash_store_forget(part->hashes, first, last - first + 1);
	verifier_add(part->verifier, offset_bytes, len_bytes);
}

static void part_look(void *user)
{
	struct mover_part *part = user;

	mover_look(part->mover);
}

static void part_copy_failed(bool at_source, int error, uint64_t offset_bytes, void *user)
{
	struct mover_part *part = user;

	if (at_source)
		mover_source_trouble(part, error, offset_bytes);
	else
		mover_target_trouble(part, error);
}

static void part_copied(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	struct mover_part *part = user;

	if (part->mover->options.verify)
		verifier_add(part->verifier, offset_bytes, len_bytes);
}

static void part_mismatch(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	mover_mismatch(user, offset_bytes, len_bytes);
}

static const struct mirror_hooks mirror_hooks = {
	.trouble = part_trouble,
	.dirtied = part_dirtied,
	.settled = part_settled,
	.may_mirror = part_may_mirror,
	.wrote = part_wrote,
};

static const struct copy_hooks copy_hooks = {
	.synced = part_look,
	.stopped = part_look,
	.failed = part_copy_failed,
	.copied = part_copied,
};

static const struct verify_hooks verify_hooks = {
	.verified = part_look,
	.stopped = part_look,
	.mismatch = part_mismatch,
	.failed = part_copy_failed,
};

/* ---- life ---- */

/* 64 KiB up to 64 GiB, doubling to 1 MiB at 1 TiB: at most a million regions up to there. */
uint32_t mover_region_bytes(const struct mover_options *options, const struct blk_dev *source,
			    const struct blk_dev *target, uint64_t size_bytes)
{
	uint32_t physical = MAX(source->limits.physical_bytes, target->limits.physical_bytes);
	uint32_t region = options->region_bytes ? options->region_bytes : REGION_MIN;

	while (!options->region_bytes && region < REGION_MAX &&
	       size_bytes / region > REGIONS_WANTED)
		region *= 2;
	return MAX(region, physical);
}

static uint32_t part_region_bytes(const struct mover_options *options,
				  const struct mover_disk *disk, uint64_t size_bytes)
{
	if (disk->journal)
		return journal_identity(disk->journal)->region_bytes;
	return mover_region_bytes(options, disk->source, disk->target, size_bytes);
}

bool mover_part_in_sync(const struct mover_part *part)
{
	return mirror_state(part->mirror) == MIRROR_ACTIVE &&
	       dirty_bitmap_is_clean(mirror_dirty(part->mirror));
}

static void part_old_requests_done(struct gate *gate, void *user)
{
	struct mover_part *part = user;

	(void)gate;
	part->old_requests = false;
	mover_look(part->mover);
}

void mover_part_swap(struct mover_part *part, struct blk_dev *next)
{
	part->old_requests = true;
	gate_set_next(part->gate, next);
	gate_epoch_drain_cancel(part->gate);
	gate_epoch_drain(part->gate, part_old_requests_done, part);
}

void mover_part_release(struct mover_part *part)
{
	verifier_free(part->verifier);
	copy_engine_free(part->engine);
	mirror_free(part->mirror);
	hash_store_free(part->hashes);
}

/* What a journal says is clean was copied before: it is not copied again, but verified. */
static void part_resume(struct mover_part *part)
{
	uint64_t size_bytes = mirror_size_bytes(part->mirror);

	mirror_resume_from(part->mirror, journal_persisted(part->journal));
	part->resumed_bytes = size_bytes - dirty_bitmap_bytes(mirror_dirty(part->mirror));
	if (part->mover->options.verify)
		verifier_add(part->verifier, 0, size_bytes);
}

/* A journal that was loaded may be of other days. */
static int part_judge_journal(const struct mover_disk *disk, const char *name, struct err *err)
{
	const struct journal_identity *identity = journal_identity(disk->journal);
	uint64_t size_bytes = gate_as_dev(disk->gate)->size_bytes;

	if (identity->size_bytes != size_bytes)
		return err_set(err, ERR_JOURNAL_DAMAGED, -EINVAL,
			       "the journal of '%s' is of a disk with %" PRIu64 " bytes, not %" PRIu64,
			       name, identity->size_bytes, size_bytes);
	if (identity->region_bytes < MAX(disk->source->limits.physical_bytes,
					 disk->target->limits.physical_bytes))
		return err_set(err, ERR_MOVE_PHYSICAL, -EINVAL,
			       "the regions of '%s' have %u bytes, less than a physical block",
			       name, identity->region_bytes);
	return 0;
}

/* What a check before may have missed, or what has changed since. */
static int part_judge(const struct mover_disk *disk, struct err *err)
{
	const struct blk_dev *gate = gate_as_dev(disk->gate);
	uint32_t block_bytes = MIN(gate->limits.block_bytes, disk->source->limits.block_bytes);
	const char *name = disk->name ? disk->name : "disk";

	if (disk->target->size_bytes < gate->size_bytes)
		return err_set(err, ERR_MOVE_TARGET_SMALL, -EINVAL,
			       "the target of '%s' has %" PRIu64 " bytes of %" PRIu64, name,
			       disk->target->size_bytes, gate->size_bytes);
	if (disk->target->limits.block_bytes > block_bytes)
		return err_set(err, ERR_MOVE_SECTOR, -EINVAL,
			       "the target of '%s' has sectors of %u bytes, the disk of %u", name,
			       disk->target->limits.block_bytes, block_bytes);
	return disk->journal ? part_judge_journal(disk, name, err) : 0;
}

int mover_part_init(struct mover_part *part, struct mover *mover, const struct mover_disk *disk,
		    struct err *err)
{
	const struct mover_options *options = &mover->options;
	uint64_t size_bytes = gate_as_dev(disk->gate)->size_bytes;
	uint32_t region_bytes = part_region_bytes(options, disk, size_bytes);
	struct mirror_options mirror_options = {
		.mode = options->mode, .region_bytes = region_bytes,
		.leg_deadline_ns = options->leg_deadline_ns,
		.async_buffer_bytes = options->async_buffer_bytes,
	};

	int rc = part_judge(disk, err);

	if (rc)
		return rc;
	*part = (struct mover_part){ .mover = mover, .gate = disk->gate };
	snprintf(part->name, sizeof(part->name), "%s", disk->name ? disk->name : "disk");
	if (mirror_new(mover->loop, mover->pool, disk->source, disk->target, size_bytes,
		       &mirror_options, &mirror_hooks, part, &part->mirror))
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for the mirror of '%s'",
			       part->name);
	if (options->verify)            /* else hashing would be most of the copy's CPU, for nothing */
		part->hashes = hash_store_new(div_round_up(size_bytes, region_bytes),
					      MOVER_HASH_BYTES / mover->part_count);
	if (part->hashes || !options->verify)
		part->engine = copy_engine_new(part->mirror, mover->pool, &mover->pacer,
					       part->hashes, &copy_hooks, part);
	if (part->engine)
		part->verifier = verifier_new(part->mirror, mover->pool, &mover->pacer,
					      part->hashes, &verify_hooks, part);
	if (part->verifier && disk->journal) {
		part->journal = disk->journal;
		mirror_set_journal(part->mirror, disk->journal);
	}
	if (part->verifier && disk->resumed)
		part_resume(part);
	if (!part->verifier) {
		mover_part_release(part);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "no memory for the copy of '%s'",
			       part->name);
	}
	return 0;
}

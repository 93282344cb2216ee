/* SPDX-License-Identifier: Apache-2.0 */
/* mover_stats.c - the figures, published ten times a second for other threads. */
#include <inttypes.h>

#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/mover_private.h"

static void part_stats(const struct mover_part *part, struct mover_disk_stats *out)
{
	struct mirror_stats mirror;
	struct copy_stats copy;
	struct verify_stats verify;
	struct journal_stats journal = { 0 };

	mirror_stats(part->mirror, &mirror);
	copy_engine_stats(part->engine, &copy);
	verifier_stats(part->verifier, &verify);
	if (part->journal)
		journal_stats(part->journal, &journal);
	*out = (struct mover_disk_stats){
		.active_bytes = journal.active_bytes,
		.journal_dirty_bytes = journal.dirty_bytes,
		.size_bytes = mirror_size_bytes(part->mirror),
		.copied_bytes = copy.copied_bytes, .zero_bytes = copy.zero_bytes,
		.hole_bytes = copy.hole_bytes, .recopied_bytes = copy.recopied_bytes,
		.mirrored_writes = mirror.mirrored_writes, .mirrored_bytes = mirror.mirrored_bytes,
		.shed_bytes = mirror.shed_bytes, .suspect_bytes = mirror.suspect_bytes,
		.resumed_bytes = part->resumed_bytes,
		.dirty_bytes = dirty_bitmap_bytes(mirror_dirty(part->mirror)),
		.verified_bytes = verify.verified_bytes,
		.verify_read_bytes = verify.read_bytes,
		.unverified_bytes = verifier_waiting_bytes(part->verifier),
		.verify_mismatches = verify.mismatches,
		.target_authoritative = mirror_state(part->mirror) == MIRROR_SWITCHED,
	};
}

/* How much of `size` corresponds to what has been verified of what there was to verify. */
static uint64_t mover_verified_part(const struct mover *mover, uint64_t unverified, uint64_t size)
{
	uint64_t total = mover->verify_total_bytes;

	if (!mover->verify_started)
		return 0;
	if (total == 0)
		return size;
	return (uint64_t)((unsigned __int128)(total - MIN(unverified, total)) * size / total);
}

/*
 * All bytes are to be copied, and then to be verified, if they are.  What the guest makes dirty
 * or unverified again is work, but no step back: it never falls (and stands still meanwhile).
 */
static void mover_progress(struct mover *mover, struct mover_stats *out)
{
	uint64_t dirty = 0, unverified = 0, size = 0, done;

	for (uint32_t i = 0; i < out->disk_count; i++) {
		dirty += out->disks[i].dirty_bytes;
		unverified += out->disks[i].unverified_bytes;
		size += out->disks[i].size_bytes;
	}
	out->total_bytes = mover->options.verify ? 2 * size : size;
	done = size - MIN(dirty, size);
	if (mover->options.verify)
		done += mover_verified_part(mover, unverified, size);
	if (mover->state == MOVER_DONE)
		done = out->total_bytes;
	mover->progress_bytes = MAX(mover->progress_bytes, done);
	out->done_bytes = mover->progress_bytes;
}

/* Work done: what was really read or written; holes cost nothing and count for nothing. */
static uint64_t mover_work_bytes(const struct mover_stats *stats, uint64_t *mirrored)
{
	uint64_t work = 0;

	*mirrored = 0;
	for (uint32_t i = 0; i < stats->disk_count; i++) {
		const struct mover_disk_stats *disk = &stats->disks[i];

		work += disk->copied_bytes + disk->zero_bytes + disk->verify_read_bytes;
		*mirrored += disk->mirrored_bytes;
	}
	return work;
}

/* An average that forgets in about two seconds. */
static void mover_rates(struct mover *mover, struct mover_stats *out)
{
	uint64_t now_ns = loop_now_ns(mover->loop);
	uint64_t mirrored, work = mover_work_bytes(out, &mirrored);
	double seconds = (double)(now_ns - mover->rate_at_ns) / (double)NS_PER_S;
	double weight;

	if (seconds >= 0.05) {
		weight = MIN(seconds / 2.0, 1.0);
		mover->rate += weight * ((double)(work - mover->rate_bytes) / seconds - mover->rate);
		mover->mirror_rate += weight * ((double)(mirrored - mover->mirror_bytes) / seconds -
						mover->mirror_rate);
		mover->rate_at_ns = now_ns;
		mover->rate_bytes = work;
		mover->mirror_bytes = mirrored;
	}
	out->rate_bytes_per_s = (uint64_t)mover->rate;
	out->mirror_rate_bytes_per_s = (uint64_t)mover->mirror_rate;
}

static void mover_tell_shedding(const struct mover *mover, struct err *err)
{
	err_set(err, ERR_MOVE_SLOW_TARGET, 0,
		"the target adds %" PRIu64 ".%03" PRIu64 " ms to a guest's write, the budget is %"
		PRIu64 ".%03" PRIu64 " ms: guest writes are copied later",
		mover->budget.shed_mean_ns / NS_PER_MS,
		mover->budget.shed_mean_ns / NS_PER_US % 1000,
		mover->options.latency_budget_ns / NS_PER_MS,
		mover->options.latency_budget_ns / NS_PER_US % 1000);
}

void mover_publish(struct mover *mover)
{
	struct mover_stats *out = &mover->stats;

	pthread_mutex_lock(&mover->stats_lock);
	out->state = mover->state;
	out->disk_count = mover->part_count;
	for (uint32_t i = 0; i < mover->part_count; i++)
		part_stats(&mover->parts[i], &out->disks[i]);
	mover_progress(mover, out);
	mover_rates(mover, out);
	out->stun_ns = mover->stun_ns;
	out->switchover_tries = mover->tries;
	out->degraded = mover->breaker != BREAKER_CLOSED || mover_is_shedding(mover);
	out->shedding = mover_is_shedding(mover);
	out->breaker_trips = mover->trips;
	out->budget_sheds = mover->budget.sheds;
	out->added_latency_ns = mover->budget.mean_ns;
	out->not_converging = pacer_is_shedding(&mover->pacer);
	out->error = mover->error;
	if (out->shedding && !out->error.id)
		mover_tell_shedding(mover, &out->error);
	pthread_mutex_unlock(&mover->stats_lock);
}

void mover_publish_fired(struct timer *timer)
{
	struct mover *mover = container_of(timer, struct mover, publish);

	mover_watch_targets(mover);
	mover_watch_budget(mover);
	mover_watch_journals(mover);
	mover_publish(mover);
	timer_start(timer, MOVER_PUBLISH_NS);
}

void mover_stats(const struct mover *mover, struct mover_stats *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)&mover->stats_lock;

	pthread_mutex_lock(lock);
	*out = mover->stats;
	pthread_mutex_unlock(lock);
}

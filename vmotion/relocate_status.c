/* SPDX-License-Identifier: Apache-2.0 */
/* relocate_status.c - what a relocation tells about itself. */
#include <stdio.h>
#include <string.h>

#include "vmotion/relocate_private.h"

/* A commit that takes longer is worth an alarm: guest I/O is held meanwhile (R-J3). */
#define COMMIT_ALARM_NS NS_PER_S
#define FETCH_ALARM_NS (5 * NS_PER_S)

static void snapshot_add(struct io_snapshot *sum, const struct io_snapshot *other)
{
	sum->read_ops += other->read_ops;
	sum->read_bytes += other->read_bytes;
	sum->write_ops += other->write_ops;
	sum->write_bytes += other->write_bytes;
	sum->flush_ops += other->flush_ops;
	sum->errors += other->errors;
	sum->latency_sum_ns += other->latency_sum_ns;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		sum->buckets[i] += other->buckets[i];
}

static void sum_guests(const struct relocation *relocation, unsigned seconds,
		       struct disk_guest_window *sum)
{
	struct disk_guest_window window;

	*sum = (struct disk_guest_window){ 0 };
	for (uint32_t i = 0; i < relocation->plan.disk_count; i++) {
		const struct move_disk *disk = &relocation->plan.disks[i];

		if (!disk->disk || !disk->attached)
			continue;       /* nobody uses it */
		disk_guest_window(disk->disk, seconds, &window);
		snapshot_add(&sum->io, &window.io);
		sum->span_ns = MAX(sum->span_ns, window.span_ns);
		sum->max_ns = MAX(sum->max_ns, window.max_ns);
	}
}

static uint64_t iops_of(const struct disk_guest_window *window)
{
	uint64_t ms = window->span_ns / NS_PER_MS;

	return ms ? io_snapshot_ops(&window->io) * 1000 / ms : 0;
}

static void fill_guest(const struct relocation *relocation, struct relocate_status *out)
{
	struct disk_guest_window window;

	/* The disks are no longer ours to look at. */
	if (relocation->stage == STAGE_ENDED) {
		out->guest_iops_before = relocation->guest_iops_before;
		out->guest_p99_before_ns = relocation->guest_p99_before_ns;
		return;
	}
	sum_guests(relocation, 1, &window);
	out->guest_iops = iops_of(&window);
	out->guest_p50_ns = io_snapshot_quantile_ns(&window.io, 500);
	out->guest_p99_ns = io_snapshot_quantile_ns(&window.io, 990);
	out->guest_max_ns = window.max_ns;
	out->guest_iops_before = relocation->guest_iops_before;
	out->guest_p99_before_ns = relocation->guest_p99_before_ns;
}

void relocate_note_guests_before(struct relocation *relocation)
{
	struct disk_guest_window window;

	sum_guests(relocation, DISK_GUEST_WINDOW_S, &window);
	relocation->guest_iops_before = iops_of(&window);
	relocation->guest_p99_before_ns = io_snapshot_quantile_ns(&window.io, 990);
}

static enum relocate_state state_of(const struct relocation *relocation)
{
	if (relocation->parked)
		return relocation->parked_state;
	if (relocation->resuming && relocation->start_paused)
		return RELOCATE_PAUSED;
	switch (relocation->stage) {
	case STAGE_HELD:
		return RELOCATE_HELD;
	case STAGE_PAUSED:
		return RELOCATE_PAUSED;
	case STAGE_LINGERING:
	case STAGE_ENDED:
		return relocation->outcome;
	default:
		return RELOCATE_RUNNING;
	}
}

static bool target_is_authoritative(const struct relocation *relocation)
{
	return atomic_load(&relocation->io.commit_outcome) == COMMIT_DURABLE;
}

static int verified_of(const struct relocation *relocation, const struct mover_disk_stats *stats)
{
	if (stats->verify_mismatches)
		return 0;
	if (!relocation->plan.options.verify || stats->unverified_bytes ||
	    !target_is_authoritative(relocation) || !relocation->mover_done)
		return -1;
	return 1;
}

static void fill_disk(const struct relocation *relocation, uint32_t index,
		      struct relocate_disk_status *out)
{
	const struct move_disk *disk = &relocation->plan.disks[index];

	*out = (struct relocate_disk_status){
		.target_authoritative = target_is_authoritative(relocation),
	};
	/* Until then they are the I/O loop's. */
	if (relocation->resumed) {
		out->resumed_dirty_bytes = disk->resumed_dirty_bytes;
		out->resumed_active_bytes = disk->resumed_active_bytes;
	}
	if (index < relocation->stats.disk_count)
		out->stats = relocation->stats.disks[index];
	out->stats.target_authoritative = out->target_authoritative;
	out->verified = verified_of(relocation, &out->stats);
	snprintf(out->name, sizeof(out->name), "%s", disk->name);
	snprintf(out->source, sizeof(out->source), "%s:%s", disk->source_name, disk->source_path);
	snprintf(out->target, sizeof(out->target), "%s:%s", disk->target_name, disk->target_path);
}

/* A store that hangs is told; the task runs on, for the guest does. */
static bool fetch_is_slow(const struct relocation *relocation, uint64_t now_ns)
{
	return relocation->fetch.under_way &&
	       now_ns - relocation->fetch.since_ns > FETCH_ALARM_NS;
}

static void fill_degraded(const struct relocation *relocation, struct relocate_status *out)
{
	const struct mover_stats *stats = &relocation->stats;
	uint64_t began_ns = atomic_load(&relocation->io.commit_began_ns);
	uint64_t now_ns = loop_now_ns(relocation->plan.service->main_loop);

	if (atomic_load(&relocation->io.abandon_failed)) {
		err_set(&out->degraded_why, ERR_JOURNAL_IO, 0,
			"the move cannot be given up durably yet; guest writes may have to wait");
	} else if (atomic_load(&relocation->io.commit_outcome) == COMMIT_UNKNOWN) {
		err_set(&out->degraded_why, ERR_MOVE_COMMIT, 0, "guest I/O is held: %s",
			relocation->io.commit_err.cause);
	} else if (began_ns && now_ns > began_ns + COMMIT_ALARM_NS) {
		err_set(&out->degraded_why, ERR_MOVE_COMMIT, 0,
			"guest I/O is held: the write of the switch record has taken %llu ms",
			(unsigned long long)((now_ns - began_ns) / NS_PER_MS));
	} else if (relocation->leftover.id) {
		out->degraded_why = relocation->leftover;
	} else if (relocation->mover_alive && fetch_is_slow(relocation, now_ns)) {
		err_set(&out->degraded_why, ERR_MOVE_TARGET_STUCK, 0,
			"the target has not been opened for %llu s; the guest is served meanwhile",
			(unsigned long long)((now_ns - relocation->fetch.since_ns) / NS_PER_S));
	} else if (relocation->mover_alive && !relocation->fetch.under_way &&
		   relocation->fetch.err.id != ERR_NONE) {
		out->degraded_why = relocation->fetch.err;
	} else if (relocation->mover_alive && stats->not_converging) {
		err_set(&out->degraded_why, ERR_MOVE_NO_CONVERGE, 0,
			"not converging: the cap is below the guest's write rate");
	} else if (relocation->mover_alive &&
		   (stats->degraded || relocation->stage == STAGE_PAUSED ||
		    relocation->stage == STAGE_HELD)) {
		out->degraded_why = stats->error;       /* none when the operator wanted it so */
	}
	out->degraded = out->degraded_why.id != ERR_NONE;
}

void relocation_status(const struct relocation *relocation, struct relocate_status *out)
{
	const struct mover_stats *stats = &relocation->stats;

	LOOP_CHECK(relocation->plan.service->main_loop);
	memset(out, 0, sizeof(*out));
	out->state = state_of(relocation);
	out->phase = relocation->phase;
	out->total_bytes = stats->total_bytes;
	out->done_bytes = MIN(stats->done_bytes, stats->total_bytes);
	out->remaining_bytes = out->total_bytes - out->done_bytes;
	out->rate_bytes_per_s = relocation->mover_alive ? stats->rate_bytes_per_s : 0;
	if (out->rate_bytes_per_s)
		out->eta_s = out->remaining_bytes / out->rate_bytes_per_s;
	out->stun_ns = stats->stun_ns;
	if (out->state == RELOCATE_FAILED)
		out->error = relocation->error;
	out->resumed = relocation->resumed;
	fill_degraded(relocation, out);
	fill_guest(relocation, out);
	out->disk_count = relocation->plan.disk_count;
	for (uint32_t i = 0; i < out->disk_count; i++)
		fill_disk(relocation, i, &out->disks[i]);
}

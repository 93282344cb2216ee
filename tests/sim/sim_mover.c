/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_mover.c - moves of whole machines on the simulated loop, a seed each.
 *
 * A seed decides everything: disks, sizes, latencies, faults, what the guests do and what the
 * operator does.  After every step:
 *   M1  a clean region that nothing touches is equal on both legs
 *   M3  no two target writes in flight touch one physical block (checked in the disk)
 *   M4  guests see no error but the source's own, and wait no longer than the leg deadline
 *   R13 while the breaker is open or probes, and while the latency budget sheds, no guest's leg
 *       is sent and no guest that begins waits for its target; neither swings to and fro
 *   a pause and a cancel come to their end in bounded time, however the targets hang
 * At the end, and in a third of the seeds at a crash in the middle, the authoritative copy
 * holds every acknowledged write, and after a power cut every flushed one.  A move without
 * lasting faults must come to its end.  In some worlds the targets lie about what they wrote:
 * there the verification must find it before the switch-over.
 *
 * usage: sim_mover [SEEDS [FIRST-SEED]]; a failure prints the seed that repeats it.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/mirror/copy_private.h"
#include "blkmirror/mirror/mirror_private.h"
#include "blkmirror/mirror/mover_private.h"
#include "tests/lib/sim_disk.h"
#include "tests/lib/sim_guest.h"

#define REGION 2048u
#define DISKS_MAX 3u
#define STEPS_MAX 2000000u
#define STEPS_HOT 300000u
#define STEPS_CALM 20000u              /* from here on the operator only helps */

struct world_disk {
	struct sim_disk *source, *target;
	struct gate *gate;
	struct sim_guest *guest;
};

struct world {
	uint64_t seed;
	struct loop *loop;
	struct buf_pool *pool;
	struct world_disk disks[DISKS_MAX];
	uint32_t disk_count;
	struct mover *mover;
	struct mover_options options;
	bool freed;
	/* the switch record */
	struct timer commit_timer;
	int commit_result;
	bool commit_durable;
	uint64_t commits;
	/* faults and the operator */
	struct timer fault_timer, operator_timer;
	uint32_t faults_left;
	bool lasting_fault;
	bool target_hung;
	bool source_fails;
	uint64_t cap_rate, cap_from_ns, cap_from_bytes;
	bool will_cancel;
	bool hot, slow;
	uint64_t mode_changes;
	uint64_t began_ns;
	bool lies;                      /* targets that do not keep what the copier wrote */
	bool verifying, quiet;          /* VERIFY has begun; the guests had ended before */
	uint64_t pausing_ns, leaving_ns;        /* since when; 0: not */
	bool cancelled;
	bool dead;                      /* crashed and judged: only taken down */
};

static uint64_t current_seed;
static const struct world *current_world;

/* What a human wants to know of a failed seed. */
static void describe(const struct world *world)
{
	const struct mover *mover = world->mover;

	if (!mover || world->freed)
		return;
	fprintf(stderr, "\nat %" PRIu64 " us, step %" PRIu64 ": mover %s%s%s%s, switch step %d, try %u, "
		"error %s\n", loop_now_ns(world->loop) / NS_PER_US, loop_sim_step_count(world->loop),
		mover_state_name(mover->state), mover->pausing ? " pausing" : "",
		mover->leaving ? " leaving" : "", mover->breaker ? " degraded" : "", mover->step,
		mover->tries, mover->error.id ? mover->error.cause : "none");
	fprintf(stderr, "mode %d, bandwidth %" PRIu64 ", verify %d, hold %d, target hung %d\n",
		mover->options.mode, mover->options.bandwidth_bytes_per_s, mover->options.verify,
		mover->options.hold, world->target_hung);
	for (uint32_t i = 0; i < mover->part_count; i++) {
		const struct mover_part *part = &mover->parts[i];

		fprintf(stderr, "disk %u: mirror %s, dirty %" PRIu64 ", unverified %" PRIu64
			", engine %s %u jobs, target lock %" PRIu64 ", ops %u, in flight %" PRIu64
			", held %" PRIu64 ", old %d, guest done %" PRIu64 "\n", i,
			mirror_state_name(mirror_state(part->mirror)),
			dirty_bitmap_bytes(mirror_dirty(part->mirror)),
			verifier_waiting_bytes(part->verifier),
			copy_engine_is_stopped(part->engine) ? "stopped" : "running",
			part->engine->jobs_in_flight, part->mirror->target_lock.count,
			part->mirror->ops_in_use, gate_in_flight(part->gate), gate_held(part->gate),
			part->old_requests, world->disks[i].guest->ops_done);
	}
}

static void on_abort(int signal_number)
{
	(void)signal_number;
	if (current_world)
		describe(current_world);
	fprintf(stderr, "to repeat: make check-sim SEED=%" PRIu64 "\n", current_seed);
	_exit(1);
}

static uint64_t dice(struct world *world, uint64_t bound)
{
	return loop_random_below(world->loop, bound);
}

/* ---- checkers ---- */

static bool region_is_touched(struct mirror *mirror, uint64_t start, uint64_t end)
{
	return range_lock_overlaps(&mirror->guest_lock, start, end) ||
	       range_lock_overlaps(&mirror->target_lock, start, end);
}

static void check_range_equal(const struct world_disk *disk, uint64_t offset, uint64_t len)
{
	for (uint64_t at = offset; at < offset + len; at += SIM_BLOCK) {
		uint64_t source, target;

		memcpy(&source, disk->source->bytes + at, 8);
		memcpy(&target, disk->target->bytes + at, 8);
		if (source != target)
			fprintf(stderr, "target %p block %" PRIu64 ": source %" PRIx64 ", target %" PRIx64 "\n",
				(const void *)disk->target, at / SIM_BLOCK, source, target);
		CHECK(source == target);
	}
}

/* M1 */
static void check_legs_equal(struct world *world, struct mover_part *part, struct world_disk *disk)
{
	struct mirror *mirror = part->mirror;
	uint64_t size = mirror_size_bytes(mirror);

	if (world->lies || mirror_state(mirror) == MIRROR_SWITCHED || mirror_state(mirror) == MIRROR_RETIRED ||
	    part->old_requests)
		return;
	for (uint64_t at = 0; at < size; at += REGION) {
		uint64_t len = MIN((uint64_t)REGION, size - at);

		if (dirty_bitmap_test(mirror_dirty(mirror), at) ||
		    region_is_touched(mirror, at, round_up(at + len, REGION)))
			continue;
		check_range_equal(disk, at, len);
	}
}

static void check_waits(const struct world *world)
{
	uint64_t bound_ns = world->options.leg_deadline_ns + 900 * NS_PER_MS;

	for (uint32_t i = 0; i < world->disk_count; i++)
		CHECK(world->disks[i].guest->longest_ns <= bound_ns);
}

/* R12: the buffer of an async mirror is bounded, whatever its target does. */
static void check_buffers(const struct world *world)
{
	/* What guests have in flight is counted when they are answered, whole buffers each leg. */
	uint64_t in_guests = (uint64_t)SIM_GUEST_SLOTS * MIRROR_LEGS_PER_OP * 16 * SIM_BLOCK;

	for (uint32_t i = 0; i < world->disk_count; i++)
		CHECK(world->mover->parts[i].mirror->stats.buffered_bytes <=
		      world->options.async_buffer_bytes + in_guests);
}

static uint64_t moved_bytes(const struct world *world)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct mirror_stats mirror;
		struct copy_stats copy;

		mirror_stats(world->mover->parts[i].mirror, &mirror);
		copy_engine_stats(world->mover->parts[i].engine, &copy);
		bytes += mirror.mirrored_bytes + copy.copied_bytes;
	}
	return bytes;
}

/* R6: copier and mirrored writes together keep to the cap, but for the burst and the debt. */
static void check_cap(struct world *world)
{
	uint64_t rate = world->mover->options.bandwidth_bytes_per_s;
	uint64_t now_ns = loop_now_ns(world->loop);
	uint64_t slack = (1u << 20) + rate / 4 + (256u << 10);

	if (rate == MOVER_RATE_UNLIMITED || rate != world->cap_rate) {
		world->cap_rate = rate;
		world->cap_from_ns = now_ns;
		world->cap_from_bytes = moved_bytes(world);
		return;
	}
	CHECK(moved_bytes(world) - world->cap_from_bytes <=
	      slack + (uint64_t)((double)rate * (double)(now_ns - world->cap_from_ns) / 1e9));
}

/* R13: once a leg has been late, or all are too slow, no request that begins waits for that target. */
static void check_breaker(struct world *world)
{
	const struct mover *mover = world->mover;
	bool shut = mover->breaker != BREAKER_CLOSED || mover_is_shedding(mover);
	uint64_t now_ns = loop_now_ns(world->loop);

	CHECK(mover->budget.sheds <= 2 + world->mode_changes + (now_ns - world->began_ns) / (5 * NS_PER_S));
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct sim_guest *guest = world->disks[i].guest;

		CHECK(!shut || mover->parts[i].mirror->legs_in_flight == 0);
		if (!shut)
			guest->watched_ns = UINT64_MAX;
		else if (guest->watched_ns == UINT64_MAX)
			guest->watched_ns = now_ns;
		CHECK(guest->watched_longest_ns <= 600 * NS_PER_MS);
	}
}

static void check_bounded(const struct world *world, bool under_way, uint64_t *from_ns,
			  uint64_t bound_ns)
{
	uint64_t now_ns = loop_now_ns(world->loop);

	if (!under_way)
		*from_ns = 0;
	else if (!*from_ns)
		*from_ns = now_ns;
	else
		CHECK(now_ns - *from_ns <= bound_ns);
}

static bool world_guests_idle(const struct world *world)
{
	for (uint32_t i = 0; i < world->disk_count; i++)
		if (!sim_guest_is_idle(world->disks[i].guest))
			return false;
	return true;
}

/* Nothing waits for a target longer than the leg deadline, the operator neither. */
static void check_verbs(struct world *world)
{
	check_bounded(world, world->mover->pausing, &world->pausing_ns,
		      world->options.leg_deadline_ns + NS_PER_S);
	check_bounded(world, world->mover->leaving, &world->leaving_ns, NS_PER_S);
	if (mover_state(world->mover) == MOVER_VERIFY && !world->verifying) {
		world->verifying = true;
		world->quiet = world_guests_idle(world);
	}
}

static void check_step(struct world *world)
{
	if (world->freed || world->dead)
		return;
	check_verbs(world);
	for (uint32_t i = 0; i < world->disk_count; i++)
		check_legs_equal(world, &world->mover->parts[i], &world->disks[i]);
	check_waits(world);
	check_buffers(world);
	check_cap(world);
	check_breaker(world);
	/* Exactly one copy is authoritative, and all disks agree which. */
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct mirror *mirror = world->mover->parts[i].mirror;

		CHECK((mirror->primary == mirror->target) ==
		      (mirror_state(mirror) == MIRROR_SWITCHED));
		CHECK(mirror_state(mirror) != MIRROR_SWITCHED || world->commit_durable);
		CHECK(mirror_state(mirror) == mirror_state(world->mover->parts[0].mirror) ||
		      mirror_state(mirror) == MIRROR_ACTIVE ||
		      mirror_state(mirror) == MIRROR_SUSPENDED);
	}
}

static void check_end(struct world *world, bool power_cut)
{
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct world_disk *disk = &world->disks[i];
		struct sim_disk *truth = world->commit_durable ? disk->target : disk->source;

		if (world->source_fails)
			continue;       /* a failed write may have been torn: not the mirror's */
		if (world->lies && world->commit_durable && !world->quiet)
			continue;       /* a guest's write ends the judgement of its region */
		if (power_cut) {
			sim_disk_power_cut(truth);
			sim_guest_check_after_cut(disk->guest, truth);
		} else {
			sim_guest_check(disk->guest, truth);
		}
	}
}

/* ---- the record ---- */

static void targets_hang(struct world *world, bool hung)
{
	world->target_hung = hung;
	for (uint32_t i = 0; i < world->disk_count; i++)
		sim_disk_hang(world->disks[i].target, hung);
}

/* From here on it is the guest's own disk: it may overlap its writes, and its faults are its own. */
static void world_target_is_live(struct world *world)
{
	targets_hang(world, false);
	world->faults_left = 0;
	for (uint32_t i = 0; i < world->disk_count; i++) {
		world->disks[i].target->options.forbid_overlap = false;
		world->disks[i].target->options.rmw_races = false;
		world->disks[i].target->error_one_in = 0;
		world->disks[i].target->bad_flushes = 0;
		world->disks[i].target->lie_one_in = 0;
	}
}

static void world_commit_fired(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, commit_timer);

	world->commit_durable = world->commit_result == 0;
	if (world->commit_durable)
		world_target_is_live(world);
	mover_committed(world->mover, world->commit_result);
}

static void world_commit(struct mover *mover, void *user)
{
	struct world *world = user;

	(void)mover;
	world->commits++;
	/* Everything the guests were told, and everything flushed, is on the targets now. */
	for (uint32_t i = 0; i < world->disk_count && !world->dead; i++) {
		struct world_disk *disk = &world->disks[i];

		CHECK(gate_in_flight(disk->gate) == 0);
		if (world->lies && !world->quiet)
			continue;
		check_range_equal(disk, 0, gate_as_dev(disk->gate)->size_bytes);
		CHECK(memcmp(disk->target->bytes, disk->target->durable,
			     gate_as_dev(disk->gate)->size_bytes) == 0);
	}
	world->commit_result = dice(world, 8) == 0 ? -ECANCELED : 0;
	timer_start(&world->commit_timer, dice(world, 20 * NS_PER_MS));
}

static void world_changed(struct mover *mover, void *user)
{
	struct world *world = user;
	struct err err;

	/* A fault paused it: the operator mends and resumes, when the fault does not last. */
	if (mover_state(mover) == MOVER_PAUSED && mover->error.id != ERR_NONE &&
	    !world->lasting_fault && !world->target_hung)
		CHECK(mover_resume(mover, &err) == 0);
	if (mover_state(mover) == MOVER_HOLD && mover->error.id == ERR_MOVE_STUN) {
		mover_set_max_stun(mover, 2 * NS_PER_S);
		CHECK(mover_complete(mover, &err) == 0);
	}
}

static const struct mover_ops world_ops = { .changed = world_changed, .commit = world_commit };

/* ---- faults ---- */

static void world_fault(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, fault_timer);
	struct sim_disk *target = world->disks[dice(world, world->disk_count)].target;

	if (world->target_hung) {
		targets_hang(world, false);
		if (!world->freed && mover_state(world->mover) == MOVER_PAUSED)
			world_changed(world->mover, world);
	} else if (target->error_one_in) {
		target->error_one_in = 0;
	} else if (world->faults_left) {
		world->faults_left--;
		if (dice(world, 3) == 0) {
			targets_hang(world, true);
			timer_start(timer, dice(world, 8 * NS_PER_S));
			return;
		}
		target->error_one_in = 2 + (uint32_t)dice(world, 20);
		target->error = dice(world, 4) ? -EIO : -ENOSPC;
	} else {
		for (uint32_t i = 0; i < world->disk_count; i++)
			world->disks[i].target->error_one_in = 0;
		return;
	}
	timer_start(timer, dice(world, 300 * NS_PER_MS));
}

/* ---- the operator ---- */

static void world_operator(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, operator_timer);
	enum mover_state state;
	struct err err;

	if (world->freed)
		return;
	state = mover_state(world->mover);
	if (state == MOVER_DONE || state == MOVER_FAILED || state == MOVER_CANCELLED)
		return;
	/* Under a cap, or with a buffer that sheds, an endless guest need not converge: help it. */
	if (loop_sim_step_count(world->loop) > STEPS_CALM) {
		mover_set_bandwidth(world->mover, MOVER_RATE_UNLIMITED);
		mover_set_mode(world->mover, MIRROR_SYNC);
		mover_set_latency_budget(world->mover, 0);
		if (state == MOVER_PAUSED && !world->mover->leaving)
			CHECK(mover_resume(world->mover, &err) == 0);
		if (world->options.hold && mover_complete(world->mover, &err))
			CHECK(err.id == ERR_TASK_COMMITTED || err.id == ERR_TASK_STATE);
		timer_start(timer, NS_PER_S);
		return;
	}
	switch (dice(world, 7)) {
	case 0:
		if (mover_pause(world->mover, &err) == 0)
			break;
		if (state == MOVER_PAUSED)
			CHECK(mover_resume(world->mover, &err) == 0 || world->mover->leaving);
		break;
	case 1:
		world->mode_changes++;          /* the budget is measured anew */
		mover_set_mode(world->mover, dice(world, 2) ? MIRROR_SYNC : MIRROR_ASYNC);
		break;
	case 2:
		mover_set_bandwidth(world->mover, dice(world, 2) ? MOVER_RATE_UNLIMITED :
						  (1 + dice(world, 64)) << 16);
		break;
	case 3:
		if (world->will_cancel && mover_cancel(world->mover, &err) == 0)
			world->cancelled = true;
		break;
	default:
		if (state == MOVER_PAUSED && !world->mover->leaving)
			CHECK(mover_resume(world->mover, &err) == 0);
		if (world->options.hold && mover_complete(world->mover, &err))
			CHECK(err.id == ERR_TASK_COMMITTED || err.id == ERR_TASK_STATE);
		break;
	}
	timer_start(timer, dice(world, 400 * NS_PER_MS));
}

/* ---- building a world ---- */

static void world_add_disk(struct world *world)
{
	struct world_disk *disk = &world->disks[world->disk_count];
	uint64_t blocks = 40 + dice(world, 60);
	uint64_t max_ns = (1 + dice(world, 40)) * 100 * NS_PER_US;
	struct sim_disk_options source = {
		.size_bytes = blocks * SIM_BLOCK, .physical_bytes = SIM_BLOCK << dice(world, 3),
		.reads_zero = true, .has_extents = dice(world, 4) != 0, .discard_tag = 0xd15c0,
		.min_latency_ns = 10 * NS_PER_US, .max_latency_ns = max_ns, .name = "source",
	};
	struct sim_disk_options target = {
		.size_bytes = (blocks + dice(world, 8)) * SIM_BLOCK,
		.physical_bytes = SIM_BLOCK << dice(world, 3), .reads_zero = dice(world, 2),
		.has_extents = dice(world, 2), .discard_tag = 0xd15c1, .min_latency_ns = 10 * NS_PER_US,
		.max_latency_ns = (1 + dice(world, 40)) * 100 * NS_PER_US,
		.forbid_overlap = true, .rmw_races = true, .name = "target",
	};
	struct sim_guest_options guest = {
		.pool = world->pool, .slots = 1 + (uint32_t)dice(world, SIM_GUEST_SLOTS),
		.discard_tags = { 0xd15c0, 0xd15c1 },
		/* An endless guest writes until the move has ended: it must end all the same (R4). */
		.op_count = dice(world, 4) || world->source_fails ? 20 + (uint32_t)dice(world, 400) : UINT32_MAX,
		.think_max_ns = dice(world, 3) ? dice(world, 3 * NS_PER_MS) : 0,
		.hot_bytes = dice(world, 2) ? 2 * REGION : 0, .scribbles = dice(world, 2),
		.discards = dice(world, 2), .max_blocks = 1 + (uint32_t)dice(world, 16),
	};

	if (world->hot) {
		guest.slots = SIM_GUEST_SLOTS;
		guest.op_count = UINT32_MAX;
		guest.think_max_ns = 0;
		guest.hot_bytes = REGION;
		guest.max_blocks = 2;
	}
	if (world->slow) {
		guest.op_count = UINT32_MAX;
		guest.think_max_ns = 5 * NS_PER_MS;
		target.min_latency_ns = 5 * NS_PER_MS;
		target.max_latency_ns = 20 * NS_PER_MS;
	}
	if (world->lies)
		guest.op_count = (uint32_t)dice(world, 40);
	disk->source = sim_disk_new(world->loop, &source);
	disk->target = sim_disk_new(world->loop, &target);
	disk->gate = gate_new(world->loop, &disk->source->dev, source.size_bytes);
	CHECK(disk->gate);
	disk->guest = sim_guest_new(world->loop, gate_as_dev(disk->gate), &guest);
	for (uint64_t i = 0; i < blocks; i++)
		sim_guest_fill(disk->guest, disk->source, i,
			       dice(world, 3) ? 0 : 1 + dice(world, 100));
	world->disk_count++;
}

static void world_choose_options(struct world *world)
{
	world->options = (struct mover_options){
		.mode = dice(world, 4) ? MIRROR_SYNC : MIRROR_ASYNC,
		.bandwidth_bytes_per_s = dice(world, 3) ? MOVER_RATE_UNLIMITED :
							  (1 + dice(world, 64)) << 16,
		.max_stun_ns = 20 * NS_PER_MS + dice(world, 300 * NS_PER_MS),
		.max_switchover_ns = 5 * NS_PER_S,
		.leg_deadline_ns = 200 * NS_PER_MS + dice(world, 3 * NS_PER_S),
		.async_buffer_bytes = (1 + dice(world, 16)) * 4096,
		.region_bytes = REGION, .verify = dice(world, 4) != 0, .hold = dice(world, 3) == 0,
	};
	if (dice(world, 4) == 0)
		world->options.latency_budget_ns = (1 + dice(world, 30)) * 100 * NS_PER_US;
	/* A target so slow that a budget sheds, for long enough to be noticed. */
	world->slow = dice(world, 10) == 0;
	if (world->slow) {
		world->options.latency_budget_ns = NS_PER_MS;
		world->options.bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED;
		world->options.max_stun_ns = NS_PER_S;
		world->options.hold = true;
	}
	world->faults_left = dice(world, 2) ? (uint32_t)dice(world, 6) : 0;
	world->will_cancel = dice(world, 6) == 0;
	world->source_fails = dice(world, 10) == 0;
	/* R4: a region that is written without a pause is copied all the same, in one pass. */
	world->hot = !world->slow && dice(world, 16) == 0;
	if (world->hot) {
		world->options.mode = MIRROR_SYNC;
		world->options.bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED;
		world->options.max_stun_ns = 2 * NS_PER_S;
		world->options.hold = false;
		world->options.latency_budget_ns = 0;
		world->faults_left = 0;
		world->will_cancel = world->source_fails = false;
	}
	world->lies = !world->hot && dice(world, 12) == 0;
	if (world->lies) {
		world->options.verify = true;
		world->will_cancel = world->source_fails = false;
	}
}

static void world_start(struct world *world)
{
	struct mover_disk disks[DISKS_MAX];
	struct err err;

	for (uint32_t i = 0; i < world->disk_count; i++) {
		disks[i] = (struct mover_disk){ .gate = world->disks[i].gate,
						.source = &world->disks[i].source->dev,
						.target = &world->disks[i].target->dev,
						.name = "d" };
		if (world->source_fails) {
			world->disks[i].source->error_one_in = 50;
			world->disks[i].source->error_ops = 1u << BLK_WRITE | 1u << BLK_READ;
			world->disks[i].guest->expect_errors = true;
		}
		world->disks[i].target->error_ops = 0x3f;
		world->disks[i].target->lie_one_in = world->lies ? 4 : 0;
		world->disks[i].target->bad_flushes = dice(world, 4) ? 0 : (uint32_t)dice(world, 6);
		sim_guest_start(world->disks[i].guest);
	}
	CHECK(mover_new(world->loop, world->pool, disks, world->disk_count, &world->options,
			&world_ops, world, &world->mover, &err) == 0);
	mover_start(world->mover);
	world->began_ns = loop_now_ns(world->loop);
	timer_start(&world->fault_timer, dice(world, 200 * NS_PER_MS));
	if (!world->hot)
		timer_start(&world->operator_timer, dice(world, NS_PER_S));
}

static struct world *world_new(uint64_t seed)
{
	struct world *world = calloc(1, sizeof(*world));
	uint64_t disks;

	CHECK(world);
	world->seed = seed;
	world->loop = loop_sim_new(seed);
	CHECK(world->loop);
	world->pool = buf_pool_new(world->loop, BUF_MAX_BYTES * 2);
	CHECK(world->pool);
	timer_init(&world->commit_timer, world->loop, world_commit_fired);
	timer_init(&world->fault_timer, world->loop, world_fault);
	timer_init(&world->operator_timer, world->loop, world_operator);
	world_choose_options(world);
	disks = dice(world, 2) ? 1 : 1 + dice(world, DISKS_MAX);
	for (uint64_t i = 0; i < disks; i++)
		world_add_disk(world);
	return world;
}

/* ---- running it ---- */

static bool world_has_ended(const struct world *world)
{
	enum mover_state state = mover_state(world->mover);

	return state == MOVER_DONE || state == MOVER_FAILED || state == MOVER_CANCELLED;
}

static void world_freed(void *user)
{
	struct world *world = user;

	world->freed = true;
}

static void world_step(struct world *world)
{
	CHECK(loop_sim_step_count(world->loop) < (world->hot ? STEPS_HOT : STEPS_MAX));
	CHECK(loop_sim_step(world->loop));
	check_step(world);
}

/* Without the source's own faults a move must end well, unless the operator cancelled it. */
static void check_verdict(const struct world *world)
{
	enum mover_state state = mover_state(world->mover);

	if (world->cancelled)
		CHECK(state == MOVER_CANCELLED);
	else if (world->lies && state == MOVER_FAILED)
		CHECK(world->mover->error.id == ERR_MOVE_VERIFY);
	else
		CHECK(state == MOVER_DONE);
	CHECK(world->commit_durable == (state == MOVER_DONE));
}

static void world_finish(struct world *world)
{
	while (!world_has_ended(world))
		world_step(world);
	if (!world->dead)
		check_verdict(world);
	for (uint32_t i = 0; i < world->disk_count; i++)
		if (world->disks[i].guest->options.op_count == UINT32_MAX)
			sim_guest_stop(world->disks[i].guest);
	while (!world_guests_idle(world))
		world_step(world);
	mover_free(world->mover, world_freed, world);
	while (!world->freed)
		world_step(world);
	targets_hang(world, false);
	timer_stop(&world->fault_timer);
	timer_stop(&world->operator_timer);
	while (loop_sim_step(world->loop))
		continue;
	if (!world->dead) {
		check_end(world, false);
		check_end(world, true);
	}
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct world_disk *disk = &world->disks[i];

		sim_guest_free(disk->guest);
		gate_free(disk->gate);
		blk_close(&disk->source->dev);
		blk_close(&disk->target->dev);
	}
	buf_pool_free(world->pool);
	loop_free(world->loop);
	free(world);
}

struct tally {
	uint64_t steps, done, cancelled, crashed, commits, mirrored, dual, recopied, broken;
	uint64_t shed, late, holes, verified, lies_found, trips, sheds;
};

static void tally_add(struct tally *tally, const struct world *world)
{
	for (uint32_t i = 0; i < world->disk_count; i++) {
		const struct mover_part *part = &world->mover->parts[i];
		struct mirror_stats mirror;
		struct copy_stats copy;
		struct verify_stats verify;

		mirror_stats(part->mirror, &mirror);
		copy_engine_stats(part->engine, &copy);
		verifier_stats(part->verifier, &verify);
		tally->mirrored += mirror.mirrored_writes;
		tally->broken += mirror.broken_regions;
		tally->shed += mirror.shed_bytes != 0;
		tally->late += mirror.late_legs;
		tally->dual += copy.dual_jobs;
		tally->recopied += copy.recopied_bytes != 0;
		tally->holes += copy.hole_bytes != 0;
		tally->verified += verify.verified_bytes != 0;
	}
	tally->steps += loop_sim_step_count(world->loop);
	tally->commits += world->commits;
	tally->cancelled += world->cancelled;
	tally->trips += world->mover->trips;
	tally->sheds += world->mover->budget.sheds;
}

static void run_seed(uint64_t seed, struct tally *tally)
{
	struct world *world = world_new(seed);
	uint64_t crash_at = dice(world, 3) ? UINT64_MAX : 200 + dice(world, 6000);

	current_world = world;
	world_start(world);
	while (!world_has_ended(world) && loop_sim_step_count(world->loop) < crash_at)
		world_step(world);
	tally_add(tally, world);
	if (loop_sim_step_count(world->loop) >= crash_at) {
		tally->crashed++;
		check_end(world, true);
		/* The rest only runs out so that nothing leaks: its disks have been torn. */
		world->dead = true;
		for (uint32_t i = 0; i < world->disk_count; i++)
			world->disks[i].guest->dead = true;
	} else {
		tally->done++;
		tally->lies_found += mover_state(world->mover) == MOVER_FAILED;
	}
	world_finish(world);
	current_world = NULL;
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	struct tally tally = { 0 };

	signal(SIGABRT, on_abort);
	log_set_level(LOG_LEVEL_NONE);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed, &tally);
	}
	printf("%" PRIu64 " seeds: %" PRIu64 " moves ended (%" PRIu64 " cancelled), %" PRIu64
	       " crashed; %" PRIu64 " steps, %" PRIu64 " commits, %" PRIu64 " mirrored writes, "
	       "%" PRIu64 " broken regions, %" PRIu64 " dual copies, %" PRIu64 " late legs, "
	       "%" PRIu64 " breaker trips, %" PRIu64 " sheds for the budget, %" PRIu64 " lies found\n",
	       seeds, tally.done, tally.cancelled, tally.crashed, tally.steps, tally.commits,
	       tally.mirrored, tally.broken, tally.dual, tally.late, tally.trips, tally.sheds,
	       tally.lies_found);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_resume.c - moves that crash and are resumed from their journals, a seed each.
 *
 * A world runs, is killed or loses its power at a random step, and is built again from what
 * its disks hold: the journal is loaded and the copy goes on.  Up to four times.
 *
 * After each crash:
 *   - the authoritative copy holds every acknowledged write (kill) or every flushed one (power)
 *   - every region in which the legs differ is dirty in the journal (R-J1, R-J2)
 *   - no more extents were active than the log allows
 * Moves are cancelled too, and some crash before that is durable: they are resumed.
 * What the guest reads after a crash it must find again for ever: no time travel at the
 * switch-over (R-J1).
 *
 * What is in flight or hangs when a process is killed lands before the next one begins: the
 * lock on a local file waits for it (R-J7), and a connection drops what it has queued (R3).
 * A power cut lands each of those requests or not, and then keeps of each leg's un-flushed
 * blocks some and not others, independently: so a log's slot may be torn in the middle.
 *
 * Each seed runs in a process of its own: what a crash leaves in memory is simply left.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/journal/journal_private.h"
#include "blkmirror/mirror/mirror_private.h"
#include "blkmirror/mirror/mover_private.h"
#include "tests/lib/sim_disk.h"
#include "tests/lib/sim_guest.h"

#define REGION 2048u
#define EXTENT 8192u
#define DISKS_MAX 2u
#define STEPS_MAX 1500000u
#define CRASHES_MAX 4u

struct world_disk {
	struct sim_disk *source, *target, *log;
	struct gate *gate;
	struct sim_guest *guest;
	struct journal *journal;
	struct journal_identity identity;
	bool opened;
};

struct world {
	struct loop *loop;
	struct buf_pool *pool;
	struct world_disk disks[DISKS_MAX];
	uint32_t disk_count;
	struct mover *mover;
	struct mover_options options;
	struct timer commit_timer, abandon_timer, fault_timer, cancel_timer;
	bool commit_issued, commit_durable;
	bool abandoned;
	bool hung;                      /* a target */
	bool calm;                      /* the last world: no more faults */
	bool resumed;
	uint32_t life;
};

static uint64_t current_seed;
static struct world *current_world;

static uint64_t dice(struct world *world, uint64_t bound)
{
	return loop_random_below(world->loop, bound);
}

static void on_abort(int signal_number)
{
	const struct world *world = current_world;

	(void)signal_number;
	if (world && world->mover)
		fprintf(stderr, "life %u at %" PRIu64 " us, step %" PRIu64 ": mover %s, step %d, error %s\n",
			world->life, loop_now_ns(world->loop) / NS_PER_US,
			loop_sim_step_count(world->loop), mover_state_name(world->mover->state),
			world->mover->step,
			world->mover->error.id ? world->mover->error.cause : "none");
	for (uint32_t i = 0; world && world->mover && i < world->disk_count; i++) {
		const struct mover_part *part = &world->mover->parts[i];

		fprintf(stderr, "disk %u: mirror %s, dirty %" PRIu64 ", unverified %" PRIu64
			", ops %u, in flight %" PRIu64 ", journal error %d\n", i,
			mirror_state_name(mirror_state(part->mirror)),
			dirty_bitmap_bytes(mirror_dirty(part->mirror)),
			verifier_waiting_bytes(part->verifier), part->mirror->ops_in_use,
			gate_in_flight(part->gate), world->disks[i].journal->stats.error);
	}
	fprintf(stderr, "to repeat: make check-sim SEED=%" PRIu64 "\n", current_seed);
	_exit(1);
}

/* ---- checks after a crash ---- */

static bool regions_differ(const struct world_disk *disk, uint64_t at, uint64_t len)
{
	return memcmp(disk->source->bytes + at, disk->target->bytes + at, len) != 0;
}

/* R-J1, R-J2: what the journal calls clean is equal on both legs. */
static void check_journal(const struct world_disk *disk)
{
	uint64_t size = disk->identity.size_bytes;
	struct journal_stats stats;

	journal_stats(disk->journal, &stats);
	CHECK(stats.damaged_sectors == 0);
	CHECK(stats.loaded_active_bytes <=
	      (uint64_t)disk->journal->extent_max * 2 * disk->identity.extent_bytes);
	for (uint64_t at = 0; at < size; at += REGION) {
		uint64_t len = MIN((uint64_t)REGION, size - at);

		if (regions_differ(disk, at, len) && !journal_is_dirty(disk->journal, at)) {
			fprintf(stderr, "region %" PRIu64 " differs and is clean in the journal\n",
				at / REGION);
			CHECK_NEVER("differs and is clean");
		}
	}
}

/* ---- the mover's callbacks ---- */

static void world_commit_fired(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, commit_timer);

	world->commit_durable = true;
	for (uint32_t i = 0; i < world->disk_count; i++) {
		world->disks[i].target->options.forbid_overlap = false;
		world->disks[i].target->error_one_in = 0;
		sim_disk_hang(world->disks[i].target, false);
	}
	mover_committed(world->mover, 0);
}

static void world_commit(struct mover *mover, void *user)
{
	struct world *world = user;

	(void)mover;
	world->commit_issued = true;
	timer_start(&world->commit_timer, dice(world, 10 * NS_PER_MS));
}

static void world_abandon_fired(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, abandon_timer);

	world->abandoned = true;
	mover_abandoned(world->mover, 0);
}

static void world_abandon(struct mover *mover, void *user)
{
	struct world *world = user;

	(void)mover;
	timer_start(&world->abandon_timer, dice(world, 50 * NS_PER_MS));
}

static void world_changed(struct mover *mover, void *user)
{
	struct world *world = user;
	struct err err;

	if (mover_state(mover) == MOVER_PAUSED && mover->error.id != ERR_NONE && !world->hung)
		CHECK(mover_resume(mover, &err) == 0);
	if (mover_state(mover) == MOVER_HOLD && mover->error.id == ERR_MOVE_STUN) {
		mover_set_max_stun(mover, 2 * NS_PER_S);
		CHECK(mover_complete(mover, &err) == 0);
	}
}

static const struct mover_ops world_ops = {
	.changed = world_changed, .commit = world_commit, .abandon = world_abandon,
};

/* Until it is given up durably, a cancelled move may be resumed. */
static void world_cancel(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, cancel_timer);

	(void)!mover_cancel(world->mover, NULL);
}

/* Now and then a target or, rarely, a journal has troubles. */
static void world_fault(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, fault_timer);
	struct world_disk *disk = &world->disks[dice(world, world->disk_count)];
	bool was_hung = world->hung;

	for (uint32_t i = 0; i < world->disk_count; i++) {
		sim_disk_hang(world->disks[i].target, false);
		world->disks[i].target->error_one_in = 0;
	}
	world->hung = false;
	if (was_hung)
		world_changed(world->mover, world);
	if (world->commit_issued)
		return;
	if (!world->calm && dice(world, 2)) {
		if (dice(world, 3) == 0) {
			world->hung = true;
			sim_disk_hang(disk->target, true);
		} else {
			disk->target->error_one_in = 2 + (uint32_t)dice(world, 20);
			disk->target->error = dice(world, 4) ? -EIO : -ENOSPC;
		}
		disk->target->error_ops = 0x3f;
		if (dice(world, 40) == 0) {
			disk->log->error_one_in = 3;
			disk->log->error_ops = 1u << BLK_WRITE;
		}
	}
	timer_start(timer, dice(world, 2 * NS_PER_S));
}

/* ---- building worlds ---- */

static struct world *world_new(uint64_t seed)
{
	struct world *world = calloc(1, sizeof(*world));

	CHECK(world);
	world->loop = loop_sim_new(seed);
	CHECK(world->loop);
	world->pool = buf_pool_new(world->loop, BUF_MAX_BYTES * 2);
	CHECK(world->pool);
	timer_init(&world->commit_timer, world->loop, world_commit_fired);
	timer_init(&world->abandon_timer, world->loop, world_abandon_fired);
	timer_init(&world->fault_timer, world->loop, world_fault);
	timer_init(&world->cancel_timer, world->loop, world_cancel);
	return world;
}

static struct sim_guest *world_guest(struct world *world, struct world_disk *disk)
{
	struct sim_guest_options options = {
		.pool = world->pool, .slots = 1 + (uint32_t)dice(world, SIM_GUEST_SLOTS),
		.op_count = UINT32_MAX, .think_max_ns = dice(world, 3 * NS_PER_MS),
		.hot_bytes = dice(world, 2) ? 2 * REGION : 0, .scribbles = dice(world, 2),
		.max_blocks = 1 + (uint32_t)dice(world, 16),
	};

	return sim_guest_new(world->loop, gate_as_dev(disk->gate), &options);
}

static void world_first_disk(struct world *world, struct world_disk *disk)
{
	uint64_t blocks = 200 + dice(world, 400);
	struct sim_disk_options source = {
		.size_bytes = blocks * SIM_BLOCK, .physical_bytes = SIM_BLOCK,
		.reads_zero = true, .has_extents = dice(world, 2),
		.min_latency_ns = 10 * NS_PER_US, .max_latency_ns = (1 + dice(world, 20)) * 100000,
		.name = "source",
	};
	struct sim_disk_options target = source, log = source;

	target.reads_zero = dice(world, 2);
	target.max_latency_ns = (1 + dice(world, 20)) * 100000;
	/* Longer than the copier rests after an error: it copies again while a flush is under way. */
	target.max_flush_ns = dice(world, 3) ? 0 : 250 * NS_PER_MS;
	target.forbid_overlap = true;
	target.name = "target";
	disk->identity = (struct journal_identity){
		.size_bytes = source.size_bytes, .region_bytes = REGION, .extent_bytes = EXTENT,
		.log_extents = 1 + (uint32_t)dice(world, 10), .generation = 1, .journal_id = "t1",
	};
	log.size_bytes = journal_device_bytes(&disk->identity);
	log.has_extents = false;
	log.name = "journal";
	disk->source = sim_disk_new(world->loop, &source);
	disk->target = sim_disk_new(world->loop, &target);
	disk->log = sim_disk_new(world->loop, &log);
	disk->gate = gate_new(world->loop, &disk->source->dev, source.size_bytes);
	CHECK(disk->gate);
	disk->guest = world_guest(world, disk);
	for (uint64_t i = 0; i < blocks; i++)
		sim_guest_fill(disk->guest, disk->source, i,
			       dice(world, 3) ? 0 : 1 + dice(world, 100));
}

static void world_journal_opened(struct journal *journal, int result, void *user)
{
	struct world_disk *disk = user;

	CHECK(result == 0);
	disk->journal = journal;
	disk->opened = true;
}

static void world_step(struct world *world)
{
	CHECK(loop_sim_step_count(world->loop) < STEPS_MAX);
	CHECK(loop_sim_step(world->loop));
}

static void world_open_journals(struct world *world)
{
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct world_disk *disk = &world->disks[i];

		if (world->resumed)
			journal_load(&disk->log->dev, &disk->identity, world_journal_opened, disk);
		else
			journal_create(&disk->log->dev, &disk->identity, world_journal_opened,
				       disk);
	}
	for (uint32_t i = 0; i < world->disk_count; i++) {
		while (!world->disks[i].opened)
			world_step(world);
		if (world->resumed)
			check_journal(&world->disks[i]);
	}
}

static void world_run_mover(struct world *world)
{
	struct mover_disk disks[DISKS_MAX];
	struct err err;

	for (uint32_t i = 0; i < world->disk_count; i++)
		disks[i] = (struct mover_disk){
			.gate = world->disks[i].gate, .source = &world->disks[i].source->dev,
			.target = &world->disks[i].target->dev, .name = "d",
			.journal = world->disks[i].journal, .resumed = world->resumed,
		};
	world->options = (struct mover_options){
		.mode = dice(world, 4) ? MIRROR_SYNC : MIRROR_ASYNC,
		.bandwidth_bytes_per_s = dice(world, 2) ? MOVER_RATE_UNLIMITED : 200000,
		.max_stun_ns = 500 * NS_PER_MS, .leg_deadline_ns = 300 * NS_PER_MS,
		.async_buffer_bytes = 65536, .region_bytes = REGION,
		.checkpoint_ns = (1 + dice(world, 40)) * 5 * NS_PER_MS,
		.verify = dice(world, 2),
		.latency_budget_ns = dice(world, 4) ? 0 : (1 + dice(world, 30)) * 100 * NS_PER_US,
	};
	if (world->calm) {
		world->options.latency_budget_ns = 0;
		world->options.mode = MIRROR_SYNC;
		world->options.bandwidth_bytes_per_s = MOVER_RATE_UNLIMITED;
	}
	CHECK(mover_new(world->loop, world->pool, disks, world->disk_count, &world->options,
			&world_ops, world, &world->mover, &err) == 0);
	mover_start(world->mover);
	for (uint32_t i = 0; i < world->disk_count; i++)
		sim_guest_start(world->disks[i].guest);
	timer_start(&world->fault_timer, dice(world, 500 * NS_PER_MS));
	if (!world->calm && dice(world, 5) == 0)
		timer_start(&world->cancel_timer, dice(world, 300 * NS_PER_MS));
}

/* ---- crashing ---- */

/* The world after: from the disks alone.  NULL when nothing is left to resume. */
static struct world *world_crash(struct world *world, uint64_t seed)
{
	bool power_cut = dice(world, 2);
	bool committed = world->commit_durable || (world->commit_issued && dice(world, 2));
	struct world *after = world_new(seed);

	after->disk_count = world->disk_count;
	after->life = world->life + 1;
	after->resumed = true;
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct world_disk *was = &world->disks[i], *is = &after->disks[i];
		struct sim_disk *truth;

		is->identity = was->identity;
		is->source = sim_disk_after_crash(after->loop, was->source, power_cut);
		is->target = sim_disk_after_crash(after->loop, was->target, power_cut);
		is->log = sim_disk_after_crash(after->loop, was->log, power_cut);
		truth = committed ? is->target : is->source;
		if (power_cut)
			sim_guest_check_after_cut(was->guest, truth);
		else
			sim_guest_check(was->guest, truth);
		is->gate = gate_new(after->loop, &is->source->dev, was->identity.size_bytes);
		CHECK(is->gate);
		is->guest = world_guest(after, is);
		sim_guest_adopt(is->guest, was->guest, truth);
	}
	return committed || world->abandoned ? NULL : after;
}

static bool world_has_ended(const struct world *world)
{
	enum mover_state state = mover_state(world->mover);

	return state == MOVER_DONE || state == MOVER_FAILED || state == MOVER_CANCELLED;
}

static void world_judge(struct world *world)
{
	bool done = mover_state(world->mover) == MOVER_DONE;

	CHECK(done == world->commit_durable);
	CHECK(done || (world->abandoned && (world->mover->error.id == ERR_JOURNAL_IO ||
					    world->mover->error.id == ERR_TASK_CANCELLED)));
	for (uint32_t i = 0; i < world->disk_count; i++) {
		struct world_disk *disk = &world->disks[i];

		sim_guest_stop(disk->guest);
		while (!sim_guest_is_idle(disk->guest))
			world_step(world);
		sim_guest_check(disk->guest, done ? disk->target : disk->source);
	}
}

static void run_seed(uint64_t seed)
{
	struct world *world = world_new(seed);
	uint64_t crashes = dice(world, CRASHES_MAX + 1);

	world->disk_count = 1 + (uint32_t)dice(world, DISKS_MAX);
	for (uint32_t i = 0; i < world->disk_count; i++)
		world_first_disk(world, &world->disks[i]);
	for (uint64_t life = 0; world; life++) {
		uint64_t crash_at = UINT64_MAX;

		current_world = world;
		world->calm = life == crashes;
		world_open_journals(world);
		world_run_mover(world);
		/* Often soon after the start: what a resume itself has not made durable is lost. */
		if (life < crashes)
			crash_at = loop_sim_step_count(world->loop) +
				   (dice(world, 2) ? dice(world, 8000) : dice(world, 100));
		while (!world_has_ended(world) && loop_sim_step_count(world->loop) < crash_at) {
			world_step(world);
			/* Soon after a cancel: it is not durable yet. */
			if (life < crashes && world->mover->abandoning && dice(world, 200) == 0)
				crash_at = 0;
		}
		if (world_has_ended(world)) {
			world_judge(world);
			return;
		}
		world = world_crash(world, seed * 31 + life + 1);
	}
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	uint64_t batch = seeds == 1 ? 1 : 50;

	log_set_level(LOG_LEVEL_NONE);
	for (uint64_t seed = first; seed < first + seeds; seed += batch) {
		pid_t child;
		int status;

		fflush(NULL);
		child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			signal(SIGABRT, on_abort);
			for (uint64_t i = seed; i < MIN(seed + batch, first + seeds); i++) {
				current_seed = i;
				run_seed(i);
			}
			_exit(0);
		}
		CHECK(waitpid(child, &status, 0) == child);
		if (!WIFEXITED(status) || WEXITSTATUS(status)) {
			fprintf(stderr, "a seed from %" PRIu64 " on failed (status %d)\n", seed,
				status);
			return 1;
		}
	}
	printf("%" PRIu64 " seeds crashed and resumed\n", seeds);
	return 0;
}

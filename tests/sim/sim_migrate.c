/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_migrate.c - two hosts hand a running machine over, and everything dies everywhere.
 *
 * The commit protocol drives models of QEMU (which runs a guest by itself after a failed
 * migration, T5, and at the end of an incoming stream without -S, T6), of a journal whose failed
 * writes may be durable, of a lock with a third host waiting for it, and of a link that loses,
 * delays and repeats.  Daemons, machines, hosts and the link are cut at any step, most likely
 * right after an action of the protocol: that is each of its named points.
 *
 * Judged after every step (R-C3): never two run it; who runs it holds the lock; it runs with its
 * whole memory and after its disks are drained; a warm machine is never thrown away without
 * proof.  In the end, when all is mended, exactly one host runs it: the one that the records name.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop_sim.h"
#include "vmotion/migrate_protocol.h"

#define S 0
#define T 1
#define NOBODY 2
#define THIRD 3
#define LATERS_MAX 512u
#define CRASHES_MAX 4u
#define LEASE_NS (20 * NS_PER_S)
#define WILD_NS (60 * NS_PER_S)
#define CALM_NS (60 * NS_PER_S)

struct world;

struct host {
	struct world *world;
	bool is_target, daemon_up, qemu_lives, guest_runs, cold;
	enum migrate_qemu_status status;        /* the source's */
	bool loaded, paused_start;      /* the target's */
	unsigned life, qemu_life;       /* what was under way of an earlier one is lost */
	enum migrate_record durable, writing;
	bool begun;                     /* the daemon knows of the migration: durable at once */
};

/* Something that happens later: an event of a host, a message, a write that lands. */
enum later_kind { LATER_NONE, LATER_EVENT, LATER_WRITE, LATER_QEMU_STEP, LATER_PAGES, LATER_UP };

struct later {
	struct world *world;
	struct timer timer;
	enum later_kind kind;
	struct host *host;
	unsigned life;
	enum migrate_event event;
	bool by_wire;
};

struct world {
	struct loop *loop;
	struct host hosts[2];
	struct migrate_source source;
	struct migrate_target target;
	struct later laters[LATERS_MAX];
	bool link_up, calm;
	unsigned crashes_left, crashes, warm_losses;
	/* memory and disks */
	bool pages_there, disks_in_flight, stuck_request, paused;
	/* the lock */
	unsigned owner, heir;
	uint64_t renewed_ns, generation;
	struct timer renew, third, probe;
};

static struct world *current;
static uint64_t current_seed;
static uint64_t points[SOURCE_STATE_COUNT][TARGET_STATE_COUNT];

static void on_abort(int number)
{
	(void)number;
	if (current)
		fprintf(stderr, "source %s (record %d, runs %d, qemu %d), target %s (record %d, runs %d)\n",
			migrate_source_state_name(current->source.state),
			current->hosts[S].durable, current->hosts[S].guest_runs,
			current->hosts[S].status, migrate_target_state_name(current->target.state),
			current->hosts[T].durable, current->hosts[T].guest_runs);
	fprintf(stderr, "seed %" PRIu64 " failed: make check-sim SEED=%" PRIu64 "\n", current_seed,
		current_seed);
}

static uint64_t dice(struct world *world, uint64_t sides)
{
	return loop_random_below(world->loop, sides);
}

/* ---- the oracle ---- */

static void judge(struct world *world)
{
	const struct host *source = &world->hosts[S], *target = &world->hosts[T];

	CHECK(!(source->guest_runs && target->guest_runs));
	if (target->guest_runs) {
		CHECK(target->durable == MIGRATE_STARTED);
		CHECK(source->durable == MIGRATE_COMMITTED);
		CHECK(world->owner == T);
		CHECK(target->cold || (world->pages_there && target->loaded));  /* R-C4 */
		CHECK(!world->disks_in_flight);                                 /* R-C5 */
	}
	if (source->guest_runs)
		CHECK(world->owner == S);
}

/* ---- later ---- */

static void later_fired(struct timer *timer);

static void later(struct host *host, enum later_kind kind, enum migrate_event event, bool by_wire,
		  uint64_t max_ns)
{
	struct world *world = host->world;

	for (unsigned i = 0; i < LATERS_MAX; i++) {
		struct later *it = &world->laters[i];

		if (it->kind != LATER_NONE)
			continue;
		it->world = world;
		it->kind = kind;
		it->host = host;
		it->event = event;
		it->by_wire = by_wire;
		it->life = kind == LATER_QEMU_STEP ? host->qemu_life : host->life;
		timer_init(&it->timer, world->loop, later_fired);
		timer_start(&it->timer, dice(world, max_ns + 1));
		return;
	}
	CHECK_NEVER("more laters than there is room for");
}

static void tell_host(struct host *host, enum migrate_event event)
{
	if (!host->daemon_up || !host->begun)
		return;
	points[host->world->source.state][host->world->target.state]++;
	if (host->is_target)
		migrate_target_step(&host->world->target, event);
	else
		migrate_source_step(&host->world->source, event);
}

static void happens(struct host *host, enum migrate_event event)
{
	later(host, LATER_EVENT, event, false, 20 * NS_PER_MS);
}

/* ---- disasters ---- */

static void daemon_dies(struct host *host)
{
	if (!host->daemon_up)
		return;
	host->daemon_up = false;
	host->life++;
	/* A write under way may have reached the disk. */
	if (host->writing != MIGRATE_NO_RECORD && dice(host->world, 2))
		host->durable = host->writing;
	host->writing = MIGRATE_NO_RECORD;
	later(host, LATER_UP, 0, false, 5 * NS_PER_S);
	happens(&host->world->hosts[host->is_target ? S : T], MIGRATE_LINK_LOST);
}

/* Ends a migration that has not completed: QEMU at the source goes on by itself (T5). */
static void stream_breaks(struct world *world)
{
	struct host *source = &world->hosts[S];

	if (!source->qemu_lives || (source->status != MIGRATE_QEMU_ACTIVE &&
				    source->status != MIGRATE_QEMU_DEVICE))
		return;
	source->status = MIGRATE_QEMU_FAILED_STATUS;
	source->guest_runs = true;
	happens(source, MIGRATE_QEMU_FAILED);
}

static void qemu_dies(struct host *host)
{
	if (!host->qemu_lives)
		return;
	host->qemu_lives = host->guest_runs = host->loaded = false;
	host->qemu_life++;
	if (!host->is_target)
		host->status = MIGRATE_QEMU_DEAD;
	host->world->warm_losses++;
	happens(host, MIGRATE_QEMU_GONE);
	if (host->is_target)
		stream_breaks(host->world);
}

static void link_breaks(struct world *world)
{
	if (!world->link_up)
		return;
	world->link_up = false;
	stream_breaks(world);
	happens(&world->hosts[S], MIGRATE_LINK_LOST);
	happens(&world->hosts[T], MIGRATE_LINK_LOST);
}

static void disaster(struct world *world)
{
	struct host *host = &world->hosts[dice(world, 2)];

	if (world->calm || !world->crashes_left)
		return;
	world->crashes_left--;
	world->crashes++;
	switch (dice(world, 5)) {
	case 0:
	case 1:
		daemon_dies(host);
		break;
	case 2:
		qemu_dies(host);
		break;
	case 3:
		qemu_dies(host);
		daemon_dies(host);
		break;
	default:
		link_breaks(world);
	}
}

/* After each action of the protocol. */
static void point(struct world *world)
{
	judge(world);
	if (dice(world, 12) == 0)
		disaster(world);
}

/* ---- what the protocol asks for ---- */

static void op_say(void *user, enum migrate_message message)
{
	static const enum migrate_event heard[] = {
		[MIGRATE_SAY_RESERVE] = MIGRATE_HEARD_RESERVE, [MIGRATE_SAY_GO] = MIGRATE_HEARD_GO,
		[MIGRATE_SAY_ABORT] = MIGRATE_HEARD_ABORT,
		[MIGRATE_SAY_RESERVED] = MIGRATE_HEARD_RESERVED,
		[MIGRATE_SAY_READY] = MIGRATE_HEARD_READY,
		[MIGRATE_SAY_FAILED] = MIGRATE_HEARD_FAILED,
		[MIGRATE_SAY_STARTED] = MIGRATE_HEARD_STARTED,
		[MIGRATE_SAY_DECLINED] = MIGRATE_HEARD_DECLINED,
		[MIGRATE_SAY_ASK] = MIGRATE_HEARD_ASK,
	};
	struct host *host = user;
	struct world *world = host->world;
	struct host *other = &world->hosts[host->is_target ? S : T];

	if (!world->link_up)
		return;
	if (message == MIGRATE_SAY_RESERVE)
		other->begun = true;
	later(other, LATER_EVENT, heard[message], true, 50 * NS_PER_MS);
	if (dice(world, 10) == 0)
		later(other, LATER_EVENT, heard[message], true, 3 * NS_PER_S);
	point(world);
}

static void op_write(void *user, enum migrate_record record)
{
	struct host *host = user;

	CHECK(host->writing == MIGRATE_NO_RECORD);
	CHECK(record != MIGRATE_REVERTED || host->world->hosts[T].durable == MIGRATE_DECLINED);
	host->writing = record;
	later(host, LATER_WRITE, 0, false, 30 * NS_PER_MS);
	point(host->world);
}

static void write_lands(struct host *host)
{
	struct world *world = host->world;
	bool fails = !world->calm && dice(world, 25) == 0;

	/* One that failed may be there all the same. */
	if (!fails || dice(world, 2))
		host->durable = host->writing;
	host->writing = MIGRATE_NO_RECORD;
	point(world);
	tell_host(host, fails ? MIGRATE_WRITE_FAILED : MIGRATE_WRITTEN);
}

static void op_name_heir(void *user)
{
	struct host *host = user;

	CHECK(host->world->owner == S);
	host->world->heir = T;
	happens(host, MIGRATE_HEIR_NAMED);
	point(host->world);
}

static void op_disown_heir(void *user)
{
	struct host *host = user;

	CHECK(host->world->owner == S);
	host->world->heir = NOBODY;
	host->world->renewed_ns = loop_now_ns(host->world->loop);
}

static void op_take_back(void *user)
{
	struct world *world = ((struct host *)user)->world;

	CHECK(world->owner == S || world->owner == T);
	world->owner = S;
	world->heir = NOBODY;
	world->generation++;
	world->renewed_ns = loop_now_ns(world->loop);
}

static void qemu_step(struct host *host);

static void op_begin_copy(void *user)
{
	struct host *host = user;

	if (!host->qemu_lives)
		return;
	host->status = MIGRATE_QEMU_ACTIVE;
	later(host, LATER_QEMU_STEP, 0, false, NS_PER_S);
	point(host->world);
}

static void op_send_last(void *user)
{
	struct host *host = user;
	struct world *world = host->world;

	world->disks_in_flight = true;
	later(&world->hosts[T], LATER_PAGES, 0, true, 400 * NS_PER_MS);
	point(world);
}

static void op_hand_over(void *user)
{
	struct host *host = user;
	struct world *world = host->world;

	if (!host->qemu_lives || host->status != MIGRATE_QEMU_PRE_SWITCHOVER)
		return;
	host->status = MIGRATE_QEMU_DEVICE;
	if (!world->link_up || !world->hosts[T].qemu_lives)
		stream_breaks(world);
	else
		later(host, LATER_QEMU_STEP, 0, false, 10 * NS_PER_MS);
	point(world);
}

static void op_resume(void *user)
{
	struct host *host = user;

	/* R-C3: only what is durable says that it runs here. */
	CHECK(host->durable == MIGRATE_ABORTED || host->durable == MIGRATE_REVERTED);
	switch (migrate_resume_how(host->status)) {
	case MIGRATE_RESUME_CANCEL:
		host->status = MIGRATE_QEMU_CANCELLED;
		host->qemu_life++;
		host->guest_runs = true;
		break;
	case MIGRATE_RESUME_CONT:
		host->status = MIGRATE_QEMU_NONE;
		host->guest_runs = true;
		break;
	case MIGRATE_RESUME_COLD:
		host->cold = host->qemu_lives = host->guest_runs = true;
		host->status = MIGRATE_QEMU_NONE;
		break;
	case MIGRATE_RESUME_NOTHING:
		CHECK(host->guest_runs);
	}
	point(host->world);
}

static void op_release(void *user)
{
	struct host *host = user;

	CHECK(host->world->hosts[T].durable == MIGRATE_STARTED);
	CHECK(!host->guest_runs);
	host->qemu_lives = false;
	host->status = MIGRATE_QEMU_DEAD;
}

static void op_spawn(void *user, bool paused)
{
	struct host *host = user;

	host->qemu_lives = true;
	host->loaded = false;
	host->paused_start = paused;
	point(host->world);
}

static void op_drain_disks(void *user)
{
	struct host *host = user;

	host->world->disks_in_flight = false;
	happens(host, MIGRATE_DISKS_FLUSHED);
	point(host->world);
}

static void op_take_lock(void *user)
{
	struct host *host = user;
	struct world *world = host->world;

	if (world->owner != T && world->heir != T) {
		happens(host, MIGRATE_LOCK_FAILED);
	} else {
		world->generation += world->owner != T;
		world->owner = T;
		happens(host, MIGRATE_LOCK_TAKEN);
	}
	point(world);
}

static void op_run(void *user, bool cold)
{
	struct host *host = user;

	/* It died a moment ago: then it is a machine of this host that has died. */
	if (!cold && !host->qemu_lives)
		return;
	CHECK(cold != host->qemu_lives);
	host->qemu_lives = host->guest_runs = true;
	host->cold |= cold;
	host->world->heir = NOBODY;
	host->world->renewed_ns = loop_now_ns(host->world->loop);
	point(host->world);
}

static void op_discard(void *user)
{
	struct host *host = user;

	CHECK(!host->guest_runs);
	host->qemu_lives = host->loaded = false;
	host->qemu_life++;
	stream_breaks(host->world);
}

static void op_alarm(void *user, const char *what)
{
	(void)user;
	(void)what;
}

static const struct migrate_ops ops = {
	op_say, op_write, op_name_heir, op_disown_heir, op_take_back, op_begin_copy, op_send_last,
	op_hand_over, op_resume, op_release, op_spawn, op_drain_disks, op_take_lock, op_run,
	op_discard, op_alarm,
};

/* ---- the models go on ---- */

static void qemu_step(struct host *host)
{
	struct world *world = host->world;
	struct host *target = &world->hosts[T];

	if (host->status == MIGRATE_QEMU_ACTIVE) {
		if (!migrate_may_pause(world->stuck_request ? 5 * NS_PER_S : 0)) {
			later(host, LATER_QEMU_STEP, 0, false, NS_PER_S);
			world->stuck_request = dice(world, 3) == 0;
			return;
		}
		CHECK(!world->stuck_request);   /* R-C6: QEMU would sit there with its big lock */
		host->guest_runs = false;
		host->status = MIGRATE_QEMU_PRE_SWITCHOVER;
		happens(host, MIGRATE_PAUSED);
	} else if (host->status == MIGRATE_QEMU_DEVICE) {
		if (!target->loaded) {
			target->loaded = true;
			if (!target->paused_start)
				target->guest_runs = true;      /* T6 */
			happens(target, MIGRATE_STATE_LOADED);
			/* The source's end of it comes later, and may still fail (R-C2). */
			later(host, LATER_QEMU_STEP, 0, false, 100 * NS_PER_MS);
		} else if (!world->calm && dice(world, 8) == 0) {
			stream_breaks(world);
		} else {
			host->status = MIGRATE_QEMU_COMPLETED;
			happens(host, MIGRATE_COMPLETED);
		}
	}
}

static void pages_arrive(struct world *world)
{
	if (!world->link_up || !world->hosts[T].daemon_up || !world->hosts[T].qemu_lives)
		return;
	world->pages_there = true;
	later(&world->hosts[S], LATER_EVENT, MIGRATE_DRAINED, true, 10 * NS_PER_MS);
}

static void daemon_comes_up(struct host *host)
{
	struct world *world = host->world;

	host->daemon_up = true;
	if (!host->begun)
		return;
	if (host->is_target) {
		migrate_target_init(&world->target, &ops, host);
		migrate_target_recover(&world->target, host->durable, host->qemu_lives);
	} else {
		migrate_source_init(&world->source, &ops, host);
		migrate_source_recover(&world->source, host->durable);
	}
}

static void later_fired(struct timer *timer)
{
	struct later it = *container_of(timer, struct later, timer);
	unsigned life = it.kind == LATER_QEMU_STEP ? it.host->qemu_life : it.host->life;

	container_of(timer, struct later, timer)->kind = LATER_NONE;
	if (it.life != life && !(it.kind == LATER_EVENT && it.by_wire))
		return;
	if (it.by_wire && !it.world->link_up)
		return;
	switch (it.kind) {
	case LATER_EVENT:
		tell_host(it.host, it.event);
		break;
	case LATER_WRITE:
		write_lands(it.host);
		break;
	case LATER_QEMU_STEP:
		if (it.host->qemu_lives)
			qemu_step(it.host);
		break;
	case LATER_PAGES:
		pages_arrive(it.world);
		break;
	case LATER_UP:
		daemon_comes_up(it.host);
		break;
	case LATER_NONE:
		CHECK_NEVER("nothing fires");
	}
	judge(it.world);
}

/* S renews until it knows that T has started, T from then on. */
static void renew(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, renew);
	bool by_source = world->owner == S && world->hosts[S].daemon_up;
	bool by_target = world->owner == T && world->hosts[T].daemon_up;

	if (by_source || by_target)
		world->renewed_ns = loop_now_ns(world->loop);
	timer_start(timer, 3 * NS_PER_S);
}

/* Another host of the cluster, which would like the disks (R-C7). */
static void third(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, third);

	if (world->heir == NOBODY && loop_now_ns(world->loop) - world->renewed_ns > LEASE_NS)
		world->owner = THIRD;
	judge(world);
	timer_start(timer, NS_PER_S);
}

/* The link comes back; whoever waits speaks again, as a daemon does on every new link. */
static void probe(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, probe);

	if (!world->link_up && (world->calm || dice(world, 3) == 0))
		world->link_up = true;
	if (world->link_up && (world->hosts[T].life || world->hosts[S].life || world->crashes)) {
		tell_host(&world->hosts[S], MIGRATE_LINK_UP);
		tell_host(&world->hosts[T], MIGRATE_LINK_UP);
	}
	if (!world->calm && dice(world, 30) == 0)
		tell_host(&world->hosts[S], MIGRATE_CANCEL);
	timer_start(timer, NS_PER_S);
}

/* ---- a run ---- */

static void world_init(struct world *world, uint64_t seed)
{
	*world = (struct world){ .link_up = true, .owner = S, .heir = NOBODY };
	world->loop = loop_sim_new(seed);
	CHECK(world->loop);
	world->crashes_left = (unsigned)dice(world, CRASHES_MAX + 1);
	world->stuck_request = dice(world, 3) == 0;
	for (unsigned i = 0; i < 2; i++)
		world->hosts[i] = (struct host){ .world = world, .is_target = i == T,
						 .daemon_up = true };
	world->hosts[S].qemu_lives = world->hosts[S].guest_runs = world->hosts[S].begun = true;
	world->renewed_ns = loop_now_ns(world->loop);
	migrate_source_init(&world->source, &ops, &world->hosts[S]);
	migrate_target_init(&world->target, &ops, &world->hosts[T]);
	timer_init(&world->renew, world->loop, renew);
	timer_init(&world->third, world->loop, third);
	timer_init(&world->probe, world->loop, probe);
	timer_start(&world->renew, 0);
	timer_start(&world->third, 0);
	timer_start(&world->probe, NS_PER_S);
}

static void run_for(struct world *world, uint64_t ns)
{
	uint64_t end_ns = loop_now_ns(world->loop) + ns;

	while (loop_now_ns(world->loop) < end_ns) {
		CHECK(loop_sim_step(world->loop));
		judge(world);
	}
}

static void judge_end(const struct world *world)
{
	const struct host *source = &world->hosts[S], *target = &world->hosts[T];

	CHECK(migrate_source_has_ended(&world->source));
	CHECK(source->guest_runs != target->guest_runs);
	CHECK(target->guest_runs == (source->durable == MIGRATE_COMMITTED));
	/* Nothing of the machine's memory was lost but what died with a QEMU. */
	if (world->warm_losses == 0)
		CHECK(!source->cold && !target->cold);
}

static void run_seed(uint64_t seed, uint64_t ends[3])
{
	struct world *world = calloc(1, sizeof(*world));

	CHECK(world);
	world_init(world, seed);
	current = world;
	migrate_source_step(&world->source, MIGRATE_BEGIN);
	run_for(world, WILD_NS);
	world->calm = true;
	/* A machine that died when nothing was decided is started again by whom it belongs to. */
	run_for(world, CALM_NS);
	if (migrate_source_has_ended(&world->source) && !world->hosts[S].qemu_lives &&
	    (world->hosts[S].durable == MIGRATE_ABORTED ||
	     world->hosts[S].durable == MIGRATE_REVERTED))
		op_resume(&world->hosts[S]);
	if (world->hosts[T].durable == MIGRATE_STARTED && !world->hosts[T].qemu_lives)
		op_run(&world->hosts[T], true);
	judge_end(world);
	ends[world->hosts[T].guest_runs ? 1 : world->hosts[S].durable == MIGRATE_REVERTED ? 2 : 0]++;
	for (unsigned i = 0; i < LATERS_MAX; i++)
		if (world->laters[i].kind != LATER_NONE)
			timer_stop(&world->laters[i].timer);
	timer_stop(&world->renew);
	timer_stop(&world->third);
	timer_stop(&world->probe);
	loop_free(world->loop);
	free(world);
	current = NULL;
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	uint64_t ends[3] = { 0 }, met = 0;

	signal(SIGABRT, on_abort);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed, ends);
	}
	for (unsigned s = 0; s < SOURCE_STATE_COUNT; s++)
		for (unsigned t = 0; t < TARGET_STATE_COUNT; t++)
			met += points[s][t] > 0;
	printf("%" PRIu64 " seeds: %" PRIu64 " stayed, %" PRIu64 " moved, %" PRIu64
	       " came back after COMMITTED; %" PRIu64 " pairs of states met\n", seeds, ends[0],
	       ends[1], ends[2], met);
	CHECK(seeds < 200 || (ends[0] > 10 && ends[1] > 10 && ends[2] > 0));
	return 0;
}

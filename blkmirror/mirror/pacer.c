/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/pacer.h"

#define SAMPLE_NS (20 * NS_PER_MS)
#define PACE_NS NS_PER_MS               /* the window starts once in each of these */
#define JOB_MIN (UINT64_C(64) << 10)
#define JOB_MAX (UINT64_C(1) << 20)

#define SETTLE_SAMPLES 2u               /* from a shrinking to the next */

#define LOOK_EVERY_NS (2 * NS_PER_S)
#define LOOK_SOON_NS (NS_PER_S / 2)     /* after the first time */
#define LOOKS_FIRST 5u                  /* samples to look at a new guest; later one will do */
#define LOOKS_IN_VAIN 10u
#define BACK_SAMPLES_MAX 20u            /* its requests, or ours, do not come back: go on softly */
#define FORGET_SAMPLES 100u             /* idle that long: who comes then is somebody else */

/* Our own queueing delay: */
#define QUEUE_IDLE_NS (16 * NS_PER_MS)  /* what a guest that comes may find */
#define QUEUE_GUEST_NS (8 * NS_PER_MS)  /* more does not make the copy faster */
#define QUEUE_UNKNOWN_NS (2 * NS_PER_MS)        /* where the guest says too little */

/* ---- the cap ---- */

static bool pacer_is_capped(const struct pacer *pacer)
{
	return pacer->cap.rate_bytes_per_s != MOVER_RATE_UNLIMITED;
}

static int64_t pacer_debt_limit(const struct pacer *pacer)
{
	return -(int64_t)(pacer->cap.rate_bytes_per_s / 4);
}

/* At most 50 ms of the rate is saved up, at least one job. */
static uint64_t cap_burst(uint64_t rate_bytes_per_s)
{
	return MAX(rate_bytes_per_s / 20, JOB_MAX);
}

/* Tell when the bucket has something again: who asks then may have to wait for the other one. */
static void pacer_wait_for(struct pacer *pacer, const struct token_bucket *bucket,
			   uint64_t least_ns)
{
	if (!pacer->refill.started)
		timer_start(&pacer->refill, MAX(token_bucket_wait_ns(bucket), least_ns));
}

static bool pacer_has_tokens(struct pacer *pacer)
{
	if (!pacer_is_capped(pacer))
		return true;
	if (token_bucket_look(&pacer->cap, loop_now_ns(pacer->loop)) > 0)
		return true;
	pacer_wait_for(pacer, &pacer->cap, NS_PER_MS);
	return false;
}

bool pacer_may_mirror(struct pacer *pacer, uint64_t bytes)
{
	uint64_t now_ns;

	if (!pacer_is_capped(pacer))
		return true;
	now_ns = loop_now_ns(pacer->loop);
	if (token_bucket_look(&pacer->cap, now_ns) < pacer_debt_limit(pacer)) {
		pacer->shed_ns = now_ns;
		return false;
	}
	token_bucket_take(&pacer->cap, bytes);
	return true;
}

bool pacer_is_shedding(const struct pacer *pacer)
{
	return pacer->shed_ns && loop_now_ns(pacer->loop) - pacer->shed_ns < NS_PER_S;
}

void pacer_set_rate(struct pacer *pacer, uint64_t rate_bytes_per_s)
{
	token_bucket_init(&pacer->cap, rate_bytes_per_s, cap_burst(rate_bytes_per_s),
			  loop_now_ns(pacer->loop));
	timer_stop(&pacer->refill);
	pacer->ready(pacer->user);
}

/* ---- what the copier itself does ---- */

/* The end of a sample. */
static void pacer_measure(struct pacer *pacer)
{
	pacer->rate_bytes = (pacer->rate_bytes * 3 + pacer->finished_bytes) / 4;
	pacer->best_rate_bytes -= pacer->best_rate_bytes / 1024;
	pacer->best_rate_bytes = MAX(pacer->best_rate_bytes, pacer->rate_bytes);
	if (pacer->finished_bytes) {
		pacer->delay_ns = (uint64_t)(pacer->byte_ns / pacer->finished_bytes);
		if (!pacer->least_delay_ns || pacer->delay_ns < pacer->least_delay_ns)
			pacer->least_delay_ns = pacer->delay_ns;
	}
	pacer->finished_bytes = 0;
	pacer->byte_ns = 0;
}

/* Do our own requests wait longer than they must, by more than `most_ns`? */
static bool pacer_queues(const struct pacer *pacer, uint64_t most_ns)
{
	return pacer->delay_ns > pacer->least_delay_ns + MAX(most_ns, pacer->least_delay_ns / 2);
}

/* The store has become slower: what it takes at the least is learnt anew, bit by bit. */
static void pacer_raise_least_delay(struct pacer *pacer)
{
	pacer->least_delay_ns += pacer->least_delay_ns / 32;
}

/* ---- the window ---- */

static void pacer_set_window(struct pacer *pacer, uint64_t bytes)
{
	pacer->window_bytes = MIN(MAX(bytes, PACER_WINDOW_MIN), PACER_WINDOW_MAX);
	token_bucket_set_rate(&pacer->pace, pacer->window_bytes * (NS_PER_S / PACE_NS),
			      MAX(pacer->window_bytes / 4, JOB_MIN), loop_now_ns(pacer->loop));
}

/* A third of what the copy can do: less only for a guest that starves. */
static uint64_t pacer_fair_bytes(const struct pacer *pacer)
{
	uint64_t third = pacer->best_rate_bytes / 3 * PACE_NS / SAMPLE_NS;

	return MAX(third, PACER_WINDOW_SMALL);
}

/* Slowly near the ceiling, faster further away from it, on either side. */
static void pacer_grow(struct pacer *pacer)
{
	uint64_t window = pacer->window_bytes, ceiling = pacer->ceiling_bytes;
	uint64_t away = window < ceiling ? ceiling - window : window - ceiling;

	/* What is not used says nothing about what the guest can bear. */
	if (pacer->was_short && !pacer_queues(pacer, QUEUE_GUEST_NS))
		pacer_set_window(pacer, window + away / 8 + window / 128);
}

/* The queue that made it late is gone: back to just below where that was, and no further yet. */
static void pacer_recover(struct pacer *pacer)
{
	uint64_t below = MAX(pacer->ceiling_bytes / 8 * 7, pacer_fair_bytes(pacer));

	if (pacer->window_bytes < below)
		pacer_set_window(pacer, pacer->window_bytes + (below - pacer->window_bytes) / 2);
}

/* Not below `least`, but what is below it already stays. */
static void pacer_shrink(struct pacer *pacer, unsigned eighths, uint64_t least_bytes)
{
	uint64_t bytes = MAX(pacer->window_bytes / 8 * eighths, least_bytes);

	if (pacer->settle_samples)      /* what is late now was late before the last could help */
		return;
	pacer->settle_samples = SETTLE_SAMPLES;
	/* Late again on the way down or back tells little about where the guest's limit is. */
	pacer->ceiling_bytes = MAX(pacer->window_bytes, pacer->ceiling_bytes / 8 * 7);
	pacer_set_window(pacer, MIN(pacer->window_bytes, bytes));
}

/*
 * What the stores do in QUEUE_IDLE_NS at their best, on top of what a request takes.  That is
 * above what keeps them busy; what they do when the machine is short of CPU does not count,
 * else a narrow window would be the reason for a narrower one.
 */
static uint64_t pacer_idle_bytes(const struct pacer *pacer)
{
	uint64_t ns = QUEUE_IDLE_NS + pacer->least_delay_ns + pacer->least_delay_ns / 4;
	uint64_t bytes = (uint64_t)((unsigned __int128)pacer->best_rate_bytes * ns / SAMPLE_NS);

	return MAX(bytes, PACER_WINDOW_START);
}

static void pacer_steer_idle(struct pacer *pacer)
{
	pacer_set_window(pacer, MIN(pacer->window_bytes * 2, pacer_idle_bytes(pacer)));
	if (pacer->window_bytes == PACER_WINDOW_START)
		pacer_raise_least_delay(pacer);
}

/* The guest is there, but says too little. */
static void pacer_steer_blind(struct pacer *pacer)
{
	uint64_t fair_bytes = pacer_fair_bytes(pacer);

	if (!pacer_queues(pacer, QUEUE_UNKNOWN_NS))
		pacer_grow(pacer);
	else if (pacer->window_bytes > fair_bytes)
		pacer_shrink(pacer, 7, fair_bytes);
	else
		pacer_raise_least_delay(pacer);
}

static void pacer_steer(struct pacer *pacer)
{
	if (pacer->settle_samples)
		pacer->settle_samples--;
	switch (pacer->watch.mood) {
	case GUEST_IDLE:
		pacer_steer_idle(pacer);
		return;
	case GUEST_UNKNOWN:
		pacer_steer_blind(pacer);
		return;
	case GUEST_FINE:
		pacer_grow(pacer);
		return;
	case GUEST_TOUCHY:
		pacer_recover(pacer);
		return;
	case GUEST_LATE:
		pacer_shrink(pacer, 6, pacer_fair_bytes(pacer));
		return;
	case GUEST_VERY_LATE:
		pacer_shrink(pacer, 4, pacer_fair_bytes(pacer));
		return;
	case GUEST_STARVES:
		pacer_shrink(pacer, 6, PACER_WINDOW_MIN);
		return;
	case GUEST_STUCK:
		pacer_shrink(pacer, 4, PACER_WINDOW_MIN);
		return;
	}
}

/* ---- stepping back ---- */

static bool pacer_is_back(const struct pacer *pacer)
{
	return pacer->step != PACER_FORWARD;
}

/* At its least, and the guest is late all the same: perhaps it is so alone too. */
static bool pacer_is_in_vain(const struct pacer *pacer)
{
	return pacer->watch.debt > 0 && pacer->window_bytes <= pacer_fair_bytes(pacer);
}

static void pacer_step_back(struct pacer *pacer, uint32_t looks)
{
	pacer->step = PACER_DRAINING;
	pacer->looks_left = looks;
	pacer->back_samples = 0;
}

static void pacer_step_forward(struct pacer *pacer)
{
	pacer->step = PACER_FORWARD;
	pacer->look_again_ns = loop_now_ns(pacer->loop) + pacer->look_every_ns;
	pacer->look_every_ns = LOOK_EVERY_NS;
}

/* The first time: from half of what the stores take, up until it is late. */
static void pacer_meet_guest(struct pacer *pacer)
{
	uint64_t best = pacer->best_rate_bytes * PACE_NS / SAMPLE_NS;

	guest_watch_forget(&pacer->watch);
	pacer->look_every_ns = LOOK_SOON_NS;
	pacer->ceiling_bytes = 0;
	pacer_set_window(pacer, MAX(best / 2, PACER_WINDOW_SMALL));
}

static void pacer_look(struct pacer *pacer)
{
	pacer->back_samples++;
	if (pacer->step == PACER_DRAINING && pacer->in_flight_bytes == 0) {
		pacer->step = PACER_LOOKING;    /* from the next sample on */
		return;
	}
	if (pacer->step == PACER_LOOKING && pacer->watch.mood != GUEST_STUCK) {
		guest_watch_learn(&pacer->watch);
		if (pacer->looks_left && --pacer->looks_left == 0) {
			pacer_step_forward(pacer);
			return;
		}
	}
	if (pacer->back_samples == BACK_SAMPLES_MAX) {
		pacer_set_window(pacer, PACER_WINDOW_MIN);
		pacer_step_forward(pacer);
	}
}

static void pacer_judge(struct pacer *pacer, bool is_new)
{
	bool is_there = pacer->watch.mood != GUEST_IDLE && pacer->watch.quiet_samples == 0;

	if (pacer_is_back(pacer)) {
		pacer_look(pacer);
		return;
	}
	if (is_there && is_new) {
		pacer_meet_guest(pacer);
		pacer_step_back(pacer, LOOKS_FIRST);
	} else if (is_there && loop_now_ns(pacer->loop) >= pacer->look_again_ns) {
		pacer_step_back(pacer, pacer_is_in_vain(pacer) ? LOOKS_IN_VAIN : 1);
	} else {
		pacer_steer(pacer);
	}
}

static void pacer_sampled(struct timer *timer)
{
	struct pacer *pacer = container_of(timer, struct pacer, sample);
	bool was_back = pacer_is_back(pacer);
	bool is_new = pacer->watch.quiet_samples >= FORGET_SAMPLES;
	uint64_t before_bytes = pacer->window_bytes;
	struct io_snapshot now;
	uint64_t in_flight;

	pacer->guest_sample(pacer->user, &now, &in_flight);
	guest_watch_sample(&pacer->watch, &now, in_flight);
	pacer_measure(pacer);
	pacer_judge(pacer, is_new);
	pacer->was_short = false;
	timer_start(&pacer->sample, SAMPLE_NS);
	if (!pacer_is_back(pacer) && (was_back || pacer->window_bytes > before_bytes))
		pacer->ready(pacer->user);
}

/* ---- starting and finishing ---- */

void pacer_rest(struct pacer *pacer, uint64_t rest_ns)
{
	pacer->rest_until_ns = loop_now_ns(pacer->loop) + rest_ns;
}

static bool pacer_is_resting(struct pacer *pacer)
{
	if (loop_now_ns(pacer->loop) >= pacer->rest_until_ns)
		return false;
	if (!pacer->refill.started)
		timer_start_at(&pacer->refill, pacer->rest_until_ns);
	return true;
}

static bool pacer_is_in_pace(struct pacer *pacer)
{
	if (pacer->window_bytes == PACER_WINDOW_MAX)
		return true;
	if (token_bucket_look(&pacer->pace, loop_now_ns(pacer->loop)) > 0)
		return true;
	pacer->was_short = true;
	pacer_wait_for(pacer, &pacer->pace, 0);
	return false;
}

bool pacer_may_start(struct pacer *pacer, uint64_t bytes)
{
	if (pacer_is_resting(pacer) || pacer_is_back(pacer))
		return false;
	/* One request is always allowed: the copy must go on. */
	if (pacer->in_flight_bytes &&
	    pacer->in_flight_bytes + bytes > pacer->window_bytes) {
		pacer->refused = true;
		pacer->was_short = true;
		return false;
	}
	return pacer_has_tokens(pacer) && pacer_is_in_pace(pacer);
}

void pacer_started(struct pacer *pacer, uint64_t bytes)
{
	pacer->in_flight_bytes += bytes;
	token_bucket_take(&pacer->pace, bytes);
	if (pacer_is_capped(pacer))
		token_bucket_take(&pacer->cap, bytes);
}

void pacer_finished(struct pacer *pacer, uint64_t bytes, uint64_t started_ns)
{
	uint64_t took_ns = loop_now_ns(pacer->loop) - started_ns;

	CHECK(pacer->in_flight_bytes >= bytes);
	pacer->in_flight_bytes -= bytes;
	pacer->finished_bytes += bytes;
	pacer->byte_ns += (unsigned __int128)bytes * took_ns;
	if (bytes && pacer->refused) {
		pacer->refused = false;
		pacer->ready(pacer->user);
	}
}

uint64_t pacer_job_bytes(const struct pacer *pacer)
{
	uint64_t bytes = JOB_MIN;

	while (bytes < JOB_MAX && bytes * 4 <= pacer->window_bytes)
		bytes *= 2;
	return bytes;
}

static void pacer_refilled(struct timer *timer)
{
	struct pacer *pacer = container_of(timer, struct pacer, refill);

	pacer->ready(pacer->user);
}

/* ---- life ---- */

void pacer_init(struct pacer *pacer, struct loop *loop, uint64_t rate_bytes_per_s,
		void (*ready)(void *user),
		void (*guest_sample)(void *user, struct io_snapshot *out, uint64_t *in_flight),
		void *user)
{
	uint64_t now_ns = loop_now_ns(loop);

	*pacer = (struct pacer){
		.loop = loop, .ready = ready, .user = user, .guest_sample = guest_sample,
	};
	token_bucket_init(&pacer->cap, rate_bytes_per_s, cap_burst(rate_bytes_per_s), now_ns);
	token_bucket_init(&pacer->pace, 1, JOB_MAX, now_ns);
	pacer_set_window(pacer, PACER_WINDOW_START);
	timer_init(&pacer->refill, loop, pacer_refilled);
	timer_init(&pacer->sample, loop, pacer_sampled);
}

void pacer_start(struct pacer *pacer)
{
	struct io_snapshot now;
	uint64_t in_flight;

	pacer->guest_sample(pacer->user, &now, &in_flight);
	guest_watch_init(&pacer->watch, &now, SAMPLE_NS);
	pacer->watch.quiet_samples = FORGET_SAMPLES;
	timer_start(&pacer->sample, SAMPLE_NS);
}

void pacer_stop(struct pacer *pacer)
{
	timer_stop(&pacer->refill);
	timer_stop(&pacer->sample);
}

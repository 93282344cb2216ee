/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/pacer.h"

#define SAMPLE_NS (20 * NS_PER_MS)
#define JOB_MIN (UINT64_C(256) << 10)
#define JOB_MAX (UINT64_C(1) << 20)
#define IDLE_OPS 2u                     /* fewer guest requests in a sample: nobody to disturb */

/* ---- the cap ---- */

static int64_t pacer_debt_limit(const struct pacer *pacer)
{
	return -(int64_t)(pacer->rate_bytes_per_s / 4);
}

/* At most 50 ms of the rate is saved up, at least one job. */
static int64_t pacer_burst(const struct pacer *pacer)
{
	return (int64_t)MAX(pacer->rate_bytes_per_s / 20, JOB_MAX);
}

static void pacer_refill(struct pacer *pacer)
{
	uint64_t now_ns = loop_now_ns(pacer->loop);
	unsigned __int128 earned = (unsigned __int128)(now_ns - pacer->refilled_ns) *
				   pacer->rate_bytes_per_s / NS_PER_S;

	if (earned == 0)
		return;
	/* Only the time of whole bytes is used up: what remains of it counts the next time. */
	pacer->refilled_ns += (uint64_t)(earned * NS_PER_S / pacer->rate_bytes_per_s);
	if (earned > (unsigned __int128)(pacer_burst(pacer) - pacer->tokens_bytes))
		pacer->tokens_bytes = pacer_burst(pacer);
	else
		pacer->tokens_bytes += (int64_t)earned;
}

static bool pacer_is_capped(const struct pacer *pacer)
{
	return pacer->rate_bytes_per_s != MOVER_RATE_UNLIMITED;
}

static void pacer_refilled(struct timer *timer)
{
	struct pacer *pacer = container_of(timer, struct pacer, refill);

	pacer->ready(pacer->user);
}

static bool pacer_has_tokens(struct pacer *pacer)
{
	unsigned __int128 wait_ns;

	if (!pacer_is_capped(pacer))
		return true;
	pacer_refill(pacer);
	if (pacer->tokens_bytes > 0)
		return true;
	wait_ns = (unsigned __int128)(1 - pacer->tokens_bytes) * NS_PER_S / pacer->rate_bytes_per_s;
	if (!pacer->refill.started)
		timer_start(&pacer->refill, (uint64_t)MIN(MAX(wait_ns, NS_PER_MS), UINT64_MAX));
	return false;
}

bool pacer_may_mirror(struct pacer *pacer, uint64_t bytes)
{
	if (!pacer_is_capped(pacer))
		return true;
	pacer_refill(pacer);
	if (pacer->tokens_bytes < pacer_debt_limit(pacer)) {
		pacer->shed_ns = loop_now_ns(pacer->loop);
		return false;
	}
	pacer->tokens_bytes -= (int64_t)bytes;
	return true;
}

bool pacer_is_shedding(const struct pacer *pacer)
{
	return pacer->shed_ns && loop_now_ns(pacer->loop) - pacer->shed_ns < NS_PER_S;
}

void pacer_set_rate(struct pacer *pacer, uint64_t rate_bytes_per_s)
{
	CHECK(rate_bytes_per_s > 0);
	pacer->rate_bytes_per_s = rate_bytes_per_s;
	pacer->tokens_bytes = 0;
	pacer->refilled_ns = loop_now_ns(pacer->loop);
	timer_stop(&pacer->refill);
	pacer->ready(pacer->user);
}

/* ---- the window ---- */

static void pacer_grow(struct pacer *pacer, uint64_t by_bytes)
{
	pacer->window_bytes = MIN(pacer->window_bytes + by_bytes, PACER_WINDOW_MAX);
}

static void pacer_shrink(struct pacer *pacer)
{
	pacer->window_bytes = MAX(pacer->window_bytes * 3 / 4, PACER_WINDOW_MIN);
}

/* Additive increase, multiplicative decrease on the guest's mean latency. */
static void pacer_steer(struct pacer *pacer, uint64_t ops, uint64_t latency_sum_ns)
{
	uint64_t mean_ns;

	if (ops < IDLE_OPS) {
		pacer_grow(pacer, pacer->window_bytes / 2);
		return;
	}
	mean_ns = latency_sum_ns / ops;
	/*
	 * The floor follows down at once.  It follows up, for a guest changes what it does, only
	 * while the copier is at its least: else what the copier itself costs would become the
	 * floor, and the copier would press the guest ever harder.
	 */
	if (pacer->guest_base_ns == 0 || mean_ns < pacer->guest_base_ns)
		pacer->guest_base_ns = mean_ns;
	else if (pacer->window_bytes == PACER_WINDOW_MIN)
		pacer->guest_base_ns += pacer->guest_base_ns / 32 + 1;
	if (mean_ns > pacer->guest_base_ns * 2)
		pacer_shrink(pacer);
	else if (mean_ns < pacer->guest_base_ns * 3 / 2)
		pacer_grow(pacer, PACER_WINDOW_MIN / 4);
}

static void pacer_sampled(struct timer *timer)
{
	struct pacer *pacer = container_of(timer, struct pacer, sample);
	uint64_t sum_ns;
	uint64_t ops = pacer->guest_sample(pacer->user, &sum_ns);
	uint64_t before_bytes = pacer->window_bytes;

	pacer_steer(pacer, ops - pacer->guest_ops, sum_ns - pacer->guest_latency_sum_ns);
	pacer->guest_ops = ops;
	pacer->guest_latency_sum_ns = sum_ns;
	timer_start(&pacer->sample, SAMPLE_NS);
	if (pacer->window_bytes > before_bytes)
		pacer->ready(pacer->user);
}

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

bool pacer_may_start(struct pacer *pacer, uint64_t bytes)
{
	if (pacer_is_resting(pacer))
		return false;
	/* One request is always allowed: the copy must go on. */
	if (pacer->in_flight_bytes &&
	    pacer->in_flight_bytes + bytes > pacer->window_bytes) {
		pacer->refused = true;
		return false;
	}
	return pacer_has_tokens(pacer);
}

void pacer_started(struct pacer *pacer, uint64_t bytes)
{
	pacer->in_flight_bytes += bytes;
	if (pacer_is_capped(pacer))
		pacer->tokens_bytes -= (int64_t)bytes;
}

void pacer_finished(struct pacer *pacer, uint64_t bytes)
{
	CHECK(pacer->in_flight_bytes >= bytes);
	pacer->in_flight_bytes -= bytes;
	if (bytes && pacer->refused) {
		pacer->refused = false;
		pacer->ready(pacer->user);
	}
}

uint64_t pacer_job_bytes(const struct pacer *pacer)
{
	uint64_t bytes = JOB_MIN;

	while (bytes < JOB_MAX && bytes * 8 <= pacer->window_bytes)
		bytes *= 2;
	return bytes;
}

/* ---- life ---- */

void pacer_init(struct pacer *pacer, struct loop *loop, uint64_t rate_bytes_per_s,
		void (*ready)(void *user),
		uint64_t (*guest_sample)(void *user, uint64_t *latency_sum_ns), void *user)
{
	CHECK(rate_bytes_per_s > 0);
	*pacer = (struct pacer){
		.loop = loop, .ready = ready, .user = user, .guest_sample = guest_sample,
		.rate_bytes_per_s = rate_bytes_per_s, .refilled_ns = loop_now_ns(loop),
		.window_bytes = PACER_WINDOW_START,
	};
	timer_init(&pacer->refill, loop, pacer_refilled);
	timer_init(&pacer->sample, loop, pacer_sampled);
}

void pacer_start(struct pacer *pacer)
{
	pacer->guest_ops = pacer->guest_sample(pacer->user, &pacer->guest_latency_sum_ns);
	timer_start(&pacer->sample, SAMPLE_NS);
}

void pacer_stop(struct pacer *pacer)
{
	timer_stop(&pacer->refill);
	timer_stop(&pacer->sample);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: when to go on, throttle, stop and give up, and which codec, as tables of numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "blkmirror/base/loop.h"
#include "vmotion/mem_policy.h"

#define MIB (UINT64_C(1) << 20)
#define MS NS_PER_MS
#define LINK (1000 * MIB)       /* a MiB takes a ms */

static void test_verdicts(void **unused)
{
	static const struct {
		const char *what;
		struct mem_facts facts;
		enum mem_verdict verdict;
		uint32_t throttle_min, throttle_max;
	} rows[] = {
		{ "nothing was sent yet, little is left",
		  { .left_bytes = MIB, .page_rate = LINK }, MEM_ROUND, 0, 0 },
		{ "little is left",
		  { .left_bytes = 10 * MIB, .page_rate = LINK, .rounds = 1, .first_done = true },
		  MEM_STOP, 0, 0 },
		{ "just within the budget",
		  { .left_bytes = 35 * MIB, .page_rate = LINK, .fixed_ns = 5 * MS, .rounds = 1,
		    .first_done = true }, MEM_STOP, 0, 0 },
		{ "what is fixed counts",
		  { .left_bytes = 35 * MIB, .page_rate = LINK, .fixed_ns = 6 * MS, .rounds = 1,
		    .first_done = true }, MEM_ROUND, 0, 0 },
		{ "it still gets less",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 900 * MIB, .rounds = 2,
		    .stalled_rounds = 1, .first_done = true }, MEM_ROUND, 0, 0 },
		{ "it does not: throttled as far as needed",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 1000 * MIB, .rounds = 4,
		    .stalled_rounds = 2, .first_done = true }, MEM_ROUND, 50, 51 },
		{ "four times too fast",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 2000 * MIB, .rounds = 4,
		    .stalled_rounds = 2, .first_done = true }, MEM_ROUND, 75, 76 },
		{ "throttled already, and still too fast",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 1000 * MIB, .rounds = 7,
		    .stalled_rounds = 2, .throttle_percent = 50, .first_done = true },
		  MEM_ROUND, 75, 76 },
		{ "never less than now",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 100 * MIB, .rounds = 7,
		    .stalled_rounds = 2, .throttle_percent = 60, .first_done = true },
		  MEM_ROUND, 65, 70 },
		{ "never more than the strongest",
		  { .left_bytes = 500 * MIB, .page_rate = MIB, .dirty_rate = 1000 * MIB, .rounds = 7,
		    .stalled_rounds = 2, .first_done = true }, MEM_ROUND, 90, 90 },
		{ "hopeless",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 1000 * MIB, .rounds = 20,
		    .stalled_rounds = MEM_STALLED_ROUNDS + MEM_HOPELESS_ROUNDS,
		    .throttle_percent = 90, .first_done = true }, MEM_GIVE_UP, 0, 0 },
		{ "not hopeless while it can be throttled more",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 1000 * MIB, .rounds = 20,
		    .stalled_rounds = MEM_STALLED_ROUNDS + MEM_HOPELESS_ROUNDS,
		    .throttle_percent = 50, .first_done = true }, MEM_ROUND, 75, 76 },
		{ "too many rounds",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .rounds = 50, .first_done = true },
		  MEM_GIVE_UP, 0, 0 },
		{ "many rounds, but now it would do",
		  { .left_bytes = MIB, .page_rate = LINK, .rounds = 50, .first_done = true },
		  MEM_STOP, 0, 0 },
		{ "the disks are not there yet",
		  { .left_bytes = MIB, .page_rate = LINK, .rounds = 3, .first_done = true,
		    .disks_copying = true }, MEM_WAIT, 0, 0 },
		{ "never throttled beside a copy of disks",
		  { .left_bytes = 500 * MIB, .page_rate = LINK, .dirty_rate = 5000 * MIB, .rounds = 90,
		    .stalled_rounds = 80, .throttle_percent = 90, .first_done = true,
		    .disks_copying = true }, MEM_ROUND, 0, 0 },
		{ "a dead link",
		  { .left_bytes = MIB, .page_rate = 0, .rounds = 3, .first_done = true },
		  MEM_ROUND, 0, 0 },
		{ "a dead link and nothing left",
		  { .left_bytes = 0, .page_rate = 0, .rounds = 3, .first_done = true },
		  MEM_STOP, 0, 0 },
	};
	const struct mem_policy_options options = {
		.blackout_ns = 40 * MS, .max_rounds = 50, .max_throttle_percent = 90,
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct mem_decision decision = mem_policy_decide(&options, &rows[i].facts);

		if (decision.verdict != rows[i].verdict ||
		    decision.throttle_percent < rows[i].throttle_min ||
		    decision.throttle_percent > rows[i].throttle_max)
			fail_msg("%s: verdict %d, throttle %u", rows[i].what, (int)decision.verdict,
				 decision.throttle_percent);
	}
}

static void test_blackouts_do_not_wrap(void **unused)
{
	struct mem_facts facts = { .left_bytes = UINT64_MAX / 2, .page_rate = 1 };

	(void)unused;
	assert_true(mem_policy_blackout_ns(&facts) == UINT64_MAX);
	facts.left_bytes = UINT64_C(1) << 45;   /* 32 TiB at 1 GiB/s: 9 h */
	facts.page_rate = UINT64_C(1) << 30;
	assert_true(mem_policy_blackout_ns(&facts) / NS_PER_S == 32768);
	facts.fixed_ns = UINT64_MAX;
	assert_true(mem_policy_blackout_ns(&facts) == UINT64_MAX);
}

/* A guest as the model has it: what rounds leave, throttled or not. */
static uint32_t run_guest(uint64_t dirty_rate, uint64_t link_rate, uint64_t working_set,
			  const struct mem_policy_options *options, struct mem_decision *last)
{
	struct mem_facts facts = {
		.left_bytes = working_set * 2, .best_left_bytes = UINT64_MAX, .page_rate = link_rate,
		.fixed_ns = 8 * MS,
	};

	for (;;) {
		uint64_t ns;

		mem_policy_note(&facts);
		facts.dirty_rate = dirty_rate * (100 - facts.throttle_percent) / 100;
		*last = mem_policy_decide(options, &facts);
		facts.throttle_percent = last->throttle_percent;
		if (last->verdict != MEM_ROUND)
			return facts.rounds;
		ns = facts.left_bytes * NS_PER_S / link_rate;
		facts.left_bytes = MIN(working_set, facts.dirty_rate / 1000 * (ns / MS));
		facts.rounds++;
		facts.first_done = true;
		assert_true(facts.rounds < 200);
	}
}

static void test_guests_converge_or_are_given_up(void **unused)
{
	struct mem_policy_options options = { .blackout_ns = 40 * MS, .max_throttle_percent = 95 };
	struct mem_decision last;
	uint32_t rounds;

	(void)unused;
	/* Slower than the link: without any throttle. */
	rounds = run_guest(200 * MIB, 250 * MIB, 200 * MIB, &options, &last);
	assert_int_equal(last.verdict, MEM_STOP);
	assert_int_equal(last.throttle_percent, 0);
	assert_true(rounds < 30);
	/* Faster: throttled, and it gets there within the budget. */
	rounds = run_guest(1000 * MIB, 250 * MIB, 400 * MIB, &options, &last);
	assert_int_equal(last.verdict, MEM_STOP);
	assert_true(last.throttle_percent >= 80);
	assert_true(last.blackout_ns <= options.blackout_ns);
	assert_true(rounds < 60);
	/* And where that is forbidden, it ends, with the throttle off. */
	options.max_throttle_percent = 0;
	rounds = run_guest(1000 * MIB, 250 * MIB, 400 * MIB, &options, &last);
	assert_int_equal(last.verdict, MEM_GIVE_UP);
	assert_int_equal(last.throttle_percent, 0);
	assert_true(rounds < 20);
}

static void test_codecs(void **unused)
{
	static const struct {
		const char *what;
		struct mem_codec_facts facts;
		enum mem_codec current, best;
	} rows[] = {
		{ "the link never made us wait: what costs least",
		  { { 150, 1000, 2000 }, { 1024, 512, 384 }, 0 }, MEM_CODEC_ZSTD, MEM_CODEC_NONE },
		{ "a slow link: what is shortest",
		  { { 150, 1000, 2000 }, { 1024, 512, 384 }, 102400 }, MEM_CODEC_NONE, MEM_CODEC_ZSTD },
		{ "in between: what both can bear",
		  { { 1024, 1024, 8000 }, { 1024, 512, 384 }, 4096 }, MEM_CODEC_NONE, MEM_CODEC_LZ4 },
		{ "nothing gets smaller: then at no cost",
		  { { 150, 1000, 2000 }, { 1024, 1024, 1024 }, 1024 }, MEM_CODEC_ZSTD, MEM_CODEC_NONE },
		{ "hardly better is not worth a change",
		  { { 150, 1000, 1000 }, { 1024, 512, 500 }, 102400 }, MEM_CODEC_LZ4, MEM_CODEC_LZ4 },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		if (mem_policy_codec(&rows[i].facts, rows[i].current) != rows[i].best)
			fail_msg("%s", rows[i].what);
}

static void test_codec_facts_follow_what_is_measured(void **unused)
{
	struct mem_codec_facts facts;
	uint32_t before;

	(void)unused;
	mem_codec_facts_init(&facts);
	before = facts.ratio[MEM_CODEC_ZSTD];
	mem_codec_facts_note(&facts, MEM_CODEC_ZSTD, 4096, 4096, 1);
	assert_int_equal(facts.ratio[MEM_CODEC_ZSTD], before);  /* too little to judge by */
	for (int i = 0; i < 60; i++)
		mem_codec_facts_note(&facts, MEM_CODEC_ZSTD, MIB, MIB, 10 * MS);
	assert_in_range(facts.ratio[MEM_CODEC_ZSTD], 1010, 1024);
	assert_in_range(facts.encode_ns[MEM_CODEC_ZSTD], 9 * MS, 10 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_blackouts_do_not_wrap),
		cmocka_unit_test(test_guests_converge_or_are_given_up),
		cmocka_unit_test(test_codecs),
		cmocka_unit_test(test_codec_facts_follow_what_is_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

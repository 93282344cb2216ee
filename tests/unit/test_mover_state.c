/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the mover's table keeps its promises whatever is added to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "blkmirror/mirror/mover_private.h"

#define for_each_state(state) \
	for (enum mover_state state = MOVER_COPY; state < MOVER_STATE_COUNT; state++)

static bool has_ended(enum mover_state state)
{
	return state == MOVER_DONE || state == MOVER_FAILED || state == MOVER_CANCELLED;
}

/* Every state has a name, nothing moves to itself, and all but the ends lead somewhere. */
static void test_total(void **unused)
{
	(void)unused;
	for_each_state(from) {
		bool leads = false;

		assert_non_null(mover_state_name(from));
		assert_false(mover_may_move(from, from));
		for_each_state(to)
			leads = leads || mover_may_move(from, to);
		assert_int_equal(leads, !has_ended(from));
	}
}

static void test_promises(void **unused)
{
	(void)unused;
	for_each_state(from) {
		for_each_state(to) {
			if (!mover_may_move(from, to))
				continue;
			/* R-J3: into the commit only from the switch, and back only for an ABORT. */
			if (to == MOVER_COMMIT)
				assert_int_equal(from, MOVER_SWITCH);
			if (from == MOVER_COMMIT)
				assert_true(to == MOVER_SWITCHED || to == MOVER_VERIFY);
			/* The target becomes authoritative by a commit alone, for good. */
			if (to == MOVER_SWITCHED)
				assert_int_equal(from, MOVER_COMMIT);
			if (from == MOVER_SWITCHED)
				assert_int_equal(to, MOVER_DONE);
			if (to == MOVER_DONE)
				assert_int_equal(from, MOVER_SWITCHED);
			/* A pause never ends in a switch without a look at what is dirty. */
			if (from == MOVER_PAUSED)
				assert_true(to == MOVER_COPY || to == MOVER_FAILED ||
					    to == MOVER_CANCELLED);
		}
	}
	/* Until the commit an operator can always get out. */
	for_each_state(from)
		if (from < MOVER_COMMIT || from == MOVER_PAUSED)
			assert_true(mover_may_move(from, MOVER_CANCELLED));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_total),
		cmocka_unit_test(test_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

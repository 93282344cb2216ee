/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the mirror's table has no hole, and its promises can be read off it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "blkmirror/mirror/mirror.h"

static void test_total(void **unused)
{
	(void)unused;
	for (int state = MIRROR_UNDECIDED + 1; state < MIRROR_STATE_COUNT; state++) {
		for (int event = 0; event < MIRROR_EVENT_COUNT; event++) {
			enum mirror_state next = mirror_next_state((enum mirror_state)state,
								   (enum mirror_event)event);

			assert_true(next > MIRROR_UNDECIDED);
			assert_true(next < MIRROR_STATE_COUNT);
		}
		assert_non_null(mirror_state_name((enum mirror_state)state));
	}
}

/* Only an active mirror switches; what has switched or retired stays so. */
static void test_promises(void **unused)
{
	(void)unused;
	for (int state = MIRROR_UNDECIDED + 1; state < MIRROR_STATE_COUNT; state++) {
		for (int event = 0; event < MIRROR_EVENT_COUNT; event++) {
			enum mirror_state next = mirror_next_state((enum mirror_state)state,
								   (enum mirror_event)event);

			if (next == MIRROR_SWITCHED && state != MIRROR_SWITCHED) {
				assert_int_equal(state, MIRROR_ACTIVE);
				assert_int_equal(event, MIRROR_EV_SWITCH);
			}
			if (state == MIRROR_SWITCHED || state == MIRROR_RETIRED)
				assert_int_equal(next, state);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_total),
		cmocka_unit_test(test_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

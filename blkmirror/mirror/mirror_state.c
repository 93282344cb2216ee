/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/mirror.h"

#define A MIRROR_ACTIVE
#define S MIRROR_SUSPENDED
#define C MIRROR_COPY_ONLY
#define W MIRROR_SWITCHED
#define R MIRROR_RETIRED

/*
 * Row: state now.  Column: event.  A cell equal to its row ignores the event.  Only an active
 * mirror switches (the others' guests dirty regions as they write); nothing leaves W or R.
 */
// clang-format off
static const uint8_t next_state[MIRROR_STATE_COUNT][MIRROR_EVENT_COUNT] = {
	/*                    SUSPEND COPY_ONLY RESUME SWITCH RETIRE */
	[MIRROR_ACTIVE]    = { S,      C,        A,     W,     R },
	[MIRROR_SUSPENDED] = { S,      C,        A,     S,     R },
	[MIRROR_COPY_ONLY] = { S,      C,        A,     C,     R },
	[MIRROR_SWITCHED]  = { W,      W,        W,     W,     W },
	[MIRROR_RETIRED]   = { R,      R,        R,     R,     R },
};
// clang-format on

enum mirror_state mirror_next_state(enum mirror_state state, enum mirror_event event)
{
	CHECK(state > MIRROR_UNDECIDED && state < MIRROR_STATE_COUNT);
	CHECK(event < MIRROR_EVENT_COUNT);
	CHECK(next_state[state][event] != MIRROR_UNDECIDED);
	return (enum mirror_state)next_state[state][event];
}

const char *mirror_state_name(enum mirror_state state)
{
	static const char *const names[MIRROR_STATE_COUNT] = {
		[MIRROR_UNDECIDED] = "undecided", [MIRROR_ACTIVE] = "active",
		[MIRROR_SUSPENDED] = "suspended", [MIRROR_COPY_ONLY] = "copy only",
		[MIRROR_SWITCHED] = "switched", [MIRROR_RETIRED] = "retired",
	};

	CHECK(state < MIRROR_STATE_COUNT);
	return names[state];
}

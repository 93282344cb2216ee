/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/mirror/mover_private.h"

static const char *const names[MOVER_STATE_COUNT] = {
	[MOVER_COPY] = "copy",         [MOVER_VERIFY] = "verify", [MOVER_HOLD] = "hold",
	[MOVER_SWITCH] = "switch",     [MOVER_COMMIT] = "commit", [MOVER_SWITCHED] = "switched",
	[MOVER_DONE] = "done",         [MOVER_PAUSED] = "paused", [MOVER_FAILED] = "failed",
	[MOVER_CANCELLED] = "cancelled",
};

const char *mover_state_name(enum mover_state state)
{
	CHECK(state < MOVER_STATE_COUNT);
	return names[state];
}

/*
 * Row: from.  Column: to.  The promises read off it: nothing but COMMIT leads to SWITCHED, and
 * COMMIT leads back only to VERIFY (a durable ABORT record, R-J3), never to FAILED or CANCELLED;
 * what has ended stays ended.
 */
// clang-format off
static const bool may_move[MOVER_STATE_COUNT][MOVER_STATE_COUNT] = {
	/*                   COPY VERIFY HOLD SWITCH COMMIT SWITCHED DONE PAUSED FAILED CANCELLED */
	[MOVER_COPY]      = { 0,   1,     1,   1,     0,     0,       0,   1,     1,     1 },
	[MOVER_VERIFY]    = { 1,   0,     1,   1,     0,     0,       0,   1,     1,     1 },
	[MOVER_HOLD]      = { 1,   1,     0,   1,     0,     0,       0,   1,     1,     1 },
	[MOVER_SWITCH]    = { 1,   1,     1,   0,     1,     0,       0,   1,     1,     1 },
	[MOVER_COMMIT]    = { 0,   1,     0,   0,     0,     1,       0,   0,     0,     0 },
	[MOVER_SWITCHED]  = { 0,   0,     0,   0,     0,     0,       1,   0,     0,     0 },
	[MOVER_DONE]      = { 0,   0,     0,   0,     0,     0,       0,   0,     0,     0 },
	[MOVER_PAUSED]    = { 1,   0,     0,   0,     0,     0,       0,   0,     1,     1 },
	[MOVER_FAILED]    = { 0,   0,     0,   0,     0,     0,       0,   0,     0,     0 },
	[MOVER_CANCELLED] = { 0,   0,     0,   0,     0,     0,       0,   0,     0,     0 },
};
// clang-format on

bool mover_may_move(enum mover_state from, enum mover_state to)
{
	CHECK(from < MOVER_STATE_COUNT);
	CHECK(to < MOVER_STATE_COUNT);
	return may_move[from][to];
}

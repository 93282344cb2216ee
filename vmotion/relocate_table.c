/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relocate_table.c - the stages of a relocation as a total table, and what an operator may say.
 *
 * Notices from the I/O loop are coalesced, so any stage of a live mover may follow any other.
 * What never happens: a way back from COMMITTED (R-J3), or out of UNDOING and PARKING but to
 * the end; nothing is parked once a switch-over has begun.
 */
#include "vmotion/relocate_private.h"

// clang-format off
#define P STAGE_PREPARING
#define M STAGE_MOVING
#define H STAGE_HELD
#define A STAGE_PAUSED
#define S STAGE_SWITCHING
#define I STAGE_COMMITTING
#define C STAGE_COMMITTED
#define U STAGE_UNDOING
#define K STAGE_PARKING
#define L STAGE_LINGERING
#define E STAGE_ENDED

/* Row: stage now.  Column: event.  A cell equal to its row ignores the event. */
static const uint8_t next[STAGE_COUNT][EVENT_COUNT] = {
	/*                    RUN HOLD PAUSE SWITCH COMMIT COMMITTED GIVE_UP PARK LINGER END */
	[STAGE_PREPARING]  = { M,  H,   A,    S,     I,     C,        U,      P,   P,     P },
	[STAGE_MOVING]     = { M,  H,   A,    S,     I,     C,        U,      K,   M,     M },
	[STAGE_HELD]       = { M,  H,   A,    S,     I,     C,        U,      K,   H,     H },
	[STAGE_PAUSED]     = { M,  H,   A,    S,     I,     C,        U,      K,   A,     A },
	[STAGE_SWITCHING]  = { M,  H,   A,    S,     I,     C,        U,      S,   S,     S },
	[STAGE_COMMITTING] = { M,  H,   A,    S,     I,     C,        U,      I,   I,     I },
	[STAGE_COMMITTED]  = { C,  C,   C,    C,     C,     C,        C,      C,   L,     E },
	[STAGE_UNDOING]    = { U,  U,   U,    U,     U,     U,        U,      U,   L,     E },
	[STAGE_PARKING]    = { K,  K,   K,    K,     K,     K,        K,      K,   L,     E },
	[STAGE_LINGERING]  = { L,  L,   L,    L,     L,     L,        L,      L,   L,     E },
	[STAGE_ENDED]      = { E,  E,   E,    E,     E,     E,        E,      E,   E,     E },
};

#define OK ERR_NONE
#define STATE ERR_TASK_STATE
#define COMMITTED ERR_TASK_COMMITTED
#define ENDED ERR_TASK_ENDED

static const uint16_t refusal[STAGE_COUNT][VERB_COUNT] = {
	/*                     PAUSE      RESUME     CANCEL     COMPLETE   SET */
	[STAGE_PREPARING]  = { STATE,     STATE,     OK,        STATE,     OK },
	[STAGE_MOVING]     = { OK,        STATE,     OK,        OK,        OK },
	[STAGE_HELD]       = { OK,        STATE,     OK,        OK,        OK },
	[STAGE_PAUSED]     = { STATE,     OK,        OK,        STATE,     OK },
	[STAGE_SWITCHING]  = { STATE,     STATE,     OK,        STATE,     OK },
	[STAGE_COMMITTING] = { COMMITTED, COMMITTED, COMMITTED, COMMITTED, COMMITTED },
	[STAGE_COMMITTED]  = { COMMITTED, COMMITTED, COMMITTED, COMMITTED, COMMITTED },
	[STAGE_UNDOING]    = { STATE,     STATE,     STATE,     STATE,     STATE },
	[STAGE_PARKING]    = { STATE,     STATE,     STATE,     STATE,     STATE },
	[STAGE_LINGERING]  = { ENDED,     ENDED,     ENDED,     ENDED,     ENDED },
	[STAGE_ENDED]      = { ENDED,     ENDED,     ENDED,     ENDED,     ENDED },
};
// clang-format on

#undef P
#undef M
#undef H
#undef A
#undef S
#undef I
#undef C
#undef U
#undef K
#undef L
#undef E

static const char *const stage_names[STAGE_COUNT] = {
	[STAGE_UNDECIDED] = "undecided",   [STAGE_PREPARING] = "preparing",
	[STAGE_MOVING] = "moving",         [STAGE_HELD] = "held",
	[STAGE_PAUSED] = "paused",         [STAGE_SWITCHING] = "switching",
	[STAGE_COMMITTING] = "committing", [STAGE_COMMITTED] = "committed",
	[STAGE_UNDOING] = "undoing",       [STAGE_PARKING] = "parking",
	[STAGE_LINGERING] = "lingering",   [STAGE_ENDED] = "ended",
};

static const char *const phase_names[RELOCATE_PHASE_COUNT] = {
	[RELOCATE_CHECK] = "check",           [RELOCATE_RESERVE] = "reserve",
	[RELOCATE_COPY] = "copy",             [RELOCATE_MIRROR] = "mirror",
	[RELOCATE_SWITCHOVER] = "switchover", [RELOCATE_VERIFY] = "verify",
	[RELOCATE_CLEANUP] = "cleanup",
};

static const char *const state_names[RELOCATE_STATE_COUNT] = {
	[RELOCATE_RUNNING] = "running",     [RELOCATE_HELD] = "held",
	[RELOCATE_PAUSED] = "paused",       [RELOCATE_COMPLETED] = "completed",
	[RELOCATE_FAILED] = "failed",       [RELOCATE_CANCELLED] = "cancelled",
};

enum relocate_stage relocate_next_stage(enum relocate_stage stage, enum relocate_event event)
{
	CHECK(stage > STAGE_UNDECIDED);
	CHECK(stage < STAGE_COUNT);
	CHECK(event < EVENT_COUNT);
	CHECK(next[stage][event] != STAGE_UNDECIDED);
	return (enum relocate_stage)next[stage][event];
}

enum err_id relocate_verb_refusal(enum relocate_stage stage, enum relocate_verb verb)
{
	CHECK(stage > STAGE_UNDECIDED);
	CHECK(stage < STAGE_COUNT);
	CHECK(verb < VERB_COUNT);
	return (enum err_id)refusal[stage][verb];
}

const char *relocate_stage_name(enum relocate_stage stage)
{
	CHECK(stage < STAGE_COUNT);
	return stage_names[stage];
}

const char *relocate_phase_name(enum relocate_phase phase)
{
	CHECK(phase < RELOCATE_PHASE_COUNT);
	return phase_names[phase];
}

const char *relocate_state_name(enum relocate_state state)
{
	CHECK(state < RELOCATE_STATE_COUNT);
	return state_names[state];
}

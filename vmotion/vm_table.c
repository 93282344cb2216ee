/* SPDX-License-Identifier: Apache-2.0 */
/* vm_table.c - the machine's states as a table. */
#include <string.h>

#include "vmotion/vm.h"

#define X VM_UNDECIDED
#define O VM_OFF
#define S VM_STARTING
#define R VM_RUNNING
#define P VM_STOPPING
#define U VM_SUSPENDING
#define D VM_SUSPENDED
#define M VM_RESUMING
#define L VM_LOST

/* Row: state now.  Column: event.  A cell equal to its row ignores the event; X refuses it. */
// clang-format off
static const uint8_t next[VM_STATE_COUNT][VM_EVENT_COUNT] = {
	/*                 START UP STOP SUSPEND SAVED RESUME ENDED LOSE */
	[VM_OFF]        = { S,   X, X,   X,      X,    X,     O,    X },
	[VM_STARTING]   = { X,   R, P,   X,      X,    X,     O,    L },
	[VM_RUNNING]    = { X,   R, P,   U,      X,    X,     O,    L },
	[VM_STOPPING]   = { X,   P, P,   X,      D,    X,     O,    P },
	[VM_SUSPENDING] = { X,   R, X,   X,      D,    X,     O,    L },
	[VM_SUSPENDED]  = { X,   X, O,   X,      D,    M,     D,    X },
	[VM_RESUMING]   = { X,   R, X,   X,      D,    X,     O,    L },
	[VM_LOST]       = { X,   R, P,   X,      D,    X,     O,    L },
};
// clang-format on

enum vm_state vm_next_state(enum vm_state state, enum vm_event event)
{
	CHECK(state > VM_UNDECIDED && state < VM_STATE_COUNT);
	CHECK(event < VM_EVENT_COUNT);
	return (enum vm_state)next[state][event];
}

static const char *const names[VM_STATE_COUNT] = {
	[VM_UNDECIDED] = "undecided",   [VM_OFF] = "off",
	[VM_STARTING] = "starting",     [VM_RUNNING] = "running",
	[VM_STOPPING] = "stopping",     [VM_SUSPENDING] = "suspending",
	[VM_SUSPENDED] = "suspended",   [VM_RESUMING] = "resuming",
	[VM_LOST] = "lost",
};

const char *vm_state_name(enum vm_state state)
{
	CHECK(state < VM_STATE_COUNT);
	return names[state];
}

bool vm_state_parse(const char *text, enum vm_state *out)
{
	for (unsigned state = VM_OFF; state < VM_STATE_COUNT; state++) {
		if (strcmp(names[state], text) == 0) {
			*out = (enum vm_state)state;
			return true;
		}
	}
	return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recovering.h - what interrupted moves left is settled before their disks are attached.
 *
 * Whenever a datastore comes up, the records of moves are looked through (relocate_recover.h);
 * what can be proved is finished or rolled back, then the waiting attachments are tried.
 *
 * Threading: main loop.
 */
#ifndef BM_RECOVERING_H
#define BM_RECOVERING_H

#include "tools/blkmirrord/daemon.h"
#include "vmotion/relocate_recover.h"

MUST_CHECK int recovering_new(struct daemon *daemon, struct err *err);
/* The inventory's came_up(). */
void recovering_run(void *user);

/* The full id of a waiting move: as given, or that of task "t12".  False: none. */
bool recovering_find(struct daemon *daemon, const char *text, char id[MOVE_ID_BYTES]);

#endif

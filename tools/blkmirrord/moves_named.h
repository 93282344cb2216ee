/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moves_named.h - the disks that interrupted moves are about, as the records name them.
 *
 * What a disk's move left is settled first, and then it is attached; every other disk is served at
 * once.  The records are read at the start, before any of them is acted upon: moves of this
 * life are about disks that are attached already.  A record that cannot be read could be about
 * any disk, and then all wait.
 *
 * Threading: load on the main thread before the loop runs (blocks); has from any thread.
 */
#ifndef BM_MOVES_NAMED_H
#define BM_MOVES_NAMED_H

#include <stdbool.h>

#include "blkmirror/base/err.h"

struct moves_named;

/* ERR_NO_MEMORY only. */
MUST_CHECK int moves_named_load(const char *state_dir, struct moves_named **out, struct err *err);
void moves_named_free(struct moves_named *named);

/* Is it a source or a target of one? */
bool moves_named_has(const struct moves_named *named, const char *datastore, const char *path);

#endif

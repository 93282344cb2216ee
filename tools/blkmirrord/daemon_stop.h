/* SPDX-License-Identifier: Apache-2.0 */
/* daemon_stop.h - the orderly end, as a chain that waits for each thing to let go. */
#ifndef BM_DAEMON_STOP_H
#define BM_DAEMON_STOP_H

#include "tools/blkmirrord/daemon.h"

void daemon_stop_init(struct daemon *daemon);

/* Begin to stop; the loop ends when all has let go, or when the bound has passed. */
void daemon_stop(struct daemon *daemon);

#endif

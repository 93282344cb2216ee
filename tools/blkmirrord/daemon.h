/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon.h - the whole of blkmirrord: what it is made of, and its life.
 *
 *   start:  state directory locked (a dying predecessor is waited for), the exports' sockets
 *           taken back, store opened, unfinished tasks restored or failed, datastores opened
 *           side by side.  As soon as one is up its disks are served again; those that an
 *           interrupted move is about follow when that is gone on with or settled.  Then the
 *           API listens and READY is said.  What hangs for longer than RESTORE_WAIT is left
 *           behind and goes on.
 *   reload: configuration read again; log level and budgets change at once, the rest
 *           at the next start.
 *   stop:   no new work, moves are left standing for the next daemon (a durable switch-over
 *           finishes), disks flushed and left (their sockets stay with their holder), calls
 *           answered, history written.
 *
 * Threading: main loop.
 */
#ifndef BM_DAEMON_H
#define BM_DAEMON_H

#include "tools/blkmirrord/api_server.h"
#include "tools/blkmirrord/config.h"
#include "tools/blkmirrord/events.h"
#include "tools/blkmirrord/hosts.h"
#include "tools/blkmirrord/inventory.h"
#include "tools/blkmirrord/bulk_thread.h"
#include "tools/blkmirrord/store.h"
#include "tools/blkmirrord/user_task.h"
#include "tools/blkmirrord/vms.h"

struct daemon {
	struct loop *loop;
	struct daemon_config config;
	int state_lock_fd;
	uint8_t host_uuid[16];
	struct store *store;
	struct events *events;
	struct socket_holder *sockets;  /* of the disks' exports, over restarts */
	struct moves_named *named;      /* disks that interrupted moves are about; at the start */
	struct disk_service *disks;
	struct inventory *inventory;
	struct vms *vms;
	struct recovery *recovery;
	bool recover_again;             /* a datastore came up while it ran */
	bool recovered;                 /* it has run, or runs, since the start */
	struct task_table *tasks;
	struct bulk_thread *io;           /* for import, export and verify */
	struct hosts *hosts;            /* other hosts, and our key */
	struct api_server *api, *http;
	bool stopping, listening;
	int64_t started_ms;
	uint64_t begun_ns;              /* main() began; the loops' clock */

	struct watch signals;
	int signal_fd;
	struct timer restore_timer, stop_timer, watchdog;
	uint64_t watchdog_ns;
	uint64_t stop_deadline_ns;
	int (*reread)(struct daemon_config *config, struct err *err);   /* main's, for reload */
};

/* Build everything and begin to restore.  0, or -errno with *err; then nothing is left. */
MUST_CHECK int daemon_start(struct daemon *daemon, struct err *err);

/* Runs the loop until the daemon has stopped. */
void daemon_run(struct daemon *daemon);

/* What main() left in order: takes everything down.  False: something still hangs. */
bool daemon_finish(struct daemon *daemon);

/* Block the signals that the loop reads; before any thread starts. */
int daemon_block_signals(void);

#endif

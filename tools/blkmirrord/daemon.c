/* SPDX-License-Identifier: Apache-2.0 */
/* daemon.c - building the daemon, its signals, and systemd.  Stopping is in daemon_stop.c. */
#include "tools/blkmirrord/daemon.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "tools/blkmirrord/daemon_stop.h"
#include "tools/blkmirrord/moves_named.h"
#include "tools/blkmirrord/recovering.h"
#include "tools/blkmirrord/state_dir.h"
#include "tools/blkmirrord/task_restore.h"
#include "tools/common/wall.h"

#define RESTORE_WAIT_NS (10 * NS_PER_S)
/* For a killed predecessor whose last requests are in the kernel. */
#define STATE_WAIT_MS 10000u
#define BULK_BUFFER_BYTES (UINT64_C(128) << 20)

/* ---- signals ---- */

static void signal_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

int daemon_block_signals(void)
{
	sigset_t set;

	signal_set(&set);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -errno : 0;
}

static void daemon_reload(struct daemon *daemon)
{
	struct daemon_config config;
	struct err err = { 0 };

	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		   (unsigned long long)(loop_now_ns(daemon->loop) / NS_PER_US));
	config_init(&config);
	if (daemon->reread(&config, &err)) {
		log_error("daemon", "not reloaded: %s (%s)", err.cause, err_name(err.id));
	} else {
		log_set_level(config.log_level);
		daemon->config.log_level = config.log_level;
		daemon->config.host_budget = config.host_budget;
		daemon->config.datastore_budget = config.datastore_budget;
		task_table_set_host_budget(daemon->tasks, config.host_budget);
		log_info("daemon", "reloaded");
	}
	config_release(&config);
	sd_notify(0, "READY=1");
}

static void daemon_signalled(struct watch *watch, unsigned events)
{
	struct daemon *daemon = container_of(watch, struct daemon, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			daemon_reload(daemon);
		else
			daemon_stop(daemon);
	}
}

static int watch_signals(struct daemon *daemon, struct err *err)
{
	sigset_t set;
	int rc;

	signal_set(&set);
	daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (daemon->signal_fd < 0)
		return err_set(err, ERR_INTERNAL, -errno, "cannot watch signals: %s",
			       err_strerror(-errno));
	rc = watch_start(&daemon->signals, daemon->loop, daemon->signal_fd, WATCH_READ,
			 daemon_signalled);
	if (rc) {
		close(daemon->signal_fd);
		err_set(err, ERR_INTERNAL, rc, "cannot watch signals: %s", err_strerror(rc));
	}
	return rc;
}

/* ---- systemd ---- */

static void watchdog_fired(struct timer *timer)
{
	struct daemon *daemon = container_of(timer, struct daemon, watchdog);

	sd_notifyf(0, "WATCHDOG=1\nSTATUS=%u tasks live", task_table_live_count(daemon->tasks));
	timer_start(timer, daemon->watchdog_ns);
}

static void start_watchdog(struct daemon *daemon)
{
	uint64_t usec;

	timer_init(&daemon->watchdog, daemon->loop, watchdog_fired);
	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	daemon->watchdog_ns = usec * NS_PER_US / 3;
	timer_start(&daemon->watchdog, daemon->watchdog_ns);
}

/* ---- listening, once what was attached is attached again ---- */

static int listen_api(struct daemon *daemon, struct err *err)
{
	struct api_options options = { .loop = daemon->loop, .daemon = daemon };
	char path[PATH_MAX];
	int rc;

	if (snprintf(path, sizeof(path), "%s/api.sock", daemon->config.run_dir) >=
	    (int)sizeof(path))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG, "the run directory is too long");
	rc = api_listen_unix(path, daemon->config.group, &options.listen_fd, err);
	if (!rc)
		rc = api_server_new(&options, &daemon->api, err);
	return rc;
}

static void daemon_listen(struct daemon *daemon)
{
	struct err err = { 0 };

	if (daemon->listening || daemon->stopping)
		return;
	daemon->listening = true;
	timer_stop(&daemon->restore_timer);
	vms_adopt(daemon->vms);
	if (listen_api(daemon, &err)) {
		log_error("daemon", "%s (%s)", err.cause, err_name(err.id));
		daemon_stop(daemon);
		return;
	}
	events_emit(daemon->events, "daemon_started", json_pack("{s:s}", "version", BM_VERSION));
	log_info("daemon", "blkmirrord " BM_VERSION " is ready: %s/api.sock",
		 daemon->config.run_dir);
	sd_notify(0, "READY=1\nSTATUS=ready");
}

static void daemon_restored(void *user)
{
	struct daemon *daemon = user;

	/* No datastore is up: what waits is told why. */
	if (!daemon->recovered)
		recovering_run(daemon);
	task_table_open_admission(daemon->tasks);
	daemon_listen(daemon);
	inventory_sweep_sockets(daemon->inventory);
}

static void restore_waited(struct timer *timer)
{
	struct daemon *daemon = container_of(timer, struct daemon, restore_timer);

	log_warn("daemon", "a datastore or disk is not back yet: going on without it meanwhile");
	task_table_open_admission(daemon->tasks);
	daemon_listen(daemon);
}

/* The port is bound early, so that a mistake in the address ends the start. */
static int listen_http(struct daemon *daemon, struct err *err)
{
	struct api_options options = { .loop = daemon->loop, .daemon = daemon,
				       .metrics_only = true };
	int rc;

	if (!daemon->config.http[0])
		return 0;
	rc = api_listen_tcp(daemon->config.http, &options.listen_fd, err);
	if (rc)
		return rc;
	rc = api_server_new(&options, &daemon->http, err);
	if (rc)
		close(options.listen_fd);
	return rc;
}

/* As with the port for metrics: bound early.  None without the operator's word. */
static int open_hosts(struct daemon *daemon, struct err *err)
{
	struct hosts_options options = { .loop = daemon->loop, .store = daemon->store,
					 .events = daemon->events,
					 .state_dir = daemon->config.state_dir, .listen_fd = -1 };
	int rc = 0;

	memcpy(options.host_uuid, daemon->host_uuid, sizeof(options.host_uuid));
	if (daemon->config.listen[0])
		rc = api_listen_tcp(daemon->config.listen, &options.listen_fd, err);
	return rc ? rc : hosts_new(&options, &daemon->hosts, err);
}

/* ---- building ---- */

static uint32_t datastore_budget(const char *name, void *user)
{
	struct daemon *daemon = user;
	struct ds_entry *entry = inventory_find(daemon->inventory, name, NULL);

	return entry && entry->budget ? entry->budget : daemon->config.datastore_budget;
}

static int build_state(struct daemon *daemon, struct err *err)
{
	struct socket_holder_options sockets = { .kind = daemon->config.socket_holder,
						 .run_dir = daemon->config.run_dir,
						 .linger_s = daemon->config.socket_linger_s };
	char path[PATH_MAX];
	int rc;

	if (snprintf(path, sizeof(path), "%s/tasks.db", daemon->config.state_dir) >=
	    (int)sizeof(path))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG, "the state directory is too long");
	rc = make_dir(daemon->config.run_dir, 0755, err);
	if (!rc)
		rc = state_dir_open(daemon->config.state_dir, STATE_WAIT_MS,
				    &daemon->state_lock_fd, daemon->host_uuid, err);
	if (!rc)
		rc = socket_holder_open(&sockets, &daemon->sockets, err);
	if (!rc)
		rc = store_open(daemon->loop, path, &daemon->store, err);
	if (!rc)
		rc = events_new(daemon->store, daemon->config.events_kept, &daemon->events, err);
	return rc;
}

static bool in_move(const char *datastore, const char *path, void *user)
{
	const struct daemon *daemon = user;

	return moves_named_has(daemon->named, datastore, path);
}

static int build_vms(struct daemon *daemon, struct err *err)
{
	struct vms_options options = {
		.loop = daemon->loop,
		.store = daemon->store,
		.events = daemon->events,
		.inventory = daemon->inventory,
		.disks = daemon->disks,
		.config = &daemon->config,
	};

	return vms_new(&options, &daemon->vms, err);
}

static int build_services(struct daemon *daemon, struct err *err)
{
	struct disk_service_options disks = { .run_dir = daemon->config.run_dir,
					      .io_threads = daemon->config.io_threads,
					      .holder = daemon->sockets };
	struct inventory_options inventory = {
		.loop = daemon->loop,
		.store = daemon->store,
		.events = daemon->events,
		.came_up = recovering_run,
		.in_move = in_move,
		.tried = task_restore_tried,
		.user = daemon,
		.begun_ns = daemon->begun_ns,
		.allowed_roots = daemon->config.allowed_root_count
					 ? (const char *const *)daemon->config.allowed_roots
					 : NULL,
	};
	struct task_table_options tasks = {
		.loop = daemon->loop,
		.store = daemon->store,
		.events = daemon->events,
		.host_budget = daemon->config.host_budget,
		.datastore_budget = datastore_budget,
		.user = daemon,
		.kept = daemon->config.tasks_kept,
	};
	int rc = disk_service_new(daemon->loop, &disks, &daemon->disks, err);

	if (!rc)
		rc = moves_named_load(daemon->config.state_dir, &daemon->named, err);
	if (!rc)
		rc = recovering_new(daemon, err);

	inventory.disks = daemon->disks;
	memcpy(inventory.host_uuid, daemon->host_uuid, sizeof(inventory.host_uuid));
	if (!rc)
		rc = bulk_thread_new("bulk-io", BULK_BUFFER_BYTES, &daemon->io, err);
	if (!rc)
		rc = inventory_new(&inventory, &daemon->inventory, err);
	if (!rc)
		rc = inventory_load(daemon->inventory, err);
	/* After that: what it finds interrupted it writes down, and guests wait for the disks. */
	if (!rc)
		rc = task_table_new(&tasks, &daemon->tasks, err);
	moves_named_free(daemon->named);        /* each attachment knows now */
	daemon->named = NULL;
	if (!rc)
		rc = build_vms(daemon, err);
	if (!rc)
		rc = open_hosts(daemon, err);
	if (!rc)
		rc = listen_http(daemon, err);
	return rc;
}

int daemon_start(struct daemon *daemon, struct err *err)
{
	int rc;

	daemon->state_lock_fd = -1;
	daemon->signal_fd = -1;
	daemon->started_ms = wall_now_ms();
	daemon->loop = loop_new();
	if (!daemon->loop)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot make the main loop");
	daemon_stop_init(daemon);
	rc = build_state(daemon, err);
	if (!rc)
		rc = build_services(daemon, err);
	if (!rc)
		rc = watch_signals(daemon, err);
	if (rc)
		return rc;
	start_watchdog(daemon);
	timer_init(&daemon->restore_timer, daemon->loop, restore_waited);
	timer_start(&daemon->restore_timer, RESTORE_WAIT_NS);
	inventory_start(daemon->inventory, daemon_restored, daemon);
	return tasks_restore(daemon, err);
}

void daemon_run(struct daemon *daemon)
{
	loop_run(daemon->loop);
}

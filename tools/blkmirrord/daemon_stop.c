/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon_stop.c
 *
 *   1. no new requests, no new tasks, no new opens
 *   2. tasks: relocations, queued ones too, are left standing for the next daemon (one whose
 *      switch-over is durable finishes); the others are cancelled
 *   3. disks are flushed and detached; their attachments stay recorded for the next start, and
 *      their sockets with whoever holds them: clients wait there
 *   4. calls are answered, statements written
 *
 * Each round looks what is left and comes again; what hangs for STOP_MAX ends the process
 * without waiting: everything durable is durable already, and the next start finds it.
 */
#include "tools/blkmirrord/daemon_stop.h"

#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/relocate.h"
#include "vmotion/relocate_recover.h"

#define STOP_ROUND_NS (20 * NS_PER_MS)
#define STOP_MAX_NS (60 * NS_PER_S)

static void disk_gone(const struct err *err, void *user)
{
	(void)user;
	if (err)
		log_warn("daemon", "a disk stays until the process ends: %s", err->cause);
}

static bool detach_some(struct daemon *daemon)
{
	bool any = false;

	for (struct attachment *a = inventory_next_attachment(daemon->inventory, NULL); a;
	     a = inventory_next_attachment(daemon->inventory, a)) {
		if (!a->disk)
			continue;
		any = true;
		disk_leave(a->disk, disk_gone, NULL);   /* R-J7 */
		a->disk = NULL;
		ds_entry_put(a->entry);
		a->entry = NULL;
	}
	return any || disk_next(daemon->disks, NULL);
}

static bool tasks_are_left(struct daemon *daemon)
{
	bool parked = task_table_park(daemon->tasks);

	return !parked || relocate_count(daemon->disks) > 0;
}

/* Requests that a dead store holds: what they are about is the next daemon's (R-J7). */
static bool only_lingers(const struct daemon *daemon)
{
	return task_table_live_count(daemon->tasks) == 0 && relocate_count(daemon->disks) > 0 &&
	       relocate_only_lingers(daemon->disks);
}

static uint32_t calls_left(const struct daemon *daemon)
{
	return (daemon->api ? api_server_calls(daemon->api) : 0) +
	       (daemon->http ? api_server_calls(daemon->http) : 0);
}

/* What is waited for now; NULL: nothing. */
static const char *stop_round(struct daemon *daemon)
{
	if (tasks_are_left(daemon))
		return "tasks";
	if (recovery_is_busy(daemon->recovery))
		return "interrupted moves";
	if (vms_is_busy(daemon->vms))
		return "machines";
	if (detach_some(daemon))
		return "disks";
	if (disk_service_is_busy(daemon->disks))
		return "sockets";
	if (inventory_is_busy(daemon->inventory))
		return "datastores";
	if (hosts_is_busy(daemon->hosts))
		return "links with other hosts";
	if (calls_left(daemon))
		return "requests";
	if (store_pending(daemon->store))
		return "the history";
	return NULL;
}

static void stop_fired(struct timer *timer)
{
	struct daemon *daemon = container_of(timer, struct daemon, stop_timer);
	const char *waits_for = stop_round(daemon);

	if (!waits_for) {
		loop_stop(daemon->loop);
	} else if (loop_now_ns(daemon->loop) >= daemon->stop_deadline_ns || only_lingers(daemon)) {
		log_error("daemon", "still waiting for %s: stopping without", waits_for);
		loop_stop(daemon->loop);
	} else {
		timer_start(timer, STOP_ROUND_NS);
	}
}

void daemon_stop_init(struct daemon *daemon)
{
	timer_init(&daemon->stop_timer, daemon->loop, stop_fired);
}

void daemon_stop(struct daemon *daemon)
{
	if (daemon->stopping)
		return;
	daemon->stopping = true;
	log_info("daemon", "stopping");
	sd_notify(0, "STOPPING=1\nSTATUS=stopping");
	timer_stop(&daemon->restore_timer);
	task_table_close_admission(daemon->tasks);
	inventory_stop(daemon->inventory);
	hosts_stop(daemon->hosts);
	vms_stop(daemon->vms);
	if (daemon->api)
		api_server_quiesce(daemon->api);
	if (daemon->http)
		api_server_quiesce(daemon->http);
	daemon->stop_deadline_ns = loop_now_ns(daemon->loop) + STOP_MAX_NS;
	timer_start(&daemon->stop_timer, 0);
}

bool daemon_finish(struct daemon *daemon)
{
	char path[4200];

	if (stop_round(daemon))
		return false;
	snprintf(path, sizeof(path), "%s/api.sock", daemon->config.run_dir);
	if (daemon->api && unlink(path))
		log_debug("daemon", "'%s' was gone already", path);
	api_server_free(daemon->api);
	api_server_free(daemon->http);
	hosts_free(daemon->hosts);
	vms_free(daemon->vms);
	inventory_free(daemon->inventory);
	task_table_free(daemon->tasks);
	recovery_free(daemon->recovery);
	disk_service_free(daemon->disks);
	socket_holder_close(daemon->sockets);
	bulk_thread_free(daemon->io);
	events_free(daemon->events);
	store_close(daemon->store);
	timer_stop(&daemon->watchdog);
	timer_stop(&daemon->stop_timer);
	watch_stop(&daemon->signals);
	close(daemon->signal_fd);
	close(daemon->state_lock_fd);
	loop_free(daemon->loop);
	log_info("daemon", "stopped");
	return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_adopt.c - a QEMU whose daemon was away, or whose monitor was: what does it do, and what
 * was it to do?
 *
 *   QEMU says      was           then
 *   running        any           it runs
 *   shutdown       any           the guest has powered off: quit
 *   postmigrate    SUSPENDING    image kept: quit; else cont
 *   migrating      SUSPENDING    cancel, then cont
 *   paused         RESUMING      image kept: end it, it has not run; else cont
 *   prelaunch      STARTING      cont
 *   else           any           it stands still, and says why
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/vm_private.h"

#define RETRY_NS (3 * NS_PER_S)
#define SOON_NS (300 * NS_PER_MS)

static void examine_done(struct vm *vm, const char *reason)
{
	vm->examining = false;
	vm_limit_files(vm, true);
	vm->image_kept = false;
	vm_move(vm, VM_EV_UP, NULL);
	snprintf(vm->pause_reason, sizeof(vm->pause_reason), "%s", reason);
	vm_record(vm, VM_RUNNING, vm_up_recorded);
}

static void examine_continue(struct vm *vm)
{
	vm->examining = false;
	vm_continue(vm);
}

static void migration_told(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;
	const char *status = json_string_value(json_object_get(result, "status"));

	if (!vm->examining)
		return;
	if (!result) {
		log_warn("vm", "%s: %s", vm->id, err->cause);
		examine_done(vm, "unknown");
	} else if (status && (strcmp(status, "active") == 0 || strcmp(status, "setup") == 0 ||
			      strcmp(status, "device") == 0)) {
		qmp_command(vm->qmp, "migrate_cancel", NULL, VM_QMP_TIMEOUT_NS, NULL, NULL);
	} else if (!status || strcmp(status, "cancelling") != 0) {
		examine_continue(vm);
	}
}

/* The state of the migration has changed, or is asked for the first time. */
void vm_examine_migrated(struct vm *vm)
{
	qmp_command(vm->qmp, "query-migrate", NULL, VM_QMP_TIMEOUT_NS, migration_told, vm);
}

static void unresumed(struct vm *vm)
{
	struct err err;

	err_set(&err, ERR_VM_RESUME, 0, "the daemon was restarted before the guest was resumed");
	vm->examining = false;
	vm_give_up(vm, &err);
}

static void examine_paused(struct vm *vm, const char *status)
{
	switch (vm->goal) {
	case VM_STARTING:
		examine_continue(vm);
		break;
	case VM_RESUMING:
		if (vm->image_kept)
			unresumed(vm);
		else
			examine_continue(vm);
		break;
	case VM_SUSPENDING:
		vm_examine_migrated(vm);
		break;
	default:
		examine_done(vm, status);
	}
}

static void status_told(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;
	const char *status = json_string_value(json_object_get(result, "status"));

	if (!vm->examining || !vm->qmp)
		return;
	if (!status) {
		log_warn("vm", "%s: %s", vm->id, err ? err->cause : "it tells no status");
		vm_lose(vm);
	} else if (strcmp(status, "running") == 0) {
		examine_done(vm, "");
	} else if (strcmp(status, "shutdown") == 0) {
		vm->examining = false;
		vm_move(vm, VM_EV_STOP, NULL);
		vm_quit(vm);
	} else if (strcmp(status, "postmigrate") == 0 && vm->image_kept) {
		vm->examining = false;
		vm_quit(vm);
	} else if (strcmp(status, "prelaunch") == 0 || strcmp(status, "paused") == 0 ||
		   strcmp(status, "inmigrate") == 0 || strcmp(status, "postmigrate") == 0 ||
		   strcmp(status, "finish-migrate") == 0) {
		examine_paused(vm, status);
	} else {
		examine_done(vm, status);
	}
}

void vm_examine(struct vm *vm)
{
	qmp_command(vm->qmp, "query-status", NULL, VM_QMP_TIMEOUT_NS, status_told, vm);
}

/* ---- a lost monitor ---- */

static void examine_later(struct vm *vm)
{
	if (!vm->examining)
		vm->goal = vm->state;
	vm->examining = true;
}

/* What waits for an answer hears that it does not come; the process is looked at again and again. */
void vm_lose(struct vm *vm)
{
	struct err err;

	if (vm->pidfd < 0)
		return;
	qmp_free(vm->qmp);
	vm->qmp = NULL;
	examine_later(vm);
	if (vm->state != VM_STOPPING)
		vm_move(vm, VM_EV_LOSE, NULL);
	err_set(&err, ERR_VM_QMP, -EPIPE, "QEMU's monitor does not answer");
	vm_end_verb(&vm->verb, &err);
	err_clear(&vm->err);
	timer_start(&vm->retry, RETRY_NS);
}

void vm_look_again(struct vm *vm)
{
	examine_later(vm);
	timer_start(&vm->retry, SOON_NS);
}

void vm_retry_fired(struct timer *timer)
{
	struct vm *vm = container_of(timer, struct vm, retry);

	/* What it does may be judged only when it is known whether the image counts. */
	if (vm->hook_runs)
		timer_start(&vm->retry, RETRY_NS);
	else if (!vm->qmp)
		vm_connect(vm);
}

/* ---- after a restart ---- */

void vm_settle(struct vm *vm, enum vm_state state)
{
	CHECK(vm->pidfd < 0);
	CHECK(state == VM_OFF || state == VM_SUSPENDED);
	vm->state = state;
	vm->image_kept = state == VM_SUSPENDED;
}

/* Is that process the machine's QEMU?  Its command line says "process=bm-ID". */
static bool is_qemu_of(pid_t pid, const char *id)
{
	char path[64], text[4096], want[VM_ID_BYTES + 16];
	size_t want_len = (size_t)snprintf(want, sizeof(want), "process=bm-%s,", id);
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	got = fd < 0 ? -1 : read(fd, text, sizeof(text));
	return got > 0 && memmem(text, (size_t)got, want, want_len);
}

void vm_reap_orphan(const struct vm_setup *setup, const char *id)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int pidfd;

	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	vm_disk_socket_path(setup, id, "qmp", address.sun_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0)
		return;
	pidfd = pidfd_open(peer.pid, 0);
	if (pidfd < 0)
		return;
	if (is_qemu_of(peer.pid, id)) {
		log_warn("vm", "%s: process %d was started and never recorded: it is ended", id,
			 (int)peer.pid);
		qemu_process_kill(pidfd);
	}
	close(pidfd);
}

void vm_discarded(struct vm *vm)
{
	CHECK(vm->state == VM_SUSPENDED);
	vm->image_kept = false;
	vm_move(vm, VM_EV_STOP, NULL);
	vm_record(vm, VM_OFF, NULL);
}

void vm_adopt(struct vm *vm, const struct vm_record *record, bool image_kept)
{
	struct err err;
	int pidfd;

	CHECK(vm->pidfd < 0);
	if (qemu_process_open(&record->process, &pidfd)) {
		err_set(&err, ERR_VM_DIED, 0,
			"QEMU (process %d) ended while no daemon ran; how is not known",
			(int)record->process.pid);
		vm->state = image_kept ? VM_SUSPENDED : VM_OFF;
		vm->image_kept = image_kept;
		log_warn("vm", "%s: %s", vm->id, err.cause);
		vm_record(vm, vm->state, NULL);
		vm->hooks.moved(vm->state, &err, vm->user);
		return;
	}
	vm->state = record->state;
	vm->goal = record->state;
	vm->process = record->process;
	vm->image_kept = image_kept;
	vm->examining = true;
	if (vm_watch_process(vm, pidfd, &err)) {
		log_error("vm", "%s: %s", vm->id, err.cause);
		vm->pidfd = pidfd;
	}
	vm->expected_end = false;
	vm_connect(vm);
}

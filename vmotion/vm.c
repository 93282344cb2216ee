/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - starting and stopping, in stages:
 *
 *   V1 prepare   worker: sockets, logs, taps        V4 greet    the monitor is ready
 *   V2 spawn     fork, exec                         V5 read in  only when resuming (vm_suspend.c)
 *   V3 record    durable, before the guest may run  V6 cont     the guest runs
 *
 * Whatever fails ends the process, and its end ends the verb: nothing is left half started.
 */
#include "vmotion/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/vm_private.h"

#define KILL_AFTER_NS (15 * NS_PER_S)
#define SERIAL_LOG_MAX_BYTES (UINT64_C(64) << 20)

/* ---- states and verbs ---- */

bool vm_move(struct vm *vm, enum vm_event event, const struct err *err)
{
	enum vm_state from = vm->state, to = vm_next_state(from, event);

	if (to == VM_UNDECIDED)
		return false;
	if (to == from)
		return true;
	vm->state = to;
	if (to != VM_RUNNING)
		vm->pause_reason[0] = '\0';
	log_info("vm", "%s: %s -> %s%s%s", vm->id, vm_state_name(from), vm_state_name(to),
		 err ? ": " : "", err ? err->cause : "");
	vm->hooks.moved(to, err, vm->user);
	return true;
}

void vm_end_verb(struct vm_verb *verb, const struct err *err)
{
	struct vm_verb ended = *verb;

	*verb = (struct vm_verb){ 0 };
	if (ended.done)
		ended.done(err, ended.user);
}

static void verb_refused(struct task *task)
{
	struct vm *vm = container_of(task, struct vm, refusal);
	struct err err = vm->refused_err;

	vm_end_verb(&vm->refused, &err);
}

static void refuse(struct vm *vm, vm_done *done, void *user, const char *what)
{
	struct err err;

	err_set(&err, ERR_VM_STATE, -EBUSY, "the machine is %s: it cannot be %s now",
		vm_state_name(vm->state), what);
	if (vm->refusal.queued) { /* one waits to be told already: a turn of two refusals */
		done(&err, user);
		return;
	}
	vm->refused = (struct vm_verb){ done, user };
	vm->refused_err = err;
	loop_post(vm->setup->loop, &vm->refusal);
}

/* ---- the end of the process ---- */

static void process_forget(struct vm *vm)
{
	watch_stop(&vm->process_watch);
	watch_stop(&vm->exec_watch);
	timer_stop(&vm->stop_timer);
	timer_stop(&vm->retry);
	qmp_free(vm->qmp);
	vm->qmp = NULL;
	vm->examining = vm->quitting = false;
	if (vm->exec_fd >= 0)
		close(vm->exec_fd);
	if (vm->pidfd >= 0)
		close(vm->pidfd);
	if (vm->image_fd >= 0)
		close(vm->image_fd);
	vm->exec_fd = vm->pidfd = vm->image_fd = -1;
	vm->process = (struct qemu_identity){ 0 };
}

static void ended_recorded(const struct err *failed, void *user)
{
	struct vm *vm = user;
	struct err err = vm->err;

	vm->record_count--;
	err_clear(&vm->err);
	if (failed)
		log_error("vm", "%s: its state is not recorded: %s", vm->id, failed->cause);
	vm_end_verb(&vm->verb, err.id != ERR_NONE ? &err : NULL);
	vm_end_verb(&vm->stops[0], NULL);
	vm_end_verb(&vm->stops[1], NULL);
}

/* The verbs hear when it is recorded: they may begin the next one. */
static void vm_ended(struct vm *vm)
{
	/* The monitor hung up because the process ended: its log knows more. */
	bool told = vm->err.id != ERR_NONE && (vm->err.id != ERR_VM_QMP || !vm->log_tail[0]);

	if (!told && (!vm->expected_end || vm->err.id != ERR_NONE))
		err_set(&vm->err, ERR_VM_DIED, 0, "QEMU %s%s%s", vm->end_text,
			vm->log_tail[0] ? ": " : "", vm->log_tail);
	vm_move(vm, vm->image_kept ? VM_EV_SAVED : VM_EV_ENDED,
		vm->err.id != ERR_NONE ? &vm->err : NULL);
	if (vm->verb.done && vm->err.id == ERR_NONE && vm->state != VM_SUSPENDED)
		err_set(&vm->err, ERR_VM_DIED, 0, "QEMU %s before that was done", vm->end_text);
	vm_record(vm, vm->state, ended_recorded);
}

bool vm_hook_done(struct vm *vm)
{
	bool ended = vm->ended;

	vm->hook_runs = vm->ended = false;
	if (ended)
		vm_ended(vm);
	return ended;
}

static void last_words_run(struct job *job)
{
	struct vm *vm = container_of(job, struct vm, job);

	vm_log_tail(vm->setup, vm->id, vm->log_at, vm->log_tail, sizeof(vm->log_tail));
}

static void last_words_done(struct job *job)
{
	struct vm *vm = container_of(job, struct vm, job);

	vm->job_runs = false;
	vm->ended = vm->hook_runs;
	if (!vm->ended)
		vm_ended(vm);
}

static void process_ended(struct watch *watch, unsigned events)
{
	struct vm *vm = container_of(watch, struct vm, process_watch);

	(void)events;
	qemu_process_end(vm->pidfd, &vm->process, vm->end_text, sizeof(vm->end_text),
			 &vm->end_clean);
	if (!vm->end_clean && !vm->quitting)
		vm->expected_end = false;
	process_forget(vm);
	vm->job_runs = true;
	vm->job.run = last_words_run;
	vm->job.done = last_words_done;
	worker_submit(vm->setup->worker, &vm->job);
}

int vm_watch_process(struct vm *vm, int pidfd, struct err *err)
{
	int rc = watch_start(&vm->process_watch, vm->setup->loop, pidfd, WATCH_READ,
			     process_ended);

	if (rc)
		return err_set(err, ERR_VM_START, rc, "cannot watch QEMU: %s", err_strerror(rc));
	vm->pidfd = pidfd;
	return 0;
}

/* Its end tells the verb. */
void vm_give_up(struct vm *vm, const struct err *err)
{
	if (vm->err.id == ERR_NONE)
		vm->err = *err;
	vm->quitting = true;
	qemu_process_kill(vm->pidfd);
}

/* There is no process yet. */
static void start_failed(struct vm *vm, const struct err *err)
{
	bool resuming = vm->state == VM_RESUMING;

	process_forget(vm);
	vm_move(vm, resuming ? VM_EV_SAVED : VM_EV_ENDED, err);
	vm_end_verb(&vm->verb, err);
	vm_end_verb(&vm->stops[0], NULL);
	vm_end_verb(&vm->stops[1], NULL);
}

/* ---- the monitor ---- */

static void note_event(struct vm *vm, const char *name, const json_t *data)
{
	if (strcmp(name, "RESUME") == 0)
		vm->pause_reason[0] = '\0';
	else if (strcmp(name, "BLOCK_IO_ERROR") == 0)
		log_error("vm", "%s: an I/O error on '%s'%s", vm->id,
			  json_string_value(json_object_get(data, "node-name")),
			  json_is_true(json_object_get(data, "nospace")) ? ": no space" : "");
	else if (strcmp(name, "GUEST_PANICKED") == 0)
		snprintf(vm->pause_reason, sizeof(vm->pause_reason), "guest-panicked");
}

static void status_asked(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;
	const char *status = json_string_value(json_object_get(result, "status"));

	(void)err; /* the next event, or the loss of the monitor, tells more */
	if (status && strcmp(status, "running") != 0 && vm->state == VM_RUNNING)
		snprintf(vm->pause_reason, sizeof(vm->pause_reason), "%s", status);
}

static void monitor_event(const char *name, const json_t *data, void *user)
{
	struct vm *vm = user;
	const char *status = json_string_value(json_object_get(data, "status"));

	log_debug("vm", "%s: %s", vm->id, name);
	note_event(vm, name, data);
	if (strcmp(name, "SHUTDOWN") == 0) {
		vm->expected_end = true;
		if (vm_move(vm, VM_EV_STOP, NULL))
			vm_quit(vm);
	} else if (strcmp(name, "STOP") == 0 && vm->state == VM_RUNNING) {
		qmp_command(vm->qmp, "query-status", NULL, VM_QMP_TIMEOUT_NS, status_asked, vm);
	} else if (strcmp(name, "MIGRATION") == 0 && status) {
		if (vm->examining)
			vm_examine_migrated(vm);
		else if (vm->state == VM_SUSPENDING)
			vm_suspend_migrated(vm, status);
		else if (vm->state == VM_RESUMING)
			vm_resume_migrated(vm, status);
	}
}

static void monitor_closed(const struct err *err, void *user)
{
	struct vm *vm = user;

	log_debug("vm", "%s: %s", vm->id, err->cause);
	qmp_free(vm->qmp);
	vm->qmp = NULL;
	if (vm->quitting)
		return; /* as asked: the process is ending */
	if (!vm->examining && (vm->state == VM_STARTING || vm->state == VM_RESUMING)) {
		vm_give_up(vm, err);
		return;
	}
	if (vm->verb.done && vm->err.id == ERR_NONE)
		vm->err = *err;
	vm_look_again(vm);
}

static void monitor_ready(void *user)
{
	struct vm *vm = user;

	if (vm->examining)
		vm_examine(vm);
	else if (vm->state == VM_RESUMING)
		vm_resume_read(vm);
	else if (vm->state == VM_STARTING)
		vm_continue(vm);
}

void vm_connect(struct vm *vm)
{
	struct qmp_options options = { .loop = vm->setup->loop, .ready = monitor_ready,
				       .event = monitor_event, .closed = monitor_closed,
				       .user = vm, .ready_timeout_ns = VM_QMP_TIMEOUT_NS };
	char path[108];
	struct err err;

	CHECK(!vm->qmp);
	vm_disk_socket_path(vm->setup, vm->id, "qmp", path);
	if (!qmp_connect(path, &options, &vm->qmp, &err))
		return;
	if (vm->examining)
		vm_lose(vm);
	else
		vm_give_up(vm, &err);
}

/* ---- V6 ---- */

/*
 * A guest may write to its serial port for ever: its log ends at a bound (QEMU goes on without).
 * Not before all memory is there, which counts as a file.
 */
void vm_limit_files(struct vm *vm, bool limited)
{
	struct rlimit limit = { limited ? SERIAL_LOG_MAX_BYTES : RLIM_INFINITY, RLIM_INFINITY };
	struct rlimit now;

	if (prlimit(vm->process.pid, RLIMIT_FSIZE, NULL, &now))
		return; /* it has just ended: its watch will tell */
	limit.rlim_max = now.rlim_max;
	limit.rlim_cur = MIN(limit.rlim_cur, now.rlim_max);
	if (prlimit(vm->process.pid, RLIMIT_FSIZE, &limit, NULL))
		log_warn("vm", "%s: cannot set the bound of its log: %s", vm->id,
			 err_strerror(-errno));
}

void vm_up_recorded(const struct err *failed, void *user)
{
	struct vm *vm = user;
	struct err err = vm->err;

	vm->record_count--;
	if (failed)
		log_error("vm", "%s: its state is not recorded: %s", vm->id, failed->cause);
	if (vm->state != VM_RUNNING)
		return; /* it has ended or is stopped: that tells the verb */
	err_clear(&vm->err);
	vm_end_verb(&vm->verb, err.id != ERR_NONE ? &err : NULL); /* a suspend may have failed */
}

static void continued(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;

	if (!result) {
		if (vm->state == VM_STARTING || vm->state == VM_RESUMING)
			vm_give_up(vm, err);
		else
			log_error("vm", "%s: %s", vm->id, err->cause);
		return;
	}
	if (vm->state == VM_STOPPING)
		return;
	vm_limit_files(vm, true);
	vm->image_kept = false;
	vm_move(vm, VM_EV_UP, NULL);
	vm_record(vm, VM_RUNNING, vm_up_recorded);
}

void vm_continue(struct vm *vm)
{
	qmp_command(vm->qmp, "cont", NULL, VM_QMP_TIMEOUT_NS, continued, vm);
}

/* ---- V3 ---- */

static void record_told(const struct err *err, void *user)
{
	struct vm *vm = user;

	vm->record_count--;
	if (err)
		log_error("vm", "%s: its state is not recorded: %s", vm->id, err->cause);
}

void vm_record(struct vm *vm, enum vm_state state, vm_kept *kept)
{
	struct vm_record record = { .state = state, .process = vm->process };

	vm->record_count++;
	vm->hooks.record(&record, kept ? kept : record_told, vm, vm->user);
}

static void started_recorded(const struct err *err, void *user)
{
	struct vm *vm = user;

	vm->record_count--;
	if (vm->pidfd < 0 || vm->quitting)
		return; /* it has ended meanwhile, or is about to */
	if (err)
		vm_give_up(vm, err);
	else
		vm_connect(vm);
}

/* ---- V2 ---- */

static void exec_told(struct watch *watch, unsigned events)
{
	struct vm *vm = container_of(watch, struct vm, exec_watch);
	struct err err;
	int rc;

	(void)events;
	watch_stop(watch);
	rc = qemu_spawn_outcome(vm->exec_fd, vm->setup->host->binary, &err);
	close(vm->exec_fd);
	vm->exec_fd = -1;
	if (rc)
		vm_give_up(vm, &err);
	else
		vm_record(vm, vm->state, started_recorded);
}

static int spawn(struct vm *vm, const struct qemu_args *args, struct err *err)
{
	struct qemu_spawn spawn = {
		.argv = (char *const *)args->words,
		.fds = vm->prepared.fds,
		.fd_count = VM_FD_COUNT,
		.log_fd = vm->prepared.log_fd,
		.drop = vm->setup->drop,
		.uid = vm->setup->uid,
		.gid = vm->setup->gid,
		.has_group = vm->setup->has_group,
		.group = vm->setup->group,
		.affinity = vm->config->has_affinity ? &vm->config->affinity : NULL,
	};
	int pidfd, rc;

	rc = qemu_spawn(&spawn, &vm->process, &pidfd, &vm->exec_fd, err);
	if (rc)
		return rc;
	rc = vm_watch_process(vm, pidfd, err);
	if (!rc) {
		rc = watch_start(&vm->exec_watch, vm->setup->loop, vm->exec_fd, WATCH_READ,
				 exec_told);
		if (rc)
			err_set(err, ERR_VM_START, rc, "cannot watch QEMU: %s", err_strerror(rc));
	}
	if (rc) {
		qemu_process_kill(pidfd);
		if (vm->pidfd < 0)
			close(pidfd);
	}
	return rc;
}

static void prepared(struct job *job)
{
	struct vm *vm = container_of(job, struct vm, job);
	struct qemu_run run = { .id = vm->id, .places = vm->places,
				.incoming = vm->image_fd >= 0 };
	struct qemu_args args = { 0 };
	struct err err = vm->err;
	int rc = vm->job_rc;

	vm->job_runs = false;
	err_clear(&vm->err);
	if (!rc) {
		vm->log_at = vm->prepared.log_at;
		run.fds = vm_prepared_numbers(&vm->prepared);
		rc = qemu_args_make(vm->config, vm->setup->host, &run, &args, &err);
		if (!rc)
			rc = spawn(vm, &args, &err);
		qemu_args_release(&args);
		vm_prepared_release(&vm->prepared);
	}
	vm->config = NULL;
	if (rc)
		start_failed(vm, &err);
}

/* ---- V1 ---- */

static void prepare_run(struct job *job)
{
	struct vm *vm = container_of(job, struct vm, job);

	vm->job_rc = vm_prepare(vm->setup, vm->id, vm->config, &vm->prepared, &vm->err);
}

void vm_start(struct vm *vm, const struct vm_config *config, const struct qemu_place *places,
	      int image_fd, vm_done *done, void *user)
{
	LOOP_CHECK(vm->setup->loop);
	if (vm_has_verb(vm) ||
	    vm_next_state(vm->state, image_fd >= 0 ? VM_EV_RESUME : VM_EV_START) == VM_UNDECIDED) {
		if (image_fd >= 0)
			close(image_fd);
		refuse(vm, done, user, image_fd >= 0 ? "resumed" : "started");
		return;
	}
	vm->verb = (struct vm_verb){ done, user };
	vm->config = config;
	memcpy(vm->places, places, config->drive_count * sizeof(*places));
	vm->image_fd = image_fd;
	vm->image_kept = image_fd >= 0;
	vm->expected_end = false;
	err_clear(&vm->err);
	vm->job_runs = true;
	vm->job.run = prepare_run;
	vm->job.done = prepared;
	vm_move(vm, image_fd >= 0 ? VM_EV_RESUME : VM_EV_START, NULL);
	worker_submit(vm->setup->worker, &vm->job);
}

/* ---- stopping ---- */

static void stop_fired(struct timer *timer)
{
	struct vm *vm = container_of(timer, struct vm, stop_timer);

	if (vm->quitting) {
		log_warn("vm", "%s: QEMU does not end: it is killed", vm->id);
		qemu_process_kill(vm->pidfd);
	} else {
		log_warn("vm", "%s: the guest did not power off in time", vm->id);
		vm_quit(vm);
	}
}

/* QEMU flushes its disks and ends; what hangs is killed. */
void vm_quit(struct vm *vm)
{
	if (vm->quitting || vm->pidfd < 0)
		return;
	vm->quitting = vm->expected_end = true;
	timer_start(&vm->stop_timer, KILL_AFTER_NS);
	if (vm->qmp)
		qmp_command(vm->qmp, "quit", NULL, KILL_AFTER_NS, NULL, NULL);
	else
		qemu_process_kill(vm->pidfd);
}

static void powerdown_asked(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;

	if (!result)
		log_warn("vm", "%s: %s", vm->id, err->cause);   /* the timer ends it */
}

void vm_stop(struct vm *vm, bool force, uint64_t timeout_ns, vm_done *done, void *user)
{
	struct vm_verb *verb = &vm->stops[vm->stops[0].done != NULL];

	LOOP_CHECK(vm->setup->loop);
	if (verb->done || vm->pidfd < 0 || (vm->state == VM_STOPPING && !force) ||
	    vm_next_state(vm->state, VM_EV_STOP) == VM_UNDECIDED) {
		refuse(vm, done, user, "stopped");
		return;
	}
	*verb = (struct vm_verb){ done, user };
	vm_move(vm, VM_EV_STOP, NULL);
	if (force) {
		vm_quit(vm);
		return;
	}
	vm->expected_end = true;
	timer_start(&vm->stop_timer, timeout_ns);
	if (vm->qmp)
		qmp_command(vm->qmp, "system_powerdown", NULL, VM_QMP_TIMEOUT_NS, powerdown_asked,
			    vm);
}

/* ---- the struct ---- */

struct vm *vm_new(const struct vm_setup *setup, const char *id, const struct vm_hooks *hooks,
		  void *user)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->setup = setup;
	vm->hooks = *hooks;
	vm->user = user;
	vm->state = VM_OFF;
	vm->pidfd = vm->exec_fd = vm->image_fd = -1;
	vm->refusal.run = verb_refused;
	snprintf(vm->id, sizeof(vm->id), "%s", id);
	timer_init(&vm->stop_timer, setup->loop, stop_fired);
	timer_init(&vm->retry, setup->loop, vm_retry_fired);
	return vm;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	CHECK(!vm->job_runs);
	CHECK(vm->record_count == 0);
	CHECK(!vm->hook_runs);
	loop_unpost(vm->setup->loop, &vm->refusal);
	process_forget(vm);
	free(vm);
}

bool vm_has_verb(const struct vm *vm)
{
	return vm->job_runs || vm->hook_runs || vm->verb.done || vm->stops[0].done;
}

bool vm_is_busy(const struct vm *vm)
{
	return vm_has_verb(vm) || vm->record_count || vm->refusal.queued;
}

enum vm_state vm_state(const struct vm *vm)
{
	return vm->state;
}

const char *vm_pause_reason(const struct vm *vm)
{
	return vm->pause_reason;
}

pid_t vm_pid(const struct vm *vm)
{
	return vm->process.pid;
}

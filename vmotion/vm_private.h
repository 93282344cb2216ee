/* SPDX-License-Identifier: Apache-2.0 */
/* vm_private.h - what the files of vm share. */
#ifndef BM_VMOTION_VM_PRIVATE_H
#define BM_VMOTION_VM_PRIVATE_H

#include "vmotion/qmp.h"
#include "vmotion/vm.h"
#include "vmotion/vm_prepare.h"

#define VM_QMP_TIMEOUT_NS (30 * NS_PER_S)
#define VM_LOG_TAIL_BYTES 140

/* A verb that waits for its end. */
struct vm_verb {
	vm_done *done;
	void *user;
};

struct vm {
	const struct vm_setup *setup;
	struct vm_hooks hooks;
	void *user;
	char id[VM_ID_BYTES];
	enum vm_state state;

	struct vm_verb verb;            /* start or suspend */
	struct vm_verb stops[2];        /* a gentle one, and a forced one after it */
	struct task refusal;            /* the state did not allow a verb */
	struct vm_verb refused;
	struct err refused_err;
	struct err err;                 /* why the verb fails, or why it ended */

	/* The process. */
	struct qemu_identity process;
	int pidfd, exec_fd;
	struct watch process_watch, exec_watch;
	char end_text[96];
	bool end_clean;
	bool expected_end;              /* we asked for it, or the guest did */
	uint64_t log_at;

	/* Its monitor. */
	struct qmp *qmp;
	bool examining;                 /* after a restart or a loss: what does it do? */
	enum vm_state goal;             /* while examining: what it was doing */
	char pause_reason[VM_REASON_BYTES];
	struct timer retry;             /* of a lost monitor */
	struct timer stop_timer;
	bool quitting;                  /* stop_timer kills next */

	/* The image: of a suspend being written, of a resume being read. */
	int image_fd;
	bool image_kept;                /* the VMX names it */

	/* The job under way: preparing, or reading the last words. */
	struct job job;
	bool job_runs;
	unsigned record_count;          /* on their way */
	bool hook_runs;                 /* the owner keeps or drops the image */
	bool ended;                     /* and told when the hook has answered */
	const struct vm_config *config;
	struct qemu_place places[VM_DRIVES_MAX];
	struct vm_prepared prepared;
	int job_rc;
	char log_tail[VM_LOG_TAIL_BYTES];
};

/* vm.c */
bool vm_has_verb(const struct vm *vm);
/* The hook has answered: an end that waited for it is told.  True: it had ended. */
bool vm_hook_done(struct vm *vm);
bool vm_move(struct vm *vm, enum vm_event event, const struct err *err);
void vm_end_verb(struct vm_verb *verb, const struct err *err);
/* The start (or resume) has failed: end the process, if there is one. */
void vm_give_up(struct vm *vm, const struct err *err);
void vm_quit(struct vm *vm);
void vm_record(struct vm *vm, enum vm_state state, vm_kept *kept);
void vm_continue(struct vm *vm);
void vm_up_recorded(const struct err *failed, void *user);
int vm_watch_process(struct vm *vm, int pidfd, struct err *err);
void vm_connect(struct vm *vm);
void vm_limit_files(struct vm *vm, bool limited);

/* vm_suspend.c */
void vm_suspend_migrated(struct vm *vm, const char *status);
void vm_resume_read(struct vm *vm);
void vm_resume_migrated(struct vm *vm, const char *status);

/* vm_adopt.c */
void vm_examine(struct vm *vm);
void vm_lose(struct vm *vm);
/* The monitor hung up: mostly the process is ending.  If not, it is looked at again. */
void vm_look_again(struct vm *vm);
void vm_examine_migrated(struct vm *vm);
void vm_retry_fired(struct timer *timer);

#endif

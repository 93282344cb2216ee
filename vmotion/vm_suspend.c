/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_suspend.c - the guest's memory into a file, and back.
 *
 * QEMU writes and reads its migration stream through a descriptor that it is handed: it needs no
 * right to the file.  Its events tell the end; nothing is polled.
 */
#include <errno.h>
#include <unistd.h>
#include <fcntl.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/vm_private.h"

/* No limit: the guest stands still meanwhile. */
#define IMAGE_RATE_BYTES ((json_int_t)1 << 50)

static json_t *events_on(void)
{
	return json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "events", "state", 1);
}

/* ---- suspending ---- */

/* The guest goes on, and the verb hears why: continued(). */
static void suspend_failed(struct vm *vm, const struct err *err)
{
	if (vm->err.id != ERR_NONE || vm->state != VM_SUSPENDING)
		return; /* the first failure tells, and the process may be ending */
	err_set(&vm->err, ERR_VM_SUSPEND, 0, "not suspended: %.200s", err->cause);
	if (vm->image_fd >= 0)
		close(vm->image_fd);
	vm->image_fd = -1;
	if (vm->qmp)
		vm_continue(vm);
}

static void suspend_step(const json_t *result, const struct err *err, void *user)
{
	if (!result)
		suspend_failed(user, err);
}

static void image_kept(const struct err *err, void *user)
{
	struct vm *vm = user;

	vm->image_kept = err == NULL;
	if (vm_hook_done(vm) || vm->examining)
		return; /* it has ended meanwhile, or is looked at again */
	if (err)
		suspend_failed(vm, err);
	else
		vm_quit(vm);
}

void vm_suspend_migrated(struct vm *vm, const char *status)
{
	struct err err;

	if (strcmp(status, "completed") == 0) {
		vm->hook_runs = true;
		vm->hooks.keep_image(image_kept, vm, vm->user);
	} else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
		err_set(&err, ERR_VM_SUSPEND, 0, "QEMU could not write the image (%s)", status);
		suspend_failed(vm, &err);
	}
}

static void suspend_write(struct vm *vm)
{
	int fd = fcntl(vm->image_fd, F_DUPFD_CLOEXEC, 0);
	struct err err;

	if (fd < 0) {
		err_set(&err, ERR_VM_SUSPEND, -errno, "cannot hand on the image: %s",
			err_strerror(-errno));
		suspend_failed(vm, &err);
		return;
	}
	vm_limit_files(vm, false);
	qmp_command(vm->qmp, "stop", NULL, VM_QMP_TIMEOUT_NS, suspend_step, vm);
	qmp_command(vm->qmp, "migrate-set-capabilities", events_on(), VM_QMP_TIMEOUT_NS,
		    suspend_step, vm);
	qmp_command(vm->qmp, "migrate-set-parameters",
		    json_pack("{s:I}", "max-bandwidth", IMAGE_RATE_BYTES), VM_QMP_TIMEOUT_NS,
		    suspend_step, vm);
	qmp_command_fd(vm->qmp, "getfd", json_pack("{s:s}", "fdname", "suspend"), fd,
		       VM_QMP_TIMEOUT_NS, suspend_step, vm);
	qmp_command(vm->qmp, "migrate", json_pack("{s:s}", "uri", "fd:suspend"),
		    VM_QMP_TIMEOUT_NS, suspend_step, vm);
}

static void suspend_recorded(const struct err *err, void *user)
{
	struct vm *vm = user;

	vm->record_count--;
	if (vm->state != VM_SUSPENDING || !vm->qmp)
		return; /* it has ended, or is being looked for */
	if (err)
		suspend_failed(vm, err);
	else
		suspend_write(vm);
}

static void suspend_refuse(struct vm *vm, int image_fd, vm_done *done, void *user)
{
	struct err err;

	close(image_fd);
	err_set(&err, ERR_VM_STATE, -EBUSY, "the machine is %s%s: it cannot be suspended now",
		vm_state_name(vm->state), vm_has_verb(vm) ? " and busy" : "");
	done(&err, user);
}

void vm_suspend(struct vm *vm, int image_fd, vm_done *done, void *user)
{
	LOOP_CHECK(vm->setup->loop);
	if (vm_has_verb(vm) || vm_next_state(vm->state, VM_EV_SUSPEND) == VM_UNDECIDED ||
	    !vm->qmp) {
		suspend_refuse(vm, image_fd, done, user);
		return;
	}
	vm->verb = (struct vm_verb){ done, user };
	vm->image_fd = image_fd;
	vm->image_kept = false;
	vm_move(vm, VM_EV_SUSPEND, NULL);
	vm_record(vm, VM_SUSPENDING, suspend_recorded);
}

/* ---- resuming ---- */

static void resume_failed(struct vm *vm, const struct err *err)
{
	struct err why;

	err_set(&why, ERR_VM_RESUME, 0, "not resumed: %.200s", err->cause);
	vm_give_up(vm, &why);
}

static void resume_step(const json_t *result, const struct err *err, void *user)
{
	struct vm *vm = user;

	if (!result && vm->state == VM_RESUMING)
		resume_failed(vm, err);
}

static void image_dropped(const struct err *err, void *user)
{
	struct vm *vm = user;

	/* From here the image is history: should QEMU die now, the guest starts afresh. */
	if (!err)
		vm->image_kept = false;
	if (vm_hook_done(vm) || vm->examining)
		return; /* it has ended meanwhile, or is looked at again */
	if (err)
		resume_failed(vm, err);
	else
		vm_continue(vm);
}

void vm_resume_migrated(struct vm *vm, const char *status)
{
	struct err err;

	if (strcmp(status, "completed") == 0) {
		vm->hook_runs = true;
		vm->hooks.drop_image(image_dropped, vm, vm->user);
	} else if (strcmp(status, "failed") == 0) {
		err_set(&err, ERR_VM_RESUME, 0, "QEMU could not read the image");
		resume_failed(vm, &err);
	}
}

/* V5 */
void vm_resume_read(struct vm *vm)
{
	int fd = vm->image_fd;

	vm->image_fd = -1;
	qmp_command(vm->qmp, "migrate-set-capabilities", events_on(), VM_QMP_TIMEOUT_NS,
		    resume_step, vm);
	qmp_command_fd(vm->qmp, "getfd", json_pack("{s:s}", "fdname", "resume"), fd,
		       VM_QMP_TIMEOUT_NS, resume_step, vm);
	qmp_command(vm->qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:resume"),
		    VM_QMP_TIMEOUT_NS, resume_step, vm);
}

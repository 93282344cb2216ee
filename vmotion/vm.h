/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.h - one machine's QEMU: started, stopped, suspended, resumed, adopted after a restart.
 *
 *                START                UP
 *       OFF ------------> STARTING ---------> RUNNING <-----FOUND----- LOST
 *        ^                   |                |  |  \------LOSE--------> ^
 *        |<-------ENDED------+<--- STOPPING <-+  |                       |
 *        |                                       | SUSPEND               | ENDED
 *        |<----STOP--- SUSPENDED <-SAVED- SUSPENDING --UP--> RUNNING     v
 *                         |  ^                                          OFF
 *                  RESUME v  | ENDED (the image is still good)
 *                        RESUMING --UP--> RUNNING
 *
 * The owner serves the disks, keeps records, and handles the memory image; the machine handles
 * the process and its monitor.  Order that survives a crash at any point:
 *
 *   start     record(STARTING, process) durable -> cont.  A QEMU without a record never ran.
 *   suspend   record(SUSPENDING) -> stop -> image written -> keep_image() durable -> quit.
 *   resume    record(RESUMING, process) -> image read -> drop_image() durable -> cont.  So an image is
 *             never resumed twice: its disks have gone on.
 *
 * Threading: main loop.  Callbacks run later, never from inside.
 */
#ifndef BM_VMOTION_VM_H
#define BM_VMOTION_VM_H

#include "blkmirror/base/worker.h"
#include "vmotion/qemu_args.h"
#include "vmotion/qemu_process.h"

#define VM_ID_BYTES 32
#define VM_REASON_BYTES 64
#define VM_STOP_TIMEOUT_NS (60 * NS_PER_S)

enum vm_state {
	VM_UNDECIDED,
	VM_OFF,
	VM_STARTING,
	VM_RUNNING,
	VM_STOPPING,
	VM_SUSPENDING,
	VM_SUSPENDED,
	VM_RESUMING,
	VM_LOST,
	VM_STATE_COUNT,
};

enum vm_event {
	VM_EV_START,
	VM_EV_UP,                       /* the guest runs */
	VM_EV_STOP,
	VM_EV_SUSPEND,
	VM_EV_SAVED,                    /* the process has ended, the image is kept */
	VM_EV_RESUME,
	VM_EV_ENDED,                    /* the process has ended */
	VM_EV_LOSE,                     /* the process lives, its monitor does not answer */
	VM_EVENT_COUNT,
};

/* VM_UNDECIDED: that cannot happen there, or is refused. */
enum vm_state vm_next_state(enum vm_state state, enum vm_event event);
/* "off", "starting" ... */
const char *vm_state_name(enum vm_state state);
bool vm_state_parse(const char *text, enum vm_state *out);

/* What the owner keeps durably. */
struct vm_record {
	enum vm_state state;
	struct qemu_identity process;
};

typedef void vm_kept(const struct err *err, void *user);        /* NULL: done, durably */

/* Asked of the owner, who answers once by kept(err, kept_user), later or at once. */
struct vm_hooks {
	void (*record)(const struct vm_record *record, vm_kept *kept, void *kept_user, void *user);
	/* The image behind the descriptor given to vm_suspend() is complete: make it the machine's. */
	void (*keep_image)(vm_kept *kept, void *kept_user, void *user);
	/* It has been read in and must never be again. */
	void (*drop_image)(vm_kept *kept, void *kept_user, void *user);
	/* The state has changed; for OFF and SUSPENDED err (may be NULL) says why. */
	void (*moved)(enum vm_state state, const struct err *err, void *user);
};

/* How this host runs machines; borrowed, must outlive the machine. */
struct vm_setup {
	struct loop *loop;
	struct worker *worker;          /* for what may block on local files */
	const char *run_dir;            /* sockets: RUN-DIR/vms/ID, RUN-DIR/console/ID.sock */
	const char *state_dir;          /* logs, EFI variables: STATE-DIR/vms/ID */
	const struct qemu_host *host;
	const char *efi_vars;           /* template, or NULL */
	bool drop;                      /* run QEMU as uid and gid */
	uid_t uid;
	gid_t gid;
	bool has_group;                 /* QEMU's only other group: /dev/kvm's */
	gid_t group;
	bool has_console_gid;
	gid_t console_gid;              /* whose members may use consoles */
};

struct vm;

/* id is copied.  NULL: out of memory. */
struct vm *vm_new(const struct vm_setup *setup, const char *id, const struct vm_hooks *hooks,
		  void *user);
/*
 * Forget it; the process, if there is one, goes on (a daemon that stops).  Nothing may be under way
 * (vm_is_busy()).  NULL is harmless.
 */
void vm_free(struct vm *vm);
/* Does a job, a record or a verb wait for its end? */
bool vm_is_busy(const struct vm *vm);

enum vm_state vm_state(const struct vm *vm);
/* Why a running guest stands still ("io-error", "paused"), or "". */
const char *vm_pause_reason(const struct vm *vm);
pid_t vm_pid(const struct vm *vm);
void vm_console_path(const struct vm_setup *setup, const char *id, char out[108]);
void vm_disk_socket_path(const struct vm_setup *setup, const char *id, const char *drive,
			 char out[108]);
void vm_log_path(const struct vm_setup *setup, const char *id, char out[PATH_MAX]);

typedef void vm_done(const struct err *err, void *user);        /* NULL: done */

/* ERR_VM_STATE when the state does not allow it.  done runs once, later. */

/*
 * config is borrowed until done.  image_fd >= 0 (taken): resume from it; the state must be
 * SUSPENDED.  On failure nothing runs: OFF, or SUSPENDED.
 */
void vm_start(struct vm *vm, const struct vm_config *config, const struct qemu_place *places,
	      int image_fd, vm_done *done, void *user);
/*
 * Ask the guest to power off (ACPI); after timeout_ns, or at once with force, end QEMU.  Done when the process has
 * ended.  A forced stop may follow a gentle one that is under way; both are answered.
 */
void vm_stop(struct vm *vm, bool force, uint64_t timeout_ns, vm_done *done, void *user);
/* Write the memory image into image_fd (taken).  On failure the guest goes on. */
void vm_suspend(struct vm *vm, int image_fd, vm_done *done, void *user);

/*
 * After a restart: what became of the machine of that record?  image_kept: its VMX names an image.
 * Answers by moved(), once the state is known.
 */
void vm_adopt(struct vm *vm, const struct vm_record *record, bool image_kept);
/* Its state as stored, when there is no process. */
void vm_settle(struct vm *vm, enum vm_state state);
/*
 * No process is recorded: end one that was started and never recorded, hence never ran.  It is
 * known by its socket and its name.
 */
void vm_reap_orphan(const struct vm_setup *setup, const char *id);
/* No process and a suspended image: the owner has thrown it away. */
void vm_discarded(struct vm *vm);

#endif

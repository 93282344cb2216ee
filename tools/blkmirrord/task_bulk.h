/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_bulk.h - import, export and verify: tasks on disks that no guest uses.
 *
 * One chain of steps; each runs where it may block and comes back to the main loop:
 *
 *   import   open file -> create disk -> open disk -> run -> close -> (undo) -> end
 *   export   open disk -> create file              -> run -> close -> (undo) -> end
 *   verify   open disk -> open the other           -> run -> close           -> end
 *
 * A failure at any step closes what is open, removes what this task made (and only that), and
 * ends in FAILED or CANCELLED.
 */
#ifndef BM_TASK_BULK_H
#define BM_TASK_BULK_H

#include "tools/blkmirrord/bulk_compare.h"
#include "tools/blkmirrord/bulk_copy.h"
#include "tools/blkmirrord/ds_job.h"
#include "tools/blkmirrord/task_kinds.h"

enum bulk_kind { BULK_IMPORT, BULK_EXPORT, BULK_VERIFY };

enum bulk_step {
	BULK_OPEN_FILE, BULK_CREATE_DISK, BULK_OPEN_DISK, BULK_OPEN_OTHER, BULK_CREATE_FILE,
	BULK_RUN, BULK_CLOSE_DISK, BULK_CLOSE_OTHER, BULK_UNDO_DISK, BULK_UNDO_FILE, BULK_END,
};

struct bulk_side {
	struct disk_name name;
	struct ds_entry *entry;         /* held from queued to ended */
	struct ds_disk *disk;           /* while open */
};

struct bulk_task {
	struct user_task base;
	struct daemon *daemon;
	enum bulk_kind kind;
	enum bulk_step step;
	struct bulk_side sides[2];      /* [1] only for verify */
	enum provision provision;
	char *file;                     /* import, export */
	struct worker *file_worker;     /* its store may hang: nobody else waits for it */
	int file_fd;                    /* -1: not open (or the device's) */
	uint64_t size_bytes;            /* the main loop's */
	uint64_t found_bytes;           /* the present step's: taken over when it has ended */
	bool made_disk, made_file, cancelled;
	struct disk_identity made_identity;
	struct err err;                 /* why it ends */

	struct ds_job ds_job;
	struct job file_job;
	struct task hop, back;          /* to the I/O loop, and from it */
	struct blk_dev *devs[2];        /* the I/O loop's */
	struct bulk_copy *copy;         /* set and cleared on the I/O loop, under lock */
	struct bulk_compare *compare;
	pthread_mutex_t lock;           /* guards copy and compare for cancel and progress */
	struct bulk_compare_result compared;
	struct bulk_copy_stats last_stats;      /* the I/O loop's, handed over at the end */
	uint64_t last_done_bytes;

	struct timer progress;
	uint64_t progress_at_ns, progress_done_bytes, rate_bytes_per_s;
	struct bulk_copy_stats stats;
	uint64_t done_bytes;
};

/* The step has ended, on the main loop; bulk->err says how. */
void bulk_step_done(struct bulk_task *bulk);
/* Steps on a worker (task_bulk_steps.c). */
void bulk_start_step(struct bulk_task *bulk);
/* The step that reads and writes (task_bulk_run.c). */
void bulk_run(struct bulk_task *bulk);
void bulk_run_cancel(struct bulk_task *bulk);
void bulk_run_sample(struct bulk_task *bulk);

#endif

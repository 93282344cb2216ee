/* SPDX-License-Identifier: Apache-2.0 */
/* copy_private.h - what the copy engine's rooms share. */
#ifndef BM_COPY_PRIVATE_H
#define BM_COPY_PRIVATE_H

#include "blkmirror/mirror/copy_engine.h"

#define COPY_RUNS_MAX 512u              /* ring of runs between scan and copy */
#define COPY_JOBS_MAX 64u
#define COPY_WRITES_MAX 32u             /* data runs of one job */
#define COPY_AHEAD_REGIONS (2u * WINDOW_REGIONS_MAX)    /* in the ring: no more is looked for */
#define COPY_BUSY_TRIES 32u             /* busy regions met in one turn of the loop */
#define COPY_SCAN_RUNS 128u             /* extents asked for at once */
#define COPY_HOT_SLOTS 256u
#define COPY_HOT_AFTER 2u               /* broken or busy that often: dual */

enum run_kind { RUN_DATA, RUN_ZERO };

struct copy_run {
	uint64_t offset_bytes;
	uint64_t len_bytes;
	enum run_kind kind;
};

struct copy_job {
	struct copy_engine *engine;
	struct list node;               /* engine->jobs or engine->free_jobs */
	struct window window;
	enum run_kind kind;
	struct buf *data;
	uint64_t charged_bytes, charged_ns;     /* at the pacer, and when */
	uint64_t data_bytes;            /* written as data */
	uint64_t started_ns;            /* of the target writes; 0: none in flight */
	uint32_t writes_pending;
	uint32_t write_count;
	int result;
	struct blk_req read;
	struct iovec read_iov;
	struct blk_extents extents;
	struct blk_extent extent_runs[8];
	struct blk_req writes[COPY_WRITES_MAX];
	struct iovec write_iovs[COPY_WRITES_MAX];
};

/* How often a region was in the way: a direct-mapped table, newer regions push older ones out. */
struct hot_slot {
	uint64_t region;
	uint32_t count;
};

struct copy_engine {
	struct mirror *mirror;
	struct buf_pool *pool;
	struct pacer *pacer;
	struct hash_store *hashes;
	struct copy_hooks hooks;
	void *user;
	struct loop *loop;
	bool running;
	bool first_pass;
	struct task pump;
	struct buf_waiter buf_waiter;

	uint64_t cursor_bytes;          /* where the next run is looked for */
	struct copy_run runs[COPY_RUNS_MAX];
	uint32_t run_head, run_count;
	uint64_t run_bytes;             /* of all runs */
	uint64_t window_bytes;          /* under the windows of the jobs in flight */
	bool again;                     /* kicked since the walk last began anew */

	bool scan_in_flight;
	struct window scan_window;
	struct blk_req scan_req;
	struct blk_extents scan_extents;
	struct blk_extent scan_runs[COPY_SCAN_RUNS];

	struct list jobs, free_jobs;
	uint32_t job_count;             /* allocated */
	uint32_t jobs_in_flight;
	uint32_t jobs_max;
	struct hot_slot hot[COPY_HOT_SLOTS];
	struct dirty_bitmap *copied;    /* copied once: a second time counts as re-copied */
	struct copy_stats stats;
};

/* ---- copy_engine.c ---- */
void copy_run_push(struct copy_engine *engine, uint64_t offset_bytes, uint64_t len_bytes,
		   enum run_kind kind);
/* Make the last run, a data run that reaches start_bytes, reach end_bytes.  False: there is none. */
bool copy_run_join(struct copy_engine *engine, uint64_t start_bytes, uint64_t end_bytes);
uint32_t copy_run_room(const struct copy_engine *engine);
void copy_hot_count(struct copy_engine *engine, uint64_t offset_bytes);

/* ---- copy_scan.c ---- */
/* False: the mirror lets no window open now. */
bool copy_scan_start(struct copy_engine *engine, uint64_t offset_bytes, uint64_t len_bytes);

/* ---- copy_job.c ---- */
/*
 * Start copying some of the run.  Returns how far it came, 0: the first region is busy.
 * -ENOBUFS: no buffer or job now; a kick follows.
 */
int64_t copy_job_start(struct copy_engine *engine, const struct copy_run *run, bool dual);
/* The most that one job takes of such a run. */
uint64_t copy_job_max_bytes(const struct copy_engine *engine, enum run_kind kind);
void copy_jobs_release(struct copy_engine *engine);

#endif

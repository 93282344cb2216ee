/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_rig.h - a move of disks in memory on the simulated loop, and guest requests by hand.
 *
 *     guest -> gate -> source_delay -> source
 *                      target_delay -> target_fault -> target
 *
 * The delays can be given latencies and hung; the targets can be made to fail.  Disks are
 * filled with data before the move, their bytes may be read and changed at any time.
 */
#ifndef BM_TESTS_MOVE_RIG_H
#define BM_TESTS_MOVE_RIG_H

#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/mirror/mover_private.h"
#include "tests/lib/mem_dev.h"

#define RIG_DISKS_MAX 4
#define RIG_WRITE_MAX (128u << 10)

struct rig_disk {
	struct mem_dev *source, *target;
	struct blk_dev *source_delay, *target_delay, *target_fault;
	struct gate *gate;
};

struct rig_options {
	uint64_t seed;
	uint32_t disk_count;
	uint64_t size_bytes;
	uint64_t pool_bytes;            /* 0: 256 MiB */
	struct wrap_delay_options source_delay, target_delay;
	struct blk_limits target_limits;        /* block_bytes 0: as mem_dev */
	struct mover_options mover;
};

struct rig {
	struct loop *loop;
	struct buf_pool *pool;
	struct rig_disk disks[RIG_DISKS_MAX];
	uint32_t disk_count;
	struct mover *mover;
	struct timer commit_timer;
	int commit_result;
	bool hold_commit;               /* the test answers itself */
	uint64_t commits;
	bool freed;
};

/* A request of a guest, made by hand. */
struct rig_write {
	struct blk_req req;
	struct iovec iov;
	bool done;
	uint64_t began_ns, took_ns;
	uint8_t bytes[RIG_WRITE_MAX];
};

struct rig *rig_new(const struct rig_options *options);
/* Ends the move when it is still under way, waits until it is freed, frees all. */
void rig_free(struct rig *rig);

void rig_start(struct rig *rig);

/* Runs until done() says so.  False: not within so much virtual time (or steps). */
bool rig_run_until(struct rig *rig, bool (*done)(struct rig *rig), uint64_t within_ns);
void rig_run_for(struct rig *rig, uint64_t ns);
bool rig_run_to_state(struct rig *rig, enum mover_state state, uint64_t within_ns);
bool rig_has_ended(struct rig *rig);
bool rig_is_freed(struct rig *rig);

struct rig_write *rig_write_new(void);
void rig_write_begin(struct rig *rig, uint32_t disk, struct rig_write *write, uint64_t offset_bytes,
		     uint64_t len_bytes, uint8_t fill);
/* Begin a request of another kind. */
void rig_request_begin(struct rig *rig, uint32_t disk, struct rig_write *write, enum blk_op op,
		       uint64_t offset_bytes, uint64_t len_bytes);
/* Begin and wait for the answer. */
void rig_write(struct rig *rig, uint32_t disk, uint64_t offset_bytes, uint64_t len_bytes,
	       uint8_t fill);

bool rig_disks_are_equal(const struct rig *rig);

#endif

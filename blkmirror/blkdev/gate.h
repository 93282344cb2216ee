/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate.h - the door between a guest's export and the device behind it.
 *
 * An attached disk is export -> gate -> device.  The gate can hold requests back
 * (the stun of a switch-over), say when those inside have drained, and change the
 * device behind it, while the export and the guest keep what they have.  It also
 * measures what the guest feels (io_stats), the time behind a closed gate included.
 *
 * The gate adds no request of its own: it passes the guest's request on and takes
 * its completion back, so an idle disk pays for one indirect call.
 *
 * Size and limits are the guest's and are fixed when the gate is made: a device
 * put behind it later is at least as large and takes blocks at least as small.
 *
 * Threading and errors: as blkdev.h.
 */
#ifndef BM_GATE_H
#define BM_GATE_H

#include "blkmirror/blkdev/blkdev.h"
#include "blkmirror/blkdev/io_stats.h"

struct gate;

/*
 * size_bytes: what the guest sees, at most next's.  The gate borrows `next`.
 * NULL: out of memory.
 */
struct gate *gate_new(struct loop *loop, struct blk_dev *next, uint64_t size_bytes);

/* No request inside or held.  Leaves the device behind alone.  NULL is harmless. */
void gate_free(struct gate *gate);

/* The gate as the device that an export serves.  Valid until gate_free(). */
struct blk_dev *gate_as_dev(struct gate *gate);

/* From now on requests queue here.  Holds nest: each needs its gate_release(). */
void gate_hold(struct gate *gate);
void gate_release(struct gate *gate);

/*
 * drained() runs once, from a posted task, when no request that passed the gate is
 * in flight behind it.  Useful on a held gate; without a hold it may never come.
 * One drain at a time per gate.
 */
void gate_drain(struct gate *gate, void (*drained)(struct gate *gate, void *user), void *user);
void gate_drain_cancel(struct gate *gate);

/*
 * Requests that pass the gate from now on go to `next`.  Those already behind it
 * stay where they are.  gate_epoch_in_flight() counts those of before the last swap:
 * the mirror opens no copy window until it is 0 (R1).
 */
void gate_set_next(struct gate *gate, struct blk_dev *next);
struct blk_dev *gate_next(const struct gate *gate);
uint64_t gate_in_flight(const struct gate *gate);
uint64_t gate_held(const struct gate *gate);
uint64_t gate_epoch_in_flight(const struct gate *gate);
/* drained() runs once, from a posted task, when that count is 0.  One wait at a time per gate. */
void gate_epoch_drain(struct gate *gate, void (*drained)(struct gate *gate, void *user),
		      void *user);
void gate_epoch_drain_cancel(struct gate *gate);

/* What the guest felt, since the gate was made. */
struct io_stats *gate_stats(struct gate *gate);

#endif

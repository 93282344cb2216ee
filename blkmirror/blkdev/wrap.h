/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wrap.h - devices that wrap a device: faults, delays, traces.  For tests and for
 * an operator who wants to see (the daemon never inserts one by itself).
 *
 * Each borrows `next`: close the wrapper first, then the device.  Limits and size are next's.
 * A request passes as a copy from a pool; the pool is sized when the wrapper is made
 * (128 requests) and grows by as much when more are in flight than ever before; a
 * request that finds no memory fails with -ENOMEM.  Constructors: NULL is out of memory.
 *
 * Threading and errors: as blkdev.h.
 */
#ifndef BM_BLK_WRAP_H
#define BM_BLK_WRAP_H

#include "blkmirror/blkdev/blkdev.h"

/* ---- fault: fail chosen requests ---- */

struct wrap_fault_rule {
	unsigned ops;                   /* bit per enum blk_op */
	uint64_t offset_bytes;          /* requests that touch [offset, offset + len); len 0: all */
	uint64_t len_bytes;             /* a flush touches everything */
	uint64_t from_nth;              /* the first matching request that fails, counted from 1 */
	uint64_t fail_count;            /* how many fail; UINT64_MAX: all from then on */
	int error;                      /* -errno */
	bool after;                     /* carry the request out, then fail it (the caller cannot know) */
};

struct blk_dev *wrap_fault_new(struct blk_dev *next);
/* Replaces the rule and counts anew from the next request on; NULL: no faults.  Copied. */
void wrap_fault_set(struct blk_dev *dev, const struct wrap_fault_rule *rule);
/* Requests failed since the wrapper was made, whatever the rules were. */
uint64_t wrap_fault_fired(const struct blk_dev *dev);

/* ---- delay: hold requests back, or let them hang until told ---- */

struct wrap_delay_options {
	unsigned ops;                   /* bit per enum blk_op */
	uint64_t min_ns, max_ns;        /* uniform, from the loop's randomness */
	bool after;                     /* delay the completion, not the submission */
};

struct blk_dev *wrap_delay_new(struct blk_dev *next, const struct wrap_delay_options *options);
/*
 * While hung, matching requests are kept: in front of the device, or, with `after`, on
 * their way back; an answer that comes back meanwhile is kept in either case.  Releasing
 * lets them go on from a posted task, in the order in which they were kept.  Others pass.
 */
void wrap_delay_hang(struct blk_dev *dev, bool hung);
/* Requests kept here now, delayed or hung; those at the device do not count. */
uint64_t wrap_delay_waiting(const struct blk_dev *dev);

/* ---- trace: a bounded ring of what passed, and a hook ---- */

struct trace_event {
	uint64_t sequence;                      /* from 1, in the order of submission */
	uint64_t submitted_ns, completed_ns;    /* completed 0: in flight */
	uint64_t offset_bytes, len_bytes;
	enum blk_op op;
	unsigned flags;
	int result;
};

/* ring_events: at least 1. */
struct blk_dev *wrap_trace_new(struct blk_dev *next, uint32_t ring_events);
/* Called at submit (completed_ns 0) and at completion; for named breakpoints in tests. */
void wrap_trace_hook(struct blk_dev *dev, void (*hook)(const struct trace_event *event, void *user),
		     void *user);
/* Copies up to capacity events, oldest first; returns how many. */
uint32_t wrap_trace_read(const struct blk_dev *dev, struct trace_event *out, uint32_t capacity);

#endif

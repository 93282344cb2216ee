/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blkdev.h - the one interface between the mirror, the exports and every store.
 *
 * Units:      offsets and lengths are bytes.  For everything but FLUSH they are
 *             multiples of limits.block_bytes and lie inside the device.  A READ
 *             or WRITE is at most BLK_MAX_TRANSFER_BYTES in BLK_MAX_IOV pieces:
 *             every device takes that much, and splits it where its transport
 *             takes less, so that the device behind a gate can be changed under
 *             a guest.  Who submits keeps to the rules: a guest's request is
 *             judged once, at the export; a bad one here is our bug (CHECK).
 * Errors:     req->result is 0 or -errno; never a short count.
 * Threading:  a device lives on one loop.  All calls and completions run there.
 * Ownership:  from blk_submit() until done(), the request, its iovec and the data
 *             belong to the device; afterwards they are the caller's again.
 * Completion: done() runs exactly once, and never from inside blk_submit().
 *             Requests may complete in any order; two in flight that overlap may
 *             land in any order (the mirror and the exports see to it).
 *
 * Semantics:
 *   BLK_READ, BLK_WRITE   the iovec adds up to len_bytes.  BLK_FUA on a write (or
 *                         zeroes): it is durable when done() runs.  Memory aligned to
 *                         limits.memory_align_bytes goes without a copy; a device
 *                         takes any alignment and bounces what it must.
 *   BLK_WRITE_ZEROES      reads as zeroes afterwards; may be any length.  With
 *                         BLK_MAY_UNMAP the space may be given back, without it the
 *                         space stays allocated where the store can tell.
 *   BLK_DISCARD           contents become undefined: only a hint.  The mirror never
 *                         sends it (R8); an export with a bare device may.
 *   BLK_FLUSH             every write done before it was submitted is durable.
 *                         A fresh device's first flush reaches the store (R9).
 *   BLK_EXTENTS           fills req->extents for [offset, offset + len): at least
 *                         one run, from offset on, in order, without gaps; it may
 *                         stop early.  An answer may be out of date as soon as a
 *                         write overlaps: see the mirror's copy windows (R1).
 *
 * Deadlines: a device never completes a request early to keep a deadline (R2): the
 * storage may still carry it out.  Who waits may stop waiting; see mirror_leg.c.
 */
#ifndef BM_BLKDEV_H
#define BM_BLKDEV_H

#include <stdint.h>
#include <sys/uio.h>

#include "blkmirror/base/buf.h"
#include "blkmirror/base/loop.h"

enum blk_op {
	BLK_READ,
	BLK_WRITE,
	BLK_WRITE_ZEROES,
	BLK_DISCARD,
	BLK_FLUSH,
	BLK_EXTENTS,
	BLK_OP_COUNT,
};

enum blk_flags {
	BLK_FUA = 1,            /* WRITE, WRITE_ZEROES */
	BLK_MAY_UNMAP = 2,      /* WRITE_ZEROES */
	BLK_STABLE = 4,         /* nobody else can change the data while the request is in flight */
	BLK_COPIER = 8,         /* background traffic: a device may prefer guests to it */
};

enum blk_extent_status {
	BLK_EXTENT_DATA,        /* must be read */
	BLK_EXTENT_ZERO,        /* reads as zeroes, space is allocated */
	BLK_EXTENT_HOLE,        /* reads as zeroes, no space */
};

struct blk_extent {
	uint64_t len_bytes;
	enum blk_extent_status status;
};

/* The answer to BLK_EXTENTS; the array is the caller's. */
struct blk_extents {
	struct blk_extent *runs;
	uint32_t capacity;              /* at least 1 */
	uint32_t count;                 /* set by the device on success, at least 1 */
};

#define BLK_REQ_PRIVATE_BYTES 128
#define BLK_MAX_TRANSFER_BYTES BUF_MAX_BYTES
#define BLK_MAX_IOV 256u

struct blk_dev;

struct blk_req {
	enum blk_op op;
	unsigned flags;                 /* enum blk_flags */
	uint64_t offset_bytes;
	uint64_t len_bytes;
	const struct iovec *iov;        /* READ and WRITE; borrowed until done() */
	uint32_t iov_count;
	/*
	 * WRITE: the counted buffer behind the iovec, or NULL when the memory is not
	 * one.  Lets the mirror keep the data of a late leg (R2) without a copy.
	 */
	struct buf *data;
	struct blk_extents *extents;    /* BLK_EXTENTS */
	void (*done)(struct blk_req *req);
	void *user;                     /* the submitter's, untouched by devices */
	int result;                     /* valid once done() runs */

	/* Private to the gate that a guest's request came through (gate.h). */
	struct {
		void (*done)(struct blk_req *req);
		struct blk_dev *dev;
		uint64_t entered_ns;
		uint64_t epoch;
	} gate;

	/* Private to the device from submit to done. */
	struct blk_dev *dev;
	struct list node;
	struct task task;
	uint64_t submitted_ns;
	_Alignas(16) uint8_t private_bytes[BLK_REQ_PRIVATE_BYTES];
};

struct blk_limits {
	uint32_t block_bytes;           /* smallest unit of I/O: 512 or 4096 mostly; power of two */
	uint32_t physical_bytes;        /* the store's own unit (R10); >= block_bytes; power of two */
	uint32_t memory_align_bytes;    /* of each iovec element for the path without a copy; 1: any */
	uint32_t best_transfer_bytes;   /* a copier's request size; a hint; multiple of block_bytes */
	uint32_t best_depth;            /* requests in flight that saturate it; a hint */
	bool reads_zero;                /* a fresh target: what was never written reads as zeroes (R11) */
	bool can_unmap;                 /* WRITE_ZEROES with MAY_UNMAP gives space back */
	bool has_extents;               /* BLK_EXTENTS tells holes; otherwise all is data */
	bool can_block_submitter;       /* needs a submit thread as a target (R5) */
	bool read_only;
};

struct blk_ops {
	const char *name;               /* "file", "nbd", "mirror" ... */
	/* May assume a request that keeps to the header's rules. */
	void (*submit)(struct blk_dev *dev, struct blk_req *req);
	/* No request is in flight.  Releases everything, the struct included. */
	void (*close)(struct blk_dev *dev);
	/* For filters: is what is behind it lost?  NULL: dev->lost says it. */
	bool (*is_lost)(const struct blk_dev *dev);
};

/* Embedded as the first thing a backend knows; find yourself with container_of(). */
struct blk_dev {
	const struct blk_ops *ops;
	struct loop *loop;
	uint64_t size_bytes;
	struct blk_limits limits;
	uint64_t in_flight;             /* kept by blk_submit() and blk_complete() */
	/*
	 * The connection behind it is gone for good: what was in flight has been completed with an
	 * error but may still land (R2), and everything from now on fails.  Set by the backend;
	 * who asks, asks blk_is_lost().
	 */
	bool lost;
};

/* For a backend's constructor.  Sanitises nothing: limits must be right (CHECKed). */
void blk_dev_init(struct blk_dev *dev, const struct blk_ops *ops, struct loop *loop,
		  uint64_t size_bytes, const struct blk_limits *limits);

void blk_submit(struct blk_dev *dev, struct blk_req *req);

/* For backends: sets the result and calls done().  Never from inside submit. */
void blk_complete(struct blk_req *req, int result);

/* For backends that know the result at once: completes from a posted task (uses req->task). */
void blk_complete_later(struct blk_req *req, int result);

/* No request may be in flight.  NULL is harmless. */
void blk_close(struct blk_dev *dev);

/* Is this request within the device's rules?  For edges and tests. */
bool blk_req_is_valid(const struct blk_dev *dev, const struct blk_req *req);

/* Is the device, or the one behind this filter, gone for good (R2)? */
static inline bool blk_is_lost(const struct blk_dev *dev)
{
	return dev->ops->is_lost ? dev->ops->is_lost(dev) : dev->lost;
}

const char *blk_op_name(enum blk_op op);

static inline bool blk_op_writes(enum blk_op op)
{
	return op == BLK_WRITE || op == BLK_WRITE_ZEROES || op == BLK_DISCARD;
}

#endif

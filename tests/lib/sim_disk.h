/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_disk.h - a disk on the simulated loop: late, torn by power cuts, failing, hanging.
 *
 * A request lands at one random moment and completes at a later one, so that two in flight
 * may land in any order; data are read from the caller's memory when they land.  Writes
 * sit in a volatile cache until a flush that began after they completed has completed.
 * A write that fails may have landed not at all, in part, or whole.
 * A failed flush may drop volatile blocks for good, and the next one succeeds (R9).
 */
#ifndef BM_SIM_DISK_H
#define BM_SIM_DISK_H

#include "blkmirror/blkdev/blkdev.h"

#define SIM_BLOCK 512u

struct sim_disk_options {
	uint64_t size_bytes;
	uint32_t physical_bytes;
	bool reads_zero;                /* a fresh target; else it starts with garbage */
	bool has_extents;
	uint64_t min_latency_ns, max_latency_ns;
	uint64_t max_flush_ns;          /* a flush takes up to that much longer */
	/* No two writes in flight may touch one physical block (M3): CHECKed. */
	bool forbid_overlap;
	/* A write smaller than the physical block reads it first and writes it whole later (R10). */
	bool rmw_races;
	uint64_t discard_tag;           /* what a discard leaves behind: each store something else (R8) */
	const char *name;
};

struct sim_disk {
	struct blk_dev dev;
	struct sim_disk_options options;
	uint8_t *bytes;                 /* what a read sees now */
	uint8_t *durable;               /* what a power cut surely leaves */
	uint64_t *versions;             /* per block: counts what landed there */
	uint64_t *durable_versions;     /* which of them `durable` holds */
	uint8_t *allocated;             /* per block */
	uint32_t error_one_in;          /* requests fail with `error`; 0: none */
	int error;
	unsigned error_ops;             /* bit per op */
	uint32_t bad_flushes;           /* so many flushes still fail, every other one */
	uint32_t lie_one_in;            /* a copier's write lands with a wrong byte; 0: never */
	uint64_t lies;
	bool hung;
	struct list hanging;
	struct list in_flight;
	uint64_t writes, reads_of_holes;
};

struct sim_disk *sim_disk_new(struct loop *loop, const struct sim_disk_options *options);

/* Requests hang before they land, until released. */
void sim_disk_hang(struct sim_disk *disk, bool hung);

/*
 * The same disk for a world after a crash: what is in flight lands (a killed process: all of
 * it; a power cut: as chance has it, and volatile blocks too).  The old one is left behind.
 */
struct sim_disk *sim_disk_after_crash(struct loop *loop, struct sim_disk *disk, bool power_cut);

/* The power fails: each volatile block keeps its old or its new contents.  Changes `bytes`. */
void sim_disk_power_cut(struct sim_disk *disk);

#endif

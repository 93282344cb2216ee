/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_stats.h - what a guest feels: counts, bytes and a latency histogram.
 *
 * The histogram is log-linear: 16 buckets per power of two from 1 us to 64 s, so a
 * quantile is off by at most 6 %.  Recording is a few instructions, no lock.
 *
 * Threading: one loop records; any thread may take a snapshot (relaxed atomics,
 * so a snapshot is a moment old but never torn within one counter).
 */
#ifndef BM_IO_STATS_H
#define BM_IO_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#define IO_STATS_SUB_BUCKETS 16
#define IO_STATS_OCTAVES 27
#define IO_STATS_BUCKETS (IO_STATS_SUB_BUCKETS * IO_STATS_OCTAVES)

struct io_stats {
	_Atomic uint64_t read_ops, read_bytes;
	_Atomic uint64_t write_ops, write_bytes;        /* discards and zeroes count as writes */
	_Atomic uint64_t flush_ops;
	_Atomic uint64_t errors;
	_Atomic uint64_t latency_sum_ns;
	_Atomic uint64_t latency_max_ns;                /* since the last io_stats_take_max() */
	_Atomic uint64_t buckets[IO_STATS_BUCKETS];     /* all operations */
};

struct io_snapshot {
	uint64_t read_ops, read_bytes, write_ops, write_bytes, flush_ops, errors, latency_sum_ns;
	uint64_t buckets[IO_STATS_BUCKETS];
};

void io_stats_record(struct io_stats *stats, int op, uint64_t bytes, uint64_t latency_ns,
		     int result);

void io_stats_snapshot(const struct io_stats *stats, struct io_snapshot *out);

/* The difference of two snapshots of one disk: what happened between them. */
void io_snapshot_subtract(struct io_snapshot *later, const struct io_snapshot *earlier);

/* The sum of two disks. */
void io_snapshot_add(struct io_snapshot *sum, const struct io_snapshot *more);

uint64_t io_snapshot_ops(const struct io_snapshot *snapshot);

/* The latency below which `per_mille` of all operations lie (999: p99.9); 0 when there were none. */
uint64_t io_snapshot_quantile_ns(const struct io_snapshot *snapshot, unsigned per_mille);

/* The largest latency since the last call, and start anew. */
uint64_t io_stats_take_max_ns(struct io_stats *stats);

/* How many operations took longer than `latency_ns`, to the precision of a bucket. */
uint64_t io_snapshot_slower(const struct io_snapshot *snapshot, uint64_t latency_ns);

/* Upper bound of a bucket, for exporting the histogram. */
uint64_t io_stats_bucket_limit_ns(unsigned bucket);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger_stats.h - what the guest feels: rates, latencies, stalls of the disk and of the CPU.
 *
 * Two windows are kept at once, the running second and the running phase (a stretch of time
 * that the observer names).  A *gap* is a time in which requests were outstanding and none was
 * answered: one slow request beside fast ones is latency, not a gap.  A *CPU gap* is how late
 * a 1 ms tick came: where it is as long as a gap of the disk, the machine stood, not the disk.
 *
 * Units: nanoseconds inside, what the names say in the lines.
 * Threading: stats_started/finished/... under the caller's lock; stats_cpu_gap from any thread.
 */
#ifndef LEDGER_STATS_H
#define LEDGER_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum stats_op { STATS_READ, STATS_WRITE, STATS_ZERO, STATS_DISCARD, STATS_FLUSH, STATS_OP_COUNT };

#define STATS_BUCKET_COUNT 1024

struct stats_window {
	uint64_t started_ns;
	uint64_t op_count;                       /* all but flushes */
	uint64_t max_ns;                         /* of reads and writes */
	uint64_t flush_max_ns;
	uint64_t gap_ns;
	uint64_t sample_count;
	uint32_t buckets[STATS_BUCKET_COUNT];    /* latency of reads and writes, log-linear */
	_Atomic uint64_t cpu_gap_ns;             /* last: the only one another thread touches */
};

struct stats {
	struct stats_window second;
	struct stats_window phase;
	uint64_t totals[STATS_OP_COUNT];
	uint64_t error_count;
	unsigned in_flight;
	uint64_t quiet_since_ns;                 /* last answer, or first request after idleness */
};

uint64_t stats_now_ns(void);                     /* CLOCK_MONOTONIC */

void stats_init(struct stats *stats, uint64_t now_ns);
void stats_started(struct stats *stats, uint64_t now_ns);
void stats_finished(struct stats *stats, enum stats_op op, uint64_t started_ns, uint64_t now_ns);
void stats_cpu_gap(struct stats *stats, uint64_t gap_ns);

/*
 * Write "iops=.. p50_us=.." of @window as it stands at @now_ns, a running gap included, to
 * @text and start the window anew.
 */
void stats_close_window(struct stats *stats, struct stats_window *window, uint64_t now_ns,
			char *text, size_t text_bytes);

#endif

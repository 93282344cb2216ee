/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/io_stats.h"

#include "blkmirror/blkdev/blkdev.h"

static inline void count(_Atomic uint64_t *counter, uint64_t by)
{
	/* One writer: a plain load and store cost no locked instruction. */
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
			      memory_order_relaxed);
}

static inline uint64_t look(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Octave 0 holds [0, 1 us) in 16 steps of 64 ns; octave n holds [2^(n-1), 2^n) us. */
static unsigned bucket_of(uint64_t latency_ns)
{
	uint64_t units = latency_ns >> 6;
	unsigned octave, sub;

	if (units < IO_STATS_SUB_BUCKETS)
		return (unsigned)units;
	octave = 63u - (unsigned)__builtin_clzll(units) - 3u;
	sub = (unsigned)(units >> (octave - 1)) & (IO_STATS_SUB_BUCKETS - 1);
	if (octave >= IO_STATS_OCTAVES)
		return IO_STATS_BUCKETS - 1;
	return octave * IO_STATS_SUB_BUCKETS + sub;
}

uint64_t io_stats_bucket_limit_ns(unsigned bucket)
{
	unsigned octave = bucket / IO_STATS_SUB_BUCKETS;
	uint64_t sub = bucket % IO_STATS_SUB_BUCKETS;

	CHECK(bucket < IO_STATS_BUCKETS);
	if (octave == 0)
		return (sub + 1) << 6;
	return ((IO_STATS_SUB_BUCKETS + sub + 1) << (octave - 1)) << 6;
}

void io_stats_record(struct io_stats *stats, int op, uint64_t bytes, uint64_t latency_ns,
		     int result)
{
	if (result)
		count(&stats->errors, 1);
	if (op == BLK_READ) {
		count(&stats->read_ops, 1);
		count(&stats->read_bytes, bytes);
	} else if (op == BLK_FLUSH) {
		count(&stats->flush_ops, 1);
	} else if (blk_op_writes((enum blk_op)op)) {
		count(&stats->write_ops, 1);
		count(&stats->write_bytes, bytes);
	}
	count(&stats->latency_sum_ns, latency_ns);
	count(&stats->buckets[bucket_of(latency_ns)], 1);
	if (latency_ns > look(&stats->latency_max_ns))
		atomic_store_explicit(&stats->latency_max_ns, latency_ns, memory_order_relaxed);
}

void io_stats_snapshot(const struct io_stats *stats, struct io_snapshot *out)
{
	out->read_ops = look(&stats->read_ops);
	out->read_bytes = look(&stats->read_bytes);
	out->write_ops = look(&stats->write_ops);
	out->write_bytes = look(&stats->write_bytes);
	out->flush_ops = look(&stats->flush_ops);
	out->errors = look(&stats->errors);
	out->latency_sum_ns = look(&stats->latency_sum_ns);
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		out->buckets[i] = look(&stats->buckets[i]);
}

void io_snapshot_subtract(struct io_snapshot *later, const struct io_snapshot *earlier)
{
	later->read_ops -= earlier->read_ops;
	later->read_bytes -= earlier->read_bytes;
	later->write_ops -= earlier->write_ops;
	later->write_bytes -= earlier->write_bytes;
	later->flush_ops -= earlier->flush_ops;
	later->errors -= earlier->errors;
	later->latency_sum_ns -= earlier->latency_sum_ns;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		later->buckets[i] -= earlier->buckets[i];
}

void io_snapshot_add(struct io_snapshot *sum, const struct io_snapshot *more)
{
	sum->read_ops += more->read_ops;
	sum->read_bytes += more->read_bytes;
	sum->write_ops += more->write_ops;
	sum->write_bytes += more->write_bytes;
	sum->flush_ops += more->flush_ops;
	sum->errors += more->errors;
	sum->latency_sum_ns += more->latency_sum_ns;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		sum->buckets[i] += more->buckets[i];
}

uint64_t io_snapshot_slower(const struct io_snapshot *snapshot, uint64_t latency_ns)
{
	uint64_t slower = 0;

	for (unsigned i = bucket_of(latency_ns) + 1; i < IO_STATS_BUCKETS; i++)
		slower += snapshot->buckets[i];
	return slower;
}

uint64_t io_snapshot_ops(const struct io_snapshot *snapshot)
{
	return snapshot->read_ops + snapshot->write_ops + snapshot->flush_ops;
}

uint64_t io_snapshot_quantile_ns(const struct io_snapshot *snapshot, unsigned per_mille)
{
	uint64_t total = 0, seen = 0, wanted;

	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		total += snapshot->buckets[i];
	if (total == 0)
		return 0;
	wanted = (total * per_mille + 999) / 1000;
	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++) {
		seen += snapshot->buckets[i];
		if (seen >= wanted && seen > 0)
			return io_stats_bucket_limit_ns(i);
	}
	return io_stats_bucket_limit_ns(IO_STATS_BUCKETS - 1);
}

uint64_t io_stats_take_max_ns(struct io_stats *stats)
{
	return atomic_exchange_explicit(&stats->latency_max_ns, 0, memory_order_relaxed);
}

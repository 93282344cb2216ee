/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: an import or export copies every byte and no hole; a comparison counts and hashes right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "blkmirror/base/loop_sim.h"
#include "tests/lib/mem_dev.h"
#include "tools/blkmirrord/bulk_compare.h"
#include "tools/blkmirrord/bulk_copy.h"

#define SIZE_BYTES (UINT64_C(11) << 20)

struct bench {
	struct loop *loop;
	struct buf_pool *pool;
	struct mem_dev *source, *target;
	struct bulk_copy *copy;
	struct bulk_compare *compare;
	struct bulk_compare_result compared;
	int result, done_count;
	bool source_failed;
};

static void bench_open(struct bench *bench, uint64_t seed, bool target_reads_zero)
{
	struct blk_limits limits = mem_dev_limits();

	memset(bench, 0, sizeof(*bench));
	bench->loop = loop_sim_new(seed);
	bench->pool = buf_pool_new(bench->loop, BUF_MAX_BYTES);
	bench->source = mem_dev_new(bench->loop, SIZE_BYTES, NULL);
	limits.reads_zero = target_reads_zero;
	bench->target = mem_dev_new(bench->loop, SIZE_BYTES, &limits);
	assert_non_null(bench->target);
}

static void bench_close(struct bench *bench)
{
	bulk_copy_free(bench->copy);
	bulk_compare_free(bench->compare);
	blk_close(&bench->source->dev);
	blk_close(&bench->target->dev);
	buf_pool_free(bench->pool);
	loop_free(bench->loop);
}

/* Write bytes as a guest would, so that the device knows what is allocated. */
struct put {
	struct blk_req req;
	struct iovec iov;
	bool done;
};

static void put_done(struct blk_req *req)
{
	assert_int_equal(req->result, 0);
	container_of(req, struct put, req)->done = true;
}

static void fill(struct bench *bench, struct mem_dev *mem, uint64_t offset, size_t bytes, int byte)
{
	uint8_t *data = malloc(bytes);
	struct put put = { .iov = { data, bytes } };

	assert_non_null(data);
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)(byte ? (unsigned)byte + i * 7 : 0);
	put.req = (struct blk_req){ .op = BLK_WRITE, .offset_bytes = offset, .len_bytes = bytes,
				    .iov = &put.iov, .iov_count = 1, .done = put_done };
	blk_submit(&mem->dev, &put.req);
	while (!put.done)
		assert_true(loop_sim_step(bench->loop));
	free(data);
}

static void copy_done(struct bulk_copy *copy, int result, bool source_failed, void *user)
{
	struct bench *bench = user;

	(void)copy;
	bench->result = result;
	bench->source_failed = source_failed;
	bench->done_count++;
}

static void copy_start(struct bench *bench)
{
	struct bulk_copy_spec spec = { .source = &bench->source->dev,
				       .target = &bench->target->dev,
				       .pool = bench->pool,
				       .size_bytes = SIZE_BYTES,
				       .done = copy_done,
				       .user = bench };

	bench->copy = bulk_copy_start(&spec);
	assert_non_null(bench->copy);
}

static void settle(struct bench *bench)
{
	while (loop_sim_step(bench->loop))
		;
	assert_int_equal(bench->done_count, 1);
}

/* Data here and there, some of it zero, at odd places. */
static void draw(struct bench *bench)
{
	fill(bench, bench->source, 0, 4096, 1);
	fill(bench, bench->source, (1 << 20) - 512, 1024, 2);
	fill(bench, bench->source, 3 << 20, 2 << 20, 3);
	fill(bench, bench->source, 6 << 20, 1 << 20, 0);
	fill(bench, bench->source, SIZE_BYTES - 512, 512, 5);
}

static void test_copies_all(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct bulk_copy_stats stats;
		struct bench bench;

		bench_open(&bench, seed, true);
		draw(&bench);
		copy_start(&bench);
		settle(&bench);
		assert_int_equal(bench.result, 0);
		assert_memory_equal(bench.source->bytes, bench.target->bytes, SIZE_BYTES);
		assert_true(bench.target->ops[BLK_FLUSH] > 0);
		assert_int_equal(bench.target->ops[BLK_WRITE_ZEROES], 0); /* it reads zeroes already */
		bulk_copy_stats(bench.copy, &stats);
		assert_int_equal(stats.copied_bytes + stats.zero_bytes + stats.hole_bytes, SIZE_BYTES);
		assert_true(stats.copied_bytes < (UINT64_C(3) << 20));
		assert_true(stats.hole_bytes >= (UINT64_C(4) << 20));
		bench_close(&bench);
	}
}

/* R11: a target that holds something old must not show it through a hole. */
static void test_old_bytes_are_zeroed(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_open(&bench, 7, false);
	draw(&bench);
	fill(&bench, bench.target, 0, SIZE_BYTES, 9);
	copy_start(&bench);
	settle(&bench);
	assert_int_equal(bench.result, 0);
	assert_memory_equal(bench.source->bytes, bench.target->bytes, SIZE_BYTES);
	assert_true(bench.target->ops[BLK_WRITE_ZEROES] > 0);
	bench_close(&bench);
}

static void test_errors_end_it(void **unused)
{
	static const struct {
		enum blk_op op;
		bool source;
	} rows[] = { { BLK_READ, true }, { BLK_EXTENTS, true }, { BLK_WRITE, false },
		     { BLK_WRITE_ZEROES, false }, { BLK_FLUSH, false } };

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct bench bench;

		bench_open(&bench, i + 1, false);
		draw(&bench);
		(rows[i].source ? bench.source : bench.target)->fail_with[rows[i].op] = -ENOSPC;
		copy_start(&bench);
		settle(&bench);
		assert_int_equal(bench.result, -ENOSPC);
		assert_int_equal(bench.source_failed, rows[i].source);
		bench_close(&bench);
	}
}

static void test_cancel(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_open(&bench, 3, true);
	draw(&bench);
	mem_dev_hang(bench.target, true);
	copy_start(&bench);
	for (int i = 0; i < 200; i++)
		loop_sim_step(bench.loop);
	bulk_copy_cancel(bench.copy);
	assert_int_equal(bench.done_count, 0);          /* what is in flight still has the buffers */
	mem_dev_hang(bench.target, false);
	settle(&bench);
	assert_int_equal(bench.result, -ECANCELED);
	bench_close(&bench);
}

/* ---- compare ---- */

static void compare_done(struct bulk_compare *compare, const struct bulk_compare_result *result,
			 void *user)
{
	struct bench *bench = user;

	(void)compare;
	bench->compared = *result;
	bench->done_count++;
}

static void compare(struct bench *bench)
{
	struct bulk_compare_spec spec = { .first = &bench->source->dev,
					  .second = &bench->target->dev,
					  .pool = bench->pool,
					  .done = compare_done,
					  .user = bench };

	bench->compare = bulk_compare_start(&spec);
	assert_non_null(bench->compare);
	settle(bench);
}

static void expect_hash(const struct bench *bench)
{
	XXH128_canonical_t canonical;
	char text[BULK_COMPARE_HASH_TEXT_BYTES];

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(bench->source->bytes, SIZE_BYTES));
	for (size_t i = 0; i < sizeof(canonical.digest); i++)
		snprintf(text + 2 * i, 3, "%02x", canonical.digest[i]);
	assert_string_equal(bench->compared.hash, text);
}

static void test_compare(void **unused)
{
	(void)unused;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct bench bench;

		bench_open(&bench, seed, true);
		draw(&bench);
		memcpy(bench.target->bytes, bench.source->bytes, SIZE_BYTES);
		memcpy(bench.target->pages, bench.source->pages, SIZE_BYTES / MEM_DEV_PAGE_BYTES);
		/* The same bytes, otherwise allocated: still identical. */
		fill(&bench, bench.target, 8 << 20, 1 << 20, 0);
		compare(&bench);
		assert_int_equal(bench.compared.result, 0);
		assert_int_equal(bench.compared.differing_bytes, 0);
		expect_hash(&bench);
		assert_int_equal(bulk_compare_done_bytes(bench.compare), SIZE_BYTES);
		bench_close(&bench);
	}
}

static void test_compare_finds(void **unused)
{
	struct bench bench;

	(void)unused;
	bench_open(&bench, 5, true);
	draw(&bench);
	memcpy(bench.target->bytes, bench.source->bytes, SIZE_BYTES);
	memcpy(bench.target->pages, bench.source->pages, SIZE_BYTES / MEM_DEV_PAGE_BYTES);
	fill(&bench, bench.target, 10 << 20, 512, 1);   /* into a hole of the source */
	bench.target->bytes[4 << 20] ^= 0xff;
	compare(&bench);
	assert_in_range(bench.compared.differing_bytes, 2, 513);
	expect_hash(&bench);
	bench_close(&bench);

	bench_open(&bench, 6, true);
	draw(&bench);
	bench.target->fail_with[BLK_READ] = -EIO;
	compare(&bench);
	assert_int_equal(bench.compared.result, -EIO);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies_all),
		cmocka_unit_test(test_old_bytes_are_zeroed),
		cmocka_unit_test(test_errors_end_it),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_compare_finds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

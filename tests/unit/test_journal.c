/* SPDX-License-Identifier: Apache-2.0 */
/* test_journal.c - who waits for an extent is always told when to ask again (journal.h). */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>

#include "blkmirror/base/loop_sim.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/blkdev/wrap.h"
#include "blkmirror/journal/journal.h"
#include "blkmirror/mirror/mirror.h"
#include "blkmirror/journal/journal_format.h"
#include "tests/lib/ram_dev.h"

#define SIZE_BYTES (UINT64_C(16) << 20)
#define REGION_BYTES (64u << 10)

static struct journal *made;
static unsigned told;

static void settle(struct loop *loop)
{
	while (loop_sim_step(loop))
		;
}

static void opened(struct journal *journal, int result, void *user)
{
	(void)user;
	assert_int_equal(result, 0);
	made = journal;
}

static void touch_in_flight(void *user)
{
	(void)user;
}

static void flush_both(void *user)
{
	(void)user;
	journal_flushed(made, 0);
}

static void checkpointed(int result, void *user)
{
	(void)user;
	assert_int_equal(result, 0);
}

static void ready(struct journal_wait *wait)
{
	(void)wait;
	told++;
}

static const struct journal_identity identity = {
	.size_bytes = SIZE_BYTES, .region_bytes = REGION_BYTES, .log_extents = 1,
	.journal_id = "t1-00",
};

/* A journal with a log of one extent that knows every region as clean. */
static struct journal *clean_journal(struct loop *loop, struct dirty_bitmap *none,
				     struct ram_dev **dev)
{
	const struct journal_checkpoint_ops ops = { .dirty = none,
						    .touch_in_flight = touch_in_flight,
						    .flush_both = flush_both,
						    .done = checkpointed };

	*dev = ram_dev_new(loop, round_up(journal_device_bytes(&identity), 4096));
	assert_non_null(*dev);
	journal_create(&(*dev)->dev, &identity, opened, NULL);
	settle(loop);
	journal_checkpoint(made, &ops, NULL);
	settle(loop);
	assert_false(journal_in_checkpoint(made));
	assert_false(journal_is_dirty(made, 0));
	return made;
}

/*
 * The only extent was made active for a request that is gone and has written nothing: it can
 * leave without a map write, at once, before who asked for its place has begun to wait.
 */
static void test_told_when_an_untouched_extent_leaves(void **unused)
{
	struct loop *loop = loop_sim_new(1);
	struct dirty_bitmap *none = dirty_bitmap_new(SIZE_BYTES, REGION_BYTES);
	struct journal_wait gone = { .ready = ready }, second = { .ready = ready };
	struct ram_dev *dev;
	struct journal *journal = clean_journal(loop, none, &dev);
	unsigned asked = 0;

	(void)unused;
	list_init(&gone.node);
	list_init(&second.node);
	assert_false(journal_admit(journal, 0, 4096, &gone));
	journal_wait_cancel(&gone);
	settle(loop);
	told = 0;
	while (!journal_admit(journal, SIZE_BYTES / 2, 4096, &second)) {
		assert_true(asked++ < 10);
		settle(loop);
		assert_int_equal(told, asked);
	}
	settle(loop);
	journal_free(journal);
	blk_close(&dev->dev);
	dirty_bitmap_free(none);
	loop_free(loop);
}

/* Two who write to different extents of a log of one: both get their turn. */
struct writer {
	struct journal_wait wait;
	uint64_t offset_bytes;
	bool admitted;
	unsigned asked;
};

static void writer_ask(struct journal_wait *wait)
{
	struct writer *writer = container_of(wait, struct writer, wait);

	assert_true(writer->asked++ < 20);
	writer->admitted = journal_admit(made, writer->offset_bytes, 4096, wait);
}

static void test_two_in_a_log_of_one(void **unused)
{
	struct loop *loop = loop_sim_new(3);
	struct dirty_bitmap *none = dirty_bitmap_new(SIZE_BYTES, REGION_BYTES);
	struct writer writers[3] = { { .offset_bytes = 0 }, { .offset_bytes = SIZE_BYTES / 2 },
				     { .offset_bytes = SIZE_BYTES / 4 } };
	struct journal_stats stats;
	struct ram_dev *dev;

	(void)unused;
	clean_journal(loop, none, &dev);
	for (size_t i = 0; i < ARRAY_COUNT(writers); i++) {
		writers[i].wait.ready = writer_ask;
		list_init(&writers[i].wait.node);
	}
	writer_ask(&writers[0].wait);
	settle(loop);
	/* The second waits for the first one's extent to leave; the third comes when it has. */
	writer_ask(&writers[1].wait);
	do {
		assert_true(loop_sim_step(loop));
		journal_stats(made, &stats);
	} while (stats.active_bytes);
	writer_ask(&writers[2].wait);
	settle(loop);
	for (size_t i = 0; i < ARRAY_COUNT(writers); i++)
		assert_true(writers[i].admitted);
	journal_free(made);
	blk_close(&dev->dev);
	dirty_bitmap_free(none);
	loop_free(loop);
}

/*
 * R-J1: a region of an active extent is dirty when a checkpoint begins, and copied while it flushes:
 * the copy may have come after the flush began, so the journal calls it dirty until the next.
 */
static struct dirty_bitmap *in_memory;

static void flush_while_copied(void *user)
{
	(void)user;
	dirty_bitmap_clear(in_memory, 0, REGION_BYTES);
	journal_flushed(made, 0);
}

static void test_copied_under_a_checkpoint(void **unused)
{
	struct loop *loop = loop_sim_new(4);
	struct journal_checkpoint_ops ops = { .touch_in_flight = touch_in_flight,
					      .flush_both = flush_while_copied,
					      .done = checkpointed };
	struct journal_wait wait = { .ready = ready };
	struct ram_dev *dev;

	(void)unused;
	in_memory = dirty_bitmap_new(SIZE_BYTES, REGION_BYTES);
	clean_journal(loop, in_memory, &dev);
	list_init(&wait.node);
	assert_false(journal_admit(made, 0, 4096, &wait));
	settle(loop);
	assert_true(journal_admit(made, 0, 4096, &wait));
	dirty_bitmap_set(in_memory, 0, 4096);
	ops.dirty = in_memory;
	journal_checkpoint(made, &ops, NULL);
	settle(loop);
	assert_true(dirty_bitmap_is_clean(in_memory));
	assert_true(journal_is_dirty(made, 0));
	journal_checkpoint(made, &ops, NULL);
	settle(loop);
	assert_false(journal_is_dirty(made, 0));
	journal_free(made);
	blk_close(&dev->dev);
	dirty_bitmap_free(in_memory);
	loop_free(loop);
}

/*
 * R-J1, R9: under a checkpoint an older flush of the target fails.  What it covered is dirty again,
 * and is copied while the checkpoint's own flush is under way: that may not make it clean.
 */
static void on_trouble(int error, void *user)
{
	(void)error;
	(void)user;
}

static void on_event(void *user)
{
	(void)user;
}

static bool on_mirror(uint64_t bytes, void *user)
{
	(void)bytes;
	(void)user;
	return true;
}

static void on_wrote(uint64_t offset_bytes, uint64_t len_bytes, void *user)
{
	(void)offset_bytes;
	(void)len_bytes;
	(void)user;
}

static const struct mirror_hooks hooks = { .trouble = on_trouble, .dirtied = on_event,
					   .settled = on_event, .may_mirror = on_mirror,
					   .wrote = on_wrote };

static int flush_result;

static void flush_failed(struct mirror_flush *flush, int result)
{
	(void)flush;
	flush_result = result;
}

static void test_doubted_under_a_checkpoint(void **unused)
{
	const struct wrap_fault_rule rule = { .ops = 1u << BLK_FLUSH, .from_nth = 1,
					      .fail_count = 1, .error = -EIO };
	const struct mirror_options options = { .region_bytes = REGION_BYTES,
						.leg_deadline_ns = NS_PER_S };
	struct journal_checkpoint_ops ops = { .touch_in_flight = touch_in_flight,
					      .flush_both = on_event, .done = checkpointed };
	struct mirror_flush flush = { .done = flush_failed };
	struct loop *loop = loop_sim_new(5);
	struct buf_pool *pool = buf_pool_new(loop, BUF_MAX_BYTES);
	struct ram_dev *source = ram_dev_new(loop, SIZE_BYTES);
	struct ram_dev *target = ram_dev_new(loop, SIZE_BYTES);
	struct ram_dev *dev = ram_dev_new(loop, round_up(journal_device_bytes(&identity), 4096));
	struct blk_dev *failing = wrap_fault_new(&target->dev);
	struct mirror *mirror;

	(void)unused;
	assert_int_equal(mirror_new(loop, pool, &source->dev, failing, SIZE_BYTES, &options, &hooks,
				    NULL, &mirror), 0);
	journal_create(&dev->dev, &identity, opened, NULL);
	settle(loop);
	mirror_set_journal(mirror, made);
	/* All is copied; the journal does not know yet.  One region was written since a flush. */
	dirty_bitmap_clear_all(mirror_dirty(mirror));
	mirror_target_written(mirror, 0, 4096);
	ops.dirty = mirror_dirty(mirror);
	journal_checkpoint(made, &ops, NULL);
	wrap_fault_set(failing, &rule);
	mirror_flush_target(mirror, &flush);
	settle(loop);
	assert_int_equal(flush_result, -EIO);
	assert_true(dirty_bitmap_test(mirror_dirty(mirror), 0));
	dirty_bitmap_clear_all(mirror_dirty(mirror));   /* copied once more */
	journal_flushed(made, 0);
	settle(loop);
	assert_true(journal_is_dirty(made, 0));
	assert_false(journal_is_dirty(made, REGION_BYTES));
	mirror_free(mirror);
	journal_free(made);
	blk_close(failing);
	blk_close(&dev->dev);
	blk_close(&target->dev);
	blk_close(&source->dev);
	buf_pool_free(pool);
	loop_free(loop);
}

/* A resumed move that begins paused makes no checkpoint: its guest's writes need none. */
static void test_loaded_journal_admits_without_a_checkpoint(void **unused)
{
	struct loop *loop = loop_sim_new(2);
	struct dirty_bitmap *none = dirty_bitmap_new(SIZE_BYTES, REGION_BYTES);
	struct journal_wait wait = { .ready = ready };
	struct ram_dev *dev;
	unsigned asked = 0;

	(void)unused;
	journal_free(clean_journal(loop, none, &dev));
	journal_load(&dev->dev, &identity, opened, NULL);
	settle(loop);
	list_init(&wait.node);
	told = 0;
	while (!journal_admit(made, 0, 4096, &wait)) {
		assert_true(asked++ < 10);
		settle(loop);
		assert_int_equal(told, asked);
	}
	settle(loop);
	journal_free(made);
	blk_close(&dev->dev);
	dirty_bitmap_free(none);
	loop_free(loop);
}

/* What a load does with its device, in its order. */
struct load_watch {
	struct ram_dev *dev;
	unsigned flushed, read;
	bool map_written, log_written;
};

static void load_watch_event(const struct trace_event *event, void *user)
{
	const uint64_t map_bytes = (uint64_t)JOURNAL_MAP_SECTOR * JOURNAL_SECTOR_BYTES;
	const uint64_t log_bytes = (uint64_t)JOURNAL_LOG_SECTOR * JOURNAL_SECTOR_BYTES;
	struct load_watch *watch = user;

	if (event->op == BLK_FLUSH && event->completed_ns)
		watch->flushed++;
	if (event->op == BLK_READ && !event->completed_ns) {
		/* What a killed process left in a cache is read only when it is durable. */
		assert_int_equal(watch->flushed, 1);
		watch->read++;
	}
	if (event->op == BLK_WRITE && event->offset_bytes >= map_bytes) {
		watch->map_written = event->completed_ns != 0;
		/* It stays in flight until the test lets go. */
		if (!watch->map_written)
			ram_dev_hold(watch->dev, true);
	}
	if (event->op == BLK_WRITE && event->offset_bytes >= log_bytes &&
	    event->offset_bytes < map_bytes && !event->completed_ns) {
		/* R-J2: what the old log says is in the map before a newer log takes its place. */
		assert_true(watch->map_written);
		watch->log_written = true;
	}
}

/* R-J2, R-J6: durable before it is read, and the old log stands until the map has it. */
static void test_a_load_flushes_first_and_writes_the_map_before_the_log(void **unused)
{
	struct loop *loop = loop_sim_new(4);
	struct dirty_bitmap *none = dirty_bitmap_new(SIZE_BYTES, REGION_BYTES);
	struct journal_wait wait = { .ready = ready };
	struct load_watch watch = { 0 };
	struct blk_dev *traced;
	struct ram_dev *dev;

	(void)unused;
	journal_free(clean_journal(loop, none, &dev));
	traced = wrap_trace_new(&dev->dev, 1);
	wrap_trace_hook(traced, load_watch_event, &watch);
	watch.dev = dev;
	journal_load(traced, &identity, opened, NULL);
	settle(loop);
	list_init(&wait.node);
	assert_false(journal_admit(made, 0, 4096, &wait));
	settle(loop);
	assert_false(watch.log_written);
	ram_dev_hold(dev, false);
	settle(loop);
	while (!journal_admit(made, 0, 4096, &wait))
		settle(loop);
	settle(loop);
	assert_true(watch.read > 0);
	assert_true(watch.log_written);
	journal_free(made);
	blk_close(traced);
	blk_close(&dev->dev);
	dirty_bitmap_free(none);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told_when_an_untouched_extent_leaves),
		cmocka_unit_test(test_copied_under_a_checkpoint),
		cmocka_unit_test(test_doubted_under_a_checkpoint),
		cmocka_unit_test(test_two_in_a_log_of_one),
		cmocka_unit_test(test_loaded_journal_admits_without_a_checkpoint),
		cmocka_unit_test(test_a_load_flushes_first_and_writes_the_map_before_the_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

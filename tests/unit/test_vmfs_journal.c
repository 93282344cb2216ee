/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a journal record counts exactly as long as it may, and what is no journal is not written
 * over.  (What power cuts leave is sim_vmfs's.)
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/vmfs_rig.h"
#include "vmfs/vmfs_private.h"

static struct vmfs *open_reader(struct rig *rig)
{
	const struct vmfs_options options = { .read_only = true };
	struct vmfs *fs;
	struct err err = { 0 };

	if (vmfs_open(rig->ios, rig->count, &options, &fs, &err))
		fail_msg("%s", err.cause);
	return fs;
}

/* VJ3: after a live sector was written past the journal, carrying it out brings nothing back. */
static void test_live_sector(void **state)
{
	uint8_t wanted[512], seen[512];
	struct vmfs *reader;
	uint64_t place = 0;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	vrig_put(vrig_make(&rig, "file"));
	assert_true(rig.fs->journal.live_count > 1);
	/* A sector behind the file's own fields, which nobody reads. */
	for (uint32_t i = 0; i < rig.fs->journal.live_count; i++)
		if (rig.fs->journal.live[i] % 0x800 == 0x600)
			place = rig.fs->journal.live[i];
	assert_true(place);
	memset(wanted, 0x5a, sizeof(wanted));
	assert_int_equal(vmfs_volume_write_data(rig.fs, place, wanted, sizeof(wanted)), 0);
	assert_int_equal(rig.fs->journal.live_count, 0);
	/* As one who comes after a crash. */
	reader = open_reader(&rig);
	assert_int_equal(vmfs_volume_read(reader, place, seen, sizeof(seen)), 0);
	assert_memory_equal(seen, wanted, sizeof(seen));
	assert_int_equal(vmfs_close(reader, &err), 0);
	vrig_release(&rig);
}

/* Others do not know the journal: nothing is live after a clean end. */
static void test_settled_by_close(void **state)
{
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	vrig_put(vrig_make(&rig, "file"));
	vrig_close(&rig);
	vrig_open(&rig, false);
	assert_int_equal(rig.fs->journal.live_count, 0);
	assert_int_equal(rig.fs->journal.sequence, rig.fs->journal.settled);
	assert_true(rig.fs->journal.sequence > 0);
	vrig_release(&rig);
}

/* What a reader sees of a live record is what a writer will find. */
static void test_reader_sees_it(void **state)
{
	struct vmfs_node *node;
	struct vmfs *reader;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	vrig_close(&rig);
	vmfs_mem_mark(rig.mems[0]);
	vrig_open(&rig, false);
	rig.mems[0]->recording = true;
	vrig_put(vrig_make(&rig, "file"));
	rig.mems[0]->recording = false;
	/* Only the record reached the disk: what came after its flush is gone. */
	vrig_close(&rig);
	vmfs_mem_reset(rig.mems[0]);
	for (size_t i = 0, records = 0; i < rig.mems[0]->event_count; i++) {
		const struct vmfs_mem_event *event = &rig.mems[0]->events[i];

		records += event->len_bytes > 0 && event->offset_bytes < VMFS_DATA_OFFSET + 0x20000;
		if (records && event->len_bytes == 0)
			break;
		if (event->len_bytes)
			vmfs_mem_poke(rig.mems[0], event->offset_bytes, event->bytes, event->len_bytes);
	}
	reader = open_reader(&rig);
	assert_int_equal(vmfs_walk(reader, "/file", &node, &err), 0);
	vrig_put(node);
	assert_int_equal(vmfs_close(reader, &err), 0);
	vrig_open(&rig, false);
	assert_int_equal(vmfs_walk(rig.fs, "/file", &node, &err), 0);
	vrig_put(node);
	vrig_clean(&rig);
	vrig_release(&rig);
}

/* Something else where the journal would be: not written to, read as ever. */
static void test_foreign_bytes(void **state)
{
	const struct vmfs_options options = { 0 };
	const uint8_t foreign[16] = "somebody else's";
	struct vmfs *fs;
	struct err err = { 0 };
	struct rig rig;
	uint64_t writes;

	(void)state;
	vrig_init(&rig, 1);
	vrig_close(&rig);
	vmfs_mem_poke(rig.mems[0], VMFS_DATA_OFFSET + 3 * VMFS_JOURNAL_AREA_BYTES, foreign,
		      sizeof(foreign));
	writes = rig.mems[0]->writes;
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -ENOTSUP);
	assert_int_equal(err.id, ERR_VMFS_UNSUPPORTED);
	assert_int_equal(rig.mems[0]->writes, writes);
	vrig_open(&rig, true);
	vrig_clean(&rig);
	vrig_release(&rig);
}

/* More than a record holds: refused as a whole, and nothing more is written. */
static void test_too_large(void **state)
{
	uint8_t sector[512] = { 1 };
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;
	int rc = 0;

	(void)state;
	vrig_init(&rig, 1);
	vmfs_txn_begin(rig.fs);
	for (uint64_t i = 0; i <= VMFS_JOURNAL_SECTORS_MAX && !rc; i++)
		rc = vmfs_volume_write(rig.fs, 200 * MIB + i * 512, sector, sizeof(sector));
	assert_int_equal(rc, -EFBIG);
	assert_int_equal(vmfs_txn_end(rig.fs, rc), -EFBIG);
	assert_int_equal(vmfs_create(rig.root, "x", &vrig_plain, &node, &err), -EIO);
	assert_int_equal(vmfs_node_put(rig.root, &err), 0);
	assert_int_equal(vmfs_close(rig.fs, &err), -EIO);
	vrig_open(&rig, false);
	assert_int_equal(vmfs_volume_read(rig.fs, 200 * MIB, sector, sizeof(sector)), 0);
	assert_int_equal(sector[0], 0);
	vrig_clean(&rig);
	vrig_release(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_live_sector),
		cmocka_unit_test(test_settled_by_close),
		cmocka_unit_test(test_reader_sees_it),
		cmocka_unit_test(test_foreign_bytes),
		cmocka_unit_test(test_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a volume holds what was put into it, gives space back, refuses what it must, and the
 * check finds nothing after any of it.
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
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_lock.h"
#include "vmfs/vmfs_mkfs.h"
#include "vmfs/vmfs_private.h"

static uint32_t zla_of(struct vmfs_node *node)
{
	struct vmfs_stat stat;

	vmfs_node_stat(node, &stat);
	return stat.zla;
}

/* ---- the volume ---- */

static void test_mkfs(void **state)
{
	struct vmfs_about about;
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	vmfs_about(rig.fs, &about);
	assert_int_equal(about.version, 5);
	assert_string_equal(about.label, "test");
	assert_int_equal(about.size_bytes, VMFS_PE_BYTES);
	vrig_clean(&rig);
	vrig_release(&rig);
}

static void test_two_devices(void **state)
{
	struct vmfs_io *swapped[2];
	struct vmfs_node *node;
	struct vmfs *fs;
	struct vmfs_options options = { .read_only = true };
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 2);
	node = vrig_make(&rig, "wide");
	vrig_write(node, 0, 300 * MIB, 3);        /* more than the first device has */
	vrig_expect(node, 0, 300 * MIB, 3);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	swapped[0] = rig.ios[1];
	swapped[1] = rig.ios[0];
	assert_int_equal(vmfs_open(swapped, 2, &options, &fs, &err), 0);
	assert_int_equal(vmfs_walk(fs, "wide", &node, &err), 0);
	vrig_expect(node, 0, 300 * MIB, 3);
	vrig_put(node);
	assert_int_equal(vmfs_close(fs, &err), 0);
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMFS_EXTENT);
	swapped[1] = swapped[0];
	assert_int_equal(vmfs_open(swapped, 2, &options, &fs, &err), -EINVAL);
	vrig_release(&rig);
}

static void test_mkfs_refuses(void **state)
{
	struct vmfs_mkfs_options options = { .now_s = 1 };
	struct vmfs_mem *small = vmfs_mem_new(RIG_DEVICE_BYTES - 4096);
	struct vmfs_io *io = &small->io;
	struct err err = { 0 };
	struct rig rig;
	char label[200];

	(void)state;
	assert_int_equal(vmfs_mkfs(&io, 1, &options, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMFS_BAD_SIZE);
	vmfs_mem_free(small);
	vrig_init(&rig, 1);
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), -EEXIST);
	options.overwrite = true;
	memset(label, 'x', sizeof(label));
	label[199] = '\0';
	options.label = label;
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), -EINVAL);
	vrig_clean(&rig);
	vrig_release(&rig);
}

/* Old bytes on the device must not show in a new volume. */
static void test_mkfs_over_garbage(void **state)
{
	struct vmfs_mkfs_options options = { .now_s = 1, .overwrite = true, .file_count = 256 };
	struct rig rig = { .count = 1 };
	struct err err = { 0 };
	uint8_t *garbage = malloc(64 * MIB);

	(void)state;
	assert_non_null(garbage);
	memset(garbage, 0xa5, 64 * MIB);
	rig.mems[0] = vmfs_mem_new(RIG_DEVICE_BYTES);
	rig.ios[0] = &rig.mems[0]->io;
	vmfs_mem_poke(rig.mems[0], 0, garbage, 64 * MIB);
	free(garbage);
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), 0);
	vrig_open(&rig, false);
	vrig_clean(&rig);
	vrig_release(&rig);
}

static void test_host_in_use(void **state)
{
	struct vmfs_options options = { 0 };
	uint8_t active[4] = { 0x02, 0xef, 0xcd, 0xab };
	struct vmfs *fs;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	vrig_close(&rig);
	vmfs_mem_poke(rig.mems[0], VMFS_DATA_OFFSET + VMFS_HB_OFFSET + 7 * 512, active, 4);
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -EBUSY);
	assert_int_equal(err.id, ERR_VMFS_IN_USE);
	vrig_open(&rig, true);
	assert_int_equal(vmfs_unlink(rig.root, "x", &err), -EROFS);
	vrig_release(&rig);
}

/* ---- data ---- */

static void test_layouts(void **state)
{
	struct vmfs_space before, after;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	before = vrig_space(&rig);
	node = vrig_make(&rig, "grows");
	assert_int_equal(zla_of(node), VMFS_ZLA_RESIDENT);
	vrig_write(node, 0, 5000, 1);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	vrig_write(node, 5000, 5000, 2);
	assert_int_equal(zla_of(node), VMFS_ZLA_FB);
	vrig_write(node, 3 * MIB - 100, 200, 3);
	vrig_write(node, 256 * MIB - 10, 20, 4);
	assert_int_equal(zla_of(node), VMFS_ZLA_PB);
	vrig_write(node, 300 * GIB + 5, 100000, 5);
	assert_int_equal(zla_of(node), VMFS_ZLA_DOUBLE);
	vrig_clean(&rig);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	assert_int_equal(vmfs_walk(rig.fs, "/grows", &node, &err), 0);
	vrig_expect(node, 0, 5000, 1);
	vrig_expect(node, 5000, 5000, 2);
	vrig_expect_zero(node, 10000, 2 * MIB);
	vrig_expect(node, 3 * MIB - 100, 200, 3);
	vrig_expect(node, 256 * MIB - 10, 20, 4);
	vrig_expect(node, 300 * GIB + 5, 100000, 5);
	vrig_expect_zero(node, 100 * GIB, 3 * MIB);
	vrig_put(node);
	assert_int_equal(vmfs_unlink(rig.root, "grows", &err), 0);
	vrig_reopen_clean(&rig);
	after = vrig_space(&rig);
	assert_int_equal(before.free_bytes, after.free_bytes);
	assert_int_equal(before.sub_blocks_free, after.sub_blocks_free);
	assert_int_equal(before.pointer_blocks_free, after.pointer_blocks_free);
	assert_int_equal(before.files_free, after.files_free);
	vrig_release(&rig);
}

/* Data in the descriptor, as ESXi makes small files. */
static void test_resident(void **state)
{
	struct vmfs_node *node;
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	node = vrig_make(&rig, "resident");
	node->fd.length = 700;
	vrig_fill(node->raw + rig.fs->geometry->fd_data_offset, 700, 9);
	assert_int_equal(vmfs_node_store(node), 0);
	vrig_expect(node, 0, 700, 9);
	vrig_write(node, 700, 300, 10);
	assert_int_equal(zla_of(node), VMFS_ZLA_RESIDENT);
	vrig_clean(&rig);
	vrig_write(node, 1000, 100, 11);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	vrig_expect(node, 0, 700, 9);
	vrig_expect(node, 700, 300, 10);
	vrig_expect(node, 1000, 100, 11);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

static void test_truncate(void **state)
{
	struct vmfs_space before;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	before = vrig_space(&rig);
	node = vrig_make(&rig, "cut");
	vrig_write(node, 0, 10 * MIB, 1);
	assert_int_equal(vmfs_truncate(node, 2 * MIB + 5, &err), 0);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes - 3 * MIB);
	assert_int_equal(vmfs_truncate(node, 4 * MIB, &err), 0);
	vrig_expect(node, 0, 2 * MIB + 5, 1);
	vrig_expect_zero(node, 2 * MIB + 5, 2 * MIB - 5);
	vrig_clean(&rig);
	assert_int_equal(vmfs_truncate(node, 0, &err), 0);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes);
	vrig_write(node, 0, 10, 2);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	assert_int_equal(vmfs_truncate(node, UINT64_C(1) << 60, &err), -EFBIG);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

static void test_allocate_and_discard(void **state)
{
	struct vmfs_node *node;
	struct vmfs_run run;
	struct vmfs_space before;
	struct err err = { 0 };
	uint8_t *garbage = malloc(200 * MIB);
	struct rig rig;

	(void)state;
	assert_non_null(garbage);
	vrig_init(&rig, 1);
	/* What a new block held before must never show. */
	memset(garbage, 0x5a, 200 * MIB);
	vmfs_mem_poke(rig.mems[0], VMFS_DATA_OFFSET + 52 * MIB, garbage, 200 * MIB);
	free(garbage);
	before = vrig_space(&rig);
	node = vrig_make(&rig, "thick");
	assert_int_equal(vmfs_allocate(node, 0, 8 * MIB, VMFS_FILL_LAZY, &err), 0);
	assert_int_equal(vmfs_run_at(node, 0, 8 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_ZERO);
	assert_int_equal(run.len_bytes, 8 * MIB);
	vrig_write(node, 2 * MIB + 1000, 5000, 1);
	vrig_expect_zero(node, 2 * MIB, 1000);
	vrig_expect(node, 2 * MIB + 1000, 5000, 1);
	vrig_expect_zero(node, 2 * MIB + 6000, 5 * MIB);
	assert_int_equal(vmfs_run_at(node, 2 * MIB, 6 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_DATA);
	assert_int_equal(run.len_bytes, MIB);
	assert_int_equal(vmfs_allocate(node, 0, 12 * MIB, VMFS_FILL_ZERO, &err), 0);
	assert_int_equal(vmfs_run_at(node, 0, 12 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_DATA);
	vrig_expect_zero(node, 0, 2 * MIB + 1000);
	vrig_expect(node, 2 * MIB + 1000, 5000, 1);
	vrig_expect_zero(node, 8 * MIB, 4 * MIB);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes - 12 * MIB);
	vrig_clean(&rig);
	assert_int_equal(vmfs_discard(node, 2 * MIB + 2000, 4 * MIB, &err), 0);
	vrig_expect(node, 2 * MIB + 1000, 1000, 1);
	vrig_expect_zero(node, 2 * MIB + 2000, 9 * MIB);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes - 9 * MIB);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

static void test_full(void **state)
{
	struct vmfs_node *node;
	struct vmfs_space before, full;
	struct err err = { 0 };
	uint8_t *bytes = calloc(1, 400 * MIB);
	struct rig rig;

	(void)state;
	assert_non_null(bytes);
	vrig_init(&rig, 1);
	before = vrig_space(&rig);
	node = vrig_make(&rig, "big");
	assert_int_equal(vmfs_write(node, 0, bytes, 400 * MIB, &err), -ENOSPC);
	assert_int_equal(err.id, ERR_VMFS_NO_SPACE);
	free(bytes);
	vrig_clean(&rig);
	full = vrig_space(&rig);
	assert_true(full.free_bytes < before.free_bytes);       /* what was written stays */
	assert_int_equal(vmfs_truncate(node, 0, &err), 0);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes);
	vrig_write(node, 0, 100 * MIB, 2);
	vrig_put(node);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mkfs),
		cmocka_unit_test(test_two_devices),
		cmocka_unit_test(test_mkfs_refuses),
		cmocka_unit_test(test_mkfs_over_garbage),
		cmocka_unit_test(test_host_in_use),
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_resident),
		cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_allocate_and_discard),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a volume holds what was put into it, gives space back, refuses what it must, and the
 * check finds nothing after any of it; a device that fails never makes it lie.
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

#include "tests/lib/vmfs_mem.h"
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_lock.h"
#include "vmfs/vmfs_mkfs.h"
#include "vmfs/vmfs_private.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)

static const struct vmfs_attributes plain = { .mode = 0644 };

struct rig {
	struct vmfs_mem *mems[2];
	struct vmfs_io *ios[2];
	unsigned count;
	struct vmfs *fs;
	struct vmfs_node *root;
};

static uint32_t fixed_time(void *user)
{
	(void)user;
	return 1700000000;
}

static void rig_open(struct rig *rig, bool read_only)
{
	struct vmfs_options options = { .read_only = read_only, .now_s = fixed_time };
	struct err err = { 0 };

	if (vmfs_open(rig->ios, rig->count, &options, &rig->fs, &err))
		fail_msg("%s", err.cause);
	assert_int_equal(vmfs_walk(rig->fs, "/", &rig->root, &err), 0);
}

static void rig_close(struct rig *rig)
{
	struct err err = { 0 };

	assert_int_equal(vmfs_node_put(rig->root, &err), 0);
	assert_int_equal(vmfs_close(rig->fs, &err), 0);
}

static void rig_init(struct rig *rig, unsigned devices)
{
	const struct vmfs_mkfs_options options = { .label = "test", .reads_zero = true,
						   .now_s = 1700000000, .file_count = 1024 };
	struct err err = { 0 };

	*rig = (struct rig){ .count = devices };
	for (unsigned i = 0; i < devices; i++) {
		rig->mems[i] = vmfs_mem_new(DEVICE_BYTES + i * VMFS_PE_BYTES);
		rig->ios[i] = &rig->mems[i]->io;
	}
	if (vmfs_mkfs(rig->ios, devices, &options, &err))
		fail_msg("%s", err.cause);
	rig_open(rig, false);
}

static void print_finding(const struct vmfs_finding *finding, void *user)
{
	(void)user;
	print_message("found: %s\n", finding->text);
}

static void rig_clean(struct rig *rig)
{
	struct vmfs_fsck_result result;
	struct err err = { 0 };

	assert_int_equal(vmfs_fsck(rig->fs, print_finding, NULL, &result, &err), 0);
	assert_int_equal(result.total, 0);
}

/* The same after it was closed and opened again. */
static void rig_reopen_clean(struct rig *rig)
{
	rig_close(rig);
	rig_open(rig, false);
	rig_clean(rig);
}

static void rig_release(struct rig *rig)
{
	rig_close(rig);
	for (unsigned i = 0; i < rig->count; i++)
		vmfs_mem_free(rig->mems[i]);
}

static struct vmfs_space space_of(struct rig *rig)
{
	struct vmfs_space space;
	struct err err = { 0 };

	assert_int_equal(vmfs_statfs(rig->fs, &space, &err), 0);
	return space;
}

static struct vmfs_node *make(struct rig *rig, const char *name)
{
	struct vmfs_node *node;
	struct err err = { 0 };

	if (vmfs_create(rig->root, name, &plain, &node, &err))
		fail_msg("%s: %s", name, err.cause);
	return node;
}

static void put(struct vmfs_node *node)
{
	struct err err = { 0 };

	assert_int_equal(vmfs_node_put(node, &err), 0);
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void write_at(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed)
{
	uint8_t *bytes = malloc(len);
	struct err err = { 0 };

	assert_non_null(bytes);
	fill(bytes, len, seed);
	if (vmfs_write(node, offset, bytes, len, &err))
		fail_msg("%s", err.cause);
	free(bytes);
}

static void expect_at(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed)
{
	uint8_t *wanted = malloc(len), *seen = malloc(len);
	struct err err = { 0 };
	size_t got;

	assert_non_null(wanted);
	assert_non_null(seen);
	fill(wanted, len, seed);
	assert_int_equal(vmfs_read(node, offset, seen, len, &got, &err), 0);
	assert_int_equal(got, len);
	assert_memory_equal(wanted, seen, len);
	free(wanted);
	free(seen);
}

static void expect_zero(struct vmfs_node *node, uint64_t offset, size_t len)
{
	uint8_t *seen = malloc(len);
	struct err err = { 0 };
	size_t got;

	assert_non_null(seen);
	assert_int_equal(vmfs_read(node, offset, seen, len, &got, &err), 0);
	assert_int_equal(got, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(seen[i], 0);
	free(seen);
}

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
	rig_init(&rig, 1);
	vmfs_about(rig.fs, &about);
	assert_int_equal(about.version, 5);
	assert_string_equal(about.label, "test");
	assert_int_equal(about.size_bytes, VMFS_PE_BYTES);
	rig_clean(&rig);
	rig_release(&rig);
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
	rig_init(&rig, 2);
	node = make(&rig, "wide");
	write_at(node, 0, 300 * MIB, 3);        /* more than the first device has */
	expect_at(node, 0, 300 * MIB, 3);
	put(node);
	rig_reopen_clean(&rig);
	swapped[0] = rig.ios[1];
	swapped[1] = rig.ios[0];
	assert_int_equal(vmfs_open(swapped, 2, &options, &fs, &err), 0);
	assert_int_equal(vmfs_walk(fs, "wide", &node, &err), 0);
	expect_at(node, 0, 300 * MIB, 3);
	put(node);
	assert_int_equal(vmfs_close(fs, &err), 0);
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMFS_EXTENT);
	swapped[1] = swapped[0];
	assert_int_equal(vmfs_open(swapped, 2, &options, &fs, &err), -EINVAL);
	rig_release(&rig);
}

static void test_mkfs_refuses(void **state)
{
	struct vmfs_mkfs_options options = { .now_s = 1 };
	struct vmfs_mem *small = vmfs_mem_new(DEVICE_BYTES - 4096);
	struct vmfs_io *io = &small->io;
	struct err err = { 0 };
	struct rig rig;
	char label[200];

	(void)state;
	assert_int_equal(vmfs_mkfs(&io, 1, &options, &err), -EINVAL);
	assert_int_equal(err.id, ERR_VMFS_BAD_SIZE);
	vmfs_mem_free(small);
	rig_init(&rig, 1);
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), -EEXIST);
	options.overwrite = true;
	memset(label, 'x', sizeof(label));
	label[199] = '\0';
	options.label = label;
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), -EINVAL);
	rig_clean(&rig);
	rig_release(&rig);
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
	rig.mems[0] = vmfs_mem_new(DEVICE_BYTES);
	rig.ios[0] = &rig.mems[0]->io;
	vmfs_mem_poke(rig.mems[0], 0, garbage, 64 * MIB);
	free(garbage);
	assert_int_equal(vmfs_mkfs(rig.ios, 1, &options, &err), 0);
	rig_open(&rig, false);
	rig_clean(&rig);
	rig_release(&rig);
}

static void test_host_in_use(void **state)
{
	struct vmfs_options options = { 0 };
	uint8_t active[4] = { 0x02, 0xef, 0xcd, 0xab };
	struct vmfs *fs;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	rig_close(&rig);
	vmfs_mem_poke(rig.mems[0], VMFS_DATA_OFFSET + VMFS_HB_OFFSET + 7 * 512, active, 4);
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -EBUSY);
	assert_int_equal(err.id, ERR_VMFS_IN_USE);
	rig_open(&rig, true);
	assert_int_equal(vmfs_unlink(rig.root, "x", &err), -EROFS);
	rig_release(&rig);
}

/* ---- data ---- */

static void test_layouts(void **state)
{
	struct vmfs_space before, after;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	before = space_of(&rig);
	node = make(&rig, "grows");
	assert_int_equal(zla_of(node), VMFS_ZLA_RESIDENT);
	write_at(node, 0, 5000, 1);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	write_at(node, 5000, 5000, 2);
	assert_int_equal(zla_of(node), VMFS_ZLA_FB);
	write_at(node, 3 * MIB - 100, 200, 3);
	write_at(node, 256 * MIB - 10, 20, 4);
	assert_int_equal(zla_of(node), VMFS_ZLA_PB);
	write_at(node, 300 * GIB + 5, 100000, 5);
	assert_int_equal(zla_of(node), VMFS_ZLA_DOUBLE);
	rig_clean(&rig);
	put(node);
	rig_reopen_clean(&rig);
	assert_int_equal(vmfs_walk(rig.fs, "/grows", &node, &err), 0);
	expect_at(node, 0, 5000, 1);
	expect_at(node, 5000, 5000, 2);
	expect_zero(node, 10000, 2 * MIB);
	expect_at(node, 3 * MIB - 100, 200, 3);
	expect_at(node, 256 * MIB - 10, 20, 4);
	expect_at(node, 300 * GIB + 5, 100000, 5);
	expect_zero(node, 100 * GIB, 3 * MIB);
	put(node);
	assert_int_equal(vmfs_unlink(rig.root, "grows", &err), 0);
	rig_reopen_clean(&rig);
	after = space_of(&rig);
	assert_int_equal(before.free_bytes, after.free_bytes);
	assert_int_equal(before.sub_blocks_free, after.sub_blocks_free);
	assert_int_equal(before.pointer_blocks_free, after.pointer_blocks_free);
	assert_int_equal(before.files_free, after.files_free);
	rig_release(&rig);
}

/* Data in the descriptor, as ESXi makes small files. */
static void test_resident(void **state)
{
	struct vmfs_node *node;
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	node = make(&rig, "resident");
	node->fd.length = 700;
	fill(node->raw + rig.fs->geometry->fd_data_offset, 700, 9);
	assert_int_equal(vmfs_node_store(node), 0);
	expect_at(node, 0, 700, 9);
	write_at(node, 700, 300, 10);
	assert_int_equal(zla_of(node), VMFS_ZLA_RESIDENT);
	rig_clean(&rig);
	write_at(node, 1000, 100, 11);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	expect_at(node, 0, 700, 9);
	expect_at(node, 700, 300, 10);
	expect_at(node, 1000, 100, 11);
	put(node);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

static void test_truncate(void **state)
{
	struct vmfs_space before;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	before = space_of(&rig);
	node = make(&rig, "cut");
	write_at(node, 0, 10 * MIB, 1);
	assert_int_equal(vmfs_truncate(node, 2 * MIB + 5, &err), 0);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes - 3 * MIB);
	assert_int_equal(vmfs_truncate(node, 4 * MIB, &err), 0);
	expect_at(node, 0, 2 * MIB + 5, 1);
	expect_zero(node, 2 * MIB + 5, 2 * MIB - 5);
	rig_clean(&rig);
	assert_int_equal(vmfs_truncate(node, 0, &err), 0);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes);
	write_at(node, 0, 10, 2);
	assert_int_equal(zla_of(node), VMFS_ZLA_SB);
	assert_int_equal(vmfs_truncate(node, UINT64_C(1) << 60, &err), -EFBIG);
	put(node);
	rig_reopen_clean(&rig);
	rig_release(&rig);
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
	rig_init(&rig, 1);
	/* What a new block held before must never show. */
	memset(garbage, 0x5a, 200 * MIB);
	vmfs_mem_poke(rig.mems[0], VMFS_DATA_OFFSET + 52 * MIB, garbage, 200 * MIB);
	free(garbage);
	before = space_of(&rig);
	node = make(&rig, "thick");
	assert_int_equal(vmfs_allocate(node, 0, 8 * MIB, VMFS_FILL_LAZY, &err), 0);
	assert_int_equal(vmfs_run_at(node, 0, 8 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_ZERO);
	assert_int_equal(run.len_bytes, 8 * MIB);
	write_at(node, 2 * MIB + 1000, 5000, 1);
	expect_zero(node, 2 * MIB, 1000);
	expect_at(node, 2 * MIB + 1000, 5000, 1);
	expect_zero(node, 2 * MIB + 6000, 5 * MIB);
	assert_int_equal(vmfs_run_at(node, 2 * MIB, 6 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_DATA);
	assert_int_equal(run.len_bytes, MIB);
	assert_int_equal(vmfs_allocate(node, 0, 12 * MIB, VMFS_FILL_ZERO, &err), 0);
	assert_int_equal(vmfs_run_at(node, 0, 12 * MIB, &run, &err), 0);
	assert_int_equal(run.kind, VMFS_RUN_DATA);
	expect_zero(node, 0, 2 * MIB + 1000);
	expect_at(node, 2 * MIB + 1000, 5000, 1);
	expect_zero(node, 8 * MIB, 4 * MIB);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes - 12 * MIB);
	rig_clean(&rig);
	assert_int_equal(vmfs_discard(node, 2 * MIB + 2000, 4 * MIB, &err), 0);
	expect_at(node, 2 * MIB + 1000, 1000, 1);
	expect_zero(node, 2 * MIB + 2000, 9 * MIB);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes - 9 * MIB);
	put(node);
	rig_reopen_clean(&rig);
	rig_release(&rig);
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
	rig_init(&rig, 1);
	before = space_of(&rig);
	node = make(&rig, "big");
	assert_int_equal(vmfs_write(node, 0, bytes, 400 * MIB, &err), -ENOSPC);
	assert_int_equal(err.id, ERR_VMFS_NO_SPACE);
	free(bytes);
	rig_clean(&rig);
	full = space_of(&rig);
	assert_int_equal(full.free_bytes, before.free_bytes);  /* one window: all or nothing */
	write_at(node, 0, 100 * MIB, 2);
	put(node);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

/* ---- names ---- */

static void test_names(void **state)
{
	struct vmfs_node *node;
	struct err err = { 0 };
	char longest[VMFS_NAME_MAX + 2];
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	memset(longest, 'n', sizeof(longest));
	longest[VMFS_NAME_MAX + 1] = '\0';
	assert_int_equal(vmfs_create(rig.root, longest, &plain, NULL, &err), -ENAMETOOLONG);
	longest[VMFS_NAME_MAX] = '\0';
	assert_int_equal(vmfs_create(rig.root, longest, &plain, NULL, &err), 0);
	assert_int_equal(vmfs_create(rig.root, longest, &plain, NULL, &err), -EEXIST);
	assert_int_equal(vmfs_create(rig.root, "", &plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_create(rig.root, "a/b", &plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_create(rig.root, "..", &plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_unlink(rig.root, ".sbc.sf", &err), -EPERM);
	assert_int_equal(vmfs_rename(rig.root, ".fbb.sf", rig.root, "x", &err), -EPERM);
	assert_int_equal(vmfs_rmdir(rig.root, ".sdd.sf", &err), -EPERM);
	assert_int_equal(vmfs_lookup(rig.root, ".sdd.sf", &node, &err), 0);
	assert_int_equal(vmfs_create(node, "x", &plain, NULL, &err), -EPERM);
	put(node);
	assert_int_equal(vmfs_lookup(rig.root, ".fbb.sf", &node, &err), 0);
	assert_int_equal(vmfs_truncate(node, 0, &err), -EINVAL);
	put(node);
	assert_int_equal(vmfs_walk(rig.fs, "/nothing/there", &node, &err), -ENOENT);
	assert_int_equal(vmfs_walk(rig.fs, "/.fbb.sf/there", &node, &err), -ENOTDIR);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

static unsigned count_entries(struct vmfs_node *dir)
{
	struct vmfs_entry entry;
	struct err err = { 0 };
	uint64_t cursor = 0;
	unsigned count = 0;
	int rc;

	while ((rc = vmfs_readdir(dir, &cursor, &entry, &err)) == 0)
		count++;
	assert_int_equal(rc, -ENODATA);
	return count;
}

static void test_many_names(void **state)
{
	enum { MANY = 900 };
	struct vmfs_node *dir;
	struct vmfs_space before;
	struct err err = { 0 };
	struct rig rig;
	char name[64];

	(void)state;
	rig_init(&rig, 1);
	assert_int_equal(vmfs_mkdir(rig.root, "many", &plain, &err), 0);
	before = space_of(&rig);
	assert_int_equal(vmfs_walk(rig.fs, "many", &dir, &err), 0);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		assert_int_equal(vmfs_create(dir, name, &plain, NULL, &err), 0);
	}
	assert_int_equal(count_entries(dir), MANY + 2);
	rig_clean(&rig);
	/* In an order that hits first, last, and records that span sectors. */
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "name-%u", (i * 467 + 13) % MANY);
		assert_int_equal(vmfs_unlink(dir, name, &err), 0);
		if (i % 100 == 0)
			rig_clean(&rig);
	}
	assert_int_equal(count_entries(dir), 2);
	put(dir);
	rig_reopen_clean(&rig);
	assert_int_equal(space_of(&rig).files_free, before.files_free);
	assert_int_equal(vmfs_rmdir(rig.root, "many", &err), 0);
	rig_clean(&rig);
	rig_release(&rig);
}

static void test_unlinked_stays_open(void **state)
{
	struct vmfs_node *node;
	struct vmfs_space before;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	before = space_of(&rig);
	node = make(&rig, "open");
	write_at(node, 0, 2 * MIB, 4);
	assert_int_equal(vmfs_unlink(rig.root, "open", &err), 0);
	expect_at(node, 0, 2 * MIB, 4);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes - 2 * MIB);
	put(node);
	assert_int_equal(space_of(&rig).free_bytes, before.free_bytes);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

static void test_rename(void **state)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_node *a, *b, *node;
	struct err err = { 0 };
	struct rig rig;
	char name[64];

	(void)state;
	rig_init(&rig, 1);
	assert_int_equal(vmfs_mkdir(rig.root, "a", &attributes, &err), 0);
	assert_int_equal(vmfs_mkdir(rig.root, "b", &attributes, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "a", &a, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "b", &b, &err), 0);
	assert_int_equal(vmfs_mkdir(a, "inner", &attributes, &err), 0);
	/* Onto every place in a folder, so that records span sectors too. */
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "target-%u", i);
		assert_int_equal(vmfs_create(b, name, &plain, NULL, &err), 0);
	}
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "source-%u", i);
		node = make(&rig, name);
		write_at(node, 0, 100 + i, i);
		put(node);
	}
	for (unsigned i = 0; i < 12; i++) {
		char target[64];

		snprintf(name, sizeof(name), "source-%u", i);
		snprintf(target, sizeof(target), "target-%u", i);
		assert_int_equal(vmfs_rename(rig.root, name, b, target, &err), 0);
		assert_int_equal(vmfs_lookup(b, target, &node, &err), 0);
		expect_at(node, 0, 100 + i, i);
		put(node);
		rig_clean(&rig);
	}
	assert_int_equal(count_entries(b), 14);
	/* Folders. */
	assert_int_equal(vmfs_rename(rig.root, "a", a, "inside", &err), -EINVAL);
	assert_int_equal(vmfs_rename(rig.root, "a", rig.root, "b", &err), -ENOTEMPTY);
	assert_int_equal(vmfs_rename(a, "inner", b, "target-1", &err), -ENOTDIR);
	assert_int_equal(vmfs_rename(b, "target-1", a, "inner", &err), -EISDIR);
	assert_int_equal(vmfs_mkdir(b, "empty", &attributes, &err), 0);
	assert_int_equal(vmfs_rename(a, "inner", b, "empty", &err), 0);
	rig_clean(&rig);
	assert_int_equal(vmfs_rename(b, "empty", rig.root, "up", &err), 0);
	assert_int_equal(vmfs_rename(rig.root, "up", rig.root, "up", &err), 0);
	assert_int_equal(vmfs_rename(rig.root, "gone", rig.root, "x", &err), -ENOENT);
	put(a);
	put(b);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

static void test_symlink(void **state)
{
	char target[VMFS_LINK_MAX], longest[VMFS_LINK_MAX];
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig, 1);
	memset(longest, 'l', sizeof(longest));
	longest[VMFS_LINK_MAX - 1] = '\0';
	assert_int_equal(vmfs_symlink(rig.root, "link", longest, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "link", &node, &err), 0);
	assert_int_equal(vmfs_readlink(node, target, &err), 0);
	assert_string_equal(target, longest);
	put(node);
	assert_int_equal(vmfs_symlink(rig.root, "empty", "", &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_readlink(rig.root, target, &err), -EINVAL);
	rig_reopen_clean(&rig);
	rig_release(&rig);
}

/* ---- devices that fail ---- */

static int script(struct rig *rig)
{
	struct vmfs_node *node;
	struct err err = { 0 };
	uint8_t bytes[3000] = { 1 };
	int rc = vmfs_create(rig->root, "victim", &plain, &node, &err);

	if (rc)
		return rc;
	rc = vmfs_write(node, 0, bytes, sizeof(bytes), &err);
	if (!rc)
		rc = vmfs_write(node, 5 * MIB, bytes, sizeof(bytes), &err);
	if (!rc)
		rc = vmfs_allocate(node, 300 * MIB, 3 * MIB, VMFS_FILL_LAZY, &err);
	if (!rc)
		rc = vmfs_rename(rig->root, "victim", rig->root, "renamed", &err);
	if (!rc)
		rc = vmfs_discard(node, 0, 6 * MIB, &err);
	if (!rc)
		rc = vmfs_unlink(rig->root, "renamed", &err);
	if (vmfs_node_put(node, &err) && !rc)
		rc = -EIO;
	return rc;
}

/* Method: let the first write or flush fail, and all after it; then the second; and so on. */
static void test_every_failure(void **state)
{
	struct vmfs_fsck_result result;
	struct err err = { 0 };
	struct rig rig;
	uint64_t failures = 0;
	int rc;

	(void)state;
	rig_init(&rig, 1);
	vmfs_mem_mark(rig.mems[0]);
	do {
		struct vmfs_mem *mem = rig.mems[0];

		rig_close(&rig);
		vmfs_mem_reset(mem);
		rig_open(&rig, false);
		mem->writes = mem->flushes = 0;
		mem->fail_from = ++failures;
		rc = script(&rig);
		if (rc) {
			assert_int_equal(rc, -EIO);
			/* Nothing more is written: what the disk holds is not known. */
			mem->fail_from = 0;
			assert_int_equal(vmfs_create(rig.root, "later", &plain, NULL, &err), -EIO);
		}
		mem->fail_from = 0;
		/* As the disk has it. */
		assert_int_equal(vmfs_node_put(rig.root, &err), 0);
		assert_int_equal(vmfs_close(rig.fs, &err), rc ? -EIO : 0);
		rig_open(&rig, false);
		assert_int_equal(vmfs_fsck(rig.fs, NULL, NULL, &result, &err), 0);
		assert_int_equal(result.found[VMFS_FOUND_SHARED], 0);
		assert_int_equal(result.found[VMFS_FOUND_NOT_ALLOCATED], 0);
		assert_int_equal(result.found[VMFS_FOUND_DANGLING], 0);
		assert_int_equal(result.found[VMFS_FOUND_POINTER], 0);
		assert_int_equal(result.found[VMFS_FOUND_CLUSTER], 0);
	} while (rc);
	assert_true(failures > 30);
	rig_clean(&rig);
	rig_release(&rig);
}

/* ---- damage ---- */

static void walk_all(struct vmfs *fs, struct vmfs_node *dir, unsigned depth)
{
	uint8_t bytes[4096];
	struct vmfs_entry entry;
	struct err err = { 0 };
	uint64_t cursor = 0;

	while (depth < 4 && vmfs_readdir(dir, &cursor, &entry, &err) == 0) {
		struct vmfs_node *node;
		struct vmfs_stat stat;
		size_t got;

		if (vmfs_node_get(fs, entry.address, &node, &err))
			continue;
		vmfs_node_stat(node, &stat);
		if (vmfs_read(node, stat.length_bytes / 2, bytes, sizeof(bytes), &got, &err) == 0)
			assert_true(got <= sizeof(bytes));
		if (stat.is_directory && strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0)
			walk_all(fs, node, depth + 1);
		put(node);
	}
}

/* Metadata with a few wrong bytes: refused or read, never a fault; the check always ends. */
static void test_damage(void **state)
{
	/* Headers, tables, descriptor of the file system, clusters, descriptors, folders. */
	static const struct { uint64_t at, len; } places[] = {
		{ VMFS_LVM_OFFSET, 1024 }, { VMFS_LVM_OFFSET + 0x80600, 128 },
		{ VMFS_DATA_OFFSET + VMFS_INFO_OFFSET, 512 },
		{ VMFS_DATA_OFFSET + 0x400000, 0x30 }, { VMFS_DATA_OFFSET + 0x410000, 0x400 },
		{ VMFS_DATA_OFFSET + 0x420000, 0x6000 }, { VMFS_DATA_OFFSET + 0x500000, 0x600 },
		{ VMFS_DATA_OFFSET + 0x600000, 0x30 },
	};
	const struct vmfs_options options = { .read_only = true };
	struct vmfs_fsck_result result;
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;
	uint64_t seed = 12345;
	unsigned refused = 0, found = 0;

	(void)state;
	rig_init(&rig, 1);
	node = make(&rig, "file");
	write_at(node, 0, 3 * MIB, 1);
	write_at(node, 300 * MIB, 100, 1);
	put(node);
	assert_int_equal(vmfs_mkdir(rig.root, "dir", &plain, &err), 0);
	rig_close(&rig);
	vmfs_mem_mark(rig.mems[0]);
	for (unsigned i = 0; i < 3000; i++) {
		unsigned place = i % ARRAY_COUNT(places);

		for (unsigned k = 0; k < 1 + i % 3; k++) {
			uint8_t byte;

			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
			byte = (uint8_t)(seed >> 56);
			vmfs_mem_poke(rig.mems[0], places[place].at + (seed >> 20) % places[place].len,
				      &byte, 1);
		}
		err_clear(&err);
		if (vmfs_open(rig.ios, 1, &options, &rig.fs, &err)) {
			assert_int_not_equal(err.id, ERR_NONE);
			refused++;
		} else {
			assert_int_equal(vmfs_walk(rig.fs, "/", &rig.root, &err), 0);
			walk_all(rig.fs, rig.root, 0);
			assert_int_equal(vmfs_fsck(rig.fs, NULL, NULL, &result, &err), 0);
			found += result.total > 0;
			rig_close(&rig);
		}
		vmfs_mem_reset(rig.mems[0]);
	}
	print_message("%u refused, %u found\n", refused, found);
	assert_true(refused > 300);
	assert_true(found > 300);
	rig_open(&rig, false);
	rig_clean(&rig);
	rig_release(&rig);
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
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_unlinked_stays_open),
		cmocka_unit_test(test_rename),
		cmocka_unit_test(test_symlink),
		cmocka_unit_test(test_every_failure),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a device that fails never makes a volume lie, and damage is refused or found.
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

/* ---- devices that fail ---- */

static int script(struct rig *rig)
{
	struct vmfs_node *node;
	struct err err = { 0 };
	uint8_t bytes[3000] = { 1 };
	int rc = vmfs_create(rig->root, "victim", &vrig_plain, &node, &err);

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
	vrig_init(&rig, 1);
	vmfs_mem_mark(rig.mems[0]);
	do {
		struct vmfs_mem *mem = rig.mems[0];

		vrig_close(&rig);
		vmfs_mem_reset(mem);
		vrig_open(&rig, false);
		mem->writes = mem->flushes = 0;
		mem->fail_from = ++failures;
		rc = script(&rig);
		if (rc) {
			assert_int_equal(rc, -EIO);
			/* Nothing more is written: what the disk holds is not known. */
			mem->fail_from = 0;
			assert_int_equal(vmfs_create(rig.root, "later", &vrig_plain, NULL, &err), -EIO);
		}
		mem->fail_from = 0;
		/* As the disk has it. */
		assert_int_equal(vmfs_node_put(rig.root, &err), 0);
		assert_int_equal(vmfs_close(rig.fs, &err), rc ? -EIO : 0);
		vrig_open(&rig, false);
		assert_int_equal(vmfs_fsck(rig.fs, NULL, NULL, &result, &err), 0);
		assert_int_equal(result.found[VMFS_FOUND_SHARED], 0);
		assert_int_equal(result.found[VMFS_FOUND_NOT_ALLOCATED], 0);
		assert_int_equal(result.found[VMFS_FOUND_DANGLING], 0);
		assert_int_equal(result.found[VMFS_FOUND_POINTER], 0);
		assert_int_equal(result.found[VMFS_FOUND_CLUSTER], 0);
	} while (rc);
	assert_true(failures > 30);
	vrig_clean(&rig);
	vrig_release(&rig);
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
		vrig_put(node);
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
	vrig_init(&rig, 1);
	node = vrig_make(&rig, "file");
	vrig_write(node, 0, 3 * MIB, 1);
	vrig_write(node, 300 * MIB, 100, 1);
	vrig_put(node);
	assert_int_equal(vmfs_mkdir(rig.root, "dir", &vrig_plain, &err), 0);
	vrig_close(&rig);
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
			vrig_close(&rig);
		}
		vmfs_mem_reset(rig.mems[0]);
	}
	print_message("%u refused, %u found\n", refused, found);
	assert_true(refused > 300);
	assert_true(found > 300);
	vrig_open(&rig, false);
	vrig_clean(&rig);
	vrig_release(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_failure),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

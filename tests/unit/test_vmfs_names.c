/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: names come, go and move; the check finds nothing after any of it.
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

/* ---- names ---- */

static void test_names(void **state)
{
	struct vmfs_node *node;
	struct err err = { 0 };
	char longest[VMFS_NAME_MAX + 2];
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	memset(longest, 'n', sizeof(longest));
	longest[VMFS_NAME_MAX + 1] = '\0';
	assert_int_equal(vmfs_create(rig.root, longest, &vrig_plain, NULL, &err), -ENAMETOOLONG);
	longest[VMFS_NAME_MAX] = '\0';
	assert_int_equal(vmfs_create(rig.root, longest, &vrig_plain, NULL, &err), 0);
	assert_int_equal(vmfs_create(rig.root, longest, &vrig_plain, NULL, &err), -EEXIST);
	assert_int_equal(vmfs_create(rig.root, "", &vrig_plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_create(rig.root, "a/b", &vrig_plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_create(rig.root, "..", &vrig_plain, NULL, &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_unlink(rig.root, ".sbc.sf", &err), -EPERM);
	assert_int_equal(vmfs_rename(rig.root, ".fbb.sf", rig.root, "x", &err), -EPERM);
	assert_int_equal(vmfs_rmdir(rig.root, ".sdd.sf", &err), -EPERM);
	assert_int_equal(vmfs_lookup(rig.root, ".sdd.sf", &node, &err), 0);
	assert_int_equal(vmfs_create(node, "x", &vrig_plain, NULL, &err), -EPERM);
	vrig_put(node);
	assert_int_equal(vmfs_lookup(rig.root, ".fbb.sf", &node, &err), 0);
	assert_int_equal(vmfs_truncate(node, 0, &err), -EINVAL);
	vrig_put(node);
	assert_int_equal(vmfs_walk(rig.fs, "/nothing/there", &node, &err), -ENOENT);
	assert_int_equal(vmfs_walk(rig.fs, "/.fbb.sf/there", &node, &err), -ENOTDIR);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
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
	vrig_init(&rig, 1);
	assert_int_equal(vmfs_mkdir(rig.root, "many", &vrig_plain, &err), 0);
	before = vrig_space(&rig);
	assert_int_equal(vmfs_walk(rig.fs, "many", &dir, &err), 0);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		assert_int_equal(vmfs_create(dir, name, &vrig_plain, NULL, &err), 0);
	}
	assert_int_equal(count_entries(dir), MANY + 2);
	vrig_clean(&rig);
	/* In an order that hits first, last, and records that span sectors. */
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "name-%u", (i * 467 + 13) % MANY);
		assert_int_equal(vmfs_unlink(dir, name, &err), 0);
		if (i % 100 == 0)
			vrig_clean(&rig);
	}
	assert_int_equal(count_entries(dir), 2);
	vrig_put(dir);
	vrig_reopen_clean(&rig);
	assert_int_equal(vrig_space(&rig).files_free, before.files_free);
	assert_int_equal(vmfs_rmdir(rig.root, "many", &err), 0);
	vrig_clean(&rig);
	vrig_release(&rig);
}

static void test_unlinked_stays_open(void **state)
{
	struct vmfs_node *node;
	struct vmfs_space before;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	before = vrig_space(&rig);
	node = vrig_make(&rig, "open");
	vrig_write(node, 0, 2 * MIB, 4);
	assert_int_equal(vmfs_unlink(rig.root, "open", &err), 0);
	vrig_expect(node, 0, 2 * MIB, 4);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes - 2 * MIB);
	vrig_put(node);
	assert_int_equal(vrig_space(&rig).free_bytes, before.free_bytes);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

static void test_rename(void **state)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_node *a, *b, *node;
	struct err err = { 0 };
	struct rig rig;
	char name[64];

	(void)state;
	vrig_init(&rig, 1);
	assert_int_equal(vmfs_mkdir(rig.root, "a", &attributes, &err), 0);
	assert_int_equal(vmfs_mkdir(rig.root, "b", &attributes, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "a", &a, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "b", &b, &err), 0);
	assert_int_equal(vmfs_mkdir(a, "inner", &attributes, &err), 0);
	/* Onto every place in a folder, so that records span sectors too. */
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "target-%u", i);
		assert_int_equal(vmfs_create(b, name, &vrig_plain, NULL, &err), 0);
	}
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "source-%u", i);
		node = vrig_make(&rig, name);
		vrig_write(node, 0, 100 + i, i);
		vrig_put(node);
	}
	for (unsigned i = 0; i < 12; i++) {
		char target[64];

		snprintf(name, sizeof(name), "source-%u", i);
		snprintf(target, sizeof(target), "target-%u", i);
		assert_int_equal(vmfs_rename(rig.root, name, b, target, &err), 0);
		assert_int_equal(vmfs_lookup(b, target, &node, &err), 0);
		vrig_expect(node, 0, 100 + i, i);
		vrig_put(node);
		vrig_clean(&rig);
	}
	assert_int_equal(count_entries(b), 14);
	/* Folders. */
	assert_int_equal(vmfs_rename(rig.root, "a", a, "inside", &err), -EINVAL);
	assert_int_equal(vmfs_rename(rig.root, "a", rig.root, "b", &err), -ENOTEMPTY);
	assert_int_equal(vmfs_rename(a, "inner", b, "target-1", &err), -ENOTDIR);
	assert_int_equal(vmfs_rename(b, "target-1", a, "inner", &err), -EISDIR);
	assert_int_equal(vmfs_mkdir(b, "empty", &attributes, &err), 0);
	assert_int_equal(vmfs_rename(a, "inner", b, "empty", &err), 0);
	vrig_clean(&rig);
	assert_int_equal(vmfs_rename(b, "empty", rig.root, "up", &err), 0);
	assert_int_equal(vmfs_rename(rig.root, "up", rig.root, "up", &err), 0);
	assert_int_equal(vmfs_rename(rig.root, "gone", rig.root, "x", &err), -ENOENT);
	vrig_put(a);
	vrig_put(b);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

static void test_symlink(void **state)
{
	char target[VMFS_LINK_MAX], longest[VMFS_LINK_MAX];
	struct vmfs_node *node;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	vrig_init(&rig, 1);
	memset(longest, 'l', sizeof(longest));
	longest[VMFS_LINK_MAX - 1] = '\0';
	assert_int_equal(vmfs_symlink(rig.root, "link", longest, &err), 0);
	assert_int_equal(vmfs_walk(rig.fs, "link", &node, &err), 0);
	assert_int_equal(vmfs_readlink(node, target, &err), 0);
	assert_string_equal(target, longest);
	vrig_put(node);
	assert_int_equal(vmfs_symlink(rig.root, "empty", "", &err), -ENAMETOOLONG);
	assert_int_equal(vmfs_readlink(rig.root, target, &err), -EINVAL);
	vrig_reopen_clean(&rig);
	vrig_release(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_unlinked_stays_open),
		cmocka_unit_test(test_rename),
		cmocka_unit_test(test_symlink),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

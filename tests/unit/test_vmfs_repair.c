/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: each kind of damage is found, told and repaired, nothing is lost that need not be, and a
 * second run finds nothing.
 *
 * Each fixture damages the same volume and tells, word for word, what the first run says.
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
#include "vmfs/vmfs_le.h"
#include "vmfs/vmfs_lock.h"
#include "vmfs/vmfs_private.h"

#define OUTPUT_BYTES 8192u
#define FS_AT VMFS_DATA_OFFSET

/* Descriptors of the base volume, in the order of their creation. */
enum { FD_A = 8, FD_B, FD_SMALL, FD_DEEP, FD_DIR, FD_INNER, FD_EMPTY };

struct run {
	char text[OUTPUT_BYTES];
	size_t len;
	struct vmfs_repair_result result;
	unsigned waited_ms;
};

static struct run *current;

static void say(const char *mark, const char *text)
{
	current->len += (size_t)snprintf(current->text + current->len, OUTPUT_BYTES - current->len,
					 "%s%s\n", mark, text);
	assert_true(current->len < OUTPUT_BYTES);
}

static void on_found(const struct vmfs_finding *finding, void *user)
{
	(void)user;
	say("- ", finding->text);
}

static void on_mended(const char *text, void *user)
{
	(void)user;
	say("+ ", text);
}

static void on_left(const struct vmfs_finding *finding, void *user)
{
	(void)user;
	say("LEFT ", finding->text);
}

static void on_pause(uint32_t ms, void *user)
{
	(void)user;
	current->waited_ms += ms;
}

static uint32_t at_noon(void *user)
{
	(void)user;
	return 1700000000;
}

static int repair(struct rig *rig, struct run *run)
{
	const struct vmfs_repair_calls calls = { on_found, on_mended, on_left };
	const struct vmfs_options options = { .repair = true, .now_s = at_noon, .pause_ms = on_pause };
	struct vmfs *fs;
	struct err err = { 0 };
	int rc;

	*run = (struct run){ 0 };
	current = run;
	rc = vmfs_open(rig->ios, rig->count, &options, &fs, &err);
	if (!rc) {
		rc = vmfs_repair(fs, &calls, NULL, &run->result, &err);
		assert_int_equal(vmfs_close(fs, &err), 0);
	}
	return rc;
}

/* ---- the base ---- */

static struct vmfs_node *node_of(struct rig *rig, unsigned item)
{
	struct vmfs_node *node;
	struct err err = { 0 };

	if (vmfs_node_get(rig->fs, vmfs_fd_address(0, item), &node, &err))
		fail_msg("%s", err.cause);
	return node;
}

static void add(struct rig *rig, const char *name, uint64_t offset, size_t len, unsigned seed)
{
	struct vmfs_node *node = vrig_make(rig, name);

	vrig_write(node, offset, len, seed);
	vrig_put(node);
}

static void make_base(struct rig *rig)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_node *dir, *inner;
	struct err err = { 0 };

	vrig_init(rig, 1);
	add(rig, "a", 0, 3 * MIB, 1);
	add(rig, "b", 0, 2 * MIB, 2);
	add(rig, "small", 0, 5000, 3);
	add(rig, "deep", 300 * MIB, 1000, 4);
	assert_int_equal(vmfs_mkdir(rig->root, "dir", &attributes, &err), 0);
	assert_int_equal(vmfs_walk(rig->fs, "dir", &dir, &err), 0);
	assert_int_equal(vmfs_create(dir, "inner", &attributes, &inner, &err), 0);
	vrig_write(inner, 0, 100, 5);
	vrig_put(inner);
	assert_int_equal(vmfs_mkdir(dir, "empty", &attributes, &err), 0);
	vrig_put(dir);
	vrig_clean(rig);
}

static void expect_file(struct rig *rig, const char *path, uint64_t offset, size_t len, unsigned seed)
{
	struct vmfs_node *node;
	struct err err = { 0 };

	if (vmfs_walk(rig->fs, path, &node, &err))
		fail_msg("%s: %s", path, err.cause);
	vrig_expect(node, offset, len, seed);
	vrig_put(node);
}

static void expect_rest(struct rig *rig)
{
	expect_file(rig, "small", 0, 5000, 3);
	expect_file(rig, "deep", 300 * MIB, 1000, 4);
}

/* Break, and compare what the first and the second run say. */
static void check(void (*damage)(struct rig *rig), const char *wanted,
		  void (*look)(struct rig *rig))
{
	static struct run first, second;
	struct rig rig;

	make_base(&rig);
	damage(&rig);
	vrig_close(&rig);
	assert_int_equal(repair(&rig, &first), 0);
	if (strcmp(first.text, wanted) != 0)
		print_message("%s", first.text);
	assert_string_equal(first.text, wanted);
	assert_int_equal(first.result.after.total, 0);
	assert_int_equal(repair(&rig, &second), 0);
	assert_string_equal(second.text, "");
	vrig_open(&rig, false);
	vrig_clean(&rig);
	if (look)
		look(&rig);
	vrig_release(&rig);
}

/* ---- fixtures ---- */

static void share_block(struct rig *rig)
{
	struct vmfs_node *a = node_of(rig, FD_A), *b = node_of(rig, FD_B);

	vmfs_node_set_pointer(b, 1, vmfs_node_pointer(a, 2));
	assert_int_equal(vmfs_node_store(b), 0);
	vrig_put(a);
	vrig_put(b);
}

static void look_shared(struct rig *rig)
{
	uint8_t wanted[3 * MIB], seen[MIB];
	struct vmfs_node *b;
	struct err err = { 0 };
	size_t got;

	expect_file(rig, "a", 0, 3 * MIB, 1);
	/* The second has what it would have read, and it is its own. */
	vrig_fill(wanted, sizeof(wanted), 1);
	b = node_of(rig, FD_B);
	assert_int_equal(vmfs_read(b, MIB, seen, MIB, &got, &err), 0);
	assert_memory_equal(seen, wanted + 2 * MIB, MIB);
	vrig_write(b, MIB, MIB, 77);
	vrig_put(b);
	expect_file(rig, "a", 0, 3 * MIB, 1);
	expect_rest(rig);
}

static void test_shared_block(void **state)
{
	(void)state;
	check(share_block,
	      "- descriptor 0x2400004 uses item 48 of .fbb.sf, which is in use already\n"
	      "- items 50 to 50 of .fbb.sf are allocated, and nobody's\n"
	      "+ cluster 0 of .fbb.sf was written anew\n"
	      "+ descriptor 0x2400004: 0xc01 is another's too: copied\n", look_shared);
}

static void share_table(struct rig *rig)
{
	struct vmfs_node *deep = node_of(rig, FD_DEEP), *other = vrig_make(rig, "other");

	vrig_write(other, 290 * MIB, 10, 9);
	vrig_write(other, 0, 10, 9);
	for (uint32_t i = 0; i < 256; i++)
		vmfs_node_set_pointer(other, i, vmfs_node_pointer(deep, i));
	assert_int_equal(vmfs_node_store(other), 0);
	vrig_put(deep);
	vrig_put(other);
}

static void look_table(struct rig *rig)
{
	expect_rest(rig);
	expect_file(rig, "other", 290 * MIB, 0, 9);
}

static void test_shared_table(void **state)
{
	(void)state;
	check(share_table,
	      "- descriptor 0x3c00004 uses item 0 of .pbc.sf, which is in use already\n"
	      "- descriptor 0x3c00004 counts 2 blocks, 0 to be zeroed, and has 0 and 0\n"
	      "- items 52 to 53 of .fbb.sf are allocated, and nobody's\n"
	      "- items 1 to 1 of .pbc.sf are allocated, and nobody's\n"
	      "+ cluster 0 of .fbb.sf was written anew\n"
	      "+ cluster 0 of .pbc.sf was written anew\n"
	      "+ descriptor 0x3c00004: 0x3 is another's too: copied\n"
	      "+ descriptor 0x3c00004: 0xcc1 is another's too: copied\n"
	      "+ descriptor 0x3c00004: counts 1 blocks now, not 2\n", look_table);
}

static void free_used(struct rig *rig)
{
	struct vmfs_node *a = node_of(rig, FD_A);
	uint64_t word = vmfs_node_pointer(a, 1);

	assert_int_equal(vmfs_give_words(rig->fs, &word, 1), 0);
	vrig_put(a);
}

static void look_all(struct rig *rig)
{
	expect_file(rig, "a", 0, 3 * MIB, 1);
	expect_file(rig, "b", 0, 2 * MIB, 2);
	expect_file(rig, "dir/inner", 0, 100, 5);
	expect_rest(rig);
}

static void test_freed_but_used(void **state)
{
	(void)state;
	check(free_used,
	      "- descriptor 0x2000004 uses item 47 of .fbb.sf, which is free\n"
	      "+ cluster 0 of .fbb.sf was written anew\n", look_all);
}

static void lose_block(struct rig *rig)
{
	struct vmfs_addr addr = { 0 };
	uint32_t count;

	assert_int_equal(vmfs_res_take(&rig->fs->res[VMFS_RES_FBB], 1, &addr, &count, NULL), 0);
	assert_int_equal(vmfs_res_take(&rig->fs->res[VMFS_RES_SBC], 2, &addr, &count, NULL), 0);
}

static void test_lost_block(void **state)
{
	(void)state;
	check(lose_block,
	      "- items 52 to 52 of .fbb.sf are allocated, and nobody's\n"
	      "- items 4 to 5 of .sbc.sf are allocated, and nobody's\n"
	      "+ cluster 0 of .fbb.sf was written anew\n"
	      "+ cluster 0 of .sbc.sf was written anew\n", look_all);
}

static void poke_fd(struct rig *rig, unsigned item, uint64_t offset, const void *bytes, size_t len)
{
	struct vmfs_node *node = node_of(rig, item);
	uint64_t at = node->volume_offset + offset;

	vrig_put(node);
	vmfs_mem_poke(rig->mems[0], FS_AT + at, bytes, len);
}

static void destroy_descriptor(struct rig *rig)
{
	uint8_t garbage[0x800];

	memset(garbage, 0xff, sizeof(garbage));
	poke_fd(rig, FD_B, 0, garbage, sizeof(garbage));
}

static void test_destroyed_descriptor(void **state)
{
	(void)state;
	check(destroy_descriptor,
	      "- the volume is damaged: descriptor 0x2400004 has no valid lock block\n"
	      "- folder 0x4: 'b' names 0x2400004, which is no file\n"
	      "- items 49 to 50 of .fbb.sf are allocated, and nobody's\n"
	      "+ descriptor 0x2400004 was none and is free now\n"
	      "+ cluster 0 of .fbb.sf was written anew\n"
	      "+ cluster 0 of .fdc.sf was written anew\n"
	      "+ folder 0x4: 'b' was removed: what it names is no file\n", expect_rest);
}

static void spoil_lock_block(struct rig *rig)
{
	const uint8_t zeroes[512] = { 0 };

	poke_fd(rig, FD_B, 0, zeroes, sizeof(zeroes));
}

static void test_spoilt_lock_block(void **state)
{
	(void)state;
	check(spoil_lock_block,
	      "- the volume is damaged: descriptor 0x2400004 has no valid lock block\n"
	      "- folder 0x4: 'b' names 0x2400004, which is no file\n"
	      "- items 49 to 50 of .fbb.sf are allocated, and nobody's\n"
	      "+ descriptor 0x2400004 was put right\n", look_all);
}

static void remove_name(struct rig *rig, const char *path, const char *name)
{
	struct vmfs_entry entry;
	struct vmfs_node *dir;
	struct err err = { 0 };

	assert_int_equal(vmfs_walk(rig->fs, path, &dir, &err), 0);
	assert_int_equal(vmfs_dir_find(dir, name, &entry), 0);
	assert_int_equal(vmfs_dir5_remove(dir, &entry), 0);
	vrig_put(dir);
}

static void make_orphans(struct rig *rig)
{
	remove_name(rig, "/", "a");
	remove_name(rig, "/", "dir");
	vrig_put(vrig_make(rig, "nothing"));
	remove_name(rig, "/", "nothing");
}

static void look_orphans(struct rig *rig)
{
	expect_file(rig, "lost+found/fd-02000004", 0, 3 * MIB, 1);
	expect_file(rig, "lost+found/fd-03000004/inner", 0, 100, 5);
	expect_rest(rig);
}

static void test_orphans(void **state)
{
	(void)state;
	check(make_orphans,
	      "- descriptor 0x4 counts 4 links, and has 3\n"
	      "- descriptor 0x2000004 has no name\n"
	      "- descriptor 0x3000004 has no name\n"
	      "- descriptor 0x3400004 has no name\n"
	      "- descriptor 0x3800004 has no name\n"
	      "- descriptor 0x3c00004 has no name\n"
	      "+ the folder 'lost+found' was made\n"
	      "+ descriptor 0x3000004 had no name: it is fd-03000004 in lost+found\n"
	      "+ folder 0x3000004: '..' names 0x4000004 now\n"
	      "+ descriptor 0x2000004 had no name: it is fd-02000004 in lost+found\n"
	      "+ descriptor 0x3c00004 had no name and no data: it is free now\n"
	      "+ descriptor 0x4 counts 4 links now, not 5\n"
	      "+ descriptor 0x4000004 counts 3 links now, not 2\n", look_orphans);
}

static void make_dangling(struct rig *rig)
{
	struct vmfs_entry entry = { .type = VMFS_TYPE_FILE, .address = vmfs_fd_address(0, 20),
				    .generation = 7, .name = "dangling" };

	assert_int_equal(vmfs_dir5_append(rig->root, &entry), 0);
	entry.address = vmfs_fd_address(0, FD_B);
	strcpy(entry.name, "older");    /* another generation */
	assert_int_equal(vmfs_dir5_append(rig->root, &entry), 0);
	entry.address = vmfs_fd_address(60000, 1000);
	strcpy(entry.name, "nowhere");
	assert_int_equal(vmfs_dir5_append(rig->root, &entry), 0);
}

static void test_dangling(void **state)
{
	(void)state;
	check(make_dangling,
	      "- folder 0x4: 'dangling' names 0x5000004, which is no file\n"
	      "- folder 0x4: 'older' names 0x2400004, which is no file\n"
	      "- folder 0x4: 'nowhere' names 0xfa3a9804, which is no file\n"
	      "+ folder 0x4: 'dangling' was removed: what it names is no file\n"
	      "+ folder 0x4: 'older' was removed: what it names is no file\n"
	      "+ folder 0x4: 'nowhere' was removed: it names no descriptor\n", look_all);
}

static void spoil_dots(struct rig *rig)
{
	struct vmfs_node *dir;
	struct vmfs_entry entry;
	struct err err = { 0 };

	assert_int_equal(vmfs_walk(rig->fs, "dir", &dir, &err), 0);
	assert_int_equal(vmfs_dir_find(dir, "..", &entry), 0);
	assert_int_equal(vmfs_dir5_point(dir, &entry, vmfs_fd_address(0, FD_A), 1), 0);
	vrig_put(dir);
	remove_name(rig, "dir/empty", ".");
}

static void test_dots(void **state)
{
	(void)state;
	check(spoil_dots,
	      "- folder 0x3000004: '..' names 0x2000004, not 0x4\n"
	      "- folder 0x3800004 has no '.'\n"
	      "+ folder 0x3000004: '..' names 0x4 now\n"
	      "+ folder 0x3800004 has '.' and '..' again\n", look_all);
}

static void spoil_counts(struct rig *rig)
{
	struct vmfs_node *a = node_of(rig, FD_A), *dir = node_of(rig, FD_DIR);

	a->fd.link_count = 5;
	a->fd.block_count = 17;
	dir->fd.link_count = 9;
	assert_int_equal(vmfs_node_store(a), 0);
	assert_int_equal(vmfs_node_store(dir), 0);
	vrig_put(a);
	vrig_put(dir);
}

static void test_counts(void **state)
{
	(void)state;
	check(spoil_counts,
	      "- descriptor 0x2000004 counts 17 blocks, 0 to be zeroed, and has 3 and 0\n"
	      "- descriptor 0x2000004 counts 5 links, and has 1\n"
	      "- descriptor 0x3000004 counts 9 links, and has 3\n"
	      "+ descriptor 0x2000004: counts 3 blocks now, not 17\n"
	      "+ descriptor 0x2000004 counts 1 links now, not 5\n"
	      "+ descriptor 0x3000004 counts 3 links now, not 9\n", look_all);
}

static void spoil_pointer(struct rig *rig)
{
	struct vmfs_node *b = node_of(rig, FD_B);

	vmfs_node_set_pointer(b, 0, 0x12345602);
	vmfs_node_set_pointer(b, 1, 0x7fffffc1);
	assert_int_equal(vmfs_node_store(b), 0);
	vrig_put(b);
}

static void look_holes(struct rig *rig)
{
	struct vmfs_node *b = node_of(rig, FD_B);

	vrig_expect_zero(b, 0, 2 * MIB);
	vrig_put(b);
	expect_rest(rig);
}

static void test_bad_pointer(void **state)
{
	(void)state;
	check(spoil_pointer,
	      "- descriptor 0x2400004 points at 0x12345602, which is not of its kind\n"
	      "- descriptor 0x2400004 points at 0x7fffffc1, which is nothing\n"
	      "- descriptor 0x2400004 counts 2 blocks, 0 to be zeroed, and has 1 and 0\n"
	      "- items 49 to 50 of .fbb.sf are allocated, and nobody's\n"
	      "+ descriptor 0x2400004: pointer 0x12345602 is a hole now: it names nothing of its kind\n"
	      "+ descriptor 0x2400004: pointer 0x7fffffc1 is a hole now: it names nothing of its kind\n"
	      "+ descriptor 0x2400004: counts 0 blocks now, not 2\n"
	      "+ cluster 0 of .fbb.sf was written anew\n", look_holes);
}

static void double_names(struct rig *rig)
{
	struct vmfs_node *a = node_of(rig, FD_A);
	struct vmfs_entry entry = { .type = VMFS_TYPE_FILE, .address = a->address,
				    .generation = a->fd.generation, .name = "b" };

	assert_int_equal(vmfs_dir5_append(rig->root, &entry), 0);
	vrig_put(a);
	remove_name(rig, "/", "a");
	remove_name(rig, "/", ".vh.sf");
}

static void look_doubles(struct rig *rig)
{
	expect_file(rig, "b", 0, 3 * MIB, 1);
	expect_file(rig, "lost+found/fd-02400004", 0, 2 * MIB, 2);
	expect_rest(rig);
}

static void test_double_names(void **state)
{
	(void)state;
	check(double_names,
	      "- folder 0x4 has a name twice\n"
	      "- descriptor 0x1400004 has no name\n"
	      "+ folder 0x4: 'b' was removed: the name is there twice\n"
	      "+ the root has '.vh.sf' again\n"
	      "+ the folder 'lost+found' was made\n"
	      "+ descriptor 0x2400004 had no name: it is fd-02400004 in lost+found\n", look_doubles);
}

static void spoil_cluster(struct rig *rig)
{
	const uint8_t zeroes[1024] = { 0 };

	/* The second clusters of blocks and of descriptors. */
	vmfs_mem_poke(rig->mems[0], FS_AT + 0x610400, zeroes, sizeof(zeroes));
	vmfs_mem_poke(rig->mems[0], FS_AT + 0x410400, zeroes, sizeof(zeroes));
}

static void test_cluster(void **state)
{
	(void)state;
	check(spoil_cluster,
	      "- the volume is damaged: cluster 1 of .fbb.sf has no valid lock block\n"
	      "- the volume is damaged: cluster 1 of .fdc.sf has no valid lock block\n"
	      "+ cluster 1 of .fbb.sf was written anew\n"
	      "+ cluster 1 of .fdc.sf was written anew\n", look_all);
}

static void make_stale(struct rig *rig)
{
	struct vmfs_node *a = node_of(rig, FD_A);
	uint64_t place = a->volume_offset;
	struct vmfs_heartbeat slot = {
		.state = VMFS_HB_ACTIVE, .volume_offset = VMFS_HB_OFFSET + 5 * 512, .generation = 3,
		.stamp_us = 1000, .owner = "a dead host",
	};
	struct vmfs_lock lock = {
		.type = VMFS_LOCK_FD, .volume_offset = place, .token = 9, .mode = VMFS_LOCK_MODE_EXCLUSIVE,
		.heartbeat_offset = slot.volume_offset, .heartbeat_generation = 3, .owner = "a dead host",
	};
	uint8_t bytes[512] = { 0 }, spoilt[4] = { 1, 2, 3, 4 };

	vrig_put(a);
	vmfs_heartbeat_encode(&slot, bytes);
	vmfs_mem_poke(rig->mems[0], FS_AT + slot.volume_offset, bytes, sizeof(bytes));
	memset(bytes, 0, sizeof(bytes));
	vmfs_lock_encode(&lock, bytes);
	vmfs_mem_poke(rig->mems[0], FS_AT + place, bytes, sizeof(bytes));
	vmfs_mem_poke(rig->mems[0], FS_AT + VMFS_HB_OFFSET + 9 * 512, spoilt, sizeof(spoilt));
}

static void test_stale_heartbeat(void **state)
{
	(void)state;
	check(make_stale,
	      "- descriptor 0x2000004 is locked by a host that is gone\n"
	      "+ heartbeats that contradicted themselves were freed: 1\n"
	      "+ heartbeats that stood still were freed: 1\n"
	      "+ descriptor 0x2000004: a lock of a host that is gone was freed\n", look_all);
}

/* ---- what is left alone ---- */

static struct rig *beating;

static void beat(uint32_t ms, void *user)
{
	uint8_t stamp[8] = { 9 };

	(void)ms;
	(void)user;
	vmfs_mem_poke(beating->mems[0], FS_AT + VMFS_HB_OFFSET + 5 * 512 + 0x14, stamp, 8);
}

/* R-F1: a host that beats within its lease is left alone, and the volume is not touched. */
static void test_living_host(void **state)
{
	const struct vmfs_options options = { .repair = true, .pause_ms = beat };
	struct vmfs *fs;
	struct err err = { 0 };
	struct rig rig;

	(void)state;
	make_base(&rig);
	make_stale(&rig);
	vrig_close(&rig);
	beating = &rig;
	assert_int_equal(vmfs_open(rig.ios, 1, &options, &fs, &err), -EBUSY);
	assert_int_equal(err.id, ERR_VMFS_IN_USE);
	vrig_open(&rig, true);
	vrig_release(&rig);
}

static void test_lease_is_waited_for(void **state)
{
	static struct run run;
	struct rig rig;

	(void)state;
	make_base(&rig);
	make_stale(&rig);
	vrig_close(&rig);
	assert_int_equal(repair(&rig, &run), 0);
	assert_true(run.waited_ms >= 16000);
	vrig_open(&rig, false);
	vrig_release(&rig);
}

/* A resource file that is damaged itself: refused, and not a byte is changed. */
static void test_resource_file(void **state)
{
	const uint8_t other[4] = { 99, 0, 0, 0 };
	static struct run run;
	struct rig rig;
	uint64_t writes;

	(void)state;
	make_base(&rig);
	/* .fbb.sf tells of fewer blocks than there are. */
	vmfs_mem_poke(rig.mems[0], FS_AT + 0x600000 + 0x14, other, sizeof(other));
	vrig_close(&rig);
	writes = rig.mems[0]->writes;
	assert_int_equal(repair(&rig, &run), -EUCLEAN);
	assert_int_equal(rig.mems[0]->writes, writes);
	vrig_open(&rig, true);
	vrig_release(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_block),
		cmocka_unit_test(test_shared_table),
		cmocka_unit_test(test_freed_but_used),
		cmocka_unit_test(test_lost_block),
		cmocka_unit_test(test_destroyed_descriptor),
		cmocka_unit_test(test_spoilt_lock_block),
		cmocka_unit_test(test_orphans),
		cmocka_unit_test(test_dangling),
		cmocka_unit_test(test_dots),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_bad_pointer),
		cmocka_unit_test(test_double_names),
		cmocka_unit_test(test_cluster),
		cmocka_unit_test(test_stale_heartbeat),
		cmocka_unit_test(test_living_host),
		cmocka_unit_test(test_lease_is_waited_for),
		cmocka_unit_test(test_resource_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/vmfs_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_mkfs.h"

const struct vmfs_attributes vrig_plain = { .mode = 0644 };

static uint32_t fixed_time(void *user)
{
	(void)user;
	return 1700000000;
}

void vrig_open(struct rig *rig, bool read_only)
{
	struct vmfs_options options = { .read_only = read_only, .now_s = fixed_time };
	struct err err = { 0 };

	if (vmfs_open(rig->ios, rig->count, &options, &rig->fs, &err))
		fail_msg("%s", err.cause);
	assert_int_equal(vmfs_walk(rig->fs, "/", &rig->root, &err), 0);
}

void vrig_close(struct rig *rig)
{
	struct err err = { 0 };

	assert_int_equal(vmfs_node_put(rig->root, &err), 0);
	assert_int_equal(vmfs_close(rig->fs, &err), 0);
}

void vrig_init(struct rig *rig, unsigned devices)
{
	const struct vmfs_mkfs_options options = { .label = "test", .reads_zero = true,
						   .now_s = 1700000000, .file_count = 1024 };
	struct err err = { 0 };

	*rig = (struct rig){ .count = devices };
	for (unsigned i = 0; i < devices; i++) {
		rig->mems[i] = vmfs_mem_new(RIG_DEVICE_BYTES + i * VMFS_PE_BYTES);
		rig->ios[i] = &rig->mems[i]->io;
	}
	if (vmfs_mkfs(rig->ios, devices, &options, &err))
		fail_msg("%s", err.cause);
	vrig_open(rig, false);
}

static void print_finding(const struct vmfs_finding *finding, void *user)
{
	(void)user;
	print_message("found: %s\n", finding->text);
}

void vrig_clean(struct rig *rig)
{
	struct vmfs_fsck_result result;
	struct err err = { 0 };

	assert_int_equal(vmfs_fsck(rig->fs, print_finding, NULL, &result, &err), 0);
	assert_int_equal(result.total, 0);
}

/* The same after it was closed and opened again. */
void vrig_reopen_clean(struct rig *rig)
{
	vrig_close(rig);
	vrig_open(rig, false);
	vrig_clean(rig);
}

void vrig_release(struct rig *rig)
{
	vrig_close(rig);
	for (unsigned i = 0; i < rig->count; i++)
		vmfs_mem_free(rig->mems[i]);
}

struct vmfs_space vrig_space(struct rig *rig)
{
	struct vmfs_space space;
	struct err err = { 0 };

	assert_int_equal(vmfs_statfs(rig->fs, &space, &err), 0);
	return space;
}

struct vmfs_node *vrig_make(struct rig *rig, const char *name)
{
	struct vmfs_node *node;
	struct err err = { 0 };

	if (vmfs_create(rig->root, name, &vrig_plain, &node, &err))
		fail_msg("%s: %s", name, err.cause);
	return node;
}

void vrig_put(struct vmfs_node *node)
{
	struct err err = { 0 };

	assert_int_equal(vmfs_node_put(node, &err), 0);
}

void vrig_fill(uint8_t *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

void vrig_write(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed)
{
	uint8_t *bytes = malloc(len);
	struct err err = { 0 };

	assert_non_null(bytes);
	vrig_fill(bytes, len, seed);
	if (vmfs_write(node, offset, bytes, len, &err))
		fail_msg("%s", err.cause);
	free(bytes);
}

void vrig_expect(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed)
{
	uint8_t *wanted = malloc(len), *seen = malloc(len);
	struct err err = { 0 };
	size_t got;

	assert_non_null(wanted);
	assert_non_null(seen);
	vrig_fill(wanted, len, seed);
	assert_int_equal(vmfs_read(node, offset, seen, len, &got, &err), 0);
	assert_int_equal(got, len);
	assert_memory_equal(wanted, seen, len);
	free(wanted);
	free(seen);
}

void vrig_expect_zero(struct vmfs_node *node, uint64_t offset, size_t len)
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes with hostile headers, clusters, descriptors and pointers: opened, walked, checked, and
 * written to, without a fault; nothing is written outside of the volume (vmfs_io's CHECKs).
 */
#include <stdlib.h>
#include <string.h>

#include "tests/lib/vmfs_fuzz.h"
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_lock.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define FS VMFS_DATA_OFFSET

static const struct vmfs_fuzz_place places[] = {
	{ FS, 0x2000 },                                         /* the journal */
	{ VMFS_LVM_OFFSET, 1024 },
	{ VMFS_LVM_OFFSET + 0x80600, 256 },
	{ FS + VMFS_INFO_OFFSET, 512 },
	{ FS + VMFS_HB_OFFSET, 2048 },
	{ FS + 0x400000, 64 }, { FS + 0x410000, 0x800 },        /* .fdc.sf */
	{ FS + 0x420000, 0x4000 }, { FS + 0x424000, 0x4000 },   /* descriptors */
	{ FS + 0x600000, 64 }, { FS + 0x610000, 0x800 },        /* .fbb.sf */
	{ FS + 0x700000, 64 }, { FS + 0x710000, 0x400 },        /* .pbc.sf */
	{ FS + 0x720000, 0x4000 },                              /* pointer blocks */
	{ FS + 0x900000, 64 }, { FS + 0x910000, 0x400 },        /* .sbc.sf */
};

static void use(struct vmfs *fs, const char *path)
{
	uint8_t buffer[16384] = { 0 };
	struct vmfs_node *node;
	struct vmfs_run run;
	struct vmfs_lock lock;
	struct vmfs_stat stat;
	struct err err = { 0 };
	size_t got;
	bool stale;

	if (vmfs_walk(fs, path, &node, &err))
		return;
	vmfs_node_stat(node, &stat);
	(void)!vmfs_read(node, 0, buffer, sizeof(buffer), &got, &err);
	(void)!vmfs_read(node, stat.length_bytes - stat.length_bytes % 4096, buffer, sizeof(buffer),
			 &got, &err);
	(void)!vmfs_run_at(node, stat.length_bytes / 2, UINT64_C(1) << 40, &run, &err);
	if (vmfs_lock_read(node, &lock, &err) == 0 && lock.mode)
		(void)!vmfs_lock_is_stale(fs, &lock, &stale, &err);
	(void)!vmfs_write(node, 4000, buffer, 9000, &err);
	(void)!vmfs_write(node, UINT64_C(290) << 20, buffer, 10, &err);
	(void)!vmfs_allocate(node, UINT64_C(2) << 20, UINT64_C(2) << 20, VMFS_FILL_LAZY, &err);
	(void)!vmfs_discard(node, 0, UINT64_C(3) << 20, &err);
	if (stat.length_bytes < UINT64_C(1) << 40)
		(void)!vmfs_truncate(node, 100, &err);
	(void)!vmfs_node_put(node, &err);
}

static void change(struct vmfs *fs)
{
	const struct vmfs_attributes attributes = { .mode = 0644 };
	struct vmfs_node *root;
	struct err err = { 0 };

	if (vmfs_walk(fs, "/", &root, &err))
		return;
	(void)!vmfs_create(root, "new", &attributes, NULL, &err);
	(void)!vmfs_mkdir(root, "newdir", &attributes, &err);
	(void)!vmfs_rename(root, "file0", root, "file1", &err);
	(void)!vmfs_unlink(root, "file3", &err);
	(void)!vmfs_unlink(root, "link", &err);
	(void)!vmfs_rmdir(root, "dir", &err);
	(void)!vmfs_node_put(root, &err);
}

static void no_pause(uint32_t ms UNUSED, void *user UNUSED)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static const struct vmfs_repair_calls calls = { 0 };
	struct vmfs_mem *mem = vmfs_fuzz_volume();
	struct vmfs_options options = { .read_only = len > 0 && bytes[0] & 1,
					.repair = len > 0 && bytes[0] & 2, .pause_ms = no_pause };
	struct vmfs_repair_result repaired;
	struct vmfs_fsck_result result;
	struct vmfs_io *io = &mem->io;
	struct vmfs_space space;
	struct vmfs *fs;
	struct err err = { 0 };
	char path[] = "/file0";

	if (len < 1)
		return 0;
	vmfs_fuzz_patch(mem, places, ARRAY_COUNT(places), bytes + 1, len - 1);
	if (vmfs_open(&io, 1, &options, &fs, &err)) {
		CHECK(err.id != ERR_NONE);
		return 0;
	}
	(void)!vmfs_statfs(fs, &space, &err);
	if (options.repair && !options.read_only) {
		if (vmfs_repair(fs, &calls, NULL, &repaired, &err) == 0)
			CHECK(repaired.after.total == 0);
	} else {
		(void)!vmfs_fsck(fs, NULL, NULL, &result, &err);
	}
	for (path[5] = '0'; path[5] < '4'; path[5]++)
		use(fs, path);
	if (!options.read_only)
		change(fs);
	(void)vmfs_close(fs, &err);
	return 0;
}

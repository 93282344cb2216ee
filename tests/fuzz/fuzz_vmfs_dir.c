/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile directories, of VMFS5 (in a volume) and of VMFS6 (the pages of a directory behind the
 * reader alone): listed, looked up and changed without a fault, and in bounded time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/vmfs_fuzz.h"
#include "vmfs/vmfs_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define ROOT_PLACE (VMFS_DATA_OFFSET + 0x500000)
#define ENTRIES_MAX 100000u

static void list(struct vmfs_node *dir)
{
	struct vmfs_entry entry;
	uint64_t cursor = 0, before;
	unsigned count = 0;
	int rc;

	do {
		before = cursor;
		rc = vmfs_dir_next(dir, &cursor, &entry);
		CHECK(rc || cursor > before);
		CHECK(rc || strlen(entry.name) < sizeof(entry.name));
		CHECK(rc || entry.name[0]);
	} while (rc == 0 && ++count < ENTRIES_MAX);
	CHECK(count < ENTRIES_MAX);
	CHECK(rc == -ENODATA || rc == -EUCLEAN);
}

/* The root of a VMFS5 volume. */
static void in_volume(const uint8_t *bytes, size_t len)
{
	const struct vmfs_fuzz_place places[] = { { ROOT_PLACE, 16 * VMFS_DIRENT5_BYTES },
						  { VMFS_DATA_OFFSET + 0x420200, 0x50 } };
	const struct vmfs_attributes attributes = { .mode = 0644 };
	const struct vmfs_options options = { 0 };
	struct vmfs_mem *mem = vmfs_fuzz_volume();
	struct vmfs_io *io = &mem->io;
	struct vmfs_node *root;
	struct vmfs *fs;
	struct err err = { 0 };

	vmfs_fuzz_patch(mem, places, ARRAY_COUNT(places), bytes, len);
	if (vmfs_open(&io, 1, &options, &fs, &err))
		return;
	if (vmfs_walk(fs, "/", &root, &err) == 0) {
		list(root);
		(void)!vmfs_create(root, "new", &attributes, NULL, &err);
		(void)!vmfs_rename(root, "file0", root, "other", &err);
		(void)!vmfs_rename(root, "file1", root, "file2", &err);
		(void)!vmfs_unlink(root, "file3", &err);
		(void)!vmfs_node_put(root, &err);
	}
	(void)vmfs_close(fs, &err);
}

/* A folder of VMFS6 in file blocks: its bytes stand in the volume from 64 MiB on. */
static void wide(const uint8_t *bytes, size_t len)
{
	const uint64_t at = UINT64_C(64) << 20, length = VMFS_DIR6_HEADER_BYTES + 16 * 4096;
	const struct vmfs_fuzz_place places[] = {
		{ VMFS_DATA_OFFSET + at, 0x600 },
		{ VMFS_DATA_OFFSET + at + VMFS_DIR6_HEADER_BYTES, 16 * 4096 },
		{ VMFS_DATA_OFFSET + at + VMFS_DIR6_HEADER_BYTES, 0x80 },
		{ VMFS_DATA_OFFSET + at + VMFS_DIR6_HEADER_BYTES + 4096, 0x400 },
	};
	struct vmfs_mem *mem = vmfs_fuzz_volume();
	struct vmfs_io *io = &mem->io;
	struct vmfs *fs = calloc(1, sizeof(*fs));
	struct vmfs_node *dir = calloc(1, sizeof(*dir));
	struct err err = { 0 };

	CHECK(fs);
	CHECK(dir);
	fs->window = calloc(1, sizeof(*fs->window));
	CHECK(fs->window);
	CHECK(vmfs_lv_open(&fs->lv, &io, 1, &err) == 0);
	fs->geometry = vmfs_geometry(6);
	fs->addr.wide = true;
	fs->info.file_block_bytes = UINT64_C(1) << 20;
	fs->file_block_count = 256;
	dir->fs = fs;
	dir->rank = 4;
	dir->fd = (struct vmfs_fd){ .type = VMFS_TYPE_DIR, .zla = VMFS_ZLA_FB, .length = length,
				    .block_bytes = UINT64_C(1) << 20 };
	vmfs_node_set_pointer(dir, 0, UINT64_C(64) << 51 | VMFS_ADDR_FB);
	/* A sound header and map to begin with. */
	vmfs_mem_poke(mem, VMFS_DATA_OFFSET + at, (const uint8_t[]){ 1, 0, 0xf5, 0 }, 4);
	vmfs_mem_poke(mem, VMFS_DATA_OFFSET + at + 12, (const uint8_t[]){ 1 }, 1);
	vmfs_mem_poke(mem, VMFS_DATA_OFFSET + at + VMFS_DIR6_HEADER_BYTES + 0x40,
		      (const uint8_t[]){ 0x35, 0x55 }, 2);
	vmfs_mem_poke(mem, VMFS_DATA_OFFSET + at + VMFS_DIR6_HEADER_BYTES + 4096,
		      (const uint8_t[]){ 1, 0, 1, 0, 14 }, 5);
	vmfs_fuzz_patch(mem, places, ARRAY_COUNT(places), bytes, len);
	list(dir);
	free(dir);
	free(fs->window);
	free(fs);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	if (len < 1)
		return 0;
	if (bytes[0] & 1)
		wide(bytes + 1, len - 1);
	else
		in_volume(bytes + 1, len - 1);
	return 0;
}

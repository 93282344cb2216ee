/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/vmfs_fuzz.h"

#include <stdio.h>
#include <string.h>

#include "vmfs/vmfs_mkfs.h"

#define MIB (UINT64_C(1) << 20)

static void fill(struct vmfs *fs)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	uint8_t bytes[9000] = { 1, 2, 3 };
	struct vmfs_node *root, *node;
	struct err err = { 0 };
	char name[32];

	CHECK(vmfs_walk(fs, "/", &root, &err) == 0);
	CHECK(vmfs_mkdir(root, "dir", &attributes, &err) == 0);
	CHECK(vmfs_symlink(root, "link", "target", &err) == 0);
	for (unsigned i = 0; i < 4; i++) {
		/* A sub-block, file blocks, pointer blocks, double pointer blocks. */
		static const uint64_t ends[] = { 0, 2 * MIB, 300 * MIB, 300 * 1024 * MIB };

		snprintf(name, sizeof(name), "file%u", i);
		CHECK(vmfs_create(root, name, &attributes, &node, &err) == 0);
		CHECK(vmfs_write(node, 0, bytes, 5000, &err) == 0);
		if (ends[i])
			CHECK(vmfs_write(node, ends[i], bytes, sizeof(bytes), &err) == 0);
		CHECK(vmfs_node_put(node, &err) == 0);
	}
	CHECK(vmfs_node_put(root, &err) == 0);
}

struct vmfs_mem *vmfs_fuzz_volume(void)
{
	const struct vmfs_mkfs_options mkfs = { .reads_zero = true, .now_s = 1, .file_count = 64 };
	const struct vmfs_options options = { 0 };
	static struct vmfs_mem *mem;
	struct vmfs_io *io;
	struct vmfs *fs;
	struct err err = { 0 };

	if (!mem) {
		mem = vmfs_mem_new(VMFS_DATA_OFFSET + VMFS_PE_BYTES);
		io = &mem->io;
		CHECK(vmfs_mkfs(&io, 1, &mkfs, &err) == 0);
		CHECK(vmfs_open(&io, 1, &options, &fs, &err) == 0);
		fill(fs);
		CHECK(vmfs_close(fs, &err) == 0);
		vmfs_mem_mark(mem);
	}
	vmfs_mem_reset(mem);
	return mem;
}

void vmfs_fuzz_patch(struct vmfs_mem *mem, const struct vmfs_fuzz_place *places, unsigned count,
		     const uint8_t *bytes, size_t len)
{
	while (len > 5) {
		const struct vmfs_fuzz_place *place = &places[(bytes[0] | bytes[1] << 8) % count];
		uint64_t offset = (unsigned)(bytes[2] | bytes[3] << 8) % place->len;
		size_t part = bytes[4];

		bytes += 5;
		len -= 5;
		part = MIN(MIN(part, len), place->len - offset);
		if (part)
			vmfs_mem_poke(mem, place->at + offset, bytes, part);
		bytes += part;
		len -= part;
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_rig.h - a VMFS5 volume in memory, open for writing, for cmocka tests: each call asserts. */
#ifndef BM_TESTS_VMFS_RIG_H
#define BM_TESTS_VMFS_RIG_H

#include "tests/lib/vmfs_mem.h"
#include "vmfs/vmfs.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define RIG_DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)

extern const struct vmfs_attributes vrig_plain;

struct rig {
	struct vmfs_mem *mems[2];
	struct vmfs_io *ios[2];
	unsigned count;
	struct vmfs *fs;
	struct vmfs_node *root;
};

/* A new volume on one or two devices, opened. */
void vrig_init(struct rig *rig, unsigned devices);
void vrig_release(struct rig *rig);
void vrig_open(struct rig *rig, bool read_only);
void vrig_close(struct rig *rig);
/* The check finds nothing; the same after it was closed and opened again. */
void vrig_clean(struct rig *rig);
void vrig_reopen_clean(struct rig *rig);
struct vmfs_space vrig_space(struct rig *rig);

/* A file in the root, with a reference. */
struct vmfs_node *vrig_make(struct rig *rig, const char *name);
void vrig_put(struct vmfs_node *node);
/* Bytes that depend on their place and the seed. */
void vrig_fill(uint8_t *bytes, size_t len, unsigned seed);
void vrig_write(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed);
void vrig_expect(struct vmfs_node *node, uint64_t offset, size_t len, unsigned seed);
void vrig_expect_zero(struct vmfs_node *node, uint64_t offset, size_t len);

#endif

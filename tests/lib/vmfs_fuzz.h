/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_fuzz.h - volumes for fuzzers: a sound one, changed by the input.
 *
 * An input is a list of patches: place (2 bytes, chosen among the metadata), offset in it (2),
 * length (1), bytes.  So small inputs reach deep structures.
 */
#ifndef BM_TESTS_VMFS_FUZZ_H
#define BM_TESTS_VMFS_FUZZ_H

#include "tests/lib/vmfs_mem.h"

struct vmfs_fuzz_place {
	uint64_t at, len;
};

/* The volume of this process, as it was when it was made; its io is read-only. */
struct vmfs_mem *vmfs_fuzz_volume(void);
void vmfs_fuzz_patch(struct vmfs_mem *mem, const struct vmfs_fuzz_place *places, unsigned count,
		     const uint8_t *bytes, size_t len);

#endif

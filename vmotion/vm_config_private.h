/* SPDX-License-Identifier: Apache-2.0 */
/* vm_config_private.h - what the files of vm_config share: reading keys, noting faults. */
#ifndef BM_VMOTION_VM_CONFIG_PRIVATE_H
#define BM_VMOTION_VM_CONFIG_PRIVATE_H

#include "vmotion/vm_config.h"

struct vm_reader {
	const struct vmx *vmx;
	struct vm_config *config;
	struct vm_findings *findings;
};

/*
 * Each notes a fault and then behaves as if the key were not there.  A value is text of one line;
 * "" counts as not there.
 */
bool vm_read_text(struct vm_reader *reader, const char *key, char *out, size_t out_bytes);
bool vm_read_flag(struct vm_reader *reader, const char *key, bool otherwise);
uint32_t vm_read_number(struct vm_reader *reader, const char *key, uint32_t min, uint32_t max,
			uint32_t otherwise);

/* vm_config_drives.c, vm_config_nics.c */
void vm_read_drives(struct vm_reader *reader);
void vm_read_nics(struct vm_reader *reader);

#endif

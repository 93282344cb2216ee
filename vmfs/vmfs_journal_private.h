/* SPDX-License-Identifier: Apache-2.0 */
/* vmfs_journal_private.h - between transactions and their records. */
#ifndef BM_VMFS_JOURNAL_PRIVATE_H
#define BM_VMFS_JOURNAL_PRIVATE_H

#include "vmfs/vmfs_private.h"

/* The gathered sectors as a record in our area; they are live then. */
int vmfs_journal_record(struct vmfs *fs);
bool vmfs_journal_is_live(const struct vmfs *fs, uint64_t offset, uint64_t len);
int vmfs_txn_grow(struct vmfs_txn *txn, uint32_t capacity);
/* -E2BIG: there is no room. */
int vmfs_txn_keep(struct vmfs_txn *txn, uint64_t offset, const uint8_t *bytes);

#endif
